"""OASIS-1 to -3, ADNI, AIBL and IXI as their archives give them: folders and columns are theirs, values nobody's."""

from __future__ import annotations

import csv
from pathlib import Path

import pytest
from openpyxl import Workbook

from monai_cae.cli import main
from monai_cae.data import load_cohort, read_scans, select_cohort
from monai_cae.data.cohort.joining import date_of, day_of, month_of

RULES = {"positive": "DX == 'AD'", "negative": "DX == 'CN'", "controls": "all"}


def touch(*paths: Path) -> None:
    for path in paths:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()


def write(path: Path, *rows: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("\n".join(rows) + "\n")
    return path


def told(found) -> list[str]:
    return [note.line() for note in found.notes]


def labels(cohort) -> dict[str, float]:
    return {scan.name: scan.label for scan in cohort.scans}


# --- OASIS-1


def test_oasis_1_raw(write_table, tmp_path):
    rows = [(f"OAS1_000{n}_MR1", "F", 70 + n, (0, 0.5)[n % 2]) for n in range(1, 5)]
    write_table(tmp_path / "oasis_cross-sectional.csv", rows)
    raw = [tmp_path / "disc1" / name / "RAW" / f"{name}_mpr-{run}_anon" for name, *_ in rows for run in (1, 2, 3)]
    touch(*(path.with_name(path.name + suffix) for path in raw for suffix in (".hdr", ".img")))
    found = read_scans(tmp_path)
    assert [scan.image.name for scan in found.scans] == [f"{name}_mpr-3_anon.hdr" for name, *_ in rows]
    assert found.left_out == {"further images of a session": 8}
    assert told(found)[0].startswith("no *_t88_masked_gfc.hdr here: the scans are as they left the scanner")
    first = read_scans(tmp_path, run="first").scans
    assert [scan.image.name for scan in first] == [f"{name}_mpr-1_anon.hdr" for name, *_ in rows]
    touch(tmp_path / "disc1" / rows[0][0] / f"{rows[0][0]}_mpr_n4_anon_111_t88_masked_gfc.hdr")
    (scan,) = read_scans(tmp_path, allow_unmatched=True).scans  # one processed session: raw ones are not mixed in
    assert scan.image.name.endswith("t88_masked_gfc.hdr")


# --- OASIS-2

OASIS_2 = "Subject ID,MRI ID,Group,Visit,MR Delay,M/F,Hand,Age,EDUC,SES,MMSE,CDR,eTIV,nWBV,ASF"
LONGITUDINAL = [  # one stays healthy, one is a patient throughout, one converts
    ("OAS2_0001", 1, "Nondemented", 0, 71, 0),
    ("OAS2_0001", 2, "Nondemented", 500, 72, 0),
    ("OAS2_0002", 1, "Demented", 0, 80, 0.5),
    ("OAS2_0002", 2, "Demented", 600, 82, 1),
    ("OAS2_0003", 1, "Converted", 0, 75, 0),
    ("OAS2_0003", 3, "Converted", 900, 77, 0.5),
]


@pytest.fixture
def oasis_2(tmp_path):
    root = tmp_path / "oasis2"
    lines = [
        f"{subject},{subject}_MR{visit},{group},{visit},{delay},F,R,{age},12,2,28,{cdr},1500,0.7,1.2"
        for subject, visit, group, delay, age, cdr in LONGITUDINAL
    ]
    write(root / "oasis_longitudinal.csv", OASIS_2, *lines)
    for subject, visit, *_ in LONGITUDINAL:
        folder = root / f"OAS2_RAW_PART{1 + (visit > 1)}" / f"{subject}_MR{visit}" / "RAW"
        touch(*(folder / f"mpr-{run}.nifti.{end}" for run in (1, 2, 3) for end in ("hdr", "img")))
    return root


def test_oasis_2(oasis_2):
    found = read_scans(oasis_2)
    assert found.layout == "OASIS-2"
    assert [(scan.subject, scan.session, scan.age, scan.sex) for scan in found.scans] == [
        (subject, f"MR{visit}", age, "F") for subject, visit, _, _, age, _ in LONGITUDINAL
    ]
    assert {scan.image.name for scan in found.scans} == {"mpr-3.nifti.hdr"}
    assert found.scans[5].image.parts[-4:-2] == ("OAS2_RAW_PART2", "OAS2_0003_MR3")


def test_images_of_one_name_are_told_by_their_sessions(oasis_2, refused):
    table = oasis_2 / "oasis_longitudinal.csv"
    table.write_text("\n".join(table.read_text().splitlines()[:-1]) + "\n")
    with refused("1 of 6 images without a row in the table, such as OAS2_0003_MR3 "):
        read_scans(oasis_2)


def test_who_converts_counts_as_scanned_or_not_at_all(oasis_2, refused):
    as_scanned = load_cohort(oasis_2, controls="all")
    assert labels(as_scanned) == {"OAS2_0001_MR1": 0, "OAS2_0002_MR1": 1, "OAS2_0003_MR1": 0}
    told_so = "subjects that are controls in one scan and patients in another (1): each scan counts as what the subject"
    assert any(line.startswith(told_so) and line.endswith("OAS2_0003") for line in told(as_scanned))
    left_out = load_cohort(oasis_2, controls="all", converters="leave_out")
    assert labels(left_out) == {"OAS2_0001_MR1": 0, "OAS2_0002_MR1": 1}
    assert left_out.left_out == {
        "further images of a session": 12,
        "further scans of a subject": 2,
        "subjects with scans of both labels (converters)": 1,
    }
    assert any("take no part (--converters): OAS2_0003" in line for line in told(left_out))
    with refused(r"OAS2_0003_MR1 and OAS2_0003_MR3 are one subject with both labels: .* --converters leave_out"):
        load_cohort(oasis_2, controls="all", sessions="all")
    everything = load_cohort(oasis_2, controls="all", sessions="all", converters="leave_out")
    assert [scan.label for scan in everything.scans] == [0, 0, 1, 1]
    by_group = load_cohort(oasis_2, positive="Group == 'Demented'", negative="Group == 'Nondemented'", controls="all")
    assert labels(by_group) == {"OAS2_0001_MR1": 0, "OAS2_0002_MR1": 1}
    with refused("converters must be one of as_scanned, leave_out, not 'drop'"):
        select_cohort(read_scans(oasis_2).scans, converters="drop")


# --- OASIS-3

CDRS = [  # person, day, CDR, MMSE
    ("OAS30001", 0, 0, 29),
    ("OAS30001", 400, 0.5, 26),
    ("OAS30002", 10, 1, 20),
    ("OAS30003", 100, 0, 30),
    ("OAS30003", 300, 0.5, 27),
    ("OAS30004", 0, 0, 28),
    ("OAS30005", 50, "", 25),
    ("OAS30005", 120, 0, ""),
]
SESSIONS = {  # session -> CDR, MMSE, age; by hand
    "OAS30001_MR_d0129": ("0", "29", 65.35),  # 129 days from the first visit, 271 from the second
    "OAS30001_MR_d0371": ("0.5", "26", 66.02),
    "OAS30002_MR_d0010": ("1", "20", 70.03),
    "OAS30003_MR_d0200": ("", "", 60.55),  # both visits are 100 days away, and differ
    "OAS30004_MR_d0900": ("", "", 82.46),  # no visit within a year
    "OAS30005_MR_d0060": ("0", "25", 55.16),  # the nearest visit has no CDR, the next one has
}
AGES = {"OAS30001": 65, "OAS30002": 70, "OAS30003": 60, "OAS30004": 80, "OAS30005": 55}


def images_of_oasis_3(root: Path) -> Path:
    for number, session in enumerate(SESSIONS):
        subject, _, day = session.partition("_MR_")
        scan = f"sub-{subject}_ses-{day}"
        folder = ("anat2", "anat3/NIFTI", "scans/anat2-T1w/resources/NIFTI/files")[number % 3]
        touch(root / session / folder / f"{scan}_run-01_T1w.nii.gz", root / session / "anat1" / f"{scan}_T2w.nii.gz")
    return root


@pytest.fixture(params=["ADRC", "UDS"])
def oasis_3(request, tmp_path):
    root = images_of_oasis_3(tmp_path / "oasis3")
    if request.param == "ADRC":
        head = "ADRC_ADRCCLINICALDATA ID,Subject,Date,Age,mmse,ageAtEntry,cdr,commun,dx1,sumbox"
        rows = [f"{p}_ClinicalData_d{day:04},{p},,,{mmse},{AGES[p]},{cdr},0,x,0" for p, day, cdr, mmse in CDRS]
        write(root / "ADRC Clinical Data.csv", head, *rows)
        write(root / "subjects.csv", "Subject,M/F,Hand,YOB,Education", *(f"{p},M,R,,12" for p in AGES))
        freesurfer = "FS_FSDATA ID,Session,Subject,FS Date,Included T1s,IntraCranialVol,CortexVol"
        write(root / "FreeSurfers.csv", freesurfer, "OAS30001_Freesurfer53_d0129,CENTRAL_E1,OAS30001,,,1400000,400000")
    else:
        files = root / "OASIS3_data_files" / "scans"
        head = "OASISID,OASIS_session_label,days_to_visit,age at visit,MMSE,memory,CDRTOT,CDRSUM,dx1"
        rows = [f"{p},{p}_UDSb4_d{day:04},{day:04},,{mmse},0,{cdr},0,x" for p, day, cdr, mmse in CDRS]
        write(files / "UDSb4" / "resources" / "csv" / "files" / "OASIS3_UDSb4_cdr.csv", head, *rows)
        people = [f"{person},MR,{age},,12,1" for person, age in AGES.items()]
        write(
            files / "demo" / "OASIS3_demographics.csv",
            "OASISID,Subject_accession,AgeatEntry,AgeatDeath,EDUC,GENDER",
            *people,
        )
        freesurfer = "Subject,MR_session,FS QC Status,IntraCranialVol,CortexVol"
        write(files / "OASIS3_Freesurfer_output.csv", freesurfer, "OAS30001,OAS30001_MR_d0129,Passed,1400000,400000")
        write(files / "OASIS3_UDSd1_diagnoses.csv", "OASISID,OASIS_session_label,days_to_visit,NORMCOG,DEMENTED")
    return root


def test_oasis_3_takes_the_nearest_visit(oasis_3):
    found = read_scans(oasis_3)
    assert found.layout == "OASIS-3"
    assert {f"{s.subject}_MR_{s.session}": (s.row["CDR"], s.row["MMSE"], s.age) for s in found.scans} == SESSIONS
    assert {scan.sex for scan in found.scans} == {"M"} and found.scans[0].covariates["Educ"] == 12
    assert [s.row["IntraCranialVol"] for s in found.scans] == [
        "1400000",
        *[""] * 5,
    ]  # 242 days are within the limit, but...
    assert all(scan.image.name.endswith("_T1w.nii.gz") for scan in found.scans)
    said = told(found)
    assert any(
        "is that of the nearest visit within 365 days (--days): scans 4, 0 to 129 days away, median" in line
        for line in said
    )
    assert any(
        line.startswith("without CDR, as no visit within 365 days (--days) has one in")
        and line.endswith("OAS30004_MR_d0900")
        for line in said
    )
    doubtful = "without CDR, as the nearest visits are equally near and differ in"
    assert any(line.startswith(doubtful) and line.endswith("OAS30003_MR_d0200") for line in said)
    cohort = load_cohort(oasis_3, controls="all", sessions="all", converters="leave_out")
    assert labels(cohort) == {"OAS30002_d0010": 1, "OAS30005_d0060": 0}


@pytest.mark.parametrize(
    ("written", "age"), [("65,5", 65.85), ("65.5", 65.85), ("89+", 89.35), ("", None), ("about 65", "refused")]
)
def test_ages_at_entry_as_people_write_them(tmp_path, refused, written, age):
    images_of_oasis_3(tmp_path)
    write(tmp_path / "cdr.csv", "OASISID;days_to_visit;CDRTOT", "OAS30001;0;0")
    write(tmp_path / "demo.csv", "OASISID;AgeatEntry;GENDER", f"OAS30001;{written};1")
    if age == "refused":
        with refused(r"OAS30001: age at entry is 'about 65', not a number of years such as 74"):
            read_scans(tmp_path)
    else:
        assert {s.name: s.age for s in read_scans(tmp_path).scans}["OAS30001_d0129"] == age  # 0.35 years later


@pytest.mark.parametrize(
    ("change", "options", "message"),
    [
        (
            {"CDR.csv": "OASISID,days_to_visit,CDRTOT\nOAS30001,first,0"},
            {},
            r"row 2: days_to_visit is 'first', not a num",
        ),
        (
            {"CDR.csv": "OASISID,days_to_visit,CDRTOT\nOAS30001,1,7"},
            {},
            r", OAS30001 d0129: CDR is 7, not 0, 0\.5",
        ),
        ({}, {}, r"no table of clinical visits in .*: put OASIS3_UDSb4_cdr\.csv or the ADRC clinical data there"),
        (
            {"CDR.csv": "OASISID,days_to_visit,CDRTOT\nOAS30001,1,0"},
            {"days": -1},
            "days must be a whole number, 0 or more",
        ),
        (
            dict.fromkeys(("a.csv", "b.csv"), "OASISID,days_to_visit,CDRTOT\nOAS30001,1,0"),
            {},
            r"two tables may be the table of clinical visits: .*a\.csv and .*b\.csv: keep one, or name a folder",
        ),
        (
            {"CDR.csv": "OASISID,days_to_visit,CDRTOT\nOAS30001,1,0"},
            {"table": "nowhere"},
            "no table or folder of tables",
        ),
    ],
)
def test_tables_of_visits_that_are_none(tmp_path, refused, change, options, message):
    images_of_oasis_3(tmp_path)
    for name, text in change.items():
        write(tmp_path / name, text)
    with refused(message):
        read_scans(tmp_path, **options)


def test_the_limit_in_days_is_the_users(oasis_3):
    assert {scan.row["CDR"] for scan in read_scans(oasis_3, days=9).scans} == {"1", ""}
    found = read_scans(oasis_3, days=1000)
    assert {scan.name: scan.row["CDR"] for scan in found.scans}["OAS30004_d0900"] == "0"


def test_a_table_that_is_none_is_passed_over(oasis_3):
    (oasis_3 / "letter.csv").write_bytes(b"Gr\xfc\xdfe,von,Station\n1,2,3\n")
    (oasis_3 / "empty.xlsx").write_bytes(b"PK")
    found = read_scans(oasis_3)
    assert {f"{s.subject}_MR_{s.session}": (s.row["CDR"], s.row["MMSE"], s.age) for s in found.scans} == SESSIONS
    assert any("can't be read are passed over (2)" in line and "empty.xlsx, letter.csv" in line for line in told(found))


def test_a_saved_table_labels_the_images_when_they_are_prepared(oasis_3, tmp_path, capsys):
    table, prepared = tmp_path / "oasis3.tsv", tmp_path / "prepared"
    assert main(["cohort", str(oasis_3), "--save", str(table)]) == 0
    assert "6 rows in" in capsys.readouterr().out
    for session in SESSIONS:
        name = session.replace("_MR_", "_ses-")
        touch(prepared / f"sub-{name.replace('_', '/')}" / "anat" / f"sub-{name}_T1w.nii.gz")
    found = read_scans(prepared, table=table)
    assert {f"{s.subject}_MR_{s.session}": (s.cdr, s.age, s.sex) for s in found.scans} == {
        name: (float(cdr) if cdr else None, age, "M") for name, (cdr, _, age) in SESSIONS.items()
    }
    with table.open() as file:
        rows = list(csv.DictReader(file, delimiter="\t"))
    assert rows[0]["CDR days away"] == "129" and rows[3]["CDR"] == "n/a"
    assert main(["cohort", str(oasis_3), "--save", str(table)]) == 1
    assert "oasis3.tsv exists: choose another --save, or delete it" in capsys.readouterr().err


# --- ADNI and AIBL

LISTED = (
    '"Image Data ID","Subject","Group","Sex","Age","Visit","Modality","Description","Type","Acq Date","Format",'
    '"Downloaded"'
)
ADNI = [  # image, subject, group, visit, series, date
    ("I101", "002_S_0295", "CN", "sc", "MP-RAGE", "4/18/2006"),
    ("I102", "002_S_0295", "CN", "sc", "MP-RAGE REPEAT", "4/18/2006"),
    ("I103", "002_S_0295", "CN", "m12", "MP-RAGE", "5/2/2007"),
    ("I104", "002_S_0413", "MCI", "sc", "MP-RAGE", "5/2/2006"),
    ("I105", "002_S_0413", "MCI", "sc", "3-plane localizer", "5/2/2006"),
    ("I106", "003_S_4081", "AD", "v02", "MP-RAGE", "6/1/2011"),
    ("I107", "010_S_10012", "AD", "m06", "MP-RAGE", "1/10/2020"),
    ("I108", "011_S_0002", "AD", "y1", "MP-RAGE", "1/10/2019"),
    ("I109", "010_S_10013", "CN", "sc", "MP-RAGE", "2/10/2020"),  # not the same person as 010_S_10012
]
DXSUM = [  # phase, RID, VISCODE, VISCODE2, date, DXCHANGE, DXCURREN, DIAGNOSIS
    ("ADNI1", 295, "bl", "bl", "2006-05-02", "", 1, ""),
    ("ADNI1", 295, "m12", "m12", "2007-05-20", "", 2, ""),
    ("ADNI1", 413, "bl", "bl", "", "", 3, ""),  # no date: the registry has it
    ("ADNI2", 4081, "v03", "bl", "2011-07-01", 5, "", ""),  # converted from MCI to dementia
    ("ADNI4", 10012, "4_m6", "m06", "", "", "", 1),  # no date anywhere: the visit is the same
    ("ADNI3", 2, "y2", "m156", "", "", "", 3),  # neither a date nor a visit code that says when
]


def listed(root: Path, scans, study: str) -> None:
    rows = [LISTED]
    for image, subject, group, visit, series, date in scans:
        month, day, year = date.split("/")
        folder = (
            root
            / study
            / subject
            / series.replace(" ", "_")
            / f"{year}-{int(month):02}-{int(day):02}_08_20_30.0"
            / image
        )
        touch(folder / f"{study}_{subject}_MR_{series.replace(' ', '_')}_br_raw_2006_1_S1_{image}.nii")
        rows.append(
            f'"{image}","{subject}","{group}","F","75","{visit}","MRI","{series}","Original","{date}","NiFTI","{date}"'
        )
    write(root / "collection_4_01_2024.csv", *rows)


@pytest.fixture
def adni(tmp_path):
    root = tmp_path / "adni"
    listed(root, ADNI, "ADNI")
    head = "Phase,ID,RID,SITEID,VISCODE,VISCODE2,EXAMDATE,DXCHANGE,DXCURREN,DIAGNOSIS"
    rows = [f"{p},1,{rid},2,{v},{v2},{date},{x},{c},{d}" for p, rid, v, v2, date, x, c, d in DXSUM]
    write(root / "Study Data" / "DXSUM_PDXCONV_ADNIALL_01Mar2024.csv", head, *rows)
    write(
        root / "Study Data" / "REGISTRY_01Mar2024.csv",
        "Phase,RID,VISCODE,VISCODE2,EXAMDATE",
        "ADNI1,413,bl,bl,2006-05-30",
    )
    write(
        root / "Study Data" / "CDR_01Mar2024.csv",
        "RID,VISCODE,VISCODE2,EXAMDATE,CDGLOBAL",
        "295,sc,sc,2006-04-10,0",
        "413,sc,sc,2006-05-01,-1",
    )
    write(
        root / "Study Data" / "VITALS_01Mar2024.csv", "RID,VISCODE,VISCODE2,EXAMDATE,VSPULSE", "295,sc,sc,2006-04-10,60"
    )
    return root


def test_adni(adni):
    found = read_scans(adni)
    assert found.layout == "LONI (ADNI, AIBL)"
    images = {scan.name: scan.image.name.rpartition("_")[2] for scan in found.scans}
    assert images == {
        "002_S_0295_d0000": "I101.nii",  # of two series of that day the kind that most sessions have
        "002_S_0295_d0379": "I103.nii",
        "002_S_0413_d0000": "I104.nii",
        "003_S_4081_d0000": "I106.nii",
        "010_S_10012_d0000": "I107.nii",
        "011_S_0002_d0000": "I108.nii",
        "010_S_10013_d0000": "I109.nii",
    }
    rows = {scan.name: (scan.row["DX"], scan.row["DX days away"], scan.row["CDR"]) for scan in found.scans}
    assert rows == {
        "002_S_0295_d0000": ("CN", "14", "0"),
        "002_S_0295_d0379": ("MCI", "18", ""),  # the CDR is of more than a year before
        "002_S_0413_d0000": ("AD", "28", ""),  # -1 is no CDR
        "003_S_4081_d0000": ("AD", "30", ""),
        "010_S_10012_d0000": ("CN", "0", ""),
        "010_S_10013_d0000": ("", "", ""),
        "011_S_0002_d0000": ("", "", ""),  # year 1 of a phase is not year 1 of the person
    }
    assert {(scan.sex, scan.age) for scan in found.scans} == {("F", 75)}
    assert found.left_out == {"further images of a session": 2}
    cohort = load_cohort(adni, **RULES)
    assert labels(cohort) == {
        "002_S_0295_d0000": 0,
        "002_S_0413_d0000": 1,
        "003_S_4081_d0000": 1,
        "010_S_10012_d0000": 0,
    }
    assert any(
        line.startswith("without DX, as no visit within 365 days (--days) has one in DXSUM") for line in told(cohort)
    )
    other = read_scans(adni, acquisition="mp-rage repeat", allow_unmatched=True)
    assert [scan.image.name.rpartition("_")[2] for scan in other.scans] == ["I102.nii"]


def test_the_group_of_the_list_is_no_diagnosis(adni, refused):
    for path in (adni / "Study Data").iterdir():
        path.unlink()
    found = read_scans(adni)
    assert "DX" not in found.scans[0].row and found.scans[0].row["Group"] == "CN"
    assert any("Group is what a person was enrolled as, not the diagnosis at the scan" in line for line in told(found))
    (adni / "collection_4_01_2024.csv").unlink()
    with refused(r"no list of the images in .*adni: LONI gives it as CSV beside the collection, with Image Data ID"):
        read_scans(adni)


def test_adni_in_dicom_is_told_to_be_converted_and_its_rows_can_be_saved(adni, tmp_path, refused):
    for path in list(adni.rglob("*.nii")):
        path.rename(path.with_suffix(".dcm"))
    with refused(r"no images in .*adni where LONI \(ADNI, AIBL\) would have them; 9 files are DICOM"):
        read_scans(adni)
    assert main(["cohort", str(adni), "--save", str(tmp_path / "adni.tsv")]) == 0
    assert len((tmp_path / "adni.tsv").read_text().splitlines()) == 8


@pytest.mark.parametrize(
    ("change", "what"),
    [
        (("002_S_0295", "002_S_0413"), "subject"),
        (("4/18/2006", "4/19/2006"), "Acq Date"),
        (('"F"', '"M"'), "sex"),
        (('"75"', '"76"'), "age"),
    ],
)
def test_an_image_that_is_listed_in_two_ways_is_refused(adni, refused, change, what):
    header, first, *_ = (adni / "collection_4_01_2024.csv").read_text().splitlines()
    write(adni / "collection_new.csv", header, first)  # the same again is nothing
    assert len(read_scans(adni).scans) == 7
    write(adni / "collection_new.csv", header, first.replace(*change))
    with refused(rf"collection_new.csv, row 2: I101 was listed before with another {what}: delete the wrong row"):
        read_scans(adni)


def test_the_list_of_a_search_is_a_list_of_images_too(adni):
    before = [(scan.name, scan.image, scan.row["DX"], scan.age) for scan in read_scans(adni).scans]
    table = adni / "collection_4_01_2024.csv"
    head, *rows = table.read_text().splitlines()
    for one, other in (("Image Data ID", "Image ID"), ("Subject", "Subject ID"), ("Acq Date", "Study Date")):
        head = head.replace(f'"{one}"', f'"{other}"')
    write(adni / "idaSearch_4_01_2024.csv", head, *(row.replace('"I', '"', 1) for row in rows))  # IDs as numbers
    table.unlink()
    assert [(scan.name, scan.image, scan.row["DX"], scan.age) for scan in read_scans(adni).scans] == before


def test_ages_that_are_rounded_otherwise_are_told_and_blanks_filled_in(adni):
    header, first, *_ = (adni / "collection_4_01_2024.csv").read_text().splitlines()
    write(adni / "collection_older.csv", header, first.replace('"75"', '"74.6"').replace('"F"', '""'))
    found = read_scans(adni)  # the older list comes second
    assert {(scan.sex, scan.age) for scan in found.scans} == {("F", 75)}
    line = (
        "ages that lists of images give in two ways, less than a year apart (1): the first is taken: I101 75 and 74.6"
    )
    assert line in told(found)
    write(adni / "collection_0.csv", header, first.replace('"75"', '""'))  # the first list knows no age
    assert {scan.age for scan in read_scans(adni).scans} == {75}


def test_a_date_that_may_be_another_is_refused(adni, refused):
    table = adni / "collection_4_01_2024.csv"
    table.write_text(table.read_text().replace('"4/18/2006"', '"18/4/2006"'))
    with refused(r"row 2: Acq Date is '18/4/2006', not a date such as 2006-04-18, or 4/18/2006 with the month first"):
        read_scans(adni)


def test_aibl(tmp_path):
    root = tmp_path / "aibl"
    scans = [
        ("I201", "8", "HC", "Baseline", "MPRAGE ADNI confirmed", "11/3/2007"),
        ("I202", "8", "HC", "18 Month follow-up", "MPRAGE ADNI confirmed", "5/20/2009"),
        ("I203", "31", "AD", "Baseline", "MPRAGE", "6/4/2007"),
        ("I204", "1151", "MCI", "1", "MPRAGE", "1/5/2012"),
    ]
    listed(root, scans, "AIBL")
    tables = root / "Data_extract_3.3.0" / "Data"
    head = "RID,SITEID,VISCODE,DXCURREN,DXCONV"
    rows = ["8,2,bl,1,-4", "8,2,m18,2,1", "31,2,bl,3,-4", "31,2,m18,-4,-4", "1151,2,bl,7,-4"]
    write(tables / "aibl_pdxconv_01-Jun-2018.csv", head, *rows)
    write(tables / "aibl_ptdemog_01-Jun-2018.csv", "RID,SITEID,VISCODE,PTGENDER,PTDOB", "8,2,bl,2,/1931")
    write(
        tables / "aibl_mri3meta_01-Jun-2018.csv",
        "RID,SITEID,VISCODE,EXAMDATE,MMSMPRAGE",
        "1151,2,bl,01/15/2012,1",
        "31,2,bl,-4,0",
    )
    write(
        tables / "aibl_mmse_01-Jun-2018.csv",
        "RID,SITEID,VISCODE,EXAMDATE,MMSCORE",
        "1151,2,bl,02/15/2012,21",
        "8,2,bl,11/01/2007,30",
    )
    found = read_scans(root)
    assert {s.name: (s.row["DX"], s.row["DX days away"], s.row["MMSE"]) for s in found.scans} == {
        "8_d0000": ("CN", "2", "30"),
        "8_d0564": ("MCI", "0", ""),
        "31_d0000": ("AD", "0", ""),
        "1151_d0000": ("code 7", "10", "21"),  # of another disease; its visit's day is that of the scan in mri3meta
    }
    assert labels(load_cohort(root, **RULES)) == {"31_d0000": 1, "8_d0000": 0}


# --- IXI


def test_ixi_has_nobody_with_a_diagnosis(tmp_path, refused):
    root = tmp_path / "ixi"
    names = ("IXI002-Guys-0828-T1.nii.gz", "IXI012-HH-1211-T1.nii.gz", "IXI013-HH-1212-T1.nii.gz")
    touch(*(root / "IXI-T1" / name for name in names), root / "IXI-T2" / "IXI002-Guys-0828-T2.nii.gz")
    (root / "IXI.xls").write_bytes(b"\xd0\xcf\x11\xe0")
    found = read_scans(root)
    assert found.layout == "IXI" and [s.name for s in found.scans] == ["IXI002", "IXI012", "IXI013"]
    assert [s.image.name for s in found.scans] == list(names)
    assert told(found) == ["no table of ages and sexes: save IXI.xls as IXI.xlsx, the old format of Excel is not read"]
    book = Workbook()
    for row in (
        ["IXI_ID", "SEX_ID (1=m, 2=f)", "HEIGHT", "AGE"],
        [2, 2, 164, 35.8],
        [12, 1, 175, 38.78],
        [13, 0, 0, 46],
        [13, 0, 0, 47],
    ):
        book.active.append(row)
    book.save(root / "IXI.xlsx")
    assert [(s.sex, s.age) for s in read_scans(root).scans] == [("F", 35.8), ("M", 38.78), ("", None)]
    assert "without age, as rows of a person differ in IXI.xlsx: scans 1: IXI013" in told(read_scans(root))


def test_times():
    assert [day_of(text) for text in ("129", "d0129", "OAS30001_ClinicalData_d0129", "0129.0")] == [129.0] * 4
    assert date_of("2006-04-18 10:20") == date_of("4/18/2006") == date_of("04/18/2006") == date_of("2006-04-17") + 1
    assert [month_of(text) for text in ("bl", "SC", "m00", "y1", "v11", "init", "4_bl", "")] == [0, 0, 0, *[None] * 5]
    assert round(month_of("m12")) == round(month_of("12 Month follow-up")) == round(month_of("Month 12")) == 365
