"""An extraction of one's own sees the same in a file, in memory, and wherever else scans are looked at."""

from __future__ import annotations

import nibabel as nib
import numpy as np
import pytest
from monai.data import NibabelReader
from monai.transforms import Compose, EnsureChannelFirstd, LoadImaged
from two_slices import TwoSlices

from monai_cae.data import (
    Extractd,
    Extraction,
    ExtractionReader,
    SlabExtraction,
    SliceExtraction,
    VolumeExtraction,
    audit_sets,
    check_cohort,
)
from monai_cae.data.images.readers import read_image
from monai_cae.data.images.scan_quality import find_bad


class NoSlice(Extraction):
    def indices(self, count):
        return []


class WholeVolume(Extraction):
    spatial_dims = 3
    name = "the whole volume"


class Apart(TwoSlices):
    samples = 2


class Uneven(TwoSlices):
    samples = 3


class Quotient(Extraction):
    def indices(self, count):
        return [1]

    def image(self, slices):
        return np.full_like(slices, np.nan, dtype=float)


def save(path, voxels, codes="RAS", affine=None):
    image = nib.Nifti1Image(voxels, np.eye(4) if affine is None else affine)
    wanted = nib.orientations.axcodes2ornt(codes)
    image.as_reoriented(nib.orientations.ornt_transform(nib.io_orientation(image.affine), wanted)).to_filename(path)
    return path


@pytest.mark.parametrize("codes", ["RAS", "LPS", "PIR", "SAL"])
@pytest.mark.parametrize("name", ["a.nii", "a.nii.gz"])
@pytest.mark.parametrize(
    ("extraction", "expected"),
    [
        (TwoSlices("axial", 6, 3), lambda volume: volume[:, :, [2, 5]].transpose(2, 0, 1)),
        (TwoSlices("coronal", 4, 1), lambda volume: volume[:, [2, 3]].transpose(1, 0, 2)),
        (TwoSlices("sagittal", 1, -3), lambda volume: volume[[3, 0]]),
        (WholeVolume(), lambda volume: volume[None]),
        (SlabExtraction("axial", 4, 3), lambda volume: volume[:, :, 2:5].transpose(2, 0, 1)),
        (SlabExtraction("sagittal", 3, 5), lambda volume: volume),
        (SlabExtraction("coronal", 2, 1), lambda volume: volume[None, :, 1]),
        (SliceExtraction("coronal", 2), lambda volume: volume[None, :, 1]),
    ],
    ids=["two", "neighbours", "descending", "volume", "slab", "thick", "thin", "slice"],
)
def test_a_file_and_a_volume_in_memory_give_the_same_image(tmp_path, noise, codes, name, extraction, expected):
    voxels = noise((5, 6, 7))
    path = save(tmp_path / name, voxels, codes)
    np.testing.assert_array_equal(read_image(extraction, str(path)), expected(voxels))
    steps = [EnsureChannelFirstd("image"), Extractd("image", extraction)]
    affines = []
    for reader in (ExtractionReader(extraction), NibabelReader()):
        image = Compose([LoadImaged("image", reader=reader), *steps])({"image": path})["image"]
        np.testing.assert_array_equal(image.numpy(), expected(voxels))
        affines.append(image.affine.numpy())
    np.testing.assert_allclose(*affines)


def test_the_affine_of_a_volume_is_its_own(tmp_path, noise):
    affine = np.array([[1.5, 0, 0, 4], [0, 2, 0, -5], [0, 0, 3, 6], [0, 0, 0, 1.0]])
    path = save(tmp_path / "a.nii", noise((5, 6, 7)), affine=affine)
    load = [LoadImaged("image", reader=ExtractionReader(WholeVolume())), EnsureChannelFirstd("image")]
    image = Compose([*load, Extractd("image", WholeVolume())])({"image": path})["image"]
    np.testing.assert_allclose(image.affine, affine)


