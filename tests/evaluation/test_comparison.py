from __future__ import annotations

import math

import numpy as np
import pytest
from scipy.stats import norm
from sklearn.metrics import roc_auc_score

from monai_cae.errors import MonaiCaeError
from monai_cae.evaluation.comparison import corrected_resampled_t, delong, mcnemar

# Ovarian cancer patients (DeLong et al. 1988, table 1), those with all tests: K-G score, albumin, good outcome
PATIENTS = """
10 3.0 0, 5 3.2 1, 3 3.9 1, 6 2.8 0, 3 3.2 1, 5 0.9 0, 8 2.5 0, 5 1.6 1, 5 3.8 1, 6 3.7 1, 4 3.2 1, 6 3.8 1, 5 4.1 1,
5 3.6 1, 4 4.3 1, 4 3.6 0, 6 2.3 1, 4 4.2 0, 6 4.0 0, 6 3.5 1, 7 3.8 1, 8 3.0 0, 5 4.5 1, 5 3.7 1, 6 3.1 1, 6 4.1 1,
5 4.3 1, 4 4.3 1, 5 3.2 1, 6 2.6 1, 6 3.3 0, 7 1.7 0, 5 3.7 1, 7 3.3 1, 6 4.2 1, 5 3.5 1, 9 2.9 0, 7 2.1 1, 8 2.8 0,
7 4.0 1, 6 3.3 1, 5 3.7 1, 5 3.6 1
"""


def mcnemar_of(ours_only: int, other_only: int, both: int = 3) -> float:
    ours = [1] * ours_only + [0] * other_only + [1] * both
    return mcnemar(ours, [0] * ours_only + [1] * other_only + [1] * both)


@pytest.mark.parametrize(("ours_only", "other_only"), [(1, 8), (8, 1), (5, 5), (0, 6), (2, 3), (12, 30)])
def test_mcnemar_is_a_binomial_sum(ours_only, other_only):
    coins, fewer = ours_only + other_only, min(ours_only, other_only)
    tail = sum(math.comb(coins, heads) for heads in range(fewer + 1)) / 2**coins
    assert mcnemar_of(ours_only, other_only) == pytest.approx(min(1.0, 2 * tail))


def test_mcnemar_without_a_disagreement():
    assert mcnemar_of(0, 0) == 1.0


@pytest.mark.parametrize(
    ("ours", "other", "message"),
    [([1, 0], [1], "shapes"), ([], [], "shapes"), ([0.2, 1], [1, 0], "true or false"), ([1, 0], [1, 2], "true or")],
)
def test_mcnemar_refuses(ours, other, message):
    with pytest.raises(MonaiCaeError, match=message):
        mcnemar(ours, other)


def test_delong_of_the_papers_patients():
    score, albumin, labels = np.array([row.split() for row in PATIENTS.split(",")], dtype=float).T
    result = delong(labels, albumin / 10, (10 - score) / 10)
    # SAS/STAT User's Guide, The LOGISTIC Procedure, "Comparing Receiver Operating Characteristic Curves"
    assert (result.difference, result.standard_error) == pytest.approx((0.0108, 0.0953), abs=5e-5)
    assert result.p_value == pytest.approx(0.9102, abs=5e-5)


def test_delong_from_midranks_is_delong_from_pairs():
    generator = np.random.default_rng(0)
    for _ in range(10):
        labels = generator.permutation(np.repeat([0, 1], (17, 9)))
        ours, other = generator.random((2, 26)).round(1)
        patients = labels == 1
        kernels = [
            (scores[patients][:, None] > scores[~patients]) + 0.5 * (scores[patients][:, None] == scores[~patients])
            for scores in (ours, other)
        ]
        gain = kernels[0] - kernels[1]
        variance = np.var(gain.mean(axis=1), ddof=1) / 9 + np.var(gain.mean(axis=0), ddof=1) / 17
        result = delong(labels, ours, other)
        assert result.difference == pytest.approx(roc_auc_score(labels, ours) - roc_auc_score(labels, other))
        assert result.difference == pytest.approx(gain.mean())
        assert result.standard_error == pytest.approx(math.sqrt(variance))
        assert result.p_value == pytest.approx(2 * norm.cdf(-abs(gain.mean()) / math.sqrt(variance)))


