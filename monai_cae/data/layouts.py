"""From a folder on disk to Scan records, whatever the layout: OASIS-1 discs, BIDS, Clinica CAPS, a table, a
datalist."""

from __future__ import annotations

import dataclasses
import os
import re
from collections.abc import Iterator, Mapping
from fnmatch import fnmatchcase
from pathlib import Path

from monai_cae.data.datalists import checked_item, read_content, recorded_folder
from monai_cae.data.outside import require_inside
from monai_cae.data.planes import plane_axis
from monai_cae.data.scan import Scan
from monai_cae.data.tables import SUFFIXES, column_names, find_table, read_table
from monai_cae.data.tasks import BLANK
from monai_cae.errors import MonaiCaeError

# gain-field corrected, atlas-registered (T88), masked: the paper's input; n3 to n6 is the number of averaged
# acquisitions
_T88 = re.compile(r"^(?P<name>OAS1_\d{4}_MR\d+)_mpr_n\d_anon_111_t88_masked_gfc\.hdr$")
_IMAGE_SUFFIXES = (".nii.gz", ".nii", ".hdr")
_CAPS_IMAGE = "*_space-MNI152NLin2009cSym{crop}_res-1x1x1_T1w.nii*"


@dataclasses.dataclass(frozen=True)
class Found:
    """What a cohort folder holds.

    Attributes:
        layout: in words, e.g. "OASIS-1 discs".
        scans: rows of the table that have an image (all rows where only a table was given).
        left_out: why rows or images are not among them, and how many.
    """

    layout: str
    scans: list[Scan]
    left_out: dict[str, int] = dataclasses.field(default_factory=dict)


def read_scans(
    dataset_dir: str | Path,
    *,
    table: str | Path | None = None,
    plane: str = "axial",
    columns: Mapping[str, str] | None = None,
    allow_outside: bool = False,
) -> Found:
    """Recognise the layout of a cohort by what is there, and read it.

    - OASIS-1 discs: `OAS1_*_t88_masked_gfc.hdr` at any depth;
    - BIDS: `sub-*/[ses-*/]anat/*_T1w.nii[.gz]`, with participants.tsv and, where there are any, `sub-*_sessions.tsv`;
    - Clinica CAPS: `subjects/sub-*/ses-*/t1_linear`, with a table named by `table`;
    - a plain folder: a table that names the images, or images named ID.nii.gz in a subfolder named after the plane, or
      beside the table;
    - a table alone, or a MONAI datalist (.json): its items, all sets together.

    Args:
        dataset_dir: folder, table or datalist.
        table: the table, where it is not in the folder.
        plane: subfolder that a plain folder's images are looked for in first.
        columns: see `read_table`.
        allow_outside: take images that the table or datalist names outside the folder, see `require_inside`.

    Raises:
        MonaiCaeError: nothing there, no table, no images, two images for one scan or two scans for one image, two
            layouts in one folder, an unknown plane. A file that the table names need not be there: see `find_bad`.
    """
    plane_axis(plane)
    root = Path(dataset_dir)
    if root.is_file() and root.suffix.lower() == ".json":
        return Found("MONAI datalist", _datalist_scans(root, allow_outside))
    if root.is_file() and root.suffix.lower() in SUFFIXES:
        return Found("table alone", read_table(root, columns))
    if not root.is_dir():
        raise MonaiCaeError(
            f"{root} is not a folder: give the cohort's folder with --dataset_dir (or make a synthetic cohort: "
            "monai-cae phantom OUT)"
        )
    layout, images, further = _images(root, plane)
    rows = read_table(table if table else find_table(root), columns)
    if layout == "BIDS":
        rows = _with_sessions(root, rows, columns)
    scans = [scan for row in rows if (scan := _matched(row, images, root, allow_outside)) is not None]
    if not scans:
        raise MonaiCaeError(_nothing_matches(root, plane, rows, images))
    _refuse_shared(scans)
    used = {scan.image for scan in scans}
    left_out = {
        "rows without an image": len(rows) - len(scans),
        "images without a row in the table": sum(path not in used for path in images.values()),
        "further images of a session": further,
    }
    return Found(layout, scans, {why: count for why, count in left_out.items() if count})


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
            raise MonaiCaeError(f"no .nii, .nii.gz or .hdr/.img image in {path}")
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


Images = dict[str, Path]


def _images(root: Path, plane: str) -> tuple[str, Images, int]:
    """Layout, images by scan name, and how many images were passed over for another of the same session."""
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
        return "BIDS", *_bids_images(root, "anat", "*_T1w.nii*")
    if present == ["Clinica CAPS"]:
        return "Clinica CAPS", *_caps_images(root / "subjects")
    oasis: Images = {}
    for path in walk(root):
        if match := _T88.match(path.name):
            _add(oasis, match["name"], path)
    if oasis:
        return "OASIS-1 discs", oasis, 0
    return "plain folder", _plain_images(root, plane), 0


