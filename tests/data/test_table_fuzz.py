"""Whatever lies in a table, reading it gives scans or our error in one line, in bounded time and memory."""

from __future__ import annotations

import csv
import io
import os
import tracemalloc
import unicodedata
import zipfile
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import openpyxl
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from monai_cae.data import Scan, read_table, select_cohort
from monai_cae.data.cohort import cells as reading
from monai_cae.errors import MonaiCaeError

EXAMPLES = int(os.environ.get("FUZZ_EXAMPLES", "150"))
fuzz = settings(
    max_examples=EXAMPLES,
    deadline=None,
    derandomize="FUZZ_EXAMPLES" not in os.environ,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow, HealthCheck.data_too_large],
)
GOOD = [["ID", "M/F", "Age", "CDR", "nWBV"], ["a_MR1", "F", "74", "0", "0.7"], ["b_MR1", "M", "80.5", "0.5", ""]]
NAMES = (*GOOD[0], "participant_id", "session", "image", "sex", "age", "CDR.1", "MRI ID", "Group", "", " ", "\x1b[2J")
NUMBERS = (
    "0",
    "0.5",
    "1",
    "70",
    "1e400",
    "-1e400",
    "nan",
    "inf",
    "-inf",
    "1e-400",
    "70,5",
    "0x46",
    "٧٠",
    "1_0",
    "9" * 400,
)
ODD = ("", " ", "a", "N/A", "a_MR1", "\0", "a\nb", 'a"b', "a\u2028b", "\ufeff", "../../x", "x" * 5000, "\u202e", "=1+1")
SHEET, LONG = "xl/worksheets/sheet1.xml", "a row of more than 1048576 characters"


def attempt(function: Callable[..., Any], *given: Any) -> tuple[Any, str]:
    """What it returns and no message, or None and the one line of our error."""
    try:
        return function(*given), ""
    except MonaiCaeError as error:
        message = str(error)
    assert len(message.splitlines()) == 1
    return None, message


def read(path: Path) -> list[Scan] | None:
    """The scans, checked for what is promised of them; None where our error was raised."""
    scans, message = attempt(read_table, path)
    if scans is None:
        assert len(message) < 6000 and str(path) in message
        return None
    assert scans and len({scan.name for scan in scans}) == len(scans)
    for scan in scans:
        assert scan.subject and not any(unicodedata.category(letter) == "Cc" for letter in scan.name + scan.file)
        assert scan.cdr in (None, 0, 0.5, 1, 2, 3) and scan.sex in ("F", "M", "")
        assert scan.age is None or 0 < scan.age < 130
        assert all(abs(value) < float("inf") for value in scan.covariates.values())
    attempt(select_cohort, scans)
    return scans


cells = st.one_of(st.sampled_from(NUMBERS), st.sampled_from(ODD), st.text(max_size=8))
rows = st.lists(st.lists(cells, max_size=7), max_size=5)


def damage(draw, content: bytes, most: int = 3) -> bytes:
    """Some bytes overwritten, inserted, cut off or repeated."""
    changed = bytearray(content)
    for _ in range(draw(st.integers(0, most))):
        start = draw(st.integers(0, len(changed)))
        new = draw(
            st.one_of(st.binary(max_size=6), st.sampled_from((b"\0", b"\xff\xfe", b"\r", b'"', b"\n", b"\xed\xa0\x80")))
        )
        kind = draw(st.sampled_from(("over", "in", "cut", "twice")))
        if kind == "cut":
            del changed[start:]
        elif kind == "twice":
            changed += changed[start:]
        else:
            changed[start : start + (len(new) if kind == "over" else 0)] = new
    return bytes(changed)


@st.composite
def texts(draw):
    header = draw(st.one_of(st.just(GOOD[0]), st.lists(st.one_of(st.sampled_from(NAMES), cells), max_size=7)))
    table = [header, *(GOOD[1:] if draw(st.booleans()) else []), *draw(rows)]
    if len(table) > 1 and table[1] and draw(st.booleans()):
        table[1] = [*table[1]]
        table[1][draw(st.integers(0, len(table[1]) - 1))] = draw(cells)
    separator = draw(st.sampled_from(",;\t"))
    if draw(st.booleans()):
        file = io.StringIO()
        csv.writer(file, delimiter=separator).writerows(table)
        text = file.getvalue()
    else:
        text = draw(st.sampled_from(("\n", "\r\n", "\r"))).join(separator.join(row) for row in table)
    encoding = draw(st.sampled_from(("utf-8", "utf-8", "utf-8", "utf-8-sig", "latin-1", "utf-16")))
    return damage(draw, text.encode(encoding, errors="replace"), most=draw(st.sampled_from((0, 0, 3))))


@pytest.mark.fault(
    f"table: {EXAMPLES} csv and tsv files with odd bytes, NUL, wrong encodings, ragged rows, duplicate or missing "
    "headers, 1e400, NaN or infinity as ages",
    "scans, or one line that names the file",
)
@fuzz
@given(texts(), st.sampled_from(("participants.tsv", "t.csv", "t.CSV")))
def test_any_text_gives_scans_or_our_error(tmp_path, content, name):
    (tmp_path / name).write_bytes(content)
    read(tmp_path / name)


@cache
def workbook() -> dict[str, bytes]:
    book = openpyxl.Workbook()
    for row in GOOD:
        book.active.append([float(cell) if cell[:1].isdigit() else cell for cell in row])
    file = io.BytesIO()
    book.save(file)
    with zipfile.ZipFile(file) as parts:
        return {name: parts.read(name) for name in parts.namelist()}


