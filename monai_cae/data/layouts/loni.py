"""ADNI and AIBL as LONI's Image and Data Archive gives them: SUBJECT/SERIES/DATE/IMAGE, and tables of visits.

The table that lists the images (the CSV of the collection: Image Data ID, Subject, Sex, Age, Visit, Acq Date ...) says
what each image is of. Diagnoses are in other tables, by visit: DXSUM of ADNI, aibl_pdxconv of AIBL.
"""

from __future__ import annotations

import math
import re
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from monai_cae.data.cohort.cells import Cells, read_cells, read_header
from monai_cae.data.cohort.joining import (
    NAMED,
    Source,
    Wanted,
    date_of,
    join,
    month_of,
    read_dates,
    readable,
    tables_of,
)
from monai_cae.data.cohort.tasks import Row
from monai_cae.data.layouts.base import Asked, Images, add_image, subfolders, walk
from monai_cae.data.layouts.choosing import Candidate, choose
from monai_cae.data.layouts.study import Study
from monai_cae.data.scan import Note
from monai_cae.data.texts import shown
from monai_cae.errors import MonaiCaeError

_PTID = r"\d{3}_S_\d{4,5}"
_LISTED = {"Image Data ID", "subject", "Acq Date", "Description"}
_OF_SEARCH = {"image id": "Image Data ID", "subject id": "subject", "study date": "Acq Date"}  # of idaSearch_*.csv
_NAMES = {
    "image data id": "Image Data ID", "subject": "subject", "sex": "sex", "age": "age", "acq date": "Acq Date",
    "description": "Description", "visit": "Visit", "modality": "Modality",
}  # fmt: skip
_T1 = re.compile(r"mp.?rage|\bmpr\b|spgr|\bt1\b|\bt1w\b", re.IGNORECASE)
_NOW = {"1": "CN", "2": "MCI", "3": "AD", "cn": "CN", "mci": "MCI", "dementia": "AD"}
# DXCHANGE: 1 to 3 stable, 4 to 6 conversions, 7 to 9 reversions; what counts is what the person is now
_CHANGED = {"1": "CN", "7": "CN", "9": "CN", "2": "MCI", "4": "MCI", "8": "MCI", "3": "AD", "5": "AD", "6": "AD"}
_CLOCKS = {"date": ("examdate", "visdate"), "visit": ("viscode2", "viscode")}
_DATED = ("aibl_mri3meta*", "aibl_mrimeta*", "registry*", "aibl_neurobat*", "aibl_cdr*", "aibl_mmse*")


class Loni(Study):
    """The tree of images, the table of the collection, and the tables of the study."""

    name = "LONI (ADNI, AIBL)"
    scans = re.compile(rf"(ADNI|AIBL|{_PTID}|\d+)$", re.IGNORECASE)
    sources = (
        Source(
            "table of diagnoses",
            person=("rid", "ptid"),
            gives={"DX": ("diagnosis", "dxchange", "dxcurren")},
            codes={"diagnosis": _NOW, "dxcurren": _NOW, "dxchange": _CHANGED},
            clocks=_CLOCKS,
            files=("dxsum*", "aibl_pdxconv*"),
        ),
        Source(
            "table of the CDR",
            person=("rid", "ptid"),
            gives={"CDR": ("cdglobal",)},
            clocks=_CLOCKS,
            files=("cdr*", "aibl_cdr*"),
        ),
        Source(
            "table of the MMSE",
            person=("rid", "ptid"),
            gives={"MMSE": ("mmscore",)},
            clocks=_CLOCKS,
            files=("mmse*", "aibl_mmse*"),
        ),
    )

    def detect(self, root: Path) -> bool:
        """Whether there are folders ADNI or AIBL, or those of ADNI's persons."""
        return any(re.fullmatch(rf"ADNI|AIBL|{_PTID}", path.name) for path in subfolders(root))

    def images(self, root: Path, asked: Asked) -> Images:
        """One T1w NIfTI image of each session that the table lists, by its Image Data ID; all where a table of rows is
        named."""
        raw = self.raw_images(root, asked)
        return replace(raw, by_name={name: path for name, path in raw.by_name.items() if not path.is_dir()})

    def raw_images(self, root: Path, asked: Asked) -> Images:
        """The same, with images in DICOM: of these the path is that of the folder."""
        found = _files(root)
        if asked.table and Path(asked.table).is_file():
            return Images(found)
        listed, _ = _listed(readable(self.tables(root, asked))[0], root)
        chosen = _chosen(listed, found, asked)
        ids = {path: name for name, path in found.items()}
        others = len(found) - sum(row["Image Data ID"] in found for rows in listed.values() for row in rows)
        left = [Note(f"{others} images are not in the list of images, or no T1w MRI by it")] if others else []
        by_id = {ids[path]: path for path in chosen.by_name.values()}
        return Images(by_id, chosen.further + others, [*chosen.notes, *left])

    def joined(self, root: Path, asked: Asked, tables: Sequence[Path]) -> tuple[Cells, list[Note]]:
        """A row per session in the list of images; sessions are told by the days since the person's first in it, which
        gives no date away."""
        (listed, told), found = _listed(tables, root), _files(root)
        ids = {path: name for name, path in found.items()}
        chosen = {name: ids[path] for name, path in _chosen(listed, found, asked).by_name.items()}
        scans = [_wanted(rows, chosen.get(name, "")) for name, rows in listed.items()]
        first: dict[str, float] = {}
        for scan in scans:
            first[scan.person] = min(first.get(scan.person, scan.times["date"]), scan.times["date"])
        rows = [{**scan.row, "session": f"d{scan.times['date'] - first[scan.person]:04.0f}"} for scan in scans]
        scans = [
            replace(scan, row=row, name=f"{row['subject']}_{row['session']}")
            for scan, row in zip(scans, rows, strict=True)
        ]
        known = tables_of(self.sources, tables)
        cells, notes = join(
            scans, self.sources, known, asked.days, person=_person, dates=read_dates(tables, _DATED, _person)
        )
        notes = [*told, *notes]
        if not known:
            notes.append(
                Note(
                    "no DXSUM, aibl_pdxconv or CDR table: Group is what a person was enrolled as, not the diagnosis at "
                    "the scan"
                )
            )
        return cells, notes


