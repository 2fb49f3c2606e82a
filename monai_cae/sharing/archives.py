"""Unpack other people's zip files safely: every member is checked before the first is written."""

from __future__ import annotations

import re
import stat
import struct
import zlib
from pathlib import Path
from zipfile import ZIP_DEFLATED, ZIP_STORED, BadZipFile, ZipFile, ZipInfo

from monai_cae.errors import MonaiCaeError

MOST_FILES = 200
MOST_BYTES = 4 << 30  # of all files together, unpacked; the paper's networks have 0.26 GB
MOST_GROWTH = 10  # weights hardly shrink, configs to a tenth: a zip that grows more is made to fill a disk
_ALWAYS_ALLOWED = 32 << 20  # bytes; a small package is mostly text
_DEEPEST = 4
_ENCRYPTED = 0x1
_LOCAL_HEADER = 30  # bytes before the name, in front of every member
_BLOCK = 1 << 20
# Windows writes to a device, not to a file, under these names with any suffix
_DEVICE = re.compile(r"(con|prn|aux|nul|com\d|lpt\d)(\..*)?", re.IGNORECASE)
_PART = re.compile(r"[A-Za-z0-9_](?:[A-Za-z0-9_. -]*[A-Za-z0-9_-])?")
Members = list[tuple[ZipInfo, str]]


def extract(path: Path, folder: Path) -> None:
    """Unpack the one folder of a package into `folder`; owners, modes and dates in the zip are ignored.

    Raises:
        MonaiCaeError: a broken zip; a member with an absolute path, a path out of the folder, a name that another
            system reads otherwise (not ASCII, a device, a final dot), twice the same name, a symbolic link or device;
            members that overlap; more than `MOST_FILES` members or `MOST_BYTES` bytes, or `MOST_GROWTH` times what the
            zip has.
    """
    if not path.is_file():
        raise MonaiCaeError(f"no package at {path}: give a zip of `monai-cae package`")
    try:
        with ZipFile(path) as archive:
            infos = archive.infolist()
            if not infos:
                raise BadZipFile("it is empty")
            if min(info.header_offset for info in infos):
                raise BadZipFile("another zip is in it")  # weights are zips: the one that is left of a cut package
            members = _members(path, infos)
            _refuse_bombs(path, infos, archive.start_dir)
            for info, name in members:
                (folder / name).parent.mkdir(parents=True, exist_ok=True)
                _write(archive, info, folder / name)
    except MonaiCaeError:
        raise
    except (BadZipFile, EOFError, NotImplementedError, RuntimeError, ValueError, struct.error, zlib.error) as error:
        raise MonaiCaeError(f"{path} is not an intact zip file ({error}): get it from its source again") from error


def is_safe(name: str) -> bool:
    """Whether a path leads to the same place, below a folder, on every system: plain ASCII names and / between them."""
    parts = name.split("/")
    return len(parts) <= _DEEPEST and all(
        len(part) <= 100 and _PART.fullmatch(part) and not _DEVICE.fullmatch(part) for part in parts
    )


def _members(path: Path, infos: list[ZipInfo]) -> Members:
    """The files, each with its path below the package's one folder; a path that leads elsewhere is refused."""
    if len(infos) > MOST_FILES:
        raise MonaiCaeError(f"{path} has {len(infos)} members: a package has at most {MOST_FILES}")
    members: Members = []
    folders: set[str] = set()
    files: set[str] = set()
    only = infos[0].filename.partition("/")[0]
    for info in infos:
        kind = stat.S_IFMT(info.external_attr >> 16)
        base, _, below = info.filename.rstrip("/").partition("/")
        leads_out = base in ("", ".", "..") or re.search(r"[\\:]", base) or (below and not is_safe(below))
        if leads_out or kind not in (0, stat.S_IFREG, stat.S_IFDIR):
            raise MonaiCaeError(
                f"{path} has {info.filename!a}, a link or a path that leads out, or an odd name: do not use it"
            )
        if info.flag_bits & _ENCRYPTED or info.compress_type not in (ZIP_STORED, ZIP_DEFLATED):
            raise MonaiCaeError(
                f"{path}: {info.filename!a} is encrypted, or compressed as no package is: do not use it"
            )
        lower = below.lower()
        folders |= {lower.rsplit("/", depth)[0] for depth in range(1, lower.count("/") + 1)}
        if info.is_dir():
            folders.add(lower)
        elif not below or base != only or lower in files:
            raise MonaiCaeError(
                f"{path}: {info.filename!a} is not in the package's one folder, or is there twice: do not use it"
            )
        else:
            files.add(lower)
            members.append((info, below))
    if files & folders:
        raise MonaiCaeError(f"{path}: {min(files & folders)} is both a file and a folder: do not use it")
    return members


def _refuse_bombs(path: Path, infos: list[ZipInfo], end: int) -> None:
    total = sum(info.file_size for info in infos)
    most = min(MOST_BYTES, max(_ALWAYS_ALLOWED, MOST_GROWTH * path.stat().st_size))
    if total > most:
        raise MonaiCaeError(
            f"{path} has {total / 2**30:.1f} GB unpacked; a package of its size has at most {most / 2**30:.2g} GB: do "
            "not use it"
        )
    ordered = sorted(infos, key=lambda info: info.header_offset)
    for info, after in zip(ordered, [*(info.header_offset for info in ordered[1:]), end], strict=True):
        if info.header_offset + _LOCAL_HEADER + len(info.orig_filename) + info.compress_size > after:
            raise BadZipFile(f"{info.filename!a} overlaps what follows it")


def _write(archive: ZipFile, info: ZipInfo, target: Path) -> None:
    """No more than the size that was counted, whatever comes out."""
    left = info.file_size
    with archive.open(info) as source, target.open("xb") as file:
        while block := source.read(_BLOCK):
            left -= len(block)
            if left < 0:
                raise BadZipFile(f"{info.filename} is larger than it says")
            file.write(block)
    if left:
        raise BadZipFile(f"{info.filename} is smaller than it says")
