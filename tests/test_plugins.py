"""A user's own parts go through pretrain -> train -> evaluate -> package -> inference by config alone."""

from __future__ import annotations

import csv
import json
import math
from pathlib import Path

import monai.bundle
import pytest
import torch
from plugins.two_outputs import ShrinkingAutoencoder, ShrinkingLoss
from tiny import mistake, random_network

from monai_cae.cli import main
from monai_cae.networks import reconstruction_of

PLUGINS = Path(__file__).parent / "plugins"


@pytest.fixture(scope="module")
def through(run_bundle, discs, tmp_path_factory):
    """through(overlay): the run's folder and what its package predicts of the first two subjects."""

    def run(overlay: str) -> tuple[Path, list[dict[str, str]]]:
        folder = tmp_path_factory.mktemp(overlay)
        run_bundle(["experiment.yaml", str(PLUGINS / overlay)], discs, folder / "out", repeats=1)
        made, package = folder / "out" / "repeat_1", folder / "cae.zip"
        assert main(["package", str(package), "--output-dir", str(made)]) == 0
        assert main(["bundle", str(folder / "cae"), "--from", str(package)]) == 1  # nobody's code runs unasked
        assert main(["bundle", str(folder / "cae"), "--from", str(package), "--trust"]) == 0
        given = {"dataset_dir": str(discs / "disc1"), "output_dir": str(folder / "predicted"), "device": "cpu"}
        monai.bundle.run(run_id="run", config_file=str(folder / "cae" / "configs" / "inference.json"), **given)
        return made, rows_of(folder / "predicted" / "predictions.csv")

    return run


def rows_of(path: Path) -> list[dict[str, str]]:
    with path.open(encoding="utf-8") as file:
        return list(csv.DictReader(file))


def test_an_autoencoder_with_two_outputs_and_its_own_loss(through):
    made, predicted = through("with_two_outputs.yaml")
    results = json.loads((made / "results_evaluate.json").read_text())
    assert 0 < results["test_psnr"] < 60 and results["test_mse"] > 0
    pretrained = json.loads((made / "config_pretrain.json").read_text())
    assert pretrained["network_def"]["_target_"] == "plugins.two_outputs.ShrinkingAutoencoder"
    assert pretrained["loss"] == {"_target_": "plugins.two_outputs.ShrinkingLoss", "weight": 0.01}
    assert {path.name for path in (made / "figures").glob("pretrain_*.png")} >= {"pretrain_reconstructions.png"}
    assert len(predicted) == 12 and all(0 <= float(row["probability"]) <= 1 for row in predicted)
    tested = {row["subject"]: row for row in rows_of(made / "predictions.csv")}
    both = [(row, tested[row["subject"]]) for row in predicted if row["subject"] in tested]
    assert both and all(abs(float(a["probability"]) - float(b["probability"])) < 1e-5 for a, b in both)


def test_its_loss_is_what_it_was_trained_with():
    network = random_network("autoencoder")
    own = ShrinkingAutoencoder(network.encoder, network.decoder)
    image = torch.rand(2, 1, 16, 16, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        output, code = own(image), network.encoder(image)
        expected = ((network(image) - image) ** 2).mean() + 0.5 * (code**2).mean()
        assert math.isclose(float(ShrinkingLoss(0.5)(output, image)), float(expected), rel_tol=1e-5)
        assert torch.equal(reconstruction_of(own, output), network(image))
        assert torch.equal(reconstruction_of(network, (image, code)), image)  # the first, where nothing else is said


def test_an_output_without_an_image_is_one_line():
    network = random_network("autoencoder")
    assert "ConvAutoencoder returns str: give it a method reconstruction_of" in mistake(reconstruction_of, network, "x")
