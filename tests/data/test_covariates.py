"""Numbers of the table beside the image, and which labels are learned from."""

from __future__ import annotations

import re
from collections import Counter
from pathlib import Path

import pytest

from monai_cae.data import inference_items, labelled_items, with_covariates
from monai_cae.errors import MonaiCaeError
from monai_cae.targets import Number

ITEMS = [
    {"image": "a", "subject": "A", "label": 0, "age": 83.0, "sex": "F", "Educ": 2.0},
    {"image": "b", "subject": "B", "label": 1, "age": 75.0, "sex": "M"},
    {"image": "c", "subject": "C", "label": 1, "sex": "M", "Educ": 4.0},
]
SCALES = {"age": [75, 8], "sex": [0, 1], "Educ": [3, 2]}


def test_covariates_are_scaled_and_a_blank_counts_as_the_centre():
    found = [item["covariates"].tolist() for item in with_covariates(ITEMS, SCALES)]
    assert found == [[1.0, 0.0, -0.5], [0.0, 1.0, 0.0], [0.0, 1.0, 0.5]]


def test_squares_are_of_the_scaled_value_and_blank_is_nothing():
    found = [item["covariates"].tolist() for item in with_covariates(ITEMS, {"age^2": [71, 4], "Educ^2": [3, 2]})]
    assert found == [[9.0, 0.25], [1.0, 0.0], [0.0, 0.25]]


@pytest.mark.parametrize("name", ["nWBV", "nWBV^2"])
def test_a_value_that_float32_has_no_number_for_is_named(name):
    with pytest.raises(MonaiCaeError, match=r"nWBV(\^2)? of a is 1e\+300: correct it"):
        with_covariates([{"subject": "a", "image": "a.nii", "nWBV": 1e300}], {name: [0.7, 0.1]})


def test_without_covariates_items_stay_as_they_are():
    assert with_covariates(ITEMS, {}) == ITEMS


@pytest.mark.parametrize(
    ("scales", "message"),
    [
        ({"agee": [75, 8]}, "no scan has 'agee' in its table row; there are Educ, age, label, sex"),
        ({"cdr": [0, 1]}, "cdr is what the network predicts"),
        ({"cdr^2": [0, 1]}, "cdr\\^2 is what the network predicts"),
        ({"CDR": [0, 1]}, "CDR is what the network predicts"),
        ({"age": [75, 0]}, "age needs \\[centre, scale\\] with a scale above 0"),
        ({"age": 75}, "age needs \\[centre, scale\\]"),
        ({"age": ["old", 8]}, "age needs \\[centre, scale\\]"),
    ],
)
def test_covariates_that_cannot_be(scales, message):
    with pytest.raises(MonaiCaeError, match=message):
        with_covariates(ITEMS, scales)


def people(**columns: object) -> list[dict]:
    """20 controls, then 20 patients, whose age and MMSE say little of the class."""
    told = {"age": lambda i: 60.0 + i % 17, "MMSE": lambda i: 30.0 - i % 9, "label": lambda i: int(i >= 20)} | columns
    return [{"image": f"{i}", "subject": f"S{i}", **{name: make(i) for name, make in told.items()}} for i in range(40)]


