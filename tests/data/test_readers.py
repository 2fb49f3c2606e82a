"""SliceReader gives bit for bit what slicing the volume gives, reads no more, and says what is wrong with a file."""

from __future__ import annotations

import gzip
import os
import tracemalloc
import zlib

import nibabel as nib
import numpy as np
import pytest
from monai.data import DataLoader, Dataset, MetaTensor
from monai.transforms import Compose, EnsureChannelFirstd, LoadImaged
from nibabel.nifti1 import Nifti1Extension
from nibabel.spm99analyze import Spm99AnalyzeImage

from monai_cae.data import ExtractionReader, SlabExtraction, SliceReader
from monai_cae.data.images import slice_cache
from monai_cae.data.images.volumes import find_volume, read_slices
from monai_cae.errors import MonaiCaeError

SHAPE = (20, 24, 20)
AXES = {"sagittal": 0, "coronal": 1, "axial": 2}
# rotated, sheared, anisotropic, closest to RAS: no two entries of the matrix may be confused
AFFINE = np.array([[1.5, 0.2, 0.1, 40], [0.3, 2.0, -0.4, -55.5], [0.05, 0.6, 3.0, 12.25], [0, 0, 0, 1]])
LEFT_HANDED = np.array([[-1.5, *AFFINE[0, 1:]], *AFFINE[1:]])


def save(
    path, voxels, image_class=nib.Nifti1Image, dtype=None, endianness="<", slope=None, comment=None, affine=AFFINE
):
    header = image_class.header_class(endianness=endianness)
    if comment:
        header.extensions.append(Nifti1Extension("comment", comment))
    header.set_data_dtype(dtype or voxels.dtype)
    image = image_class(voxels, affine, header)
    if slope:
        image.header.set_slope_inter(*slope)
    image.to_filename(path)
    return path


def load(path, plane="axial", slice_index=5):
    chain = Compose([LoadImaged("image", reader=SliceReader(plane, slice_index)), EnsureChannelFirstd("image")])
    return chain({"image": str(path)})["image"]


def read(path, plane="axial", slice_index=5, axes="anatomical"):
    reader = SliceReader(plane, slice_index, axes)
    return reader.get_data(reader.read(path))


FORMATS = {
    "analyze-big-endian-4d": ("a.hdr", (1,), {"image_class": nib.AnalyzeImage, "endianness": ">"}),
    "analyze-by-its-img": ("a.img", (1,), {"image_class": nib.AnalyzeImage, "endianness": ">"}),
    "analyze-upper-case": ("A.HDR", (1,), {"image_class": nib.AnalyzeImage}),
    "analyze-float": ("a.hdr", (), {"image_class": nib.AnalyzeImage, "dtype": np.float32}),
    "spm-scaled": ("a.hdr", (), {"image_class": Spm99AnalyzeImage, "slope": (0.25, 0)}),
    "nifti-pair-scaled": ("a.hdr", (1,), {"image_class": nib.Nifti1Pair, "slope": (0.37, -12.5)}),
    "nifti-pair-by-its-img": ("a.img", (), {"image_class": nib.Nifti1Pair, "endianness": ">"}),
    "nii-int16": ("a.nii", (), {}),
    "nii-with-extension": ("a.nii", (), {"comment": b"text " * 50, "slope": (2, 1)}),
    "nii-uint16-big-endian-scaled": ("a.nii", (1,), {"dtype": np.uint16, "endianness": ">", "slope": (0.1, -3)}),
    "nii-float32-scaled": ("a.nii", (), {"dtype": np.float32, "slope": (0.37, 2)}),
    "nii-uint8-scaled": ("a.nii", (), {"dtype": np.uint8, "slope": (17.1, 3)}),
    "nii-int32-5d": ("a.nii", (1, 1), {"dtype": np.int32}),
    "nii-float64-big-endian": ("a.nii", (), {"dtype": np.float64, "endianness": ">"}),
    "nifti2": ("a.nii", (), {"image_class": nib.Nifti2Image, "dtype": np.float32}),
    "gz-int16": ("a.nii.gz", (), {}),
    "gz-scaled-4d": ("a.nii.gz", (1,), {"slope": (0.37, -12.5)}),
    "gz-float32-upper-case": ("A.NII.GZ", (), {"dtype": np.float32}),
}


