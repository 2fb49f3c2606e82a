"""Which DICOM series of a visit is its T1w scan, by what the headers say of the sequence."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from monai_cae.errors import MonaiCaeError
from monai_cae.prepare.dicom import Series

FEWEST_SLICES, FEWEST_PIXELS, THICKEST_MM = 30, 96, 6.0
_WORDS = {
    "localizer": r"(?<![a-z])(?:loc|locali[sz]er|scout|survey|aahead|plan_?scan)(?![a-z])|smartbrain",
    "post-contrast": r"\+ ?c(?![a-z])|(?<![a-z])c ?\+|(?<![a-z])(?:post|gd|gad\w*|contrast|ce|km)(?![a-z])",
    "angiography": r"(?<![a-z])(?:tof|mra|angio\w*|venogra\w*|swi|swan|qsm)(?![a-z])",
    "not T1w": r"(?<![a-z])(?:flair|t2\w*|pd|dti|dwi|adc|bold|fmri|asl|field_?map\w*|b[01]map|inv2)(?![a-z])",
    "derived": r"(?<![a-z])(?:mpr_\w+|mip|min_?ip|reformat\w*|thick\w*)(?![a-z])",
}
_T1_WORDS = re.compile(
    r"t1|mprage|mp-rage|spgr|bravo|(?<![a-z])(?:ir)?fspgr|tfl3d|tfe|flash|mp2rage|mdeft", re.IGNORECASE
)
# Kinds of image that a program has made of others. "NORM", "DIS2D", "DIS3D" are the scanner's usual corrections.
_DERIVED = {"DERIVED", "MPR", "PROJECTION IMAGE", "MIN IP", "MIP", "REFORMATTED", "SUBTRACTION", "MAP", "ADC", "FA"}
_PARTS = {"P", "PHASE", "R", "REAL", "I", "IMAGINARY", "PHASE MAP"}


@dataclass(frozen=True)
class Choice:
    """The T1w series of a visit, and every other with the reason why it is not."""

    series: Series
    passed_over: tuple[str, ...]

    @property
    def lines(self) -> list[str]:
        """What was chosen, then what was passed over, a line each."""
        return [f"taken: {self.series.line}", *(f"passed over: {line}" for line in self.passed_over)]


def not_t1w(series: Series) -> str:
    """Why a series can't be the T1w scan; "" where its header says that it is one."""
    facts = series.facts
    if facts["Modality"] != "MR":
        return f"not MR but {facts['Modality'] or 'unknown'}"
    kinds = set(facts["ImageType"])
    text = " ".join(series.written).casefold()
    words = next((why for why, pattern in _WORDS.items() if re.search(pattern, text)), "")
    if "LOCALIZER" in kinds or words == "localizer" or series.broken.endswith("as a localizer has"):
        return "localizer"
    if kinds & _DERIVED or words == "derived":
        return "derived from other images"
    if kinds & _PARTS:
        return "phase, real or imaginary part"
    if facts["contrast"] or words == "post-contrast":
        return "post-contrast"
    if facts["AngioFlag"] == "Y" or words == "angiography":
        return "angiography or susceptibility"
    return _other_weighting(series, words) or _too_small(series)


def _other_weighting(series: Series, words: str) -> str:
    """By the times: an inversion before a gradient echo, a spoiled gradient echo, or a short spin echo is T1w."""
    facts = series.facts
    sequence = {*facts["ScanningSequence"], *re.split(r"\W+", facts["EchoPulseSequence"])}
    repetition, echo, inversion, flip = (
        facts[name] for name in ("RepetitionTime", "EchoTime", "InversionTime", "FlipAngle")
    )
    if "EP" in sequence:
        return "echo-planar"
    if "MTC" in (*facts["SequenceVariant"], *facts["ScanOptions"]):
        return "magnetisation transfer"
    if words == "not T1w":
        return "not T1w by its name"
    if repetition is None or echo is None:
        return "" if _T1_WORDS.search(" ".join(series.written)) else "its header has no TR and TE"
    if echo > 30:
        return f"not T1w (TE {echo:g} ms)"
    gradient = "GR" in sequence or "GRADIENT" in sequence or not sequence & {"SE", "SPIN"}
    if inversion:
        return "" if gradient and 200 <= inversion <= 1400 else f"not T1w (TI {inversion:g} ms)"
    if gradient:
        spoiled = echo <= 12 and repetition <= 60 and (flip is None or flip >= 8)
        # of MPRAGE a few scanners record the time between inversions and no inversion time
        named = bool(_T1_WORDS.search(series.written[0] or series.written[1])) and echo <= 12 and repetition > 1000
        return "" if spoiled or named else f"not T1w (TR {repetition:g}, TE {echo:g} ms, {flip or 0:g} degrees)"
    return "" if repetition <= 1000 else f"not T1w (TR {repetition:g}, TE {echo:g} ms)"


def _too_small(series: Series) -> str:
    if series.slices < FEWEST_SLICES:
        return f"{series.slices} slices"
    if min(series.rows, series.columns) < FEWEST_PIXELS:
        return f"{series.columns} x {series.rows} pixels"
    return f"slices {series.spacing[2]:g} mm apart" if series.spacing[2] > THICKEST_MM else ""


def choose_series(series: Sequence[Series], wanted: str = "") -> Choice:
    """The one T1w series of a visit.

    Args:
        series: all of the visit.
        wanted: a series number, or a part of a description; it decides between several, and takes what the header does
            not call T1w.

    Raises:
        MonaiCaeError: none, several, or one with slices missing or several volumes.
    """
    reasons = {one.uid: not_t1w(one) for one in series}
    if wanted:
        found = [one for one in series if _is(one, wanted)]
        t1w = [one for one in found if not reasons[one.uid]]
        found = t1w if len(found) > 1 and t1w else found
    else:
        found = [one for one in series if not reasons[one.uid]]
    listed = "; ".join(f"{one.line}: {reasons[one.uid] or 'T1w'}" for one in series)
    if not found:
        what = f"no series is {wanted!r}" if wanted else "no T1w series"
        raise MonaiCaeError(f"{what} among {len(series)} ({listed}): choose one with --series NUMBER")
    if len(found) > 1:
        them = "; ".join(one.line for one in found)
        raise MonaiCaeError(
            f"{len(found)} T1w series ({them}): choose one with --series, a number or a part of the name"
        )
    if found[0].broken:
        raise MonaiCaeError(f"{found[0].line} has {found[0].broken}")
    others = tuple(f"{one.line}: {reasons[one.uid] or 'not asked for'}" for one in series if one is not found[0])
    return Choice(found[0], others)


def _is(series: Series, wanted: str) -> bool:
    if wanted.isdecimal():
        return series.number == int(wanted)
    return wanted.casefold() in series.description.casefold()
