"""The paper's protocol: pretrain -> train -> evaluate, repeated with new splits and new weights, then mean and SD."""

from __future__ import annotations

import json
import shlex
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from monai.bundle import ConfigWorkflow

from monai_cae.data.splits import SETS
from monai_cae.errors import MonaiCaeError
from monai_cae.evaluation import figures, mean_and_sd
from monai_cae.training.reports import SYNTHETIC_NOTE
from monai_cae.training.stages import DISCLAIMER, data_kind, write_json
from monai_cae.training.tracking import TrackedRun, program, ui_command
from monai_cae.training.workflow import executed_config, find_mistake

STAGES = ("pretrain", "train", "evaluate")
_SHOWN = {
    "test_psnr": ("PSNR", "dB", 2),
    "test_psnr_brain": ("PSNR in the brain", "dB", 2),
    "test_accuracy": ("accuracy", "", 3),
    "test_f1": ("F1 (AD)", "", 3),
    "test_auc": ("AUC", "", 3),
}
_PAPER = {"accuracy": 0.7466, "F1 (AD)": 0.66}


def run_experiment(
    *,
    configs: str,
    output_dir: str,
    repeats: int,
    seed: int,
    shared: Mapping[str, Any],
    stages: Mapping[str, Mapping[str, Any]],
    tracking_uri: str,
    experiment_name: str,
) -> dict[str, Any]:
    """Run the stages of every repeat through MONAI's ConfigWorkflow, under one MLflow run.

    Repeat r has the seed `seed + r - 1`, which decides its split, its weights and its batches, and the folder
    `output_dir/repeat_r`; with `split` "kfold" every repeat runs all folds, in `output_dir/repeat_r/fold_f`.

    Args:
        configs: folder of pretrain.json, train.json and evaluate.json.
        output_dir: where everything goes.
        repeats: how often (the paper: five times).
        seed: of the first repeat.
        shared: settings handed to every stage that has them: evaluate.json has no max_epochs, for instance.
        stages: stage -> settings of that stage alone.
        tracking_uri: MLflow's store.
        experiment_name: MLflow's experiment.

    Returns:
        The summary that is written to `output_dir/summary.json`.

    Raises:
        MonaiCaeError: a setting that a stage does not have, or whatever a stage refuses.
    """
    for stage in stages:
        if stage not in STAGES:
            raise MonaiCaeError(f"unknown stage {stage!r} under stages: it must be one of {', '.join(STAGES)}")
    output = Path(output_dir).resolve()
    started = time.perf_counter()
    tracked = TrackedRun(tracking_uri=tracking_uri, experiment_name=experiment_name, stage="experiment")
    parts = _parts(repeats, seed, shared)

    def settings(part: Part, stage: str) -> dict[str, Any]:
        return {
            **{name: value for name, value in shared.items() if name in _settings_of(configs, stage)},
            **stages.get(stage, {}),
            "output_dir": str(output / part.folder),
            "split": {**shared["split"], "fold": part.fold},
            "seed": part.seed,
            "tracking_uri": tracking_uri,
            "experiment_name": experiment_name,
            "parent_run_id": tracked.run_id or "pending",
        }

    for part in parts:  # all datalists are written, and bad input ends here, before there is a run
        _run(configs, "pretrain", settings(part, "pretrain"), item="audit")
    with tracked:
        tracked.log_params({"repeats": repeats, "seed": seed, **shared})
        tracked.log_json(executed_config(), "config.json")
        results = []
        for number, part in enumerate(parts, start=1):
            print(f"{part.folder}, {number} of {len(parts)} (seed {part.seed})", flush=True)
            results.append(_run_part(configs, part, {stage: settings(part, stage) for stage in STAGES}))
        summary = _summarise(results, output, time.perf_counter() - started)
        _log_summary(tracked, summary, output)
    _print_summary(summary, tracked, output, parts[0], configs)
    return summary


@dataclass(frozen=True)
class Part:
    """One pass through the stages: a repeat of a hold-out, or one fold of a repeat."""

    folder: str
    seed: int
    fold: int = 1


def _parts(repeats: int, seed: int, shared: Mapping[str, Any]) -> list[Part]:
    numbered = [(repeat, seed + repeat - 1) for repeat in range(1, repeats + 1)]
    if shared["split"].get("kind") != "kfold":
        return [Part(f"repeat_{repeat}", its_seed) for repeat, its_seed in numbered]
    folds = range(1, int(shared["split"]["folds"]) + 1)
    return [Part(f"repeat_{repeat}/fold_{fold}", its_seed, fold) for repeat, its_seed in numbered for fold in folds]


def _settings_of(configs: str, stage: str) -> dict[str, Any]:
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


