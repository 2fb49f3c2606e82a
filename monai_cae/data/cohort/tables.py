"""Tables of subjects: OASIS-1's csv or xlsx, BIDS's participants.tsv, or any table with a column of IDs."""

from __future__ import annotations

import csv
import math
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from monai_cae.data.cohort.cells import Cells, read_cells
from monai_cae.data.cohort.decimals import with_points
from monai_cae.data.cohort.persons import name_persons, person
from monai_cae.data.cohort.tasks import BLANK, MISSING_CODES, Row, Value, parse, read_codes
from monai_cae.data.scan import CDR_GRADES, Note, Scan
from monai_cae.data.texts import listed, require_plain, shown
from monai_cae.errors import MonaiCaeError
from monai_cae.files import replacing

SUFFIXES = (".csv", ".tsv", ".xlsx")
ROLES = {
    "subject": (
        "participant_id", "subject_id", "subject", "subjectid", "subject id", "subject_label", "src_subject_id",
        "oasisid", "ptid", "patient_id", "id",
    ),
    "session": ("session", "session_id", "visit", "viscode", "visit_id", "timepoint"),
    "image": ("image", "path", "file", "filename"),
    "age": ("age", "age_at_scan", "age_at_visit", "age at visit", "ageatentry"),
    "sex": ("m/f", "sex", "gender", "ptgender"),
}  # fmt: skip
SCAN_IDS = (
    "image data id", "image_id", "scan_id", "scan", "mr_id", "mr id", "mri id", "mr_session", "session_label",
    "experiment_id", "label",
)  # fmt: skip
COVARIATES = ("Educ", "SES", "MMSE", "eTIV", "nWBV", "ASF")
SHOWN = 40  # columns that an error names
_PREFERRED = ("oasis_cross-sectional", "participants")
_SEXES: Mapping[Value, str] = {
    "f": "F", "female": "F", "woman": "F", "m": "M", "male": "M", "man": "M",
    **dict.fromkeys(("o", "other", "x", "u", "unknown", "d", "diverse", "intersex", "non-binary"), ""),
}  # fmt: skip
_NOT_YEARS = r"(?!\d,\d{3}(?!\d))"  # 1,074 may be thousands; 74,512 can't
_AGE = re.compile(
    rf"(?:>=?|≥)?\s*{_NOT_YEARS}(\d{{1,4}}(?:[.,]\d{{1,6}})?)\s*\+?\s*(y|yrs?|years?|m|months?)?\+?", re.IGNORECASE
)


