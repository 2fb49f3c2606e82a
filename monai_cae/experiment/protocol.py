"""Every repeat and fold through the stages' own configs, step by step: an end in between loses one step."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from monai.bundle import ConfigWorkflow

from monai_cae.data.bad_scans import from_record, skipped_lines
from monai_cae.data.splits import SETS
from monai_cae.errors import MonaiCaeError
from monai_cae.experiment.page import log_results, print_results
from monai_cae.experiment.record import NETWORK, pool
from monai_cae.experiment.results import compute
from monai_cae.training.stages import write_json
from monai_cae.training.tracking import TrackedRun
from monai_cae.training.workflow import executed_config, find_mistake

STAGES = ("pretrain", "train", "evaluate")
CLASSIFIER = "classifier"  # settings of both stages that build it
BASELINES = "baselines"
_NOT_COMPARED = ("output_dir", "datalist", "pretrained", "parent_run_id", "tracking_uri", "experiment_name")
Settings = dict[str, Any]


@dataclass(frozen=True)
class Part:
    """One pass through the stages: a repeat of a hold-out, or one fold of a repeat."""

    folder: str
    repeat: int
    seed: int
    fold: int = 1


@dataclass(frozen=True)
class Plan:
    """What an experiment consists of, as `run_experiment` is given it."""

    configs: str
    output: Path
    shared: Mapping[str, Any]
    stages: Mapping[str, Mapping[str, Any]]
    variants: Mapping[str, Mapping[str, Mapping[str, Any]]]
    baselines: Sequence[str]
    tracked: Mapping[str, str]

    @property
    def shares(self) -> dict[str, float]:
        """The variants that learn from fewer labelled subjects and are otherwise the network: the learning curve."""
        only = {name: changed["train"] for name, changed in self.variants.items() if list(changed) == ["train"]}
        return {
            name: changed["training_share"] for name, changed in only.items() if list(changed) == ["training_share"]
        }

    def settings(self, part: Part, stage: str, variant: str = "") -> Settings:
        """What overrides the stage's config, of the network itself or of a variant, which lies in its own folder and
        shares datalist and, unless it changes the pretraining, autoencoder."""
        changed = self.variants[variant] if variant else {}
        known = _config_of(self.configs, stage)
        folder = self.output / part.folder
        elsewhere: Settings = {"datalist": str(folder / "datalist.json")} if variant else {}
        if variant and "pretrain" not in changed:
            elsewhere["pretrained"] = str(folder / "models" / "autoencoder.pt")
        return {
            **{name: value for name, value in self.shared.items() if name in known},
            **_of_stage(self.stages, stage),
            **elsewhere,
            **_of_stage(changed, stage),
            "output_dir": str(folder / "variants" / variant if variant else folder),
            "split": {**self.shared["split"], "fold": part.fold},
            "seed": part.seed,
            **self.tracked,
        }


def _of_stage(settings: Mapping[str, Mapping[str, Any]], stage: str) -> Settings:
    both = settings.get(CLASSIFIER, {}) if stage in ("train", "evaluate") else {}
    return {**both, **settings.get(stage, {})}


def run_experiment(
    *,
    configs: str,
    output_dir: str,
    repeats: int,
    seed: int,
    shared: Mapping[str, Any],
    stages: Mapping[str, Mapping[str, Any]],
    variants: Mapping[str, Mapping[str, Mapping[str, Any]]],
    baselines: Sequence[str],
    resume: bool,
    tracking_uri: str,
    experiment_name: str,
) -> dict[str, Any]:
    """Run the stages of every repeat through MONAI's ConfigWorkflow, under one MLflow run, and compare the methods.

    Repeat r has the seed `seed + r - 1`, which decides its split, its weights and its batches, and the folder
    `output_dir/repeat_r`; with `split` "kfold" every repeat runs all folds, in `output_dir/repeat_r/fold_f`.

    Args:
        configs: folder of pretrain.json, train.json, evaluate.json and baselines.json.
        output_dir: where everything goes.
        repeats: how often (the paper: five times).
        seed: of the first repeat.
        shared: settings handed to every stage that has them: evaluate.json has no max_epochs, for instance.
        stages: stage -> settings of that stage alone; those under "classifier" are for train and evaluate.
        variants: name -> stage -> settings that differ; the classifier is trained and tested with them on the same
            splits, from the same autoencoder unless the variant has settings for pretrain.
        baselines: models of baselines.json that are fitted on the same splits.
        resume: keep what has been finished in output_dir, and go on with the rest.
        tracking_uri: MLflow's store.
        experiment_name: MLflow's experiment.

    Returns:
        The summary that is written to `output_dir/summary.json`.

    Raises:
        MonaiCaeError: a setting that a stage does not have, a finished step of other settings, or whatever a stage
            refuses.
    """
    _check_types(stages, variants, baselines)
    _check_names(stages, variants, baselines)
    output = Path(output_dir).resolve()
    started = time.perf_counter()
    tracked = TrackedRun(
        tracking_uri=tracking_uri,
        experiment_name=experiment_name,
        stage="experiment",
        resumed_run_id=_run_id_in(output) if resume else "",
    )
    parts = _parts(repeats, seed, shared)
    where = {"tracking_uri": tracking_uri, "experiment_name": experiment_name, "parent_run_id": "pending"}
    plan = Plan(configs, output, shared, stages, variants, baselines, where)
    # all datalists are written, and bad input ends here, before there is a run
    audits = [_run(configs, "pretrain", plan.settings(part, "pretrain"), item="audit") for part in parts]
    if left_out := from_record(audits[0]["bad_scans"]):
        total = len(left_out) + sum(one_set["n"] for one_set in audits[0]["sets"].values())
        print("\n".join(skipped_lines(left_out, total)), flush=True)
    with tracked:
        write_json(output / "experiment.json", {"run_id": tracked.run_id})
        plan = Plan(configs, output, shared, stages, variants, baselines, {**where, "parent_run_id": tracked.run_id})
        if not tracked.resumed_run_id:
            tracked.log_params({"repeats": repeats, "seed": seed, **shared})
        tracked.log_json(executed_config(), "config.json")
        results = []
        for number, part in enumerate(parts, start=1):
            print(f"{part.folder}, {number} of {len(parts)} (seed {part.seed})", flush=True)
            results.append(_run_part(plan, part, resume))
        summary = {"repeats": repeats, "folds": len(parts) // repeats, **_summary_of(results)}
        record = pool(results, output)
        computed = compute(record, results, output, seed=seed, seen_before=_seen_before(tracked, results))
        summary |= {**computed.summary, "seconds": time.perf_counter() - started}
        write_json(output / "summary.json", summary)
        log_results(tracked, summary, computed, output)
    print_results(summary, computed, tracked, output, first=parts[0].folder)
    return summary


def _check_types(stages: Any, variants: Any, baselines: Any) -> None:
    for name, value in (("stages", stages), ("variants", variants)):
        if not isinstance(value, Mapping) or not all(isinstance(member, Mapping) for member in value.values()):
            raise MonaiCaeError(f"{name} must be settings by name, such as {{train: {{max_epochs: 9}}}}, not {value!r}")
    if isinstance(baselines, str) or not all(isinstance(name, str) for name in baselines):
        raise MonaiCaeError(f"baselines must be a list of names, such as \"['majority','table']\", not {baselines!r}")


def _check_names(
    stages: Mapping[str, Any], variants: Mapping[str, Mapping[str, Any]], baselines: Sequence[str]
) -> None:
    for where, given in (("stages", stages), *((f"variants {name}", changed) for name, changed in variants.items())):
        for stage in given:
            known = (*STAGES, CLASSIFIER, *([BASELINES] if where == "stages" else []))
            if stage not in known:
                raise MonaiCaeError(f"unknown stage {stage!r} under {where}: it must be one of {', '.join(known)}")
    twice = [name for name in (NETWORK, *variants) if [NETWORK, *variants, *baselines].count(name) > 1]
    if twice:
        raise MonaiCaeError(f"{twice[0]!r} names two methods: give the variant another name")
    for name in variants:
        if not name.replace("_", "").replace("-", "").isalnum():
            raise MonaiCaeError(f"variant {name!r} names a folder: use letters, digits, - and _ only")


def _parts(repeats: int, seed: int, shared: Mapping[str, Any]) -> list[Part]:
    numbered = [(repeat, seed + repeat - 1) for repeat in range(1, repeats + 1)]
    if shared["split"].get("kind") != "kfold":
        return [Part(f"repeat_{repeat}", repeat, its_seed) for repeat, its_seed in numbered]
    folds = range(1, int(shared["split"]["folds"]) + 1)
    return [
        Part(f"repeat_{repeat}/fold_{fold}", repeat, its_seed, fold) for repeat, its_seed in numbered for fold in folds
    ]


def _config_of(configs: str, stage: str) -> dict[str, Any]:
    return json.loads(Path(configs, f"{stage}.json").read_text(encoding="utf-8"))


def _run(configs: str, stage: str, settings: Mapping[str, Any], item: str = "run") -> Any:
    """Run an item of a stage's config; a user's mistake comes out of MONAI's wrapping."""
    try:
        workflow = ConfigWorkflow(str(Path(configs, f"{stage}.json")), run_id=item, **settings)
        workflow.initialize()
        outcome = workflow.run()
        workflow.finalize()
    except RuntimeError as error:
        mistake = find_mistake(error)
        if mistake is None:
            raise
        raise mistake from error
    return outcome[0]


