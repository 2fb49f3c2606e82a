"""Stop a training with a bad loss before it overwrites anything good."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from ignite.engine import Engine, Events
from monai.engines import SupervisedTrainer

from monai_cae.errors import MonaiCaeError
from monai_cae.training.engines.handlers import BestCheckpoint

EXPLODED = 1e6  # no loss here is that large: of sigmoid outputs at most 1, of logits their size
_MOST_SUBJECTS = 8


class LossWatch:
    """Stop a trainer at the end of an epoch in which the loss was not finite or exploded, or whose validation is not
    finite; the first of its handlers.

    Ignite's TerminateOnNan looks at every batch, for which a GPU has to wait, and ends as if all were well.

    Args:
        best: what is left to go on from; its metric is looked at.
        subjects: of the training set, in its order.
        validator: of this trainer, with `best` among its handlers.
    """

    def __init__(self, best: BestCheckpoint, subjects: Sequence[str], validator: Engine) -> None:
        self.best = best
        self.subjects = subjects
        self.validator = validator
        self._losses: list[torch.Tensor] = []

    def attach(self, engine: SupervisedTrainer) -> None:
        """Args: engine: the trainer, with a loader that knows its `order`."""
        engine.add_event_handler(Events.ITERATION_COMPLETED, self._remember)
        engine.add_event_handler(Events.EPOCH_COMPLETED, self)
        self.validator.add_event_handler(Events.EPOCH_COMPLETED, self._validated)

    def _remember(self, engine: Engine) -> None:
        self._losses.append(engine.state.output["loss"].detach())  # type: ignore[index]  # what MONAI's trainers give

    def __call__(self, engine: SupervisedTrainer) -> None:
        """Look at the losses of the epoch.

        Raises:
            MonaiCaeError: one is not finite or exploded; names the epoch, the batch's subjects and what is left.
        """
        losses, self._losses = torch.stack(self._losses).float().cpu(), []
        wrong = ~(losses.abs() <= EXPLODED)
        if not wrong.any():
            return
        batch = int(wrong.nonzero()[0])
        value = float(losses[batch])
        became = f"exploded to {value:.3g}" if math.isfinite(value) else f"became {value}"
        raise MonaiCaeError(
            f"the loss {became} in epoch {engine.state.epoch}, batch {batch + 1} "
            f"({self._whose(engine.data_loader, batch)}): {_left(self.best)}; look at these scans with `monai-cae "
            "check`, or try a lower --learning_rate or --precision float32"
        )

    def _validated(self, engine: Engine) -> None:
        value = float(engine.state.metrics[self.best.metric])
        if not math.isfinite(value):
            raise MonaiCaeError(
                f"{self.best.metric} became {value} in the validation of epoch {engine.state.epoch}: "
                f"{_left(self.best)}; try a lower --learning_rate or --precision float32, or look at the scans with "
                "`monai-cae check`"
            )

    def _whose(self, loader: Any, batch: int) -> str:
        order = getattr(loader, "order", [])
        if batch >= len(order):
            return "the loader does not say whose"
        subjects = [str(self.subjects[index]) for index in order[batch]]
        more = len(subjects) - _MOST_SUBJECTS
        return ", ".join(subjects[:_MOST_SUBJECTS]) + (f" and {more} more" if more > 0 else "")


def _left(best: BestCheckpoint) -> str:
    best.write()
    if not math.isfinite(best.lowest) or not Path(best.path).is_file():
        return "there is no good checkpoint yet"
    return f"{best.path} has the best weights before it"
