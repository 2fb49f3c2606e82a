"""One row per scan from the several tables of a study: what they say of the person, and of the visit nearest the scan.

A study's tables are described, not programmed: a `Source` says by which columns a table is known, which of them name
the person and the time, and what the values mean.
"""

from __future__ import annotations

import datetime
import os
import re
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from pathlib import Path
from statistics import median

from monai_cae.data.cohort.cells import Cells, read_cells, read_header
from monai_cae.data.cohort.tasks import MISSING_CODES, Row, parse, read_codes
from monai_cae.data.scan import Note
from monai_cae.data.texts import shown
from monai_cae.errors import MonaiCaeError

SUFFIXES = (".csv", ".tsv", ".xlsx")
MONTH = 365.25 / 12  # days
NAMED = 5
_MISSING = read_codes(MISSING_CODES)


@dataclass(frozen=True)
class Source:
    """A table of a study, and what is taken from it.

    Attributes:
        name: what messages call it.
        person: columns that may name the person; the first that the table has is used.
        gives: column of the result -> columns that may have it, of which the first that is filled in counts. The first
            of the result's columns is what the table is there for: it is known by having it, and notes tell how far
            away its visits are.
        codes: column of the table -> value -> what it means; other values stay as "code 7".
        clocks: clock (see `CLOCKS`) -> columns that tell the time of a row; without any, rows are about a person, and
            may be in several tables.
        files: what the table may be called, as patterns in lower case.
        within: farthest visit that counts, in days; None for what the user says.
    """

    name: str
    person: tuple[str, ...]
    gives: Mapping[str, tuple[str, ...]]
    codes: Mapping[str, Mapping[str, str]] = field(default_factory=dict)
    clocks: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    files: tuple[str, ...] = ("*",)
    within: int | None = None

    def fits(self, path: Path, header: Sequence[str]) -> bool:
        """Whether a table with this header is the one."""
        names = {name.lower() for name in header}
        named = any(fnmatchcase(path.name.lower(), pattern) for pattern in self.files)
        timed = not self.clocks or _any_of((column for names in self.clocks.values() for column in names), names)
        given = _any_of(next(iter(self.gives.values())), names)
        return named and timed and given and _any_of(self.person, names)


@dataclass(frozen=True)
class Wanted:
    """A scan that a row is made for.

    Attributes:
        person: as the tables name the person, see `join`.
        name: what messages call the scan.
        times: clock -> when it was, in days.
        row: what is known of it without the tables.
    """

    person: str
    name: str
    times: Mapping[str, float]
    row: Row


@dataclass(frozen=True)
class _Visit:
    values: Mapping[str, str]
    times: Mapping[str, float]


def find_tables(folders: Sequence[Path], skipped: re.Pattern[str]) -> list[Path]:
    """All tables below some folders, but for those in folders whose names match: images lie there."""
    found = []
    for folder in folders:
        for place, subfolders, files in os.walk(folder):
            subfolders[:] = sorted(name for name in subfolders if not skipped.match(name) and name[0] != ".")
            names = (name for name in sorted(files) if not name.startswith((".", "~$")))
            found += [Path(place, name) for name in names if name.lower().endswith(SUFFIXES)]
    return list(dict.fromkeys(found))


def readable(tables: Sequence[Path]) -> tuple[list[Path], list[Note]]:
    """The tables whose header can be read, and a note of the others: one of hundreds may be none of the study's."""
    found, others = [], []
    for path in tables:
        try:
            read_header(path)
            found.append(path)
        except MonaiCaeError:
            others.append(path.name)
    text = f"tables that can't be read are passed over ({len(others)}), save them as csv in UTF-8 if they are needed"
    return found, [Note(text, tuple(others[:NAMED]))] if others else []


def tables_of(sources: Sequence[Source], tables: Sequence[Path]) -> dict[str, list[Path]]:
    """The tables of each source, by its name, where there are any.

    Raises:
        MonaiCaeError: two tables for the visits of one source.
    """
    headers = {path: read_header(path) for path in tables}
    found = {}
    for source in sources:
        fitting = [path for path, header in headers.items() if source.fits(path, header)]
        if len(fitting) > 1 and source.clocks:
            raise MonaiCaeError(
                f"two tables may be the {source.name}: {fitting[0]} and {fitting[1]}: keep one, or name a folder that "
                "has the right ones alone with --table"
            )
        if fitting:
            found[source.name] = fitting
    return found


