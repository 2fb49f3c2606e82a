"""Gzip streams are read as Python's own GzipFile reads them."""

from __future__ import annotations

import gzip
import zlib

import numpy as np
import pytest

from monai_cae.data.images.inflating import InflatedFile

CONTENT = np.random.default_rng(0).integers(0, 40, 300_000).astype(np.uint8).tobytes()


def read(path, parts):
    """The bytes at some places, `(position, count)` in turn."""
    file = InflatedFile(str(path))
    try:
        found = []
        for position, count in parts:
            buffer = bytearray(count)
            filled = file.read_at(position, buffer)
            found.append(bytes(buffer[:filled]))
        return found
    finally:
        file.close()


@pytest.mark.parametrize(
    "packed",
    [
        gzip.compress(CONTENT),
        gzip.compress(CONTENT[:1000]) + gzip.compress(CONTENT[1000:]),
        gzip.compress(CONTENT[:7]) + b"\0" * 70_000 + gzip.compress(CONTENT[7:]) + b"\0" * 5,
    ],
    ids=["one stream", "two", "padded"],
)
def test_content_is_that_of_every_stream(tmp_path, packed):
    path = tmp_path / "a.gz"
    path.write_bytes(packed)
    assert gzip.decompress(packed) == CONTENT
    parts = [(0, 10), (10, 0), (10, 5000), (150_000, 100_000), (299_990, 20), (300_000, 1)]
    expected = [CONTENT[position : position + count] for position, count in parts]
    assert read(path, parts) == expected
    assert read(path, [(400_000, 4)]) == [b""]
    with pytest.raises(ValueError, match="forwards"):
        read(path, [(100, 1), (100, 1)])


@pytest.mark.parametrize(
    ("damage", "error"),
    [
        (lambda packed: packed[:-9], EOFError),
        (lambda packed: packed[: len(packed) // 2], EOFError),
        (lambda packed: packed[:-8] + b"abcd" + packed[-4:], zlib.error),  # the checksum
        (lambda packed: packed[:1000] + b"\xff" * 1000 + packed[2000:], zlib.error),
        (lambda packed: packed + b"more", zlib.error),
        (lambda packed: b"no gzip" + packed, zlib.error),
    ],
    ids=["end", "half", "checksum", "middle", "more", "none"],
)
def test_what_is_broken_is_an_error(tmp_path, damage, error):
    path = tmp_path / "a.gz"
    path.write_bytes(damage(gzip.compress(CONTENT)))
    with pytest.raises(error):
        read(path, [(0, len(CONTENT)), (len(CONTENT), 4 * len(CONTENT))])
