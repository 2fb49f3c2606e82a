"""A search for settings: in every part Optuna draws trials, which are scored in inner folds, never on the test set."""

from __future__ import annotations

import logging
import math
import shutil
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import replace
from pathlib import Path
from typing import Any

import pandas as pd

from monai_cae.errors import MonaiCaeError
from monai_cae.experiment.earlier import JOURNAL
from monai_cae.experiment.plan import SEARCH, STAGES, Part, Plan, Selection, Step
from monai_cae.experiment.record import NETWORK
from monai_cae.experiment.selecting import score_inner
from monai_cae.files import replacing
from monai_cae.targets import Target
from monai_cae.terminal import progress_bar
from monai_cae.tracking import TrackedRun

_INSTALL = "a search needs Optuna: pip install 'monai-cae[search]'"
_STATES = {"COMPLETE": "finished", "PRUNED": "pruned", "FAIL": "failed"}
_current: ContextVar[Any] = ContextVar("trial")  # the one that an epoch's score belongs to


def search(plan: Plan, step: Step, target: Target) -> dict[str, dict[str, Any]]:
    """Do the trials of a part that are left, each in all inner folds unless it is pruned before.

    The study is a journal file in the step's folder, which several processes may share. A trial that was interrupted
    does not count. Every trial is drawn with a seed of its own, so a search that was interrupted ends like
    one that was not.

    Args:
        plan: with `select.space`.
        step: a part's search.
        target: what is predicted.

    Returns:
        What steps.json keeps, by "search": the number of the best `trial`, its values in the study (`params`) and as
        settings (`changed`), and its mean score in the inner folds (`inner`).

    Raises:
        MonaiCaeError: Optuna is not installed, the journal can't be written, or no trial has a score.
    """
    optuna, selection, given = _optuna(), plan.select, step.stages[SEARCH]
    assert selection is not None and selection.space is not None
    plan, part = replace(plan, shared={**plan.shared, "device": given["device"]}), Part(**given["part"])
    journal = plan.output / part.folder / SEARCH / JOURNAL
    _drop_half_a_line(journal)
    study = _study(plan.output / part.folder, selection)
    for stale in study.get_trials(deepcopy=False, states=[optuna.trial.TrialState.RUNNING]):
        study.tell(stale.number, state=optuna.trial.TrialState.FAIL)
    done = len(_counted(study))
    bar = progress_bar("trials", selection.trials, "trial", initial=done)
    for number in range(done + 1, selection.trials + 1):
        study.sampler = _sampler(selection.sampler, 1000 * (part.seed + part.fold) + number)
        try:
            _try(plan, part, target, study, number)
        except OSError as error:
            what = f"can't write {journal} ({error.strerror or error})"
            raise MonaiCaeError(f"{what}: free some space, and give --resume true") from error
        bar.update(1)
    bar.close()
    finished = [trial for trial in _counted(study) if trial.state.name == "COMPLETE"]
    if not finished:
        reasons = [trial.user_attrs["error"] for trial in _counted(study) if "error" in trial.user_attrs]
        raise MonaiCaeError(f"no trial of the search in {part.folder} has a score: {reasons[-1] if reasons else ''}")
    best = (min if selection.lower else max)(finished, key=lambda trial: trial.value)
    changed = selection.space.changed(best.params)
    found = {"trial": best.user_attrs["number"], "params": best.params, "changed": changed, "inner": best.value}
    return {SEARCH: found}


