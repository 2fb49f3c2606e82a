"""Expected values are worked out by hand or by definition, not by the functions that the code calls."""

from __future__ import annotations

import math
import warnings
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

from monai_cae.errors import MonaiCaeError
from monai_cae.evaluation import classification_metrics, mean_and_sd, predicted_classes, psnr, psnr_brain

# ten subjects: 3 of 4 AD found, 4 of 6 HC kept
LABELS = [1, 1, 1, 1, 0, 0, 0, 0, 0, 0]
PROBABILITIES = [0.9, 0.8, 0.6, 0.3, 0.7, 0.55, 0.4, 0.3, 0.2, 0.1]


@pytest.fixture(autouse=True)
def _warnings_are_errors() -> Iterator[None]:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        yield


def test_ten_subjects_by_hand() -> None:
    measured = classification_metrics(LABELS, PROBABILITIES)
    # pairs (AD, HC) in the right order: 6 + 6 + 5 + (2, and half of the tie at 0.3)
    expected = {
        "accuracy": 7 / 10,
        "balanced_accuracy": (3 / 4 + 4 / 6) / 2,
        "sensitivity": 3 / 4,
        "specificity": 4 / 6,
        "f1": 2 * 3 / (2 * 3 + 2 + 1),
        "auc": (6 + 6 + 5 + 2.5) / 24,
    }
    assert measured == pytest.approx(expected)
    assert all(type(value) is float for value in measured.values())


def test_auc_counts_pairs() -> None:
    generator = np.random.default_rng(1)
    labels, probabilities = np.arange(60) % 3 == 0, generator.random(60).round(1)
    patients, controls = probabilities[labels], probabilities[~labels]
    pairs = [(patient > control) + 0.5 * (patient == control) for patient in patients for control in controls]
    assert classification_metrics(labels, probabilities)["auc"] == pytest.approx(np.mean(pairs))


@pytest.mark.parametrize(("threshold", "sensitivity", "specificity"), [(0.0, 1, 0), (0.3, 1, 2 / 6), (0.85, 1 / 4, 1)])
def test_threshold_moves_the_decision_but_not_the_auc(threshold: Any, sensitivity: Any, specificity: Any) -> None:
    measured = classification_metrics(LABELS, PROBABILITIES, threshold)
    assert (measured["sensitivity"], measured["specificity"]) == pytest.approx((sensitivity, specificity))
    assert measured["auc"] == pytest.approx(19.5 / 24)


def test_decision_is_the_sign_of_the_logit() -> None:
    logits = np.array([-5.0, -1e-6, 0.0, 1e-6, 5.0])
    assert predicted_classes(1 / (1 + np.exp(-logits))).tolist() == [0, 0, 1, 1, 1]


def test_only_controls() -> None:
    measured = classification_metrics([0, 0, 0, 0], [0.1, 0.2, 0.3, 0.9])
    assert measured["accuracy"] == measured["specificity"] == 0.75
    assert measured["f1"] == 0
    assert all(math.isnan(measured[name]) for name in ("auc", "sensitivity", "balanced_accuracy"))


def test_only_patients() -> None:
    measured = classification_metrics([1, 1], [0.1, 0.9])
    assert measured["accuracy"] == measured["sensitivity"] == 0.5
    assert measured["f1"] == pytest.approx(2 / 3)
    assert all(math.isnan(measured[name]) for name in ("auc", "specificity", "balanced_accuracy"))


@pytest.mark.parametrize("labels", [[0, 0], [0, 1]], ids=["none present", "none predicted"])
def test_f1_is_zero_without_a_true_positive(labels: Any) -> None:
    assert classification_metrics(labels, [0.1, 0.2])["f1"] == 0


@pytest.mark.parametrize(
    ("labels", "probabilities", "message"),
    [
        ([0, 1], [0.5], r"shapes \(2,\) and \(1,\)"),
        ([[0], [1]], [[0.1], [0.2]], r"one value per subject"),
        ([], [], r"at least one subject"),
        ([0, 1], [0.5, math.nan], r"finite, not nan"),
        ([0, 1], [0.5, math.inf], r"finite, not inf"),
        ([0, 1], [0.5, 1.5], r"between 0 and 1, not 1\.5"),
        ([0, 1], [-2.0, 0.5], r"between 0 and 1, not -2"),
        ([0, 2], [0.5, 0.5], r"labels must be .*, not 2"),
        ([0, 0.5], [0.5, 0.5], r"labels must be .*, not 0\.5"),
        ([0, math.nan], [0.5, 0.5], r"labels must be .*, not nan"),
    ],
)
def test_refuses(labels: Any, probabilities: Any, message: Any) -> None:
    with pytest.raises(MonaiCaeError, match=message) as caught:
        classification_metrics(labels, probabilities)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("threshold", [-0.1, 1.1, math.nan])
