"""Images of several samples: their values, worked out with numpy, what is read for them, and what is refused."""

from __future__ import annotations

import json
import os
from functools import partial

import nibabel as nib
import numpy as np
import pytest
from monai.data import NibabelReader
from monai.transforms import Compose, EnsureChannelFirstd, LoadImaged

from monai_cae.data import (
    Extract,
    Extractd,
    ExtractionReader,
    PatchesExtraction,
    PlanesExtraction,
    SliceExtraction,
    SlicesExtraction,
    audit_sets,
    check_cohort,
    frame_lines,
)
from monai_cae.data.images.frames import common_frame, frames_of
from monai_cae.data.images.inputs import recorded_extraction
from monai_cae.data.images.readers import read_image
from monai_cae.data.images.scan_quality import find_bad
from monai_cae.data.images.slice_cache import forget

SHAPE = (24, 26, 24)
PLANES = PlanesExtraction(axial=7, coronal=2, sagittal=5)


def planes(voxels):
    """Each in the middle of 26 x 26 pixels."""
    axial = np.pad(voxels[:, :, 6], [(1, 1), (0, 0)])
    coronal = np.pad(voxels[:, 1], [(1, 1), (1, 1)])
    sagittal = np.pad(voxels[4], [(0, 0), (1, 1)])
    return np.stack([axial, coronal, sagittal])


def patches(voxels):
    """Cubes of 11 of the means over 2 x 2 x 2 voxels: two along each axis but the first."""
    mean = voxels.astype(float).reshape(12, 2, 13, 2, 12, 2).mean(axis=(1, 3, 5))
    return np.stack([mean[x : x + 11, y : y + 11, z : z + 11] for x in (0, 1) for y in (0, 1, 2) for z in (0, 1)])


KINDS = [
    (SlicesExtraction("axial", 5, 3, 3), lambda voxels: voxels[:, :, [1, 4, 7]].transpose(2, 0, 1)),
    (SlicesExtraction("coronal", 6, 3, 5), lambda voxels: voxels[:, [0, 5, 10]].transpose(1, 0, 2)),
    (SlicesExtraction("sagittal", 4, 3, 2), lambda voxels: voxels[[1, 3, 5]]),
    (SlicesExtraction("axial", 5, 3, 1), lambda voxels: voxels[:, :, 3:6].transpose(2, 0, 1)),
    (PLANES, planes),
    (PatchesExtraction(2.0, (12, 13, 12), patch=11, step=1), patches),
]
NAMES = ["axial", "coronal", "sagittal", "neighbours", "planes", "patches"]
OBLIQUE = np.array([[0.98, -0.17, 0.1, 4], [0.17, 0.98, 0.02, -5], [-0.1, 0, 0.99, 6], [0, 0, 0, 1]])


def save(path, voxels, affine=None, codes="RAS", recorded=True):
    image = nib.Nifti1Image(voxels, np.eye(4) if affine is None else affine)
    turn = nib.orientations.ornt_transform(nib.io_orientation(image.affine), nib.orientations.axcodes2ornt(codes))
    image = image.as_reoriented(turn)
    if not recorded:
        image.set_sform(None, 0)
        image.set_qform(None, 0)
    path.parent.mkdir(exist_ok=True)
    image.to_filename(path)
    return str(path)


@pytest.mark.parametrize(("extraction", "expected"), KINDS, ids=NAMES)
@pytest.mark.parametrize("codes", ["RAS", "LPS", "PIR", "ASL"])
@pytest.mark.parametrize("name", ["a.nii", "a.nii.gz"])
def test_a_file_and_a_volume_in_memory_give_the_same_image(tmp_path, noise, name, codes, extraction, expected):
    voxels = noise(SHAPE)
    path = save(tmp_path / name, voxels, codes=codes)
    alike = np.testing.assert_array_equal if extraction.grid is None else partial(np.testing.assert_allclose, rtol=1e-6)
    assert len(extraction.sample_names) == extraction.samples == extraction.channels
    affines = []
    for reader in (ExtractionReader(extraction), NibabelReader()):
        load = [LoadImaged("image", reader=reader), EnsureChannelFirstd("image"), Extractd("image", extraction)]
        image = Compose(load)({"image": path})["image"]
        alike(image.numpy(), expected(voxels))
        affines.append(image.affine.numpy())
    np.testing.assert_allclose(*affines)
    alike(Extract(extraction)(voxels[None]), expected(voxels))


