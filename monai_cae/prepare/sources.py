"""Which raw scans are there: one scan, a folder of images, BIDS, a study's download, or DICOM."""

from __future__ import annotations

import re
import unicodedata
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from monai_cae.data.cohort.matching import match, other_formats
from monai_cae.data.cohort.persons import loose, name_persons, split_session, subject_of
from monai_cae.data.cohort.pseudonyms import pseudonym
from monai_cae.data.cohort.tables import SUFFIXES, find_table
from monai_cae.data.layouts.base import IMAGE_SUFFIXES, Asked, header_of, walk
from monai_cae.data.layouts.bids import description
from monai_cae.data.layouts.derivative import TOOL
from monai_cae.data.scan import Note, Scan
from monai_cae.errors import MonaiCaeError
from monai_cae.prepare.conversion import convert
from monai_cae.prepare.dicom import Series, is_dicom, read_series
from monai_cae.prepare.masks import find_masks, is_mask
from monai_cae.prepare.raw import RawScan, read_raw
from monai_cae.prepare.series import choose_series
from monai_cae.prepare.studies import Found, read_study

# Ends of names: BIDS's, BraTS's, and those of folders that were made by hand.
_T1W = re.compile(r"(?:^|[_. -])(?:t1w?|mp-?rage)$", re.IGNORECASE)
_TIME = re.compile(r"(?:^|[_. -])t[3-9]$", re.IGNORECASE)  # beside it, t1 and t2 are points in time
_OTHER_CONTRAST = re.compile(
    r"(?:^|[_. -])(?:t1(?:ce?|gd|map)|t2(?:w|star)?|flair|pdw?|dwi|adc|bold|swi|seg|labels?)$", re.IGNORECASE
)
# letters that Unicode does not take apart
_LATIN = str.maketrans(
    {"ß": "ss", "æ": "ae", "Æ": "AE", "œ": "oe", "Œ": "OE", "ø": "o", "Ø": "O", "ł": "l", "Ł": "L", "đ": "d", "Đ": "D",
     "ð": "d", "Ð": "D", "þ": "th", "Þ": "Th", "ı": "i"}
)  # fmt: skip


@dataclass(frozen=True)
class Source:
    """One raw scan, before it is read.

    Attributes:
        subject, session: BIDS labels, without "sub-" and "ses-"; the session may be "".
        path: the NIfTI or Analyze file; None for DICOM.
        series: the DICOM series; None for files.
        orientation: of a file's axes, where it is not the file's own, see `read_raw`.
        mask: of another tool.
        row: of the cohort's table; None where the table has none.
        shown: how the input is named in the output; "" where that could name somebody.
        lines: what was chosen and passed over for this scan, a line each.
        error: why it can't be prepared, where that is known already.
    """

    subject: str
    session: str = ""
    path: Path | None = field(default=None, repr=False)
    series: Series | None = field(default=None, repr=False)
    orientation: str = ""
    mask: Path | None = None
    row: Scan | None = field(default=None, repr=False)
    shown: str = ""
    lines: tuple[str, ...] = ()
    error: str = ""

    @property
    def name(self) -> str:
        """As BIDS names it: "sub-01_ses-02"."""
        return f"sub-{self.subject}" + (f"_ses-{self.session}" if self.session else "")

    def read(self) -> RawScan:
        """The scan; MonaiCaeError where it can't be read."""
        if self.error:
            raise MonaiCaeError(self.error)
        if self.series is not None:
            return convert(self.series, self.name)
        assert self.path is not None
        scan = read_raw(self.path, self.orientation, name=self.name)
        return replace(scan, source=self.shown)


@dataclass(frozen=True)
class Sources:
    """What is to be prepared.

    Attributes:
        layout: what kind of input it is, in words.
        scans: in the order of their names.
        notes: what was guessed, and what was left out.
        private: IDs are replaced by pseudonyms.
        described: what the nearest dataset_description.json says, of the input or a folder that it lies in.
    """

    layout: str
    scans: list[Source]
    notes: list[Note] = field(default_factory=list)
    private: bool = False
    described: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Wanted:
    """What the user says of the input.

    Attributes:
        asked: how the cohort is read; of it table, columns, subject_pattern, acquisition, run ("" is the layout's own
            rule), days and allow_outside count.
        subject: the BIDS label of the only subject.
        series: which DICOM series, see `choose_series`.
        orientation: of all files, see `read_raw`.
        mask: another tool's: a file, a folder, or None.
        hash_ids: pseudonyms instead of IDs.
        progress: wraps the DICOM files while their headers are read.
    """

    asked: Asked = field(default_factory=lambda: Asked(run=""))
    subject: str = ""
    series: str = ""
    orientation: str = ""
    mask: Path | None = None
    hash_ids: bool = False
    progress: Callable[[Iterable[Any]], Iterable[Any]] = iter


