"""Resume points: everything that decides a stage's next epoch, in one file that is replaced atomically."""

from __future__ import annotations

import json
import os
import random
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from ignite.engine import Engine, Events
from ignite.handlers import EarlyStopping
from monai.engines import SupervisedTrainer

from monai_cae.errors import MonaiCaeError
from monai_cae.files import marked
from monai_cae.networks import read_checkpoint, write_checkpoint
from monai_cae.tracking import TrackedRun
from monai_cae.training.engines.handlers import BestCheckpoint
from monai_cae.training.engines.parallel import is_first
from monai_cae.training.stages.signals import Ending

_SLOWEST = 20  # times as long as writing a point took passes before the next: at most 5 % of the time goes there
# Another device, thread count or tracking server may finish what one has begun; whatever else differs may not.
MAY_DIFFER = (
    "resume", "overwrite", "save_every", "device", "compile", "threads", "tracking_uri", "experiment_name", "run_name",
    "parent_run_id", "cache_share", "cache_dir", "codes",
)  # fmt: skip
_OF_THE_MACHINE = ("capturable", "foreach", "fused")  # of an optimizer's options
_ANEW = "--overwrite true in place of --resume true starts again"
State = dict[str, Any]


class Resuming:
    """The point that a stage can be resumed from: network, optimizer, best weights, early stopping, random state, batch
    order, metrics so far and the MLflow run, as they were after an epoch.

    A run that is resumed there ends with the weights of one that was never ended, bit for bit on a CPU. The file is
    written after an epoch when `every` seconds have passed since the last time, and after the running one on SIGTERM;
    it is gone once the stage has finished.

    Args:
        path: the file.
        network: the whole network of the stage.
        best: keeps its best weights.
        run: the stage's MLflow run.
        resume: go on from the file, where there is one.
        every: seconds from one writing to the next; what a kill may cost.

    Raises:
        MonaiCaeError: a negative number of seconds.
    """

    def __init__(
        self,
        path: str | Path,
        network: torch.nn.Module,
        best: BestCheckpoint,
        run: TrackedRun,
        resume: bool = False,
        every: float = 60.0,
    ) -> None:
        if isinstance(every, bool) or not isinstance(every, (int, float)) or every < 0:
            raise MonaiCaeError(f"save_every must be a number of seconds from 0, not {every!r}")
        self.path = Path(path)
        self.network = network
        self.best = best
        self.run = run
        self.resume = resume
        self.every = every
        self.trainers: dict[str, _Trainer] = {}
        self.stopping: dict[Engine, EarlyStopping] = {}
        self.seconds = 0.0  # that earlier starts of the stage have taken
        self._config: Mapping[str, Any] = {}
        self._ending: Ending | None = None  # none while the stage is not run by `run_steps`: in federated learning
        self._step = 0
        self._started = self._saved_at = time.monotonic()
        self._took = 0.0
        self._unsaved = False
        self._state: State = {}

    def open(self, config: Mapping[str, Any]) -> bool:
        """Look for a point to go on from, and have the MLflow run go on too.

        Args:
            config: of the stage, as it is executed.

        Returns:
            Whether there is one.

        Raises:
            MonaiCaeError: a point of other settings, or a broken one.
        """
        self._config = config
        if not self.resume or not self.path.is_file():
            return False
        state = read_checkpoint(self.path, advice=_ANEW)
        if not isinstance(state, dict) or "step" not in state:
            raise MonaiCaeError(f"{self.path} is not a resume point: {_ANEW}")
        refuse_other_config(json.loads(state["config"]), config, self.path)
        self._state = state
        self.run.resumed_run_id = state["run_id"]
        return True

    def run_steps(self, steps: Sequence[Callable[[], Any]], ending: Ending) -> None:
        """Run a stage's steps, those that are left of it after `open` has found a point.

        Args:
            steps: called in turn; trainers among them write points by their `ResumePoints`.
            ending: asked after every epoch and step.

        Raises:
            Ended: SIGTERM has come; the point is written.
        """
        self._ending = ending
        self._started = self._saved_at = time.monotonic()
        first, finished = self._restore() if self._state else (0, False)
        for self._step, step in enumerate(steps):
            if self._step > first or (self._step == first and not finished):
                step()
            if ending.requested:
                if self._unsaved:
                    self._save("", self._step + 1, finished=False)
                ending.end()
        self._ending = None

    def close(self) -> None:
        """The stage is finished: nothing is left to resume."""
        if is_first():
            self.path.unlink(missing_ok=True)

    @property
    def total_seconds(self) -> float:
        """That the stage has taken, earlier starts included."""
        return self.seconds + time.monotonic() - self._started

    def after_epoch(self, name: str, trainer: Engine) -> None:
        """Write a point if it is time to, or if the program is to end.

        Args:
            name: of the trainer, in `trainers`.
            trainer: has finished an epoch, with all that follows it.
        """
        if self._ending is None:
            return
        finished = bool(trainer.should_terminate) or trainer.state.epoch >= (trainer.state.max_epochs or 0)
        self._unsaved = True
        if self._ending.requested or time.monotonic() - self._saved_at >= max(self.every, _SLOWEST * self._took):
            self._save(name, self._step, finished)
        if self._ending.requested:
            trainer.terminate()

    def _save(self, name: str, step: int, finished: bool) -> None:
        started = time.monotonic()
        self._unsaved = False
        if is_first():
            self.run.send()  # a point goes on behind its epochs, so the run has to have them, whenever it is killed
            state = {
                "step": step,
                "finished": finished,
                "config": json.dumps(self._config, default=str),
                "run_id": self.run.run_id,
                "seconds": self.total_seconds,
                "tracked": {"epoch": self.run.epoch, "history": self.run.history, "marks": self.run.marks},
                "network": self.network.state_dict(),
                "best": self.best.state_dict(),
                "random": _random_state(),
                "trainer": name,
                **({"parts": self.trainers[name].state_dict()} if name else {}),
            }
            write_checkpoint(marked(state), self.path)
        self._saved_at = time.monotonic()
        self._took = self._saved_at - started

    def _restore(self) -> tuple[int, bool]:
        state, self._state = self._state, {}
        self.network.load_state_dict(state["network"])
        self.best.load_state_dict(state["best"])
        self.seconds = state["seconds"]
        tracked = state["tracked"]
        self.run.epoch, self.run.marks = tracked["epoch"], dict(tracked["marks"])
        self.run.history = {key: [(int(a), float(b)) for a, b in values] for key, values in tracked["history"].items()}
        if is_first() and not self.run.resumed_run_id:  # the store has lost the run: this one gets all of it
            known, self.run.history = self.run.history, {}
            for key, values in known.items():
                for epoch, value in values:
                    self.run.log_metrics({key: value}, step=epoch)
        if state["trainer"]:
            self.trainers[state["trainer"]].load_state_dict(state["parts"])
        if is_first():  # the others have drawn other numbers, which nobody kept
            _set_random_state(state["random"])
            print(f"continuing after epoch {self.run.epoch}", flush=True)
        return int(state["step"]), bool(state["finished"])