@pytest.mark.parametrize("plane", AXES)
@pytest.mark.parametrize(("name", "trailing", "options"), FORMATS.values(), ids=FORMATS)
def test_slice_is_bit_for_bit_that_of_the_whole_volume(tmp_path, noise, name, trailing, options, plane):
    path = save(tmp_path / name, noise((*SHAPE, *trailing)), **options)
    image = nib.load(path)
    volume = np.asarray(image.dataobj).reshape(SHAPE)
    assert image.dataobj.slope == pytest.approx(options.get("slope", (1,))[0])  # the file has what its name says
    for slice_index in (1, 5, SHAPE[AXES[plane]]):
        expected = np.take(volume, [slice_index - 1], axis=AXES[plane])
        array, meta = read(path, plane, slice_index)
        assert (array.shape, array.dtype) == (expected.shape, expected.dtype)
        assert array.tobytes() == expected.tobytes()
        cut = [slice(None)] * 3
        cut[AXES[plane]] = slice(slice_index - 1, slice_index)
        np.testing.assert_allclose(meta["affine"], image.slicer[tuple(cut)].affine, rtol=1e-12, atol=1e-12)


PLAIN = ["analyze-big-endian-4d", "analyze-float", "nifti-pair-scaled", "nii-int16", "nii-float64-big-endian"]


@pytest.mark.parametrize("plane", AXES)
@pytest.mark.parametrize(("name", "trailing", "options"), [FORMATS[name] for name in PLAIN], ids=PLAIN)
def test_plain_files_are_not_opened_by_nibabel(tmp_path, noise, monkeypatch, name, trailing, options, plane):
    path = save(tmp_path / name, noise((*SHAPE, *trailing)), **options)
    expected, _ = read(path, plane)
    monkeypatch.delattr(nib, "load")
    np.testing.assert_array_equal(read(path, plane)[0], expected)


def by_nibabel(path, plane="axial", slice_index=5, axes="anatomical"):
    """The slice and its affine, or None for what is no volume of real numbers."""
    image = nib.load(path)
    if image.get_data_dtype().kind not in "iuf" or any(size != 1 for size in image.shape[3:]):
        return None
    recorded = path.with_suffix(".mat").exists()
    if "qform_code" in image.header:
        recorded = image.header["qform_code"] > 0 or image.header["sform_code"] > 0
    if axes == "anatomical" and recorded:
        image = nib.as_closest_canonical(image)
    volume = np.asarray(image.dataobj).reshape((*image.shape, 1, 1)[:3])
    first = 0 if volume.shape[AXES[plane]] == 1 else slice_index - 1
    cut = [slice(None)] * 3
    cut[AXES[plane]] = slice(first, first + 1)
    return volume[tuple(cut)], image.slicer[tuple(cut)].affine if image.ndim > 2 else image.affine


def write_fields(path, header_class, **fields):
    """Change the header's bytes in place, by names of its fields."""
    content = bytearray(path.read_bytes())
    header = header_class(bytes(content[:348]), check=False)
    for name, value in fields.items():
        header[name] = value
    content[:348] = header.binaryblock
    path.write_bytes(content)


def changes_of(header):
    """Each field of a header changed in turn, arrays by element."""
    for name in header:
        value = header[name]
        if value.dtype.kind == "S":
            yield {name: b"other"[: value.dtype.itemsize]}
        for index in np.ndindex(value.shape) if value.dtype.kind != "S" else ():
            for shift in (1, 4):
                changed = value.copy()
                changed[index] += shift
                yield {name: changed}


HEADERS = {
    "nifti-sform": ("a.nii", nib.Nifti1Image, {"scl_slope": 0.5, "scl_inter": 3}, "srow_y scl_slope scl_inter"),
    "nifti-qform": ("a.nii", nib.Nifti1Image, {"sform_code": 0, "qform_code": 1, "scl_slope": 0}, "quatern_c pixdim"),
    "nifti-zooms": ("a.hdr", nib.Nifti1Pair, {"sform_code": 0, "scl_slope": np.nan}, "pixdim sform_code qform_code"),
    "analyze": ("a.hdr", nib.Spm2AnalyzeImage, {"scl_slope": 0, "glmax": 3000}, "pixdim scl_slope origin"),
    "spm-origin": ("a.hdr", nib.Spm2AnalyzeImage, {"scl_slope": 0, "origin": [9, 8, 7, 0, 0]}, "scl_slope origin"),
    "spm-displayed": (
        "a.hdr", nib.Spm2AnalyzeImage, {"scl_slope": 0, "cal_max": 2, "glmax": 3000}, "cal_max cal_min glmax glmin"
    ),
    "spm-scaled": ("a.hdr", nib.Spm2AnalyzeImage, {"scl_slope": 0.25, "scl_inter": 7}, "scl_slope scl_inter"),
}  # fmt: skip


