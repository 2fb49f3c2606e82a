"""From a folder on disk to Scan records, whatever the layout: OASIS-1 discs, BIDS, Clinica CAPS, a table, a
datalist."""

from __future__ import annotations

import dataclasses
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

from monai_cae.data.cohort.matching import Images, T1w, match, nearest, other_formats
from monai_cae.data.cohort.persons import loose, name_persons
from monai_cae.data.cohort.tables import SUFFIXES, column_names, find_table, read_subjects
from monai_cae.data.cohort.tasks import BLANK, MISSING_CODES
from monai_cae.data.images.planes import plane_axis
from monai_cae.data.path_safety import require_inside
from monai_cae.data.scan import Note, Scan
from monai_cae.data.splits.datalists import checked_item, read_content, recorded_folder
from monai_cae.errors import MonaiCaeError

# gain-field corrected, atlas-registered (T88), masked: the paper's input; n3 to n6 is the number of averaged
# acquisitions
_T88 = re.compile(r"^(?P<name>OAS1_\d{4}_MR\d+)_mpr_n\d_anon_111_t88_masked_gfc\.hdr$")
_IMAGE_SUFFIXES = (".nii.gz", ".nii", ".hdr")
MOST_UNMATCHED = 0.1  # of the rows, or of the images: beyond it they are probably of two cohorts, or named otherwise
NAMED = 10
_CAPS_IMAGE = "*_space-MNI152NLin2009cSym{crop}_res-1x1x1_T1w.nii*"


@dataclasses.dataclass(frozen=True)
class Found:
    """What a cohort folder holds.

    Attributes:
        layout: in words, e.g. "OASIS-1 discs".
        scans: rows of the table that have an image (all rows where only a table was given).
        left_out: why rows or images are not among them, and how many.
        notes: what was guessed, and who was left out.
    """

    layout: str
    scans: list[Scan]
    left_out: dict[str, int] = dataclasses.field(default_factory=dict)
    notes: list[Note] = dataclasses.field(default_factory=list, compare=False)


def read_scans(
    dataset_dir: str | Path,
    *,
    table: str | Path | None = None,
    plane: str = "axial",
    columns: Mapping[str, str] | None = None,
    subject_pattern: str = "",
    missing_codes: Any = MISSING_CODES,
    sex_codes: str = "",
    acquisition: str = "",
    run: str = "last",
    allow_unmatched: bool = False,
    allow_outside: bool = False,
) -> Found:
    """Recognise the layout of a cohort by what is there, and read it.

    - OASIS-1 discs: `OAS1_*_t88_masked_gfc.hdr` at any depth;
    - BIDS: `sub-*/[ses-*/]anat/*_T1w.nii[.gz]`, with participants.tsv and, where there are any, `sub-*_sessions.tsv`;
    - Clinica CAPS: `subjects/sub-*/ses-*/t1_linear`, with a table named by `table`;
    - a plain folder: a table that names the images, or images named ID.nii.gz in a subfolder named after the plane, or
      beside the table;
    - a table alone, or a MONAI datalist (.json): its items, all sets together.

    A row and an image belong together where subject and session are the same, but for "sub-", "ses-", case and zeros
    in front of numbers.

    Args:
        dataset_dir: folder, table or datalist.
        table: the table, where it is not in the folder.
        plane: subfolder that a plain folder's images are looked for in first.
        columns, subject_pattern, missing_codes, sex_codes: see `read_subjects`.
        acquisition: of BIDS images, take those with this `acq-` alone, "none" for those without one; by default, where
            a session has several T1w images, the kind that most sessions have.
        run: of several runs of a kind, "last", "first", or a number.
        allow_unmatched: go on where more than a tenth of the rows have no image, or of the images no row.
        allow_outside: take images that the table or datalist names outside the folder, see `require_inside`.

    Raises:
        MonaiCaeError: nothing there, no table, no images, two images for one scan or two scans for one image, two
            layouts in one folder, an unknown plane, rows and images that do not meet. A file that the table names need
            not be there: see `find_bad`.
    """
    plane_axis(plane)
    root = Path(dataset_dir)
    if root.is_file() and root.suffix.lower() == ".json":
        scans, notes = name_persons(_datalist_scans(root, allow_outside), subject_pattern, str(root))
        return Found("MONAI datalist", scans, notes=notes)
    how = {"subject_pattern": subject_pattern, "missing_codes": missing_codes, "sex_codes": sex_codes}
    if root.is_file() and root.suffix.lower() in SUFFIXES:
        alone = read_subjects(root, columns, **how)
        return Found("table alone", alone.scans, notes=alone.notes)
    if not root.is_dir():
        raise MonaiCaeError(
            f"{root} is not a folder: give the cohort's folder with --dataset_dir (or make a synthetic cohort: "
            "monai-cae phantom OUT)"
        )
    layout, images = _images(root, plane, T1w(acquisition, run))
    file = Path(table) if table else find_table(root)
    if layout == "BIDS" and not (columns or {}).get("subject") and "participant_id" in column_names(file):
        columns = {**(columns or {}), "subject": "participant_id"}
    read = read_subjects(file, columns, **how)
    rows = _with_sessions(root, read.scans, columns, how) if layout == "BIDS" else read.scans
    scans, notes = match(rows, images.by_name, root, allow_outside)
    if not scans:
        raise MonaiCaeError(_nothing_matches(root, plane, rows, images.by_name))
    _refuse_shared(scans)
    notes = [*images.notes, *read.notes, *notes]
    left_out = _unmatched(rows, scans, images.by_name, allow_unmatched, notes)
    if images.further:
        left_out["further images of a session"] = images.further
    return Found(layout, scans, left_out, notes)


