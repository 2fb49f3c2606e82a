"""One key per subject, however a table, a folder or a datalist names the subject's scans."""

from __future__ import annotations

import re
import unicodedata
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from monai_cae.data.scan import Note, Scan
from monai_cae.data.texts import shown
from monai_cae.errors import MonaiCaeError

# Ways to write a session behind a person's ID: OAS1_0001_MR2, OAS30001_MR_d0129, sub-01_ses-M48, P7-visit2.
_SESSION = re.compile(
    r"[_-](ses-[a-z0-9]+|(?:ses|session|visit)[_-]?[a-z]{0,2}\d+|mr[_-]?d?\d+|d\d{3,5})$", re.IGNORECASE
)
# Ends that may be a visit, or a subject's number within a site: S01_2, 1234-m06, P3_bl, S01b, x_20120314.
_PERHAPS_VISIT = re.compile(
    r"(?:[_. -]+(?:[a-z]{0,9}[_-]?\d{1,2}|\d{1,2}(?:y|yr|m|mo|w)|\(\d{1,2}\)|bl|sc|pre|post|baseline|follow-?up\d*"
    r"|[a-z]|(?:19|20)\d\d-?\d\d-?\d\d)|(?<=\d)[a-z]\d{0,2})$",
    re.IGNORECASE,
)
# Persons' IDs of known cohorts within longer names, such as LONI's ADNI_002_S_0413_MR_MPR_S1_I40000.
_KNOWN = re.compile(
    r"\d{3}_S_\d{4,5}(?!\d)|OAS[12]_\d{4}|OAS3\d{4}|(?:IXI|miriad_)\d{3}(?!\d)|NACC\d{6}", re.IGNORECASE
)
_NUMBER = re.compile(r"[_. -]+\d{1,2}")  # an end that is a subject's number where the stem is a site's
_MOST_VISITS = 12  # of one person; a stem that more names share is a site's
_MISTAKES = 0.1  # of the stems may have both sexes by mistakes in the table, before they are sites'
_FEWEST_PERSONS = 3
_JOINING = (
    f"({_KNOWN.pattern})",
    "(.+)[_. -]",
    r"(.+\d)[a-zA-Z]\d*$",
    "(.+?)[_. -]",
    r"(\D*\d+)",
    "(?:sub-)?0*(.+)",
)
_BASELINE = re.compile(r"^(?:ses-)?(?:bl|baseline|sc|scr|screening|init|pre)$")
_SUFFIXES = (".nii.gz", ".nii", ".hdr", ".img")
# How Clinica and XNAT write IDs: 002_S_0413 as ADNI002S0413, OAS1_0001 as OASIS10001, OAS30001_MR_d0129 as ses-d0129.
_CONVERTED = (
    (re.compile(r"\.(?:nii(?:\.gz)?|hdr|img)$"), ""),
    (re.compile(r"^(?:adni|aibl|nifd|ukb|habs|ixi)[_-]?(?=\d)"), ""),
    (re.compile(r"^oasis([12])[_-]?(?=\d{4})"), r"oas\1_"),
    (re.compile(r"[_-]mr[_-]?(?=d\d)"), "_"),
    (re.compile(r"(?:^|[_-])(?:bl|baseline|sc|screening)$"), "_m0"),
)
_COMPACT_OASIS = re.compile(r"oas(?:is)?[_-]?([12])[_-]?(\d{4})(?:[_-]?mr\d+)?")
_COMPACT_ADNI = re.compile(r"(?:adni[_-]?)?(\d{3})[_-]?s[_-]?(\d{4,5})")
_BIDS_ENTITIES = re.compile(r"^sub-([A-Za-z0-9]+)(?:_ses-([A-Za-z0-9]+))?(?:_|$)")


def split_session(name: str) -> tuple[str, str]:
    """A name without the session at its end, and the session; "" if no end is certainly a session."""
    name = name.strip()
    match = _SESSION.search(name)
    return (name[: match.start()], match[1]) if match and match.start() else (name, "")


def person(name: str) -> str:
    """One spelling for all scans of a subject: no session at the end, no "sub-", no surrounding spaces, lower case, and
    umlauts as one letter (macOS makes two)."""
    return folded(split_session(name)[0]).removeprefix("sub-")


