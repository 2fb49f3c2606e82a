"""Run every repeat and fold through the stages' own configs, step by step; an interruption loses one step."""

from __future__ import annotations

import shutil
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from monai_cae.data import is_synthetic
from monai_cae.data.splits.datalists import SETS, write_content
from monai_cae.errors import MonaiCaeError
from monai_cae.experiment.earlier import left_in, refuse_earlier, told_in
from monai_cae.experiment.methods import changed_settings, command, descriptions
from monai_cae.experiment.page import PAGE
from monai_cae.experiment.plan import BASELINES, CLASSIFIER, CODES, STAGES, Part, Plan, one_by_one, parts_of, read_json
from monai_cae.experiment.record import NETWORK, pool, pool_samples, read_sets
from monai_cae.experiment.report import log_results, print_results
from monai_cae.experiment.results import compute
from monai_cae.experiment.running import begun, check_cluster, engine_for, run_steps
from monai_cae.experiment.searching import report_search
from monai_cae.experiment.selecting import report_selection, selection_of
from monai_cae.experiment.sets import check_parts, given_datalists, refuse_changed
from monai_cae.experiment.share import planned, refuse_other_settings, run_share, share_of
from monai_cae.experiment.status import STATE
from monai_cae.experiment.wording import readable
from monai_cae.files import only_writer
from monai_cae.targets import Target
from monai_cae.terminal import say
from monai_cae.tracking import TrackedRun
from monai_cae.tracking.lending import forget, take_over
from monai_cae.training.stages.earlier import check_asked, remove
from monai_cae.training.stages.run import write_record
from monai_cae.training.stages.signals import Ending
from monai_cae.training.stages.workflow import executed_config