def find_sources(path: str | Path, wanted: Wanted | None = None) -> Sources:
    """Find the raw scans in a file or folder.

    Raises:
        MonaiCaeError: nothing there, no scan, DICOM and other images mixed, a folder that has been prepared, subjects
            that need an option, two scans of one name, a mask or a table that does not fit, no access.
    """
    root, wanted = Path(path), wanted or Wanted()
    try:
        found = _found(root, wanted)
    except MonaiCaeError as error:
        if not isinstance(error.__cause__, OSError):
            raise
        why = f"can't read a folder in {root} ({error.__cause__.strerror}): check the permissions of all below it"
        raise MonaiCaeError(why) from None  # the folder's own name may be somebody's
    rows, notes = _rows(root, found, wanted.asked)
    if found.orientation and not wanted.orientation:
        notes.append(Note(f"{found.layout} record no orientation: read as {found.orientation}"))
    private = wanted.hash_ids or (found.private and not wanted.asked.subject_pattern)
    names = [name for name in {**found.files, **found.visits} if name in rows or name in found.named]
    scans, owners = [], []
    for name in names:
        row, (subject, session) = rows.get(name), found.named.get(name, ("", ""))
        owners.append(subject or (row.subject if row else ""))
        if row:
            subject, session = row.subject, row.session or session
        if private and not wanted.subject:
            subject = pseudonym(subject)
        file = None if name in found.visits else found.files[name]
        scans.append(
            Source(
                subject=_label(wanted.subject or subject, "sub-"),
                session=_label(session, "ses-"),
                path=file,
                orientation=(wanted.orientation or found.orientation) if file else "",
                row=row,
                shown="" if wanted.hash_ids or file is None else _below(file, root),
                **({} if file else _chosen(found.visits[name], wanted.series)),
            )
        )
    if not scans:
        raise MonaiCaeError(f"no image in {root} has a row that tells whose it is: name another --table")
    _refuse_clashes(scans, owners, wanted)
    notes += [] if private else _renamed(scans, owners)
    told = next(filter(None, map(description, (root, *root.absolute().parents))), {})
    masks = find_masks([(scan.name, name) for scan, name in zip(scans, names, strict=True)], wanted.mask)
    masked = [replace(scan, mask=mask) for scan, mask in zip(scans, masks, strict=True)]
    if len(masked) == 1 and masked[0].error:
        raise MonaiCaeError(masked[0].error)
    return Sources(found.layout, sorted(masked, key=lambda scan: scan.name), [*found.notes, *notes], private, told)


def _found(root: Path, wanted: Wanted) -> Found:
    if root.is_file():
        if is_dicom(root):
            return _dicom([root], root.parent, wanted)
        file = Path(header_of(str(root)))
        if not file.is_file():
            raise MonaiCaeError(f"{file.name} is missing next to {root.name}: copy the scan again")
        if not file.name.lower().endswith(IMAGE_SUFFIXES):
            raise MonaiCaeError(f"{root.name} is no DICOM, .nii, .nii.gz or .hdr/.img file{other_formats([root])}")
        return Found("one scan", {file.name: file}, named={file.name: subject_of(file)})
    if not root.is_dir():
        raise MonaiCaeError(f"nothing at {root}: give a scan or a folder of scans")
    if any(
        str(one.get("Name", "")) == TOOL for one in description(root).get("GeneratedBy", []) if isinstance(one, dict)
    ):
        raise MonaiCaeError(f"{root} has been prepared already: monai-cae cohort {root} reads it")
    if study := read_study(root, wanted.asked, wanted.progress):
        return study
    files = list(walk(root))
    images_there = [path for path in files if path.name.lower().endswith(IMAGE_SUFFIXES)]
    others = [
        path for path in files if path not in set(images_there) and path.suffix.lower() not in (*SUFFIXES, ".img")
    ]
    dicom = [path for path in others if is_dicom(path)]
    if dicom and images_there:
        raise MonaiCaeError(
            f"{len(dicom)} DICOM files and {len(images_there)} NIfTI or Analyze images are mixed: give each its folder"
        )
    if dicom:
        return _dicom(dicom, root, wanted)
    if not images_there:
        raise MonaiCaeError(f"no scan in {root}: neither DICOM nor .nii, .nii.gz or .hdr/.img{other_formats(files)}")
    return _folder(images_there, root, wanted.asked)


