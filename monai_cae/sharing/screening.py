"""Screen other people's configs, as data, before anything in them may run.

MONAI runs a config: a text that starts with `$` is Python, `_target_` names whatever is to be called, `%` reads another
file, and some arguments (LoadImage's `reader`) are names to import. So a list of allowed modules protects nobody, and a
config of a package is what this version ships under that name, but for settings: numbers anywhere; texts where the
shipped config has a setting that is text, unless they name a place of a machine; networks, which may be any of
`monai_cae.networks`, and their losses; the extractions of `monai_cae.data`; and our targets, with the name of a column.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from monai_cae.errors import MonaiCaeError
from monai_cae.folders import bundle_folder
from monai_cae.networks import __all__ as _networks
from monai_cae.sharing.bundle import CHECKPOINTS, DEFINITIONS, EXECUTED, STRANGERS, printable, read_json
from monai_cae.sharing.card import EXPERIMENT_CARD
from monai_cae.sharing.executed import ABSENT, at, changes, is_own

TRUST = "--trust (in Python trust=True)"
# evaluate.json of a package names its own weights
EVALUATED = {
    "checkpoint": f"$@bundle_root + '/{CHECKPOINTS['classifier'].as_posix()}'",
    "pretrained": f"$@bundle_root + '/{CHECKPOINTS['autoencoder'].as_posix()}'",
}
_NETWORKS = {f"monai_cae.networks.{name}" for name in _networks if name[0].isupper() or name == "each_sample"}
_KINDS = ("Slice", "Slab", "Slices", "Planes", "Volume", "Patches")
_EXTRACTIONS = {f"monai_cae.data.{name}Extraction" for name in _KINDS}
_TARGETS = {f"monai_cae.targets.{name}" for name in ("Diagnosis", "Number")}
_LOSSES_OF = ("hiding.Hidden", "joint.Joint", "pairs.Paired", "stacked.Stacked", "variational.Variational")
_LOSSES = {f"monai_cae.networks.{name}Loss" for name in _LOSSES_OF}
_PARTS = {
    **dict.fromkeys(DEFINITIONS.values(), _NETWORKS),
    **{"extraction": _EXTRACTIONS, "target": _TARGETS, "loss": _LOSSES},
}
_WORDS = {("target", "column"), ("target", "name")}  # of a table, compared with its header
_NEEDED = ("$@extraction.sizes(@image_size)", "$@target.binary")  # by dense layers, and by losses of the label
_FILES = {
    "LICENSE", "SHA256SUMS", "large_files.yml", "docs/README.md", "docs/data_license.txt", EXPERIMENT_CARD.as_posix(),
    *(path.as_posix() for path in (*CHECKPOINTS.values(), STRANGERS)),
}  # fmt: skip
_SPECIAL = ("$", "@", "%")
_MONAIS = {"_target_", "_mode_", "_requires_", "_disabled_", "_meta_"}
_DEVICE = re.compile(r"(cpu|cuda)(:\d+)?")
_IMPORTABLE = (".py", ".pyc", ".pyd", ".so", ".pth", ".egg", ".dll", ".dylib")
_MOST_SHOWN = 30
_LONGEST = 200
_DEEPEST = 40
_MOST_MEMBERS = 1000  # of a list: as many widths would make as many layers
_Place = tuple[Any, ...]


@dataclass(frozen=True)
class Doubt:
    """A place of a package that could make a program run, read or write what its user did not ask for.

    Attributes:
        file: within the bundle.
        place: the key, as `--name#part` of the command line has it; "" for the file as a whole.
        text: what stands there.
    """

    file: str
    place: str
    text: str

    def __str__(self) -> str:
        """One line."""
        text = self.text if len(self.text) <= _LONGEST else f"{self.text[:_LONGEST]}..."
        return ": ".join(printable(part) for part in (self.file, self.place, text) if part)


def require_screened(where: Path, doubts: Iterable[Doubt], trust: bool) -> tuple[str, ...]:
    """Refuse what screening has found, unless it is trusted; then a line for each.

    Raises:
        MonaiCaeError: showing every place on a line of its own.
    """
    found = tuple(str(doubt) for doubt in doubts)
    if not found or trust:
        return found
    lines = [f"  {doubt}" for doubt in found[:_MOST_SHOWN]]
    more = [f"  and {len(found) - _MOST_SHOWN} more"] if len(found) > _MOST_SHOWN else []
    count = "1 place is" if len(found) == 1 else f"{len(found)} places are"
    raise MonaiCaeError(
        "\n".join(
            [
                f"{where}: {count} not what this monai-cae ships, and could run any program on this machine. Read "
                f"below, and add {TRUST} if you trust its author; otherwise do not use it:",
                *lines,
                *more,
            ]
        )
    )


def screen_files(folder: Path, names: Iterable[str]) -> list[Doubt]:
    """Screen the files of a package: all its configs, and files that no package has.

    Args:
        folder: the bundle.
        names: of the files, relative to it.
    """
    return [doubt for name in sorted(names) for doubt in _screen_file(folder, name)]


def screen_executed(folder: Path) -> list[Doubt]:
    """Screen what exporting and loading a bundle's network read: inference.json and metadata.json."""
    return screen_files(folder, [f"configs/{name}" for name in EXECUTED if (folder / "configs" / name).is_file()])


def is_importable(name: str) -> bool:
    """Whether Python, started in a bundle's folder, would import this file of it in place of a library."""
    return name.lower().endswith(_IMPORTABLE) and not name.startswith("output/")


