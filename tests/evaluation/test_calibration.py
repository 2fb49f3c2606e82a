from __future__ import annotations

import numpy as np
import pytest
from scipy.optimize import minimize
from scipy.special import expit, logit
from sklearn.calibration import calibration_curve
from sklearn.linear_model import LogisticRegression

from monai_cae.errors import MonaiCaeError
from monai_cae.evaluation.calibration import calibration_line, expected_calibration_error, reliability_bins


def simulated(subjects: int, slope: float, intercept: float) -> tuple[np.ndarray, np.ndarray]:
    """Draw classes from probabilities, and tell other ones: the true log-odds are intercept + slope x the told."""
    generator = np.random.default_rng(2)
    told = generator.normal(0, 1.5, subjects)
    return (generator.random(subjects) < expit(intercept + slope * told)).astype(int), expit(told)


def test_reliability_bins_by_hand():
    bins = reliability_bins([0, 1, 1, 0, 1, 1], [0.1, 0.2, 0.3, 0.6, 0.7, 1.0], most=3, fewest=2)
    assert bins.subjects.tolist() == bins.predictions.tolist() == [2, 2, 2]
    assert bins.predicted == pytest.approx([0.15, 0.45, 0.85])
    assert bins.observed == pytest.approx([0.5, 0.5, 1.0])


@pytest.mark.parametrize(("subjects", "bins"), [(19, 0), (20, 2), (29, 2), (30, 3), (49, 4), (50, 5), (500, 5)])
def test_at_most_five_reliability_bins_of_ten_subjects_or_more(subjects, bins):
    labels, probabilities = np.arange(subjects) % 2, np.linspace(0, 1, subjects)
    found = reliability_bins(labels, probabilities)
    assert len(found.subjects) == bins and all(found.subjects >= 10) and found.subjects.sum() in (0, subjects)


def test_reliability_bins_count_different_subjects():
    labels, probabilities = np.arange(60) % 2, np.linspace(0, 1, 60)
    assert (
        len(reliability_bins(labels, probabilities, np.arange(60) // 4).subjects) == 0
    )  # 15 subjects, four times each
    found = reliability_bins(labels, probabilities, np.arange(60) // 2)
    assert found.predictions.tolist() == [20, 20, 20] and found.subjects.tolist() == [10, 10, 10]


def test_reliability_bins_agree_with_scikit_learn():
    labels, probabilities = simulated(500, 0.7, 0.3)
    bins = reliability_bins(labels, probabilities)
    observed, predicted = calibration_curve(labels, probabilities, n_bins=5, strategy="quantile")
    assert bins.observed == pytest.approx(observed)
    assert bins.predicted == pytest.approx(predicted)


def test_reliability_bins_refuse_other_labels():
    with pytest.raises(MonaiCaeError, match="labels must be"):
        reliability_bins([0, 2], [0.1, 0.9])


def test_expected_calibration_error_by_hand():
    labels, probabilities = np.array([0, 1, 1, 0]), np.array([0.2, 0.4, 0.9, 0.7])
    # two bins: |1/2 - 0.3|, |1/2 - 0.8|; with the second subject twice and the third left out |2/3 - 1/3|, |0 - 0.7|
    counts = np.array([[1.0, 1, 1, 1], [1, 2, 0, 1], [0, 0, 0, 0]])
    errors = expected_calibration_error(labels, probabilities, counts, bins=2)
    assert errors[:2] == pytest.approx([(2 * 0.2 + 2 * 0.3) / 4, (3 * (1 / 3) + 0.7) / 4])
    assert np.isnan(errors[2])


@pytest.mark.parametrize(("slope", "intercept"), [(1.0, 0.0), (0.5, 0.0), (2.0, 0.0), (1.0, -0.7)])
def test_calibration_line_finds_what_was_simulated(slope, intercept):
    labels, probabilities = simulated(40_000, slope, intercept)
    line = calibration_line(labels, probabilities, np.ones((1, len(labels))))
    assert line.slope[0] == pytest.approx(slope, abs=0.06)
    # an even spread around 0 leaves no miscalibration in the large, whatever the slope
    assert line.intercept[0] == pytest.approx(intercept, abs=0.04)


def test_calibration_line_of_resamples_is_each_ones_maximum_likelihood():
    labels, probabilities = simulated(60, 0.8, -0.5)
    counts = np.random.default_rng(1).multinomial(60, np.full(60, 1 / 60), size=20).astype(float)
    line = calibration_line(labels, probabilities, counts)
    odds = logit(probabilities)
    for row, slope, intercept in zip(counts, line.slope, line.intercept, strict=True):
        fit = LogisticRegression(C=np.inf, tol=1e-10, max_iter=1000)
        fit.fit(odds[:, None], labels, sample_weight=row)
        assert slope == pytest.approx(fit.coef_[0, 0], abs=1e-4)
        # scikit-learn has no offset
        loss = minimize(lambda a, row=row: row @ (np.logaddexp(0, odds + a) - labels * (odds + a)), 0.0, tol=1e-12)
        assert intercept == pytest.approx(loss.x[0], abs=1e-4)


def test_calibration_line_is_nan_where_there_is_none():
    labels, probabilities = np.array([0, 0, 1, 1]), np.array([0.2, 0.6, 0.4, 0.8])
    counts = np.array([[1.0, 1, 1, 1], [2, 0, 0, 2], [0, 2, 2, 0], [1, 1, 0, 0], [0, 0, 1, 1]])
    line = calibration_line(labels, probabilities, counts)
    # separated the right way, the wrong way, one class only
    assert np.isnan(line.slope).tolist() == [False, True, True, True, True]
    assert np.isnan(line.intercept).tolist() == [False, False, False, True, True]


@pytest.mark.parametrize(
    "probabilities", [[0.5] * 4, [0.2, 0.4, 0.4, 0.8], [0.4, 0.8, 0.2, 0.4]], ids=["constant", "tie", "tie, reversed"]
)
def test_calibration_slope_is_nan_for_ties_on_the_cut(probabilities):
    line = calibration_line(np.array([0, 0, 1, 1]), np.array(probabilities), np.ones((1, 4)))
    assert np.isnan(line.slope[0])
    assert np.isfinite(line.intercept[0])


def test_calibration_line_of_probabilities_0_and_1():
    labels, probabilities = np.array([0, 1, 1, 0]), np.array([0.0, 1.0, 0.0, 1.0])
    line = calibration_line(labels, probabilities, np.ones((1, 4)))
    assert (line.slope[0], line.intercept[0]) == pytest.approx((0, 0), abs=1e-6)


def test_probabilities_far_off_have_a_calibration_line_too():
    labels, probabilities = np.arange(40) % 2, np.linspace(0.9999, 0.99999, 40)
    line = calibration_line(labels, probabilities, np.ones((3, 40)))
    assert np.isfinite(line.slope).all()
    # the mean of the recalibrated probabilities is the share of AD
    assert expit(logit(probabilities) + line.intercept[0]).mean() == pytest.approx(0.5)
