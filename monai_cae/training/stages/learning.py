"""The steps of a classifier's training."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from ignite.engine import Engine

from monai_cae.errors import MonaiCaeError
from monai_cae.targets import Target
from monai_cae.training.engines.handlers import BestCheckpoint
from monai_cae.training.models.calibration import Calibration
from monai_cae.training.models.linear_probe import LinearProbe

LEARN = ("two_stage", "frozen", "last_layer", "finetune", "linear_probe")
FORMER = {"both": "two_stage", "head": "frozen", "all": "finetune", "regression": "linear_probe"}


def learning_steps(
    learn: str,
    frozen: Engine,
    finetuning: Engine,
    best: BestCheckpoint,
    linear_probe: LinearProbe,
    calibration: Calibration,
    target: Target,
) -> list[Callable[[], Any]]:
    """The steps of a classifier's training, in order.

    Args:
        learn: "two_stage" for the paper's two stages, the second from the best weights of the first; "frozen" for the
            first alone; "last_layer" for that with the hidden layers fixed too; "finetune" for the second alone, from
            whatever weights the network has; "linear_probe" for one layer on the frozen encoder, without a trainer.
        frozen: trainer of the dense layers.
        finetuning: trainer of the whole network.
        best: keeps the weights.
        linear_probe: fits the one layer.
        calibration: comes last.
        target: what is learned.

    Raises:
        MonaiCaeError: another word, a calibration on subjects that the linear probe is fitted to, or what the
            target can't have.
    """
    check_learn(learn)
    target.require_consistent()
    target.require_scored(linear_probe=learn == "linear_probe")
    target.require_binary(calibrate=calibration.enabled)
    steps: dict[str, list[Callable[[], Any]]] = {
        "two_stage": [frozen.run, best.restore, finetuning.run],
        "frozen": [frozen.run],
        "last_layer": [frozen.run],  # of which `dense_parameters` gives it the last
        "finetune": [finetuning.run],
        "linear_probe": [linear_probe.run],
    }
    if learn == "linear_probe" and calibration.enabled:
        raise MonaiCaeError(
            "calibrate needs validation subjects that were not fitted, and learn linear_probe fits them: its penalty "
            "keeps the probabilities in bounds; set --calibrate false"
        )
    return [*steps[learn], calibration.run]


def check_learn(learn: Any) -> None:
    """
    Raises:
        MonaiCaeError: not one of `LEARN`; for a former name the message gives the new one.
    """
    if learn in FORMER:
        raise MonaiCaeError(f"learn {learn} is called {FORMER[learn]} now: give --learn {FORMER[learn]}")
    if learn not in LEARN:
        raise MonaiCaeError(f"learn must be one of {', '.join(LEARN)}, not {learn!r}")
