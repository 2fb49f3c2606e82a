"""The output: a BIDS derivative that is written scan by scan, each whole or not at all."""

from __future__ import annotations

import csv
import io
import json
import math
import re
import shutil
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from hashlib import sha256
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
from numpy.typing import NDArray

from monai_cae import __version__
from monai_cae.data.cohort.cells import read_cells
from monai_cae.data.cohort.persons import loose
from monai_cae.data.cohort.tables import ROLES
from monai_cae.data.layouts.bids import description
from monai_cae.data.layouts.derivative import TOOL
from monai_cae.data.scan import Scan
from monai_cae.data.template import FRAME_NAME, TEMPLATE_NAME
from monai_cae.errors import MonaiCaeError
from monai_cae.files import marked, new_folder, only_writer, sha256_of, unmarked, write_text
from monai_cae.prepare.brain import VERSION as WEIGHTS
from monai_cae.prepare.montage import draw
from monai_cae.prepare.pipeline import Prepared, write_transform
from monai_cae.prepare.raw import RawScan
from monai_cae.prepare.settings import PrepareSettings
from monai_cae.prepare.sources import Source

_ADVICE = "choose another folder"
_UNFINISHED = ".*-unfinished-*"
_PACKAGES = ("SimpleITK", "dcm2niix", "pydicom", "nibabel", "numpy", "nilearn")
_PERSONAL = re.compile(
    r"(?<![a-z])names?(?![a-z])|(?:first|last|sur|family|given|patients?)name|birth(?!.?weight)|(?<![a-z])(?:pt)?dob"
    r"|accession|(?<![a-z])(?:mrn|ssn|nhs|zip)(?![a-z])|medical.?record|address|phone|e-?mail",
    re.IGNORECASE,
)
# What the sidecar has of a DICOM header: how the image was made, nothing of whom, where or when.
_FACTS = ("MRAcquisitionType", "ScanningSequence", "SequenceVariant", "RepetitionTime", "EchoTime", "InversionTime",
          "FlipAngle", "SliceThickness")  # fmt: skip


@dataclass(frozen=True)
class Place:
    """Where one scan's files lie in a derivative."""

    out: Path
    scan: str  # "sub-01_ses-02"

    @property
    def folder(self) -> Path:
        """Its anat folder, which is there when the scan is finished, and not before."""
        return self.out.joinpath(*self.scan.split("_"), "anat")

    def file(self, end: str) -> Path:
        """A file in the template's space, such as "desc-preproc_T1w.nii.gz"."""
        return self.folder / f"{self.scan}_space-{FRAME_NAME}_{end}"

    @property
    def image(self) -> Path:
        """The prepared image."""
        return self.file("desc-preproc_T1w.nii.gz")

    @property
    def sidecar(self) -> Path:
        """Parameters, versions and numbers."""
        return self.file("desc-preproc_T1w.json")

    @property
    def montage(self) -> Path:
        """Three planes of the image for the QC page."""
        return self.file("desc-montage_T1w.jpg")

    @property
    def outlines(self) -> Path:
        """What is drawn over them."""
        return self.file("desc-outlines_T1w.png")

    def read(self) -> dict[str, Any] | None:
        """What the sidecar says; None while the scan is not finished.

        Raises:
            MonaiCaeError: a sidecar that can't be read.
        """
        if not self.folder.is_dir():
            return None
        try:
            content = json.loads(self.sidecar.read_text(encoding="utf-8"))
            content["Verdict"]["status"], content["Recipe"]
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise MonaiCaeError(f"{self.folder} has no readable sidecar: delete that folder") from error
        return unmarked(content, self.sidecar)


def recipe_of(source: Source, settings: PrepareSettings) -> dict[str, Any]:
    """What the result depends on, as JSON has it: settings, version, and the bytes of the input.

    Raises:
        MonaiCaeError: the input can't be read.
    """
    try:
        if source.series is not None:
            print_ = sha256(" ".join(sorted(sha256_of(file) for file in source.series.files)).encode()).hexdigest()
        else:
            path = Path(str(source.path))
            other = path.with_suffix(".IMG" if path.suffix.isupper() else ".img")
            files = [path, other] if path.suffix.lower() == ".hdr" and other.is_file() else [path]
            if path.exists() and not path.is_file():  # a pipe would be waited for
                raise MonaiCaeError(f"{source.name} is a folder, a pipe or a device: give an image file")
            print_ = " ".join(map(sha256_of, files))
        mask = sha256_of(source.mask) if source.mask else None
    except OSError as error:
        raise MonaiCaeError(f"{source.name} can't be read ({error.strerror}): check the files") from error
    recipe = {**asdict(settings), "orientation": source.orientation, "version": __version__}
    return dict(json.loads(json.dumps({**recipe, "input_sha256": print_, "mask_sha256": mask})))