def _files(root: Path) -> dict[str, Path]:
    """Image Data ID -> NIfTI file, or the folder of its DICOM files: both files and folder are named after it."""
    found: dict[str, Path] = {}
    dicom: dict[str, Path] = {}
    for path in walk(root):
        if path.name.lower().endswith((".nii", ".nii.gz", ".dcm")):
            named = re.search(r"_(I\d+)\.(?:nii|dcm)", path.name) or re.fullmatch(r"(I\d+)", path.parent.name)
            if named and path.suffix.lower() != ".dcm":
                add_image(found, named[1], path)
            elif named and dicom.get(named[1]) != path.parent:
                add_image(dicom, named[1], path.parent)
    return {**dicom, **found}


def _listed(tables: Sequence[Path], root: Path) -> tuple[dict[str, list[Row]], list[Note]]:
    """The T1w images of every session, by subject and date, from the lists of the collections; each image once, with
    what the first list that knows it says. Notes tell of ages that lists round in different ways.

    Raises:
        MonaiCaeError: no such list, an invalid date, or an image that is listed with two subjects, dates, sexes, ages.
    """
    named = {path: _named(read_header(path)) for path in tables}
    lists = [path for path, names in named.items() if {*names.values()} >= _LISTED]
    if not lists:
        raise MonaiCaeError(
            f"no list of the images in {root}: LONI gives it as CSV beside the collection, with Image Data ID, "
            "Subject, Acq Date and Description, or of a search, with Image ID, Subject ID, Study Date and Description; "
            "put it there, or name the folder that has it with --table"
        )
    images: dict[str, dict[str, str]] = {}
    rounded: dict[str, str] = {}
    for path in lists:
        for number, cells in read_cells(path).rows:
            row = {named[path][name]: value.strip() for name, value in cells.items()}
            image = f"I{row['Image Data ID'].lstrip('iI')}"
            if row.get("Modality", "MRI").upper() not in ("MRI", "MR") or not _T1.search(row["Description"]):
                continue
            date = _date(row["Acq Date"], f"{path}, row {number}: Acq Date")
            row |= {"Image Data ID": image, "Acq Date": f"{date}"}
            before = images.setdefault(image, row)
            for column, name in (("subject", "subject"), ("Acq Date", "Acq Date"), ("sex", "sex"), ("age", "age")):
                one, other = before.get(column, ""), row.get(column, "")
                if not one or not other or one == other:
                    continue
                if column == "age" and (apart := _years_apart(one, other)) < 1:
                    rounded |= {image: f"{image} {one} and {other}"} if apart else {}
                    continue
                raise MonaiCaeError(
                    f"{path}, row {number}: {image} was listed before with another {name}: delete the wrong row"
                )
            before |= {name: value for name, value in row.items() if value and not before.get(name)}
    sessions: dict[str, list[Row]] = defaultdict(list)
    for row in images.values():
        sessions[f"{row['subject']} {float(row['Acq Date']):.0f}"].append(row)
    text = f"ages that lists of images give in two ways, less than a year apart ({len(rounded)}): the first is taken"
    return dict(sessions), [Note(text, tuple(rounded.values())[:NAMED])] if rounded else []


def _named(header: Sequence[str]) -> dict[str, str]:
    """Column of a list of images -> its name here; LONI's two lists call some otherwise."""
    names = {name: _NAMES.get(name.lower(), name) for name in header}
    for name in header:
        if (other := _OF_SEARCH.get(name.lower())) and other not in names.values():
            names[name] = other
    return names


def _years_apart(one: str, other: str) -> float:
    try:
        return abs(float(one) - float(other))
    except ValueError:
        return math.inf


def _chosen(listed: Mapping[str, Sequence[Row]], found: Mapping[str, Path], asked: Asked) -> Images:
    """The image of each session that has any, by its name in the list; of NIfTI and DICOM it is the NIfTI."""
    there = {}
    for name, rows in listed.items():
        images = [
            Candidate(
                found[row["Image Data ID"]], row["Description"], int(row["Image Data ID"][1:]), row["Description"]
            )
            for row in rows
            if row["Image Data ID"] in found
        ]
        there[name] = [image for image in images if not image.path.is_dir()] or images
    return choose({name: images for name, images in there.items() if images}, asked.acquisition, asked.run or "last")


def _wanted(rows: Sequence[Row], image: str) -> Wanted:
    """A session by its chosen image, else by the first that is listed."""
    row = next((row for row in rows if row["Image Data ID"] == image), rows[0])
    times = {"date": float(row["Acq Date"])}
    if (month := month_of(row.get("Visit", ""))) is not None:
        times["visit"] = month
    return Wanted(row["subject"], row["subject"], times, {n: v for n, v in row.items() if n != "Acq Date"})


def _date(text: str, what: str) -> float:
    try:
        return date_of(text)
    except ValueError as error:
        raise MonaiCaeError(f"{what} is {shown(text)}, not {error}: correct it or delete the row") from error


def _person(name: str) -> str:
    """The roster ID: the number at the end of ADNI's 002_S_0295, and what RID and AIBL have."""
    number = re.search(r"(\d+)$", name.strip())
    return str(int(number[1])) if number else name.strip().casefold()
