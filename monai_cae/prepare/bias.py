"""The bias field, by N4 (Tustison et al. 2010, IEEE Transactions on Medical Imaging 29:1310-1320)."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from monai_cae.prepare.grids import load_sitk, to_array, to_sitk
from monai_cae.prepare.settings import PrepareSettings

_LEAST_VOXELS = 4  # along an axis of the shrunken volume, below which a spline of order 3 has nothing to fit


def bias_field(
    voxels: NDArray[np.float32], mask: NDArray[np.bool_], affine: NDArray[np.float64], settings: PrepareSettings
) -> NDArray[np.float32]:
    """By what to divide the voxels; its geometric mean over the mask is 1.

    It is estimated inside the mask and evaluated at every voxel; outside the mask, where it is not supported by data,
    it stays within what it reaches inside.

    Args:
        voxels, mask: of one shape.
        affine: voxels to mm, RAS+.
        settings: `bias_shrink_mm`, `bias_spline_mm`, `bias_iterations`.

    Returns:
        float32, of the voxels' shape.
    """
    sitk = load_sitk()
    spacing = np.linalg.norm(affine[:3, :3], axis=0)
    shrink = [max(1, round(settings.bias_shrink_mm / size)) for size in spacing]
    shrink = [min(factor, max(1, n // _LEAST_VOXELS)) for factor, n in zip(shrink, voxels.shape, strict=True)]
    positive = np.where(mask, np.maximum(voxels, np.float32(1e-3) * voxels[mask].max()), 0)
    image, inside = (sitk.Shrink(to_sitk(array, affine), shrink) for array in (positive, mask))
    extent_mm = np.array(image.GetSize()) * image.GetSpacing()
    n4 = sitk.N4BiasFieldCorrectionImageFilter()
    n4.SetNumberOfControlPoints([int(np.ceil(mm / settings.bias_spline_mm)) + 3 for mm in extent_mm])
    n4.SetMaximumNumberOfIterations(list(settings.bias_iterations))
    n4.Execute(image, inside)
    log_field = to_array(n4.GetLogBiasFieldAsImage(to_sitk(positive, affine)))
    log_field -= log_field[mask].mean()
    return np.asarray(np.exp(np.clip(log_field, log_field[mask].min(), log_field[mask].max())), dtype=np.float32)
