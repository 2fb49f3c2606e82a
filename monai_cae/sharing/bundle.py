"""A bundle's folder, read as data: nothing in its configs is evaluated here."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from monai_cae import __version__
from monai_cae.errors import MonaiCaeError
from monai_cae.training.models.strangers import reference_path

CHECKPOINTS = {"classifier": Path("models", "model.pt"), "autoencoder": Path("models", "autoencoder.pt")}
STRANGERS = reference_path(CHECKPOINTS["autoencoder"])  # beside it, where its training could be measured
EXECUTED = ("inference.json", "metadata.json")  # what exporting a network hands to MONAI
MOST_CONFIG_BYTES = 1 << 20
DEFINITIONS = {"classifier": "network_def", "autoencoder": "autoencoder_def"}  # their names in inference.json


@dataclass(frozen=True)
class Bundle:
    """
    Attributes:
        folder: it has `configs/` and `models/`.
        config: what `configs/inference.json` says, references and expressions as they stand there.
        metadata: what `configs/metadata.json` says.
        doubts: what screening has found and the user trusts, a line each, see `monai_cae.sharing.screening`.
    """

    folder: Path
    config: dict[str, Any]
    metadata: dict[str, Any]
    doubts: tuple[str, ...] = ()

    @property
    def name(self) -> str:
        """What metadata.json calls it, fit for a terminal."""
        return printable(self.metadata.get("name"))

    @property
    def config_file(self) -> Path:
        """`configs/inference.json`."""
        return self.folder / "configs" / "inference.json"

    @property
    def metadata_file(self) -> Path:
        """`configs/metadata.json`."""
        return self.folder / "configs" / "metadata.json"


def printable(text: Any) -> str:
    """Text of a stranger for the terminal and logs: control characters, which could repaint the screen, escaped."""
    return "".join(c if c.isprintable() else ascii(c)[1:-1] for c in str(text))


def open_bundle(folder: str | Path) -> Bundle:
    """Read a bundle's inference config and metadata.

    Raises:
        MonaiCaeError: no such folder, a file that is missing or not JSON, or metadata of a newer version than this
            package reads.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise MonaiCaeError(f"{folder} is not a folder: give a bundle's folder, with configs/ and models/ in it")
    configs = folder / "configs"
    bundle = Bundle(folder, read_json(configs / "inference.json"), read_json(configs / "metadata.json"))
    _check_version(bundle)
    return bundle


def read_json(path: Path) -> dict[str, Any]:
    """A config as data.

    Raises:
        MonaiCaeError: no such file, or it is larger than any config, or not a JSON object.
    """
    if not path.is_file():
        raise MonaiCaeError(f"no {path}: give a bundle's folder, with configs/ and models/ in it")
    if path.stat().st_size > MOST_CONFIG_BYTES:
        raise MonaiCaeError(f"{path} has more than {MOST_CONFIG_BYTES >> 20} MB, which no config has: do not use it")
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise MonaiCaeError(f"{path} is not readable JSON ({error}): get it from the bundle again") from error
    if not isinstance(content, dict):
        raise MonaiCaeError(f"{path} is not a JSON object: get it from the bundle again")
    return content


def _check_version(bundle: Bundle) -> None:
    required = bundle.metadata.get("required_packages_version")
    needed = {
        "version": bundle.metadata.get("version"),
        "required_packages_version of monai-cae": required.get("monai-cae") if isinstance(required, dict) else None,
    }
    for name, version in needed.items():
        if version is not None and _major_minor(bundle, name, version) > _major_minor(bundle, name, __version__):
            raise MonaiCaeError(
                f"{bundle.metadata_file} has {name} {version}, newer than this monai-cae {__version__} knows: "
                "pip install --upgrade monai-cae, or take an older version of the bundle"
            )


def _major_minor(bundle: Bundle, name: str, version: Any) -> tuple[int, int]:
    # The third number is left to fixes and retrained weights, which any package of the same minor version reads.
    found = re.fullmatch(r"(\d+)\.(\d+)[\w.+-]*", str(version), re.ASCII)
    if found is None:
        raise MonaiCaeError(f"{bundle.metadata_file}: {name} must be like 0.1.0, not {version!r}")
    return int(found[1]), int(found[2])