def _folder(files: Sequence[Path], root: Path, asked: Asked) -> Found:
    """Images named after their scans; where the names repeat, after their folders."""
    stems = {path: _stem(path) for path in files}
    scans = [path for path in files if not is_mask(stems[path])] or files
    notes = [Note(f"{len(files) - len(scans)} images are masks by their names")] if len(scans) < len(files) else []
    times = any(_TIME.search(stem) for stem in stems.values())
    others = set() if times else _other_contrasts(scans, stems)
    if others:
        examples = tuple(stems[path] for path in scans if path in others)[:3]
        notes.append(Note(f"{len(others)} images are no T1w scans by their names", examples))
        scans = [path for path in scans if path not in others]
    names, by_folder = {path: stems[path] for path in scans}, False
    if len(set(names.values())) < len(scans):
        names, by_folder = {path: path.parent.relative_to(root).as_posix().replace("/", "_") for path in scans}, True
        if len(set(names.values())) < len(scans):
            twice = next(name for name, count in Counter(names.values()).items() if count > 1)
            raise MonaiCaeError(f"several images in {root / twice}: leave one scan in each folder, or give BIDS")
        notes.append(Note("scans are named after their folders", tuple(list(names.values())[:3])))
    owners = {path: name if times else _T1W.sub("", name) or name for path, name in names.items()}
    split = {path: (name, "") if by_folder else _written(name) for path, name in owners.items()}
    if asked.subject_pattern:
        split = {path: (path.relative_to(root).with_name(stems[path]).as_posix(), "") for path in scans}
    written = [Scan(subject=subject, session=session, image=path) for path, (subject, session) in split.items()]
    persons, guessed = name_persons(written, asked.subject_pattern, str(root))
    named = {names[path]: (one.subject, one.session) for path, one in zip(names, persons, strict=True)}
    found = {name: path for path, name in names.items()}
    return Found("a folder of scans", found, named=named, notes=[*notes, *guessed])


def _other_contrasts(scans: Sequence[Path], stems: Mapping[Path, str]) -> set[Path]:
    """What is named after another contrast than T1w, where some of it lies beside its T1w scan, as p1_FLAIR beside
    p1_T1w or p1, and T2 beside T1."""
    others = {path for path in scans if _OTHER_CONTRAST.search(stems[path])}
    t1w = {(path.parent, _T1W.sub("", stems[path])) for path in scans if path not in others}
    return others if any((path.parent, _OTHER_CONTRAST.sub("", stems[path])) in t1w for path in others) else set()


def _stem(path: Path) -> str:
    return path.name[: -len(next(end for end in IMAGE_SUFFIXES if path.name.lower().endswith(end)))]


def _written(name: str) -> tuple[str, str]:
    """Subject and session as BIDS or OASIS write them; of other names nothing is cut yet."""
    found = subject_of(f"{name}.nii")
    return (name, "") if found == split_session(name) else found


def _dicom(files: Sequence[Path], root: Path, wanted: Wanted) -> Found:
    """The visits: one for each study of a patient. The series is chosen later."""
    series, left_out = read_series(wanted.progress(files))
    if not series:
        why = ", ".join(f"{count} {reason}" for reason, count in left_out.items()) or "none is readable"
        raise MonaiCaeError(f"no image in {len(files)} DICOM files ({why})")
    pattern = wanted.asked.subject_pattern
    subjects = {one.uid + one.study: _found_by(pattern, one.files, root) if pattern else one.subject for one in series}
    visits: dict[str, dict[str, list[Series]]] = defaultdict(lambda: defaultdict(list))
    for one in series:
        visits[subjects[one.uid + one.study]][one.study].append(one)
    if not wanted.subject and not pattern and any(not one.patient_id for one in series) and len(visits) > 1:
        raise MonaiCaeError(
            "some of these DICOM files have no patient ID: tell subjects by folders with --subject-pattern"
        )
    found: dict[str, list[Series]] = {}
    named: dict[str, tuple[str, str]] = {}
    for subject, studies in visits.items():
        for number, study in enumerate(sorted(studies, key=lambda study: (studies[study][0].when, study)), start=1):
            first = studies[study][0]
            session = str(number) if len(studies) > 1 else ""
            shown = subject if pattern else first.patient_id or first.study
            name = f"{shown}_{session}" if session else shown
            found[name], named[name] = studies[study], (shown, session)
    notes = [Note(f"{count} {reason} passed over") for reason, count in left_out.items()]
    several = sum(len(studies) > 1 for studies in visits.values())
    if several:
        notes.append(
            Note(f"{several} patients have several studies: their sessions are numbered in the order of the dates")
        )
    return Found("DICOM", visits=found, named=named, notes=notes, private=True)


