"""The subject of a scan to predict: its row in the table, and whether the checkpoint saw the subject."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Sequence
from pathlib import Path

from monai_cae.data.cohort.persons import loose, subject_of
from monai_cae.data.cohort.pseudonyms import hash_subject, names_of
from monai_cae.data.scan import Scan
from monai_cae.errors import MonaiCaeError

_AN_ID = re.compile(r"sub-[a-z0-9]+|OAS[13]_?\d{4}", re.IGNORECASE)
_SHOWN = 5


def row_of(path: Path, scans: Sequence[Scan], table: str) -> Scan:
    """Find a file's row in a table: the row whose whole ID begins the file's name.

    A row of the file's session comes first; a row of another session is never used. sub- and ses-, leading zeros and
    case are ignored, unless two rows differ only in these.

    Args:
        path: the file.
        scans: the rows.
        table: names them in errors.

    Raises:
        MonaiCaeError: no row, rows of other sessions alone, or several.
    """
    begins = _beginnings(path)
    spelled = {loose(text): len(text) for text in sorted(begins, key=len)}
    length = {id(scan): max(spelled.get(loose(name), 0) for name in (scan.subject, *scan.aliases)) for scan in scans}
    longest = max(length.values(), default=0)
    rows = [scan for scan in scans if longest and length[id(scan)] == longest]
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
    """ "yes", "no", or "unknown": if the checkpoint names no subjects, or uses pseudonyms (`--hash_ids`), or if the
    name may not be an ID.

    Args:
        subject: of a table or, by `subject_of`, of a file.
        trained_on: hashed IDs, as `monai_cae.networks.trained_on` reads them.
        sure: it is an ID, whatever its form.
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
