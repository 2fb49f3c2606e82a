"""Terminal output: lines as wide as the terminal, and one progress bar for all trainers."""

from __future__ import annotations

import shutil
import sys
import textwrap
import time
from collections import defaultdict
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from statistics import mean
from typing import Any

from tqdm import tqdm

_MINUTE, _HOUR = 60, 3600


def width() -> int | None:
    """Columns of the terminal; None where the output goes elsewhere."""
    return shutil.get_terminal_size().columns if sys.stdout.isatty() else None


def say(text: str, indent: str = "    ") -> None:
    """Print; on a terminal as wide as it is, without breaks in words, else in one line for whoever searches it.

    Args:
        text: one line.
        indent: of the lines that it is broken into, after the first.
    """
    if columns := width():
        text = textwrap.fill(text, columns, subsequent_indent=indent, break_long_words=False, break_on_hyphens=False)
    tqdm.write(text, file=sys.stdout)
    sys.stdout.flush()  # a log shows what runs now, not what was printed a buffer ago


def progress_bar(title: str, total: int, unit: str, initial: int = 0, hidden: bool = False) -> Any:
    """A bar of its own, or inside an experiment a part of the experiment's: both have what `tqdm` has of `update`,
    `set_postfix`, `set_description` and `close`."""
    overall = _OVERALL.get()
    if overall is not None:
        return overall.part(title, total, initial)
    return tqdm(
        total=total, initial=initial, desc=title, unit=unit, mininterval=1.0, dynamic_ncols=True, disable=hidden or None
    )


class Overall:
    """The bar of an experiment: which step, how far, and how long it takes from here.

    A step takes as long as the steps of its kind that are done; one of a new kind as long as it is on its way to, if
    no trainer stops early; and before that, as the others do on average.

    Args:
        steps: the kind of each step that is to be run, in order; the same kind in every repeat.
        workers: how many steps run at a time; of several, `ended` tells which one is done.
    """

    def __init__(self, steps: Sequence[str], workers: int = 1) -> None:
        self.steps = list(steps)
        self.workers = workers
        self.done = 0
        self._took: dict[str, list[float]] = defaultdict(list)
        self._started = time.monotonic()
        self._bar: Any = None

    @contextmanager
    def shown(self) -> Iterator[Overall]:
        """Show it, and have every `progress_bar` of the block move it."""
        form = "{desc} |{bar:12}| {percentage:3.0f}%{postfix}"
        self._bar = tqdm(total=1.0, bar_format=form, dynamic_ncols=True, disable=None, leave=False)
        token = _OVERALL.set(self)
        try:
            yield self
        finally:
            _OVERALL.reset(token)
            self._bar.close()

    def start(self, title: str) -> None:
        """Begin a step: title, such as "repeat 2, network". Without a terminal a line says so, as no bar does."""
        self._title, self._step_started = title, time.monotonic()
        self.show(title, 0.0)
        if self._bar.disable:
            left = self.left(0.0)
            say(f"  step {self.done + 1} of {len(self.steps)}" + (f", about {duration(left)} left" if left else ""))

    def end(self) -> None:
        """The step is done."""
        self._took[self.steps[self.done]].append(time.monotonic() - self._step_started)
        self.done += 1

    def ended(self, kind: str, seconds: float) -> None:
        """One of several that run is done. Args: kind: of the step; seconds: that it took."""
        place = self.steps.index(kind, self.done)
        self.steps[self.done], self.steps[place] = self.steps[place], self.steps[self.done]
        self._took[kind].append(seconds)
        self.done += 1
        self._step_started = time.monotonic()
        if self.done < len(self.steps):
            self.show(f"{self.workers} at a time", 0.0)

    def part(self, title: str, total: int, initial: int) -> _Part:
        """What a trainer of the running step moves."""
        return _Part(self, f"{self._title}: {title}", total, initial)

    def show(self, title: str, fraction: float, metrics: str = "") -> None:
        """Args: title: what runs; fraction: of the step's running trainer that is done; metrics: its latest."""
        elapsed, left = time.monotonic() - self._started, self.left(fraction)
        self._bar.n = elapsed / (elapsed + left) if left else self.done / len(self.steps)
        self._bar.set_description_str(f"{self.done + 1}/{len(self.steps)} {title}", refresh=False)
        told = [f"about {duration(left)} left"] if left else []
        self._bar.set_postfix_str(", ".join([*told, *([metrics] if metrics else [])]), refresh=True)

    def left(self, fraction: float) -> float:
        """Seconds to the end, as far as it can be known; 0 where it can't.

        Args:
            fraction: of the running step.
        """
        known = {kind: mean(took) for kind, took in self._took.items()}
        running = time.monotonic() - self._step_started
        kind = self.steps[self.done]
        if kind not in known and fraction:
            known[kind] = running / fraction
        if not known:
            return 0.0
        usual = mean(known.values())
        rest = sum(known.get(kind, usual) for kind in self.steps[self.done + 1 :])
        return (rest + max(0.0, known.get(kind, usual) - running)) / self.workers


class _Part:
    def __init__(self, overall: Overall, title: str, total: int, initial: int) -> None:
        self.overall, self.title, self.total, self.n = overall, title, total, initial
        self.metrics = ""

    def set_postfix(self, metrics: dict[str, Any], refresh: bool = True) -> None:
        self.metrics = ", ".join(f"{name}={value}" for name, value in metrics.items())

    def set_description(self, title: str) -> None:
        """A trainer that has stopped early says so; the experiment's bar goes on."""

    def update(self, n: int = 1) -> None:
        self.n += n
        self.overall.show(self.title, self.n / self.total if self.total else 0.0, self.metrics)

    def close(self) -> None:
        """The bar is the experiment's."""


_OVERALL: ContextVar[Overall | None] = ContextVar("overall", default=None)


def duration(seconds: float) -> str:
    """In the unit that people would use: "40 s", "12 min", "3.5 h"."""
    if seconds < 2 * _MINUTE:
        return f"{seconds:.0f} s"
    return f"{seconds / _MINUTE:.0f} min" if seconds < 2 * _HOUR else f"{seconds / _HOUR:.1f} h"
