"""Whose scan a file is, by its name and by the rows of a table."""

from __future__ import annotations

import re
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import NamedTuple

from monai_cae.data.audit import hash_subject
from monai_cae.data.scan import Scan
from monai_cae.errors import MonaiCaeError

_SUFFIX = re.compile(r"\.(nii(\.gz)?|hdr|img)$", re.IGNORECASE)
_NAMED = re.compile(
    r"(?P<bids>sub-[a-z0-9]+)(?:_(?P<bids_session>ses-[a-z0-9]+))?(?![a-z0-9])"
    r"|(?P<oasis1>OAS1_\d{4})(?:_(?P<oasis1_session>MR\d+))?(?![a-z0-9])"
    r"|(?P<oasis3>OAS3\d{4})(?:_(?P<oasis3_session>MR_d\d+))?(?![a-z0-9])",
    re.IGNORECASE,
)
_KINDS = ("bids", "oasis1", "oasis3")
_A_SESSION = re.compile(r"(ses_[a-z0-9]+|mr\d+|mr_d\d+)(?![a-z0-9])")
_SHOWN = 5


class Named(NamedTuple):
    """
    Attributes:
        subject, session: as the name has them, e.g. "sub-01" and "ses-02"; the session is "" where there is none.
        sure: the name has the form of an ID; otherwise the subject is the file's name without its suffix.
    """

    subject: str
    session: str = ""
    sure: bool = False


def subject_of(path: str | Path) -> Named:
    """Whose scan a file is by its name: BIDS's sub-01[_ses-02], OASIS-1's OAS1_0001[_MR1], OASIS-3's
    OAS30001[_MR_d0129], otherwise all of it."""
    match = _NAMED.match(Path(path).name)
    if match is None:
        return Named(_stem(path))
    subject, session = next((match[kind], match[f"{kind}_session"]) for kind in _KINDS if match[kind])
    return Named(subject, session or "", True)


def row_of(path: Path, scans: Sequence[Scan], table: str) -> Scan:
    """The row of a table that a file belongs to: the one whose whole ID its name begins with.

    A row of the file's session comes first; a row of another one is never taken. sub- and ses-, zeros in front of a
    number and upper or lower case make no difference, unless two rows differ in nothing else.

    Args:
        path: the file.
        scans: the rows.
        table: names them in errors.

    Raises:
        MonaiCaeError: no row, rows of other sessions alone, or several.
    """
    name = _key(_stem(path))
    begun = [scan for scan in scans if _begins(name, _key(scan.subject))]
    longest = max((len(_key(scan.subject)) for scan in begun), default=0)
    rows = [scan for scan in begun if len(_key(scan.subject)) == longest]
    rest = name[longest + 1 :]
    same = [scan for scan in rows if scan.session and _begins(rest.removeprefix("ses_"), _key(scan.session))]
    found = same or [scan for scan in rows if not scan.session or not _A_SESSION.match(rest)]
    literal = [scan for scan in found if _begins(_stem(path), scan.name if same else scan.subject, r"[A-Za-z0-9]")]
    found = literal if len(found) > 1 and literal else found
    if len(found) == 1:
        return found[0]
    names = ", ".join(scan.name for scan in (found or rows)[:_SHOWN])
    if found:
        raise MonaiCaeError(f"{table} has several rows for {path} ({names}): name the file after one of them")
    if rows:
        raise MonaiCaeError(f"{table} has no row for the session of {path}, only {names}: add one, or leave it out")
    raise MonaiCaeError(f"{table} has no row whose whole ID begins the name of {path}: add one, or leave the file out")


def seen_in_training(named: Named, trained_on: Collection[str]) -> str:
    """ "yes", "no", or "unknown" where the checkpoint names nobody or the file's name is no ID.

    Args:
        named: the subject.
        trained_on: hashed IDs, as `monai_cae.networks.trained_on` reads them.
    """
    bare = re.sub("^sub-", "", named.subject, flags=re.IGNORECASE)
    spellings = {named.subject, bare, f"sub-{bare}", f"{named.subject}_{named.session}"}
    if {hash_subject(spelling) for spelling in spellings} & set(trained_on):
        return "yes"
    return "no" if trained_on and named.sure else "unknown"


def _stem(path: str | Path) -> str:
    return _SUFFIX.sub("", Path(path).name)


def _key(text: str) -> str:
    """Lower case, one separator, no prefix sub- or ses-, no zeros in front of a number."""
    text = re.sub(r"[^a-z0-9]+", "_", text.strip().casefold())
    return re.sub(r"(?<!\d)0+(?=\d)", "", re.sub(r"^(sub|ses)_", "", text))


def _begins(name: str, part: str, word: str = "[a-z0-9]") -> bool:
    return bool(part) and name.startswith(part) and not re.match(word, name[len(part) :])
