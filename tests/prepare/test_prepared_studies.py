"""Downloads of studies, prepared: two commands, as the table and the images find each other without a third."""

from __future__ import annotations

import shutil
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from dicoms import write_series
from fake_preparation import fake
from tiny import write_pair

from monai_cae.cli import main
from monai_cae.data import read_scans
from monai_cae.data.cohort.pseudonyms import pseudonym
from monai_cae.data.layouts import Asked
from monai_cae.errors import MonaiCaeError
from monai_cae.prepare.cohort import prepare_cohort
from monai_cae.prepare.sources import Wanted, find_sources

VOLUME = np.full((6, 7, 8), 100, np.int16)
LISTED = '"Image Data ID","Subject","Group","Sex","Age","Visit","Modality","Description","Type","Acq Date","Format"'
EXPECTED_ADNI = {"002S0295_ses-d0000": ("CN", 85, "F"), "002S0295_ses-d0379": ("MCI", 86, "F"),
                 "003S4081_ses-d0000": ("AD", 73, "F")}  # fmt: skip
ADNI = [  # image, subject, age, visit, series, date
    ("I101", "002_S_0295", 85, "sc", "MP-RAGE", "4/18/2006"),
    ("I102", "002_S_0295", 85, "sc", "MP-RAGE REPEAT", "4/18/2006"),
    ("I103", "002_S_0295", 86, "m12", "MP-RAGE", "5/2/2007"),
    ("I104", "003_S_4081", 73, "v02", "MP-RAGE", "6/1/2011"),
    ("I105", "003_S_4081", 73, "v02", "3-plane localizer", "6/1/2011"),
]