def write_scan(
    out: Path,
    source: Source,
    scan: RawScan,
    prepared: Prepared,
    recipe: Mapping[str, Any],
    packages: Sequence[str] = _PACKAGES,
) -> None:
    """Write all files of a scan, or none; one that was there is replaced.

    Raises:
        MonaiCaeError: the folder can't be written.
    """
    place = Place(out, source.name)
    shutil.rmtree(place.folder, ignore_errors=True)
    with new_folder(place.folder) as folder:
        for path, array in (
            (place.image, _rounded(prepared.image)),
            (place.file("desc-brain_mask.nii.gz"), prepared.mask.astype(np.uint8)),
        ):
            image = nib.Nifti1Image(array, prepared.affine)
            image.header.set_xyzt_units("mm")
            nib.save(image, folder / path.name)
        xfm = f"{place.scan}_from-T1w_to-{FRAME_NAME}_mode-image_xfm.tfm"
        write_transform(prepared.transform, folder / xfm)
        picture = draw(prepared.image, prepared.mask)
        (folder / place.montage.name).write_bytes(picture.jpeg)
        (folder / place.outlines.name).write_bytes(picture.outlines)
        content = _sidecar(source, scan, prepared, recipe, packages)
        (folder / place.sidecar.name).write_text(json.dumps(marked(content), indent=2) + "\n", encoding="utf-8")


def _rounded(image: NDArray[np.float32]) -> NDArray[np.float32]:
    """Values in steps of 2^-15, which compress to half the size; what was above 0 stays above 0."""
    steps = np.rint(image * 2**15)
    return np.asarray(np.maximum(steps, image > 0) / 2**15, dtype=np.float32)


def _sidecar(
    source: Source, scan: RawScan, prepared: Prepared, recipe: Mapping[str, Any], packages: Sequence[str]
) -> dict[str, Any]:
    facts = source.series.facts if source.series else {}
    return {
        "Description": "T1w image: brain alone, bias corrected, registered by an affine, resampled once, 0 to 1",
        "SkullStripped": True,
        "SpatialReference": TEMPLATE_NAME,
        "Resolution": "1 mm isotropic",
        **({"Sources": [source.shown]} if source.shown else {}),
        "Mask": "another tool's" if source.mask else recipe["mask"],
        "Acquisition": {name: facts[name] for name in _FACTS if facts.get(name) not in (None, "", ())},
        "RawShape": list(scan.voxels.shape),
        "RawSpacing": [round(size, 4) for size in scan.spacing],
        "Recipe": dict(recipe),
        "Versions": {"monai_cae": __version__, "deepbet's weights": WEIGHTS, **_versions(packages)},
        "QC": {name: value if math.isfinite(value) else None for name, value in prepared.qc.items()},
        "Verdict": {"status": prepared.verdict.status, "reasons": list(prepared.verdict.reasons)},
        "Notes": list(prepared.notes),
        "Seconds": {name: round(value, 2) for name, value in prepared.seconds.items()},
    }


def _versions(packages: Iterable[str]) -> dict[str, str]:
    found = {}
    for name in packages:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found


@contextmanager
def derivative(out: str | Path, layout: str, source: Mapping[str, Any], *, go_on: bool) -> Iterator[Path]:
    """Open a folder as a derivative of ours, which no other process writes to meanwhile.

    Args:
        out: absent, empty, or with an earlier run's scans.
        layout: what kind of input it is made from, in words.
        source: what the input's own dataset_description.json says.
        go_on: whether it may hold scans already.

    Raises:
        MonaiCaeError: it holds something else, or scans without `go_on`, or another process writes to it.
    """
    out = Path(out)
    if out.exists() and not out.is_dir():
        raise MonaiCaeError(f"{out} is a file: {_ADVICE}")
    there = [path for path in out.iterdir() if path.name != ".lock"] if out.is_dir() else []
    ours = any(one.get("Name") == TOOL for one in description(out).get("GeneratedBy", []) if isinstance(one, dict))
    if there and not ours:
        raise MonaiCaeError(f"{out} is not empty, and monai-cae prepare has not written it: {_ADVICE}")
    if there and not go_on:
        raise MonaiCaeError(f"{out} has scans already: continue with --resume, or {_ADVICE}")
    with only_writer(out):
        for pattern in (f"sub-*/{_UNFINISHED}", f"sub-*/ses-*/{_UNFINISHED}"):
            for leftover in out.glob(pattern):
                shutil.rmtree(leftover, ignore_errors=True)
        if not there:
            known = {name: source[name] for name in ("Name", "DatasetDOI") if isinstance(source.get(name), str)}
            content = {
                "Name": "T1w images prepared for monai-cae",
                "BIDSVersion": "1.10.0",
                "DatasetType": "derivative",
                "GeneratedBy": [{"Name": TOOL, "Version": __version__}],
                "SourceDatasets": [{"Description": layout, **known}],
                **({"synthetic": True} if source.get("synthetic") is True else {}),
            }
            write_text(out / "dataset_description.json", json.dumps(content, indent=2) + "\n", _ADVICE)
        yield out


