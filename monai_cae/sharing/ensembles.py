"""The networks of an experiment's folds or repeats as one run, whose network is their mean."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from monai_cae.errors import MonaiCaeError
from monai_cae.folders import bundle_folder
from monai_cae.networks import EncoderClassifier, Ensemble, save_weights, trained_on, trained_with
from monai_cae.networks.weights import read_state
from monai_cae.sharing.bundle import CHECKPOINTS
from monai_cae.sharing.executed import as_defaults
from monai_cae.sharing.runs import Run, read_run

CLASS = f"monai_cae.networks.{Ensemble.__name__}"
_MEMBER = f"monai_cae.networks.{EncoderClassifier.__name__}"
_CLASSIFIER = CHECKPOINTS["classifier"]
_OF_A_PART = {"seed", "split", "threshold"}  # settings that the parts of an experiment may have otherwise
_SINGLE = "_of_single_networks"


def read_ensemble(output_dir: str | Path, weights: Path) -> Run:
    """Read a finished experiment as one run: its parts' classifiers in one file, the autoencoder of the first.

    Nobody of the cohort is new to all members, so the ensemble has no test score. `results` have the means of the
    scores of its members, each on its own test set, under names that say so, and a caveat.

    Args:
        output_dir: of the experiment.
        weights: new file for the weights of all members, and the hashes of all subjects that any of them has seen.

    Raises:
        MonaiCaeError: no finished experiment of two parts or more, what `read_run` refuses, or networks that differ in
            more than their weights.
    """
    folder = Path(output_dir)
    try:
        summary = json.loads((folder / "summary.json").read_text(encoding="utf-8"))
        parts = [part["folder"] for part in summary["results"]]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise MonaiCaeError(f"{folder} holds no finished experiment, whose networks --ensemble takes") from error
    runs = [read_run(folder / part) for part in parts]
    if len(runs) < 2:
        raise MonaiCaeError(f"{folder} has one network alone: package {parts[0]} without --ensemble")
    shipped = json.loads((bundle_folder() / "configs" / "evaluate.json").read_text(encoding="utf-8"))
    first, *others = (_of_all(run, shipped) for run in runs)
    for part, other in zip(parts[1:], others, strict=True):
        if differing := sorted(name for name in {*first, *other} if first.get(name) != other.get(name)):
            raise MonaiCaeError(
                f"the networks of {parts[0]} and {part} differ in {', '.join(differing)}: an ensemble is of networks "
                "that differ in their weights alone"
            )
    definition = runs[0].configs["evaluate"]["network_def"]
    if definition.get("_target_") != _MEMBER:
        raise MonaiCaeError(f"--ensemble takes networks of {_MEMBER}, not of {definition.get('_target_')}")
    files = [run.checkpoints[_CLASSIFIER] for run in runs]
    _write(files, weights)
    evaluate = {**runs[0].configs["evaluate"], "network_def": {**definition, "_target_": CLASS, "members": len(runs)}}
    return replace(
        runs[0],
        configs={**runs[0].configs, "evaluate": evaluate},
        results=_results(runs),
        checkpoints={**runs[0].checkpoints, _CLASSIFIER: weights},
        members=len(runs),
    )


def _of_all(run: Run, shipped: dict[str, Any]) -> dict[str, Any]:
    """What must be the same in all members."""
    config = as_defaults(run.configs["evaluate"], shipped)
    return {name: value for name, value in config.items() if name not in _OF_A_PART}


def _write(files: list[Path], weights: Path) -> None:
    state: dict[str, torch.Tensor] = {}
    for number, file in enumerate(files):
        state |= {f"members.{number}.{name}": tensor for name, tensor in read_state(file).items()}
    seen = {subject for file in files for subject in trained_on(file)}
    save_weights(state, weights, seen, next(iter(trained_with(files[0]).values()), None))


def _results(runs: list[Run]) -> dict[str, Any]:
    scores = {name: float(np.mean([run.scores[name] for run in runs])) for name in runs[0].scores}
    caveats = dict.fromkeys(caveat for run in runs for caveat in run.caveats)
    untested = (
        f"NOT TESTED: every subject of the cohort may have been in the training of some of the {len(runs)} networks, "
        "so the score of their mean is not known. The scores are the means of the single networks' on their own test "
        "sets; test the ensemble on another cohort with monai-cae evaluate."
    )
    return {
        "synthetic": runs[0].results["synthetic"],
        "target": runs[0].results.get("target"),
        "leaks": sum(run.leaks for run in runs),
        "threshold": float(np.mean([run.results.get("threshold", 0.5) for run in runs])),
        **{f"{name}{_SINGLE}": value for name, value in scores.items()},
        "caveats": [untested, *caveats],
    }
