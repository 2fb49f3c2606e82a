"""The audit: compares names, files and pixels of the three sets, to find test subjects in training."""

from __future__ import annotations

import os
import re
from collections import defaultdict
from collections.abc import Callable, Hashable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from hashlib import blake2b
from itertools import combinations
from operator import attrgetter
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from monai_cae.data.cohort.demographics import compare_ages, compare_shares
from monai_cae.data.cohort.persons import maybe_one_person, person, split_session
from monai_cae.data.cohort.pseudonyms import hash_subject, names_of
from monai_cae.data.cohort.selection import Labels, PatientsAndControls
from monai_cae.data.images.extraction import PAPER_SLICE, Extraction
from monai_cae.data.images.frames import frame_lines
from monai_cae.data.images.readers import read_image
from monai_cae.data.images.scan_quality import recorded
from monai_cae.data.scan import BadScan
from monai_cae.data.splits.findings import Audit, Found, Report
from monai_cae.data.splits.near_duplicates import THRESHOLD, WAVES, describe_image, near_duplicates
from monai_cae.data.splits.sets import Sets
from monai_cae.errors import MonaiCaeError

_Array = NDArray[Any]
_Progress = Callable[[Iterable[Any]], Iterable[Any]]

PRETRAINING = "Test subject in pretraining"  # the check of that name
ALIKE = "Names that may be one subject"
TWICE = ("Same file", "Same pixels")  # leaks between sets; within one an image that counts twice
EARLIER = "earlier training"  # where images are that a checkpoint has seen
WARN_P = 0.01  # of chance differences between sets, one in a hundred is reported


def audit_sets(
    training: Sequence[Mapping[str, Any]],
    validation: Sequence[Mapping[str, Any]],
    test: Sequence[Mapping[str, Any]],
    *,
    extraction: Extraction = PAPER_SLICE,
    pixels: bool = True,
    synthetic: bool = False,
    pretrained_on: Sequence[str] = (),
    trained_on: Sequence[Mapping[str, Any]] = (),
    name_files: bool = True,
    bad_scans: Sequence[BadScan] = (),
    progress: _Progress | None = None,
    target: Labels | None = None,
) -> Audit:
    """Look for subjects, files and images that two sets share, and for sets that differ in class, age or sex.

    Subjects are compared without regard to case, and without a session at the end of the name (_MR2, _ses-01); names
    that may be one person all the same are asked about. Found in pixels: the same values in any number format;
    neighbouring slices, slabs that overlap; and copies that were rescaled in intensity or size, mirrored, slightly
    blurred, noisy, or moved by a pixel. `NOT_CHECKED` says what passes unseen.

    Args:
        training, validation, test: items with `image` (a path), `label`, `subject`, and where known
            `session`, `age`, `sex`.
        extraction: what is compared of the images; near-duplicates are looked for in its `sections`.
        pixels: read every image, which takes most of the time; 9 KB of memory per slice, 108 KB per volume.
        synthetic: handed on.
        pretrained_on: `hash_subject` of every subject that a pretrained checkpoint has seen.
        trained_on: items with `image` and `subject` that it has seen; names, files and pixels are compared with theirs.
        name_files: name files that were found twice; their names contain the subjects' IDs.
        bad_scans: those that were left out, handed on.
        progress: wraps the iterable of images, e.g. tqdm.
        target: what the labels are; by default classes, 0 and 1.

    Raises:
        MonaiCaeError: an item lacks its image, label or subject, an image is missing or broken, or pretrained_on has
            something else than hashes.
    """
    target = target or PatientsAndControls()
    members = {
        name: [_member(name, number, item, target) for number, item in enumerate(items, start=1)]
        for name, items in (("training", training), ("validation", validation), ("test", test))
    }
    everyone = [member for one_set in members.values() for member in one_set]
    seen = [_seen(item) for item in trained_on]
    report = Report()
    _check_subjects(report, everyone, seen)
    _check_pretraining(report, members["test"], set(pretrained_on))
    _check_files(report, [*seen, *everyone], name_files)
    _check_pixels(report, [*seen, *everyone], extraction, pixels, progress)
    if target.classes:
        _check_labels(report, everyone)
    _check_balance(report, everyone, target)
    return Audit(
        sets={name: _summary(one_set, target) for name, one_set in members.items()},
        checks=report.checks,
        findings=report.findings,
        synthetic=synthetic,
        bad_scans=recorded(bad_scans),
        notes=frame_lines([member.path for member in everyone] if pixels else [], extraction),
    )


