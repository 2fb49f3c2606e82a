"""The scale of a prepared image."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from monai_cae.errors import MonaiCaeError

_DARKEST = 1e-3  # of a voxel in the brain: 0 means outside
_MOST_OFF = 0.1  # of the brain's range, by which dark may differ from 0: noise, and what interpolation overshoots
_SPIKE = 10  # times the brain's brightest: fat near a coil has a few
_BRIGHT = 99.5  # percentile of the brain
_DARK = 0.25  # of the brain's brightest: air and bone are darker
_MOST_GAP = 0.5  # of it, between the background and the darkest of the brain, which is fluid


def from_zero(
    voxels: NDArray[np.float32], brain: NDArray[np.bool_], name: str
) -> tuple[NDArray[np.float32], list[str]]:
    """A scan in which dark is 0, as a bias field multiplies it and contrasts are shares of the brightest.

    Args:
        voxels: the head or a stripped brain.
        brain: its mask, of the same shape.
        name: of the scan, for messages.

    Returns:
        The voxels, less the background's value where that is elsewhere, with a sentence that says so.

    Raises:
        MonaiCaeError: all of the brain has one value; the darkest voxels are not 0, and not the background's either, as
            of a brain that was normalised by itself, or are 0 only where nothing was measured: where its 0 was can't
            be known.
    """
    fluid, top = (float(value) for value in np.percentile(voxels[brain], (1, _BRIGHT)))
    if not top > fluid:
        raise MonaiCaeError(f"{name} has no contrast in the brain's mask: give the T1w scan itself")
    low = min(float(np.percentile(voxels[::2, ::2, ::2], 1)), fluid)
    if abs(low) <= _MOST_OFF * (top - low):
        around = voxels[~brain & (voxels != 0)]  # of a head, and not of its padding
        darkest = float(np.percentile(around, 1)) if around.size > brain.sum() else 0.0
        if darkest > _DARK * top:
            raise MonaiCaeError(
                f"{name} has {darkest:.3g} where the head is darkest, {top:.3g} where the brain is brightest, and 0 "
                "only around it, so that nothing tells its 0: give the scan as it was before a value was added to it"
            )
        return voxels, []
    background = float(np.median(voxels[:: voxels.shape[0] - 1, :: voxels.shape[1] - 1, :: voxels.shape[2] - 1]))
    if background - low > _MOST_OFF * (top - low) or fluid - background > _MOST_GAP * (top - background):
        raise MonaiCaeError(
            f"{name} has {low:.3g} where it is darkest, {background:.3g} in its corners and {top:.3g} where the brain "
            "is brightest, so that nothing tells its 0: give the scan as it was before its intensities were normalised"
        )
    return voxels - np.float32(background), [f"its background of {background:.3g} was taken for 0, and subtracted"]


def without_spikes(voxels: NDArray[np.float32], brain: NDArray[np.bool_]) -> tuple[NDArray[np.float32], list[str]]:
    """Cut what is far brighter, or as far below 0, as nothing in a head is: the bias field's estimate would see nothing
    else, and a spline spreads it over the voxels around.

    Returns:
        The voxels, and a sentence where any was cut.
    """
    most = _SPIKE * np.percentile(voxels[brain], _BRIGHT)
    count = int((np.abs(voxels) > most).sum())
    if not count:
        return voxels, []
    note = f"{count} voxels more than {_SPIKE} times as bright as the brain were cut to {most:.4g}"
    return np.clip(voxels, -most, most), [note]


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
