"""From a folder on disk to Scan records, in any layout."""

from __future__ import annotations

import dataclasses
import os
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from monai_cae.data.cohort.matching import match, nearest, other_formats
from monai_cae.data.cohort.persons import loose
from monai_cae.data.cohort.tables import Table
from monai_cae.data.images.planes import plane_axis
from monai_cae.data.layouts.base import IMAGE_SUFFIXES, Asked, Images, Layout, header_of, walk
from monai_cae.data.layouts.bids import Bids
from monai_cae.data.layouts.caps import Caps
from monai_cae.data.layouts.datalist import Datalist
from monai_cae.data.layouts.derivative import BidsDerivative
from monai_cae.data.layouts.folder import Folder
from monai_cae.data.layouts.ixi import Ixi
from monai_cae.data.layouts.loni import Loni
from monai_cae.data.layouts.oasis1 import T88, Oasis1
from monai_cae.data.layouts.oasis2 import Oasis2
from monai_cae.data.layouts.oasis3 import Oasis3
from monai_cae.data.layouts.table import TableAlone
from monai_cae.data.scan import Note, Scan
from monai_cae.errors import MonaiCaeError

_OASIS1, _DERIVATIVE = Oasis1(), BidsDerivative()
# known by names; two at once are refused
BUILT_IN: list[Layout] = [
    Datalist(), TableAlone(), _OASIS1, Oasis2(), Oasis3(), Loni(), Ixi(), Bids(), _DERIVATIVE, Caps()
]  # fmt: skip
ANYWHERE: list[Layout] = [_OASIS1, Folder()]  # tried in turn where these find no images
MOST_UNMATCHED = 0.1  # of the rows, or of the images: beyond it they are probably of two cohorts, or named otherwise
NAMED = 10


@dataclasses.dataclass(frozen=True)
class Found:
    """What a cohort folder holds."""

    layout: str  # in words, e.g. "OASIS-1 discs"
    scans: list[Scan]  # rows of the table that have an image (all rows where only a table was given)
    left_out: dict[str, int] = dataclasses.field(default_factory=dict)  # why rows or images are not among them
    notes: list[Note] = dataclasses.field(default_factory=list, compare=False)  # what was guessed, who was left out


def read_scans(dataset_dir: str | Path, asked: Asked | None = None, **options: Any) -> Found:
    """Recognise the layout of a cohort by what is there, and read it.

    - OASIS-1 discs: `OAS1_*_t88_masked_gfc.hdr` at any depth, else the raw scans;
    - OASIS-2, OASIS-3, ADNI and AIBL, IXI, as their archives give them: see their modules and docs/how-to/cohorts.md;
    - BIDS: `sub-*/[ses-*/]anat/*_T1w.nii[.gz]`, with participants.tsv and, if present, `sub-*_sessions.tsv`;
    - a BIDS derivative: `*_desc-preproc_T1w.nii[.gz]`, without the scans that its qc.tsv rules out;
    - Clinica CAPS: `subjects/sub-*/ses-*/t1_linear`, with a table named by `table`;
    - a plain folder: a table that names the images, or images named ID.nii.gz in a subfolder named after the plane, or
      beside the table;
    - a table alone, or a MONAI datalist (.json): its items, all sets together.

    A row and an image match if subject and session are the same, ignoring "sub-", "ses-", case and leading zeros.

    Args:
        dataset_dir: folder, table or datalist.
        asked: how it is read.
        **options: fields of `Asked` that are otherwise.

    Raises:
        MonaiCaeError: nothing there, no table, no images, two images for one scan or two scans for one image, two
            layouts in one folder, an unknown plane, rows and images that do not match. A file that the table names may
            be missing: see `find_bad`.
    """
    asked, root = dataclasses.replace(asked or Asked(), **options), Path(dataset_dir)
    plane_axis(asked.plane)
    found, images = _recognised(root, asked) if asked.layout is None else _own(asked.layout, root, asked)
    read = found.rows(root, asked)
    if images is None:
        return Found(found.name, read.scans, notes=read.notes)
    rows, images, ruled_out = _without_ruled_out(read.scans, images)
    if ruled_out and not images.by_name:
        counts = ", ".join(f"{count} {why}" for why, count in ruled_out.items())
        raise MonaiCaeError(f"no image of {root} takes part ({counts}): look at its qc.html")
    scans, notes = match(rows, images.by_name, root, asked.allow_outside)
    sessions = {row.session for row in rows}
    if not scans and len(sessions) == 1 and "" not in sessions:
        rows = [dataclasses.replace(row, session="") for row in rows]
        scans, notes = match(rows, images.by_name, root, asked.allow_outside)
        notes.append(Note("no image is named after the session, the same in all rows: it is passed over", (*sessions,)))
    if not scans:
        raise MonaiCaeError(_nothing_matches(root, asked, rows, images.by_name))
    _refuse_shared(scans)
    notes = [*images.notes, *read.notes, *notes]
    left_out = {**_unmatched(rows, scans, images.by_name, asked.allow_unmatched, notes), **ruled_out}
    if images.further:
        left_out["further images of a session"] = images.further
    return Found(found.name, scans, left_out, notes)


