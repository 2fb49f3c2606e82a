"""Read only the wanted part of a volume from disk."""

from __future__ import annotations

import logging
import math
import warnings
from collections.abc import Sequence
from functools import partial
from typing import Any

import numpy as np
from monai.config import PathLike
from monai.data import NibabelReader
from monai.utils import MetaKeys, SpaceKeys, ensure_tuple
from numpy.typing import NDArray

from monai_cae.data.images.averaging import averaged, grid_affine
from monai_cae.data.images.cuts import NAMES, Cut, moved, origin, read_beside, read_crossing
from monai_cae.data.images.extraction import PAPER_SLICE, Extraction, SliceExtraction
from monai_cae.data.images.planes import View
from monai_cae.data.images.slice_cache import kept, read_kept
from monai_cae.data.images.volumes import LARGEST_VALUE, LEAST_VALUE, Volume, each_slice, find_volume
from monai_cae.errors import MonaiCaeError

# Where pydicom is installed, every LoadImage of MONAI looks for its GPU decoder, and says that there is none.
warnings.filterwarnings("ignore", "NvImgCodecPydicomReader: nvImageCodec decoder plugin did not register")
logging.getLogger("monai.data.nvimgcodec_pydicom_plugin").setLevel(logging.ERROR)

PART = "part"  # in the metadata of what this reader gives: what it is, in words

# The metadata of a slice without a recorded orientation, in the words of NIfTI's header: `SelectSlice` looks at them.
UNORIENTED = {"qform_code": 0, "sform_code": 0}


