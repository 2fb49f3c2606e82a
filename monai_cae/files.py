"""Write files and folders so that no reader sees half of one."""

from __future__ import annotations

import errno
import hashlib
import os
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from monai_cae import __version__
from monai_cae.errors import MonaiCaeError

FORMAT = 1  # of all files that are written to be read back, see docs/reference/formats.md; those before 1.0 have none
FORMAT_KEY = "monai_cae_format"
_FULL = (errno.ENOSPC, errno.EDQUOT)
_LOOK = 0.5  # seconds that a lock is waited for: whoever only looks whether there is one has it for a moment
_TEMPORARY = ".*-unfinished-*"  # as `replacing` names files while they are written


@contextmanager
def replacing(path: str | Path, advice: str = "choose another --output_dir") -> Iterator[Path]:
    """Give a temporary name beside `path`, and rename it to `path` once the block has ended without an error.

    Folders are made as needed; after an error the temporary file is removed and an older `path` is as it was. What was
    written is on the disk before the name is, so that a power failure leaves the old file or the new one.

    Args:
        path: the file.
        advice: what the user should do where it can't be written.

    Raises:
        MonaiCaeError: the folder or the file can't be written.
    """
    path = Path(path)
    temporary = path.with_name(f".{os.getpid()}-unfinished-{path.name}")  # the suffix tells some writers the format
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            yield temporary
            with temporary.open("rb+") as file:
                os.fsync(file.fileno())
            os.replace(temporary, path)
        finally:
            temporary.unlink(missing_ok=True)
    except OSError as error:
        if error.errno in _FULL:
            advice = "free some space; what was there before is intact"
        raise MonaiCaeError(f"can't write {path} ({error.strerror or error}): {advice}") from error


def write_text(path: str | Path, text: str, advice: str = "choose another --output_dir") -> None:
    """Replace a file by a text in UTF-8; see `replacing`."""
    with replacing(path, advice) as temporary:
        temporary.write_text(text, encoding="utf-8")


def refuse_same_folder(out: Path, read: Path, what: str) -> None:
    """Raise MonaiCaeError where results would be written beside what they are made from, and be read with it later."""
    if out.is_dir() and read.is_dir() and out.samefile(read):
        raise MonaiCaeError(f"{out} is the folder of {what}: choose another folder for the results")


@contextmanager
def only_writer(folder: str | Path) -> Iterator[None]:
    """Let no other process that asks for the same write to a folder during the block; leftovers of one that was killed
    are removed first.

    The operating system drops the lock with the process, however that ends; the file `.lock` stays, unless the block
    has written nothing: then it goes again, and so do folders that were made for it.

    Raises:
        MonaiCaeError: another process has the folder, or it can't be written.
    """
    folder = Path(folder).absolute()
    try:
        made = [path for path in (folder, *folder.parents) if not path.exists()]
        folder.mkdir(parents=True, exist_ok=True)
        lock_file = folder / ".lock"
        before = set() if lock_file.exists() else {lock_file, *folder.iterdir()}
        lock = FileLock(lock_file)
        lock.acquire(timeout=_LOOK, poll_interval=_LOOK / 10)
    except Timeout as error:
        raise MonaiCaeError(
            f"another process is writing to {folder}: wait until it has ended, or choose another --output_dir"
        ) from error
    except NotImplementedError as error:  # as filelock tells of a file system without locks
        raise MonaiCaeError(f"{folder} lies on a file system without locks: choose another --output_dir") from error
    except OSError as error:
        raise MonaiCaeError(f"can't write {folder} ({error.strerror or error}): choose another --output_dir") from error
    try:
        for leftover in (*folder.glob(_TEMPORARY), *folder.glob(f"*/{_TEMPORARY}")):
            if leftover.is_file():
                leftover.unlink()
        yield
    finally:
        if folder.is_dir() and before.issuperset(folder.iterdir()):  # refused before anything was written
            lock_file.unlink(missing_ok=True)
            for path in made:
                with suppress(OSError):  # somebody else has written there
                    path.rmdir()
        lock.release()


@contextmanager
def new_folder(path: str | Path) -> Iterator[Path]:
    """Give a temporary folder beside `path`, and rename it to `path` once the block has ended without an error.

    An empty folder that is there gets what is in the temporary one, by renaming too.

    Raises:
        MonaiCaeError: `path` is there and is not an empty folder, or it can't be written.
    """
    path = Path(path).absolute()
    temporary = path.with_name(f".{os.getpid()}-unfinished-{path.name}")
    try:
        if path.exists() and (not path.is_dir() or any(path.iterdir())):
            raise MonaiCaeError(f"{path} exists and is not an empty folder: choose another, or delete it")
        try:
            temporary.mkdir(parents=True)
            yield temporary
            if path.exists():  # it may be the folder that the user's shell is in: filled, not replaced
                for item in temporary.iterdir():
                    item.rename(path / item.name)
            else:
                temporary.rename(path)
        finally:
            shutil.rmtree(temporary, ignore_errors=True)
    except OSError as error:
        raise MonaiCaeError(f"can't write {path} ({error.strerror or error}): choose another folder") from error


def marked(content: Mapping[str, Any]) -> dict[str, Any]:
    """What a file says, with the format that it is written in."""
    return {FORMAT_KEY: FORMAT, **content}


def unmarked(content: Mapping[str, Any], path: str | Path) -> dict[str, Any]:
    """What a file says, without its format; one without a format was written before 1.0, and reads the same.

    Args:
        content: as it was read.
        path: of the file, for the message.

    Raises:
        MonaiCaeError: a format that this version does not know.
    """
    found = content.get(FORMAT_KEY, FORMAT)
    if type(found) is not int or not 0 <= found <= FORMAT:
        raise MonaiCaeError(
            f"{path} has {FORMAT_KEY} {ascii(found)[:20]}, and monai-cae {__version__} reads up to {FORMAT}: "
            "pip install --upgrade monai-cae, or make the file again with this version"
        )
    return {name: value for name, value in content.items() if name != FORMAT_KEY}


def sha256_of(path: str | Path) -> str:
    """SHA-256 of a file's bytes, in hexadecimal digits."""
    digest = hashlib.sha256()
    with Path(path).open("rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()
