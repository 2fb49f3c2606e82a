"""OASIS-3 as XNAT gives it: a folder per MR session, OAS30001_MR_d0129, and tables of visits on other days.

The number is days since the person entered the study; clinical visits have theirs in `ADRC_ADRCCLINICALDATA ID`
(OAS30001_ClinicalData_d0000), newer tables in `days_to_visit`. LaMontagne et al., medRxiv 2019.12.13.19014902;
OASIS-3 Imaging Methods and Data Dictionary.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

from monai_cae.data.cohort.cells import Cells
from monai_cae.data.cohort.joining import Source, Wanted, day_of, join, tables_of
from monai_cae.data.cohort.tables import read_age
from monai_cae.data.layouts.base import Asked, Images, subfolders, walk
from monai_cae.data.layouts.bids import choose_t1w
from monai_cae.data.layouts.study import Study
from monai_cae.data.scan import Note
from monai_cae.errors import MonaiCaeError

_YEAR = 365.25  # days
_PERSON = ("oasisid", "subject")
_DAYS = ("days_to_visit", "adrc_adrcclinicaldata id", "oasis_session_label")
_SEXES = {"m/f": {"m": "M", "f": "F"}, "gender": {"1": "M", "2": "F"}}


class Oasis3(Study):
    """`OAS3*_MR_d*/anat*/..._T1w.nii.gz`, and tables of ADRC or UDS, demographics and FreeSurfer."""

    name = "OASIS-3"
    scans = re.compile(r"OAS3\d{4}_", re.IGNORECASE)
    sources = (
        Source(
            "table of clinical visits",
            person=_PERSON,
            gives={"CDR": ("cdr", "cdrtot"), "MMSE": ("mmse",), "DX": ("dx1",)},
            clocks={"day": _DAYS},
        ),
        Source("ages at entry", person=_PERSON, gives={"age at entry": ("ageatentry",)}),
        Source("sexes", person=_PERSON, gives={"sex": ("m/f", "gender")}, codes=_SEXES),
        Source("education", person=_PERSON, gives={"Educ": ("educ", "education")}),
        Source(
            "FreeSurfer table",
            person=("subject",),
            gives={
                "IntraCranialVol": ("intracranialvol",),
                "TotalGrayVol": ("totalgrayvol",),
                "CortexVol": ("cortexvol",),
                "SubCortGrayVol": ("subcortgrayvol",),
            },
            clocks={"day": ("fs_fsdata id", "mr_session", "freesurfer_id")},
            within=0,
        ),
    )

    def detect(self, root: Path) -> bool:
        """Whether there are folders of MR sessions."""
        return any(re.match(r"OAS3\d{4}_MR_d", path.name) for path in subfolders(root))

    def images(self, root: Path, asked: Asked) -> Images:
        """One T1w image of each session, whichever way XNAT nests it."""
        sessions = {
            session.name: [path for path in walk(session) if re.search(r"_t1w\.nii(\.gz)?$", path.name.lower())]
            for session in _sessions(root)
        }
        return choose_t1w(
            {name: paths for name, paths in sessions.items() if paths}, asked.acquisition, asked.run or "last"
        )

    def joined(self, root: Path, asked: Asked, tables: Sequence[Path]) -> tuple[Cells, list[Note]]:
        """A row per session's folder: the age is that at entry and the days since."""
        sessions = [path.name.partition("_MR_") for path in _sessions(root)]
        scans = [
            Wanted(
                subject,
                f"{subject}_MR_{day}",
                {"day": day_of(day)},
                {"subject": subject, "session": day, "MR ID": f"{subject}_MR_{day}"},
            )
            for subject, _, day in sessions
        ]
        found = tables_of(self.sources, tables)
        if self.sources[0].name not in found:
            raise MonaiCaeError(
                f"no table of clinical visits in {root}: put OASIS3_UDSb4_cdr.csv or the ADRC clinical data there, or "
                "name the folder that has it with --table"
            )
        cells, notes = join(scans, self.sources, found, asked.days)
        for (_, row), scan in zip(cells.rows, scans, strict=True):
            entered = read_age(row.get("age at entry", ""), "age at entry", f"{root}: {scan.person}")
            row["age"] = "" if entered is None else f"{entered + scan.times['day'] / _YEAR:.2f}"
        return Cells([*cells.columns, "age"], cells.rows), notes


def _sessions(root: Path) -> list[Path]:
    return [path for path in subfolders(root) if re.fullmatch(r"OAS3\d{4}_MR_d-?\d+", path.name)]
