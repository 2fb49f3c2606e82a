"""Tables as people have them: byte-order marks, blanks, other names of columns; and those that must be refused."""

from __future__ import annotations

import pandas as pd
import pytest

from monai_cae.data import Scan, Task, read_table
from monai_cae.data.cohort.tables import read_subjects

HEADER = "ID,M/F,Hand,Age,Educ,SES,MMSE,CDR,eTIV,nWBV,ASF,Delay"
OASIS_2 = "Subject ID,MRI ID,Group,Visit,MR Delay,M/F,Hand,Age,EDUC,SES,MMSE,CDR,eTIV,nWBV,ASF"


def write(path, *lines, encoding="utf-8"):
    path.write_text("\r\n".join([*lines, ""]), encoding=encoding, newline="")
    return path


def test_oasis_table_with_byte_order_mark_blanks_and_rescans(tmp_path):
    table = write(
        tmp_path / "oasis_cross-sectional.csv",
        HEADER,
        "OAS1_0001_MR1,F,R,74,2,3,29,0,1344,0.743,1.306,N/A",
        "OAS1_0002_MR1,M,L,55,N/A,, ,,1147,0.81,1.531,N/A",
        "OAS1_0003_MR1,F,R,N/A,4,3,27,0.5,1454,0.708,1.207,",
        "OAS1_0003_MR2,,R,73.5,4,3,27,2,1454,0.708,1.207,40",
        encoding="utf-8-sig",
    )
    third = {"Educ": 4, "SES": 3, "MMSE": 27, "eTIV": 1454, "nWBV": 0.708, "ASF": 1.207}
    first = {"Educ": 2, "SES": 3, "MMSE": 29, "eTIV": 1344, "nWBV": 0.743, "ASF": 1.306}
    second = {"eTIV": 1147, "nWBV": 0.81, "ASF": 1.531}
    scans = read_table(table)
    assert scans == [
        Scan("OAS1_0001", "MR1", cdr=0, age=74, sex="F", covariates=first),
        Scan("OAS1_0002", "MR1", cdr=None, age=55, sex="M", covariates=second),
        Scan("OAS1_0003", "MR1", cdr=0.5, age=None, sex="F", covariates=third),
        Scan("OAS1_0003", "MR2", cdr=2, age=73.5, sex="", covariates=third),
    ]
    assert [scan.label for scan in scans] == [None] * 4
    assert Task().labels([scan.row for scan in scans], "abcd") == [0, None, 1, 1]
    assert (scans[3].row["ID"], scans[3].row["CDR"], scans[3].row["M/F"]) == ("OAS1_0003_MR2", "2", "")
    assert [scan.name for scan in scans] == ["OAS1_0001_MR1", "OAS1_0002_MR1", "OAS1_0003_MR1", "OAS1_0003_MR2"]


@pytest.mark.parametrize("blank", ["", "  ", "N/A", "n/a", "NA", "NaN", "None", "."])
def test_blank_cdr_is_no_healthy_control(tmp_path, blank):
    (scan,) = read_table(write(tmp_path / "table.csv", "ID,CDR,Age,file,sex", f"a,{blank},{blank},{blank},{blank}"))
    assert (scan.cdr, scan.age, scan.file, scan.sex) == (None, None, "", "")
    assert Task("CDR > 0", "").labels([scan.row], ["a"]) == [None]


@pytest.mark.parametrize(
    ("header", "row", "expected"),
    [
        ("id,cdr,age,m/f", "a,0.5,70,F", Scan("a", cdr=0.5, age=70, sex="F")),
        ("participant_id,CDR,AGE,sex", "sub-01,0,70,male", Scan("sub-01", cdr=0, age=70, sex="M")),
        ("Subject,Cdr,Gender", "a,1,female", Scan("a", cdr=1, sex="F")),
        ("Subject_ID, CDR ,Sex", " a , 3 ,unknown", Scan("a", cdr=3)),
        ("NWBV,EDUC,ID,CDR,x", "0.7,12,a_b,0,text", Scan("a_b", cdr=0, covariates={"nWBV": 0.7, "Educ": 12})),
        ("subject,ID,CDR", "a,a_MR1,0", Scan("a", "MR1", cdr=0)),
        ("ID,Age", "a,70", Scan("a", age=70)),
        ("ID,session", "a,2", Scan("a", "2")),
        ("participant_id,session_id", "a_MR1,ses-01", Scan("a", "ses-01")),
    ],
    ids=[
        "lower-case",
        "bids",
        "gender",
        "spaces",
        "other-order",
        "subject-before-id",
        "no-cdr",
        "session",
        "session-column-before-that-in-the-id",
    ],
)
def test_columns_are_known_by_aliases_in_any_case(tmp_path, header, row, expected):
    assert read_table(write(tmp_path / "table.csv", header, row)) == [expected]


