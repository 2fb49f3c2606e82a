"""Around MONAI's ConfigWorkflow: settings checked, errors in one line, the bundle's own folder.

The functions here are named by the configs. An expression in a config can't see the workflow that evaluates it, so
`running_workflow` finds it among the callers: that is the one place where a setting that nobody reads, the executed
config and the config file's folder can be known for every way of starting: the command line, `create_workflow`, `load`,
our experiment.
"""

from __future__ import annotations

import difflib
import inspect
import json
import os
import re
import sys
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import Any

import torch
from monai.bundle import ConfigParser, ConfigWorkflow

from monai_cae import __version__
from monai_cae.errors import MonaiCaeError
from monai_cae.files import refuse_same_folder
from monai_cae.networks.norms import NORMS
from monai_cae.tracking import without_credentials
from monai_cae.training.engines.handlers import KEEP
from monai_cae.training.engines.image_cache import check_share
from monai_cae.training.engines.inferers import check_compile
from monai_cae.training.engines.memory import full_memory, is_full
from monai_cae.training.engines.packing import CACHES
from monai_cae.training.engines.schedules import SCHEDULES
from monai_cae.training.stages.learning import check_learn
from monai_cae.training.stages.runtime import use_machine
from monai_cae.training.stages.shipped import BOOLEANS, GROUPS, check_against_shipped, shipped_items

# What MONAI looks up by name (monai/bundle/properties.py), runs or exports, though no other item refers to it.
_LOOKED_UP = {
    "imports", "initialize", "run", "training", "finalize", "bundle_root", "network_def", "train", "validate",
    "dataset", "autoencoder_def",
    "evaluator", "inferer", "handlers", "preprocessing", "postprocessing", "key_metric",
}  # fmt: skip
_REFERENCE = re.compile(r"(?:[@%](?:::|#)?|unevaluated\(')(\w+)")
_POSITIVE_INTEGERS = ("batch_size", "accumulate", "max_epochs", "patience", "val_interval", "repeats")
_STAGES = ("pretrain", "train", "evaluate", "baselines")
_PATHS = ("dataset_dir", "output_dir")
_PLANE = "axial"  # in the configs, whether their extraction reads it or not
_POSITIVE_NUMBERS = ("learning_rate",)
_TRUE_OR_FALSE = (
    "activation_checkpointing", "allow_leaks", "allow_other_frame", "allow_outside", "hash_ids", "augment", "calibrate",
    "deterministic", "permute_labels", "resume", "overwrite", "single_slice",
)  # fmt: skip
_WORDS = {"keep": KEEP, "cache": CACHES, "norm": tuple(NORMS), "schedule": SCHEDULES}
_READ = {**BOOLEANS, "null": None}
_PLAIN = (str, int, float, bool, torch.device)
_LACKS = re.compile(r"module '(monai_cae[\w.]*)' has no attribute '(\w+)'")
_OTHER_VERSION = (
    f"this is monai-cae {__version__}, and the config may be of another version: `monai-cae bundle FOLDER` copies "
    "the present ones"
)
_NOT_THERE, _NOT_MADE = "Cannot locate class or function path", "Failed to instantiate component"  # MONAI's words


def prepare(seed: int = 0, threads: int = 0, deterministic: bool = False) -> None:
    """First step of every config: check the settings, seed the random generators, have mistakes told in one line.

    MONAI calls it more than once (after every property that is set), so it does nothing that can't be repeated.

    Args:
        seed: decides initial weights, batch order and dropout.
        threads: see `use_machine`.
        deterministic: see `use_machine`.

    Raises:
        MonaiCaeError: an unknown setting, with the name that was probably meant, or an impossible value.
    """
    _tell_mistakes_in_one_line()
    workflow = running_workflow()
    if workflow is not None:
        _read_booleans(workflow)
        check_settings(workflow.parser.get())
        _check_expressed_device(workflow)
    if isinstance(seed, bool) or not isinstance(seed, int) or seed < 0:
        raise MonaiCaeError(f"seed must be a whole number, 0 or more, not {seed!r}")
    use_machine(seed=seed, threads=threads, deterministic=BOOLEANS.get(str(deterministic), deterministic))


