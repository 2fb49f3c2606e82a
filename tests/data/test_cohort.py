"""The selection rules, Table I and its tests, on subjects listed by hand."""

from __future__ import annotations

import json
import math
import random

import numpy as np
import pytest
from scipy import stats

from monai_cae.data import PAPER_TABLE_1, Cohort, Scan, Task, balance, load_cohort, select_cohort, table_1

UNLABELLED = "scans without a label (blank, or neither patient nor control)"


def scan(subject, session="", cdr=None, age=None, sex=""):
    return Scan(subject, session, cdr=cdr, age=age, sex=sex, row={"CDR": "" if cdr is None else f"{cdr:g}"})


SCANS = [
    scan("OAS1_0001", "MR1", cdr=0.5, age=62),
    scan("OAS1_0001", "MR2", cdr=0.5, age=62),
    scan("OAS1_0002", "MR1", cdr=0, age=70),
    scan("OAS1_0003", "MR1", cdr=0, age=80),
    scan("OAS1_0004", "MR1", cdr=2, age=96),
    scan("OAS1_0005", "MR1", cdr=0, age=90),
    scan("OAS1_0005", "MR2", age=90),
    scan("OAS1_0006", "MR1", cdr=0, age=80),
    scan("OAS1_0007", "MR1", age=99),
    scan("OAS1_0008", "MR1", cdr=0, age=60),
]


def names(scans):
    return [scan.name for scan in scans]


@pytest.mark.parametrize("seed", range(4))
def test_patients_and_as_many_of_the_oldest_controls_whatever_the_tables_order(seed):
    scans = SCANS.copy()
    random.Random(seed).shuffle(scans)
    cohort = select_cohort(scans)
    assert names(cohort.patients) == ["OAS1_0001_MR1", "OAS1_0004_MR1"]
    assert names(cohort.controls) == ["OAS1_0003_MR1", "OAS1_0005_MR1"]  # 90 years; of the two of 80 the lower ID
    assert cohort.left_out == {UNLABELLED: 1, "further scans of a subject": 2, "controls not chosen (oldest)": 3}
    assert cohort.task == Task("CDR > 0", "CDR == 0")
    assert not cohort.synthetic


def test_labels_are_set_by_the_task_not_by_what_was_there():
    assert [scan.label for scan in select_cohort(SCANS).scans] == [1, 0, 1, 0]
    given = [Scan("a", label=1, cdr=3, row={"x": "0"}), Scan("b", label=0, cdr=0, row={"x": "1"})]
    cohort = select_cohort(given, task=Task("x == 1", ""))
    assert [(scan.subject, scan.label) for scan in cohort.scans] == [("a", 0), ("b", 1)]
    assert given[0].label == 1


def test_a_task_leaves_out_who_is_neither():
    cohort = select_cohort(SCANS, task=Task("CDR >= 1", "CDR == 0"))
    assert (names(cohort.patients), names(cohort.controls)) == (["OAS1_0004_MR1"], ["OAS1_0005_MR1"])
    assert cohort.left_out[UNLABELLED] == 2


def test_first_scans_are_those_first_by_name_even_without_a_label():
    cohort = select_cohort([*SCANS, scan("OAS1_0009", "MR1"), scan("OAS1_0009", "MR2", cdr=1)])
    assert "OAS1_0009" not in {one.subject for one in cohort.scans}
    assert cohort.left_out[UNLABELLED] == 2


def test_all_sessions():
    scans = [
        *(scan("p1", session, cdr=1, age=70) for session in ("a", "b")),
        scan("p2", "a", cdr=0.5, age=70),
        *(scan("c1", session, cdr=0, age=90) for session in ("a", "b", "c")),
        scan("c2", "a", cdr=0, age=60),
        scan("c3", "a", cdr=0, age=80),
        scan("c3", "b", age=80),
    ]
    cohort = select_cohort(scans, sessions="all")
    assert names(cohort.patients) == ["p1_a", "p1_b", "p2_a"]
    assert names(cohort.controls) == ["c1_a", "c1_b", "c1_c", "c3_a"]  # two subjects for two, with all of their scans
    assert cohort.left_out == {UNLABELLED: 1, "controls not chosen (oldest)": 1}
    assert len(select_cohort(scans, sessions="all", controls="all").scans) == 8


def test_one_subject_with_both_labels_is_refused(refused):
    scans = [scan("p", "a", cdr=0, age=70), scan("p", "b"), scan("p", "c", cdr=1), scan("q", "a", cdr=1)]
    with refused("p_a and p_c are one subject with both labels: correct the table, leave such subjects out"):
        select_cohort(scans, sessions="all")
    assert names(select_cohort(scans).scans) == ["p_a", "q_a"]