@pytest.mark.parametrize(("extraction", "expected"), KINDS, ids=NAMES)
def test_two_volumes_in_memory_lie_one_behind_the_other(noise, extraction, expected):
    both = [noise(SHAPE, seed) for seed in (1, 2)]
    found = Extract(extraction)(np.stack(both))
    np.testing.assert_allclose(found, np.concatenate([expected(one) for one in both]), rtol=1e-6)


def test_the_affine_of_planes_is_that_of_the_axial_one(tmp_path, noise):
    path = save(tmp_path / "a.nii", noise(SHAPE), OBLIQUE)
    load = [LoadImaged("image", reader=ExtractionReader(PLANES)), EnsureChannelFirstd("image")]
    image = Compose([*load, Extractd("image", PLANES)])({"image": path})["image"]
    # a row of zeros comes before the first of its 24 voxels, and it is the seventh slice
    np.testing.assert_allclose(image.affine.numpy() @ [1, 0, 0, 1], OBLIQUE @ [0, 0, 6, 1], atol=1e-6)
    np.testing.assert_allclose(image.affine.numpy() @ [24, 25, 0, 1], OBLIQUE @ [23, 25, 6, 1], atol=1e-6)


def test_names_tell_where_samples_are():
    assert SlicesExtraction("axial", 5, 3, 3).name == "axial slices 2 to 8 in steps of 3"
    assert SlicesExtraction("axial", 5, 3, 3).sample_names == ("axial slice 2", "axial slice 5", "axial slice 8")
    assert PLANES.name == "axial slice 7, coronal slice 2 and sagittal slice 5"
    assert PLANES.sample_names == ("axial slice 7", "coronal slice 2", "sagittal slice 5")
    extraction = PatchesExtraction(3.0, 36, patch=12)
    assert extraction.name == f"{extraction.samples} patches of the volume at 3 mm"
    assert extraction.sample_names[-1] == "patch at 36, 36, 0 mm"


@pytest.mark.parametrize("extraction", [SliceExtraction(), *(kind for kind, _ in KINDS)], ids=["slice", *NAMES])
def test_what_a_checkpoint_records_gives_the_extraction_again(extraction):
    record = json.loads(json.dumps(extraction.settings))
    again = recorded_extraction(record)
    assert (type(again), json.loads(json.dumps(again.settings))) == (type(extraction), record)
    assert recorded_extraction({"extraction": "Mine", "axes": "stored"}) is None


def test_patches_are_those_in_the_ellipsoid_and_make_the_volume_again(tmp_path, noise):
    voxels = noise((38, 38, 38)).astype(np.float32)
    # 2 voxels remain; of 3 x 3 x 3 patches, the middles of the corners are 12 / 19 away along each axis: 1.2 > 1
    extraction = PatchesExtraction(1.0, 38, patch=12)
    corners = [tuple(one.start for one in box) for box in extraction.sample_boxes]
    expected = [(x, y, z) for x in (1, 13, 25) for y in (1, 13, 25) for z in (1, 13, 25) if 13 in (x, y, z)]
    assert corners == expected and all(one.stop - one.start == 12 for box in extraction.sample_boxes for one in box)
    image = read_image(extraction, save(tmp_path / "a.nii", voxels))
    for (x, y, z), patch in zip(expected, image, strict=True):
        np.testing.assert_allclose(patch, voxels[x : x + 12, y : y + 12, z : z + 12], rtol=1e-6)
    known = np.zeros((38, 38, 38), bool)
    for x, y, z in expected:
        known[x : x + 12, y : y + 12, z : z + 12] = True
    np.testing.assert_allclose(extraction.assembled(image), np.where(known, voxels, 0), rtol=1e-6)
    overlapping = PatchesExtraction(1.0, 38, patch=12, step=3)
    assert overlapping.samples > 200
    again = overlapping.assembled(np.stack([voxels[box] for box in overlapping.sample_boxes]))
    np.testing.assert_allclose(again[again != 0], voxels[again != 0], rtol=1e-5)


def test_patches_beside_the_brain_are_zeros(tmp_path):
    voxels = np.zeros((24, 24, 24), np.int16)
    voxels[:12] = 5
    image = read_image(PatchesExtraction(1.0, 24, patch=12), save(tmp_path / "a.nii", voxels))
    assert [patch.max() for patch in image] == [5, 5, 5, 5, 0, 0, 0, 0]


@pytest.fixture
def read(monkeypatch):
    """The bytes of each read of voxels."""
    sizes: list[int] = []
    real = os.preadv

    def preadv(descriptor, buffers, position):
        sizes.append(real(descriptor, buffers, position))
        return sizes[-1]

    monkeypatch.setattr(os, "preadv", preadv)
    return sizes