def test_refuses_threshold(threshold: Any) -> None:
    with pytest.raises(MonaiCaeError, match=f"threshold must be .*, not {threshold}"):
        classification_metrics([0, 1], [0.1, 0.9], threshold)


@pytest.mark.parametrize("shape", [(3, 8, 6), (3, 4, 4, 4), (3, 1, 8, 6)])
def test_psnr_of_a_constant_offset(shape: Any) -> None:
    originals = np.full(shape, 0.4)
    offsets = np.array([0.1, 0.01, 0.0]).reshape(-1, *[1] * (len(shape) - 1))
    values = psnr(originals, originals + offsets)
    assert values.shape == (3,)
    assert values == pytest.approx([20, 40, math.inf])


def test_psnr_averages_the_squared_error_not_the_decibels() -> None:
    reconstruction = np.zeros((1, 2, 2))
    reconstruction[0, 0, 0] = 0.2
    assert psnr(np.zeros((1, 2, 2)), reconstruction) == pytest.approx(10 * math.log10(4 / 0.04))


def test_psnr_of_unsigned_integers() -> None:
    assert psnr(np.zeros((1, 2, 2), np.uint8), np.full((1, 2, 2), 255, np.uint8), 255) == pytest.approx(0)


def test_psnr_brain_leaves_the_background_out() -> None:
    originals = np.zeros((4, 2, 4))
    originals[:3, :, :2] = 0.5
    originals[:3, 0, 2] = 0.03
    reconstructions = originals.copy()
    reconstructions[0, :, :2] += 0.1
    reconstructions[1, :, 2:] += 0.9
    reconstructions[2, 0, 0] += 0.2
    assert psnr_brain(originals, reconstructions) == pytest.approx([20, math.inf, 20, math.nan], nan_ok=True)
    # 8 pixels instead of 4
    assert psnr(originals, reconstructions)[0] == pytest.approx(20 + 10 * math.log10(2))


def test_psnr_brain_threshold_and_max_intensity() -> None:
    originals = np.array([[[10.0, 100.0]]])
    reconstructions = originals + np.array([30.0, 20.0])
    assert psnr_brain(originals, reconstructions, threshold=50, max_intensity=200) == pytest.approx(20)


@pytest.mark.parametrize("function", [psnr, psnr_brain])
def test_psnr_hides_no_nan(function: Any) -> None:
    broken = np.full((2, 2, 2), 0.5)
    broken[0, 0, 0] = math.nan
    whole = np.full((2, 2, 2), 0.4)
    for values in (function(broken, whole), function(whole, broken)):
        assert values == pytest.approx([math.nan, 20], nan_ok=True)


@pytest.mark.parametrize("function", [psnr, psnr_brain])
@pytest.mark.parametrize(
    ("originals", "reconstructions", "max_intensity", "message"),
    [
        (np.zeros((2, 4, 4)), np.zeros((1, 4, 4)), 1.0, r"shape \(2, 4, 4\), not \(1, 4, 4\)"),
        (np.zeros((0, 4, 4)), np.zeros((0, 4, 4)), 1.0, r"not \(0, 4, 4\)"),
        (np.zeros(4), np.zeros(4), 1.0, r"not \(4,\)"),
        (np.zeros((1, 4, 4)), np.zeros((1, 4, 4)), 0.0, r"max_intensity must be positive, not 0\.0"),
    ],
)
def test_psnr_refuses(function: Any, originals: Any, reconstructions: Any, max_intensity: Any, message: Any) -> None:
    with pytest.raises(MonaiCaeError, match=message):
        function(originals, reconstructions, max_intensity=max_intensity)


def test_mean_and_sd() -> None:
    # deviations -1, 0, 1: variance 2 / (3 - 1)
    assert mean_and_sd([1.0, 2.0, 3.0]) == pytest.approx((2, 1))
    assert mean_and_sd([0.7]) == pytest.approx((0.7, math.nan), nan_ok=True)
    assert mean_and_sd([0.7, math.nan]) == pytest.approx((math.nan, math.nan), nan_ok=True)
    assert mean_and_sd([0.7, math.inf])[0] == math.inf
    with pytest.raises(MonaiCaeError, match="at least one repeat"):
        mean_and_sd([])
