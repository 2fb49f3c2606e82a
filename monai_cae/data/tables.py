"""Tables of subjects: OASIS-1's csv or xlsx, BIDS's participants.tsv, or any table with a column of IDs."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from pathlib import Path

from monai_cae.data.cells import read_cells
from monai_cae.data.scan import CDR_GRADES, Scan
from monai_cae.data.tasks import BLANK
from monai_cae.data.texts import require_plain, shown
from monai_cae.errors import MonaiCaeError

SUFFIXES = (".csv", ".tsv", ".xlsx")
ROLES = {
    "subject": ("id", "participant_id", "subject", "subject_id"),
    "session": ("session", "session_id"),
    "image": ("image", "path", "file", "filename"),
    "age": ("age",),
    "sex": ("m/f", "sex", "gender"),
}
COVARIATES = ("Educ", "SES", "MMSE", "eTIV", "nWBV", "ASF")
SHOWN = 40  # columns that an error names
_PREFERRED = ("oasis_cross-sectional", "participants")
_SESSION = re.compile(r"^(?P<subject>.+?)_(?P<session>MR\d+)$")


def find_table(folder: Path) -> Path:
    """The table of a cohort folder.

    Raises:
        MonaiCaeError: none there, or several of which none has a known name.
    """
    hidden = (".", "~$")  # macOS's companion files, Excel's lock files
    tables = sorted(
        path
        for path in folder.iterdir()
        if path.suffix.lower() in SUFFIXES and not path.name.startswith(hidden) and path.is_file()
    )
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


def read_table(path: str | Path, columns: Mapping[str, str] | None = None) -> list[Scan]:
    """Read a table of subjects, one row per scan; images are not looked for.

    Takes text separated by commas, semicolons or tabs (UTF-8, a byte-order mark is fine) and xlsx; "N/A" and blanks
    mean "not given"; column names are matched without regard to case ("M/F", "sex" and "gender" are one).

    Args:
        path: the table.
        columns: which column is what, where the names say it not: role (see `ROLES`) -> column name.

    Raises:
        MonaiCaeError: no such file, not a table, no column of IDs, OASIS-2's table, an empty table, an ID twice, or a
            cell that can't be what its column says.
    """
    path = Path(path)
    cells = read_cells(_there(path))
    roles = _roles(cells.columns, columns or {}, path)
    scans = [_scan(row, roles, f"{path}, row {number}") for number, row in cells.rows]
    if not scans:
        raise MonaiCaeError(f"{path} has no rows: name another --table")
    _refuse_duplicates(scans, path)
    return scans


def column_names(path: Path) -> list[str]:
    """The names in a table's header.

    Raises:
        MonaiCaeError: no such file, or not a table.
    """
    return read_cells(_there(path)).columns


def _there(path: Path) -> Path:
    if not path.is_file():
        raise MonaiCaeError(f"no table at {path}: check --table")
    return path


def _roles(names: list[str], given: Mapping[str, str], path: Path) -> dict[str, str]:
    by_lower = {name.lower(): name for name in names}
    if "mri id" in by_lower and "group" in by_lower:
        raise MonaiCaeError(
            f"{path} is the table of OASIS-2 (longitudinal); this reads OASIS-1's oasis_cross-sectional.csv"
        )
    have = ", ".join(names) if len(names) <= SHOWN else f"{', '.join(names[:SHOWN])} and {len(names) - SHOWN} more"
    for role, name in given.items():
        if role not in ROLES:
            raise MonaiCaeError(f"columns has the role {role!r}; the roles are {', '.join(ROLES)}")
        if name.strip().lower() not in by_lower:
            raise MonaiCaeError(f"{path} has no column {name} (it has: {have}): check the {role} column")
    roles = {
        role: by_lower[alias.strip().lower()]
        for role, aliases in ROLES.items()
        for alias in reversed((given.get(role, ""), *aliases))
        if alias.strip().lower() in by_lower
    }
    if "subject" not in roles:
        raise MonaiCaeError(
            f"{path} has no column ID (it has: {have}): add one, or say which column holds the subjects"
        )
    roles |= {name: by_lower[name.lower()] for name in ("CDR", *COVARIATES) if name.lower() in by_lower}
    return roles


def _scan(row: dict[str, str], roles: Mapping[str, str], where: str) -> Scan:
    def text(role: str) -> str:
        value = row[roles[role]].strip() if role in roles else ""
        return "" if value.lower() in BLANK else value

    name = text("subject")
    if not name:
        raise MonaiCaeError(f"{where}: the ID is blank: fill it in or delete the row")
    for role in ("subject", "session", "image"):
        require_plain(text(role), f"{where}: the {role}")
    match = _SESSION.match(name) if not text("session") else None
    cdr = _number(text("CDR"), "CDR", where)
    if cdr is not None and cdr not in CDR_GRADES:
        raise MonaiCaeError(f"{where}: CDR is {cdr:g}, which is none of 0, 0.5, 1, 2, 3: correct the table")
    age = _number(text("age"), roles.get("age", "age"), where)
    if age is not None and not 0 < age < 130:
        raise MonaiCaeError(f"{where}: Age is {age:g} years: correct the table")
    sex = text("sex")[:1].upper()
    covariates = {key: _number(text(key), key, where) for key in COVARIATES if key in roles}
    return Scan(
        subject=match["subject"] if match else name,
        session=match["session"] if match else text("session"),
        cdr=cdr,
        age=age,
        sex=sex if sex in ("F", "M") else "",
        covariates={key: value for key, value in covariates.items() if value is not None},
        row=row,
        file=text("image"),
    )


def _number(text: str, column: str, where: str) -> float | None:
    if not text:
        return None
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not math.isfinite(value):
        raise MonaiCaeError(f"{where}: {column} is {shown(text)}, not a number: correct it or leave it blank")
    return value


def _refuse_duplicates(scans: list[Scan], path: Path) -> None:
    seen: set[str] = set()
    for scan in scans:
        if scan.name in seen:
            raise MonaiCaeError(f"{path} has the ID {scan.name} twice: delete one of its rows")
        seen.add(scan.name)
