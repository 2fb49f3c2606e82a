"""Volumes on disk: the header, checked against limits before anything is read, and the bytes of a few slices.

What a header means is for nibabel alone to tell. It sees bytes of bounded number, never a file, and parses each
distinct header once: fields that it never looks at are blanked first, so that the headers of a cohort are mostly one.
"""

from __future__ import annotations

import gzip
import math
import os
import zlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import lru_cache
from io import BytesIO, FileIO
from typing import Any, NamedTuple

import numpy as np
from nibabel import Nifti1Image, Nifti1Pair, Nifti2Image, Nifti2Pair, Spm2AnalyzeImage
from nibabel.arrayproxy import ArrayProxy
from nibabel.fileholders import FileHolder
from nibabel.orientations import aff2axcodes
from numpy.typing import NDArray

from monai_cae.data.images.inflating import InflatedFile
from monai_cae.data.images.planes import View, closest_view, spacing_of
from monai_cae.data.images.stored_files import READING, beginning, first_line, pointer, size_of
from monai_cae.errors import MonaiCaeError

# What a file can make this read. A volume of 1024 x 1024 x 1024 passes, as 7 T and whole-body scans may have. The
# pixels bound the memory: a few copies of 4 million numbers of 8 bytes; test_reader_fuzz.py measures it. The
# voxels bound the time: at most 1 MiB is inflated beyond the last of them, for the checksum.
MAX_SLICE_PIXELS = 2048 * 2048
MAX_PART_VOXELS = 512**3  # of several slices together
MAX_VOXELS = 1024**3
MAX_OFFSET_BYTES = 64 << 20  # of headers and their extensions before the voxels: skipped, never kept
MAX_MAT_BYTES = 64 << 10  # SPM's two 4 x 4 matrices take 400

# Beyond these a slice's brightest value is a broken scale's: squares and sums of float32 would overflow or vanish.
LEAST_VALUE, LARGEST_VALUE = 1e-15, 1e15

_SNIFFED = 352  # an Analyze or NIfTI-1 header and the four bytes that announce extensions
_NIFTI2 = 544  # the same of NIfTI-2
_MAGIC = slice(344, 348)
_GZIP = b"\x1f\x8b"
_DISPLAY = ("cal_max", "cal_min")
_TEXTS = ("data_type", "db_name", "extents", "session_error", "regular", "descrip", "aux_file")
_DEFLATE_RATIO = 1032  # what a byte can inflate to at most: 258 bytes for two bits
_BROKEN = (OSError, EOFError, zlib.error, ValueError, OverflowError)
_ReadAt = Callable[[int, Any], int]  # fills a buffer with the bytes from a place on; gives their number


class Layout(NamedTuple):
    """Where the voxels of a volume lie in their file, and what they mean; shared by all files of one header.

    Attributes:
        shape: of the volume, three sizes.
        dtype: of a voxel in the file, with its byte order.
        offset: of the first voxel, in bytes.
        end: bytes that the file, inflated, has at least.
        scaling: slope and intercept.
        spacing: size of a voxel in mm, by the affine.
        stored: the volume by the axes of the file.
        anatomical: turned into the closest RAS+; the same as `stored` where the orientation is not known.
        codes: directions of the stored axes, such as "LPS"; "" where the header records no orientation.
        others: what NIfTI's qform says instead, where the sform, which is used, says `codes`; else "".
        pixdim: the sizes that the header gives beside its affine; the same as `spacing` unless they contradict.
    """

    shape: tuple[int, int, int]
    dtype: np.dtype[Any]
    offset: int
    end: int
    scaling: tuple[float, float]
    spacing: tuple[float, float, float]
    stored: View
    anatomical: View
    codes: str
    others: str = ""
    pixdim: tuple[float, float, float] = (1.0, 1.0, 1.0)

    def view(self, axes: str) -> View:
        """Args: axes: "anatomical" or "stored"."""
        return self.stored if axes == "stored" else self.anatomical


