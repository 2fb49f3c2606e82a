"""Which image belongs to which row of a table."""

from __future__ import annotations

import dataclasses
import difflib
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from monai_cae.data.cohort.persons import loose, without_prefixes
from monai_cae.data.path_safety import require_inside
from monai_cae.data.scan import Note, Scan

_OTHER_FORMATS = {
    ".mgz": "FreeSurfer's .mgz: convert them with mri_convert",
    ".mgh": "FreeSurfer's .mgh: convert them with mri_convert",
    ".zst": "compressed with zstd: unpack them with unzstd",
    ".bz2": "compressed with bzip2: unpack them with bunzip2",
    ".xz": "compressed with xz: unpack them with unxz",
    ".zip": "zip archives: unpack them",
    ".dcm": "DICOM: convert them to NIfTI, with dcm2niix for example",
    ".mha": "MetaImage: convert them to NIfTI",
    ".nrrd": "NRRD: convert them to NIfTI",
    ".mnc": "MINC: convert them with mnc2nii",
    ".head": "AFNI's: convert them with 3dAFNItoNIFTI",
}


def match(
    rows: Sequence[Scan], images: Mapping[str, Path], root: Path, allow_outside: bool
) -> tuple[list[Scan], list[Note]]:
    """The rows that have an image, each with its own, and notes of what was guessed.

    Args:
        rows: of the table; `file` names the image where the table does, with or without its suffix.
        images: name of the scan -> file.
        root, allow_outside: of the paths in the table, see `require_inside`.

    Raises:
        MonaiCaeError: a path that leads out of the folder.
    """
    spelled, asked = defaultdict(list), Counter(loose(row.name) for row in rows)
    for name in images:
        spelled[loose(name)].append(name)
    found, respelled, blank = [], [], []
    names_images = any(row.file for row in rows)
    for row in rows:
        if row.file and row.file not in images:
            require_inside(row.file, root, f"the table's row of {row.name}", allow_outside)
            path = Path(row.file) if Path(row.file).is_absolute() else root / row.file
        else:
            key = loose(row.name)
            alike = spelled[key] if asked[key] == 1 and len(spelled[key]) == 1 else []
            name = next((name for name in (row.file, row.name, *row.aliases, *alike) if name in images), "")
            if not name:
                continue
            path = images[name]
            if name in alike and without_prefixes(name) != without_prefixes(row.name):
                respelled.append(f"{row.name} -> {name}")
            if names_images and not row.file:
                blank.append(f"{row.name} -> {path.name}")
        if path.suffix.lower() == ".img":
            path = path.with_suffix(".HDR" if path.suffix.isupper() else ".hdr")
        found.append(dataclasses.replace(row, image=path))
    told = {
        "rows matched to images whose names differ in zeros, prefixes or case": respelled,
        "rows in which the table names no image matched to images named after their ID": blank,
    }
    return found, [Note(f"{len(names)} {what}", tuple(names[:3])) for what, names in told.items() if names]


def nearest(name: str, partners: Iterable[str]) -> str:
    """A name without a partner, and the most similar candidate."""
    close = difflib.get_close_matches(name, list(partners), 1, cutoff=0.3)
    return f"{name} (nearest: {close[0]})" if close else name


def other_formats(files: Iterable[Path]) -> str:
    """Advice on images in unsupported formats, for the end of an error; "" if there are none."""
    counts = Counter(path.suffix.lower() for path in files if path.suffix.lower() in _OTHER_FORMATS)
    return "".join(f"; {count} files are {_OTHER_FORMATS[suffix]}" for suffix, count in counts.most_common(2))
