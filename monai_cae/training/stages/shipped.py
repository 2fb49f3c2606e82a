"""What the shipped configs have: their items, and the values by which a user's are checked."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from typing import Any

from monai.bundle import ConfigParser

from monai_cae.errors import MonaiCaeError
from monai_cae.folders import bundle_folder

GROUPS = ("cohort", "split")  # of settings
BOOLEANS = {"true": True, "false": False, "True": True, "False": False}
_RULES = ("cohort#positive", "cohort#negative")


@cache
def shipped_items() -> dict[str, frozenset[str]]:
    """Name of a shipped config -> its items at the top."""
    folder, found = bundle_folder() / "configs", {}
    for path in sorted(folder.glob("*.json")) + sorted(folder.glob("*.yaml")):
        names = (name.lstrip("+").split("#")[0] for name in ConfigParser.load_config_file(str(path)))
        found[path.name] = frozenset(name for name in names if not name.startswith("_"))
    return {name: items for name, items in found.items() if name != "metadata.json"}


def check_against_shipped(config: Mapping[str, Any]) -> None:
    """Refuse what has no value where a shipped config has one, and in a group what is of another kind than there."""
    defaults = _shipped_defaults()
    given = [(name, value) for name, value in config.items() if name in defaults]
    for name, default in defaults.items():
        group, _, member = name.partition("#")
        if member and isinstance(members := config.get(group), Mapping) and member in members:
            given.append((name, value := members[member]))
            whole = isinstance(value, int) and not isinstance(value, bool)
            if isinstance(default, bool) and not isinstance(value, bool) and value not in BOOLEANS:
                raise MonaiCaeError(f"{name} must be true or false, not {value!r}")
            if isinstance(default, int) and not isinstance(default, bool) and not whole and value is not None:
                raise MonaiCaeError(f"{name} must be a whole number, not {value!r}")
            if isinstance(default, dict) and not isinstance(value, dict) and value is not None:
                raise MonaiCaeError(f"{name} must be a group such as {{subject: RID}}, not {value!r}")
            if name in _RULES and not isinstance(value, str):
                raise MonaiCaeError(f"{name} must be a rule on columns, such as \"DX == 'AD'\", not {value!r}")
    for name, value in given:
        if value is None and defaults[name] is not None:
            raise MonaiCaeError(f"{name} has no value: give one, or leave it out")


@cache
def _shipped_defaults() -> dict[str, Any]:
    """Setting -> its value in a shipped config, None where one has none; those in a group as "cohort#task"."""
    folder, found = bundle_folder() / "configs", dict[str, Any]()
    for path in (*sorted(folder.glob("*.json")), folder / "experiment.yaml"):
        config = ConfigParser.load_config_file(str(path))
        grouped = {f"{group}#{name}": value for group in GROUPS for name, value in config.get(group, {}).items()}
        for name, value in {**config, **grouped}.items():
            alone = "#" not in name or name in grouped  # not what multi_gpu_train.json changes
            if alone and not name.startswith("_") and (name not in found or value is None):
                found[name] = value
    return found