class Volume(NamedTuple):
    """A volume whose header was read and makes sense.

    Attributes:
        voxels: the file that holds them.
        layout: how they lie in it.
        packed: the file is a gzip stream.
    """

    voxels: str
    layout: Layout
    packed: bool


def find_volume(name: str) -> Volume:
    """Read the header of an Analyze, NIfTI-1 or NIfTI-2 volume, and hold it against the file's size and the limits.

    Args:
        name: the .nii, the .nii.gz, or either file of a pair.

    Raises:
        MonaiCaeError: another suffix; no such file, a directory, pipe or device; a broken header; no volume of real
            numbers; more than the limits; a file too short for what its header says.
    """
    root, suffix = name[:-4], name[-4:].lower()
    pair = suffix in (".img", ".hdr")
    if not (pair or suffix == ".nii" or name[-7:].lower() == ".nii.gz"):
        raise MonaiCaeError(f"{name} is not a .nii, .nii.gz or .hdr/.img image")
    header, voxels = name, name
    if pair:
        header, voxels = (f"{root}.HDR", f"{root}.IMG") if name[-4:].isupper() else (f"{root}.hdr", f"{root}.img")
    start, size = beginning(header, name, _NIFTI2)
    packed = not pair and start[:2] == _GZIP  # whatever its name says
    found = _layout(header, root, pair, packed, size, start)
    if isinstance(found, str):
        raise MonaiCaeError(f"{header if pair else name} {pointer(start) or found}")
    if pair:
        size = size_of(voxels, name)
    if packed and size * _DEFLATE_RATIO < found.end:
        raise MonaiCaeError(f"{name} is truncated: its {size} bytes can't hold the {found.end} it needs: copy it again")
    if not packed and size < found.end:
        raise MonaiCaeError(f"{voxels} is truncated: {size} of {found.end} bytes: copy it again")
    return Volume(voxels, found, packed)


def read_slices(volume: Volume, axis: int, start: int, stop: int, step: int = 1) -> NDArray[Any]:
    """Read every so many slices; of an uncompressed file little else is read, a .nii.gz is inflated up to the last.

    Args:
        axis: 0, 1 or 2, what the slices are across.
        start, stop, step: which slices, as in `range`, within the volume.

    Returns:
        Three-dimensional with the slices along the axis, in the file's own number format unless it is scaled.

    Raises:
        MonaiCaeError: a slice larger than the limit, a file that is truncated, broken or gone.
    """
    layout = volume.layout
    pixels, wanted = math.prod(layout.shape) // layout.shape[axis], range(start, stop, step)
    for what, count, most in ("pixels", pixels, MAX_SLICE_PIXELS), ("voxels", pixels * len(wanted), MAX_PART_VOXELS):
        if count > most:
            raise MonaiCaeError(f"{volume.voxels} has slices of {count} {what}: at most {most} are read at once")
    with _opened(volume) as read_at:
        return _scaled(_read(read_at, layout, axis, wanted), layout)


def each_slice(volume: Volume, start: int, stop: int) -> Iterator[NDArray[Any]]:
    """Neighbouring slices across the third stored axis, one in memory at a time; otherwise see `read_slices`."""
    with _opened(volume) as read_at:
        for index in range(start, stop):
            yield _scaled(_read(read_at, volume.layout, 2, range(index, index + 1)), volume.layout)[..., 0]


