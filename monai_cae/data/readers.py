"""Reading one slice of a volume: only what is wanted leaves the disk."""

from __future__ import annotations

import gzip
import zlib
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
from monai.config import PathLike
from monai.data import NibabelReader
from monai.utils import MetaKeys, SpaceKeys, ensure_tuple
from nibabel.filebasedimages import ImageFileError
from nibabel.spatialimages import HeaderDataError, SpatialImage

from monai_cae.data.plain import find_plain, read_plain, three_sizes
from monai_cae.data.planes import plane_axis, position
from monai_cae.errors import MonaiCaeError

_BROKEN = (ImageFileError, HeaderDataError, OSError, EOFError, ValueError, zlib.error, gzip.BadGzipFile)
_Found = tuple[np.ndarray, np.ndarray, int]  # the slice, the volume's affine, the 0-based index


class SliceReader(NibabelReader):
    """MONAI reader that takes one slice from an Analyze pair, .nii or .nii.gz, bit for bit what slicing the volume
    gives.

    The plane's axis stays, with size 1, and the affine is shifted to the slice, as nibabel's `img.slicer` does it. From
    uncompressed files only the slice's bytes are read (for a sagittal one, which has some of every row, one axial slice
    at a time); a .nii.gz is inflated no further than the slice.

    Pass an instance to `LoadImaged(reader=...)`.

    Args:
        plane: "axial", "coronal" or "sagittal", by the volume's array axes; nothing is reoriented.
        slice_index: 1-based; an image with a single slice in the plane gives that one.

    Raises:
        MonaiCaeError: an unknown plane; in use: no such file, a broken or truncated one, not a 3D volume, an index
            outside
            it, a slice that is empty or has values that are not finite.
    """

    def __init__(self, plane: str = "axial", slice_index: int = 106, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.axis = plane_axis(plane)
        self.plane = plane
        self.slice_index = slice_index

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
        array, affine = read[0]
        meta = {
            MetaKeys.AFFINE: affine,
            MetaKeys.ORIGINAL_AFFINE: affine.copy(),
            MetaKeys.SPATIAL_SHAPE: np.asarray(array.shape),
            MetaKeys.SPACE: SpaceKeys.RAS,
            MetaKeys.ORIGINAL_CHANNEL_DIM: float("nan"),
        }
        if len(read) == 1:
            return array, meta
        if len({one.shape for one, _ in read}) > 1:
            names = ", ".join(str(path) for path in img)
            raise MonaiCaeError(f"{names} can't be channels of one image: their slices differ in shape")
        return np.stack([one for one, _ in read], axis=-1), {**meta, MetaKeys.ORIGINAL_CHANNEL_DIM: -1}

    def _read_slice(self, name: str) -> tuple[np.ndarray, np.ndarray]:
        array, affine, index = self._plainly(name) or self._through_nibabel(Path(name))
        check_slice(array, f"{self.plane} slice {index + 1} of {name}")
        affine[:3, 3] += affine[:3, self.axis] * index
        return array, affine

    def _plainly(self, name: str) -> _Found | None:
        plain = find_plain(name)
        if plain is None:
            return None
        voxels, layout = plain
        index = position(layout.shape, self.plane, self.slice_index, name)
        array = read_plain(voxels, layout, self.axis, index)
        return None if array is None else (array, layout.affine.copy(), index)

    def _through_nibabel(self, path: Path) -> _Found:
        image = open_volume(path)
        index = position(volume_shape(image, path), self.plane, self.slice_index, str(path))
        wanted: list[Any] = [slice(None)] * 3 + [0] * (len(image.shape) - 3)
        wanted[self.axis] = slice(index, index + 1)
        try:
            array = np.asarray(image.dataobj[tuple(wanted[: len(image.shape)])])
        except _BROKEN as error:
            raise MonaiCaeError(f"{path} is truncated or broken ({_first_line(error)}): copy it again") from error
        array = array.reshape(array.shape + (1,) * (3 - array.ndim))
        return array, np.array(image.affine, dtype=np.float64), index


def check_slice(array: np.ndarray, where: str) -> None:
    """
    Raises:
        MonaiCaeError: the slice has values that are not finite, or is zero everywhere.
    """
    if array.dtype.kind in "iu":
        array = array.view(array.dtype.newbyteorder("="))  # zero in any byte order; native numbers need no conversion
    elif not np.isfinite(array).all():
        raise MonaiCaeError(f"{where} has values that are not finite (NaN or infinite): repair or leave out this scan")
    if not array.any():
        raise MonaiCaeError(f"{where} is zero everywhere: choose another slice_index, or leave out this scan")


def open_volume(path: Path) -> SpatialImage:
    """Open a volume without reading its voxels.

    Raises:
        MonaiCaeError: no such file, a file that is no image, or an uncompressed file shorter than its header says.
    """
    if not path.is_file():
        raise MonaiCaeError(f"no image at {path}: check --dataset_dir")
    try:
        image = nib.load(path)
    except _BROKEN as error:
        raise MonaiCaeError(f"{path} is not a readable image ({_first_line(error)}): copy it again") from error
    if not isinstance(image, SpatialImage) or image.get_data_dtype().kind not in "iuf":
        raise MonaiCaeError(f"{path} is not a volume of real numbers: give a NIfTI or Analyze image")
    _check_size(image, path)
    return image


def _check_size(image: SpatialImage, path: Path) -> None:
    voxels = Path(str(image.file_map["image"].filename))
    if not voxels.is_file():
        raise MonaiCaeError(f"{voxels} is missing beside its .hdr: copy the scan again")
    if voxels.suffix.lower() == ".gz":
        return
    proxy: Any = image.dataobj
    needed = proxy.offset + int(np.prod(image.shape, dtype=np.int64)) * image.get_data_dtype().itemsize
    size = voxels.stat().st_size
    if size < needed:
        raise MonaiCaeError(f"{voxels} is truncated: {size} of {needed} bytes: copy it again")


def volume_shape(image: SpatialImage, path: Path) -> tuple[int, int, int]:
    """The three sizes of a volume; trailing axes of size 1 are dropped, missing ones added.

    Raises:
        MonaiCaeError: more than three dimensions.
    """
    shape = three_sizes(image.shape)
    if shape is None:
        raise MonaiCaeError(f"{path} is not a 3D volume: its shape is {tuple(int(size) for size in image.shape)}")
    return shape


def check_images(paths: Sequence[Path | None], *, plane: str, slice_index: int) -> None:
    """Check a cohort before anything is trained: all readable, of one shape, each wanted slice there and not empty.

    Args:
        paths: image files, one per scan.
        plane: see `SliceReader`.
        slice_index: see `SliceReader`.

    Raises:
        MonaiCaeError: naming the first file that does not fit.
    """
    shapes = {path: _shape(path) for path in paths if path is not None}
    if not shapes:
        raise MonaiCaeError("dataset_dir is a table alone: training needs the folder with the images")
    usual, _ = Counter(shapes.values()).most_common(1)[0]
    for path, shape in shapes.items():
        if shape != usual:
            raise MonaiCaeError(f"{path} has the shape {shape}, the other volumes {usual}: leave it out or resample it")
    reader = SliceReader(plane, slice_index)
    for path in shapes:
        reader.get_data((path,))


def _shape(path: Path) -> tuple[int, int, int]:
    plain = find_plain(str(path))
    return plain[1].shape if plain else volume_shape(open_volume(path), path)


def _first_line(error: Exception) -> str:
    return str(error).splitlines()[0] if str(error) else type(error).__name__