def test_delong_agrees_with_the_bootstrap():
    generator = np.random.default_rng(1)
    labels = np.repeat([0, 1], (80, 70))
    shared = generator.normal(size=150) + labels
    ours, other = (norm.cdf(shared + generator.normal(size=150) * spread) for spread in (0.4, 0.8))
    differences = []
    for _ in range(1000):
        rows = np.concatenate(
            [generator.choice(np.flatnonzero(labels == label), (labels == label).sum()) for label in (0, 1)]
        )
        pairs = [ours[rows], other[rows]]
        below = [np.searchsorted(np.sort(scores[:80]), scores[80:], side="left") for scores in pairs]
        differences.append((below[0] - below[1]).mean() / 80)
    result = delong(labels, ours, other)
    assert result.standard_error == pytest.approx(np.std(differences), rel=0.1)


@pytest.mark.parametrize(
    ("labels", "ours", "other", "difference", "p_value"),
    [
        ([0, 0, 1, 1], [0.1, 0.3, 0.2, 0.9], [0.2, 0.6, 0.4, 0.99], 0.0, 1.0),
        ([0, 0, 1, 1], [0.1, 0.2, 0.8, 0.9], [0.5] * 4, 0.5, math.nan),
        ([0, 0, 0, 1], [0.1, 0.2, 0.8, 0.3], [0.1, 0.4, 0.8, 0.3], 1 / 3, math.nan),
        ([1, 1, 1, 1], [0.1, 0.2, 0.8, 0.9], [0.5] * 4, math.nan, math.nan),
    ],
    ids=["same ranking", "perfect against constant", "one patient", "one class"],
)
def test_delong_without_a_standard_error(labels, ours, other, difference, p_value):
    result = delong(labels, ours, other)
    assert (result.difference, result.p_value) == pytest.approx((difference, p_value), nan_ok=True)


def test_delong_refuses():
    with pytest.raises(MonaiCaeError, match="probabilities must be between"):
        delong([0, 1], [0.1, 0.2], [3.0, 0.2])


def test_corrected_t_by_hand():
    result = corrected_resampled_t([0.1, 0.2, 0.3, 0.0], n_train=80, n_test=20)
    # squared deviations from 0.15: 0.0025, 0.0025, 0.0225, 0.0225
    error = math.sqrt((1 / 4 + 20 / 80) * 0.05 / 3)
    assert (result.difference, result.standard_error) == pytest.approx((0.15, error))
    # Student's distribution with three degrees of freedom has a closed form
    scaled = 0.15 / error / math.sqrt(3)
    p_value = 1 - 2 / math.pi * (scaled / (1 + scaled**2) + math.atan(scaled))
    assert result.p_value == pytest.approx(p_value)
    # the plain t test knows no training sets: n_test / n_train = 0
    assert corrected_resampled_t([0.1, 0.2, 0.3, 0.0], 1e12, 1).p_value < result.p_value


def test_corrected_t_does_not_cry_wolf():
    # folds that share their training subjects: nine tenths of a difference's variance is common to all of them
    generator = np.random.default_rng(3)
    trials = [generator.normal() * math.sqrt(0.2) + generator.normal(size=25) * math.sqrt(0.8) for _ in range(2000)]
    false_alarms = [corrected_resampled_t(values, 80, 20).p_value < 0.05 for values in trials]
    # its correction assumes a correlation of n_test / (n_test + n_train) = 0.2, which these have
    assert np.mean(false_alarms) == pytest.approx(0.05, abs=0.015)


@pytest.mark.parametrize(
    ("differences", "difference", "p_value"),
    [([0.1], 0.1, math.nan), ([0.0] * 5, 0, 1), ([0.1] * 3, 0.1, math.nan), ([0.1, math.nan], math.nan, math.nan)],
)
def test_corrected_t_without_a_spread(differences, difference, p_value):
    result = corrected_resampled_t(differences, 80, 20)
    assert (result.difference, result.p_value) == pytest.approx((difference, p_value), nan_ok=True)


@pytest.mark.parametrize(
    ("differences", "n_train", "message"), [([], 80, "differences must be"), ([0.1, 0.2], 0, "n_train and n_test must")]
)
def test_corrected_t_refuses(differences, n_train, message):
    with pytest.raises(MonaiCaeError, match=message):
        corrected_resampled_t(differences, n_train, 20)
