"""Predictions of many scans: progress, one table, a summary of two lines."""

from __future__ import annotations

import csv
import os
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from heapq import nlargest
from itertools import compress
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from ignite.engine import Engine, Events
from torch.utils.hooks import RemovableHandle

from monai_cae import DISCLAIMER
from monai_cae.errors import MonaiCaeError
from monai_cae.evaluation import CRITERIA, threshold_for
from monai_cae.evaluation.pooled import DEFAULT_THRESHOLD
from monai_cae.evaluation.style import save_figure
from monai_cae.files import replacing
from monai_cae.networks import Ensemble
from monai_cae.targets import Target
from monai_cae.terminal import progress_bar
from monai_cae.training.models.strangers import Strangers

SAMPLES = "samples.csv"  # beside a table of predictions, where the samples of images vote
STRANGERS = "strangers.png"  # those of them that are unlike the training's
_NAMED = 3
SPREAD = ("lowest", "highest")  # of an ensemble's members, behind the name of the target's column
UNLIKE = ("unlike", "unlike_by", "stranger")  # columns, see `monai_cae.training.models.strangers`


class PredictionTable:
    """Collect what is predicted of every case, and write it as a table when the evaluator has completed.

    Expects `engine.state.output["pred"]` after the target's activation, shape `(N, 1)`. Of an ensemble the lowest and
    the highest prediction of its members are columns too: how much they differ, which is no confidence interval. A run
    that does not complete writes nothing; a place that can't be written is refused before the first batch.

    Args:
        path: csv file, written atomically.
        keys: items of the batch that become columns, before those of the target; one that a batch does not have is left
            out.
        target: says what columns there are.
        threshold: a probability from here on is predicted as AD; or "youden", "accuracy" or "f1", which choose it by
            `monai_cae.evaluation.threshold_for`.
        classes: add the columns `class`, AD or HC, and `threshold`, where the target has classes.
        validation: has the predictions on which a threshold is chosen; the validation set's, never the test set's.
        strangers: has looked, as the evaluator's postprocessing, how unlike the training's each case is.
        withhold: leave the columns of the target blank where a case is a stranger.

    Attributes:
        columns: what was collected, by name; a few dozen bytes per case.
        threshold: the number, once the evaluator has started.
        seconds: from the start of the evaluator to its end, reading included.

    Raises:
        MonaiCaeError: an invalid threshold, or one for a target without classes, or nothing to withhold by.
    """

    def __init__(
        self,
        path: str | Path,
        keys: Sequence[str],
        target: Target,
        threshold: float | Literal["youden", "accuracy", "f1"] = DEFAULT_THRESHOLD,
        validation: PredictionTable | None = None,
        classes: bool = False,
        strangers: Strangers | None = None,
        withhold: bool = False,
    ) -> None:
        if not (threshold in CRITERIA if isinstance(threshold, str) else 0 <= threshold <= 1):
            raise MonaiCaeError(f"threshold must be from 0 to 1, or one of {', '.join(CRITERIA)}, not {threshold!r}")
        target.require_binary(threshold=threshold != DEFAULT_THRESHOLD)
        target.require_consistent()
        self.path = Path(path)
        self.keys = keys
        self.target = target
        self.threshold = DEFAULT_THRESHOLD if isinstance(threshold, str) else threshold
        self.chosen_by = threshold if isinstance(threshold, str) else None
        self.validation = validation
        self.classes = classes
        self.strangers = strangers
        self.withhold = withhold
        self.columns: dict[str, list[Any]] = {}
        self.seconds = 0.0
        self._started = 0.0
        self._votes: torch.Tensor | None = None
        self._handle: RemovableHandle | None = None

    def attach(self, engine: Engine) -> None:
        """Args: engine: the evaluator."""
        engine.add_event_handler(Events.STARTED, lambda: _check_place(self.path))
        self.collect(engine)
        engine.add_event_handler(Events.COMPLETED, self._write)

    def collect(self, engine: Engine) -> None:
        """Have the `rows` of an evaluator in memory, without a file. Args: engine: the evaluator."""
        engine.add_event_handler(Events.STARTED, self._start)
        engine.add_event_handler(Events.ITERATION_COMPLETED, self)
        engine.add_event_handler(Events.COMPLETED, self._stop_listening)

    def _start(self, engine: Engine) -> None:
        self.columns.clear()
        self._stop_listening()
        if isinstance(network := getattr(engine, "network", None), Ensemble):
            self._handle = network.together.register_forward_hook(self._listen)
        if self.strangers is not None:
            self.strangers.forget()
        if self.withhold and (why := self.unknown):
            raise MonaiCaeError(f"withhold needs to know which scans are unlike the training's, and this is {why}")
        if self.chosen_by is not None and self.validation is not None:
            known, scores = (np.array(self.validation.column(name)) for name in ("label", "probability"))
            self.threshold = threshold_for(known, scores, self.chosen_by)
        self._started = time.perf_counter()

    def __call__(self, engine: Engine) -> None:
        """Add the rows of one batch."""
        output: Any = engine.state.output
        batch: Any = engine.state.batch
        predicted = torch.as_tensor(output["pred"]).detach().flatten().tolist()
        found = {key: self._column(batch[key]) for key in self.keys if key in batch}
        found |= self.target.columns(predicted, self.threshold, self.classes)
        if self._votes is not None:
            ends = torch.cat([self._votes.amin(dim=1), self._votes.amax(dim=1)])[:, None]
            both = torch.as_tensor(self.target.activation()({"pred": ends})["pred"]).flatten().tolist()
            halves = both[: len(predicted)], both[len(predicted) :]
            found |= {f"{self.target.column}_{end}": values for end, values in zip(SPREAD, halves, strict=True)}
        if UNLIKE[0] in output:
            found |= {
                UNLIKE[0]: [round(float(value), 4) for value in output[UNLIKE[0]]],
                UNLIKE[1]: list(output[UNLIKE[1]]),
                UNLIKE[2]: ["yes" if one else "no" for one in output[UNLIKE[2]]],
            }
        for name, values in found.items():
            self.columns.setdefault(name, []).extend(values)

    def _column(self, values: Any) -> list[Any]:
        if not isinstance(values, torch.Tensor):
            return list(values)
        numbers = values.flatten().tolist()
        return [int(one) if float(one).is_integer() else float(self.target.written(one)) for one in numbers]

    def _listen(self, together: Any, given: tuple[torch.Tensor, ...], mean: torch.Tensor) -> None:
        self._votes = given[0].detach().float()

    def _stop_listening(self) -> None:
        self._votes = None
        if self._handle is not None:
            self._handle.remove()
            self._handle = None

    def column(self, name: str) -> list[Any]:
        """One column of what was collected."""
        return self.columns[name]

    @property
    def unknown(self) -> str:
        """Why nothing is known of strangers; "" where it is."""
        reference = "not known by this config" if self.strangers is None else self.strangers.reference
        return reference if isinstance(reference, str) else ""

    @property
    def marked(self) -> list[bool]:
        """Whether each case is a stranger; none is where that is not known."""
        return [one == "yes" for one in self.columns.get(UNLIKE[2], ["no"] * len(self.columns[self.target.column]))]

    @property
    def rows(self) -> dict[str, list[Any]]:
        """The columns as they are written: None for what is withheld."""
        told = [*self.target.columns([0.0], self.threshold, self.classes), *self._numbers] if self.withhold else []
        withheld = {
            name: [None if gone else value for gone, value in zip(self.marked, self.columns[name], strict=True)]
            for name in told
        }
        return {**self.columns, **withheld}

    @property
    def _numbers(self) -> list[str]:
        """What is predicted, and where there are several networks its spread."""
        name = self.target.column
        return [name, *(one for end in SPREAD if (one := f"{name}_{end}") in self.columns)]

    def _write(self, engine: Engine) -> None:
        self.seconds = time.perf_counter() - self._started
        rows = self.rows
        shown = {
            one: [None if value is None else self.target.written(value) for value in rows[one]] for one in self._numbers
        }
        texts = {**rows, **shown}
        with replacing(self.path) as temporary, temporary.open("w", newline="", encoding="utf-8") as file:
            writer = csv.writer(file)
            writer.writerow(texts)
            writer.writerows(zip(*texts.values(), strict=True))