def packed(parts: dict[str, bytes]) -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as out:
        for name, content in parts.items():
            out.writestr(name, content)
    return file.getvalue()


def with_row(row: str, before: str = "") -> dict[str, bytes]:
    sheet = workbook()[SHEET].replace(b"</sheetData>", row.encode() + b"</sheetData>")
    return {**workbook(), SHEET: before.encode() + sheet}


@st.composite
def workbooks(draw):
    kind = draw(st.sampled_from(("part", "part", "value", "value", "missing", "zip", "bytes")))
    parts = dict(workbook())
    if kind == "part":
        name = draw(
            st.sampled_from(
                (SHEET, "xl/_rels/workbook.xml.rels", "xl/workbook.xml", "xl/styles.xml", "[Content_Types].xml")
            )
        )
        parts[name] = damage(draw, parts[name])
    elif kind == "value":
        what = draw(st.sampled_from(("n", "s", "b", "e", "d", "str", "inlineStr", "x")))
        value = draw(st.sampled_from((*NUMBERS, "-1", "99", "#N/A", "2020-01-01", "a", "")))
        parts = with_row(
            f'<row r="{draw(st.sampled_from((4, 1, 0, -1, "x")))}"><c r="A4" t="{what}"><v>{value}</v></c></row>'
        )
    elif kind == "missing":
        del parts[draw(st.sampled_from(sorted(parts)))]
    elif kind == "bytes":
        return draw(st.binary(max_size=100))
    return damage(draw, packed(parts)) if kind == "zip" else packed(parts)


@pytest.mark.fault(
    f"table: {EXAMPLES} xlsx files with a damaged zip or part, missing parts, not a zip, values of the wrong type",
    "scans, or one line that names the file",
)
@fuzz
@given(workbooks())
@pytest.mark.filterwarnings("ignore::UserWarning:openpyxl")
@pytest.mark.filterwarnings("ignore::UserWarning:zipfile")
def test_any_xlsx_gives_scans_or_our_error(tmp_path, content):
    (tmp_path / "t.xlsx").write_bytes(content)
    read(tmp_path / "t.xlsx")


def test_the_workbook_is_good(tmp_path):
    (tmp_path / "t.xlsx").write_bytes(packed(workbook()))
    scans = read(tmp_path / "t.xlsx")
    assert [(scan.name, scan.age, scan.cdr, scan.sex) for scan in scans] == [
        ("a_MR1", 74, 0, "F"),
        ("b_MR1", 80.5, 0.5, "M"),
    ]


LAUGHS = "<!DOCTYPE x [<!ENTITY a '" + "lol" * 10 + "'>" + "".join(
    f"<!ENTITY {name} '{f'&{before};' * 10}'>" for before, name in zip("abcdefgh", "bcdefghi", strict=True)
) + "]>"  # fmt: skip
OUTSIDE = "<!DOCTYPE x [<!ENTITY i SYSTEM 'file:///etc/passwd'>]>"
ENTITY = '<row r="4"><c r="A4" t="inlineStr"><is><t>&i;</t></is></c></row>'
FAR = '<row r="1048576"><c r="XFD1048576"><v>1</v></c></row>'
LARGE = {
    "cell": ("t.csv", lambda: b"ID,CDR\n" + b"a" * 10_000_000 + b",0", LONG),
    "name of a column": ("t.csv", lambda: b"ID," + b"a" * 100_000 + b"\na,0", r"has 100000 characters"),
    "columns": ("t.csv", lambda: b"ID," * 4_000_000 + b"\na,0", LONG),
    "row": ("t.tsv", lambda: b"ID\tCDR\n" + b"\t" * 900_000, "more than 200000 rows, 16384 columns"),
    "row of many lines": ("t.csv", lambda: b"ID,CDR\n" + b'a,"\n",' * 2_000_000, LONG),
    "empty lines": ("t.csv", lambda: b"ID" + b"\n" * 4_000_000, "more than 200000 rows, 16384 columns"),
    "bytes": ("t.csv", lambda: b"ID\n" + bytes(33 << 20), "the limit is 33554432"),
    "age": ("t.csv", lambda: b"ID,Age\na," + b"9" * 100_000, r"Age is '9{59}\.\.\., not a number"),
    "far cell": ("t.xlsx", lambda: packed(with_row(FAR)), "more than 200000 rows, 16384 columns"),
    "entities": ("t.xlsx", lambda: packed(with_row(ENTITY, LAUGHS)), "limit on input amplification factor"),
    "entity of a file": ("t.xlsx", lambda: packed(with_row(ENTITY, OUTSIDE)), "undefined entity"),
}  # fmt: skip


@pytest.mark.fault(
    "table: a cell of 10 MB; millions of empty lines, columns or cells; an xlsx with one cell at XFD1048576, entities "
    "that multiply, or an entity that names /etc/passwd",
    "refused in one line, within 100 MB",
)
@pytest.mark.parametrize("name", LARGE)
def test_large_and_multiplying_tables_are_refused_in_little_memory(tmp_path, refused, name, monkeypatch):
    file, content, message = LARGE[name]
    (tmp_path / file).write_bytes(content())
    if name == "far cell":  # whose empty rows take long to count while memory is traced
        with refused(message):
            read_table(tmp_path / file)
        monkeypatch.setattr(reading, "MAX_ROWS", 2000)
        message = message.replace("200000", "2000")
    tracemalloc.start()
    try:
        with refused(message):
            read_table(tmp_path / file)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 100e6