def _without_ruled_out(rows: list[Scan], images: Images) -> tuple[list[Scan], Images, dict[str, int]]:
    """The rows and images of scans that may take part, and why how many others may not."""
    out = {loose(name): why for name, why in images.ruled_out.items()}
    kept = {name: path for name, path in images.by_name.items() if loose(name) not in out}
    counts = dict(Counter(out.values()))
    return [row for row in rows if loose(row.name) not in out], dataclasses.replace(images, by_name=kept), counts


def read_rows(dataset_dir: str | Path, asked: Asked | None = None) -> Table:
    """The rows of a cohort, with or without an image, of the layout that `read_scans` recognises."""
    asked, root = asked or Asked(), Path(dataset_dir)
    found, _ = _recognised(root, asked) if asked.layout is None else _own(asked.layout, root, asked)
    return found.rows(root, asked)


def _own(layout: Layout, root: Path, asked: Asked) -> tuple[Layout, Images | None]:
    if not isinstance(layout, Layout):
        raise MonaiCaeError(
            "layout must be an object with name, detect, images and rows, such as {_target_: my_package.MyLayout}, "
            f"not {layout!r}"
        )
    if not layout.detect(root):
        raise MonaiCaeError(f"{root} does not look like {layout.name}: check --dataset_dir and --layout")
    return layout, layout.images(root, asked)


def _recognised(root: Path, asked: Asked) -> tuple[Layout, Images | None]:
    """The layout whose names are there, else the first that finds images."""
    named = [layout for layout in BUILT_IN if layout.detect(root)]
    if len(named) > 1:
        raise MonaiCaeError(f"{root} mixes {' and '.join(one.name for one in named)}: give each its own folder")
    if not named and not root.is_dir():
        raise MonaiCaeError(
            f"{root} is not a folder: give the cohort's folder with --dataset_dir (or make a synthetic cohort: "
            "monai-cae phantom OUT)"
        )
    for layout in dict.fromkeys([*named, *ANYWHERE]):
        images = layout.images(root, asked)
        if images is None or images.by_name:
            return layout, images
    return (named or ANYWHERE[-1:])[0], Images({})