def audit_datalist(sets: Sets, extraction: Extraction, **options: Any) -> Audit:
    """`audit_sets`, which has the options, of what was read from a datalist."""
    known: dict[str, Any] = {"synthetic": sets.synthetic, "name_files": not sets.hashed, "bad_scans": sets.bad_scans}
    return audit_sets(sets.training, sets.validation, sets.test, extraction=extraction, **known, **options)


@dataclass(frozen=True)
class _Member:
    set: str
    subject: str  # as the item writes it
    person: str
    session: str
    path: str
    label: float
    age: float | None
    sex: str

    def __str__(self) -> str:
        return f"{self.set}: {self.subject}/{self.session}" if self.session else f"{self.set}: {self.subject}"

    @property
    def scan(self) -> str:
        return (self.session or split_session(self.subject)[1]).casefold()


def _member(set_name: str, number: int, item: Mapping[str, Any], target: Labels) -> _Member:
    image, label, subject, age = (item.get(key) for key in ("image", "label", "subject", "age"))
    if not (isinstance(image, (str, Path)) and isinstance(subject, str) and subject.strip()):
        raise MonaiCaeError(f"item {number} of {set_name} has no image or no subject: both are needed")
    if not isinstance(age, (int, float, type(None))):
        raise MonaiCaeError(f"the age of {subject} in {set_name} is {age!r}; it must be a number of years, or left out")
    return _Member(
        set=set_name,
        subject=subject,
        person=person(subject),
        session=str(item.get("session") or ""),
        path=os.fspath(image),
        label=target.checked(label, f"the label of {subject} in {set_name}"),
        age=None if age is None or np.isnan(age) else float(age),
        sex=str(item.get("sex") or "")[:1].upper(),
    )


def _seen(item: Mapping[str, Any]) -> _Member:
    """Of an item that is in no set, of which only name and image are compared."""
    name = item["subject"]
    return _Member(EARLIER, name, person(name), str(item.get("session") or ""), item["image"], np.nan, None, "")


def _groups(members: Iterable[_Member], keys: Iterable[Hashable]) -> list[list[_Member]]:
    """Those that share a key, where more than one does."""
    groups = defaultdict(list)
    for member, key in zip(members, keys, strict=True):
        groups[key].append(member)
    return [group for group in groups.values() if len(group) > 1]


def _tested(group: list[_Member]) -> list[_Member]:
    """Without what a network has seen earlier, unless somebody is tested on it: others may be trained on again."""
    names = _sets_of(group)
    return group if "test" in names else [member for member in group if member.set != EARLIER]


def _scans_of_one(everyone: list[_Member]) -> list[list[_Member]]:
    return _groups(everyone, map(attrgetter("person"), everyone))


def _sets_of(members: Iterable[_Member]) -> list[str]:
    return list(dict.fromkeys(member.set for member in members))


def _check_subjects(report: Report, everyone: list[_Member], seen: list[_Member]) -> None:
    same, rescans, alike = list[Found](), list[Found](), list[Found]()
    for group in _scans_of_one(everyone):
        names = _sets_of(group)
        if len(names) > 1:
            scans = [{member.scan for member in group if member.set == name} for name in names]
            apart = all(first.isdisjoint(second) for first, second in combinations(scans, 2))
            what, found = ("different scans of subject", rescans) if apart else ("subject", same)
            found.append((True, f"{what} {group[0].subject} in {' and in '.join(names)}", group))
    people = {member.person: member for member in reversed([*everyone, *seen])}
    for persons in maybe_one_person({name: member.sex for name, member in reversed(people.items())}):
        group = _tested([member for member in (*everyone, *seen) if member.person in persons])
        if len(names := _sets_of(group)) > 1:
            who = " and ".join(people[person].subject for person in persons[:3])
            alike.append((False, f"are {who} one subject? They are in {' and in '.join(names)}", group))
    for check, looks_for, found in (
        ("Subject in two sets", "a subject in two sets, under any spelling of its name", same),
        ("Rescan in another set", "another session of a subject in another set", rescans),
        (
            ALIKE,
            "names in two sets that differ only in zeros, punctuation or an ending that may mean a visit; a question",
            alike,
        ),
    ):
        report.add(check, looks_for, found, compared=len(people), unit="subjects")