def test_tabs_separate_a_tsv(tmp_path):
    table = write(tmp_path / "participants.tsv", "participant_id\tCDR\tage", "Müller, Ä\t0.5\tn/a")
    assert read_table(str(table)) == [Scan("Müller, Ä", cdr=0.5)]


@pytest.mark.parametrize("name", ["t.csv", "t.tsv"])
@pytest.mark.parametrize("separator", [",", ";", "\t"])
@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig"])
def test_the_header_tells_the_separator(tmp_path, name, separator, encoding):
    lines = [("ID", "CDR", "note"), ("a", "0.5", "one  |  two"), ("b", "0", "")]
    table = write(tmp_path / name, *(separator.join(line) for line in lines), encoding=encoding)
    scans = read_table(table)
    assert scans == [Scan("a", cdr=0.5), Scan("b", cdr=0)]
    assert scans[0].row == {"ID": "a", "CDR": "0.5", "note": "one  |  two"}


def test_other_separators_in_the_cells_do_not_count(tmp_path):
    (scan,) = read_table(write(tmp_path / "t.csv", "ID;Age;note", "a;70;1,2,3,4"))
    assert (scan, scan.row["note"]) == (Scan("a", age=70), "1,2,3,4")


def test_table_of_one_column(tmp_path):
    assert read_table(write(tmp_path / "t.csv", "ID", "a", "b_MR2")) == [Scan("a"), Scan("b", "MR2")]


def test_a_column_that_may_be_the_age_or_the_sex_is_told(tmp_path):
    table = write(tmp_path / "table.csv", "ID,age_years,Image,stage,Gender identity", "A,70,a.nii,2,F")
    assert [note.line() for note in read_subjects(table).notes] == [
        "no column is known as the age; --age-column names it, perhaps: age_years",
        "no column is known as the sex; --sex-column names it, perhaps: Gender identity",
    ]
    assert read_subjects(table, {"age": "age_years", "sex": "none"}).notes == []


@pytest.mark.parametrize(
    ("columns", "expected", "file"),
    [
        ({}, Scan("1", "s", age=70, sex="F"), "a.nii"),
        ({"subject": "RID"}, Scan("x", "s", age=70, sex="F"), "a.nii"),
        ({"image": "scan"}, Scan("1", "s", age=70, sex="F"), "b.nii"),
        (
            {"subject": "rid", "session": " Visit ", "age": "AGE_AT_SCAN", "sex": "born"},
            Scan("x", "v", age=71, sex="M"),
            "a.nii",
        ),
    ],
    ids=["none", "subject", "image", "any-case"],
)
def test_columns_given_win_over_the_aliases(tmp_path, columns, expected, file):
    header = "ID,RID,session,visit,age,age_at_scan,sex,born,file,scan"
    (scan,) = read_table(write(tmp_path / "t.csv", header, "1,x,s,v,70,71,F,M,a.nii,b.nii"), columns)
    assert (scan, scan.file) == (expected, file)


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        ({"subjects": "RID"}, "columns has the role 'subjects'; the roles are subject, session, image, age, sex"),
        ({"subject": "PTID"}, r"t\.csv has no column PTID \(it has: RID, CDR\): check the subject column"),
        (
            {"subject": "RID", "image": "scan"},
            r"has no column scan \(it has: RID, CDR\): check the image column",
        ),
        ({"age": "RID"}, r"t\.csv has no column ID \(it has: RID, CDR\): .* with --subject-column"),
    ],
    ids=["role", "subject", "image", "still-no-subject"],
)
def test_columns_that_are_none_are_refused(tmp_path, refused, columns, message):
    with refused(message):
        read_table(write(tmp_path / "t.csv", "RID,CDR", "a,0"), columns)


def test_oasis_2_is_read_where_it_is_asked_for(tmp_path):
    rows = [f"OAS2_0001,OAS2_0001_MR{n},Demented,{n},0,M,R,8{n},12,2,27,0.5,1500,0.7,1.1" for n in (1, 2)]
    scans = read_table(write(tmp_path / "t.csv", OASIS_2, *rows), {"subject": "Subject ID"})
    assert [(scan.name, scan.age, scan.aliases) for scan in scans] == [
        ("OAS2_0001_1", 81, ("OAS2_0001_MR1",)),
        ("OAS2_0001_2", 82, ("OAS2_0001_MR2",)),
    ]


