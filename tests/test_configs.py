"""The bundle's configs are what their sources make, and every setting is explained in one place."""

from __future__ import annotations

import runpy
from pathlib import Path
from typing import Any

import pytest
import yaml
from monai.bundle import ConfigParser
from tiny import CONFIGS

SOURCES = sorted((CONFIGS / "src").glob("*.yaml"))
MADE = runpy.run_path(str(Path(__file__).resolve().parent.parent / "tools" / "make_configs.py"))["made"]()


@pytest.mark.parametrize("name", sorted(MADE))
def test_a_config_is_what_its_sources_make(name: str) -> None:
    assert (CONFIGS / name).read_text(encoding="utf-8") == MADE[name], "run `make configs`"


def test_every_stage_and_the_experiment_are_made() -> None:
    stages = {f"{path.stem}.json" for path in SOURCES if path.stem not in ("common", "experiment")}
    assert {*MADE} == {*stages, "experiment.yaml"}


def is_setting(name: str, config: dict[str, Any]) -> bool:
    return not name.startswith("_") and f"_{name}_" in config


@pytest.mark.parametrize("name", sorted(set(MADE) - {"experiment.yaml"}))
def test_every_plain_value_at_the_top_has_a_remark(name: str) -> None:
    config = yaml.safe_load(MADE[name])
    plain = {key for key, value in config.items() if not isinstance(value, (dict, list)) and not key.startswith("_")}
    items = {"bundle_root", "prepare_batch", "network", "autoencoder", "started", "loss", "training", "run"}
    assert {key for key in plain - items if not is_setting(key, config)} == set()


def _handed_on(name: str, part: bool) -> str:
    return f"$monai_cae.training.unevaluated('{name}')" if part else f"@{name}"


def test_the_experiment_hands_on_the_settings_that_stages_share() -> None:
    experiment, pretrain = (yaml.safe_load(MADE[name]) for name in ("experiment.yaml", "pretrain.json"))
    shared = experiment["run"][0]["shared"]
    parts = {name for name in shared if experiment[name] is None or "_target_" in str(experiment[name])}
    assert parts >= {"extraction", "layout", "target"}
    assert shared == {name: _handed_on(name, name in parts) for name in shared}
    assert {"dataset_dir", "cohort", "axes", "channels", "threads", "augment", "max_epochs", "device"} <= {*shared}
    assert {*shared} & {"seed", "output_dir", "checkpoint", "learning_rate"} == set()
    # the stages make a torch.device of the one, and pretraining has not got the others
    others = {"votes": "train.json", "transfer": "train.json", "unlike_limit": "evaluate.json"}
    defaults = {name: experiment[name] for name in shared if name not in ("device", *others)}
    assert pretrain["target"].pop("_desc_")
    assert defaults == {name: pretrain[name] for name in defaults}
    assert not pretrain.keys() & others
    assert all(experiment[name] == yaml.safe_load(MADE[file])[name] for name, file in others.items())


def test_overlays_for_the_same_stage_add_up() -> None:
    parser = ConfigParser()
    parser.read_config([str(CONFIGS / name) for name in ("experiment.yaml", "with_k_sparse.yaml", "with_phantom.yaml")])
    stages = parser.get("stages")
    assert {"schedule", "network_def#encoder"} <= stages["pretrain"].keys() and stages["train"]["max_epochs"] == 30
    assert [
        path.name for path in CONFIGS.glob("with_*.yaml") if "stages" in yaml.safe_load(path.read_text("utf-8"))
    ] == []
