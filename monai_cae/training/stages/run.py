"""Running a stage: everything inside one MLflow run, and a summary with the next command."""

from __future__ import annotations

import json
import math
import shlex
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from monai.bundle import ConfigParser

from monai_cae import DISCLAIMER
from monai_cae.errors import MonaiCaeError
from monai_cae.evaluation.audit_page import audit_page
from monai_cae.files import marked, only_writer, sha256_of, unmarked, write_text
from monai_cae.tracking import TrackedRun, program, where_to_see
from monai_cae.training.engines.image_cache import cache_folder, remove_cache
from monai_cae.training.engines.parallel import is_first
from monai_cae.training.stages.checkpointing import Resuming, refuse_other_config
from monai_cae.training.stages.earlier import check_asked, files_of, outdated_by, refuse, remove
from monai_cae.training.stages.signals import Ended, Ending
from monai_cae.training.stages.transfer import weights_of
from monai_cae.training.stages.workflow import bundle_root, executed_config, resolved_settings

_SAID_APART = ("leaks", "scans_left_out")
_WRITES = {"pretrain": "checkpoint", "train": "checkpoint", "evaluate": "predictions"}  # setting of a file elsewhere
_USES = {"evaluate": ("validation", "test"), "baselines": ("training", "validation", "test")}  # sets
_SHOWN = 20
_UNITS = {"psnr": " dB", "seconds": " s"}


def run_stage(
    *,
    stage: str,
    run: TrackedRun,
    output_dir: str,
    datalist: str,
    write_datalist: Callable[[str], None],
    synthetic: bool,
    audit: Mapping[str, Any],
    steps: Sequence[Callable[[], Any]],
    report: Callable[[], Mapping[str, Any]],
    resuming: Resuming | None = None,
    overwrite: bool = False,
    next_config: str = "",
    shared_datalist: Mapping[str, Any] | None = None,
    cache_dir: str = "",
) -> dict[str, Any]:
    """Run the steps of a stage inside its MLflow run, write its results and executed config, and print a summary.

    Of several processes that train together, only the first tracks, writes and prints; the others run the steps.

    Args:
        stage: "pretrain", "train" or "evaluate".
        run: opened here; gets the settings, the executed config and the datalist.
        output_dir: where `results_<stage>.json`, with the SHA-256 of the weights, and `config_<stage>.json` go.
        datalist: the subjects of the sets.
        write_datalist: writes it, where it is new; nothing is written before all settings have been checked.
        synthetic: say so in whatever is written.
        audit: of the sets, see `monai_cae.data.audit_training`; written as audit.json and audit.html.
        steps: called in turn.
        report: called when they are done; gives the stage's results, and under `caveats` what has to be known first.
        resuming: has the steps go on where they were ended; None for a stage that starts anew every time.
        overwrite: replace what an earlier run of the stage has left in `output_dir`, and remove what later stages have
            made of it.
        next_config: config file of the bundle that the summary names as the next to run; "" for none.
        shared_datalist: what MLflow gets in place of the datalist, see `monai_cae.data.shareable`.
        cache_dir: see `cache_folder`; what is in it of this stage is removed at the end.

    Returns:
        The results, with the seconds that steps and report took and the MLflow run's ID; nothing in other processes
        than the first.

    Raises:
        MonaiCaeError: another process writes to `output_dir`, there are results that are neither to be resumed nor to
            be overwritten, or what is to be resumed had other settings.
        Ended: SIGTERM has come.
    """
    config, output, cache = executed_config(), Path(output_dir), cache_folder(output_dir, cache_dir)
    if not is_first():
        with Ending(later=resuming is not None) as ending:
            if not _finished(stage, output, config, resuming):
                _run_steps(steps, ending, resuming, config)
        return {}
    with only_writer(output), Ending(later=resuming is not None) as ending:
        check_asked(resuming is not None and resuming.resume, overwrite)
        finished = _finished(stage, output, config, resuming)
        if finished:
            print(f"{stage} is finished in {output}: nothing is left to do", flush=True)
            if not run.parent_run_id:
                _print_summary(stage, run, finished, output, next_config)
            return finished
        going_on = resuming is not None and resuming.open(config)
        outdated = [] if going_on else _outdated(stage, output, resuming, overwrite)
        if not going_on:
            remove_cache(cache)
        started = time.perf_counter()
        try:
            with run:
                remove(outdated, output)
                write_datalist(datalist)
                if not run.resumed_run_id:
                    _log_beginning(run, stage, output, config, shared_datalist or datalist, synthetic, audit)
                left_out = audit["bad_scans"]
                if left_out and not run.parent_run_id:
                    _print_left_out(left_out)
                results: dict[str, Any] = {"stage": stage, "synthetic": synthetic, "leaks": int(audit["leaks"])}
                results["scans_left_out"] = len(left_out)
                _run_steps(steps, ending, resuming)
                results.update(report())
                _tell_caveats(run, results)
                before = resuming.seconds if resuming is not None else 0
                results["seconds"] = before + time.perf_counter() - started
                run.log_metrics({"seconds": results["seconds"]})
                results |= {"run_id": run.run_id, "weights": _hashes()}
                write_json(output / f"config_{stage}.json", config)
                write_record(output / f"results_{stage}.json", results)
        except (Ended, KeyboardInterrupt):
            if resuming is not None and resuming.path.is_file():
                given = "--resume true" + " in place of --overwrite true" * overwrite
                print(
                    f"{stage} was interrupted: the same command with {given} continues it", file=sys.stderr, flush=True
                )
            raise
        if resuming is not None:
            resuming.close()
        remove_cache(cache)
        if not run.parent_run_id:
            _print_summary(stage, run, results, output, next_config)
        if ending.requested:
            ending.end()
    return results


