"""Runs of the bundle on a device, and what they leave, for the tests of this folder."""

from __future__ import annotations

import csv
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from mlflow import MlflowClient

# 12 subjects train in batches of 5, 5 and 2: two sizes, so two graphs; 4 validate, 8 are tested. Dropout draws from
# the device's own generator, so a GPU and a CPU would leave out others.
SMALL = {"channels": [4, 8, 16], "batch_size": 5, "max_epochs": 3, "seed": 5}
SAME_NUMBERS = {**SMALL, "learning_rate": 3e-4}
NO_DROPOUT = {"network_def#dropout": 0.0}
# Adam takes full steps for gradients of any size above epsilon, rounding errors too: this one is above those
SMOOTH = {
    "pretrain": {"train#optimizer#eps": 1e-3},
    "train": {"train#optimizer#eps": 1e-3, "frozen#optimizer#eps": 1e-3},
}
STAGES = ("pretrain", "train", "evaluate")
_EVERYWHERE = {"channels", "batch_size", "seed", "device", "precision"}
_LEARNING = {"max_epochs", "learning_rate", "compile", "deterministic"}
SETTINGS_OF = {
    "pretrain": _EVERYWHERE | _LEARNING,
    "train": _EVERYWHERE | _LEARNING,
    "evaluate": _EVERYWHERE,
    "baselines": _EVERYWHERE,
    "inference": _EVERYWHERE - {"seed"},
}
History = dict[str, list[float]]


@dataclass(frozen=True)
class Runs:
    """What all stages have left.

    Attributes:
        output: the folder.
        history: stage -> metric -> its values, one an epoch or one in all.
        probabilities: stage -> what tells the rows of its predictions apart -> probability.
    """

    output: Path
    history: Mapping[str, History]
    probabilities: Mapping[str, Mapping[str, float]]


def run_stages(run_bundle: Callable[..., None], cohort: Path, output: Path, tracking_uri: str, **options: Any) -> Runs:
    """Pretrain, train, evaluate, fit the baselines and predict the whole cohort, all on one device.

    Args:
        run_bundle: the fixture.
        cohort: in OASIS-1's format.
        output: where everything goes; its name is that of the MLflow experiments.
        tracking_uri: MLflow's database.
        options: settings of all stages, the device among them.
    """
    history: dict[str, History] = {}
    for stage in STAGES:
        name = f"{output.name} {stage}"
        own = (NO_DROPOUT if stage != "pretrain" else {}) | SMOOTH.get(stage, {})
        given = {key: value for key, value in options.items() if key in SETTINGS_OF[stage]}
        run_bundle(f"{stage}.json", cohort, output, experiment_name=name, **given, **own)
        history[stage] = history_of(tracking_uri, name)
    given = {key: value for key, value in options.items() if key in SETTINGS_OF["baselines"]}
    run_bundle("baselines.json", cohort, output, only=["majority", "code_logistic"], **given)
    predicted = predict(run_bundle, cohort, output / "predicted", output / "models" / "model.pt", **options)
    tables = {
        "evaluate": probabilities(output / "predictions.csv"),
        "baselines": probabilities(output / "baselines" / "code_logistic.csv"),
        "inference": predicted,
    }
    return Runs(output, history, tables)


def predict(
    run_bundle: Callable[..., None], cohort: Path, output: Path, checkpoint: Path, **options: Any
) -> dict[str, float]:
    """Scan -> probability, by inference.json; options that it doesn't have are left out."""
    given = {key: value for key, value in options.items() if key in SETTINGS_OF["inference"]} | {"overwrite": True}
    run_bundle("inference.json", cohort, output, run_id="run", checkpoint=str(checkpoint), **NO_DROPOUT, **given)
    return probabilities(output / "predictions.csv")


def probabilities(table: Path) -> dict[str, float]:
    """Scan or subject -> probability."""
    with table.open(encoding="utf-8") as file:
        return {row.get("file") or row["subject"]: float(row["probability"]) for row in csv.DictReader(file)}


def history_of(tracking_uri: str, experiment: str) -> History:
    """Metric -> its values in the one run of an MLflow experiment, without the seconds."""
    client = MlflowClient(tracking_uri)
    (run,) = client.search_runs([client.get_experiment_by_name(experiment).experiment_id])
    names = [name for name in run.data.metrics if name.startswith(("train_", "val_", "test_"))]
    return {name: [point.value for point in client.get_metric_history(run.info.run_id, name)] for name in names}


def weights(output: Path) -> dict[str, dict[str, torch.Tensor]]:
    """Checkpoint -> its state dict."""
    return {path.stem: torch.load(path, weights_only=True) for path in sorted((output / "models").glob("*.pt"))}


def largest_difference(one: Path, other: Path) -> float:
    """Of all weights of all checkpoints in two output folders; 0 if they are the same bit for bit."""
    ours, theirs = weights(one), weights(other)
    assert ours.keys() == theirs.keys() and ours
    largest = 0.0
    for name, state in ours.items():
        assert state.keys() == theirs[name].keys()
        for key, tensor in state.items():
            there = theirs[name][key]
            assert tensor.shape == there.shape and tensor.dtype == there.dtype
            if not torch.equal(tensor, there):  # also where both are not numbers
                largest = max(largest, float((tensor.double() - there.double()).abs().max()) or 1e-300)
    return largest
