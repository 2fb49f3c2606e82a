"""Commands about runs: start one, predict with one, compare them, explain their settings."""

from __future__ import annotations

import argparse
import json
import logging
import os
import re
import runpy
import shutil
import sys
import textwrap
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from difflib import get_close_matches
from itertools import pairwise
from pathlib import Path
from shlex import quote
from typing import Any

from yaml import safe_load

from monai_cae import DISCLAIMER
from monai_cae.cli.overlays import as_settings, overlay_files, parsed
from monai_cae.cli.prediction import on_gpu, placed, predict_parquet, predict_raw, refuse_inputs, refuse_many
from monai_cae.cli.prepare import inputs_given
from monai_cae.errors import MonaiCaeError
from monai_cae.files import refuse_same_folder
from monai_cae.folders import bundle_folder

# what the settings of inference.json decide without a scan: their names, and whether weights, slice and threshold fit
_FITS = (
    "$[monai_cae.networks.load_weights(@network_def, @checkpoint), "
    "@network_input.training_of(monai_cae.networks.trained_with(@checkpoint)), @prediction_table]"
)
_STAGES = ("pretrain", "train", "evaluate", "baselines", "inference")


def search(options: argparse.Namespace) -> None:
    if options.trials is not None:
        options.settings = [f"--select#trials={options.trials}", *options.settings]
    if options.space is not None:
        options.settings = [f"--select#space={options.space.absolute()}", *options.settings]
    options.overlays = options.overlays or "search" * (options.space is None)
    run(options)


def run(options: argparse.Namespace) -> None:
    files = [bundle_folder() / "configs" / "experiment.yaml", *overlay_files(options.overlays)]
    given = _with_target(as_settings(options.settings, ("config_file", "dataset_dir", "output_dir")))
    config = str(files[0]) if len(files) == 1 else str([str(file) for file in files])
    places = _places(dataset_dir=options.data, output_dir=options.out)
    _bundle("run", "training", "--config_file", config, *places, *given)


def predict(options: argparse.Namespace) -> int:
    from monai_cae.sharing import check_package
    from monai_cae.sharing.bundle import CHECKPOINTS
    from monai_cae.sharing.settings import inference_settings, kind_of

    if not options.scans:
        raise MonaiCaeError("no scans are named: give a folder, or . for the one that you are in")
    given = as_settings(options.settings, ("config_file", "checkpoint", "dataset_dir", "predictions"))
    autoencoder = options.model.with_name(CHECKPOINTS["autoencoder"].name)
    config = bundle_folder() / "configs" / "inference.json"
    settings: dict[str, Any] = {"checkpoint": placed(options.model), "pretrained": placed(autoencoder)}
    checkpoint, kind = options.model, kind_of(options.model)
    if kind == "package":
        check_package(options.model, trust=options.trust)
        config, settings = options.model / "configs" / "inference.json", {}
    elif kind == "run":
        settings = inference_settings(options.model)
    if options.parquet or options.cluster:
        return predict_parquet(options, config, {**settings, **parsed(given)})
    refuse_many(options)
    if kind != "checkpoint":
        checkpoint = options.model / CHECKPOINTS["classifier"]

    def infer(scans: Path, further: Sequence[str]) -> None:
        places = _places(dataset_dir=scans, predictions=options.out / "predictions.csv")
        _bundle("run", "--config_file", str(config), *_options(settings), *places, *further, *given)

    def check() -> None:
        settled = [*_options(settings), *given, "--_checked", _FITS]
        _bundle("run", "_checked", "--config_file", str(config), *settled, quiet=True)

    if options.prepare:
        return predict_raw(options, given, checkpoint, infer, check)
    refuse_inputs([name for name in inputs_given(options) if name != "table"])
    infer(Path(options.scans), ["--table", str(options.table)] if options.table else [])
    return 0


def evaluate(options: argparse.Namespace) -> None:
    from monai_cae.sharing.settings import evaluation_settings

    given = as_settings(options.settings, ("config_file", "checkpoint", "dataset_dir", "output_dir"))
    words = {f"--threshold{between}{word}" for word in ("youden", "accuracy", "f1") for between in (" ", "=")}
    if words & {*given, *map(" ".join, pairwise(given))}:
        raise MonaiCaeError(
            "the threshold is the network's own, or a number: no validation subjects are here to choose one"
        )
    for what, taken in (("the model", options.model), ("the cohort", options.cohort)):
        refuse_same_folder(options.out, taken, what)
    found = evaluation_settings(options.model, trust=options.trust)
    if any(part.startswith(("--cohort#task", "--cohort#positive", "--cohort#label_column")) for part in given):
        found = {name: value for name, value in found.items() if not name.startswith("cohort#")}  # the model's rule
    files = [str(bundle_folder() / "configs" / name) for name in ("evaluate.json", "external.yaml")]
    if options.cluster:
        _evaluate_elsewhere(options, files, {**found, **parsed(given)})
        return
    places = _places(dataset_dir=options.cohort, output_dir=options.out)
    _bundle("run", "--config_file", str(files), *_options(found), *places, *given)


