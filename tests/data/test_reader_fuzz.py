"""Whatever lies in a file, the reader gives a finite slice or our error, within its stated bounds."""

from __future__ import annotations

import gzip
import os
import stat
import struct
import subprocess
import sys
import tracemalloc
import zlib
from functools import cache
from io import BytesIO
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from nibabel.nifti1 import Nifti1Extension
from nibabel.spm99analyze import Spm99AnalyzeImage

from monai_cae.data import SliceExtraction, SliceReader, check_cohort
from monai_cae.data.images.volumes import MAX_OFFSET_BYTES, MAX_SLICE_PIXELS, MAX_VOXELS
from monai_cae.errors import MonaiCaeError

PLANES = ("axial", "coronal", "sagittal")
SHAPE = (7, 6, 5)
EXAMPLES = int(os.environ.get("FUZZ_EXAMPLES", "400"))
MEGABYTES = 200  # as docs/explanation/reliability.md promises: one slice, the widest number format, all copies included
fuzz = settings(
    max_examples=EXAMPLES,
    deadline=None,
    derandomize="FUZZ_EXAMPLES" not in os.environ,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)


@cache
def corpus() -> dict[str, dict[str, bytes]]:
    """Good files of every kind, by name: suffix -> bytes."""
    voxels = np.random.default_rng(0).integers(1, 3000, SHAPE, dtype=np.int16)
    made = {}
    for name, image_class, options in (
        ("nii", nib.Nifti1Image, {}),
        ("nii-scaled", nib.Nifti1Image, {"slope": (0.37, -12.5)}),
        ("nii-extension", nib.Nifti1Image, {"comment": b"text " * 50}),
        ("nii-float", nib.Nifti1Image, {"dtype": np.float64}),
        ("nii-4d", nib.Nifti1Image, {"shape": (*SHAPE, 1)}),
        ("nifti2", nib.Nifti2Image, {"endianness": ">"}),
        ("pair", nib.Nifti1Pair, {"comment": b"text " * 5}),
        ("analyze-little", nib.AnalyzeImage, {}),
        ("analyze-big", nib.AnalyzeImage, {"endianness": ">", "shape": (*SHAPE, 1)}),
        ("spm", Spm99AnalyzeImage, {"endianness": ">", "slope": (0.25, 0)}),
    ):
        header = image_class.header_class(endianness=options.get("endianness", "<"))
        header.set_data_dtype(options.get("dtype", np.int16))
        if "comment" in options:
            header.extensions.append(Nifti1Extension("comment", options["comment"]))
        image = image_class(voxels.reshape(options.get("shape", SHAPE)), np.diag([1.5, 2, 3, 1]), header)
        if "slope" in options:
            image.header.set_slope_inter(*options["slope"])
        files = image.make_file_map({key: BytesIO() for key, _ in image_class.files_types})
        image.to_file_map(files)
        ends = {"image": ".nii"} if "nii" in name or name == "nifti2" else {"header": ".hdr", "image": ".img"}
        ends |= {"mat": ".mat"} if name == "spm" else {}
        made[name] = {ends[key]: files[key].fileobj.getvalue() for key in ends}
    for name in ("nii", "nii-scaled", "nii-extension", "nifti2"):
        made[f"{name}-gz"] = {".nii.gz": gzip.compress(made[name][".nii"], mtime=0)}
    return made


def read(path: Path, plane: str = "axial", slice_index: int = 3) -> np.ndarray | None:
    """The slice, checked for what is promised of it; None where our error was raised."""
    try:
        array, meta = SliceReader(plane, slice_index).get_data((str(path),))
    except MonaiCaeError as error:
        message = str(error)
    else:
        message = ""
    if message:
        assert "\n" not in message and path.name.split(".")[0] in message
        return None
    assert array.ndim == 3 and array.shape[2 - PLANES.index(plane)] == 1 and array.size <= MAX_SLICE_PIXELS
    assert np.isfinite(array).all() and array.any() and meta["affine"].shape == (4, 4)
    assert array.astype(np.float32).any() and np.isfinite(array.astype(np.float32)).all()
    return array


def write(folder: Path, files: dict[str, bytes]) -> Path:
    for old in folder.glob("scan.*"):
        old.unlink()
    for suffix, content in files.items():
        (folder / f"scan{suffix}").write_bytes(content)
    return folder / f"scan{next(iter(files))}"


def test_the_corpus_is_good(tmp_path):
    for name, files in corpus().items():
        for plane in PLANES:
            array = read(write(tmp_path, files), plane)
            assert array is not None and array.size == {"axial": 42, "coronal": 35, "sagittal": 30}[plane], name


