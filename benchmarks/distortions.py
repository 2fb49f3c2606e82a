"""What can be wrong with a raw scan, done to a good one: for prepare.py and for the limits of the quality numbers."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from nibabel.orientations import axcodes2ornt, inv_ornt_aff, io_orientation, ornt_transform
from numpy.typing import NDArray
from scipy import ndimage
from scipy.spatial.transform import Rotation

from monai_cae.prepare import RawScan
from monai_cae.prepare.grids import resampled, transform_of

_Array = NDArray[Any]


@dataclass(frozen=True)
class Head:
    """A scan, the brain in it, and how its points, mm, were moved from where they were."""

    scan: RawScan
    brain: _Array
    moved: _Array

    def with_voxels(self, voxels: _Array, brain: _Array | None = None) -> Head:
        """The same head with other values."""
        scan = replace(self.scan, voxels=np.asarray(voxels, dtype=np.float32))
        return replace(self, scan=scan, brain=self.brain if brain is None else brain)


def turned(head: Head, degrees: tuple[float, float, float], shift_mm: tuple[float, float, float] = (0, 0, 0)) -> Head:
    """About the x, y and z axis through the brain's middle, on a grid 30 mm larger."""
    affine = head.scan.affine
    middle = affine[:3, :3] @ np.argwhere(head.brain).mean(axis=0) + affine[:3, 3]
    motion = np.eye(4)
    motion[:3, :3] = Rotation.from_euler("xyz", degrees, degrees=True).as_matrix()
    motion[:3, 3] = middle - motion[:3, :3] @ middle + shift_mm
    larger = affine.copy()
    larger[:3, 3] -= affine[:3, :3] @ (15, 15, 15)
    shape = tuple(n + 30 for n in head.brain.shape)
    return on_grid(replace(head, moved=motion @ head.moved), larger, shape, np.linalg.inv(motion))


def on_grid(head: Head, affine: _Array, shape: tuple[int, ...], back: _Array | None = None) -> Head:
    """Another grid; `back` maps its points to the head's."""
    transform = transform_of(np.eye(4) if back is None else back)
    voxels = resampled(head.scan.voxels, head.scan.affine, shape, affine, transform, spline=True)
    brain = resampled(head.brain.astype(np.float32), head.scan.affine, shape, affine, transform) > 0.5
    return replace(head, scan=replace(head.scan, voxels=np.maximum(voxels, 0), affine=affine), brain=brain)


def stored(head: Head, codes: str) -> Head:
    """The same voxels along other axes, some of them mirrored."""
    turn = ornt_transform(io_orientation(head.scan.affine), axcodes2ornt(tuple(codes)))
    order = np.argsort(turn[:, 0])
    steps = tuple(slice(None, None, int(turn[axis, 1])) for axis in range(3))

    def move(volume: _Array) -> _Array:
        return np.ascontiguousarray(volume[steps].transpose(order))

    affine = head.scan.affine @ inv_ornt_aff(turn, head.brain.shape)
    return replace(head, scan=replace(head.scan, voxels=move(head.scan.voxels), affine=affine), brain=move(head.brain))


def thick(head: Head, mm: float, axis: int = 2) -> Head:
    """Slices of that thickness, each the mean of what it covers."""
    factor = mm / head.scan.spacing[axis]
    whole = int((factor - 1) / 2)  # voxels on either side that a slice covers whole
    weights = np.ones(2 * whole + 3)
    weights[[0, -1]] = (factor - 1) / 2 - whole
    smooth = ndimage.convolve1d(head.scan.voxels, weights / weights.sum(), axis=axis, mode="nearest")
    affine = head.scan.affine.copy()
    affine[:3, axis] *= factor
    shape = list(head.brain.shape)
    shape[axis] = int(shape[axis] / factor)
    return on_grid(head.with_voxels(smooth), affine, tuple(shape))


