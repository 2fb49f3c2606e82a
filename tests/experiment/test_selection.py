"""Nested selection: what each split chooses, from whom, and what choosing is said to be worth."""

from __future__ import annotations

import json
import math
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from sklearn.metrics import roc_auc_score
from tiny import mistake, random_network

from monai_cae.data import SliceExtraction, audit_training, hash_subject, read_datalist
from monai_cae.experiment.plan import Selection
from monai_cae.experiment.selecting import selection_of
from monai_cae.networks import save_weights
from monai_cae.sharing.runs import read_run
from monai_cae.targets import Diagnosis, Number

HEAD = {"network_def#pooling": 1, "network_def#hidden": []}
OWN = {"pretrain": {"learning_rate": 0.01}}
CANDIDATES = {
    "image": {},
    "aged": {"classifier": {"covariates": {"age": [70, 8]}}},
    "own": {**OWN, "train": {"penalty": {"code": 1, "histogram": 3, "covariates": 1}}},
    "own_too": {**OWN, "classifier": {"covariates": {"age": [70, 8]}}},
}
OPTIONS = {
    "repeats": 1,
    "seed": 3,
    "max_epochs": 1,
    "split#kind": "kfold",
    "split#folds": 2,
    "channels": [4, 8],
    "stages": {
        "pretrain": {"figures": {}},
        "classifier": HEAD,
        "train": {"learn": "linear_probe", "figures": {}},
        "evaluate": {"figures": {}},
    },
    "select": {"candidates": CANDIDATES, "inner_folds": 2, "metric": "auc"},
}
FOLDS = [Path("repeat_1", f"fold_{fold}") for fold in (1, 2)]


@pytest.fixture(scope="module")
def run(run_bundle, discs, tmp_path_factory) -> Path:
    """Two folds, each with two inner folds and four candidates."""
    output = tmp_path_factory.mktemp("selected")
    run_bundle("experiment.yaml", discs, output, **OPTIONS)
    return output


@pytest.fixture
def copy(run, tmp_path) -> Path:
    """The finished experiment, to be changed."""
    return Path(shutil.copytree(run, tmp_path / "copy"))


def sets_of(folder: Path) -> dict[str, set[str]]:
    content = json.loads((folder / "datalist.json").read_text())
    return {name: {item["subject"] for item in content[name]} for name in ("training", "validation", "test")}


def inner_auc(folder: Path, candidate: str) -> float:
    """The mean over the inner folds, from what was predicted there."""
    tables = [pd.read_csv(folder / f"inner_{n}" / "variants" / candidate / "predictions.csv") for n in (1, 2)]
    return float(np.mean([roc_auc_score(table["label"], table["probability"]) for table in tables]))


def test_inner_folds_divide_the_subjects_outside_the_test_set(run):
    for folder in FOLDS:
        outer, inner = sets_of(run / folder), [sets_of(run / folder / f"inner_{n}") for n in (1, 2)]
        assert inner[0]["test"].isdisjoint(inner[1]["test"])
        assert inner[0]["test"] | inner[1]["test"] == outer["training"] | outer["validation"]
        for one in inner:
            assert not set().union(*one.values()) & outer["test"]
            assert not one["test"] & (one["training"] | one["validation"])


def test_the_best_inner_mean_is_chosen_trained_on_all_and_recorded(run):
    table = pd.read_csv(run / "selection.csv")
    assert list(table["candidate"]) == [*CANDIDATES] * 2
    for number, folder in enumerate(FOLDS, start=1):
        means = {name: inner_auc(run / folder, name) for name in CANDIDATES}
        best = max(means, key=lambda name: round(means[name], 9))
        rows = table[table["fold"] == number].set_index("candidate")
        assert rows["inner"].to_dict() == pytest.approx(means, abs=1e-5)
        assert rows["chosen"].to_dict() == {name: int(name == best) for name in CANDIDATES}
        ours, theirs = (
            pd.read_csv(run / folder / place / "predictions.csv")["probability"] for place in ("", f"variants/{best}")
        )
        assert np.allclose(ours, theirs, atol=1e-6)
        config = json.loads((run / folder / "config_train.json").read_text())
        assert config["covariates"] == CANDIDATES[best].get("classifier", {}).get("covariates", {})
        assert not list((run / folder).glob("inner_*/**/*.pt"))


def test_what_choosing_is_worth(run):
    worth = json.loads((run / "summary.json").read_text())["selection"]
    record, table = pd.read_csv(run / "predictions.csv"), pd.read_csv(run / "selection.csv")
    auc = {name: roc_auc_score(rows["label"], rows["probability"]) for name, rows in record.groupby("method")}
    best = max(CANDIDATES, key=lambda name: round(auc[name], 9))
    assert (worth["afterwards"], worth["non_nested"]) == (best, pytest.approx(auc[best], abs=1e-6))
    assert worth["nested"] == pytest.approx(auc["network"], abs=1e-6)
    assert worth["gain"] == pytest.approx(auc[best] - auc["network"], abs=1e-6)
    outer = [
        roc_auc_score(rows["label"], rows["probability"])
        for _, rows in record[record["method"] == "network"].groupby("fold")
    ]
    inner = table[table["chosen"] == 1].sort_values("fold")["inner"]
    assert worth["optimism"] == pytest.approx(np.mean(inner) - np.mean(outer), abs=1e-5)
    for text in (run / "results.md", run / "model_card.md"):
        page = text.read_text()
        assert f"| {best.replace('_', ' ')} | {worth['candidates'][best]['chosen']} of 2 |" in page
        assert f"**Nested**: {auc['network']:.3f}" in page


