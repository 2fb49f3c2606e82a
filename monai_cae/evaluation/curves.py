"""The mean ROC curve of several repeats, with a band over subjects."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from monai_cae.errors import MonaiCaeError
from monai_cae.evaluation.intervals import (
    LARGEST_UNDEFINED_SHARE,
    RESAMPLES,
    TAILS,
    bootstrap_counts,
)
from monai_cae.evaluation.pooled import Pooled, pooled
from monai_cae.evaluation.scores import class_counts

POINTS = 201


class RocBand(NamedTuple):
    """Sensitivity at each false positive rate, shape `(points,)`; `repeats` has a row per repeat.

    The first point is the corner where nobody is taken for AD, the second the sensitivity without a false alarm.
    """

    false_positive_rate: NDArray[np.float64]
    mean: NDArray[np.float64]
    low: NDArray[np.float64]
    high: NDArray[np.float64]
    repeats: NDArray[np.float64]


def roc_band(predictions: pd.DataFrame, rng: np.random.Generator, *, resamples: int = RESAMPLES) -> RocBand:
    """Average the ROC curves of the repeats vertically (Fawcett 2006), with a pointwise 95 % band over subjects.

    Args:
        predictions: Table as described in `pooled`.
        rng: Source of the resamples.
        resamples: How many bootstrap resamples of the subjects, within their class, 1 or more.

    Returns:
        The mean curve, its band and the curve of each repeat, in the corner and at 201 false positive rates from 0 to
        1. The band is nan if more than 5 % of the resamples leave a repeat without one of the classes.

    Raises:
        MonaiCaeError: For predictions that `pooled` refuses, or a repeat that lacks a class.
    """
    record = pooled(predictions)
    for name, each in record.repeats.items():
        if np.unique(each.labels).size < 2:
            raise MonaiCaeError(f"a ROC curve needs both classes, but all subjects of repeat {name} have one.")
    rates = np.linspace(0, 1, POINTS)
    by_repeat = _curves(record, np.ones((1, len(record.subjects))), rates)[:, 0]
    resampled = _curves(record, bootstrap_counts(record.labels, resamples, rng), rates).mean(axis=0)
    defined = resampled[~np.isnan(resampled[:, 0])]
    low = high = np.full(POINTS, np.nan)
    if len(defined) >= (1 - LARGEST_UNDEFINED_SHARE) * resamples:
        low, high = np.quantile(defined, TAILS, axis=0)
    return RocBand(
        *(np.insert(curve, 0, 0, axis=-1) for curve in (rates, by_repeat.mean(axis=0), low, high, by_repeat))
    )


def _curves(record: Pooled, counts: NDArray[np.float64], rates: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return sensitivities of shape `(repeats, resamples, rates)`."""
    curves = np.full((len(record.repeats), len(counts), len(rates)), np.nan)
    for place, each in enumerate(record.repeats.values()):
        patients, controls = class_counts(each.labels, each.probabilities, counts[:, each.places])
        for resample in np.flatnonzero((patients[:, -1] > 0) & (controls[:, -1] > 0)):
            found, alarms = patients[resample] / patients[resample, -1], controls[resample] / controls[resample, -1]
            curves[place, resample] = np.interp(rates, alarms, found)
    return curves
