"""Broken scans among good ones: all named at once, or left out of the selection and counted."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from monai_cae.data import SliceExtraction, audit_training, load_sets, load_usable_cohort, read_datalist, usable_images
from monai_cae.data.cohort.pseudonyms import hidden
from monai_cae.data.scan import BadScan
from monai_cae.data.splits.datalists import SETS
from monai_cae.errors import MonaiCaeError

SHAPE = (6, 6, 6)
# patients are odd numbers; of the controls 2 to 24 the ten oldest are 24 to 6
ROWS = [(f"OAS1_{n:04d}_MR1", "FM"[n % 2], 60 + n, 0.5) for n in range(1, 21, 2)]
ROWS += [(f"OAS1_{n:04d}_MR1", "FM"[n % 2], 60 + n, 0) for n in range(2, 25, 2)]
ROWS.append(("OAS1_0003_MR2", "M", 63, 0.5))


@pytest.fixture
def discs(tmp_path, write_discs):
    return write_discs(tmp_path / "discs", ROWS, SHAPE)


def image(discs, name):
    return next(discs.glob(f"disc*/{name}/**/*.img"))


def cut(discs, *names):
    for name in names:
        os.truncate(image(discs, name), 431)


def break_three(discs, write_pair, noise):
    cut(discs, "OAS1_0003_MR1", "OAS1_0024_MR1")
    write_pair(image(discs, "OAS1_0008_MR1").with_suffix(".hdr"), noise((6, 6, 7)))


def load(discs, tmp_path, **options):
    return load_sets(discs, tmp_path / "out" / "datalist.json", extraction=SliceExtraction("axial", 3), **options)


def members(sets):
    return {item["subject"]: item["image"] for name in SETS for item in getattr(sets, name)}


@pytest.mark.fault(
    "cohort: two scans truncated, one of another shape, `--on_bad_scan fail`",
    "all named at once, with reasons; nothing written",
)
def test_fail_names_all_and_writes_nothing(tmp_path, discs, write_pair, noise):
    break_three(discs, write_pair, noise)
    with pytest.raises(MonaiCaeError) as caught:
        load(discs, tmp_path)
    first, *lines = str(caught.value).splitlines()
    assert first == "3 of 20 scans can't be used: repair them, or leave them out with --on_bad_scan skip"
    assert [line.split(":")[0].strip() for line in lines] == ["OAS1_0003_MR1", "OAS1_0008_MR1", "OAS1_0024_MR1"]
    assert "truncated: 431 of 432 bytes" in lines[0] and "shape (6, 6, 7), the other volumes (6, 6, 6)" in lines[1]
    assert not (tmp_path / "out").exists()


@pytest.mark.fault(
    "cohort: two scans truncated, one of another shape, `--on_bad_scan skip`",
    "the next best take their places; the three are counted and named in datalist and audit",
)
def test_skip_selects_among_usable_scans_and_counts_the_others(tmp_path, discs, write_pair, noise):
    break_three(discs, write_pair, noise)
    sets = load(discs, tmp_path, on_bad_scan="skip")
    taken = members(sets)
    assert len(taken) == 20 and not {"OAS1_0008", "OAS1_0024"} & set(taken)
    assert {"OAS1_0002", "OAS1_0004"} < set(taken)  # the next oldest
    assert "OAS1_0003_MR2" in taken["OAS1_0003"]  # the first scan that can be used
    content = json.loads((tmp_path / "out" / "datalist.json").read_text())
    recipe = content["recipe"]
    assert recipe["left_out"]["scans that can't be used (on_bad_scan skip)"] == 3
    assert sum(recipe["left_out"].values()) + 20 == len(ROWS)
    assert {one["subject"] for one in recipe["bad_scans"]} == {"OAS1_0003_MR1", "OAS1_0008_MR1", "OAS1_0024_MR1"}
    assert all(one["image"].startswith("disc") and str(tmp_path) not in one["reason"] for one in recipe["bad_scans"])
    audit = audit_training(sets, SliceExtraction("axial", 3))
    assert [one["subject"] for one in audit["bad_scans"]] == [one["subject"] for one in recipe["bad_scans"]]
    assert load(discs, tmp_path) == sets  # what is left is good, and still counted


def test_a_bad_patient_costs_a_control(discs):
    cut(discs, "OAS1_0005_MR1")
    cohort = load_usable_cohort(discs, SliceExtraction("axial", 3), on_bad_scan="skip")
    assert (len(cohort.patients), len(cohort.controls), len(cohort.bad_scans)) == (9, 9, 1)
    assert "OAS1_0006" not in {scan.subject for scan in cohort.controls}  # the youngest of the ten


def test_scans_that_do_not_take_part_are_not_read(discs):
    cut(discs, "OAS1_0002_MR1")
    cohort = load_usable_cohort(discs, SliceExtraction("axial", 3), on_bad_scan="fail")
    assert len(cohort.scans) == 20 and not cohort.bad_scans


def test_a_class_of_which_none_is_left_is_one_line(discs, refused):
    cut(discs, *(name for name, _, _, cdr in ROWS if cdr))
    with refused(
        r"no patient \(.*\) among 12 scans .*; 11 were left out as unusable, the first: .*OAS1_0001_MR1.*\.img"
    ):
        load_usable_cohort(discs, SliceExtraction("axial", 3), on_bad_scan="skip")


@pytest.mark.parametrize("on_bad_scan", ["fail", "skip"])
def test_a_wrong_slice_index_is_no_fault_of_the_scans(discs, refused, on_bad_scan):
    with refused(r"slice_index 7 is outside .*: its axial slices are 1 to 6"):
        load_usable_cohort(discs, SliceExtraction("axial", 7), on_bad_scan=on_bad_scan)


@pytest.mark.fault(
    "cohort: a scan deleted and one truncated after the datalist was made",
    "both named, or left out in memory; the file stays as it is",
)
def test_a_datalist_that_is_there(tmp_path, discs):
    before = load(discs, tmp_path)
    path = tmp_path / "out" / "datalist.json"
    content = path.read_text()
    gone, truncated = before.training[0], before.test[0]
    Path(gone["image"]).unlink()
    os.truncate(truncated["image"].replace(".hdr", ".img"), 9)
    with pytest.raises(MonaiCaeError) as caught:
        load(discs, tmp_path)
    assert str(caught.value).startswith("2 of 20 scans") and len(str(caught.value).splitlines()) == 3
    sets = load(discs, tmp_path, on_bad_scan="skip")
    assert members(sets).keys() == members(before).keys() - {gone["subject"], truncated["subject"]}
    assert {(scan.subject, scan.set) for scan in sets.bad_scans} == {
        (gone["subject"], "training"),
        (truncated["subject"], "test"),
    }
    assert path.read_text() == content


def test_a_set_without_a_class_is_one_line(tmp_path, discs, refused):
    for item in load(discs, tmp_path).validation:
        if item["label"] == 0:
            Path(item["image"]).unlink()
    with refused(r"no usable control is left in the validation set of .*datalist\.json: \d of 20 scans can't be used"):
        load(discs, tmp_path, on_bad_scan="skip")


def test_a_scan_that_is_repaired_or_broken_meanwhile_is_read_anew(tmp_path, discs):
    path = image(discs, "OAS1_0005_MR1")
    good = path.read_bytes()
    for broken in (False, True, False):
        path.write_bytes(good[:-1] if broken else good)
        cohort = load_usable_cohort(discs, SliceExtraction("axial", 3), on_bad_scan="skip")
        assert len(cohort.bad_scans) == broken


@pytest.mark.parametrize("value", ["ignore", "", None, True])
def test_other_values_are_refused(tmp_path, discs, refused, value):
    with refused(f"on_bad_scan must be fail or skip, not {value!r}"):
        load(discs, tmp_path, on_bad_scan=value)


def test_long_lists_are_counted(tmp_path):
    images = [tmp_path / f"{number}.nii" for number in range(25)]
    with pytest.raises(MonaiCaeError) as caught:
        usable_images(images, SliceExtraction("axial", 1), on_bad_scan="fail")
    lines = str(caught.value).splitlines()
    assert (len(lines), lines[-1]) == (22, "  and 5 more")


def test_images_to_predict_from(tmp_path, write_pair, noise, refused, capsys):
    images = [write_pair(tmp_path / f"{n}.hdr", noise((6, 6, 5 + n))) for n in range(3)]  # shapes may differ
    os.truncate(tmp_path / "1.img", 9)
    found = usable_images(images, SliceExtraction("axial", 3), on_bad_scan="skip")
    assert found.images == [images[0], images[2]]
    assert found.left_out == {str(images[1]): "1.img is truncated: 9 of 432 bytes: copy it again"}
    assert capsys.readouterr().out.startswith("1 of 3 scans can't be used and are left out:\n  ")
    with refused("none of 1 scans can be used, the first: .*1.img is truncated"):
        usable_images(images[1:2], SliceExtraction("axial", 3), on_bad_scan="skip")


@pytest.mark.parametrize("bad", [3, "x", [1], [{"subject": "a"}], {"a": 1}])
def test_a_record_that_is_none_is_refused(tmp_path, discs, refused, bad):
    load(discs, tmp_path)
    path = tmp_path / "out" / "datalist.json"
    content = json.loads(path.read_text())
    content["recipe"]["bad_scans"] = bad
    path.write_text(json.dumps(content))
    with refused(r"datalist\.json is not a usable datalist \(its recipe: bad_scans is not a list"):
        read_datalist(path, discs)


@pytest.mark.fault("datalist: nested 100,000 deep", "refused in one line")
def test_a_datalist_nested_too_deep_is_refused(tmp_path, refused):
    (tmp_path / "deep.json").write_text("[" * 100_000)
    with refused(r"deep\.json is not readable JSON"):
        read_datalist(tmp_path / "deep.json", tmp_path)


@pytest.mark.parametrize(
    ("image", "reason", "shown"),
    [
        ("7.nii.gz", "/d/7.nii.gz is truncated: 7 of 77 bytes", "s1.nii.gz is truncated: 7 of 77 bytes"),
        (
            "a.hdr",
            "/d/a.img is missing next to its .hdr: a copy is needed",
            "s1.img is missing next to its .hdr: a copy is needed",
        ),
        ("", "no file", "no file"),
    ],
)
def test_a_hidden_scan_keeps_its_reason(image, reason, shown):
    scan = hidden(BadScan("a", f"/d/{image}", reason), "s1")
    assert (scan.subject, scan.reason) == ("s1", shown)
    assert scan.image == (f"s1.{image.partition('.')[2]}" if image else "d")
