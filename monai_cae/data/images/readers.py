"""Reading one slice of a volume: only what is wanted leaves the disk."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from monai.config import PathLike
from monai.data import NibabelReader
from monai.utils import MetaKeys, SpaceKeys, ensure_tuple

from monai_cae.data.images.planes import check_axes, plane_axis, position
from monai_cae.data.images.slice_cache import read_slice
from monai_cae.data.images.volumes import find_volume
from monai_cae.errors import MonaiCaeError

SLICE_OF = "slice_of"  # in the metadata of a slice: the plane that this reader took it in

# Beyond these a slice's brightest value is a broken scale's: squares and sums of float32 would overflow or vanish.
LEAST_VALUE, LARGEST_VALUE = 1e-15, 1e15

# The metadata of a slice without a recorded orientation, in the words of NIfTI's header: `SelectSlice` looks at them.
UNORIENTED = {"qform_code": 0, "sform_code": 0}


class SliceReader(NibabelReader):
    """MONAI reader that takes one slice from an Analyze pair, .nii or .nii.gz, bit for bit what slicing the volume
    gives once `nibabel.as_closest_canonical` has turned it.

    The plane's axis stays, with size 1, and the affine is shifted to the slice, as nibabel's `img.slicer` does it. From
    uncompressed files only the slice's bytes are read (for one across the first stored axis, which has some of every
    row, a slice across the third at a time); a .nii.gz is inflated no further than the slice.

    Pass an instance to `LoadImaged(reader=...)`.

    Args:
        plane: "axial", "coronal" or "sagittal".
        slice_index: 1-based; an image with a single slice in the plane gives that one.
        axes: "anatomical" finds the plane through the affine, counts from left to right, posterior to anterior and
            inferior to superior, and gives the slice as it lies in the closest RAS+ volume. A file that records no
            orientation (Analyze without SPM's .mat, NIfTI with both codes 0, an affine that is not invertible) is
            taken as stored: its axes in turn are left to right, and so on. "stored" takes every file so.

    Raises:
        MonaiCaeError: an unknown plane or axes; in use: no such file, a broken or truncated one or one beyond the
            limits of `monai_cae.data.images.volumes`, not a 3D volume, an index outside it, a slice that is empty or
            has values that are not finite.
    """

    def __init__(self, plane: str = "axial", slice_index: int = 106, axes: str = "anatomical", **kwargs: Any) -> None:
        super().__init__(**kwargs)
        check_axes(axes)
        self.axis = plane_axis(plane)
        self.plane = plane
        self.slice_index = slice_index
        self.axes = axes

    def verify_suffix(self, filename: Sequence[PathLike] | PathLike) -> bool:
        """Whether the name ends as a format this reads."""
        return all(str(name).lower().endswith((".nii", ".nii.gz", ".img", ".hdr")) for name in ensure_tuple(filename))

    def read(self, data: Sequence[PathLike] | PathLike, **kwargs: Any) -> Any:
        """Hand on the file names: `LoadImage` would hide an error raised here and try its other readers."""
        return tuple(str(name) for name in ensure_tuple(data))

    def get_data(self, img: Any) -> tuple[np.ndarray, dict[Any, Any]]:
        """Read the slices.

        Args:
            img: file names, as `read` gives them.

        Returns:
            The slice, three-dimensional with size 1 along the plane's axis (several files are stacked in a last,
            channel, dimension), and the metadata of the first.
        """
        read = [self._read_slice(str(path)) for path in img]
        array, affine, oriented = read[0]
        meta = {
            **({} if oriented else UNORIENTED),
            MetaKeys.AFFINE: affine,
            MetaKeys.ORIGINAL_AFFINE: affine.copy(),
            MetaKeys.SPATIAL_SHAPE: np.asarray(array.shape),
            MetaKeys.SPACE: SpaceKeys.RAS,
            MetaKeys.ORIGINAL_CHANNEL_DIM: float("nan"),
            SLICE_OF: self.plane,
        }
        if len(read) == 1:
            return array, meta
        if len({one.shape for one, *_ in read}) > 1:
            names = ", ".join(str(path) for path in img)
            raise MonaiCaeError(f"{names} can't be channels of one image: their slices differ in shape")
        return np.stack([one for one, *_ in read], axis=-1), {**meta, MetaKeys.ORIGINAL_CHANNEL_DIM: -1}

    def _read_slice(self, name: str) -> tuple[np.ndarray, np.ndarray, bool]:
        volume = find_volume(name)
        view = volume.layout.view(self.axes)
        index = position(view.shape, self.plane, self.slice_index, name)
        axis, first, _ = view.stored(self.axis, index, index + 1)
        array = view.turned(read_slice(volume, axis, first))
        check_slice(array, f"{self.plane} slice {index + 1} of {name}")
        affine = view.affine.copy()
        with np.errstate(invalid="ignore", over="ignore"):  # a broken header's affine is `monai-cae check`'s to tell
            affine[:3, 3] += affine[:3, self.axis] * index
        return array, affine, bool(volume.layout.codes)


def check_slice(array: np.ndarray, where: str) -> None:
    """
    Raises:
        MonaiCaeError: the slice has values that are not finite or that no scan has, or is zero everywhere.
    """
    if array.dtype.kind in "iu":
        array = array.view(array.dtype.newbyteorder("="))  # zero in any byte order; native numbers need no conversion
        largest = 1.0 if array.any() else 0.0
    else:
        largest = float(max(abs(array.max()), abs(array.min())))  # of NaN both are NaN
    if not math.isfinite(largest):
        raise MonaiCaeError(f"{where} has values that are not finite (NaN or infinite): repair or leave out this scan")
    if largest == 0:
        raise MonaiCaeError(f"{where} is zero everywhere: choose another slice_index, or leave out this scan")
    if not LEAST_VALUE <= largest <= LARGEST_VALUE:
        raise MonaiCaeError(f"{where} has values up to {largest:.2g}, which no scan has: its header's scale is broken")
