"""Who is who: persons and their scans, in whatever way tables, folders and datalists write their names."""

from __future__ import annotations

import json
from itertools import pairwise

import pytest

from monai_cae.data import audit_sets, hash_subject, load_cohort, read_scans, read_table, split_cohort
from monai_cae.data.persons import loose, natural, subject_of
from monai_cae.data.tables import read_subjects


def write(path, *lines):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("\n".join([*lines, ""]))
    return path


def touch(*paths):
    for path in paths:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()


def named(path, **options):
    return [(scan.subject, scan.session) for scan in read_table(path, **options)]


@pytest.mark.parametrize(
    ("name", "subject", "session"),
    [
        ("OAS30001_MR_d0129", "OAS30001", "MR_d0129"),
        ("OAS1_0001_MR2", "OAS1_0001", "MR2"),
        ("sub-01_ses-M48", "sub-01", "ses-M48"),
        ("P7-visit2", "P7", "visit2"),
        ("x_session_3", "x", "session_3"),
        ("NULL", "NULL", ""),
        ("NA", "NA", ""),
        ("007", "007", ""),
        ("002_S_0413", "002_S_0413", ""),
        ("MRI_5", "MRI_5", ""),
        ("mr1", "mr1", ""),
    ],
)
def test_a_session_at_the_end_of_an_id_is_no_part_of_the_person(tmp_path, name, subject, session):
    assert named(write(tmp_path / "t.csv", "ID,CDR", f"{name},0")) == [(subject, session)]


@pytest.mark.parametrize(
    ("header", "row"),
    [
        ("ID,subject_ID", "{scan},{person}"),
        ("subject_ID,ID", "{person},{scan}"),
        ("Subject,scan_id", "{person},{scan}"),
        ("label,Subject", "{scan},{person}"),
    ],
)
@pytest.mark.parametrize("scan", ["{person}_MR_d{day:04d}", "{person}-{day}", "{person}x{day}"])
def test_of_two_columns_of_ids_the_one_whose_values_begin_the_others_is_the_persons(tmp_path, header, row, scan):
    scans = [(f"OAS3{n:04d}", day) for n in range(4) for day in (129, 757)]
    rows = [row.format(person=person, scan=scan.format(person=person, day=day)) for person, day in scans]
    table = read_subjects(write(tmp_path / "t.csv", header, *rows))
    assert [scan.subject for scan in table.scans] == [person for person, _ in scans]
    assert len({scan.session for scan in table.scans}) == 2
    (note,) = table.notes
    assert note.text == f"persons are in the column {'Subject' if 'Subject' in header else 'subject_ID'}"
    assert note.examples == ("OAS30000", "OAS30001", "OAS30002")


def test_scans_whose_ids_tell_nothing_of_the_person_are_its_sessions(tmp_path):
    rows = ["002_S_1,I881", "002_S_1,I902", "003_S_7,I311"]
    assert named(write(tmp_path / "t.csv", "PTID,scan_id", *rows)) == [
        ("002_S_1", "I881"),
        ("002_S_1", "I902"),
        ("003_S_7", "I311"),
    ]


def test_columns_that_make_other_persons_are_asked_about(tmp_path, refused):
    path = write(tmp_path / "t.csv", "subject,ID", "a,1", "a,2", "b,3")
    with refused(r"by subject the rows are 2 persons, by ID 3: name .* with --subject-column"):
        read_table(path)
    assert named(path, columns={"subject": "ID"}) == [("1", ""), ("2", ""), ("3", "")]
    assert named(path, columns={"subject": "subject", "session": "ID"}) == [("a", "1"), ("a", "2"), ("b", "3")]


@pytest.mark.parametrize("ids", ["{n},sub-{n:02d}", "{m},sub-{n:02d}", "{n},sub-x{n:02d}"])
def test_participant_id_wins(tmp_path, ids):
    root = tmp_path / "bids"
    rows = [f"{ids.format(n=n, m=13 - n)}\t{n % 2}".replace(",", "\t") for n in range(1, 13)]
    names = [row.split("\t")[1] for row in rows]
    touch(*(root / name / "anat" / f"{name}_T1w.nii.gz" for name in names))
    write(root / "participants.tsv", "id\tparticipant_id\tCDR", *rows)
    assert [scan.subject for scan in read_scans(root).scans] == names