def test_columns_that_are_not_wanted_are_passed_over(tmp_path, refused):
    path = write(tmp_path / "t.csv", "Subject,PTGENDER,Age,file", "100206,M,22-25,b.txt")
    with refused(r"Age is '22-25', .*, or continue without ages with --age-column none"):
        read_table(path)
    (scan,) = read_table(path, {"age": "none", "image": "none"})
    assert (scan.subject, scan.age, scan.sex, scan.file) == ("100206", None, "M", "")
    with refused("has no column none"):
        read_table(path, {"subject": "none"})


def test_codes_of_the_sex_need_its_column(tmp_path, refused):
    path = write(tmp_path / "t.csv", "ID,Geschlecht", "a,1")
    with refused(r"t\.csv has no sex column for --sex-codes: name it with --sex-column"):
        read_table(path, sex_codes="M=1,F=2")
    assert read_table(path, {"sex": "Geschlecht"}, sex_codes="M=1,F=2")[0].sex == "M"


def test_an_age_that_is_a_code_names_the_option(tmp_path, refused):
    path = write(tmp_path / "t.csv", "ID,Age", "a,888")
    with refused(r"Age is 888 years: correct the table, or add 888 to the numbers of --missing-codes"):
        read_table(path)
    assert read_table(path, missing_codes="-4, 888")[0].age is None


def test_xlsx(tmp_path):
    columns = {
        "ID": ["OAS1_0001_MR1", "OAS1_0002_MR2", "0007"],
        "M/F": ["F", None, "M"],
        "CDR": [0, None, 0.5],
        "Age": [74, "N/A", 80.5],
        "nWBV": [0.743, None, None],
    }
    pd.DataFrame(columns).to_excel(tmp_path / "table.XLSX", index=False, engine="openpyxl")
    assert read_table(tmp_path / "table.XLSX") == [
        Scan("OAS1_0001", "MR1", cdr=0, age=74, sex="F", covariates={"nWBV": 0.743}),
        Scan("OAS1_0002", "MR2"),
        Scan("0007", cdr=0.5, age=80.5, sex="M"),
    ]


def test_of_several_sheets_the_first_is_read_and_told(tmp_path, refused):
    def workbook(*sheets):
        with pd.ExcelWriter(tmp_path / "t.xlsx", engine="openpyxl") as writer:
            for name, columns in sheets:
                pd.DataFrame(columns).to_excel(writer, sheet_name=name, index=False)
        return tmp_path / "t.xlsx"

    subjects, old = ("now", {"ID": ["a"], "CDR": [0.5]}), ("old", {"ID": ["b"]})
    table = read_subjects(workbook(subjects, old))
    assert table.scans == [Scan("a", cdr=0.5)]
    assert [note.line() for note in table.notes] == ["t.xlsx: the first of 2 sheets is read, 'now', not 'old'"]
    assert read_subjects(workbook(subjects)).notes == []
    for empty in ({}, {"see the next sheet": []}):
        with refused(r"t\.xlsx: the first sheet, 'readme', has no rows, and the others \('now', 'old'\) are not read"):
            read_table(workbook(("readme", empty), subjects, old))


def test_a_formula_without_its_value_is_refused(tmp_path, refused):
    from openpyxl import Workbook

    book = Workbook()
    for row in (["ID", "Age"], ["a", 70], ["b", "=60+1"]):
        book.active.append(row)
    book.save(tmp_path / "t.xlsx")
    with refused(r"t\.xlsx: cell B3 is a formula without its value: open the file in a spreadsheet"):
        read_table(tmp_path / "t.xlsx")


def test_decimal_commas_are_read_as_numbers_everywhere_and_told(tmp_path):
    lines = ["ID;Age;CDR;gait;brain", "a;74,5;0,5;-0,035;1,074", "b;61;0;1,734;1,100"]
    table = read_subjects(write(tmp_path / "t.csv", *lines))
    assert table.scans == [Scan("a", cdr=0.5, age=74.5), Scan("b", cdr=0, age=61)]
    rows = [scan.row for scan in table.scans]
    assert Task("gait > 0", "").labels(rows, "ab") == [0, 1]
    assert Task("Age > 70 and CDR > 0", "").labels(rows, "ab") == [1, 0]
    assert Task("brain > 0", "").labels(rows, "ab") == [None, None]  # 1.074 or 1074
    assert [note.line() for note in table.notes] == [
        "decimal commas are read as decimal points in Age, CDR, gait",
        "read as text, as the comma may be decimal or separate thousands: 1,074 in brain",
    ]


def test_ids_keep_their_commas(tmp_path):
    scans = read_table(write(tmp_path / "t.csv", "ID;CDR", "1,5;0", "2,5;0"))
    assert [scan.subject for scan in scans] == ["1,5", "2,5"]