class PredictionProgress:
    """A progress bar of the scans, on a terminal from the third second on, elsewhere a line a minute.

    Args:
        total: how many scans there are.
    """

    def __init__(self, total: int) -> None:
        self.total = total
        self._bar: Any = None

    def attach(self, engine: Engine) -> None:
        """Args: engine: the evaluator."""
        engine.add_event_handler(Events.STARTED, self._start)
        engine.add_event_handler(Events.ITERATION_COMPLETED, self)
        engine.add_event_handler(Events.COMPLETED, self._end)
        engine.add_event_handler(Events.EXCEPTION_RAISED, self._fail)

    def _start(self, engine: Engine) -> None:
        self._bar = progress_bar("predictions", self.total, "scan", passing=True)

    def __call__(self, engine: Engine) -> None:
        """Count the scans of one batch."""
        output: Any = engine.state.output
        self._bar.update(len(output["pred"]))

    def _end(self, engine: Engine) -> None:
        self._bar.close()

    def _fail(self, engine: Engine, error: BaseException) -> None:
        self._end(engine)
        raise error  # Ignite raises nothing more once somebody listens to this event


def print_predictions(
    table: PredictionTable,
    left_out: Mapping[str, str] | None = None,
    caveats: Sequence[str] = (),
    now: int | None = None,
) -> None:
    """End of an inference: how many scans, how fast, what was predicted, who was in training, what is doubtful about
    the weights, where the table is, and who is not in it.

    Args:
        table: written; of its columns `subject` and `seen_in_training` are counted where it has them.
        left_out: files that could not be used, and why; written as left_out.csv beside the table, and an older one goes
            where there are none.
        caveats: a sentence each, see `checkpoint_caveats`.
        now: scans that the table's seconds were spent on, with those left out; by default all of the table.
    """
    beside = table.path.with_name("left_out.csv")
    if left_out:
        with replacing(beside) as temporary, temporary.open("w", newline="", encoding="utf-8") as file:
            csv.writer(file).writerows([("file", "reason"), *left_out.items()])
    else:
        beside.unlink(missing_ok=True)
    scans = len(table.column(table.target.column))
    kept = {name: values for name, values in table.columns.items() if name not in UNLIKE}
    if table.withhold:
        answered = [not one for one in table.marked]
        kept = {name: list(compress(values, answered)) for name, values in kept.items()}
    told = table.target.told(kept, table.threshold) if kept[table.target.column] else "all withheld"
    now = scans if now is None else now
    resumed = f", {now} of them now" if now < scans else ""
    print(
        f"\n{scans} {'scan' if scans == 1 else 'scans'}{resumed} in {table.seconds:.1f} s "
        f"({now / table.seconds:.1f} per second): {told}"
    )
    print("".join(f"  ! {line}\n" for line in (*_strangers(table), *_seen(table), *caveats)), end="")
    if left_out:
        print(f"  LEFT OUT     {len(left_out)} of {scans + len(left_out)} scans that can't be used: {beside}")
    if table.strangers is not None and table.strangers.limit and table.unknown:
        print(f"  unlike the training's: {table.unknown}")
    print(f"  predictions  {table.path}")
    if (pictures := _draw_strangers(table)) is not None:
        print(f"  strangers    {pictures}")
    if (samples := table.path.with_name(SAMPLES)).is_file():
        print(f"  samples      {samples}")
    print(f"  {DISCLAIMER}", flush=True)