def _check_pretraining(report: Report, test: list[_Member], seen: set[str]) -> None:
    for digest in seen:
        if not (isinstance(digest, str) and re.fullmatch(r"k?[0-9a-f]{16}", digest)):
            raise MonaiCaeError(f"pretrained_on must be hashes made by hash_subject, not {digest!r}")
    found: list[Found] = [
        (True, f"test subject {member.subject} was seen by the pretrained checkpoint", [member])
        for member in test
        if seen & {hash_subject(name) for name in names_of(member.subject)}
    ]
    kinds = [{digest.startswith("k") for digest in some} for some in (seen, [hash_subject(m.subject) for m in test])]
    if seen and test and not kinds[0] <= kinds[1]:
        unsure = "the pretrained checkpoint was made with another --hash_ids: which subjects it has seen is unknown"
        found.append((False, unsure, []))
    report.add(
        PRETRAINING,
        "a test subject among those that the pretrained checkpoint has seen",
        found,
        threshold="same hash of the name",
        compared=len(test) if seen else None,
        unit="test items",
    )


def _check_files(report: Report, everyone: list[_Member], name_files: bool) -> None:
    found = list[Found]()
    for group in map(_tested, _groups(everyone, (_file_identity(member.path) for member in everyone))):
        names = _sets_of(group)
        if len(group) < 2 or (EARLIER in names and len({member.person for member in group}) == 1):
            continue  # nobody else, or known by the name
        where = " and in ".join(names) if len(names) > 1 else f"{names[0]} {len(group)} times"
        message = f"the file of subject {group[0].subject} in {where}"
        found.append((len(names) > 1, message, [f"{m.set}: {m.path}" for m in group] if name_files else group))
    report.add(
        TWICE[0],
        "one file under two names (symbolic or hard link) or listed twice; within one set a warning",
        found,
        threshold="same file on disk",
        compared=len(everyone),
        unit="files",
    )


def _file_identity(path: str) -> Hashable:
    """Device and inode, which all links to a file share; of an Analyze pair those of the voxels."""
    image = Path(path)
    try:
        if image.suffix.lower() == ".hdr" and image.with_suffix(".img").exists():
            image = image.with_suffix(".img")
        found = image.stat()
    except OSError as error:
        raise MonaiCaeError(f"no image at {image} ({error.strerror}): check --dataset_dir") from error
    return (found.st_dev, found.st_ino) if found.st_ino else image.resolve()  # some network drives number no files


def _check_pixels(
    report: Report, everyone: list[_Member], extraction: Extraction, wanted: bool, progress: _Progress | None
) -> None:
    digests: list[Hashable] = []
    described: list[tuple[_Array, _Array]] = []
    volumes, resolved = extraction.spatial_dims == 3, wanted
    for member in (everyone if progress is None else progress(everyone)) if wanted else ():
        image = read_image(extraction, member.path)
        digests.append((image.shape, blake2b(image.astype(np.float64).tobytes(), digest_size=16).digest()))
        sections = extraction.sections(image)
        resolved = resolved and all(min(one.shape) >= WAVES for one in sections)
        described += [describe_image(sections, moved=volumes)] if resolved else []
    which, kind = extraction.name, extraction.kind
    also = "moved by a voxel" if volumes else "its neighbour 1 mm away" if kind == "slice" else "one that overlaps"
    report.add(
        TWICE[1],
        f"the same values in {which} of two subjects, in any number format; within one set a warning",
        _same_pixels(everyone, digests) if wanted else (),
        threshold="all values equal",
        compared=len(everyone) if wanted else None,
        unit=f"{kind}s",
    )
    report.add(
        f"Near-duplicate {kind}",
        f"{which} of two subjects in two sets: the same {kind} edited or mirrored, or {also}",
        _near_duplicates(everyone, digests, described, kind) if resolved else (),
        threshold=THRESHOLD,
        compared=sum(len(a) * len(b) for (_, a), (_, b) in _pairs(everyone)) if resolved else None,
        unit=f"pairs of {kind}s",
    )


def _same_pixels(everyone: list[_Member], digests: list[Hashable]) -> Iterator[Found]:
    for group in map(_tested, _groups(everyone, digests)):
        subjects = list({member.person: member.subject for member in group}.values())
        names = _sets_of(group)
        if len(subjects) > 1:
            others = f"{len(subjects) - 1} more" if len(subjects) > 2 else subjects[1]
            message = f"subjects {subjects[0]} and {others} have the same pixels, in {' and in '.join(names)}"
            yield len(names) > 1, message, group


