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
from nibabel.spm99analyze import Spm99AnalyzeImage

from monai_cae.data import SliceReader, check_images
from monai_cae.errors import MonaiCaeError

SHAPE = (20, 24, 20)
AXES = {"sagittal": 0, "coronal": 1, "axial": 2}
# rotated, sheared, anisotropic, left-handed: no two entries of the matrix may be confused
AFFINE = np.array([[-1.5, 0.2, 0.1, 40], [0.3, 2.0, -0.4, -55.5], [0.05, 0.6, 3.0, 12.25], [0, 0, 0, 1]])


def save(path, voxels, image_class=nib.Nifti1Image, dtype=None, endianness="<", slope=None):
    header = image_class.header_class(endianness=endianness)
    header.set_data_dtype(dtype or voxels.dtype)
    image = image_class(voxels, AFFINE, header)
    if slope:
        image.header.set_slope_inter(*slope)
    image.to_filename(path)
    return path


def load(path, plane="axial", slice_index=5):
    chain = Compose([LoadImaged("image", reader=SliceReader(plane, slice_index)), EnsureChannelFirstd("image")])
    return chain({"image": str(path)})["image"]


def read(path, plane="axial", slice_index=5):
    reader = SliceReader(plane, slice_index)
    return reader.get_data(reader.read(path))


FORMATS = {
    "analyze-big-endian-4d": ("a.hdr", (1,), {"image_class": nib.AnalyzeImage, "endianness": ">"}),
    "analyze-by-its-img": ("a.img", (1,), {"image_class": nib.AnalyzeImage, "endianness": ">"}),
    "analyze-float": ("a.hdr", (), {"image_class": nib.AnalyzeImage, "dtype": np.float32}),
    "spm-scaled": ("a.hdr", (), {"image_class": Spm99AnalyzeImage, "slope": (0.25, 0)}),
    "nifti-pair-scaled": ("a.hdr", (1,), {"image_class": nib.Nifti1Pair, "slope": (0.37, -12.5)}),
    "nii-int16": ("a.nii", (), {}),
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
    ],
    ids=["axial", "trailing-axis", "sagittal", "across", "two-dimensional"],
)
def test_image_with_a_single_slice_is_that_slice(tmp_path, noise, shape, plane, slice_index, expected):
    path = save(tmp_path / "cut.nii.gz", noise(shape))
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


@pytest.mark.parametrize("plane", ["axial", "coronal"])
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
    assert array.sum() == {"axial": 32 * 512, "coronal": 32}[plane]
    assert peak < 4_000_000


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


BROKEN = {
    "img-truncated": ("a.hdr", truncate_img, r"a\.img is truncated: 19199 of 19200 bytes: copy it again"),
    "img-missing": ("a.hdr", drop_img, r"a\.img is missing beside its \.hdr: copy the scan again"),
    "img-empty": ("a.img", empty, r"a\.img is not a readable image \(.+\): copy it again"),
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


def spoil(value, where=(3, 4, 4)):
    def voxels(noise):
        volume = noise().astype(np.float32)
        volume[where] = value
        return volume

    return voxels


CONTENT = {
    "two-volumes": (lambda noise: noise((*SHAPE, 2)), r"a\.nii is not a 3D volume: its shape is \(20, 24, 20, 2\)"),
    "zero": (spoil(0, np.s_[:, :, 4]), r"axial slice 5 of .*a\.nii is zero everywhere: choose another slice_index"),
    "nan": (spoil(np.nan), r"axial slice 5 of .*a\.nii has values that are not finite .*leave out this scan"),
    "infinite": (spoil(-np.inf), r"axial slice 5 of .*a\.nii has values that are not finite"),
    "complex": (lambda noise: noise().astype(np.complex64), r"a\.nii is not a volume of real numbers"),
    "colours": (
        lambda noise: np.ones(SHAPE, [("R", "u1"), ("G", "u1"), ("B", "u1")]),
        r"a\.nii is not a volume of real numbers",
    ),
}


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


def test_check_images_accepts_a_cohort_of_one_shape(tmp_path, noise, write_pair):
    paths = [save(tmp_path / "a.nii", noise()), write_pair(tmp_path / "b.hdr"), None]
    assert check_images(paths, plane="coronal", slice_index=24) is None


@pytest.mark.parametrize(
    ("voxels", "options", "message"),
    [
        (lambda noise: noise((20, 24, 21)), {}, r"b\.nii has the shape \(20, 24, 21\), .*\(20, 24, 20\): leave it out"),
        (spoil(0, np.s_[:, :, 4]), {}, r"axial slice 5 of .*b\.nii is zero everywhere"),
        (spoil(np.nan), {}, r"axial slice 5 of .*b\.nii has values that are not finite"),
        (lambda noise: noise((*SHAPE, 2)), {}, r"b\.nii is not a 3D volume"),
        (lambda noise: noise(), {"slice_index": 21}, r"slice_index 21 is outside .*a\.nii"),
        (lambda noise: noise(), {"plane": "oblique"}, "plane must be axial, coronal or sagittal"),
    ],
    ids=["other-shape", "zero", "nan", "two-volumes", "slice_index", "plane"],
)
def test_check_images_names_the_one_that_does_not_fit(tmp_path, noise, refused, voxels, options, message):
    paths = [save(tmp_path / f"{name}.nii", noise()) for name in "ac"]
    paths.insert(1, save(tmp_path / "b.nii", voxels(noise)))
    with refused(message):
        check_images(paths, **{"plane": "axial", "slice_index": 5, **options})


def test_check_images_needs_images(refused):
    with refused("dataset_dir is a table alone: training needs the folder with the images"):
        check_images([None, None], plane="axial", slice_index=1)
