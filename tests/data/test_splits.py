"""Whole subjects in one set each, written once as a datalist, and never half."""

from __future__ import annotations

import json
import os
import random
import shutil
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import torch
from monai.data import load_decathlon_datalist

from monai_cae.data import Cohort, Scan, load_sets, read_datalist, split_cohort

SETS = ("training", "validation", "test")
SHAPE = (6, 6, 6)
# ten of each class, and a rescan
ROWS = [(f"OAS1_{n:04d}_MR1", "FM"[n % 2], 60 + n, 0.5 * (n % 2)) for n in range(1, 21)]
ROWS.append(("OAS1_0003_MR2", "M", 63, 0.5))


def cohort(patients, controls):
    return Cohort(
        [Scan(f"p{number:03d}", cdr=1) for number in range(patients)],
        [Scan(f"c{number:03d}", cdr=0) for number in range(controls)],
    )


@pytest.fixture
def discs(tmp_path, write_discs):
    return write_discs(tmp_path / "discs", ROWS, SHAPE)


@pytest.fixture
def load(tmp_path, discs):
    """load(**options): the sets of the discs, through tmp_path / "out" / "datalist.json"."""

    def load(dataset_dir=discs, **options):
        return load_sets(dataset_dir, tmp_path / "out" / "datalist.json", **{"slice_index": 3, **options})

    return load


def subjects(sets):
    return {name: [item["subject"] for item in getattr(sets, name)] for name in SETS}


def test_paper_split():
    sets = split_cohort(cohort(100, 100))
    assert list(sets) == list(SETS)
    counts = {name: (len(scans), sum(scan.label for scan in scans)) for name, scans in sets.items()}
    assert counts == {"training": (112, 56), "validation": (28, 14), "test": (60, 30)}
    everyone = [scan.subject for scans in sets.values() for scan in scans]
    assert sorted(everyone) == sorted(scan.subject for scan in cohort(100, 100).scans)


@pytest.mark.parametrize(
    ("patients", "controls", "fractions", "sizes"),
    [
        (20, 20, {"test_fraction": 0.5, "val_fraction": 0.5}, (10, 10, 20)),
        (20, 60, {"test_fraction": 0.25, "val_fraction": 0.2}, (48, 12, 20)),
    ],
    ids=["halves", "one-to-three"],
)
def test_fractions(patients, controls, fractions, sizes):
    sets = split_cohort(cohort(patients, controls), **fractions)
    for scans, size in zip(sets.values(), sizes, strict=True):
        assert len(scans) == size
        assert sum(scan.label for scan in scans) == size * patients // (patients + controls)


def test_seed_alone_decides():
    first, again, other = (split_cohort(cohort(30, 30), seed=seed) for seed in (7, 7, 8))
    assert first == again
    assert {scan.subject for scan in first["test"]} != {scan.subject for scan in other["test"]}
    shuffled = cohort(30, 30)
    random.Random(0).shuffle(shuffled.patients)
    assert split_cohort(shuffled, seed=7) == first


def test_global_random_state_is_neither_used_nor_touched():
    def draws():
        return random.random(), np.random.random(), torch.rand(1).item()  # noqa: NPY002

    def seed():
        random.seed(1), np.random.seed(1), torch.manual_seed(1)  # noqa: NPY002

    seed()
    expected = draws()
    first = split_cohort(cohort(10, 10))
    seed()
    assert split_cohort(cohort(10, 10)) == first
    assert draws() == expected