def join(
    scans: Sequence[Wanted],
    sources: Sequence[Source],
    tables: Mapping[str, Sequence[Path]],
    days: int,
    *,
    person: Callable[[str], str] = str.casefold,
    dates: Mapping[tuple[str, str], float] | None = None,
) -> tuple[Cells, list[Note]]:
    """Give every scan what the tables say: once a person, or by the visit nearest in time.

    Each column is taken from the nearest visit that has it. A scan gets none where that visit is farther away than
    `days`, or where visits that are equally near say different things; so does a person of whom a table without times
    says different things. All of it is noted.

    Args:
        scans: which rows are made.
        sources: what is looked up in which table.
        tables: name of the source -> its tables, see `tables_of`.
        days: farthest visit that counts.
        person: makes one key of all spellings of a person's ID.
        dates: (person, visit code in lower case) -> date as a number of days, for rows that tell the visit alone.

    Raises:
        MonaiCaeError: a table that can't be read, or an invalid time.
    """
    if isinstance(days, bool) or not isinstance(days, int) or days < 0:
        raise MonaiCaeError(f"days must be a whole number, 0 or more, not {days!r}")
    rows, notes = [dict(scan.row) for scan in scans], list[Note]()
    for source in sources:
        if source.name not in tables:
            continue
        visits: defaultdict[str, list[_Visit]] = defaultdict(list)
        for path in tables[source.name]:
            for owner, visit in _visits(source, path, person, dates or {}):
                visits[owner].append(visit)
        for number, column in enumerate(source.gives):
            pick = _Pick(column, source, days if source.within is None else source.within)
            for scan, row in zip(scans, rows, strict=True):
                value, away = pick.value(scan, visits[person(scan.person)])
                row[column] = value or row.get(column, "")
                if number == 0 and source.clocks:
                    row[f"{column} days away"] = away
            notes += pick.notes(tables[source.name][0].name) if number == 0 or not source.clocks else []
    columns = list(dict.fromkeys(column for row in rows for column in row))
    return Cells(columns, list(enumerate(({**dict.fromkeys(columns, ""), **row} for row in rows), start=1))), notes


def read_dates(
    tables: Sequence[Path], patterns: Sequence[str], person: Callable[[str], str]
) -> dict[tuple[str, str], float]:
    """(person, visit code in lower case) -> date, from tables with RID, VISCODE and EXAMDATE; of several tables the
    first by the patterns of their names counts."""
    found: dict[tuple[str, str], float] = {}
    for pattern in patterns:
        for path in (path for path in tables if fnmatchcase(path.name.lower(), pattern)):
            if not {"rid", "viscode", "examdate"} <= {name.lower() for name in read_header(path)}:
                continue
            for number, row in read_cells(path).rows:
                cells = {name.lower(): value.strip() for name, value in row.items()}
                date = _time("date", cells["examdate"], f"{path}, row {number}: EXAMDATE")
                if date is not None:
                    found.setdefault((person(cells["rid"]), cells["viscode"].lower()), date)
    return found


@dataclass
class _Pick:
    """One column of the result, and what happened while it was looked up."""

    column: str
    source: Source
    days: int
    distances: list[float] = field(default_factory=list)
    without: list[str] = field(default_factory=list)
    doubtful: list[str] = field(default_factory=list)

    def value(self, scan: Wanted, visits: Sequence[_Visit]) -> tuple[str, str]:
        """The value, and how many days away it was found; "" for none."""
        told = [(_distance(scan.times, visit.times), visit.values[self.column]) for visit in visits]
        if not self.source.clocks:
            told = [(0.0, value) for _, value in told]
        known = [(distance, value) for distance, value in told if distance is not None and value]
        least = min((distance for distance, _ in known), default=None)
        if least is None or least > self.days:
            self.without.append(scan.name)
            return "", ""
        values = {value for distance, value in known if distance == least}
        if len(values) > 1:
            self.doubtful.append(scan.name)
            return "", ""
        self.distances.append(least)
        return values.pop(), f"{least:.0f}"

    def notes(self, table: str) -> Iterator[Note]:
        """What was found, and what was not."""
        option = " (--days)" if self.source.within is None else ""
        what, limit = f"{self.column} of {table}", f"within {self.days} days{option}"
        if self.source.clocks and self.distances:
            far = (
                f"{min(self.distances):.0f} to {max(self.distances):.0f} days away, median {median(self.distances):.0f}"
            )
            yield Note(f"{what} is that of the nearest visit {limit}: scans {len(self.distances)}, {far}")
        if self.source.clocks and self.without:
            text = f"without {self.column}, as no visit {limit} has one in {table}: scans {len(self.without)}"
            yield Note(text, tuple(self.without[:NAMED]))
        if self.doubtful:
            two = "the nearest visits are equally near and differ" if self.source.clocks else "rows of a person differ"
            text = f"without {self.column}, as {two} in {table}: scans {len(self.doubtful)}"
            yield Note(text, tuple(self.doubtful[:NAMED]))


