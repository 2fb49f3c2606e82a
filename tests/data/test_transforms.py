"""SelectSlice takes from memory what SliceReader takes from the file."""

from __future__ import annotations

import nibabel as nib
import numpy as np
import pytest
import torch
from monai.data import MetaTensor, NibabelReader
from monai.transforms import Compose, EnsureChannelFirstd, LoadImaged
from tiny import mistake

from monai_cae.data import SelectSlice, SelectSliced, SliceReader

AXES = {"sagittal": 0, "coronal": 1, "axial": 2}
SHAPES = {"sagittal": (1, 24, 20), "coronal": (1, 20, 20), "axial": (1, 20, 24)}
AFFINE = np.array([[1.5, 0.2, 0.1, 40], [0.3, 2.0, -0.4, -55.5], [0.05, 0.6, 3.0, 12.25], [0, 0, 0, 1]])
MARK = (3, 5, 7)


@pytest.fixture
def path(tmp_path, noise):
    """A volume whose brightest voxel is at MARK."""
    voxels = noise()
    voxels[MARK] = 9999
    nib.Nifti1Image(voxels, AFFINE).to_filename(tmp_path / "volume.nii.gz")
    return tmp_path / "volume.nii.gz"


def load(path, *transforms, reader):
    chain = Compose([LoadImaged("image", reader=reader), EnsureChannelFirstd("image"), *transforms])
    return chain({"image": path})["image"]


@pytest.mark.parametrize("plane", AXES)
def test_same_slice_as_from_the_file(path, plane):
    index = MARK[AXES[plane]] + 1
    selected = load(path, SelectSliced("image", plane, index), reader=NibabelReader())
    read = load(path, reader=SliceReader(plane, index))
    assert selected.shape == SHAPES[plane]
    np.testing.assert_array_equal(selected.numpy(), read.numpy().squeeze(1 + AXES[plane]))


@pytest.mark.parametrize("plane", AXES)
def test_marked_voxel_stays_at_its_place_in_the_world(path, plane):
    volume = load(path, reader=NibabelReader())
    before = volume.affine.clone()
    selected = SelectSlice(plane, MARK[AXES[plane]] + 1)(volume)
    i, j = np.unravel_index(int(selected[0].argmax()), selected.shape[1:])
    assert selected[0, i, j] == 9999
    np.testing.assert_allclose(selected.affine.numpy() @ [i, j, 0, 1], AFFINE @ [*MARK, 1], rtol=1e-5)
    # the third column is the step to the next slice
    step = selected.affine.numpy() @ [0, 0, 1, 0]
    np.testing.assert_allclose(step, AFFINE[:, AXES[plane]], rtol=1e-5)
    assert torch.equal(volume.affine, before)


@pytest.mark.parametrize("plane", AXES)
@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("kind", [np.asarray, torch.as_tensor, MetaTensor], ids=["numpy", "tensor", "meta-tensor"])
def test_kinds_of_arrays(noise, kind, channels, plane):
    volume = noise((channels, 20, 24, 20)).astype(np.float32)
    given = kind(volume.copy())
    selected = SelectSlice(plane, 20)(given)
    assert type(selected) is type(given)
    np.testing.assert_array_equal(np.asarray(selected), np.take(volume, 19, axis=1 + AXES[plane]))
    np.testing.assert_array_equal(np.asarray(given), volume)


@pytest.mark.parametrize("plane", AXES)
def test_a_file_with_a_single_slice_gives_that_one(tmp_path, noise, plane):
    voxels = noise(tuple(1 if axis == AXES[plane] else 20 for axis in range(3)))
    nib.Nifti1Image(voxels, AFFINE).to_filename(tmp_path / "cut.nii")
    found = load(tmp_path / "cut.nii", SelectSliced("image", plane, 106), reader=SliceReader(plane, 106))
    np.testing.assert_array_equal(found[0].numpy(), voxels.squeeze(AXES[plane]))


@pytest.mark.parametrize("slice_index", [1, 106])
@pytest.mark.parametrize("kind", [np.asarray, torch.as_tensor, MetaTensor], ids=["numpy", "tensor", "meta-tensor"])
def test_a_single_slice_from_memory_is_refused_unless_asked_for(noise, refused, kind, slice_index):
    volume = noise((1, 20, 24, 1))
    with refused(r"the volume has a single axial slice \(shape \(20, 24, 1\)\), and which one .* single_slice to true"):
        SelectSliced("image", slice_index=slice_index)({"image": kind(volume)})
    found = SelectSliced("image", slice_index=slice_index, single_slice=True)({"image": kind(volume)})
    np.testing.assert_array_equal(found["image"], volume[..., 0])


