"""Scores of predicted numbers with intervals over subjects, and whether one method's errors are smaller than another's.

The record is that of `pooled`, with `predicted` in place of `probability`, and `label` and `predicted` in the units of
what is predicted.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray
from scipy import stats

from monai_cae.errors import MonaiCaeError
from monai_cae.evaluation.comparison import corrected_resampled_t
from monai_cae.evaluation.intervals import RESAMPLES, Interval, bootstrap_counts, percentile_interval
from monai_cae.evaluation.metrics import mean_and_sd
from monai_cae.evaluation.summary import TOO_NARROW

PERMUTATIONS = 9999
COLUMNS = ("subject", "repeat", "fold", "label", "predicted")
NUMBER_LABELS = {  # as tables call them
    "mae": "mean absolute error",
    "rmse": "RMSE",
    "r2": "R2",
    "pearson": "Pearson's r",
    "spearman": "Spearman's rho",
    "bias": "calibration-in-the-large (mean of predicted minus true)",
    "slope": "calibration slope",
}
NUMBER_HEADLINE = ("mae", "r2", "pearson")
PERMUTATION_P = "permutation_p"  # one more row of `summarise_numbers`, without an interval
COMPARED_NUMBER = "mae"
_FEW = 10  # subjects; resamples of fewer repeat the same ones
Numbers = NDArray[np.float64]


class _Repeat(NamedTuple):
    """One repeat's predictions, shape `(n,)` each; `places` are indices into the subjects."""

    places: NDArray[np.int64]
    folds: NDArray[Any]
    labels: Numbers
    predicted: Numbers


def number_scores(labels: ArrayLike, predicted: ArrayLike) -> dict[str, float]:
    """Score one set of predictions, one for each subject.

    Args:
        labels: the true numbers, shape `(n,)`.
        predicted: shape `(n,)`.

    Returns:
        Score by the names of `NUMBER_LABELS`. R2 is that of the predictions as they are, below 0 where the labels' mean
        is nearer. The slope is that of the true numbers on the predicted, 1 for a calibrated method. What has no value,
        such as a correlation with equal predictions, is nan.

    Raises:
        MonaiCaeError: not one finite number for each subject.
    """
    truth, found = _finite(labels, "labels"), _finite(predicted, "predicted")
    if truth.shape != found.shape:
        raise MonaiCaeError(f"labels and predicted must be as many, not {truth.size} and {found.size}.")
    return {name: float(values[0]) for name, values in _resampled(truth, found, np.ones((1, truth.size))).items()}


def summarise_numbers(
    predictions: pd.DataFrame,
    rng: np.random.Generator,
    *,
    resamples: int = RESAMPLES,
    permutations: int = PERMUTATIONS,
) -> pd.DataFrame:
    """Score pooled out-of-fold predictions, as `summary.summarise` does those of classes.

    Each repeat is scored over all its folds together. `sd` is over the repeats, `low` to `high` over resampled
    subjects, each with its predictions from all repeats.

    Args:
        predictions: see the module.
        rng: source of resamples and permutations.
        resamples: how many bootstrap resamples, 1 or more.
        permutations: how often the labels are shuffled among the subjects.

    Returns:
        A row per score with `mean`, `sd`, `low`, `high`, `subjects`, `repeats` and `note`, and the row `permutation_p`:
        the share of shuffles whose Pearson correlation with each subject's mean prediction is as high as the true
        labels' (one-sided, with the true one counted).

    Raises:
        MonaiCaeError: a missing column, a blank, or a subject twice in one repeat.
    """
    subjects, labels, repeats = _read(predictions)
    everyone = np.ones((1, len(subjects)))
    counts = bootstrap_counts(np.zeros(len(subjects)), resamples, rng)
    observed, resampled = (
        _stacked([_resampled(one.labels, one.predicted, weights[:, one.places]) for one in repeats])
        for weights in (everyone, counts)
    )
    size = {"subjects": len(subjects), "repeats": len(repeats)}
    few = f"{TOO_NARROW}, as there are only {len(subjects)} subjects" if len(subjects) < _FEW else ""
    rows: dict[str, Mapping[str, Any]] = {}
    for name in NUMBER_LABELS:
        mean, sd = mean_and_sd(observed[name][:, 0])
        undefined = math.isnan(mean)
        ends = Interval(math.nan, math.nan) if undefined else percentile_interval(resampled[name].mean(axis=0))
        note = "undefined where all predictions or all labels are equal" if undefined else few
        rows[name] = {"mean": mean, "sd": sd, "low": ends.low, "high": ends.high, **size, "note": note}
    p = permutation_p(labels, _mean_predictions(len(subjects), repeats), rng, permutations)
    nothing = {"sd": math.nan, "low": math.nan, "high": math.nan, **size, "note": ""}
    rows[PERMUTATION_P] = {"mean": p, **nothing}
    return pd.DataFrame.from_dict(rows, orient="index").rename_axis("score")


