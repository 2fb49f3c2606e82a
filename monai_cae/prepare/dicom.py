"""DICOM headers, read in memory and grouped into series. Nothing that names anybody leaves this module.

pydicom reads the headers, because names, dates of birth and IDs are needed to tell patients apart and must not get into
a file, not even dcm2niix's JSON.
"""

from __future__ import annotations

import re
import warnings
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from monai_cae.errors import MonaiCaeError

MISSING = "DICOM needs further packages: pip install 'monai-cae[dicom]'"
_DIRECTORY = "1.2.840.10008.1.3.10"  # the class of a DICOMDIR, which lists other files
_IDENTITY = ("PatientID", "PatientName", "PatientBirthDate", "AccessionNumber")
# Whose words a description must not show, beside those.
_NAMES = (
    "OtherPatientNames", "OtherPatientIDs", "PatientBirthName", "ReferringPhysicianName", "PerformingPhysicianName",
    "RequestingPhysician", "OperatorsName", "InstitutionName",
)  # fmt: skip
_DATE = re.compile(r"\d{6,}|\d{4}[./_-]\d\d?[./_-]\d\d?|\d\d?[./_-]\d\d?[./_-]\d{4}")  # or a number that may be an ID
_GROUPS = ("SharedFunctionalGroupsSequence", "PerFrameFunctionalGroupsSequence")  # of multi-frame files
_TIMES = ("RepetitionTime", "EchoTime", "InversionTime", "FlipAngle")
_READ = [
    *_IDENTITY, *_NAMES, *_GROUPS, *_TIMES, "StudyInstanceUID", "StudyDate", "StudyTime", "SeriesInstanceUID",
    "SOPInstanceUID", "Modality", "ImageType", "SeriesNumber", "SeriesDescription", "ProtocolName", "ScanningSequence",
    "SequenceVariant", "ScanOptions", "MRAcquisitionType", "AngioFlag", "ContrastBolusAgent",
    "ContrastBolusAgentSequence", "EchoPulseSequence", "PulseSequenceName", "SliceThickness", "PixelSpacing",
    "ImageOrientationPatient",
    "ImagePositionPatient", "Rows", "Columns", "BitsAllocated", "SamplesPerPixel", "NumberOfFrames", "InstanceNumber",
]  # fmt: skip
# What an enhanced file calls what a classic one has at the top.
_ENHANCED = {"EchoTime": "EffectiveEchoTime", "InversionTime": "InversionTimes"}


@dataclass(frozen=True)
class Probe:
    """Where one slice is stored, and where it lies.

    Attributes:
        path, frame: of the slice.
        affine: (row, column, 0, 1) to mm, RAS+, shape (4, 4).
    """

    path: Path
    frame: int
    affine: NDArray[np.float64]


@dataclass(frozen=True)
class Series:
    """One series, without anything that names the patient.

    Attributes:
        number, description: as the scanner has them; words of the description that may name somebody are "*".
        written: description and protocol as they are, for rules alone: they may name the patient, and are never shown.
        subject: stands for the patient; a hash that is the same for all files of this run alone.
        patient_id: the ID itself, to make a pseudonym of; never shown. "" where there is none.
        study: which of the patient's studies; `when` sorts them.
        files: of the series, in one or more folders.
        facts: of the header, texts and numbers by DICOM's keywords; times in ms.
        rows, columns, slices: of the volume.
        spacing: of rows, columns and slices in mm; 0 where unknown.
        middle: of the volume, mm, RAS+.
        probe: one slice, to tell whether the volume is the one that the headers describe.
        broken: why it can't be a volume; "" if it can.
        syntax: transfer syntax, in words.
        notes: what is odd, and no reason to refuse it.
    """

    uid: str = field(repr=False)
    written: tuple[str, str] = field(repr=False)
    number: int
    description: str
    subject: str
    patient_id: str = field(repr=False)
    study: str = field(repr=False)
    when: str = field(repr=False)
    files: tuple[Path, ...] = field(repr=False)
    facts: dict[str, Any]
    rows: int
    columns: int
    slices: int
    spacing: tuple[float, float, float]
    middle: tuple[float, float, float]
    probe: Probe | None = field(default=None, repr=False)
    broken: str = ""
    syntax: str = ""
    notes: tuple[str, ...] = ()

    @property
    def line(self) -> str:
        """The series in a list, such as "series 3 (t1_mprage, 256 x 256 x 176, 1 x 1 x 1 mm)"."""
        sizes = " x ".join(map(str, (self.columns, self.rows, self.slices)))
        mm = " x ".join(f"{size:.3g}" for size in self.spacing) + " mm" if any(self.spacing) else ""
        return f"series {self.number} ({', '.join(part for part in (self.description, sizes, mm) if part)})"


