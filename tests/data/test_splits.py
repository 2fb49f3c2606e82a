"""Whole subjects in one set each, written once as a datalist, and never half."""

from __future__ import annotations

import json
import os
import random
import shutil
from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from monai.data import load_decathlon_datalist

from monai_cae.data import Cohort, Scan, SliceExtraction, load_sets, read_datalist, split_cohort

SETS = ("training", "validation", "test")
SHAPE = (6, 6, 6)
# ten of each class, and a rescan
ROWS = [(f"OAS1_{n:04d}_MR1", "FM"[n % 2], 60 + n, 0.5 * (n % 2)) for n in range(1, 21)]
ROWS.append(("OAS1_0003_MR2", "M", 63, 0.5))


def cohort(patients, controls):
    return Cohort(
        [Scan(f"p{number:03d}", label=1) for number in range(patients)],
        [Scan(f"c{number:03d}", label=0) for number in range(controls)],
    )


def people(per_class, seed=0):
    """As many patients as controls, of whom 1 in 3 is a man and the patients are older."""
    rng = np.random.default_rng(seed)
    ages = rng.integers(60, 90, (2, per_class)).astype(float)
    groups = [
        [
            Scan(f"{'cp'[label]}{n:03d}", label=label, age=ages[label, n] + 5 * label, sex="FFM"[n % 3])
            for n in range(per_class)
        ]
        for label in (0, 1)
    ]
    return Cohort(groups[1], groups[0])


@pytest.fixture
def discs(tmp_path, write_discs):
    return write_discs(tmp_path / "discs", ROWS, SHAPE)


@pytest.fixture
def load(tmp_path, discs):
    """load(**options): the sets of the discs, through tmp_path / "out" / "datalist.json"."""

    def load(dataset_dir=discs, **options):
        return load_sets(
            dataset_dir, tmp_path / "out" / "datalist.json", **{"extraction": SliceExtraction("axial", 3), **options}
        )

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