def test_only_the_slices_bytes_leave_the_disk(tmp_path, noise, write_pair, read):
    voxels = noise((5, 6, 30))
    path = str(write_pair(tmp_path / "a.img", voxels))
    found = read_image(SlicesExtraction("axial", 15, 5, 7), path)
    np.testing.assert_array_equal(found, voxels[..., [0, 7, 14, 21, 28]].transpose(2, 0, 1))
    assert read == [5 * 6 * 2] * 5
    read.clear()
    read_image(SlicesExtraction("axial", 15, 5, 1), path)
    assert read == [5 * 6 * 2 * 5]  # neighbours are one run
    read.clear()
    found = read_image(SlicesExtraction("coronal", 3, 3, 2), path)
    np.testing.assert_array_equal(found, voxels[:, [0, 2, 4]].transpose(1, 0, 2))
    assert read == [5 * 2] * 3 * 30  # a row of each slice that the file has


def test_planes_read_a_file_once_and_keep_little_of_it(tmp_path, noise, write_pair, read):
    path = str(write_pair(tmp_path / "a.img", noise(SHAPE)))
    forget()
    np.testing.assert_array_equal(read_image(PLANES, path), planes(noise(SHAPE)))
    assert read == [24 * 26 * 2] * 24  # the sagittal one has some of every row


@pytest.mark.parametrize("extraction", [kind for kind, _ in KINDS], ids=NAMES)
def test_a_packed_file_is_inflated_once(tmp_path, noise, read_inflated_once, extraction):
    read_inflated_once(extraction, save(tmp_path / "a.nii.gz", noise(SHAPE)))


@pytest.mark.parametrize(
    ("made", "message"),
    [
        (lambda: SlicesExtraction(slices=4), "slices of a stack must be an odd number, such as 5, not 4"),
        (lambda: SlicesExtraction(slices=True), "odd number, such as 5, not True"),
        (lambda: SlicesExtraction(slices=float("nan")), "odd number, such as 5, not nan"),
        (lambda: SlicesExtraction(step=0), "step must be a whole number from 1 on, not 0"),
        (lambda: SlicesExtraction(step=-2), "step must be a whole number from 1 on, not -2"),
        (lambda: SlicesExtraction(step=1.5), r"step must be a whole number from 1 on, not 1\.5"),
        (lambda: SlicesExtraction(slice_index=10.5), r"slice_index must be a whole number, not 10\.5"),
        (lambda: SlicesExtraction(slice_index=True), "slice_index must be a whole number, not True"),
        (lambda: SlicesExtraction("oblique"), "plane must be axial, coronal or sagittal, not 'oblique'"),
        (lambda: PlanesExtraction(coronal=99.0), r"coronal must be a whole number, not 99\.0"),
        (lambda: PlanesExtraction(sagittal="88"), "sagittal must be a whole number, not '88'"),
        (lambda: PlanesExtraction(axes="voxel"), "axes must be anatomical or stored, not 'voxel'"),
        (lambda: PatchesExtraction(patch=0), "patch must be a whole number from 11 on, not 0"),
        (lambda: PatchesExtraction(patch=[24, 24, 24]), r"patch must be a whole number from 11 on, not \[24, 24, 24\]"),
        (lambda: PatchesExtraction(step=0), "step must be a whole number from 1 on, not 0"),
        (lambda: PatchesExtraction(step=float("nan")), "step must be a whole number from 1 on, not nan"),
        (lambda: PatchesExtraction(float("nan")), r"spacing_mm must be from 0\.01 to 100, not nan"),
        (lambda: PatchesExtraction(patch=89), r"patch 89 is larger than the volume, which has \(88, 104, 88\) voxels"),
        (lambda: PatchesExtraction(step=1), "a grid of 65 x 81 x 65 patches is too large: at most 4096 patches and"),
        (lambda: PatchesExtraction(size=504, patch=252, step=84), "a grid of 4 x 4 x 4 patches is too large: .* step"),
        (lambda: PatchesExtraction(patch=11, step=70), "step 70 leaves no patch within the volume's ellipsoid: give a"),
        (lambda: PatchesExtraction(size=1024), "is too large: at most 2048 a side and 134217728 voxels"),
        (lambda: SlicesExtraction().sizes([1, 2, 3]), r"a list of 2 for a stack, not \[1, 2, 3\]"),
    ],
)
def test_settings_that_make_no_sense_are_one_line(refused, made, message):
    with refused(message):
        made()


