"""Findings of an audit: leaks and warnings, check by check."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict, dataclass, field
from typing import Any

NOT_CHECKED = (
    "slices of one subject under two names, farther apart than neighbours: one in seven of those 2 mm apart is missed, "
    "and nearly all of those 3 mm apart",
    "copies that were shifted by 2 pixels (2 voxels of a volume) or rotated by 2 degrees or more, cropped, padded, "
    "transposed or inverted",
    "a second visit of a subject under another name, relatives, and whether subject names and labels are correct",
    "what a checkpoint has already learned from these subjects, unless its subjects are given",
)


@dataclass(frozen=True)
class Finding:
    """What one check found."""

    check: str  # its name
    leak: bool  # information passes between sets; otherwise a warning
    message: str  # one sentence
    members: tuple[str, ...] = ()  # the items, as subject/session or file name, each after its set


@dataclass(frozen=True)
class Audit:
    """What the sets are, what was looked for, and what was found.

    Attributes:
        sets: per set n, subjects, classes, age (n, mean, sd, min, max, or None), women, men.
        checks: name, looks_for, threshold, compared (a number) of unit, findings (a number), passed (None: not done).
        findings: leaks and warnings, in the order of the checks.
        synthetic: the images are a phantom's, not real MRI.
        bad_scans: those that can't be used and were left out: subject, image, reason, and the set they miss from.
        notes: in a line each, how the volumes differ from those that the paper's slice is of.
    """

    sets: dict[str, dict[str, Any]]
    checks: list[dict[str, Any]]
    findings: list[Finding]
    synthetic: bool = False
    bad_scans: list[dict[str, str]] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    @property
    def leaks(self) -> list[Finding]:
        """The findings that make a test result worthless."""
        return [finding for finding in self.findings if finding.leak]

    def to_dict(self) -> dict[str, Any]:
        """For JSON and for `monai_cae.evaluation.audit_page`; adds the number of leaks and what was not checked."""
        findings = [{**asdict(finding), "members": list(finding.members)} for finding in self.findings]
        return {
            "synthetic": self.synthetic,
            "leaks": len(self.leaks),
            "sets": self.sets,
            "bad_scans": self.bad_scans,
            "notes": self.notes,
            "checks": self.checks,
            "findings": findings,
            "not_checked": list(NOT_CHECKED),
        }


Found = tuple[bool, str, Iterable[object]]  # leak, message, members


@dataclass
class Report:
    """The checks of an audit and their findings, as they are entered."""

    checks: list[dict[str, Any]] = field(default_factory=list)
    findings: list[Finding] = field(default_factory=list)

    def add(
        self, name: str, looks_for: str, found: Iterable[Found], *, compared: int | None, unit: str, threshold: str = ""
    ) -> None:
        """Enter a check with its findings; without `compared` it was not done."""
        findings = [Finding(name, leak, message, tuple(map(str, names))) for leak, message, names in found]
        self.findings += findings
        passed = None if compared is None else not findings
        entry = {"name": name, "looks_for": looks_for, "threshold": threshold, "compared": compared or 0, "unit": unit}
        self.checks.append({**entry, "findings": len(findings), "passed": passed})