@pytest.mark.parametrize(("endianness", "axes"), [("<", "anatomical"), (">", "stored")])
@pytest.mark.parametrize(("name", "image_class", "fields", "telling"), HEADERS.values(), ids=HEADERS)
def test_every_field_of_a_header_means_what_it_means_to_nibabel(
    tmp_path, noise, name, image_class, fields, telling, endianness, axes
):
    header_class = image_class.header_class
    path = save(tmp_path / name, noise(), image_class, endianness=endianness, affine=LEFT_HANDED)
    (tmp_path / "a.mat").unlink(missing_ok=True)
    with path.with_suffix(".img" if name == "a.hdr" else ".nii").open("ab") as file:
        file.write(noise().tobytes())  # longer, so that other sizes and offsets have voxels too
    write_fields(path, header_class, **fields)
    content = path.read_bytes()
    usual, usual_affine = by_nibabel(path, axes=axes)
    differing = set()
    for changes in changes_of(header_class(content[:348])):
        read(path, axes=axes)
        write_fields(path, header_class, **changes)
        try:
            expected = by_nibabel(path, axes=axes)
        except (nib.filebasedimages.ImageFileError, nib.spatialimages.HeaderDataError, OSError, ValueError):
            expected = None
        if expected is None:
            with pytest.raises(MonaiCaeError):
                read(path, axes=axes)
        else:
            array, meta = read(path, axes=axes)
            assert (array.dtype, array.tobytes()) == (expected[0].dtype, expected[0].tobytes()), changes
            np.testing.assert_allclose(meta["affine"], expected[1], rtol=1e-12, err_msg=str(changes))
            if not (np.array_equal(usual, expected[0]) and np.array_equal(usual_affine, expected[1])):
                differing |= set(changes)
        path.write_bytes(content)
    assert {"dim", "datatype", "vox_offset", *telling.split()} <= differing


@pytest.mark.filterwarnings("ignore:Using large vector Freesurfer hack")
def test_a_length_that_freesurfer_keeps_in_another_field_is_seen(tmp_path):
    for length in (40000, 40001):
        path = save(tmp_path / "a.nii", np.arange(length, dtype=np.int32).reshape(-1, 1, 1))
        assert read(path, "axial", 1)[0].shape == (length, 1, 1)
        assert read(path, "sagittal", length)[0].item() == length - 1


@pytest.mark.parametrize(
    ("name", "image_class", "read_as", "fields"),
    [
        ("{}.hdr", nib.AnalyzeImage, nib.Spm2AnalyzeImage, "db_name descrip patient_id exp_date glmax"),
        ("{}.nii", nib.Nifti1Image, nib.Nifti1Image, "db_name descrip aux_file intent_name cal_max glmax"),
    ],
)
def test_headers_that_differ_in_what_nibabel_ignores_are_parsed_once(
    tmp_path, noise, monkeypatch, name, image_class, read_as, fields
):
    shape, parsed = (19, 23, 21), []
    parse = read_as.from_file_map
    monkeypatch.setattr(read_as, "from_file_map", lambda files: parsed.append(files) or parse(files))
    paths = [save(tmp_path / name.format(seed), noise(shape, seed), image_class) for seed in range(3)]
    for seed, path in enumerate(paths):
        texts = {field: seed if field in ("glmax", "cal_max") else f"{seed}".encode() for field in fields.split()}
        write_fields(path, image_class.header_class, **texts)
    arrays = [read(path)[0] for path in paths]
    assert len(parsed) == 1
    for seed, array in enumerate(arrays):
        np.testing.assert_array_equal(array, noise(shape, seed)[:, :, 4:5])


