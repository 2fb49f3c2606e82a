"""Terminal output: lines as wide as the terminal, and one kind of progress bar, or of lines in a log."""

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


def progress_bar(
    title: str, total: int, unit: str, initial: int = 0, hidden: bool = False, passing: bool = False
) -> Any:
    """A bar of its own, or inside an experiment a part of the experiment's; where stderr is no terminal, a line a
    minute there. All have what `tqdm` has of `update`, `set_postfix`, `set_description` and `close`.

    Args:
        title, total, unit, initial: as `tqdm` has them.
        hidden: show nothing.
        passing: of a bar of its own: from the third second on, and gone at the end.
    """
    overall = _OVERALL.get()
    if overall is not None and not hidden:
        return overall.part(title, total, unit, initial)
    if hidden or sys.stderr.isatty():
        when = {"delay": 2, "leave": False} if passing else {"mininterval": 1.0}
        return tqdm(total=total, initial=initial, desc=title, unit=unit, dynamic_ncols=True, disable=hidden, **when)
    return _Lines(title, total, unit, initial)


class _Lines:
    """What a log gets in place of a bar: how far, how fast, the latest metrics, and how long it takes from here."""

    def __init__(self, title: str, total: int, unit: str, initial: int) -> None:
        self.title, self.total, self.unit, self.n = title, total, unit, initial
        self._initial, self._metrics = initial, ""
        self._started = self._told = time.monotonic()

    def set_postfix(self, metrics: dict[str, Any], refresh: bool = True) -> None:
        self._metrics = _told(metrics)

    def set_description(self, title: str) -> None:
        self.title = title

    def update(self, n: int = 1) -> None:
        self.n += n
        if (now := time.monotonic()) - self._told < _MINUTE:
            return
        self._told = now
        speed = (self.n - self._initial) / (now - self._started)
        told = [f"{self.n} of {self.total} {self.unit}s", *([f"{speed:.1f} per second"] if speed >= 1 else [])]
        told += [self._metrics] if self._metrics else []
        told += [f"about {duration((self.total - self.n) / speed)} left"] if self.n < self.total else []
        print(f"  {self.title}: {', '.join(told)}", file=sys.stderr, flush=True)

    def close(self) -> None:
        """Nothing stays open."""


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
            told = f", about {duration(left)} left" if left else ""
            say(f"  step {self.done + 1} of {len(self.steps)}: {title}{told}")

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

    def part(self, title: str, total: int, unit: str, initial: int) -> _Part | _Lines:
        """What a trainer of the running step moves."""
        title = f"{self._title}: {title}"
        return _Lines(title, total, unit, initial) if self._bar.disable else _Part(self, title, total, initial)

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
        self.metrics = _told(metrics)

    def set_description(self, title: str) -> None:
        """A trainer that has stopped early says so; the experiment's bar goes on."""

    def update(self, n: int = 1) -> None:
        self.n += n
        self.overall.show(self.title, self.n / self.total if self.total else 0.0, self.metrics)

    def close(self) -> None:
        """The bar is the experiment's."""


_OVERALL: ContextVar[Overall | None] = ContextVar("overall", default=None)


def _told(metrics: dict[str, Any]) -> str:
    return ", ".join(f"{name}={value}" for name, value in metrics.items())


def duration(seconds: float) -> str:
    """In the unit that people would use: "40 s", "12 min", "3.5 h"."""
    if seconds < 2 * _MINUTE:
        return f"{seconds:.0f} s"
    return f"{seconds / _MINUTE:.0f} min" if seconds < 2 * _HOUR else f"{seconds / _HOUR:.1f} h"
