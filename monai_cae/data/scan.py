"""One scan of one subject: the record that every layout is read into."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

CDR_GRADES = (0.0, 0.5, 1.0, 2.0, 3.0)


@dataclass(frozen=True)
class Scan:
    """What is known of one scan.

    Attributes:
        subject: the subject's ID, the same for all scans of one person, e.g. "OAS1_0001".
        session: which of the subject's scans, e.g. "MR1"; "" where the cohort has one scan per subject.
        image: the image file (.hdr for Analyze pairs); None when only a table was read.
        cdr: global Clinical Dementia Rating (0, 0.5, 1, 2, 3); None when the table leaves it blank.
        age: years; None when not given.
        sex: "F", "M" or "" when not given.
        covariates: further numbers of the table that are filled in, e.g. {"nWBV": 0.743}.
    """

    subject: str
    session: str = ""
    image: Path | None = None
    cdr: float | None = None
    age: float | None = None
    sex: str = ""
    covariates: Mapping[str, float] = field(default_factory=dict)

    @property
    def name(self) -> str:
        """Subject and session, as the table writes them: "OAS1_0001_MR1"."""
        return f"{self.subject}_{self.session}" if self.session else self.subject

    @property
    def label(self) -> int | None:
        """1 = AD (CDR > 0), 0 = HC (CDR 0), None where the CDR is blank: a blank is never a healthy control."""
        return None if self.cdr is None else int(self.cdr > 0)
