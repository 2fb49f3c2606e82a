from __future__ import annotations

import math

import numpy as np
import pytest
from scipy.stats import norm

from monai_cae.errors import MonaiCaeError
from monai_cae.evaluation.intervals import bootstrap_counts, percentile_interval, wilson_interval
from monai_cae.evaluation.scores import classification_scores, resampled_scores


def test_wilson_interval_of_the_papers_accuracy():
    assert wilson_interval(round(0.7466 * 60), 60) == pytest.approx((0.628, 0.842), abs=5e-4)


@pytest.mark.parametrize(("successes", "trials"), [(45, 60), (0, 7), (7, 7), (1, 1), (3, 400)])
def test_wilson_interval_solves_its_equation(successes, trials):
    # its ends are the proportions p that lie z standard errors of p itself from the observed one
    share = successes / trials
    for end in wilson_interval(successes, trials):
        distance = abs(share - end)
        assert 0 <= end <= 1
        assert distance == pytest.approx(norm.ppf(0.975) * math.sqrt(end * (1 - end) / trials))


@pytest.mark.parametrize(
    ("successes", "trials", "message"),
    [
        (1, 0, "trials must be .*, not 0"),
        (1, 2.5, "trials must be .*, not 2.5"),
        (5, 4, "successes must be .* from 0 to 4, not 5"),
        (-1, 4, "successes must be .*, not -1"),
        (44.8, 60, "successes must be a whole number .*, not 44.8"),
    ],
)
def test_wilson_interval_refuses(successes, trials, message):
    with pytest.raises(MonaiCaeError, match=message):
        wilson_interval(successes, trials)


def test_bootstrap_draws_within_the_classes():
    labels = np.array([0, 1, 0, 0, 1, 0])
    counts = bootstrap_counts(labels, 4000, np.random.default_rng(0))
    assert counts.shape == (4000, 6)
    assert (counts[:, labels == 1].sum(axis=1) == 2).all()
    assert (counts[:, labels == 0].sum(axis=1) == 4).all()
    # each is drawn once on average, and left out with the chance (1 - 1/m)^m
    assert counts.mean(axis=0) == pytest.approx(np.ones(6), abs=0.06)
    assert (counts == 0).mean(axis=0) == pytest.approx(np.where(labels == 1, 1 / 4, (3 / 4) ** 4), abs=0.03)


def test_bootstrap_leaves_the_global_random_state_alone():
    before = np.random.get_state()[1].copy()  # noqa: NPY002
    again = [bootstrap_counts([0, 1, 1], 5, np.random.default_rng(3)) for _ in range(2)]
    assert (again[0] == again[1]).all()
    assert (np.random.get_state()[1] == before).all()  # noqa: NPY002


@pytest.mark.parametrize(("labels", "resamples"), [([], 5), ([[0], [1]], 5), ([0, 1], 0)])
def test_bootstrap_refuses(labels, resamples):
    with pytest.raises(MonaiCaeError, match="must be"):
        bootstrap_counts(labels, resamples, np.random.default_rng(0))


def test_percentile_interval():
    values = np.random.default_rng(0).permutation(101) / 100
    assert percentile_interval(values) == pytest.approx((0.025, 0.975))
    values[:5] = math.nan
    assert not np.isnan(percentile_interval(values)).any()
    values[:6] = math.nan
    assert np.isnan(percentile_interval(values)).all()
    with pytest.raises(MonaiCaeError, match="at least one resample"):
        percentile_interval([])


def test_bootstrap_interval_covers_the_true_auc():
    generator, separation, covered = np.random.default_rng(5), 1.0, []
    labels = np.repeat([0, 1], 40)
    truth = norm.cdf(separation / math.sqrt(2))  # of two normal distributions
    for _ in range(200):
        probabilities = norm.cdf(generator.normal(size=80) + separation * labels)
        counts = bootstrap_counts(labels, 300, generator)
        resampled = resampled_scores(labels, probabilities, probabilities > 0.5, counts, ["auc"])["auc"]
        low, high = percentile_interval(resampled)
        assert low < classification_scores(labels, probabilities)["auc"] < high
        covered.append(low <= truth <= high)
    # 0.95 would have a standard error of 0.015
    assert 0.9 <= np.mean(covered) <= 0.99
