"""A classifier that says one thing is told in the summary, in the results and in MLflow."""

from __future__ import annotations

import csv
import json

import pytest
import torch
from mlflow import MlflowClient
from tiny import random_network

from monai_cae.evaluation.caveats import dead_classifier
from monai_cae.networks import save_weights


@pytest.mark.parametrize(
    ("labels", "probabilities", "threshold", "said"),
    [
        ([0, 1, 1], [0.1, 0.9, 0.8], 0.5, []),
        ([0, 1, 1], [0.6, 0.9, 0.8], 0.5, ["DEAD CLASSIFIER: everybody is taken for AD."]),
        ([0, 1, 1], [0.6, 0.9, 0.8], 0.95, ["DEAD CLASSIFIER: everybody is taken for HC."]),
        ([1, 1], [0.6, 0.9], 0.5, []),  # rightly so
        ([1, 1], [0.6, 0.6], 0.5, ["The probability is the same for everybody (0.600): it has learned nothing."]),
        ([1], [0.6], 0.5, []),
    ],
)
def test_what_is_dead(labels, probabilities, threshold, said):
    assert dead_classifier(labels, probabilities, threshold) == said


@pytest.fixture
def evaluate(run_bundle, discs, tmp_path, tracking_uri, capsys):
    """evaluate.json with the weights as they are, or with a last layer that lets nothing through."""

    def run(alive: bool, **options):
        classifier = random_network("classifier", seed=3)
        if not alive:
            torch.nn.init.zeros_(classifier.head[-1].weight)
        for network, name in ((classifier, "model.pt"), (random_network("autoencoder"), "autoencoder.pt")):
            save_weights(network, tmp_path / "models" / name)
        run_bundle("evaluate.json", discs, tmp_path, **options)
        results = json.loads((tmp_path / "results_evaluate.json").read_text())
        return capsys.readouterr().out, results, MlflowClient(tracking_uri).get_run(results["run_id"]).data.tags

    return run


def test_a_dead_classifier_is_told_where_its_scores_are(evaluate):
    printed, results, tags = evaluate(alive=False)
    first, second = results["caveats"]
    assert first.startswith("DEAD CLASSIFIER: everybody is taken for ")
    assert second.startswith("The probability is the same for everybody (")
    assert f"  ! {first}\n  ! {second}\n" in printed
    assert tags["caveats"] == f"{first} {second}"
    assert first in tags["mlflow.note.content"] and "not a medical device" in tags["mlflow.note.content"]


def test_one_that_says_both_is_not(evaluate, tmp_path):
    probabilities = sorted(each["probability"] for each in _rows(evaluate, tmp_path))
    printed, results, tags = evaluate(
        alive=True, threshold=float(probabilities[len(probabilities) // 2]), overwrite=True
    )
    assert results["caveats"] == [] and "  ! " not in printed and "caveats" not in tags


def _rows(evaluate, tmp_path) -> list[dict[str, str]]:
    evaluate(alive=True)
    with (tmp_path / "predictions.csv").open(encoding="utf-8") as file:
        return list(csv.DictReader(file))