def spellings(name: str) -> set[str]:
    """The ways in which a person of a known study is written, as `person` has them; of other names the one.

    What programs make of an ID as they write BIDS has no punctuation: OAS1_0001 is "sub-OAS10001", or Clinica's
    "sub-OASIS10001", and 002_S_0295 is "sub-002S0295" or "sub-ADNI002S0295".
    """
    own = person(name)
    if found := _COMPACT_OASIS.fullmatch(own):
        return {own, f"oas{found[1]}_{found[2]}", f"oas{found[1]}{found[2]}", f"oasis{found[1]}{found[2]}"}
    if found := _COMPACT_ADNI.fullmatch(own):
        site, number = found.groups()
        return {own, f"{site}_s_{number}", f"{site}s{number}", f"adni{site}s{number}"}
    return {own}


def folded(name: str) -> str:
    """Lower case, and composed letters."""
    return unicodedata.normalize("NFC", name.casefold())


def loose(name: str) -> str:
    """A name without what programs lose or add: case, leading zeros, punctuation, "sub-", "ses-", a study's name in
    front, and "bl" for month 0.

    "sub-007_ses-M048", "7_M48" and "007-m48" are one, "sub-ADNI002S0413_ses-M000" and "002_S_0413_bl" too; "7" and "70"
    are not.
    """
    bare = folded(without_prefixes(name))
    for written, usual in _CONVERTED:
        bare = written.sub(usual, bare)
    return "_".join(part.lstrip("0") or "0" for part in re.findall(r"[^\W\d_]+|\d+", bare)) or bare


def without_prefixes(name: str) -> str:
    """A name without the "sub-" and "ses-" of BIDS."""
    return re.sub(r"(^|_)(?:sub|ses)-", r"\1", name.strip())


def natural(name: str) -> list[tuple[int, int, str]]:
    """A key that sorts visits: by number ("M6" before "M12"), baseline first, dates in any usual format."""
    plain = _BASELINE.sub("", name.casefold())
    if day := re.fullmatch(r"(\d\d?)[./](\d\d?)[./](\d{4})", plain):
        # 9/13/2006 has the month first, 13.9.2006 the day; where both are possible, / is taken as American
        american = int(day[2]) > 12 or ("/" in plain and int(day[1]) <= 12)
        plain = "-".join((day[3], *(day[1], day[2])[:: 1 if american else -1]))
    parts = re.findall(r"\d+|\D+", plain)
    return [(0, int(part), "") if part.isdecimal() else (1, 0, part) for part in parts]


def subject_of(path: str | Path) -> tuple[str, str]:
    """Subject and session of an image by its file's name, as BIDS or OASIS write them; else the name without suffix,
    and "" for the session."""
    name = Path(path).name
    suffix = next((suffix for suffix in _SUFFIXES if name.lower().endswith(suffix)), "")
    name = name[: len(name) - len(suffix)]
    if bids := _BIDS_ENTITIES.match(name):
        return f"sub-{bids[1]}", f"ses-{bids[2]}" if bids[2] else ""
    if oasis := re.match(r"(OAS1_\d{4}|OAS3\d{4})_(MR\d+|MR_d\d+)(?:_|$)", name):
        return oasis[1], oasis[2]
    return split_session(name)


def name_persons(
    scans: Sequence[Scan], pattern: str = "", where: str = "the datalist"
) -> tuple[list[Scan], list[Note]]:
    """Separate subjects from sessions in the names of scans, or refuse to guess.

    Args:
        scans: their `subject` is the name as written, of a subject or of a scan.
        pattern: a regular expression that finds the subject in the name, by its first group or its whole match:
            "^(OAS3\\d{4})", or "(.+)" for the whole name; "" removes what is certainly a session.
        where: names the table or datalist in errors.

    Returns:
        The scans, with one spelling per subject, and what was guessed.

    Raises:
        MonaiCaeError: a pattern that does not fit, or names that may be of one subject or several.
    """
    try:
        read = re.compile(pattern) if pattern else None
    except re.error as error:
        wrong = f"subject_pattern {shown(pattern)} is not a regular expression ({error}): correct it"
        raise MonaiCaeError(wrong) from error
    split = [split_session(scan.subject) if read is None else _found(read, scan.subject, where) for scan in scans]
    keys = [folded(subject) if pattern else person(subject) for subject, _ in split]
    spelling: dict[str, str] = {}
    for key, (subject, _) in zip(keys, split, strict=True):
        spelling.setdefault(key, subject)
    named = [
        replace(scan, subject=spelling[key], session=scan.session or session)
        for scan, key, (_, session) in zip(scans, keys, split, strict=True)
    ]
    if not pattern:
        _refuse_doubtful(scans, named, where)
    cut = [
        f"{scan.subject} -> {new.subject}"
        for scan, new in zip(scans, named, strict=True)
        if scan.subject.strip() != new.subject
    ]
    how = (
        f"subjects as --subject-pattern {pattern} finds them" if pattern else "subjects without the session in their ID"
    )
    return named, [Note(how, tuple(cut[:3]))] if cut else []


