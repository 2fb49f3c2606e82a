"""Who the synthetic cohort's subjects are: demographics, and the atrophy that goes with them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np

from monai_cae.errors import MonaiCaeError

_FIRST_NUMBER, _LAST_NUMBER = 9001, 9999  # real IDs end at OAS1_0457: no synthetic subject carries a real one's
_SUBJECTS_PER_DISC = 40

_CDR_GRADES, _CDR_SHARES = (0.5, 1.0, 2.0), (0.70, 0.28, 0.02)
CDR_SEVERITY_MM = {0.0: 0.0, 0.5: 2.4, 1.0: 3.2, 2.0: 4.2}
# Where the temporal lobes shrink, too: in patients the hippocampus, not the ventricle, is furthest from controls.
CDR_MILDER_MM = {0.0: 0.0, 0.5: 1.0, 1.0: 1.6, 2.0: 2.4}
CDR_LOST = {0.0: 0.0, 0.5: 0.13, 1.0: 0.22, 2.0: 0.28}  # of a control's hippocampus; sources: medial_temporal
_SEVERITY_SPREAD_MM = 0.85
_LOST_AT_75, _LOST_PER_YEAR, _LOST_SPREAD = 0.12, 0.004, 0.09  # of the template's hippocampus, by age alone
_SHARED = 0.5  # correlation of what a subject has lost more than others of its age and CDR, here and elsewhere
_MMSE = {0.0: (29.0, 1.2, 25, 30), 0.5: (25.6, 3.5, 14, 30), 1.0: (21.7, 3.8, 15, 29), 2.0: (15.0, 1.0, 12, 18)}


class Atrophy(NamedTuple):
    """What is less than in the template: by how many mm the ventricles' walls give way and the cortex thins, and the
    share of the hippocampus that is lost."""

    ventricle_mm: float
    cortex_mm: float
    lost: float


@dataclass(frozen=True)
class Person:
    """A subject of the synthetic cohort.

    Attributes:
        row: of the table.
        folder: its place on disk.
        acquisitions: how many scans its image is the mean of, by its name.
        atrophy: of its brain.
        unaffected: the same, had it CDR 0.
        generator: draws its image.
    """

    row: dict[str, str]
    folder: Path
    acquisitions: int
    atrophy: Atrophy
    unaffected: Atrophy
    generator: np.random.Generator


def draw_people(subjects: int, seed: int, volumes: bool = False) -> list[Person]:
    """Draw who takes part; subject k is the same among any number, save the last of an odd number.

    Args:
        subjects: 4 to 999.
        seed: 0 or greater.
        volumes: whether atrophy is in the temporal lobes too, and the less elsewhere. The rows are the same.

    Raises:
        MonaiCaeError: subjects or seed out of range.
    """
    most = _LAST_NUMBER - _FIRST_NUMBER + 1
    if not 4 <= subjects <= most:
        raise MonaiCaeError(f"subjects must be 4 to {most}, not {subjects}")
    if seed < 0:
        raise MonaiCaeError(f"seed must be 0 or greater, not {seed}")
    own, pairs, temporal = np.random.SeedSequence(seed).spawn(3)
    patient_first = [np.random.default_rng(pair).random() < 0.5 for pair in pairs.spawn((subjects + 1) // 2)]
    people = []
    for index, sequences in enumerate(zip(own.spawn(subjects), temporal.spawn(subjects), strict=True)):
        alone = index == subjects - 1 and index % 2 == 0
        is_patient = not alone and patient_first[index // 2] == (index % 2 == 0)
        rng, temporal = map(np.random.default_rng, sequences)
        people.append(_draw_person(index, is_patient, rng, temporal, volumes))
    return people


def _draw_person(
    index: int, is_patient: bool, rng: np.random.Generator, temporal: np.random.Generator, volumes: bool
) -> Person:
    """Draw demographics like those of OASIS-1's 100 patients and 100 oldest controls, and atrophy to go with them."""
    cdr = float(rng.choice(_CDR_GRADES, p=_CDR_SHARES)) if is_patient else 0.0
    female = rng.random() < (0.59 if is_patient else 0.73)
    age = round(np.clip(rng.normal(76.7, 7.1), 62, 96) if is_patient else np.clip(rng.normal(75.5, 9.2), 59, 94))
    more_mm = rng.normal(0, _SEVERITY_SPREAD_MM)
    ventricle_mm, cortex_mm = rng.normal(0, 0.5), rng.normal(0, 0.25)
    own = _SHARED * more_mm / _SEVERITY_SPREAD_MM + np.sqrt(1 - _SHARED**2) * temporal.standard_normal()
    aged = float(np.clip(_LOST_AT_75 + _LOST_PER_YEAR * (age - 75) + _LOST_SPREAD * own, 0, 0.5))

    def severity_mm(grades: Mapping[float, float], grade: float) -> float:
        return grades[grade] + 0.035 * (age - 75) + more_mm

    def atrophy(grade: float) -> Atrophy:
        severity = severity_mm(CDR_MILDER_MM if volumes else CDR_SEVERITY_MM, grade)
        ventricle, cortex = max(0.0, 1.4 + severity + ventricle_mm), max(0.0, 0.7 + 0.4 * severity + cortex_mm)
        return Atrophy(ventricle, cortex, 1 - (1 - aged) * (1 - CDR_LOST[grade]) if volumes else 0.0)

    nwbv_mean = 0.753 - 0.012 * severity_mm(CDR_SEVERITY_MM, cdr) - 0.002 * (age - 76)
    nwbv = np.clip(nwbv_mean + rng.normal(0, 0.026), 0.64, 0.84)
    mean, deviation, lowest, highest = _MMSE[cdr]
    etiv_ml = round(np.clip(rng.normal(1400 if female else 1580, 130), 1120, 1990))
    name = f"OAS1_{_FIRST_NUMBER + index}_MR1"
    row = {
        "ID": name,
        "M/F": "F" if female else "M",
        "Hand": "R",
        "Age": str(age),
        "Educ": str(rng.integers(1, 6)),
        "eTIV": str(etiv_ml),
        "nWBV": f"{nwbv:.3g}",
        "ASF": f"{round(1755 / etiv_ml, 3):g}",
        "Delay": "N/A",
        "MMSE": str(round(np.clip(rng.normal(mean, deviation), lowest, highest))),
        "CDR": f"{cdr:g}",
        "SES": "" if rng.random() < (0.17 if is_patient else 0.01) else str(rng.integers(1, 5)),
    }
    folder = Path(f"disc{1 + index // _SUBJECTS_PER_DISC}") / name / "PROCESSED" / "MPRAGE" / "T88_111"
    acquisitions = int(rng.choice((3, 4, 5, 6), p=(0.1, 0.8, 0.05, 0.05)))
    return Person(row, folder, acquisitions, atrophy(cdr), atrophy(0.0), rng)