@pytest.mark.parametrize("stratify", ["class", "class+age+sex"])
@pytest.mark.parametrize(("patients", "controls", "folds"), [(10, 10, 5), (13, 21, 4), (6, 6, 2)])
def test_folds_are_everybody_once_with_both_classes_alike(patients, controls, folds, stratify):
    everyone = cohort(patients, controls)
    parts = [
        split_cohort(everyone, kind="kfold", folds=folds, fold=fold, stratify=stratify, seed=3)
        for fold in range(1, folds + 1)
    ]
    tested = Counter(scan.subject for part in parts for scan in part["test"])
    assert tested == Counter(scan.subject for scan in everyone.scans)
    for part in parts:
        members = [scan.subject for scans in part.values() for scan in scans]
        assert sorted(members) == sorted(scan.subject for scan in everyone.scans)
        for label, total in ((1, patients), (0, controls)):
            count = sum(scan.label == label for scan in part["test"])
            assert count in (total // folds, -(-total // folds))
            rest = total - count
            assert abs(sum(scan.label == label for scan in part["validation"]) - 0.2 * rest) < 1


def test_seed_and_fold_decide_a_fold():
    def tested(**options):
        return [scan.subject for scan in split_cohort(cohort(10, 10), kind="kfold", **options)["test"]]

    assert tested() == tested(fold=1, folds=5, seed=0)
    assert len({tuple(tested(fold=fold)) for fold in range(1, 6)}) == 5
    assert tested(seed=1) != tested(seed=2)
    assert tested(test_fraction=0.9) == tested()


@pytest.mark.parametrize("kind", ["holdout", "kfold"])
@pytest.mark.parametrize("per_class", [30, 60])
def test_stratified_by_age_and_sex_too(kind, per_class):
    """Over many seeds the test set is nearer to everybody than with the class alone, and the classes stay even."""
    options = {"kind": kind} if kind == "kfold" else {"test_fraction": 0.25}
    away = {"class": [], "class+age+sex": []}
    for seed in range(8):
        everyone = people(per_class, seed)
        for stratify, distances in away.items():
            test = split_cohort(everyone, stratify=stratify, seed=seed, **options)["test"]
            assert abs(sum(scan.label for scan in test) - len(test) / 2) <= 1
            men = [np.mean([scan.sex == "M" for scan in scans]) for scans in (test, everyone.scans)]
            age = [np.mean([scan.age for scan in scans]) for scans in (test, everyone.scans)]
            distances.append((abs(men[0] - men[1]), abs(age[0] - age[1])))
    by_class, by_all = (np.mean(distances, axis=0) for distances in away.values())
    assert (by_all < by_class).all()


def test_stratified_by_sex_alone_is_exact():
    sets = split_cohort(people(60), stratify="class+sex", test_fraction=0.5, val_fraction=0.5)
    for name, size in (("training", 30), ("validation", 30), ("test", 60)):
        counts = Counter((scan.label, scan.sex) for scan in sets[name])
        assert counts == {(label, sex): size // (6, 3)[sex == "F"] for label in (0, 1) for sex in "FM"}


def lonely(age=None, sex=""):
    """Twelve of each class alike, and one patient of another sex or age."""
    patients = [Scan(f"p{n:02d}", label=1, age=70.0, sex="F") for n in range(11)]
    controls = [Scan(f"c{n:02d}", label=0, age=70.0, sex="F") for n in range(12)]
    return Cohort([*patients, Scan("p11", label=1, age=age, sex=sex)], controls)


@pytest.mark.parametrize("stratify", ["class+age", "class+sex", "class+sex+age"])
@pytest.mark.parametrize("options", [{}, {"kind": "kfold"}, {"test_fraction": 0.75, "val_fraction": 0.4}])
@pytest.mark.parametrize("everyone", [lonely(95.0, "M"), lonely(), people(12)], ids=["other", "unknown", "many-strata"])
def test_rare_strata_do_not_break_a_split(everyone, stratify, options):
    for seed in range(3):
        sets = split_cohort(everyone, stratify=stratify, seed=seed, **options)
        members = [scan.subject for scans in sets.values() for scan in scans]
        assert sorted(members) == sorted(scan.subject for scan in everyone.scans)
        test = sets["test"]
        assert abs(sum(scan.label for scan in test) - len(test) / 2) <= 1


@pytest.mark.parametrize("kind", ["holdout", "kfold"])
def test_all_scans_of_a_subject_stay_together(kind):
    everyone = cohort(10, 10)
    twins = [Scan(scan.subject, session, label=scan.label) for scan in everyone.patients for session in ("a", "b", "c")]
    sets = split_cohort(Cohort(twins, everyone.controls), kind=kind)
    assert sum(len(scans) for scans in sets.values()) == 40
    subjects_of = [{scan.subject for scan in scans} for scans in sets.values()]
    assert sum(len(found) for found in subjects_of) == len(set.union(*subjects_of)) == 20
    for scans in sets.values():
        assert set(Counter(scan.subject for scan in scans if scan.label).values()) == {3}
    plain = split_cohort(everyone, kind=kind)
    assert [{scan.subject for scan in scans} for scans in plain.values()] == subjects_of


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
    ("counts", "options", "message"),
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
        ((10, 10), {"kind": "random"}, "split kind must be one of holdout, kfold, not 'random'"),
        ((10, 10), {"kind": "kfold", "fold": 0}, "fold must be from 1 to folds, and folds at least 2, not 0 of 5"),
        ((10, 10), {"kind": "kfold", "fold": 6}, "fold must be from 1 to folds, and folds at least 2, not 6 of 5"),
        ((10, 10), {"kind": "kfold", "folds": 1}, "fold must be from 1 to folds, and folds at least 2, not 1 of 1"),
        ((10, 10), {"kind": "kfold", "folds": 2.0}, r"fold must be from 1 to folds.*, not 1 of 2\.0"),
        ((10, 10), {"kind": "kfold", "fold": True}, "fold must be from 1 to folds.*, not True of 5"),
        ((10, 10), {"stratify": "age"}, "stratify must be class, class.age, class.sex or .*, not 'age'"),
        ((10, 10), {"stratify": "class+size"}, "stratify must be class, .*, not 'class.size'"),
        ((10, 10), {"stratify": None}, "stratify must be class, .*, not None"),
        (
            (10, 10),
            {"kind": "kfold", "folds": 11},
            "too few subjects to split: 10 patients and 10 controls do not give",
        ),
        ((3, 10), {"kind": "kfold"}, "too few subjects to split: 3 patients and 10 controls"),
        ((3, 10), {"kind": "kfold", "fold": 4}, "too few subjects to split: 3 patients and 10 controls"),
        ((1, 10), {}, "too few subjects to split: 1 patients and 10 controls do not give both classes"),
        ((2, 2), {}, "too few subjects to split: 2 patients and 2 controls"),
        ((0, 10), {}, "too few subjects to split: 0 patients and 10 controls"),
        ((10, 10), {"test_fraction": 0.99}, "too few subjects to split: 10 patients and 10 controls"),
        ((5, 200), {"val_fraction": 0.02}, "too few subjects to split: 5 patients and 200 controls"),
    ],
)
def test_splits_that_cannot_be_are_refused(refused, counts, options, message):
    with refused(message):
        split_cohort(cohort(*counts), **options)


