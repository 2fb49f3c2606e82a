"""The tests of explanations over the parts of an experiment, and whether their networks are explained alike."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import combinations
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy.stats import spearmanr

from monai_cae.training.results.pictures import MAPS, read_difference

_TESTS = Path(MAPS).with_name("evaluate_explanations_tests.csv")


def explanation_tests(folders: Sequence[Path]) -> pd.DataFrame:
    """
    Args:
        folders: of the parts.

    Returns:
        A row per test: `test`, the mean `value` and the least and the largest over the parts, `low` and `high`; what is
        `needed`; the numbers of `parts` with a result and of those that have `passed`; what the value is `about`. Last
        `parts`, where two or more have a map of the difference between the groups: Spearman's correlation of these
        maps where any is not 0, over pairs of parts. Their networks and their test subjects are others, so it is 1 if
        the maps show what the cohort has in common. Nothing is needed of it. Empty without explanations.
    """
    tables = [pd.read_csv(folder / _TESTS, keep_default_na=False) for folder in folders if (folder / _TESTS).is_file()]
    if not tables:
        return pd.DataFrame()
    every = pd.concat(tables).assign(value=lambda one: pd.to_numeric(one["value"], errors="coerce"))
    rows = []
    for test, of_test in every[every["needed"] != ""].groupby("test", sort=False):
        values = of_test["value"]
        rows.append({
            "test": test, "value": values.mean(), "low": values.min(), "high": values.max(),
            "needed": of_test["needed"].iloc[0], "parts": int(of_test["result"].isin(["passed", "FAILED"]).sum()),
            "passed": int((of_test["result"] == "passed").sum()), "about": of_test["about"].iloc[0],
        })  # fmt: skip
    maps = [one for folder in folders if (one := read_difference(folder)) is not None]
    alike = [_correlation(one, other) for one, other in combinations(maps, 2) if one.shape == other.shape]
    if alike:
        rows.append({
            "test": "parts", "value": np.mean(alike), "low": min(alike), "high": max(alike), "needed": "",
            "parts": len(maps), "passed": 0, "about": "correlation of two parts' maps of the groups' difference",
        })  # fmt: skip
    return pd.DataFrame(rows)


def _correlation(one: NDArray[np.float32], other: NDArray[np.float32]) -> float:
    """0 where one of them is constant."""
    places = (one != 0) | (other != 0)
    if places.sum() < 3 or np.ptp(one[places]) == 0 or np.ptp(other[places]) == 0:
        return 0.0
    return float(spearmanr(one[places], other[places]).statistic)
