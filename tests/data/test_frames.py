"""Where a slice lies, worked out by hand: who is out of place, and what is said of a cohort."""

from __future__ import annotations

import json

import nibabel as nib
import numpy as np
import pytest

from monai_cae.cli import main
from monai_cae.data import SliceExtraction, load_sets, usable_images
from monai_cae.data.images.frames import Frame, common_frame, frame_lines, frames_of, from_record, other_voxels
from monai_cae.data.images.scan_quality import find_bad
from monai_cae.errors import MonaiCaeError

SHAPE = (20, 24, 22)
SLICE = SliceExtraction("axial", 11)


def turned(degrees, about=0):
    """Rotation about one of the axes."""
    a, b = (axis for axis in range(3) if axis != about)
    affine = np.eye(4)
    affine[[a, b], [a, b]] = np.cos(np.radians(degrees))
    affine[a, b], affine[b, a] = -np.sin(np.radians(degrees)), np.sin(np.radians(degrees))
    return affine


def moved(*mm):
    affine = np.eye(4)
    affine[:3, 3] = mm
    return affine


def reorient(image, codes):
    wanted = nib.orientations.axcodes2ornt(codes)
    return image.as_reoriented(nib.orientations.ornt_transform(nib.io_orientation(image.affine), wanted))


def about_middle(affine):
    """So that the middle of the wanted slice stays where it is."""
    middle = np.array([9.5, 11.5, 10.0, 1.0])
    return moved(*(middle - affine @ middle)[:3]) @ affine


@pytest.fixture
def save(tmp_path, noise):
    def write(name, affine=None, shape=SHAPE, codes=True):
        image = nib.Nifti1Image(noise(shape), np.eye(4) if affine is None else affine)
        if not codes:
            image.set_sform(None, 0)
            image.set_qform(None, 0)
        image.to_filename(tmp_path / f"{name}.nii")
        return tmp_path / f"{name}.nii"

    return write


@pytest.fixture
def cohort(save):
    """Six scans of one frame, as (name, file)."""
    return [(f"s{number}", save(f"s{number}")) for number in range(6)]


@pytest.mark.parametrize(
    ("affine", "reason"),
    [
        (moved(0, 0, 5.5), "axial slice 11 of {} lies 5.5 mm from the others' (limit 5 mm): register it, or"),
        (moved(0, 0, -40), "lies 40 mm from the others' (limit 5 mm)"),
        (about_middle(turned(12)), "is tilted by 12 degrees from the others' (limit 10)"),
        (about_middle(turned(-30, about=1)), "is tilted by 30 degrees"),
        (moved(0, 0, 4.5), ""),
        (moved(30, -50, 0), ""),  # the plane is the same
        (about_middle(turned(9)), ""),
        (about_middle(turned(9, about=2)), ""),
    ],
)
def test_a_scan_of_another_place_is_bad_unless_allowed(cohort, save, affine, reason):
    path = save("s3", affine)
    bad = find_bad(cohort, SLICE)
    assert [scan.subject for scan in bad] == (["s3"] if reason else [])
    assert not reason or reason.format(path) in bad[0].reason
    assert find_bad(cohort, SLICE, allow_other_frame=True) == []


def test_other_orientations_of_one_frame_are_no_fault(cohort, noise):
    for number, codes in enumerate(("LPS", "PSR", "ASL", "LIP")):
        image = nib.Nifti1Image(noise(SHAPE), np.eye(4))
        reorient(image, codes).to_filename(cohort[number][1])
    assert find_bad(cohort, SLICE) == []
    (line,) = frame_lines((str(path) for _, path in cohort), SLICE)[1:]
    assert line == (
        "the scans are stored in 5 orientations (RAS 2, LPS 1, PSR 1, ASL 1, LIP 1), and turned to one orientation by "
        "their affines"
    )


def test_a_raw_cohort_has_no_frame_and_is_told_so(cohort, save):
    for number in range(6):
        save(f"s{number}", moved(0, 0, 3.0 * number))
    save("s5", turned(25))
    assert find_bad(cohort, SLICE) == []
    told = frame_lines((str(path) for _, path in cohort), SLICE)
    assert [line.partition(":")[0] for line in told[1:]] == [
        "1 of 6 scans are oblique by more than 10 degrees, by up to 25",
        "the headers place axial slice 11 from 10 to 22 mm",
    ]


@pytest.mark.parametrize(("silent", "bad"), [([2], ["s2"]), ([0, 1, 2, 3], ["s4", "s5"]), (range(6), []), ([], [])])
def test_scans_with_and_without_orientation_are_not_mixed(cohort, save, silent, bad):
    for number in silent:
        save(f"s{number}", codes=False)
    found = find_bad(cohort, SLICE)
    assert [scan.subject for scan in found] == bad
    assert all("may have another orientation: its header records" in scan.reason for scan in found)
    assert find_bad(cohort, SLICE, allow_other_frame=True) == []


