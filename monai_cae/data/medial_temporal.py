"""Hippocampus and amygdala of the template, and how they shrink in the synthetic cohort.

Both are found in the template's grey matter around published coordinates. The temporal horn and the choroid fissure lie
above and beside the hippocampus, the horn's tip beside and below the amygdala. So they shrink from there, towards the
side that rests on white matter, and fluid takes the place.

Volumes, in patients against controls: hippocampus 12 % less in mild cognitive impairment and 24 % less in Alzheimer's
disease (Shi et al. 2009, Hippocampus 19:1055-1064); the hippocampus of CDR 0.5, 1 and 2 lies 1.75, 1.99 and 2.22
standard deviations below the controls' mean (Jack et al. 1997, Neurology 49:786-794); the amygdala loses as much as the
hippocampus (Poulin et al. 2011, Psychiatry Res 194:7-13). The width of the temporal horn that best tells patients from
controls is 3.9 mm at the age of 50 and 8.1 mm at 90 (2004, Int J Geriatr Psychiatry 19:570-574).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from monai_cae.data.template import COMMISSURE, MNI_PER_T88, load_icbm152

_Array = NDArray[Any]

_BOX = (slice(44, 153), slice(77, 156), slice(28, 97))  # both sides and room around them, of 197 x 233 x 189
# The hippocampus from head to tail, MNI mm, right; the left mirrors it, as the template does. It passes the centres of
# the hippocampal regions of Seitzman et al. 2020 (NeuroImage 206:116290), (25, -12, -22) and (25, -38, -2), by 2 mm,
# and is between them in the middle of what the template shows.
_AXIS_MM = (
    (27.0, -8.0, -23.5),
    (26.0, -12.0, -20.5),
    (27.5, -18.0, -17.0),
    (28.0, -24.0, -14.2),
    (28.0, -29.0, -10.5),
    (27.0, -33.0, -7.5),
    (24.5, -37.0, -2.5),
    (21.0, -40.0, 2.0),
)
_ALONG, _UP = (-0.79, 0.61), (0.61, 0.79)  # in y and z: its direction, and across it
_HIPPOCAMPUS_MM = (10.5, 3.0, 5.5)  # half-axes sideways, along and up, of the ellipsoids strung on it
_AMYGDALA_MM, _AMYGDALA_HALF_MM = (21.5, -3.5, -18.5), (9.0, 7.0, 8.0)  # Seitzman's is at (20, -2, -23)
_GREY = (135, 195)  # T1 between the fluid and the white matter around
_HORN_MM = 16.0  # how far tissue gives way to the temporal horn, per share of the hippocampus that is lost
_REACH_MM = 10.0  # from there to where nothing moves
_SUPPORT_MM = 3.0  # of what they rest on, which stays


@dataclass(frozen=True)
class MedialTemporal:
    """Both sides, float32 maps (109, 79, 69) on the template's 1 mm grid.

    Attributes:
        distance: mm from the surface of hippocampus and amygdala, negative inside.
        outward: its gradient, (3, 109, 79, 69).
        opening: 0 where they rest on other tissue, 1 where fluid can take their place.
        horn: 0 to 1, 1 where the temporal horn widens most.
        hippocampus: mm from the surface of the hippocampus alone.
        corner: the first voxel on the template's grid.
        depths: mm by which the surface has retreated when a share of the hippocampus is lost: of 0, 1 ... 99 percent.
        lobe: 1 in the temporal lobes and 0 elsewhere, for the voxels of the T88-like frame that lie in the brain.
    """

    distance: _Array
    outward: _Array
    opening: _Array
    horn: _Array
    hippocampus: _Array
    corner: _Array
    depths: _Array
    lobe: _Array

    def shrink(self, source: _Array, lost: float) -> tuple[_Array, _Array, _Array, float]:
        """Move sampling points, in place, so that hippocampus and amygdala appear smaller by the share `lost`.

        Args:
            source: points on the template's grid, (3, n).
            lost: share of the hippocampus, 0 to 0.99.

        Returns:
            The indices of the points nearby; how much of each is hippocampus, amygdala or what they rest on; how much
            is fluid that has taken their place; and what is left of both hippocampi, in thousands of points.
        """
        inner = (source >= self.corner[:, None] + 1) & (
            source <= self.corner[:, None] + np.array([self.distance.shape]).T - 2
        )
        near = np.flatnonzero(inner.all(axis=0))
        points = source[:, near] - self.corner[:, None].astype(np.float32)
        distance = values_at(self.distance, points)
        close = distance < _REACH_MM + _HORN_MM * lost
        near, points, distance = near[close], points[:, close], distance[close]
        opening = values_at(self.opening, points)
        retreat = opening * np.float32(np.interp(lost, np.linspace(0, 0.99, 100), self.depths))
        horn = values_at(self.horn, points) * np.float32(_HORN_MM * lost)
        thickness = np.float32(-self.distance.min())
        beyond = np.clip(1 - (distance - horn) / _REACH_MM, 0, 1)
        shift = np.where(
            distance < 0,
            retreat * np.clip((distance + thickness) / np.maximum(thickness - retreat, 1), 0, 1),
            -horn * beyond**2 * (3 - 2 * beyond),
        )
        source[:, near] += shift * np.stack([values_at(component, points) for component in self.outward])
        fluid = np.clip(np.minimum(distance + 0.5, horn) - np.maximum(distance - 0.5, -retreat), 0, 1)
        whole = np.clip(0.5 + _SUPPORT_MM * (1 - opening) - distance - retreat, 0, 1)
        left = (values_at(self.hippocampus, points) < 0) & (distance < -retreat)
        return near, whole, fluid, float(left.sum()) / 1000


def load_medial_temporal(origin: _Array, inside: _Array) -> MedialTemporal:
    """Find hippocampi and amygdalae in the template; takes a second.

    Args:
        origin: the anterior commissure's voxel on the grid of the sampling points.
        inside: the brain's mask in the T88-like frame.

    Raises:
        MonaiCaeError: nilearn is not installed.
    """
    t1, _ = load_icbm152("t1", "phantom", _BOX)
    grey, corner = load_icbm152("gm", "phantom", _BOX)
    right, back, up = (
        axis - middle for axis, middle in zip(np.ogrid[tuple(map(slice, t1.shape))], corner, strict=True)
    )
    side = np.abs(right)
    tissue = (grey > 127) & (t1 > _GREY[0]) & (t1 < _GREY[1])
    tube = np.zeros(t1.shape, dtype=bool)
    stops = np.arange(len(_AXIS_MM))
    for cx, cy, cz in zip(
        *(np.interp(np.linspace(0, stops[-1], 60), stops, one) for one in zip(*_AXIS_MM, strict=True)), strict=True
    ):
        across = (side - cx, (back - cy) * _ALONG[0] + (up - cz) * _ALONG[1], (back - cy) * _UP[0] + (up - cz) * _UP[1])
        tube |= _within(across, _HIPPOCAMPUS_MM)
    offset = tuple(axis - centre for axis, centre in zip((side, back, up), _AMYGDALA_MM, strict=True))
    hippocampus = _two_largest(tube & tissue)
    amygdala = _two_largest(_within(offset, _AMYGDALA_HALF_MM) & tissue & ~hippocampus)
    whole = ndimage.binary_closing(hippocampus | amygdala, ndimage.generate_binary_structure(3, 1), iterations=2)
    distance = _signed_distance(whole)
    outward = np.stack(np.gradient(ndimage.gaussian_filter(distance, 1.5)))
    sideways = outward[0] * np.sign(right)
    above = outward[1] * _UP[0] + outward[2] * _UP[1]
    body = np.clip(0.3 + above + 0.6 * sideways, 0, 1)
    front = np.clip(0.2 + 0.8 * sideways - 0.6 * above, 0, 1)
    forward = np.clip((back + 9) / 4 + 0.5, 0, 1)  # the amygdala lies before y = -9
    opening = ndimage.gaussian_filter((1 - forward) * body + forward * front, 1.0).astype(np.float32)
    horn = opening * np.clip(0.35 + 0.65 * sideways, 0, 1)
    alone = _signed_distance(hippocampus)
    voxels = alone < 0
    depths = np.quantile(
        -np.minimum(distance, 0)[voxels] / np.maximum(opening[voxels], 0.01), np.linspace(0, 0.99, 100)
    )
    return MedialTemporal(
        distance=distance,
        outward=outward.astype(np.float32),
        opening=opening,
        horn=horn.astype(np.float32),
        hippocampus=alone,
        corner=origin - corner,
        depths=depths,
        lobe=_temporal_lobes(inside),
    )


def _temporal_lobes(inside: _Array) -> _Array:
    """How much of each voxel inside is temporal lobe: below the Sylvian fissures, before the cerebellum."""
    x, y, z = (
        (axis - centre) * scale
        for axis, centre, scale in zip(np.ogrid[tuple(map(slice, inside.shape))], COMMISSURE, MNI_PER_T88, strict=True)
    )
    x = np.abs(x)
    fissure = np.where(x > 38, -10 - np.where(y > 0, 0.6, 0.45) * y, -8 - 0.6 * np.maximum(y, 0))
    lobe = (x > 15) & (z < fissure) & (y > -50) & (y < 24) & ((y > -33) | (z > -12 - (y + 35) / 4))
    return np.asarray(ndimage.gaussian_filter(lobe.astype(np.float32), 3.0)[inside])


def _within(offset: Any, half_axes: tuple[float, float, float]) -> _Array:
    return np.asarray(sum((one / half) ** 2 for one, half in zip(offset, half_axes, strict=True)) < 1)


def _two_largest(mask: _Array) -> _Array:
    """The two largest parts, left and right, without bridges of a voxel."""
    labels, count = ndimage.label(ndimage.binary_opening(mask, ndimage.generate_binary_structure(3, 1)))
    sizes = ndimage.sum_labels(labels > 0, labels, np.arange(1, count + 1))
    return np.isin(labels, 1 + np.argsort(sizes)[-2:])


def _signed_distance(mask: _Array) -> _Array:
    outside, inside = (ndimage.distance_transform_edt(part) for part in (~mask, mask))
    return np.asarray(ndimage.gaussian_filter((outside - inside).astype(np.float32), 0.7))


def values_at(volume: _Array, points: _Array) -> _Array:
    """Args: volume: shape `(X, Y, Z)`; points: in voxels, shape `(3, ...)`. Returns: linear between voxels, `(...)`."""
    return np.asarray(ndimage.map_coordinates(volume, points, output=np.float32, order=1, mode="nearest"))