def test_what_a_caller_does_with_a_slice_and_its_affine_is_not_kept(tmp_path, noise):
    path = save(tmp_path / "a.nii", noise())
    array, meta = read(path)
    expected = meta["affine"].copy()
    array[:] = 0
    for name in ("affine", "original_affine"):
        meta[name][:] = 0
    array, meta = read(path)
    np.testing.assert_array_equal(array, noise()[:, :, 4:5])
    np.testing.assert_array_equal(meta["affine"], expected)


def test_file_that_changes_between_two_reads_is_read_anew(tmp_path, noise):
    path = tmp_path / "a.hdr"
    for seed, (shape, image_class, options) in enumerate(
        [
            (SHAPE, nib.AnalyzeImage, {"endianness": ">"}),
            (SHAPE, nib.AnalyzeImage, {"endianness": "<"}),
            ((20, 23, 20), nib.AnalyzeImage, {}),
            (SHAPE, nib.Nifti1Pair, {"slope": (2, 1)}),
            (SHAPE, Spm99AnalyzeImage, {}),
        ]
    ):
        save(path, noise(shape, seed), image_class, **options)
        array, meta = read(path)
        expected, affine = by_nibabel(path)
        assert (array.dtype, array.tobytes()) == (expected.dtype, expected.tobytes())
        np.testing.assert_allclose(meta["affine"], affine, rtol=1e-12)


@pytest.mark.parametrize(("image_class", "asked"), [(nib.AnalyzeImage, True), (nib.Nifti1Pair, False)])
def test_a_mat_file_places_an_analyze_volume_and_no_other(tmp_path, noise, image_class, asked):
    path = save(tmp_path / "a.hdr", noise(), image_class)
    _, before = read(path)
    save(tmp_path / "b.hdr", noise(), Spm99AnalyzeImage)
    (tmp_path / "b.mat").rename(tmp_path / "a.mat")
    _, meta = read(path)
    assert np.allclose(meta["affine"], before["affine"]) is not asked
    np.testing.assert_allclose(meta["affine"], by_nibabel(path)[1], rtol=1e-12)


@pytest.mark.fault("scan: truncated or deleted between the check and the reading", "the error that names the file")
def test_file_that_is_cut_or_deleted_while_it_is_read_is_named(tmp_path, noise, refused):
    path = save(tmp_path / "a.nii", noise())
    volume = find_volume(str(path))
    os.truncate(path, 352 + 1000)
    for axis in range(3):
        with refused(r"a\.nii is truncated or broken \(the file ends in the middle of the voxels\): copy it again"):
            read_slices(volume, axis, 19, 20)
    path.unlink()
    with refused(r"a\.nii is truncated or broken \(No such file or directory\)"):
        read_slices(volume, 2, 0, 1)


@pytest.mark.parametrize("name", ["a.nii", "a.nii.gz", "a.hdr"])
@pytest.mark.parametrize("axis", range(3))
def test_neighbouring_slices_come_in_one_piece(tmp_path, noise, name, axis):
    volume = find_volume(str(save(tmp_path / name, noise(), nib.Nifti1Pair if name == "a.hdr" else nib.Nifti1Image)))
    np.testing.assert_array_equal(read_slices(volume, axis, 7, 12), noise().take(range(7, 12), axis))


def test_slices_are_counted_from_one_along_the_planes_axis(tmp_path):
    x, y, z = np.indices(SHAPE)
    path = save(tmp_path / "a.nii", (10000 * x + 100 * y + z).astype(np.int32))
    assert read(path, "sagittal", 3)[0][0, 7, 11] == 20711
    assert read(path, "coronal", 3)[0][7, 0, 11] == 70211
    assert read(path, "axial", 3)[0][7, 11, 0] == 71102


@pytest.mark.parametrize("name", ["a.hdr", "a.nii.gz"])
@pytest.mark.parametrize(
    ("plane", "shape"), [("axial", (1, 20, 24, 1)), ("coronal", (1, 20, 1, 20)), ("sagittal", (1, 1, 24, 20))]
)
def test_through_load_image(tmp_path, noise, name, plane, shape):
    image_class = nib.Nifti1Image if name.endswith("gz") else nib.Nifti1Pair
    path = save(tmp_path / name, noise((*SHAPE, 1)), image_class)
    image = load(path, plane, 9)
    assert isinstance(image, MetaTensor) and image.shape == shape
    voxel = np.array([2, 3, 4, 1])
    voxel[AXES[plane]] = 8
    inside = voxel.copy()
    inside[AXES[plane]] = 0
    np.testing.assert_allclose(image.affine.numpy() @ inside, nib.load(path).affine @ voxel, rtol=1e-6)
    assert image[0][tuple(inside[:3])] == noise()[tuple(voxel[:3])]
    assert image.meta["filename_or_obj"] == str(path)
    assert tuple(image.meta["spatial_shape"]) == shape[1:]