def maybe_one_person(sexes: Mapping[str, str]) -> list[list[str]]:
    """Groups of names that are different as written, and may be one person all the same; each comes with its sex.

    They differ in case, punctuation and zeros only, or in an end that may be a visit's. The latter is ruled out for all
    of them where a stem has both sexes or more names than a person has visits, or where fewer than three persons would
    be left: then the stem is a site's or a group's.
    """
    alike = defaultdict(list)
    for name in sexes:
        known = _KNOWN.search(name)
        alike[loose(known[0] if known else name)].append(name)
    groups = [group for group in alike.values() if len(group) > 1]
    for numbers in (True, False):  # a site's subjects have numbers: they say nothing of names that end in "bl" or "m12"
        groups += [group for group in _visits(sexes, numbers) if group not in groups]
    return groups


def _visits(sexes: Mapping[str, str], numbers: bool) -> list[list[str]]:
    """Names that share a stem, as visits of one person do, by ends that are numbers or by all others."""
    stems = defaultdict(list)
    for name in sexes:
        bare = folded(name).removeprefix("sub-")
        end = _PERHAPS_VISIT.search(bare)
        cut = end and end.start() and bool(_NUMBER.fullmatch(end[0])) == numbers
        stems[bare[: end.start()] if end and cut else bare].append(name)
    visits = [group for group in stems.values() if len(group) > 1]
    return [] if len(stems) < _FEWEST_PERSONS or _are_sites(visits, sexes) else visits


def _are_sites(groups: Sequence[Sequence[str]], sexes: Mapping[str, str]) -> bool:
    both = sum({"F", "M"} <= {sexes[name] for name in group} for group in groups)
    return both > _MISTAKES * len(groups) or any(len(group) > _MOST_VISITS for group in groups)


def _found(pattern: re.Pattern[str], name: str, where: str) -> tuple[str, str]:
    match = pattern.search(name)
    group = 1 if pattern.groups else 0
    if not match or not match[group]:
        raise MonaiCaeError(
            f"{where}: subject_pattern {shown(pattern.pattern)} finds no subject in the ID {shown(name)}: correct it"
        )
    return match[group], name[match.end(group) :].strip("_-. ")


def _refuse_doubtful(scans: Sequence[Scan], named: Sequence[Scan], where: str) -> None:
    sexes = {scan.subject: scan.sex for scan in named}
    bids = all(re.fullmatch("sub-[A-Za-z0-9]+", name) for name in sexes)
    written: dict[str, dict[str, str]] = defaultdict(dict)  # person -> names as they are written, with the sex
    for scan, new in zip(scans, named, strict=True):
        written[new.subject][scan.subject] = scan.sex
    cut = [list(names) for names in written.values() if len(names) > 1 and len(set(map(person, names))) == 1]
    if _are_sites(cut, {name: sex for names in written.values() for name, sex in names.items()}):
        raise _ask(where, max(cut, key=len)[:2], [scan.subject for scan in scans])
    for group in maybe_one_person(sexes):
        if bids and len({loose(name) for name in group}) > 1:
            continue  # in BIDS a label is a person, and its session stands apart
        raise _ask(where, [next(iter(written[name])) for name in group[:2]], [scan.subject for scan in scans])


def _ask(where: str, two: Sequence[str], names: Sequence[str]) -> MonaiCaeError:
    """Whether two names are one person; of the usual patterns that say so, the one that joins the fewest others."""
    found = {}
    for pattern in _JOINING:
        persons = [match[1] if (match := re.search(pattern, name)) else "" for name in (*two, *names)]
        if persons[0] == persons[1] and all(persons):
            found[pattern] = (len(set(map(folded, persons))), persons[0])
    best = max(found, key=lambda pattern: found[pattern][0], default="")
    one = f", '{best}' takes both as {found[best][1]}" if best else ""
    return MonaiCaeError(
        f"{where}: are {two[0]} and {two[1]} one subject or two? Say so with --subject-pattern: '(.+)' takes every ID "
        f"as a subject{one}; or name the subject column with --subject-column"
    )
