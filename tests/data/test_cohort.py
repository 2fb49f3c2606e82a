"""The selection rule and Table I, on subjects listed by hand."""

from __future__ import annotations

import random

import pytest

from monai_cae.data import PAPER_TABLE_1, Cohort, Scan, load_cohort, select_cohort, table_1

SCANS = [
    Scan("OAS1_0001", "MR1", cdr=0.5, age=62),
    Scan("OAS1_0001", "MR2", cdr=0.5, age=62),
    Scan("OAS1_0002", "MR1", cdr=0, age=70),
    Scan("OAS1_0003", "MR1", cdr=0, age=80),
    Scan("OAS1_0004", "MR1", cdr=2, age=96),
    Scan("OAS1_0005", "MR1", cdr=0, age=90),
    Scan("OAS1_0005", "MR2", age=90),
    Scan("OAS1_0006", "MR1", cdr=0, age=80),
    Scan("OAS1_0007", "MR1", age=99),
    Scan("OAS1_0008", "MR1", cdr=0, age=60),
]


def names(scans):
    return [scan.name for scan in scans]


@pytest.mark.parametrize("seed", range(4))
def test_patients_and_as_many_of_the_oldest_controls_whatever_the_tables_order(seed):
    scans = SCANS.copy()
    random.Random(seed).shuffle(scans)
    cohort = select_cohort(scans)
    assert names(cohort.patients) == ["OAS1_0001_MR1", "OAS1_0004_MR1"]
    assert names(cohort.controls) == ["OAS1_0005_MR1", "OAS1_0003_MR1"]  # 90 years; of the two of 80 the lower ID
    assert cohort.left_out == {"blank CDR": 1, "rescans": 2, "controls younger than the oldest 2": 3}
    assert not cohort.synthetic


def test_scans_come_in_the_order_of_their_names():
    assert names(select_cohort(SCANS).scans) == [f"OAS1_000{number}_MR1" for number in (1, 3, 4, 5)]


def test_all_controls():
    cohort = select_cohort(SCANS, controls="all", synthetic=True)
    assert sorted(names(cohort.controls)) == [f"OAS1_000{number}_MR1" for number in (2, 3, 5, 6, 8)]
    assert cohort.left_out == {"blank CDR": 1, "rescans": 2}
    assert cohort.synthetic


def test_rescan_takes_part_where_it_is_the_only_scan():
    cohort = select_cohort([Scan("a", "MR2", cdr=1), Scan("b", "MR1", cdr=0)])
    assert (names(cohort.scans), cohort.left_out) == (["a_MR2", "b_MR1"], {})


@pytest.mark.parametrize(("controls", "ages"), [("all", (None, None, None)), ("oldest", (None, None))])
def test_ages_are_not_needed_where_no_choice_depends_on_them(controls, ages):
    patients = [Scan(f"p{number}", cdr=1) for number in range(2)]
    healthy = [Scan(f"c{number}", cdr=0, age=age) for number, age in enumerate(ages)]
    assert select_cohort(patients + healthy, controls=controls).controls == healthy


@pytest.mark.parametrize(
    ("scans", "controls", "message"),
    [
        (SCANS, "youngest", "controls must be one of oldest, all, not 'youngest'"),
        (
            [Scan("a", cdr=0), Scan("b", cdr=0)],
            "oldest",
            r"no patient \(CDR > 0\) among 2 scans.*check the table's CDR",
        ),
        ([Scan("a", cdr=1), Scan("b")], "oldest", r"no control \(CDR 0\) among 2 scans"),
        ([], "all", "no patient .* among 0 scans"),
        (
            [Scan("p", cdr=1), Scan("a", cdr=0, age=70), Scan("b", cdr=0)],
            "oldest",
            "b has no age, so the oldest controls can't be told: fill it in, or --controls all",
        ),
    ],
    ids=["unknown-rule", "no-patients", "blank-is-no-control", "nobody", "age-missing"],
)
def test_tables_that_give_no_cohort_are_refused(refused, scans, controls, message):
    with refused(message):
        select_cohort(scans, controls=controls)


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
    assert cohort.left_out == {"rescans": 1}
