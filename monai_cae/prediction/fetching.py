"""Scans from elsewhere, in a folder of this process while it predicts them."""

from __future__ import annotations

import atexit
import shutil
import tempfile
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from functools import cache
from pathlib import Path

from filelock import FileLock, Timeout

from monai_cae.errors import MonaiCaeError
from monai_cae.prediction.listing import file_system, voxels_of

_PREFIX = "monai-cae-fetched-"
_AT_ONCE = 8  # files that are on their way
_locks: list[FileLock] = []  # held as long as the process lives


@contextmanager
def fetched(addresses: Sequence[str]) -> Iterator[dict[str, Path | MonaiCaeError]]:
    """Copy files here, and remove the copies after the block.

    Args:
        addresses: of fsspec; of a pair the header, with which the voxels come, and SPM's .mat if there is one.

    Yields:
        Address -> its copy, which has the same name, or why there is none.
    """
    if not addresses:
        yield {}
        return
    folder = Path(tempfile.mkdtemp(dir=_own_folder()))
    try:
        with ThreadPoolExecutor(_AT_ONCE, "fetching") as pool:
            copies = pool.map(_fetch, addresses, (folder / str(number) for number in range(len(addresses))))
            found = dict(zip(addresses, copies, strict=True))
        yield found
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _fetch(address: str, folder: Path) -> Path | MonaiCaeError:
    try:
        fs, path = file_system(address)
        folder.mkdir()
        for one in {path, voxels_of(path)}:
            fs.get_file(one, str(folder / one.rpartition("/")[2]))
        if voxels_of(path) != path and fs.exists(spm := f"{path[:-4]}.mat"):
            fs.get_file(spm, str(folder / spm.rpartition("/")[2]))
        return folder / path.rpartition("/")[2]
    except MonaiCaeError as error:
        return error
    except Exception as error:  # each file system has its own
        reason = " ".join(str(error).split()) or type(error).__name__
        return MonaiCaeError(f"can't fetch {address} ({type(error).__name__}: {reason})")


@cache
def _own_folder() -> str:
    """Made once in a process; those of processes that were killed are removed: the system has dropped their locks."""
    for left in Path(tempfile.gettempdir()).glob(f"{_PREFIX}*"):
        with suppress(Timeout, OSError), FileLock(left / ".lock", timeout=0):
            shutil.rmtree(left, ignore_errors=True)
    unlocked = Path(tempfile.mkdtemp(prefix=f".{_PREFIX}"))
    lock = FileLock(unlocked / ".lock")
    lock.acquire()
    _locks.append(lock)
    folder = unlocked.rename(unlocked.with_name(unlocked.name.removeprefix(".")))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    return str(folder)
