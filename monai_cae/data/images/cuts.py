"""Slices of several planes of one scan: of a volume in one pass, or of a file for each plane."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from monai_cae.data.images.planes import PLANES, View
from monai_cae.data.images.slice_cache import read_kept
from monai_cae.data.images.volumes import Volume, each_slice, find_volume
from monai_cae.errors import MonaiCaeError

Cut = tuple[int, list[int]]  # the axis that slices are across, and where they lie on it, counted from 0
NAMES = tuple(PLANES)  # by the axis


def read_crossing(volume: Volume, view: View, cuts: Iterable[Cut]) -> list[NDArray[Any]]:
    """The first slice of each cut, three-dimensional with the view's axes; one slice of the file in memory at a time.

    The planes of a volume have some of every row of the file: every page of it is read, or all of it inflated, once.
    """
    wanted = [view.stored(axis, positions[0], positions[0] + 1)[:2] for axis, positions in cuts]
    found: list[list[NDArray[Any]]] = [[] for _ in wanted]
    for index, flat in enumerate(each_slice(volume, 0, volume.layout.shape[2])):
        for rows, (axis, place) in zip(found, wanted, strict=True):
            if axis < 2:
                row = flat[place : place + 1] if axis == 0 else flat[:, place : place + 1]
                rows.append(row.copy())  # or all slices stay in memory
            elif place == index:
                rows.append(flat)
    return [view.turned(np.stack(rows, axis=2)) for rows in found]


def read_beside(name: str, axes: str, cuts: Sequence[Cut]) -> list[NDArray[Any]]:
    """The slices of a scan that was cut before: files of one name, each in a folder that is named after its plane.

    Args:
        name: of that of the first cut; a folder of all would give a scan several times.
        axes: see `SliceReader`.
        cuts: whose planes are wanted.

    Raises:
        MonaiCaeError: other folders, a plane that is missing, a file with several slices of its plane, files that
            differ in size or voxels.
    """
    path, first = Path(name), NAMES[cuts[0][0]]
    if path.parent.name != first:
        raise MonaiCaeError(
            f"{name} has a single slice: give whole volumes, or a folder called {first} that has slices of the same "
            "names beside it, in folders called after the other planes"
        )
    parts, grids = [], []
    for axis, _ in cuts:
        file = path.parent.with_name(NAMES[axis]) / path.name
        if not file.exists():
            raise MonaiCaeError(f"{name} lacks its {NAMES[axis]} slice: there is none of its name in {NAMES[axis]}")
        try:
            volume = find_volume(str(file))
            view = volume.layout.view(axes)
            parts.append(view.turned(read_kept(volume, *view.stored(axis, 0, 1))))
        except MonaiCaeError as error:  # what is recorded of a bad scan hides the path of the scan alone
            raise MonaiCaeError(f"{name}: {str(error).replace(str(file), f'its {NAMES[axis]} slice')}") from error
        if view.shape[axis] != 1:
            raise MonaiCaeError(f"{name}: its {NAMES[axis]} slice has the shape {view.shape}, which is several")
        sizes = zip(view.shape, (volume.layout.spacing[one] for one in view.order), strict=True)
        grids.append([None if one == axis else both for one, both in enumerate(sizes)])
    if any(len(set(both) - {None}) > 1 for both in zip(*grids, strict=True)):
        raise MonaiCaeError(f"{name} and the slices of its other planes differ in size or voxels: resample them")
    return parts


def origin(cuts: Sequence[Cut], shape: Sequence[int], joined: Sequence[int]) -> list[int]:
    """Where in a volume the first voxel of the array lies that was joined from cuts; padding comes before the volume.

    Args:
        cuts: of which the first decides.
        shape: of the volume.
        joined: of the array.
    """
    across, positions = cuts[0]
    return [positions[0] if axis == across else (shape[axis] - joined[axis]) // 2 for axis in range(3)]


def moved(affine: NDArray[np.float64], voxel: Sequence[float]) -> NDArray[np.float64]:
    """The affine of a part that begins at a voxel: shape (4, 4)."""
    found, (x, y, z) = affine.copy(), voxel
    # Python's floats warn of nothing: a broken header's affine is `monai-cae check`'s to tell. And a slice costs 40 us.
    for row, (a, b, c, start) in enumerate(affine.tolist()[:3]):
        found[row, 3] = start + (a * x + b * y + c * z)
    return found
