"""Scores of predicted numbers, against scikit-learn's and SciPy's on the same predictions."""

from __future__ import annotations

import math

import numpy as np
import pandas as pd
import pytest
from scipy import stats
from sklearn import metrics
from tiny import mistake

from monai_cae.evaluation.comparison import corrected_resampled_t
from monai_cae.evaluation.intervals import bootstrap_counts
from monai_cae.evaluation.number_figures import bland_altman, predicted_against_true
from monai_cae.evaluation.numbers import compare_numbers, number_scores, permutation_p, summarise_numbers


def drawn(seed: int, n: int = 30) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    labels = rng.integers(20, 31, n).astype(float)  # with ties, as MMSE
    return labels, 0.5 * labels + rng.normal(14, 1.5, n)


def expected(labels: np.ndarray, predicted: np.ndarray) -> dict[str, float]:
    return {
        "mae": metrics.mean_absolute_error(labels, predicted),
        "rmse": metrics.root_mean_squared_error(labels, predicted),
        "r2": metrics.r2_score(labels, predicted),
        "pearson": stats.pearsonr(labels, predicted).statistic,
        "spearman": stats.spearmanr(labels, predicted).statistic,
        "bias": float(np.mean(predicted - labels)),
        "slope": stats.linregress(predicted, labels).slope,
    }


def record(seed: int, repeats: int = 2, folds: int = 3, n: int = 30) -> pd.DataFrame:
    labels, _ = drawn(0, n)
    tables = []
    for repeat in range(repeats):
        rng = np.random.default_rng([seed, repeat])
        told = {"subject": [f"s{i:02}" for i in range(n)], "fold": np.arange(n) % folds + 1, "label": labels}
        tables.append(pd.DataFrame(told).assign(repeat=repeat + 1, predicted=labels + rng.normal(0.3, 1 + seed, n)))
    return pd.concat(tables).sample(frac=1, random_state=1)


def test_scores_are_those_of_scikit_learn_and_scipy():
    labels, predicted = drawn(1)
    assert number_scores(labels, predicted) == pytest.approx(expected(labels, predicted), rel=1e-10)


def test_what_has_no_value_is_nan():
    labels, _ = drawn(1)
    found = number_scores(labels, np.full(len(labels), 25.1))
    assert math.isnan(found["pearson"]) and math.isnan(found["spearman"]) and math.isnan(found["slope"])
    assert found["r2"] == pytest.approx(metrics.r2_score(labels, np.full(len(labels), 25.1)))
    assert math.isnan(number_scores(np.full(5, 3.1), np.arange(5.0))["r2"])


def test_a_summary_scores_each_repeat_and_resamples_subjects():
    table = record(0)
    found = summarise_numbers(table, np.random.default_rng(5), resamples=200, permutations=99)
    by_repeat = [expected(*rows[["label", "predicted"]].to_numpy().T) for _, rows in table.groupby("repeat")]
    for name in by_repeat[0]:
        values = [one[name] for one in by_repeat]
        assert found.loc[name, "mean"] == pytest.approx(np.mean(values), rel=1e-9)
        assert found.loc[name, "sd"] == pytest.approx(np.std(values, ddof=1), rel=1e-9)
    # the same draws, with every drawn subject written out as often as it was drawn
    counts = bootstrap_counts(np.zeros(30), 200, np.random.default_rng(5)).astype(int)
    wide = table.pivot(index="subject", columns="repeat", values="predicted")
    labels = table.groupby("subject")["label"].first()
    scores = [
        [expected(labels.repeat(count).to_numpy(), wide[repeat].repeat(count).to_numpy()) for repeat in (1, 2)]
        for count in counts
    ]
    for name in ("mae", "r2", "spearman", "slope"):
        low, high = np.quantile([np.mean([one[name] for one in pair]) for pair in scores], [0.025, 0.975])
        assert found.loc[name, ["low", "high"]].tolist() == pytest.approx([low, high], rel=1e-9)
    assert found.loc["mae", "subjects"] == 30 and found.loc["mae", "repeats"] == 2


