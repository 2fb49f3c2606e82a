"""Tables of results from the record of predictions (`pooled`): scores, intervals and comparisons."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from monai_cae.errors import MonaiCaeError
from monai_cae.evaluation.comparison import corrected_resampled_t, delong, mcnemar
from monai_cae.evaluation.intervals import (
    RESAMPLES,
    Interval,
    bootstrap_counts,
    percentile_interval,
    wilson_interval,
)
from monai_cae.evaluation.metrics import mean_and_sd
from monai_cae.evaluation.pooled import Pooled, pooled
from monai_cae.evaluation.scores import SCORES, resampled_scores

FEW = 10  # subjects of a class; resamples of fewer repeat the same ones, and understate the chance
TOO_NARROW = "interval too narrow"  # what the note of such a score says
PROPORTIONS = {"accuracy": (0, 1), "sensitivity": (1,), "specificity": (0,)}  # of the subjects of these classes
COMPARED = ("accuracy", "auc")
SAME = 1e-12  # rounding of means


def summarise(
    predictions: pd.DataFrame,
    rng: np.random.Generator,
    *,
    scores: Sequence[str] = SCORES,
    resamples: int = RESAMPLES,
) -> pd.DataFrame:
    """Score pooled out-of-fold predictions.

    Each repeat is scored over all its folds together. Two kinds of chance are separate: `sd` shows how other splits and
    weights change the score, `low` to `high` how other subjects would change its mean. The latter resamples subjects
    within their class, each with its predictions from all repeats. So more repeats don't make it narrower than the
    subjects allow, unlike an interval over all rows.

    Args:
        predictions: Table as described in `pooled`.
        rng: Source of the resamples.
        scores: Which of `scores.SCORES`, see `scores.classification_scores`.
        resamples: How many bootstrap resamples, 1 or more.

    Returns:
        A row per score with its `mean` and standard deviation `sd` over the repeats (nan for one repeat), the 95 %
        interval `low` to `high`, numbers of `subjects` and `repeats`, and a `note`, empty unless something is
        undefined, a class has less than 10 subjects, or resampling changes nothing, as the score is the same in every
        resample. In the latter two cases accuracy, sensitivity and specificity have Wilson's interval of as many
        subjects as there are, whatever the repeats; a score that is no proportion and does not vary has none. The
        interval of `ece` lies too high, see `calibration.expected_calibration_error`.

    Raises:
        MonaiCaeError: For predictions that `pooled` refuses, or an unknown score.
    """
    record = pooled(predictions)
    by_repeat = record.scores(np.ones((1, len(record.subjects))), scores)
    resampled = record.scores(bootstrap_counts(record.labels, resamples, rng), scores)
    rows = {}
    for name in scores:
        mean, sd = mean_and_sd(by_repeat[name][:, 0])
        interval, note = _interval(record, name, by_repeat[name][:, 0], resampled[name].mean(axis=0))
        rows[name] = {
            "mean": mean,
            "sd": sd,
            "low": interval.low,
            "high": interval.high,
            "subjects": len(record.subjects),
            "repeats": len(record.repeats),
            "note": note,
        }
    return pd.DataFrame.from_dict(rows, orient="index").rename_axis("score")


def compare(
    ours: pd.DataFrame,
    other: pd.DataFrame,
    rng: np.random.Generator,
    n_train: float,
    n_test: float,
    *,
    resamples: int = RESAMPLES,
) -> pd.DataFrame:
    """Compare two classifiers that were trained and tested on the same splits, by accuracy and AUC.

    Three tests look at the difference in three ways. The corrected resampled t test takes every fold of every repeat
    as one trial of the whole procedure, training included. McNemar's (accuracy) and DeLong's (AUC) take the subjects as
    the sample and the networks as given; a subject must count once, so they are about its mean prediction over the
    repeats. The interval resamples subjects and is about the mean over the repeats, as in `summarise`.

    Args:
        ours: Our predictions, a table as described in `pooled`.
        other: The other classifier's, of the same subjects in the same folds and repeats.
        rng: Source of the resamples.
        n_train: Subjects that each network was trained on.
        n_test: Subjects in each test fold.
        resamples: How many bootstrap resamples, 1 or more.

    Returns:
        Rows `accuracy` and `auc` with the means over the repeats of `ours` and `other`, their `difference` (ours minus
        the other's) with the interval `low` to `high`, `p_corrected_t`, `p_paired` of the test named under
        `paired_test`, the number of `trials` of the t test, and a `note` as in
        `summarise`.

    Raises:
        MonaiCaeError: For predictions that `pooled` refuses, or records that are not of the same splits.
    """
    mine, theirs = pooled(ours), pooled(other)
    _check_same_splits(mine, theirs)
    everyone = np.ones((1, len(mine.subjects)))
    counts = bootstrap_counts(mine.labels, resamples, rng)
    observed, resampled = [
        [record.scores(weights, COMPARED) for record in (mine, theirs)] for weights in (everyone, counts)
    ]
    (my_probabilities, my_decisions), (their_probabilities, their_decisions) = (
        record.mean_predictions() for record in (mine, theirs)
    )
    truth = mine.labels == 1
    paired = {
        "accuracy": ("McNemar", mcnemar(my_decisions == truth, their_decisions == truth)),
        "auc": ("DeLong", delong(mine.labels, my_probabilities, their_probabilities).p_value),
    }
    rows = {}
    for name in COMPARED:
        gains = np.array(_by_fold(mine, name)) - np.array(_by_fold(theirs, name))
        means = [scores[name].mean() for scores in observed]
        differences = (resampled[0][name] - resampled[1][name]).mean(axis=0)
        undefined = math.isnan(means[0])
        interval = Interval(math.nan, math.nan) if undefined else percentile_interval(differences)
        notes = [_note(mine, observed[0][name][:, 0], differences), _trials_note(gains)]
        rows[name] = {
            "ours": means[0],
            "other": means[1],
            "difference": means[0] - means[1],
            "low": interval.low,
            "high": interval.high,
            "p_corrected_t": corrected_resampled_t(gains, n_train, n_test).p_value,
            "p_paired": paired[name][1],
            "paired_test": paired[name][0],
            "trials": len(gains),
            "note": "; ".join(filter(None, notes)),
        }
    return pd.DataFrame.from_dict(rows, orient="index").rename_axis("score")


def _by_fold(record: Pooled, name: str) -> list[float]:
    """Score each test fold of each repeat on its own."""
    values = []
    for each in record.repeats.values():
        for fold in np.unique(each.folds):
            counts = (each.folds == fold).astype(np.float64)[None]
            scores = resampled_scores(each.labels, each.probabilities, each.decisions, counts, [name])
            values.append(float(scores[name][0]))
    return values


def _check_same_splits(ours: Pooled, other: Pooled) -> None:
    def splits(record: Pooled) -> dict[tuple[str, str], tuple[str, int]]:
        return {
            (repeat, str(record.subjects[place])): (str(fold), int(label))
            for repeat, each in record.repeats.items()
            for place, fold, label in zip(each.places, each.folds, each.labels, strict=True)
        }

    mine, theirs = splits(ours), splits(other)
    different = sorted(key for key in mine.keys() | theirs.keys() if mine.get(key) != theirs.get(key))
    if different:
        repeat, subject = different[0]
        raise MonaiCaeError(
            "both must predict the same subjects, with one label, in the same repeats and folds; "
            f"{len(different)} rows differ, the first is subject {subject} in repeat {repeat}."
        )


def _interval(
    record: Pooled, name: str, by_repeat: NDArray[np.float64], resampled: NDArray[np.float64]
) -> tuple[Interval, str]:
    """Of a score's mean over the repeats, with what has to be known of it."""
    none, note, mean = Interval(math.nan, math.nan), _note(record, by_repeat, resampled), float(by_repeat.mean())
    if math.isnan(mean):
        return none, note
    interval = percentile_interval(resampled)
    constant = interval.high - interval.low < SAME
    why = "as resampling changes nothing" if constant else note.replace(f"{TOO_NARROW}, ", "")
    if name in PROPORTIONS and (constant or TOO_NARROW in note):
        subjects = int(np.isin(record.labels, PROPORTIONS[name]).sum())
        return wilson_interval(round(mean * subjects), subjects), f"Wilson's interval, {why}"
    return (none, f"no interval, {why}") if constant else (interval, note)


def _note(record: Pooled, by_repeat: NDArray[np.float64], resampled: NDArray[np.float64]) -> str:
    sizes = {name: int(np.sum(record.labels == label)) for label, name in enumerate(("HC", "AD"))}
    undefined, left_out = np.isnan(by_repeat), np.isnan(resampled).mean()
    if undefined.any():
        absent = [name for name, size in sizes.items() if not size]
        return (
            f"undefined without {absent[0]}"
            if absent
            else f"undefined in {undefined.sum()} of {undefined.size} repeats"
        )
    few = [f"{size} {name}" for name, size in sizes.items() if 0 < size < FEW]
    notes = [f"undefined in {left_out:.1%} of the resamples"] if left_out else []
    return "; ".join(notes + ([f"{TOO_NARROW}, as there are only {' and '.join(few)}"] if few else []))


def _trials_note(gains: NDArray[np.float64]) -> str:
    undefined = np.isnan(gains)
    return f"undefined in {undefined.sum()} of {undefined.size} folds, so no t test" if undefined.any() else ""
