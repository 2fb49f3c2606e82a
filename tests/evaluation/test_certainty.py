"""Conformal sets and selective accuracy, against values that were worked out by hand."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from monai_cae.evaluation.certainty import conformal_sets, selective_accuracy, selective_figure


def record(labels, probabilities, folds, repeats=None) -> pd.DataFrame:
    subjects = [f"s{number}" for number in range(len(labels))]
    return pd.DataFrame({
        "subject": subjects, "repeat": repeats or [1] * len(labels), "fold": folds, "label": labels,
        "probability": probabilities,
    })  # fmt: skip


def test_a_set_compares_with_the_class_in_the_other_folds():
    """Fold 2 has patients at 0.6 and 0.8 and controls at 0.1 and 0.3. A subject at 0.7 of fold 1 has p 2/3 as a patient
    and 1/3 as a control; one at 0.2 has 1/3 as a patient, 2/3 as a control."""
    one = record([1, 0, 1, 1, 0, 0], [0.7, 0.2, 0.6, 0.8, 0.1, 0.3], [1, 1, 2, 2, 2, 2])
    of_first = conformal_sets(one, (0.4, 0.3)).set_index("error_rate")
    # fold 2 is compared with one patient at 0.7 and one control at 0.2: p is 1/2 or 1
    # as patient: 0.6 -> 1/2, 0.8 -> 1, 0.1 -> 1/2, 0.3 -> 1/2; as control: 0.6 -> 1/2, 0.8 -> 1/2, 0.1 -> 1, 0.3 -> 1/2
    assert of_first.loc[0.4, ["coverage", "one", "accuracy", "both", "none"]].tolist() == pytest.approx(
        [1, 2 / 6, 1, 4 / 6, 0]
    )
    assert of_first.loc[0.3, "both"] == 1
    assert conformal_sets(one[one["fold"] == 1]).empty


def test_coverage_is_what_was_asked_for_whatever_the_probabilities_mean():
    rng = np.random.default_rng(3)
    labels = rng.integers(0, 2, 400)
    probabilities = 1 / (1 + np.exp(-6 * (labels - 0.5 + rng.normal(0, 0.8, 400))))  # far too sure
    found = conformal_sets(record(labels, probabilities, rng.integers(1, 6, 400).tolist())).set_index("error_rate")
    assert found.loc[0.1, "coverage"] == pytest.approx(0.9, abs=0.03)
    assert found.loc[0.2, "coverage"] == pytest.approx(0.8, abs=0.04)
    assert (found["low"] < 1 - found.index).all() and (found["high"] > 1 - found.index).all()
    assert found.loc[0.2, "one"] > found.loc[0.05, "one"]


def test_repeats_are_compared_as_single_predictions():
    """The mean of a subject's predictions varies less than each: sets by means would leave out too many."""
    rng = np.random.default_rng(5)
    labels = rng.integers(0, 2, 200)
    several = [
        record(labels, 1 / (1 + np.exp(-2 * (labels - 0.5 + rng.normal(0, 1, 200)))), rng.integers(1, 6, 200).tolist())
        for _ in range(3)
    ]
    rows = pd.concat([one.assign(repeat=number) for number, one in enumerate(several)], ignore_index=True)
    assert conformal_sets(rows, (0.2,))["coverage"][0] == pytest.approx(0.8, abs=0.03)


def test_the_surest_first():
    """Right, right, wrong, right: accuracies 1, 1, 2/3, 3/4 and errors 0, 0, 1/3, 1/4."""
    one = record([1, 0, 1, 1], [0.99, 0.05, 0.2, 0.6], [1] * 4).assign(threshold=0.5)
    curve = selective_accuracy(one, resamples=20).set_index("share")
    assert [curve.loc[share, "accuracy"] for share in (0.25, 0.5, 0.75, 1.0)] == pytest.approx([1, 1, 2 / 3, 3 / 4])
    assert curve["aurc"].iloc[0] == pytest.approx((0 + 0 + 1 / 3 + 1 / 4) / 4)
    assert (curve["low"] <= curve["accuracy"] + 1e-9).all()
    assert selective_figure({"Network": curve.reset_index()}).axes


def test_sureness_is_measured_from_the_threshold():
    """With threshold 0.9, 0.95 is half of what it could be, and 0.3 two thirds."""
    one = record([1, 1], [0.95, 0.3], [1, 1]).assign(threshold=0.9)
    curve = selective_accuracy(one, resamples=5).set_index("share")
    assert curve.loc[0.5, "accuracy"] == 0 and curve.loc[1.0, "accuracy"] == 0.5


def test_of_equally_sure_predictions_none_comes_first():
    """Two wrong ones that happen to be listed before two right ones."""
    one = record([1, 1, 0, 0], [0.4] * 4, [1] * 4).assign(threshold=0.5)
    curve = selective_accuracy(one, resamples=5)
    assert curve["accuracy"].tolist() == pytest.approx([0.5] * len(curve)) and curve["aurc"][0] == pytest.approx(0.5)