def test_several_files_are_channels(tmp_path, noise):
    paths = [save(tmp_path / f"{seed}.nii", noise(seed=seed)) for seed in (1, 2, 3)]
    image = load_several(paths)
    assert image.shape == (3, 20, 24, 1)
    for channel, seed in zip(image, (1, 2, 3), strict=True):
        np.testing.assert_array_equal(channel.numpy(), noise(seed=seed)[:, :, 4:5])


def load_several(paths):
    chain = Compose([LoadImaged("image", reader=SliceReader("axial", 5)), EnsureChannelFirstd("image")])
    return chain({"image": [str(path) for path in paths]})["image"]


def test_files_of_different_shapes_are_no_channels(tmp_path, noise, refused):
    paths = [save(tmp_path / f"{x}.nii", noise((x, 24, 20))) for x in (20, 19)]
    with refused(r"20\.nii, .*19\.nii can't be channels of one image"):
        LoadImaged("image", reader=SliceReader("axial", 5))({"image": paths})


def test_through_the_workers_of_a_data_loader(tmp_path, noise):
    items = [{"image": str(save(tmp_path / f"{seed}.nii.gz", noise(seed=seed)))} for seed in range(4)]
    chain = Compose([LoadImaged("image", reader=SliceReader("coronal", 2)), EnsureChannelFirstd("image")])
    (batch,) = DataLoader(Dataset(items, chain), batch_size=4, num_workers=1)
    for image, seed in zip(batch["image"], range(4), strict=True):
        np.testing.assert_array_equal(image.numpy()[0], noise(seed=seed)[:, 1:2])


@pytest.mark.parametrize(
    ("shape", "plane", "slice_index", "expected"),
    [
        ((20, 24, 1), "axial", 106, (slice(None), slice(None), slice(0, 1))),
        ((20, 24, 1, 1), "axial", "any", (slice(None), slice(None), slice(0, 1))),
        ((1, 24, 20), "sagittal", 0, (slice(0, 1), slice(None), slice(None))),
        ((20, 24, 1), "coronal", 5, (slice(None), slice(4, 5), slice(None))),
        ((20, 24), "axial", 106, (slice(None), slice(None), None)),
        ((20,), "axial", 106, (slice(None), None, None)),
    ],
    ids=["axial", "trailing-axis", "sagittal", "across", "two-dimensional", "one-dimensional"],
)
@pytest.mark.parametrize("name", ["cut.nii.gz", "cut.nii"])
def test_image_with_a_single_slice_is_that_slice(tmp_path, noise, name, shape, plane, slice_index, expected):
    path = save(tmp_path / name, noise(shape))
    array, meta = read(path, plane, slice_index)
    np.testing.assert_array_equal(array, noise(shape).reshape(shape[:3])[expected])
    if plane != "coronal":
        np.testing.assert_array_equal(meta["affine"], nib.load(path).affine)


