"""A search for settings: trials in inner folds, the best tested once, an interruption that changes nothing."""

from __future__ import annotations

import errno
import json
import re
import shutil
from datetime import date
from pathlib import Path

import mlflow
import numpy as np
import pandas as pd
import pytest
import yaml
from tiny import CONFIGS, mistake

from monai_cae.experiment import searching
from monai_cae.experiment.selecting import selection_of
from monai_cae.targets import Diagnosis

BASE = {"repeats": 1, "seed": 3, "max_epochs": 1, "channels": [4, 8]}
OPTIONS = {**BASE, "select#trials": 4, "select#inner_folds": 2, "select#metric": "auc"}
OVERLAY = ["experiment.yaml", "with_search.yaml"]
SPACE = yaml.safe_load((CONFIGS / "with_search.yaml").read_text(encoding="utf-8"))["select"]["space"]
TIMES = ["seconds"]


@pytest.fixture(scope="module")
def run(run_bundle, discs, tmp_path_factory) -> Path:
    """One split, four trials in two inner folds."""
    output = tmp_path_factory.mktemp("searched")
    run_bundle(OVERLAY, discs, output, **OPTIONS)
    return output


def test_the_best_trial_by_inner_folds_is_the_network(run):
    table = pd.read_csv(run / "search.csv")
    assert list(table["trial"]) == [1, 2, 3, 4] and set(table["state"]) == {"finished"}
    assert np.allclose(table["mean"], table[["inner_1", "inner_2"]].mean(axis=1), atol=1e-5)
    best = table.loc[table["mean"].idxmax()]  # of equal ones the first
    assert list(table["chosen"]) == [int(number == best["trial"]) for number in table["trial"]]
    config = json.loads((run / "repeat_1" / "config_train.json").read_text())
    assert config["penalty"]["code"] == pytest.approx(best["train#penalty#code"], rel=1e-4)
    assert config["covariates"] == SPACE["classifier"]["covariates"]["choices"][best["classifier#covariates"]]
    worth = json.loads((run / "summary.json").read_text())["selection"]
    tested = json.loads((run / "repeat_1" / "results_evaluate.json").read_text())["test_auc"]
    assert worth["optimism"] == pytest.approx(best["mean"] - tested, abs=1e-5)
    assert sum(worth["importance"].values()) == pytest.approx(1)
    page = (run / "report.html").read_text()
    (row,) = re.findall(rf"trial {best['trial']}: [^<]*", page)
    assert f"covariates {best['classifier#covariates']}, " in row.replace("&#39;", "'")
    assert not list((run / "repeat_1").glob("inner_*/variants/*"))


def test_inner_folds_have_nobody_of_the_test_set(run):
    outer = json.loads((run / "repeat_1" / "datalist.json").read_text())
    tested = {item["subject"] for item in outer["test"]}
    for inner in (1, 2):
        content = json.loads((run / "repeat_1" / f"inner_{inner}" / "datalist.json").read_text())
        assert not tested & {item["subject"] for name in ("training", "validation", "test") for item in content[name]}


def test_every_trial_is_a_run_under_the_experiment(run, tracking_uri):
    parent = json.loads((run / "experiment.json").read_text())["run_id"]
    client = mlflow.MlflowClient(tracking_uri)
    (experiment,) = {client.get_run(parent).info.experiment_id}
    nested = client.search_runs([experiment], f"tags.`mlflow.parentRunId` = '{parent}' and tags.stage = 'trial'")
    table = pd.read_csv(run / "search.csv").set_index("trial")
    assert len(nested) == 4
    for one in nested:
        row = table.loc[int(one.info.run_name.rpartition(" ")[2])]
        assert one.data.metrics["mean_auc"] == pytest.approx(row["mean"], abs=1e-5)
        assert float(one.data.params["train.penalty.code"]) == pytest.approx(row["train#penalty#code"], rel=1e-4)


@pytest.mark.slow
def test_an_interrupted_search_ends_like_another(run, run_bundle, discs, tmp_path, monkeypatch):
    """The disk is full in the second inner fold of the third trial, and in the middle of a line of the journal."""
    score, calls = searching.score_inner, []

    def interrupted(*args):
        calls.append(args)
        if len(calls) == 6:
            raise OSError(errno.ENOSPC, "No space left on device")
        return score(*args)

    monkeypatch.setattr(searching, "score_inner", interrupted)
    told = mistake(lambda: run_bundle(OVERLAY, discs, tmp_path / "again", **OPTIONS))
    assert "trials.journal (No space left on device): free some space, and give --resume true" in told
    with (tmp_path / "again" / "repeat_1" / "search" / "trials.journal").open("ab") as file:
        file.write(b'{"op_code": 4, "worker')
    monkeypatch.setattr(searching, "score_inner", score)
    run_bundle(OVERLAY, discs, tmp_path / "again", **OPTIONS, resume=True)
    ours, theirs = (pd.read_csv(folder / "search.csv").drop(columns=TIMES) for folder in (tmp_path / "again", run))
    pd.testing.assert_frame_equal(ours, theirs)
    assert (tmp_path / "again" / "predictions.csv").read_bytes() == (run / "predictions.csv").read_bytes()