def test_labels_of_the_test_set_take_no_part(run, run_bundle, discs, tmp_path):
    content = json.loads((run / FOLDS[0] / "datalist.json").read_text())
    for item in content["test"]:
        item["label"] = 1 - item["label"]
    flipped = tmp_path / "flipped.json"
    flipped.write_text(json.dumps(content))
    two = {name: CANDIDATES[name] for name in ("image", "aged")}
    options = {**OPTIONS, "select": {**OPTIONS["select"], "candidates": two}, "datalist": str(flipped)}
    run_bundle("experiment.yaml", discs, tmp_path / "out", **options)
    before, after = (
        json.loads((folder / "steps.json").read_text()) for folder in (run / FOLDS[0], tmp_path / "out" / "repeat_1")
    )
    names = [f"inner_{n}/{name}" for n in (1, 2) for name in two]
    assert [after[name]["results"] for name in names] == [before[name]["results"] for name in names]
    tested = [one["image"]["results"]["evaluate"]["test_auc"] for one in (before, after)]
    assert tested[1] == pytest.approx(1 - tested[0], abs=1e-6)


def test_an_equal_pretraining_is_done_once_and_found(run):
    steps = json.loads((run / FOLDS[0] / "steps.json").read_text())
    assert "own/pretrain" in steps and "own_too/pretrain" not in steps
    weights = {read_run(run / FOLDS[0] / "variants" / name).checkpoints[Path("models", "autoencoder.pt")]
               for name in ("own", "own_too")}  # fmt: skip
    assert weights == {(run / FOLDS[0] / "variants" / "own" / "models" / "autoencoder.pt")}
    assert read_run(run / FOLDS[0]).configs["pretrain"]["learning_rate"] in (0.01, 0.0001)


def test_reconstructions_are_told_once(run):
    results = {
        name: json.loads((run / FOLDS[0] / name / "results_evaluate.json").read_text())
        for name in (".", "variants/aged", "variants/own")
    }
    assert ["test_psnr" in one for one in results.values()] == [True, False, True]
    assert all("test_auc" in one for one in results.values())
    # as it was given: MONAI writes it otherwise, and another process compares it on resuming
    recorded = json.loads((run / FOLDS[0] / "steps.json").read_text())["aged"]["settings"]["evaluate"]
    assert recorded["run#0#steps"] == ["$@validation#evaluator.run", "$@evaluator.run"]


def test_resuming_does_what_is_left_and_chooses_the_same(run, copy, run_bundle, discs, capsys):
    path = copy / FOLDS[1] / "steps.json"
    steps = json.loads(path.read_text())
    for name in ("inner_2/aged", "network"):
        del steps[name]
    path.write_text(json.dumps(steps))
    (copy / FOLDS[1] / "models" / "model.pt").unlink()
    (copy / FOLDS[1] / "results_train.json").unlink()
    run_bundle("experiment.yaml", discs, copy, **OPTIONS, resume=True)
    assert capsys.readouterr().out.count("done before") == 2 * (2 + 2 * 4 + 1 + 4) - 2
    pd.testing.assert_frame_equal(pd.read_csv(copy / "selection.csv"), pd.read_csv(run / "selection.csv"))


def test_another_choice_is_refused_on_resuming(copy, run_bundle, discs):
    for changed, said in (
        ({"metric": "accuracy"}, "finished with metric 'auc', not 'accuracy'"),
        ({"candidates": {**CANDIDATES, "more": {}}}, "finished with candidates"),
        ({"inner_folds": 3}, "finished with split#folds 2, not 3"),
    ):
        options = {**OPTIONS, "select": {**OPTIONS["select"], **changed}}
        assert said in mistake(run_bundle, "experiment.yaml", discs, copy, **options, resume=True)


def test_of_equal_means_the_first_wins_and_no_score_is_the_worst():
    def scored(**scores: list[float | None]) -> dict:
        return {
            f"inner_{fold}/{name}": {"evaluate": {"test_mae": value}}
            for name, values in scores.items()
            for fold, value in enumerate(values, start=1)
        }

    lower = Selection({"a": {}, "b": {}, "c": {}}, 2, "mae", lower=True)
    assert lower.chosen(scored(a=[3, 1], b=[1, 3], c=[2, 2.1])) == "a"
    assert lower.chosen(scored(a=[None, 0], b=[5, 3], c=[2, 7])) == "b"
    assert lower.chosen(scored(a=[3, 1], b=[1, 3])) == ""
    higher = Selection({"a": {}, "b": {}, "c": {}}, 2, "mae")
    assert higher.chosen(scored(a=[3, 1], b=[1, math.nan], c=[2, 2.1])) == "c"