class ResumePoints:
    """Have points to resume from written after a trainer's epochs; the last of its handlers.

    Args:
        resuming: writes them.
        name: of this trainer among those of the stage.
        validator: its latest metrics go on to be compared with.
    """

    def __init__(self, resuming: Resuming, name: str, validator: Engine) -> None:
        self.resuming = resuming
        self.name = name
        self.validator = validator

    def attach(self, engine: SupervisedTrainer) -> None:
        """Args: engine: the trainer."""
        self.resuming.trainers[self.name] = _Trainer(engine, self.validator, self.resuming.stopping.get(engine))
        engine.add_event_handler(Events.EPOCH_COMPLETED, self)

    def __call__(self, engine: Engine) -> None:
        """The epoch that has just ended may be one to resume from."""
        self.resuming.after_epoch(self.name, engine)


@dataclass(frozen=True)
class _Trainer:
    """What decides a trainer's next epoch, beside the network."""

    engine: SupervisedTrainer
    validator: Engine
    stopping: EarlyStopping | None

    def state_dict(self) -> State:
        return {
            "iteration": self.engine.state.iteration,
            "epoch": self.engine.state.epoch,
            "optimizer": self.engine.optimizer.state_dict(),
            "stopping": dict(self.stopping.state_dict()) if self.stopping else {},
            "validated": dict(self.validator.state.metrics),
            "drawn": {name: generator.get_state() for name, generator in self._generators().items()},
        }

    def load_state_dict(self, state: State) -> None:
        self.engine.state.iteration = state["iteration"]
        self.engine.state.epoch = state["epoch"]
        self.engine.optimizer.load_state_dict(_as_here(state["optimizer"], self.engine.optimizer))
        _order_as_weights(self.engine.optimizer)
        if self.stopping:
            self.stopping.load_state_dict(state["stopping"])
        self.validator.state.metrics = dict(state["validated"])
        if is_first():  # other processes draw otherwise
            for name, generator in self._generators().items():
                if generator.get_state().shape == (drawn := state["drawn"][name]).shape:
                    generator.set_state(drawn)
                else:
                    print(f"{name}: random numbers begin anew, as this device draws otherwise", flush=True)

    def _generators(self) -> dict[str, torch.Generator]:
        loader: Any = self.engine.data_loader
        augmentation = getattr(loader, "augmentation", None)
        found = {
            "order": getattr(loader, "generator", None),
            "augmentation": augmentation and augmentation.generator(self.engine.state.device),
        }
        return {name: generator for name, generator in found.items() if generator is not None}