def is_dicom(path: Path) -> bool:
    """Whether a file begins as DICOM files do; False where it can't be read."""
    try:
        if not path.is_file():  # a pipe would be waited for
            return False
        with path.open("rb") as file:
            return file.read(132)[128:] == b"DICM"
    except OSError:
        return False


@dataclass(frozen=True)
class _Header:
    path: Path
    content: Any  # pydicom's Dataset
    syntax: Any

    @property
    def is_directory(self) -> bool:
        """Whether it is a DICOMDIR."""
        return bool(self.content.file_meta.get("MediaStorageSOPClassUID") == _DIRECTORY)

    @property
    def count(self) -> int:
        """Of frames; 1 in a classic file."""
        return max(1, int(self.content.get("NumberOfFrames") or 1))

    def text(self, name: str) -> str:
        value = self.content.get(name)
        return " ".join(map(str, value)) if isinstance(value, (list, tuple)) else str(value or "").strip()

    def value(self, name: str) -> Any:
        """At the top, else in the functional groups of a multi-frame file, those of all frames first."""
        if (value := self.content.get(name)) not in (None, ""):
            return value
        enhanced = _ENHANCED.get(name, name)
        for groups in _GROUPS:
            for group in (self.content.get(groups) or [])[:1]:
                if (value := _in_group(group, enhanced)) not in (None, ""):
                    return value[0] if name in _TIMES and _is_several(value) else value
        return None

    def number(self, name: str) -> float | None:
        try:
            return float(self.value(name))
        except (TypeError, ValueError):
            return None

    def frames(self, name: str) -> list[Any]:
        """One value a frame; one in all in a classic file."""
        per_frame = self.content.get(_GROUPS[1])
        if not per_frame:
            return [self.content.get(name)]
        return [value if (value := _in_group(one, name)) is not None else self.value(name) for one in per_frame]


def _in_group(group: Any, name: str) -> Any:
    """The value in the sequences of a functional group, each of which has one item."""
    for element in group:
        for item in (element.value or [])[:1] if element.VR == "SQ" else ():
            if name in item:
                return item.get(name)
    return None


def _is_several(value: Any) -> bool:
    return not isinstance(value, str) and hasattr(value, "__len__") and len(value) > 0


def read_series(files: Iterable[Path]) -> tuple[list[Series], dict[str, int]]:
    """Read the headers of files, and group them into series.

    Args:
        files: which `is_dicom`, in any order, of any number of patients.

    Returns:
        The series in the order of study and number; and files that are none's, counted by the reason.

    Raises:
        MonaiCaeError: pydicom is missing; one patient's ID with several names or dates of birth, or several patients in
            one series.
    """
    left_out: Counter[str] = Counter()
    groups: dict[tuple[str, str], list[_Header]] = defaultdict(list)
    for path in files:
        header = _read(path)
        if header is None:
            left_out["broken DICOM files"] += 1
        elif header.is_directory:
            left_out["lists of files (DICOMDIR)"] += 1
        elif "Rows" not in header.content or "Columns" not in header.content:
            left_out["DICOM files without an image"] += 1
        else:
            groups[header.text("StudyInstanceUID"), header.text("SeriesInstanceUID")].append(header)
    _refuse_mixed(list(groups.values()))
    found = [_series(headers) for headers in groups.values()]
    return sorted(found, key=lambda one: (one.subject, one.when, one.study, one.number, one.uid)), dict(left_out)


