"""Who is who: persons and their scans, in whatever way tables, folders and datalists write their names."""

from __future__ import annotations

import json
import re
from itertools import pairwise

import pytest

from monai_cae.data import audit_sets, hash_subject, load_cohort, read_scans, read_table, split_cohort
from monai_cae.data.cohort.persons import loose, natural, subject_of
from monai_cae.data.cohort.tables import read_subjects
from monai_cae.errors import MonaiCaeError


def write(path, *lines):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("\n".join([*lines, ""]))
    return path


def touch(*paths):
    for path in paths:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()


# independent of the patterns: how many persons the lists of doubtful names are, where the first two are one
PERSONS = {"S01_1": 3, "1a": 3, "p1_bl": 3, "A7": 3, "7": 2, "sub-7": 2, "x_20120314": 3, "miriad_188_AD_M_01_MR_1": 3,
           "002_S_0413_1": 3, "HC_MR001": 1}  # fmt: skip


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
    assert note.text == f"subjects are in the column {'Subject' if 'Subject' in header else 'subject_ID'}"
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
    with refused(r"by subject the rows are 2 subjects, by ID 3: name .* with --subject-column"):
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
        (
            [f"miriad_{n}_AD_M_0{visit}_MR_{scan}" for n in (188, 189, 190) for visit in (1, 2) for scan in (1, 2)],
            "miriad_188_AD_M_01_MR_1 and miriad_188_AD_M_02_MR_1",
        ),
        (
            ["002_S_0413_1", "002_S_0413_2", "002_S_0559_1", "003_S_0001_1"],
            "002_S_0413_1 and 002_S_0413_2",
        ),
        ([f"HC_MR{n:03d}" for n in range(1, 14)], "HC_MR001 and HC_MR002"),
    ],
)
def test_ids_that_may_be_one_person_are_asked_about(tmp_path, ids, asked):
    path = write(tmp_path / "t.csv", "ID", *ids)
    with pytest.raises(
        MonaiCaeError, match=rf"are {asked} one subject or two\? Say so with --subject-pattern: "
    ) as said:
        read_table(path)
    pattern, stem = re.search(r"subject, '(.+)' takes both as (.+);", str(said.value)).groups()
    joined = [subject for subject, _ in named(path, subject_pattern=pattern, columns={"session": "ID"})]
    assert joined[:2] == [stem, stem]
    assert len(set(joined)) == PERSONS[ids[0]]
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
    with refused(r"subject_pattern '\(X\)' finds no subject in the ID 'S01a'"):
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


@pytest.mark.parametrize(
    "visits",
    [
        ["bl", "m06", "m12", "m108"],
        ["sc", "m06", "m12"],
        ["BL", "M6", "M12"],
        ["ses-baseline", "ses-M06"],
        ["baseline", "followup"],
        ["pre", "post"],
        ["2006-01-10", "2006-12-01", "2010-01-01"],
        ["9/13/2005", "1/20/2006", "10/01/2006"],
        ["13.9.2005", "1.10.2006", "02.10.2006"],
        ["1", "2", "10"],
    ],
)
def test_the_first_visit_is_the_first_in_time(visits):
    back_to_front = visits[::-1]
    assert sorted(back_to_front, key=natural) == visits


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
    assert loose("sub-ADNI002S0413_ses-M000") == loose("002_S_0413_bl") == loose("2_S_413-sc")
    assert loose("sub-OASIS10001") == loose("OAS1_0001") != loose("OAS1_0010")
    assert loose("sub-OAS30001_ses-d0129") == loose("OAS30001_MR_d0129") != loose("OAS30001_MR_d1290")
    assert loose("Mu\u0308ller") == loose("m\u00fcller") != loose("muller")
    assert loose("AD_1") != loose("HC_1")
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
    [
        ("OAS30001_MR_d0129", "OAS30001_MR_d0757"),
        ("sub-7", "7"),
        ("x_ses-M0", "X"),
        ("P-visit1", "P-visit12"),
        ("Mu\u0308ller", "M\u00fcller"),
    ],
)
def test_two_names_of_one_person_in_two_sets_are_a_leak(tmp_path, first, second):
    audit = audited([first, "b", "c"], [second, "d"], tmp_path)
    assert len(audit.leaks) == 1
    assert first in str(audit.leaks[0].members)


@pytest.mark.parametrize(
    ("first", "second"),
    [
        ("A_1", "A_2"),
        ("A", "A_2"),
        ("A1a", "A1b"),
        ("7", "007"),
        ("S-7", "S7"),
        ("Q_bl", "Q_m12"),
        ("002_S_0413", "sub-ADNI002S0413"),
        ("OAS1_0007", "sub-OASIS10007"),
    ],
)
def test_two_names_that_may_be_one_person_in_two_sets_are_a_question(tmp_path, first, second):
    audit = audited([first, "b", "c"], [second, "d"], tmp_path)
    (question,) = [finding for finding in audit.findings if finding.check == "Names that may be one subject"]
    assert (question.leak, audit.leaks) == (False, [])
    assert f"are {first} and {second} one subject? They are in training and in test" in question.message


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
    assert [finding for finding in audit.findings if "one subject" in finding.check] == []


