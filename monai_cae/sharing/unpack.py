"""Packages of other people, unpacked with care: nothing in them is executed, whatever they say is checked."""

from __future__ import annotations

import re
import shutil
import stat
import struct
import tempfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from zipfile import ZIP_DEFLATED, ZIP_STORED, BadZipFile, ZipFile, ZipInfo

from torch import nn

from monai_cae.errors import MonaiCaeError
from monai_cae.files import new_folder, sha256_of
from monai_cae.networks import load_weights
from monai_cae.sharing.bundle import CHECKPOINTS, Bundle, open_bundle
from monai_cae.sharing.definitions import build_network

SUMS = "SHA256SUMS"
MOST_FILES = 200
MOST_BYTES = 4 << 30  # of all files together, unpacked; the paper's networks have 0.26 GB
_SUM = re.compile(r"([0-9a-f]{64})  (.+)")
_ENCRYPTED = 0x1


def unpack(path: str | Path, folder: str | Path) -> Bundle:
    """Unpack a package to a new folder, once it has passed every check of `check_package`.

    Args:
        path: zip file of `package_run`.
        folder: absent or empty; it appears only when all is well.

    Returns:
        The bundle in that folder.

    Raises:
        MonaiCaeError: whatever `check_package` refuses, or a folder that is not empty.
    """
    path, folder = Path(path), Path(folder)
    with new_folder(folder) as temporary, _named(path, temporary):
        _extract(path, temporary)
        check_files(temporary, exact=True)
    return open_bundle(folder)


def check_package(path: str | Path) -> Bundle:
    """Check a package, or the folder that it was unpacked to: names, sizes, hashes, versions, weights.

    The hashes tell damage; they do not tell who made the package.

    Raises:
        MonaiCaeError: a broken zip; a member with an absolute path, a path out of the folder or a symbolic link; more
            than `MOST_FILES` members or `MOST_BYTES` bytes; a file that is missing, added or changed; metadata of a
            newer version than this package reads; weights that are pickled code, or of another architecture than the
            config's.
    """
    path = Path(path)
    if path.is_dir():
        return check_files(path)
    with tempfile.TemporaryDirectory() as folder, _named(path, Path(folder)):
        _extract(path, Path(folder))
        return check_files(Path(folder), exact=True)


def check_files(folder: Path, exact: bool = False) -> Bundle:
    """The checks of an unpacked package.

    Args:
        folder: the bundle.
        exact: refuse files that `SHA256SUMS` does not name; a folder in use has some.

    Raises:
        MonaiCaeError: see `check_package`.
    """
    sums = _sums(folder)
    for name, expected in sums.items():
        if not (folder / name).is_file():
            raise MonaiCaeError(f"{folder / name} is missing: take the package from its source again")
        if sha256_of(folder / name) != expected:
            raise MonaiCaeError(f"{folder / name} is not the file that {SUMS} names: take the package again")
    if exact:
        for path in folder.rglob("*"):
            if path.is_file() and path.relative_to(folder).as_posix() not in {*sums, SUMS}:
                raise MonaiCaeError(f"{path} is not named by {SUMS}: take the package from its source again")
    bundle = open_bundle(folder)
    for network in CHECKPOINTS:
        fitted_network(bundle, network)
    return bundle


def fitted_network(bundle: Bundle, network: str) -> nn.Module:
    """The bundle's "classifier" or "autoencoder" with its weights.

    Raises:
        MonaiCaeError: no weights, or weights of another architecture than the config's.
    """
    return load_weights(build_network(bundle, network), bundle.folder / CHECKPOINTS[network])


def _sums(folder: Path) -> dict[str, str]:
    path = folder / SUMS
    if not path.is_file():
        raise MonaiCaeError(f"no {path}: this is no package of `monai-cae package`")
    found = [_SUM.fullmatch(line) for line in path.read_text(encoding="utf-8", errors="replace").splitlines()]
    sums = {match[2]: match[1] for match in found if match}
    if len(sums) != len(found) or not all(_is_safe(name) for name in sums):
        raise MonaiCaeError(f"{path} is not a list of hashes and file names: take the package from its source again")
    return sums


@contextmanager
def _named(path: Path, temporary: Path) -> Iterator[None]:
    """What is wrong is told of the zip, not of the temporary folder."""
    try:
        yield
    except MonaiCaeError as error:
        raise MonaiCaeError(str(error).replace(str(temporary), str(path))) from error


def _extract(path: Path, folder: Path) -> None:
    if not path.is_file():
        raise MonaiCaeError(f"no package at {path}: give a zip of `monai-cae package`")
    try:
        with ZipFile(path) as archive:
            if not archive.infolist():
                raise BadZipFile("nothing is in it")
            if min(info.header_offset for info in archive.infolist()):
                raise BadZipFile("another zip lies in it")  # weights are zips: the one that is left of a cut package
            for info, name in _members(path, archive.infolist()):
                (folder / name).parent.mkdir(parents=True, exist_ok=True)
                with archive.open(info) as source, (folder / name).open("wb") as target:
                    shutil.copyfileobj(source, target)
    except MonaiCaeError:
        raise
    except (BadZipFile, EOFError, NotImplementedError, RuntimeError, ValueError, struct.error, zlib.error) as error:
        raise MonaiCaeError(f"{path} is not a whole zip file ({error}): take it from its source again") from error


def _members(path: Path, infos: list[ZipInfo]) -> list[tuple[ZipInfo, str]]:
    """The files, each with its path below the package's one folder, none of which leads anywhere else."""
    if len(infos) > MOST_FILES:
        raise MonaiCaeError(f"{path} has {len(infos)} members: a package has at most {MOST_FILES}")
    total, members, seen = 0, [], set()
    for info in infos:
        kind = stat.S_IFMT(info.external_attr >> 16)
        name = info.filename.rstrip("/")
        if not _is_safe(name) or kind not in (0, stat.S_IFREG, stat.S_IFDIR):
            raise MonaiCaeError(f"{path} has the member {name!r}, a link or a path that leads out: do not use it")
        if info.flag_bits & _ENCRYPTED or info.compress_type not in (ZIP_STORED, ZIP_DEFLATED):
            raise MonaiCaeError(f"{path}: {name} is encrypted or compressed in another way than packages are")
        total += info.file_size
        if total > MOST_BYTES:
            raise MonaiCaeError(
                f"{path}: up to {name} it has {total / 2**30:.1f} GB unpacked; a package has at most "
                f"{MOST_BYTES / 2**30:.0f} GB"
            )
        if info.is_dir():
            continue
        base, _, below = name.partition("/")
        if not below or base != infos[0].filename.partition("/")[0] or below.casefold() in seen:
            raise MonaiCaeError(f"{path}: {name} does not lie, once, in the one folder that a package has")
        seen.add(below.casefold())
        members.append((info, below))
    return members


def _is_safe(name: str) -> bool:
    parts = name.split("/")
    return all(part not in ("", ".", "..") for part in parts) and not re.search(r"[\\:\x00-\x1f]", name)
