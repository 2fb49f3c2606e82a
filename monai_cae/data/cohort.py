"""Which subjects take part, and how they compare with the paper's (Table I)."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from monai_cae.data.layouts import read_scans
from monai_cae.data.phantom import is_synthetic
from monai_cae.data.scan import Scan
from monai_cae.errors import MonaiCaeError

CONTROLS = ("oldest", "all")


@dataclass(frozen=True)
class Cohort:
    """The subjects that take part, one scan each.

    Attributes:
        patients: CDR > 0, label 1.
        controls: CDR 0, label 0.
        left_out: why scans do not take part, and how many.
        synthetic: the images are a phantom's, not real MRI.
    """

    patients: list[Scan]
    controls: list[Scan]
    left_out: dict[str, int] = field(default_factory=dict)
    synthetic: bool = False

    @property
    def scans(self) -> list[Scan]:
        """Patients and controls, in the order of their names."""
        return sorted(self.patients + self.controls, key=lambda scan: scan.name)


def load_cohort(
    dataset_dir: str | Path, *, table: str | Path | None = None, plane: str = "axial", controls: str = "oldest"
) -> Cohort:
    """Read a cohort folder (or a table alone) and select the subjects that take part.

    Args:
        dataset_dir: OASIS-1 discs, a plain folder with a table, or a table.
        table: the table, where it is not in the folder.
        plane: subfolder that a plain folder's images are looked for in first.
        controls: see `select_cohort`.

    Raises:
        MonaiCaeError: what `read_scans` and `select_cohort` refuse.
    """
    scans = read_scans(dataset_dir, table=table, plane=plane)
    return select_cohort(scans, controls=controls, synthetic=is_synthetic(Path(dataset_dir)))


def select_cohort(scans: Sequence[Scan], *, controls: str = "oldest", synthetic: bool = False) -> Cohort:
    """The paper's selection, section IV-A: everyone with CDR > 0, and as many controls.

    Of OASIS-1 this gives the 100 patients and, with the oldest controls (ties by ID), the sex counts and age ranges of
    Table I exactly. Blank CDRs are left out, and of a subject's scans all but the first.

    Args:
        scans: the scans to choose from.
        controls: "oldest" takes the oldest with CDR 0, as many as there are patients; "all" takes every one.
        synthetic: handed on.

    Raises:
        MonaiCaeError: an unknown rule, a class without subjects, or ages missing where the oldest are asked for.
    """
    if controls not in CONTROLS:
        raise MonaiCaeError(f"controls must be one of {', '.join(CONTROLS)}, not {controls!r}")
    ordered = sorted(scans, key=lambda scan: scan.name)
    first = list({scan.subject: scan for scan in reversed(ordered)}.values())
    patients = sorted((scan for scan in first if scan.label == 1), key=lambda scan: scan.name)
    healthy = sorted((scan for scan in first if scan.label == 0), key=lambda scan: scan.name)
    for found, what in ((patients, "patient (CDR > 0)"), (healthy, "control (CDR 0)")):
        if not found:
            raise MonaiCaeError(
                f"no {what} among {len(ordered)} scans: two classes are needed; check the table's CDR column"
            )
    chosen = _oldest(healthy, len(patients)) if controls == "oldest" else healthy
    left_out = {
        "blank CDR": sum(scan.label is None for scan in first),
        "rescans": len(ordered) - len(first),
        "controls younger than the oldest " + str(len(chosen)): len(healthy) - len(chosen),
    }
    return Cohort(patients, chosen, {why: count for why, count in left_out.items() if count}, synthetic)


def _oldest(healthy: list[Scan], count: int) -> list[Scan]:
    if len(healthy) <= count:
        return healthy
    for scan in healthy:
        if scan.age is None:
            raise MonaiCaeError(
                f"{scan.name} has no age, so the oldest controls can't be told: fill it in, or --controls all"
            )
    return sorted(healthy, key=lambda scan: (-(scan.age or 0), scan.name))[:count]


PAPER_TABLE_1 = {
    "Number of subjects": ("100", "100"),
    "Age (range, years)": ("62-96", "59-94"),
    "Age (mean ± SD, years)": ("76.70 ± 7.10", "75.50 ± 9.10"),
    "Gender (women/men)": ("59/41", "73/27"),
}


def table_1(cohort: Cohort) -> dict[str, tuple[str, str]]:
    """The rows of the paper's Table I for a cohort: row name -> (patients, controls)."""
    columns = [_demographics(cohort.patients), _demographics(cohort.controls)]
    return {row: (columns[0][index], columns[1][index]) for index, row in enumerate(PAPER_TABLE_1)}


def _demographics(scans: list[Scan]) -> list[str]:
    ages = [scan.age for scan in scans if scan.age is not None]
    women, men = (sum(scan.sex == sex for scan in scans) for sex in "FM")
    spread = f"{statistics.mean(ages):.2f} ± {statistics.stdev(ages):.2f}" if len(ages) > 1 else "not given"
    return [
        str(len(scans)),
        f"{min(ages):g}-{max(ages):g}" if ages else "not given",
        spread,
        f"{women}/{men}" if women + men else "not given",
    ]