def _bids_images(root: Path, part: str, pattern: str) -> tuple[Images, int]:
    images: Images = {}
    further = 0
    for subject in _folders(root, "sub-"):
        sessions = _folders(subject, "ses-")
        for folder, session in [(path, path.name) for path in sessions] or [(subject, "")]:
            files = _entries(folder / part) if (folder / part).is_dir() else []
            found = [p for p in files if fnmatchcase(p.name, pattern) and p.name.endswith((".nii", ".nii.gz"))]
            if found:
                images[_name(subject.name, session)] = found[0]
                further += len(found) - 1
    return images, further


def _folders(root: Path, prefix: str) -> list[Path]:
    return [path for path in _entries(root) if path.name.startswith(prefix) and path.is_dir()]


def _caps_images(root: Path) -> tuple[Images, int]:
    cropped, _ = _bids_images(root, "t1_linear", _CAPS_IMAGE.format(crop="_desc-Crop"))
    whole, _ = _bids_images(root, "t1_linear", _CAPS_IMAGE.format(crop=""))
    return cropped or whole, 0  # Clinica writes both; the cropped ones are its own default for training


def _plain_images(root: Path, plane: str) -> Images:
    folder = root / plane if (root / plane).is_dir() else root
    images: Images = {}
    for path in _entries(folder):
        suffix = next((s for s in _IMAGE_SUFFIXES if path.name.lower().endswith(s)), None)
        if suffix:
            _add(images, path.name[: -len(suffix)], path)
    return images


def _add(images: Images, name: str, path: Path) -> None:
    if name in images:
        raise MonaiCaeError(f"two images for {name}: {images[name]} and {path}: remove one")
    images[name] = path


def _name(subject: str, session: str) -> str:
    return f"{subject}_{session}" if session else subject


def _with_prefix(prefix: str, text: str) -> str:
    return text if not text or text.startswith(prefix) else prefix + text


def _with_sessions(root: Path, rows: list[Scan], columns: Mapping[str, str] | None) -> list[Scan]:
    """BIDS: one row per session, what sub-*_sessions.tsv says (a blank says nothing) before participants.tsv."""
    out = []
    for row in rows:
        subject = _with_prefix("sub-", row.subject)
        table = root / subject / f"{subject}_sessions.tsv"
        folders = [path.name for path in _folders(root / subject, "ses-")] if (root / subject).is_dir() else []
        if table.is_file():
            known = {name.strip().lower() for name in column_names(table)}
            roles = {role: name for role, name in (columns or {}).items() if name.strip().lower() in known}
            names = {name.lower(): name for name in row.row}
            for session in read_table(table, {**roles, "subject": "session_id"}):
                given = {
                    names.get(name.lower(), name): value
                    for name, value in session.row.items()
                    if name != "session_id" and value.strip().lower() not in BLANK
                }
                out.append(
                    dataclasses.replace(
                        row,
                        session=_with_prefix("ses-", session.subject),
                        cdr=row.cdr if session.cdr is None else session.cdr,
                        age=row.age if session.age is None else session.age,
                        sex=session.sex or row.sex,
                        covariates={**row.covariates, **session.covariates},
                        row={**row.row, **given},
                    )
                )
        elif folders and not row.session:
            out += [dataclasses.replace(row, session=folder) for folder in folders]
        else:
            out.append(row)
    return out


def _matched(row: Scan, images: Images, root: Path, allow_outside: bool) -> Scan | None:
    if row.file:
        require_inside(row.file, root, f"the table's row of {row.name}", allow_outside)
        path = Path(row.file) if Path(row.file).is_absolute() else root / row.file
    else:
        bids = _name(_with_prefix("sub-", row.subject), _with_prefix("ses-", row.session))
        found = images.get(row.name) or images.get(bids)
        if found is None:
            return None
        path = found
    if path.suffix == ".img":
        path = path.with_suffix(".hdr")
    return dataclasses.replace(row, image=path)


def _refuse_shared(scans: list[Scan]) -> None:
    owner: dict[str, Scan] = {}
    for scan in scans:
        other = owner.setdefault(os.path.realpath(str(scan.image)), scan)
        if other is not scan:
            raise MonaiCaeError(f"{other.name} and {scan.name} have one image, {scan.image}: correct the table")


def _nothing_matches(root: Path, plane: str, rows: list[Scan], images: Images) -> str:
    if not images:
        return (
            f"no images in {root}: neither OASIS-1's *_t88_masked_gfc.hdr, nor BIDS's sub-*/anat/*_T1w.nii.gz, nor "
            f"Clinica's t1_linear, nor ID.nii.gz in {root} or {root / plane}, nor a column of the table that names them"
        )
    return (
        f"no image in {root} is named after an ID of the table: the first ID is {rows[0].name}, "
        f"the first image {next(iter(images.values())).name}"
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
