"""The raw scans of BIDS or of a study's download, as its layout in `monai_cae.data.layouts` finds them."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from monai_cae.data.cohort.persons import split_session
from monai_cae.data.cohort.tables import SUFFIXES, Table
from monai_cae.data.layouts.base import Asked, Images, Layout, walk
from monai_cae.data.layouts.bids import Bids
from monai_cae.data.layouts.ixi import Ixi
from monai_cae.data.layouts.loni import Loni
from monai_cae.data.layouts.oasis1 import Oasis1
from monai_cae.data.layouts.oasis2 import Oasis2
from monai_cae.data.layouts.oasis3 import Oasis3
from monai_cae.data.layouts.study import Study
from monai_cae.data.scan import Note
from monai_cae.errors import MonaiCaeError
from monai_cae.prepare.dicom import Series, is_dicom, read_series

# Sagittal slices as Analyze 7.5 has them; OASIS-1's files record no orientation.
_OASIS_AXES = "ASL"
_OASIS1, _BIDS = Oasis1(), Bids()
_STUDIES: tuple[Layout, ...] = (_OASIS1, Oasis2(), Oasis3(), Loni(), Ixi())


@dataclass(frozen=True)
class Found:
    """Scans by their names, as the input has them.

    Attributes:
        layout: what kind of input it is, in words.
        files: name -> file, or the folder of an image in DICOM.
        visits: name -> the DICOM series of a visit.
        named: name -> subject and session, where the row does not tell them.
        rows: that the study's layout has read; None where no layout reads them.
        notes: what was guessed.
        orientation: of all files, which record none.
        private: IDs must not be shown.
    """

    layout: str
    files: Mapping[str, Path] = field(default_factory=dict)
    visits: Mapping[str, Sequence[Series]] = field(default_factory=dict)
    named: Mapping[str, tuple[str, str]] = field(default_factory=dict)
    rows: Table | None = None
    notes: list[Note] = field(default_factory=list)
    orientation: str = ""
    private: bool = False


def read_study(root: Path, asked: Asked, progress: Callable[[Iterable[Path]], Iterable[Path]]) -> Found | None:
    """The scans of a folder that the layout of BIDS or of a study recognises, one of each session, and their rows.

    Args:
        root: the folder.
        asked: how it is read. With a pattern for subjects, a study's layout is not asked.
        progress: wraps DICOM files as their headers are read.

    Returns:
        None where no layout recognises the folder or finds an image in it.

    Raises:
        MonaiCaeError: several layouts do, BIDS without an image, and what the layout refuses.
    """
    studies = () if asked.subject_pattern else _STUDIES
    known = [layout for layout in (*studies, _BIDS) if layout.detect(root)]
    if len(known) > 1:
        raise MonaiCaeError(f"{root} mixes {' and '.join(one.name for one in known)}: give each its own folder")
    layout = known[0] if known else _OASIS1  # whose sessions may lie at any depth
    images, found = _images(layout, root, asked)
    if not images.by_name:
        if layout is _BIDS:
            raise MonaiCaeError(f"no T1w image in {root}: BIDS has them at sub-*/[ses-*/]anat/*_T1w.nii.gz")
        return None
    visits, notes = _visits(images.by_name, progress)
    return replace(
        found,
        files=images.by_name,
        visits=visits,
        # of LONI the name is that of the image: whose it is, the row alone knows
        named={} if isinstance(layout, Loni) else {name: _subject_and_session(name) for name in images.by_name},
        rows=layout.rows(root, asked) if _has_table(layout, root, asked) else None,
        notes=[*images.notes, *notes],
    )


def _images(layout: Layout, root: Path, asked: Asked) -> tuple[Images, Found]:
    if isinstance(layout, Loni):
        return layout.raw_images(root, asked), Found(layout.name)
    if isinstance(layout, Oasis1):
        if (raw := layout.raw_images(root, asked)).by_name:
            return raw, Found("raw OASIS-1 sessions", orientation=_OASIS_AXES)
        return layout.images(root, asked), Found("OASIS-1 discs, processed")
    return layout.images(root, asked) or Images({}), Found(layout.name)


def _has_table(layout: Layout, root: Path, asked: Asked) -> bool:
    if isinstance(layout, Study):
        return bool(layout.tables(root, asked)) if not asked.table or Path(asked.table).is_dir() else True
    return bool(asked.table) or any(path.suffix.lower() in SUFFIXES for path in root.iterdir())


def _subject_and_session(name: str) -> tuple[str, str]:
    """Of names that a layout gives: sub-01_ses-2, OAS1_0001_MR1, OAS30001_MR_d0129."""
    if name.startswith("sub-"):
        subject, _, session = name.partition("_ses-")
        return subject, session
    subject, session = split_session(name)
    return subject, session.removeprefix("MR_")


def _visits(
    images: Mapping[str, Path], progress: Callable[[Iterable[Path]], Iterable[Path]]
) -> tuple[dict[str, list[Series]], list[Note]]:
    """The series in the folders of images in DICOM."""
    names = {path: name for name, path in images.items() if path.is_dir()}
    if not names:
        return {}, []
    series, left_out = read_series(progress([path for folder in names for path in walk(folder) if is_dicom(path)]))
    visits: dict[str, list[Series]] = defaultdict(list, {name: [] for name in names.values()})
    for one in series:
        owners = {names[parent] for file in one.files for parent in file.parents if parent in names}
        if len(owners) > 1:
            raise MonaiCaeError(f"{' and '.join(sorted(owners))} are one DICOM series: leave one of them")
        visits[owners.pop()].append(one)
    return dict(visits), [Note(f"{count} {reason} passed over") for reason, count in left_out.items()]
