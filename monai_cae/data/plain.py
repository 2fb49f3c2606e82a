"""The short way to a slice: of an uncompressed file only the header and the slice's bytes are read.

What a header says is for nibabel alone to tell. It parses each distinct header once: fields that it never looks at are
blanked first, so that the headers of a cohort are mostly one.
"""

from __future__ import annotations

import math
import os
from collections.abc import Iterable, Sequence
from functools import lru_cache
from io import BytesIO, FileIO
from typing import Any, NamedTuple

import numpy as np
from nibabel import Nifti1Image, Nifti1Pair, Spm2AnalyzeImage
from nibabel.arrayproxy import ArrayProxy
from nibabel.fileholders import FileHolder
from nibabel.spatialimages import HeaderDataError
from numpy.typing import NDArray

_SNIFFED = 352  # an Analyze or NIfTI-1 header and the four bytes that announce extensions
_MAGIC = slice(344, 348)
_DISPLAY = ("cal_max", "cal_min")
_TEXTS = ("data_type", "db_name", "extents", "session_error", "regular", "descrip", "aux_file")


class Layout(NamedTuple):
    """Where the voxels of a volume lie in their file, and what they mean; shared by all files of one header.

    Attributes:
        shape: of the volume, three sizes.
        dtype: of a voxel in the file, with its byte order.
        offset: of the first voxel, in bytes.
        end: bytes that the file has at least.
        scaling: slope and intercept.
        affine: shape (4, 4); copy it before you change it.
    """

    shape: tuple[int, int, int]
    dtype: np.dtype[Any]
    offset: int
    end: int
    scaling: tuple[float, float]
    affine: NDArray[np.float64]


def find_plain(name: str) -> tuple[str, Layout] | None:
    """Look at the header of an uncompressed Analyze or NIfTI-1 volume.

    Args:
        name: the .nii, or either file of a pair.

    Returns:
        The file with the voxels, and how they lie in it; None where nibabel has to look at the file itself: other
        formats and suffixes, SPM's .mat beside a pair, extensions, and whatever is missing, truncated, not
        three-dimensional or no real numbers.
    """
    root, suffix = name[:-4], name[-4:]
    if suffix not in (".img", ".hdr", ".nii"):
        return None
    pair = suffix != ".nii"
    voxels = f"{root}.img" if pair else name
    try:
        with FileIO(f"{root}.hdr" if pair else name) as file:
            header = file.read(_SNIFFED)
        size = os.stat(voxels).st_size  # noqa: PTH116  # one slice costs 25 us, a Path two of them
    except OSError:
        return None
    layout = _layout(header, root, pair)
    if layout is None or size < layout.end:
        return None
    return voxels, layout


def read_plain(voxels: str, layout: Layout, axis: int, index: int) -> NDArray[Any] | None:
    """Read one slice.

    Args:
        voxels: file, as `find_plain` gives it.
        layout: of that file.
        axis: 0, 1 or 2, what the slice is across.
        index: 0-based.

    Returns:
        Three-dimensional with size 1 along the axis, in the file's own number format unless it is scaled; None when
        the file can't be read, which nibabel then explains.
    """
    try:
        with FileIO(voxels) as file:
            array = _read(file, layout, axis, index)
    except (OSError, EOFError):
        return None
    if layout.scaling != (1, 0):
        return np.asarray(ArrayProxy(BytesIO(array.tobytes()), (array.shape[::-1], layout.dtype, 0, *layout.scaling)))
    return array.T


def three_sizes(shape: Sequence[int]) -> tuple[int, int, int] | None:
    """The sizes of a volume: trailing axes of size 1 are dropped, missing ones added; None where it is no volume."""
    if not shape or any(size != 1 for size in shape[3:]):
        return None
    first = (*(int(size) for size in shape[:3]), 1, 1)
    return first[0], first[1], first[2]


