"""A gzip stream, read forwards in large pieces: Python's own GzipFile hands on a few kilobytes at a time."""

from __future__ import annotations

import zlib
from io import FileIO
from typing import Any

import numpy as np

_PIECE = 32 << 10  # that is read of the file at once
_SKIPPED = 1 << 20  # that is inflated at once and not wanted: bounds the memory, whatever a file claims
_GZIP = 31  # zlib's word for a gzip stream with its checksum


class InflatedFile:
    """The content of a .gz file. What is asked for must not lie before what was asked for last.

    Args:
        path: the file; several streams behind each other are one, and zeros between or behind them nothing.

    Raises:
        OSError: it can't be read.
        zlib.error: in use: it is no gzip stream, or broken.
        EOFError: in use: it ends within a stream.
    """

    def __init__(self, path: str) -> None:
        self._file = FileIO(path)
        self._stream = zlib.decompressobj(_GZIP)
        self._packed = b""
        self._begun = False  # the stream has had a byte
        self._position = 0

    @property
    def position(self) -> int:
        """Of the content: the byte behind what was read last."""
        return self._position

    def close(self) -> None:
        self._file.close()

    def read_at(self, position: int, buffer: Any) -> int:
        """Go on to a byte of the content and fill a buffer from there on, or what of it the content has; gives the
        number of bytes. ValueError where the byte lies behind."""
        if position < self._position:
            raise ValueError("a gzip stream is read forwards")
        while self._position < position:
            if not self._inflated(min(_SKIPPED, position - self._position)):
                return 0
        view, filled = np.frombuffer(buffer, np.uint8), 0
        while filled < len(view) and (found := self._inflated(len(view) - filled)):
            view[filled : filled + len(found)] = np.frombuffer(found, np.uint8)
            filled += len(found)
        return filled

    def check_sum(self) -> None:
        """Where the stream ends soon behind what was read last, hold it against its checksum; errors: see the class."""
        left = _SKIPPED  # a byte that is spoilt may have made the content longer
        while left > 0 and not self._stream.eof:
            self._packed = self._packed or self._file.read(_PIECE) or b""
            if not self._packed:
                raise EOFError("the file ends before its checksum")
            left -= len(self._stream.decompress(self._packed, left))
            self._packed = self._stream.unconsumed_tail

    def _inflated(self, most: int) -> bytes:
        """The next bytes, some of those that are wanted at least; none at the end."""
        while True:
            if self._stream.eof:
                self._packed = self._stream.unused_data.lstrip(b"\0")
                self._stream, self._begun = zlib.decompressobj(_GZIP), False
            if not self._packed:
                self._packed = self._file.read(_PIECE) or b""
                if not self._packed:
                    if self._begun:
                        raise EOFError("Compressed file ended before the end-of-stream marker was reached")
                    return b""
                if not self._begun and self._position:
                    self._packed = self._packed.lstrip(b"\0")
                    if not self._packed:
                        continue
            self._begun = True
            found = self._stream.decompress(self._packed, most)
            self._packed = self._stream.unconsumed_tail
            if found:
                self._position += len(found)
                return found
