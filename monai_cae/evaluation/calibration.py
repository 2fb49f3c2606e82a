"""Calibration: whether a predicted probability of 0.8 means 8 of 10.

Functions with `counts` (how often each subject was drawn) score all resamples at once.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.optimize import minimize_scalar
from scipy.special import expit, logit

from monai_cae.errors import MonaiCaeError
from monai_cae.evaluation.metrics import checked_scores

BINS = 10  # of equal width, of the error
MOST_BINS, FEWEST = 5, 10  # of equally many predictions, and different subjects in each, of the diagram
SMALLEST_PROBABILITY = 1e-7  # of float32's resolution near 1; the logit of 0 or 1 is infinite
STEPS = 100


class ReliabilityBins(NamedTuple):
    """Predictions sorted by their probability into bins of equally many; each of shape `(bins,)`.

    `subjects` counts the different subjects of the predictions.
    """

    predictions: NDArray[np.int64]
    subjects: NDArray[np.int64]
    predicted: NDArray[np.float64]
    observed: NDArray[np.float64]


class CalibrationLine(NamedTuple):
    """Slope and intercept of the outcome on the predicted log-odds; 1 and 0 are perfect."""

    slope: NDArray[np.float64]
    intercept: NDArray[np.float64]


def reliability_bins(
    labels: ArrayLike,
    probabilities: ArrayLike,
    subjects: ArrayLike | None = None,
    most: int = MOST_BINS,
    fewest: int = FEWEST,
) -> ReliabilityBins:
    """Compare the mean predicted probability with the observed share of AD, bin by bin.

    Bins are those of scikit-learn's `calibration_curve` with the strategy "quantile", which does not tell the counts;
    there are as many as have enough subjects in each.

    Args:
        labels: True classes of shape `(n,)`, 0 = HC, 1 = AD.
        probabilities: Predicted probability of AD, shape `(n,)`.
        subjects: Whose each prediction is, shape `(n,)`; without it each is another's.
        most: Bins at most.
        fewest: Different subjects that each must have.

    Returns:
        Numbers of predictions and of subjects, mean probability and share of AD of each bin; none where the subjects
        are too few for two bins, or their probabilities too alike.

    Raises:
        MonaiCaeError: For input that `classification_metrics` refuses.
    """
    truth, scores = checked_scores(labels, probabilities)
    names = np.arange(len(truth)) if subjects is None else np.asarray(subjects)
    for bins in range(most, 1, -1):
        places = np.searchsorted(np.quantile(scores, np.arange(1, bins) / bins), scores)
        members = [places == place for place in range(bins)]
        people = [len(np.unique(names[inside])) for inside in members]
        if min(people) >= fewest:
            means = (np.array([values[inside].mean() for inside in members]) for values in (scores, truth))
            return ReliabilityBins(np.array([inside.sum() for inside in members]), np.array(people), *means)
    nobody, nothing = np.zeros(0, np.int64), np.zeros(0)
    return ReliabilityBins(nobody, nobody, nothing, nothing)


def expected_calibration_error(
    labels: NDArray[np.int64], probabilities: NDArray[np.float64], counts: NDArray[np.float64], bins: int = BINS
) -> NDArray[np.float64]:
    """Mean distance between predicted probability and observed share of AD over equal-width bins (Naeini 2015, AAAI).

    It is never negative, so with few subjects even perfect probabilities have an error above 0. Resamples have a larger
    error than the sample, so an interval from resamples lies too high.

    Args:
        labels: True classes of shape `(n,)`, 0 = HC, 1 = AD.
        probabilities: Predicted probability of AD, shape `(n,)`.
        counts: How often each counts, shape `(resamples, n)`.
        bins: How many, 1 or more.

    Returns:
        Between 0 and 1, shape `(resamples,)`; nan if no subject counts.

    Raises:
        MonaiCaeError: If there is no bin.
    """
    inside = _bin_members(probabilities, bins)
    gaps = np.abs(counts @ (inside * (probabilities - labels)[:, None])).sum(axis=1)
    subjects = counts.sum(axis=1)
    return np.divide(gaps, subjects, out=np.full(len(counts), np.nan), where=subjects > 0)


def calibration_line(
    labels: NDArray[np.int64], probabilities: NDArray[np.float64], counts: NDArray[np.float64]
) -> CalibrationLine:
    """Calibration slope and intercept (Cox 1958; Van Calster et al. 2016, J Clin Epidemiol 74:167).

    The slope is that of a logistic regression of the class on the predicted log-odds: below 1 the probabilities are
    too extreme, as overfitting makes them. The intercept is fitted with the slope held at 1 (calibration in the
    large): below 0 the probabilities of AD are too high overall.

    Args:
        labels: True classes of shape `(n,)`, 0 = HC, 1 = AD.
        probabilities: Predicted probability of AD, shape `(n,)`; 0 and 1 are taken as 1e-7 from there.
        counts: How often each counts, shape `(resamples, n)`.

    Returns:
        Both of shape `(resamples,)`. The slope is nan where no finite one fits best: probabilities that are all
        equal, or that separate the classes without overlap. Both are nan where a class is missing.
    """
    log_odds = logit(np.clip(probabilities, SMALLEST_PROBABILITY, 1 - SMALLEST_PROBABILITY))
    patient, drawn = labels == 1, counts > 0
    both_classes = drawn[:, patient].any(axis=1) & drawn[:, ~patient].any(axis=1)
    intercept = np.full(len(counts), np.nan)
    constant = np.ones((len(labels), 1))
    intercept[both_classes] = _fit_logistic(constant, log_odds, labels, counts[both_classes])[:, 0]

    slope = np.full(len(counts), np.nan)
    overlap = both_classes & _classes_overlap(log_odds, patient, drawn)
    if overlap.any():
        spread = log_odds.std()
        design = np.column_stack((np.ones(len(labels)), (log_odds - log_odds.mean()) / spread))
        slope[overlap] = _fit_logistic(design, np.zeros(len(labels)), labels, counts[overlap])[:, 1] / spread
    return CalibrationLine(slope, intercept)


def fitted_temperature(labels: ArrayLike, logits: ArrayLike) -> float:
    """Find the temperature: the divisor of the logits with the smallest log loss (Guo et al. 2017).

    Args:
        labels: True classes of shape `(n,)`, 0 = HC, 1 = AD, of subjects that the network was not trained on.
        logits: Predicted log-odds of AD, shape `(n,)`.

    Returns:
        Temperature between 0.05 and 20; 20 for logits that say nothing about the labels.
    """
    truth, odds = np.asarray(labels, dtype=np.float64), np.asarray(logits, dtype=np.float64)

    def loss(log_temperature: float) -> float:
        scaled = odds / np.exp(log_temperature)
        return float(np.mean(np.logaddexp(0, scaled) - truth * scaled))

    ends = (np.log(0.05), np.log(20))
    return float(np.exp(minimize_scalar(loss, bounds=ends, method="bounded", options={"xatol": 1e-6}).x))


def _bin_members(probabilities: NDArray[np.float64], bins: int) -> NDArray[np.float64]:
    """Return 1 where a subject (row) is in a bin (column), else 0."""
    if bins < 1:
        raise MonaiCaeError(f"bins must be 1 or more, not {bins}.")
    places = np.searchsorted(np.linspace(0, 1, bins + 1)[1:-1], probabilities)
    return np.asarray(places[:, None] == np.arange(bins), dtype=np.float64)


def _classes_overlap(
    scores: NDArray[np.float64], patient: NDArray[np.bool_], drawn: NDArray[np.bool_]
) -> NDArray[np.bool_]:
    """Whether no cut separates the drawn classes, not even with ties on the cut: only then a logistic fit is finite."""

    def crosses(one: NDArray[np.bool_], other: NDArray[np.bool_]) -> NDArray[np.bool_]:
        lowest = np.where(drawn[:, one], scores[one], np.inf).min(axis=1, initial=np.inf)
        highest = np.where(drawn[:, other], scores[other], -np.inf).max(axis=1, initial=-np.inf)
        return np.asarray(lowest < highest)

    return crosses(patient, ~patient) & crosses(~patient, patient)


def _fit_logistic(
    design: NDArray[np.float64], offset: NDArray[np.float64], labels: NDArray[np.int64], counts: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Maximum-likelihood coefficients `(resamples, k)` of all resamples at once, by Newton's method with halved steps.

    scikit-learn has no offset, and fits one resample at a time.
    """
    size = design.shape[1]
    squares = (design[:, :, None] * design[:, None, :]).reshape(len(design), size * size)

    def likelihood(coefficients: NDArray[np.float64]) -> NDArray[np.float64]:
        odds = offset + coefficients @ design.T
        return np.einsum("bn,bn->b", counts, labels * odds - np.logaddexp(0, odds))

    fitted = np.zeros((len(counts), size))
    if len(counts) > 1:  # from the fit to all of them together it is few steps to each
        fitted += _fit_logistic(design, offset, labels, counts.mean(axis=0, keepdims=True))
    reached = likelihood(fitted)
    subjects = counts.sum(axis=1)
    converged = np.zeros(len(counts), dtype=bool)
    for _ in range(STEPS):
        probabilities = expit(offset + fitted @ design.T)
        gradient = (counts * (labels - probabilities)) @ design
        converged = np.abs(gradient).max(axis=1) <= 1e-8 * subjects
        if converged.all():
            break
        curvature = ((counts * probabilities * (1 - probabilities)) @ squares).reshape(-1, size, size)
        # a flat likelihood far from its maximum must not stop the others
        step = np.linalg.solve(curvature + 1e-10 * np.eye(size), gradient[:, :, None])[:, :, 0]
        scale = np.ones((len(counts), 1))
        for _ in range(STEPS):
            proposed = likelihood(fitted + scale * step)
            worse = proposed < reached - 1e-12 * np.abs(reached)
            if not worse.any():
                break
            scale[worse] /= 2
        fitted, reached = fitted + scale * step, proposed
    fitted[~converged] = np.nan
    return fitted