def _read_booleans(workflow: ConfigWorkflow) -> None:
    """Make booleans of the texts true and false, as the command line hands over `--setting false`: any text is true.
    The text null is none."""
    _replace_booleans(workflow.parser.get())
    for item in workflow.parser.ref_resolver.items.values():
        if isinstance(item.config, str):
            item.update_config(_READ.get(item.config, item.config))


def _replace_booleans(config: Any) -> None:
    entries = config.items() if isinstance(config, dict) else enumerate(config)
    for key, value in list(entries):
        if isinstance(value, (dict, list)):
            _replace_booleans(value)
        elif isinstance(value, str) and value in _READ:
            config[key] = _READ[value]


def running_workflow() -> ConfigWorkflow | None:
    """The ConfigWorkflow that evaluates the calling expression; None when called from elsewhere."""
    frame = inspect.currentframe()
    while frame is not None:
        caller = frame.f_locals.get("self")
        if isinstance(caller, ConfigWorkflow):
            return caller
        frame = frame.f_back
    return None


def bundle_root() -> str:
    """Absolute path of the bundle that the running config belongs to; without one, the working directory, as in
    MONAI."""
    workflow = running_workflow()
    if workflow is None:
        return os.getcwd()
    folder = Path(workflow.config_root_path).resolve()
    return str(folder.parent if folder.name == "configs" else folder)


def executed_config() -> dict[str, Any]:
    """The running config as it is executed: files merged, overrides applied, nothing evaluated; no password in it."""
    workflow = running_workflow()
    config = {} if workflow is None else workflow.parser.get()
    content = {key: value for key, value in config.items() if key != "_meta_"}
    if isinstance(content.get("tracking_uri"), str):
        content["tracking_uri"] = without_credentials(content["tracking_uri"])
    return json.loads(json.dumps(content, default=str))


def unevaluated(item: str) -> Any:
    """An item of the running config as it stands there, for another config to evaluate."""
    return executed_config()[item]


def evaluated(config: Mapping[str, Any], item: str) -> Any:
    """An item of a config that has been executed before, and whatever it refers to; nothing else of it runs."""
    return ConfigParser(json.loads(json.dumps(config))).get_parsed_content(item)


def settings(config: dict[str, Any]) -> dict[str, Any]:
    """The plain values and expressions at the top of a config: what a user may set by `--name value`."""
    return {
        name: value
        for name, value in config.items()
        if isinstance(value, _PLAIN)
        and not name.startswith("_")
        and name not in _LOOKED_UP
        and not str(value).startswith("@")
    }


def resolved_settings() -> dict[str, Any]:
    """The running config's settings with their values, as far as they are plain and were needed; no password."""
    workflow = running_workflow()
    if workflow is None:
        return {}
    resolved = workflow.parser.ref_resolver.resolved_content
    values = {name: resolved.get(name) for name in settings(workflow.parser.get())}
    if "tracking_uri" in values:
        values["tracking_uri"] = without_credentials(str(values["tracking_uri"]))
    config = workflow.parser.get()
    values |= {full: config[full.split("#")[0]][full.split("#")[1]] for full in _grouped_settings(config)}
    return {name: str(v) if isinstance(v, torch.device) else v for name, v in values.items() if isinstance(v, _PLAIN)}


def check_settings(config: dict[str, Any]) -> None:
    """Refuse a top-level item that nothing reads (MONAI adds a misspelt override silently) and impossible values.

    Args:
        config: the merged config, overrides included, not evaluated.

    Raises:
        MonaiCaeError: naming the setting and, for a misspelt one, the closest that exists; for one of other configs,
            these.
    """
    read = set(_REFERENCE.findall(json.dumps(config, default=str))) | _LOOKED_UP
    if "predictions" in config:
        read.add("output_dir")  # it is read where the predictions go by default
    if "train" in config:
        read.add("max_epochs")  # in federated learning MonaiAlgo writes its local_epochs over the trainer's reference
    _check_plane(config, read)
    read |= {name for name in config if name not in read and (name.startswith(("_", "+")) or _merged(name, config))}
    for name in sorted(config.keys() - read):
        raise MonaiCaeError(_unread(name, config, (set(settings(config)) & read) | set(_grouped_settings(config))))
    for name in _PATHS:
        if not isinstance(value := config.get(name, ""), (str, os.PathLike)):
            advice = "put ./ in front of a path that reads as something else"
            raise MonaiCaeError(f"{name} must be a path, not {value!r}: {advice}")
    _check_places(config)
    check_against_shipped(config)
    for name in (*_POSITIVE_INTEGERS, *_POSITIVE_NUMBERS, *_TRUE_OR_FALSE):
        if isinstance(value := config.get(name), (list, dict)):
            raise MonaiCaeError(f"{name} must be a single value, not {value!r}")
    for name, value in settings(config).items():
        if name != "device" or not config.get("cluster"):  # whose GPUs need not be here
            _check_value(name, value)
    interval, epochs = config.get("val_interval"), config.get("max_epochs")
    if isinstance(interval, int) and isinstance(epochs, int) and interval > epochs:
        raise MonaiCaeError(f"val_interval {interval} is above max_epochs {epochs}: there would be no validation")


