"""Which axis a plane cuts, and which slice of it: one rule for files and for volumes in memory."""

from __future__ import annotations

from collections.abc import Sequence
from numbers import Integral

from monai_cae.errors import MonaiCaeError

# Axes of the OASIS-1 T88 volumes as nibabel reads them: 0 left-right, 1 posterior-anterior, 2 inferior-superior.
AXES = {"sagittal": 0, "coronal": 1, "axial": 2}


def plane_axis(plane: str) -> int:
    """
    Raises:
        MonaiCaeError: an unknown plane.
    """
    if plane not in AXES:
        raise MonaiCaeError(f"plane must be axial, coronal or sagittal, not {plane!r}")
    return AXES[plane]


def position(shape: Sequence[int], plane: str, slice_index: int, where: str) -> int:
    """0-based position of a slice along its plane's axis.

    An image with a single slice in that plane is that slice, whatever the index: such cohorts were cut before.

    Args:
        shape: the volume's three sizes.
        plane: "axial", "coronal" or "sagittal".
        slice_index: 1-based, as the paper counts.
        where: names the volume in the error.

    Raises:
        MonaiCaeError: an index outside the volume.
    """
    count = shape[plane_axis(plane)]
    if count == 1:
        return 0
    if isinstance(slice_index, bool) or not isinstance(slice_index, Integral) or not 1 <= slice_index <= count:
        raise MonaiCaeError(f"slice_index {slice_index} is outside {where}: its {plane} slices are 1 to {count}")
    return int(slice_index) - 1