@pytest.mark.parametrize(
    ("first", "second"),
    [
        ("ADNI_002_S_0413_MR_Br_1_S1_I40", "ADNI_002_S_0413_MR_Br_2_S2_I41"),
        ("IXI002-Guys-0828", "IXI002-Guys-1900"),
        ("miriad_188_AD_M_01_MR_1", "miriad_188_AD_M_02_MR_1"),
        ("P_timepoint1", "P_timepoint2"),
        ("P_0y", "P_2y"),
        ("P (1)", "P (2)"),
        ("P.nii.gz", "P"),
    ],
)
def test_longer_names_of_one_person_are_a_question_too(tmp_path, first, second):
    (question,) = audited([first, "b", "c"], [second, "d"], tmp_path).findings
    assert question.message == f"are {first} and {second} one subject? They are in training and in test"


def test_what_is_a_leak_is_not_a_question_too(tmp_path):
    (leak,) = audited(["OAS1_0001_MR1", "b", "c"], ["OAS1_0001_MR2", "d"], tmp_path).findings
    assert leak.leak


def test_names_of_ixi_adni_and_oasis_are_persons(tmp_path):
    names = [f"IXI{n:03d}-{('Guys', 'HH', 'IOP')[n % 3]}-{700 + n:04d}" for n in range(9)]
    names += [f"ADNI_002_S_{n:04d}_MR_Br_1_I{n}" for n in range(2001, 2010)] + [f"OAS1_{n:04d}" for n in range(1, 9)]
    assert [subject for subject, _ in named(write(tmp_path / "t.csv", "ID", *names))] == names


def test_numbered_subjects_of_a_site_hide_no_visits_of_another_study(tmp_path):
    audit = audited([*(f"Pitt_{n:02d}" for n in range(14)), "P3_bl"], ["P3_m12", "Pitt_20", "Pitt_21"], tmp_path)
    (question,) = [finding for finding in audit.findings if finding.check == "Names that may be one subject"]
    assert "are P3_bl and P3_m12 one subject? They are in training and in test" in question.message


def test_one_wrong_sex_hides_no_visits(tmp_path, refused):
    rows = [f"p{n}_{visit},F" for n in range(12) for visit in ("bl", "m12")]
    with refused("are p0_bl and p0_m12 one subject or two"):
        read_table(write(tmp_path / "t.csv", "ID,sex", *rows[:-1], "p11_m12,M"))


def test_what_looks_like_a_session_but_has_both_sexes_is_asked_about(tmp_path, refused):
    rows = [f"{group}_d{n:03d},{'FM'[n % 2]}" for group in ("AD", "HC") for n in range(6)]
    with refused("are AD_d000 and AD_d001 one subject or two"):
        read_table(write(tmp_path / "t.csv", "ID,sex", *rows))


def test_a_table_of_adni_finds_what_clinica_made_of_it(tmp_path):
    made = [
        tmp_path / "subjects" / f"sub-ADNI002S000{n}" / f"ses-M0{m}" / "t1_linear" for n in (1, 2) for m in ("00", "12")
    ]
    touch(
        *(
            one / f"{one.parts[-3]}_{one.parts[-2]}_space-MNI152NLin2009cSym_desc-Crop_res-1x1x1_T1w.nii.gz"
            for one in made
        )
    )
    rows = [f"002_S_000{n},{visit}" for n in (1, 2) for visit in ("bl", "m12")]
    scans = read_scans(tmp_path, table=write(tmp_path / "t.csv", "PTID,VISCODE", *rows)).scans
    assert [scan.image.parent for scan in scans] == made
    assert [scan.name for scan in scans] == [row.replace(",", "_") for row in rows]


def test_a_session_that_repeats_the_person_is_named_once(tmp_path):
    rows = ["OAS30001,OAS30001_MR_d0129", "OAS30001,OAS30001_MR_d0757", "1,12"]
    assert named(write(tmp_path / "t.csv", "OASISID,session_id", *rows)) == [
        ("OAS30001", "MR_d0129"),
        ("OAS30001", "MR_d0757"),
        ("1", "12"),
    ]


def test_rows_of_sessions_take_their_own_line_of_the_sessions_table(tmp_path):
    touch(*(tmp_path / "sub-1" / f"ses-M{m}" / "anat" / f"sub-1_ses-M{m}_T1w.nii" for m in ("00", "12")))
    write(tmp_path / "participants.tsv", "participant_id\tsession_id\tDX", "sub-1\tbl\tCN", "sub-1\tm12\tAD")
    write(tmp_path / "sub-1" / "sub-1_sessions.tsv", "session_id\tage", "ses-M00\t70", "ses-M12\t71")
    scans = read_scans(tmp_path).scans
    assert [(scan.image.parts[-3], scan.row["DX"], scan.age) for scan in scans] == [
        ("ses-M00", "CN", 70),
        ("ses-M12", "AD", 71),
    ]


@pytest.mark.parametrize("column", ["Image Data ID", "ImageUID"])
def test_a_column_may_name_images_without_their_suffix(tmp_path, column):
    touch(*(tmp_path / f"I{n}.nii" for n in (40, 41, 50)))
    write(tmp_path / "t.csv", f"{column},Subject,Visit", "I40,002_S_1,sc", "I41,002_S_1,m06", "I50,003_S_7,sc")
    scans = read_scans(tmp_path, columns={"image": column}).scans
    assert [(scan.name, scan.image.name) for scan in scans] == [
        ("002_S_1_sc", "I40.nii"),
        ("002_S_1_m06", "I41.nii"),
        ("003_S_7_sc", "I50.nii"),
    ]


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
