"""`monai_cae.load_encoder`, and the examples that use it."""

from __future__ import annotations

import json
import re
import runpy
import shutil
import sys
from pathlib import Path

import pytest
import torch
from tiny import CONFIGS, random_network, write_bundle

import monai_cae
from monai_cae.errors import MonaiCaeError
from monai_cae.networks import save_weights

EXAMPLES = CONFIGS.parents[1] / "examples"


@pytest.fixture
def bundle(tmp_path):
    return write_bundle(tmp_path / "bundle")


def code(network: torch.nn.Module, image: torch.Tensor) -> torch.Tensor:
    """The encoder block by block, as the paper has it: two convolutions each, pooling between them."""
    for index, block in enumerate(network.encoder.blocks):
        image = torch.nn.functional.max_pool2d(image, 2) if index else image
        for start in (0, 3):
            image = block[start + 2](torch.relu(block[start](image)))
    return image


def test_encoder_has_the_autoencoders_weights_in_evaluation_mode(bundle):
    encoder = monai_cae.load_encoder(bundle)
    image = torch.rand(2, 1, 24, 40)
    with torch.no_grad():
        found, expected = encoder(image), code(random_network("autoencoder"), image)
    assert found.shape == (2, 128, 6, 10) and (encoder.out_channels, encoder.downsampling) == (128, 4)
    torch.testing.assert_close(found, expected)
    assert not any(module.training for module in encoder.modules())
    assert all(weights.requires_grad for weights in encoder.parameters())


def test_encoder_of_the_classifier_where_there_is_no_autoencoder(bundle):
    save_weights(random_network("classifier", seed=4), bundle / "models" / "model.pt")
    (bundle / "models" / "autoencoder.pt").unlink()
    encoder = monai_cae.load_encoder(str(bundle))
    image = torch.rand(1, 1, 16, 16)
    with torch.no_grad():
        torch.testing.assert_close(encoder(image), code(random_network("classifier", seed=4), image))


def test_channels_are_those_of_the_bundles_config(tmp_path):
    encoder = monai_cae.load_encoder(write_bundle(tmp_path / "bundle", channels=[4, 6, 8, 10]))
    assert encoder(torch.rand(1, 1, 16, 16)).shape == (1, 10, 2, 2)


def read(bundle: Path, name: str) -> dict:
    return json.loads((bundle / "configs" / name).read_text())


def change(bundle: Path, name: str, **values: object) -> None:
    (bundle / "configs" / name).write_text(json.dumps(read(bundle, name) | values))


MISTAKES = {
    "no folder": (shutil.rmtree, "{bundle} is not a folder: give a bundle's folder, with configs/ and models/ in it"),
    "no config": (lambda b: (b / "configs/inference.json").unlink(), "no {bundle}/configs/inference.json: give"),
    "no weights": (
        lambda b: shutil.rmtree(b / "models"),
        "no models/autoencoder.pt or models/model.pt in {bundle}: train",
    ),
    "other weights": (
        lambda b: save_weights(random_network("autoencoder", (8, 8, 8)), b / "models/autoencoder.pt"),
        "autoencoder.pt holds the weights of a different architecture than ConvEncoder",
    ),
    "other channels": (
        lambda b: change(b, "inference.json", channels=[16, 32]),
        "of a different architecture than ConvEncoder",
    ),
    "text for weights": (lambda b: (b / "models/autoencoder.pt").write_text("no weights"), "not a PyTorch checkpoint"),
    "newer version": (
        lambda b: change(b, "metadata.json", version="1.9.0"),
        "metadata.json has version 1.9.0, newer than this monai-cae",
    ),
    "newer package": (
        lambda b: change(b, "metadata.json", required_packages_version={"monai-cae": "7.0"}),
        "has required_packages_version of monai-cae 7.0, newer than",
    ),
    "no version": (lambda b: change(b, "metadata.json", version="new"), "version must be like 0.1.0, not 'new'"),
    "no encoder": (
        lambda b: change(b, "inference.json", autoencoder_def={"_target_": "monai_cae.networks.ConvEncoder"}),
        "autoencoder_def has no encoder",
    ),
    "more than memory": (
        lambda b: change(b, "inference.json", channels=[10**6, 10**7]),
        "of a different architecture than ConvEncoder",
    ),
}