class _opened:  # as a function of contextlib's would be, which costs a twentieth of a slice
    """The voxels' file, to be read at any place; what goes wrong with it is one line."""

    def __init__(self, volume: Volume) -> None:
        self.volume = volume

    def __enter__(self) -> _ReadAt:
        try:
            if self.volume.packed:
                self._inflated = InflatedFile(self.volume.voxels)
                return self._inflated.read_at
            self._descriptor = descriptor = os.open(self.volume.voxels, READING)
        except (OSError, ValueError) as error:
            raise self._told(error) from error
        return lambda position, buffer: os.preadv(descriptor, (buffer,), position)

    def __exit__(self, kind: Any, error: BaseException | None, trace: Any) -> None:
        try:
            if self.volume.packed and error is None and self._inflated.position >= self.volume.layout.end:
                self._inflated.check_sum()
        except _BROKEN as found:
            error = found
        finally:
            if self.volume.packed:
                self._inflated.close()
            else:
                os.close(self._descriptor)
        if isinstance(error, _BROKEN):
            raise self._told(error) from error

    def _told(self, error: Exception) -> MonaiCaeError:
        return MonaiCaeError(f"{self.volume.voxels} is truncated or broken ({first_line(error)}): copy it again")


def three_sizes(shape: Sequence[int]) -> tuple[int, int, int] | None:
    """The sizes of a volume: trailing axes of size 1 are dropped, missing ones added; None where it is no volume."""
    if not shape or any(size != 1 for size in shape[3:]):
        return None
    first = (*(int(size) for size in shape[:3]), 1, 1)
    return first[0], first[1], first[2]


def _read(read_at: _ReadAt, layout: Layout, axis: int, wanted: range) -> NDArray[Any]:
    """As the file has it, z slowest and x fastest: an axial slice is one run, a coronal one a row of every axial."""
    x, y, z = layout.shape
    runs = [*enumerate(wanted)] if wanted.step > 1 else [(slice(None), wanted.start)]  # neighbours are read at once
    if axis:
        blocks, size, run = (z, y, x) if axis == 1 else (1, z, y * x)
        array = np.empty((blocks, len(wanted), run), layout.dtype)
        for k in range(blocks):
            for place, one in runs:
                _fill(read_at, layout, (k * size + one) * run, array[k, place])
        return array if axis == 1 else array.reshape(-1, y, x)
    # One voxel of every row: a disk gives whole pages anyway, and thousands of reads take longer.
    array, axial = np.empty((z, y, len(wanted)), layout.dtype), np.empty((y, x), layout.dtype)
    for k in range(z):
        _fill(read_at, layout, k * y * x, axial)
        array[k] = axial[:, wanted.start : wanted.stop : wanted.step]
    return array


def _fill(read_at: _ReadAt, layout: Layout, first: int, array: NDArray[Any]) -> None:
    if read_at(layout.offset + first * layout.dtype.itemsize, array.data) != array.nbytes:
        raise EOFError("the file ends in the middle of the voxels")


def _scaled(array: NDArray[Any], layout: Layout) -> NDArray[Any]:
    if layout.scaling == (1, 0):
        return array.T
    proxy = ArrayProxy(BytesIO(array.tobytes()), (array.shape[::-1], layout.dtype, 0, *layout.scaling))
    with np.errstate(all="ignore"):  # an absurd scale gives infinities, which are refused where they are looked at
        return np.asarray(proxy)


def _layout(header: str, root: str, pair: bool, packed: bool, size: int, first: bytes) -> Layout | str:
    """What the header says, or what is wrong with it."""
    try:
        if packed:
            with gzip.GzipFile(header) as file:
                first = file.read(_NIFTI2)
        nifti2 = first[4:8] in (b"ni2\0", b"n+2\0")
        length = _NIFTI2 if nifti2 else _SNIFFED
        if nifti2 or first[_MAGIC] in (b"ni1\0", b"n+1\0"):
            found = _nifti(first, nifti2, pair)
            extended = first[length - 4 : length - 3] not in (b"", b"\0")
            if extended and not isinstance(found, str):
                end = size if pair else found.offset
                with gzip.GzipFile(header) if packed else FileIO(header) as file:
                    _skip_extensions(file, length, end, "<" if first[0] in (92, 28) else ">")
            return found
        return _analyze(first, root) if pair else _no_image("it has no NIfTI header")
    except (OSError, EOFError, zlib.error, ValueError) as error:
        return _no_image(first_line(error))


