"""Which scans are to be predicted: a folder, a glob or a table of paths, on this machine or at any fsspec address.

No scan is opened here: a million names are listed in seconds, and whoever predicts a scan finds out whether it can be.
"""

from __future__ import annotations

import glob
import os
import posixpath
from collections.abc import Iterable, Iterator
from datetime import datetime
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import pandas as pd
import pyarrow.parquet as pq

from monai_cae.data.layouts.base import IMAGE_SUFFIXES, header_of
from monai_cae.data.layouts.reading import chosen, images_in
from monai_cae.errors import MonaiCaeError

TABLES = (".csv", ".tsv", ".parquet")
_COLUMNS = ("path", "file", "image")  # of a table, where the column is not named
_TIMES = ("mtime", "LastModified", "updated", "created")  # as the file systems call it
_SHOWN = 10  # columns of a table


class Listed(NamedTuple):
    """A scan of the list.

    Attributes:
        path: on this machine, absolute, or an address; the header of a pair.
        size: of the file with the voxels, in bytes; None where it is not known.
        time: of its last change, in seconds since 1970; None where it is not known.
    """

    path: str
    size: int | None = None
    time: float | None = None


def is_many(given: str) -> bool:
    """Whether only a prediction in chunks can read it: a table, a glob or an address."""
    return "://" in given or _is_table(given) or (glob.has_magic(given) and not Path(given).exists())


def list_scans(given: str, column: str = "") -> Iterator[Listed]:
    """The scans, in a fixed order.

    Args:
        given: a scan; a folder, of which those are taken that `monai_cae.data.find_images` takes; a glob; a .csv, .tsv
            or .parquet table with a column of paths, relative to its folder; each also as an address of fsspec.
        column: of the table; by default "path", "file" or "image", or its only one.

    Raises:
        MonaiCaeError: nothing there, a table without such a column, a scan that it names twice, an address that can't
            be read, or whose driver is not installed.
    """
    given = given.removeprefix("file://")
    if _is_table(given):
        found: Iterable[Listed] = map(_known, _of_table(given, column))
    elif "://" in given:
        found = _remote(given)
    elif Path(given).is_dir():
        found = map(_known, images_in(Path(given).absolute()))
    elif Path(given).exists():
        found = [_known(header_of(str(Path(given).absolute())))]
    elif glob.has_magic(given):
        names = glob.iglob(str(Path(given).absolute()), recursive=True)  # noqa: PTH207  # Path's takes no absolute one
        found = map(_known, chosen(_once(map(header_of, names))))
    else:
        raise MonaiCaeError(f"no scan at {given}: give a folder, a glob, a table of paths or an address")
    empty = True
    for one in found:
        if not _can_be_written(one.path):
            raise MonaiCaeError(f"the name of {one.path!a} is no UTF-8, or has a NUL in it: rename it")
        empty = False
        yield one
    if empty:
        raise MonaiCaeError(f"no .nii, .nii.gz or .hdr/.img image in {given}")


def _is_table(given: str) -> bool:
    return given.lower().endswith(TABLES) and not Path(given).is_dir()


def _once(names: Iterable[str]) -> list[str]:
    """Sorted, without those that a link to a folder shows again: `**` follows links, even around in a circle."""
    real = cache(os.path.realpath)
    found: dict[tuple[str, str], str] = {}
    for name in sorted(names, key=lambda name: (name.count(os.sep), name)):
        folder, _, file = name.rpartition(os.sep)
        found.setdefault((real(folder), file), name)
    return sorted(found.values())


def _can_be_written(path: str) -> bool:
    try:
        return b"\0" not in path.encode()
    except UnicodeEncodeError:
        return False


def file_system(address: str) -> tuple[Any, str]:
    """The file system of an address, and the path in it.

    Raises:
        MonaiCaeError: an unknown kind of address, one whose driver is missing, or one with a password.
    """
    from fsspec.core import url_to_fs

    kind, _, rest = address.partition("://")
    if ":" in rest.partition("/")[0].rpartition("@")[0]:
        raise MonaiCaeError(f"{kind}://... has a password in it: leave it to the driver's own settings or environment")
    try:
        return url_to_fs(address)
    except ImportError as error:
        advice = "pip install 'monai-cae[remote]'"
        raise MonaiCaeError(f"{kind}:// needs a driver ({error}): {advice}") from error
    except Exception as error:  # each driver has its own
        raise MonaiCaeError(f"can't open {address} ({_line(error)}): correct the address") from error


