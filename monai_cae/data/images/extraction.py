"""Extractions: which slices of a volume are read, and the image made from them."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from numbers import Integral, Real
from typing import Any

import numpy as np
from numpy.typing import NDArray

from monai_cae.data.images.averaging import LARGEST_MM, LEAST_MM, MAX_SIDE, Grid
from monai_cae.data.images.planes import check_axes, plane_axis
from monai_cae.data.images.views import View, middle_planes, middle_slices, side_by_side
from monai_cae.data.images.volumes import MAX_PART_VOXELS
from monai_cae.errors import MonaiCaeError


class Extraction:
    """What the network sees of a volume: which slices of one plane are read, and the image made from them.

    A kind of extraction is a subclass, preferably a frozen dataclass whose fields are its settings. `indices` gives the
    slices it needs (default: all). They become the channels of a 2D image or, with `spatial_dims` 3, a volume of one
    channel. Override `image` to make another image, and with it `views`, which people see, and `sections`, by which the
    audit compares.

    Attributes:
        plane: "axial", "coronal" or "sagittal".
        axes: "anatomical" or "stored", see `SliceReader`.
        spatial_dims: of the image, two or three.
        channels: of the image; of all samples together.
        samples: how many images of their own a network may take the image for; the channels of a sample are neighbours.

    Raises:
        MonaiCaeError: an unknown plane or axes.
    """

    plane: str = "axial"
    axes: str = "anatomical"
    spatial_dims: int = 2

    def __post_init__(self) -> None:
        check_axes(self.axes)
        plane_axis(self.plane)

    @property
    def channels(self) -> int:
        return 1

    @property
    def samples(self) -> int:
        return 1

    @property
    def sample_names(self) -> tuple[str, ...]:
        """What to call each sample, such as "axial slice 106"."""
        return (self.name,) if self.samples == 1 else tuple(f"sample {n}" for n in range(1, self.samples + 1))

    @property
    def planes(self) -> tuple[str, ...]:
        """Of the body, that each sample shows."""
        return (self.plane,) * self.samples

    @property
    def grid(self) -> Grid | None:
        """The cubes that a volume is averaged over while it is read; None leaves it its own voxels."""
        return None

    @property
    def name(self) -> str:
        """A description, such as "axial slice 106"."""
        return type(self).__name__

    @property
    def kind(self) -> str:
        """A word for its images: "slice", "slab" or "volume"."""
        return "volume" if self.spatial_dims == 3 else "slice" if self.channels == 1 else "slab"

    @property
    def settings(self) -> dict[str, Any]:
        """Plain values that a checkpoint records and compares."""
        return {"extraction": type(self).__name__, **vars(self)}

    @property
    def upright(self) -> bool:
        """Whether its views lie as their planes do; an image of a subclass's own may be turned."""
        kind = type(self)
        return kind.image is Extraction.image or kind.views is not Extraction.views

    @property
    def pictured(self) -> str:
        """Its name, and what of it `views` shows."""
        if self.spatial_dims == 3:
            return f"{self.name}: the middle slice of each plane"
        return self.name if self.channels <= 3 else f"{self.name}: the first, the middle and the last"

    @property
    def axis(self) -> int:
        """The axis that the slices cut: 0, 1 or 2."""
        return plane_axis(self.plane)

    @property
    def whole(self) -> bool:
        """Whether a volume that lies elsewhere in any direction shows something else, not across the slices alone."""
        return self.spatial_dims == 3

    def indices(self, count: int) -> Sequence[int]:
        """Which of `count` slices are read, counted from 1."""
        return range(1, count + 1)

    def last(self, count: int) -> int:
        """The highest index of what is read across any axis of a volume with `count` slices."""
        return max(self.indices(count))

    def sizes(self, image_size: int | Sequence[int]) -> list[int]:
        """The sizes of an image from the setting: one number for every side, or one for each axis.

        Raises:
            MonaiCaeError: neither of them.
        """
        sizes = image_size if isinstance(image_size, (list, tuple)) else [image_size] * self.spatial_dims
        if len(sizes) != self.spatial_dims or not all(type(size) is int and size > 0 for size in sizes):
            raise MonaiCaeError(
                f"image_size must be a whole number above 0, or a list of {self.spatial_dims} for a {self.kind}, not "
                f"{image_size!r}"
            )
        return list(sizes)

    def image(self, slices: NDArray[Any]) -> NDArray[Any]:
        """What the network sees, before it is resized and scaled.

        Args:
            slices: those of `indices`, in this order: shape `(n, H, W)`.

        Returns:
            Shape `(channels, H, W)`, or `(1, X, Y, Z)` for a volume.
        """
        return slices if self.spatial_dims == 2 else np.moveaxis(slices, 0, self.axis)[None]

    def seen(self, slices: NDArray[Any]) -> NDArray[Any]:
        """`image`, looked at.

        Raises:
            MonaiCaeError: an image of another shape than is announced, or with values that are not finite; channels
                that samples can't share evenly.
        """
        if self.channels % self.samples:
            raise MonaiCaeError(f"{type(self).__name__} has {self.channels} channels for {self.samples} samples")
        image = self.image(slices)
        if image.ndim != 1 + self.spatial_dims or len(image) != self.channels:
            announced = f"channels is {self.channels} and spatial_dims {self.spatial_dims}"
            raise MonaiCaeError(f"{type(self).__name__} makes an image of shape {image.shape}, and its {announced}")
        if image.dtype.kind == "f" and not np.isfinite(image).all():
            raise MonaiCaeError(
                f"{type(self).__name__} makes an image with values that are not finite (NaN or infinite)"
            )
        return image

    def views(self, image: NDArray[Any]) -> list[View]:
        """The pictures that people and `monai-cae check` see.

        Args:
            image: as `image` makes it.

        Returns:
            Of slices the first, the middle and the last; of a volume the middle slice of each plane.
        """
        middle = len(image) // 2
        if self.spatial_dims == 3:
            return middle_planes(image[middle])
        return [View(self.plane, image[channel]) for channel in sorted({0, middle, len(image) - 1})]

    def picture(self, image: NDArray[Any]) -> NDArray[Any]:
        """Its views side by side."""
        return side_by_side([view.pixels for view in self.views(image)])

    def flat(self, channel: NDArray[Any]) -> NDArray[Any]:
        """One channel of an image, or of what a layer makes of it, as a picture: a volume's three middle planes."""
        return channel if channel.ndim == 2 else side_by_side([view.pixels for view in middle_planes(channel)])

    def sections(self, image: NDArray[Any]) -> list[NDArray[Any]]:
        """The slices by which the audit tells brains apart: all channels, or of a volume the middle slices.

        Args:
            image: as `image` makes it.
        """
        return list(image) if self.spatial_dims == 2 else middle_slices(image[len(image) // 2], self.axis)

    def positions(self, shape: Sequence[int], where: str) -> list[int]:
        """Where its slices lie along the plane's axis, counted from 0; `where` names the volume in an error.

        A volume with a single slice gives that slice, whatever its index: such cohorts were cut before.

        Raises:
            MonaiCaeError: an index outside the volume.
        """
        count = shape[self.axis]
        indices = self.indices(count)
        if not len(indices):
            raise MonaiCaeError(f"{self.name} asks for no slice of {where}")
        if count == 1 and len(indices) == 1:
            return [0]
        for index in indices:
            if isinstance(index, bool) or not isinstance(index, Integral) or not 1 <= index <= count:
                which = f"slice_index {index}" if len(indices) == 1 else f"slice {index} of {self.name}"
                raise MonaiCaeError(f"{which} is outside {where}: its {self.plane} slices are 1 to {count}")
        return [int(index) - 1 for index in indices]

    def cuts(self, shape: Sequence[int], where: str) -> list[tuple[int, list[int]]]:
        """What is read of a volume: the axis that slices are across, and where these lie, counted from 0.

        Slices of several planes are several pairs, of which `joined` makes one array; errors: see `positions`.
        """
        return [(self.axis, self.positions(shape, where))]

    def joined(self, parts: Sequence[NDArray[Any]]) -> NDArray[Any]:
        """One three-dimensional array, with the slices along `axis`, of an array for each of `cuts`."""
        return parts[0]

    def centre(self, shape: Sequence[int]) -> list[float]:
        """The middle of what is seen, in voxels counted from 0; an index outside the volume is not looked at."""
        centre, count = [(size - 1) / 2 for size in shape], shape[self.axis]
        if count > 1:
            indices = self.indices(count)
            centre[self.axis] = sum(indices) / len(indices) - 1
        return centre


@dataclass(frozen=True)
class SliceExtraction(Extraction):
    """One slice; by default the paper's. `slice_index` is counted from 1, as there; for the others see `Extraction`."""

    plane: str = "axial"
    slice_index: int = 106
    axes: str = "anatomical"

    @property
    def name(self) -> str:
        return f"{self.plane} slice {self.slice_index}"

    def indices(self, count: int) -> Sequence[int]:
        return [self.slice_index]


@dataclass(frozen=True)
class SlabExtraction(Extraction):
    """Neighbouring slices of one plane as the channels of an image.

    Attributes:
        slice_index: the middle one, counted from 1.
        slices: how many; an odd number.
        plane, axes: see `Extraction`.

    Raises:
        MonaiCaeError: `slices` is not an odd number above 0.
    """

    plane: str = "axial"
    slice_index: int = 106
    slices: int = 5
    axes: str = "anatomical"

    def __post_init__(self) -> None:
        super().__post_init__()
        check_whole("slice_index", self.slice_index)
        check_odd(self.slices, "slab")

    @property
    def channels(self) -> int:
        return self.slices

    @property
    def name(self) -> str:
        each = self.indices(0)
        return f"{self.plane} slice {each[0]}" if self.slices == 1 else f"{self.plane} slices {each[0]} to {each[-1]}"

    def indices(self, count: int) -> Sequence[int]:
        first = self.slice_index - self.slices // 2
        return range(first, first + self.slices)


@dataclass(frozen=True)
class VolumeExtraction(Extraction):
    """The volume, averaged over cubes of one size around its middle and cropped or padded with zeros to a size.

    So scans with other voxels give images of the same spacing. The cubes lie along the axes of the body if the header
    records an orientation and `axes` is "anatomical", else along those of the file.

    Attributes:
        spacing_mm: edge of a cube.
        size: cubes from left to right, back to front and bottom to top; one number for all.
        axes: see `Extraction`.

    Raises:
        MonaiCaeError: a spacing that is not above 0, or a size that is invalid or above the limit.
    """

    spacing_mm: float = 2.0
    size: int | Sequence[int] = (88, 104, 88)
    axes: str = "anatomical"
    spatial_dims = 3

    def __post_init__(self) -> None:
        super().__post_init__()
        spacing = self.spacing_mm
        if isinstance(spacing, bool) or not isinstance(spacing, Real) or not LEAST_MM <= spacing <= LARGEST_MM:
            raise MonaiCaeError(f"spacing_mm must be from {LEAST_MM:g} to {LARGEST_MM:g}, not {spacing!r}")
        sizes = self.sizes(self.size)
        if max(sizes) > MAX_SIDE or math.prod(sizes) > MAX_PART_VOXELS:
            raise MonaiCaeError(
                f"image_size {sizes} is too large: at most {MAX_SIDE} a side and {MAX_PART_VOXELS} voxels"
            )

    @property
    def grid(self) -> Grid:
        x, y, z = self.sizes(self.size)
        return Grid((x, y, z), float(self.spacing_mm))

    @property
    def name(self) -> str:
        return f"the volume at {self.spacing_mm:g} mm"


def check_whole(name: str, number: object, least: int | None = None) -> None:
    """MonaiCaeError unless a setting is a whole number, from `least` on."""
    if type(number) is not int or (least is not None and number < least):
        above = "" if least is None else f" from {least} on"
        raise MonaiCaeError(f"{name} must be a whole number{above}, not {number!r}")


def check_odd(slices: object, kind: str) -> None:
    """MonaiCaeError unless so many slices have one in the middle."""
    if type(slices) is not int or slices < 1 or slices % 2 == 0:
        raise MonaiCaeError(f"slices of a {kind} must be an odd number, such as 5, not {slices!r}")


PAPER_SLICE = SliceExtraction()