def biased(head: Head, strength: float, seed: int = 0) -> Head:
    """A smooth field of that relative range."""
    nodes = np.random.default_rng(seed).standard_normal((3, 3, 3))
    zoom = [n / 3 for n in head.brain.shape]
    field = ndimage.zoom(nodes, zoom, order=2, mode="nearest", grid_mode=True)
    field = (field - field.min()) / (field.max() - field.min()) - 0.5
    return head.with_voxels(head.scan.voxels * (1 + strength * field))


def noisy(head: Head, share: float, seed: int = 0) -> Head:
    """Rician noise, as a share of white matter."""
    rng = np.random.default_rng(seed)
    deviation = share * np.percentile(head.scan.voxels[head.brain], 80)
    real, imaginary = deviation * rng.standard_normal((2, *head.brain.shape), dtype=np.float32)
    return head.with_voxels(np.hypot(head.scan.voxels + real, imaginary))


def cut(head: Head, axis: int, share: float, top: bool = False) -> Head:
    """A field of view without a share of the brain's extent at one end (negative: with a margin around it)."""
    found = np.flatnonzero(head.brain.any(axis=tuple(other for other in range(3) if other != axis)))
    extent = found[-1] + 1 - found[0]
    first, last = 0, head.brain.shape[axis]
    if top:
        last = min(last, int(found[-1] + 1 - share * extent))
    else:
        first = max(0, int(found[0] + share * extent))
    part = tuple(slice(first, last) if other == axis else slice(None) for other in range(3))
    affine = head.scan.affine.copy()
    affine[:3, 3] += affine[:3, axis] * first
    scan = replace(head.scan, voxels=np.ascontiguousarray(head.scan.voxels[part]), affine=affine)
    return replace(head, scan=scan, brain=head.brain[part])


def stripped(head: Head) -> Head:
    """Nothing but the brain."""
    return head.with_voxels(np.where(head.brain, np.maximum(head.scan.voxels, 1), 0))


def defaced(head: Head) -> Head:
    """Nothing in front of and below the brain's front half, as tools do that remove faces."""
    found = [np.flatnonzero(head.brain.any(axis=others)) for others in ((1, 2), (0, 2), (0, 1))]
    y, z = (
        axis.reshape([-1 if n == i else 1 for i in range(3)])
        for n, axis in ((1, np.arange(head.brain.shape[1])), (2, np.arange(head.brain.shape[2])))
    )
    face = (y > np.mean(found[1])) & (z < np.quantile(found[2], 0.2) + 0.35 * (y - np.mean(found[1])))
    near = ndimage.binary_dilation(head.brain, iterations=4)
    return head.with_voxels(np.where(face & ~near, 0, head.scan.voxels))


def without_hemisphere(head: Head) -> Head:
    """The right half of the brain as dark as fluid."""
    middle = int(np.argwhere(head.brain)[:, 0].mean())
    lost = head.brain.copy()
    lost[:middle] = False
    fluid = np.percentile(head.scan.voxels[head.brain], 2)
    return head.with_voxels(np.where(lost, fluid, head.scan.voxels), head.brain & ~lost)


def inverted(head: Head) -> Head:
    """Fluid bright and white matter dark, as in T2w scans."""
    top = np.percentile(head.scan.voxels, 99.5)
    body = ndimage.gaussian_filter(head.scan.voxels, 2) > 0.08 * top
    return head.with_voxels(np.where(body, np.clip(1.1 * top - head.scan.voxels, 0, None), 0))


def upside_down(head: Head) -> Head:
    """A header that takes up for down."""
    return replace(head, scan=replace(head.scan, affine=head.scan.affine @ _mirror(head.brain.shape, 2)))


def _mirror(shape: tuple[int, ...], axis: int) -> _Array:
    mirror = np.eye(4)
    mirror[axis, axis], mirror[axis, 3] = -1, shape[axis] - 1
    return mirror


