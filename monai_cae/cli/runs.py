"""Commands about runs: start one, predict with one, compare them, explain their settings."""

from __future__ import annotations

import argparse
import json
import os
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

from monai_cae import DISCLAIMER
from monai_cae.errors import MonaiCaeError
from monai_cae.folders import bundle_folder

_STAGES = ("pretrain", "train", "evaluate", "baselines", "inference")


def run(options: argparse.Namespace) -> None:
    folder = bundle_folder() / "configs"
    names = [name.strip() for name in options.overlays.split(",") if name.strip()]
    known = {path.stem.removeprefix("with_"): path for path in sorted(folder.glob("with_*.yaml"))}
    for name in names:
        if name not in known and not Path(name).is_file():
            raise MonaiCaeError(f"no overlay {name}: give a file, or of the bundle's {', '.join(known)} with --with")
    files = [folder / "experiment.yaml", *(known.get(name) or Path(name).absolute() for name in names)]
    config = str(files[0]) if len(files) == 1 else str([str(file) for file in files])
    places = ["--dataset_dir", str(options.data), "--output_dir", str(options.out)]
    _bundle("run", "training", "--config_file", config, *places, *_as_settings(options.settings))


def predict(options: argparse.Namespace) -> None:
    given = _as_settings(options.settings)
    config, settings = bundle_folder() / "configs" / "inference.json", {"checkpoint": str(options.model)}
    if (options.model / "configs" / "inference.json").is_file():
        from monai_cae.sharing import check_package

        check_package(options.model, trust=options.trust)
        config, settings = options.model / "configs" / "inference.json", {}
    elif options.model.is_dir():
        from monai_cae.sharing.runs import inference_settings

        settings = inference_settings(options.model)
    elif not options.model.is_file():
        raise MonaiCaeError(f"no model at {options.model}: give an unpacked package, a run's folder or a checkpoint")
    elif options.model.suffix == ".zip":
        raise MonaiCaeError(f"{options.model} is packed: monai-cae bundle FOLDER --from {options.model} unpacks it")
    settings |= {"dataset_dir": str(options.scans), "predictions": str(options.out / "predictions.csv")}
    _bundle("run", "--config_file", str(config), *_options(settings), *given)


def _as_settings(arguments: Sequence[str]) -> list[str]:
    """Options as the bundle has them, with underscores."""
    return [f"--{text[2:].replace('-', '_')}" if text.startswith("--") else text for text in arguments]


def _options(settings: Mapping[str, Any]) -> list[str]:
    return [part for name, value in settings.items() for part in (f"--{name}", str(value))]


def _bundle(*arguments: str) -> None:
    """Print a command of `python -m monai.bundle`, and be it."""
    shown = (f'"{part}"' if "'" in part else quote(part) for part in arguments)
    print(" ".join(["python -m monai.bundle", *shown]), flush=True)
    warnings.filterwarnings("ignore", "parsing config_file")  # MONAI's advice to trust configs: these are our own
    sys.argv = ["monai.bundle", *arguments]
    runpy.run_module("monai.bundle", run_name="__main__", alter_sys=True)


def settings(options: argparse.Namespace) -> None:
    told = list(_settings())
    names = list(dict.fromkeys(setting["name"] for setting in told))
    wanted = options.name.lstrip("-").replace("-", "_")
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
            print(textwrap.fill(setting["default"], width, initial_indent="  default: ", subsequent_indent="    "))
            print(textwrap.fill(text, width, initial_indent="  ", subsequent_indent="  "))


def _settings() -> Iterator[dict[str, Any]]:
    """Every setting of the stages, with those of its remarks and defaults that differ."""
    found: dict[tuple[str, str, str], list[str]] = {}
    for stage in _STAGES:
        config = json.loads((bundle_folder() / "configs" / f"{stage}.json").read_text(encoding="utf-8"))
        for name in [name for name in config if f"_{name}_" in config and name != "run"]:
            remarks, value = config[f"_{name}_"], config[name]
            members = (
                {f"{name}#{key}": (text, value[key]) for key, text in remarks.items()}
                if isinstance(remarks, dict)
                else {}
            )
            for full, (remark, default) in (members or {name: (remarks, value)}).items():
                found.setdefault((full, remark, json.dumps(default)), []).append(f"{stage}.json")
    for (name, remark, default), readers in sorted(found.items(), key=lambda item: item[0][0].partition("#")[0]):
        yield {"name": name, "remark": remark, "default": default.strip('"'), "readers": readers}


def compare(options: argparse.Namespace) -> None:
    if len(options.runs) < 2:
        raise MonaiCaeError("give two or more runs, folders or files to compare")
    if options.train_subjects < 0:
        raise MonaiCaeError(f"--train_subjects must be a number of subjects, not {options.train_subjects:g}")
    from monai_cae.experiment.comparing import compare_predictions, comparison_lines, write_comparison
    from monai_cae.experiment.finished import read_predictions

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