def test_bids_participant_id_wins_even_where_another_column_groups_the_rows_otherwise(tmp_path):
    touch(*(tmp_path / f"sub-{n}" / "anat" / f"sub-{n}_T1w.nii.gz" for n in "123"))
    write(tmp_path / "participants.tsv", "subject_id\tparticipant_id", "fam1\tsub-1", "fam1\tsub-2", "fam2\tsub-3")
    assert [scan.subject for scan in read_scans(tmp_path).scans] == ["sub-1", "sub-2", "sub-3"]


@pytest.mark.parametrize(
    ("ids", "asked"),
    [
        (["S01_1", "S01_2", "S02_1", "S02_2", "S03_1"], "S01_1 and S01_2"),
        (["1a", "1b", "2a", "3a"], "1a and 1b"),
        (["p1_bl", "p1_m06", "p2_bl", "p3_bl"], "p1_bl and p1_m06"),
        (["A7", "A7_2", "B1", "C1"], "A7 and A7_2"),
        (["7", "007", "8"], "7 and 007"),
        (["sub-7", "sub-07", "sub-8"], "sub-7 and sub-07"),
        (["x_20120314", "x_20130314", "y_20120314", "z_20110101"], "x_20120314 and x_20130314"),
    ],
)
def test_ids_that_may_be_one_person_are_asked_about(tmp_path, refused, ids, asked):
    path = write(tmp_path / "t.csv", "ID", *ids)
    with refused(rf"are {asked} one person or two\? Say so with --subject-pattern"):
        read_table(path)
    assert [subject for subject, _ in named(path, subject_pattern="(.+)")] == ids


@pytest.mark.parametrize(
    "ids",
    [
        [f"site{s}_{n:02d}" for s in range(3) for n in range(14)],
        [f"{group}_{n}" for group in ("AD", "HC") for n in range(1, 9)],
        [f"ID_{n:02d}" for n in range(9)],
        [f"{n:03d}_S_{4000 + n}" for n in range(9)],
        ["7", "70", "700"],
    ],
    ids=["sites", "groups", "study", "ADNI", "numbers"],
)
def test_ids_of_sites_groups_and_studies_are_no_visits(tmp_path, ids):
    assert [subject for subject, _ in named(write(tmp_path / "t.csv", "ID", *ids))] == ids


def test_names_of_one_stem_and_two_sexes_are_not_one_person(tmp_path):
    rows = ["N_1,F", "N_2,M", "O_1,F", "O_2,F", "P_1,M"]
    assert [subject for subject, _ in named(write(tmp_path / "t.csv", "ID,sex", *rows))] == [r[:3] for r in rows]


def test_a_pattern_finds_the_persons(tmp_path, refused):
    path = write(tmp_path / "t.csv", "ID", "S01a", "S01b", "S02a")
    assert named(path, subject_pattern=r"(\D*\d+)") == [("S01", "a"), ("S01", "b"), ("S02", "a")]
    with refused(r"subject_pattern '\(X\)' finds nobody in the ID 'S01a'"):
        read_table(path, subject_pattern="(X)")
    with refused(r"subject_pattern '\(' is not a regular expression"):
        read_table(path, subject_pattern="(")


def test_several_rows_of_a_person_need_something_that_tells_them_apart(tmp_path, refused):
    rows = ["a,1,70", "a,2,71", "b,1,80"]
    assert named(write(tmp_path / "t.csv", "ID,visit,age", *rows)) == [("a", "1"), ("a", "2"), ("b", "1")]
    path = write(tmp_path / "t.csv", "ID,when,age", *rows)
    with refused(r"has a twice: delete one of its rows, or name .* --session-column"):
        read_table(path)
    assert named(path, columns={"session": "when"}) == [("a", "1"), ("a", "2"), ("b", "1")]


