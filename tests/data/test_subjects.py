"""Whose scan a file is: by its name, by the table, and in the checkpoint's training."""

from __future__ import annotations

from pathlib import Path

import pytest

from monai_cae.data import hash_subject, inference_items
from monai_cae.data.cohort.pseudonyms import KEY_VARIABLE, pseudonym

AGE = {"age": [0, 1]}


@pytest.fixture
def ages(tmp_path):
    """Files -> the ages of their rows."""

    def found(table: str, *files: str) -> list[float]:
        (tmp_path / "table.csv").write_text(table)
        items = inference_items([Path("scans", file) for file in files], str(tmp_path / "table.csv"), AGE)
        return [float(item["covariates"][0]) for item in items]

    return found


VISITS = "ID,Age\nOAS1_0001_MR1,60\nOAS1_0001_MR2,61\nOAS1_0011_MR1,70\n"
BIDS = "participant_id\tsession_id\tage\n01\tM00\t60\n01\tM048\t64\nsub-02\tses-1\t70\nS3\t\t80\n"
TEXTS = "ID,Age\nNA,60\nNULL,61\nnan,62\nS01_1,63\nS01_2,64\n"
NUMBERS = "ID,Age\n1,60\n7,61\n007,62\n2,63\n"


@pytest.mark.parametrize(
    ("table", "file", "age"),
    [
        (VISITS, "OAS1_0001_MR2_mpr_n4_anon_111_t88_masked_gfc.hdr", 61),
        (VISITS, "OAS1_0001_MR1.nii.gz", 60),
        (VISITS, "OAS1_0011.nii", 70),  # its one row
        (VISITS, "oas1_0011_mr1.NII.GZ", 70),
        (BIDS, "sub-01_ses-M00_T1w.nii.gz", 60),
        (BIDS, "sub-01_ses-M48_acq-a_T1w.nii.gz", 64),
        (BIDS, "02_1.nii.gz", 70),
        (BIDS, "2_ses-01.nii.gz", 70),
        (BIDS, "sub-2.nii", 70),
        (BIDS, "sub-S3_ses-5_T1w.nii", 80),  # a row of all sessions
        (BIDS, "sub-S03.nii", 80),
        (NUMBERS, "1.nii.gz", 60),
        (NUMBERS, "sub-001_T1w.nii.gz", 60),
        (NUMBERS, "7.nii.gz", 61),
        (NUMBERS, "007.nii.gz", 62),
        (TEXTS, "NA.nii.gz", 60),
        (TEXTS, "NULL_T1w.nii", 61),
        (TEXTS, "nan.nii", 62),
        (TEXTS, "S01_2_T1w.nii", 64),
        ("ID,Age\nS1,60\nS1_b,61\n", "S1_b_T1w.nii", 61),
        ("ID,Age\nOAS30001_MR_d0129,60\nOAS30001_MR_d0757,62\n", "OAS30001_MR_d0757_T1w.nii.gz", 62),
    ],
)
def test_a_file_gets_the_row_of_its_whole_name_and_session(ages, table, file, age):
    assert ages(table, file) == [age]


@pytest.mark.parametrize(
    ("table", "file", "message"),
    [
        (VISITS, "OAS1_0011_MR2_mpr.hdr", "no row for the session of scans/OAS1_0011_MR2_mpr.hdr, only OAS1_0011_MR1"),
        (VISITS, "OAS1_0011_MR10.nii", "no row for the session of scans/OAS1_0011_MR10.nii, only OAS1_0011_MR1"),
        (VISITS, "OAS1_0001.nii", r"several rows for scans/OAS1_0001.nii \(OAS1_0001_MR1, OAS1_0001_MR2\)"),
        (
            BIDS,
            "sub-01_ses-M12_T1w.nii",
            "no row for the session of scans/sub-01_ses-M12_T1w.nii, only 01_M00, 01_M048",
        ),
        (BIDS, "sub-01_T1w.nii", r"several rows for scans/sub-01_T1w.nii \(01_M00, 01_M048\)"),
        (BIDS, "sub-011_ses-M00_T1w.nii", "no row whose ID the name of scans/sub-011_ses-M00_T1w.nii starts with"),
        (NUMBERS, "10.nii.gz", "no row whose ID the name of scans/10.nii.gz starts with"),
        (NUMBERS, "12.nii.gz", "no row whose ID the name of scans/12.nii.gz starts with"),
        (NUMBERS, "20.nii.gz", "no row whose ID the name"),
        (NUMBERS, "07.nii.gz", r"several rows for scans/07.nii.gz \(7, 007\)"),
        (NUMBERS, "1b.nii.gz", "no row whose ID the name"),
    ],
)
def test_a_file_without_a_row_of_its_own_is_refused(ages, refused, table, file, message):
    with refused(f"table.csv has {message}"):
        ages(table, file)


