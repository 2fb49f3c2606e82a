"""A line on each method: network and variants by their settings, baselines by their config's description."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from monai_cae.experiment.plan import BASELINES, CLASSIFIER, Part, Plan, one_by_one, read_json
from monai_cae.experiment.record import NETWORK

_LONGEST = 400  # of the settings of one method
_ANYWHERE = {  # where it ran, and what the experiment decides
    "dataset_dir", "output_dir", "datalist", "overwrite", "run_name", "tracked_run#tags", "experiment_name",
    "tracking_uri", "parent_run_id", "split#fold", "pretrained",
}  # fmt: skip
_STAGES = {CLASSIFIER: "train, evaluate"}  # the settings under this name are for both


def descriptions(plan: Plan) -> dict[str, str]:
    """Method -> what it is.

    Args:
        plan: of the experiment.
    """
    changed = _settings(plan.stages)
    how = f"with {changed}" if changed else "as in the configs"
    how += ", and in every split what the candidate has that was chosen there" if plan.select else ""
    models = read_json(Path(plan.configs, f"{BASELINES}.json"))["models"] if plan.baselines else {}
    return {
        NETWORK: f"the classifier on the autoencoder's encoder, {how}",
        **{name: f"the network with {_settings(changed)}" for name, changed in plan.variants.items()},
        **{name: models.get(name, {}).get("_desc_", "a model of baselines.json") for name in plan.baselines},
    }


def changed_settings(plan: Plan, part: Part) -> list[dict[str, Any]]:
    """Settings of the network that are not those of the shipped configs.

    Args:
        plan: of the experiment.
        part: one of its parts; the settings of the others differ in seed and fold alone.

    Returns:
        Plain data: `name`, `value`, `default`, and the `stages` that have it.
    """
    found: dict[tuple[str, str], dict[str, Any]] = {}
    for step in plan.steps(part):
        for stage, settings in step.stages.items() if step.method == NETWORK else ():
            shipped = read_json(Path(plan.configs, f"{stage}.json"))
            known = {**shipped, **one_by_one(shipped)}
            for name, value in one_by_one(settings).items():
                default = known.get(name)
                if name not in _ANYWHERE and value != default:
                    told = {"name": name, "value": _value(value), "default": "" if default is None else _value(default)}
                    found.setdefault((name, told["value"]), {**told, "stages": []})["stages"].append(stage)
    return list(found.values())


def command() -> str:
    """What this process was started as, to be typed again."""
    program, *given = sys.argv
    module = "bundle" in Path(program).parts or program == "monai.bundle"
    return shlex.join([*(["python", "-m", "monai.bundle"] if module else [program]), *given])


def _settings(by_stage: Mapping[str, Mapping[str, Any]]) -> str:
    told = [
        ", ".join(f"`{name}` {_value(value)}" for name, value in settings.items()) + f" ({_STAGES.get(stage, stage)})"
        for stage, settings in by_stage.items()
        if settings and stage != BASELINES
    ]
    text = "; ".join(told)
    return text if len(text) <= _LONGEST else f"{text[:_LONGEST].rpartition(' ')[0]} ..."


def _value(value: Any) -> str:
    """A setting as people write it: an empty group is none, a part of a network is named by its class and by what it
    has of its own, not what refers to other settings."""
    if isinstance(value, Mapping):
        own = [name for name, one in value.items() if name != "_target_" and not str(one).startswith(("@", "$"))]
        members = ", ".join(f"{name} {_value(value[name])}" for name in own)
        kind = str(value.get("_target_", "")).rpartition(".")[2]
        return f"{kind}({members})" if members else kind or "none"
    if isinstance(value, (list, tuple)):
        return f"[{', '.join(map(_value, value))}]" if value else "none"
    if isinstance(value, bool):
        return str(value).lower()
    return f"{value:g}" if isinstance(value, float) else str(value) or "none"