def test_the_first_session_of_a_person_is_the_first_by_number(tmp_path):
    rows = [f"p{n},{visit},{n % 2}" for n in range(1, 5) for visit in ("M12", "M6", "M108")]
    write(tmp_path / "t.csv", "ID,visit,CDR", *rows)
    assert {scan.session for scan in load_cohort(tmp_path / "t.csv", controls="all").scans} == {"M6"}
    assert sorted(["M12", "M6", "M108", "bl"], key=natural) == ["M6", "M12", "M108", "bl"]


@pytest.mark.parametrize(
    ("row", "image"),
    [
        ("sub-01\tses-M48", "sub-01/ses-M048/anat/sub-01_ses-M048_T1w.nii.gz"),
        ("sub-01\tses-M048", "sub-01/ses-M48/anat/sub-01_ses-M48_T1w.nii.gz"),
        ("1\tM48", "sub-001/ses-M048/anat/sub-001_ses-M048_T1w.nii.gz"),
        ("01\tm48", "sub-01/ses-M48/anat/sub-01_ses-M48_T1w.nii.gz"),
        ("oas1\t", "sub-OAS1/anat/sub-OAS1_T1w.NII.GZ"),
    ],
)
def test_zeros_and_prefixes_that_were_lost_on_the_way_are_forgiven(tmp_path, row, image):
    touch(tmp_path / image)
    write(tmp_path / "participants.tsv", "participant_id\tsession_id", row)
    found = read_scans(tmp_path)
    assert [scan.image for scan in found.scans] == [tmp_path / image]
    assert found.scans[0].subject == row.split("\t")[0]
    spelled = [note for note in found.notes if "differ in zeros" in note.text]
    assert [note.text for note in spelled] == ["1 rows matched to images whose names differ in zeros, prefixes or case"]


def test_two_rows_that_differ_in_zeros_are_matched_by_whole_names_only(tmp_path):
    touch(*(tmp_path / f"{name}.nii" for name in ("7", "007", "70")))
    write(tmp_path / "t.csv", "ID,sex", "7,F", "007,M", "70,F")
    scans = read_scans(tmp_path, subject_pattern="(.+)").scans
    assert {scan.subject: scan.image.name for scan in scans} == {"7": "7.nii", "007": "007.nii", "70": "70.nii"}


@pytest.mark.parametrize("name", ["7", "007", "NULL", "NA", "nan", "1e3", "None"])
def test_ids_stay_what_they_are_on_their_way_to_the_sets(tmp_path, name):
    names = [name, *(f"p{n}" for n in range(11))]
    touch(*(tmp_path / f"{one}.nii" for one in names))
    write(tmp_path / "t.csv", "ID,CDR", *(f"{one},{n % 2}" for n, one in enumerate(names)))
    cohort = load_cohort(tmp_path, controls="all")
    assert {scan.subject for members in split_cohort(cohort).values() for scan in members} == set(names)
    assert hash_subject("7") != hash_subject("007")


@pytest.mark.parametrize("option", [False, True])
def test_more_than_a_tenth_without_a_partner_is_refused(tmp_path, refused, option):
    names = [f"P{n:02d}" for n in range(10)]
    touch(*(tmp_path / f"{name}.nii" for name in names[:8]), tmp_path / "Q08.nii")
    write(tmp_path / "t.csv", "ID,CDR", *(f"{name},{n % 2}" for n, name in enumerate(names)))
    if option:
        found = read_scans(tmp_path, allow_unmatched=True)
        assert found.left_out == {"rows without an image": 2, "images without a row in the table": 1}
        assert [note.line() for note in found.notes] == [
            "2 rows without an image: P08, P09",
            "1 images without a row in the table: Q08.nii",
        ]
    else:
        with refused(r"2 of 10 rows without an image, such as P08 \(nearest: Q08\.nii\): .* with --allow-unmatched"):
            read_scans(tmp_path)


def test_a_tenth_is_told_and_no_more_than_ten_are_named(tmp_path):
    names = [f"P{n:03d}" for n in range(120)]
    touch(*(tmp_path / f"{name}.nii" for name in names[:108]))
    write(tmp_path / "t.csv", "ID", *names)
    (note,) = read_scans(tmp_path).notes
    assert note.text == "12 rows without an image"
    assert note.examples == tuple(names[108:118])


