"""What another tool has done already, so that it is not done twice."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from monai_cae.data.template import MNI_PER_T88
from monai_cae.prepare.brain import largest_part
from monai_cae.prepare.grids import matrix_of, transform_of
from monai_cae.prepare.template import Template

_BRAIN_ML = (700.0, 2200.0)  # a stripped brain; heads have 2.5 l and more
_LEAST_SHARE = 0.9  # of what is not background, in one part
_MOST_AT_BORDER = 0.02  # of the volume's faces covered: a brain floats, a head is cut at the neck
_IN_PLACE_MEAN_MM, _IN_PLACE_MOST_MM = 3.0, 6.0  # within the brain


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


def in_place(found: Any, affine: NDArray[np.float64], template: Template) -> Any | None:
    """The transform of a brain that already lies where the template does, to within what registrations differ by.

    Two frames are known: the template's own, and MNI's, from which it is scaled.

    Args:
        found: where the registration has found the template, as a SimpleITK AffineTransform.
        affine: of the scan, voxels to mm, RAS+.

    Returns:
        The frame's own transform; None where the brain lies elsewhere.
    """
    axes = affine[:3, :3] / np.linalg.norm(affine[:3, :3], axis=0)
    if not np.allclose(axes, np.eye(3), atol=1e-4):  # what was resampled to a template has its axes
        return None
    points = np.argwhere(template.mask[::8, ::8, ::8]) * 8 + template.affine[:3, 3]
    matrix = matrix_of(found)
    for scale in ((1.0, 1.0, 1.0), MNI_PER_T88):
        apart_mm = np.linalg.norm(points @ matrix[:3, :3].T + matrix[:3, 3] - points * scale, axis=1)
        if apart_mm.mean() <= _IN_PLACE_MEAN_MM and apart_mm.max() <= _IN_PLACE_MOST_MM:
            return transform_of(np.diag([*scale, 1.0]))
    return None


def similarity(image: NDArray[np.float32], brain: NDArray[np.float32], inside: NDArray[np.bool_]) -> float:
    """Correlation of two images within a mask, both clipped to their 1st and 99th percentile there."""
    one, other = (np.clip(v[inside], *np.percentile(v[inside], (1, 99))) for v in (image, brain))
    return float(np.corrcoef(one, other)[0, 1])
