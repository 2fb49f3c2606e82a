"""A column of numbers as the target: one experiment, looked at from all sides, and what can't be one."""

from __future__ import annotations

import csv
import json
import math
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from runs import rows_of
from scipy import stats
from sklearn import metrics
from sklearn.linear_model import RidgeCV
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from tiny import TINY, mistake, random_network, write_discs

from monai_cae.cli import main
from monai_cae.networks import EncoderClassifier, trained_with
from monai_cae.targets import Number

MMSE = {"_target_": "monai_cae.targets.Number", "column": "mmse"}


def write_people(root: Path, subjects: int = 24, first: int = 0, **changed: Any) -> Path:
    """Discs whose patients have a lower MMSE; `changed` has columns as functions of the row's number and its CDR."""
    write_discs(root, subjects, first)
    path = root / "oasis_cross-sectional.csv"
    with path.open(encoding="utf-8-sig") as file:
        rows = list(csv.DictReader(file))
    columns = {"MMSE": lambda i, cdr: 29 - 6 * (cdr > 0) - i % 3, **changed}
    for i, row in enumerate(rows, start=first):
        cdr = float(row["CDR"])
        row |= {name: make(i, cdr) for name, make in columns.items()}
    with path.open("w", encoding="utf-8", newline="") as file:
        table = csv.DictWriter(file, list(rows[0]))
        table.writeheader()
        table.writerows(rows)
    return root


@pytest.fixture(autouse=True)
def own_process(monkeypatch):
    """What a command changes in its process stays in its test."""
    monkeypatch.setattr(sys, "argv", sys.argv)
    monkeypatch.setattr(sys, "excepthook", sys.excepthook)


@pytest.fixture(scope="module")
def people(tmp_path_factory) -> Path:
    return write_people(tmp_path_factory.mktemp("people"))


PROBE = {"network_def#hidden": [], "network_def#pooling": 1}
PENALTY = {"code": 1, "histogram": 1, "covariates": 1}
BASELINES = ["mean", "table_ridge", "pixel_ridge", "pixel_kernel_ridge", "code_ridge"]
SETTINGS = {
    "split#kind": "kfold",
    "split#folds": 2,
    "repeats": 1,
    "max_epochs": 1,
    "channels": [4, 8],
    "stages#classifier": {"covariates": {"age": [70, 8]}},
    "variants#probe": {"classifier": PROBE, "train": {"learn": "linear_probe", "penalty": PENALTY}},
    "variants#half": {"train": {"training_share": 0.5}},
    "baselines": BASELINES,
}


@pytest.fixture(scope="module")
def done(run_bundle, people, tmp_path_factory) -> Path:
    """Two folds, with two variants and all baselines."""
    output = tmp_path_factory.mktemp("numbers") / "out"
    run_bundle(["experiment.yaml", "with_number.yaml"], people, output, **SETTINGS)
    return output


def test_scores_are_those_of_the_predictions(done):
    record = pd.read_csv(done / "predictions.csv")
    assert list(record) == ["method", "subject", "repeat", "fold", "label", "predicted", "cdr", "age", "sex"]
    assert set(record["method"]) == {"network", "probe", "half", *BASELINES}
    scores = pd.read_csv(done / "scores.csv", index_col=["method", "score"])
    for method, rows in record.groupby("method"):
        by_repeat = [
            (
                metrics.mean_absolute_error(*one[["label", "predicted"]].to_numpy().T),
                metrics.r2_score(*one[["label", "predicted"]].to_numpy().T),
            )
            for _, one in rows.groupby("repeat")
        ]
        assert len(by_repeat) == 1 and all(len(one) == 24 for _, one in rows.groupby("repeat"))
        mae, r2 = np.mean(by_repeat, axis=0)
        assert scores.loc[(method, "mae"), "mean"] == pytest.approx(mae, rel=1e-4)
        assert scores.loc[(method, "r2"), "mean"] == pytest.approx(r2, rel=1e-4)
        assert scores.loc[(method, "mae"), "low"] < mae < scores.loc[(method, "mae"), "high"]
    assert 0 < scores.loc[("network", "permutation_p"), "mean"] <= 1