def test_a_slice_that_is_not_there_or_empty_is_told(tmp_path, noise, refused):
    voxels = noise((5, 6, 7))
    voxels[..., 2] = 0
    path = str(save(tmp_path / "a.nii", voxels))
    with refused(r"slice 8 of axial slices 4 and 8 is outside .*a\.nii: its axial slices are 1 to 7"):
        read_image(TwoSlices("axial", 8), path)
    with refused(r"axial slice 3 of .*a\.nii is zero everywhere"):
        read_image(TwoSlices("axial", 6, 3), path)
    assert read_image(WholeVolume(), path).shape == (1, 5, 6, 7)
    with refused(r"NoSlice asks for no slice of .*a\.nii"):
        read_image(NoSlice(), path)
    assert Apart().sample_names == ("sample 1", "sample 2") and len(TwoSlices().sample_names) == 1
    with refused("Uneven has 2 channels for 3 samples"):
        read_image(Uneven("axial", 6, 2), path)
    with refused("Quotient makes an image with values that are not finite"):
        read_image(Quotient(), path)
    save(tmp_path / "cut.nii", voxels[..., :1])
    with refused(r"slice -2 of axial slices -2 and 2 is outside .*cut\.nii: its axial slices are 1 to 1"):
        read_image(TwoSlices("axial", 2, 4), str(tmp_path / "cut.nii"))


def test_a_volume_may_lie_elsewhere_in_no_direction(tmp_path, noise):
    images = [(f"s{number}", save(tmp_path / f"s{number}.nii", noise((9, 9, 9), seed=number))) for number in range(4)]
    aside = np.eye(4)
    aside[0, 3] = 6
    images.append(("s4", save(tmp_path / "s4.nii", noise((9, 9, 9), seed=4), affine=aside)))
    assert find_bad(images, SliceExtraction("axial", 5)) == []
    (bad,) = find_bad(images, WholeVolume())
    assert bad.subject == "s4" and "the whole volume of" in bad.reason and "lies 6 mm from the others'" in bad.reason


def detailed(path, seed, shape=(64, 64, 3)):
    """A scan in which near-duplicates can be told."""
    return save(path, np.random.default_rng(seed).integers(1, 4000, shape).astype(np.int16))


SEEN = [
    TwoSlices("axial", 3, 2),
    SlabExtraction("axial", 2, 3),
    WholeVolume(),
    VolumeExtraction(1.0, (64, 64, 3)),
]


@pytest.mark.parametrize("extraction", SEEN, ids=["two", "slab", "whole", "volume"])
def test_audit_and_check_find_copies_in_what_is_seen(tmp_path, extraction):
    kind = "volume" if extraction.spatial_dims == 3 else "slab"
    paths = [detailed(tmp_path / f"s{number}.nii", number) for number in range(9)]
    copied = np.asarray(nib.load(paths[0]).dataobj).copy()
    copied[0, 0, 0] += 1  # in the first slice, of which the second is all the same
    paths[8] = save(tmp_path / "s8.nii", copied)
    sets = [[{"image": str(path), "subject": path.stem, "label": number % 2} for number, path in enumerate(paths)][part]
            for part in (slice(0, 3), slice(3, 6), slice(6, 9))]  # fmt: skip
    audit = audit_sets(*sets, extraction=extraction)
    assert [(found.check, found.leak) for found in audit.findings if "Near" in found.check] == [
        (f"Near-duplicate {kind}", True)
    ]
    assert "s8" in audit.leaks[0].message and "s0" in audit.leaks[0].message
    paths[8] = save(tmp_path / "s8.nii", np.asarray(nib.load(paths[1]).dataobj))
    assert [found.check for found in audit_sets(*sets, extraction=extraction).leaks] == ["Same pixels"]
    checked = check_cohort([(path.stem, path) for path in paths], extraction=extraction)
    assert [scan.name for scan in checked.scans if any(f"same {kind} twice" in one for one in scan.problems)] == [
        "s1",
        "s8",
    ]
    assert {view.pixels.shape for scan in checked.scans for view in scan.views} <= {(64, 64), (64, 3)}
