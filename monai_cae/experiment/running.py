"""Have an engine do the steps of an experiment, each of which is recorded when it is done.

In process they are done in the order of the parts. Other engines get each as soon as what it needs is done: its
autoencoder, the steps that write to the same folder, and for a network that is chosen all scores of the candidates.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext, suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from monai_cae.cluster.address import engine_of, entered
from monai_cae.cluster.engine import Done, Engine, NotDone, Task
from monai_cae.errors import MonaiCaeError
from monai_cae.experiment.checking import evaluate
from monai_cae.experiment.plan import SEARCH, STAGES, Part, Plan, Settings, Step
from monai_cae.experiment.searching import search
from monai_cae.experiment.selecting import score_inner
from monai_cae.experiment.space import told
from monai_cae.experiment.wording import readable
from monai_cae.networks import read_checkpoint
from monai_cae.targets import Target
from monai_cae.terminal import Overall, duration, say
from monai_cae.tracking import TrackedRun, without_credentials
from monai_cae.tracking.lending import lend, take_over, write_empty, writing_to
from monai_cae.training.stages.earlier import files_of
from monai_cae.training.stages.run import write_record

_SHOWN = {"val_psnr": "validation PSNR {:.2f} dB", "test_accuracy": "accuracy {:.3f}", "test_auc": "AUC {:.3f}"}
_SHOWN |= {"test_mae": "mean absolute error {:.3g}", "test_r2": "R2 {:.3f}"}
Record = dict[str, Any]


def run_steps(
    plan: Plan,
    parts: Sequence[Part],
    done: Mapping[Part, Record],
    target: Target,
    engine: Engine,
    tracked: TrackedRun | None,
) -> None:
    """Do what is left of an experiment.

    Args:
        plan: of the experiment.
        parts: of it, whose datalists are written.
        done: part -> step -> its settings, results and seconds; gets those that are done now.
        target: what is predicted.
        engine: does the steps, entered.
        tracked: the experiment's run, open; needed for workers.

    Raises:
        MonaiCaeError: steps have failed; in process the first one's own error, elsewhere after all others are done.
    """
    if tracked and not engine.here:  # a login is nobody's business there
        uri = without_credentials(plan.tracked["tracking_uri"])
        plan = replace(plan, tracked={**plan.tracked, "tracking_uri": uri})
        write_empty(tracked, _empty(plan))
    steps = [step.name for part in parts for step in plan.steps(part) if step.name not in done[part]]
    try:
        with Overall(steps, 1 if engine.here else engine.workers).shown() as progress:
            running = _Running(plan, parts, done, target, engine, tracked, progress)
            for one in engine.run(running.in_order() if engine.here else running.as_possible()):
                running.record(one)
    except (KeyboardInterrupt, SystemExit):
        if not engine.here:  # a stage of this process says so itself
            print("interrupted: the same command with --resume true continues", file=sys.stderr, flush=True)
        raise
    finally:
        _empty(plan).unlink(missing_ok=True)
    if running.failed:
        tried = sum(not isinstance(error, NotDone) for error in running.failed.values())
        left = len(running.failed) - tried
        more = f", and {left} that need them are left" if left else ""
        raise MonaiCaeError(
            f"{tried} step{'s' * (tried != 1)} failed{more}: what is finished is kept; the same command with --resume "
            "true does the rest"
        )


def check_cluster(cluster: str, plan: Plan) -> None:
    """Refuse a `--cluster` that can't be, before the sets are made; see `monai_cae.cluster.address.engine_of`."""
    engine_of(cluster, gpus=_on_gpu(plan.shared))


def engine_for(cluster: str, plan: Plan) -> AbstractContextManager[Engine]:
    """The engine that `--cluster` names, for the steps of a plan; see `monai_cae.cluster.address.entered`."""
    reads = {"the data": Path(plan.shared["dataset_dir"]), "the configs": Path(plan.configs)}
    return entered(cluster, reads=reads, writes=plan.output, gpus=_on_gpu(plan.shared))