def _run_part(plan: Plan, part: Part, resume: bool) -> dict[str, Any]:
    """The network, the variants and the baselines on one split; each is a step that is recorded when it is done."""
    path = plan.output / part.folder / "steps.json"
    done = _read(path) if resume and path.is_file() else {}

    def step(name: str, needed: Mapping[str, Settings], run: Callable[[], dict[str, Any]]) -> dict[str, Any]:
        compared = {stage: _compared(settings) for stage, settings in needed.items()}
        if name in done:
            _refuse_other_settings(done[name]["settings"], compared, path, name)
            print(f"  {name}: done before", flush=True)
        else:
            started = time.perf_counter()
            results = run()
            done[name] = {"settings": compared, "results": results, "seconds": time.perf_counter() - started}
            write_json(path, done)
        return done[name]

    def stages_of(variant: str = "") -> dict[str, Settings]:
        wanted = STAGES if not variant or "pretrain" in plan.variants[variant] else STAGES[1:]
        return {stage: plan.settings(part, stage, variant) for stage in wanted}

    def run_stages(needed: Mapping[str, Settings]) -> dict[str, Any]:
        return {stage: _run(plan.configs, stage, settings) for stage, settings in needed.items()}

    steps = {}
    for variant in ("", *plan.variants):
        if variant:
            print(f"  variant {variant}", flush=True)
        needed = stages_of(variant)
        pretraining = {stage: needed.pop(stage) for stage in STAGES[:1] if stage in needed}
        done_stages = {}
        if pretraining:  # a step of its own, the longest: another classifier can be tried on the same autoencoder
            name = f"{variant}/{STAGES[0]}" if variant else STAGES[0]
            done_stages = step(name, pretraining, partial(run_stages, pretraining))
        classified = step(variant or NETWORK, needed, partial(run_stages, needed))
        both = (done_stages, classified) if done_stages else (classified,)
        steps[variant or NETWORK] = {
            "results": {stage: results for one in both for stage, results in one["results"].items()},
            "seconds": sum(one["seconds"] for one in both),
        }
    if plan.baselines:
        settings = {**plan.settings(part, BASELINES), "only": list(plan.baselines)}
        run = partial(_run, plan.configs, BASELINES, settings)
        steps[BASELINES] = step(BASELINES, {BASELINES: settings}, run)
    sets = json.loads((plan.output / part.folder / "datalist.json").read_text(encoding="utf-8"))
    return {
        "folder": part.folder,
        "repeat": part.repeat,
        "fold": part.fold,
        "seed": part.seed,
        "steps": {name: {key: one[key] for key in ("results", "seconds")} for name, one in steps.items()},
        "subjects": {name: len({item["subject"] for item in sets[name]}) for name in SETS},
        "variants": list(plan.variants),
        "shares": plan.shares,
        "baselines": list(plan.baselines),
        "tested": sorted({item["subject"] for item in sets["test"]}),
    }


