"""Rows of a tensor that lies in a file: only those that are asked for are in memory."""

from __future__ import annotations

import math
import os
import weakref
import zlib
from collections import deque
from collections.abc import Callable, Generator, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import islice
from pathlib import Path
from typing import TypeVar

import torch

from monai_cae.errors import MonaiCaeError

_AHEAD = 2  # batches that are read while another is computed with
T = TypeVar("T")


class DiskRows:
    """Rows behind each other in a file. Read with `pread`, not mapped: the memory is that of a batch, and a file that
    is gone or cut off is an error in one line instead of the end of the process.

    Args:
        path: the file, open as long as this object is there.
        shape: of all rows, `(rows, ...)`.
        dtype: of a number.
    """

    device = torch.device("cpu")

    def __init__(self, path: Path, shape: Sequence[int], dtype: torch.dtype) -> None:
        self.path, self.shape, self.dtype = path, torch.Size(shape), dtype
        self._descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        weakref.finalize(self, os.close, self._descriptor)

    @property
    def row_bytes(self) -> int:
        return row_bytes(self.shape[1:], self.dtype)

    @property
    def nbytes(self) -> int:
        """Of all rows."""
        return len(self) * self.row_bytes

    def __len__(self) -> int:
        return self.shape[0]

    def take(self, where: torch.Tensor, out: torch.Tensor | None = None) -> torch.Tensor:
        """Rows by their numbers, as `torch.index_select` gives them; threads may ask at the same time.

        Raises:
            MonaiCaeError: the file can't be read any more.
        """
        out = torch.empty((len(where), *self.shape[1:]), dtype=self.dtype) if out is None else out
        try:
            for row, number in zip(out, where.tolist(), strict=True):
                if os.preadv(self._descriptor, [row.numpy().data], number * self.row_bytes) != self.row_bytes:
                    raise OSError("it is cut off")
        except OSError as error:
            raise MonaiCaeError(
                f"{self.path} can't be read any more ({error.strerror or error}): run the same command again"
            ) from error
        return out

    def is_whole(self, sums: Sequence[int]) -> bool:
        """Whether the file has all rows, with these checksums; see `checksum`."""
        return os.fstat(self._descriptor).st_size == self.nbytes and all(
            checksum(self.take(torch.tensor([number]))) == known for number, known in enumerate(sums)
        )


def row_bytes(shape: Sequence[int], dtype: torch.dtype) -> int:
    """Of one row of a shape."""
    return math.prod(shape) * dtype.itemsize


def checksum(row: torch.Tensor) -> int:
    """CRC-32 of its bytes."""
    return zlib.crc32(row.numpy().data)


def take(rows: torch.Tensor | DiskRows, where: torch.Tensor, out: torch.Tensor | None = None) -> torch.Tensor:
    """Rows of either kind by their numbers."""
    return rows.take(where, out) if isinstance(rows, DiskRows) else torch.index_select(rows, 0, where, out=out)


def read_ahead(read: Callable[[torch.Tensor], T], order: Sequence[torch.Tensor]) -> Generator[T, None, None]:
    """`read` of each part of an order, in turn; a thread is a few parts ahead."""
    pool = ThreadPoolExecutor(1, "reading")
    try:
        submitted = (pool.submit(read, part) for part in order)
        ahead = deque(islice(submitted, _AHEAD))
        while ahead:
            found = ahead.popleft().result()
            ahead.extend(islice(submitted, 1))
            if not ahead:
                pool.shutdown()  # engines ask no further, and leave the iterator where it is
            yield found
            del found
    finally:
        pool.shutdown(cancel_futures=True)
