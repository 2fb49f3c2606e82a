"""Which slices of two sets show the same brain: correlation of fine detail, found without comparing all pairs."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import combinations
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage
from scipy.fft import dctn

_Array = NDArray[Any]

# Measured on OASIS-1 (masked, T88 space, JPEG once): 32 axial slices 1 mm apart of 112 subjects, as `describe` sees
# them. One subject: 1 mm apart 0.883 to 0.961 (3,472 pairs), 2 mm 0.674 to 0.865 (3,360), 3 mm at most 0.742. Two
# subjects, slices 0 to 2 mm apart, mirrored or not: at most 0.581 (957,264 pairs; median 0.36). Synthetic brains, all
# from one symmetric template: at most 0.634. The threshold is the middle between 0.634 and 0.883, rounded.
SAME_SLICE_CORRELATION = 0.75

# Fine detail: a difference of Gaussians of these standard deviations, in half-waves per field of view. Gyri tell people
# apart; outline and ventricles are coarser, and much alike. Smaller slices don't show it.
_BAND = (18.0, 56.0)
WAVES = 48  # cosine coefficients kept along each axis

# Up to this many pairs of two sets all are correlated: a second or two, less than reading the slices takes.
EXHAUSTIVE_PAIRS = 25_000_000
# Beyond, only pairs whose hashes (signs of the lowest coefficients from `_HASHED_FROM` half-waves) agree in one of 32
# bands but for one bit: by the pigeonhole principle all pairs at up to 63 bits. Of the 1 mm pairs above all do, in 3
# bands or more; of the 2 mm pairs above the correlation threshold 9 % do not. Distances in bits: 1 mm at most 103, 2 mm
# above the threshold at most 171, two subjects at least 174 (median 238).
HASH_DISTANCE_BITS = 180
_HASHED_FROM = 12.0
_BANDS, _BAND_BITS = 32, 20

_WAVE = np.arange(WAVES)
_RADIUS = np.hypot(_WAVE[:, None], _WAVE)
# Mirroring an axis changes the sign of its odd coefficients, so these four combinations of the (even, even),
# (even, odd), (odd, even), (odd, odd) ones are the correlations with a slice and its three mirror images.
_MIRRORS = np.array([[1, 1, 1, 1], [1, -1, 1, -1], [1, 1, -1, -1], [1, -1, -1, 1]], np.float32)


def _by_parity(square: _Array) -> _Array:
    half = WAVES // 2
    return square.reshape(half, 2, half, 2).transpose(1, 3, 0, 2).reshape(4, half * half)


def describe(values: _Array) -> _Array:
    """Cosine coefficients (4 parities, 576) of a slice's fine detail, of unit norm.

    Brightness and contrast fall out, size too as lengths are relative to the field of view. Detail is divided by its
    own strength nearby: else the edge of the mask, alike in registered brains, would outweigh the gyri inside.
    """
    per_wave = np.array(values.shape) / np.pi
    fine, coarse = per_wave / _BAND[1], per_wave / _BAND[0]
    detail = ndimage.gaussian_filter(values, fine) - ndimage.gaussian_filter(values, coarse)
    floor = 0.2 * np.sqrt(np.mean(detail**2)) + 1e-6 * np.abs(values).max()  # where nothing is, rounding errors are
    detail /= np.sqrt(ndimage.gaussian_filter(detail**2, coarse)) + floor
    spectrum = dctn(detail, norm="ortho")[:WAVES, :WAVES]
    square = np.zeros((WAVES, WAVES), np.float32)
    square[: spectrum.shape[0], : spectrum.shape[1]] = spectrum
    square[0, 0] = 0
    return _by_parity(square / max(np.linalg.norm(square), np.finfo(np.float32).tiny))


def threshold(sizes: Sequence[int]) -> str:
    """In words, when `near_duplicates` finds two slices of sets of these sizes alike."""
    hashed = any(a * b > EXHAUSTIVE_PAIRS for a, b in combinations(sizes, 2))
    bits = f"; searched by hash, at most {HASH_DISTANCE_BITS} of {_BANDS * _BAND_BITS} bits apart" if hashed else ""
    return f"correlation of fine detail at least {SAME_SLICE_CORRELATION}, in slices of {WAVES} pixels or more{bits}"


def near_duplicates(a: _Array, b: _Array) -> Iterator[tuple[_Array, _Array, _Array]]:
    """Rows of `a` and of `b` (n, 4, 576) that correlate, mirrored or not, and their correlations, in parts."""
    if len(a) * len(b) <= EXHAUSTIVE_PAIRS:
        for start in range(0, len(b), 256):
            products = a.transpose(1, 0, 2) @ b[start : start + 256].transpose(1, 2, 0)
            best = np.tensordot(_MIRRORS, products, 1).max(0)
            row, column = np.nonzero(best >= SAME_SLICE_CORRELATION)
            yield row, column + start, best[row, column]
    else:
        for row, column in _share_a_band(a, b):
            best = (np.einsum("npd,npd->np", a[row], b[column]) @ _MIRRORS).max(1)
            alike = best >= SAME_SLICE_CORRELATION
            yield row[alike], column[alike], best[alike]


_LOWEST = np.argsort(_by_parity(np.where(_RADIUS < _HASHED_FROM, np.inf, _RADIUS)).ravel(), kind="stable")
_HASHED = _LOWEST[: _BANDS * _BAND_BITS].reshape(_BAND_BITS, _BANDS).T  # every band has coarse and fine bits
_BITS_SET = np.unpackbits(np.arange(256, dtype=np.uint8)[:, None], axis=1).sum(1, dtype=np.uint16)


def _share_a_band(a: _Array, b: _Array) -> Iterator[tuple[_Array, _Array]]:
    """Candidate rows of `a` and `b`, some more than once; time and memory grow with the rows, not with the pairs."""
    place = 1 << np.arange(_BAND_BITS)
    bits_a = a.reshape(len(a), -1)[:, _HASHED] > 0
    packed_a = np.packbits(bits_a.reshape(len(a), -1), axis=1)
    for mirror in _MIRRORS:
        mirrored = b * mirror[:, None]
        bits_b = mirrored.reshape(len(b), -1)[:, _HASHED] > 0
        packed_b = np.packbits(bits_b.reshape(len(b), -1), axis=1)
        for band in range(_BANDS):
            keys_a, keys_b = bits_a[:, band] @ place, bits_b[:, band] @ place
            order = np.argsort(keys_a, kind="stable")
            count = np.bincount(keys_a, minlength=1 << _BAND_BITS)
            start = np.cumsum(count) - count
            for probe in [0, *place.tolist()]:
                wanted = keys_b ^ probe
                many = count[wanted]
                column = np.repeat(np.arange(len(b)), many)
                within = np.arange(len(column)) - np.repeat(np.cumsum(many) - many, many)
                row = order[start[wanted][column] + within]
                near = _BITS_SET[packed_a[row] ^ packed_b[column]].sum(1) <= HASH_DISTANCE_BITS
                yield row[near], column[near]
