"""Parts of scans, kept in memory: inflating a slice of a .nii.gz takes a thousand times as long as copying it.

The check before a training, the audit and the loader each want the same part.
"""

from __future__ import annotations

import os
import threading
from collections import OrderedDict
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from monai_cae.data.images.volumes import Volume, read_slices

KEPT_BYTES = 256 << 20  # 3,600 slices of OASIS-1
_SHARE = 16  # of these bytes, that one part may have
_kept: OrderedDict[tuple[Any, ...], NDArray[Any]] = OrderedDict()
_bytes = 0
_lock = threading.Lock()  # several threads read ahead


def read_kept(volume: Volume, axis: int, start: int, stop: int, step: int = 1) -> NDArray[Any]:
    """`read_slices`, but a .nii.gz that was read before is not inflated again; see `kept`."""
    if not volume.packed:
        return read_slices(volume, axis, start, stop, step)
    return kept(volume, (axis, start, stop, step), lambda: read_slices(volume, axis, start, stop, step))


def kept(volume: Volume, what: tuple[Any, ...], read: Callable[[], NDArray[Any]]) -> NDArray[Any]:
    """What `read` gives, the caller's own; from memory if the same was read before and the file has not changed.

    Args:
        volume: that is read.
        what: tells its parts apart.
        read: gives the part.
    """
    global _bytes
    key = (volume.voxels, *stamp(volume), *what)
    with _lock:
        found = _kept.get(key)
        if found is not None:
            _kept.move_to_end(key)
            return found.copy(order="K")
    array = read()
    if array.nbytes * _SHARE > KEPT_BYTES:
        return array
    with _lock:
        if key not in _kept:
            _kept[key] = np.array(array, order="K")
            _bytes += array.nbytes
        while _bytes > KEPT_BYTES:
            _bytes -= _kept.popitem(last=False)[1].nbytes
    return array


def forget() -> None:
    """Keep nothing of what was read: for measurements."""
    global _bytes
    with _lock:
        _kept.clear()
        _bytes = 0


def stamp(volume: Volume) -> tuple[Any, ...]:
    """Of the file as it is now, and what its header says; another one has to be read anew."""
    try:
        found = os.stat(volume.voxels)  # noqa: PTH116  # as `volumes` has it
    except OSError:
        return ()  # it is gone: reading says so
    layout = volume.layout
    turned = (layout.anatomical.order, layout.anatomical.flipped)
    meaning = (layout.shape, layout.dtype.str, layout.offset, layout.scaling, *turned)
    return found.st_ino, found.st_size, found.st_mtime_ns, *meaning