def permutation_p(
    labels: ArrayLike, predicted: ArrayLike, rng: np.random.Generator, permutations: int = PERMUTATIONS
) -> float:
    """How often shuffled labels correlate with the predictions as much as the true ones, one-sided; nan where
    predictions or labels are all equal.

    Args:
        labels: shape `(n,)`, one per subject.
        predicted: shape `(n,)`.
        rng: source of the shuffles.
        permutations: how many; all of them, where there are fewer.
    """
    truth, found = np.asarray(labels, np.float64), np.asarray(predicted, np.float64)
    if truth.size < 2 or np.ptp(truth) == 0 or np.ptp(found) == 0:
        return math.nan
    centred = found - found.mean()
    tested = stats.permutation_test(
        (truth,),
        lambda shuffled, axis=-1: (shuffled * centred).sum(axis=axis),  # all else of r stays under shuffling
        permutation_type="pairings",
        alternative="greater",
        n_resamples=permutations,
        vectorized=True,
        rng=rng,
    )
    return float(tested.pvalue)


def compare_numbers(
    ours: pd.DataFrame,
    other: pd.DataFrame,
    rng: np.random.Generator,
    n_train: float,
    n_test: float,
    *,
    resamples: int = RESAMPLES,
) -> pd.DataFrame:
    """Compare the absolute errors of two methods that were trained and tested on the same splits.

    The corrected resampled t test takes every fold of every repeat as one trial, training included. Wilcoxon's signed-
    rank test takes the subjects as the sample and the methods as given: each subject's absolute error, its mean over
    the repeats.

    Args:
        ours, other: tables as for `summarise_numbers`, of the same subjects in the same folds and repeats.
        rng: source of the resamples.
        n_train: subjects that each method was trained on.
        n_test: subjects in each test fold.
        resamples: how many bootstrap resamples, 1 or more.

    Returns:
        The row `mae`, with the columns of `summary.compare`; a difference below 0 says that ours is nearer.

    Raises:
        MonaiCaeError: what `summarise_numbers` refuses, or records that are not of the same splits.
    """
    (subjects, _, mine), (others, _, theirs) = _read(ours), _read(other)
    same = [*subjects] == [*others] and len(mine) == len(theirs)
    fields = ("places", "folds", "labels")
    if not same or not all(
        np.array_equal(getattr(a, field), getattr(b, field))
        for a, b in zip(mine, theirs, strict=True)
        for field in fields
    ):
        raise MonaiCaeError("both must predict the same subjects, with one label, in the same repeats and folds.")
    errors = [[np.abs(one.predicted - one.labels) for one in record] for record in (mine, theirs)]
    gains = [
        float((a - b)[one.folds == fold].mean())
        for one, a, b in zip(mine, *errors, strict=True)
        for fold in np.unique(one.folds)
    ]
    by_repeat = [[float(values.mean()) for values in record] for record in errors]
    counts = bootstrap_counts(np.zeros(len(subjects)), resamples, rng)
    drawn = [
        np.stack([_mean(values, counts[:, one.places]) for one, values in zip(mine, record, strict=True)])
        for record in errors
    ]
    interval = percentile_interval((drawn[0] - drawn[1]).mean(axis=0))
    apart = np.subtract(*(_by_subject(len(subjects), mine, record) for record in errors))
    row = {
        "ours": float(np.mean(by_repeat[0])),
        "other": float(np.mean(by_repeat[1])),
        "difference": float(np.mean(by_repeat[0]) - np.mean(by_repeat[1])),
        "low": interval.low,
        "high": interval.high,
        "p_corrected_t": corrected_resampled_t(gains, n_train, n_test).p_value,
        "p_paired": float(stats.wilcoxon(apart).pvalue) if apart.any() else 1.0,
        "paired_test": "Wilcoxon",
        "trials": len(gains),
        "note": "",
    }
    return pd.DataFrame.from_dict({COMPARED_NUMBER: row}, orient="index").rename_axis("score")


