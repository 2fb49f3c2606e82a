"""The scale of a prepared image."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

_DARKEST = 1e-3  # of a voxel in the brain: 0 means outside


def scaled(image: NDArray[np.float32], mask: NDArray[np.bool_], percentile: float) -> NDArray[np.float32]:
    """A percentile of the brain becomes 1 and what is brighter too; 0 stays 0, so that contrasts are kept.

    Args:
        image, mask: of one shape; the mask is not empty.
        percentile: below 100, so that a few bright vessels do not set the scale.

    Returns:
        float32: 0 outside the mask, 0.001 to 1 inside.
    """
    top = np.percentile(image[mask], percentile)
    inside = np.clip(image / max(top, np.finfo(np.float32).tiny), _DARKEST, 1)
    return np.where(mask, inside, 0).astype(np.float32)