def test_other_trials_are_not_the_same_search(run, run_bundle, discs, tmp_path):
    output = Path(shutil.copytree(run, tmp_path / "copy"))
    changed = {**OPTIONS, "select#trials": 5}
    assert "search finished with trials 4, not 5" in mistake(
        lambda: run_bundle(OVERLAY, discs, output, **changed, resume=True)
    )


@pytest.mark.slow
def test_a_training_that_is_pruned_ends_and_others_go_on(run_bundle, discs, tmp_path, monkeypatch):
    """The second trial is pruned after its first epoch, by the score that its validation subjects have."""
    from optuna.pruners import BasePruner

    seen = []

    class Second(BasePruner):
        def prune(self, study, trial):
            seen.append((trial.number, trial.last_step))
            return trial.number == 1

    monkeypatch.setattr("optuna.pruners.MedianPruner", Second)
    space = {"train": {"learning_rate": {"low": 1e-4, "high": 1e-2, "log": True}}}
    stages = {"pretrain": {}, "classifier": {"network_def#hidden": []}, "train": {"learn": "frozen"}, "evaluate": {}}
    select = {"space": space, "trials": 2, "inner_folds": 2, "metric": "auc"}
    run_bundle("experiment.yaml", discs, tmp_path, **{**BASE, "stages": stages, "select": select, "max_epochs": 2})
    table = pd.read_csv(tmp_path / "search.csv")
    assert list(table["state"]) == ["finished", "pruned"] and table["mean"].isna().tolist() == [False, True]
    assert seen == [(0, 1), (0, 2), (0, 3), (1, 1)]  # two epochs and the first inner fold; one epoch


@pytest.mark.parametrize(
    ("space", "message"),
    [
        ("nowhere.yaml", "can't read the space of the search, nowhere.yaml (No such file or directory)"),
        ({"pretrain": {"channels": {}}}, "every trial would need an autoencoder of its own"),
        ({"train": {}}, "select#space has no setting"),
        ({"train": {"_learn": {"choices": ["frozen", "finetune"]}}}, "train#_learn in select#space is no setting"),
        ({"train": {"learning_rate": 1}}, "train#learning_rate in select#space must be {low: ..., high: ...}"),
        ({"train": {"learning_rate": {"lo": 1}}}, "has 'lo': did you mean low?"),
        ({"train": {"learning_rate": {"low": 1, "high": 1}}}, "needs numbers low and high, low the smaller"),
        ({"train": {"learning_rate": {"low": 0.0, "high": 1.0, "log": True}}}, "low must be above 0"),
        ({"train": {"batch_size": {"choices": [1]}}}, "needs at least two choices"),
        ({"train": {"penalty": {"choices": [{"code": 1}, {"code": 2}]}}}, "give lists and groups a name each"),
        ({"train": {"seed": {"low": 1, "high": 9}}}, "train#seed in select#space is the same for all trials"),
        ({"train": {"batch_size": {"low": 1, "high": 10**400}}}, "needs numbers low and high"),
        ({"train": {"learning_rate": {"low": -1e308, "high": 1e308}}}, "is too far to draw from"),
        ({"train": {"learning_rate": {"low": "1e-5", "high": 1.0}}}, "YAML reads 1e-5 as text, write 1.0e-5"),
        ({"train": {"batch_size": {"choices": {1: 2, "1": 3}}}}, "has a choice twice"),
        (
            {"train": {"batch_size": {"choices": [date(2020, 1, 1), 2]}}},
            "choices must be texts, numbers, lists or groups",
        ),
        (
            {"train": {"rate": {"choices": [1, 2]}}, "classifier": {"rate": {"choices": [1, 2]}}},
            "draws train#rate and classifier#rate, which set the same: leave one out",
        ),
        (
            {"train": {"penalty#code": {"low": 1, "high": 2}, "penalty": {"choices": {"a": {}, "b": {"code": 1}}}}},
            "draws train#penalty#code and train#penalty, which set the same",
        ),
    ],
)
def test_a_space_that_cant_be(space, message):
    assert message in mistake(lambda: selection_of({"space": space, "trials": 3}, Diagnosis()))


@pytest.mark.parametrize(
    ("select", "message"),
    [
        ({"space": SPACE}, "select#trials must be a whole number, 1 or more, not 0"),
        ({"trials": 5}, "select#trials draws from select#space"),
        (
            {"space": SPACE, "trials": 2, "pruner": "mean"},
            "select#pruner must be one of median, hyperband, none",
        ),
        ({"space": SPACE, "trials": 2, "candidates": {"a": {}, "b": {}}}, "select has candidates and a space"),
    ],
)
def test_a_search_that_cant_be(select, message):
    assert message in mistake(lambda: selection_of(select, Diagnosis()))


def test_an_unknown_setting_is_refused_before_training(run_bundle, discs, tmp_path):
    select = {"trials": 2, "space": {"train": {"learning_rat": {"low": 0.1, "high": 1.0}}}}
    told = mistake(lambda: run_bundle("experiment.yaml", discs, tmp_path / "out", **BASE, select=select))
    assert "learning_rat" in told and "learning_rate" in told
    assert not (tmp_path / "out").exists()