def _read(path: Path) -> _Header | None:
    """None where it can't be read: all values are converted here, as pydicom would else warn and quote them later."""
    try:
        import pydicom
    except ImportError as error:
        raise MonaiCaeError(MISSING) from error
    with warnings.catch_warnings(), pydicom.config.disable_value_validation():
        warnings.simplefilter("ignore")  # they quote values, and a value may be a name
        try:
            content = pydicom.dcmread(path, stop_before_pixels=True, specific_tags=_READ)
            syntax = content.file_meta.TransferSyntaxUID
            for _ in content.iterall():
                pass
            for name in ("Rows", "Columns", "NumberOfFrames", "BitsAllocated"):
                int(content.get(name) or 0)
        except Exception:  # pydicom raises whatever it stumbles over in a damaged file
            return None
    return _Header(path, content, syntax)


def _refuse_mixed(groups: Sequence[Sequence[_Header]]) -> None:
    persons: dict[str, set[tuple[str, str]]] = defaultdict(set)
    for headers in groups:
        seen = {tuple(header.text(name) for name in _IDENTITY[:3]) for header in headers}
        if len(seen) > 1:
            raise MonaiCaeError(
                f"series {headers[0].text('SeriesNumber')} has files of {len(seen)} patients: give each a folder"
            )
        for number, name, born in seen:
            persons[number].add((name, born))
    mixed = sum(len(one) > 1 for one in persons.values())
    if mixed:
        raise MonaiCaeError(
            f"{mixed} patient IDs of these DICOM files have several names or dates of birth: one patient or several? "
            "Give each patient a folder and an ID of your own with --subject"
        )


def _series(headers: Sequence[_Header]) -> Series:
    first = headers[0]
    written = first.text("SeriesDescription"), first.text("ProtocolName")
    names = ("Modality", "MRAcquisitionType", "AngioFlag", "EchoPulseSequence", "PulseSequenceName")
    facts: dict[str, Any] = {name: str(first.value(name) or "").upper() for name in names}
    for name in ("ImageType", "ScanningSequence", "SequenceVariant", "ScanOptions"):
        value = first.value(name) or ()
        facts[name] = tuple(str(part).upper() for part in ([value] if isinstance(value, str) else value))
    facts |= {name: first.number(name) for name in (*_TIMES, "SliceThickness")}
    agent = first.text("ContrastBolusAgent")
    facts["contrast"] = bool(first.content.get("ContrastBolusAgentSequence")) or agent.casefold() not in (
        "", "none", "no", "n", "0",
    )  # fmt: skip
    echoes = {round(float(echo), 2) for header in headers if (echo := header.number("EchoTime")) is not None}
    place = _place(headers)
    broken = place.broken or _unfit(headers) or (f"{len(echoes)} echo times" if len(echoes) > 1 else "")
    number = first.number("SeriesNumber")
    return Series(
        uid=first.text("SeriesInstanceUID"),
        written=written,
        number=int(number) if number is not None else 0,
        description=_nameless(written[0] or written[1], first),
        subject=sha256(" ".join(first.text(name) for name in _IDENTITY[:3]).encode()).hexdigest(),
        patient_id=first.text("PatientID"),
        study=first.text("StudyInstanceUID"),
        when=first.text("StudyDate") + first.text("StudyTime"),
        files=tuple(header.path for header in headers),
        facts=facts,
        rows=int(first.content.Rows),
        columns=int(first.content.Columns),
        slices=place.slices,
        spacing=place.spacing,
        middle=place.middle,
        probe=place.probe,
        broken=broken,
        syntax=getattr(first.syntax, "name", str(first.syntax)),
        notes=_numbered(headers),
    )


def _nameless(text: str, header: _Header) -> str:
    """A description, in which "*" stands for words of names and IDs, words that contain one, dates and long numbers."""
    secret = {
        word for name in (*_IDENTITY, *_NAMES) for word in re.findall(r"[^\W_]{2,}", header.text(name).casefold())
    }
    words = re.split(r"([\W_]+)", _DATE.sub("*", text))
    shown = "".join(
        "*" if any(one == (low := word.casefold()) or (len(one) > 3 and one in low) for one in secret) else word
        for word in words
    )
    return " ".join("".join(c if c.isprintable() else " " for c in shown).split())[:60]