def _read(predictions: pd.DataFrame) -> tuple[NDArray[Any], Numbers, list[_Repeat]]:
    """Subjects in the order of their names, their mean labels, and the repeats."""
    missing = [name for name in COLUMNS if name not in predictions]
    if missing:
        raise MonaiCaeError(f"predictions must have the columns {', '.join(COLUMNS)}; missing: {', '.join(missing)}.")
    texts = {name: predictions[name].astype(str) for name in ("subject", "repeat", "fold")}
    table = predictions[[*COLUMNS]].assign(**texts).sort_values(["repeat", "subject"], ignore_index=True)
    for name in ("label", "predicted"):
        _finite(table[name], name)
    if (twice := table.duplicated(["subject", "repeat"])).any():
        subject, repeat = table.loc[twice.idxmax(), ["subject", "repeat"]]
        raise MonaiCaeError(f"a subject has one prediction per repeat, but {subject} has two in repeat {repeat}.")
    subjects, places = np.unique(table["subject"].to_numpy(dtype=str), return_inverse=True)
    labels = table.groupby("subject")["label"].mean()[subjects].to_numpy(dtype=np.float64)
    fields = [
        _Repeat(*(rows[name].to_numpy() for name in ("place", "fold", "label", "predicted")))
        for _, rows in table.assign(place=places).groupby("repeat")
    ]
    return subjects, labels, fields


def _finite(values: ArrayLike, name: str) -> Numbers:
    found = np.asarray(values, dtype=np.float64)
    if found.ndim != 1 or not found.size:
        raise MonaiCaeError(f"{name} must hold one number per subject, not the shape {found.shape}.")
    if not np.isfinite(found).all():
        raise MonaiCaeError(f"{name} must be finite, not {found[~np.isfinite(found)][0]}; has the training diverged?")
    return found


def _by_subject(subjects: int, repeats: list[_Repeat], values: list[Numbers]) -> Numbers:
    total, times = np.zeros(subjects), np.zeros(subjects)
    for one, of_repeat in zip(repeats, values, strict=True):
        total[one.places] += of_repeat
        times[one.places] += 1
    return total / times


def _mean_predictions(subjects: int, repeats: list[_Repeat]) -> Numbers:
    return _by_subject(subjects, repeats, [one.predicted for one in repeats])


def _stacked(scores: list[dict[str, Numbers]]) -> dict[str, Numbers]:
    return {name: np.stack([one[name] for one in scores]) for name in NUMBER_LABELS}


def _resampled(labels: Numbers, predicted: Numbers, counts: Numbers) -> dict[str, Numbers]:
    """All scores in each resample, shape `(resamples,)`; `counts` has the shape `(resamples, n)`."""
    errors = predicted - labels
    squared = _mean(np.square(errors), counts)
    variances = [_covariance(values, values, counts) for values in (labels, predicted)]
    together = _covariance(labels, predicted, counts)
    ranks = [_ranks(values, counts) for values in (labels, predicted)]
    with np.errstate(divide="ignore", invalid="ignore"):
        found = {
            "mae": _mean(np.abs(errors), counts),
            "rmse": np.sqrt(squared),
            "r2": 1 - squared / variances[0],
            "pearson": together / np.sqrt(variances[0] * variances[1]),
            "spearman": _covariance(ranks[0], ranks[1], counts)
            / np.sqrt(_covariance(ranks[0], ranks[0], counts) * _covariance(ranks[1], ranks[1], counts)),
            "bias": _mean(errors, counts),
            "slope": together / variances[1],
        }
    return {name: np.where(np.isfinite(values), values, np.nan) for name, values in found.items()}


def _mean(values: Numbers, counts: Numbers) -> Numbers:
    """Over the cases of each resample; nan without any. `values` has the shape `(n,)` or that of the counts."""
    with np.errstate(invalid="ignore"):
        return np.asarray((values * counts).sum(axis=1) / counts.sum(axis=1))


def _covariance(first: Numbers, second: Numbers, counts: Numbers) -> Numbers:
    """0, not the rounding error of the mean, where one of them has a single value."""
    parts = [values - _mean(values, counts)[:, None] for values in (first, second)]
    found = _mean(parts[0] * parts[1], counts)
    drawn = counts > 0
    for values in (first, second):
        whole = np.broadcast_to(values, counts.shape)
        spread = np.where(drawn, whole, -np.inf).max(axis=1) - np.where(drawn, whole, np.inf).min(axis=1)
        found = np.where(spread > 0, found, 0.0)
    return found


def _ranks(values: Numbers, counts: Numbers) -> Numbers:
    """Midranks of the values in each resample, shape of the counts."""
    _, group = np.unique(values, return_inverse=True)
    sizes = np.zeros((len(counts), group.max() + 1))
    np.add.at(sizes.T, group, counts.T)
    return (sizes.cumsum(axis=1) - (sizes - 1) / 2)[:, group]
