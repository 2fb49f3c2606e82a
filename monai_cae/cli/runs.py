"""Commands about runs: start one, predict with one, compare them, explain their settings."""

from __future__ import annotations

import argparse
import json
import os
import re
import runpy
import shutil
import sys
import textwrap
import warnings
from collections.abc import Iterator, Mapping, Sequence
from difflib import get_close_matches
from pathlib import Path
from shlex import quote
from typing import Any

from yaml import YAMLError, safe_load

from monai_cae import DISCLAIMER
from monai_cae.cli.prediction import predict_raw, refuse_inputs
from monai_cae.cli.prepare import inputs_given
from monai_cae.errors import MonaiCaeError
from monai_cae.folders import bundle_folder

_STAGES = ("pretrain", "train", "evaluate", "baselines", "inference")


def run(options: argparse.Namespace) -> None:
    folder = bundle_folder() / "configs"
    names = [name.strip() for name in options.overlays.split(",") if name.strip()]
    known = {path.stem.removeprefix("with_"): path for path in sorted(folder.glob("with_*.yaml"))}
    for name in names:
        if name not in known and not Path(name).is_file():
            raise MonaiCaeError(
                f"no overlay {name}: give --with a file or one of the bundle's overlays: {', '.join(known)}"
            )
    files = [folder / "experiment.yaml", *(known.get(name) or Path(name).absolute() for name in names)]
    given = _with_target(as_settings(options.settings, ("config_file", "dataset_dir", "output_dir")))
    _check_readable(files)
    config = str(files[0]) if len(files) == 1 else str([str(file) for file in files])
    places = _places(dataset_dir=options.data, output_dir=options.out)
    _bundle("run", "training", "--config_file", config, *places, *given)


def predict(options: argparse.Namespace) -> int:
    from monai_cae.sharing import check_package
    from monai_cae.sharing.bundle import CHECKPOINTS
    from monai_cae.sharing.settings import inference_settings, kind_of

    given = as_settings(options.settings, ("config_file", "checkpoint", "dataset_dir", "predictions"))
    config, settings = bundle_folder() / "configs" / "inference.json", _places(checkpoint=options.model)
    checkpoint, kind = options.model, kind_of(options.model)
    if kind == "package":
        check_package(options.model, trust=options.trust)
        config, settings = options.model / "configs" / "inference.json", []
    elif kind == "run":
        settings = _options(inference_settings(options.model))
    if kind != "checkpoint":
        checkpoint = options.model / CHECKPOINTS["classifier"]

    def infer(scans: Path, further: Sequence[str]) -> None:
        places = _places(dataset_dir=scans, predictions=options.out / "predictions.csv")
        _bundle("run", "--config_file", str(config), *settings, *places, *further, *given)

    if options.prepare:
        return predict_raw(options, given, checkpoint, infer)
    refuse_inputs([name for name in inputs_given(options) if name != "table"])
    infer(options.scans, ["--table", str(options.table)] if options.table else [])
    return 0


def evaluate(options: argparse.Namespace) -> None:
    from monai_cae.sharing.settings import evaluation_settings

    given = as_settings(options.settings, ("config_file", "checkpoint", "dataset_dir", "output_dir"))
    found = evaluation_settings(options.model, trust=options.trust)
    if any(part.startswith(("--cohort#task", "--cohort#positive", "--cohort#label_column")) for part in given):
        found = {name: value for name, value in found.items() if not name.startswith("cohort#")}  # the model's rule
    files = [str(bundle_folder() / "configs" / name) for name in ("evaluate.json", "external.yaml")]
    places = _places(dataset_dir=options.cohort, output_dir=options.out)
    _bundle("run", "--config_file", str(files), *_options(found), *places, *given)


def latent(options: argparse.Namespace) -> None:
    from monai_cae.sharing.settings import autoencoder_settings

    given = as_settings(options.settings, ("config_file", "pretrained", "dataset_dir", "output_dir"))
    found = autoencoder_settings(options.model, trust=options.trust)
    files = [str(bundle_folder() / "configs" / name) for name in ("evaluate.json", "latent.yaml")]
    places = _places(dataset_dir=options.cohort, output_dir=options.out)
    _bundle("run", "--config_file", str(files), *_options(found), *places, *given)


def _options(settings: Mapping[str, Any]) -> list[str]:
    return [part for name, value in settings.items() for part in (f"--{name}", str(value))]


def as_settings(arguments: Sequence[str], taken: Sequence[str]) -> list[str]:
    """Options in the bundle's spelling, with underscores, except in values and names of variants.

    Raises:
        MonaiCaeError: a value without a setting, or one of the settings whose values have a place of their own.
    """
    settings, value_may_follow = [], False
    for text in arguments:
        if not text.startswith("--"):
            if not value_may_follow:
                raise MonaiCaeError(f"{text!r} belongs to no setting: give --NAME VALUE, see `monai-cae settings`")
            settings.append(text)
            value_may_follow = False
            continue
        name, equals, value = text[2:].partition("=")
        parts = name.split("#")
        parts = [p if parts[:i] == ["variants"] else p.replace("-", "_") for i, p in enumerate(parts)]
        if parts[0] in taken:
            raise MonaiCaeError(f"{parts[0]} is given without a name, by its position: see --help")
        settings.append(f"--{'#'.join(parts)}{equals}{value}")
        value_may_follow = not equals
    return settings


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


def _check_readable(files: Sequence[Path]) -> None:
    from monai.bundle import ConfigParser

    for file in files:
        try:
            ConfigParser.load_config_file(str(file)).keys()
        except (OSError, ValueError, AttributeError, YAMLError) as error:
            raise MonaiCaeError(f"{file} is not a YAML or JSON config: {' '.join(str(error).split())}") from error


def _places(**paths: Path) -> list[str]:
    """Paths as settings; ./ keeps MONAI from reading true, 12 or a,b as something else, -a as a setting."""
    shown = {name: str(path) if path.is_absolute() else f"./{path}" for name, path in paths.items()}
    return [part for name, text in shown.items() for part in (f"--{name}", text)]


def _bundle(*arguments: str) -> None:
    """Print a command of `python -m monai.bundle` and run it."""
    shown = (f'"{part}"' if "'" in part and not set(part) & set('"$`\\!') else quote(part) for part in arguments)
    print(" ".join(["python -m monai.bundle", *shown]), flush=True)
    warnings.filterwarnings("ignore", "parsing config_file")  # MONAI's advice to trust configs: these are our own
    sys.argv = ["monai.bundle", *arguments]
    try:
        runpy.run_module("monai.bundle", run_name="__main__", alter_sys=True)
    except KeyError as error:
        if "query key: " not in str(error):
            raise
        name = str(error.args[0]).removeprefix("query key: ")
        raise MonaiCaeError(f"no config has the setting {name}: see `monai-cae settings`") from error


def settings(options: argparse.Namespace) -> None:
    told = list(_settings())
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


def _settings() -> Iterator[dict[str, Any]]:
    """Every setting of the stages, with those of its remarks and defaults that differ."""
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
    if options.train_subjects < 0:
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


def sync(options: argparse.Namespace) -> None:
    from monai_cae.tracking import sync

    for line in sync(options.output_dir, options.tracking_uri):
        print(line, flush=True)