@pytest.mark.parametrize("seed", range(3))
def test_matched_controls_are_the_closest_all_in_all(seed):
    women = {"p1": 70, "p2": 76, "a": 72, "b": 66, "c": 84}  # nearest first: p1-a, p2-c, 10 years; best: p1-b, p2-a, 8
    men = {"p3": 70, "p4": 76, "d": 74, "e": 80, "f": 62}  # nearest first: p4-d, p3-f, 10 years; best: p3-d, p4-e, 8
    scans = [
        scan(name, cdr=int(name[0] == "p"), age=age, sex=sex)
        for sex, people in (("F", women), ("M", men))
        for name, age in people.items()
    ]
    random.Random(seed).shuffle(scans)
    cohort = select_cohort(scans, controls="matched")
    assert names(cohort.controls) == ["a", "b", "d", "e"]
    assert cohort.left_out == {"controls not chosen (matched)": 2}


def test_matched_controls_are_of_the_same_sex_while_there_are_any():
    patients = [scan("p1", cdr=1, age=70, sex="F"), scan("p2", cdr=1, age=70, sex="F")]
    controls = [
        scan("a", cdr=0, age=70, sex="M"),
        scan("b", cdr=0, age=20, sex="F"),
        scan("c", cdr=0, age=69, sex="M"),
        scan("d", cdr=0, age=25, sex="F"),
    ]
    assert names(select_cohort(patients + controls, controls="matched").controls) == ["b", "d"]
    assert names(select_cohort(patients + controls[:3], controls="matched").controls) == ["a", "b"]


def test_scans_come_in_the_order_of_their_names():
    assert names(select_cohort(SCANS).scans) == [f"OAS1_000{number}_MR1" for number in (1, 3, 4, 5)]


def test_all_controls():
    cohort = select_cohort(SCANS, controls="all")
    assert sorted(names(cohort.controls)) == [f"OAS1_000{number}_MR1" for number in (2, 3, 5, 6, 8)]
    assert cohort.left_out == {UNLABELLED: 1, "further scans of a subject": 2}


def test_rescan_takes_part_where_it_is_the_only_scan():
    cohort = select_cohort([scan("a", "MR2", cdr=1), scan("b", "MR1", cdr=0)])
    assert (names(cohort.scans), cohort.left_out) == (["a_MR2", "b_MR1"], {})


@pytest.mark.parametrize(
    ("controls", "ages"), [("all", (None, None, None)), ("oldest", (None, None)), ("matched", (None, None))]
)
def test_ages_are_not_needed_where_no_choice_depends_on_them(controls, ages):
    patients = [scan(f"p{number}", cdr=1) for number in range(2)]
    healthy = [scan(f"c{number}", cdr=0, age=age) for number, age in enumerate(ages)]
    assert names(select_cohort(patients + healthy, controls=controls).controls) == names(healthy)


P = scan("p", cdr=1, age=70, sex="F")
A, B, C = (scan(name, cdr=0, age=70, sex="F") for name in "abc")


@pytest.mark.parametrize(
    ("scans", "options", "message"),
    [
        (SCANS, {"controls": "youngest"}, "controls must be one of oldest, matched, all, not 'youngest'"),
        (SCANS, {"sessions": "last"}, "sessions must be one of first, all, not 'last'"),
        ([A, B], {}, r"no patient \(CDR > 0\) among 2 scans.*check the table and the task"),
        ([P, scan("b")], {}, r"no control \(CDR == 0\) among 2 scans"),
        ([P, scan("b")], {"task": Task("CDR > 0", "")}, r"no control \(not \(CDR > 0\)\) among 2 scans"),
        ([], {"controls": "all"}, "no patient .* among 0 scans"),
        ([A, P], {"task": Task("DX == 1")}, r"no column DX, which the rule 'DX == 1' needs \(it has: CDR\)"),
        (
            [P, A, scan("b", cdr=0)],
            {},
            "b has no age, which oldest controls need: fill it in, name its column .* or .* --controls all",
        ),
        ([P, A, scan("b", cdr=0, sex="F")], {"controls": "matched"}, "b has no age, which matched controls need"),
        ([P, A, scan("b", cdr=0, age=70)], {"controls": "matched"}, "b has no sex, which matched controls need"),
        ([P, scan("o", cdr=1, age=70), A, B, C], {"controls": "matched"}, "o has no sex, which matched controls need"),
        ([P, scan("o", cdr=1, sex="F"), A, B, C], {"controls": "matched"}, "o has no age, which matched controls need"),
    ],
    ids=[
        "unknown-rule",
        "unknown-sessions",
        "no-patients",
        "blank-is-no-control",
        "blank-is-no-control-of-a-negation",
        "nobody",
        "no-column",
        "age-missing",
        "matched-age-missing",
        "matched-sex-missing",
        "matched-patients-sex-missing",
        "matched-patients-age-missing",
    ],
)
def test_tables_that_give_no_cohort_are_refused(refused, scans, options, message):
    with refused(message):
        select_cohort(scans, **options)


