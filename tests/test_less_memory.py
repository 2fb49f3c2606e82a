"""Instance norm, accumulated gradients and activation checkpointing as settings of the bundle."""

from __future__ import annotations

import json
import signal
from pathlib import Path
from typing import Any

import pytest
import torch
from runs import assert_predicts_as_tested, rows_of
from tiny import mistake

from monai_cae.cli import main
from monai_cae.sharing import export_network
from monai_cae.training.stages.checkpointing import Resuming
from monai_cae.training.stages.signals import Ended

# In double precision, so that rounding, which is other in other batches, doesn't hide anything; Adam would.
DOUBLE = {"train#preprocessing#transforms#5#dtype": "$torch.float64"}
SGD = {"_target_": "torch.optim.SGD", "params": "$@network.parameters()", "lr": "@learning_rate"}
AUTOENCODER = {"network": "$@network_def.to(@device).double()", "train#optimizer": SGD, "learning_rate": 0.05}
CLASSIFIER = {
    "network": "$monai_cae.training.with_pretrained(@network_def, @autoencoder_def, @pretrained).to(@device).double()",
    "train#optimizer": SGD,
    "frozen#optimizer": SGD,
    "network_def#dropout": 0.0,
    "learning_rate": 0.05,
}
VOLUME = {"image_size": [12, 16, 12], "channels": [2, 4], "batch_size": 4}
LESS = {"accumulate": 2, "activation_checkpointing": True, "norm": "instance"}


def weights(output: Path) -> dict[str, torch.Tensor]:
    found = {path.stem: torch.load(path, weights_only=True) for path in sorted((output / "models").glob("*.pt"))}
    return {f"{name} {key}": tensor for name, state in found.items() for key, tensor in state.items()}


def assert_same(one: Path, other: Path, **tolerance: float) -> None:
    ours, theirs = weights(one), weights(other)
    assert ours.keys() == theirs.keys() and ours
    for name, tensor in ours.items():
        torch.testing.assert_close(tensor, theirs[name], **(tolerance or {"rtol": 0.0, "atol": 0.0}))


