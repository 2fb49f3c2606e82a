"""One scan of one subject: the record that every layout is read into."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

CDR_GRADES = (0.0, 0.5, 1.0, 2.0, 3.0)


@dataclass(frozen=True)
class Scan:
    """What is known of one scan.

    Attributes:
        subject: the subject's ID, the same for all scans of one person, e.g. "OAS1_0001".
        session: which of the subject's scans, e.g. "MR1"; "" where the cohort has one scan per subject.
        image: the image file (.hdr for Analyze pairs); None when only a table was read.
        label: 1 = patient (AD), 0 = control (HC), or the number that a target makes of the row; None before the cohort
            is selected, or where the scan takes no part.
        cdr: global Clinical Dementia Rating (0, 0.5, 1, 2, 3); None when the table leaves it blank.
        age: years; None when not given.
        sex: "F", "M" or "" when not given.
        covariates: further numbers of the table that are filled in, e.g. {"nWBV": 0.743}.
        row: the table's row as text, for the rules of a task.
        file: the image as the table names it; "" where it does not.
        aliases: other IDs in the row, which the image may be named after.
    """

    subject: str
    session: str = ""
    image: Path | None = None
    label: float | None = None
    cdr: float | None = None
    age: float | None = None
    sex: str = ""
    covariates: Mapping[str, float] = field(default_factory=dict)
    row: Mapping[str, str] = field(default_factory=dict, repr=False, compare=False)
    file: str = field(default="", repr=False, compare=False)
    aliases: tuple[str, ...] = field(default=(), repr=False, compare=False)

    @property
    def name(self) -> str:
        """Subject and session, as OASIS-1 and BIDS write them: "OAS1_0001_MR1", "sub-01_ses-02"."""
        return f"{self.subject}_{self.session}" if self.session else self.subject


class Note(NamedTuple):
    """Something that was guessed or left out while a cohort was read."""

    text: str  # what, without anybody's ID
    examples: tuple[str, ...] = ()  # IDs and files that it is about, the first few

    def line(self, names: bool = True) -> str:
        """In one line, with or without the examples."""
        return f"{self.text}: {', '.join(self.examples)}" if names and self.examples else self.text


@dataclass(frozen=True)
class BadScan:
    """A scan that can't be used."""

    subject: str  # whose it is, with the session where there are several; "" where only the file is known
    image: str
    reason: str  # what is wrong, one line that names the file
    set: str = ""  # of a given datalist's, the one that it is missing from; "" where it was left out before the split

    @property
    def brief(self) -> str:
        """The reason without the folder's name, for what is kept and shared."""
        return self.reason.replace(f"{Path(self.image).parent}{os.sep}", "")