@pytest.mark.fault(
    "weights: an inference.json with 10^7 channels, parts missing or of another network",
    "`load_encoder` refuses them in one line, before they take memory",
)
@pytest.mark.parametrize("name", MISTAKES)
def test_mistakes_are_told_in_one_line(bundle, name, capsys):
    spoil, message = MISTAKES[name]
    spoil(bundle)
    with pytest.raises(MonaiCaeError, match=re.escape(message.format(bundle=bundle))) as error:
        monai_cae.load_encoder(bundle)
    assert "\n" not in str(error.value) and "executed" not in capsys.readouterr().out


@pytest.mark.parametrize(
    ("changed", "line"),
    [
        ({"channels": [1] * 1001}, f"channels: {str([1] * 1001)[:200]}..."),
        ({"channels": "$print('executed') or [32, 64, 128]"}, "channels: $print('executed') or [32, 64, 128]"),
        ({"autoencoder_def": {"_target_": "os.system"}}, "autoencoder_def#_target_: os.system"),
    ],
)
def test_configs_with_more_than_settings_are_shown_and_not_executed(bundle, changed, line, capsys):
    change(bundle, "inference.json", **changed)
    with pytest.raises(MonaiCaeError) as error:
        monai_cae.load_encoder(bundle)
    first, *places = str(error.value).split("\n")
    assert places == [f"  configs/inference.json: {line}"] and "trust=True" in first
    assert "executed" not in capsys.readouterr().out


def test_what_is_trusted_is_executed(bundle, capsys):
    change(bundle, "inference.json", channels="$print('executed') or [32, 64, 128]")
    assert monai_cae.load_encoder(bundle, trust=True).out_channels == 128
    assert "executed" in capsys.readouterr().out
    change(bundle, "inference.json", autoencoder_def={"_target_": "os.system"})
    with pytest.raises(MonaiCaeError, match="autoencoder_def can't be built"):
        monai_cae.load_encoder(bundle, trust=True)


def test_trusted_configs_load(bundle):
    change(bundle, "inference.json", output_dir="$print('executed')")
    assert monai_cae.load_encoder(bundle, trust=True).out_channels == 128


def test_later_fixes_of_the_same_version_are_read(bundle):
    major, minor = monai_cae.__version__.split(".")[:2]
    change(bundle, "metadata.json", version=f"{major}.{minor}.99")
    monai_cae.load_encoder(bundle)


@pytest.fixture
def run_example(monkeypatch):
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # so small are the images

    def run(name: str, bundle: Path) -> None:
        monkeypatch.setattr(sys, "argv", [name, str(bundle)])
        runpy.run_path(str(EXAMPLES / name), run_name="__main__")

    yield run
    torch.set_num_threads(threads)


def test_radius_is_learned_on_the_frozen_encoder(bundle, run_example, capsys):
    run_example("encoder_on_another_task.py", bundle)
    before, after = map(float, re.search(r"(\d\.\d+) before, (\d\.\d+) after", capsys.readouterr().out).groups())
    assert after < 0.15 < before


@pytest.mark.slow
def test_unet_on_the_encoder_learns_to_segment(bundle, run_example, capsys):
    run_example("unet_on_encoder.py", bundle)
    before, after = map(float, re.search(r"(\d\.\d+) before, (\d\.\d+) after", capsys.readouterr().out).groups())
    assert after > 0.6 > before


@pytest.mark.parametrize("name", ["encoder_on_another_task.py", "unet_on_encoder.py"])
def test_example_without_weights_says_what_to_do(run_example, name):
    with pytest.raises(SystemExit, match=r"^error: no models/autoencoder.pt or models/model.pt in .*: train a network"):
        run_example(name, CONFIGS.parent)
