"""What the cells of a table mean: labels, ages, sex, missing codes; and which values made patients and controls."""

from __future__ import annotations

import pytest

from monai_cae.data import load_cohort, make_task, read_table
from monai_cae.data.cohort.tables import read_subjects
from monai_cae.data.cohort.tasks import Rule


def write(path, *lines):
    path.write_text("\n".join([*lines, ""]))
    return path


def labels(rule, cells, negative="", **options):
    rows = [{"X": cell} for cell in cells]
    return make_task(positive=rule, negative=negative, **options).labels(rows, cells)


@pytest.mark.parametrize(
    ("rule", "cells", "expected"),
    [
        ("X > 0", ["0", "0,5", "1", "NULL", "#N/A", "mild"], [0, None, 1, None, None, None]),
        ("X > 0", ["0", "-1", "-4", "-9", "2"], [0, None, None, None, 1]),
        ("X == 'AD'", ["CN", "AD", "NULL", "#N/A", "", "3"], [0, 1, None, None, None, None]),
        ("X == 'ad'", ["CN", "AD", " Ad ", "MCI"], [0, 1, 1, 0]),
        ("X in ('AD', 'MCI')", ["cn", "mci", "2", "?"], [0, 1, None, None]),
        ("X not in ('CN',)", ["cn", "mci", "-4"], [0, 1, None]),
        ("X in (1, 2)", ["0", "1", "two", "-4"], [0, 1, None, None]),
        ("X == '7'", ["7", "7.0", "8", "seven"], [1, 1, 0, None]),
        ("X != 0", ["0", "0,5", "1"], [0, None, 1]),
        ("0 < X <= 1", ["0", "0.5", "x"], [0, 1, None]),
    ],
)
def test_a_cell_that_can_not_be_compared_makes_neither_patient_nor_control(rule, cells, expected):
    assert labels(rule, cells) == expected


def test_missing_codes_are_a_choice():
    assert labels("X > 0", ["-1", "0", "8", "1"], missing_codes="8") == [0, 0, None, 1]
    assert labels("X > 0", ["-1", "0", "1"], missing_codes="") == [0, 0, 1]
    assert labels("X > 0", ["-1", "0", "1"], missing_codes=-1) == [None, 0, 1]
    assert labels("X > 0", ["-1", "-2", "1"], missing_codes=[-1, -2]) == [None, None, 1]


def test_missing_codes_that_are_no_numbers_are_refused(refused):
    with refused("missing_codes must be numbers, such as \"-4, -9\", not 'none'"):
        make_task(missing_codes="none")


@pytest.mark.parametrize("rule", ["X > 'AD'", "'a' < X", "1 < X < 'b'"])
def test_texts_have_no_order(refused, rule):
    with refused("texts can't be compared by size"):
        Rule(rule, ["X"])


def test_a_selection_says_which_values_made_whom(tmp_path):
    cells = ["0"] * 3 + ["0.5", "0.5", "1", "", "NULL", "-4"]
    rows = [f"p{n},{cell},{70 + n}" for n, cell in enumerate(cells)]
    table = write(tmp_path / "t.csv", "ID,CDR,Age", *rows)
    assert [note.text for note in load_cohort(table, controls="all").notes] == [
        "patients (3): CDR 0.5 (2), 1 (1)",
        "controls (3): CDR 0 (3)",
        "neither (3): CDR blank (1), NULL (1), -4 (1)",
    ]
    notes = load_cohort(table, positive="Age > 72 and CDR >= 0", controls="all").notes
    assert notes[0].text == "patients (3): Age 73 (1), 74 (1), 75 (1); CDR 0.5 (2), 1 (1)"


def test_many_values_are_told_as_a_range(tmp_path):
    rows = [f"p{n},{60 + n}" for n in range(40)]
    notes = load_cohort(write(tmp_path / "t.csv", "ID,score", *rows), positive="score > 79", controls="all").notes
    assert [note.text for note in notes] == ["patients (20): score 80 to 99", "controls (20): score 60 to 79"]


def test_a_rule_that_nobody_meets_says_which_values_there_are(tmp_path, refused):
    table = write(tmp_path / "t.csv", "ID,DX", "a,Dementia", "b,Normal")
    with refused(r"no patient \(DX == 'AD'\) among 2 scans \(controls \(2\): DX Dementia \(1\), Normal \(1\)\)"):
        load_cohort(table, positive="DX == 'AD'")


@pytest.mark.parametrize(
    ("cell", "age"),
    [
        ("89+", 89), (">89", 89), ("> 89", 89), (">=90", 90), ("≥ 90", 90), ("90Y", 90), ("074Y", 74), ("74 years", 74),
        ("74,5", 74.5), ("74.5", 74.5), ("018M", 1.5), ("-4", None), ("NULL", None), ("n/a", None), ("90y+", 90),
    ],
)  # fmt: skip
def test_ages_as_they_are_written(tmp_path, cell, age):
    (scan,) = read_table(write(tmp_path / "t.tsv", "ID\tAge", f"a\t{cell}"))
    assert scan.age == age