def test_an_oblique_volume_with_the_templates_voxels_is_bad(tmp_path):
    image = nib.Nifti1Image(np.ones((176, 208, 176), np.int8), turned(15))
    image.to_filename(tmp_path / "a.nii")
    options = SliceExtraction("axial", 106)
    (bad,) = find_bad([("a", tmp_path / "a.nii"), ("b", tmp_path / "a.nii")][:1], options)
    assert "is oblique by 15 degrees, though the volume has the template's voxels: register it" in bad.reason
    nib.Nifti1Image(np.ones((176, 208, 176), np.int8), turned(9)).to_filename(tmp_path / "a.nii")
    assert find_bad([("a", tmp_path / "a.nii")], options) == []
    assert frame_lines([str(tmp_path / "a.nii")], options) == []


def test_images_are_held_against_the_training(save, capsys):
    """Volumes of any place, as inference has them: the checkpoint's place counts, not the others'."""
    training = common_frame(frames_of([str(save("training"))], SLICE))
    assert training == Frame("RAS", SHAPE, (1, 1, 1), -0.5, (9.5, 11.5, 10), (0, 0, 1))
    good, off = save("good", moved(3, 3, 3)), save("off", moved(0, 0, 9))
    common = {"extraction": SLICE, "training": training}
    with pytest.raises(
        MonaiCaeError,
        match=r"off\.nii lies 9 mm from the training's \(limit 5 mm\): register it, or --allow_other_frame true",
    ):
        usable_images([good, off], on_bad_scan="fail", **common)
    assert usable_images([good, off], on_bad_scan="skip", **common).images == [good]
    assert usable_images([off], on_bad_scan="fail", allow_other_frame=True, **common).images == [off]
    assert "note:" not in capsys.readouterr().out
    larger = save("larger", moved(0, 0, -4), shape=(20, 24, 30))
    assert usable_images([larger], on_bad_scan="fail", **common).images == [larger]
    assert capsys.readouterr().out == (
        "note: the volumes have 20 x 24 x 30 voxels of 1 mm (stored as RAS), those of the training 20 x 24 x 22 voxels "
        "of 1 mm; axial slice 11 lies -4.5 mm from the middle, not -0.5 mm: register the scans to its space\n"
    )


def test_where_no_place_is_recorded_the_middle_counts(save, capsys):
    training = common_frame(frames_of([str(save("training", codes=False))], SLICE))
    assert (training.codes, training.centre, training.above_middle) == ("", None, -0.5)
    common = {"extraction": SLICE, "training": training, "on_bad_scan": "fail"}
    same, larger = save("same", moved(0, 0, 99)), save("larger", shape=(20, 24, 30))
    assert usable_images([same, larger], **common).images == [same, larger]
    assert "the scans record an orientation, those of the training do not" in capsys.readouterr().out
    with pytest.raises(MonaiCaeError, match="lies 9 mm from the training's"):  # the middles are at 19.5 and 10.5
        usable_images([save("far", shape=(20, 24, 40))], **common)


def test_stored_axes_that_are_not_those_of_the_training_are_bad(tmp_path, noise, save):
    options = SliceExtraction("axial", 11, "stored")
    training = common_frame(frames_of([str(save("training"))], options))
    reorient(nib.Nifti1Image(noise(SHAPE), np.eye(4)), "PSR").to_filename(tmp_path / "a.nii")
    with pytest.raises(MonaiCaeError, match="is tilted by 90 degrees from the training's"):
        usable_images([tmp_path / "a.nii"], options, on_bad_scan="fail", training=training)
    assert usable_images([tmp_path / "a.nii"], SLICE, on_bad_scan="fail", training=training).images


def test_what_a_checkpoint_says_of_its_frame_is_read_or_passed_over(save):
    frame = frames_of([str(save("a", turned(20)))], SLICE)[0]
    assert from_record(frame._asdict()) == frame and from_record({**frame._asdict(), "centre": None}).centre is None
    broken = [None, [], "x", {}, {**frame._asdict(), "shape": [1]}, {**frame._asdict(), "centre": ["a", 1, 2]}]
    broken += [
        {**frame._asdict(), "codes": 7},
        {**frame._asdict(), "spacing": None},
        {**frame._asdict(), "shape": "abc"},
    ]
    assert [from_record(record) for record in broken] == [None] * len(broken)


@pytest.fixture
def bids(tmp_path, save):
    """Fourteen subjects in one space, but the fifth."""
    lines = ["participant_id\tage\tCDR"]
    for number in range(14):
        name = f"sub-{number:02d}"
        folder = tmp_path / "cohort" / name / "anat"
        folder.mkdir(parents=True)
        save("x", moved(0, 0, 20 if number == 4 else 0)).rename(folder / f"{name}_T1w.nii")
        lines.append(f"{name}\t{70 + number}\t{0.5 * (number % 2)}")
    (tmp_path / "cohort" / "participants.tsv").write_text("\n".join(lines) + "\n")
    return tmp_path / "cohort"


