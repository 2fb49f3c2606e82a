"""What people and the audit see of slabs and volumes: three planes; copies that are moved, noisy or overlap."""

from __future__ import annotations

import nibabel as nib
import numpy as np
import pytest
from scipy import ndimage

from monai_cae.data import Extraction, SlabExtraction, VolumeExtraction, audit_sets, check_cohort

SIZE = (56, 64, 52)


def brain(seed):
    """Fine folds in an egg that is unlike itself from every side."""
    x, y, z = (np.linspace(-1.1, 1.1, size) for size in SIZE)
    egg = x[:, None, None] ** 2 + (y[:, None] * (1 + 0.2 * z)) ** 2 + z**2 < 1
    folds = ndimage.gaussian_filter(np.random.default_rng(seed).standard_normal(SIZE), 1)
    shade = 800 + 300 * y[:, None] + 300 * z
    return np.where(egg, shade + 200 * folds / folds.std(), 0).clip(0).astype(np.int16)


def save(path, voxels, affine=None):
    nib.Nifti1Image(voxels, np.diag([2.0, 2, 2, 1]) if affine is None else affine).to_filename(path)
    return path


VOLUME, SLAB = VolumeExtraction(2.0, SIZE), SlabExtraction("axial", 26, 5)


def test_a_volume_is_shown_in_three_planes_side_by_side(noise):
    voxels = noise((4, 6, 8)).astype(float)
    views = VolumeExtraction(2.0, (4, 6, 8)).views(voxels[None])
    assert [plane for plane, _ in views] == ["axial", "coronal", "sagittal"]
    for (_, seen), expected in zip(views, (voxels[:, :, 4], voxels[:, 3], voxels[2]), strict=True):
        np.testing.assert_array_equal(seen, expected)
    picture = VolumeExtraction(2.0, (4, 6, 8)).picture(voxels[None])
    assert picture.shape == (4 + 4 + 6, 8)
    np.testing.assert_array_equal(picture[:4, 1:7], voxels[:, :, 4])
    np.testing.assert_array_equal(picture[4:8], voxels[:, 3])
    np.testing.assert_array_equal(picture[8:], voxels[2])
    assert set(picture[:4, [0, 7]].ravel()) == {min(seen.min() for _, seen in views)}
    np.testing.assert_array_equal(Extraction().flat(voxels), picture)


@pytest.mark.parametrize(("slices", "shown"), [(1, [0]), (3, [0, 1, 2]), (7, [0, 3, 6])])
def test_of_a_slab_the_first_the_middle_and_the_last_slice_are_shown(noise, slices, shown):
    image, slab = noise((slices, 4, 6)), SlabExtraction("coronal", 20, slices)
    assert [plane for plane, _ in slab.views(image)] == ["coronal"] * len(shown)
    np.testing.assert_array_equal(slab.picture(image), np.concatenate(image[shown]))


@pytest.mark.parametrize(
    ("codes", "sides"),
    [("RAS", [("L", "A"), ("L", "S"), ("P", "S")]), ("PIR", [("L", "A"), ("L", "S"), ("P", "S")])],
)
def test_letters_are_those_of_each_plane(tmp_path, codes, sides):
    image = nib.load(save(tmp_path / "a.nii", brain(0)))
    turn = nib.orientations.ornt_transform(nib.io_orientation(image.affine), nib.orientations.axcodes2ornt(codes))
    image.as_reoriented(turn).to_filename(tmp_path / "b.nii")
    (scan,) = check_cohort([("b", tmp_path / "b.nii")], extraction=VOLUME).scans
    assert scan.sides == sides
    np.testing.assert_array_equal(scan.views[2].pixels, brain(0)[28])
    (scan,) = check_cohort([("b", tmp_path / "b.nii")], extraction=SlabExtraction("sagittal", 28, 5)).scans
    assert scan.sides == [("P", "S")] * 3


def test_a_volume_that_lies_another_way_round_is_named_with_the_plane(tmp_path):
    voxels = [brain(seed) for seed in range(9)]
    voxels[4] = voxels[4][:, :, ::-1]
    images = [(f"s{n}", save(tmp_path / f"s{n}.nii", one)) for n, one in enumerate(voxels)]
    result = check_cohort(images, extraction=VOLUME)
    (turned,) = result.suspicious
    assert turned.name == "s4" and turned.label.startswith("upside down")
    assert "upside down: correlation with the cohort's median coronal slice" in " ".join(turned.problems)
    assert "left and right can't be told from a volume: not judged" in result.notes
    assert check_cohort([image for image in images if image[0] != "s4"], extraction=VOLUME).suspicious == []


def audited(tmp_path, extraction, copies):
    """Six brains in training, six others and the copies in test, under other names."""
    known = [save(tmp_path / f"a{n}.nii", brain(n)) for n in range(6)]
    other = [save(tmp_path / f"b{n}.nii", brain(20 + n)) for n in range(6)]
    copied = [save(tmp_path / f"c{n}.nii", one) for n, one in enumerate(copies)]
    paths = enumerate([*known, *other, *copied])
    items = [{"image": str(path), "subject": path.stem, "label": n % 2} for n, path in paths]
    return audit_sets(items[:6], items[6:8], items[8:], extraction=extraction)


def noisy(voxels, share=0.05):
    noise = np.random.default_rng(1).normal(0, share * voxels[voxels > 0].mean(), voxels.shape)
    return np.where(voxels > 0, voxels + noise, 0).clip(0).astype(np.int16)


COPIES = {
    "slab": (
        SLAB,
        {
            "four slices in common": lambda v: np.roll(v, 1, 2),
            "one slice in common": lambda v: noisy(np.roll(v, -4, 2)),
            "one in common, mirrored": lambda v: np.roll(v, 4, 2)[::-1],
        },
    ),
    "volume": (
        VOLUME,
        {
            "noise": noisy,
            "moved along all axes": lambda v: np.roll(v, (1, -1, 1), (0, 1, 2)),
            "moved and noisy": lambda v: noisy(np.roll(v, (-1, 1, -1), (0, 1, 2))),
            "mirrored and moved upwards": lambda v: np.roll(v[::-1], 1, 2),
            "brighter": lambda v: (v * 1.3).astype(np.int16),
        },
    ),
}


@pytest.mark.parametrize("kind", COPIES)
def test_a_scan_under_two_names_is_found_in_slabs_and_volumes(tmp_path, kind):
    extraction, changes = COPIES[kind]
    audit = audited(tmp_path, extraction, [change(brain(n)) for n, change in enumerate(changes.values())])
    assert {finding.check for finding in audit.leaks} == {f"Near-duplicate {kind}"}
    expected = {(f"test: c{n}", f"training: a{n}") for n in range(len(changes))}
    assert {finding.members for finding in audit.leaks} == expected


@pytest.mark.parametrize("extraction", [SLAB, VOLUME], ids=["slab", "volume"])
def test_slabs_apart_and_other_brains_are_no_copies(tmp_path, extraction):
    copies = [np.roll(brain(0), 20, 2)] if extraction is SLAB else [np.roll(brain(0), (4, 4, 4), (0, 1, 2))]
    assert audited(tmp_path, extraction, copies).leaks == []
