"""Files on disk, before they are read as images: how large they are, and what only stands for one."""

from __future__ import annotations

import os
import stat

from monai_cae.errors import MonaiCaeError

_NOT_BROUGHT = "is {what} whose content is not on this machine: get it with {how}"
READING = os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOCTTY  # waits for no pipe, takes over no terminal


def pointer(start: bytes) -> str:
    """What to do about a file that stands for one that git-annex (DataLad) or Git LFS has not brought yet.

    Args:
        start: how the file begins.
    """
    if start.startswith(b"/annex/objects/"):
        return _NOT_BROUGHT.format(what="a git-annex pointer", how="datalad get, or git annex get")
    return _NOT_BROUGHT.format(what="a Git LFS pointer", how="git lfs pull") if b"git-lfs" in start[:64] else ""


def _dangling(path: str) -> str:
    """What a link that leads nowhere points to."""
    target = os.readlink(path)  # noqa: PTH115
    if "/annex/objects/" in target:
        return _NOT_BROUGHT.format(what="a git-annex link", how="datalad get, or git annex get")
    return f"is a link to {target}, which does not exist: restore that file, or correct the link"


def size_of(path: str, asked: str) -> int:
    """Bytes of a regular file; `asked` is the name that the user gave.

    Raises:
        MonaiCaeError: it is not there or can't be looked at, or is no regular file.
    """
    try:
        found = os.stat(path)  # noqa: PTH116  # one slice costs 25 us, a Path two of them
    except FileNotFoundError as error:
        if os.path.islink(path):  # noqa: PTH114
            raise MonaiCaeError(f"{path} {_dangling(path)}") from error
        if path[-4:].lower() == ".img":
            raise MonaiCaeError(f"{path} is missing next to its .hdr: copy the scan again") from error
        raise MonaiCaeError(f"no image at {path}: check --dataset_dir") from error
    except (OSError, ValueError) as error:  # no permission, a loop of links, a NUL in the name
        raise MonaiCaeError(f"{asked} can't be read ({first_line(error)}): check the file") from error
    return _regular(found, path)


def beginning(path: str, asked: str, count: int) -> tuple[bytes, int]:
    """The first bytes of a regular file, and how many it has in all; otherwise see `size_of`.

    It is opened before it is looked at, as the system finds a path more slowly than what is open: of nothing else
    is anything read.
    """
    try:
        descriptor = os.open(path, READING)
        try:
            size = _regular(os.fstat(descriptor), path)
            return os.read(descriptor, count), size
        finally:
            os.close(descriptor)
    except (OSError, ValueError) as error:
        size_of(path, asked)  # where it can say more
        raise MonaiCaeError(f"{asked} can't be read ({first_line(error)}): check the file") from error


def _regular(found: os.stat_result, path: str) -> int:
    if not stat.S_ISREG(found.st_mode):  # a pipe would be waited for, a device has no end
        raise MonaiCaeError(f"{path} is a folder, a pipe or a device: give an image file")
    return found.st_size


def first_line(error: Exception) -> str:
    """What an error says, without what follows in other lines."""
    text = error.strerror if isinstance(error, OSError) and error.strerror else str(error).strip()
    return text.splitlines()[0] if text else type(error).__name__
