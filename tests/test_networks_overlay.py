"""Other networks as variants of the experiment: on a tiny cohort, through monai.bundle."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from mlflow import MlflowClient
from monai.bundle import ConfigParser
from tiny import CONFIGS

from monai_cae.networks import VGG16Encoder

VARIANTS = ["random_weights", "resnet50", "vgg16"]
VGG16_WEIGHTS = "variants#vgg16#classifier#network_def#encoder#network#weights"  # as on the command line


@pytest.fixture(scope="module")
def experiment(run_bundle, discs, tmp_path_factory):
    """One repeat, one epoch a stage; VGG16 starts from a file of weights."""
    output, weights = tmp_path_factory.mktemp("networks"), tmp_path_factory.mktemp("weights") / "vgg16.pth"
    torch.manual_seed(1)
    start = VGG16Encoder(in_channels=3).state_dict()
    torch.save(start, weights)
    files = ["experiment.yaml", "with_networks.yaml"]
    options = {"repeats": 1, "max_epochs": 1, "image_size": 32, VGG16_WEIGHTS: str(weights)}
    run_bundle(files, discs, output, **options)
    return SimpleNamespace(output=output / "repeat_1", start=start)


def read(path: Path) -> Any:
    return json.loads(path.read_text(encoding="utf-8"))


def weights_of(experiment: SimpleNamespace, variant: str) -> dict[str, torch.Tensor]:
    return torch.load(experiment.output / "variants" / variant / "models" / "model.pt", weights_only=True)


def test_every_network_predicts_the_same_subjects(experiment):
    def subjects(folder: Path) -> list[str]:
        with (folder / "predictions.csv").open(encoding="utf-8") as file:
            return sorted(row["subject"] for row in csv.DictReader(file))

    expected = subjects(experiment.output)
    assert len(expected) == 8
    assert sorted(path.name for path in (experiment.output / "variants").iterdir()) == VARIANTS
    for variant in VARIANTS:
        assert subjects(experiment.output / "variants" / variant) == expected


def test_nothing_but_the_papers_network_starts_from_the_autoencoder(experiment):
    assert "pretrained" in read(experiment.output / "results_train.json")["weights"]
    for variant in VARIANTS:
        assert read(experiment.output / "variants" / variant / "results_train.json")["weights"].keys() == {"checkpoint"}


def test_networks_are_what_their_names_say_with_one_layer_on_the_channels(experiment):
    resnet, vgg = weights_of(experiment, "resnet50"), weights_of(experiment, "vgg16")
    assert resnet["encoder.conv1.weight"].shape == (64, 1, 7, 7)  # from random weights: the grey image itself
    assert vgg["encoder.features.0.weight"].shape == (64, 3, 3, 3)  # from a file: copied to three channels
    for state, channels in ((resnet, 2048), (vgg, 512)):
        heads = {name: tuple(tensor.shape) for name, tensor in state.items() if name.startswith("head.")}
        assert heads == {"head.1.weight": (1, channels), "head.1.bias": (1,)}


def test_encoder_learns_from_the_weights_of_the_file_at_a_low_rate(experiment):
    trained = weights_of(experiment, "vgg16")
    for name, before in experiment.start.items():
        moved = (trained[f"encoder.{name}"] - before).abs().max()
        assert 0 < moved < 5e-4, name  # three steps of Adam at 1e-4


def test_other_networks_train_once_without_a_frozen_stage(experiment, tracking_uri):
    client = MlflowClient(tracking_uri)
    for variant, epochs in (("random_weights", 2), ("resnet50", 1), ("vgg16", 1)):  # one epoch a stage
        run_id = read(experiment.output / "variants" / variant / "results_train.json")["run_id"]
        assert len(client.get_metric_history(run_id, "val_loss")) == epochs, variant


def test_settings_of_the_command_line_reach_one_variant_only(experiment):
    for stage in ("train", "evaluate"):
        encoders = {
            name: read(experiment.output / "variants" / name / f"config_{stage}.json")["network_def"]["encoder"][
                "network"
            ]
            for name in VARIANTS
        }
        assert encoders["vgg16"]["weights"].endswith("vgg16.pth")
        assert encoders["resnet50"]["weights"] == ""
        assert encoders["random_weights"]["_target_"].endswith("ConvEncoder")


@pytest.mark.parametrize("networks_first", [False, True])
def test_variants_of_two_overlays_add_up(networks_first):
    overlays = [CONFIGS / "with_learning_curve.yaml", CONFIGS / "with_networks.yaml"]
    files = [CONFIGS / "experiment.yaml", *(reversed(overlays) if networks_first else overlays)]
    config = ConfigParser.load_config_files([str(path) for path in files])
    alone = ConfigParser.load_config_file(str(overlays[0]))["+variants"]
    assert alone and sorted(config["variants"]) == sorted([*alone, *VARIANTS])
    assert not [name for name in config if name.startswith("+")]