def _strangers(table: PredictionTable) -> list[str]:
    """How many scans are unlike the training's; where that is known, and so are few of ordinary ones."""
    marked, strangers = sum(table.marked), table.strangers
    if not marked or strangers is None or isinstance(strangers.reference, str):
        return []
    means = "are withheld" if table.withhold else "mean nothing"
    shown = [(one.percentile, one.name) for one in strangers.shown]
    if not shown:  # of rows that other processes have predicted
        unlike = zip(table.column(UNLIKE[0]), table.column("subject"), strict=True)
        shown = nlargest(_NAMED, compress(unlike, table.marked))
    farthest = ", ".join(f"{name} ({percentile:.1f})" for percentile, name in shown[:_NAMED])
    return [
        f"UNLIKE THE TRAINING'S: {marked} of {len(table.marked)} scans are above percentile {strangers.limit:g} of the "
        f"{strangers.reference.validation} validation scans (column unlike), as {100 - strangers.limit:g} % of "
        f"ordinary scans are; their predictions {means}: {farthest}{' and others' * (marked > _NAMED)}."
    ]


def _draw_strangers(table: PredictionTable) -> Path | None:
    path = table.path.with_name(STRANGERS)
    path.unlink(missing_ok=True)
    figure = table.strangers.figure() if table.strangers is not None else None
    return None if figure is None else save_figure(figure, path)


def _seen(table: PredictionTable) -> list[str]:
    """How many of the subjects the checkpoint saw, as far as it can be known."""
    if "seen_in_training" not in table.columns:
        return []
    people = dict(zip(table.column("subject"), table.column("seen_in_training"), strict=True))
    counts, of = Counter(people.values()), f"of {len(people)} {'subject' if len(people) == 1 else 'subjects'}"
    told = {
        "yes": f"SEEN IN TRAINING: {counts['yes']} {of}; their predictions say nothing about other subjects.",
        "unknown": f"For {counts['unknown']} {of} it is not known whether the checkpoint saw them in training.",
    }
    return [line for answer, line in told.items() if counts[answer]]


def _check_place(path: Path) -> None:
    folder = next(parent for parent in path.absolute().parents if parent.exists())
    if not folder.is_dir() or not os.access(folder, os.W_OK):
        reason = "is not a folder" if not folder.is_dir() else "is read-only"
        raise MonaiCaeError(f"can't write {path} ({folder} {reason}): choose another --output_dir")