def test_commands_refuse_skip_or_allow_the_one_that_is_elsewhere(bids, tmp_path, capsys):
    for path in bids.rglob("*.nii"):  # or they were copies of each other
        image = nib.load(path)
        voxels = np.random.default_rng(int(path.parts[-3][4:])).integers(1, 3000, SHAPE, dtype=np.int16)
        nib.Nifti1Image(voxels, image.affine).to_filename(path)
    command = ["datalist", str(bids), "--controls", "all", "--slice_index", "11", "--test-fraction", "0.4"]
    assert main([*command, "--out", str(tmp_path / "refused")]) == 1
    said = capsys.readouterr().err
    assert (
        said.startswith("error: 1 of 14 scans can't be used") and "sub-04_T1w.nii lies 20 mm from the others'" in said
    )
    assert not (tmp_path / "refused").exists()
    for spelling in ("--allow-other-frame", "--allow_other_frame"):
        assert main([*command, "--out", str(tmp_path / spelling), spelling]) == 0
    assert main([*command, "--out", str(tmp_path / "skip"), "--on-bad-scan", "skip"]) == 0
    assert "1 of 14 scans can't be used and are left out" in capsys.readouterr().out
    listed = tmp_path / "--allow-other-frame" / "datalist.json"
    assert main(["audit", str(listed), "--slice-index", "11"]) == 1
    assert main(["audit", str(listed), "--slice-index", "11", "--allow-other-frame"]) == 0


def test_a_datalist_records_how_slices_are_counted(bids, tmp_path):
    datalist = tmp_path / "made" / "datalist.json"
    options = {
        "cohort": {"controls": "all"},
        "split": {"test_fraction": 0.4},
        "extraction": SliceExtraction("axial", 11, "stored"),
    }
    load_sets(bids, datalist, **options, on_bad_scan="skip")
    recipe = json.loads(datalist.read_text())["recipe"]
    assert (recipe["plane"], recipe["slice_index"], recipe["axes"]) == ("axial", 11, "stored")
    assert [scan["subject"] for scan in recipe["bad_scans"]] == ["sub-04"]


def test_sizes_are_the_affines_where_pixdim_says_others(tmp_path):
    image = nib.Nifti1Image(np.ones((6, 7, 8), np.int16), np.diag([2.0, 2, 3, 1]))
    image.set_qform(None, 0)
    content = bytearray(image.to_bytes())
    content[80:92] = np.array([1, 1, 3], "<f4").tobytes()
    (tmp_path / "a.nii").write_bytes(content)
    content[80:92] = np.array([2.0004, 2, 3], "<f4").tobytes()  # rounded
    (tmp_path / "b.nii").write_bytes(content)
    images = [str(tmp_path / name) for name in ("a.nii", "b.nii")]
    lines = [line for line in frame_lines(images, SliceExtraction("axial", 4)) if "pixdim" in line]
    assert len(lines) == 1 and "voxel sizes of 1 scans (2 x 2 x 3 mm against 1 x 1 x 3 mm (1)); the affine" in lines[0]
    assert [frame.spacing for frame in frames_of(images, SliceExtraction("axial", 4))] == [(2, 2, 3)] * 2


@pytest.mark.parametrize(("codes", "told"), [((2, 1), True), ((2, 0), False), ((0, 1), False)])
@pytest.mark.parametrize("turn", [np.diag([-1.0, -1, 1, 1]), np.eye(4)[[1, 2, 0, 3]]])
def test_an_sform_and_a_qform_that_disagree_are_told(tmp_path, codes, told, turn):
    image = nib.Nifti1Image(np.ones((6, 7, 8), np.int16), np.eye(4))
    image.set_sform(np.eye(4), codes[0])
    image.set_qform(turn, codes[1])
    nib.save(image, tmp_path / "a.nii")
    nib.save(nib.Nifti1Image(np.ones((6, 7, 8), np.int16), np.eye(4)), tmp_path / "b.nii")
    images = [str(tmp_path / name) for name in ("a.nii", "b.nii")]
    lines = [line for line in frame_lines(images, SliceExtraction("axial", 4)) if "qform" in line]
    other = "".join(nib.aff2axcodes(turn))
    assert len(lines) == told
    assert all(f"1 scans (RAS against {other} (1)); the sform is used" in line for line in lines)


@pytest.mark.parametrize(
    ("shape", "spacing", "told"),
    [
        ((220, 260, 176), (0.8, 0.8, 1.0), "1 of 2 scans have voxels such as 0.8 x 0.8 x 1 mm, those"),
        ((176, 208, 88), (1.0, 1.0, 2.0), ""),  # across an axial slice nothing is seen of it
        ((176, 208, 176), (1.02, 1.0, 1.0), ""),
    ],
)  # fmt: skip
def test_voxels_of_another_size_than_the_trainings_are_told(shape, spacing, told):
    training = Frame("RAS", (176, 208, 176), (1.0, 1.0, 1.0), 17.5)
    frames = [training, training._replace(shape=shape, spacing=spacing)]
    found = other_voxels(frames, SliceExtraction(), training)
    assert found == (told and f"{told} of the training 1 mm")
    assert other_voxels(frames, SliceExtraction(), None) == ""