def _unfit(headers: Sequence[_Header]) -> str:
    """Why files that lie well are no volume all the same."""
    if len({(header.content.Rows, header.content.Columns) for header in headers}) > 1:
        return "slices of several sizes"
    if len({header.text("SOPInstanceUID") for header in headers}) < len(headers):
        return "the same slices twice: remove one copy"
    if any(header.number("SamplesPerPixel") not in (1, None) for header in headers):
        return "colours"
    for header in headers:
        content = header.content
        needs = int(content.Rows) * int(content.Columns) * header.count * int(content.get("BitsAllocated") or 16) // 8
        packed = any(getattr(header.syntax, name, False) for name in ("is_compressed", "is_deflated"))
        try:
            size = header.path.stat().st_size
        except OSError:
            return "files that have gone since their headers were read"
        if not packed and size < needs:
            return "files without all their pixel data: copy them again"
    return ""


def _numbered(headers: Sequence[_Header]) -> tuple[str, ...]:
    numbers = sorted(int(number) for header in headers if (number := header.number("InstanceNumber")) is not None)
    if len(headers) > 1 and numbers and numbers[0] > 1:
        return (f"its slices are numbered from {numbers[0]} on: slices may be missing at one end",)
    return ()


@dataclass(frozen=True)
class _Place:
    slices: int
    spacing: tuple[float, float, float] = (0.0, 0.0, 0.0)
    middle: tuple[float, float, float] = (0.0, 0.0, 0.0)
    probe: Probe | None = None
    broken: str = ""


def _place(headers: Sequence[_Header]) -> _Place:
    """Where the slices lie: equally far from each other, side by side, or what is wrong with them."""
    count = sum(header.count for header in headers)
    try:
        positions = _numbers(headers, "ImagePositionPatient", 3)
        directions = _numbers(headers, "ImageOrientationPatient", 6)
        pixel: NDArray[np.float64] = np.array([float(size) for size in headers[0].value("PixelSpacing")])
    except (TypeError, ValueError):
        return _Place(count, broken="slices whose place is not given")
    if len(positions) != count or len(directions) != count or pixel.shape != (2,):
        return _Place(count, broken="slices whose place is not given")
    if np.abs(directions - directions[0]).max() > 1e-3:
        return _Place(count, broken="slices in several directions, as a localizer has")
    row, column = directions[0][:3], directions[0][3:]
    along = positions @ np.cross(row, column)
    order = np.argsort(along)
    steps = np.diff(along[order])
    if count > 1 and (steps < 1e-3).any():
        return _Place(count, broken=f"{count} slices at {1 + int((steps >= 1e-3).sum())} places: several volumes (4D)")
    gap = float(np.median(steps)) if count > 1 else float(headers[0].number("SliceThickness") or 0)
    if count > 1 and (np.abs(steps - gap) > 0.1 * gap).any():
        lost = int(np.round(steps / gap - 1).clip(0).sum())
        return _Place(
            count, broken=f"{lost} missing slices between the others" if lost else "slices at unequal distances"
        )
    ends = positions[order[[0, -1]]]
    size = (np.array([headers[0].content.Columns, headers[0].content.Rows], dtype=float) - 1) / 2
    middle = ends.mean(axis=0) + row * size[0] * pixel[1] + column * size[1] * pixel[0]
    x, y, z = (float(value) for value in middle * (-1, -1, 1))
    third = int(order[count // 3])  # away from the middle: of a mirrored volume it would be another
    affine = np.eye(4)
    affine[:3, 0], affine[:3, 1], affine[:3, 3] = column * pixel[0], row * pixel[1], positions[third]
    affine[:2] *= -1  # LPS to RAS
    stored = [(header.path, frame) for header in headers for frame in range(header.count)]
    return _Place(count, (float(pixel[1]), float(pixel[0]), gap), (x, y, z), Probe(*stored[third], affine))


def _numbers(headers: Sequence[_Header], name: str, size: int) -> NDArray[np.float64]:
    values = [value for header in headers for value in header.frames(name)]
    return np.array([[float(number) for number in value] for value in values]).reshape(-1, size)
