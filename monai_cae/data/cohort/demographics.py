"""How the classes of a cohort compare, beside the paper's Table I, and how likely groups differ by chance.

There is one test for each of class, age and sex, wherever its p is shown. They are the paper's (section IV-A):
Student's t, over more than two groups the analysis of variance, and the chi-square test without correction.
"""

from __future__ import annotations

import statistics
import warnings
from collections.abc import Hashable, Sequence
from typing import NamedTuple

import numpy as np
from scipy import stats

from monai_cae.data.cohort.selection import Cohort
from monai_cae.data.scan import Scan

PAPER_TABLE_1 = {
    "Number of subjects": ("100", "100"),
    "Age (range, years)": ("62-96", "59-94"),
    "Age (mean ± SD, years)": ("76.70 ± 7.10", "75.50 ± 9.10"),
    "Sex (women/men)": ("59/41", "73/27"),
}


def table_1(cohort: Cohort) -> dict[str, tuple[str, str]]:
    """The rows of the paper's Table I for a cohort: row name -> (patients, controls)."""
    columns = [_demographics(cohort.patients), _demographics(cohort.controls)]
    return {row: (columns[0][index], columns[1][index]) for index, row in enumerate(PAPER_TABLE_1)}


def balance(cohort: Cohort) -> dict[str, float]:
    """p of the differences of age and sex between the classes, tested as in the audit, every subject once; else nan."""
    groups = [list({scan.subject: scan for scan in group}.values()) for group in (cohort.patients, cohort.controls)]
    ages = compare_ages([[scan.age for scan in group if scan.age is not None] for group in groups])
    sexes = compare_shares([[scan.sex for scan in group if scan.sex] for group in groups])
    return {name: float("nan") if one.p is None else one.p for name, one in (("age", ages), ("sex", sexes))}


def _demographics(scans: list[Scan]) -> list[str]:
    ages = [scan.age for scan in scans if scan.age is not None]
    women, men = (sum(scan.sex == sex for scan in scans) for sex in "FM")
    spread = f"{statistics.mean(ages):.2f} ± {statistics.stdev(ages):.2f}" if len(ages) > 1 else "not given"
    return [
        str(len({scan.subject for scan in scans})),
        f"{min(ages):g}-{max(ages):g}" if ages else "not given",
        spread,
        f"{women}/{men}" if women + men else "not given",
    ]


class Difference(NamedTuple):
    """The test's name, and its p; None where there is nothing to compare."""

    test: str
    p: float | None


def compare_ages(groups: Sequence[Sequence[float]]) -> Difference:
    """Of different people; groups of fewer than two are passed over."""
    groups = [group for group in groups if len(group) > 1]
    name = "Student's t test" if len(groups) == 2 else "analysis of variance"
    if len(groups) < 2:
        return Difference(name, None)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # SciPy's about groups without spread: p is then 0 or not a number
        p = float(stats.f_oneway(*groups).pvalue)
    return Difference(name, None if np.isnan(p) else p)


def compare_shares(groups: Sequence[Sequence[Hashable]]) -> Difference:
    """Class or sex of different people; empty groups are passed over."""
    groups = [group for group in groups if group]
    kinds = {value for group in groups for value in group}
    if len(groups) < 2 or len(kinds) < 2:
        return Difference("chi-square test", None)
    table = [[list(group).count(kind) for kind in kinds] for group in groups]
    return Difference("chi-square test", float(stats.chi2_contingency(table, correction=False).pvalue))
