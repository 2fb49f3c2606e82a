"""Extractions of several samples: slices, planes or patches that a network sees one by one, all of one scan."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from monai_cae.data.images.cuts import Cut
from monai_cae.data.images.extraction import Extraction, VolumeExtraction, check_odd, check_whole
from monai_cae.data.images.planes import PLANES
from monai_cae.data.images.views import View, middle_planes, middle_slices
from monai_cae.data.images.volumes import MAX_PART_VOXELS
from monai_cae.errors import MonaiCaeError

LEAST_PATCH = 11  # voxels of a side: the windows of structural similarity, by which reconstructions are scored
MAX_PATCHES = 4096  # each a sample, and so a row of the samples' table for every scan

Box = tuple[slice, slice, slice]


@dataclass(frozen=True)
class SlicesExtraction(Extraction):
    """Slices of one plane, each a sample.

    Attributes:
        slice_index: the middle one, counted from 1.
        slices: how many; an odd number.
        step: from one to the next; 1 takes neighbours.
        plane, axes: see `Extraction`.

    Raises:
        MonaiCaeError: a setting that is no such number.
    """

    plane: str = "axial"
    slice_index: int = 106
    slices: int = 5
    step: int = 4
    axes: str = "anatomical"

    def __post_init__(self) -> None:
        super().__post_init__()
        check_whole("slice_index", self.slice_index)
        check_odd(self.slices, "stack")
        check_whole("step", self.step, 1)

    @property
    def channels(self) -> int:
        return self.slices

    @property
    def samples(self) -> int:
        return self.slices

    @property
    def sample_names(self) -> tuple[str, ...]:
        return tuple(f"{self.plane} slice {index}" for index in self.indices(0))

    @property
    def name(self) -> str:
        each = self.indices(0)
        if self.slices == 1:
            return f"{self.plane} slice {each[0]}"
        return f"{self.plane} slices {each[0]} to {each[-1]} in steps of {self.step}"

    @property
    def kind(self) -> str:
        return "stack"

    def indices(self, count: int) -> Sequence[int]:
        first = self.slice_index - self.slices // 2 * self.step
        return range(first, first + self.slices * self.step, self.step)


@dataclass(frozen=True)
class PlanesExtraction(Extraction):
    """An axial, a coronal and a sagittal slice of one volume, each a sample.

    Each lies in the middle of a square, with zeros around it, whose side is the volume's longest. A cohort of single
    slices has a file of one name for each plane, in folders called axial, coronal and sagittal.

    Attributes:
        axial, coronal, sagittal: which slice, counted from 1; the defaults are, in OASIS-1's T88 volumes, the paper's,
            one through the hippocampi, and the midline.
        axes: see `Extraction`.

    Raises:
        MonaiCaeError: an index that is no whole number.
    """

    axial: int = 106
    coronal: int = 99
    sagittal: int = 88
    axes: str = "anatomical"
    channels = 3
    samples = 3
    whole = True  # each of the three axes is cut

    def __post_init__(self) -> None:
        super().__post_init__()
        for plane, index in self._each:
            check_whole(plane, index)

    @property
    def _each(self) -> list[tuple[str, int]]:
        return [("axial", self.axial), ("coronal", self.coronal), ("sagittal", self.sagittal)]

    @property
    def sample_names(self) -> tuple[str, ...]:
        return tuple(f"{plane} slice {index}" for plane, index in self._each)

    @property
    def planes(self) -> tuple[str, ...]:
        return tuple(plane for plane, _ in self._each)

    @property
    def name(self) -> str:
        axial, coronal, sagittal = self.sample_names
        return f"{axial}, {coronal} and {sagittal}"

    @property
    def kind(self) -> str:
        return "triple"

    def indices(self, count: int) -> Sequence[int]:
        return [self.axial]

    def last(self, count: int) -> int:
        return max(self.axial, self.coronal, self.sagittal)

    def cuts(self, shape: Sequence[int], where: str) -> list[Cut]:
        if min(shape) == 1:  # each plane is all of its file
            return [(PLANES[plane], [0]) for plane, _ in self._each]
        for plane, index in self._each:
            count = shape[PLANES[plane]]
            if not 1 <= index <= count:
                raise MonaiCaeError(f"{plane} slice {index} is outside {where}: its {plane} slices are 1 to {count}")
        return [(PLANES[plane], [index - 1]) for plane, index in self._each]

    def joined(self, parts: Sequence[NDArray[Any]]) -> NDArray[Any]:
        side = max(size for part in parts for size in part.shape)
        square = np.zeros((side, side, len(parts)), np.result_type(*parts))
        for place, (part, (plane, _)) in enumerate(zip(parts, self._each, strict=True)):
            flat = part.take(0, PLANES[plane])
            first, second = ((side - size) // 2 for size in flat.shape)
            square[first : first + flat.shape[0], second : second + flat.shape[1], place] = flat
        return square

    def views(self, image: NDArray[Any]) -> list[View]:
        return [View(plane, pixels) for (plane, _), pixels in zip(self._each, image, strict=True)]

    def centre(self, shape: Sequence[int]) -> list[float]:
        indices = (self.sagittal, self.coronal, self.axial)
        return [index - 1.0 if count > 1 else 0.0 for index, count in zip(indices, shape, strict=True)]


@dataclass(frozen=True)
class PatchesExtraction(VolumeExtraction):
    """Cubes cut out of a volume that is averaged as `VolumeExtraction` does it, each a sample.

    The patches lie on a grid in the middle of the volume. Those whose middle is outside the ellipsoid that fills the
    volume are left out, as a brain is no box. What a patch shows beside the brain is 0, which may be all of it.

    Attributes:
        patch: voxels of a side.
        step: voxels from one patch to the next; None for `patch`, less than that makes them overlap.
        spacing_mm, size, axes: of the volume, see `VolumeExtraction`.

    Raises:
        MonaiCaeError: a setting that is no such number, a patch that is larger than the volume, a grid above the
            limits, or one with no patch inside.
    """

    patch: int = 24
    step: int | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        check_whole("patch", self.patch, LEAST_PATCH)
        if self.step is not None:
            check_whole("step", self.step, 1)
        size = self.grid.size
        if self.patch > min(size):
            raise MonaiCaeError(f"patch {self.patch} is larger than the volume, which has {size} voxels: give less")
        counts = [(one - self.patch) // self._step + 1 for one in size]
        if math.prod(counts) > MAX_PATCHES or math.prod(counts) * self.patch**3 > MAX_PART_VOXELS:
            raise MonaiCaeError(
                f"a grid of {' x '.join(map(str, counts))} patches is too large: at most {MAX_PATCHES} patches and "
                f"{MAX_PART_VOXELS} voxels: give a larger step"
            )
        if not self.sample_boxes:
            raise MonaiCaeError(f"step {self._step} leaves no patch within the volume's ellipsoid: give a smaller one")

    @property
    def _step(self) -> int:
        return self.patch if self.step is None else self.step

    @property
    def sample_boxes(self) -> tuple[Box, ...]:
        """Where each patch lies in the averaged volume."""
        return _boxes(self.grid.size, self.patch, self._step)

    @property
    def samples(self) -> int:
        return len(self.sample_boxes)

    @property
    def channels(self) -> int:
        return self.samples

    @property
    def sample_names(self) -> tuple[str, ...]:
        """Each by its middle, in mm to the right of, before and above that of the volume."""
        middles = [[(one.start + one.stop - size) / 2 for one, size in zip(box, self.grid.size, strict=True)]
                   for box in self.sample_boxes]  # fmt: skip
        return tuple("patch at {:g}, {:g}, {:g} mm".format(*np.multiply(middle, self.spacing_mm)) for middle in middles)

    @property
    def name(self) -> str:
        return f"{self.samples} patches of {super().name}"

    def image(self, slices: NDArray[Any]) -> NDArray[Any]:
        volume = np.moveaxis(slices, 0, self.axis)
        return np.stack([volume[box] for box in self.sample_boxes])

    def views(self, image: NDArray[Any]) -> list[View]:
        return middle_planes(self.assembled(image))

    def sections(self, image: NDArray[Any]) -> list[NDArray[Any]]:
        return middle_slices(self.assembled(image), self.axis)

    def assembled(self, image: NDArray[Any]) -> NDArray[Any]:
        """The volume that patches were cut out of: shape `size`; 0 where there is none, their mean where they overlap.

        Args:
            image: shape `(samples, patch, patch, patch)`.
        """
        total, count = np.zeros((2, *self.grid.size), np.float32)
        for patch, box in zip(image, self.sample_boxes, strict=True):
            total[box] += patch
            count[box] += 1
        return total / np.maximum(count, 1)


@lru_cache(maxsize=8)
def _boxes(size: tuple[int, int, int], patch: int, step: int) -> tuple[Box, ...]:
    """Of the patches of a grid in the middle of a volume, those whose middle is within its ellipsoid."""
    starts = [range((one - patch) % step // 2, one - patch + 1, step) for one in size]
    half = np.array(size) / 2
    boxes = []
    for corner in itertools.product(*starts):
        if np.sum(((np.array(corner) + patch / 2 - half) / half) ** 2) < 1:
            x, y, z = (slice(start, start + patch) for start in corner)
            boxes.append((x, y, z))
    return tuple(boxes)