def _as_here(state: State, optimizer: torch.optim.Optimizer) -> State:
    """An optimizer's state with this machine's own options: on CUDA, `TrainingStep` makes it capturable, with its
    learning rate in a tensor."""
    groups = []
    for group, here in zip(state["param_groups"], optimizer.param_groups, strict=True):
        rate = {"lr": float(group["lr"])} if isinstance(group["lr"], torch.Tensor) else {}
        groups.append({**group, **{key: here[key] for key in _OF_THE_MACHINE if key in here}, **rate})
    return {**state, "param_groups": groups}


def _order_as_weights(optimizer: torch.optim.Optimizer) -> None:
    """Have an optimizer's state lie in memory as its weights do: fused kernels count on it, and another device may have
    them in another order (`on_device`)."""
    for weight, state in optimizer.state.items():
        for name, value in state.items():
            if isinstance(value, torch.Tensor) and value.shape == weight.shape and value.stride() != weight.stride():
                state[name] = torch.empty_like(weight, dtype=value.dtype).copy_(value)


def refuse_other_config(before: Mapping[str, Any], now: Mapping[str, Any], where: Path) -> None:
    """
    Args:
        before: executed config of what lies at `where`.
        now: the present one.
        where: for the message.

    Raises:
        MonaiCaeError: they differ in more than the machine; names the first item that does.
    """
    now = json.loads(json.dumps(now, default=str))
    for name in sorted({*before, *now} - set(MAY_DIFFER)):
        if not same_setting(name, before.get(name), now.get(name)) and not name.startswith("_"):
            item, one, other = _first_difference(name, before.get(name), now.get(name))
            raise MonaiCaeError(
                f"{where} was started with {item} {_short(one)}, not {_short(other)}: give the settings it had; {_ANEW}"
            )


def same_setting(name: str, before: Any, now: Any) -> bool:
    """Whether two values of a setting mean the same: a folder may be spelled "data", "data/" or "/home/data"."""
    folders = name.endswith("_dir") and isinstance(before, str) and isinstance(now, str) and before and now
    return before == now or bool(folders and os.path.realpath(before) == os.path.realpath(now))


def _first_difference(name: str, before: Any, now: Any) -> tuple[str, Any, Any]:
    """The first part of an item that differs, as MONAI names it, and its two values."""
    while isinstance(before, dict) and isinstance(now, dict):
        key = min(key for key in {*before, *now} if before.get(key) != now.get(key))
        name, before, now = f"{name}#{key}", before.get(key), now.get(key)
    return name, before, now


def _short(value: Any) -> str:
    text = json.dumps(value)
    return text if len(text) <= 80 else f"{text[:77]}..."


def _random_state() -> State:
    name, keys, *position = np.random.get_state()  # noqa: NPY002  # the global generators are what is kept
    return {
        "python": random.getstate(),
        "numpy": [name, torch.from_numpy(np.asarray(keys, dtype=np.int64)), *position],
        "torch": torch.get_rng_state(),
        "cuda": torch.cuda.get_rng_state_all() if torch.cuda.is_available() else [],
    }


def _set_random_state(state: State) -> None:
    name, keys, *position = state["numpy"]
    random.setstate(state["python"])
    np.random.set_state((name, keys.numpy().astype(np.uint32), *position))  # noqa: NPY002
    torch.set_rng_state(state["torch"])
    if state["cuda"] and len(state["cuda"]) == torch.cuda.device_count():
        torch.cuda.set_rng_state_all(state["cuda"])
