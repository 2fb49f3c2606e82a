"""OASIS-2 as downloaded: OAS2_RAW_PART1, OAS2_RAW_PART2, or the folders of sessions, at any depth.

Marcus et al., Journal of Cognitive Neuroscience 22 (2010) 2677-2684: 150 persons, 373 sessions, three or four scans in
each; 14 persons convert from CDR 0 to CDR > 0.
"""

from __future__ import annotations

import dataclasses
import re
from collections import defaultdict
from pathlib import Path

from monai_cae.data.cohort.tables import Table
from monai_cae.data.layouts.base import Asked, Images, subfolders, walk
from monai_cae.data.layouts.choosing import Candidate, choose

_SESSION = re.compile(r"OAS2_\d{4}_MR\d+")
_SCAN = re.compile(r"mpr-(\d+)\.nifti\.hdr")


class Oasis2:
    """`OAS2_*/RAW/mpr-N.nifti.hdr`, and the longitudinal table."""

    name = "OASIS-2"

    def detect(self, root: Path) -> bool:
        """Whether there are folders of parts or sessions."""
        return any(re.match(r"OAS2_(RAW_PART\d|\d{4})", path.name) for path in subfolders(root))

    def images(self, root: Path, asked: Asked) -> Images:
        """One scan of each session; there are three or four, of one kind."""
        return raw_scans(root, asked, _SESSION, _SCAN)

    def rows(self, root: Path, asked: Asked) -> Table:
        """The table's: one per session. Sessions are told by the column "MRI ID", persons by "Subject ID"."""
        columns = {"subject": "Subject ID", "session": "MRI ID", **(asked.columns or {})}
        return dataclasses.replace(asked, columns=columns).rows(asked.table_in(root))


def raw_scans(root: Path, asked: Asked, session: re.Pattern[str], scan: re.Pattern[str]) -> Images:
    """One scan of each session of OASIS-1 or OASIS-2 as it left the scanner.

    Args:
        root: somewhere above the folders of sessions.
        asked: which of several runs is taken.
        session: fits the name of such a folder.
        scan: fits the file's name, with the number of the run as its only group.
    """
    found: dict[str, list[Candidate]] = defaultdict(list)
    for path in walk(root):
        owner = next((part.name for part in path.parents if session.fullmatch(part.name)), "")
        if owner and (run := scan.fullmatch(path.name)):
            found[owner].append(Candidate(path, "MPRAGE", int(run[1])))
    return choose(found, run=asked.run or "first")