def _evaluate_elsewhere(options: argparse.Namespace, files: Sequence[str], settings: Mapping[str, Any]) -> None:
    """The same by a worker, which needs no login: what it has tracked is sent from here."""
    from monai_cae.cluster.address import engine_of, entered
    from monai_cae.cluster.engine import Task
    from monai_cae.tracking import default_tracking_uri, program, sync, without_credentials
    from monai_cae.tracking.copying import DATABASE

    out, model, cohort = (path.absolute() for path in (options.out, options.model, options.cohort))
    gpus = "device" in settings and on_gpu(settings["device"])
    engine_of(options.cluster, gpus=gpus)
    made, server = not out.exists(), settings.get("tracking_uri") or default_tracking_uri(str(out))
    given = {**settings, "dataset_dir": str(cohort), "output_dir": str(out)}
    given["tracking_uri"] = f"sqlite:///{out / DATABASE}"
    try:
        with entered(
            options.cluster, reads={"the model": model, "the cohort": cohort}, writes=out, gpus=gpus
        ) as engine:
            task = Task("evaluate", run_configs, (files, given), needs={"GPU": 1.0} if gpus else {})
            (done,) = engine.run([task])
    finally:
        if made:
            with suppress(OSError):  # there may be results in it
                out.rmdir()
    if done.error:
        if not isinstance(done.error, MonaiCaeError):
            print(done.log, flush=True)
        raise MonaiCaeError(str(done.error)) from done.error
    print(done.log, flush=True)
    if server != given["tracking_uri"]:
        try:
            for line in sync(out, server):
                print(line, flush=True)
        except MonaiCaeError as error:  # the results are here all the same
            command = (
                f"{program('monai-cae')} sync {quote(str(options.out))} --tracking-uri {without_credentials(server)}"
            )
            print(f"{error}: later, {command}", file=sys.stderr)


def run_configs(files: Sequence[str], settings: Mapping[str, Any]) -> None:
    """What `python -m monai.bundle run` does with configs and settings, on a worker."""
    from monai.bundle import run

    from monai_cae.training.stages.workflow import mistakes_alone

    warnings.filterwarnings("ignore", "parsing config_file")
    with mistakes_alone():
        run(config_file=list(files), **settings)


def latent(options: argparse.Namespace) -> None:
    _with_autoencoder(options, "latent.yaml")


def drift(options: argparse.Namespace) -> None:
    _with_autoencoder(options, "drift.yaml")


def _with_autoencoder(options: argparse.Namespace, overlay: str) -> None:
    """evaluate.json with an overlay that looks at a cohort with an autoencoder alone."""
    from monai_cae.sharing.settings import autoencoder_settings

    given = as_settings(options.settings, ("config_file", "pretrained", "dataset_dir", "output_dir"))
    found = autoencoder_settings(options.model, trust=options.trust)
    files = [str(bundle_folder() / "configs" / name) for name in ("evaluate.json", overlay)]
    asked = {name.lstrip("+") for name in safe_load(Path(files[1]).read_text(encoding="utf-8"))}
    found = {name: value for name, value in found.items() if name not in asked}  # of a model of an earlier version
    places = _places(dataset_dir=options.cohort, output_dir=options.out)
    _bundle("run", "--config_file", str(files), *_options(found), *places, *given)


def _options(settings: Mapping[str, Any]) -> list[str]:
    return [part for name, value in settings.items() for part in (f"--{name}", str(value))]


def _with_target(settings: Sequence[str]) -> list[str]:
    """`--target MMSE` as the bundle has it: a column of numbers; a class in braces stays as it is."""
    made = list(settings)
    for place, text in enumerate(made):
        name, equals, value = text.partition("=")
        if name != "--target" or not (equals or made[place + 1 : place + 2]):
            continue
        column = value if equals else made[place + 1]
        if not column.lstrip().startswith(("{", "$", "@", "--")):
            number = str({"_target_": "monai_cae.targets.Number", "column": column})
            made[place : place + (1 if equals else 2)] = ["--target", number]
            break
    return made


def _places(**paths: Path) -> list[str]:
    """Paths as settings."""
    return _options({name: placed(path) for name, path in paths.items()})


def _bundle(*arguments: str, quiet: bool = False) -> None:
    """Print a command of `python -m monai.bundle`, unless `quiet`, and run it."""
    shown = (f'"{part}"' if "'" in part and not set(part) & set('"$`\\!') else quote(part) for part in arguments)
    if not quiet:
        print(" ".join(["python -m monai.bundle", *shown]), flush=True)
    warnings.filterwarnings("ignore", "parsing config_file")  # MONAI's advice to trust configs: these are our own
    logging.getLogger("monai.bundle.workflows").addFilter(_is_no_place)
    sys.argv = ["monai.bundle", *arguments]
    try:
        runpy.run_module("monai.bundle", run_name="__main__", alter_sys=True)
    except KeyError as error:
        if "query key: " not in str(error):
            raise
        name = str(error.args[0]).removeprefix("query key: ")
        for option, *parts in (part.removeprefix("--").partition("=")[0].split("#") for part in arguments):
            least = {"stages": 1, "variants": 2}.get(option, len(parts))  # what comes before is the names of these
            if name in parts[least:-1]:
                raise MonaiCaeError(_in_a_file(option, parts, parts.index(name, least))) from error
        raise MonaiCaeError(f"no config has the setting {name}: see `monai-cae settings`") from error


