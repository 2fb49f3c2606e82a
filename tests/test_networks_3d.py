"""with_networks_3d.yaml: MONAI's ResNet and DenseNet on volumes and slices, from training to packages."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from monai.bundle import ConfigParser
from runs import assert_predicts_as_tested, rows_of
from tiny import CONFIGS

from monai_cae.cli import main
from monai_cae.sharing import export_network

DEPTH = "variants#resnet#classifier#network_def#encoder#network#depth"  # as on the command line
VOLUME = {"image_size": [32, 32, 32], "extraction#spacing_mm": 1.0, "channels": [2, 4], "batch_size": 6}
FIRST = {"resnet": "conv1.weight", "densenet": "features.conv0.weight"}
CHANNELS = {"resnet": 512, "densenet": 1024}


@pytest.fixture(scope="module")
def experiment(run_bundle, discs, tmp_path_factory) -> Path:
    """One repeat on volumes, one epoch a stage; blocks are computed twice."""
    files = ["experiment.yaml", "with_volume.yaml", "with_networks_3d.yaml"]
    options = {**VOLUME, "repeats": 1, "max_epochs": 1, "activation_checkpointing": True, DEPTH: 10}
    output = tmp_path_factory.mktemp("networks") / "out"
    run_bundle(files, discs, output, **options)
    return output / "repeat_1"


def weights(folder: Path) -> dict[str, torch.Tensor]:
    return torch.load(folder / "models" / "model.pt", weights_only=True)


@pytest.mark.parametrize("name", ["resnet", pytest.param("densenet", marks=pytest.mark.slow)])
def test_networks_of_volumes_predict_as_tested_from_a_package_and_export(name, experiment, discs, tmp_path):
    made = experiment / "variants" / name
    state = weights(made)
    assert state[f"encoder.{FIRST[name]}"].shape == (64, 1, 7, 7, 7)
    assert {key: tuple(one.shape) for key, one in state.items() if key.startswith("head")} == {
        "head.1.weight": (1, CHANNELS[name]), "head.1.bias": (1,)
    }  # fmt: skip
    assert {row["method"] for row in rows_of(experiment.parent / "predictions.csv")} == {"network", *FIRST}
    assert main(["package", str(tmp_path / "cae.zip"), "--output-dir", str(made)]) == 0
    assert main(["bundle", str(tmp_path / "cae"), "--from", str(tmp_path / "cae.zip")]) == 0  # without --trust
    packaged = tmp_path / "cae"
    encoder = json.loads((packaged / "configs" / "inference.json").read_text())["network_def"]["encoder"]["network"]
    assert encoder["depth"] == {"resnet": 10, "densenet": 121}[name]
    assert main(["predict", str(packaged), str(discs / "disc1"), str(tmp_path / "out"), "--device", "cpu"]) == 0
    assert_predicts_as_tested(made, rows_of(tmp_path / "out" / "predictions.csv"))
    assert main(["predict", str(made), str(discs / "disc1"), str(tmp_path / "own"), "--device", "cpu"]) == 0
    assert_predicts_as_tested(made, rows_of(tmp_path / "own" / "predictions.csv"))
    assert export_network(packaged, tmp_path / "network.ts", network="classifier").passed


@pytest.mark.parametrize("name", FIRST)
def test_the_same_entries_are_networks_of_slices(name, run_bundle, discs, tmp_path):
    variant: dict[str, Any] = ConfigParser.load_config_file(str(CONFIGS / "with_networks_3d.yaml"))["+variants"][name]
    options = {**variant["classifier"], **variant["train"], "image_size": 32, "max_epochs": 1, "norm": "batch"}
    run_bundle("train.json", discs, tmp_path / "out", **options)
    assert weights(tmp_path / "out")[f"encoder.{FIRST[name]}"].shape == (64, 1, 7, 7)