def _visits(
    source: Source, path: Path, person: Callable[[str], str], dates: Mapping[tuple[str, str], float]
) -> Iterator[tuple[str, _Visit]]:
    """Each row with whose it is, its times and its values, as the source describes them."""
    for number, row in read_cells(path).rows:
        by_lower = {name.lower(): value.strip() for name, value in row.items()}
        owner = person(by_lower[next(name for name in source.person if name in by_lower)])
        times = {}
        for clock, columns in source.clocks.items():
            column = next((name for name in columns if name in by_lower), "")
            time = _time(clock, by_lower.get(column, ""), f"{path}, row {number}: {column}")
            if time is not None:
                times[clock] = time
        if "date" not in times and (date := dates.get((owner, by_lower.get("viscode", "").lower()))) is not None:
            times["date"] = date
        values = {
            name: next((value for column in columns if (value := _value(source, column, by_lower))), "")
            for name, columns in source.gives.items()
        }
        yield owner, _Visit(values, times)


def _value(source: Source, column: str, row: Row) -> str:
    value = parse(row.get(column, ""), _MISSING)
    if value is None:
        return ""
    if column not in source.codes:
        return row[column]
    code = f"{value:g}" if isinstance(value, float) else value
    return source.codes[column].get(code, f"code {code}")


def _any_of(wanted: Sequence[str] | Iterator[str], names: set[str]) -> bool:
    return any(name in names for name in wanted)


def _distance(one: Mapping[str, float], other: Mapping[str, float]) -> float | None:
    """Days between two times, by the first clock that both have; None without."""
    clock = next((clock for clock in CLOCKS if clock in one and clock in other), None)
    return None if clock is None else abs(one[clock] - other[clock])


def _time(clock: str, text: str, what: str) -> float | None:
    if parse(text, _MISSING) is None:
        return None
    try:
        return CLOCKS[clock](text)
    except ValueError as error:
        raise MonaiCaeError(f"{what} is {shown(text)}, not {error}: correct it or leave it blank") from error


def day_of(text: str) -> float:
    """The days since a study began: 129 in "129", "d0129" and "OAS30001_ClinicalData_d0129"."""
    found = re.search(r"(?:^|_)d?(-?\d+)(?:\.0*)?$", text.strip(), re.IGNORECASE)
    if not found:
        raise ValueError("a number of days such as 129, d0129 or OAS30001_MR_d0129")
    return float(found[1])


def date_of(text: str) -> float:
    """A date as days since the year 1: 2006-04-18, or as LONI writes it, with the month first, 4/18/2006."""
    iso = re.match(r"(\d{4})-(\d{1,2})-(\d{1,2})(?!\d)", text.strip())
    american = re.match(r"(\d{1,2})/(\d{1,2})/(\d{4})(?!\d)", text.strip())
    try:
        if iso:
            return float(datetime.date(int(iso[1]), int(iso[2]), int(iso[3])).toordinal())
        if american:
            return float(datetime.date(int(american[3]), int(american[1]), int(american[2])).toordinal())
    except ValueError:
        pass
    raise ValueError("a date such as 2006-04-18, or 4/18/2006 with the month first")


def month_of(text: str) -> float | None:
    """The days since baseline that a visit code tells: "bl" and "sc" 0, "m06" 6 months; None for codes that count
    otherwise, such as ADNI's "y1" and "v11", which begin anew in every phase of the study."""
    plain = text.strip().casefold()
    if re.fullmatch(r"bl|sc|scmri|baseline|screening", plain):
        return 0.0
    found = re.fullmatch(r"m(\d{1,3})|month[ _]?(\d{1,3})|(\d{1,3}) ?mo(?:nth)?s?(?: follow-?up)?", plain)
    return float(next(filter(None, found.groups()))) * MONTH if found else None


# the most exact first: two times are compared by the first clock that both have
CLOCKS: Mapping[str, Callable[[str], float | None]] = {"day": day_of, "date": date_of, "visit": month_of}
