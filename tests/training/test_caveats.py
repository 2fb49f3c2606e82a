"""A classifier that says one thing is told in the summary, in the results and in MLflow."""

from __future__ import annotations

import csv
import json
from itertools import pairwise

import numpy as np
import pytest
import torch
from mlflow import MlflowClient
from tiny import random_network

from monai_cae.evaluation.caveats import dead_classifier, out_of_reach, worse_than_mean_image
from monai_cae.networks import save_weights


@pytest.mark.parametrize(
    ("labels", "probabilities", "threshold", "said"),
    [
        ([0, 1, 1], [0.1, 0.9, 0.8], 0.5, []),
        ([0, 1, 1], [0.6, 0.9, 0.8], 0.5, ["DEAD CLASSIFIER: all subjects are classified as AD."]),
        ([0, 1, 1], [0.6, 0.9, 0.8], 0.95, ["DEAD CLASSIFIER: all subjects are classified as HC."]),
        ([1, 1], [0.6, 0.9], 0.5, []),  # rightly so
        ([1, 1], [0.6, 0.6], 0.5, ["NOTHING LEARNED: all subjects have the same probability of AD."]),
        ([1], [0.6], 0.5, []),
    ],
)
def test_what_is_dead(labels, probabilities, threshold, said):
    assert dead_classifier(labels, probabilities, threshold) == said


@pytest.mark.parametrize(
    ("slope", "said"),
    [
        (0.1, ""), (1.0, ""), (10.0, ""), (47.564, "the slope is 47.6, outside 0.1 to 10"),
        (0.0999, "the slope is 0.0999, outside"), (-1.0, "the slope is -1, outside"), (np.nan, "no finite slope fits"),
    ],
)  # fmt: skip
def test_calibration_that_is_out_of_reach(slope, said):
    (sentence,) = out_of_reach(slope) or [""]
    assert said in sentence and bool(said) == sentence.startswith("NOT CALIBRATED: ")


@pytest.mark.parametrize(("psnr", "worse"), [(15.47, False), (15.46, False), (15.45, True), (np.inf, False)])
def test_reconstructions_worse_than_the_mean_image(psnr, worse):
    assert bool(worse_than_mean_image(psnr, 15.46)) == worse


def test_an_autoencoder_that_has_learned_nothing_is_told_after_pretraining(
    run_bundle, discs, tmp_path, tracking_uri, capsys
):
    run_bundle("pretrain.json", discs, tmp_path, max_epochs=1, learning_rate=1e-9)
    results = json.loads((tmp_path / "results_pretrain.json").read_text())
    (said,) = results["caveats"]
    assert said.startswith(
        f"WORSE THAN THE MEAN IMAGE: reconstructions have {results['val_psnr']:.2f} dB, and the mean"
    )
    assert f"  ! {said}\n" in capsys.readouterr().out
    run = MlflowClient(tracking_uri).get_run(results["run_id"])
    assert run.data.tags["caveats"] == said and said in run.data.tags["mlflow.note.content"]


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
    first, second, third, last = results["caveats"]
    assert first.startswith("DEAD CLASSIFIER: all subjects are classified as ")
    assert second.startswith("NOTHING LEARNED: ") and third.startswith("NOT CALIBRATED: no finite slope fits")
    assert f"  ! {first}\n  ! {second}\n" in printed
    assert tags["caveats"] == f"{first} {second} {third} {last}"
    assert first in tags["mlflow.note.content"] and "not a medical device" in tags["mlflow.note.content"]


def test_one_that_says_both_is_not(evaluate, tmp_path):
    probabilities = sorted(each["probability"] for each in _rows(evaluate, tmp_path))
    printed, results, tags = evaluate(
        alive=True, threshold=float(probabilities[len(probabilities) // 2]), overwrite=True
    )
    assert "DEAD CLASSIFIER" not in printed + tags["caveats"] and "NOTHING LEARNED" not in printed + tags["caveats"]
    with (tmp_path / "reconstruction.csv").open(encoding="utf-8") as file:
        decibels = {row["reconstruction"]: float(row["psnr"]) for row in csv.DictReader(file)}
    assert decibels["autoencoder"] < decibels["mean image"]  # its weights are random
    said = results["caveats"][-1]
    assert said.startswith("WORSE THAN THE MEAN IMAGE: ")
    told = [float(word) for word, unit in pairwise(said.split()) if unit.startswith("dB")]
    assert told == pytest.approx([decibels["autoencoder"], decibels["mean image"]], abs=0.011)


def _rows(evaluate, tmp_path) -> list[dict[str, str]]:
    evaluate(alive=True)
    with (tmp_path / "predictions.csv").open(encoding="utf-8") as file:
        return list(csv.DictReader(file))