def _unmatched(
    rows: Sequence[Scan], scans: Sequence[Scan], images: Mapping[str, Path], allowed: bool, notes: list[Note]
) -> dict[str, int]:
    """Count the rows and images that stay without a partner, name the first of them, and refuse too many."""
    matched, used = {scan.name for scan in scans}, {scan.image for scan in scans}
    alone = {
        "rows without an image": [row.name for row in rows if row.name not in matched],
        "images without a row in the table": [path.name for path in images.values() if path not in used],
    }
    files, asked = [path.name for path in images.values()], [row.name for row in rows]
    allowed = allowed or any(row.file for row in rows)  # the table names its images: what else is there is not missed
    for (what, names), total, partners in zip(alone.items(), (len(rows), len(images)), (files, asked), strict=True):
        if len(names) > total * MOST_UNMATCHED and not allowed:
            raise MonaiCaeError(
                f"{len(names)} of {total} {what}, such as {nearest(names[0], partners)}: correct the names, name the "
                "column of the persons with --subject-column, or go on without these with --allow-unmatched true"
            )
        notes += [Note(f"{len(names)} {what}", tuple(names[:NAMED]))] if names else []
    return {what: len(names) for what, names in alone.items() if names}


def find_images(path: str | Path) -> list[Path]:
    """The image or images that a user points at for inference.

    Args:
        path: one .nii, .nii.gz, .img or .hdr file, or a folder; of OASIS-1 discs only the atlas-registered, masked
            volumes.

    Returns:
        Image files in the order of their paths, the header for an Analyze pair.

    Raises:
        MonaiCaeError: nothing there, or no image.
    """
    path = Path(path)
    if path.is_dir():
        files = list(walk(path))
        found = [file for file in files if _T88.match(file.name)]
        found = found or [file for file in files if file.name.lower().endswith(_IMAGE_SUFFIXES)]
        if not found:
            raise MonaiCaeError(f"no .nii, .nii.gz or .hdr/.img image in {path}{other_formats(files)}")
        return sorted(found)
    if not path.is_file():
        raise MonaiCaeError(f"no image at {path}: give a volume or a folder with --dataset_dir")
    if path.suffix.lower() == ".img":
        path = path.with_suffix(".hdr")
    if not path.name.lower().endswith(_IMAGE_SUFFIXES) or not path.is_file():
        raise MonaiCaeError(f"{path} is not a .nii, .nii.gz or .hdr/.img image")
    return [path]