def _read(file: FileIO, layout: Layout, axis: int, index: int) -> NDArray[Any]:
    """As the file has it, z slowest and x fastest: an axial slice is one run, a coronal one a row of every axial."""
    x, y, z = layout.shape
    if axis == 2:
        array = np.empty((1, y, x), layout.dtype)
        _fill(file, layout, index * y * x, array)
    elif axis == 1:
        array = np.empty((z, 1, x), layout.dtype)
        for k in range(z):
            _fill(file, layout, (k * y + index) * x, array[k])
    else:
        # One voxel of every row: a disk gives whole pages anyway, and thousands of reads take longer.
        array, axial = np.empty((z, y, 1), layout.dtype), np.empty((y, x), layout.dtype)
        for k in range(z):
            _fill(file, layout, k * y * x, axial)
            array[k, :, 0] = axial[:, index]
    return array


def _fill(file: FileIO, layout: Layout, first: int, array: NDArray[Any]) -> None:
    file.seek(layout.offset + first * layout.dtype.itemsize)
    if file.readinto(array.data) != array.nbytes:
        raise EOFError


def _layout(header: bytes, root: str, pair: bool) -> Layout | None:
    if len(header) < _MAGIC.stop:
        return None
    fields = int.from_bytes(header, "little")
    if header[_MAGIC] in (b"ni1\0", b"n+1\0"):
        if header[_MAGIC.stop : _MAGIC.stop + 1] not in (b"", b"\0"):
            return None  # an extension follows, and may be broken
        return _parse(fields & _NIFTI_KEPT, Nifti1Pair if pair else Nifti1Image)
    if not pair or os.access(f"{root}.mat", os.F_OK):
        return None
    fields &= _ANALYZE_KEPT
    # SPM2 scales by the extremes of voxels and of display, where both are given.
    return _parse(fields if fields & _CALIBRATION else fields & ~_EXTREMES, Spm2AnalyzeImage)


@lru_cache(maxsize=1024)
def _parse(kept: int, image_class: type[Any]) -> Layout | None:
    header = kept.to_bytes(_SNIFFED, "little")
    if not image_class.header_class.may_contain_header(header):
        return None
    files = {kind: FileHolder(fileobj=BytesIO(header * (kind != "mat"))) for kind, _ in image_class.files_types}
    try:
        image = image_class.from_file_map(files)
    except (HeaderDataError, ValueError):
        return None
    proxy = image.dataobj
    shape = three_sizes(image.shape)
    if shape is None or min(shape) < 1 or proxy.offset < 0 or proxy.dtype.kind not in "iuf":
        return None
    return Layout(
        shape=shape,
        dtype=proxy.dtype,
        offset=proxy.offset,
        end=proxy.offset + math.prod(shape) * proxy.dtype.itemsize,
        scaling=(proxy.slope, proxy.inter),
        affine=np.array(image.affine, dtype=np.float64),
    )


def _bits(image_class: type[Any], names: Iterable[str]) -> int:
    """All bits of these fields in a header that is taken as one number."""
    marked = bytearray(_SNIFFED)
    for name in names:
        dtype, offset = image_class.header_class.template_dtype.fields[name][:2]
        marked[offset : offset + dtype.itemsize] = b"\xff" * dtype.itemsize
    return int.from_bytes(marked, "little")


_ALL = int.from_bytes(b"\xff" * _SNIFFED, "little")
_ANALYZE_DATES = ("generated", "scannum", "patient_id", "exp_date", "exp_time", "hist_un0", "views", "vols_added")
_ANALYZE_KEPT = _ALL & ~_bits(Spm2AnalyzeImage, (*_TEXTS, *_ANALYZE_DATES, "start_field", "field_skip", "omax", "omin"))
_CALIBRATION = _bits(Spm2AnalyzeImage, _DISPLAY)
_EXTREMES = _bits(Spm2AnalyzeImage, ("glmax", "glmin"))
# FreeSurfer keeps the length of a long vector in glmin: nibabel refuses a header without it, and reads the file itself.
_NIFTI_KEPT = _ALL & ~(_bits(Nifti1Pair, (*_TEXTS, *_DISPLAY, "dim_info", "intent_name")) | _EXTREMES)
