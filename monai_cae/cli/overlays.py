"""The bundle's overlays on the command line: `--with slab`, and the settings that follow."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from monai_cae.errors import MonaiCaeError
from monai_cae.folders import bundle_folder

if TYPE_CHECKING:
    from monai_cae.data import Extraction


def overlay_files(names: str) -> list[Path]:
    """The files of overlays, such as "slab,baselines"; a name that the bundle has none of is a file.

    Raises:
        MonaiCaeError: no such overlay, not a YAML or JSON config, or one that drops what an earlier one has set.
    """
    shipped = sorted((bundle_folder() / "configs").glob("with_*.yaml"))
    known = {path.stem.removeprefix("with_"): path for path in shipped}
    files = []
    for name in filter(None, map(str.strip, names.split(","))):
        if name not in known and not Path(name).is_file():
            raise MonaiCaeError(
                f"no overlay {name}: give --with a file or one of the bundle's overlays: {', '.join(known)}"
            )
        files.append(known.get(name) or Path(name).absolute())
    before: dict[str, Path] = {}  # item -> the overlay that sets something of it
    for file in files:
        config = _read(file)
        for name in config:
            if name in before and isinstance(config[name], dict):  # a list or a single value has no parts to keep
                raise MonaiCaeError(
                    f"{file.name} would drop what {before[name].name} sets in {name}: leave out one of them, or write "
                    f'"+{name}", which adds to it'
                )
        for name in config:
            parts = name.lstrip("+").split("#")
            before |= {"#".join(parts[: end + 1]): file for end in range(len(parts))}
    return files


def _read(file: Path) -> dict[str, Any]:
    from monai.bundle import ConfigParser
    from yaml import YAMLError

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", UserWarning)  # MONAI warns of a key that is there twice, and drops the first
            config: dict[str, Any] = ConfigParser.load_config_file(str(file))
    except UserWarning as error:
        raise MonaiCaeError(f"{file} is ambiguous: {error}; write it once") from error
    except (OSError, ValueError, AttributeError, YAMLError) as error:
        raise MonaiCaeError(f"{file} is not a YAML or JSON config: {' '.join(str(error).split())}") from error
    if not isinstance(config, dict):
        raise MonaiCaeError(f"{file} is not a YAML or JSON config: no NAME: VALUE is in it")
    return config


def as_settings(arguments: Sequence[str], taken: Sequence[str]) -> list[str]:
    """Options in the bundle's spelling, with underscores, except in values and names of variants and candidates.

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
        parts = [
            p if parts[:i] in (["variants"], ["select", "candidates"]) else p.replace("-", "_")
            for i, p in enumerate(parts)
        ]
        if parts[0] in taken:
            raise MonaiCaeError(f"{parts[0]} is given without a name, by its position: see --help")
        settings.append(f"--{'#'.join(parts)}{equals}{value}")
        value_may_follow = not equals
    return settings


def parsed(settings: Sequence[str]) -> dict[str, Any]:
    """Settings with their values as `python -m monai.bundle` reads them."""
    from fire.parser import DefaultParseValue

    read: dict[str, Any] = {}
    name = ""
    for text in settings:
        if text.startswith("--"):
            name, equals, value = text[2:].partition("=")
            read[name] = DefaultParseValue(value) if equals else True
        else:
            read[name] = DefaultParseValue(text)
    return read


def extraction_of(overlays: Sequence[Path], settings: Mapping[str, Any]) -> Extraction:
    """What the stages of an experiment with these overlays and settings see of a volume.

    Raises:
        MonaiCaeError: what the extraction refuses.
    """
    from monai.bundle import ConfigParser

    from monai_cae.data import Extraction
    from monai_cae.training.stages.workflow import find_mistake

    parser = ConfigParser()
    parser.read_config([str(bundle_folder() / "configs" / "experiment.yaml"), *map(str, overlays)])
    parser.update(dict(settings))
    try:
        found = parser.get_parsed_content("extraction")
    except Exception as error:
        raise find_mistake(error) or error from error
    if not isinstance(found, Extraction):
        raise MonaiCaeError(f"extraction is {type(found).__name__}, not an Extraction: correct the overlay")
    return found