@pytest.mark.parametrize(
    ("extraction", "message"),
    [
        (SlicesExtraction("axial", 3, 3, 3), "slice 0 of axial slices 0 to 6 in steps of 3 is outside {}: its axial"),
        (
            SlicesExtraction("sagittal", 21, 3, 4),
            "slice 25 of sagittal slices 17 to 25 in steps of 4 is outside {}",
        ),
        (PlanesExtraction(7, 2, 25), "sagittal slice 25 is outside {}: its sagittal slices are 1 to 24"),
        (PlanesExtraction(7, 0, 5), "coronal slice 0 is outside {}: its coronal slices are 1 to 26"),
    ],
)
def test_slices_that_leave_the_volume_are_refused(tmp_path, noise, refused, extraction, message):
    path = save(tmp_path / "a.nii", noise(SHAPE))
    with refused(message.format(r".*a\.nii")):
        read_image(extraction, path)
    with refused(message.format("the volume")):
        Extract(extraction)(noise((1, *SHAPE)))
    with refused(message.format(r".*a\.nii")):  # the setting is wrong, not the scans
        find_bad([("a", path)], extraction)


def test_an_empty_plane_is_named(tmp_path, noise, refused):
    voxels = noise(SHAPE)
    voxels[:, 1] = 0
    path = save(tmp_path / "a.nii", voxels)
    for _ in range(2):  # a mistake is not kept
        with refused(r"coronal slice 2 of .*a\.nii is zero everywhere"):
            read_image(PLANES, path)
    with refused("coronal slice 2 of the volume is zero everywhere"):
        Extract(PLANES)(voxels[None])


@pytest.fixture
def cut(tmp_path, noise):
    """A scan that was cut before: a file in a folder for each plane, each stored another way."""
    voxels = noise(SHAPE)
    parts = {"axial": voxels[:, :, 6:7], "coronal": voxels[:, 1:2], "sagittal": voxels[4:5]}
    for codes, (plane, part) in zip(["RAS", "LPS", "PIR"], parts.items(), strict=True):
        save(tmp_path / plane / "a.nii.gz", part, codes=codes)
    return tmp_path


def test_planes_may_be_files_of_one_name(cut, noise):
    found = read_image(PlanesExtraction(), str(cut / "axial" / "a.nii.gz"))  # whichever slices they are
    np.testing.assert_array_equal(found, planes(noise(SHAPE)))


def test_planes_that_a_cohort_lacks_are_named(cut, noise, refused):
    axial = cut / "axial" / "a.nii.gz"
    with refused(
        r"the volume has a single axial slice \(shape \(24, 26, 1\)\), and which one can't be known: give the"
    ):
        Extract(PLANES, single_slice=True)(noise((1, 24, 26, 1)))
    save(cut / "sagittal" / "a.nii.gz", noise((1, 26, 23)))
    with refused(r"axial.a\.nii\.gz and the slices of its other planes differ in size or voxels: resample them"):
        read_image(PLANES, str(axial))
    save(cut / "sagittal" / "a.nii.gz", noise((1, 26, 24)), np.diag([1, 1.5, 1, 1]))
    with refused("differ in size or voxels"):
        read_image(PLANES, str(axial))
    save(cut / "coronal" / "a.nii.gz", noise(SHAPE))
    with refused(r"axial.a\.nii\.gz: its coronal slice has the shape \(24, 26, 24\), which is several"):
        read_image(PLANES, str(axial))
    (cut / "coronal" / "a.nii.gz").write_bytes(b"no image")
    with refused(r"axial.a\.nii\.gz: its coronal slice is not a readable image"):
        read_image(PLANES, str(axial))
    (cut / "coronal" / "a.nii.gz").unlink()
    with refused(r"axial.a\.nii\.gz lacks its coronal slice: there is none of its name in coronal"):
        read_image(PLANES, str(axial))
    (bad,) = find_bad([("a", axial)], PLANES)
    assert "lacks its coronal slice" in bad.reason and str(cut) not in bad.brief
    with refused(
        r"sagittal.a\.nii\.gz has a single slice: give whole volumes, or a folder called axial that has slices"
    ):
        read_image(PLANES, str(cut / "sagittal" / "a.nii.gz"))


def moved(*mm):
    affine = np.eye(4)
    affine[:3, 3] = mm
    return affine


def about_planes(degrees, axis):
    """A rotation about the point where the planes meet."""
    affine, (a, b) = np.eye(4), (one for one in range(3) if one != axis)
    affine[[a, b], [a, b]] = np.cos(np.radians(degrees))
    affine[a, b], affine[b, a] = -np.sin(np.radians(degrees)), np.sin(np.radians(degrees))
    point = np.array([4, 1, 6, 1.0])
    return moved(*(point - affine @ point)[:3]) @ affine