@pytest.mark.parametrize(
    ("people", "options", "message"),
    [
        ((10, 10), {"test_fraction": 0.0}, "test_fraction must be between 0 and 1, not 0.0"),
        ((10, 10), {"test_fraction": 1.5}, "test_fraction must be between 0 and 1, not 1.5"),
        ((10, 10), {"test_fraction": 60}, "test_fraction must be between 0 and 1, not 60"),
        ((10, 10), {"val_fraction": 1}, "val_fraction must be between 0 and 1, not 1"),
        ((10, 10), {"val_fraction": -0.1}, "val_fraction must be between 0 and 1, not -0.1"),
        ((10, 10), {"val_fraction": float("nan")}, "val_fraction must be between 0 and 1, not nan"),
        ((10, 10), {"val_fraction": "some"}, "val_fraction must be between 0 and 1, not some"),
        ((10, 10), {"seed": -1}, "seed must be a whole number from 0 to 4294967295, not -1"),
        ((10, 10), {"seed": "one"}, "seed must be a whole number from 0 to 4294967295, not one"),
        ((1, 10), {}, "too few subjects to split: 1 patients and 10 controls do not give both classes"),
        ((2, 2), {}, "too few subjects to split: 2 patients and 2 controls"),
        ((0, 10), {}, "too few subjects to split: 0 patients and 10 controls"),
        ((10, 10), {"test_fraction": 0.99}, "too few subjects to split: 10 patients and 10 controls"),
        ((5, 200), {"val_fraction": 0.02}, "too few subjects to split: 5 patients and 200 controls"),
    ],
)
def test_splits_that_cannot_be_are_refused(refused, people, options, message):
    with refused(message):
        split_cohort(cohort(*people), **options)


def test_datalist_is_monais_with_relative_paths(tmp_path, discs, load):
    sets = load()
    path = tmp_path / "out" / "datalist.json"
    content = json.loads(path.read_text(encoding="utf-8"))
    assert content["name"] == "discs" and content["synthetic"] is False and not sets.synthetic
    written = {item["subject"]: item for name in SETS for item in content[name]}
    assert written["OAS1_0003"] == {
        "image": "disc1/OAS1_0003_MR1/PROCESSED/MPRAGE/T88_111/OAS1_0003_MR1_mpr_n5_anon_111_t88_masked_gfc.hdr",
        "label": 1,
        "subject": "OAS1_0003",
        "session": "MR1",
        "cdr": 0.5,
        "age": 63.0,
        "sex": "M",
        **{"Educ": 2.0, "MMSE": 29.0, "eTIV": 1344.0, "nWBV": 0.743, "ASF": 1.306},
    }
    for name in SETS:
        assert load_decathlon_datalist(str(path), False, name, str(discs)) == getattr(sets, name)
    assert read_datalist(path, discs) == sets


def test_every_subject_is_in_one_set_with_its_label(load):
    sets = load()
    members = subjects(sets)
    assert {name: len(people) for name, people in members.items()} == {"training": 11, "validation": 3, "test": 6}
    everyone = Counter(subject for people in members.values() for subject in people)
    assert everyone == Counter(f"OAS1_{n:04d}" for n in range(1, 21))
    labels = {item["subject"]: item["label"] for name in SETS for item in getattr(sets, name)}
    assert labels == {f"OAS1_{n:04d}": n % 2 for n in range(1, 21)}
    assert sum(item["label"] for item in sets.test) == 3


def test_seed_reaches_the_datalist(tmp_path, discs):
    first, again, other = (
        subjects(load_sets(discs, tmp_path / f"{number}.json", slice_index=3, seed=seed))
        for number, seed in enumerate((1, 1, 2))
    )
    assert first == again
    assert set(first["test"]) != set(other["test"])


def test_datalist_is_reused_not_made_anew(tmp_path, discs, load):
    sets = load(seed=3)
    path = tmp_path / "out" / "datalist.json"
    before = path.read_bytes()
    (discs / "oasis_cross-sectional.csv").unlink()
    assert load(seed=3) == sets
    assert path.read_bytes() == before
    assert list(path.parent.iterdir()) == [path]


def test_relative_dataset_dir_gives_absolute_paths(discs, load, monkeypatch):
    monkeypatch.chdir(discs.parent)
    sets = load("discs")
    monkeypatch.chdir("/")
    assert all(Path(item["image"]).is_absolute() and Path(item["image"]).is_file() for item in sets.training)