def test_too_few_are_counted_by_subjects(refused):
    patients = [Scan("p", session, label=1) for session in "abcdefgh"]
    with refused("too few subjects to split: 1 patients and 10 controls"):
        split_cohort(Cohort(patients, cohort(0, 10).controls))


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
        subjects(load_sets(discs, tmp_path / f"{number}.json", extraction=SliceExtraction("axial", 3), seed=seed))
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


@pytest.mark.parametrize(
    ("rows", "told"),
    [
        ([(*ROWS[3][:3], 0.5) if row is ROWS[3] else row for row in ROWS], "had label 0 then and has label 1 now"),
        ([row for row in ROWS if row is not ROWS[3]], "had label 0 then and has no part now"),
        (
            [row for row in ROWS if "0004" not in row[0] and "0006" not in row[0]],
            "had label 0 then and has no part now",
        ),
    ],
    ids=["another label", "a row less", "a tenth of the rows less"],
)
def test_a_datalist_of_other_subjects_or_labels_than_the_tables_is_refused(
    discs, load, refused, write_table, rows, told
):
    table = discs / "oasis_cross-sectional.csv"
    sets = load()
    write_table(table, rows)
    with refused(f"{discs} has changed since .*datalist.json was made: OAS1_0004 {told}: restore the table, or begin"):
        load()
    assert load(given=True) == load(compare=False) == sets
    write_table(
        table, [(name, sex, age - 1, cdr) for name, sex, age, cdr in [*reversed(ROWS), ("OAS1_0099_MR1", "F", 70, 0)]]
    )
    assert load() == sets  # the same people and labels


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
        ({"cohort": {"controls": "all"}}, "was made with controls oldest, not all"),
        ({"cohort": {"task": "ad"}}, "was made with task paper, not ad"),
        ({"cohort": {"positive": "CDR > 0"}}, "was made with positive none, not CDR > 0"),
        ({"cohort": {"sessions": "all"}}, "was made with sessions first, not all"),
        ({"cohort": {"table": "other.csv"}}, r"was made with table none, not other\.csv"),
        ({"cohort": {"columns": {"age": "AGE"}}}, "was made with columns none, not {'age': 'AGE'}"),
        ({"split": {"test_fraction": 0.4}}, r"was made with test_fraction 0\.3, not 0\.4"),
        ({"split": {"val_fraction": 0.3}}, r"was made with val_fraction 0\.2, not 0\.3"),
        ({"split": {"kind": "kfold"}}, "was made with kind holdout, not kfold"),
        ({"split": {"fold": 2}}, "was made with fold 1, not 2"),
        ({"split": {"folds": 4}}, "was made with folds 5, not 4"),
        ({"split": {"stratify": "class+sex"}}, r"was made with stratify class, not class\+sex"),
    ],
    ids=lambda value: json.dumps(value) if isinstance(value, dict) else "",
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
        (set_part("test", []), r"list\.json is not a usable datalist: it has no test set"),
        (set_part("test", 3), r"list\.json is not a usable datalist: it has no test set"),
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