def ball(head: Head) -> Head:
    """A phantom: a bright ball with some noise."""
    x, y, z = np.ogrid[tuple(slice(-n / 2, n / 2) for n in head.brain.shape)]
    inside = x**2 + y**2 + z**2 < 70**2
    return noisy(head.with_voxels(1000.0 * inside, inside), 0.05)


def box(head: Head) -> Head:
    """A phantom: a box with bars."""
    inside = np.zeros(head.brain.shape, dtype=bool)
    inside[30:-30, 40:-40, 30:-30] = True
    bars = 1 - 0.7 * (np.indices(head.brain.shape).sum(axis=0) % 40 < 12)
    return noisy(head.with_voxels(1000.0 * inside * bars, inside), 0.05)


def knee(head: Head) -> Head:
    """Two bones with bright marrow in a leg of muscle, a gap between them."""
    x, y, z = np.ogrid[tuple(slice(-n / 2, n / 2) for n in head.brain.shape)]
    leg, bone = (x / 62) ** 2 + (y / 68) ** 2 < 1, (x / 34) ** 2 + ((y - 8) / 32) ** 2 < 1
    shape = np.broadcast_to(leg, head.brain.shape)
    voxels = np.where(shape, 300.0, 0) + np.where(bone & (abs(z) > 5), 600, 0)
    rim = ((x / 62) ** 2 + (y / 68) ** 2 > 0.85) & leg
    return noisy(head.with_voxels(ndimage.gaussian_filter(voxels + 500 * rim, 1), shape & bone), 0.05)


def noise(head: Head) -> Head:
    """Nothing but noise."""
    rng = np.random.default_rng(0)
    return head.with_voxels(rng.rayleigh(100, head.brain.shape))


GOOD: dict[str, Callable[[Head], Head]] = {
    "as it is": lambda head: head,
    "turned by 15, -10, 12 degrees": lambda head: turned(head, (15, -10, 12), (12, -8, 20)),
    "turned by -30, 10, 20 degrees": lambda head: turned(head, (-30, 10, 20)),
    "stored as PIR": lambda head: stored(head, "PIR"),
    "stored as LSA, two axes mirrored": lambda head: stored(head, "LSA"),
    "bias of 80 %": lambda head: biased(head, 0.8),
    "noise of 5 %": lambda head: noisy(head, 0.05),
    "noise of 9 %": lambda head: noisy(head, 0.09),
    "cut close to the brain": lambda head: cut(cut(cut(head, 2, -0.03), 1, -0.03, top=True), 2, -0.03, top=True),
    "defaced": defaced,
    "stripped": stripped,
    "slices of 1.5 mm": lambda head: thick(head, 1.5),
    "slices of 2 mm": lambda head: thick(head, 2),
    "slices of 3 mm": lambda head: thick(head, 3),
    "turned, PIR, 1.25 mm, bias, noise": lambda head: stored(
        noisy(biased(thick(turned(head, (15, -10, 12)), 1.25), 0.5), 0.04), "PIR"
    ),
}
BAD: dict[str, Callable[[Head], Head]] = {
    "slices of 4 mm": lambda head: thick(head, 4),
    "slices of 5 mm": lambda head: thick(head, 5),
    "slices of 10 mm": lambda head: thick(head, 10),
    "one slice": lambda head: head.with_voxels(head.scan.voxels[:, :, 90:91], head.brain[:, :, 90:91]),
    "noise of 25 %": lambda head: noisy(head, 0.25),
    "5 % of the brain cut off at the top": lambda head: cut(head, 2, 0.05, top=True),
    "15 % of the brain cut off at the top": lambda head: cut(head, 2, 0.15, top=True),
    "lower half of the brain outside": lambda head: cut(head, 2, 0.5),
    "left half of the brain outside": lambda head: cut(head, 0, 0.5),
    "no hemisphere": without_hemisphere,
    "header upside down": upside_down,
    "contrast inverted": inverted,
    "ball": ball,
    "box": box,
    "knee": knee,
    "noise": noise,
}