def _nifti(first: bytes, nifti2: bool, pair: bool) -> Layout | str:
    length = _NIFTI2 - 4 if nifti2 else _MAGIC.stop
    if len(first) < length:
        return _no_image(f"its header has {len(first)} of {length} bytes")
    fields = int.from_bytes(first[:length], "little")
    if nifti2:
        return _parse(fields, Nifti2Pair if pair else Nifti2Image)
    image_class = Nifti1Pair if pair else Nifti1Image
    found = _parse(fields & _NIFTI_KEPT, image_class)
    return _parse(fields, image_class) if isinstance(found, str) else found


def _analyze(first: bytes, root: str) -> Layout | str:
    if len(first) < _MAGIC.stop:
        return _no_image(f"its header has {len(first)} of {_MAGIC.stop} bytes")
    fields = int.from_bytes(first[: _MAGIC.stop], "little") & _ANALYZE_KEPT
    # SPM2 scales by the extremes of voxels and of display, where both are given.
    fields = fields if fields & _CALIBRATION else fields & _NO_EXTREMES
    return _parse(fields, Spm2AnalyzeImage, _mat(f"{root}.mat") if os.access(f"{root}.mat", os.F_OK) else b"")


def _mat(path: str) -> bytes:
    size = size_of(path, path)
    if size > MAX_MAT_BYTES:
        raise ValueError(f"{path} has {size} bytes, SPM's has a few hundred")
    with FileIO(path) as file:
        return file.read(MAX_MAT_BYTES)


def _skip_extensions(file: Any, position: int, end: int, byte_order: str) -> None:
    """Follow the sizes of NIfTI extensions, which tell a damaged file, without reading their content."""
    if end > MAX_OFFSET_BYTES:
        raise ValueError(f"its header has {end} bytes")
    while position + 16 <= end:
        file.seek(position)
        start = file.read(8)
        size = int(np.frombuffer(start[:4], f"{byte_order}i4")[0]) if len(start) == 8 else 0
        if not 8 <= size <= end - position:
            raise ValueError(f"an extension of its header claims {size} bytes")
        position += size


@lru_cache(maxsize=1024)
def _parse(kept: int, image_class: type[Any], mat: bytes = b"") -> Layout | str:
    """What nibabel makes of a header, or what is wrong with it."""
    header = kept.to_bytes(_NIFTI2, "little")
    if not image_class.header_class.may_contain_header(header):
        return _no_image("its header is neither NIfTI's nor Analyze's")
    files = {kind: FileHolder(fileobj=BytesIO(mat if kind == "mat" else header)) for kind, _ in image_class.files_types}
    try:
        with np.errstate(all="ignore"):
            image = image_class.from_file_map(files)
            affine = np.array(image.affine, dtype=np.float64)
            sizes = [round(float(size), 3) for size in (*image.header.get_zooms()[:3], 1, 1)]
    except Exception as error:  # of a damaged header nibabel and SciPy raise whatever they stumble over
        return _no_image(first_line(error))
    proxy, shape = image.dataobj, three_sizes(image.shape) or (0, 0, 0)
    refused = _refused(image.shape, proxy, affine) or _other_unit(image.header, max(sizes[:3]))
    if refused:
        return refused
    stored, known = View(shape, affine), closest_view(shape, affine) if _is_oriented(image.header, mat) else None
    pixdim = (sizes[0], sizes[1], sizes[2])
    return Layout(
        shape=shape,
        dtype=proxy.dtype,
        offset=int(proxy.offset),
        end=int(proxy.offset) + math.prod(map(int, image.shape)) * proxy.dtype.itemsize,
        scaling=(proxy.slope, proxy.inter),
        spacing=spacing_of(pixdim, affine, shape) if known else pixdim,
        stored=stored,
        anatomical=stored if known is None or known.as_stored else known,
        codes="".join(aff2axcodes(affine)) if known else "",
        others=_contradicted(image.header, affine) if known else "",
        pixdim=pixdim,
    )