class ExtractionReader(NibabelReader):
    """MONAI reader of what an extraction needs of a volume: its slices alone leave the disk, bit for bit what slicing
    the volume gives once `nibabel.as_closest_canonical` has turned it.

    From uncompressed files only the slices' bytes are read (for those across the first stored axis, which have some of
    every row, a slice across the third at a time); a .nii.gz is inflated no further than the last of them. The affine
    is shifted to the first slice, as nibabel's `img.slicer` does it.

    Pass an instance to `LoadImaged(reader=...)`, and let `Extract` make the image.

    Args:
        extraction: which slices.

    Raises:
        MonaiCaeError: in use: no such file, a broken or truncated one or one beyond the limits of
            `monai_cae.data.images.volumes`, not a 3D volume, an index outside it, a slice that is empty or has values
            that are not finite.
    """

    def __init__(self, extraction: Extraction = PAPER_SLICE, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.extraction = extraction

    def verify_suffix(self, filename: Sequence[PathLike] | PathLike) -> bool:
        """Whether the name ends as a format this reads."""
        return all(str(name).lower().endswith((".nii", ".nii.gz", ".img", ".hdr")) for name in ensure_tuple(filename))

    def read(self, data: Sequence[PathLike] | PathLike, **kwargs: Any) -> Any:
        """Hand on the file names: `LoadImage` would hide an error raised here and try its other readers."""
        return tuple(str(name) for name in ensure_tuple(data))

    def get_data(self, img: Any) -> tuple[np.ndarray, dict[Any, Any]]:
        """The slices of the files that `read` gives, and the metadata of the first.

        One file's are three-dimensional with as many along the plane's axis as there are slices; those of several files
        are stacked in a last, channel, dimension.
        """
        read = [read_part(self.extraction, str(path)) for path in img]
        array, affine, oriented = read[0]
        meta = {
            **({} if oriented else UNORIENTED),
            MetaKeys.AFFINE: affine,
            MetaKeys.ORIGINAL_AFFINE: affine.copy(),
            MetaKeys.SPATIAL_SHAPE: np.asarray(array.shape),
            MetaKeys.SPACE: SpaceKeys.RAS,
            MetaKeys.ORIGINAL_CHANNEL_DIM: float("nan"),
            PART: self.extraction.name,
        }
        if len(read) == 1:
            return array, meta
        if len({one.shape for one, *_ in read}) > 1:
            names = ", ".join(str(path) for path in img)
            raise MonaiCaeError(f"{names} can't be channels of one image: their slices differ in shape")
        return np.stack([one for one, *_ in read], axis=-1), {**meta, MetaKeys.ORIGINAL_CHANNEL_DIM: -1}


class SliceReader(ExtractionReader):
    """`ExtractionReader` of one slice; the plane's axis stays, with size 1.

    Args:
        plane: "axial", "coronal" or "sagittal".
        slice_index: 1-based; an image with a single slice in the plane gives that one.
        axes: "anatomical" finds the plane through the affine, counts from left to right, posterior to anterior and
            inferior to superior, and gives the slice as it lies in the closest RAS+ volume. A file that records no
            orientation (Analyze without SPM's .mat, NIfTI with both codes 0, an affine that is not invertible) is
            taken as stored: its axes in turn are left to right, and so on. "stored" takes every file so.

    Raises:
        MonaiCaeError: an unknown plane or axes; in use: see `ExtractionReader`.
    """

    def __init__(self, plane: str = "axial", slice_index: int = 106, axes: str = "anatomical", **kwargs: Any) -> None:
        super().__init__(SliceExtraction(plane, slice_index, axes), **kwargs)


def read_image(extraction: Extraction, name: str) -> NDArray[Any]:
    """What the network sees of a file, before it is resized and scaled; errors: see `ExtractionReader`."""
    return extraction.seen(np.moveaxis(read_part(extraction, name)[0], extraction.axis, 0))


def read_part(extraction: Extraction, name: str) -> tuple[np.ndarray, np.ndarray, bool]:
    """The slices of a file that an extraction needs, three-dimensional, with their affine, and whether the header
    records an orientation. Errors: see `ExtractionReader`."""
    volume = find_volume(name)
    view = volume.layout.view(extraction.axes)
    grid, oriented = extraction.grid, bool(volume.layout.codes)
    if grid is not None:
        read = partial(each_slice, volume)
        what = (view.affine.tobytes(), view.order, view.flipped, grid)
        mean = kept(volume, what, lambda: averaged(read, view, grid, name))
        check_slice(mean, f"{extraction.name} of {name}")
        return mean, grid_affine(view, grid), oriented
    cuts = extraction.cuts(view.shape, name)
    if len(cuts) == 1:
        array = joined(extraction, [_read_plane(volume, view, *cuts[0])], cuts, name)
    elif min(view.shape) == 1:
        array = joined(extraction, read_beside(name, extraction.axes, cuts), cuts, name)
    else:
        which = (type(extraction), view.order, view.flipped, str(cuts))
        array = kept(volume, which, lambda: joined(extraction, read_crossing(volume, view, cuts), cuts, name))
    return array, moved(view.affine, origin(cuts, view.shape, array.shape)), oriented


def _read_plane(volume: Volume, view: View, axis: int, positions: Sequence[int]) -> np.ndarray:
    first, last = positions[0], positions[-1]
    step = positions[1] - first if len(positions) > 1 else 1
    if step > 0 and positions == [*range(first, last + 1, step)]:
        return view.turned(read_kept(volume, *view.stored(axis, first, last + 1), step))
    if volume.packed:  # inflated once for all of them
        first, last = min(positions), max(positions)
        span = view.turned(read_kept(volume, *view.stored(axis, first, last + 1)))
        return span.take([one - first for one in positions], axis)
    parts = [view.turned(read_kept(volume, *view.stored(axis, one, one + 1))) for one in positions]
    return np.concatenate(parts, axis)


def joined(extraction: Extraction, parts: Sequence[np.ndarray], cuts: Sequence[Cut], where: str) -> np.ndarray:
    """What an extraction makes one array of, every slice looked at, or a volume's all together; for errors, which name
    them, see `check_slice`."""
    if extraction.spatial_dims == 3:
        check_slice(parts[0], f"{extraction.name} of {where}")
        return extraction.joined(parts)
    for part, (axis, positions) in zip(parts, cuts, strict=True):
        each = [part] if len(positions) == 1 else np.moveaxis(part, axis, 0)
        for one, position in zip(each, positions, strict=True):
            check_slice(one, f"{NAMES[axis]} slice {position + 1} of {where}")
    return extraction.joined(parts)


def check_slice(array: np.ndarray, where: str) -> None:
    """MonaiCaeError where a slice has values that are not finite or that no scan has, or is zero everywhere."""
    if array.dtype.kind in "iu":
        largest = 1.0 if array.item(tuple([size // 2 for size in array.shape])) else 0.0  # a brain is there
        if not largest:  # zero in any byte order; native numbers need no conversion
            largest = float(array.view(array.dtype.newbyteorder("=")).any())
    else:
        largest = float(max(abs(array.max()), abs(array.min())))  # of NaN both are NaN
    if not math.isfinite(largest):
        raise MonaiCaeError(f"{where} has values that are not finite (NaN or infinite): repair or leave out this scan")
    if largest == 0:
        raise MonaiCaeError(f"{where} is zero everywhere: choose another slice_index, or leave out this scan")
    if not LEAST_VALUE <= largest <= LARGEST_VALUE:
        raise MonaiCaeError(f"{where} has values up to {largest:.2g}, which no scan has: its header's scale is broken")