@st.composite
def damaged(draw):
    """Files of the corpus with bytes overwritten, inserted or cut anywhere, most of all in the header."""
    files = dict(corpus()[draw(st.sampled_from(sorted(corpus())))])
    suffix = draw(st.sampled_from(sorted(files)))
    packed = suffix == ".nii.gz" and draw(st.booleans())  # damage what is packed, or the packing
    content = bytearray(gzip.decompress(files[suffix]) if packed else files[suffix])
    for _ in range(draw(st.integers(1, 5))):
        kind = draw(st.sampled_from(("bytes", "bytes", "number", "number", "cut", "insert", "repeat")))
        start = draw(st.one_of(st.integers(0, 600), st.integers(0, len(content)))) if kind != "number" else 0
        if kind == "bytes":
            new = draw(st.binary(min_size=1, max_size=16))
            content[start : start + len(new)] = new
        elif kind == "number":
            start = draw(st.sampled_from((0, *range(40, 124, 2), 252, 254, *range(256, 328, 4), 348, 352, 356)))
            new = draw(NUMBERS)
            content[start : start + len(new)] = new
        elif kind == "cut":
            del content[start:]
        elif kind == "insert":
            content[start:start] = draw(st.binary(max_size=64))
        else:
            content += content[start:]
        content = content[:100_000]
    files[suffix] = gzip.compress(bytes(content), mtime=0) if packed else bytes(content)
    return files


NUMBERS = st.one_of(
    st.builds(
        struct.pack,
        st.sampled_from(("<f", ">f")),
        st.sampled_from((0.0, -0.0, 1e-38, 1e-45, 1e38, 3e38, -1e38, float("nan"), float("inf"), -float("inf"), 1e10)),
    ),
    st.builds(struct.pack, st.sampled_from(("<h", ">h")), st.sampled_from((0, 1, -1, 2, 3, 7, 8, 32767, -32768, 4096))),
    st.builds(struct.pack, st.sampled_from(("<h", ">h")), st.sampled_from((2, 4, 8, 16, 32, 64, 128, 512, 1536, 2304))),
    st.builds(struct.pack, st.sampled_from(("<i", ">i")), st.sampled_from((0, 8, 15, 348, 540, -1, 2**31 - 1, 2**24))),
    st.builds(struct.pack, st.sampled_from(("<q", ">q")), st.sampled_from((0, 1, 1 << 40, -1, 2**63 - 1, 2**31))),
)


@pytest.mark.fault(
    f"scan: {EXAMPLES} files of {len(corpus())} kinds with bytes overwritten, inserted, repeated or cut in header, "
    "voxels, extension, .mat or gzip stream; sizes, types, offset, slope and intercept 0, below 0, huge, NaN, "
    "infinite",
    "a finite slice, or the error that names the file; memory of a few slices",
)
@fuzz
@given(damaged(), st.sampled_from(PLANES), st.integers(1, 5))
def test_any_damage_gives_a_slice_or_our_error(tmp_path, files, plane, slice_index):
    path = write(tmp_path, files)
    tracemalloc.start()
    try:
        array = read(path, plane, slice_index)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 8_000_000 + 64 * (0 if array is None else array.size)


@pytest.mark.fault(f"scan: {EXAMPLES} files of random bytes", "the error that names the file")
@fuzz
@given(st.binary(max_size=2000), st.sampled_from((".nii", ".nii.gz", ".hdr", ".img")), st.booleans())
def test_any_bytes_give_our_error(tmp_path, content, suffix, packed):
    files = {suffix: gzip.compress(content, mtime=0) if packed else content}
    if suffix in (".hdr", ".img"):
        files |= {".img" if suffix == ".hdr" else ".hdr": content[::-1]}
    assert read(write(tmp_path, files)) is None


def header(shape, dtype=np.uint8, kind=nib.Nifti1Header) -> bytes:
    made = kind()
    made.set_data_dtype(dtype)
    made["dim"][: len(shape) + 1] = (len(shape), *shape)
    if kind in (nib.Nifti1Header, nib.Nifti2Header):
        made["vox_offset"] = 352 if kind is nib.Nifti1Header else 544
    return made.binaryblock + b"\0" * 4


def sparse(path: Path, first: bytes, size: int) -> Path:
    path.write_bytes(first)
    os.truncate(path, size)
    return path