def _pairs(everyone: list[_Member]) -> list[tuple[tuple[str, _Array], tuple[str, _Array]]]:
    """The sets that are compared with each other, with the numbers of their members."""
    parts = {name: np.array([n for n, m in enumerate(everyone) if m.set == name]) for name in _sets_of(everyone)}
    pairs = combinations(parts.items(), 2)
    return [(a, b) for a, b in pairs if EARLIER not in (a[0], b[0]) or "test" in (a[0], b[0])]


def _near_duplicates(
    everyone: list[_Member], digests: list[Hashable], described: list[tuple[_Array, _Array]], kind: str
) -> Iterator[Found]:
    for (first, rows), (second, columns) in _pairs(everyone):
        likes: dict[int, dict[int, float]] = defaultdict(dict)
        ours, theirs = np.stack([described[n][0] for n in rows]), np.stack([described[n][1] for n in columns])
        for row, column, correlation in near_duplicates(ours, theirs):
            for a, b, r in zip(rows[row], columns[column], correlation, strict=True):
                if everyone[a].person != everyone[b].person and digests[a] != digests[b]:
                    likes[b][a] = r
        for b, alike in sorted(likes.items()):
            best, *others = sorted(alike, key=alike.__getitem__, reverse=True)
            more = f" and {len(others)} more" if others else ""
            message = (
                f"subject {everyone[b].subject} of {second} shows almost the same {kind} as subject "
                f"{everyone[best].subject}{more} of {first} (correlation {alike[best]:.2f})"
            )
            yield True, message, [everyone[number] for number in (b, best, *others)]


def _check_labels(report: Report, everyone: list[_Member]) -> None:
    report.add(
        "Contradicting labels",
        "one subject with label 0 and label 1; a warning",
        [
            (False, f"subject {group[0].subject} has both labels", [f"{m} has label {m.label}" for m in group])
            for group in _scans_of_one(everyone)
            if len({member.label for member in group}) > 1
        ],
        compared=len({member.person for member in everyone}),
        unit="subjects",
    )


def _check_balance(report: Report, everyone: list[_Member], target: Labels) -> None:
    """Compare labels, ages and sexes, every subject once."""
    people = list({member.person: member for member in everyone}.values())
    known = {
        "label": people,
        "age": [member for member in people if member.age is not None],
        "sex": [member for member in people if member.sex in ("F", "M")],
    }
    label, labels = ("class", "Classes") if target.classes else (target.name, target.name)
    for name, what, by in (
        (f"{labels} across the sets", "label", "set"),
        ("Age across the sets", "age", "set"),
        ("Age across the classes", "age", "label"),
        ("Sex across the sets", "sex", "set"),
        ("Sex across the classes", "sex", "label"),
    ):
        if by == "label" and not target.classes:
            continue
        groups: dict[Any, list[Any]] = defaultdict(list)
        for member in known[what]:
            groups[getattr(member, by)].append(getattr(member, what))
        numbers = what == "age" or (what == "label" and not target.classes)
        test, p = (compare_ages if numbers else compare_shares)(list(groups.values()))
        differ = p is not None and p < WARN_P
        report.add(
            name,
            f"a difference in {label if what == 'label' else what} that chance does not explain; a warning",
            [(False, f"{name.lower()}: they differ ({test}, p = {p:.2g})", [])] if differ else [],
            threshold=f"{test}, p < {WARN_P}" + ("" if p is None else f"; found p = {p:.2g}"),
            compared=None if p is None else len(known[what]),
            unit="subjects",
        )


def _summary(members: list[_Member], target: Labels) -> dict[str, Any]:
    ages = [member.age for member in members if member.age is not None]
    sd = float(np.std(ages, ddof=1)) if len(ages) > 1 else 0.0
    age = {"n": len(ages), "mean": float(np.mean(ages)), "sd": sd, "min": min(ages), "max": max(ages)} if ages else None
    return {
        "n": len(members),
        "subjects": len({member.person for member in members}),
        "classes": {f"{label:g}": sum(m.label == label for m in members) for label in sorted(target.classes)},
        "age": age,
        "women": sum(member.sex == "F" for member in members),
        "men": sum(member.sex == "M" for member in members),
    }
