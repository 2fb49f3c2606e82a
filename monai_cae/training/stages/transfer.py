"""A classifier that starts from one of another task: its encoder and hidden layers, and whom it has seen."""

from __future__ import annotations

import json
from collections.abc import Mapping
from functools import cached_property
from pathlib import Path
from typing import Any

from monai_cae.errors import MonaiCaeError
from monai_cae.networks import EncoderClassifier, trained_on, trained_with
from monai_cae.networks.weights import first_misfit, read_state
from monai_cae.terminal import say

LAST_LAYER = "last_layer"  # the word of `learn` that leaves the hidden layers as they came
_WEIGHTS = Path("models", "model.pt")
_UNITS = ("covariate_weight", "zero", "unit", "factor")  # of a head, what belongs to its target
_OF_THE_TASK = ("target", "covariates")  # of a recorded input, what another task may have otherwise
_MOST_CONFIG_BYTES = 1 << 20
_told: set[str] = set()  # an experiment would say it in every part


class Transfer:
    """The finished classifier that another one starts from.

    Args:
        model: its run's folder, an unpacked package, or its checkpoint; "none" for none.
        learn: see `learning_steps`.

    Raises:
        MonaiCaeError: nothing of that, or `learn` needs a model.
    """

    def __init__(self, model: str, learn: str = "two_stage") -> None:
        self.checkpoints = [] if str(model) == "none" else [_found(model)]
        if learn == LAST_LAYER and not self.checkpoints:
            raise MonaiCaeError("learn last_layer needs hidden layers that have learned: give --transfer MODEL")

    @cached_property
    def trained_on(self) -> list[str]:
        """Hashed IDs of the subjects that the model has seen, and those that what it was made from has seen."""
        return [subject for path in self.checkpoints for subject in trained_on(path)]

    @cached_property
    def _records(self) -> dict[str, dict[str, Any]]:
        records = trained_with(*self.checkpoints)
        for path in self.checkpoints:
            if str(path) not in records or not self.trained_on:
                raise MonaiCaeError(
                    f"{path} does not record what it was trained with and on, as train.json's checkpoints do: whether "
                    "it has seen test subjects can't be told, so give another --transfer"
                )
        return records

    @property
    def trained_with(self) -> dict[str, dict[str, Any]]:
        """Checkpoint -> its recorded input, see `monai_cae.data.NetworkInput`, without what is its own task's.

        Raises:
            MonaiCaeError: it has no record, or does not tell whom it has seen.
        """
        return {
            path: {name: value for name, value in record.items() if name not in _OF_THE_TASK}
            for path, record in self._records.items()
        }

    def fill(self, network: EncoderClassifier, settings: Mapping[str, Any]) -> EncoderClassifier:
        """Load the encoder and the hidden layers, where the network has some, and the last layer if both have one task.

        Args:
            network: to be filled, in place.
            settings: of the input and the target, see `monai_cae.data.NetworkInput`.

        Raises:
            MonaiCaeError: not a classifier, or one of other layers.
        """
        if self.checkpoints and not isinstance(network, EncoderClassifier):
            raise MonaiCaeError(f"transfer is from and to EncoderClassifiers, and this is a {type(network).__name__}")
        for path, record in self._records.items():
            ours, theirs = network.state_dict(), read_state(path)
            if not any(name.startswith("head.") for name in theirs):
                raise MonaiCaeError(
                    f"{path} has no dense layers: --transfer takes a classifier, --pretrained the others"
                )
            last = len(network.head) - 1
            own = {f"head.{name}" for name in (*_UNITS, f"{last}.weight", f"{last}.bias")}
            hidden = any(name.startswith("head.") and name not in own for name in ours)
            whole = ours.keys() == theirs.keys() and all(record.get(n) == settings.get(n) for n in _OF_THE_TASK)
            ours, theirs = (
                {
                    name: tensor
                    for name, tensor in state.items()
                    if whole or not name.startswith("head.") or (hidden and name not in own)
                }
                for state in (ours, theirs)
            )
            if misfit := first_misfit(ours, theirs):
                raise MonaiCaeError(
                    f"{path} has other layers than this {type(network).__name__} ({misfit}): give channels, norm, "
                    "image_size and network_def as they were in its training, or network_def#hidden [] for its "
                    "encoder alone"
                )
            try:
                network.load_state_dict(theirs, strict=False)
            except RuntimeError as error:
                raise MonaiCaeError(f"{path} has no plain numbers in its tensors: name another file") from error
            layers = ["encoder", *["hidden layers"] * hidden, *["last layer"] * whole]
            line = f"transfer: {', '.join(layers)} of {path}{'' if whole else '; the last layer is new'}"
            if line not in _told:
                _told.add(line)
                say(line)
        return network


def dense_parameters(network: EncoderClassifier, learn: str) -> list[Any]:
    """What learns while the encoder is frozen: the dense layers or, with `learn` "last_layer", the last of them."""
    if learn == LAST_LAYER:
        for layer in list(network.head)[:-1]:
            layer.requires_grad_(False)
    return [weight for weight in network.head.parameters() if weight.requires_grad]


def sources(*checkpoints: str | Path) -> list[str]:
    """Checkpoints and what their trainings started from, as far as the configs beside them tell.

    Args:
        checkpoints: in the folders that their runs have left: RUN/config_train.json and RUN/models/FILE.
    """
    known: list[Path] = []
    wanted = [Path(path).resolve() for path in checkpoints]
    for path in wanted:
        if path not in known and path.is_file():
            known.append(path)
            wanted += _started_from(path)
    return [str(path) for path in known]


def _started_from(checkpoint: Path) -> list[Path]:
    config = checkpoint.parent.parent / "config_train.json"
    if checkpoint.name != _WEIGHTS.name:  # an autoencoder's, which starts from nothing
        return []
    try:
        given = json.loads(config.read_text("utf-8")) if config.stat().st_size <= _MOST_CONFIG_BYTES else {}
        return [weights_of(given[name]).resolve() for name in ("pretrained", "transfer") if name in given]
    except (OSError, ValueError, TypeError, RecursionError):
        return []


def weights_of(model: str) -> Path:
    """Where a model's weights should be: its folder's, or itself."""
    path = Path(str(model))
    return path / _WEIGHTS if path.is_dir() else path


def _found(model: str) -> Path:
    path, weights = Path(str(model)), weights_of(model)
    if str(model) and weights.is_file() and path.suffix != ".zip":
        return weights
    runs = sorted(path.glob(f"repeat_*/**/{_WEIGHTS}")) if str(model) else []
    what = f"it holds an experiment: give one of its runs, such as {runs[0].parents[1]}" if runs else (
        "give a run's folder, a package (unpacked by monai-cae bundle FOLDER --from ZIP) or a checkpoint"
    )  # fmt: skip
    raise MonaiCaeError(f"--transfer {str(model)!r} has no classifier: {what}")
