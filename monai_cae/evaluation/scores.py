"""All scores of a classifier, for one set of predictions or for thousands of resamples at once.

scikit-learn scores one resample in about a millisecond per score; two thousand resamples of five repeats would take
minutes. Here a resample is a row of counts, how often each subject was drawn, and all rows are scored together. The
tests compare each score with scikit-learn's on the repeated rows.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike, NDArray

from monai_cae.errors import MonaiCaeError
from monai_cae.evaluation.calibration import calibration_line, expected_calibration_error
from monai_cae.evaluation.metrics import checked_scores, predicted_classes

THRESHOLDED = ("accuracy", "balanced_accuracy", "sensitivity", "specificity", "f1", "mcc")
RANKED = ("auc", "average_precision")
PROBABILISTIC = ("brier", "ece", "calibration_slope", "calibration_intercept")
SCORES = (*THRESHOLDED, *RANKED, *PROBABILISTIC)
LABELS = {  # as tables call them
    "accuracy": "accuracy",
    "balanced_accuracy": "balanced accuracy",
    "sensitivity": "sensitivity",
    "specificity": "specificity",
    "f1": "F1 (AD)",
    "mcc": "MCC",
    "auc": "AUC",
    "average_precision": "average precision",
    "brier": "Brier",
    "ece": "ECE",
    "calibration_slope": "calibration slope",
    "calibration_intercept": "calibration intercept",
}
HEADLINE = ("accuracy", "auc", "f1")


def classification_scores(
    labels: ArrayLike, probabilities: ArrayLike, threshold: float = 0.5, names: Sequence[str] = SCORES
) -> dict[str, float]:
    """Score one set of predictions, such as a test set, with one prediction per subject.

    Args:
        labels: True classes of shape `(n,)`, 0 = HC, 1 = AD; AD is the positive class of sensitivity, F1 and average
            precision.
        probabilities: Predicted probability of AD, shape `(n,)`.
        threshold: Probability from which on a subject counts as AD.
        names: Which of `SCORES`.

    Returns:
        Score by name, each between 0 and 1 (higher is better, but for `brier` and `ece`), except `mcc`, Matthews's
        correlation between -1 and 1 (Matthews 1975), and `calibration_slope` and `calibration_intercept`, see
        `calibration.calibration_line`. `brier` is the mean squared error of the probabilities (Brier 1950), `ece` the
        expected calibration error over ten bins. What a missing class leaves undefined is nan; F1 is 0 where no
        subject is AD, truly or by prediction, and MCC 0 where all predictions are of one class.

    Raises:
        MonaiCaeError: For input that `classification_metrics` refuses, or an unknown name.
    """
    truth, scores = checked_scores(labels, probabilities)
    decisions = predicted_classes(scores, threshold) == 1
    resampled = resampled_scores(truth, scores, decisions, np.ones((1, len(truth))), names)
    return {name: float(values[0]) for name, values in resampled.items()}


def resampled_scores(
    labels: NDArray[np.int64],
    probabilities: NDArray[np.float64],
    decisions: NDArray[np.bool_],
    counts: NDArray[np.float64],
    names: Sequence[str] = SCORES,
) -> dict[str, NDArray[np.float64]]:
    """Score resamples of one set of predictions, each as `classification_scores`.

    Args:
        labels: True classes of shape `(n,)`, 0 = HC, 1 = AD.
        probabilities: Predicted probability of AD, shape `(n,)`.
        decisions: Whether each was predicted as AD, shape `(n,)`; folds may have different thresholds.
        counts: How often each prediction counts, shape `(resamples, n)`, as `intervals.bootstrap_counts` draws them.
        names: Which of `SCORES`.

    Returns:
        Scores of shape `(resamples,)` by name, in the order of `names`.

    Raises:
        MonaiCaeError: For an unknown name.
    """
    unknown = sorted(set(names) - set(SCORES))
    if unknown:
        raise MonaiCaeError(f"names must be of {', '.join(SCORES)}, not {unknown[0]!r}.")
    found: dict[str, NDArray[np.float64]] = {}
    if set(names) & set(THRESHOLDED):
        found |= _thresholded(labels, decisions, counts)
    if set(names) & set(RANKED):
        found |= _ranked(labels, probabilities, counts)
    if "brier" in names:
        found["brier"] = _share(counts @ np.square(probabilities - labels), counts.sum(axis=1))
    if "ece" in names:
        found["ece"] = expected_calibration_error(labels, probabilities, counts)
    if {"calibration_slope", "calibration_intercept"} & set(names):
        line = calibration_line(labels, probabilities, counts)
        found |= {"calibration_slope": line.slope, "calibration_intercept": line.intercept}
    return {name: found[name] for name in names}


def class_counts(
    labels: NDArray[np.int64], probabilities: NDArray[np.float64], counts: NDArray[np.float64]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Count the subjects of each class at or above each probability, for ROC and precision-recall curves.

    Args:
        labels: True classes of shape `(n,)`, 0 = HC, 1 = AD.
        probabilities: Predicted probability of AD, shape `(n,)`.
        counts: How often each prediction counts, shape `(resamples, n)`.

    Returns:
        Number of AD and number of HC, each of shape `(resamples, 1 + distinct probabilities)`: first 0, then those
        with the highest probability or more, and so on, down to all.
    """
    order = np.argsort(-probabilities, kind="stable")
    ranked = probabilities[order]
    last_of_ties = np.flatnonzero(np.append(ranked[1:] != ranked[:-1], True))

    def cumulated(members: NDArray[np.bool_]) -> NDArray[np.float64]:
        sums = np.cumsum(counts[:, order] * members[order], axis=1)[:, last_of_ties]
        return np.pad(sums, ((0, 0), (1, 0)))

    return cumulated(labels == 1), cumulated(labels == 0)


