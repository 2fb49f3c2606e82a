"""The cells of a csv, tsv or xlsx file as text, with limits that keep reading short for any file."""

from __future__ import annotations

import csv
from collections import Counter
from collections.abc import Generator, Iterable, Iterator
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from zipfile import ZipFile

from monai_cae.data.scan import Note
from monai_cae.data.texts import listed, one_line, require_plain, shown
from monai_cae.errors import MonaiCaeError

MAX_BYTES = 32 << 20  # of an xlsx, unpacked; OASIS-1's table has 200 kB
MAX_ROWS, MAX_COLUMNS, MAX_CELLS = 200_000, 16_384, 5_000_000  # 16,384 columns are what a spreadsheet can have
MAX_ROW = 1 << 20  # characters
_SHEETS = 5  # that a message names
Row = tuple[int, list[str]]  # number of the line, cells


@dataclass(frozen=True)
class Cells:
    """What a table says; "" where a cell is not there."""

    columns: list[str]  # the names in the header, each once
    rows: list[tuple[int, dict[str, str]]]  # number of the line in the file (the header's is 1), and column -> text
    notes: list[Note] = field(default_factory=list)  # what of the file was not read


def read_cells(path: Path) -> Cells:
    """Read text separated by commas, semicolons or tabs (UTF-8, the header tells the separator), or an xlsx.

    Columns without a name and empty lines are skipped. Of several sheets of an xlsx the first is read.

    Raises:
        MonaiCaeError: not such a file, too large, a column twice, a row with more cells than the header, a formula
            without a value, or a first sheet without rows before others.
    """
    notes: list[Note] = []
    try:
        return _cells(_sheet(path, notes) if path.suffix.lower() == ".xlsx" else _lines(path), path, notes)
    except MonaiCaeError:
        raise
    except Exception as error:  # zipfile, expat, openpyxl and csv raise what they like
        reason = one_line(error)
        raise MonaiCaeError(f"{path} can't be read as a table ({reason}): save it again as csv in UTF-8") from error


def read_header(path: Path) -> list[str]:
    """The names of the columns, without those that are blank; nothing else of the file is read.

    Raises:
        MonaiCaeError: not such a file.
    """
    try:
        with closing(_sheet(path, []) if path.suffix.lower() == ".xlsx" else _lines(path)) as lines:
            return [name.strip() for name in next(lines, (0, []))[1] if name.strip()]
    except Exception as error:  # as in `read_cells`
        reason = one_line(error)
        raise MonaiCaeError(f"{path} can't be read as a table ({reason}): save it again as csv in UTF-8") from error


def _lines(path: Path) -> Generator[Row]:
    size = path.stat().st_size
    if size > MAX_BYTES:
        raise ValueError(f"it has {size} bytes, the limit is {MAX_BYTES}")
    taken = 0

    def lines() -> Iterator[str]:
        nonlocal taken
        while line := file.readline(MAX_ROW + 1):
            taken += len(line)  # of one row, which goes over several lines where it has line breaks in quotes
            if taken > MAX_ROW:
                raise ValueError(f"it has a row of more than {MAX_ROW} characters")
            yield line

    with path.open(encoding="utf-8-sig", newline="") as file:
        separator = max("\t,;", key=file.readline(MAX_ROW).count)
        file.seek(0)
        reader = csv.reader(lines(), delimiter=separator, strict=True)
        for row in reader:
            taken = 0
            yield reader.line_num, row


def _sheet(path: Path, notes: list[Note]) -> Generator[Row]:
    from openpyxl import load_workbook  # an import that costs more than reading a csv does

    with path.open("rb") as file:  # which openpyxl would leave open where it fails
        with ZipFile(file) as parts:
            unpacked = sum(part.file_size for part in parts.infolist())
        if unpacked > MAX_BYTES:
            raise ValueError(f"it unpacks to {unpacked} bytes, the limit is {MAX_BYTES}")
        sheets = load_workbook(file, read_only=True, data_only=True, keep_links=False).worksheets
        as_written = load_workbook(file, read_only=True, keep_links=False).worksheets[0]  # with formulas
        for sheet in (sheets[0], as_written):
            sheet.reset_dimensions()  # what the file says of them need not be so
        filled = 0
        for number, (row, written) in enumerate(zip(sheets[0].iter_rows(), as_written.iter_rows(), strict=True), 1):
            texts = [_text(*cells, path) for cells in zip(row, written, strict=True)]
            filled += any(text.strip() for text in texts)
            yield number, texts
        first, others = sheets[0].title, listed([shown(sheet.title) for sheet in sheets[1:]], _SHEETS)
        if others and filled < 2:  # the header alone
            raise MonaiCaeError(
                f"{path}: the first sheet, {shown(first)}, has no rows, and the others ({others}) are not read: "
                "move the subjects' sheet to the front, or save it as csv"
            )
        if others:
            notes.append(Note(f"{path.name}: the first of {len(sheets)} sheets is read, {shown(first)}, not {others}"))


def _text(cell: Any, written: Any, path: Path) -> str:
    value = cell.value
    if value is None and written.data_type == "f" and cell.data_type == "n":  # an empty text is "str"
        raise MonaiCaeError(
            f"{path}: cell {written.coordinate} is a formula without its value: open the file in a spreadsheet program "
            "and save it, or save it as csv"
        )
    if value is None or cell.data_type == "e":  # an error such as #N/A
        return ""
    return str(int(value) if isinstance(value, float) and value.is_integer() else value)


def _cells(lines: Iterable[Row], path: Path, notes: list[Note]) -> Cells:
    rows = _within_limits(lines)
    names = [name.strip() for name in next(rows, (0, []))[1]]
    for name in names:
        require_plain(name, f"{path}: the name of a column")
    columns = [name for name in names if name]
    if not columns:
        raise ValueError("it has no header")
    for name, count in Counter(name.lower() for name in columns).items():
        if count > 1:
            raise MonaiCaeError(f"{path} has the column {name} {count} times: rename or delete all but one")
    found = []
    for number, row in rows:
        if any(cell.strip() for cell in row[len(names) :]):
            raise MonaiCaeError(
                f"{path}, row {number} is longer than the header: name every column, or delete the surplus cells"
            )
        cells = dict.fromkeys(columns, "")
        cells |= {name: cell for name, cell in zip(names, row, strict=False) if name}
        found.append((number, cells))
    return Cells(columns, found, notes)


def _within_limits(lines: Iterable[Row]) -> Iterator[Row]:
    """Rows that are not empty, without those cells at their ends that a sheet pads them with.

    Raises:
        ValueError: too many, of the empty ones too.
    """
    cells = 0
    for count, (number, row) in enumerate(lines, start=1):
        cells += len(row)
        if count > MAX_ROWS or len(row) > MAX_COLUMNS or cells > MAX_CELLS:
            raise ValueError(
                f"it has more than {MAX_ROWS} rows, {MAX_COLUMNS} columns or {MAX_CELLS} cells: keep only the study's"
            )
        if any(cell.strip() for cell in row):
            yield number, row
