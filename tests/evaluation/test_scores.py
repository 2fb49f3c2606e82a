"""The scores of resamples against scikit-learn's of the repeated rows."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn import metrics

from monai_cae.errors import MonaiCaeError
from monai_cae.evaluation import classification_metrics, threshold_for
from monai_cae.evaluation.scores import SCORES, class_counts, classification_scores, resampled_scores

LABELS = [1, 1, 1, 1, 0, 0, 0, 0, 0, 0]
PROBABILITIES = [0.9, 0.8, 0.6, 0.3, 0.7, 0.55, 0.4, 0.3, 0.2, 0.1]
ORACLES = {
    "accuracy": lambda truth, scores: metrics.accuracy_score(truth, scores >= 0.4),
    "balanced_accuracy": lambda truth, scores: metrics.balanced_accuracy_score(truth, scores >= 0.4),
    "sensitivity": lambda truth, scores: metrics.recall_score(truth, scores >= 0.4),
    "specificity": lambda truth, scores: metrics.recall_score(truth, scores >= 0.4, pos_label=0),
    "f1": lambda truth, scores: metrics.f1_score(truth, scores >= 0.4),
    "mcc": lambda truth, scores: metrics.matthews_corrcoef(truth, scores >= 0.4),
    "auc": metrics.roc_auc_score,
    "average_precision": metrics.average_precision_score,
    "brier": metrics.brier_score_loss,
}


def test_ten_subjects_by_hand():
    measured = classification_scores(LABELS, PROBABILITIES)
    assert list(measured) == list(SCORES)
    assert all(type(value) is float for value in measured.values())
    # 3 of 4 AD found, 2 of 6 HC taken for AD
    assert measured["mcc"] == pytest.approx((3 * 4 - 2 * 1) / np.sqrt(4 * 6 * 5 * 5))
    # precision where each AD is found: 1/1, 2/2, 3/4, and 4/8 behind the tie
    assert measured["average_precision"] == pytest.approx((1 + 1 + 3 / 4 + 4 / 8) / 4)
    wrong = [0.1, 0.2, 0.4, 0.7, 0.7, 0.55, 0.4, 0.3, 0.2, 0.1]
    assert measured["brier"] == pytest.approx(np.mean(np.square(wrong)))
    shared = classification_metrics(LABELS, PROBABILITIES)
    assert {name: measured[name] for name in shared} == pytest.approx(shared)


def test_resamples_score_as_repeated_rows():
    generator = np.random.default_rng(0)
    labels, scores = generator.integers(2, size=40), generator.random(40).round(1)
    counts = generator.multinomial(40, np.full(40, 1 / 40), size=25).astype(float)
    found = resampled_scores(labels, scores, scores >= 0.4, counts)
    for place, row in enumerate(counts.astype(int)):
        truth, repeated = np.repeat(labels, row), np.repeat(scores, row)
        expected = {name: oracle(truth, repeated) for name, oracle in ORACLES.items()}
        assert {name: found[name][place] for name in ORACLES} == pytest.approx(expected)


@pytest.mark.parametrize(("label", "undefined"), [(0, {"sensitivity"}), (1, {"specificity"})])
def test_one_class(label, undefined):
    measured = classification_scores([label] * 3, [0.2, 0.6, 0.9])
    undefined = undefined | {"balanced_accuracy", "mcc", "auc", "average_precision"}
    undefined |= {"calibration_slope", "calibration_intercept"}
    assert {name for name, value in measured.items() if np.isnan(value)} == undefined


def test_constant_predictions():
    measured = classification_scores([0, 0, 0, 1], [0.5] * 4)
    assert measured["auc"] == 0.5
    assert measured["mcc"] == 0
    assert measured["average_precision"] == pytest.approx(1 / 4)
    assert np.isnan(measured["calibration_slope"])
    assert classification_scores([0, 0, 0, 1], [0.4] * 4)["f1"] == 0


def test_a_resample_of_nobody_is_nan():
    found = resampled_scores(np.array([0, 1]), np.array([0.2, 0.8]), np.array([False, True]), np.zeros((1, 2)))
    assert {name for name, values in found.items() if not np.isnan(values[0])} == {"f1"}
    assert found["f1"][0] == 0


def test_class_counts_by_hand():
    patients, controls = class_counts(
        np.array([1, 0, 1, 0]), np.array([0.7, 0.7, 0.9, 0.1]), np.array([[1.0, 2, 1, 1]])
    )
    # nobody, from 0.9, from 0.7, from 0.1 on
    assert patients.tolist() == [[0, 1, 2, 2]]
    assert controls.tolist() == [[0, 0, 2, 3]]


def test_only_the_scores_asked_for():
    assert list(classification_scores(LABELS, PROBABILITIES, names=("brier", "auc"))) == ["brier", "auc"]
    with pytest.raises(MonaiCaeError, match=r"names must be of accuracy, .*, not 'roc'"):
        classification_scores(LABELS, PROBABILITIES, names=("auc", "roc"))


@pytest.mark.parametrize(
    ("labels", "probabilities", "threshold", "message"),
    [
        ([0, 2], [0.1, 0.2], 0.5, "labels"),
        ([0, 1], [0.1, 2.0], 0.5, "probabilities"),
        ([0, 1], [0.1, 0.2], 2, "thresh"),
    ],
)
def test_refuses(labels, probabilities, threshold, message):
    with pytest.raises(MonaiCaeError, match=f"{message}.* must be"):
        classification_scores(labels, probabilities, threshold)


@pytest.mark.parametrize("by", ["youden", "accuracy", "f1"])
def test_threshold_is_the_best_there_is(by):
    generator = np.random.default_rng(4)
    for _ in range(200):
        labels, scores = np.arange(12) % 3 == 0, generator.random(12).round(1)

        def worth(threshold, labels=labels, scores=scores):
            taken = scores >= threshold
            found, alarms = (taken & labels).sum(), (taken & ~labels).sum()
            values = {
                "youden": found / 4 - alarms / 8,
                "accuracy": found + 8 - alarms,
                "f1": found / (found + alarms + 4),
            }
            return values[by]

        best = max(worth(threshold) for threshold in np.arange(-0.05, 1, 0.1))
        assert worth(threshold_for(labels, scores, by)) == pytest.approx(best)


def test_criteria_differ():
    # the only AD of six stands second: finding it costs accuracy, not Youden's index
    labels, scores = [0, 1, 0, 0, 0, 0], [0.9, 0.5, 0.4, 0.3, 0.2, 0.1]
    assert threshold_for(labels, scores, "youden") == pytest.approx(0.45)
    assert threshold_for(labels, [0.9, 0.7, 0.8, 0.1, 0.1, 0.1], "youden") == pytest.approx(0.4)
    assert threshold_for(labels, [0.9, 0.7, 0.8, 0.1, 0.1, 0.1], "accuracy") == pytest.approx(0.95)


@pytest.mark.parametrize(
    ("probabilities", "expected"), [([0.2, 0.8], 0.5), ([0.8, 0.2], 1.0 - 0.1), ([0.6, 0.6], 0.8), ([1.0, 1.0], 0.0)]
)
def test_threshold_of_two_subjects(probabilities, expected):
    assert threshold_for([0, 1], probabilities) == pytest.approx(expected)


@pytest.mark.parametrize(
    ("labels", "by", "message"), [([0, 0], "youden", "0 AD and 2 HC"), ([0, 1], "gini", "by must be .*, not 'gini'")]
)
def test_threshold_refuses(labels, by, message):
    with pytest.raises(MonaiCaeError, match=message):
        threshold_for(labels, [0.1, 0.9], by)
