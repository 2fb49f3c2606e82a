"""Whose scan is predicted, and what the table says of a subject beside the image, as numbers for a network."""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from scipy import stats

from monai_cae.data.cohort.persons import loose, split_session, subject_of
from monai_cae.data.cohort.pseudonyms import hash_subject, names_of
from monai_cae.data.cohort.selection import Labels, PatientsAndControls
from monai_cae.data.cohort.tables import ROLES, read_table
from monai_cae.data.cohort.tasks import perhaps_codes
from monai_cae.data.scan import Scan
from monai_cae.errors import MonaiCaeError
from monai_cae.terminal import say

Item = dict[str, Any]
Scales = Mapping[str, Sequence[float]]
_MALE = {"F": 0.0, "M": 1.0}
_SQUARE = "^2"
_SHOWN = 5
_AN_ID = re.compile(r"sub-[a-z0-9]+|OAS[13]_?\d{4}", re.IGNORECASE)
_LARGEST = 1e30  # beyond, a product of two has no float32
_told: set[str] = set()  # an experiment would say it in every part
_ENOUGH = 15  # scans; fewer may have the label's order by chance
_COPY = 0.995  # of a correlation: the same number in another unit, rounded, or with other steps


def with_covariates(
    items: Sequence[Item],
    covariates: Scales,
    target: Labels | None = None,
    everyone: Sequence[Item] = (),
    rules: Sequence[str] = (),
    tested: bool = False,
) -> list[Item]:
    """Items of a datalist with their `covariates` as a list of numbers, `(value - centre) / scale`; unchanged without.

    Args:
        items: with the table's columns, as `load_sets` gives them; `sex` counts as 0 for F and 1 for M.
        covariates: name -> (centre, scale), both fixed, so nothing is fitted to any subject. A missing value
            counts as the centre. `NAME^2` is the square of the scaled value of the column NAME.
        target: what is predicted; by default the diagnosis.
        everyone: the items of all sets, in which a column may be the label under another name, see `label_in`.
        rules: of the classes.
        tested: a finished network is tested on them, so that a column may be the label under another name.

    Raises:
        MonaiCaeError: an invalid centre or scale, a column that gives the label, by its name or by its values, or a
            column that no item has.
    """
    _require(covariates, lambda: iter(items), target)
    if not covariates:
        return list(items)
    for name in covariates:
        values = [_value(item, name) for item in everyone]
        if not tested and (why := label_in(values, [item["label"] for item in everyone], name, rules)):
            raise MonaiCaeError(f"covariates: {name} {why}: leave it out")
        _tell_blanks(name, values, covariates[name][0])
    return [{**item, "covariates": _scaled(item, covariates)} for item in items]


def _tell_blanks(name: str, values: Sequence[float | None], centre: float) -> None:
    """Once: how many scans are taken to be average, and which numbers may be codes for that."""
    blank = sum(value is None for value in values)
    what = f"{blank} of {len(values)} scans have no {name.removesuffix(_SQUARE)}, and count as {centre:g} there"
    for line in filter(None, (what * bool(blank), perhaps_codes(name.removesuffix(_SQUARE), values))):
        if line not in _told:
            _told.add(line)
            say(f"note: covariates: {line}")


def label_in(values: Sequence[float | None], labels: Sequence[float], name: str, rules: Sequence[str] = ()) -> str:
    """In which way a column of the table is the label under another name; "" where it is not.

    Args:
        values: of the column, None or nan for a blank.
        labels: as many: two classes, or numbers.
        name: of the column.
        rules: of the classes. A column that they name, such as MMSE in "MMSE < 24", may part the classes; others do
            so if they have two values.
    """
    known = [pair for pair in zip(values, labels, strict=True) if pair[0] is not None and np.isfinite(pair[0])]
    if len(known) < _ENOUGH:
        return ""
    column, label = np.array(known, dtype=np.float64).T
    if np.ptp(column) == 0 or np.ptp(label) == 0:
        return ""
    if len(np.unique(label)) > 2:
        same = max(abs(test(column, label).statistic) for test in (stats.pearsonr, stats.spearmanr))
        told = f"is what is predicted, in another unit or other steps, in all {len(known)} scans that have it"
        return told if same >= _COPY else ""
    low, high = (column[label == one] for one in (label.min(), label.max()))
    apart = low.max() < high.min() or high.max() < low.min()
    if apart and len(np.unique(column)) == 2:
        return f"has one value in all patients and another in all controls of the {len(known)} scans that have it"
    bare = name.removesuffix(_SQUARE)
    asked = any(_asks(rule, alias) for alias in {bare, *ROLES.get(bare, ())} for rule in rules)
    return "tells the classes of all scans apart, as their rule asks for it" if apart and asked else ""


