"""Every recipe of docs/how-to/reuse.md, as it stands there, on a tiny cohort."""

from __future__ import annotations

import json
import re
import runpy
import shlex
import shutil
import sys
from pathlib import Path

import fire
import label
import monai.bundle
import pytest
import torch
from runs import rows_of
from tiny import CONFIGS, TINY, write_discs

from monai_cae import cli

ROOT = CONFIGS.parents[1]
PAGE = (ROOT / "docs" / "how-to" / "reuse.md").read_text()
RECIPES = dict(re.findall(r"^## (\d)\. .*?$(.*?)(?=^## |\Z)", PAGE, re.M | re.S))
# MonaiAlgo says so whenever it executes a bundle
pytestmark = pytest.mark.filterwarnings("ignore:executing the bundle config:UserWarning")
TINY_OPTIONS = {**TINY, "max_epochs": 1, "threads": 1}


def blocks(recipe: str, language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", RECIPES[recipe], re.S)


@pytest.fixture
def run(discs, tracking_uri, tmp_path, monkeypatch):
    """Run the commands of a recipe in this process, with the names of the page put in place and tiny settings added."""

    def replaced(text: str, places: dict[str, Path]) -> str:
        names = {"DATA": discs, "OUT": tmp_path / "out", "BUNDLE": CONFIGS.parent, "EXAMPLES": ROOT / "examples"}
        for name, path in {**names, **places}.items():
            text = re.sub(rf"\b{name}\b", str(path), text)
        return text

    def command(line: str, places: dict[str, Path]) -> None:
        words = [replaced(word, places) for word in shlex.split(line)]
        if words[:3] == ["python", "-m", "monai.bundle"]:
            tiny = {"tracking_uri": tracking_uri, **TINY_OPTIONS}
            given = {word[2:] for word in words if word.startswith("--")}
            added = [part for name, value in tiny.items() if name not in given for part in (f"--{name}", str(value))]
            fire.Fire({"run": monai.bundle.run}, command=[*words[3:], *added])
        elif words[0] == "monai-cae":
            extra = ["--slice-index", str(TINY["slice_index"])] if words[1] == "datalist" else []
            assert not cli.main([*words[1:], *extra])
        else:
            settings = ["--settings", json.dumps(TINY_OPTIONS), "--rounds", "1"]
            monkeypatch.setattr(sys, "argv", [*words[1:], *settings])
            runpy.run_path(words[1], run_name="__main__")

    def recipe(number: str, **places: Path) -> dict[str, object]:
        assert blocks(number, "bash") or blocks(number, "python")
        for block in blocks(number, "bash"):
            for line in block.strip().splitlines():
                command(line, places)
        found: dict[str, object] = {}
        for block in blocks(number, "python"):
            exec(replaced(block, places), found)
        return found

    return recipe


@pytest.fixture(scope="module")
def trained(discs, tracking_uri, tmp_path_factory) -> Path:
    """A bundle of its own with weights, its images tiny."""
    bundle = tmp_path_factory.mktemp("trained")
    shutil.copytree(CONFIGS, bundle / "configs")
    config = json.loads((CONFIGS / "inference.json").read_text())
    (bundle / "configs" / "inference.json").write_text(json.dumps({**config, "image_size": TINY["image_size"]}))
    metadata = json.loads((CONFIGS / "metadata.json").read_text())
    for network in ("network_data_format", "autoencoder_data_format"):
        metadata[network]["inputs"]["image"]["spatial_shape"][:2] = [TINY["image_size"]] * 2
    (bundle / "configs" / "metadata.json").write_text(json.dumps(metadata))
    for name in ("pretrain", "train"):
        options = {**TINY_OPTIONS, "dataset_dir": str(discs), "output_dir": str(bundle), "tracking_uri": tracking_uri}
        monai.bundle.run(run_id="training", config_file=str(CONFIGS / f"{name}.json"), **options)
    return bundle


def weights(path: Path) -> dict[str, torch.Tensor]:
    return torch.load(path, weights_only=True)


def test_there_are_nine_recipes_and_each_has_a_test():
    tested = {name[len("test_recipe_")] for name in globals() if name.startswith("test_recipe_")}
    assert set(RECIPES) == tested == set("123456789")


def test_recipe_1_runs_both_stages(run, tmp_path):
    run("1")
    assert {path.name for path in (tmp_path / "out" / "models").iterdir()} == {"autoencoder.pt", "model.pt"}


def test_recipe_2_overrides_settings_at_any_depth(run, tmp_path):
    run("2")
    config = json.loads((tmp_path / "out" / "config_pretrain.json").read_text())
    assert (config["learning_rate"], config["cohort"]["controls"]) == (0.001, "all")
    assert config["train"]["optimizer"]["amsgrad"] is True


def test_recipe_3_starts_from_the_weights(run, trained, tmp_path):
    before = weights(trained / "models" / "autoencoder.pt")
    run("3", WEIGHTS=trained / "models" / "autoencoder.pt")
    after = weights(tmp_path / "out" / "models" / "autoencoder.pt")
    moved = max((after[name] - before[name]).abs().max() for name in before if name.endswith("weight"))
    assert 0 < moved < 0.02  # random weights would be up to 0.3 away; Adam moves 1e-4 a step


def test_recipe_4_loads_the_encoder(run, trained):
    found = run("4", BUNDLE=trained)
    assert found["features"].shape == (2, 128, 44, 44)
    stored = weights(trained / "models" / "autoencoder.pt")
    assert all(torch.equal(value, stored[f"encoder.{name}"]) for name, value in found["encoder"].state_dict().items())


def test_recipe_5_trains_other_widths(run, tmp_path):
    run("5")
    stored = weights(tmp_path / "out" / "models" / "autoencoder.pt")
    assert stored["encoder.blocks.0.0.weight"].shape == (8, 1, 3, 3)
    assert stored["encoder.blocks.1.0.weight"].shape == (16, 8, 3, 3) and "encoder.blocks.2.0.weight" not in stored


def test_recipe_6_trains_on_the_given_datalist(run, tmp_path):
    (tmp_path / "out").mkdir()
    run("6")
    assert (tmp_path / "out" / "models" / "autoencoder.pt").is_file()
    assert set(json.loads((tmp_path / "out" / "datalist.json").read_text())) >= {"training", "validation", "test"}


def test_recipe_7_averages_two_sites(run, tmp_path):
    run("7", SITE=write_discs(tmp_path / "site", 12, first=30))
    assert (tmp_path / "out" / "models" / "autoencoder.pt").is_file()


def test_recipe_8_exports_and_proves_it(run, trained, tmp_path):
    (tmp_path / "out").mkdir()
    run("8", BUNDLE=trained)
    proof = json.loads((tmp_path / "out" / "model.ts.parity.json").read_text())
    assert proof["passed"] is True
    assert torch.jit.load(tmp_path / "out" / "model.ts")(torch.rand(3, 1, 16, 16)).shape == (3, 1)


def test_recipe_9_predicts_in_label(run, trained, discs, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "monailabel.tasks.infer.bundle", label)  # stands in for the package
    monai.bundle.run(
        run_id="run",
        config_file=str(trained / "configs" / "inference.json"),
        dataset_dir=str(scan := next(discs.rglob("OAS1_0003*.hdr"))),
        output_dir=str(tmp_path / "out"),
        slice_index=11,
        device="cpu",
    )
    (row,) = rows_of(tmp_path / "out" / "predictions.csv")
    shutil.copytree(trained, tmp_path / "apps" / "cae_classification")
    config = tmp_path / "apps" / "cae_classification" / "configs" / "inference.json"
    config.write_text(json.dumps({**json.loads(config.read_text()), "slice_index": 11}))
    found = run("9", APPS=tmp_path / "apps", SCAN=scan)
    assert found["probability"] == pytest.approx(float(row["probability"]), abs=1e-6)