def write(path: Path, *rows: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("\n".join(rows) + "\n")


def nifti(path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    nib.save(nib.Nifti1Image(VOLUME, np.diag([20.0, 20, 20, 1])), path)


def oasis_1(root: Path) -> None:
    write(root / "oasis_cross-sectional.csv", "ID,M/F,Hand,Age,CDR", "OAS1_0001_MR1,F,R,74,0", "OAS1_0002_MR1,M,R,80,1")
    for name in ("OAS1_0001_MR1", "OAS1_0002_MR1"):
        write_pair(root / "disc1" / name / "RAW" / f"{name}_mpr-1_anon.img", VOLUME)


def oasis_2(root: Path) -> None:
    visits = [("OAS2_0001", 1, "Converted", 0, 71, 0), ("OAS2_0001", 3, "Converted", 900, 73, 0.5),
              ("OAS2_0002", 1, "Demented", 0, 80, 0.5)]  # fmt: skip
    rows = [f"{s},{s}_MR{v},{group},{v},{delay},F,R,{age},12,{cdr}" for s, v, group, delay, age, cdr in visits]
    write(root / "oasis_longitudinal.csv", "Subject ID,MRI ID,Group,Visit,MR Delay,M/F,Hand,Age,EDUC,CDR", *rows)
    for subject, visit, *_ in visits:
        raw = root / f"OAS2_RAW_PART{1 + (visit > 1)}" / f"{subject}_MR{visit}" / "RAW"
        raw.mkdir(parents=True)
        nib.save(nib.Nifti1Pair(VOLUME, np.diag([20.0, 20, 20, 1])), raw / "mpr-1.nifti.hdr")


def oasis_3(root: Path) -> None:
    for session in ("OAS30001_MR_d0129", "OAS30001_MR_d0371", "OAS30002_MR_d0010"):
        subject, _, day = session.partition("_MR_")
        nifti(root / session / "anat2" / "NIFTI" / f"sub-{subject}_ses-{day}_T1w.nii.gz")
    cdrs = ("OAS30001,0,0,29", "OAS30001,400,0.5,26", "OAS30002,10,1,20")
    write(root / "tables" / "OASIS3_UDSb4_cdr.csv", "OASISID,days_to_visit,CDRTOT,MMSE", *cdrs)
    write(root / "tables" / "demo.csv", "OASISID,AgeatEntry,EDUC,GENDER", "OAS30001,65,12,1", "OAS30002,70,16,2")


def adni_tables(root: Path) -> None:
    rows = [f'"{i}","{s}","x","F","{age}","{visit}","MRI","{series}","Original","{date}","DCM"'
            for i, s, age, visit, series, date in ADNI]  # fmt: skip
    write(root / "collection.csv", LISTED, *rows)
    diagnoses = ("ADNI1,295,bl,bl,2006-05-02,1", "ADNI1,295,m12,m12,2007-05-20,2", "ADNI2,4081,v03,bl,2011-07-01,3")
    write(root / "Study Data" / "DXSUM.csv", "Phase,RID,VISCODE,VISCODE2,EXAMDATE,DIAGNOSIS", *diagnoses)


def adni_folder(root: Path, image: str) -> Path:
    _, subject, _, _, series, date = next(one for one in ADNI if one[0] == image)
    month, day, year = map(int, date.split("/"))
    return root / "ADNI" / subject / series.replace(" ", "_") / f"{year}-{month:02}-{day:02}_08_20_30.0" / image


def adni(root: Path) -> None:
    adni_tables(root)
    for image, *_ in ADNI:
        nifti(adni_folder(root, image) / f"ADNI_x_br_raw_2006_1_S1_{image}.nii")


def adni_dicom(root: Path) -> None:
    adni_tables(root)
    for image, subject, *_, series, date in ADNI:
        localizer = {"SeriesDescription": "localizer", "ImageType": ["ORIGINAL", "PRIMARY", "LOCALIZER"]}
        tags = localizer if "localizer" in series else {"SeriesDescription": series}
        patient = {"PatientID": subject, "PatientName": subject, "PatientBirthDate": ""}
        study = f"1.2.{date[-4:]}.{int(subject[-4:])}"
        folder = write_series(adni_folder(root, image), study=study, patient=patient, **tags)
        for path in list(folder.iterdir()):
            path.rename(folder / f"ADNI_{subject}_MR_{path.name}_{image}.dcm")


def ixi(root: Path) -> None:
    for name in ("IXI002-Guys-0828-T1", "IXI012-HH-1211-T1"):
        nifti(root / "IXI-T1" / f"{name}.nii.gz")
    nifti(root / "IXI-T2" / "IXI002-Guys-0828-T2.nii.gz")
    write(root / "IXI.csv", '"IXI_ID","SEX_ID (1=m, 2=f)","AGE"', "2,2,35.8", "12,1,38.78")


@pytest.mark.parametrize(
    ("make", "column", "expected"),
    [
        (oasis_1, "CDR", {"OAS10001_ses-MR1": ("0", 74, "F"), "OAS10002_ses-MR1": ("1", 80, "M")}),
        (
            oasis_2,
            "CDR",
            {"OAS20001_ses-MR1": ("0", 71, "F"), "OAS20001_ses-MR3": ("0.5", 73, "F"),
             "OAS20002_ses-MR1": ("0.5", 80, "F")},
        ),
        (
            oasis_3,  # ages: at entry, and 129, 371 and 10 days; CDR of days 0, 400 and 10
            "CDR",
            {"OAS30001_ses-d0129": ("0", 65.35, "M"), "OAS30001_ses-d0371": ("0.5", 66.02, "M"),
             "OAS30002_ses-d0010": ("1", 70.03, "F")},
        ),
        (adni, "DX", EXPECTED_ADNI),
        (adni_dicom, "DX", EXPECTED_ADNI),
        (ixi, "site", {"IXI002": ("Guys", 35.8, "F"), "IXI012": ("HH", 38.78, "M")}),
    ],
)  # fmt: skip
def test_a_study_is_prepared_and_read_with_its_own_rows(tmp_path, make, column, expected):
    make(tmp_path / "study")
    outcomes = prepare_cohort(find_sources(tmp_path / "study"), tmp_path / "out", jobs=2, prepare=fake)
    assert {(one.name, one.verdict) for one in outcomes} == {(f"sub-{name}", "pass") for name in expected}
    found = read_scans(tmp_path / "out")
    assert {scan.name: (scan.row[column], scan.age, scan.sex) for scan in found.scans} == {
        f"sub-{name}": row for name, row in expected.items()
    }


def test_who_converts_is_known_by_the_prepared_sessions(tmp_path):
    oasis_2(tmp_path)
    sources = find_sources(tmp_path)
    assert sources.layout == "OASIS-2"
    assert [(scan.row.row["Group"], scan.row.cdr) for scan in sources.scans] == [
        ("Converted", 0), ("Converted", 0.5), ("Demented", 0.5),
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("make", "only", "visits"),
    [
        (oasis_2, "", {"OAS20001_ses-MR1": "1", "OAS20001_ses-MR3": "3", "OAS20002_ses-MR1": "1"}),
        (oasis_2, "_MR1", {"OAS20001_ses-MR1": "1", "OAS20002_ses-MR1": "1"}),  # the same in every row
        (adni, "", {"002S0295_ses-d0000": "sc", "002S0295_ses-d0379": "m12", "003S4081_ses-d0000": "v02"}),
    ],
)
def test_a_visit_that_does_not_name_the_session_is_carried_over(tmp_path, make, only, visits):
    study = tmp_path / "study"
    make(study)
    if only:
        table = study / "oasis_longitudinal.csv"
        head, *rows = table.read_text().splitlines()
        write(table, head, *(row for row in rows if only in row))
        shutil.rmtree(study / "OAS2_RAW_PART2")
    prepare_cohort(find_sources(study), tmp_path / "out", prepare=fake)
    assert {scan.name: scan.row["Visit"] for scan in read_scans(tmp_path / "out").scans} == {
        f"sub-{name}": visit for name, visit in visits.items()
    }


def test_days_between_scan_and_visit_are_asked_for(tmp_path):
    oasis_3(tmp_path)
    near = find_sources(tmp_path, Wanted(asked=Asked(run="", days=100)))
    assert [scan.row.row["CDR"] for scan in near.scans] == ["", "0.5", "1"]


def test_without_tables_sessions_are_named_alike(tmp_path):
    for make in (oasis_1, oasis_2, oasis_3, ixi):
        study = tmp_path / make.__name__
        make(study)
        names = [scan.name for scan in find_sources(study).scans]
        for table in study.rglob("*.csv"):
            table.unlink()
        bare = find_sources(study).scans
        assert [scan.name for scan in bare] == names
        assert make is ixi or not any(scan.row for scan in bare)


def test_adni_in_dicom_is_named_as_its_list_says_and_hidden_if_asked(tmp_path, monkeypatch):
    monkeypatch.setenv("MONAI_CAE_ID_KEY", "a key for this test")
    adni_dicom(tmp_path)
    found = find_sources(tmp_path)
    assert found.layout == "LONI (ADNI, AIBL)" and not found.private
    assert [scan.lines[0].split(",")[0] for scan in found.scans] == ["taken: series 3 (MP-RAGE"] * 3
    assert [scan.row.row["Image Data ID"] for scan in found.scans] == ["I101", "I103", "I104"]
    hidden = find_sources(tmp_path, Wanted(hash_ids=True))
    assert {scan.subject for scan in hidden.scans} == {pseudonym("002_S_0295"), pseudonym("003_S_4081")}
    (tmp_path / "collection.csv").unlink()
    with pytest.raises(MonaiCaeError, match="no list of the images in"):
        find_sources(tmp_path)
    by_path = find_sources(tmp_path, Wanted(asked=Asked(run="", subject_pattern=r"\d{3}_S_\d{4}")))
    assert {scan.subject for scan in by_path.scans} == {"002S0295", "003S4081"}


@pytest.mark.parametrize("make", [adni, adni_dicom])
def test_a_saved_table_names_the_same_scans_of_adni(tmp_path, make):
    make(tmp_path / "study")
    own = find_sources(tmp_path / "study")
    table = tmp_path / "adni.tsv"
    assert main(["cohort", str(tmp_path / "study"), "--save", str(table)]) == 0
    saved = find_sources(tmp_path / "study", Wanted(asked=Asked(run="", table=table)))
    assert [scan.name for scan in saved.scans] == [scan.name for scan in own.scans]
    assert [scan.row.row["DX"] for scan in saved.scans] == ["CN", "MCI", "AD"]
    # the repeated scan and the localizer are in the folder, and nobody's by the table
    assert any(note.text == "2 scans without a row in the table, left out" for note in saved.notes)
