"""Executed configs as defaults for others: a run's settings, without its machine."""

from __future__ import annotations

import copy
import json
import re
from collections.abc import Iterator, Mapping
from typing import Any

Config = dict[str, Any]
_Place = tuple[Any, ...]

# Paths, names of servers and runs, the hardware, the leave to train on a leak or to replace results: not part of what
# was trained.
_OWN = {
    "dataset_dir", "output_dir", "datalist", "predictions", "pretrained", "transfer", "checkpoint", "tracking_uri",
    "experiment_name", "run_name", "parent_run_id", "device", "threads", "num_workers", "allow_leaks",
    "allow_outside", "allow_other_frame", "overwrite", "resume", "save_every", "on_bad_scan", "codes",
}  # fmt: skip
# and what an experiment leaves out of the evaluation of a variant, as another method has told it
_OWN_MEMBERS = {
    ("cohort", "table"), ("cohort", "unseen_by"), ("tracked_run", "tags"), ("run", 0), ("report", "reconstruction"),
    ("report", "codecs"), ("figures", "explanations"), ("figures", "decoder"),
}  # fmt: skip
ABSENT = object()
_PATH = re.compile(r"(?:^|['\"\s(=,])(?:~|~?/\w|[A-Za-z]:[\\/])|\.\.[\\/]|://")


def as_written(executed: Mapping[str, Any]) -> Config:
    """An executed config with # between an item and its part, as people write it; MONAI has made :: of every one."""
    return json.loads(json.dumps(executed).replace("::", "#"))


def as_defaults(executed: Mapping[str, Any], shipped: Mapping[str, Any]) -> Config:
    """An executed config in which whatever belongs to its machine is as the bundle ships it.

    Args:
        executed: the config of a stage.
        shipped: the same config of the bundle.
    """
    config = copy.deepcopy(dict(executed))
    for place, value in changes(executed, shipped):
        if is_own(place, value):
            _put(config, place, at(shipped, place))
    return config


def carried_over(config: Mapping[str, Any], executed: Mapping[str, Any], shipped: Mapping[str, Any]) -> Config:
    """Another config of the bundle, changed as the executed one was, wherever the bundle ships the two alike.

    Args:
        config: e.g. inference.json, which predicts as evaluate.json does.
        executed: the config of a stage.
        shipped: the same config of the bundle.
    """
    carried = copy.deepcopy(dict(config))
    for place, value in changes(executed, shipped):
        # an argument or covariate that the bundle lacks is added where what it is added to is shipped alike
        owner = place if at(config, place) is not ABSENT else place[:-1]
        alike = bool(owner) and at(config, owner) == at(shipped, owner) is not ABSENT
        if alike and not is_own(place, value):
            _put(carried, place, value if value is ABSENT else copy.deepcopy(value))
    return carried


def changes(executed: Any, shipped: Any, place: _Place = ()) -> Iterator[tuple[_Place, Any]]:
    """Where two configs differ: the names that lead there, and the first one's value."""
    if isinstance(executed, Mapping) and isinstance(shipped, Mapping):
        for name, value in executed.items():
            yield from changes(value, shipped.get(name, ABSENT), (*place, name))
        if executed.get("_target_") != shipped.get("_target_"):  # the arguments of another class are not its own
            yield from (((*place, name), ABSENT) for name in shipped.keys() - executed.keys())
    elif isinstance(executed, list) and isinstance(shipped, list) and len(executed) == len(shipped):
        for index, (ours, theirs) in enumerate(zip(executed, shipped, strict=True)):
            yield from changes(ours, theirs, (*place, index))
    elif executed != shipped:
        yield place, executed


def is_own(place: _Place, value: Any) -> bool:
    """Whether a setting belongs to the machine or the run that it was made on, by its name or because it is a path.

    Args:
        place: the names that lead to it.
        value: what it is set to.
    """
    own = place[0] in _OWN or place[:2] in _OWN_MEMBERS or place[-1] == "weights_file"  # which the checkpoint has too
    return own or any(_PATH.search(text) for text in _texts(value))


def _texts(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, (Mapping, list)):
        for member in value.values() if isinstance(value, Mapping) else value:
            yield from _texts(member)


def at(config: Any, place: _Place) -> Any:
    """What a config has at a place; `ABSENT` for nothing."""
    for name in place:
        try:
            config = config[name]
        except (KeyError, IndexError, TypeError):
            return ABSENT
    return config


def _put(config: Config, place: _Place, value: Any) -> None:
    owner = at(config, place[:-1])
    if value is ABSENT:
        del owner[place[-1]]
    else:
        owner[place[-1]] = value