def walk(root: Path) -> Iterator[Path]:
    """All files below a folder in a fixed order; links are followed, but never back to where the walk has been.

    Raises:
        MonaiCaeError: a folder that can't be read.
    """

    seen: set[str] = set()
    for folder, subfolders, files in os.walk(root, followlinks=True, onerror=_refuse_unreadable):
        real = os.path.realpath(folder)
        if real in seen:
            subfolders.clear()
            continue
        seen.add(real)
        subfolders.sort()
        yield from (Path(folder, file) for file in sorted(files))


def _refuse_unreadable(error: OSError) -> None:
    raise MonaiCaeError(f"can't read {error.filename} ({error.strerror}): check its permissions") from error


def _entries(folder: Path) -> list[Path]:
    """What a folder holds, by name, without hidden files: macOS leaves "._NAME" beside NAME on foreign disks."""
    try:
        return sorted(path for path in folder.iterdir() if not path.name.startswith("."))
    except OSError as error:
        _refuse_unreadable(error)
        raise


def _images(root: Path, plane: str, choose: T1w) -> tuple[str, Images]:
    """The layout, and the images by the name of their scan."""
    here = [entry.name for entry in _entries(root) if entry.is_dir()]
    layouts = {
        "OASIS-1 discs": any(re.match(r"disc\d+|OAS1_\d{4}", name) for name in here),
        "BIDS": any(name.startswith("sub-") for name in here),
        "Clinica CAPS": (root / "subjects").is_dir() and any((root / "subjects").glob("sub-*/ses-*/t1_linear")),
    }
    present = [layout for layout, found in layouts.items() if found]
    if len(present) > 1:
        raise MonaiCaeError(f"{root} mixes {' and '.join(present)}: give each its own folder")
    if present == ["BIDS"]:
        return "BIDS", choose(_bids_images(root, "anat", "*_t1w.nii*"))
    if present == ["Clinica CAPS"]:
        return "Clinica CAPS", _caps_images(root / "subjects")
    oasis: dict[str, Path] = {}
    for path in walk(root):
        if match := _T88.match(path.name):
            _add(oasis, match["name"], path)
    return ("OASIS-1 discs", Images(oasis)) if oasis else ("plain folder", Images(_plain_images(root, plane)))


def _bids_images(root: Path, part: str, pattern: str) -> dict[str, list[Path]]:
    """All images of a kind of every session, by the name of the session."""
    images = {}
    for subject in _folders(root, "sub-"):
        sessions = _folders(subject, "ses-")
        for folder, session in [(path, path.name) for path in sessions] or [(subject, "")]:
            files = _entries(folder / part) if (folder / part).is_dir() else []
            found = [p for p in files if fnmatchcase(p.name.lower(), pattern) and p.suffix.lower() in (".nii", ".gz")]
            if found:
                images[f"{subject.name}_{session}" if session else subject.name] = found
    return images


def _folders(root: Path, prefix: str) -> list[Path]:
    return [path for path in _entries(root) if path.name.startswith(prefix) and path.is_dir()]


def _caps_images(root: Path) -> Images:
    cropped, whole = (
        _bids_images(root, "t1_linear", _CAPS_IMAGE.format(crop=crop).lower()) for crop in ("_desc-Crop", "")
    )
    # Clinica writes both; the cropped ones are its own default for training
    return Images({name: found[0] for name, found in (cropped or whole).items()})


def _plain_images(root: Path, plane: str) -> dict[str, Path]:
    folder = root / plane if (root / plane).is_dir() else root
    images: dict[str, Path] = {}
    for path in _entries(folder):
        suffix = next((s for s in _IMAGE_SUFFIXES if path.name.lower().endswith(s)), None)
        if suffix:
            _add(images, path.name[: -len(suffix)], path)
    return images