def test_an_age_that_is_something_else_too_is_refused(tmp_path, refused):
    with refused(r"t\.csv: ID can't be both subject and age: check --age-column"):
        read_table(write(tmp_path / "t.csv", "ID,Sex", "1,F"), {"age": "ID"})


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        (["Name,CDR", "a,0"], r"t\.csv has no column ID \(it has: Name, CDR\): add one"),
        (["ID|CDR", "a|0"], r"t\.csv has no column ID \(it has: ID\|CDR\)"),
        (["ID;CDR;eTIV", "a;0,5;1,344"], r"t\.csv, row 2: eTIV is '1,344', not a number"),
        (
            [OASIS_2, *["x"] * 2],
            r"t\.csv is the table of OASIS-2 .*not OASIS-1's .* give --subject-column 'Subject ID'",
        ),
        (["ID,CDR"], r"t\.csv has no rows: name another --table"),
        ([], r"t\.csv can't be read as a table .*: save it again as csv"),
        (["ID,CDR", "a,0", "b,0,1,2"], r"t\.csv, row 3 is longer than the header: .*delete the surplus cells"),
        (["ID,CDR", "a,0,x", "b,1,y"], r"t\.csv, row 2 is longer than the header: name every column, or delete"),
        (["ID,CDR", "a,0", "b,0", "a,1"], r"t\.csv has a twice: delete one of its rows, or .* --session-column"),
        (["ID,CDR", "a_MR1,0", "a_MR1,0"], r"t\.csv has a_MR1 twice"),
        (["ID,CDR", "a,0", " ,0"], r"t\.csv, row 3: the ID is blank: fill it in"),
        (["ID,CDR", "a,5"], r"t\.csv, row 2: CDR is 5, not 0, 0\.5, 1, 2 or 3: correct the table"),
        (["ID,CDR", "a,-2"], r"t\.csv, row 2: CDR is -2,"),
        (["ID,CDR", "a,mild"], r"t\.csv, row 2: CDR is 'mild', not a number: correct it or leave it blank"),
        (
            ["ID,CDR,Age", "a,0,70", "b,0,old"],
            r"t\.csv, row 3: Age is 'old', not a number of years such as 74, .*89\+: correct it",
        ),
        (["ID,CDR,Age", "a,0,inf"], r"t\.csv, row 2: Age is 'inf', not a number of years"),
        (["ID,CDR,Age", "a,0,0"], r"t\.csv, row 2: Age is 0 years: correct the table"),
        (["ID,CDR,Age", "a,0,740"], r"t\.csv, row 2: Age is 740 years: correct the table"),
        (["ID,CDR,MMSE", "a,0,good"], r"t\.csv, row 2: MMSE is 'good', not a number"),
    ],
    ids=[
        "no-id",
        "bars",
        "thousands",
        "oasis-2",
        "header-only",
        "empty-file",
        "ragged",
        "surplus-column",
        "duplicate",
        "duplicate-session",
        "blank-id",
        "cdr-5",
        "cdr-negative",
        "cdr-text",
        "age-text",
        "age-infinite",
        "age-0",
        "age-740",
        "covariate-text",
    ],
)
def test_tables_with_mistakes_are_refused(tmp_path, refused, lines, message):
    path = tmp_path / "t.csv"
    path.write_text("\n".join(lines))
    with refused(message):
        read_table(path)


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("t.csv", None, r"no table at .*t\.csv: check --table"),
        ("t.xlsx", b"PK garbage", r"t\.xlsx can't be read as a table \(.+\): save it again as csv in UTF-8"),
        ("t.csv", "ID,CDR\nJosé,0\n".encode("latin-1"), r"t\.csv can't be read as a table .*: save it again as csv"),
    ],
    ids=["missing", "garbage-xlsx", "not-utf-8"],
)
def test_files_that_are_no_tables_are_refused(tmp_path, refused, name, content, message):
    if content is not None:
        (tmp_path / name).write_bytes(content)
    with refused(message):
        read_table(tmp_path / name)


def test_folder_is_no_table(tmp_path, refused):
    with refused("no table at"):
        read_table(tmp_path)


@pytest.mark.fault("table: an xlsx that unpacks to more than 32 MiB", "refused in one line, not unpacked")
def test_an_xlsx_that_unpacks_to_too_much_is_not_unpacked(tmp_path, refused):
    from zipfile import ZIP_DEFLATED, ZipFile

    with ZipFile(tmp_path / "t.xlsx", "w", ZIP_DEFLATED) as parts:
        parts.writestr("xl/worksheets/sheet1.xml", bytes(70_000_000))
    assert (tmp_path / "t.xlsx").stat().st_size < 100_000
    with refused(r"t\.xlsx can't be read as a table \(it unpacks to 70000000 bytes, the limit is 33554432\)"):
        read_table(tmp_path / "t.xlsx")