def test_compressed_file_is_inflated_no_further_than_the_slice(tmp_path, noise, refused):
    voxels = np.random.default_rng(0).integers(-32768, 32767, (128, 128, 96), dtype=np.int16)  # 3 MB, incompressible
    path = save(tmp_path / "a.nii.gz", voxels)
    size = path.stat().st_size
    assert size > 3_000_000
    os.truncate(path, size // 2)
    with pytest.raises((EOFError, OSError)):
        np.asarray(nib.load(path).dataobj)
    array, _ = read(path, "axial", 20)  # a fifth of the way
    np.testing.assert_array_equal(array, voxels[:, :, 19:20])
    with refused(r"a\.nii\.gz is truncated or broken \(.+\): copy it again"):
        read(path, "axial", 60)
    os.truncate(path, 200)
    with refused(r"a\.nii\.gz is (truncated or broken|not a readable image) \(.+\): copy it again"):
        read(path, "axial", 20)


@pytest.mark.parametrize("plane", AXES)
def test_uncompressed_file_is_not_read_as_a_whole(tmp_path, plane):
    shape = (32, 512, 5000)
    path = save(tmp_path / "a.nii", np.ones((32, 512, 1), np.int16))
    header = nib.load(path).header.copy()
    header.set_data_shape(shape)
    header.set_data_offset(352)
    with path.open("r+b") as file:  # 160 MB, of which the file system stores 32 KB
        file.write(header.binaryblock)
    os.truncate(path, 352 + 2 * 32 * 512 * 5000)
    tracemalloc.start()
    array, _ = read(path, plane, 1)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert array.sum() == {"axial": 32 * 512, "coronal": 32, "sagittal": 512}[plane]
    assert peak < array.nbytes + 4_000_000


def truncate_img(path):
    os.truncate(path.with_suffix(".img"), 2 * 20 * 24 * 20 - 1)


def truncate_nii(path):
    os.truncate(path, 352 + 2 * 20 * 24 * 20 - 1)


def truncate_header(path):
    os.truncate(path, 100)


def drop_img(path):
    path.with_suffix(".img").unlink()


def drop(path):
    path.unlink()


def overwrite(path):
    path.write_bytes(b"no image " * 100)


def corrupt_gz(path):
    content = gzip.decompress(path.read_bytes())
    stream = zlib.compressobj(wbits=31)
    half = stream.compress(content[: len(content) // 2]) + stream.flush(zlib.Z_FULL_FLUSH)
    path.write_bytes(half + b"\x07" * 100)  # a block of a type that deflate does not have


def compress_text(path):
    path.write_bytes(gzip.compress(b"no image " * 1000))


def empty(path):
    path.write_bytes(b"")


def replace_by_folder(path):
    path.with_suffix(".img").unlink()
    path.with_suffix(".img").mkdir()


BROKEN = {
    "img-truncated": ("a.hdr", truncate_img, r"a\.img is truncated: 19199 of 19200 bytes: copy it again"),
    "img-missing": ("a.hdr", drop_img, r"a\.img is missing next to its \.hdr: copy the scan again"),
    "img-is-folder": ("a.hdr", replace_by_folder, r"a\.img is a folder, a pipe or a device: give an image file"),
    "img-empty": ("a.img", empty, r"a\.img is truncated: 0 of 19200 bytes: copy it again"),
    "hdr-truncated": ("a.hdr", truncate_header, r"a\.hdr is not a readable image \(.+\): copy it again"),
    "hdr-is-text": ("a.hdr", overwrite, r"a\.hdr is not a readable image \(.+\): copy it again"),
    "nii-missing": ("a.nii", drop, r"no image at .*a\.nii: check --dataset_dir"),
    "nii-truncated": ("a.nii", truncate_nii, r"a\.nii is truncated: 19551 of 19552 bytes"),
    "nii-is-text": ("a.nii", overwrite, r"a\.nii is not a readable image"),
    "nii-empty": ("a.nii", empty, r"a\.nii is not a readable image"),
    "gz-is-text": ("a.nii.gz", overwrite, r"a\.nii\.gz is not a readable image"),
    "gz-of-text": ("a.nii.gz", compress_text, r"a\.nii\.gz is not a readable image"),
    "gz-corrupt": ("a.nii.gz", corrupt_gz, r"a\.nii\.gz is truncated or broken \(.+\): copy it again"),
}


@pytest.mark.fault(
    "scan: header, voxels, .nii or .nii.gz truncated, empty, missing, text or damaged",
    "the error that names the file, through MONAI too",
)
@pytest.mark.parametrize(("name", "damage", "message"), BROKEN.values(), ids=BROKEN)
def test_broken_files_are_named_through_load_image_too(tmp_path, noise, refused, name, damage, message):
    path = tmp_path / name
    save(path, noise(), nib.Nifti1Image if ".nii" in name else nib.AnalyzeImage)
    damage(path)
    with refused(message):
        read(path, "axial", 20)
    with refused(message):
        LoadImaged("image", reader=SliceReader("axial", 20))({"image": str(path)})
    with pytest.raises(RuntimeError) as caught:  # Compose wraps every error
        load(path, "axial", 20)
    assert isinstance(caught.value.__cause__, MonaiCaeError)


@pytest.mark.parametrize("extra", [b"", b"more"])
@pytest.mark.parametrize("place", [600, 9000])
def test_a_voxel_that_a_packed_file_has_lost_is_found_where_all_are_read(tmp_path, noise, refused, place, extra):
    path = save(tmp_path / "a.nii", noise())
    packed = bytearray(gzip.compress(path.read_bytes() + extra, compresslevel=0))  # as it is, so that all else is right
    (tmp_path / "a.nii.gz").write_bytes(packed)
    volume = find_volume(str(tmp_path / "a.nii.gz"))
    np.testing.assert_array_equal(read_slices(volume, 2, 0, SHAPE[2]), nib.load(path).dataobj)
    packed[place] ^= 1
    (tmp_path / "a.nii.gz").write_bytes(packed)
    with refused("a.nii.gz is truncated or broken .*data check.*: copy it again"):
        read_slices(volume, 2, 0, SHAPE[2])
    (tmp_path / "a.nii.gz").write_bytes(packed[:-6])
    with refused("a.nii.gz is truncated or broken .*: copy it again"):
        read_slices(volume, 2, 0, SHAPE[2])


@pytest.mark.parametrize("name", ["a.hdr", "a.nii"])
def test_truncated_file_is_refused_even_where_the_slice_is_there(tmp_path, noise, refused, name):
    path = save(tmp_path / name, noise(), nib.Nifti1Image if name == "a.nii" else nib.AnalyzeImage)
    (truncate_nii if name == "a.nii" else truncate_img)(path)
    with refused("is truncated: 19[0-9]+ of 19[0-9]+ bytes: copy it again"):
        read(path, "axial", 1)


@pytest.mark.parametrize(("name", "image_class"), [("a.hdr", nib.Nifti1Pair), ("a.nii", nib.Nifti1Image)])
def test_a_broken_extension_of_the_header_is_refused(tmp_path, noise, refused, name, image_class):
    path = save(tmp_path / name, noise(), image_class, comment=b"text " * 50)
    content = bytearray(path.read_bytes())
    content[352:356] = (10_000_000).to_bytes(4, "little")  # the extension's size
    path.write_bytes(content)
    with refused(r"is not a readable image \(an extension of its header claims 10000000 bytes\): copy it again"):
        read(path)


def spoil(value, where=(3, 4, 4), dtype=np.float32):
    def voxels(noise):
        volume = noise().astype(dtype)
        volume[where] = value
        return volume

    return voxels


CONTENT = {
    "two-volumes": (lambda noise: noise((*SHAPE, 2)), r"a\.nii is not a 3D volume: its shape is \(20, 24, 20, 2\)"),
    "zero": (spoil(0, np.s_[:, :, 4]), r"axial slice 5 of .*a\.nii is zero everywhere: choose another slice_index"),
    "zero-integers": (spoil(0, np.s_[:, :, 4], ">i2"), r"axial slice 5 of .*a\.nii is zero everywhere"),
    "nan": (spoil(np.nan), r"axial slice 5 of .*a\.nii has values that are not finite .*leave out this scan"),
    "infinite": (spoil(-np.inf), r"axial slice 5 of .*a\.nii has values that are not finite"),
    "complex": (lambda noise: noise().astype(np.complex64), r"a\.nii is not a volume of real numbers"),
    "colours": (
        lambda noise: np.ones(SHAPE, [("R", "u1"), ("G", "u1"), ("B", "u1")]),
        r"a\.nii is not a volume of real numbers",
    ),
}


@pytest.mark.fault(
    "scan: a slice of zeros, NaN or infinity; complex numbers, colours, two volumes in one",
    "the error that names the file",
)
@pytest.mark.parametrize(("voxels", "message"), CONTENT.values(), ids=CONTENT)
def test_unusable_volumes_are_named(tmp_path, noise, refused, voxels, message):
    path = save(tmp_path / "a.nii", voxels(noise))
    with refused(message):
        read(path)
    with refused(message):
        LoadImaged("image", reader=SliceReader("axial", 5))({"image": path})


@pytest.mark.parametrize("spoilt", [spoil(np.nan), spoil(0, np.s_[:, :, 4])], ids=["nan", "zero"])
def test_other_slices_of_a_spoilt_volume_are_read(tmp_path, noise, spoilt):
    array, _ = read(save(tmp_path / "a.nii", spoilt(noise)), "axial", 6)
    np.testing.assert_array_equal(array, noise()[:, :, 5:6])


@pytest.mark.parametrize("slice_index", [0, -1, 21, 999, True, "abc", "5", 5.0, None])
def test_slices_outside_the_volume_are_refused(tmp_path, noise, refused, slice_index):
    path = save(tmp_path / "a.nii", noise())
    with refused(rf"slice_index {slice_index} is outside .*a\.nii: its axial slices are 1 to 20"):
        read(path, "axial", slice_index)


@pytest.mark.parametrize(("unit", "size"), [("meter", 0.001), ("micron", 1000)])
@pytest.mark.parametrize("image_class", [nib.Nifti1Image, nib.Nifti2Image])
def test_sizes_in_another_unit_than_mm_are_refused(tmp_path, noise, refused, unit, size, image_class):
    def volume(size):
        image = image_class(noise(SHAPE), np.diag([size, size, size, 1]))
        image.header.set_xyzt_units(unit)
        image.to_filename(tmp_path / f"{size}.nii")
        return str(tmp_path / f"{size}.nii")

    with refused(
        rf"{size}\.nii has voxels of {size} {unit}s, and sizes are read in mm: write its affine and its unit in"
    ):
        find_volume(volume(size))
    assert find_volume(volume(1)).layout.spacing == (1, 1, 1)  # the code alone is wrong


def test_limit_of_slice_index_is_the_planes(tmp_path, noise, refused):
    path = save(tmp_path / "a.nii", noise())
    np.testing.assert_array_equal(read(path, "coronal", 24)[0], noise()[:, 23:])
    with refused("its coronal slices are 1 to 24"):
        read(path, "coronal", 25)


@pytest.mark.parametrize("plane", ["Axial", "transverse", "", 2, None])
def test_unknown_plane_is_refused(refused, plane):
    with refused(f"plane must be axial, coronal or sagittal, not {plane!r}"):
        SliceReader(plane)


@pytest.mark.parametrize(
    ("names", "readable"),
    [("a.nii", True), ("A.NII.GZ", True), (["a.hdr", "b.img"], True), (["a.nii", "b.png"], False), ("a.gz", False)],
)
def test_suffixes(names, readable):
    assert SliceReader().verify_suffix(names) is readable


def test_slice_of_a_packed_file_is_inflated_once_until_the_file_changes(tmp_path, monkeypatch):
    path = tmp_path / "scan.nii.gz"
    volume = np.random.default_rng(0).integers(1, 100, (6, 5, 4)).astype(np.int16)
    nib.save(nib.Nifti1Image(volume, np.eye(4)), path)
    read = []
    monkeypatch.setattr(
        "monai_cae.data.images.slice_cache.read_slices",
        lambda volume, *where: read.append(where) or read_slices(volume, *where),
    )
    reader = SliceReader("axial", 3)
    reader.get_data((str(path),))[0][:] = 0  # whoever gets a slice may change it
    np.testing.assert_array_equal(reader.get_data((str(path),))[0], volume[:, :, 2:3])
    assert read == [(2, 2, 3, 1)]
    np.testing.assert_array_equal(SliceReader("axial", 4).get_data((str(path),))[0], volume[:, :, 3:4])
    nib.save(nib.Nifti1Image(volume + 1, np.eye(4)), path)
    np.testing.assert_array_equal(reader.get_data((str(path),))[0], volume[:, :, 2:3] + 1)
    assert len(read) == 3


def test_what_is_kept_of_packed_files_has_a_bound(tmp_path, monkeypatch):
    slice_cache.forget()
    monkeypatch.setattr("monai_cae.data.images.slice_cache.KEPT_BYTES", 16 * 6 * 5 * 2)  # of sixteen slices
    for number in range(5):
        path = str(tmp_path / f"{number}.nii.gz")
        nib.save(nib.Nifti1Image(np.ones((6, 5, 4), np.int16), np.eye(4)), path)
        for index in range(1, 5):
            SliceReader("axial", index).get_data((path,))
    assert len(slice_cache._kept) == 16 and slice_cache._bytes == 16 * 6 * 5 * 2
    ExtractionReader(SlabExtraction("axial", 2, 3)).get_data((path,))  # more than a sixteenth: not kept
    assert {array.size for array in slice_cache._kept.values()} == {6 * 5}
    slice_cache.forget()
