"""Find slices of two sets that show the same brain, by correlation of fine detail."""

from __future__ import annotations

from collections.abc import Iterator
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
THRESHOLD = f"correlation of fine detail at least {SAME_SLICE_CORRELATION}, in slices of {WAVES} pixels or more"

# Mirroring an axis changes the sign of its odd coefficients, so these four combinations of the (even, even),
# (even, odd), (odd, even), (odd, odd) ones are the correlations with a slice and its three mirror images.
_MIRRORS = np.array([[1, 1, 1, 1], [1, -1, 1, -1], [1, 1, -1, -1], [1, -1, -1, 1]], np.float32)


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
    unit = square / max(np.linalg.norm(square), np.finfo(np.float32).tiny)
    half = WAVES // 2
    return unit.reshape(half, 2, half, 2).transpose(1, 3, 0, 2).reshape(4, half * half)


def near_duplicates(a: _Array, b: _Array) -> Iterator[tuple[_Array, _Array, _Array]]:
    """Rows of `a` and of `b` (n, 4, 576) that correlate, mirrored or not, and their correlations, in parts."""
    step = min(256, max(1, 2**23 // max(len(a), 1)))  # at most 134 MB of correlations at a time
    for start in range(0, len(b), step):
        products = a.transpose(1, 0, 2) @ b[start : start + step].transpose(1, 2, 0)
        best = np.tensordot(_MIRRORS, products, 1).max(0)
        row, column = np.nonzero(best >= SAME_SLICE_CORRELATION)
        yield row, column + start, best[row, column]