@pytest.mark.parametrize(
    ("affine", "reason"),
    [
        (moved(0, 0, 6), "sagittal slice 5 of {} lies 6 mm from the others' (limit 5 mm): register it, or"),
        (moved(6, 0, 0), "lies 6 mm from the others'"),
        (moved(0, -6, 0), "lies 6 mm from the others'"),
        (about_planes(12, 0), "is tilted by 12 degrees from the others' (limit 10)"),
        (about_planes(12, 1), "is tilted by 12 degrees"),
        (about_planes(12, 2), "is tilted by 12 degrees"),  # the axial plane is the same, the others are not
        (moved(2, 2, 2), ""),
        (about_planes(8, 2), ""),
    ],
)
def test_planes_may_lie_elsewhere_in_no_direction(tmp_path, noise, affine, reason):
    paths = [save(tmp_path / f"s{number}.nii", noise(SHAPE, number)) for number in range(5)]
    images = [*(("a", path) for path in paths), ("b", save(tmp_path / "b.nii", noise(SHAPE, 9), affine))]
    bad = find_bad(images, PLANES)
    assert [one.subject for one in bad] == (["b"] if reason else [])
    assert all(reason.format(one.image) in one.reason for one in bad)


def test_where_no_place_is_recorded_every_axis_is_compared(tmp_path, noise):
    training = common_frame(frames_of([save(tmp_path / "a.nii", noise(SHAPE), recorded=False)], PLANES))
    options = {"cohort": False, "training": training}
    for shape, off in (((24, 26, 38), 7), ((24, 44, 24), 9), ((36, 26, 24), 6), ((26, 28, 26), 0)):
        path = save(tmp_path / "b.nii", noise(shape), recorded=False)
        found = [one.reason for one in find_bad([("b", path)], PLANES, **options)]
        assert [f"lies {off} mm from the training's" in reason for reason in found] == [True] * bool(off)


def test_voxels_of_another_size_are_told(tmp_path, noise):
    paths = [save(tmp_path / f"{number}.nii", noise(SHAPE), np.diag([1, 1, size, 1]))
             for number, size in enumerate((1, 1, 1, 1.25, 1.5, 1.5))]  # fmt: skip
    told = (
        "3 of 6 volumes have voxels of another size than 1 mm: 1 x 1 x 1.5 mm (2), 1 x 1 x 1.25 mm (1); resample them"
    )
    for extraction in (PLANES, SlicesExtraction("axial", 5, 3, 1)):
        assert any(told in line for line in frame_lines(paths, extraction))
    assert not any("another size" in line for line in frame_lines(paths, PatchesExtraction(2.0, 12, patch=12)))
    assert not any("another size" in line for line in frame_lines(paths[:3], PLANES))


@pytest.mark.parametrize(
    "extraction",
    [SlicesExtraction("axial", 30, 3, 10), PlanesExtraction(20, 30, 40), PatchesExtraction(1.0, 64, patch=16)],
    ids=["slices", "planes", "patches"],
)
def test_audit_and_check_find_copies(tmp_path, extraction):
    kind = extraction.kind
    scans = [np.random.default_rng(number).integers(1, 4000, (64, 64, 64)).astype(np.int16) for number in range(9)]
    scans[8] = scans[0].copy()
    scans[8][:, :, 19] += 1  # of the first slice of each kind
    scans[8][8:24, 24:40, 24:40] += 1  # and of the first patch
    paths = [save(tmp_path / f"s{number}.nii", voxels) for number, voxels in enumerate(scans)]
    items = [{"image": path, "subject": f"s{number}", "label": number % 2} for number, path in enumerate(paths)]
    sets = items[0:3], items[3:6], items[6:9]
    (leak,) = audit_sets(*sets, extraction=extraction).leaks
    assert leak.check == f"Near-duplicate {kind}" and "s8" in leak.message and "s0" in leak.message
    save(tmp_path / "s8.nii", scans[1])
    assert [found.check for found in audit_sets(*sets, extraction=extraction).leaks] == ["Same pixels"]
    checked = check_cohort([(f"s{number}", tmp_path / f"s{number}.nii") for number in range(9)], extraction=extraction)
    copies = [scan.name for scan in checked.scans if any(f"same {kind} twice" in one for one in scan.problems)]
    assert copies == ["s1", "s8"]
    planes = ["axial"] * 3 if kind == "stack" else ["axial", "coronal", "sagittal"]
    assert all([view.plane for view in scan.views] == planes for scan in checked.scans)
    assert all(len(scan.sides) == 3 for scan in checked.scans)
