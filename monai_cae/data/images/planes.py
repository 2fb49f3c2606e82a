"""The axis that a plane cuts: one rule for files and for volumes in memory."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from nibabel.orientations import inv_ornt_aff, io_orientation
from numpy.typing import NDArray

from monai_cae.errors import MonaiCaeError

PLANES = {"sagittal": 0, "coronal": 1, "axial": 2}  # axes to the right, to the front, upwards
AXES = ("anatomical", "stored")
_LEAST_VOLUME = 1e-6  # of the unit cube under an affine without its scales: below, its axes lie in one plane


class View(NamedTuple):
    """The axes of a volume as they are counted: those of the file, or turned into the closest RAS+."""

    shape: tuple[int, int, int]
    affine: NDArray[np.float64]  # shape (4, 4); copy it before you change it
    order: tuple[int, int, int] = (0, 1, 2)  # which stored axis each of the axes is
    flipped: tuple[bool, bool, bool] = (False, False, False)  # which of the axes run against the stored ones

    @property
    def as_stored(self) -> bool:
        """Nothing is turned."""
        return self.order == (0, 1, 2) and not any(self.flipped)

    def stored(self, axis: int, start: int, stop: int) -> tuple[int, int, int]:
        """The stored axis, and where neighbouring slices of this view's axis lie on it."""
        size = self.shape[axis]
        return (self.order[axis], size - stop, size - start) if self.flipped[axis] else (self.order[axis], start, stop)

    def turned(self, array: NDArray[Any]) -> NDArray[Any]:
        """A volume, or a part of it, from the stored axes into this view's."""
        if self.as_stored:
            return array
        steps = tuple(slice(None, None, -1 if flipped else 1) for flipped in self.flipped)
        return array.transpose(self.order)[steps].copy()  # PyTorch takes no negative strides


def closest_view(shape: tuple[int, int, int], affine: NDArray[np.float64]) -> View | None:
    """A volume as `nibabel.as_closest_canonical` turns it; None where its affine, to RAS+, gives no orientation."""
    with np.errstate(all="ignore"):
        directions = affine[:3, :3] / np.linalg.norm(affine[:3, :3], axis=0)
        if not np.isfinite(affine).all() or not abs(np.linalg.det(directions)) > _LEAST_VOLUME:  # NaN is not above it
            return None
        orientation = io_orientation(affine)
        if np.isnan(orientation).any():
            return None
        order = np.argsort(orientation[:, 0])
        turned = affine @ inv_ornt_aff(orientation, shape)
    x, y, z = (int(axis) for axis in order)
    a, b, c = (bool(orientation[axis, 1] < 0) for axis in order)
    return View((shape[x], shape[y], shape[z]), turned, (x, y, z), (a, b, c))


def spacing_of(
    pixdim: tuple[float, float, float], affine: NDArray[np.float64], shape: tuple[int, int, int]
) -> tuple[float, float, float]:
    """The affine's sizes where they are others than pixdim's by more than is rounded; of one slice none is."""
    x, y, z = (round(float(size), 3) for size in np.linalg.norm(affine[:3, :3], axis=0))
    alike = np.isclose(pixdim, (x, y, z), rtol=0.01) | (np.array(shape) == 1)
    return pixdim if alike.all() else (x, y, z)


def plane_axis(plane: str) -> int:
    """0, 1 or 2; MonaiCaeError where the plane is unknown."""
    if plane not in PLANES:
        raise MonaiCaeError(f"plane must be axial, coronal or sagittal, not {plane!r}")
    return PLANES[plane]


def check_axes(axes: str) -> None:
    """MonaiCaeError unless they are anatomical or stored."""
    if axes not in AXES:
        raise MonaiCaeError(f"axes must be anatomical or stored, not {axes!r}")
