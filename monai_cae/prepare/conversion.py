"""The voxels of a DICOM series, by dcm2niix."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import tempfile
import threading
import warnings
import zlib
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from monai_cae.errors import MonaiCaeError
from monai_cae.prepare.dicom import MISSING, Probe, Series
from monai_cae.prepare.raw import RawScan, read_raw

_FOLDER = "monai-cae-dicom-"
_SECONDS = 600  # that dcm2niix may take; a series takes less than one


def convert(series: Series, name: str) -> RawScan:
    """The volume of a series, by dcm2niix, without any text of the header.

    Args:
        series: as `read_series` found it.
        name: what messages call the scan.

    Raises:
        MonaiCaeError: dcm2niix is missing, can't read the series, or makes of it what its headers do not say.
    """
    try:
        from dcm2niix import bin as program
    except ImportError as error:
        raise MonaiCaeError(MISSING) from error
    parents = {str(path.absolute().parent) for path in series.files}
    size = 8 * series.rows * series.columns * series.slices  # of a volume, at most
    with private_folder(size) as folder:
        # -g i: no defaults file of the user's; -n: this series alone; -b n: no JSON; the folder is the working
        # directory, so that no other user sees its name in the list of processes
        options = ["-g", "i", "-b", "n", "-z", "n", "-d", "9", "-f", "volume", "-o", str(folder)]
        only = str(zlib.crc32(series.uid.encode()))
        try:
            ran = subprocess.run(
                [program, *options, "-n", only, "."],
                cwd=os.path.commonpath(parents),
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,  # it names folders and files
                stderr=subprocess.DEVNULL,
                timeout=_SECONDS,
                check=False,
            )
            status = f"exit status {ran.returncode}"
        except subprocess.TimeoutExpired:
            status = f"no end after {_SECONDS} s"
        except OSError as error:
            raise MonaiCaeError(f"can't run dcm2niix ({error.strerror}): reinstall it") from error
        made = sorted(folder.glob("*.nii"))
        if not made:
            raise MonaiCaeError(
                f"dcm2niix made no volume of {series.line}, stored as {series.syntax} ({status}): store it "
                "uncompressed, or give a NIfTI file"
            )
        if len(made) > 1:
            raise MonaiCaeError(f"dcm2niix made {len(made)} volumes of {series.line}: choose another with --series")
        try:
            scan = read_raw(made[0], name=name)
        except MonaiCaeError as error:
            raise MonaiCaeError(str(error).replace(str(made[0]), series.line)) from error
    _refuse_other(scan, series)
    return replace(scan, source="", notes=(*series.notes, *scan.notes))


def _refuse_other(scan: RawScan, series: Series) -> None:
    """The volume must have the sizes, the voxels and the middle that the headers tell, and a slice where they say.

    Of compressed multi-frame files dcm2niix 1.0.20260724 mirrors some.
    """
    sizes, told = sorted(scan.voxels.shape), sorted((series.columns, series.rows, series.slices))
    middle = scan.affine[:3, :3] @ ((np.array(scan.voxels.shape) - 1) / 2) + scan.affine[:3, 3]
    alike = sizes == told and np.allclose(sorted(scan.spacing), sorted(series.spacing), rtol=0.01)
    if not alike or np.abs(middle - series.middle).max() > 0.5:
        raise MonaiCaeError(f"dcm2niix made of {series.line} a volume of another size or place: give a NIfTI file")
    assert series.probe is not None  # a series without places is broken, and was refused
    pixels = _pixels(series.probe)
    if pixels is None:
        if len(series.files) == 1:
            raise MonaiCaeError(
                f"{series.line} is one file stored as {series.syntax}, which can't be checked: store it uncompressed"
            )
        return  # slices of classic files lie where each says itself
    found = _slice(scan, series.probe.affine, pixels.shape)
    if pixels.std() > 0 and (found.std() == 0 or np.corrcoef(pixels.ravel(), found.ravel())[0, 1] < 0.999):
        raise MonaiCaeError(
            f"dcm2niix mirrored or mixed {series.line}, stored as {series.syntax}: store it uncompressed"
        )


def _pixels(probe: Probe) -> NDArray[np.float64] | None:
    """The slice as pydicom decodes it, without dcm2niix; None where it can't."""
    from pydicom.pixels import pixel_array

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # they may quote the header
        try:
            return np.asarray(pixel_array(probe.path, index=probe.frame), dtype=np.float64)
        except Exception:  # no decoder for this syntax, or whatever a damaged file makes of it
            return None


def _slice(scan: RawScan, affine: NDArray[np.float64], shape: tuple[int, ...]) -> NDArray[np.float64]:
    """The same slice of the volume, by the places of its voxels."""
    row, column = np.indices(shape[:2])
    places = np.stack([row, column, np.zeros_like(row), np.ones_like(row)], axis=-1) @ affine.T
    index = np.rint(places @ np.linalg.inv(scan.affine).T)[..., :3].astype(int)
    x, y, z = np.moveaxis(index.clip(0, np.array(scan.voxels.shape) - 1), -1, 0)
    return scan.voxels[x, y, z].astype(np.float64)


@contextmanager
def private_folder(size: int) -> Iterator[Path]:
    """A folder in memory, if the system has one with room for so many bytes, that only this user can look into.

    It is removed when the block ends; one whose process was killed, by the next call of this user.
    """
    places = [Path("/dev/shm"), Path(tempfile.gettempdir())]
    for place in places:
        for left in place.glob(f"{_FOLDER}*"):
            with suppress(OSError, ValueError):
                if left.stat().st_uid == os.getuid() and not _runs(int(left.name.removeprefix(_FOLDER).split("-")[0])):
                    shutil.rmtree(left, ignore_errors=True)
    fits = (place for place in places[:1] if place.is_dir() and os.access(place, os.W_OK))
    memory = next((place for place in fits if shutil.disk_usage(place).free > 2 * size), None)
    prefix = f"{_FOLDER}{os.getpid()}-"
    with terminable(), tempfile.TemporaryDirectory(prefix=prefix, dir=memory) as folder:  # mode 0700
        yield Path(folder)


@contextmanager
def terminable() -> Iterator[None]:
    """SIGTERM, which would end Python at once, ends the block as an error does."""
    main = threading.current_thread() is threading.main_thread()
    if not main or signal.getsignal(signal.SIGTERM) is not signal.SIG_DFL:
        yield
        return

    def end(*_: Any) -> None:
        raise SystemExit(128 + signal.SIGTERM)

    signal.signal(signal.SIGTERM, end)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)


def _runs(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True
