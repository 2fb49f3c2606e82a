"""Components of a code against columns of a table, by SciPy and scikit-learn on the same numbers."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from scipy import stats
from sklearn.linear_model import LinearRegression, RidgeCV
from sklearn.model_selection import KFold
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from monai_cae.evaluation.correlations import PENALTIES, correlations, regressors
from monai_cae.evaluation.latent_figure import influence_maps


@pytest.fixture
def drawn() -> tuple[pd.DataFrame, pd.DataFrame, pd.DataFrame]:
    rng = np.random.default_rng(0)
    age, sex = rng.uniform(60, 90, 40), rng.integers(0, 2, 40).astype(float)
    codes = pd.DataFrame(rng.normal(size=(40, 3)), columns=["c1", "c2", "c3"]).assign(c4=1.5)
    codes["c1"] += age / 5
    mmse = np.round(30 - (age - 60) / 10 - 2 * codes["c2"] + rng.normal(0, 1, 40))
    mmse[:6] = np.nan
    return codes, pd.DataFrame({"age": age, "MMSE": mmse}), pd.DataFrame({"age": age, "sex": sex})


def test_correlations_and_their_p_are_scipys(drawn):
    codes, columns, nuisance = drawn
    found = correlations(*drawn).set_index(["component", "column"])
    assert len(found) == 8 and found.loc[("c1", "MMSE"), "n"] == 34
    for component in ("c1", "c2", "c3"):
        known = columns["MMSE"].notna()
        x, y = codes.loc[known, component], columns.loc[known, "MMSE"]
        row = found.loc[(component, "MMSE")]
        for name, test in (("pearson", stats.pearsonr), ("spearman", stats.spearmanr)):
            expected = test(x, y)
            assert row[name] == pytest.approx(expected.statistic) and row[f"{name}_p"] == pytest.approx(expected.pvalue)
        others = nuisance[known]
        left = [one - LinearRegression().fit(others, one).predict(others) for one in (x, y)]
        r = stats.pearsonr(*left).statistic
        assert row["partial"] == pytest.approx(r)
        assert row["partial_p"] == pytest.approx(2 * stats.t.sf(abs(r) * np.sqrt(30 / (1 - r * r)), 30))
    # age is corrected for sex alone, and what it tells of the MMSE goes
    assert abs(found.loc[("c1", "age"), "partial"]) > 0.8 and abs(found.loc[("c1", "MMSE"), "partial"]) < 0.35
    for kind in ("pearson", "spearman", "partial"):
        p = found[f"{kind}_p"].dropna()
        assert len(p) == 6  # the component that does not vary has none
        assert found.loc[p.index, f"{kind}_q"].to_numpy() == pytest.approx(stats.false_discovery_control(p))
    assert found.loc["c4"].drop(columns="n").isna().all().all()


def test_every_subject_is_predicted_by_a_regression_that_has_not_seen_it(drawn):
    codes, columns, _ = drawn
    found = regressors(*drawn, seed=3).set_index("column")
    known = columns["MMSE"].notna().to_numpy()
    x, y = codes.to_numpy()[known], columns["MMSE"].to_numpy()[known]
    predicted = np.empty(len(y))
    for fit, left in KFold(5, shuffle=True, random_state=3).split(x):
        model = make_pipeline(StandardScaler(), RidgeCV(alphas=PENALTIES)).fit(x[fit], y[fit])
        predicted[left] = model.predict(x[left])
    row = found.loc["MMSE"]
    assert row["mae"] == pytest.approx(np.abs(predicted - y).mean()) and row["n"] == 34
    for name, test in (("pearson", stats.pearsonr), ("spearman", stats.spearmanr)):
        expected = test(predicted, y, alternative="greater")
        assert row[name] == pytest.approx(expected.statistic) and row[f"{name}_p"] == pytest.approx(expected.pvalue)
    assert row["pearson_q"] == pytest.approx(stats.false_discovery_control(found["pearson_p"])[1])


def test_the_map_of_a_component_is_the_difference_of_what_one_sd_more_and_less_decode_to():
    images = [np.full((6, 4), 0.2), np.full((6, 4), 0.5), np.full((6, 4), 0.5)]
    images[2][1, 2] = 0.9
    figure = influence_maps({"c1": images, "c2": images[::-1]})
    assert len(figure.axes) == 8 + 2  # and the bars of two differences
    shown = figure.axes[3].images[0].get_array()
    np.testing.assert_allclose(shown, (images[2] - images[0]).T)
    assert shown[2, 1] == pytest.approx(0.7)