def _try(plan: Plan, part: Part, target: Target, study: Any, number: int) -> None:
    """One trial, with an MLflow run of its own under the experiment's."""
    optuna, selection = _optuna(), plan.select
    assert selection is not None and selection.space is not None
    trial, began = study.ask(), time.perf_counter()
    trial.set_user_attr("number", number)
    changed = selection.space.suggested(trial)
    run = TrackedRun(
        tracking_uri=plan.tracked["tracking_uri"],
        experiment_name=plan.tracked["experiment_name"],
        stage="trial",
        name=f"{plan.cohort} {part.folder} trial {number}",
        parent_run_id=plan.tracked["parent_run_id"],
        params={f"{stage}#{name}": value for stage, one in changed.items() for name, value in one.items()},
        tags={"method": SEARCH, "repeat": str(part.repeat), "fold": str(part.fold)},
        output_dir=str(plan.output),
        cohort=str(plan.shared["dataset_dir"]),
    )
    train = plan.trial(part, number, changed, 1).stages[STAGES[1]]
    epochs, scores = int(train.get("max_epochs", plan.shared["max_epochs"])), []
    with run:
        try:
            for inner in range(1, selection.inner_folds + 1):
                step = plan.trial(part, number, changed, inner)
                with _watched(trial if inner == 1 else None):
                    (results,) = score_inner(plan, step, target, _watching(step, selection, target)).values()
                scores.append(float(results[f"test_{selection.metric}"]))
                mean = math.fsum(scores) / len(scores)
                run.log_metrics({f"inner_{selection.metric}": scores[-1], f"mean_{selection.metric}": mean}, step=inner)
                if math.isnan(mean):
                    raise MonaiCaeError(f"inner fold {inner} has no {selection.metric}: it has subjects of one class")
                trial.report(mean, epochs + inner)
                if inner < selection.inner_folds and trial.should_prune():
                    raise optuna.TrialPruned
        except optuna.TrialPruned:
            state, value = "PRUNED", None
        except MonaiCaeError as error:  # these settings can't be; the others may
            state, value = "FAIL", None
            trial.set_user_attr("error", str(error))
        else:
            state, value = "COMPLETE", mean
        trial.set_user_attr("inner", scores)
        trial.set_user_attr("seconds", time.perf_counter() - began)
        study.tell(trial, value, state=optuna.trial.TrialState[state])
        for inner in range(1, selection.inner_folds + 1):
            shutil.rmtree(plan.trial(part, number, changed, inner).stages[STAGES[1]]["output_dir"], ignore_errors=True)
        run.describe("", {"state": _STATES[state]})


def _watching(step: Step, selection: Selection, target: Target) -> list[str]:
    """Items of train.json that let a trial's first inner fold end early; none where no epoch has the score."""
    learn, metric = step.stages[STAGES[1]].get("learn", "two_stage"), f"val_{selection.metric}"
    if selection.pruner == "none" or learn == "linear_probe" or metric not in target.metrics():
        return []
    group, stage = ("frozen", "frozen") if learn in ("frozen", "last_layer") else ("validate", "train")
    return [f"$monai_cae.experiment.searching.watch(@{group}#evaluator, @{stage}#trainer, '{metric}')"]


def watch(evaluator: Any, trainer: Any, metric: str) -> None:
    """Let the current trial, if there is one, see each epoch's validation score, and end a training that it prunes.

    Args:
        evaluator: of the validation subjects.
        trainer: whose epochs count.
        metric: the evaluator's name of the score.
    """
    if (trial := _current.get(None)) is not None:
        from ignite.engine import Events
        from optuna_integration import PyTorchIgnitePruningHandler

        evaluator.add_event_handler(Events.COMPLETED, PyTorchIgnitePruningHandler(trial, metric, trainer))


@contextmanager
def _watched(trial: Any) -> Iterator[None]:
    """What a pruned training raises comes out of MONAI's wrapping, and is nothing to log."""
    token = _current.set(trial)
    logging.disable(logging.ERROR if trial is not None else logging.NOTSET)
    try:
        yield
    except RuntimeError as error:
        cause: BaseException | None = error
        while cause is not None and not isinstance(cause, _optuna().TrialPruned):
            cause = cause.__cause__
        if cause is None:
            raise
        raise cause from error
    finally:
        logging.disable(logging.NOTSET)
        _current.reset(token)


def trials_of(plan: Plan, parts: Sequence[Part]) -> pd.DataFrame:
    """Every trial of the experiment: a row each, in the order in which they were tried.

    Args:
        plan: with `select.space`.
        parts: whose searches have ended.

    Returns:
        Columns repeat, fold, trial, state, one for each parameter, inner_1 and so on, mean, seconds, error.
    """
    selection, rows = plan.select, []
    assert selection is not None and selection.space is not None
    for part in parts:
        for trial in _counted(_study(plan.output / part.folder, selection)):
            told = trial.user_attrs
            inner = {f"inner_{fold}": score for fold, score in enumerate(told.get("inner", []), start=1)}
            rows.append(
                {"repeat": part.repeat, "fold": part.fold, "trial": told["number"], "state": _STATES[trial.state.name]}
                | {one.name: trial.params.get(one.name) for one in selection.space.parameters}
                | {f"inner_{fold}": inner.get(f"inner_{fold}") for fold in range(1, selection.inner_folds + 1)}
                | {
                    "mean": trial.value if trial.state.name == "COMPLETE" else None,
                    "seconds": told.get("seconds"),
                    "error": told.get("error", ""),
                }
            )
    return pd.DataFrame(rows)