def _outdated(stage: str, output: Path, resuming: Resuming | None, overwrite: bool) -> list[Path]:
    """The files of an earlier run that go when this one begins.

    Raises:
        MonaiCaeError: there are some, and they may not be replaced.
    """
    if (output / "experiment.json").is_file():
        raise MonaiCaeError(f"{output} has results of an experiment: choose another --output_dir")
    if not overwrite and (resuming is None or not resuming.resume):
        own, elsewhere = files_of(stage, output), Path(resolved_settings().get(_WRITES.get(stage, ""), ""))
        refuse([*own, *({elsewhere} - set(own) if elsewhere.is_file() else ())], output, stage, resuming is not None)
    return outdated_by(stage, output, overwrite)


def _run_steps(
    steps: Sequence[Callable[[], Any]],
    ending: Ending,
    resuming: Resuming | None,
    config: Mapping[str, Any] | None = None,
) -> None:
    if resuming is None:
        for step in steps:
            step()
    else:
        if config is not None:
            resuming.open(config)
        resuming.run_steps(steps, ending)


def _log_beginning(
    run: TrackedRun,
    stage: str,
    output: Path,
    config: Mapping[str, Any],
    datalist: str | Mapping[str, Any],
    synthetic: bool,
    audit: Mapping[str, Any],
) -> None:
    run.log_params(resolved_settings())
    leaks = int(audit["leaks"])
    run.describe(
        f"{data_kind(synthetic, leaks)}. {DISCLAIMER}",
        {
            "data": "synthetic" if synthetic else "real",
            "leaks": str(leaks),
            "scans_left_out": str(len(audit["bad_scans"])),
        },
    )
    run.log_json(config, "config.json")
    if isinstance(datalist, str):
        run.log_file(datalist)
    else:
        run.log_json(datalist, "datalist.json")
    content = json.loads(Path(datalist).read_text(encoding="utf-8")) if isinstance(datalist, str) else datalist
    run.log_datasets({name: content[name] for name in _USES.get(stage, ("training", "validation"))}, synthetic)
    _write_audit(run, output, audit)


def _tell_caveats(run: TrackedRun, results: Mapping[str, Any]) -> None:
    """In MLflow: above the description, and as a tag that runs can be searched by."""
    caveats = results.get("caveats")
    if caveats:
        described = f"{data_kind(results['synthetic'], results['leaks'])}. {DISCLAIMER}"
        run.describe("\n\n".join([*(f"**{caveat}**" for caveat in caveats), described]), {"caveats": " ".join(caveats)})


def _finished(stage: str, output: Path, config: Mapping[str, Any], resuming: Resuming | None) -> dict[str, Any]:
    """The results of a stage that is to be resumed, if it has been finished here; otherwise nothing.

    Raises:
        MonaiCaeError: it was finished with other settings, or its files are not its own any more.
    """
    if resuming is None or not resuming.resume or resuming.path.is_file():
        return {}
    results, before = (output / f"{what}_{stage}.json" for what in ("results", "config"))
    if not results.is_file():
        return {}
    try:
        found, known = (json.loads(path.read_text(encoding="utf-8")) for path in (results, before))
        weights, found = dict(found["weights"]), dict(found)
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise MonaiCaeError(
            f"{results} and {before.name} are not what {stage} writes: --overwrite true in place of --resume true does "
            "the stage again"
        ) from error
    found = unmarked(found, results)
    refuse_other_config(known, config, output)
    if weights != _hashes():
        raise MonaiCaeError(
            f"the weights in {output} are not those that {results} describes: --overwrite true in place of --resume "
            "true does the stage again"
        )
    return found


