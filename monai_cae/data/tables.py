"""Tables of subjects: OASIS-1's csv or xlsx, or a plain table with the columns ID and CDR."""

from __future__ import annotations

import math
import re
from pathlib import Path

import pandas as pd

from monai_cae.data.scan import CDR_GRADES, Scan
from monai_cae.errors import MonaiCaeError

SUFFIXES = (".csv", ".tsv", ".xlsx")
_PREFERRED = ("oasis_cross-sectional", "participants")
_ALIASES = {
    "ID": ("id", "participant_id", "subject", "subject_id"),
    "CDR": ("cdr",),
    "Age": ("age",),
    "Sex": ("m/f", "sex", "gender"),
    "Educ": ("educ",),
    "SES": ("ses",),
    "MMSE": ("mmse",),
    "eTIV": ("etiv",),
    "nWBV": ("nwbv",),
    "ASF": ("asf",),
}
_COVARIATES = ("Educ", "SES", "MMSE", "eTIV", "nWBV", "ASF")
_BLANK = {"", "n/a", "na", "nan", "none", "."}
_SESSION = re.compile(r"^(?P<subject>.+?)_(?P<session>MR\d+)$")


def find_table(folder: Path) -> Path:
    """The table of a cohort folder.

    Raises:
        MonaiCaeError: none there, or several of which none has a known name.
    """
    tables = sorted(path for path in folder.iterdir() if path.suffix.lower() in SUFFIXES and path.is_file())
    known = [path for path in tables if path.name.lower().startswith(_PREFERRED)]
    candidates = known or tables
    if not candidates:
        raise MonaiCaeError(
            f"no table in {folder}: put oasis_cross-sectional.csv (or .xlsx) or participants.tsv there, "
            "or name one with --table"
        )
    if len(candidates) > 1:
        names = ", ".join(path.name for path in candidates)
        raise MonaiCaeError(f"several tables in {folder} ({names}): name one with --table")
    return candidates[0]


def read_table(path: str | Path) -> list[Scan]:
    """Read a table of subjects, one row per scan, without images.

    Takes comma- or tab-separated text (a byte-order mark is fine) and xlsx; "N/A" and blanks mean "not given"; column
    names are matched without regard to case ("M/F", "sex" and "gender" are one).

    Raises:
        MonaiCaeError: no such file, not a table, no ID or CDR column, OASIS-2's table, an empty table, an ID twice,
            or a
            cell that can't be what its column says.
    """
    path = Path(path)
    frame = _read_frame(path)
    columns = {str(name).strip().lower(): name for name in frame.columns}
    if "mri id" in columns and "group" in columns:
        raise MonaiCaeError(
            f"{path} is the table of OASIS-2 (longitudinal); this reads OASIS-1's oasis_cross-sectional.csv"
        )
    found = {
        ours: columns[alias] for ours, aliases in _ALIASES.items() for alias in reversed(aliases) if alias in columns
    }
    for needed in ("ID", "CDR"):
        if needed not in found:
            have = ", ".join(str(name) for name in frame.columns)
            raise MonaiCaeError(f"{path} has no column {needed} (it has: {have}): add one, or name another --table")
    frame = frame[list(found.values())].set_axis(list(found), axis="columns")
    scans = [_scan(row, f"{path}, row {number}") for number, row in enumerate(frame.to_dict("records"), start=2)]
    if not scans:
        raise MonaiCaeError(f"{path} has no rows: name another --table")
    _refuse_duplicates(scans, path)
    return scans


def _read_frame(path: Path) -> pd.DataFrame:
    if not path.is_file():
        raise MonaiCaeError(f"no table at {path}: check --table")
    options = {"dtype": str, "keep_default_na": False}
    try:
        if path.suffix.lower() == ".xlsx":
            return pd.read_excel(path, **options)
        separator = "\t" if path.suffix.lower() == ".tsv" else ","
        frame = pd.read_csv(path, sep=separator, encoding="utf-8-sig", **options)
    except Exception as error:  # pandas raises its parsers' own classes (zipfile's, openpyxl's, csv's ...)
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise MonaiCaeError(f"{path} can't be read as a table ({reason}): save it again as csv in UTF-8") from error
    if not isinstance(frame.index, pd.RangeIndex):  # pandas took the first column as row names and shifted the others
        raise MonaiCaeError(f"{path} has rows longer than its header: name every column, or delete the surplus cells")
    return frame


def _scan(row: dict[str, str], where: str) -> Scan:
    name = str(row["ID"]).strip()
    if not name:
        raise MonaiCaeError(f"{where}: the ID is blank: fill it in or delete the row")
    match = _SESSION.match(name)
    cdr = _number(row, "CDR", where)
    if cdr is not None and cdr not in CDR_GRADES:
        raise MonaiCaeError(f"{where}: CDR is {cdr:g}, which is none of 0, 0.5, 1, 2, 3: correct the table")
    age = _number(row, "Age", where)
    if age is not None and not 0 < age < 130:
        raise MonaiCaeError(f"{where}: Age is {age:g} years: correct the table")
    sex = str(row.get("Sex", "")).strip()[:1].upper()
    covariates = {key: _number(row, key, where) for key in _COVARIATES if key in row}
    return Scan(
        subject=match["subject"] if match else name,
        session=match["session"] if match else "",
        cdr=cdr,
        age=age,
        sex=sex if sex in ("F", "M") else "",
        covariates={key: value for key, value in covariates.items() if value is not None},
    )


def _number(row: dict[str, str], column: str, where: str) -> float | None:
    text = str(row.get(column, "")).strip()
    if text.lower() in _BLANK:
        return None
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not math.isfinite(value):
        raise MonaiCaeError(f"{where}: {column} is {text!r}, not a number: correct it or leave it blank")
    return value


def _refuse_duplicates(scans: list[Scan], path: Path) -> None:
    seen: set[str] = set()
    for scan in scans:
        if scan.name in seen:
            raise MonaiCaeError(f"{path} has the ID {scan.name} twice: delete one of its rows")
        seen.add(scan.name)