def find_table(folder: Path) -> Path:
    """Find the table of a cohort folder.

    Raises:
        MonaiCaeError: no table, or several without a known name.
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


@dataclass(frozen=True)
class Table:
    """What a table says of its scans, and what of that was guessed."""

    scans: list[Scan]  # one per row; images are not looked for
    notes: list[Note]


def read_table(path: str | Path, columns: Mapping[str, str] | None = None, **options: Any) -> list[Scan]:
    """The scans of `read_subjects`, without notes."""
    return read_subjects(path, columns, **options).scans


def read_subjects(
    path: str | Path,
    columns: Mapping[str, str] | None = None,
    *,
    subject_pattern: str = "",
    missing_codes: Any = MISSING_CODES,
    sex_codes: str = "",
) -> Table:
    """Read a table of subjects, one row per scan, without looking for images.

    Reads text separated by commas, semicolons or tabs (UTF-8, a byte-order mark is fine) and xlsx. "N/A" and blanks
    mean "not given", except in an ID; column names are matched without regard to case ("M/F", "sex" and "gender" are
    one). Of several columns of IDs, the subjects' column is found by its values: see `persons`. A decimal comma is read
    as a point, but for a column whose commas all may separate thousands, as in "1,074": that stays text.

    Args:
        path: the table.
        columns: columns with unusual names: role (see `ROLES`) -> column name; "none" ignores a column that the names
            would find.
        subject_pattern, missing_codes: see `persons.name_persons` and `tasks.read_codes`.
        sex_codes: what the values of the sex column mean, "F=2,M=1"; "none" ignores the column.

    Raises:
        MonaiCaeError: no such file, not a table, no column of IDs, OASIS-2's table, an empty table, a scan twice, a
            cell that can't be what its column says, or subjects or sexes that need an option.
    """
    path = Path(path)
    given = {"subject_pattern": subject_pattern, "missing_codes": missing_codes, "sex_codes": sex_codes}
    return subjects_in(read_cells(_there(path)), path, columns, **given)


def subjects_in(
    cells: Cells,
    path: Path,
    columns: Mapping[str, str] | None = None,
    *,
    subject_pattern: str = "",
    missing_codes: Any = MISSING_CODES,
    sex_codes: str = "",
    joined: bool = False,
) -> Table:
    """`read_subjects` of what has been read. Errors call it `path`, and rows by their numbers or, where they were
    `joined` from several tables, by subject and session."""
    if not cells.rows:
        raise MonaiCaeError(f"{path} has no rows: name another --table")
    given = columns or {}
    roles = _roles(cells.columns, given, path)
    persons, unique = _id_columns(cells)
    texts = {roles[role] for role in ("subject", "session", "image", "sex") if role in roles}
    cells = with_points(cells, {*persons, *unique, *texts}, roles.get("age", ""), _AGE)
    rows = [row for _, row in cells.rows]
    if not given.get("subject"):
        roles["subject"] = _persons_column(rows, persons, unique, path)
    ids = [column for column in (*persons, *unique) if column != roles["subject"]]
    owners = [row[roles["subject"]] for row in rows]
    notes = [*cells.notes]
    if ids:
        notes.append(Note(f"subjects are in the column {roles['subject']}", tuple(dict.fromkeys(owners))[:3]))
    _refuse_two_roles(roles, path)
    missing = read_codes(missing_codes)
    sexes = _sexes(rows, roles.get("sex", ""), sex_codes, missing, path, notes)
    unique_id = next((column for column in ids if len({row[column] for row in rows}) == len(rows)), "")
    reading = _Reading(roles, ids, unique_id, len(set(owners)) < len(rows), missing, sexes)
    scans = [
        reading.scan(row, f"{path}, {owner} {row.get('session', '')}".strip() if joined else f"{path}, row {number}")
        for (number, row), owner in zip(cells.rows, owners, strict=True)
    ]
    _note_ages(rows, roles, notes)
    notes += _unread(cells.columns, roles, given)
    scans, guessed = name_persons(scans, subject_pattern, str(path))
    for name, count in Counter(scan.name for scan in scans).items():
        if count > 1:
            raise MonaiCaeError(
                f"{path} has {name} twice: delete one of its rows, or name the column that tells the scans of a person "
                "apart with --session-column"
            )
    return Table(scans, [*notes, *guessed])


def write_table(path: str | Path, scans: Sequence[Scan]) -> None:
    """Write rows as a table that `read_subjects` reads: tab-separated, with participant_id, session_id, age and sex in
    front of what else the rows have; MonaiCaeError where it can't be written."""
    taken = {alias for aliases in ROLES.values() for alias in aliases}
    others = list(dict.fromkeys(name for scan in scans for name in scan.row if name.lower() not in taken))
    head = ("participant_id", "session_id", "age", "sex")
    with replacing(path) as temporary, temporary.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, delimiter="\t")
        writer.writerow([*head, *others])
        for scan in scans:
            known = (scan.subject, scan.session, "" if scan.age is None else f"{scan.age:g}", scan.sex)
            writer.writerow([cell or "n/a" for cell in (*known, *(scan.row.get(name, "") for name in others))])


def column_names(path: Path) -> list[str]:
    """The names in a table's header; MonaiCaeError where there is no such file, or it is no table."""
    return read_cells(_there(path)).columns


def _there(path: Path) -> Path:
    if not path.is_file():
        raise MonaiCaeError(f"no table at {path}: check --table")
    return path


def _roles(names: list[str], given: Mapping[str, str], path: Path) -> dict[str, str]:
    by_lower = {name.lower(): name for name in names}
    if "mri id" in by_lower and "group" in by_lower and not given.get("subject"):
        raise MonaiCaeError(
            f"{path} is the table of OASIS-2 (longitudinal), not OASIS-1's oasis_cross-sectional.csv: for a cohort of "
            "OASIS-2 give --subject-column 'Subject ID'"
        )
    for role, name in given.items():
        if role not in ROLES:
            raise MonaiCaeError(f"columns has the role {role!r}; the roles are {', '.join(ROLES)}")
        if name.strip().lower() not in by_lower and (name != "none" or role == "subject"):
            raise MonaiCaeError(
                f"{path} has no column {name} (it has: {listed(names, SHOWN)}): check the {role} column"
            )
    roles = {
        role: by_lower[alias.strip().lower()]
        for role, aliases in ROLES.items()
        for alias in reversed((given.get(role, ""), *aliases))
        if alias.strip().lower() in by_lower and (alias == given.get(role) or given.get(role) != "none")
    }
    roles |= {name: by_lower[name.lower()] for name in ("CDR", *COVARIATES) if name.lower() in by_lower}
    return roles