@pytest.mark.parametrize("config", ["pretrain.json", "train.json"])
def test_batches_in_parts_end_with_the_weights_of_whole_ones(config, run_bundle, discs, tmp_path):
    """12 subjects: batches of 8 and 4; in parts of 2, the last group has two of four. Instance norm sees each image by
    itself. The last weights are kept, for which validation makes no difference."""
    options = {**DOUBLE, **(AUTOENCODER if config == "pretrain.json" else {**CLASSIFIER, "pretrained": "none"})}
    options |= {"channels": [2, 4], "norm": "instance", "max_epochs": 3}
    for name, batch, accumulate in (("whole", 8, 1), ("parts", 2, 4), ("other", 2, 1)):
        run_bundle(config, discs, tmp_path / name, batch_size=batch, accumulate=accumulate, **options)
    assert_same(tmp_path / "parts", tmp_path / "whole", rtol=1e-9, atol=1e-11)
    with pytest.raises(AssertionError):
        assert_same(tmp_path / "other", tmp_path / "whole", rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize("norm", ["batch", pytest.param("instance", marks=pytest.mark.slow)])
def test_activation_checkpointing_changes_no_bit_of_a_volumes_network(norm, run_bundle, discs, tmp_path):
    for checkpointing in (False, True):
        for stage in ("pretrain.json", "train.json"):
            options = {"activation_checkpointing": checkpointing, "norm": norm, **VOLUME}
            run_bundle([stage, "with_volume.yaml"], discs, tmp_path / str(checkpointing), **options)
    assert_same(tmp_path / "True", tmp_path / "False")


@pytest.fixture
def ended_after(monkeypatch):
    """Have SIGTERM come in the n-th epoch."""

    def end(epoch: int) -> None:
        after_epoch, seen = Resuming.after_epoch, []

        def terminated(self: Resuming, name: str, trainer: Any) -> None:
            seen.append(name)
            if len(seen) == epoch:
                signal.raise_signal(signal.SIGTERM)
            after_epoch(self, name, trainer)

        monkeypatch.setattr(Resuming, "after_epoch", terminated)

    return end


def test_resumed_run_ends_with_the_same_bits_and_other_settings_are_refused(
    run_bundle, discs, tmp_path, ended_after, monkeypatch
):
    config, options = ["pretrain.json", "with_volume.yaml"], {**VOLUME, **LESS, "norm": "batch", "max_epochs": 3}
    run_bundle(config, discs, tmp_path / "whole", **options)
    ended_after(2)
    with pytest.raises(Ended):
        run_bundle(config, discs, tmp_path / "ended", **options)
    monkeypatch.undo()
    for changed in ({"accumulate": 1}, {"activation_checkpointing": False}, {"norm": "instance"}):
        said = mistake(run_bundle, config, discs, tmp_path / "ended", **{**options, **changed, "resume": True})
        ((name, value),) = changed.items()
        assert f"was started with {name} {json.dumps(options[name])}, not {json.dumps(value)}" in said
    run_bundle(config, discs, tmp_path / "ended", resume=True, **options)
    assert_same(tmp_path / "ended", tmp_path / "whole")


@pytest.fixture(scope="module")
def packaged(run_bundle, discs, tmp_path_factory):
    """A run of volumes with all three settings, and the bundle that is unpacked from its package."""
    folder = tmp_path_factory.mktemp("less")
    run_bundle(["experiment.yaml", "with_volume.yaml"], discs, folder / "out", repeats=1, **VOLUME, **LESS)
    made = folder / "out" / "repeat_1"
    assert main(["package", str(folder / "cae.zip"), "--output-dir", str(made)]) == 0
    assert main(["bundle", str(folder / "cae"), "--from", str(folder / "cae.zip")]) == 0
    return made, folder / "cae"


def test_package_records_what_the_network_was_made_with_and_predicts_as_tested(packaged, discs, tmp_path):
    made, package = packaged
    configs = {name: json.loads((package / "configs" / f"{name}.json").read_text()) for name in ("train", "inference")}
    assert {name: configs["train"][name] for name in LESS} == LESS
    assert configs["inference"]["norm"] == "instance" and "accumulate" not in configs["inference"]
    assert not any("running" in name for name in weights(made))
    assert main(["predict", str(package), str(discs / "disc1"), str(tmp_path / "out"), "--device", "cpu"]) == 0
    assert_predicts_as_tested(made, rows_of(tmp_path / "out" / "predictions.csv"))
    for network in ("classifier", "autoencoder"):
        assert export_network(package, tmp_path / f"{network}.ts", network=network).passed


@pytest.mark.parametrize(
    ("setting", "value", "message"),
    [
        ("accumulate", 0, "accumulate must be a whole number above 0, not 0"),
        ("accumulate", 1.5, "accumulate must be a whole number above 0, not 1.5"),
        ("norm", "layer", "norm must be one of batch, instance, not 'layer'"),
        ("activation_checkpointing", "maybe", "activation_checkpointing must be true or false, not 'maybe'"),
        (
            "network_def#encoder",
            {"_target_": "monai_cae.networks.VGG16Encoder"},
            "no part of EncoderClassifier has an attribute recompute: leave --activation_checkpointing out",
        ),
    ],
)
def test_what_makes_no_sense_is_one_line(setting, value, message, run_bundle, discs, tmp_path):
    options = {"activation_checkpointing": True, "image_size": 32, setting: value, "network_def#pooling": 1}
    options |= {"pretrained": "none", "autoencoder_def": "$torch.nn.ModuleDict({'encoder': @network_def#encoder})"}
    assert message in mistake(run_bundle, "train.json", discs, tmp_path / "out", **options)
    assert not list(tmp_path.rglob("*.pt"))


def test_a_dense_layer_on_the_code_of_a_volume_is_refused_with_its_size(run_bundle, discs, tmp_path):
    options = {"image_size": [88, 104, 88], "channels": [32, 64, 128], "network_def#pooling": 0, "pretrained": "none"}
    options["allow_leaks"] = True  # so small volumes look alike in so large a frame
    said = mistake(run_bundle, ["train.json", "with_volume.yaml"], discs, tmp_path / "out", **options)
    # 22 x 26 x 22 places of 128 channels, 256 neurons
    assert "would have 412,352,512 weights" in said and said.endswith("set network_def#pooling to 1")
    assert not list(tmp_path.rglob("*.pt"))


@pytest.mark.parametrize(
    ("name", "consequence"),
    [
        ("norm", "for batches of a few volumes; read by"),
        ("accumulate", "batch norm sees 4; read by pretrain.json"),
        ("activation_checkpointing", "two thirds of the memory"),
    ],
)
def test_settings_tell_their_consequence(name, consequence, capsys):
    assert main(["settings", name]) == 0
    told = " ".join(capsys.readouterr().out.split())
    assert told.startswith(f"{name} default: ") and consequence in told and "experiment.yaml" in told
