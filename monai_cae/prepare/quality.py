"""Is it good? The numbers of a prepared scan, their limits, and the verdict."""

from __future__ import annotations

from dataclasses import dataclass

PASS, REVIEW, FAIL = "pass", "review", "fail"


@dataclass(frozen=True)
class Verdict:
    """Attributes:
    status: "pass", "review" (look at it) or "fail" (not to be used).
    reasons: why, a line each; empty for "pass".
    """

    status: str
    reasons: tuple[str, ...] = ()


@dataclass(frozen=True)
class Quality:
    """One number of quality, and its limits.

    Attributes:
        name: the key in `Prepared.qc` and the sidecar.
        unit: "" where it has none.
        meaning: what it is, a few words for a table.
        review: the lowest and the highest value that passes.
        fail: the lowest and the highest value that is not a failure.
    """

    name: str
    unit: str
    meaning: str
    review: tuple[float, float]
    fail: tuple[float, float]


QUALITY: tuple[Quality, ...] = ()
