"""Slabs and averaged volumes: their values, worked out with numpy and nibabel, and what is read for them."""

from __future__ import annotations

import os
import tracemalloc

import nibabel as nib
import numpy as np
import pytest
from monai.data import NibabelReader
from monai.transforms import Compose, EnsureChannelFirstd, LoadImaged
from tiny import volume, write_pair
from two_slices import TwoSlices

from monai_cae.data import Extract, Extractd, ExtractionReader, SlabExtraction, VolumeExtraction, frame_lines
from monai_cae.data.images.readers import read_image
from monai_cae.data.images.scan_quality import find_bad


def save(path, voxels, spacing=(1, 1, 1), codes="RAS"):
    image = nib.Nifti1Image(voxels, np.diag([*spacing, 1.0]))
    turn = nib.orientations.ornt_transform(nib.io_orientation(image.affine), nib.orientations.axcodes2ornt(codes))
    image.as_reoriented(turn).to_filename(path)
    return str(path)


def blocks(voxels, edge):
    x, y, z = (size // edge for size in voxels.shape)
    return voxels.astype(float).reshape(x, edge, y, edge, z, edge).mean(axis=(1, 3, 5))


@pytest.mark.parametrize("codes", ["RAS", "LPS", "PIR", "ASL"])
@pytest.mark.parametrize("name", ["a.nii", "a.nii.gz"])
def test_a_volume_is_the_mean_of_blocks(tmp_path, noise, name, codes):
    voxels = noise((8, 12, 10))
    path = save(tmp_path / name, voxels, codes=codes)
    extraction = VolumeExtraction(2.0, (4, 6, 5))
    np.testing.assert_allclose(read_image(extraction, path), blocks(voxels, 2)[None], rtol=1e-5)
    affine = np.diag([2.0, 2, 2, 1])
    affine[:3, 3] = 0.5  # the first cube's middle lies between the first two voxels
    for reader in (ExtractionReader(extraction), NibabelReader()):
        load = [LoadImaged("image", reader=reader), EnsureChannelFirstd("image"), Extractd("image", extraction)]
        image = Compose(load)({"image": path})["image"]
        np.testing.assert_allclose(image.numpy(), blocks(voxels, 2)[None], rtol=1e-5)
        np.testing.assert_allclose(image.affine, affine, atol=1e-6)


def test_an_analyze_pair_without_orientation_is_taken_as_stored(tmp_path):
    write_pair(tmp_path / "a.img", volume(1, 1))
    found = read_image(VolumeExtraction(4.0, (5, 6, 5)), str(tmp_path / "a.img"))
    np.testing.assert_allclose(found, blocks(volume(1, 1), 4)[None], rtol=1e-5)


def test_stored_axes_are_not_turned(tmp_path, noise):
    path = save(tmp_path / "a.nii", noise((4, 6, 8)), codes="PIR")
    stored = np.asarray(nib.load(path).dataobj)
    found = read_image(VolumeExtraction(2.0, [size // 2 for size in stored.shape], "stored"), path)
    np.testing.assert_allclose(found, blocks(stored, 2)[None], rtol=1e-5)


def test_it_is_cropped_and_padded_around_the_middle(tmp_path, noise):
    voxels = noise((8, 8, 8))
    found = read_image(VolumeExtraction(2, (2, 6, 4)), save(tmp_path / "a.nii", voxels))[0]
    np.testing.assert_allclose(found[:, 1:5], blocks(voxels, 2)[1:3], rtol=1e-5)
    assert not found[:, [0, 5]].any()
    # five voxels from -2.5 to 2.5 mm: the cube from -2 to 0 has half of the first, all of the second, half of the third
    line = np.zeros((5, 4, 4), np.int16)
    line[:] = np.array([8, 2, 4, 6, 10])[:, None, None]
    found = read_image(VolumeExtraction(2, (2, 2, 2)), save(tmp_path / "b.nii", line))[0]
    np.testing.assert_allclose(found[:, 0, 0], [(0.5 * 8 + 2 + 0.5 * 4) / 2, (0.5 * 4 + 6 + 0.5 * 10) / 2], rtol=1e-6)


def test_scans_of_other_voxels_give_the_same_image(tmp_path, noise):
    coarse = noise((4, 4, 4))
    fine = coarse.repeat(2, 0).repeat(3, 2)
    extraction = VolumeExtraction(4.0, (3, 3, 3))
    paths = [save(tmp_path / "coarse.nii", coarse, (2, 2, 3)), save(tmp_path / "fine.nii.gz", fine, (1, 2, 1))]
    np.testing.assert_allclose(*(read_image(extraction, path) for path in paths), rtol=1e-5)
    assert find_bad([("a", path) for path in paths], extraction, allow_other_frame=True) == []
    (bad,) = find_bad([("a", paths[0]), ("b", paths[0]), ("c", paths[1])], SlabExtraction("axial", 2, 3))
    assert "has the shape (8, 4, 12), the other volumes (4, 4, 4)" in bad.reason


def test_lines_about_a_cohort_name_no_slice_of_a_volume(tmp_path, noise):
    paths = [save(tmp_path / "a.nii", noise((4, 4, 4)), (2, 2, 3))]
    (line,) = frame_lines(paths, VolumeExtraction(4.0, 2))
    assert line.startswith("the volumes have 4 x 4 x 4 voxels of 2 x 2 x 3 mm") and "the template's 176 x" in line
    assert line.endswith("register the scans to a template")
    (line,) = frame_lines(paths, SlabExtraction("axial", 3, 3))
    assert "axial slices 2 to 4 lies +1.5 mm from the middle" in line and line.endswith("another --slice_index")


def test_little_memory_is_needed_beside_the_image(tmp_path):
    voxels = np.random.default_rng(0).integers(0, 255, (128, 128, 128)).astype(np.uint8)
    path = save(tmp_path / "a.nii.gz", voxels)
    read_image(VolumeExtraction(2.0, (8, 8, 8)), path)  # what is imported at first use
    tracemalloc.start()
    read_image(VolumeExtraction(2.0, (16, 16, 16)), path)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 128**3 / 4  # a quarter of the bytes in the file; as float32 the volume has 16 times as many


@pytest.mark.parametrize(
    ("voxels", "spacing", "message"),
    [
        (np.ones((4, 4, 1), np.int16), (1, 1, 1), r"a\.nii has the shape \(4, 4, 1\): a volume has sides from 2 to"),
        (np.ones((2, 2, 2049), np.uint8), (1, 1, 1), r"has the shape \(2, 2, 2049\): .* to 2048 voxels"),
        (np.ones((4, 4, 4), np.int16), (1, 1, 500), r"has voxels of 1 x 1 x 500 mm, which no scan has"),
        (np.zeros((4, 4, 4), np.int16), (1, 1, 1), r"the volume at 2 mm of .*a\.nii is zero everywhere"),
        (np.full((4, 4, 4), np.nan, np.float32), (1, 1, 1), r"has values that are not finite"),
    ],
)
def test_what_is_no_volume_is_told(tmp_path, refused, voxels, spacing, message):
    with refused(message):
        read_image(VolumeExtraction(2.0, 4), save(tmp_path / "a.nii", voxels, spacing))


@pytest.mark.parametrize(
    ("made", "message"),
    [
        (lambda: SlabExtraction(slices=4), "slices of a slab must be an odd number, such as 5, not 4"),
        (lambda: SlabExtraction(slices=-1), "odd number, such as 5, not -1"),
        (lambda: SlabExtraction(slices=3.0), r"odd number, such as 5, not 3\.0"),
        (lambda: VolumeExtraction(0), r"spacing_mm must be from 0\.01 to 100, not 0"),
        (lambda: VolumeExtraction("2"), r"spacing_mm must be from 0\.01 to 100, not '2'"),
        (lambda: VolumeExtraction(size=(8, 8)), r"a list of 3 for a volume, not \(8, 8\)"),
        (lambda: VolumeExtraction(size=(8, 8, 0)), r"a list of 3 for a volume, not \(8, 8, 0\)"),
        (lambda: VolumeExtraction(size=1024), "is too large: at most 2048 a side and 134217728 voxels"),
        (lambda: SlabExtraction().sizes([1, 2, 3]), r"a list of 2 for a slab, not \[1, 2, 3\]"),
    ],
)
def test_settings_that_make_no_sense_are_one_line(refused, made, message):
    with refused(message):
        made()


@pytest.mark.parametrize("index", [1, 7])
def test_a_slab_that_leaves_the_volume_is_refused(tmp_path, noise, refused, index):
    outside = {1: 0, 7: 8}[index]
    with refused(rf"slice {outside} of axial slices .* is outside .*a\.nii: its axial slices are 1 to 7"):
        read_image(SlabExtraction("axial", index, 3), save(tmp_path / "a.nii", noise((5, 6, 7))))
    with refused(rf"slice {outside} of axial slices .* is outside the volume: its axial slices are 1 to 7"):
        Extract(SlabExtraction("axial", index, 3))(noise((1, 5, 6, 7)))


def test_only_the_slabs_bytes_leave_the_disk(tmp_path, noise, monkeypatch):
    write_pair(tmp_path / "a.img", noise((5, 6, 30)))
    read: list[int] = []

    real = os.preadv

    def preadv(descriptor, buffers, position):
        read.append(real(descriptor, buffers, position))
        return read[-1]

    monkeypatch.setattr(os, "preadv", preadv)
    found = read_image(SlabExtraction("axial", 12, 5), str(tmp_path / "a.img"))
    np.testing.assert_array_equal(found, noise((5, 6, 30))[..., 9:14].transpose(2, 0, 1))
    assert len(read) <= 5 and sum(read) == 5 * 5 * 6 * 2


ONCE = [SlabExtraction("axial", 4, 3), VolumeExtraction(2.0, 4), TwoSlices("axial", 6, 3)]


@pytest.mark.parametrize("extraction", ONCE, ids=["slab", "volume", "two"])
def test_a_packed_file_is_inflated_once(tmp_path, noise, read_inflated_once, extraction):
    read_inflated_once(extraction, save(tmp_path / "a.nii.gz", noise((8, 8, 8))))
