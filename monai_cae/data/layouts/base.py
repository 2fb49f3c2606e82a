"""The interface of a layout, and tools for searching a folder."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

from monai_cae.data.cohort.cells import Cells
from monai_cae.data.cohort.tables import Table, find_table, read_subjects, subjects_in
from monai_cae.data.cohort.tasks import MISSING_CODES
from monai_cae.data.scan import Note
from monai_cae.errors import MonaiCaeError

IMAGE_SUFFIXES = (".nii.gz", ".nii", ".hdr")


@dataclasses.dataclass(frozen=True)
class Images:
    """The images of a cohort, by the name of their scan."""

    by_name: dict[str, Path]
    further: int = 0  # how many were passed over for another of the same session
    notes: list[Note] = dataclasses.field(default_factory=list)  # how these were chosen
    ruled_out: Mapping[str, str] = dataclasses.field(default_factory=dict)  # scans that take no part, and why


@dataclasses.dataclass(frozen=True)
class Asked:
    """How a user wants a cohort to be read.

    Attributes:
        layout: one's own; None recognises one of those that `read_scans` knows.
        table: the table, where it is not in the folder; of a study with several tables, a folder that has them.
        plane: subfolder that a plain folder's images are looked for in first.
        columns, subject_pattern, missing_codes, sex_codes: see `read_subjects`.
        acquisition: of BIDS images, take those with this `acq-` alone, "none" for those without one; by default, where
            a session has several T1w images, the kind that most sessions have.
        run: of several runs of a kind, "last", "first", or a number; "" for the layout's own choice.
        days: of studies whose diagnoses are of other days than the scans: the farthest visit that counts.
        allow_unmatched: go on where more than a tenth of the rows have no image, or of the images no row.
        allow_outside: take images that the table or datalist names outside the folder, see `require_inside`.
    """

    layout: Layout | None = None
    table: str | Path | None = None
    plane: str = "axial"
    columns: Mapping[str, str] | None = None
    subject_pattern: str = ""
    missing_codes: Any = MISSING_CODES
    sex_codes: str = ""
    acquisition: str = ""
    run: str = "last"
    days: int = 365
    allow_unmatched: bool = False
    allow_outside: bool = False

    def table_in(self, root: Path) -> Path:
        """The named table, else the one in the folder."""
        return Path(self.table) if self.table else find_table(root)

    def rows(self, table: Path) -> Table:
        """Read a table, see `read_subjects`."""
        return read_subjects(table, self.columns, **self._reading)

    def joined(self, cells: Cells, root: Path) -> Table:
        """Read what was joined from the tables of a study in this folder; its columns may be named otherwise, too."""
        return subjects_in(cells, root, {"subject": "subject", **(self.columns or {})}, joined=True, **self._reading)

    @property
    def _reading(self) -> dict[str, Any]:
        return {name: getattr(self, name) for name in ("subject_pattern", "missing_codes", "sex_codes")}


@runtime_checkable
class Layout(Protocol):
    """Where a cohort has its images and its rows, one per scan; `read_scans` matches them by name.

    Attributes:
        name: in words, e.g. "OASIS-1 discs".
    """

    @property
    def name(self) -> str: ...

    def detect(self, root: Path) -> bool:
        """Whether the names at the top of a folder, or the file's name, fit this layout."""

    def images(self, root: Path, asked: Asked) -> Images | None:
        """The images by the name of their scan; None if the rows name the images, or there are none."""

    def rows(self, root: Path, asked: Asked) -> Table:
        """The scans, each with its subject (one ID for all scans of a subject), and what was guessed."""


class WithTable:
    """A layout whose rows are those of the table."""

    def rows(self, root: Path, asked: Asked) -> Table:
        """The table's."""
        return asked.rows(asked.table_in(root))


def walk(root: Path) -> Iterator[Path]:
    """All files below a folder but hidden ones, see `entries`, in a fixed order; links are followed, but never back to
    where the walk has been."""

    seen: set[str] = set()
    for folder, subfolders, files in os.walk(root, followlinks=True, onerror=_refuse_unreadable):
        real = os.path.realpath(folder)
        if real in seen:
            subfolders.clear()
            continue
        seen.add(real)
        subfolders.sort()
        yield from (Path(folder, file) for file in sorted(files) if file[0] != ".")


def entries(folder: Path) -> list[Path]:
    """What a folder holds, by name, without hidden files: macOS leaves "._NAME" beside NAME on foreign disks."""
    try:
        return sorted(path for path in folder.iterdir() if not path.name.startswith("."))
    except OSError as error:
        _refuse_unreadable(error)
        raise


def subfolders(root: Path, prefix: str = "") -> list[Path]:
    """The folders in a folder; none in a file."""
    return [path for path in entries(root) if path.name.startswith(prefix) and path.is_dir()] if root.is_dir() else []


def header_of(path: str) -> str:
    """Of a pair, the header stands for both."""
    if path[-4:].lower() == ".img":
        return path[:-4] + (".HDR" if path[-4:].isupper() else ".hdr")
    return path


def add_image(images: dict[str, Path], name: str, path: Path) -> None:
    """Give a scan its image; MonaiCaeError where it has one."""
    if name in images:
        raise MonaiCaeError(f"two images for {name}: {images[name]} and {path}: remove one")
    images[name] = path


def _refuse_unreadable(error: OSError) -> None:
    raise MonaiCaeError(f"can't read {error.filename} ({error.strerror}): check its permissions") from error