def _line(error: BaseException) -> str:
    if isinstance(error, FileNotFoundError):  # most drivers have only the address in it
        return "nothing is there, or it can't be reached"
    return " ".join(str(error).split()) or type(error).__name__


def voxels_of(header: str) -> str:
    """Of a pair the other file, else the same."""
    end = {".hdr": ".img", ".HDR": ".IMG"}.get(header[-4:])
    return header[:-4] + end if end else header


def _known(path: str) -> Listed:
    """With size and time, where the file is on this machine; a missing file is reported when it is predicted."""
    if "://" in path:
        return Listed(path)
    try:
        found = os.stat(voxels_of(path))  # noqa: PTH116  # a Path for each of a million would take longer than this
    except (OSError, ValueError):  # a NUL in the name
        return Listed(path)
    return Listed(path, found.st_size, found.st_mtime)


def _remote(address: str) -> Iterator[Listed]:
    fs, path = file_system(address)
    try:
        if glob.has_magic(path):
            found = fs.glob(path, detail=True)
        elif fs.isdir(path):
            found = {f"{folder}/{name}": one for folder, _, files in fs.walk(path, detail=True)
                     for name, one in files.items()}  # fmt: skip
        else:
            found = {path: fs.info(path)}
    except Exception as error:
        raise MonaiCaeError(f"can't list {address} ({_line(error)}): correct the address") from error
    files = {fs.unstrip_protocol(name): one for name, one in sorted(found.items()) if one.get("type") != "directory"}
    names = sorted({*map(header_of, files)}) if glob.has_magic(path) else files
    for name in chosen(names):
        known = files.get(voxels_of(name), {})
        yield Listed(name, known.get("size"), _time(known))


def _time(info: Any) -> float | None:
    value = next((info[name] for name in _TIMES if info.get(name) is not None), None)
    if isinstance(value, datetime):
        return value.timestamp()
    return float(value) if isinstance(value, (int, float)) else None


def _of_table(table: str, column: str) -> Iterator[str]:
    fs, place = file_system(table if "://" in table else f"file://{Path(table).absolute()}")
    try:
        name = _column(table, _names(fs, place), column)
        paths = _cells(fs, place, name)
    except MonaiCaeError:
        raise
    except Exception as error:  # of pandas, pyarrow and every file system
        raise MonaiCaeError(f"{table} is not a readable table ({_line(error)}): correct it") from error
    folder = (table if "://" in table else str(Path(table).absolute())).rpartition("/")[0]
    found: dict[str, str] = {}  # a scan may be spelt in several ways
    for row, text in enumerate(paths, start=1):
        path = header_of(str(text).strip().removeprefix("file://"))
        if not path.lower().endswith(IMAGE_SUFFIXES):
            raise MonaiCaeError(f"row {row} of {table} has {path!r} in {name}, not a .nii, .nii.gz or .hdr/.img")
        path = path if "://" in path or path.startswith("/") else f"{folder}/{path}"
        same = path if "://" in path else posixpath.normpath(path)
        if same in found:
            raise MonaiCaeError(f"{table} names {text} twice: leave one out")
        found[same] = path
    yield from found.values()


def _names(fs: Any, place: str) -> list[str]:
    with fs.open(place, "rb") as file:
        if place.lower().endswith(".parquet"):
            return list(pq.read_schema(file).names)
        return list(pd.read_csv(file, nrows=0, sep=_separator(place)).columns)


def _cells(fs: Any, place: str, column: str) -> pd.Series[Any]:
    with fs.open(place, "rb") as file:
        if place.lower().endswith(".parquet"):
            return pq.read_table(file, columns=[column]).to_pandas()[column]
        texts = {"dtype": str, "keep_default_na": False, "sep": _separator(place)}
        return pd.read_csv(file, usecols=[column], **texts)[column]


def _separator(place: str) -> str:
    return "\t" if place.lower().endswith(".tsv") else ","


def _column(table: str, columns: list[str], wanted: str) -> str:
    if wanted in columns:
        return wanted
    usual = [name for name in columns if name.strip().lower() in _COLUMNS] or columns
    if wanted or len(usual) != 1:
        shown = ", ".join(columns[:_SHOWN]) + (", ..." if len(columns) > _SHOWN else "")
        which = f"no column {wanted}" if wanted else "several columns that may hold the paths"
        raise MonaiCaeError(f"{table} has {which} ({shown}): name it with --image-column")
    return usual[0]
