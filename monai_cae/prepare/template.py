"""What scans are registered to: the ICBM152 brain in the T88-like frame."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from monai_cae.data.template import COMMISSURE, FRAME_SHAPE, MNI_PER_T88, frame_affine, load_icbm152

_CLOSING_MM = 8.0  # of the template's mask: a mask of a brain covers its sulci


@dataclass(frozen=True)
class Template:
    """Maps of shape (176, 208, 176), 1 mm, axes RAS+.

    Attributes:
        brain: T1, 0 to 1, 0 outside the brain.
        mask: the brain with its sulci, bool.
        white: share of white matter, 0 to 1.
        affine: voxels to mm, the anterior commissure at 0.
    """

    brain: NDArray[np.float32]
    mask: NDArray[np.bool_]
    white: NDArray[np.float32]
    affine: NDArray[np.float64]


@lru_cache(maxsize=1)
def load_template() -> Template:
    """Read nilearn's maps and put them into the frame; kept for the next scan.

    Raises:
        MonaiCaeError: nilearn is not installed.
    """
    brain, white = (_on_frame(name) for name in ("t1", "wm"))
    near = ndimage.distance_transform_edt(brain <= 0.1) <= _CLOSING_MM
    mask = np.asarray(ndimage.distance_transform_edt(near) > _CLOSING_MM)
    return Template(brain, mask, white, frame_affine())


def _on_frame(name: str) -> NDArray[np.float32]:
    volume, origin = load_icbm152(name, "prepare")
    scale = np.array(MNI_PER_T88)
    moved = ndimage.affine_transform(volume, scale, origin - scale * COMMISSURE, FRAME_SHAPE, order=1)
    return np.asarray(moved / 255, dtype=np.float32)
