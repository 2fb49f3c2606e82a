"""How far an experiment is: what its folder records as done, what runs, what is left, and for how long."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import mean
from typing import Any, Literal

from filelock import FileLock, Timeout

from monai_cae.errors import MonaiCaeError
from monai_cae.files import unmarked
from monai_cae.terminal import duration

STATE = "experiment.json"
_STAGES = ("pretrain", "train", "evaluate", "baselines")


@dataclass(frozen=True)
class Status:
    """Where an experiment is.

    Attributes:
        output: its folder.
        state: it may run, have ended before its end, or be finished.
        done: part -> step -> seconds that it took, in the order of the work.
        left: part and step of those that are not recorded as done.
        running: those of them that run; on a cluster several may.
        planned: whether the folder records what is left; jobs of an array and older versions don't.
        since: seconds that a step which runs alone has taken so far.
    """

    output: Path
    state: Literal["finished", "running", "stopped"]
    done: Mapping[str, Mapping[str, float]]
    left: Sequence[tuple[str, str]]
    running: Sequence[tuple[str, str]]
    planned: bool
    since: float

    @property
    def seconds(self) -> float:
        """That the steps took which are done."""
        return sum(sum(steps.values()) for steps in self.done.values())

    @property
    def estimate(self) -> float | None:
        """Seconds to the end, with as many steps at a time as now: each takes as long as its like in other parts did,
        or as the others on average; None where no step is done."""
        took: dict[str, list[float]] = {}
        for steps in self.done.values():
            for name, seconds in steps.items():
                took.setdefault(name, []).append(seconds)
        if not took:
            return None
        known = {name: mean(times) for name, times in took.items()}
        usual = mean(known.values())
        first, *others = (known.get(name, usual) for _, name in self.left) if self.left else (0.0,)
        return (max(0.0, first - self.since) + sum(others)) / max(1, len(self.running))


def read_status(output: Path) -> Status:
    """Look at an experiment's folder; nothing is changed in it, and whoever works there is not disturbed.

    Raises:
        MonaiCaeError: no experiment has been started there, or its record is broken.
    """
    of_parts = sorted(output.glob("repeat_*/**/steps.json"))
    if not (output / STATE).is_file() and not of_parts:  # jobs of an array share no file
        alone = [stage for stage in _STAGES if (output / f"results_{stage}.json").is_file()]
        if alone:
            raise MonaiCaeError(f"{output} has no experiment but stages that were run alone: {', '.join(alone)} done")
        raise MonaiCaeError(f"no experiment in {output}: give the output folder of `monai-cae run`")
    told = _read(output / STATE) if (output / STATE).is_file() else {}
    steps = _planned(told.get("steps") or {}, output / STATE)
    folders = list(steps) or [path.parent.relative_to(output).as_posix() for path in of_parts]
    done, latest = {}, 0.0
    for folder in folders:
        path = output / folder / "steps.json"
        done[folder] = _took(_read(path), path) if path.is_file() else {}
        latest = max(latest, path.stat().st_mtime if path.is_file() else 0.0)
    left = [(part, name) for part, names in steps.items() for name in names if name not in done[part]]
    whole = _locked(output)
    running = _running(output, left) or (left[:1] if whole else [])
    state: Literal["finished", "running", "stopped"] = "running" if whole or running else "stopped"
    if told.get("finished") and not left and state != "running":
        state = "finished"
    began = max(latest, (output / STATE).stat().st_mtime) if len(running) == 1 and told else time.time()
    return Status(output, state, done, left, running, bool(steps), time.time() - began)


def status_lines(status: Status) -> list[str]:
    """What is printed on the terminal."""
    count = sum(map(len, status.done.values()))
    words = {"finished": "finished", "running": "running", "stopped": "not running, and not finished"}
    lines = [f"experiment in {status.output}: {words[status.state]}", ""]
    of = f" of {count + len(status.left)}" if status.planned else ""
    lines.append(f"  done      {count}{of} steps in {duration(status.seconds)}")
    left = [one for one in status.left if one not in status.running]
    for title, one in zip(["running", *[""] * len(status.running)], status.running, strict=False):
        since = f", for {duration(status.since)}" if len(status.running) == 1 else ""
        lines.append(f"  {title:<10}{_named(*one)}{since}")
    if status.state == "running" and status.planned and not status.left:
        lines.append("  running   the comparison of all methods, and the page")
    if status.left:
        estimate = "" if status.estimate is None else f"; to the end about {duration(status.estimate)}"
        lines.append(f"  left      {len(left)} step{'s' * (len(left) != 1)}{estimate}")
    elif not status.planned and status.state != "finished":
        lines.append("  left      not recorded: jobs of an array, or an older version of monai-cae, have begun it")
    lines.append("")
    for part, steps in status.done.items():
        missing = [name for which, name in status.left if which == part]
        lines.append(f"  {_part(part):<16}  {', '.join(_told(steps, missing)) or '-'}")
    if status.state == "finished":
        lines += ["", f"  page      {status.output / 'report.html'}"]
    elif status.state == "stopped":
        lines += ["", "  the same command with --resume true goes on with what is left"]
    return lines


def _told(done: Mapping[str, float], left: Sequence[str]) -> list[str]:
    """Each step's time, "-" where it is left; steps of one inner fold together."""
    steps: dict[str, list[float | None]] = {}
    for name, seconds in [*done.items(), *((name, None) for name in left)]:
        steps.setdefault(name.partition("/")[0], []).append(seconds)
    told = []
    for name, times in steps.items():
        took = [seconds for seconds in times if seconds is not None]
        of = f"{len(took)} of {len(times)} in " if len(times) > 1 and took else ""
        told.append(f"{name.replace('_', ' ')} {of}{duration(sum(took)) if took else '-'}")
    return told