def run_experiment(
    *,
    configs: str,
    output_dir: str,
    repeats: int,
    seed: int,
    shared: Mapping[str, Any],
    target: Target,
    stages: Mapping[str, Mapping[str, Any]],
    variants: Mapping[str, Mapping[str, Mapping[str, Any]]],
    select: Mapping[str, Any],
    baselines: Sequence[str],
    resume: bool,
    overwrite: bool,
    datalist: str,
    tracking_uri: str,
    experiment_name: str,
    cluster: str = "",
    part: str = "",
) -> dict[str, Any]:
    """Run the stages of every repeat through MONAI's ConfigWorkflow, under one MLflow run, and compare the methods.

    Repeat r has the seed `seed + r - 1`, which decides its split, its weights and its batches, and the folder
    `output_dir/repeat_r`; with `split` "kfold" every repeat runs all folds, in `output_dir/repeat_r/fold_f`. Nothing is
    written before all settings of all stages have been checked.

    Args:
        configs: folder of pretrain.json, train.json, evaluate.json and baselines.json.
        output_dir: where everything goes.
        repeats: how often (the paper: five times).
        seed: of the first repeat.
        shared: settings handed to every stage that has them: evaluate.json has no max_epochs, for instance.
        target: what is predicted, as `shared` has it for the stages.
        stages: stage -> settings of that stage alone; those under "classifier" are for train and evaluate.
        variants: name -> stage -> settings that differ; the classifier is trained and tested with them on the same
            splits, from the same autoencoder unless the variant has settings for pretrain.
        select: candidates for the network's settings, which are variants too, and how each part chooses among them,
            see `monai_cae.experiment.selecting.selection_of`.
        baselines: models of baselines.json that are fitted on the same splits.
        resume: keep what has been finished in output_dir, and go on with the rest.
        overwrite: remove what an earlier experiment has left in output_dir first.
        datalist: a ready datalist, or the folder of those of all folds, for every repeat; "" to split.
        tracking_uri: MLflow's store.
        experiment_name: MLflow's experiment.
        cluster: where the steps are done, see `monai_cae.cluster.address.engine_of`; "" in this process.
        part: "2/5" does the steps of every fifth split, from the second, and nothing else, so that several processes
            can share an output_dir; all are merged by `resume` without it.

    Returns:
        The summary that is written to `output_dir/summary.json`; nothing of a part.

    Raises:
        MonaiCaeError: a setting that a stage does not have, earlier results that are neither to be kept nor to be
            overwritten, a finished step of other settings, or whatever a stage refuses.
    """
    if not isinstance(target, Target):
        raise MonaiCaeError(
            f"target must be a monai_cae.targets.Target, such as {{_target_: my.Target}}, not {target!r}; "
            "with_number.yaml has one for a column of numbers"
        )
    target.require_scored(baselines=bool(baselines))
    selection = selection_of(select, target)
    candidates = selection.candidates if selection else {}
    _check_types(shared["split"], stages, variants, candidates, baselines)
    _check_names(stages, variants, candidates, baselines)
    check_asked(resume, overwrite)
    output, given = Path(output_dir).resolve(), given_datalists(datalist)
    if given:
        kind = {"kind": "kfold", "folds": len(given)} if len(given) > 1 else {"kind": "holdout"}
        shared = {**shared, "split": {**shared["split"], **kind}}
    parts = parts_of(repeats, seed, shared["split"])
    where = {"tracking_uri": tracking_uri, "experiment_name": experiment_name, "parent_run_id": "pending"}
    methods = {**candidates, **variants}
    plan = Plan(configs, output, shared, stages, methods, baselines, where, given, selection)
    plan.refuse_labelled_choice()
    check_cluster(cluster, plan)
    if share := share_of(part, parts):
        if cluster:
            raise MonaiCaeError("--part is for jobs without a cluster: leave out one of --part and --cluster")
        with Ending():
            run_share(plan, parts, share, target, resume, overwrite)
        say(f"part {part} is done: when all are, the same command with --resume true and without --part compares them")
        return {}
    with only_writer(output), Ending():
        refuse_earlier(output, resume, overwrite)
        if resume:
            refuse_other_settings(plan, parts)
            finished = _finished(plan, parts)
            if finished:
                refuse_changed(plan, parts[0])
                print(f"the experiment is finished in {output}: nothing is left to do\n")
                print(f"  page               {output / PAGE}\n  summary            {output / 'summary.json'}")
                return finished
        return _run_parts(plan, parts, target, seed, resume, overwrite, cluster)


def _finished(plan: Plan, parts: Sequence[Part]) -> dict[str, Any]:
    """The summary of the experiment, where all of it has been done and nothing else; otherwise nothing."""
    state, path = plan.output / STATE, plan.output / "summary.json"
    if not (state.is_file() and path.is_file() and read_json(state).get("finished")):
        return {}
    if not all(step.name in plan.finished(part) for part in parts for step in plan.steps(part)):
        return {}
    summary = read_json(path)
    told = [(one["folder"], one["variants"], one["baselines"]) for one in summary.get("results", [])]
    asked = [(part.folder, list(plan.variants), list(plan.baselines)) for part in parts]
    return summary if told == asked else {}


def _scheme(parts: Sequence[Part]) -> str:
    repeats, folds = parts[-1].repeat, parts[-1].fold
    return f"{repeats} repeat{'s' * (repeats > 1)}" + (f" of {folds} folds" if folds > 1 else "")


