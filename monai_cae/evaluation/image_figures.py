"""Figures of images: reconstructions and what layers respond to; see `monai_cae.evaluation.figures`.

Images are stored as (left-right, posterior-anterior) and shown with anterior up.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.image import AxesImage
from matplotlib.ticker import MaxNLocator
from numpy.typing import ArrayLike, NDArray
from PIL import Image

from monai_cae.errors import MonaiCaeError
from monai_cae.evaluation.metrics import psnr
from monai_cae.evaluation.style import BODY, HEADING, INK, MUTED, SMALL, empty_figure

MAX_COLUMNS = 8
_HEIGHT = 96  # pixels of a thumbnail; of wider pictures than high ones no more either


class Pictures(Protocol):
    """Makes pictures to draw, 2D, as `monai_cae.data.Extraction` does."""

    def picture(self, image: np.ndarray) -> np.ndarray:
        """Of an image, shape `(channels, H, W)` or `(channels, X, Y, Z)`."""

    def flat(self, channel: np.ndarray) -> np.ndarray:
        """Of one channel of it, or of what a layer makes of it."""


def thumbnail(picture: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """A picture made small, upright as pixels of a file.

    Args:
        picture: of 0 to 255, shape `(H, W[, 3])`, its first axis to the right and its second up.

    Returns:
        Shape `(height, width[, 3])`, at most 96 pixels high.
    """
    whole = Image.fromarray(np.ascontiguousarray(picture.swapaxes(0, 1)[::-1]))
    scale = min(1.0, _HEIGHT / whole.height)
    return np.asarray(whole.resize((max(1, round(whole.width * scale)), max(1, round(whole.height * scale)))))


def columns_of(shape: Sequence[int]) -> int:
    """How many images of a shape `(H, W)`, H across, `reconstructions` has room for: of wide ones fewer."""
    return max(1, round(MAX_COLUMNS * min(1.0, shape[1] / shape[0])))


def reconstructions(
    originals: ArrayLike,
    reconstructions: ArrayLike,
    note: str = "",
    about: str = "",
    decibels: ArrayLike | None = None,
) -> Figure:
    """Show originals above their reconstructions (the paper's Fig. 4), and where they differ.

    Args:
        originals: One to eight images of shape `(n, H, W)`, scaled to [0, 1].
        reconstructions: Their reconstructions, same shape.
        note, about: Footer and title.
        decibels: PSNR of what they are pictures of, shape `(n,)`; by default their own.

    Returns:
        Three rows of n images; PSNR in dB above each column, the absolute errors on one colour scale, which
        leaves out the largest 0.5 %.

    Raises:
        MonaiCaeError: For shapes that differ, or another number of images.
    """
    images, outputs = np.asarray(originals, dtype=np.float64), np.asarray(reconstructions, dtype=np.float64)
    own = psnr(images, outputs)
    if images.ndim != 3 or len(images) > MAX_COLUMNS:
        raise MonaiCaeError(
            f"originals must be 1 to {MAX_COLUMNS} images of shape (n, H, W), not {images.shape}; pass fewer."
        )
    errors = np.abs(images - outputs)
    # neither a diverged reconstruction nor a few pixels at the brain's rim may take the scale from the rest
    finite = np.nan_to_num(errors, posinf=0.0)
    ceiling = float(np.percentile(finite, 99.5)) or float(finite.max()) or 1.0
    figure, axes = _image_grid(
        (3, len(images)),
        images.shape[1:],
        width=1.25 * max(1.0, images.shape[1] / images.shape[2]),
        left=0.3,
        right=0.7,
        gap=0.06,
        foot=0.0,
        note=note,
        title=f"Images and reconstructions, PSNR of each\n{about}",
    )
    rows = (("Original", images, "gray", 1.0), ("Reconstruction", outputs, "gray", 1.0))
    for row, (name, stack, colours, brightest) in enumerate((*rows, ("Absolute error", errors, "inferno", ceiling))):
        axes[row, 0].set_ylabel(name, **BODY)
        for axis, image in zip(axes[row], stack, strict=True):
            shown = _show(axis, image, cmap=colours, vmin=0.0, vmax=brightest)
    for axis, value in zip(axes[0], own if decibels is None else np.asarray(decibels), strict=True):
        axis.set_title("identical" if np.isinf(value) else f"{value:.1f} dB", **BODY)
    last, inch = axes[2, -1].get_position(), 1 / figure.get_figwidth()
    bar_axis = figure.add_axes((last.x1 + 0.1 * inch, last.y0, 0.1 * inch, last.height))
    bar = figure.colorbar(shown, cax=bar_axis, extend="max" if finite.max() > ceiling else "neither")
    bar.outline.set_visible(False)
    bar_axis.yaxis.set_major_locator(MaxNLocator(4))
    bar_axis.tick_params(labelsize=SMALL["fontsize"], color=MUTED, labelcolor=INK, length=2)
    return figure


def feature_maps(
    maps: Mapping[str, ArrayLike], note: str = "", about: str = "", sizes: Mapping[str, Sequence[int]] | None = None
) -> Figure:
    """Show what each layer responds to (the paper's Fig. 3): its 16 most active channels, most active first.

    Activity is the standard deviation over the pixels: after batch normalisation a dead channel is constant, but not
    zero. Each channel has its own grey scale, over 99 % of its pixels; a constant one is shown black.

    Args:
        maps: Activations of shape `(C, h, w)` by layer name, in the order to show them.
        note, about: Footer and title.
        sizes: Of a channel by layer name, where `maps` has pictures of them.

    Returns:
        A mosaic of 4 x 4 channels per layer, three layers in a row, of wide ones two.

    Raises:
        MonaiCaeError: If there is no layer, or one has another number of dimensions.
    """
    if not maps:
        raise MonaiCaeError("maps must hold at least one layer, not none.")
    layers = {name: np.asarray(values, dtype=np.float64) for name, values in maps.items()}
    for name, activations in layers.items():
        if activations.ndim != 3:
            raise MonaiCaeError(f"maps[{name!r}] must have the shape (C, h, w), not {activations.shape}.")
    shape = next(iter(layers.values())).shape[1:]
    most, width = (3, 2.9) if shape[0] < 2 * shape[1] else (2, 5.5)
    columns = min(most, len(layers))
    grid = -(-len(layers) // columns), columns
    title = f"What the layers respond to, most active channels first\n{about}"
    lengths = {"width": width, "left": 0.1, "right": 0.1, "gap": 0.15, "foot": 0.25}
    figure, axes = _image_grid(grid, shape, **lengths, note=note, title=title)
    for axis in axes.flat:
        axis.set_axis_off()
    for axis, (name, activations) in zip(axes.flat, layers.items(), strict=False):
        axis.set_axis_on()
        channels, *size = activations.shape
        _show(axis, _mosaic(activations), cmap="gray", vmin=0.0, vmax=1.0)
        axis.set_title(name, **HEADING)
        told = " \N{MULTIPLICATION SIGN} ".join(map(str, sizes[name] if sizes else size))
        axis.set_xlabel(f"{min(channels, 16)} of {channels} channels, {told}", **SMALL)
    return figure


def _image_grid(
    grid: tuple[int, int],
    shape: Sequence[int],
    *,
    width: float,
    left: float,
    right: float,
    gap: float,
    foot: float,
    note: str,
    title: str,
) -> tuple[Figure, NDArray[Any]]:
    """Return a figure with a grid of equal axes for images of one shape; lengths in inches, foot for text below each.

    The automatic layouts measure titles before images take their shape, and let them overlap.
    """
    rows, columns = grid
    height, above, bottom = width * shape[1] / shape[0], 0.3, foot + (0.3 if note else 0.1)
    between = above + foot if foot else gap
    across = left + columns * (width + gap) - gap + right
    upwards = bottom + rows * (height + between) - between + above
    figure = empty_figure(across, upwards, note, title, layout=None)
    above, upwards = figure.get_figheight() - upwards + above, figure.get_figheight()
    figure.subplots_adjust(left / across, bottom / upwards, 1 - right / across, 1 - above / upwards)
    figure.subplots_adjust(wspace=gap / width, hspace=between / height)
    return figure, figure.subplots(rows, columns, squeeze=False)


def _show(axis: Axes, image: NDArray[np.float64], **style: Any) -> AxesImage:
    """Draw an image stored as (left-right, posterior-anterior) with anterior up."""
    axis.set_xticks([])
    axis.set_yticks([])
    axis.spines[:].set_visible(False)
    return axis.imshow(image.T, origin="lower", **style)


def _mosaic(activations: NDArray[np.float64], side: int = 4, gap: int = 1) -> NDArray[np.float64]:
    """Lay the most active channels out in a square, stored like one image; nan between and for missing ones."""
    _, width, height = activations.shape
    order = np.argsort(-activations.std(axis=(1, 2)), kind="stable")[: side * side]
    mosaic = np.full((side * (width + gap) - gap, side * (height + gap) - gap), np.nan)
    for place, channel in enumerate(activations[order]):
        row, column = divmod(place, side)
        x, y = column * (width + gap), (side - 1 - row) * (height + gap)
        low, high = np.percentile(channel, (0.5, 99.5))
        span = (high - low) or np.ptp(channel) or 1.0
        mosaic[x : x + width, y : y + height] = np.clip((channel - low) / span, 0.0, 1.0)
    return mosaic
