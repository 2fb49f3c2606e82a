"""A raw scan in memory: what the file says about its axes, and what is said instead."""

from __future__ import annotations

import nibabel as nib
import numpy as np
import pytest

from monai_cae.errors import MonaiCaeError
from monai_cae.prepare import oriented_affine, read_raw

VOXELS = np.arange(2 * 3 * 4, dtype=np.float32).reshape(2, 3, 4)


def save(path, voxels=VOXELS, affine=None, image_class=nib.Nifti1Image):
    nib.save(image_class(voxels, np.diag([1, 2, 3, 1]) if affine is None else affine), path)
    return path


def test_a_nifti_is_read_with_its_affine(tmp_path):
    scan = read_raw(save(tmp_path / "a.nii.gz"))
    np.testing.assert_array_equal(scan.voxels, VOXELS)
    assert scan.voxels.dtype == np.float32 and scan.oriented and scan.notes == ()
    assert scan.spacing == (1, 2, 3) and scan.name == "a.nii.gz" and scan.source == str(tmp_path / "a.nii.gz")


def test_two_orientations_that_disagree_are_told(tmp_path):
    image = nib.Nifti1Image(VOXELS, None)
    image.set_sform(np.diag([1, 2, 3, 1]), 1)
    image.set_qform(np.diag([-1, 2, 3, 1]), 1)
    nib.save(image, tmp_path / "a.nii")
    scan = read_raw(tmp_path / "a.nii")
    assert scan.affine[0, 0] == 1
    assert scan.notes == ("its qform says LAS, its sform RAS, which was taken: find out which is right",)
    assert read_raw(tmp_path / "a.nii", orientation="RAS").notes == ("read as RAS, as asked",)


def test_an_affine_and_a_pixdim_that_disagree_are_told(tmp_path):
    image = nib.Nifti1Image(VOXELS, np.diag([1, 2, 3, 1]))
    image.set_qform(None, 0)
    content = bytearray(image.to_bytes())
    content[80:92] = np.ones(3, "<f4").tobytes()
    (tmp_path / "a.nii").write_bytes(content)
    scan = read_raw(tmp_path / "a.nii")
    assert scan.spacing == (1, 2, 3)
    assert scan.notes == (
        "its pixdim says voxels of 1 x 1 x 1 mm, its affine 1 x 2 x 3, which was taken: find out which is right",
    )


def test_an_analyze_file_records_no_orientation(tmp_path):
    image = nib.AnalyzeImage(VOXELS, None)
    image.header.set_zooms((1, 2, 3))
    nib.save(image, tmp_path / "a.hdr")
    assert not read_raw(tmp_path / "a.hdr").oriented
    scan = read_raw(tmp_path / "a.hdr", orientation="asl")
    assert scan.oriented and "".join(nib.aff2axcodes(scan.affine)) == "ASL"
    assert scan.notes == ("read as ASL, as asked",)
    np.testing.assert_allclose(scan.affine @ [0.5, 1, 1.5, 1], [0, 0, 0, 1], atol=1e-9)


def test_a_given_orientation_replaces_the_files(tmp_path):
    scan = read_raw(save(tmp_path / "a.nii"), orientation="RAS")
    assert scan.spacing == (1, 2, 3) and scan.affine[2, 2] == 3


@pytest.mark.parametrize("orientation", ["RA", "RAL", "RAX", "RASI", "RRS"])
def test_an_impossible_orientation_is_refused(orientation):
    with pytest.raises(MonaiCaeError, match="three letters"):
        oriented_affine((2, 3, 4), (1, 1, 1), orientation)


def test_voxels_that_are_not_finite_become_dark_and_are_counted(tmp_path):
    voxels = VOXELS.copy()
    voxels[0, 0, :3] = np.nan, np.inf, -1e30
    scan = read_raw(save(tmp_path / "a.nii", voxels))
    assert scan.voxels[0, 0].tolist() == [0, 0, 0, 3]
    assert scan.notes == ("3 voxels that are not finite, or beyond 1e+15, were set to 0",)
    with pytest.raises(MonaiCaeError, match="no finite voxel"):
        read_raw(save(tmp_path / "b.nii", np.full_like(VOXELS, np.nan)))


def test_a_series_is_refused(tmp_path):
    with pytest.raises(MonaiCaeError, match=r"a\.nii is not a 3D volume: its shape is \(2, 3, 4, 5\)"):
        read_raw(save(tmp_path / "a.nii", np.zeros((2, 3, 4, 5), np.float32)))