def _is_oriented(header: Any, mat: bytes) -> bool:
    """Analyze leaves it to SPM's .mat; a NIfTI whose two codes are 0 knows the size of its voxels alone."""
    return header["qform_code"] > 0 or header["sform_code"] > 0 if "qform_code" in header else bool(mat)


def _contradicted(header: Any, affine: NDArray[np.float64]) -> str:
    """The qform's directions, where it is set and is not the affine's."""
    if "qform_code" not in header or not header["qform_code"] > 0:
        return ""
    with np.errstate(all="ignore"):
        found = closest_view((1, 1, 1), header.get_qform())
    codes = "".join(aff2axcodes(header.get_qform())) if found else ""
    return codes if codes != "".join(aff2axcodes(affine)) else ""


def _refused(shape: Sequence[int], proxy: Any, affine: NDArray[np.float64]) -> str:
    sizes = three_sizes(shape)
    if proxy.dtype.kind not in "iuf":
        return "is not a volume of real numbers: give a NIfTI or Analyze image"
    if sizes is None:
        return f"is not a 3D volume: its shape is {tuple(int(size) for size in shape)}"
    if min(sizes) < 1 or not 0 <= proxy.offset <= MAX_OFFSET_BYTES:
        return _no_image(f"its header gives the shape {sizes} from byte {proxy.offset} on")
    if sizes[0] * sizes[1] > MAX_SLICE_PIXELS or math.prod(sizes) > MAX_VOXELS:
        return f"has the shape {sizes}; at most {MAX_SLICE_PIXELS} pixels a slice and {MAX_VOXELS} voxels are read"
    if affine.shape != (4, 4):
        return _no_image(f"its affine has the shape {affine.shape}")
    return ""


def _other_unit(header: Any, largest: float) -> str:
    """What is wrong where NIfTI's code says meter or micron, and the largest voxel size is none in mm."""
    unit, lowest, highest = _UNITS.get(int(header["xyzt_units"]) & 7 if "xyzt_units" in header else 0, ("", 0, 0))
    if not unit or lowest < largest < highest:  # of voxels of 1 mm the code alone is wrong
        return ""
    return f"has voxels of {largest:g} {unit}, and sizes are read in mm: write its affine and its unit in mm"


def _no_image(reason: str) -> str:
    return f"is not a readable image ({reason}): copy it again"


def _bits(image_class: type[Any], names: Iterable[str]) -> int:
    """All bits of these fields in a header that is taken as one number."""
    marked = bytearray(_SNIFFED)
    for name in names:
        dtype, offset = image_class.header_class.template_dtype.fields[name][:2]
        marked[offset : offset + dtype.itemsize] = b"\xff" * dtype.itemsize
    return int.from_bytes(marked, "little")


_UNITS = {1: ("meters", 0.05, math.inf), 3: ("microns", 0, 20)}  # code -> name, sizes that are plausible in mm
_ALL = int.from_bytes(b"\xff" * _SNIFFED, "little")
_ANALYZE_DATES = ("generated", "scannum", "patient_id", "exp_date", "exp_time", "hist_un0", "views", "vols_added")
_ANALYZE_KEPT = _ALL & ~_bits(Spm2AnalyzeImage, (*_TEXTS, *_ANALYZE_DATES, "start_field", "field_skip", "omax", "omin"))
_CALIBRATION = _bits(Spm2AnalyzeImage, _DISPLAY)
_EXTREMES = _bits(Spm2AnalyzeImage, ("glmax", "glmin"))
_NO_EXTREMES = _ALL & ~_EXTREMES
# FreeSurfer keeps the length of a long vector in glmin: nibabel refuses such a header without it, and then sees all.
_NIFTI_KEPT = _ALL & ~(_bits(Nifti1Pair, (*_TEXTS, *_DISPLAY, "dim_info", "intent_name")) | _EXTREMES)