@pytest.mark.parametrize("change", [leak, rescan_leak])
def test_leaks_are_let_through_only_where_they_are_asked_for(tmp_path, discs, load, refused, change):
    sets = load()
    path = tmp_path / "out" / "datalist.json"
    content = json.loads(path.read_text(encoding="utf-8"))
    change(content)
    path.write_text(json.dumps(content), encoding="utf-8")
    with refused("a subject may be in one set only"):
        load()
    leaky = read_datalist(path, discs, allow_leaks=True)
    assert leaky == load(allow_leaks=True)
    assert sum(len(getattr(leaky, name)) - len(getattr(sets, name)) for name in SETS) == 1
    content["training"][0]["label"] = 2
    path.write_text(json.dumps(content), encoding="utf-8")
    with refused("it must be 0"):  # nothing else is let through
        read_datalist(path, discs, allow_leaks=True)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (None, r"no datalist at .*list\.json: check --datalist"),
        ('{"training": [', r"list\.json is not readable JSON \(.*\): delete it to have it made again"),
        ("", r"list\.json is not readable JSON"),
        ("{}", r"list\.json is not a usable datalist: it has no training, validation, test set"),
        ("[]", r"list\.json is not a usable datalist: it is not an object with training, validation and test"),
        ("null", r"list\.json is not a usable datalist"),
    ],
    ids=["missing", "cut-off", "empty", "nothing", "list", "null"],
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
    assert load(seed=99) == replace(sets, rules=("", ""))


def test_output_below_a_regular_file_is_refused(tmp_path, discs, refused):
    (tmp_path / "file").write_text("mine")
    with refused(r"can't write .*file/out/datalist\.json \(.*\): choose another --output_dir"):
        load_sets(discs, tmp_path / "file" / "out" / "datalist.json", extraction=SliceExtraction("axial", 3))
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
        (
            {"extraction": SliceExtraction("axial", 7)},
            r"slice_index 7 is outside .*OAS1_0001.*: its axial slices are 1 to 6",
        ),
        ({"cohort": {"controls": "some"}}, "controls must be one of"),
        ({"cohort": {"table": "nowhere.csv"}}, r"no table at nowhere\.csv"),
        ({"cohort": {"tsak": 1}}, r"unknown setting --cohort#tsak: did you mean --cohort#task\?"),
        ({"cohort": {"plane": "axial"}}, "unknown setting --cohort#plane: "),
        ({"cohort": {"zzz": 1}}, "unknown setting --cohort#zzz: there are table, columns, .*, task, .*, sessions"),
        ({"split": {"test_fraction": 2}}, "test_fraction must be between 0 and 1"),
        ({"split": {"stratifi": "class"}}, r"unknown setting --split#stratifi: did you mean --split#stratify\?"),
        ({"split": {"seed": 2}}, "unknown setting --split#seed: "),
        ({"split": {"kind": "kfold", "fold": 6}}, "fold must be from 1 to folds"),
    ],
    ids=[
        "slice_index",
        "controls",
        "table",
        "misspelt-cohort",
        "plane-of-cohort",
        "far-from-any",
        "test_fraction",
        "misspelt-split",
        "seed-of-split",
        "fold",
    ],
)
def test_no_datalist_after_a_wrong_setting(tmp_path, load, refused, options, message):
    with refused(message):
        load(**options)
    assert not (tmp_path / "out").exists()