def _asks(rule: str, column: str) -> bool:
    return re.search(rf"(?<!\w){re.escape(column)}(?!\w)", rule, re.IGNORECASE) is not None


def _require(covariates: Scales, rows: Callable[[], Iterator[Item]], target: Labels | None) -> None:
    """Refuse covariates that give the label, or that no row has."""
    if not isinstance(covariates, Mapping):
        raise MonaiCaeError(f"covariates must be name: [centre, scale], such as {{age: [75, 8]}}, not {covariates!r}")
    tells = (target or PatientsAndControls()).tells
    for name, scale in covariates.items():
        _check(name, scale, tells)
        if next(rows(), None) is not None and all(_value(item, name) is None for item in rows()):
            known = sorted({key for item in rows() for key in item if _value(item, key) is not None})
            raise MonaiCaeError(
                f"covariates: no scan has {name!r} in its table row; there are {', '.join(known) or 'none'}: "
                "correct the name, or leave it out"
            )


def inference_items(
    images: Sequence[Path],
    table: str,
    covariates: Scales,
    trained_on: Sequence[str] = (),
    sex_codes: str = "",
    target: Labels | None = None,
) -> list[Item]:
    """Items for prediction: image, subject, whether the checkpoint saw the subject, and covariates if the network
    needs them.

    Args:
        images: paths.
        table: a subjects' table; a file's row is the one whose whole ID its name begins with. "" for none, and then
            everybody is taken to be average where the network takes covariates, which is said.
        covariates, target: see `with_covariates`.
        trained_on: hashed IDs of the subjects that the checkpoint saw.
        sex_codes: see `read_subjects`.

    Raises:
        MonaiCaeError: no row for a file, or several; what `read_subjects` and `with_covariates` refuse.
    """
    codes = sex_codes if {"sex", f"sex{_SQUARE}"} & set(covariates) else "none"
    read = _read(table, _stamp(table), codes) if table else None
    rows = [_row_of(path, read, table) for path in images] if read else []
    subjects = [row.subject for row in rows] if table else [subject_of(path)[0] for path in images]
    _tell_same_names(images, subjects)
    items: list[Item] = [
        {
            "image": str(path),
            "subject": subject,
            "file": str(path),
            "seen_in_training": seen_in_training(subject, trained_on, sure=bool(table)),
        }
        for path, subject in zip(images, subjects, strict=True)
    ]
    if not covariates:
        return items
    if read is None:
        print(f"no --table: {', '.join(covariates)} are taken to be average for all subjects", flush=True)
        return [{**item, "covariates": np.zeros(len(covariates), np.float32)} for item in items]
    scans = read.scans
    _require(covariates, lambda: map(_known, scans), target)  # of all rows: these images may be one chunk of many
    return [
        {**item, "covariates": _scaled({**item, **_known(row)}, covariates)}
        for item, row in zip(items, rows, strict=True)
    ]


def _tell_same_names(images: Sequence[Path], subjects: Sequence[str]) -> None:
    """A note where scans of several folders are taken for one subject's, and their names say nothing of a session."""
    first: dict[str, Path] = {}
    for path, subject in zip(images, subjects, strict=True):
        other = first.setdefault(subject, path) if not subject_of(path)[1] else path
        if other.parent != path.parent:
            print(f"note: {other} and {path} count as one subject's, {subject}: rename one if they are not", flush=True)
            return


def _known(row: Scan) -> Item:
    return {"cdr": row.cdr, "age": row.age, "sex": row.sex, **row.covariates}


class _Rows:
    """A table whose rows are found by the names that their files may have."""

    def __init__(self, scans: Sequence[Scan]) -> None:
        self.scans = scans
        self.by_name: dict[str, list[int]] = {}
        for place, scan in enumerate(scans):
            for name in {loose(name) for name in (scan.subject, *scan.aliases)}:
                self.by_name.setdefault(name, []).append(place)


@lru_cache(maxsize=1)  # a chunk after the other asks for the same
def _read(table: str, stamp: tuple[int, int], sex_codes: str) -> _Rows:
    """The rows of a table. No two IDs are taken for one person's: that asks about none of these rows."""
    scans = read_table(table, subject_pattern="(.+)", sex_codes=sex_codes)
    parts = [split_session(scan.subject) for scan in scans]
    return _Rows(
        [
            scan if scan.session else replace(scan, subject=subject, session=session)
            for scan, (subject, session) in zip(scans, parts, strict=True)
        ]
    )