def _found_by(pattern: str, files: Sequence[Path], root: Path) -> str:
    """The subject in the paths of a series; the path itself is not shown, as it may name somebody."""
    try:
        hits = [re.search(pattern, file.absolute().relative_to(root.absolute()).as_posix()) for file in files]
    except re.error as error:
        raise MonaiCaeError(f"--subject-pattern is not a regular expression ({error}): correct it") from error
    found = {hit[1] if hit.re.groups else hit[0] for hit in hits if hit}
    if len(found) != 1 or not all(hits):
        raise MonaiCaeError(
            f"--subject-pattern finds {len(found) or 'no'} subjects in the paths of one series: correct it"
        )
    return found.pop()


def _chosen(visit: Sequence[Series], wanted: str) -> dict[str, Any]:
    try:
        choice = choose_series(visit, wanted)
    except MonaiCaeError as error:
        return {"error": str(error)}
    return {"series": choice.series, "lines": tuple(choice.lines)}


def _rows(root: Path, found: Found, asked: Asked) -> tuple[dict[str, Scan], list[Note]]:
    """The row of each scan by the scan's name: that of the session, else the only one of the subject."""
    folder, read = root if root.is_dir() else root.parent, found.rows
    if read is None:
        tables = [path for path in folder.iterdir() if path.suffix.lower() in SUFFIXES] if root.is_dir() else []
        if not asked.table and not tables:
            return {}, []
        table = Path(asked.table) if asked.table else find_table(folder)
        read = replace(asked, subject_pattern="" if found.visits else asked.subject_pattern).rows(table)
    matched, notes = match(read.scans, found.files, folder, asked.allow_outside)
    by_path = {path.absolute(): name for name, path in found.files.items()}
    rows = {by_path[row.image.absolute()]: row for row in matched if row.image and row.image.absolute() in by_path}
    by_name: dict[str, list[Scan]] = defaultdict(list)
    for row in read.scans:
        by_name[loose(row.name)].append(row)
    for name, (subject, session) in found.named.items():
        for key in (f"{subject}_{session}" if session else subject, subject):
            if name not in rows and len(alike := by_name.get(loose(key), [])) == 1:
                rows[name] = alike[0]
    alone = [name for name in {**found.files, **found.named} if name not in rows]
    without = "without a row in the table" + (", left out" if alone[:1] and alone[0] not in found.named else "")
    told = [Note(f"{len(alone)} scans {without}", () if found.private else tuple(alone[:3]))]
    unused = len(read.scans) - len({id(row) for row in rows.values()})
    left = [Note(f"{unused} rows of the table have no scan here and are not carried over")] if unused > 0 else []
    shown = [] if found.private else [*read.notes, *notes]
    return rows, [*shown, *(told if alone else []), *left]


def _label(name: str, prefix: str) -> str:
    """As BIDS writes labels, letters and digits alone: Müller is Muller; MonaiCaeError where a letter has no such."""
    plain = unicodedata.normalize("NFKD", name.removeprefix(prefix).translate(_LATIN))
    left = "".join(letter for letter in plain if letter.isalnum())
    if not left.isascii():
        raise MonaiCaeError(
            "a subject's or session's name has letters that a BIDS label can't have, which has A to Z and digits "
            "alone: rename the files or folders, or find the number in them with --subject-pattern"
        )
    return left


def _renamed(scans: Sequence[Source], owners: Sequence[str]) -> list[Note]:
    """Whose name has lost an accent in the label."""
    pairs = zip(owners, scans, strict=True)
    found = dict.fromkeys(f"{owner} -> sub-{scan.subject}" for owner, scan in pairs if not owner.isascii())
    return [Note("labels of BIDS have no umlauts and accents", tuple(found)[:3])] if found else []


def _below(path: Path, root: Path) -> str:
    return path.relative_to(root).as_posix() if root.is_dir() else path.name


def _refuse_clashes(scans: Sequence[Source], subjects: Sequence[str], wanted: Wanted) -> None:
    if wanted.subject and len(set(subjects)) > 1:
        raise MonaiCaeError(
            f"--subject names one subject, and there are {len(set(subjects))}: give one a run of its own"
        )
    if wanted.subject and re.search(r"[^A-Za-z0-9]", wanted.subject.removeprefix("sub-")):
        raise MonaiCaeError("--subject must have letters and digits alone, as BIDS labels do")
    owners: dict[str, str] = {}
    for scan, subject in zip(scans, subjects, strict=True):
        if not scan.subject:
            raise MonaiCaeError(f"{subject} has no letter or digit to name a subject by: give --subject-pattern")
        if loose(owners.setdefault(scan.subject, subject)) != loose(subject):
            raise MonaiCaeError(f"{owners[scan.subject]} and {subject} would both be sub-{scan.subject}: rename one")
    twice = [name for name, count in Counter(scan.name for scan in scans).items() if count > 1]
    if twice:
        raise MonaiCaeError(
            f"{len(twice)} scans have the name of another, the first is {twice[0]}: name their sessions too"
        )