def test_folder_named_after_a_subject_is_not_taken_for_its_image(discs, load):
    for name in ("OAS1_0001", "MR1", "F"):
        (discs / name).mkdir()
    sets = load()
    items = [item for name in SETS for item in getattr(sets, name)]
    assert {item["subject"] for item in items} == {f"OAS1_{n:04d}" for n in range(1, 21)}
    assert {item["session"] for item in items} == {"MR1"} and {item["sex"] for item in items} == {"F", "M"}


def test_synthetic_cohort_says_so(tmp_path, discs, load):
    (discs / "dataset_description.json").write_text('{"synthetic": true}')
    assert load().synthetic and load().synthetic
    content = json.loads((tmp_path / "out" / "datalist.json").read_text(encoding="utf-8"))
    assert content["name"] == "synthetic cohort, not real MRI"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"seed": 4}, r"datalist\.json was made with seed 3, not 4: choose another --output_dir, or delete the file"),
        ({"controls": "all"}, "was made with controls oldest, not all"),
        ({"test_fraction": 0.4}, r"was made with test_fraction 0\.3, not 0\.4"),
        ({"val_fraction": 0.3}, r"was made with val_fraction 0\.2, not 0\.3"),
    ],
    ids=["seed", "controls", "test_fraction", "val_fraction"],
)
def test_datalist_of_other_settings_is_refused(load, refused, options, message):
    load(seed=3)
    with refused(message):
        load(**{"seed": 3, **options})


def test_datalist_of_another_folder_is_refused(tmp_path, discs, load, refused):
    load()
    shutil.copytree(discs, tmp_path / "copy")
    with refused("was made with dataset_dir .*discs, not .*copy"):
        load(tmp_path / "copy")


def leak(content):
    content["test"].append(dict(content["training"][0]))


def rescan_leak(content):
    content["validation"].append({**content["training"][0], "session": "MR2"})


def relabel(label):
    def change(content):
        content["training"][0]["label"] = label

    return change


def drop_key(key):
    def change(content):
        del content["validation"][0][key]

    return change


def move_image(content):
    content["test"][0]["image"] = "disc1/gone.hdr"


def set_part(name, value):
    def change(content):
        content[name] = value

    return change


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (leak, r"list\.json: subject OAS1_\d{4} is in training and in test: a subject may be in one set only"),
        (rescan_leak, r"list\.json: subject OAS1_\d{4} is in training and in validation"),
        (relabel(2), r"list\.json: the label of OAS1_\d{4} is 2; it must be 0 \(HC\) or 1 \(AD\)"),
        (relabel(None), r"list\.json: the label of OAS1_\d{4} is None"),
        (relabel("AD"), r"list\.json: the label of OAS1_\d{4} is 'AD'"),
        (drop_key("label"), r"list\.json: the label of OAS1_\d{4} is None"),
        (drop_key("image"), r"list\.json: an item of validation has no image or no subject: both are needed"),
        (drop_key("subject"), r"list\.json: an item of validation has no image or no subject"),
        (move_image, r"disc1/gone\.hdr is missing \(.*list\.json names it\): check --dataset_dir"),
        (set_part("test", []), r"list\.json is no datalist for this: it has no test set"),
        (set_part("test", 3), r"list\.json is no datalist for this: it has no test set"),
        (set_part("training", ["a.nii"]), r"list\.json: an item of training has no image or no subject"),
    ],
    ids=[
        "leak",
        "rescan-leak",
        "label-2",
        "label-null",
        "label-text",
        "no-label",
        "no-image-key",
        "no-subject-key",
        "image-missing",
        "empty-set",
        "set-is-number",
        "item-is-text",
    ],
)
def test_datalists_that_cannot_be_trusted_are_refused(tmp_path, discs, load, refused, change, message):
    load()
    content = json.loads((tmp_path / "out" / "datalist.json").read_text(encoding="utf-8"))
    change(content)
    path = tmp_path / "list.json"
    path.write_text(json.dumps(content), encoding="utf-8")
    with refused(message):
        read_datalist(path, discs)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (None, r"no datalist at .*list\.json: check --datalist"),
        ('{"training": [', r"list\.json is not readable JSON \(.*\): delete it to have it made anew"),
        ("", r"list\.json is not readable JSON"),
        ("[]", r"list\.json is no datalist for this: it has no training, validation, test set"),
        ("null", r"list\.json is no datalist for this"),
    ],
    ids=["missing", "cut-off", "empty", "list", "null"],
)
def test_files_that_are_no_datalist_are_refused(tmp_path, refused, text, message):
    path = tmp_path / "list.json"
    if text is not None:
        path.write_text(text)
    with refused(message):
        read_datalist(path, tmp_path)