def importances(plan: Plan, parts: Sequence[Part]) -> pd.Series:
    """How much of the differences between trials each parameter explains (PED-ANOVA), mean over the parts.

    Args:
        plan, parts: see `trials_of`.

    Returns:
        Shares by parameter, the largest first; empty where no part has enough finished trials.
    """
    optuna, selection = _optuna(), plan.select
    assert selection is not None
    found = []
    for part in parts:
        study = _study(plan.output / part.folder, selection)
        if len({trial.value for trial in study.get_trials(deepcopy=False) if trial.state.name == "COMPLETE"}) > 1:
            evaluator = optuna.importance.PedAnovaImportanceEvaluator()
            found.append(pd.Series(optuna.importance.get_param_importances(study, evaluator=evaluator)))
    return pd.concat(found, axis=1).mean(axis=1).sort_values(ascending=False) if found else pd.Series(dtype=float)


def report_search(
    plan: Plan, parts: Sequence[Part], results: Sequence[Mapping[str, Any]], scores: pd.DataFrame
) -> tuple[dict[str, Any], pd.DataFrame]:
    """What every part's search has found, and by how much its inner scores are better than those on the test sets.

    Args:
        plan: with `select.space`.
        parts: of the experiment.
        results: what they left, see `protocol`.
        scores: of all methods, see `monai_cae.experiment.results.Results`.

    Returns:
        Plain data: `metric`, `inner_folds`, `tried` trials, `finished`, `pruned`, `failed`; `nested`, the score on the
        test sets; `optimism`, by how much the inner scores of what was chosen are better than its test scores, mean
        over the parts; `found`, for each part its trial, settings, inner and outer score; `importance`, see
        `importances`; `parameters`, whether each is drawn by its logarithm. And the trials, as in search.csv, which is
        written.
    """
    selection = plan.select
    assert selection is not None and selection.space is not None
    table = trials_of(plan, parts)
    found = []
    for part in results:
        best = part["steps"][SEARCH]["results"][SEARCH]
        outer = part["steps"][NETWORK]["results"][STAGES[2]][f"test_{selection.metric}"]
        found.append({"repeat": part["repeat"], "fold": part["fold"], **best, "outer": outer})
    best_of = {(one["repeat"], one["fold"]): one["trial"] for one in found}
    table["chosen"] = [
        int(best_of[row.repeat, row.fold] == row.trial) for row in table[["repeat", "fold", "trial"]].itertuples()
    ]
    with replacing(plan.output / "search.csv") as temporary:
        table.to_csv(temporary, index=False, float_format="%.6g")
    sign = -1 if selection.lower else 1
    told = {
        "metric": selection.metric,
        "lower": selection.lower,
        "inner_folds": selection.inner_folds,
        "parts": len(found),
        "tried": selection.trials,
        **{state: int((table["state"] == state).sum()) for state in _STATES.values()},
        "nested": float(scores.loc[(NETWORK, selection.metric), "mean"]),
        "optimism": sign * sum(one["inner"] - one["outer"] for one in found) / len(found),
        "found": found,
        "importance": importances(plan, parts).to_dict(),
        "parameters": {one.name: one.log for one in selection.space.parameters},
    }
    return told, table


def _study(folder: Path, selection: Selection) -> Any:
    optuna = _optuna()
    from optuna.storages.journal import JournalFileBackend

    path = folder / SEARCH / JOURNAL
    path.parent.mkdir(parents=True, exist_ok=True)
    storage = optuna.storages.JournalStorage(JournalFileBackend(str(path)))
    direction = "minimize" if selection.lower else "maximize"
    pruners = {
        "median": optuna.pruners.MedianPruner,
        "hyperband": optuna.pruners.HyperbandPruner,
        "none": optuna.pruners.NopPruner,
    }
    return optuna.create_study(
        storage=storage, study_name="part", direction=direction, pruner=pruners[selection.pruner](), load_if_exists=True
    )


def _drop_half_a_line(journal: Path) -> None:
    """What a full disk or a kill has left at its end, behind which nothing could be read."""
    if journal.is_file() and (content := journal.read_bytes()) and not content.endswith(b"\n"):
        with journal.open("rb+") as file:
            file.truncate(content.rfind(b"\n") + 1)


def _sampler(kind: str, seed: int) -> Any:
    optuna = _optuna()
    return optuna.samplers.TPESampler(seed=seed) if kind == "tpe" else optuna.samplers.RandomSampler(seed=seed)


def _counted(study: Any) -> list[Any]:
    """The trials that have ended by themselves."""
    ended = study.get_trials(deepcopy=False)
    return [trial for trial in ended if trial.state.is_finished() and "seconds" in trial.user_attrs]


def _optuna() -> Any:
    try:
        import optuna
    except ImportError as error:
        raise MonaiCaeError(_INSTALL) from error
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    return optuna