def _check_places(config: Mapping[str, Any]) -> None:
    """Refuse to write into the folder that the scans are read from."""
    given = {name: str(config.get(name, "$")) for name in ("dataset_dir", "output_dir", "predictions")}
    places = {name: Path(value) for name, value in given.items() if not value.startswith(("$", "@", "%"))}
    if "predictions" in places:
        places["predictions"] = places["predictions"].parent
    if "dataset_dir" in places:
        data = places.pop("dataset_dir")
        for place in places.values():
            refuse_same_folder(place, data, "the data")


def _check_plane(config: Mapping[str, Any], read: Collection[str]) -> None:
    """Refuse a plane in a training whose extraction has none: it would see other images than were meant."""
    extraction, plane = config.get("extraction"), config.get("plane", _PLANE)
    if not isinstance(extraction, Mapping) or not {"train", "models"} & config.keys():
        return
    if "plane" not in read and plane != _PLANE:
        kind = str(extraction.get("_target_")).rpartition(".")[2]
        raise MonaiCaeError(f"--plane {plane} has no effect: {kind} does not read it; leave it out")


def _merged(name: str, config: Mapping[str, Any]) -> bool:
    """Whether an item that nothing reads came with a shipped config: all of this one is here. It was merged with
    another, as MonaiAlgo merges train.json and evaluate.json, or the part that read the item was replaced."""
    return any(name in items and items <= config.keys() for items in shipped_items().values())


def _unread(name: str, config: Mapping[str, Any], known: set[str]) -> str:
    shipped = [file for file, items in shipped_items().items() if name in items]
    stages = [file.removesuffix(".json") for file in shipped if file.removesuffix(".json") in _STAGES]
    close = [full for full in sorted(known) if full.endswith(f"#{name}")]
    if "stages" in config and stages and not close:
        paths = " or ".join(f"--stages#{stage}#{name}" for stage in stages)
        return f"--{name} is a setting of single stages: give {paths}"
    if shipped and not close:
        return f"nothing here reads --{name}: it is a setting of {', '.join(shipped)}"
    close = close or difflib.get_close_matches(name, sorted(known), n=1)
    hint = f"did you mean --{close[0]}?" if close else "`monai-cae settings` lists them"
    return f"unknown setting --{name}: {hint}"


def _grouped_settings(config: Mapping[str, Any]) -> list[str]:
    """Settings that lie one level down, as the command line names them: "cohort#task"."""
    groups = {name: config[name] for name in GROUPS if isinstance(config.get(name), dict)}
    return [f"{group}#{name}" for group, members in groups.items() for name in members]


def _check_value(name: str, value: Any) -> None:
    if isinstance(value, str) and value.startswith(("$", "@", "%")):
        return
    if isinstance(value, str) and "::" in value:  # what MONAI has made of a #
        given = value.replace("::", "#")
        raise MonaiCaeError(
            f"{name} has a # in it ({given}), which MONAI reads as a separator: link or rename the path"
        )
    if name == "output_dir" and "%" in str(value):
        raise MonaiCaeError(f"output_dir has a % in it ({value}), which MLflow's databases can't have: choose another")
    whole = isinstance(value, int) and not isinstance(value, bool)
    if name in _POSITIVE_INTEGERS and not (whole and value > 0):
        raise MonaiCaeError(f"{name} must be a whole number above 0, not {value!r}")
    if name == "num_workers" and not (whole and value >= 0):
        raise MonaiCaeError(f"{name} must be a whole number, 0 or more, not {value!r}")
    if name in _POSITIVE_NUMBERS and not (isinstance(value, (int, float)) and value > 0):
        raise MonaiCaeError(f"{name} must be a number above 0, not {value!r}")
    if name in _TRUE_OR_FALSE and not isinstance(value, bool) and value not in BOOLEANS:  # any text counts as true
        raise MonaiCaeError(f"{name} must be true or false, not {value!r}")
    if value not in _WORDS.get(name, (value,)):
        raise MonaiCaeError(f"{name} must be one of {', '.join(_WORDS[name])}, not {value!r}")
    if name == "learn":
        check_learn(value)
    if name == "compile":
        check_compile(value)
    if name == "cache_share":
        check_share(value)
    if name == "device":
        _check_device(str(value))