MISTAKES = {
    "setting": ({"inner_fold": 3}, "unknown setting --select#inner_fold: did you mean --select#inner_folds?"),
    "type": ("auc", "select must be settings such as candidates and inner_folds, not 'auc'"),
    "one": ({"candidates": {"a": {}}}, "select#candidates must be 2 to 12 recipes, not 1"),
    "many": ({"candidates": {f"c{n}": {} for n in range(13)}}, "select#candidates must be 2 to 12 recipes, not 13"),
    "list": ({"candidates": ["a", "b"]}, "select#candidates must be settings by name and stage"),
    "folds": ({"candidates": CANDIDATES, "inner_folds": 1}, "select#inner_folds must be a whole number, 2 or more"),
    "metric": ({"candidates": CANDIDATES, "metric": "mae"}, "select#metric must be one of auc, accuracy"),
}


@pytest.mark.parametrize("name", MISTAKES)
def test_mistakes(name):
    given, message = MISTAKES[name]
    with pytest.raises(ValueError, match="^" + message.replace("?", r"\?").replace("'", ".")):
        selection_of(given, Diagnosis())


def test_without_candidates_nothing_is_chosen_and_numbers_have_their_own_metrics():
    assert selection_of({"candidates": {}, "inner_folds": 3, "metric": ""}, Diagnosis()) is None
    chosen = selection_of({"candidates": CANDIDATES}, Number("MMSE"))
    assert chosen is not None and (chosen.metric, chosen.lower, chosen.inner_folds) == ("mae", True, 3)


LATE = {
    "stage": ({"candidates": {"a": {"tain": {}}, "b": {}}}, "unknown stage 'tain' under select#candidates a"),
    "name": ({"candidates": {"network": {}, "b": {}}}, "'network' names two methods"),
    "word": (
        {"candidates": {"a": {"train": {"learnn": "frozen"}}, "b": {}}},
        "candidate a, train: unknown setting --select#candidates#a#train#learnn",
    ),
    "labels": (
        {"candidates": {"a": {"pretrain": {"training_share": 1.0}}, "b": {}}},
        "select needs autoencoders that learn without labels",
    ),
    "few": (
        {"candidates": {"a": {}, "b": {}}, "inner_folds": 9},
        "select#inner_folds 9 in repeat_1/fold_1: too few subjects to split",
    ),
}


@pytest.mark.parametrize("name", LATE)
def test_mistakes_are_told_before_the_first_training(name, run_bundle, discs, tmp_path):
    given, message = LATE[name]
    options = {**OPTIONS, "select": {**OPTIONS["select"], **given}}
    assert message in mistake(run_bundle, "experiment.yaml", discs, tmp_path / "out", **options)
    assert not list((tmp_path / "out").rglob("*.json"))


def test_a_classifier_that_knows_labels_of_inner_folds_is_no_start(run, run_bundle, discs, tmp_path):
    datalist, weights = run / FOLDS[0] / "datalist.json", tmp_path / "theirs.pt"
    known = sorted(sets_of(datalist.parent)["training"])[:2]  # of nobody's test set: no leak but for the choice
    save_weights(random_network("classifier"), weights, trained_on=[hash_subject(name) for name in known])
    candidates = {"image": {}, "started": {"train": {"transfer": str(weights)}}}
    changed = {"datalist": str(datalist), "select": {**OPTIONS["select"], "candidates": candidates}}
    options = {name: value for name, value in OPTIONS.items() if not name.startswith("split#")} | changed
    said = mistake(run_bundle, "experiment.yaml", discs, tmp_path / "out", **options)
    assert "was trained on 2 of the subjects that the inner folds of repeat_1 score" in said


def test_an_autoencoder_that_knows_labels_of_inner_folds_is_no_start(run, run_bundle, discs, tmp_path):
    datalist, weights = run / FOLDS[0] / "datalist.json", tmp_path / "theirs.pt"
    known = [hash_subject(name) for name in sorted(sets_of(datalist.parent)["validation"])[:2]]
    everybody = random_network("autoencoder")
    candidates = {"image": {}, "theirs": {"train": {"pretrained": str(weights)}}}
    changed = {"datalist": str(datalist), "select": {**OPTIONS["select"], "candidates": candidates}}
    options = {name: value for name, value in OPTIONS.items() if not name.startswith("split#")} | changed
    for labels_of, said in ((known, "has learned the labels of 2 of the subjects"), ((), "different architecture")):
        save_weights(everybody, weights, trained_on=known, labels_of=labels_of)  # images alone are no leak
        assert said in mistake(run_bundle, "experiment.yaml", discs, tmp_path / "out", **options)
    sets, slices = read_datalist(datalist, discs), SliceExtraction("axial", 11)
    *_, told = audit_training(sets, slices, labels_of=known)["notes"]
    assert f"has learned the labels of 2 of {len(sets.validation)} validation subjects" in told
    assert audit_training(sets, slices)["notes"] == audit_training(sets, slices, labels_of=known)["notes"][:-1]
