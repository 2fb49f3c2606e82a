"""Pictures of an image for people: slices of the body's planes, their first axis to the right, their second up."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from monai_cae.data.images.planes import PLANES


class View(NamedTuple):
    """A picture of a plane of the body."""

    plane: str
    pixels: NDArray[Any]  # shape (H, W)


def middle_planes(volume: NDArray[Any]) -> list[View]:
    """The middle axial, coronal and sagittal slice of a volume, shape `(X, Y, Z)`."""
    return [View(plane, volume.take(volume.shape[axis] // 2, axis)) for plane, axis in reversed(PLANES.items())]


def middle_slices(volume: NDArray[Any], axis: int) -> list[NDArray[Any]]:
    """The middle slice between its neighbours; at the edge of the volume itself again."""
    middle, last = volume.shape[axis] // 2, volume.shape[axis] - 1
    return [volume.take(min(max(place, 0), last), axis) for place in (middle - 1, middle, middle + 1)]


def side_by_side(pictures: Sequence[NDArray[Any]]) -> NDArray[Any]:
    """One picture of several, in the middle of its height each; beside them is what is least in any of them."""
    if len(pictures) == 1:
        return pictures[0]
    height, least = max(picture.shape[1] for picture in pictures), min(picture.min() for picture in pictures)
    padded = []
    for picture in pictures:
        below = (height - picture.shape[1]) // 2
        room = ((0, 0), (below, height - picture.shape[1] - below))
        padded.append(np.pad(picture, room, constant_values=least))
    return np.concatenate(padded)