def run_step(plan: Plan, step: Step, target: Target) -> Record:
    """Do a step in this process.

    Args:
        plan: of the experiment.
        step: one of its steps.
        target: what is predicted.

    Returns:
        `results`: stage -> results; and the `seconds` that it took.
    """
    started = time.perf_counter()
    if SEARCH in step.stages:
        results = search(plan, step, target)
    elif step.inner:
        results = score_inner(plan, step, target)
    else:
        results = {stage: evaluate(plan, step, stage, given)[0] for stage, given in step.stages.items()}
    return {"results": results, "seconds": time.perf_counter() - started}


def run_step_elsewhere(plan: Plan, step: Step, target: Target) -> Record:
    """The same on a worker, which may be the second one to try: it goes on from what the first has left. MLflow's runs
    go to a database in the folder of the step, which `run_steps` takes over."""
    changed = {}
    for stage, settings in step.stages.items():
        own: Settings = {"device": "cuda"} if _on_gpu(settings) else {}  # the one that the worker has
        if "resume" in settings and files_of(stage, Path(settings["output_dir"])):
            own["resume"] = True
        changed[stage] = {**settings, **own}
    with nullcontext() if _tells_nothing(step) else writing_to(_folder(step), _empty(plan)):
        return run_step(plan, replace(step, stages=changed), target)


def begun(folders: Iterable[Path]) -> list[str]:
    """IDs of the MLflow runs that resume points in the folders of steps go on with."""
    found = []
    for path in (path for folder in folders for path in folder.glob("models/resume_*.pt")):
        with suppress(MonaiCaeError, KeyError, TypeError):  # the stage tells what is wrong with it
            found.append(str(read_checkpoint(path)["run_id"]))
    return found


def named(part: Part) -> str:
    """A part as people read it: "repeat 1, fold 2"."""
    return part.folder.replace("_", " ").replace("/", ", ")


