"""What another tool has done already, so that it is not done twice."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from monai_cae.data.template import MNI_PER_T88
from monai_cae.prepare.brain import largest_part
from monai_cae.prepare.grids import resampled, transform_of
from monai_cae.prepare.template import Template

_BRAIN_ML = (700.0, 2200.0)  # a stripped brain; heads have 2.5 l and more
_LEAST_SHARE = 0.9  # of what is not background, in one part
_MOST_AT_BORDER = 0.02  # of the volume's faces covered: a brain floats, a head is cut at the neck
_COARSE_MM = 2.0
_IN_PLACE_SIMILARITY = 0.9
_IN_PLACE_DICE = 0.93


def stripped_brain(voxels: NDArray[np.float32], affine: NDArray[np.float64]) -> NDArray[np.bool_] | None:
    """The brain of a scan that shows nothing else: one part of a brain's volume in a constant background.

    Args:
        voxels: axes RAS+.
        affine: voxels to mm.

    Returns:
        What is not background, without holes; None where the scan is not stripped.
    """
    corners = voxels[:: voxels.shape[0] - 1, :: voxels.shape[1] - 1, :: voxels.shape[2] - 1]
    background = np.median(corners)
    shown = voxels != background
    part = largest_part(shown)
    if part.sum() < _LEAST_SHARE * shown.sum():
        return None
    filled = np.asarray(ndimage.binary_fill_holes(part))
    volume_ml = filled.sum() * abs(np.linalg.det(affine[:3, :3])) / 1000
    faces = [np.take(filled, index, axis) for axis in range(3) for index in (0, -1)]
    at_border = sum(int(face.sum()) for face in faces) / sum(face.size for face in faces)
    if not _BRAIN_ML[0] <= volume_ml <= _BRAIN_ML[1] or at_border > _MOST_AT_BORDER:
        return None
    return filled


def in_place(
    inside: NDArray[np.float32], brain: NDArray[np.bool_], affine: NDArray[np.float64], template: Template
) -> Any | None:
    """The transform of a brain that lies where the template does, without having been moved.

    Two frames are known: the template's own, and MNI's, from which it is scaled.

    Args:
        inside: the scan, 0 outside the brain.
        brain: its mask.
        affine: voxels to mm, RAS+.

    Returns:
        A SimpleITK AffineTransform; None where the brain lies elsewhere.
    """
    axes = affine[:3, :3] / np.linalg.norm(affine[:3, :3], axis=0)
    if not np.allclose(axes, np.eye(3), atol=1e-4):  # what was resampled to a template has its axes
        return None
    grid = template.affine @ np.diag([_COARSE_MM, _COARSE_MM, _COARSE_MM, 1])
    coarse = tuple(np.s_[:: int(_COARSE_MM)] for _ in range(3))
    for scale in ((1.0, 1.0, 1.0), MNI_PER_T88):
        transform = transform_of(np.diag([*scale, 1.0]))
        mask = resampled(brain.astype(np.float32), affine, template.mask[coarse].shape, grid, transform) > 0.5
        there = resampled(inside, affine, mask.shape, grid, transform)
        both = mask & template.mask[coarse]
        if 2 * both.sum() < _IN_PLACE_DICE * (mask.sum() + template.mask[coarse].sum()):
            continue
        if similarity(there, template.brain[coarse], both) >= _IN_PLACE_SIMILARITY:
            return transform
    return None


def similarity(image: NDArray[np.float32], brain: NDArray[np.float32], inside: NDArray[np.bool_]) -> float:
    """Correlation of two images within a mask, both clipped to their 1st and 99th percentile there."""
    one, other = (np.clip(v[inside], *np.percentile(v[inside], (1, 99))) for v in (image, brain))
    return float(np.corrcoef(one, other)[0, 1])