def test_datalist_without_record_of_its_settings_is_taken(tmp_path, discs, load):
    sets = load()
    path = tmp_path / "out" / "datalist.json"
    content = json.loads(path.read_text(encoding="utf-8"))
    content["made_from"] = None
    path.write_text(json.dumps(content), encoding="utf-8")
    assert load(seed=99) == sets


def test_output_below_a_regular_file_is_refused(tmp_path, discs, refused):
    (tmp_path / "file").write_text("mine")
    with refused(r"can't write .*file/out/datalist\.json \(.*\): choose another --output_dir"):
        load_sets(discs, tmp_path / "file" / "out" / "datalist.json", slice_index=3)
    assert (tmp_path / "file").read_text() == "mine"


@pytest.mark.parametrize("step", ["write_text", "replace"])
def test_full_disk_leaves_nothing_half_written(tmp_path, load, refused, monkeypatch, step):
    def fail(self, *args, **kwargs):
        if step == "write_text":
            self.write_bytes(b'{"training": [')
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(*((Path, "write_text") if step == "write_text" else (os, "replace")), fail)
    with refused(r"can't write .*datalist\.json \(No space left on device\)"):
        load()
    assert list((tmp_path / "out").iterdir()) == []


def test_crash_while_writing_leaves_nothing_half_written(tmp_path, load, monkeypatch):
    def interrupt(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(os, "replace", interrupt)
    with pytest.raises(KeyboardInterrupt):
        load()
    assert list((tmp_path / "out").iterdir()) == []


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"slice_index": 7}, r"slice_index 7 is outside .*OAS1_0001.*: its axial slices are 1 to 6"),
        ({"plane": "oblique"}, "plane must be axial, coronal or sagittal"),
        ({"controls": "some"}, "controls must be one of"),
        ({"test_fraction": 2}, "test_fraction must be between 0 and 1"),
        ({"table": "nowhere.csv"}, "no table at nowhere.csv"),
    ],
    ids=["slice_index", "plane", "controls", "test_fraction", "table"],
)
def test_no_datalist_after_a_wrong_setting(tmp_path, load, refused, options, message):
    with refused(message):
        load(**options)
    assert not (tmp_path / "out").exists()


def test_no_datalist_of_a_broken_cohort(tmp_path, discs, load, refused):
    image = next(discs.glob("disc*/OAS1_0007_MR1/**/*.img"))
    os.truncate(image, 6 * 6 * 6 * 2 - 1)
    with refused(r"OAS1_0007_MR1.*\.img is truncated: 431 of 432 bytes: copy it again"):
        load()
    assert not (tmp_path / "out").exists()


def test_no_datalist_of_a_table_alone(tmp_path, write_table, load, refused):
    with refused("dataset_dir is a table alone: training needs the folder with the images"):
        load(write_table(tmp_path / "t.csv", ROWS))
    assert not (tmp_path / "out").exists()