def _compared(settings: Settings) -> Settings:
    compared = {name: value for name, value in settings.items() if name not in _NOT_COMPARED}
    return json.loads(json.dumps(compared, default=str))


def _refuse_other_settings(
    before: Mapping[str, Mapping[str, Any]], now: Mapping[str, Mapping[str, Any]], path: Path, name: str
) -> None:
    for stage in sorted(before.keys() | now.keys()):
        old, new = before.get(stage, {}), now.get(stage, {})
        for key in sorted(old.keys() | new.keys()):
            if old.get(key) != new.get(key):
                raise MonaiCaeError(
                    f"{path.parent} has {name} finished with {key} {old.get(key)!r}, not {new.get(key)!r}: choose "
                    "another --output_dir, or --resume false to have it done again"
                )


def _run_id_in(output: Path) -> str:
    path = output / "experiment.json"
    return str(_read(path).get("run_id", "")) if path.is_file() else ""


def _read(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        content = error
    if not isinstance(content, dict):
        raise MonaiCaeError(f"{path} is not what an experiment writes: delete it to have its part done again")
    return content


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


def _seen_before(tracked: TrackedRun, results: Sequence[Mapping[str, Any]]) -> int:
    """How many other finished experiments have scored the same test sets; this one is marked as having done so."""
    return tracked.mark_and_count("test_sets", [part["tested"] for part in results])