def _check_expressed_device(workflow: ConfigWorkflow) -> None:
    """As `_check_device` does; of an expression only its value tells."""
    expression = workflow.parser.get().get("device")
    if not isinstance(expression, str) or not expression.startswith("$") or workflow.parser.get().get("cluster"):
        return
    try:
        device = workflow.parser.ref_resolver.get_resolved_content("device")
    except Exception as error:
        if find_mistake(error) is not None:
            raise
        raise MonaiCaeError(f"device must be cpu, cuda or cuda:N, not {expression}, which fails") from error
    _check_device(str(device))


def _check_device(name: str) -> None:
    try:
        device = torch.device(name)
        if device.type not in ("cpu", "cuda", "meta"):
            torch.empty(0, device=device)
    except Exception as error:  # each kind has its own where it is not there
        raise MonaiCaeError(f"device must be cpu, cuda or cuda:N, not {name!r}") from error
    if device.type == "cuda" and (device.index or 0) >= (seen := torch.cuda.device_count()):
        raise MonaiCaeError(
            f"device {name} is not available: this PyTorch sees {seen or 'no'} CUDA GPUs; use --device cpu"
        )


def find_mistake(error: BaseException | None) -> MonaiCaeError | None:
    """The MonaiCaeError behind an exception, as MONAI wraps what its expressions raise; or one on full memory, or on a
    part of the config that is not there or does not take what it is given. What a part itself raises keeps its
    traceback."""
    outermost = error
    while error is not None:
        if isinstance(error, MonaiCaeError):
            return error
        if outermost is not None and is_full(error):
            return full_memory(error, outermost)
        if str(error).startswith(_NOT_THERE):
            path = str(error).removeprefix(_NOT_THERE).strip(": '.")
            advice = "check the name, and that PYTHONPATH has the folder of its file"
            advice = _OTHER_VERSION if path.startswith("monai_cae.") else advice
            return MonaiCaeError(f"Python finds no {path}, which a _target_ names: {advice}")
        if isinstance(error, AttributeError) and (lacks := _LACKS.fullmatch(str(error))):
            return MonaiCaeError(f"there is no {lacks[1]}.{lacks[2]}, which the config names: {_OTHER_VERSION}")
        cause = error.__cause__
        if str(error).startswith(_NOT_MADE) and isinstance(cause, TypeError) and _is_of_the_call(cause):
            return MonaiCaeError(f"{str(error).removeprefix(_NOT_MADE).split()[0]} can't be made: {cause}")
        error = cause or error.__context__
    return None


@contextmanager
def mistakes_alone() -> Iterator[None]:
    """A user's mistake that MONAI has wrapped is raised by itself, as it can go from one process to another."""
    try:
        yield
    except Exception as error:
        if (mistake := find_mistake(error)) is not None and mistake is not error:
            raise MonaiCaeError(str(mistake)) from error
        raise


def _is_of_the_call(error: TypeError) -> bool:
    """Whether it comes from the call itself, such as a missing argument, not from within what was called."""
    return error.__traceback__ is not None and error.__traceback__.tb_next is None


def _tell_mistakes_in_one_line() -> None:
    """Under `python -m monai.bundle` a user's mistake ends in one line instead of a traceback; elsewhere nothing
    changes."""
    spec = getattr(sys.modules["__main__"], "__spec__", None)
    if spec is not None and spec.name == "monai.bundle.__main__":
        sys.excepthook = _one_line_excepthook


def _one_line_excepthook(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
    mistake = find_mistake(error)
    if mistake is not None:
        print(f"error: {mistake}", file=sys.stderr)
    elif issubclass(kind, KeyboardInterrupt):
        print("interrupted", file=sys.stderr)
    else:
        sys.__excepthook__(kind, error, trace)