def _named(part: str, step: str) -> str:
    return f"{_part(part)}, {step.replace('_', ' ')}"


def _part(folder: str) -> str:
    return folder.replace("_", " ").replace("/", ", ")


def _planned(steps: Any, path: Path) -> dict[str, list[str]]:
    if not isinstance(steps, dict) or not all(isinstance(names, list) for names in steps.values()):
        raise MonaiCaeError(f"{path} is not what an experiment writes: steps")
    return {str(part): [str(name) for name in names] for part, names in steps.items()}


def _took(recorded: Mapping[str, Any], path: Path) -> dict[str, float]:
    found = {}
    for name, step in recorded.items():
        seconds = step.get("seconds", 0) if isinstance(step, dict) else None
        if isinstance(seconds, bool) or not isinstance(seconds, (int, float)):
            raise MonaiCaeError(f"{path} is not what an experiment writes: {name}")
        found[name] = float(seconds)
    return found


def _read(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise MonaiCaeError(f"{path} is not readable ({error}): it may be written just now; try again") from error
    if not isinstance(content, dict):
        raise MonaiCaeError(f"{path} is not what an experiment writes")
    return unmarked(content, path)


def _running(output: Path, left: Sequence[tuple[str, str]]) -> list[tuple[str, str]]:
    """Whose folder a process is writing to; of steps that share one, the first."""
    first: dict[Path, tuple[str, str]] = {}
    for part, step in left:
        first.setdefault(output / part / _folder_of(step), (part, step))
    return [step for folder, step in first.items() if _locked(folder)]


def _folder_of(step: str) -> Path:
    """Where it writes, below the folder of its part: as `Plan` has it."""
    inner, _, variant = step.rpartition("/")
    if variant == "pretrain":  # the network's, or a variant's own autoencoder
        inner, variant = "", inner
    return Path() if variant in ("", "network", "baselines") else Path(inner, "variants", variant)


def _locked(output: Path) -> bool:
    """Whether a process writes there: whoever does holds the lock."""
    path = output / ".lock"
    if not path.is_file():
        return False
    try:
        with FileLock(path, timeout=0):
            return False
    except Timeout:
        return True
    except (OSError, NotImplementedError):  # a folder that may only be read, or a file system without locks
        return False
