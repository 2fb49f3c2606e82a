"""Ignite handlers: keep the best, stop in time, show progress, track metrics."""

from __future__ import annotations

import copy
import logging
import math
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import torch
from ignite.engine import Engine, Events
from ignite.handlers import EarlyStopping

from monai_cae.errors import MonaiCaeError
from monai_cae.networks import save_weights
from monai_cae.terminal import progress_bar
from monai_cae.tracking import TrackedRun
from monai_cae.training.engines.parallel import is_first

if TYPE_CHECKING:
    from monai_cae.training.stages.checkpointing import Resuming

KEEP = ("best", "last")


class BestCheckpoint:
    """Keep the weights of the epoch with the lowest value of a metric, in one file that is replaced atomically.

    MONAI's CheckpointSaver does not write atomically, and writes at every improvement: early in training that is every
    epoch, and the classifier has 255 MB. This keeps the best weights in memory, and writes them when some time has
    passed, when `restore` is called, and through `BestWriting`. Attached to an evaluator that two trainers share,
    it keeps the best of both.

    Args:
        network: its plain state dict is saved.
        path: the file.
        metric: name in `engine.state.metrics`; lower is better, and no number is the worst.
        trained_on: hashed IDs of the subjects in the training, kept in the file.
        network_input: what it is fed with, kept in the file.
        labels_of: hashed IDs of the subjects whose labels are learned, kept in the file.
        every: seconds from the first epoch to the first writing, and from one to the next, so that a process that is
            killed leaves the best so far.
        keep: "best", or "last" to take every epoch for better than those before it.

    Attributes:
        best: the metrics of the epoch that is kept.
    """

    def __init__(
        self,
        network: torch.nn.Module,
        path: str | Path,
        metric: str,
        trained_on: Sequence[str] = (),
        network_input: Mapping[str, Any] | None = None,
        every: float = 10.0,
        keep: Literal["best", "last"] = "best",
        labels_of: Sequence[str] = (),
    ) -> None:
        if keep not in KEEP:
            raise MonaiCaeError(f"keep must be one of {', '.join(KEEP)}, not {keep!r}")
        self.keep = keep
        self.trained_on = trained_on
        self.network_input = network_input
        self.labels_of = labels_of
        self.network = network
        self.path = Path(path)
        self.metric = metric
        self.every = every
        self.best: dict[str, float] = {}
        self._weights: Mapping[str, torch.Tensor] = {}
        self._unwritten = False
        self._written_at: float | None = None  # or when the first epoch ended

    def attach(self, engine: Engine) -> None:
        """Args: engine: the evaluator."""
        engine.add_event_handler(Events.EPOCH_COMPLETED, self)

    def __call__(self, engine: Engine) -> None:
        """Keep the weights if this is the best so far."""
        metrics = engine.state.metrics
        if self.keep == "last" or not self.best or _error(metrics, self.metric) < self.lowest:
            self.best = dict(metrics)
            self._keep()
        if self._written_at is None:
            self._written_at = time.monotonic()
        if time.monotonic() - self._written_at >= self.every:
            self.write()

    @property
    def lowest(self) -> float:
        """The metric of the epoch that is kept; infinite where it is no number, or nothing is kept."""
        return _error(self.best, self.metric)

    def write(self) -> None:
        """Write the best weights, unless the file has them; of several processes, the first does."""
        if self._unwritten and is_first():
            save_weights(self._weights, self.path, self.trained_on, self.network_input, self.labels_of)
            self._unwritten = False
            self._written_at = time.monotonic()

    def restore(self) -> None:
        """Write the best weights, and put them into the network."""
        self.write()
        self.network.load_state_dict(self._weights)

    def replace(self) -> None:
        """Take the network's present weights for the best ones, and write them."""
        self._keep()
        self.write()

    def state_dict(self) -> dict[str, Any]:
        """What a stage needs to go on: the best epoch's metrics and weights."""
        return {"best": dict(self.best), "weights": dict(self._weights)}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Args: state: as `state_dict` gives it."""
        self.best = dict(state["best"])
        if state["weights"]:
            self._keep()  # tensors on the network's device
            for name, tensor in state["weights"].items():
                self._weights[name].copy_(tensor)

    def _keep(self) -> None:
        state = self.network.state_dict()
        if not self._weights:
            self._weights = copy.deepcopy(state)
        for name, tensor in state.items():
            self._weights[name].copy_(tensor)
        self._unwritten = True


def _error(metrics: Mapping[str, float], name: str) -> float:
    """A metric as it is compared; infinite where it is no number, which compares with nothing, or not there yet."""
    value = metrics.get(name, math.inf)
    return math.inf if math.isnan(value) else value


class BestWriting:
    """Have the best weights in their file whenever a trainer ends: in federated learning nobody calls `restore`.

    Args:
        best: what keeps them.
    """

    def __init__(self, best: BestCheckpoint) -> None:
        self.best = best

    def attach(self, engine: Engine) -> None:
        """Args: engine: the trainer."""
        engine.add_event_handler(Events.COMPLETED, self)

    def __call__(self, engine: Engine) -> None:
        """Write them."""
        self.best.write()


class StopWhenWorse:
    """Ignite's EarlyStopping on the trainer's own epochs, judged by a metric of its evaluator.

    MONAI's EarlyStopHandler on an evaluator would go on counting in the next trainer that shares it.

    Args:
        validator: runs before this handler in every epoch.
        metric: name in the validator's metrics; lower is better, and no number is the worst.
        patience: epochs without an improvement before the trainer stops.
        resuming: a point to resume from has the count, too; None where there are no such points.
    """

    def __init__(self, validator: Engine, metric: str, patience: int, resuming: Resuming | None = None) -> None:
        self.validator = validator
        self.metric = metric
        self.patience = patience
        self.resuming = resuming

    def attach(self, engine: Engine) -> None:
        """Args: engine: the trainer to stop."""

        def score(_: Engine) -> float:
            return -_error(self.validator.state.metrics, self.metric)

        stopping = EarlyStopping(self.patience, score, engine)
        stopping.logger.setLevel(logging.WARNING)  # the progress bar says it
        engine.add_event_handler(Events.EPOCH_COMPLETED, stopping)
        if self.resuming is not None:
            self.resuming.stopping[engine] = stopping


class EpochProgress:
    """A progress bar of the trainer, with the latest epoch's metrics.

    Args:
        title: what is being trained.
        validator: its metrics are shown.
        metrics: names to show.
    """

    def __init__(self, title: str, validator: Engine, metrics: Sequence[str]) -> None:
        self.title = title
        self.validator = validator
        self.metrics = metrics
        self._bar: Any = None

    def attach(self, engine: Engine) -> None:
        """Args: engine: the trainer."""
        engine.add_event_handler(Events.STARTED, self._start)
        engine.add_event_handler(Events.EPOCH_COMPLETED, self)
        engine.add_event_handler(Events.COMPLETED, self._end)
        engine.add_event_handler(Events.EXCEPTION_RAISED, self._fail)

    def _start(self, engine: Engine) -> None:
        epochs = engine.state.max_epochs or 0
        self._bar = progress_bar(self.title, epochs, "epoch", initial=engine.state.epoch, hidden=not is_first())

    def __call__(self, engine: Engine) -> None:
        """Show the epoch that has just ended."""
        if self._bar is not None:
            values = self.validator.state.metrics  # none before the first validation
            shown = {name: f"{values[name]:.4g}" for name in self.metrics if name in values}
            self._bar.set_postfix(shown, refresh=False)
            self._bar.update(1)

    def _end(self, engine: Engine) -> None:
        if self._bar is not None:
            if engine.state.epoch < (engine.state.max_epochs or 0):
                self._bar.set_description(f"{self.title} (stopped early)")
            self._bar.close()
            self._bar = None

    def _fail(self, engine: Engine, error: BaseException) -> None:
        if self._bar is not None:
            self._bar.close()
            self._bar = None
        raise error  # Ignite raises nothing more once somebody listens to this event


class EpochTracking:
    """Log the metrics of a trainer and its evaluator together, once an epoch.

    Trainers that share a run count its epochs on: fine-tuning starts where the frozen stage ended.

    Args:
        run: where to log.
        validator: runs before this handler in every epoch.
        title: mark in the curves where this trainer starts; "" for none.
    """

    def __init__(self, run: TrackedRun, validator: Engine, title: str = "") -> None:
        self.run = run
        self.validator = validator
        self.title = title

    def attach(self, engine: Engine) -> None:
        """Args: engine: the trainer."""
        engine.add_event_handler(Events.EPOCH_COMPLETED, self)
        if self.title:
            engine.add_event_handler(Events.STARTED, lambda _: self.run.marks.update({self.title: self.run.epoch + 1}))

    def __call__(self, engine: Engine) -> None:
        """Log the epoch that has just ended."""
        self.run.epoch += 1
        self.run.log_metrics({**engine.state.metrics, **self.validator.state.metrics}, step=self.run.epoch)