def _add(images: dict[str, Path], name: str, path: Path) -> None:
    if name in images:
        raise MonaiCaeError(f"two images for {name}: {images[name]} and {path}: remove one")
    images[name] = path


def _with_sessions(
    root: Path, rows: list[Scan], columns: Mapping[str, str] | None, how: Mapping[str, Any]
) -> list[Scan]:
    """BIDS: one row per session, what sub-*_sessions.tsv says (a blank says nothing) before participants.tsv."""
    folders = {loose(path.name): path for path in _folders(root, "sub-")}
    out = []
    for row in rows:
        folder = folders.get(loose(row.subject), root / row.subject)
        table = folder / f"{folder.name}_sessions.tsv"
        sessions = [path.name for path in _folders(folder, "ses-")] if folder.is_dir() else []
        if table.is_file():
            known = {name.strip().lower() for name in column_names(table)}
            roles = {role: name for role, name in (columns or {}).items() if name.strip().lower() in known}
            names = {name.lower(): name for name in row.row}
            told = read_subjects(table, {**roles, "subject": "session_id"}, **{**how, "subject_pattern": "(.+)"})
            about = [one for one in told.scans if not row.session or loose(one.subject) == loose(row.session)]
            out += [] if about else [row]
            for session in about:
                given = {
                    names.get(name.lower(), name): value
                    for name, value in session.row.items()
                    if name != "session_id" and value.strip().lower() not in BLANK
                }
                out.append(
                    dataclasses.replace(
                        row,
                        session=session.subject if session.subject.startswith("ses-") else f"ses-{session.subject}",
                        cdr=row.cdr if session.cdr is None else session.cdr,
                        age=row.age if session.age is None else session.age,
                        sex=session.sex or row.sex,
                        covariates={**row.covariates, **session.covariates},
                        row={**row.row, **given},
                    )
                )
        elif sessions and not row.session:
            out += [dataclasses.replace(row, session=name) for name in sessions]
        else:
            out.append(row)
    return out


def _refuse_shared(scans: list[Scan]) -> None:
    owner: dict[str, Scan] = {}
    for scan in scans:
        other = owner.setdefault(os.path.realpath(str(scan.image)), scan)
        if other is not scan:
            raise MonaiCaeError(f"{other.name} and {scan.name} have one image, {scan.image}: correct the table")


def _nothing_matches(root: Path, plane: str, rows: list[Scan], images: Mapping[str, Path]) -> str:
    if not images:
        return (
            f"no images in {root}: neither OASIS-1's *_t88_masked_gfc.hdr, nor BIDS's sub-*/anat/*_T1w.nii.gz, nor "
            f"Clinica's t1_linear, nor ID.nii.gz in {root} or {root / plane}, nor a column of the table that names them"
            f"{other_formats(walk(root))}"
        )
    return (
        f"no image in {root} is named after an ID of the table: the first ID is {rows[0].name}, "
        f"the first image {next(iter(images.values())).name}: name the column that has these names, or the files, with "
        "--image-column"
    )


def _datalist_scans(path: Path, allow_outside: bool) -> list[Scan]:
    content = read_content(path)
    sets = [content.get(name, []) for name in ("training", "validation", "test")]
    items = [item for one in sets if isinstance(one, list) for item in one]
    if not items or not all(isinstance(item, dict) and "label" in item for item in items):
        raise MonaiCaeError(f"{path} is no datalist with image, label and subject in every item")
    base = recorded_folder(path)
    items = [checked_item(item, f"{path}: an item") for item in items]
    for item in items:
        require_inside(item["image"], base, f"{path}: the item of {item['subject']}", allow_outside)
    return [
        Scan(
            subject=item["subject"],
            session=item.get("session") or "",
            image=base / item["image"],
            cdr=item.get("cdr"),
            age=item.get("age"),
            sex=item.get("sex") or "",
            row={"label": str(item["label"]), **{key: str(value) for key, value in item.items()}},
        )
        for item in items
    ]