def test_a_single_slice_that_was_read_in_another_plane_or_by_another_reader_is_refused(tmp_path, noise):
    nib.Nifti1Image(noise((1, 24, 1)), AFFINE).to_filename(tmp_path / "cut.nii")
    for reader in (SliceReader("sagittal", 106), NibabelReader()):
        found = mistake(load, tmp_path / "cut.nii", SelectSliced("image", "axial", 106), reader=reader)
        assert "cut.nii has a single axial slice (shape (1, 24, 1))" in found


def test_default_is_the_papers_slice():
    volume = np.zeros((1, 2, 3, 176), np.float32)
    volume[..., 105] = 1
    assert SelectSlice()(volume).sum() == SelectSliced("image")({"image": volume})["image"].sum() == 6


def test_dictionary_keeps_what_it_is_not_asked_for(noise):
    volume = noise((1, 20, 24, 20))
    data = {"image": volume, "other": volume, "label": 1}
    out = SelectSliced(["image"], "axial", 3)(data)
    assert out["image"].shape == (1, 20, 24)
    assert out["other"] is volume and out["label"] == 1
    assert data["image"] is volume


def test_several_keys_and_missing_ones(noise):
    data = {"image": noise((1, 20, 24, 20)), "pred": noise((1, 20, 24, 20), seed=1)}
    out = SelectSliced(["image", "mask", "pred"], "coronal", 2, allow_missing_keys=True)(data)
    assert sorted(out) == ["image", "pred"]
    for key, volume in data.items():
        np.testing.assert_array_equal(out[key], volume[:, :, 1])
    with pytest.raises(KeyError, match="mask"):
        SelectSliced(["image", "mask"], "coronal", 2)(data)


@pytest.mark.parametrize(
    ("shape", "options", "message"),
    [
        ((20, 24, 20), {}, r"the volume is not a channel-first volume \(C, X, Y, Z\): its shape is \(20, 24, 20\)"),
        ((2, 1, 20, 24, 20), {}, r"its shape is \(2, 1, 20, 24, 20\)"),
        ((1, 20, 24, 20), {"slice_index": 0}, "slice_index 0 is outside the volume: its axial slices are 1 to 20"),
        ((1, 20, 24, 20), {"slice_index": 21}, "slice_index 21 is outside the volume"),
        ((1, 20, 24, 20), {"slice_index": True}, "slice_index True is outside the volume"),
        ((1, 20, 24, 20), {"slice_index": 25, "plane": "coronal"}, "its coronal slices are 1 to 24"),
    ],
    ids=["3d", "5d", "zero", "beyond", "bool", "coronal"],
)
@pytest.mark.parametrize("kind", [np.asarray, torch.as_tensor], ids=["numpy", "tensor"])
def test_what_has_no_such_slice_is_refused(noise, refused, shape, options, message, kind):
    with refused(message):
        SelectSlice(**{"slice_index": 5, **options})(kind(noise(shape)))


@pytest.mark.parametrize("kind", [np.asarray, torch.as_tensor, MetaTensor], ids=["numpy", "tensor", "meta-tensor"])
@pytest.mark.parametrize(
    ("value", "message"),
    [
        (0, "axial slice 5 of the volume is zero everywhere: choose another slice_index"),
        (np.nan, "axial slice 5 of the volume has values that are not finite"),
        (np.inf, "axial slice 5 of the volume has values that are not finite"),
    ],
    ids=["zero", "nan", "infinite"],
)
def test_unusable_slices_are_refused_and_others_taken(noise, refused, kind, value, message):
    volume = noise((1, 20, 24, 20)).astype(np.float32)
    volume[..., 4] = value
    with refused(message):
        SelectSlice("axial", 5)(kind(volume))
    assert SelectSlice("axial", 6)(kind(volume)).shape == (1, 20, 24)


def test_error_names_the_file(path, refused):
    volume = load(path, reader=NibabelReader())
    with refused(r"slice_index 21 is outside .*volume\.nii\.gz: its axial slices are 1 to 20"):
        SelectSlice("axial", 21)(volume)


@pytest.mark.parametrize("transform", [SelectSlice, lambda plane: SelectSliced("image", plane)], ids=["array", "dict"])
def test_unknown_plane_is_refused(refused, transform):
    with refused("plane must be axial, coronal or sagittal, not 'transverse'"):
        transform("transverse")