def _is_no_place(record: logging.LogRecord) -> bool:
    """Whether it is not MONAI's remark, for every overlay of a user's own, that not all configs are in one folder."""
    return not str(record.msg).startswith("Not all config files are in")


def _in_a_file(option: str, parts: Sequence[str], at: int) -> str:
    """How to set a member of a stage's item, which no option reaches where the experiment has no such item yet."""
    line = f'"+{"#".join([option, *parts[:at]])}": {{"{"#".join(parts[at:])}": VALUE}}'
    where = "a file such as mine.yaml, and give it to --with behind the other overlays"
    return f"no option reaches --{'#'.join([option, *parts])}: write {line} into {where}"


def settings(options: argparse.Namespace) -> None:
    told = list(all_settings())
    names = list(dict.fromkeys(setting["name"] for setting in told))
    wanted = options.name.replace("-", "_")
    chosen = [name for name in names if not wanted or name == wanted or name.startswith(f"{wanted}#")]
    chosen = chosen or [name for name in names if name.endswith(f"#{wanted}")]
    if not chosen:
        close = get_close_matches(wanted, names, 1)
        raise MonaiCaeError(f"no setting {wanted}" + (f": did you mean {close[0]}?" if close else ""))
    width = min(100, shutil.get_terminal_size().columns)
    for name in chosen:
        print(name)
        for setting in (setting for setting in told if setting["name"] == name):
            text = f"{setting['remark']}; read by {', '.join(setting['readers'])}"
            print(textwrap.fill(f"default: {setting['default']}", width, initial_indent="  ", subsequent_indent="    "))
            print(textwrap.fill(text, width, initial_indent="  ", subsequent_indent="  "))


def all_settings() -> Iterator[dict[str, Any]]:
    """Every setting of the stages and of the experiment, with those of its remarks and defaults that differ.

    Yields:
        `name`, such as `cohort#task`; `remark`; `default`, as JSON; `readers`, the configs that have it so.
    """
    found: dict[tuple[str, str, str], list[str]] = {}
    for stage in _STAGES:
        config = json.loads((bundle_folder() / "configs" / f"{stage}.json").read_text(encoding="utf-8"))
        for name, value in config.items():
            part = isinstance(value, dict) and "_target_" in value
            remarks = config.get(f"_{name}_") or (part and value.get("_desc_"))
            if not remarks or name == "run":
                continue
            value = {key: one for key, one in value.items() if key != "_desc_"} if part else value
            members = (
                {f"{name}#{key}": (text, value[key]) for key, text in remarks.items()}
                if isinstance(remarks, dict)
                else {}
            )
            for full, (remark, default) in (members or {name: (remarks, value)}).items():
                found.setdefault((full, remark, json.dumps(default)), []).append(f"{stage}.json")
    for name, remark, default in _of_experiment():
        found.setdefault((name, remark, default), []).append("experiment.yaml")
    for (name, remark, default), readers in sorted(found.items(), key=lambda item: item[0][0].partition("#")[0]):
        yield {"name": name, "remark": remark, "default": default.strip('"'), "readers": readers}


def _of_experiment() -> Iterator[tuple[str, str, str]]:
    """Its settings at the top, whose remarks are comments above or behind them."""
    text = (bundle_folder() / "configs" / "experiment.yaml").read_text(encoding="utf-8")
    for above, line, behind in re.findall(r"((?:^# .*\n)*)^(\w+: (?:(?! +# ).)+)(?: +# (.+))?$", text, re.MULTILINE):
        ((name, value),) = safe_load(line).items()
        remark = behind or " ".join(comment.removeprefix("# ") for comment in above.splitlines())
        if remark:
            yield name, remark, json.dumps(value)


def compare(options: argparse.Namespace) -> None:
    if len(options.runs) < 2:
        raise MonaiCaeError("give two or more runs, folders or files to compare")
    if not options.train_subjects >= 0:
        raise MonaiCaeError(f"--train_subjects must be a number of subjects, not {options.train_subjects:g}")
    from monai_cae.experiment.compare import compare_predictions, comparison_lines, write_comparison
    from monai_cae.experiment.load_runs import read_predictions

    uri = options.tracking_uri or os.environ.get("MLFLOW_TRACKING_URI", "")
    read = [read_predictions(run, tracking_uri=uri, method=options.method) for run in options.runs]
    comparison = compare_predictions(read, train_subjects=options.train_subjects)
    print("\n".join(comparison_lines(comparison)))
    if options.out:
        for path in write_comparison(comparison, options.out):
            print(f"written: {path}")
    print(DISCLAIMER)


def status(options: argparse.Namespace) -> None:
    from monai_cae.experiment.status import read_status, status_lines

    print("\n".join(status_lines(read_status(options.output_dir))))


def sync(options: argparse.Namespace) -> None:
    from monai_cae.tracking import sync

    for line in sync(options.output_dir, options.tracking_uri):
        print(line, flush=True)
