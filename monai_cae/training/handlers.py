"""Ignite handlers: keep the best, stop in time, show progress, collect predictions."""

from __future__ import annotations

import copy
import csv
import logging
import math
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from ignite.engine import Engine, Events
from ignite.handlers import EarlyStopping
from tqdm import tqdm

from monai_cae.files import replacing
from monai_cae.networks import save_weights


class BestCheckpoint:
    """Keep the weights of the epoch with the lowest value of a metric, in one file that is replaced atomically.

    MONAI's CheckpointSaver does not write atomically, and writes at every improvement: early in training that is every
    epoch, and the classifier has 255 MB. This keeps the best weights in memory, and writes them when some time has
    passed and when `restore` is called. Attached to an evaluator that two trainers share, it keeps the best of both.

    Args:
        network: its plain state dict is saved.
        path: the file.
        metric: name in `engine.state.metrics`; lower is better.
        trained_on: hashed IDs of the subjects in the training, kept in the file.
        every: seconds from one writing to the next; a process that is killed loses no more than that of the best.

    Attributes:
        best: the metrics of the best epoch.
    """

    def __init__(
        self,
        network: torch.nn.Module,
        path: str | Path,
        metric: str,
        trained_on: Sequence[str] = (),
        every: float = 10.0,
    ) -> None:
        self.trained_on = trained_on
        self.network = network
        self.path = Path(path)
        self.metric = metric
        self.every = every
        self.best: dict[str, float] = {}
        self._weights: Mapping[str, torch.Tensor] = {}
        self._unwritten = False
        self._written_at = -math.inf

    def attach(self, engine: Engine) -> None:
        """Args: engine: the evaluator."""
        engine.add_event_handler(Events.EPOCH_COMPLETED, self)

    def __call__(self, engine: Engine) -> None:
        """Keep the weights if this is the best so far."""
        if not self.best or engine.state.metrics[self.metric] < self.best[self.metric]:
            self.best = dict(engine.state.metrics)
            self._keep()
        if time.monotonic() - self._written_at >= self.every:
            self.write()

    def write(self) -> None:
        """Write the best weights, unless the file has them."""
        if self._unwritten:
            save_weights(self._weights, self.path, self.trained_on)
            self._unwritten = False
            self._written_at = time.monotonic()

    def restore(self) -> None:
        """Write the best weights, and put them into the network."""
        self.write()
        self.network.load_state_dict(self._weights)

    def _keep(self) -> None:
        state = self.network.state_dict()
        if not self._weights:
            self._weights = copy.deepcopy(state)
        for name, tensor in state.items():
            self._weights[name].copy_(tensor)
        self._unwritten = True


class StopWhenWorse:
    """Ignite's EarlyStopping on the trainer's own epochs, judged by a metric of its evaluator.

    MONAI's EarlyStopHandler on an evaluator would go on counting in the next trainer that shares it.

    Args:
        validator: runs before this handler in every epoch.
        metric: name in the validator's metrics; lower is better.
        patience: epochs without an improvement before the trainer stops.
    """

    def __init__(self, validator: Engine, metric: str, patience: int) -> None:
        self.validator = validator
        self.metric = metric
        self.patience = patience

    def attach(self, engine: Engine) -> None:
        """Args: engine: the trainer to stop."""
        stopping = EarlyStopping(self.patience, lambda _: -self.validator.state.metrics[self.metric], engine)
        stopping.logger.setLevel(logging.WARNING)  # the progress bar says it
        engine.add_event_handler(Events.EPOCH_COMPLETED, stopping)


class EpochProgress:
    """One progress bar per trainer, with the latest epoch's metrics.

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

    def _start(self, engine: Engine) -> None:
        self._bar = tqdm(
            total=engine.state.max_epochs, desc=self.title, unit="epoch", mininterval=1.0, dynamic_ncols=True
        )

    def __call__(self, engine: Engine) -> None:
        """Show the epoch that has just ended."""
        if self._bar is not None:
            values = {name: self.validator.state.metrics[name] for name in self.metrics}
            self._bar.set_postfix({name: f"{value:.4g}" for name, value in values.items()}, refresh=False)
            self._bar.update(1)

    def _end(self, engine: Engine) -> None:
        if self._bar is not None:
            if engine.state.epoch < (engine.state.max_epochs or 0):
                self._bar.set_description(f"{self.title} (stopped early)")
            self._bar.close()
            self._bar = None


class PredictionTable:
    """Collect the probability of every case, and write them as a table when the evaluator has completed.

    Expects `engine.state.output["pred"]` as probabilities, shape `(N, 1)`.

    Args:
        path: csv file, written atomically.
        keys: items of the batch that become columns, before `probability` and `prediction`; one that a batch does not
            have is left out.
        threshold: a probability from here on is predicted as AD.
    """

    def __init__(self, path: str | Path, keys: Sequence[str], threshold: float = 0.5) -> None:
        self.path = Path(path)
        self.keys = keys
        self.threshold = threshold
        self.rows: list[dict[str, Any]] = []

    def attach(self, engine: Engine) -> None:
        """Args: engine: the evaluator."""
        engine.add_event_handler(Events.STARTED, lambda _: self.rows.clear())
        engine.add_event_handler(Events.ITERATION_COMPLETED, self)
        engine.add_event_handler(Events.COMPLETED, self._write)

    def __call__(self, engine: Engine) -> None:
        """Add the rows of one batch."""
        output: Any = engine.state.output
        batch: Any = engine.state.batch
        probabilities = torch.as_tensor(output["pred"]).detach().flatten().tolist()
        given = {key: _column(batch[key]) for key in self.keys if key in batch}
        for index, probability in enumerate(probabilities):
            row = {key: column[index] for key, column in given.items()}
            self.rows.append({**row, "probability": probability, "prediction": int(probability >= self.threshold)})

    def column(self, name: str) -> list[Any]:
        """One column of what was collected."""
        return [row[name] for row in self.rows]

    def _write(self, engine: Engine) -> None:
        with replacing(self.path) as temporary, temporary.open("w", newline="", encoding="utf-8") as file:
            writer = csv.DictWriter(file, fieldnames=list(self.rows[0]))
            writer.writeheader()
            writer.writerows({**row, "probability": f"{row['probability']:.6f}"} for row in self.rows)


def _column(values: Any) -> list[Any]:
    if isinstance(values, torch.Tensor):
        return [int(value) if float(value).is_integer() else value for value in values.flatten().tolist()]
    return list(values)