def _refuse_two_roles(roles: Mapping[str, str], path: Path) -> None:
    """Refuse a column that is the age or the sex, and something else."""
    for role in ("age", "sex"):
        for other, column in roles.items():
            if column == roles.get(role) and other != role:
                raise MonaiCaeError(f"{path}: {column} can't be both {other} and {role}: check --{role}-column")


def _id_columns(cells: Cells) -> tuple[list[str], list[str]]:
    """Columns that may hold the IDs of persons, by their names, the best first; and those of scans: unique IDs."""
    by_lower = {name.lower(): name for name in cells.columns}
    persons, scans = (
        [by_lower[alias] for alias in names if alias in by_lower] for names in (ROLES["subject"], SCAN_IDS)
    )
    return persons, [name for name in scans if len({row[name] for _, row in cells.rows} - {""}) == len(cells.rows)]


def _persons_column(rows: Sequence[Row], persons: Sequence[str], scans: Sequence[str], path: Path) -> str:
    """The column of the persons: others are unique and begin with the person's ID, or group the rows alike."""
    candidates = persons or scans[:1]
    if not candidates:
        raise MonaiCaeError(
            f"{path} has no column ID (it has: {listed([*rows[0]], SHOWN)}): add one, or name the column of the "
            "persons with --subject-column"
        )
    full = [column for column in candidates if all(row[column].strip() for row in rows)] or candidates[:1]
    groups = {column: _grouping([person(row[column]) for row in rows]) for column in full}
    best = full[0]
    for column in full[1:]:
        if _begin_with(rows, best, column):
            best = column
        elif groups[column] != groups[best] and not _begin_with(rows, column, best):
            raise MonaiCaeError(
                f"{path}: by {best} the rows are {len(set(groups[best]))} subjects, by {column} "
                f"{len(set(groups[column]))}: name the subject column with --subject-column"
            )
    return best


def _begin_with(rows: Sequence[Row], scans: str, persons: str) -> bool:
    """Whether one column's values are unique, and each begins with the other's, which repeat."""
    values = [(row[scans].strip().casefold(), row[persons].strip().casefold()) for row in rows]
    repeat = len({owner for _, owner in values}) < len({scan for scan, _ in values}) == len(rows)
    return repeat and all(scan.startswith(owner) and scan != owner for scan, owner in values)


def _grouping(keys: Sequence[str]) -> list[int]:
    first: dict[str, int] = {}
    return [first.setdefault(key, len(first)) for key in keys]


def _sexes(
    rows: Sequence[Row], column: str, codes: str, missing: frozenset[float], path: Path, notes: list[Note]
) -> Mapping[Value, str]:
    """What each value of the sex column means, as `parse` reads it: "F", "M" or "".

    Raises:
        MonaiCaeError: a value that means nothing known, or codes that are not such.
    """
    if not column and codes not in ("", "none"):
        raise MonaiCaeError(f"{path} has no sex column for --sex-codes: name it with --sex-column")
    if not column or codes == "none":
        return {}
    found = list(dict.fromkeys(row[column].strip() for row in rows if parse(row[column], missing) is not None))
    meanings = _SEXES
    if codes:
        parts = [pair.partition("=") for pair in str(codes).split(",")]
        pairs = [(parse(value), sex.strip().upper()) for sex, _, value in parts]
        meanings = dict(pairs)
        if not set(meanings.values()) <= {"F", "M"} or None in meanings:
            raise MonaiCaeError(f"sex_codes must be like F=2,M=1, or none, not {shown(codes)}")
        if len(meanings) < len(set(pairs)):
            raise MonaiCaeError(f"sex_codes {shown(codes)} says of one value that it is F and M: correct it")
        if found and not any(parse(value) in meanings for value in found):
            raise MonaiCaeError(f"{path}: {column} has {', '.join(found[:4])}, and nothing of --sex-codes {codes}")
    strange = [value for value in found if parse(value) not in meanings]
    if strange and not codes:
        example = f"F={strange[0]},M={strange[1] if len(strange) > 1 else '...'}"
        raise MonaiCaeError(
            f"{path}: {column} has {', '.join(strange[:4])}: say which is which with --sex-codes, such as {example}, "
            "or continue without sex with --sex-codes none"
        )
    others = [value for value in found if not meanings.get(parse(value))]
    if others:
        notes.append(Note(f"sex is not given where {column} is neither F nor M", tuple(others[:3])))
    return meanings