def test_unknown_setting_is_refused_where_there_is_a_datalist_too(load, refused):
    load()
    with refused(r"unknown setting --cohort#control: did you mean --cohort#controls\?"):
        load(cohort={"control": "oldest"})


def test_settings_reach_cohort_and_split(tmp_path, discs):
    def made(name, **options):
        return load_sets(discs, tmp_path / name, extraction=SliceExtraction("axial", 3), **options)

    parts = [made(f"{fold}.json", split={"kind": "kfold", "folds": 2, "fold": fold}) for fold in (1, 2)]
    tested = [set(subjects(part)["test"]) for part in parts]
    assert not tested[0] & tested[1] and len(tested[0] | tested[1]) == 20
    turned = made("positive.json", cohort={"positive": "CDR == 0", "table": discs / "oasis_cross-sectional.csv"})
    items = [item for name in SETS for item in getattr(turned, name)]
    assert {item["subject"]: item["label"] for item in items} == {f"OAS1_{n:04d}": 1 - n % 2 for n in range(1, 21)}
    recorded = json.loads((tmp_path / "positive.json").read_text(encoding="utf-8"))["made_from"]
    assert recorded["positive"] == "CDR == 0" and recorded["table"] == str(discs / "oasis_cross-sectional.csv")
    again = made("positive.json", cohort={"positive": "CDR == 0", "table": recorded["table"]})
    assert again == turned


def test_a_datalist_that_an_interrupted_test_left_is_made_again(tmp_path, discs, refused):
    """By another rule, or after the table has changed; that of a training in the same folder stays."""
    about = {"extraction": SliceExtraction("axial", 3), "everyone": True}
    datalist = tmp_path / "datalist.json"
    labels = {item["subject"]: item["label"] for item in load_sets(discs, datalist, **about).test}
    turned = load_sets(discs, datalist, **about, cohort={"positive": "CDR == 0"}).test
    assert {item["subject"]: 1 - item["label"] for item in turned} == labels and len(labels) == 20
    assert json.loads(datalist.read_text(encoding="utf-8"))["made_from"]["positive"] == "CDR == 0"
    trained = load_sets(discs, tmp_path / "trained.json", extraction=SliceExtraction("axial", 3))
    with refused("was made with positive none, not CDR == 0"):
        load_sets(discs, tmp_path / "trained.json", **about, cohort={"positive": "CDR == 0"})
    assert load_sets(discs, tmp_path / "trained.json", extraction=SliceExtraction("axial", 3)) == trained


def test_all_sessions_of_a_subject_are_in_one_set(tmp_path, write_discs):
    rows = [(f"OAS1_{n:04d}_MR{m}", "F", 60 + n, n % 2) for n in range(1, 13) for m in (1, 2)]
    root = write_discs(tmp_path / "discs", rows, SHAPE)
    sets = load_sets(root, tmp_path / "list.json", extraction=SliceExtraction("axial", 3), cohort={"sessions": "all"})
    members = subjects(sets)
    assert Counter(subject for people in members.values() for subject in people) == {
        f"OAS1_{n:04d}": 2 for n in range(1, 13)
    }
    assert sum(len(set(people)) for people in members.values()) == 12
    assert read_datalist(tmp_path / "list.json", root) == sets


@pytest.fixture
def planes(tmp_path, write_pair, noise):
    """A plain folder of single slices: other images in axial/ than in coronal/."""
    root = tmp_path / "plain"
    for number, (plane, shape) in enumerate((("axial", (6, 6, 1)), ("coronal", (6, 1, 6)))):
        for n in range(20):
            write_pair(root / plane / f"s{n:02d}.hdr", noise(shape, seed=n + 100 * number))
    rows = "".join(f"s{n:02d},{n % 2},{60 + n}\n" for n in range(20))
    (root / "table.csv").write_text("ID,CDR,Age\n" + rows)
    return root


