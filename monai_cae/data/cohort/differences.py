"""How likely groups differ by chance in class, age or sex: one test for each, wherever its p is shown.

They are the paper's (section IV-A): Student's t and the chi-square test without correction. Over more than two groups
Student's t is the analysis of variance.
"""

from __future__ import annotations

import warnings
from collections.abc import Hashable, Sequence
from typing import NamedTuple

import numpy as np
from scipy import stats


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
