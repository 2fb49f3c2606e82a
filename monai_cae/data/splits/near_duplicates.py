"""Find images of two sets that show the same brain, by correlation of fine detail in their slices."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
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
#
# Slabs of 5 slices 1 mm apart, every slice with every other, on the 112 real subjects (on 40 synthetic ones). One
# subject, 1 to 4 slices in common: 1.000; right above one another 0.920 (0.908), 1 mm between them 0.759 (0.720); 3 in
# common, moved by 1 mm to the side and 5 % noise 0.922 (0.921); 1 in common and 10 % noise 0.988 (0.994). Two subjects:
# at most 0.568 of 12,432 pairs (0.607 of 1,560).
#
# Volumes at 2 mm, real ones made of 32 slices. One subject, 10 % noise: 0.992 (0.997); moved along all three axes by
# 1 mm 0.835 (0.815), then with 5 % noise 0.833 (0.814), by 2 mm 1.000 (1.000), by 3 mm 0.818 (0.778); mirrored 1.000.
# Without moving the slices, 2 mm gave 0.535. Two subjects: at most 0.566 of 12,432 pairs (0.621 of 1,560).
#
# Coronal and sagittal slices of 136 real subjects, laid on a square: two subjects at most 0.647 and 0.560.
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


def describe_image(sections: Sequence[_Array], moved: bool = False) -> tuple[_Array, _Array]:
    """What is compared of an image: each of the first's descriptions with each of another image's second.

    Args:
        sections: slices of one plane next to each other.
        moved: of a volume, whose voxels are coarse: the second are of the middle slice alone, moved by a pixel in all
            directions; so both together find a copy that is moved by a voxel along any of the axes.

    Returns:
        Descriptions of shape `(n, 4, 576)`.
    """
    own = np.stack([describe(one.astype(np.float32)) for one in sections])
    if not moved:
        return own, own
    middle = sections[len(sections) // 2].astype(np.float32)
    ways = [(x, y) for x in (-1, 0, 1) for y in (-1, 0, 1)]
    return own, np.stack([describe(np.roll(middle, way, (0, 1))) for way in ways])


def near_duplicates(a: _Array, b: _Array) -> Iterator[tuple[_Array, _Array, _Array]]:
    """Images that correlate, mirrored or not, and their correlations, in parts.

    Args:
        a, b: descriptions, of shape `(n, j, 4, 576)` and `(m, k, 4, 576)`; the best of an image's count.

    Yields:
        Rows of `a`, rows of `b`, correlations.
    """
    ours, theirs, parities = a.shape[1], b.shape[1], a.reshape(-1, *a.shape[2:]).transpose(1, 0, 2)
    step = min(256, max(1, 2**23 // max(len(a) * ours * theirs, 1)))  # at most 134 MB of correlations at a time
    for start in range(0, len(b), step):
        part = b[start : start + step]
        products = parities @ part.reshape(-1, *b.shape[2:]).transpose(1, 2, 0)
        best = np.tensordot(_MIRRORS, products, 1).max(0).reshape(len(a), ours, len(part), theirs).max(axis=(1, 3))
        row, column = np.nonzero(best >= SAME_SLICE_CORRELATION)
        yield row, column + start, best[row, column]