def test_datalist_of_another_plane_is_refused(tmp_path, planes, load, refused):
    sets = load(planes)
    assert load(planes) == sets
    assert {Path(item["image"]).parent.name for item in sets.test} == {"axial"}
    with refused("was made with plane axial, not coronal: choose another --output_dir, or delete the file"):
        load(planes, extraction=SliceExtraction("coronal", 3))
    (tmp_path / "out" / "datalist.json").unlink()
    sets = load(planes, extraction=SliceExtraction("coronal", 3))
    assert {Path(item["image"]).parent.name for item in sets.test} == {"coronal"}


@pytest.mark.parametrize("move", [("axial", "."), (".", "axial")], ids=["into-the-folder", "out-of-the-folder"])
def test_datalist_of_a_planes_subfolder_and_of_none_are_two(planes, load, refused, move):
    shutil.rmtree(planes / "coronal")

    def shift(source, target):
        (planes / target).mkdir(exist_ok=True)
        for image in [*(planes / source).glob("s*.hdr"), *(planes / source).glob("s*.img")]:
            shutil.copy(image, planes / target / image.name)
        if source != ".":
            shutil.rmtree(planes / source)

    if move[0] == ".":
        shift("axial", ".")
    load(planes)
    with refused(
        "was made with plane axial, not none" if move[0] == "axial" else "was made with plane none, not axial"
    ):
        shift(*move)
        load(planes)


def test_planes_of_whole_volumes_share_a_datalist(load):
    assert load(extraction=SliceExtraction("coronal", 3)) == load()


@pytest.mark.parametrize("link", [False, True], ids=["folder", "link-to-it"])
def test_images_elsewhere_are_found_again(tmp_path, write_pair, noise, load, link):
    root, away = tmp_path / "data" / "here" / "plain", tmp_path / "another disk"
    rows = [write_pair(away / f"s{n:02d}.hdr", noise((6, 6, 6), seed=n)) for n in range(20)]
    root.mkdir(parents=True)
    lines = [f"s{n:02d},{n % 2},{60 + n},{path}" for n, path in enumerate(rows)]
    (root / "table.csv").write_text("\n".join(["ID,CDR,Age,image", *lines]))
    if link:
        (tmp_path / "link").symlink_to(root, target_is_directory=True)
    sets = load(tmp_path / "link" if link else root, allow_outside=True)
    images = [Path(item["image"]) for name in SETS for item in getattr(sets, name)]
    assert sorted(image.resolve() for image in images) == rows


def test_datalist_as_cohort_is_split_anew(tmp_path, discs, load):
    first = load()
    items = [{**item, "image": str(item["image"])} for name in SETS for item in getattr(first, name)]
    source = tmp_path / "given" / "list.json"
    source.parent.mkdir()
    source.write_text(json.dumps({"training": items}), encoding="utf-8")
    options = {
        "extraction": SliceExtraction("axial", 3),
        "seed": 5,
        "cohort": {"label_column": "label"},
        "allow_outside": True,
    }
    again = load_sets(source, tmp_path / "again.json", **options)
    by_subject = {item["subject"]: (item["image"], item["label"]) for item in items}
    found = {item["subject"]: (item["image"], item["label"]) for name in SETS for item in getattr(again, name)}
    assert found == by_subject
    assert len(again.test) == 6 and {item["label"] for item in again.test} == {0, 1}
    assert load_sets(source, tmp_path / "again.json", **options) == again


def test_no_datalist_of_a_table_alone(tmp_path, write_table, load, refused):
    with refused("dataset_dir is only a table: training needs the folder with the images"):
        load(write_table(tmp_path / "t.csv", ROWS))
    assert not (tmp_path / "out").exists()