@pytest.mark.parametrize(
    ("scans", "column"),
    [
        # mean (70 + 76 + 82) / 3; deviations 6, 0, 6: sample SD sqrt(72 / 2), not the population's sqrt(72 / 3) = 4.90
        (
            [Scan("a", age=70, sex="F"), Scan("b", age=82, sex="M"), Scan("c", age=76, sex="F")],
            ["3", "70-82", "76.00 ± 6.00", "2/1"],
        ),
        # 2.5 years apart: SD 2.5 / sqrt(2)
        (
            [Scan("a", age=60.5, sex="M"), Scan("b", age=63), Scan("c", sex="M")],
            ["3", "60.5-63", "61.75 ± 1.77", "0/2"],
        ),
        ([Scan("a", age=70)], ["1", "70-70", "not given", "not given"]),
        ([Scan("a")], ["1", "not given", "not given", "not given"]),
    ],
    ids=["complete", "gaps", "one", "nothing-known"],
)
def test_table_1(scans, column):
    other = [Scan("x", age=59, sex="F"), Scan("y", age=61, sex="F")]
    for patients, controls, mine in ((scans, other, 0), (other, scans, 1)):
        rows = table_1(Cohort(patients, controls))
        assert list(rows) == list(PAPER_TABLE_1)
        assert [row[mine] for row in rows.values()] == column
        assert [row[1 - mine] for row in rows.values()] == ["2", "59-61", "60.00 ± 1.41", "2/0"]


def test_balance_is_students_t_and_uncorrected_chi_square():
    # women/men 3/1 and 1/3: chi-square 2, whose p at one degree of freedom is erfc(sqrt(2 / 2))
    ages = ([70, 72, 77, 73], [60, 90, 95, 99])
    groups = [
        [scan(f"{label}{n}", age=age, sex="FM"[(n == 0) != label]) for n, age in enumerate(ages[label])]
        for label in (0, 1)
    ]
    assert [[one.sex for one in group].count("F") for group in groups] == [3, 1]
    first, second = (np.array(group) for group in ages)
    pooled = ((first - first.mean()) ** 2).sum() + ((second - second.mean()) ** 2).sum()
    t = (first.mean() - second.mean()) / math.sqrt(pooled / 6 * (1 / 4 + 1 / 4))
    expected = {"age": 2 * stats.t.sf(abs(t), 6), "sex": math.erfc(1)}
    assert balance(Cohort(groups[1], groups[0])) == pytest.approx(expected)
    groups[0].append(scan("gap"))
    assert balance(Cohort(groups[1], groups[0])) == pytest.approx(expected)


@pytest.mark.parametrize(
    ("patients", "controls"),
    [
        ([scan("p")], [scan("a")]),
        ([scan("p", age=70, sex="F"), scan("q", sex="F")], [scan("a", age=70, sex="F"), scan("b", age=71, sex="F")]),
        ([scan("p", age=70, sex="F")], [scan("a", age=70), scan("b", age=71)]),
        ([scan("p", age=70), scan("q", age=70)], [scan("a", age=70), scan("b", age=70)]),
        ([], []),
    ],
    ids=["nothing-known", "one-sex", "one-patient", "all-alike", "nobody"],
)
def test_balance_that_cannot_be_told_is_nan(patients, controls):
    assert all(math.isnan(p) for p in balance(Cohort(patients, controls)).values())


def test_table_1_counts_subjects_not_scans():
    cohort = Cohort([scan("p", "a", age=70), scan("p", "b", age=71)], [scan("c", age=70)])
    assert table_1(cohort)["Number of subjects"] == ("1", "1")


@pytest.mark.parametrize("marker", [None, '{"synthetic": true}'], ids=["real", "synthetic"])
def test_cohort_folder(tmp_path, write_discs, marker):
    rows = [("OAS1_0001_MR1", "F", 70, 0), ("OAS1_0002_MR1", "M", 80, 0.5), ("OAS1_0003_MR1", "F", 75, 0)]
    root = write_discs(tmp_path / "discs", rows)
    if marker:
        (root / "dataset_description.json").write_text(marker)
    cohort = load_cohort(root)
    assert (names(cohort.patients), names(cohort.controls)) == (["OAS1_0002_MR1"], ["OAS1_0003_MR1"])
    assert all(scan.image.is_file() for scan in cohort.scans)
    assert cohort.synthetic is bool(marker)
    assert len(load_cohort(root, controls="all").controls) == 2