def _hashes() -> dict[str, str]:
    """SHA-256 of the weights that the running stage reads and writes, by the name of the setting."""
    given = resolved_settings()
    paths = {name: Path(given.get(name, "")) for name in ("pretrained", "checkpoint")}
    paths["transfer"] = weights_of(given.get("transfer", "none"))
    return {name: sha256_of(path) for name, path in paths.items() if path.is_file()}


def _print_left_out(bad: Sequence[Mapping[str, str]]) -> None:
    lines = [f"  {scan['subject']}: {scan['reason']}" for scan in bad[:_SHOWN]]
    more = [f"  and {len(bad) - _SHOWN} more"] if len(bad) > _SHOWN else []
    print("\n".join([f"left out, as they can't be used: {len(bad)} scans", *lines, *more]), flush=True)


def data_kind(synthetic: bool, leaks: int = 0) -> str:
    """What every summary calls its data."""
    kind = "SYNTHETIC data, not real MRI" if synthetic else "real data"
    return f"{kind}, LEAKY: {leaks} found between the sets, the scores are worthless" if leaks else kind


def _write_audit(run: TrackedRun, output: Path, audit: Mapping[str, Any]) -> None:
    write_record(output / "audit.json", audit)
    write_text(output / "audit.html", audit_page(audit))
    for name in ("audit.json", "audit.html"):
        run.log_file(output / name)


def write_json(path: Path, content: Any) -> None:
    """Write JSON atomically; numbers that are not finite become null, as JSON has none."""
    write_text(path, json.dumps(_finite(content), indent=2) + "\n")


def write_record(path: Path, content: Mapping[str, Any]) -> None:
    """Write JSON that is read back, with its format; see `write_json` and `monai_cae.files.marked`."""
    write_json(path, marked(content))


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
        lines.append(f"  {'scans left out':<24}{count} that can't be used: see {output / 'audit.html'}")
    lines += [
        *(f"  ! {caveat}" for caveat in results.get("caveats", ())),
        *(f"  {what:<24}{folder}" for what, folder in _written(stage, output).items() if folder.is_dir()),
        *(f"  {label:<24}{line}" for label, line in zip(("MLflow", ""), where_to_see(run, output), strict=False)),
    ]
    if next_config:
        lines.append(f"  {'next':<24}{next_command(stage, next_config)}")
    print("\n".join(["", *lines, f"  {DISCLAIMER}"]), flush=True)


def _written(stage: str, output: Path) -> dict[str, Path]:
    if stage == "baselines":
        return {"predictions": output / "baselines"}
    trained = {} if stage == "evaluate" else {"checkpoints": output / "models"}
    return {"figures": output / "figures", **trained}


def next_command(stage: str, config: str) -> str:
    """The command for another config of the running bundle, with the settings that were changed in this run and mean
    the same there: those that both configs ship with one default."""
    ours = resolved_settings()  # none where a ConfigParser alone evaluates the config, which knows no folder
    folder = Path(bundle_root() if ours else "", "configs")
    shipped, theirs = ({}, {}) if not ours else (_shipped(folder / f"{stage}.json"), _shipped(folder / config))
    executed = executed_config()
    grouped = {name.partition("#")[0] for name in ours}
    lists = {name: value for name, value in executed.items() if isinstance(value, (list, dict)) and name not in grouped}
    changed = {
        name: value
        for name, value in {**ours, **(lists if ours else {})}.items()
        if name not in ("resume", "overwrite")
        and _setting(shipped, name) == _setting(theirs, name) is not None
        and _setting(executed, name) != _setting(theirs, name)
    }
    parts = [part for name, value in changed.items() for part in _differences(name, value, _setting(theirs, name))]
    options = " ".join(f"--{name} {shlex.quote(str(value))}" for name, value in parts)
    command = f"{program('python')} -m monai.bundle run training --config_file {shlex.quote(str(folder / config))}"
    return f"{command} {options}".strip()


def _differences(name: str, ours: Any, theirs: Any) -> Iterator[tuple[str, Any]]:
    """Of a group or an object, what in it is otherwise."""
    if isinstance(ours, Mapping) and isinstance(theirs, Mapping) and theirs.keys() <= ours.keys():
        for key, value in ours.items():
            if key not in theirs or value != theirs[key]:
                yield from _differences(f"{name}#{key}", value, theirs.get(key))
    else:
        yield name, ours


def _shipped(path: Path) -> dict[str, Any]:
    return dict(ConfigParser.load_config_file(str(path))) if path.is_file() else {}


def _setting(config: Mapping[str, Any], name: str) -> Any:
    group, _, member = name.partition("#")
    value = config.get(group)
    return value.get(member) if member and isinstance(value, Mapping) else value
