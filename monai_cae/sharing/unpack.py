"""Unpack other people's packages: nothing in them is executed, everything is checked."""

from __future__ import annotations

import re
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

from torch import nn

from monai_cae.errors import MonaiCaeError
from monai_cae.files import new_folder, sha256_of
from monai_cae.sharing.archives import extract, is_safe
from monai_cae.sharing.bundle import CHECKPOINTS, MOST_CONFIG_BYTES, STRANGERS, Bundle, open_bundle
from monai_cae.sharing.definitions import load_network
from monai_cae.sharing.screening import is_importable, require_screened, screen_files
from monai_cae.training.models.reference import Reference

SUMS = "SHA256SUMS"
_SUM = re.compile(r"([0-9a-f]{64})  (.+)")


def unpack(path: str | Path, folder: str | Path, *, trust: bool = False) -> Bundle:
    """Unpack a package to a new folder, once it has passed every check of `check_package`.

    Args:
        path: zip file of `package_run`.
        folder: absent or empty; it appears only when all is well.
        trust: see `check_package`.

    Returns:
        The bundle in that folder.

    Raises:
        MonaiCaeError: whatever `check_package` refuses, or a folder that is not empty.
    """
    path, folder = Path(path), Path(folder)
    with new_folder(folder) as temporary, _named(path, temporary):
        extract(path, temporary)
        doubts = check_files(temporary, exact=True, trust=trust).doubts
    return replace(open_bundle(folder), doubts=doubts)


def check_package(path: str | Path, *, trust: bool = False) -> Bundle:
    """Check a package, or the folder that it was unpacked to: names, sizes, hashes, configs, versions, weights.

    The hashes tell damage; they do not tell who made the package.

    Args:
        path: zip or folder.
        trust: accept configs and files that could run a program, see `monai_cae.sharing.screening`; they are named in
            `Bundle.doubts`.

    Raises:
        MonaiCaeError: what `extract` refuses; a file that is missing, added or changed; configs with more than data
            besides what this package ships; metadata of a newer version than this package reads; weights that are
            pickled code, or of another architecture than the config's.
    """
    path = Path(path)
    if path.is_dir():
        return check_files(path, trust=trust)
    with tempfile.TemporaryDirectory() as folder, _named(path, Path(folder)):
        extract(path, Path(folder))
        return check_files(Path(folder), exact=True, trust=trust)


def check_files(folder: Path, exact: bool = False, trust: bool = False) -> Bundle:
    """The checks of an unpacked package.

    Args:
        folder: the bundle.
        exact: refuse files that `SHA256SUMS` does not name; a folder in use has some.
        trust: see `check_package`.

    Raises:
        MonaiCaeError: see `check_package`.
    """
    sums = _sums(folder)
    for name, expected in sums.items():
        if not (folder / name).is_file():
            raise MonaiCaeError(f"{folder / name} is missing: get the package from its source again")
        if sha256_of(folder / name) != expected:
            raise MonaiCaeError(f"{folder / name} is not the file that {SUMS} names: get the package again")
    here = {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}
    added = sorted(here - {*sums, SUMS})
    if exact and added:
        raise MonaiCaeError(f"{folder / added[0]} is not named by {SUMS}: get the package from its source again")
    harmful = [name for name in added if name.startswith("configs/") or is_importable(name)]
    doubts = require_screened(folder, screen_files(folder, [*sums, *harmful]), trust)
    bundle = replace(open_bundle(folder), doubts=doubts)
    for network in CHECKPOINTS:
        fitted_network(bundle, network)
    if (folder / STRANGERS).is_file():
        Reference.load(folder / STRANGERS)
    return bundle


def fitted_network(bundle: Bundle, network: str) -> nn.Module:
    """The bundle's "classifier" or "autoencoder" with its weights.

    Raises:
        MonaiCaeError: no weights, or weights of another architecture than the config's.
    """
    return load_network(bundle, network, bundle.folder / CHECKPOINTS[network])


def _sums(folder: Path) -> dict[str, str]:
    path = folder / SUMS
    if not path.is_file() or path.stat().st_size > MOST_CONFIG_BYTES:
        raise MonaiCaeError(f"no {path}: this is no package of `monai-cae package`")
    found = [_SUM.fullmatch(line) for line in path.read_text(encoding="utf-8", errors="replace").splitlines()]
    sums = {match[2]: match[1] for match in found if match}
    if len(sums) != len(found) or not all(is_safe(name) for name in sums):
        raise MonaiCaeError(f"{path} is not a list of hashes and file names: get the package from its source again")
    return sums


@contextmanager
def _named(path: Path, temporary: Path) -> Iterator[None]:
    """What is wrong is told of the zip, not of the temporary folder."""
    try:
        yield
    except MonaiCaeError as error:
        raise MonaiCaeError(str(error).replace(str(temporary), str(path))) from error