def test_capped_ages_are_noted(tmp_path):
    table = read_subjects(write(tmp_path / "t.csv", "ID,Age", "a,89+", "b,>89", "c,70"))
    assert [note.line() for note in table.notes] == ["2 ages are capped and read as the number in them: 89+, >89"]


@pytest.mark.parametrize("cell", ["old", "70-79", "1950-01-01", "inf", "1e2", "7 0", "1,074"])
def test_other_ages_are_refused_with_how_to_write_them(tmp_path, refused, cell):
    with refused(r"row 2: Age is '.*', not a number of years such as 74, 74\.5, 74,5, 074Y or 89\+"):
        read_table(write(tmp_path / "t.tsv", "ID\tAge", f"a\t{cell}"))


@pytest.mark.parametrize(
    ("cells", "codes", "expected"),
    [
        ("12", "F=2,M=1", "MF"),
        ("01", "M=1, F=0", "FM"),
        ("wm", "F=w,M=m", "FM"),
        (["2.0", "1.00"], "F=2,M=1", "FM"),
        ("FM", "", "FM"),
        ("fm", "", "fm".upper()),
        ("12", "none", ["", ""]),
    ],
)
def test_sex_codes(tmp_path, cells, codes, expected):
    table = write(tmp_path / "t.csv", "ID,sex", f"a,{cells[0]}", f"b,{cells[1]}")
    assert [scan.sex for scan in read_table(table, sex_codes=codes)] == list(expected)


@pytest.mark.parametrize(
    ("cells", "named"), [(["1", "2"], "1, 2"), (["0", "1", "0"], "0, 1"), (["m", "w"], "w"), (["F", "Mujer"], "Mujer")]
)
def test_unknown_sex_codes_are_asked_for_by_name(tmp_path, refused, cells, named):
    path = write(tmp_path / "t.csv", "ID,Gender", *(f"p{n}x,{cell}" for n, cell in enumerate(cells)))
    with refused(rf"Gender has {named}: say which is which with --sex-codes, such as F={named[0]}"):
        read_table(path)


def test_sex_that_is_neither_is_noted_and_missing_codes_are_blank(tmp_path):
    table = read_subjects(write(tmp_path / "t.csv", "ID,sex", "a,F", "b,other", "c,-4", "d,n/a"))
    assert [scan.sex for scan in table.scans] == ["F", "", "", ""]
    assert [note.line() for note in table.notes] == ["sex is not given where sex is neither F nor M: other"]


@pytest.mark.parametrize(
    ("codes", "message"),
    [
        ("F=1,M=1", "sex_codes 'F=1,M=1' says of one value that it is F and M: correct it"),
        ("F=1,M=1.0", "of one value that it is F and M"),
        ("F=3,M=4", r"t\.csv: sex has 1, 2, and nothing of --sex-codes F=3,M=4"),
    ],
)
def test_sex_codes_that_contradict_or_meet_nobody_are_refused(tmp_path, refused, codes, message):
    with refused(message):
        read_table(write(tmp_path / "t.csv", "ID,sex", "a,1", "b,2"), sex_codes=codes)


@pytest.mark.parametrize("codes", ["1=F", "F", "X=1,M=2", "F=,M=1"])
def test_sex_codes_that_are_none_are_refused(tmp_path, refused, codes):
    with refused("sex_codes must be like F=2,M=1, or none"):
        read_table(write(tmp_path / "t.csv", "ID,sex", "a,1"), sex_codes=codes)


def test_decimal_commas_of_covariates_are_read(tmp_path):
    (scan,) = read_table(write(tmp_path / "t.csv", "ID;nWBV;MMSE", "a;0,743;-4"))
    assert scan.covariates == {"nWBV": 0.743}


@pytest.mark.parametrize(
    ("cells", "codes"),
    [
        (["1", "3", "30", "88", "99"], "88, 99"),
        (["29", "27", "20", "88", "95"], "88, 95"),
        (["0", "0.5", "3", "8", "9"], "8, 9"),
        (["0", "1", "888", "-4"], "888"),
        (["70", "88", "75", "99"], ""),
        (["1", "5", "8", "9"], ""),
        (["8", "9", "3", "30"], ""),
        (["0", "1", "9"], "9"),
    ],
)
def test_numbers_far_above_the_others_may_be_codes(cells, codes):
    task, rows = make_task(positive="x == 1"), [{"x": cell} for cell in cells]
    told = [line for line in task.values(rows, task.labels(rows, cells)) if "missing-codes" in line]
    said = f'x {codes} may mean "not given": if so, add {codes} to the numbers of --missing-codes'
    assert told == ([said] if codes else [])