def _run_part(configs: str, part: Part, settings: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    results: dict[str, Any] = {"folder": part.folder, "seed": part.seed, "fold": part.fold}
    for stage in STAGES:
        results[stage] = _run(configs, stage, settings[stage])
    sets = json.loads(Path(settings["pretrain"]["output_dir"], "datalist.json").read_text(encoding="utf-8"))
    results["subjects"] = {name: len({item["subject"] for item in sets[name]}) for name in SETS}
    return results


def _summarise(results: Sequence[Mapping[str, Any]], output: Path, seconds: float) -> dict[str, Any]:
    evaluated = [repeat["evaluate"] for repeat in results]
    values = {name: [repeat[name] for repeat in evaluated] for name in evaluated[0] if name.startswith("test_")}
    spread = {name: dict(zip(("mean", "sd"), mean_and_sd(v), strict=True)) for name, v in values.items()}
    summary = {
        "synthetic": evaluated[0]["synthetic"],
        "leaks": sum(repeat["leaks"] for repeat in evaluated),
        "repeats": len(results),
        "subjects": results[0]["subjects"],
        "metrics": spread,
        "values": values,
        "seconds": seconds,
        "seconds_per_repeat": [sum(repeat[stage]["seconds"] for stage in STAGES) for repeat in results],
        "results": list(results),
    }
    write_json(output / "summary.json", summary)
    return summary


def _log_summary(tracked: TrackedRun, summary: Mapping[str, Any], output: Path) -> None:
    rows = [f"| {label} | {mean_sd} |" for label, mean_sd in _scores(summary).items()]
    table = "\n".join(
        ["| test set | mean ± SD |" if summary["repeats"] > 1 else "| test set | one repeat |", "|---|---|", *rows]
    )
    what = f"{data_kind(summary['synthetic'], summary['leaks'])}, {summary['repeats']} x pretrain, train, evaluate."
    tracked.describe(
        f"{what}\n\n{table}\n\n{DISCLAIMER}",
        {"data": "synthetic" if summary["synthetic"] else "real", "leaks": str(summary["leaks"])},
    )
    for name, spread in summary["metrics"].items():
        sd = {} if summary["repeats"] == 1 else {f"{name}_sd": spread["sd"]}
        tracked.log_metrics({f"{name}_mean": spread["mean"], **sd})
    tracked.log_file(output / "summary.json")
    if summary["repeats"] > 1:
        shown = {label: summary["values"][name] for name, (label, unit, _) in _SHOWN.items() if not unit}
        note = SYNTHETIC_NOTE if summary["synthetic"] else ""
        path = output / "figures" / "repeats.png"
        figures.save_figure(figures.repeats(shown, note=note, reference=_PAPER), path)
        tracked.log_file(path, "figures")


def _scores(summary: Mapping[str, Any]) -> dict[str, str]:
    scores = {}
    for name, (label, unit, digits) in _SHOWN.items():
        spread = summary["metrics"][name]
        sd = f" ± {spread['sd']:.{digits}f}" if summary["repeats"] > 1 else ""
        scores[label] = f"{spread['mean']:.{digits}f}{sd} {unit}".rstrip()
    return scores


def _print_summary(summary: Mapping[str, Any], tracked: TrackedRun, output: Path, first: Part, configs: str) -> None:
    subjects = summary["subjects"]
    several = summary["repeats"] > 1
    lines = [
        "",
        f"experiment finished on {data_kind(summary['synthetic'], summary['leaks'])}",
        "  subjects           " + ", ".join(f"{subjects[name]} {name}" for name in SETS),
        f"  test set           {'mean ± SD over ' + str(summary['repeats']) + ' repeats' if several else 'one repeat'}",
    ]
    lines += [f"  {label:<19}{mean_sd}" for label, mean_sd in _scores(summary).items()]
    checkpoint = output / first.folder / "models" / "model.pt"
    predict = (
        f"{program('python')} -m monai.bundle run --config_file {shlex.quote(str(Path(configs, 'inference.json')))}"
    )
    lines += [
        f"  time               {summary['seconds']:.0f} s",
        f"  figures            {output}/repeat_*/figures" + (f", {output}/figures" if several else ""),
        f"  checkpoints        {output}/repeat_*/models",
        f"  summary            {output / 'summary.json'}",
        "",
        "see the runs:        " + ui_command(tracked.tracking_uri),
        "                     " + tracked.address,
        f"predict new scans:   {predict} --checkpoint {shlex.quote(str(checkpoint))} --dataset_dir VOLUME_OR_FOLDER",
        "",
        DISCLAIMER,
    ]
    print("\n".join(lines), flush=True)