def _unread(names: Sequence[str], roles: Mapping[str, str], given: Mapping[str, str]) -> list[Note]:
    """Columns that may be the age or the sex, where none is read as such."""
    found = []
    for role, like in (("age", r"(?<![a-z])age(?![a-z])|^age"), ("sex", "sex|gender")):
        alike = tuple(name for name in names if re.search(like, name.lower()))
        if alike and role not in roles and given.get(role) != "none":
            found.append(Note(f"no column is known as the {role}; --{role}-column names it, perhaps", alike[:3]))
    return found


def _note_ages(rows: Sequence[Row], roles: Mapping[str, str], notes: list[Note]) -> None:
    ages = [row[roles["age"]].strip() for row in rows if "age" in roles]
    capped = [text for text in ages if text and (text[0] in ">≥" or text.endswith("+"))]
    if capped:
        text = f"{len(capped)} ages are capped and read as the number in them"
        notes.append(Note(text, tuple(dict.fromkeys(capped))[:3]))


@dataclass(frozen=True)
class _Reading:
    """How the rows of one table are read."""

    roles: Mapping[str, str]
    ids: Sequence[str]  # further columns of IDs
    unique_id: str  # the column of those that has another value in every row; "" for none
    repeated: bool  # a person has several rows
    missing: frozenset[float]
    sexes: Mapping[Value, str]

    def text(self, row: Row, role: str) -> str:
        value = row[self.roles[role]].strip() if role in self.roles else ""
        return "" if parse(value, self.missing) is None else value

    def scan(self, row: Row, where: str) -> Scan:
        name = row[self.roles["subject"]].strip()
        if not name:
            raise MonaiCaeError(f"{where}: the ID is blank: fill it in or delete the row")
        session = self._session(row, name)
        for what, text in (("subject", name), ("session", session), ("image", self.text(row, "image"))):
            require_plain(text, f"{where}: the {what}")
        cdr = _number(self.text(row, "CDR"), "CDR", where)
        if cdr is not None and cdr not in CDR_GRADES:
            raise MonaiCaeError(f"{where}: CDR is {cdr:g}, not 0, 0.5, 1, 2 or 3: correct the table")
        numbers = {key: _number(self.text(row, key), key, where) for key in COVARIATES}
        return Scan(
            subject=name,
            session=session,
            cdr=cdr,
            age=read_age(self.text(row, "age"), self.roles.get("age", "age"), where),
            sex=self.sexes.get(parse(self.text(row, "sex")), ""),
            covariates={key: value for key, value in numbers.items() if value is not None},
            row=row,
            file=self.text(row, "image"),
            aliases=tuple(alias for column in self.ids if (alias := row[column].strip())),
        )

    def _session(self, row: Row, name: str) -> str:
        """As its column says, else what the scan's ID has more than the person's."""
        given = row[self.roles["session"]].strip() if "session" in self.roles else ""
        if given and given.lower() not in BLANK:
            repeated = re.match(re.escape(name) + r"[_. -]+(?=.)", given, re.IGNORECASE)  # of OAS30001_MR_d0129
            return given[repeated.end() :] if repeated else given
        scan = row[self.unique_id].strip() if self.unique_id else ""
        if scan.casefold().startswith(name.casefold()):
            return scan[len(name) :].strip("_-. ")
        return scan if self.repeated else ""


def read_age(text: str, column: str, where: str) -> float | None:
    """Years; None for a blank. MonaiCaeError, with the column and `where`, for what is no age."""
    if not text:
        return None
    match = _AGE.fullmatch(text)
    if not match:
        raise MonaiCaeError(
            f"{where}: {column} is {shown(text)}, not a number of years such as 74, 74.5, 74,5, 074Y or 89+: correct "
            "it, leave it blank, or continue without ages with --age-column none"
        )
    age = float(match[1].replace(",", ".")) / (12 if (match[2] or "y")[0].lower() == "m" else 1)
    if not 0 < age < 130:
        raise MonaiCaeError(
            f"{where}: {column} is {age:g} years: correct the table, or add {text} to the numbers of --missing-codes"
        )
    return age


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