def _thresholded(
    labels: NDArray[np.int64], decisions: NDArray[np.bool_], counts: NDArray[np.float64]
) -> dict[str, NDArray[np.float64]]:
    patient = labels == 1
    found, missed = counts @ (patient & decisions), counts @ (patient & ~decisions)
    alarms, kept = counts @ (~patient & decisions), counts @ (~patient & ~decisions)
    sensitivity, specificity = _share(found, found + missed), _share(kept, kept + alarms)
    wrong = 2 * found + alarms + missed
    margins = (found + missed) * (kept + alarms) * (found + alarms) * (kept + missed)
    correlation = (found * kept - alarms * missed) / np.sqrt(np.where(margins > 0, margins, 1))
    both_classes = (found + missed > 0) & (kept + alarms > 0)
    return {
        "accuracy": _share(found + kept, counts.sum(axis=1)),
        "balanced_accuracy": (sensitivity + specificity) / 2,
        "sensitivity": sensitivity,
        "specificity": specificity,
        "f1": np.where(wrong > 0, _share(2 * found, wrong), 0.0),
        "mcc": np.where(both_classes, correlation, np.nan),
    }


def _ranked(
    labels: NDArray[np.int64], probabilities: NDArray[np.float64], counts: NDArray[np.float64]
) -> dict[str, NDArray[np.float64]]:
    patients, controls = class_counts(labels, probabilities, counts)
    all_patients, all_controls = patients[:, -1], controls[:, -1]
    # trapezoids under the ROC curve: a tie counts half, as in the Mann-Whitney statistic
    area = (np.diff(controls, axis=1) * (patients[:, 1:] + patients[:, :-1]) / 2).sum(axis=1)
    precision = _share(patients[:, 1:], patients[:, 1:] + controls[:, 1:])
    # where nobody of a resample is above the cut, no patient is gained either
    gained = np.nansum(np.diff(patients, axis=1) * precision, axis=1)
    average = np.where(all_controls > 0, _share(gained, all_patients), np.nan)
    return {"auc": _share(area, all_patients * all_controls), "average_precision": average}


def _share(part: NDArray[np.float64], whole: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.divide(part, whole, out=np.full(np.shape(whole), np.nan), where=whole > 0)
