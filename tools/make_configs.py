"""Write the JSON configs of the bundle from their sources in bundle/configs/src: `make configs`.

MONAI's tools read one JSON alone, so each is complete in itself. What several have in common stands once, in
common.yaml: a config takes from there what its own items refer to. `%item` is replaced by a copy of that item.
"""

from __future__ import annotations

import copy
import json
import re
import sys
from pathlib import Path
from typing import Any

import yaml

CONFIGS = Path(__file__).resolve().parent.parent / "bundle" / "configs"
STAGES = ("pretrain", "train", "evaluate", "baselines", "inference")
_ALWAYS = ("_desc_", "_run_", "imports", "bundle_root", "initialize", "training")  # MONAI looks these up by name
_REFERENCE = re.compile(r"@(\w+)")
Config = dict[str, Any]


def made(sources: Path = CONFIGS / "src") -> dict[str, Config]:
    """The configs by the name of their stage."""
    common = _read(sources / "common.yaml")
    return {stage: _made(common, _read(sources / f"{stage}.yaml")) for stage in STAGES}


def text(config: Config) -> str:
    """A config as its file has it."""
    return json.dumps(config, indent=4, ensure_ascii=False) + "\n"


def _made(common: Config, stage: Config) -> Config:
    whole = {**common, **stage}
    config = {name: _copied(value, whole) for name, value in whole.items()}
    wanted, found = [*(name.strip("_") for name in stage), *_ALWAYS], set()
    while wanted:
        name = wanted.pop()
        if name not in found and name in config:
            found |= {name, f"_{name}_"}
            wanted += _REFERENCE.findall(json.dumps(config[name]))
    order = [*_ALWAYS[:2], *common, *stage]
    return {name: config[name] for name in dict.fromkeys(order) if name in found and name in config}


def _copied(value: Any, whole: Config) -> Any:
    if isinstance(value, dict):
        return {name: _copied(member, whole) for name, member in value.items()}
    if isinstance(value, list):
        return [_copied(member, whole) for member in value]
    if isinstance(value, str) and value.startswith("%"):
        found: Any = whole
        for name in value[1:].split("#"):
            found = found[name]
        return _copied(copy.deepcopy(found), whole)
    return value


def _read(path: Path) -> Config:
    return dict(yaml.safe_load(path.read_text(encoding="utf-8")))


def main() -> None:
    """Write them all."""
    for stage, config in made().items():
        (CONFIGS / f"{stage}.json").write_text(text(config), encoding="utf-8")


if __name__ == "__main__":
    sys.exit(main())