@pytest.mark.parametrize(
    ("file", "subject", "session"),
    [
        ("sub-01_ses-M48_acq-x_T1w.nii.gz", "sub-01", "ses-M48"),
        ("sub-01_T1w.nii", "sub-01", ""),
        ("OAS1_0001_MR1_mpr_n4_anon_111_t88_masked_gfc.hdr", "OAS1_0001", "MR1"),
        ("OAS30001_MR_d0129.nii.gz", "OAS30001", "MR_d0129"),
        ("10.nii.gz", "10", ""),
        ("patient 7.NII.GZ", "patient 7", ""),
    ],
)
def test_the_subject_of_a_file(tmp_path, file, subject, session):
    assert subject_of(tmp_path / file) == (subject, session)


def test_loose_spelling_keeps_numbers_apart():
    assert loose("sub-007_ses-M048") == loose("7_M48") == loose("007-m48")
    assert all(a != b for a, b in pairwise(map(loose, ("7", "70", "700", "0", "p7", "7p"))))


# --- the audit


def items(*names):
    return [{"image": f"/{name}.nii", "label": n % 2, "subject": name} for n, name in enumerate(names)]


def audited(training, test, tmp_path):
    sets = [items(*training), items("v1", "v2"), items(*test)]
    for one in sets:
        for item in one:
            item["image"] = str(tmp_path / item["image"][1:])
            touch(tmp_path / item["image"])
    return audit_sets(*sets, pixels=False)


@pytest.mark.parametrize(
    ("first", "second"),
    [("OAS30001_MR_d0129", "OAS30001_MR_d0757"), ("sub-7", "7"), ("x_ses-M0", "X"), ("P-visit1", "P-visit12")],
)
def test_two_names_of_one_person_in_two_sets_are_a_leak(tmp_path, first, second):
    audit = audited([first, "b", "c"], [second, "d"], tmp_path)
    assert len(audit.leaks) == 1
    assert first in str(audit.leaks[0].members)


@pytest.mark.parametrize(
    ("first", "second"), [("A_1", "A_2"), ("A", "A_2"), ("A1a", "A1b"), ("7", "007"), ("S-7", "S7"), ("Q_bl", "Q_m12")]
)
def test_two_names_that_may_be_one_person_in_two_sets_are_a_question(tmp_path, first, second):
    audit = audited([first, "b", "c"], [second, "d"], tmp_path)
    (question,) = [finding for finding in audit.findings if finding.check == "Names that may be one person"]
    assert (question.leak, audit.leaks) == (False, [])
    assert f"are {first} and {second} one person? They are in training and in test" in question.message


@pytest.mark.parametrize(
    "names", [("AD_1", "AD_2", "HC_1", "HC_2"), ("10", "11", "12", "13"), ("sub-1", "sub-2", "sub-3", "sub-4")]
)
def test_names_of_different_persons_raise_no_question(tmp_path, names):
    sets = [items(*names[:2]), items("v1", "v2"), items(*names[2:])]
    for one in sets:
        for item in one:
            item["image"] = str(tmp_path / item["image"][1:])
            item["sex"] = "FM"[item["label"]]
            touch(tmp_path / item["image"])
    audit = audit_sets(*sets, pixels=False)
    assert [finding for finding in audit.findings if "one person" in finding.check] == []


def test_a_datalist_of_scans_is_split_by_person(tmp_path):
    scans = [f"OAS3{n:04d}_MR_d{day:04d}" for n in range(12) for day in (129, 757)]
    content = {"training": [{**item, "label": int(item["subject"][7]) % 2} for item in items(*scans)]}
    for item in content["training"]:
        item["image"] = item["image"][1:]
    path = write(tmp_path / "list.json", json.dumps(content))
    cohort = load_cohort(path, label_column="label", controls="all", sessions="all")
    owner = {}
    for name, members in split_cohort(cohort).items():
        for scan in members:
            owner.setdefault(str(scan.image).rsplit("/", 1)[1][:8], set()).add(name)
    assert len(owner) == 12
    assert all(len(sets) == 1 for sets in owner.values())