def _screen_file(folder: Path, name: str) -> Iterator[Doubt]:
    file = folder / name
    shipped = bundle_folder() / name
    if name in _FILES and name != "large_files.yml":
        return
    if name == "large_files.yml":
        yield from _screen_large_files(name, file)
    elif not (name.startswith("configs/") and shipped.is_file()):
        yield Doubt(name, "", "a file that no package has")
    elif file.suffix != ".json":  # logging.conf, whose args= Python evaluates, and overlays
        if file.read_bytes() != shipped.read_bytes():
            yield Doubt(name, "", "is not the file that monai-cae ships")
    elif file.name == "metadata.json":
        yield from _screen_metadata(name, read_json(file))
    else:
        yield from _screen_config(name, read_json(file), read_json(shipped))


def _screen_large_files(name: str, file: Path) -> Iterator[Doubt]:
    text = file.read_text(encoding="utf-8", errors="replace")
    anchors = re.search(r"[&*]", text)  # of YAML: a few lines that stand for gigabytes
    try:
        content = None if anchors else yaml.safe_load(text)
    except yaml.YAMLError:
        content = None
    entries = content.get("large_files") if isinstance(content, dict) and len(content) == 1 else None
    fields = {"path", "url", "hash_val", "hash_type"}
    if not isinstance(entries, list) or not all(isinstance(one, dict) and one.keys() == fields for one in entries):
        yield Doubt(name, "", "is not a list of weights and their addresses")
        return
    weights = {path.as_posix() for path in CHECKPOINTS.values()}
    for number, entry in enumerate(entries):
        if entry["path"] not in weights or not str(entry["url"]).startswith("https://"):
            yield Doubt(name, f"large_files#{number}", f"{entry['path']} from {entry['url']}")


def _screen_metadata(name: str, content: Any) -> Iterator[Doubt]:
    """MONAI reads metadata.json into the config that it evaluates: nothing in it may be more than data."""
    for place, value in _leaves(content):
        if isinstance(value, str) and value.startswith(_SPECIAL):
            yield Doubt(name, "#".join(map(str, place)), value)
        elif isinstance(value, (Mapping, list)) or any(part in _MONAIS for part in place):
            yield Doubt(name, "#".join(map(str, place)), str(value))


def _screen_config(name: str, config: Mapping[str, Any], shipped: Mapping[str, Any]) -> Iterator[Doubt]:
    """Where it is neither what is shipped nor a setting."""
    known = read_json(bundle_folder() / "configs" / "multi_gpu_train.json")  # a run may have had it laid over
    known |= EVALUATED if name == "configs/evaluate.json" else {}
    for changed, value in changes(config, shipped):
        if known.get("#".join(map(str, changed)), ABSENT) != value:
            for place, leaf in _leaves(value, changed):
                if at(shipped, place) != leaf and not _is_setting(place, leaf, config, shipped):
                    yield Doubt(name, "#".join(map(str, place)), str(leaf))


def _is_setting(place: _Place, value: Any, config: Mapping[str, Any], shipped: Mapping[str, Any]) -> bool:
    owners = [at(config, place[:depth]) for depth in range(len(place))]
    if isinstance(value, (Mapping, list)) or not all(
        _is_plain_key(key) or at(shipped, place[: depth + 1]) is not ABSENT for depth, key in enumerate(place)
    ):
        return False
    if not isinstance(value, str):
        return True
    if place[0] in _PARTS and _is_of_part(place, value, shipped):
        return True
    if place[0] == "device":
        return _DEVICE.fullmatch(value) is not None
    if value.startswith(_SPECIAL):
        return False
    if re.fullmatch("_.*_", str(place[-1])) and place[-1] not in _MONAIS:  # a remark
        return True
    here = at(shipped, place)
    component = any(isinstance(owner, Mapping) and "_target_" in owner for owner in owners)
    free = (here is ABSENT and len(place) > 1) or isinstance(here, (str, int, float)) or here is None
    return free and not (component or str(here).startswith(_SPECIAL) or is_own(place, value))


def _is_of_part(place: _Place, value: str, shipped: Mapping[str, Any]) -> bool:
    """A part of ours, or what it is made with: another item, what is shipped there, the image's sizes, whether there
    are two classes, or "" for no file of weights."""
    if place[-1] == "_target_":
        return value in _PARTS[place[0]]
    if place in _WORDS:
        return not value.startswith(_SPECIAL) and len(value) <= _LONGEST and value.isprintable()
    shipped_there = (leaf for _, leaf in _leaves(shipped.get(place[0])))
    return value in ("", *_NEEDED, *(f"@{name}" for name in shipped), *shipped_there)


def _is_plain_key(key: Any) -> bool:
    """MONAI reads `a#b` and `a::b` as a place elsewhere in the config, and `+a` as an addition to it."""
    return not isinstance(key, str) or not (key.startswith(("+", *_SPECIAL)) or "#" in key or "::" in key)


def _leaves(value: Any, place: _Place = ()) -> Iterator[tuple[_Place, Any]]:
    """What is not a list or a mapping, and of these such as are deeper or longer than any config has."""
    long = isinstance(value, list) and len(value) > _MOST_MEMBERS
    if not isinstance(value, (Mapping, list)) or len(place) > _DEEPEST or long:
        yield place, value
    else:
        for name, member in value.items() if isinstance(value, Mapping) else enumerate(value):
            yield from _leaves(member, (*place, name))
