"""Write the configs of the bundle from their sources in bundle/configs/src: `make configs`.

MONAI's tools read one JSON alone, so each is complete in itself. What several have in common stands once, in
common.yaml: each source is read behind it, so that it may use its anchors, and takes from it what its items refer to.
experiment.yaml takes all settings of common.yaml, and hands them to the stages. A setting has a remark: `_NAME_` beside
NAME, or, where it is a part with a `_target_`, `_desc_` in it.
"""

from __future__ import annotations

import json
import re
import sys
import textwrap
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

CONFIGS = Path(__file__).resolve().parent.parent / "bundle" / "configs"
STAGES = ("pretrain", "train", "evaluate", "baselines", "inference")
_ALWAYS = ("_desc_", "_run_", "imports", "bundle_root", "initialize", "training")  # MONAI looks these up by name
_REFERENCE = re.compile(r"(?:@|unevaluated\(')(\w+)")
_WIDTH = 120
Config = dict[str, Any]


def made(sources: Path = CONFIGS / "src") -> dict[str, str]:
    """The text of every config by the name of its file."""
    common, *own = (_text(sources, name) for name in ("common", *STAGES))
    stages = {f"{name}.json": _stage(common, text) for name, text in zip(STAGES, own, strict=True)}
    files = {name: json.dumps(config, indent=4, ensure_ascii=False) + "\n" for name, config in stages.items()}
    return {**files, "experiment.yaml": "\n".join(_experiment(common, _text(sources, "experiment"))) + "\n"}


def _text(sources: Path, name: str) -> str:
    return (sources / f"{name}.yaml").read_text(encoding="utf-8")


def _stage(common: str, own: str) -> Config:
    whole: Config = yaml.safe_load(f"{common}\n{own}")
    names = [line.partition(":")[0] for line in own.splitlines() if line[:1].strip() and ":" in line]
    wanted = [*(name.strip("_") for name in names), *_ALWAYS]
    found = {name for name in names if name.endswith("_")}
    while wanted:
        name = wanted.pop()
        if name not in found and name in whole:
            found |= {name, f"_{name}_"}
            wanted += _REFERENCE.findall(json.dumps(whole[name]))
    return {name: whole[name] for name in dict.fromkeys([*_ALWAYS[:2], *whole]) if name in found and name in whole}


def _experiment(common: str, own: str) -> Iterator[str]:
    shared: Config = yaml.safe_load(common)
    whole: Config = {**shared, **yaml.safe_load(own)}
    remarks = {name: remark for name in whole if name != "run" and (remark := _remark(name, whole))}
    whole["run"][0]["shared"] = {
        name: _handed_on(name, whole[name]) for name in remarks if name in shared and name not in whole["_not_shared"]
    }
    unread = {*whole["_not_shared"]} - {*_REFERENCE.findall(json.dumps(whole["run"]))}
    yield f"# {whole['_desc_']}"
    yield f"# {whole['_run_']}"
    yield "# Made by `make configs` from src/experiment.yaml and src/common.yaml: change it there."
    yield from ("", *_dumped("imports", whole), *_dumped("bundle_root", whole), "")
    for name, remark in remarks.items():
        if name not in unread:
            yield from _setting(name, whole[name], remark)
    yield from ("", *(line for name in ("initialize", "run", "training") for line in _dumped(name, whole)))


def _is_part(value: Any) -> bool:
    return isinstance(value, dict) and "_target_" in value


def _remark(name: str, whole: Config) -> Any:
    return whole.get(f"_{name}_") or (_is_part(whole[name]) and whole[name].get("_desc_"))


def _handed_on(name: str, value: Any) -> str:
    """A part, such as {_target_: ...}, is for the stages to make; `null` stands for one, too."""
    part = value is None or _is_part(value)
    return f"$monai_cae.training.unevaluated('{name}')" if part else f"@{name}"


def _setting(name: str, value: Any, remark: Any, indent: str = "") -> Iterator[str]:
    if isinstance(remark, dict):
        yield f"{name}:"
        for member, text in remark.items():
            yield from _setting(member, value[member], text, "  ")
        return
    if _is_part(value):
        value = {key: one for key, one in value.items() if key != "_desc_"}
    line = indent + yaml.safe_dump({name: value}, default_flow_style=True, width=10**6, sort_keys=False).strip()[1:-1]
    if len(line) + 2 > 38 or 40 + len(remark) > _WIDTH:
        yield from textwrap.wrap(remark, _WIDTH, initial_indent=f"{indent}# ", subsequent_indent=f"{indent}# ")
        yield line
    else:
        yield f"{line:<38}# {remark}"


def _dumped(name: str, whole: Config) -> list[str]:
    return yaml.safe_dump({name: whole[name]}, sort_keys=False, width=10**6).splitlines()


def main() -> None:
    """Write them all."""
    for name, text in made().items():
        (CONFIGS / name).write_text(text, encoding="utf-8")


if __name__ == "__main__":
    sys.exit(main())