def write_tables(out: Path, scans: Sequence[Source], columns: Mapping[str, str], *, hashed: bool) -> None:
    """Carry the cohort's table over: participants.tsv, and a sessions.tsv for each subject with sessions.

    A column that differs between the sessions of anybody goes to the sessions. IDs of subjects, sessions and images are
    replaced by those of the derivative; a visit that is not the session's name is carried over. Rows of an earlier run
    stay.

    Args:
        out: the derivative.
        scans: all that were to be prepared.
        columns: the table's columns of subject, session and image, where the user has named them.
        hashed: leave out every column with an ID in it, and those that by their names hold names, dates of birth,
            numbers of other records or addresses.
    """
    left_out = {name.casefold() for role in ("subject", "image") for name in ROLES[role]} | _sessions_columns(scans)
    left_out |= {columns[role].casefold() for role in ("subject", "session", "image") if role in columns}
    rows = {scan.name: _row(scan.row, left_out, hashed) for scan in scans}
    if hashed:
        named = {column for scan in scans if scan.row for column in scan.row.row if _PERSONAL.search(column)}
        named |= {column for scan in scans if scan.row for column in _with_id(scan.row)}
        rows = {name: {key: text for key, text in row.items() if key not in named} for name, row in rows.items()}
    by_subject: dict[str, list[Source]] = defaultdict(list)
    for scan in scans:
        by_subject[scan.subject].append(scan)
    names = list(dict.fromkeys(column for row in rows.values() for column in row))
    varies = {
        column
        for one in by_subject.values()
        for column in names
        if len({rows[scan.name].get(column, "") for scan in one}) > 1
    }
    people = [
        {"participant_id": f"sub-{subject}"}
        | {column: rows[one[0].name].get(column, "n/a") for column in names if column not in varies}
        for subject, one in by_subject.items()
    ]
    _merge(out / "participants.tsv", "participant_id", people)
    for subject, one in by_subject.items():
        visits = [
            {"session_id": f"ses-{scan.session}"}
            | {column: rows[scan.name].get(column, "n/a") for column in names if column in varies}
            for scan in one
            if scan.session
        ]
        if visits:
            _merge(out / f"sub-{subject}" / f"sub-{subject}_sessions.tsv", "session_id", visits)


def _sessions_columns(scans: Sequence[Source]) -> set[str]:
    """Columns with nothing but the names of the sessions, in lower case; OASIS-2's Visit is 1 where that is MR1."""
    rows = [scan.row for scan in scans if scan.row]
    cells = [{name.casefold(): text for name, text in row.row.items()} for row in rows]
    return {
        name
        for name in map(str.casefold, ROLES["session"])
        if all(loose(cell.get(name, "")) == loose(row.session) for cell, row in zip(cells, rows, strict=True))
    }


def read_tables(out: Path, scans: Iterable[str]) -> dict[str, dict[str, str]]:
    """What participants.tsv and the sessions' tables say of scans, by their names such as "sub-01_ses-02"."""
    people, found = _rows_of(out / "participants.tsv", "participant_id"), {}
    for scan in scans:
        subject, _, session = scan.partition("_")
        of_session = (
            _rows_of(out / subject / f"{subject}_sessions.tsv", "session_id").get(session, {}) if session else {}
        )
        found[scan] = {**people.get(subject, {}), **of_session}
    return found


def _rows_of(path: Path, key: str) -> dict[str, dict[str, str]]:
    return {row[key]: dict(row) for _, row in read_cells(path).rows if key in row} if path.is_file() else {}


def _row(row: Scan | None, left_out: set[str], hashed: bool) -> dict[str, str]:
    if row is None:
        return {}
    kept = {name: text for name, text in row.row.items() if name.casefold() not in left_out}
    return kept if hashed else {"source_id": row.subject, **kept}


def _with_id(row: Scan) -> list[str]:
    bare = row.subject.removeprefix("sub-").casefold()
    return [name for name, text in row.row.items() if bare and bare in text.casefold()]


def _merge(path: Path, key: str, rows: Sequence[Mapping[str, str]]) -> None:
    write_tsv(path, list({**_rows_of(path, key), **{row[key]: row for row in rows}}.values()))


def write_tsv(path: Path, rows: Sequence[Mapping[str, Any]]) -> None:
    """Rows as tab-separated text, replaced as a whole; "n/a" where a row lacks a column.

    Raises:
        MonaiCaeError: it can't be written.
    """
    names = list(dict.fromkeys(name for row in rows for name in row))
    text = io.StringIO()
    writer = csv.writer(text, delimiter="\t", lineterminator="\n")
    writer.writerow(names)
    for row in rows:
        writer.writerow([re.sub(r"\s+", " ", str(row.get(name, "n/a"))).strip() for name in names])
    write_text(path, text.getvalue(), _ADVICE)