@dataclass
class _Running:
    plan: Plan
    parts: Sequence[Part]
    done: Mapping[Part, Record]
    target: Target
    engine: Engine
    tracked: TrackedRun | None
    progress: Overall
    given: dict[str, tuple[Part, Step]] = field(default_factory=dict)  # to the engine, by the task's key
    failed: dict[str, Exception] = field(default_factory=dict)

    def in_order(self) -> Iterator[Task]:
        """Tasks for this process, with the lines that are printed before each."""
        for part in self.parts:
            say(f"{named(part)} (seed {part.seed})")
            for step in self.plan.steps(part):
                if step.chosen_from:
                    say(f"  {'chosen':<{self._column(part)}}{self._chosen(part)}")
                if step.name in self.done[part]:
                    say(f"  {readable(step.name):<{self._column(part)}}done before")
                else:
                    self.progress.start(f"{named(part)}, {readable(step.name)}")
                    yield self._task(part, step, ())

    def as_possible(self) -> Iterator[Task | None]:
        """Tasks for workers: first all that is known, then what depends on a choice, as soon as that is made."""
        later: dict[Part, list[str]] = {}
        inner: dict[Part, list[str]] = {}
        for part in self.parts:
            before = sum(step.name in self.done[part] for step in self.plan.steps(part))
            if before:
                say(f"  {named(part)}: {before} step{'s' * (before != 1)} done before")
            for step, after in _with_needs(self.plan.steps(part)):
                if step.name in self.done[part]:
                    continue
                if step.inner:
                    inner.setdefault(part, []).append(step.name)
                waits = bool(step.chosen_from and inner.get(part)) or not {*later.get(part, ())}.isdisjoint(after)
                if waits:
                    later.setdefault(part, []).append(step.name)
                else:
                    yield self._task(part, step, after)
        while later:
            ready = [part for part in later if self._ended(part, inner[part])]
            if not ready:
                yield None
            for part in ready:
                if all(name in self.done[part] for name in inner[part]):
                    say(f"  {named(part)}, chosen: {self._chosen(part)}")
                names = later.pop(part)
                for step, after in _with_needs(self.plan.steps(part)):  # with the settings that are known now
                    if step.name in names:
                        yield self._task(part, step, (*after, *inner[part]) if step.chosen_from else after)

    def record(self, one: Done) -> None:
        """What became of a task: recorded, and told."""
        part, step = self.given.pop(one.key)
        if one.error and self.engine.here:
            raise one.error
        if self.tracked and not self.engine.here and not _tells_nothing(step) and not isinstance(one.error, NotDone):
            take_over(self.tracked, [_folder(step)])
        if one.error:
            self.failed[one.key] = one.error
            self._tell_failure(part, step, one)
            return
        results, seconds = one.value["results"], one.value["seconds"]
        self.done[part][step.name] = {"settings": step.compared, "results": results, "seconds": seconds}
        write_record(self.plan.record_of(part), self.done[part])
        told = f"{duration(seconds):<10}{_outcome(results)}".rstrip()
        if self.engine.here:
            self.progress.end()
            say(f"  {readable(step.name):<{self._column(part)}}{told}")
        else:
            self.progress.ended(step.name, seconds)
            say(f"  {f'{named(part)}, {readable(step.name)}':<{self._column(part) + 18}}{told}")
            self._show(one.log)

    def _tell_failure(self, part: Part, step: Step, one: Done) -> None:
        name = f"{named(part)}, {readable(step.name)}"
        if isinstance(one.error, NotDone):
            say(f"  {name}: not done, as it needs {readable(str(one.error).rpartition('/')[2])}")
            return
        say(f"  {name}: failed: {one.error}")
        self._show(one.log)

    def _show(self, log: str) -> None:
        for line in filter(str.strip, log.splitlines()):
            say(f"    | {line}")

    def _task(self, part: Part, step: Step, after: Sequence[str]) -> Task:
        key = f"{part.folder}/{step.name}"
        self.given[key] = part, step
        if self.engine.here:
            return Task(key, run_step, (self.plan, step, self.target))
        if self.tracked and not _tells_nothing(step):
            lend(self.tracked, _folder(step), _empty(self.plan), begun([_folder(step)]))
        needs = {"GPU": 1.0} if any(map(_on_gpu, step.stages.values())) else {}
        first = tuple(f"{part.folder}/{name}" for name in after if name not in self.done[part])
        return Task(key, run_step_elsewhere, (self.plan, step, self.target), first, needs)

    def _chosen(self, part: Part) -> str:
        found = self.plan.searched(part)
        return told(found["params"]) if found else readable(self.plan.chosen(part))

    def _ended(self, part: Part, names: Sequence[str]) -> bool:
        return all(name in self.done[part] or f"{part.folder}/{name}" in self.failed for name in names)

    def _column(self, part: Part) -> int:
        return max(20, *(len(readable(step.name)) + 2 for step in self.plan.steps(part)))


def _with_needs(steps: Iterator[Step]) -> Iterator[tuple[Step, tuple[str, ...]]]:
    """Steps with the names of those that must be done before: the last that writes to the same folder, and those of
    the autoencoder that is read."""
    last: dict[Path, str] = {}
    trained: dict[Path, str] = {}
    for step in steps:
        folder = _folder(step)
        read = {Path(given["pretrained"]) for given in step.stages.values() if "pretrained" in given}
        needed = [last[folder]] if folder in last else []
        needed += [trained[path] for path in read if path in trained]
        yield step, tuple(dict.fromkeys(needed))
        last[folder] = step.name
        if STAGES[0] in step.stages:
            trained[folder / "models" / "autoencoder.pt"] = step.name


def _tells_nothing(step: Step) -> bool:
    """It has no MLflow run."""
    return step.inner and SEARCH not in step.stages


def _folder(step: Step) -> Path:
    """Where it writes."""
    return Path(next(iter(step.stages.values()))["output_dir"])


def _empty(plan: Plan) -> Path:
    """An empty database for the workers' MLflow runs."""
    return plan.output / ".empty.db"


def _on_gpu(settings: Mapping[str, Any]) -> bool:
    return str(settings.get("device", "")).startswith("cuda")


def _outcome(results: Mapping[str, Mapping[str, Any]]) -> str:
    """Of a step, what its last stage has scored, in a few words."""
    *_, last = results.values()
    shown = {name: last[name] for name in _SHOWN if isinstance(last.get(name), float)}
    return ", ".join(_SHOWN[name].format(value) for name, value in shown.items())
