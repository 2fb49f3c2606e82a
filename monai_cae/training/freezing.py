"""When which part of the classifier learns."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from ignite.engine import Engine, Events

from monai_cae.errors import MonaiCaeError
from monai_cae.networks import EncoderClassifier
from monai_cae.training.calibration import Calibration
from monai_cae.training.handlers import BestCheckpoint
from monai_cae.training.regression import PenalisedRegression


class EncoderFreezing:
    """Freeze or free the encoder when a trainer starts: the paper's two stages (section III-C) are two trainers.

    The network itself keeps a frozen encoder in evaluation mode, so its batch-norm statistics stay too.

    Args:
        network: the classifier.
        frozen: whether this trainer leaves the encoder as it is.
    """

    def __init__(self, network: EncoderClassifier, frozen: bool) -> None:
        self.network = network
        self.frozen = frozen

    def attach(self, engine: Engine) -> None:
        """Args: engine: the stage's trainer."""
        engine.add_event_handler(Events.STARTED, self)

    def __call__(self, engine: Engine) -> None:
        """Set the encoder before the first iteration."""
        self.network.freeze_encoder(self.frozen)


def learning_steps(
    learn: str,
    frozen: Engine,
    everything: Engine,
    best: BestCheckpoint,
    regression: PenalisedRegression,
    calibration: Calibration,
) -> list[Callable[[], Any]]:
    """What a classifier's training consists of, in order.

    Args:
        learn: "both" for the paper's two stages, the second from the best weights of the first; "head" for the first
            alone; "all" for the second alone, from whatever weights the network has; "regression" for one layer on the
            frozen encoder, without a trainer.
        frozen: trainer of the dense layers.
        everything: trainer of the whole network.
        best: keeps the weights.
        regression: fits the one layer.
        calibration: comes last.

    Raises:
        MonaiCaeError: another word, or a calibration on subjects that the regression is fitted to.
    """
    steps: dict[str, list[Callable[[], Any]]] = {
        "both": [frozen.run, best.restore, everything.run],
        "head": [frozen.run],
        "all": [everything.run],
        "regression": [regression.run],
    }
    if learn not in steps:
        raise MonaiCaeError(f"learn must be one of {', '.join(steps)}, not {learn!r}")
    if learn == "regression" and calibration.enabled:
        raise MonaiCaeError(
            "calibrate needs validation subjects that were not fitted, and learn regression fits them: its penalty "
            "keeps the probabilities in bounds; set --calibrate false"
        )
    return [*steps[learn], calibration.run]