def _stamp(table: str) -> tuple[int, int]:
    try:
        found = Path(table).stat()
    except OSError:
        return 0, 0  # whoever reads it says so
    return found.st_size, found.st_mtime_ns


def _check(name: str, scale: Any, tells: Collection[str]) -> None:
    if name.removesuffix(_SQUARE).lower() in tells:
        raise MonaiCaeError(f"covariates: {name} is what the network predicts; leave it out")
    numbers = isinstance(scale, (list, tuple)) and len(scale) == 2 and all(isinstance(v, (int, float)) for v in scale)
    if not numbers or scale[1] <= 0:
        raise MonaiCaeError(f"covariates: {name} needs [centre, scale] with a scale above 0, not {scale!r}")


def _value(item: Item, name: str) -> float | None:
    column = name.removesuffix(_SQUARE)
    value = item.get(column)
    if column == "sex":
        return _MALE.get(str(value))
    return float(value) if isinstance(value, (int, float)) and not isinstance(value, bool) else None


def _scaled(item: Item, covariates: Scales) -> np.ndarray:
    numbers = []
    for name, (centre, scale) in covariates.items():
        value = _value(item, name)
        scaled = 0.0 if value is None else (value - centre) / scale
        numbers.append(scaled * scaled if name.endswith(_SQUARE) else scaled)  # ** raises where * gives infinity
        if not abs(numbers[-1]) < _LARGEST:
            raise MonaiCaeError(f"covariates: {name} of {item.get('subject', item['image'])} is {value:g}: correct it")
    return np.array(numbers, dtype=np.float32)


def _row_of(path: Path, found_in: _Rows, table: str) -> Scan:
    """The row of a table (named in errors) that a file belongs to: the one whose whole ID its name begins with.

    A row of the file's session comes first; a row of another session is never used. sub- and ses-, leading zeros and
    case are ignored, unless two rows differ only in these.

    Raises:
        MonaiCaeError: no row, rows of other sessions alone, or several.
    """
    begins = _beginnings(path)
    spelled = {loose(text): len(text) for text in sorted(begins, key=len)}
    longest = max((length for name, length in spelled.items() if name in found_in.by_name), default=0)
    places = {p for name, length in spelled.items() if length == longest for p in found_in.by_name.get(name, ())}
    rows = [found_in.scans[place] for place in sorted(places)]
    session = subject_of(path)[1]
    same = [scan for scan in rows if any(loose(name) in spelled for name in _names(scan))]
    found = same or [scan for scan in rows if not (scan.session and session)]
    literal = [scan for scan in found if begins & {scan.subject, scan.name, *scan.aliases}]
    found = literal if len(found) > 1 and literal else found
    if len(found) == 1:
        return found[0]
    names = ", ".join(scan.name for scan in (found or rows)[:_SHOWN])
    if found:
        raise MonaiCaeError(f"{table} has several rows for {path} ({names}): name the file after one of them")
    if rows:
        raise MonaiCaeError(
            f"{table} has no row for the session of {path}, only {names}: add one, or leave the file out"
        )
    raise MonaiCaeError(f"{table} has no row whose ID the name of {path} starts with: add one, or leave the file out")


def seen_in_training(subject: str, trained_on: Collection[str], sure: bool = False) -> str:
    """ "yes", "no", or "unknown" where the checkpoint names nobody, or by pseudonyms (`--hash_ids`), or the subject may
    be no ID at all.

    Args:
        subject: of a table or, by `subject_of`, of a file.
        trained_on: hashed IDs, as `monai_cae.networks.trained_on` reads them.
        sure: it is an ID, whatever form it has.
    """
    if any(hash_subject(name) in trained_on for name in names_of(subject)):
        return "yes"
    keyed = any(digest.startswith("k") for digest in trained_on)  # perhaps with another key than the one here
    return "no" if trained_on and not keyed and (sure or _AN_ID.fullmatch(subject)) else "unknown"


def _beginnings(path: Path) -> set[str]:
    """What a file's name begins with, up to each place where a word ends."""
    stem = re.sub(r"\.(nii(\.gz)?|hdr|img)$", "", path.name, flags=re.IGNORECASE)
    return {stem[: match.start()] for match in re.finditer(r"[^A-Za-z0-9]+|$", stem)} - {""}


def _names(scan: Scan) -> Iterable[str]:
    return (scan.name, *scan.aliases) if scan.session else scan.aliases
