"""Running a stage: everything inside one MLflow run, and a summary that says what to do next."""

from __future__ import annotations

import json
import math
import shlex
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from monai.bundle import ConfigParser

from monai_cae.evaluation.audit_page import audit_page
from monai_cae.files import replacing, sha256_of
from monai_cae.training.parallel import is_first
from monai_cae.training.tracking import TrackedRun, program, ui_command
from monai_cae.training.workflow import bundle_root, executed_config, resolved_settings

DISCLAIMER = "Research software, not a medical device."
_SAID_APART = ("leaks", "scans_left_out")
_SHOWN = 20
_UNITS = {"psnr": " dB", "seconds": " s"}


def run_stage(
    *,
    stage: str,
    run: TrackedRun,
    output_dir: str,
    datalist: str,
    synthetic: bool,
    audit: Mapping[str, Any],
    steps: Sequence[Callable[[], Any]],
    report: Callable[[], Mapping[str, Any]],
    next_config: str = "",
) -> dict[str, Any]:
    """Run the steps of a stage inside its MLflow run, write its results and executed config, and print a summary.

    Of several processes that train together, only the first tracks, writes and prints; the others run the steps.

    Args:
        stage: "pretrain", "train" or "evaluate".
        run: opened here; gets the settings, the executed config and the datalist.
        output_dir: where `results_<stage>.json`, with the SHA-256 of the weights, and `config_<stage>.json` go.
        datalist: the subjects of the sets.
        synthetic: say so in whatever is written.
        audit: of the sets, see `monai_cae.data.audit_training`; written as audit.json and audit.html.
        steps: called in turn.
        report: called when they are done; gives the stage's results.
        next_config: config file of the bundle that the summary names as the next to run; "" for none.

    Returns:
        The results, with the seconds that steps and report took and the MLflow run's ID; nothing in other processes
        than the first.
    """
    if not is_first():
        for step in steps:
            step()
        return {}
    config = executed_config()
    with run:
        run.log_params(resolved_settings())
        leaks, left_out = int(audit["leaks"]), len(audit["bad_scans"])
        run.describe(
            f"{data_kind(synthetic, leaks)}. {DISCLAIMER}",
            {"data": "synthetic" if synthetic else "real", "leaks": str(leaks), "scans_left_out": str(left_out)},
        )
        run.log_json(config, "config.json")
        run.log_file(datalist)
        _write_audit(run, Path(output_dir), audit)
        if left_out and not run.parent_run_id:
            _print_left_out(audit["bad_scans"])
        started = time.perf_counter()
        results: dict[str, Any] = {"stage": stage, "synthetic": synthetic, "leaks": leaks, "scans_left_out": left_out}
        for step in steps:
            step()
        results.update(report())
        results["seconds"] = time.perf_counter() - started
        run.log_metrics({"seconds": results["seconds"]})
        results["run_id"] = run.run_id
        results["weights"] = {
            name: sha256_of(path)
            for name in ("pretrained", "checkpoint")
            if (path := Path(resolved_settings().get(name, ""))).is_file()
        }
        write_json(Path(output_dir, f"config_{stage}.json"), config)
        write_json(Path(output_dir, f"results_{stage}.json"), results)
    if not run.parent_run_id:
        _print_summary(stage, run, results, Path(output_dir), next_config)
    return results


def _print_left_out(bad: Sequence[Mapping[str, str]]) -> None:
    lines = [f"  {scan['subject']}: {scan['reason']}" for scan in bad[:_SHOWN]]
    more = [f"  and {len(bad) - _SHOWN} more"] if len(bad) > _SHOWN else []
    print("\n".join([f"left out, as they can't be used: {len(bad)} scans", *lines, *more]), flush=True)


def data_kind(synthetic: bool, leaks: int = 0) -> str:
    """What every summary calls its data."""
    kind = "SYNTHETIC data, not real MRI" if synthetic else "real data"
    return f"{kind}, LEAKY: {leaks} found between the sets, the scores are worthless" if leaks else kind


def _write_audit(run: TrackedRun, output: Path, audit: Mapping[str, Any]) -> None:
    write_json(output / "audit.json", audit)
    with replacing(output / "audit.html") as temporary:
        temporary.write_text(audit_page(audit), encoding="utf-8")
    for name in ("audit.json", "audit.html"):
        run.log_file(output / name)


def write_json(path: Path, content: Any) -> None:
    """Write JSON atomically; numbers that are not finite become null, as JSON has none."""
    with replacing(path) as temporary:
        temporary.write_text(json.dumps(_finite(content), indent=2) + "\n", encoding="utf-8")


def _finite(content: Any) -> Any:
    if isinstance(content, Mapping):
        return {key: _finite(value) for key, value in content.items()}
    if isinstance(content, (list, tuple)):
        return [_finite(value) for value in content]
    return None if isinstance(content, float) and not math.isfinite(content) else content


def _print_summary(stage: str, run: TrackedRun, results: Mapping[str, Any], output: Path, next_config: str) -> None:
    lines = [f"{stage} finished on {data_kind(results['synthetic'], results['leaks'])}"]
    for name, value in results.items():
        if isinstance(value, (int, float)) and not isinstance(value, bool) and name not in _SAID_APART:
            unit = next((unit for part, unit in _UNITS.items() if part in name), "")
            lines.append(f"  {name:<24}{value:.4g}{unit}")
    if count := results["scans_left_out"]:
        lines.append(f"  {'scans left out':<24}{count}, as they can't be used: {output / 'audit.html'} says why")
    lines += [
        *(f"  {what:<24}{folder}" for what, folder in _written(stage, output).items() if folder.is_dir()),
        f"  {'MLflow':<24}{ui_command(run.tracking_uri)}",
        f"  {'':<24}{run.address}",
    ]
    if next_config:
        lines.append(f"  {'next':<24}{next_command(next_config)}")
    print("\n".join(["", *lines, f"  {DISCLAIMER}"]), flush=True)


def _written(stage: str, output: Path) -> dict[str, Path]:
    if stage == "baselines":
        return {"predictions": output / "baselines"}
    trained = {} if stage == "evaluate" else {"checkpoints": output / "models"}
    return {"figures": output / "figures", **trained}


def next_command(config: str) -> str:
    """The command for another config of the running bundle, with the settings of this run that differ from its own."""
    ours = resolved_settings()  # none where a ConfigParser alone evaluates the config, which knows no folder
    path = Path(bundle_root() if ours else "", "configs", config)
    theirs = ConfigParser.load_config_file(str(path)) if ours else {}
    raw = executed_config()
    changed = {name: ours[name] for name in ours if name in theirs and theirs[name] != raw[name]}
    options = " ".join(f"--{name} {shlex.quote(str(value))}" for name, value in changed.items())
    return f"{program('python')} -m monai.bundle run training --config_file {shlex.quote(str(path))} {options}".strip()