@pytest.mark.parametrize(
    ("target", "name", "columns", "rules", "why"),
    [
        # the target in months, cut to whole years; its inverse; the other way round, with blanks
        (Number("Months"), "age", {"label": lambda i: 12 * i + i % 12, "age": lambda i: 60.0 + i}, (), "another unit"),
        (Number("eTIV"), "ASF", {"label": lambda i: 1200 + i, "ASF": lambda i: 1755 / (1200 + i)}, (), "another unit"),
        (Number("Lost"), "MMSE", {"label": lambda i: i, "MMSE": lambda i: 30.0 - i if i % 3 else None}, (), "all 26"),
        (Number("Lost"), "MMSE", {"label": lambda i: 0.0 + i // 2 + i % 5}, (), ""),
        (None, "Educ", {"Educ": lambda i: 5.0 - 2 * (i >= 20)}, (), "one value in all patients and another in all con"),
        (None, "Educ", {"Educ": lambda i: 5.0 - 2 * (i >= 21)}, (), ""),
        (None, "MMSE", {"MMSE": lambda i: 30.0 - i}, ("MMSE < 11", "not (MMSE < 11)"), "as their rule asks for it"),
        (None, "age^2", {"age": lambda i: 50.0 + i}, ("AgeAtEntry > 69", "CDR == 0"), "as their rule asks for it"),
        (None, "MMSE", {"MMSE": lambda i: 30.0 - i}, ("CDR > 0", "CDR == 0"), ""),  # a strong sign is not the label
        (None, "age", {}, ("CDR > 0 and Age > 60", "CDR == 0 and Age > 60"), ""),
    ],
)  # fmt: skip
def test_the_label_under_another_name_is_no_covariate(target, name, columns, rules, why):
    items = people(**columns)
    if why:
        with pytest.raises(MonaiCaeError, match=f"covariates: {re.escape(name)} .*{why}.*: leave it out"):
            with_covariates(items[:5], {name: [1, 1]}, target, items, rules)
        return
    assert len(with_covariates(items[:5], {name: [1, 1]}, target, items, rules)) == 5


def test_a_cohort_to_test_on_may_have_one_value_for_each_class(capsys):
    """All its patients are men: the network has not learned that from it."""
    items = people(sex=lambda i: "FM"[i >= 20], Educ=lambda i: 5.0 - 2 * (i >= 20) if i else None)
    found = with_covariates(items, {"sex": [0, 1], "Educ": [3, 1]}, everyone=items, tested=True)
    assert [item["covariates"].tolist() for item in found] == [[0, 0], *[[0, 2]] * 19, *[[1, 0]] * 20]
    assert "1 of 40 scans have no Educ" in capsys.readouterr().out


def test_blank_covariates_and_what_may_be_codes_are_told_once(capsys):
    items = people(Educ=lambda i: None if i % 4 == 0 else 99.0 if i == 1 else 1.0 + i % 5)
    for _ in range(2):
        with_covariates(items[:5], {"Educ": [3, 2], "age": [60, 8]}, everyone=items)
    assert capsys.readouterr().out.splitlines() == [
        "note: covariates: 10 of 40 scans have no Educ, and count as 3 there",
        'note: covariates: Educ 99 may mean "not given": if so, add 99 to the numbers of --missing-codes',
    ]


def test_new_scans_get_the_row_whose_whole_id_begins_their_name(tmp_path):
    table = tmp_path / "t.csv"
    table.write_text("ID,M/F,Age,CDR\nS1,F,67,0\nS10,M,83,0\n")
    images = [Path("x/S10_scan.nii.gz"), Path("x/S1_scan.nii.gz")]
    found = inference_items(images, str(table), {"age": [75, 8], "sex": [0, 1]})
    assert [item["covariates"].tolist() for item in found] == [[1.0, 1.0], [-1.0, 0.0]]
    assert [item["file"] for item in found] == [str(image) for image in images]
    with pytest.raises(MonaiCaeError, match=r"no row whose ID the name of x/T1.nii starts with"):
        inference_items([Path("x/T1.nii")], str(table), {"age": [75, 8]})


def test_without_a_table_everybody_is_average_and_that_is_said(capsys):
    found = inference_items([Path("a.nii")], "", {"age": [75, 8], "sex": [0, 1]})
    assert found[0]["covariates"].tolist() == [0.0, 0.0]
    assert "no --table: age, sex are taken to be average for all subjects" in capsys.readouterr().out
    (item,) = inference_items([Path("a.nii")], "", {})
    assert item == {"image": "a.nii", "subject": "a", "file": "a.nii", "seen_in_training": "unknown"}


PEOPLE = [{"subject": f"S{n:02d}", "label": int(n % 4 == 0), "image": str(n)} for n in range(40)]


def subjects(items):
    return {item["subject"] for item in items}


@pytest.mark.parametrize(("share", "patients", "controls"), [(0.1, 1, 3), (0.25, 3, 7), (0.5, 5, 15), (1.0, 10, 30)])
def test_share_is_of_each_class(share, patients, controls):
    counts = Counter(item["label"] for item in labelled_items(PEOPLE, share=share, seed=3))
    assert counts == {1: patients, 0: controls}


def test_a_share_of_many_small_strata_is_no_larger_share():
    """Of 20 numbers in quarters of five, a quarter is 5 subjects: two of each quarter would be 8."""
    numbers = [{"subject": f"S{n:02d}", "label": float(n), "image": str(n)} for n in range(20)]
    for share, expected in ((0.05, 4), (0.25, 5), (0.5, 10), (0.75, 15), (1.0, 20)):
        kept = labelled_items(numbers, share=share, seed=1, target=Number("MMSE"))
        quarters = Counter(int(item["label"]) // 5 for item in kept)
        assert len(kept) == expected and max(quarters.values()) - min(quarters.values()) <= 1


def test_larger_shares_have_everybody_of_smaller_ones():
    shares = [subjects(labelled_items(PEOPLE, share=share, seed=5)) for share in (0.2, 0.4, 0.8, 1.0)]
    assert shares[0] < shares[1] < shares[2] < shares[3] == subjects(PEOPLE)
    assert shares[0] != subjects(labelled_items(PEOPLE, share=0.2, seed=6))


def test_permuted_labels_are_dealt_to_subjects_and_keep_their_number():
    twice = [*PEOPLE, *({**item, "image": "again"} for item in PEOPLE)]  # two scans each
    permuted = labelled_items(twice, permute_labels=True, seed=1)
    label = {item["subject"]: item["label"] for item in permuted}
    assert all(label[item["subject"]] == item["label"] for item in permuted) and len(permuted) == 80
    assert Counter(label.values()) == {1: 10, 0: 30}
    assert sum(label[item["subject"]] for item in PEOPLE if item["label"]) == 2  # a quarter of 10 patients, rounded
    assert permuted == labelled_items(twice, permute_labels=True, seed=1)
    assert permuted != labelled_items(twice, permute_labels=True, seed=2)


def test_a_share_of_nothing_is_refused():
    with pytest.raises(MonaiCaeError, match="training_share must be above 0 and at most 1, not 0"):
        labelled_items(PEOPLE, share=0)


def test_what_is_known_of_others_decides_whether_a_column_is_there(tmp_path):
    table = tmp_path / "t.csv"
    table.write_text("ID,M/F,Age,CDR\nS1,F,67,0\nS2,M,,0\n")
    (item,) = inference_items([tmp_path / "S2.nii"], str(table), {"age": [75, 8]})
    assert item["covariates"].tolist() == [0.0]
    with pytest.raises(MonaiCaeError, match="no scan has 'Educ' in its table row; there are age"):
        inference_items([tmp_path / "S2.nii"], str(table), {"Educ": [3, 2]})
