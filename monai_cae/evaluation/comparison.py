"""Whether one classifier is better than another on the same subjects, or in the same folds."""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import stats

from monai_cae.errors import MonaiCaeError
from monai_cae.evaluation.metrics import checked_scores


class Difference(NamedTuple):
    """Ours minus the other's; the p value is two-sided."""

    difference: float
    standard_error: float
    p_value: float


def mcnemar(ours_right: ArrayLike, other_right: ArrayLike) -> float:
    """Exact McNemar test of two accuracies on the same subjects (McNemar 1947, Psychometrika 12:153).

    Only subjects on which the two disagree count; if the accuracies are equal, each is a fair coin. The p value is
    two-sided binomial, not the chi-squared approximation, which is wrong for few disagreements.

    Args:
        ours_right: Whether our classifier got each subject right, shape `(n,)`.
        other_right: The same for the other classifier.

    Returns:
        The p value; 1 if they never disagree.

    Raises:
        MonaiCaeError: If the shapes differ, there is no subject, or a value is neither true nor false.
    """
    ours, other = np.asarray(ours_right), np.asarray(other_right)
    if ours.ndim != 1 or ours.shape != other.shape or not ours.size:
        raise MonaiCaeError(f"both must be one value per subject, not of shapes {ours.shape} and {other.shape}.")
    if not (np.isin(ours, (0, 1)).all() and np.isin(other, (0, 1)).all()):
        raise MonaiCaeError("ours_right and other_right must be true or false for each subject, not something else.")
    ours_only, other_only = int(np.sum(ours > other)), int(np.sum(other > ours))
    disagreements = ours_only + other_only
    return float(stats.binomtest(ours_only, disagreements).pvalue) if disagreements else 1.0


def delong(labels: ArrayLike, ours: ArrayLike, other: ArrayLike) -> Difference:
    """Compare two AUCs on the same subjects (DeLong et al. 1988, Biometrics 44:837).

    The structural components come from midranks, without comparing pairs of subjects (Sun & Xu 2014,
    IEEE Signal Process Lett 21:1389).

    Args:
        labels: True classes of shape `(n,)`, 0 = HC, 1 = AD.
        ours: Our probabilities of AD, shape `(n,)`, one per subject.
        other: The other classifier's.

    Returns:
        Of the AUCs. Equal components (such as the same ranking twice) have a standard error of 0: p is 1 without a
        difference, nan with one. With a single subject in a class there is no standard error, without any no AUC: nan.

    Raises:
        MonaiCaeError: For input that `classification_metrics` refuses.
    """
    truth, our_scores = checked_scores(labels, ours)
    _, other_scores = checked_scores(labels, other)
    patients = truth == 1
    if patients.all() or not patients.any():
        return Difference(math.nan, math.nan, math.nan)
    our_patients, our_controls = _components(patients, our_scores)
    other_patients, other_controls = _components(patients, other_scores)
    variance = sum(
        _variance(mine - theirs) / mine.size
        for mine, theirs in ((our_patients, other_patients), (our_controls, other_controls))
    )
    difference, error = float(our_patients.mean()) - float(other_patients.mean()), math.sqrt(variance)
    return Difference(difference, error, _two_sided(difference, error, stats.norm))


def corrected_resampled_t(differences: ArrayLike, n_train: float, n_test: float) -> Difference:
    """Nadeau and Bengio's corrected resampled t test (2003, Mach Learn 52:239).

    Training sets of repeated splits overlap, so the differences of the folds are not independent and a plain t test
    finds false differences. The variance of their mean is taken as `(1 / J + n_test / n_train) s^2` instead of
    `s^2 / J`; for k folds x r repeats J = k r (Bouckaert & Frank 2004).

    Args:
        differences: Our score minus the other's on each test set, shape `(J,)`; both trained on the same subjects.
        n_train: Subjects that each training set had.
        n_test: Subjects that each test set had.

    Returns:
        Mean difference, tested with J - 1 degrees of freedom. A single difference, or one that is nan, leaves all but
        the first nan; differences that are all equal have a p value of 1 if they are 0, else nan.

    Raises:
        MonaiCaeError: If there is no difference, or for numbers of subjects that are not positive.
    """
    values = np.asarray(differences, dtype=np.float64)
    if values.ndim != 1 or not values.size:
        raise MonaiCaeError(f"differences must be one value per test set, not of shape {values.shape}.")
    if not (n_train > 0 and n_test > 0):
        raise MonaiCaeError(f"n_train and n_test must be numbers of subjects, 1 or more, not {n_train} and {n_test}.")
    degrees, mean = values.size - 1, float(values.mean())
    if not degrees or math.isnan(mean):
        return Difference(mean, math.nan, math.nan)
    error = math.sqrt((1 / values.size + n_test / n_train) * _variance(values))
    return Difference(mean, error, _two_sided(mean, error, stats.t(degrees)))


def _components(
    patients: NDArray[np.bool_], scores: NDArray[np.float64]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Share of controls below each patient, and share of patients above each control; ties count half."""
    overall = stats.rankdata(scores)
    own_patients, own_controls = stats.rankdata(scores[patients]), stats.rankdata(scores[~patients])
    controls_below = (overall[patients] - own_patients) / own_controls.size
    patients_above = 1 - (overall[~patients] - own_controls) / own_patients.size
    return controls_below, patients_above


def _variance(values: NDArray[np.float64]) -> float:
    if values.size < 2:
        return math.nan
    # equal values must have none at all, not the rounding error of their mean
    return 0.0 if np.ptp(values) == 0 else float(values.var(ddof=1))


def _two_sided(difference: float, error: float, distribution: Any) -> float:
    if error == 0:
        return 1.0 if difference == 0 else math.nan
    return float(2 * distribution.sf(abs(difference) / error))
