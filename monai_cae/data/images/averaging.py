"""The mean of a volume over cubes, computed slice by slice: the volume as a whole is never in memory."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_array

from monai_cae.data.images.planes import View
from monai_cae.errors import MonaiCaeError

MAX_SIDE = 2048  # voxels; the shares that voxels have in cubes are kept for each axis
LEAST_MM, LARGEST_MM = 0.01, 100.0  # of a voxel: others are a broken header's
_ROUNDING = 1e-6  # of a cube: less is not a share
_Slices = Callable[[int, int], Iterable[NDArray[Any]]]


class Grid(NamedTuple):
    """Cubes around the middle of a volume, along its axes."""

    size: tuple[int, int, int]
    spacing: float  # mm


class _Shares(NamedTuple):
    start: int  # the first voxel with a share
    stop: int
    parts: NDArray[np.float32]  # (cubes, stop - start): how much of a cube's length lies in a voxel


def averaged(slices: _Slices, view: View, grid: Grid, where: str) -> NDArray[np.float32]:
    """The mean over each cube; outside the volume there are zeros.

    A cube that ends within a voxel has a share of it, so any spacing will do, and nothing is aliased.

    Args:
        slices: `slices(start, stop)` gives the slices across the third stored axis in turn, shape `(X, Y)` each.
        view: of the volume.
        grid: the cubes.
        where: names the volume in errors.

    Returns:
        Shape `grid.size`, with the view's axes.

    Raises:
        MonaiCaeError: a single slice, a side above the limit, or an affine that gives no sizes of voxels.
    """
    if min(view.shape) == 1 or max(view.shape) > MAX_SIDE:
        raise MonaiCaeError(f"{where} has the shape {view.shape}: a volume has sides from 2 to {MAX_SIDE} voxels")
    voxels = _voxel_sizes(view)
    if not all(LEAST_MM <= voxel <= LARGEST_MM for voxel in voxels):
        sizes = " x ".join(f"{voxel:.3g}" for voxel in voxels)
        raise MonaiCaeError(f"{where} has voxels of {sizes} mm, which no scan has: its header is broken")
    turned = (_shares(*one, grid.spacing) for one in zip(view.shape, voxels, grid.size, strict=True))
    x, y, z = (share for _, share in sorted(zip(view.order, turned, strict=True), key=lambda pair: pair[0]))
    mean = np.zeros((len(z.parts), len(x.parts), len(y.parts)), np.float32)
    along, across = csr_array(x.parts), csr_array(y.parts)  # few voxels have a share, and BLAS would start threads
    with np.errstate(all="ignore"):  # values that are not finite are refused where they are looked at
        for one, parts in zip(slices(z.start, z.stop), z.parts.T, strict=True):
            flat = (across @ (along @ one[x.start : x.stop, y.start : y.stop].astype(np.float32)).T).T
            for cube in np.flatnonzero(parts):
                mean[cube] += parts[cube] * flat
    return np.ascontiguousarray(view.turned(mean.transpose(1, 2, 0)))


def grid_affine(view: View, grid: Grid) -> NDArray[np.float64]:
    """Of the cubes, as the view's affine is of the voxels: shape (4, 4)."""
    affine = view.affine.copy()
    affine[:3, :3] *= grid.spacing / np.array(_voxel_sizes(view))
    middle = view.affine[:3, :3] @ _middle(view.shape) + view.affine[:3, 3]
    affine[:3, 3] = middle - affine[:3, :3] @ _middle(grid.size)
    return affine


def _middle(shape: tuple[int, int, int]) -> NDArray[np.float64]:
    return (np.array(shape) - 1) / 2


def _voxel_sizes(view: View) -> list[float]:
    with np.errstate(all="ignore"):
        lengths = np.linalg.norm(view.affine[:3, :3], axis=0)
    return [round(float(length), 6) for length in lengths]  # a rotation's sines are rounded


def _shares(count: int, voxel: float, cubes: int, spacing: float) -> _Shares:
    edges, walls = ((np.arange(n + 1) - n / 2) * size for n, size in ((count, voxel), (cubes, spacing)))
    common = np.minimum(edges[1:], walls[1:, None]) - np.maximum(edges[:-1], walls[:-1, None])
    parts = np.where(common > _ROUNDING * spacing, common / spacing, 0).astype(np.float32)
    used = np.flatnonzero(parts.any(axis=0))
    return _Shares(int(used[0]), int(used[-1]) + 1, parts[:, used[0] : used[-1] + 1])
