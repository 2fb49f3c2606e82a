"""Nested selection: every part chooses its recipe by inner folds of the subjects outside its test set."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from monai_cae.data import Cohort, Scan, hashed_subjects
from monai_cae.data.splits.datalists import SETS
from monai_cae.data.splits.splitting import split_cohort
from monai_cae.errors import MonaiCaeError, suggestion
from monai_cae.experiment.checking import evaluate
from monai_cae.experiment.plan import STAGES, Part, Plan, Selection, Step
from monai_cae.experiment.record import NETWORK
from monai_cae.experiment.space import read_space
from monai_cae.files import replacing
from monai_cae.networks import labels_learned
from monai_cae.targets import Target
from monai_cae.training.engines.image_cache import cache_folder, remove_cache
from monai_cae.training.stages.earlier import files_of, remove
from monai_cae.training.stages.transfer import Transfer

MOST = 12  # candidates; the best of more is mostly the luckiest
SAMPLERS, PRUNERS = ("tpe", "random"), ("median", "hyperband", "none")
_DEFAULTS: Mapping[str, Any] = {
    "candidates": {}, "inner_folds": 3, "metric": "",
    "space": "", "trials": 0, "sampler": SAMPLERS[0], "pruner": PRUNERS[0],
}  # fmt: skip
_OF_CLASSES, _OF_NUMBERS = ("auc", "accuracy", "balanced_accuracy", "f1"), ("mae", "rmse", "r2", "pearson", "spearman")
_LOWER = ("mae", "rmse")
_TRAINED = ["$[step() for step in @run#0#steps]", "$@best.restore()"]  # without MLflow, audit, figures and codecs
# As the network itself predicts, but each image is encoded once for all candidates, and nobody looks for strangers.
_ENCODED: Mapping[str, Any] = {
    "unlike_limit": 0,
    "evaluator#network": "$@network.head",
    "dataloader#dataset": {
        "_target_": "monai_cae.training.EncodedDataset",
        "dataset": "@dataset",
        "encoder": "$@network.encoder",
        "inferer": "@inferer",
        "batch_size": "@batch_size",
        "summarise": "$@network.summarise",
    },
}
_SCORED = ["$@validation#evaluator.run() if isinstance(@threshold, str) else None", "$@evaluator.run()"]


def selection_of(given: Any, target: Target) -> Selection | None:
    """The setting `select`, checked but for what the candidates set, which is checked as a variant's is.

    Args:
        given: candidates, or the space and the trials of a search; inner_folds and metric. Without both nothing is
            chosen.
        target: what is predicted.

    Raises:
        MonaiCaeError: another setting, fewer than 2 or more than 12 candidates, a space that can't be, no number of
            trials or folds, or a metric that the target can't be chosen by.
    """
    if not isinstance(given, Mapping):
        raise MonaiCaeError(f"select must be settings such as candidates and inner_folds, not {given!r}")
    for name in given:
        if name not in _DEFAULTS:
            raise MonaiCaeError(f"unknown setting --select#{name}: {suggestion(name, _DEFAULTS, '--select#')}")
    candidates, folds, metric, space, trials, sampler, pruner = ({**_DEFAULTS, **given}[name] for name in _DEFAULTS)
    if trials and not space:
        raise MonaiCaeError("select#trials draws from select#space: name a file, or give --with search")
    if not space and not candidates and isinstance(candidates, (Mapping, list)):
        return None
    if not isinstance(candidates, Mapping) or not all(isinstance(one, Mapping) for one in candidates.values()):
        raise MonaiCaeError(
            f"select#candidates must be settings by name and stage, such as {{weak: {{train: {{penalty: ...}}}}}}, not "
            f"{candidates!r}"
        )
    target.require_scored(select=True)
    if space and candidates:
        raise MonaiCaeError("select has candidates and a space: leave one of them out")
    if space and (isinstance(trials, bool) or not isinstance(trials, int) or trials < 1):
        raise MonaiCaeError(f"select#trials must be a whole number, 1 or more, not {trials!r}")
    for word, value, words in (("sampler", sampler, SAMPLERS), ("pruner", pruner, PRUNERS)):
        if value not in words:
            raise MonaiCaeError(f"select#{word} must be one of {', '.join(words)}, not {value!r}")
    if not space and not 2 <= len(candidates) <= MOST:
        raise MonaiCaeError(f"select#candidates must be 2 to {MOST} recipes, not {len(candidates)}: name fewer or more")
    if isinstance(folds, bool) or not isinstance(folds, int) or folds < 2:
        raise MonaiCaeError(f"select#inner_folds must be a whole number, 2 or more, not {folds!r}")
    known = _OF_CLASSES if target.binary else _OF_NUMBERS
    metric = metric or known[0]
    if metric not in known:
        raise MonaiCaeError(f"select#metric must be one of {', '.join(known)} for {target.name}, not {metric!r}")
    drawn = {"space": read_space(space), "trials": trials, "sampler": sampler, "pruner": pruner} if space else {}
    return Selection(candidates, folds, metric, lower=metric in _LOWER, **drawn)


def inner_datalists(
    plan: Plan, part: Part, content: Mapping[str, Any], target: Target
) -> dict[Path, Mapping[str, Any]]:
    """The datalists of a part's inner folds, whose test sets together are everybody outside the part's.

    Args:
        plan: with a selection, or without one.
        part: one of its parts, whose seed decides.
        content: of the part's datalist.
        target: for the strata.

    Returns:
        Contents by path.

    Raises:
        MonaiCaeError: too few subjects for so many folds, or for both classes in each; or a candidate starts from a
            classifier that knows the labels of some.
    """
    if not plan.select:
        return {}
    rest = [item for name in SETS[:2] for item in content[name]]
    _refuse_known(plan, part, rest)
    scans = [_scan(number, item, target) for number, item in enumerate(rest)]
    how = {name: plan.shared["split"][name] for name in ("val_fraction", "stratify") if name in plan.shared["split"]}
    how |= {"kind": "kfold", "folds": plan.select.inner_folds, "seed": part.seed}
    found: dict[Path, Mapping[str, Any]] = {}
    for fold in range(1, plan.select.inner_folds + 1):
        try:
            sets = split_cohort(Cohort([], [], measured=scans), target=target, fold=fold, **how)
        except MonaiCaeError as error:
            raise MonaiCaeError(f"select#inner_folds {plan.select.inner_folds} in {part.folder}: {error}") from error
        inner = {name: [rest[int(scan.file)] for scan in sets[name]] for name in SETS}
        found[plan.inner_datalist_of(part, fold)] = {**content, **inner}
    return found


def _refuse_known(plan: Plan, part: Part, rest: Sequence[Mapping[str, Any]]) -> None:
    inner = [*plan.steps(part), *plan.corners(part)]
    trains = [step.stages[STAGES[1]] for step in inner if step.inner and STAGES[1] in step.stages]
    given = {name: sorted({str(train.get(name, "none")) for train in trains}) for name in ("transfer", "pretrained")}
    known = [("transfer", model, "was trained on", Transfer(model).trained_on) for model in given["transfer"]]
    known += [
        ("pretrained", str(path), "has learned the labels of", labels_learned(path))
        for model in given["pretrained"]
        for path in plan.elsewhere(model)
    ]
    for setting, model, what, subjects in known:
        seen = {*hashed_subjects(rest)} & {*subjects}
        if seen:
            raise MonaiCaeError(
                f"{model}, which candidates of select start from, {what} {len(seen)} of the subjects that the inner "
                f"folds of {part.folder} score: leave them out with --cohort#unseen_by, or leave out select or "
                f"{setting}"
            )


def _scan(number: int, item: Mapping[str, Any], target: Target) -> Scan:
    return Scan(
        item["subject"],
        item.get("session") or "",
        label=target.checked(item["label"], f"the label of {item['subject']}"),
        age=item.get("age"),
        sex=item.get("sex") or "",
        file=str(number),
    )


def score_inner(plan: Plan, step: Step, target: Target, watching: Sequence[str] = ()) -> dict[str, dict[str, Any]]:
    """Train a candidate on the training subjects of an inner fold, and score it on those left out.

    The subjects are those of the part, which has been audited, and the scores are a choice's, not a result. So there is
    no MLflow run, no figure and no comparison of reconstructions. Of the files only the predictions are kept.

    Args:
        plan: of the experiment.
        step: an inner one.
        target: what is predicted.
        watching: items of train.json that are evaluated before it trains.

    Returns:
        Stage -> results, as the stages have them, scores named `test_*`.
    """
    train, test = (step.stages[stage] for stage in STAGES[1:])
    place = Path(train["output_dir"])
    evaluate(plan, step, STAGES[1], {**train, "resume": False, "_trained": [*watching, *_TRAINED]}, "_trained")
    given = {**test, "_scored": [*_SCORED, "@prediction_table"]}
    if train.get("learn") == "linear_probe":
        given |= {**_ENCODED, "dataloader#dataset": {**_ENCODED["dataloader#dataset"], "folder": train["codes"]}}
    *_, table = evaluate(plan, step, STAGES[2], given, "_scored")
    tested = np.array(table.column("label")), np.array(table.column(target.column)), table.threshold
    remove(files_of(STAGES[1], place), place)
    remove_cache(cache_folder(place, train["cache_dir"]))
    return {STAGES[2]: {f"test_{name}": value for name, value in target.scores(*tested).items()}}


def report_selection(
    selection: Selection, results: Sequence[Mapping[str, Any]], scores: pd.DataFrame, output: Path
) -> dict[str, Any]:
    """What every part chose and by which scores, and what choosing was worth.

    Args:
        selection: how it was chosen.
        results: what the parts left, see `protocol`.
        scores: of all methods, see `monai_cae.experiment.results.Results`.
        output: selection.csv is written there: a row for each part and candidate.

    Returns:
        Plain data: how many were `tried`; `candidates`, for each how often it was `chosen`, its mean `inner` score and
        its `outer`; `nested`, the score of what was chosen without the test sets; `non_nested` and `afterwards`, the
        best outer score of a candidate, and whose; `gain`, by how much that is better than nested; `optimism`, by how
        much the inner scores of the chosen are better than the outer of the same, means over the parts.
    """
    metric, names = f"test_{selection.metric}", list(selection.candidates)
    rows = []
    for part in results:
        steps = {name: step["results"] for name, step in part["steps"].items()}
        chosen = selection.chosen(steps)
        for name in names:
            inner = selection.scores(steps, name)
            folds = {f"inner_{fold}": score for fold, score in enumerate(inner, start=1)}
            about = {"repeat": part["repeat"], "fold": part["fold"], "candidate": name, "chosen": int(name == chosen)}
            outer = steps[NETWORK if name == chosen else name][STAGES[2]][metric]
            rows.append({**about, **folds, "inner": sum(inner) / len(inner), "outer": outer})
    table = pd.DataFrame(rows)
    with replacing(output / "selection.csv") as temporary:
        table.to_csv(temporary, index=False, float_format="%.6g")
    pooled = {name: float(scores.loc[(name, selection.metric), "mean"]) for name in (NETWORK, *names)}
    sign = -1 if selection.lower else 1
    best = max(names, key=lambda name: -math.inf if math.isnan(pooled[name]) else sign * pooled[name])
    taken = table[table["chosen"] == 1]
    return {
        "metric": selection.metric,
        "lower": selection.lower,
        "inner_folds": selection.inner_folds,
        "parts": len(results),
        "tried": len(names),
        "candidates": {
            name: {"chosen": int(of["chosen"].sum()), "inner": float(of["inner"].mean()), "outer": pooled[name]}
            for name, of in table.groupby("candidate", sort=False)
        },
        "nested": pooled[NETWORK],
        "non_nested": pooled[best],
        "afterwards": best,
        "gain": sign * (pooled[best] - pooled[NETWORK]),
        "optimism": sign * float((taken["inner"] - taken["outer"]).mean()),
    }
