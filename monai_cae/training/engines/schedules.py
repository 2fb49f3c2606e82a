"""The learning rate over a training."""

from __future__ import annotations

import math
from typing import Literal, get_args

from ignite.engine import Engine, Events
from torch.optim import Optimizer

from monai_cae.errors import MonaiCaeError

Schedule = Literal["constant", "one_cycle", "cosine"]
SCHEDULES = get_args(Schedule)

# Of Smith and Topin's one cycle (arXiv:1708.07120) as PyTorch's OneCycleLR has it: the rate begins at a 25th, rises for
# three tenths of the steps, and ends at a 10,000th of where it began.
_RISING, _BEGIN, _END = 0.3, 1 / 25, 1 / 250_000


class LearningRateSchedule:
    """Set the learning rate before every step, from the share of the training that is done.

    It is a function of the trainer's iteration, so there is nothing to keep for a training that is resumed.

    Args:
        schedule: "constant"; "one_cycle": rises to the optimizer's rate, then falls to nearly 0, each along half a
            cosine; "cosine": falls from the optimizer's rate to 0.
        optimizer: of the trainer; its rates are the highest.

    Raises:
        MonaiCaeError: another schedule.
    """

    def __init__(self, schedule: Schedule, optimizer: Optimizer) -> None:
        if schedule not in SCHEDULES:
            raise MonaiCaeError(f"schedule must be one of {', '.join(SCHEDULES)}, not {schedule!r}")
        self.schedule = schedule
        self.optimizer = optimizer
        self.highest = [float(group["lr"]) for group in optimizer.param_groups]

    def attach(self, engine: Engine) -> None:
        """Args: engine: the trainer."""
        if self.schedule != "constant":
            engine.add_event_handler(Events.ITERATION_STARTED, self)
            engine.add_event_handler(Events.EPOCH_COMPLETED, self._track)

    def __call__(self, engine: Engine) -> None:
        """Set the rates of the step that begins."""
        steps = (engine.state.max_epochs or 1) * (engine.state.epoch_length or 1)
        factor = factor_at(engine.state.iteration - 1, steps, self.schedule)
        for group, highest in zip(self.optimizer.param_groups, self.highest, strict=True):
            group["lr"] = highest * factor

    def _track(self, engine: Engine) -> None:
        engine.state.metrics["learning_rate"] = float(self.optimizer.param_groups[0]["lr"])


def factor_at(step: int, steps: int, schedule: Schedule) -> float:
    """By what the highest rate is multiplied.

    Args:
        step: the one that begins, counted from 0.
        steps: of the whole training.
        schedule: see `LearningRateSchedule`.
    """
    last = max(steps - 1, 1)
    if schedule == "constant":
        return 1.0
    if schedule == "cosine":
        return _between(1.0, 0.0, step / last)
    top = _RISING * steps - 1
    return _between(_BEGIN, 1.0, step / top) if step < top else _between(1.0, _END, (step - top) / (last - top))


def _between(start: float, end: float, done: float) -> float:
    """Along half a cosine."""
    return end + (start - end) * (1 + math.cos(math.pi * min(done, 1.0))) / 2