def test_cohort_of_a_table_alone(tmp_path, write_table):
    table = write_table(tmp_path / "t.csv", [("a_MR1", "F", 70, 0), ("b_MR1", "M", 80, 1), ("b_MR2", "M", 80, "")])
    cohort = load_cohort(table)
    assert [(scan.name, scan.image) for scan in cohort.scans] == [("a_MR1", None), ("b_MR1", None)]
    assert cohort.left_out == {"further scans of a subject": 1}
    assert cohort.layout == "table alone"


def test_cohort_counts_who_is_left_out_of_folder_and_selection(tmp_path, write_discs, write_pair):
    rows = [("OAS1_0001_MR1", "F", 70, 0), ("OAS1_0002_MR1", "M", 80, 0.5), ("OAS1_0003_MR1", "F", 75, "")]
    root = write_discs(tmp_path / "discs", rows)
    image = next(root.rglob("OAS1_0001_MR1_*.hdr"))
    write_pair(image.with_name(image.name.replace("0001", "0009")))
    cohort = load_cohort(root, allow_unmatched=True)
    assert cohort.layout == "OASIS-1 discs"
    assert cohort.left_out == {"images without a row in the table": 1, UNLABELLED: 1}
    assert [scan.label for scan in cohort.scans] == [0, 1]


@pytest.mark.parametrize(
    ("options", "labels"),
    [
        ({}, {"a": 0, "b": 1, "c": 1}),
        ({"task": "ad"}, {"a": 0, "c": 1}),
        ({"positive": "DX == 'AD'"}, {"a": 0, "b": 0, "c": 1}),
        ({"positive": "DX == 'AD'", "negative": "DX == 'MCI'"}, {"b": 0, "c": 1}),
        ({"label_column": "amyloid"}, {"a": 1, "c": 0}),
        ({"columns": {"subject": "RID"}}, {"1": 0, "2": 1, "3": 1}),
    ],
    ids=["default", "task", "positive", "positive-negative", "label-column", "columns"],
)
def test_settings_reach_the_task(tmp_path, options, labels):
    table = tmp_path / "t.csv"
    table.write_text("ID,RID,CDR,DX,amyloid\na,1,0,CN,1\nb,2,0.5,MCI,\nc,3,1,AD,0\n")
    cohort = load_cohort(table, controls="all", **options)
    assert {scan.subject: scan.label for scan in cohort.scans} == labels


def test_table_without_the_column_of_the_rule_is_refused(tmp_path, refused):
    (tmp_path / "t.csv").write_text("ID,Age\na,70\n")
    with refused(r"the table has no column CDR, which the rule 'CDR > 0' needs \(it has: ID, Age\)"):
        load_cohort(tmp_path / "t.csv")


def test_sessions_with_more_columns_than_others(tmp_path):
    for subject, session in (("sub-1", ""), ("sub-2", "ses-a"), ("sub-3", "ses-a")):
        folder = tmp_path / subject / session / "anat"
        folder.mkdir(parents=True)
        (folder / f"{subject}_T1w.nii").touch()
    (tmp_path / "participants.tsv").write_text("participant_id\nsub-1\nsub-2\nsub-3\n")
    for subject, dx in (("sub-2", "AD"), ("sub-3", "CN")):
        (tmp_path / subject / f"{subject}_sessions.tsv").write_text(f"session_id\tdx\nses-a\t{dx}\n")
    cohort = load_cohort(tmp_path, positive="dx == 'AD'")
    assert {scan.name: scan.label for scan in cohort.scans} == {"sub-2_ses-a": 1, "sub-3_ses-a": 0}
    assert (cohort.layout, cohort.left_out) == ("BIDS", {UNLABELLED: 1})


@pytest.mark.parametrize("synthetic", [False, True])
def test_cohort_of_a_datalist(tmp_path, synthetic):
    items = [
        {"image": "a.nii", "label": 1, "subject": "a", "age": 70},
        {"image": "b.nii", "label": 0, "subject": "b", "cdr": 0.5},
        {"image": "c.nii", "label": 0, "subject": "c"},
    ]
    content = {"training": items[:2], "validation": [], "test": items[2:], "synthetic": synthetic}
    (tmp_path / "list.json").write_text(json.dumps(content))
    cohort = load_cohort(tmp_path / "list.json", label_column="label", controls="all")
    assert {scan.subject: scan.label for scan in cohort.scans} == {"a": 1, "b": 0, "c": 0}
    assert [scan.image for scan in cohort.patients] == [tmp_path / "a.nii"]
    assert (cohort.layout, cohort.synthetic) == ("MONAI datalist", synthetic)
