"""Writing files and folders so that a reader never meets half of one."""

from __future__ import annotations

import hashlib
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from monai_cae.errors import MonaiCaeError


@contextmanager
def replacing(path: str | Path, advice: str = "choose another --output_dir") -> Iterator[Path]:
    """Give a temporary name beside `path`, and rename it to `path` once the block has ended without an error.

    Folders are made as needed; after an error the temporary file is removed and an older `path` is as it was.

    Args:
        path: the file.
        advice: what the user should do where it can't be written.

    Raises:
        MonaiCaeError: the folder or the file can't be written.
    """
    path = Path(path)
    temporary = path.with_name(f".{os.getpid()}-{path.name}")  # keeps the suffix, which tells some writers the format
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            yield temporary
            os.replace(temporary, path)
        finally:
            temporary.unlink(missing_ok=True)
    except OSError as error:
        raise MonaiCaeError(f"can't write {path} ({error.strerror or error}): {advice}") from error


@contextmanager
def new_folder(path: str | Path) -> Iterator[Path]:
    """Give a temporary folder beside `path`, and rename it to `path` once the block has ended without an error.

    An empty folder that is there gets what is in the temporary one, by renaming too.

    Raises:
        MonaiCaeError: `path` is there and is not an empty folder, or it can't be written.
    """
    path = Path(path).absolute()
    temporary = path.with_name(f".{os.getpid()}-{path.name}")
    try:
        if path.exists() and (not path.is_dir() or any(path.iterdir())):
            raise MonaiCaeError(f"{path} is there and is not an empty folder: choose another, or delete it")
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


def sha256_of(path: str | Path) -> str:
    """SHA-256 of a file's bytes, in hexadecimal digits."""
    digest = hashlib.sha256()
    with Path(path).open("rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()
