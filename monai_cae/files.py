"""Writing files so that a reader never meets half of one."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from monai_cae.errors import MonaiCaeError


@contextmanager
def replacing(path: str | Path) -> Iterator[Path]:
    """Give a temporary name beside `path`, and rename it to `path` once the block has ended without an error.

    Folders are made as needed; after an error the temporary file is removed and an older `path` is as it was.

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
        raise MonaiCaeError(f"can't write {path} ({error.strerror or error}): choose another --output_dir") from error