def test_permutation_p_is_the_share_of_shuffles_with_as_high_a_correlation():
    labels, predicted = np.array([1.0, 2, 3, 4]), np.array([1.0, 2, 3, 5])
    assert permutation_p(labels, predicted, np.random.default_rng(0)) == pytest.approx(1 / 24)  # of all shuffles
    assert permutation_p(labels, -predicted, np.random.default_rng(0)) == 1
    many, noise = drawn(2)[0], np.random.default_rng(3).normal(size=30)
    told = stats.pearsonr(many, noise, alternative="greater", method=stats.PermutationMethod(n_resamples=9999))
    assert permutation_p(many, noise, np.random.default_rng(0)) == pytest.approx(told.pvalue, abs=0.02)
    assert math.isnan(permutation_p(many, np.ones(30), np.random.default_rng(0)))


def test_two_methods_are_compared_by_their_absolute_errors():
    ours, other = record(0), record(1)
    (row,) = compare_numbers(ours, other, np.random.default_rng(0), 20, 10, resamples=300).to_dict("records")
    both = ours.merge(other, on=["subject", "repeat", "fold", "label"], suffixes=("", "_other"))
    errors = pd.DataFrame({
        "apart": (both["predicted"] - both["label"]).abs() - (both["predicted_other"] - both["label"]).abs()
    }).join(both[["subject", "repeat", "fold"]])  # fmt: skip
    assert row["difference"] == pytest.approx(errors["apart"].mean()) and row["low"] < row["difference"] < row["high"]
    assert row["p_paired"] == pytest.approx(stats.wilcoxon(errors.groupby("subject")["apart"].mean()).pvalue)
    gains = errors.groupby(["repeat", "fold"])["apart"].mean()
    assert row["p_corrected_t"] == pytest.approx(corrected_resampled_t(gains.to_numpy(), 20, 10).p_value)
    assert row["trials"] == 6 and row["p_paired"] < 0.05 and row["difference"] < 0  # ours has the smaller noise
    (same,) = compare_numbers(ours, ours, np.random.default_rng(0), 20, 10, resamples=10).to_dict("records")
    assert (same["difference"], same["p_paired"], same["low"], same["high"]) == (0, 1, 0, 0)


def test_other_splits_blanks_and_doubles_are_refused():
    table, rng = record(0), np.random.default_rng(0)
    assert "the same subjects" in mistake(compare_numbers, table, table.assign(fold=1), rng, 1, 1)
    assert "s07 has two in repeat 1" in mistake(
        summarise_numbers, pd.concat([table, table[(table["subject"] == "s07") & (table["repeat"] == 1)]]), rng
    )
    assert "predicted must be finite, not nan" in mistake(summarise_numbers, table.assign(predicted=np.nan), rng)
    assert "missing: predicted" in mistake(summarise_numbers, table.drop(columns="predicted"), rng)
    assert "as many, not 2 and 3" in mistake(number_scores, [1, 2], [1, 2, 3])


def test_the_figures_show_every_subject_the_line_of_equality_and_the_limits_of_agreement():
    labels, predicted = drawn(4)
    scatter = predicted_against_true(labels, predicted, "MMSE", about="30 test subjects").axes[0]
    np.testing.assert_allclose(scatter.collections[0].get_offsets(), np.column_stack([labels, predicted]))
    line = scatter.lines[0].get_xydata()
    np.testing.assert_allclose(line[:, 0], line[:, 1])
    assert scatter.get_title().startswith(f"n = 30, r = {stats.pearsonr(labels, predicted).statistic:.2f}")
    apart = bland_altman(labels, predicted, "MMSE").axes[0]
    differences = predicted - labels
    np.testing.assert_allclose(
        apart.collections[0].get_offsets(), np.column_stack([(labels + predicted) / 2, differences])
    )
    middle, half = differences.mean(), 1.96 * differences.std(ddof=1)
    heights = sorted(line.get_ydata()[0] for line in apart.lines)
    np.testing.assert_allclose(heights, sorted([0, middle, middle - half, middle + half]))