def _unmatched(
    rows: Sequence[Scan], scans: Sequence[Scan], images: Mapping[str, Path], allowed: bool, notes: list[Note]
) -> dict[str, int]:
    """Count the rows and images that stay without a partner, name the first of them, and refuse too many."""
    matched = {scan.name for scan in scans}
    used = {os.path.realpath(str(scan.image)) for scan in scans}
    places = {name: os.path.realpath(path) for name, path in images.items()}
    alone = {
        "rows without an image": [row.name for row in rows if row.name not in matched],
        # of OASIS-2 and DICOM, files of all sessions have one name
        "images without a row in the table": [
            path.name if name in path.name else name for name, path in images.items() if places[name] not in used
        ],
    }
    files, asked = [path.name for path in images.values()], [row.name for row in rows]
    allowed = allowed or any(row.file for row in rows)  # the table names its images: what else is there is not missed
    totals = (len(rows), len(used.union(places.values())))
    for (what, names), total, partners in zip(alone.items(), totals, (files, asked), strict=True):
        if len(names) > total * MOST_UNMATCHED and not allowed:
            raise MonaiCaeError(
                f"{len(names)} of {total} {what}, such as {nearest(names[0], partners)}: correct the names, name the "
                "subject column with --subject-column, or continue without these with --allow-unmatched true"
            )
        notes += [Note(f"{len(names)} {what}", tuple(names[:NAMED]))] if names else []
    return {what: len(names) for what, names in alone.items() if names}


def find_images(path: str | Path) -> list[Path]:
    """The image files that a user points at for inference, in the order of their paths, the header for an Analyze pair.

    Args:
        path: one .nii, .nii.gz, .img or .hdr file, or a folder; of OASIS-1 discs only the atlas-registered, masked
            volumes, of a BIDS derivative only those that its qc.tsv does not rule out.

    Raises:
        MonaiCaeError: nothing there, or no image.
    """
    path = Path(path)
    if path.is_dir():
        return sorted(map(Path, images_in(path)))
    if not path.is_file():
        raise MonaiCaeError(f"no image at {path}: give a volume or a folder with --dataset_dir")
    path = Path(header_of(str(path)))
    if not path.name.lower().endswith(IMAGE_SUFFIXES) or not path.is_file():
        raise MonaiCaeError(f"{path} is not a .nii, .nii.gz or .hdr/.img image")
    return [path]


def images_in(folder: Path) -> list[str]:
    """The image files of a folder, see `find_images`, as texts: of a million a third of the memory."""
    if _DERIVATIVE.detect(folder) and (derived := _DERIVATIVE.images(folder, Asked())).by_name:
        return [str(path) for path in _without_ruled_out([], derived)[1].by_name.values()]
    found = chosen(str(file) for file in walk(folder))
    if not found:
        raise MonaiCaeError(f"no .nii, .nii.gz or .hdr/.img image in {folder}{other_formats(walk(folder))}")
    return found


def chosen(files: Iterable[str]) -> list[str]:
    """Of the files of a folder those to predict from: OASIS-1's registered ones, if there are any, else all images but
    hidden ones."""
    named = ((file, file.rpartition("/")[2]) for file in files if file.lower().endswith(IMAGE_SUFFIXES))
    images = [(file, name) for file, name in named if name[0] != "."]
    return [file for file, name in images if T88.match(name)] or [file for file, _ in images]


def _refuse_shared(scans: list[Scan]) -> None:
    owner: dict[str, Scan] = {}
    for scan in scans:
        other = owner.setdefault(os.path.realpath(str(scan.image)), scan)
        if other is not scan:
            raise MonaiCaeError(f"{other.name} and {scan.name} share one image, {scan.image}: correct the table")


def _nothing_matches(root: Path, asked: Asked, rows: list[Scan], images: Mapping[str, Path]) -> str:
    named = asked.layout or next((layout for layout in BUILT_IN if layout.detect(root)), None)
    if not images and named is not None and named is not _OASIS1:
        return f"no images in {root} where {named.name} would have them{other_formats(walk(root))}"
    if not images:
        return (
            f"no images in {root}: neither OASIS-1's *_t88_masked_gfc.hdr, nor BIDS's sub-*/anat/*_T1w.nii.gz, nor "
            f"Clinica's t1_linear, nor ID.nii.gz in {root} or {root / asked.plane}, nor a column of the table that "
            f"names them (say which with --image-column){other_formats(walk(root))}"
        )
    return (
        f"no image in {root} is named after an ID of the table: the first ID is {rows[0].name}, "
        f"the first image {next(iter(images.values())).name}: name the column that has these names, or the files, with "
        "--image-column"
    )