def bomb(path: Path, first: bytes, size: int) -> Path:
    """A gzip stream of `size` bytes, zero but for the first: a thousandth of it on disk."""
    stream = zlib.compressobj(9, wbits=31)
    block = bytes(1 << 22)
    with path.open("wb") as file:
        file.write(stream.compress(first))
        for _ in range(-(-size // len(block))):
            file.write(stream.compress(block))
        file.write(stream.flush())
    return path


def widest(path: Path, shape, dtype) -> Path:
    """A legal volume of ones at the limit, with holes where nothing is read."""
    made = nib.Nifti2Header()
    made.set_data_dtype(dtype)
    made["dim"][:4] = (3, *shape)
    made["vox_offset"], made["scl_slope"], made["scl_inter"] = 544, 2, 1
    sparse(path, made.binaryblock + b"\0" * 4, 544 + int(np.prod(shape)) * np.dtype(dtype).itemsize)
    return path


@pytest.mark.parametrize("dtype", [np.uint8, np.float64])
@pytest.mark.parametrize("plane", PLANES)
def test_the_largest_slice_stays_within_the_stated_memory(tmp_path, plane, dtype):
    shape = {"axial": (2048, 2048, 2), "coronal": (2048, 2, 2048), "sagittal": (2, 2048, 2048)}[plane]
    path = widest(tmp_path / "scan.nii", shape, dtype)
    tracemalloc.start()
    array = read_only(path, plane)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert array.size == MAX_SLICE_PIXELS and (array == 1).all()
    assert peak < MEGABYTES * 1e6


def read_only(path, plane, slice_index=2):
    return SliceReader(plane, slice_index).get_data((str(path),))[0]


@pytest.mark.parametrize("plane", PLANES)
def test_a_volume_of_1024_cubed_is_read(tmp_path, plane):
    path = sparse(tmp_path / "scan.nii", header((1024,) * 3), 352 + 1024**3)
    with path.open("r+b") as file:
        file.seek(352 + 1024**2 + 1024 + 1)  # the voxel 1, 1, 1, in the second slice of every plane
        file.write(b"\7")
    array = read_only(path, plane)
    assert array.size == 1024**2 and array.sum() == 7


@pytest.mark.fault(
    "scan: a header that claims 2049 x 2048 x 2 to 32767 x 32767 x 32767 voxels",
    "the error, without allocating",
)
@pytest.mark.parametrize(
    ("shape", "message"),
    [
        ((2049, 2048, 2), r"has the shape \(2049, 2048, 2\); at most 4194304 pixels a slice"),
        ((1024, 1024, 1025), r"has the shape \(1024, 1024, 1025\); at most .* 1073741824 voxels are read"),
        ((4, 2048, 2049), r"has slices of 4196352 pixels: at most 4194304 are read at once"),
        ((32767, 32767, 32767), r"has the shape \(32767, 32767, 32767\); at most 4194304 pixels"),
    ],
)
def test_volumes_beyond_the_limits_are_refused(tmp_path, refused, shape, message):
    path = sparse(tmp_path / "scan.nii", header(shape), 352 + min(int(np.prod(shape, dtype=np.int64)), 1 << 36))
    with refused(rf"scan\.nii {message}"):
        SliceReader("sagittal", 1).get_data((str(path),))


@pytest.mark.fault("scan: voxels that start after 128 MiB", "the error")
def test_voxels_far_behind_the_header_are_refused(tmp_path, refused):
    made = nib.Nifti1Header(header(SHAPE)[:348])
    made["vox_offset"] = 2 * MAX_OFFSET_BYTES
    path = sparse(tmp_path / "scan.nii", made.binaryblock + b"\0" * 4, 3 * MAX_OFFSET_BYTES)
    with refused(r"scan\.nii is not a readable image \(its header gives the shape .* from byte 134217728 on\)"):
        read_only(path, "axial")


def extended(esize: int, total: int) -> bytes:
    made = nib.Nifti1Header(header(SHAPE)[:348])
    made["vox_offset"] = total
    return made.binaryblock + b"\1\0\0\0" + struct.pack("<ii", esize, 6)


@pytest.mark.fault(
    "scan: a header's extension that claims 2 GB, 7, 0 or -16 bytes",
    "the error, within 2 MB; extensions are skipped, never read",
)
@pytest.mark.parametrize("esize", [0, 7, -16, 2**31 - 1])
def test_extensions_of_absurd_size_are_refused_unread(tmp_path, refused, esize):
    path = bomb(tmp_path / "scan.nii.gz", extended(esize, 40_000_000), 80_000_000)
    tracemalloc.start()
    with refused(rf"an extension of its header claims {esize} bytes"):
        read_only(path, "axial")
    assert tracemalloc.get_traced_memory()[1] < 2_000_000
    tracemalloc.stop()


LIMITED = """
import resource, sys
from monai_cae.data import SliceReader, check_cohort
from pathlib import Path
from monai_cae.errors import MonaiCaeError
used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
resource.setrlimit(resource.RLIMIT_AS, (used + {megabytes} * 1000000,) * 2)
for name in sys.argv[1:]:
    for plane in ("axial", "coronal", "sagittal"):
        try:
            array, _ = SliceReader(plane, 2).get_data((name,))
            print("read", plane, array.size)
        except MonaiCaeError as error:
            print("refused", plane, error)
print("peak", resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)
"""


@pytest.mark.fault(
    "scan: 40 to 256 MB of zeros packed into less than 300 kB; a header of 8 GiB over 40 MB; the largest slice "
    "there may be",
    f"refused, or read, within {MEGABYTES} MB of address space",
)
@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="address space can be limited on Linux alone")
@pytest.mark.slow
def test_the_worst_files_within_a_limited_address_space(tmp_path):
    bombs = [
        bomb(tmp_path / "huge.nii.gz", header((1024,) * 3, np.float64), 40 << 20),  # claims 8 GiB, has 40 MB
        bomb(tmp_path / "zero.nii.gz", header((512, 512, 256)), 512 * 512 * 256),  # inflates to 64 MB of zeros
        bomb(tmp_path / "text.nii.gz", b"no image ", 256 << 20),
        bomb(tmp_path / "head.nii.gz", extended(2**30, 2**30), 256 << 20),
        widest(tmp_path / "wide.nii", (2048, 2048, 2), np.float64),
    ]
    assert all(path.stat().st_size < 300_000 for path in bombs[:4])
    command = [sys.executable, "-c", LIMITED.format(megabytes=MEGABYTES), *map(str, bombs)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert [line.split()[0] for line in lines] == ["refused"] * 12 + ["read"] * 3 + ["peak"]
    assert "can't hold" in lines[0] and "zero everywhere" in lines[3] and "zero everywhere" not in lines[6]


@pytest.mark.fault(
    "scan: a named pipe, /dev/zero, a folder, a loop of links, a link to nothing, as image, voxels or .mat",
    "the error, at once; `monai-cae check` continues",
)
def test_what_is_no_file_is_refused_at_once(tmp_path, refused):
    os.mkfifo(tmp_path / "pipe.nii")
    os.mkfifo(tmp_path / "pipe.nii.gz")
    os.mknod(tmp_path / "socket.nii", stat.S_IFSOCK | 0o600)
    (tmp_path / "folder.nii").mkdir()
    (tmp_path / "zero.nii").symlink_to("/dev/zero")
    (tmp_path / "loop.nii").symlink_to(tmp_path / "loop.nii")
    (tmp_path / "dangling.nii").symlink_to(tmp_path / "nowhere")
    for suffix in (".hdr", ".img"):
        (tmp_path / f"pair{suffix}").write_bytes(corpus()["analyze-big"][suffix])
    os.mkfifo(tmp_path / "pair.mat")
    (tmp_path / "voxels.hdr").write_bytes(corpus()["analyze-big"][".hdr"])
    os.mkfifo(tmp_path / "voxels.img")
    names = sorted(path for path in tmp_path.iterdir() if path.suffix not in (".mat", ".hdr"))
    for path in names:
        assert read(path) is None
    result = check_cohort([(path.name, path) for path in names], extraction=SliceExtraction("axial", 3))
    assert [scan.label for scan in result.suspicious] == ["not readable"] * len(names)
    with refused(r"pipe\.nii is a folder, a pipe or a device: give an image file"):
        read_only(tmp_path / "pipe.nii", "axial")
    with refused(r"socket\.nii is a folder, a pipe or a device: give an image file"):  # it can't be opened either
        read_only(tmp_path / "socket.nii", "axial")
    with refused(r"a\x00b\.nii can't be read"):
        read_only("a\0b.nii", "axial")


@pytest.mark.fault(
    f"scan: {EXAMPLES} broken .mat files next to a pair",
    "the error, or the .mat is ignored as nibabel does",
)
@fuzz
@given(st.binary(max_size=400), st.booleans())
def test_a_broken_mat_file_beside_a_pair_is_our_error_or_ignored(tmp_path, content, keep_start):
    files = dict(corpus()["spm"])
    files[".mat"] = files[".mat"][: len(content)] + content if keep_start else content
    read(write(tmp_path, files))


def test_a_large_mat_file_is_not_read(tmp_path, refused):
    path = write(tmp_path, {**corpus()["spm"], ".mat": bytes(100_000)})
    with refused(r"scan\.hdr is not a readable image \(.*scan\.mat has 100000 bytes, SPM's has a few hundred\)"):
        read_only(path, "axial")


def test_limits_are_as_documented():
    text = (Path(__file__).parents[2] / "docs" / "explanation" / "reliability.md").read_text(encoding="utf-8")
    for number in (f"{MAX_SLICE_PIXELS:,}", f"{MAX_VOXELS:,}", f"{MAX_OFFSET_BYTES >> 20} MiB", f"{MEGABYTES} MB"):
        assert number in text
