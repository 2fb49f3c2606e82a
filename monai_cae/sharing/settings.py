"""A finished network in any form, and the settings of the configs that predict and test with it."""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any, Literal

from monai_cae.data.cohort.tasks import RULES
from monai_cae.errors import MonaiCaeError
from monai_cae.folders import bundle_folder
from monai_cae.sharing.bundle import CHECKPOINTS
from monai_cae.sharing.executed import ABSENT, as_defaults, as_written, carried_over, changes
from monai_cae.sharing.runs import SETTING, read_run
from monai_cae.sharing.unpack import check_package

# not the network's: how the cohort that it was trained on was read and split, and how fast it ran
_OF_THE_COHORT = ("cohort", "split", "seed", "layout", "hash_ids", "precision")
_OF_THE_CLASSIFIER = ("cohort", "target", "checkpoint", "threshold", "covariates")


def kind_of(model: Path) -> Literal["package", "run", "checkpoint"]:
    """What a model is given as; MonaiCaeError where it is nothing of that."""
    if (model / "configs" / "inference.json").is_file():
        return "package"
    if model.is_dir():
        return "run"
    if not model.is_file():
        raise MonaiCaeError(f"no model at {model}: give an unpacked package, a run's folder or a checkpoint")
    if model.suffix == ".zip":
        raise MonaiCaeError(f"{model} is a zip: unpack it with monai-cae bundle FOLDER --from {model}")
    return "checkpoint"


def inference_settings(output_dir: str | Path) -> dict[str, Any]:
    """The settings of inference.json, by their names on the command line, that predict as a finished run was tested.

    Raises:
        MonaiCaeError: see `read_run`.
    """
    run = read_run(output_dir)
    inference = _shipped("inference")
    wanted = carried_over(inference, run.configs["evaluate"], _shipped("evaluate"))
    wanted["threshold"] = run.results.get("threshold", wanted["threshold"])
    weights = {"checkpoint": str(run.folder / CHECKPOINTS["classifier"])}
    weights["pretrained"] = str(run.checkpoints[CHECKPOINTS["autoencoder"]])
    return {**weights, **_as_options(wanted, inference, leave=("precision",))}


def evaluation_settings(model: str | Path, trust: bool = False) -> dict[str, Any]:
    """The settings of evaluate.json, as the command line names them, that test a finished network on another cohort.

    Args:
        model: what `monai-cae predict` takes: an unpacked package, a run's output folder, or a checkpoint of the
            default network, with the autoencoder's beside it.
        trust: accept a package whose configs are not monai-cae's own.

    Raises:
        MonaiCaeError: nothing of that, see `read_run` and `check_package`.
    """
    model, shipped, kind = Path(model), _shipped("evaluate"), kind_of(model)
    if kind == "package":
        bundle = check_package(model, trust=trust)
        wanted = carried_over(shipped, bundle.config, _shipped("inference"))
        weights = {SETTING[network]: str(model / place) for network, place in CHECKPOINTS.items()}
        return {**weights, **_as_options(wanted, shipped, leave=_OF_THE_COHORT)}
    if kind == "run":
        run = read_run(model)
        wanted = as_defaults(run.configs["evaluate"], shipped)
        wanted["threshold"] = run.results.get("threshold", wanted["threshold"])
        # a datalist that was given says by which rule it was made, and the config does not
        before, usual = {**run.configs["evaluate"]["cohort"], **run.rules}, shipped["cohort"]
        rules = {f"cohort#{name}": before[name] for name in RULES if before[name] != usual[name]}
        weights = {SETTING[network]: str(run.checkpoints[place]) for network, place in CHECKPOINTS.items()}
        return {**weights, **_as_options(wanted, shipped, leave=_OF_THE_COHORT), **rules}
    autoencoder = model.with_name(CHECKPOINTS["autoencoder"].name)
    return {"checkpoint": str(model), "pretrained": str(autoencoder)}


def autoencoder_settings(model: str | Path, trust: bool = False) -> dict[str, Any]:
    """The settings of evaluate.json, as the command line names them, that a trained autoencoder needs, whatever was
    predicted on it.

    Args:
        model: what `evaluation_settings` takes, the folder of pretrain.json alone, or an autoencoder's checkpoint.
        trust: see `evaluation_settings`.

    Raises:
        MonaiCaeError: nothing of that.
    """
    model = Path(model)
    kind = kind_of(model)
    if kind == "checkpoint":
        return {"pretrained": str(model)}
    before = model / "config_pretrain.json"
    if kind == "run" and before.is_file() and not (model / "results_evaluate.json").is_file():
        try:
            executed = as_written(json.loads(before.read_text("utf-8")))
        except ValueError as error:
            raise MonaiCaeError(f"{before} is not readable JSON ({error}): run pretrain.json again") from error
        shipped = _shipped("evaluate")
        wanted = carried_over(shipped, executed, _shipped("pretrain"))
        return {"pretrained": _weights(model)["pretrained"], **_as_options(wanted, shipped, leave=_OF_THE_COHORT)}
    found = evaluation_settings(model, trust=trust)
    return {name: value for name, value in found.items() if name.partition("#")[0] not in _OF_THE_CLASSIFIER}


def _weights(folder: Path) -> dict[str, Any]:
    return {SETTING[network]: str(folder / place) for network, place in CHECKPOINTS.items()}


def _shipped(name: str) -> dict[str, Any]:
    content: dict[str, Any] = json.loads((bundle_folder() / "configs" / f"{name}.json").read_text("utf-8"))
    return content


def _as_options(wanted: Mapping[str, Any], shipped: Mapping[str, Any], leave: Collection[str]) -> dict[str, Any]:
    """What a config has otherwise than the shipped one, by its names on the command line; a part of another class
    whole."""
    changed = {place: value for place, value in changes(wanted, shipped) if place[0] not in leave}
    whole = {place[0] for place, value in changed.items() if value is ABSENT}
    named = {"#".join(map(str, place)): value for place, value in changed.items() if place[0] not in whole}
    return named | {name: wanted[name] for name in sorted(whole)}