def _run_parts(
    plan: Plan, parts: Sequence[Part], target: Target, seed: int, resume: bool, overwrite: bool, cluster: str
) -> dict[str, Any]:
    output, started = plan.output, time.perf_counter()
    say(_beginning(plan, parts))
    here = {**plan.shared, "device": "cpu"} if cluster else plan.shared  # the GPUs are the workers'
    datalists = check_parts(
        replace(plan, shared=here), parts, overwrite, target
    )  # bad input ends before there is a run
    folders = [output / part.folder for part in parts]
    tracked = TrackedRun(
        tracking_uri=plan.tracked["tracking_uri"],
        experiment_name=plan.tracked["experiment_name"],
        stage="experiment",
        name=f"{plan.cohort} experiment, {_scheme(parts)}",
        cohort=str(plan.shared["dataset_dir"]),
        resumed_run_id=_run_id_in(output) if resume else "",
        output_dir=str(output),
    )
    with engine_for(cluster, plan) as engine, tracked:
        if overwrite:
            remove(left_in(output), output)
            forget(folders)
        for path, content in datalists.items():
            write_content(path, content)
        state = {"run_id": tracked.run_id, "steps": planned(plan, parts)}
        write_record(output / STATE, state)
        plan = plan.under(tracked.run_id)
        if not tracked.resumed_run_id:
            tracked.log_params({"repeats": parts[-1].repeat, "seed": seed, **one_by_one(plan.shared)})
            sets = read_sets(output / parts[0].folder, bool(plan.shared["hash_ids"]))
            everybody = {"cohort": [item for name in SETS for item in sets[name]]}
            tracked.log_datasets(everybody, is_synthetic(plan.datalist_of(parts[0])))
        tracked.log_json(executed_config(), "config.json")
        take_over(tracked, folders, begun(path.parent for path in output.rglob("models")))  # of workers that were ended
        done = {part: plan.finished(part) if resume else {} for part in parts}
        run_steps(plan, parts, done, target, engine, tracked)
        for part in parts:
            shutil.rmtree(output / part.folder / CODES, ignore_errors=True)
        results = [_told(plan, part, done[part]) for part in parts]
        repeats = parts[-1].repeat
        summary = {"repeats": repeats, "folds": len(parts) // repeats, **_summary_of(results)}
        summary["methods"] = descriptions(plan)
        summary |= {"command": command(), "changed": changed_settings(plan, parts[0])}
        remove(told_in(output), output)  # of fewer repeats or other methods
        record, seen = pool(results, output, target), _seen_before(tracked, results)
        samples = pool_samples(results, output, target)
        computed = compute(record, samples, results, output, target=target, seed=seed, seen_before=seen)
        if plan.select and plan.select.space:
            summary["selection"], trials = report_search(plan, parts, results, computed.scores)
            computed = replace(computed, trials=trials)
        elif plan.select:
            summary["selection"] = report_selection(plan.select, results, computed.scores, output)
        summary |= {**computed.summary, "seconds": time.perf_counter() - started}
        write_record(output / "summary.json", summary)
        log_results(tracked, summary, computed, output)
        write_record(output / STATE, {**state, "finished": True})
    print_results(summary, computed, tracked, output, first=parts[0].folder)
    return summary


def _beginning(plan: Plan, parts: Sequence[Part]) -> str:
    steps = [readable(step.name) for step in plan.steps(parts[0]) if not step.inner]
    splits = "1 split" if len(parts) == 1 else f"{len(parts)} splits"
    if plan.select:
        tried = f"{plan.select.trials} trials" if plan.select.space else f"{len(plan.select.candidates)} candidates"
        steps.append(f"{tried} in {plan.select.inner_folds} inner folds")
    return f"experiment: {splits} x {len(steps)} steps ({', '.join(steps)}) into {plan.output}"


def _check_types(split: Any, stages: Any, variants: Any, candidates: Mapping[str, Any], baselines: Any) -> None:
    if not isinstance(split, Mapping):
        raise MonaiCaeError(f"split must be settings, such as --split#kind kfold, not {split!r}")
    for name, value in (("stages", stages), ("variants", variants)):
        if not isinstance(value, Mapping) or not all(isinstance(member, Mapping) for member in value.values()):
            raise MonaiCaeError(f"{name} must be settings by name, such as {{train: {{max_epochs: 9}}}}, not {value!r}")
    for where, given in _given(stages, variants, candidates):
        for stage, value in given.items():
            if not isinstance(value, Mapping):
                raise MonaiCaeError(f"{stage} under {where} must be settings, such as {{max_epochs: 9}}, not {value!r}")
    if isinstance(baselines, str) or not all(isinstance(name, str) for name in baselines):
        raise MonaiCaeError(f"baselines must be a list of names, such as \"['majority','table']\", not {baselines!r}")


def _given(stages: Any, variants: Any, candidates: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    """Settings by stage, and where they are given."""
    yield "stages", stages
    for where, methods in (("variants", variants), ("select#candidates", candidates)):
        yield from ((f"{where} {name}", changed) for name, changed in methods.items())


def _check_names(
    stages: Mapping[str, Any],
    variants: Mapping[str, Mapping[str, Any]],
    candidates: Mapping[str, Mapping[str, Any]],
    baselines: Sequence[str],
) -> None:
    for where, given in _given(stages, variants, candidates):
        for stage in given:
            known = (*STAGES, CLASSIFIER, *([BASELINES] if where == "stages" else []))
            if stage not in known:
                raise MonaiCaeError(f"unknown stage {stage!r} under {where}: it must be one of {', '.join(known)}")
            if any(name.split("#")[0].split("::")[0] == "target" for name in given[stage]):
                raise MonaiCaeError(
                    f"{stage} under {where} has a target: all methods have that of the experiment's top"
                )
    named = [*variants, *candidates]
    taken = [name for name in named if name in (BASELINES, *STAGES)]
    if taken:
        raise MonaiCaeError(f"variant {taken[0]!r} has the name of a stage: give it another name")
    twice = [name for name in (NETWORK, *named) if [NETWORK, *named, *baselines].count(name) > 1]
    if twice:
        raise MonaiCaeError(f"{twice[0]!r} names two methods: give the variant another name")
    for name in named:
        if not str(name).replace("_", "").replace("-", "").isalnum():
            raise MonaiCaeError(f"variant {name!r} names a folder: use letters, digits, - and _ only")


def _told(plan: Plan, part: Part, done: Mapping[str, Any]) -> dict[str, Any]:
    """What the steps of a split have given, by method, and about whom."""
    by_method: dict[str, dict[str, Any]] = {}
    for step in plan.steps(part):
        one = by_method.setdefault(step.method, {"results": {}, "seconds": 0.0})
        one["results"] |= done[step.name]["results"]
        one["seconds"] += done[step.name]["seconds"]
    sets = read_sets(plan.output / part.folder, bool(plan.shared["hash_ids"]))
    return {
        "folder": part.folder,
        "repeat": part.repeat,
        "fold": part.fold,
        "seed": part.seed,
        "steps": by_method,
        "subjects": {name: len({item["subject"] for item in sets[name]}) for name in SETS},
        "variants": list(plan.variants),
        "shares": plan.shares,
        "baselines": list(plan.baselines),
        "hash_ids": bool(plan.shared["hash_ids"]),
        "given": bool(plan.given),
        "tested": sorted({item["subject"] for item in sets["test"]}),
    }


def _run_id_in(output: Path) -> str:
    path = output / STATE
    return str(read_json(path).get("run_id", "")) if path.is_file() else ""


def _summary_of(results: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    evaluated = [part["steps"][NETWORK]["results"]["evaluate"] for part in results]
    return {
        "synthetic": evaluated[0]["synthetic"],
        "leaks": sum(one["leaks"] for one in evaluated),
        "parts": len(results),
        "subjects": results[0]["subjects"],
        "values": {name: [one[name] for one in evaluated] for name in evaluated[0] if name.startswith("test_")},
        "seconds_per_part": [sum(step["seconds"] for step in part["steps"].values()) for part in results],
        "results": [{key: value for key, value in part.items() if key != "tested"} for part in results],
    }


def _seen_before(tracked: TrackedRun, results: Sequence[Mapping[str, Any]]) -> int | None:
    """How many other finished experiments have scored the same test sets, None where MLflow does not answer; this one
    is marked as having done so."""
    return tracked.mark_and_count("test_sets", [part["tested"] for part in results])
