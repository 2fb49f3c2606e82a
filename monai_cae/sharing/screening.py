"""Configs of other people, screened as data before anything in them may run.

MONAI runs a config: a text that starts with `$` is Python, `_target_` names whatever is to be called, `%` reads another
file, and some arguments (LoadImage's `reader`) are names to import. So a list of allowed modules protects nobody, and
this one allows what this version of the package ships, word for word: an expression, reference, target or argument that
is text must stand under the same name in a shipped config. Numbers may differ everywhere; texts may differ where the
shipped config has a setting that is text, unless it names a place of a machine; networks may be any of
`monai_cae.networks`.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from monai_cae.errors import MonaiCaeError
from monai_cae.folders import bundle_folder
from monai_cae.networks import __all__ as _networks
from monai_cae.sharing.bundle import CHECKPOINTS, EXECUTED, printable, read_json
from monai_cae.sharing.card import EXPERIMENT_CARD
from monai_cae.sharing.executed import is_own

TRUST = "--trust (in Python trust=True)"
# evaluate.json of a package names its own weights
EVALUATED = {
    "checkpoint": f"$@bundle_root + '/{CHECKPOINTS['classifier'].as_posix()}'",
    "pretrained": f"$@bundle_root + '/{CHECKPOINTS['autoencoder'].as_posix()}'",
}
_NETWORKS = {f"monai_cae.networks.{name}" for name in _networks if name[0].isupper()}
_FILES = {
    "LICENSE", "SHA256SUMS", "large_files.yml", "docs/README.md", "docs/data_license.txt", EXPERIMENT_CARD.as_posix(),
    *(path.as_posix() for path in CHECKPOINTS.values()),
}  # fmt: skip
_SPECIAL = ("$", "@", "%")
_MONAIS = {"_target_", "_mode_", "_requires_", "_disabled_", "_meta_"}
_DEVICE = re.compile(r"(cpu|cuda)(:\d+)?")
_IMPORTABLE = (".py", ".pyc", ".pyd", ".so", ".pth", ".egg", ".dll", ".dylib")
_MOST_SHOWN = 30
_LONGEST = 200
_DEEPEST = 40
_Place = tuple[Any, ...]
_Known = frozenset[tuple[str, str, str]]


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
                f"below, and add {TRUST} if you trust whoever made it; otherwise do not use it:",
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
        yield from _Screen(name, _known(bundle_folder())).members(read_json(file), read_json(shipped))


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


@dataclass(frozen=True)
class _Screen:
    """Compares one config with the shipped one of its name, and its texts with all that is shipped."""

    file: str
    known: _Known

    def members(
        self, config: Mapping[str, Any], shipped: Any, place: _Place = (), argument: bool = False
    ) -> Iterator[Doubt]:
        theirs = shipped if isinstance(shipped, Mapping) else {}
        argument = argument or "_target_" in config
        for key, value in config.items():
            here = (*place, key)
            if not _is_plain_key(key) and key not in theirs:
                yield self._doubt(here, value)
            elif _is_remark(key) and isinstance(value, str) and not value.startswith(_SPECIAL):
                continue
            else:
                yield from self._value(value, theirs.get(key), here, argument)

    def _value(self, value: Any, shipped: Any, place: _Place, argument: bool) -> Iterator[Doubt]:
        if len(place) > _DEEPEST:
            yield self._doubt(place, "nested more deeply than any config")
        elif isinstance(value, Mapping):
            yield from self.members(value, shipped, place, argument)
        elif isinstance(value, list):
            theirs = shipped if isinstance(shipped, list) else []
            for index, member in enumerate(value):
                its = theirs[index] if index < len(theirs) else None
                yield from self._value(member, its, (*place, index), argument)
        elif isinstance(value, str) and not self._is_known(place, value):
            runs = argument or value.startswith(_SPECIAL)
            if runs or not _is_setting(place, value, shipped):
                yield self._doubt(place, value)

    def _is_known(self, place: _Place, text: str) -> bool:
        owner, key = _owner_and_key(place)
        network = key == "_target_" and text in _NETWORKS
        return (owner, key, "" if network else text) in self.known

    def _doubt(self, place: _Place, text: Any) -> Doubt:
        return Doubt(self.file, "#".join(map(str, place)), str(text))


def _is_setting(place: _Place, text: str, shipped: Any) -> bool:
    """A text that may stand where the shipped config has another one, or, in a group of settings, none."""
    if place[0] == "device":
        return _DEVICE.fullmatch(text) is not None
    if isinstance(shipped, (Mapping, list)) or str(shipped).startswith(_SPECIAL) or is_own(place, text):
        return False
    return shipped is not None or len(place) > 1


def _is_plain_key(key: Any) -> bool:
    """MONAI reads `a#b` and `a::b` as a place elsewhere in the config, and `+a` as an addition to it."""
    return isinstance(key, str) and not key.startswith(("+", *_SPECIAL)) and "#" not in key and "::" not in key


def _is_remark(key: str) -> bool:
    return key.startswith("_") and key.endswith("_") and key not in _MONAIS


def _owner_and_key(place: Iterable[Any]) -> tuple[str, str]:
    names = [part for name in place if isinstance(name, str) for part in re.split("#|::", name.removeprefix("+"))]
    return ("", *names)[-2], names[-1]


@functools.cache
def _known(folder: Path) -> _Known:
    """Every text of the shipped configs, with the name that it stands under and the name above that one."""
    known = {("", name, text) for name, text in EVALUATED.items()}
    for file in sorted((folder / "configs").iterdir()):
        if file.suffix in (".json", ".yaml"):
            for place, value in _leaves(yaml.safe_load(file.read_text(encoding="utf-8"))):
                if isinstance(value, str):
                    owner, key = _owner_and_key(place)
                    known.add((owner, key, "" if key == "_target_" and value in _NETWORKS else value))
    return frozenset(known)


def _leaves(value: Any, place: _Place = ()) -> Iterator[tuple[_Place, Any]]:
    if isinstance(value, (Mapping, list)) and len(place) <= _DEEPEST:
        for name, member in value.items() if isinstance(value, Mapping) else enumerate(value):
            yield from _leaves(member, (*place, name))
    else:
        yield place, value