def test_the_baselines_are_scikit_learns_without_the_column_itself(done, people):
    record = pd.read_csv(done / "predictions.csv")
    folder = done / "repeat_1" / "fold_2"
    sets = json.loads((folder / "datalist.json").read_text())
    known = pd.DataFrame(sets["training"] + sets["validation"])
    unseen = pd.DataFrame(sets["test"]).set_index("subject")
    ours = record[(record["repeat"] == 1) & (record["fold"] == 2)].set_index(["method", "subject"])["predicted"]
    assert ours["mean"].to_numpy() == pytest.approx(known["label"].mean(), abs=1e-6)

    def table(rows: pd.DataFrame) -> np.ndarray:
        return rows.assign(sex=(rows["sex"] == "M").astype(float))[["age", "sex", "nWBV", "Educ"]].to_numpy(float)

    ridge = make_pipeline(StandardScaler(), RidgeCV(alphas=[0.01, 0.1, 1, 10, 100, 1000]))
    expected = ridge.fit(table(known), known["label"]).predict(table(unseen))
    assert ours["table_ridge"][unseen.index].to_numpy() == pytest.approx(expected, abs=1e-5)


def test_each_method_is_tested_against_the_network_by_its_absolute_errors(done):
    record = pd.read_csv(done / "predictions.csv")
    record["error"] = (record["predicted"] - record["label"]).abs()
    wide = record.pivot(index=["subject", "repeat", "fold"], columns="method", values="error")
    found = pd.read_csv(done / "comparisons.csv", index_col="against")
    assert set(found["score"]) == {"mae"} and len(found) == 7
    for method, row in found.iterrows():
        apart = wide["network"] - wide[method]
        assert row["difference"] == pytest.approx(apart.mean(), rel=1e-3, abs=1e-4)
        assert row["p_paired"] == pytest.approx(stats.wilcoxon(apart.groupby("subject").mean()).pvalue, rel=1e-3)
        folds = apart.groupby(["repeat", "fold"]).mean()
        spread = math.sqrt((1 / 2 + 12 / 9) * folds.var())  # of 12 outside the test set three validate
        expected = 2 * stats.t(1).sf(abs(folds.mean()) / spread)
        assert row["p_corrected_t"] == pytest.approx(expected, rel=1e-2)


def test_mean_and_sd_of_the_training_labels_are_in_the_weights_and_nobody_elses(done):
    for part in ("repeat_1/fold_1", "repeat_1/fold_2"):
        sets = json.loads((done / part / "datalist.json").read_text())
        labels = [item["label"] for item in sets["training"]]
        for name in ("models/model.pt", "variants/probe/models/model.pt"):
            weights = torch.load(done / part / name, weights_only=True)
            assert weights["head.zero"].item() == pytest.approx(np.mean(labels), rel=1e-6)
            assert weights["head.unit"].item() == pytest.approx(np.std(labels), rel=1e-6)
    checkpoint = str(done / "repeat_1" / "fold_1" / "models" / "model.pt")
    assert trained_with(checkpoint)[checkpoint]["target"] == "Number('mmse')"


def test_the_linear_probe_is_ridge_regression_on_the_pooled_code(done):
    """Its last layer minimises what the docstring says: no other weights are better."""
    folder = done / "repeat_1" / "fold_1" / "variants" / "probe"
    rows = pd.read_csv(folder / "predictions_validation.csv")
    assert np.ptp(rows["predicted"]) > 0
    results = json.loads((folder / "results_train.json").read_text())
    assert {"fitted_loss", "fitted_mae"} <= set(results)
    assert results["fitted_mae"] == pytest.approx((rows["predicted"] - rows["label"]).abs().mean(), rel=1e-4)


def test_pages_and_figures_are_about_a_number(done):
    page, card = (done / "results.md").read_text(), (done / "model_card.md").read_text()
    for text in (page, card):
        assert "mean absolute error" in text and "AUC" not in text and "HC" not in text and "AD)" not in text
    assert "p, 9,999 permutations" in page and "Wilcoxon" in page and "| pixel kernel ridge |" in page
    drawn = {path.name for path in (done / "figures").iterdir()}
    assert drawn == {"methods.png", "learning_curve.png", "target_scatter.png", "target_bland_altman.png"}
    tested = {path.name for path in (done / "repeat_1" / "fold_1" / "figures").glob("evaluate_*")}
    assert tested == {"evaluate_scatter.png", "evaluate_bland_altman.png"}
    assert "MMSE" in card and "Bland" in card


def test_a_finished_experiment_is_resumed_to_nothing(run_bundle, people, done, capsys):
    run_bundle(["experiment.yaml", "with_number.yaml"], people, done, resume=True, **SETTINGS)
    assert "nothing is left to do" in capsys.readouterr().out