def test_subject_and_training_are_told_of_every_file(tmp_path):
    trained_on = [hash_subject(name) for name in ("OAS1_0001", "sub-02", "03", "OAS30007", "scan9")]
    answers = {
        "OAS1_0001_MR2_mpr_n4.hdr": ("OAS1_0001", "yes"),
        "OAS1_0002_MR1_mpr_n4.hdr": ("OAS1_0002", "no"),
        "sub-02_ses-1_T1w.nii.gz": ("sub-02", "yes"),
        "sub-03_T1w.nii.gz": ("sub-03", "yes"),
        "sub-04_T1w.nii.gz": ("sub-04", "no"),
        "OAS30007_MR_d0129_T1w.nii.gz": ("OAS30007", "yes"),
        "scan9.nii": ("scan9", "yes"),
        "T1.nii.gz": ("T1", "unknown"),  # no ID: who it is can't be known
        "NA.nii": ("NA", "unknown"),
        "NULL.nii.gz": ("NULL", "unknown"),
        "007.nii.gz": ("007", "unknown"),
    }
    items = inference_items([tmp_path / name for name in answers], "", {}, trained_on)
    assert [(item["subject"], item["seen_in_training"]) for item in items] == list(answers.values())
    assert {item["seen_in_training"] for item in inference_items([Path("sub-02.nii")], "", {})} == {"unknown"}


def test_a_checkpoint_of_pseudonyms_rules_nobody_out(monkeypatch, tmp_path):
    monkeypatch.setenv(KEY_VARIABLE, "a key of sixteen letters or more")
    trained_on = [hash_subject(pseudonym("OAS1_0001"))]
    images = [Path("OAS1_0001_MR1.hdr"), Path("OAS1_0002_MR1.hdr")]
    with_key = [item["seen_in_training"] for item in inference_items(images, "", {}, trained_on)]
    monkeypatch.delenv(KEY_VARIABLE)
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    without = [item["seen_in_training"] for item in inference_items(images, "", {}, trained_on)]
    assert (with_key, without) == (["yes", "unknown"], ["unknown", "unknown"])
    assert not any(tmp_path.iterdir())


def test_coded_sex_is_asked_about_where_it_is_a_covariate_alone(tmp_path, refused):
    table = tmp_path / "table.csv"
    table.write_text("ID,Sex,Age\nA,1,60\nB,2,70\n")
    given = ([Path("A.nii"), Path("B.nii")], str(table))
    assert [item["covariates"].tolist() for item in inference_items(*given, AGE)] == [[60], [70]]
    with refused("table.csv: .*sex"):
        inference_items(*given, {"sex": [0, 1]})
    found = inference_items(*given, {"sex": [0, 1]}, sex_codes="F=2,M=1")
    assert [item["covariates"].tolist() for item in found] == [[1], [0]]


def test_the_tables_subjects_need_no_covariates(tmp_path, refused):
    (tmp_path / "table.csv").write_text("ID,Age\n007,60\n8,61\n")
    items = inference_items([Path("007.nii"), Path("8_x.nii")], str(tmp_path / "table.csv"), {}, [hash_subject("8")])
    assert [(item["subject"], item["seen_in_training"]) for item in items] == [("007", "no"), ("8", "yes")]
    assert all("covariates" not in item for item in items)
    with refused("no row whose ID the name of 9.nii starts with"):
        inference_items([Path("9.nii")], str(tmp_path / "table.csv"), {})


def test_one_name_in_two_folders_is_told(capsys):
    sessions = [f"sub-01/ses-{n}/anat/sub-01_ses-{n}_T1w.nii.gz" for n in (1, 2)]
    runs = [f"sub-02/anat/sub-02_run-{n}_T1w.nii.gz" for n in (1, 2)]
    images = [Path(name) for name in (*sessions, *runs, "a/x.nii.gz", "b/y.nii.gz")]
    inference_items(images, "", {})
    assert capsys.readouterr().out == ""
    inference_items([*images, Path("b/x.nii.gz"), Path("c/x.nii.gz")], "", {})
    told = "note: a/x.nii.gz and b/x.nii.gz count as one subject's, x: rename one if they are not\n"
    assert capsys.readouterr().out == told
