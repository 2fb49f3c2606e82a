"""The picture of a prepared scan on the QC page: three planes, and the lines that are drawn over them."""

from __future__ import annotations

import io
from functools import lru_cache
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from scipy import ndimage

# Through the frame, 0-based: sagittal beside the midline, coronal at the commissures, axial as the paper's slice.
PLACES = (84, 120, 105)
_QUALITY = 70  # of the JPEG: 20 kB a scan, and the outlines 4 kB
_TISSUE = 0.45  # of the template: less is fluid
_MARGIN = 4  # mm, in which the brain's surface has its own line
_MASK, _TEMPLATE = (255, 190, 0, 255), (0, 190, 255, 200)
_Plane = NDArray[np.generic]


class Montage(NamedTuple):
    """Both have the same size: three planes side by side, axial, coronal (left on the left), sagittal (front left)."""

    jpeg: bytes  # grey
    outlines: bytes  # PNG, transparent but for the lines


def draw(image: NDArray[np.float32], mask: NDArray[np.bool_]) -> Montage:
    """Draw a scan in the template's frame.

    Args:
        image: 0 to 1, of shape `FRAME_SHAPE`.
        mask: the brain; its outline is yellow, the template's edges are blue.
    """
    grey = np.concatenate(_planes(np.clip(image, 0, 1) * 255), axis=1).astype(np.uint8)
    lines = np.concatenate([_outline(plane) for plane in _planes(mask)], axis=1)
    colours = np.zeros((*grey.shape, 4), np.uint8)
    colours[template_edges()] = _TEMPLATE
    colours[lines] = _MASK
    return Montage(
        _saved(Image.fromarray(grey), "JPEG", quality=_QUALITY), _saved(_indexed(colours), "PNG", optimize=True)
    )


def _planes(volume: NDArray) -> list[NDArray]:
    """Axial, coronal, sagittal, upright, as high as the highest of them."""
    x, y, z = PLACES
    planes = [volume[:, :, z].T[::-1], volume[:, y, :].T[::-1], volume[x, ::-1, :].T[::-1]]
    height = max(plane.shape[0] for plane in planes)
    return [
        np.pad(plane, ((below := (height - plane.shape[0]) // 2, height - plane.shape[0] - below), (0, 0)))
        for plane in planes
    ]


def _outline(plane: NDArray) -> NDArray[np.bool_]:
    return np.asarray(plane & ~ndimage.binary_erosion(plane))


@lru_cache(maxsize=1)
def template_edges() -> NDArray[np.bool_]:
    """Of its three planes side by side; MonaiCaeError where nilearn is not installed."""
    from monai_cae.prepare.template import load_template

    template = load_template()
    tissue = ndimage.gaussian_filter(template.brain, 1.0) > _TISSUE
    parts = zip(_planes(template.mask), _planes(tissue), strict=True)
    inner = ((_outline(tissue) & ndimage.binary_erosion(mask, iterations=_MARGIN), mask) for mask, tissue in parts)
    return np.concatenate([lines | _outline(mask) for lines, mask in inner], axis=1)


def _indexed(colours: NDArray[np.uint8]) -> Image.Image:
    return Image.fromarray(colours).quantize(colors=4, method=Image.Quantize.FASTOCTREE)


def _saved(image: Image.Image, form: str, **options: int) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, form, **options)
    return buffer.getvalue()
