"""Figures of explanations: signed maps over images, all on one scale, marked where a test of them has failed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from textwrap import fill
from typing import Any, NamedTuple

import numpy as np
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patheffects import withStroke
from matplotlib.ticker import MaxNLocator
from numpy.typing import NDArray

from monai_cae.evaluation.image_figures import thumbnail
from monai_cae.evaluation.style import BODY, INK, MUTED, SMALL, VERMILLION, empty_figure

COLUMNS = 4
_CELL = 1.75  # inches, of a square picture
_COLOURS, _OPAQUE = "RdBu_r", 0.85
_STRONGEST = 99.5  # percentile of the maps' size at which colours are deepest


class Mapped(NamedTuple):
    """A picture with its map.

    Attributes:
        image: shape `(H, W)`, the first axis to the right, the second up.
        found: its map, of the same shape; positive pushes up.
        title: lines above it.
        sure: where it is significant, of the same shape; outlined. None where that was not tested.
    """

    image: NDArray[Any]
    found: NDArray[Any]
    title: str
    sure: NDArray[np.bool_] | None = None


def explanation_grid(
    rows: Mapping[str, Sequence[Mapped]],
    ends: tuple[str, str],
    note: str = "",
    about: str = "",
    failed: str = "",
) -> Figure:
    """Show maps over their images.

    Args:
        rows: what a row shows -> up to four pictures, all of one shape.
        ends: what blue and red mean, such as `("towards HC", "towards AD")`.
        note, about: footer and title.
        failed: written over every map; "" if all tests were passed.

    Returns:
        Red where a place pushes up, blue where down; one scale for all maps, symmetric around 0, which leaves out the
        largest 0.5 %. The weaker, the more of the image is seen through it.
    """
    tiles = [tile for row in rows.values() for tile in row]
    failed = f"FAILED\n{fill(failed, 18)}" if failed else ""
    across, up = tiles[0].image.shape
    most = max(map(len, rows.values()))
    columns = min(2 if across > 2 * up else 3 if most > COLUMNS else COLUMNS, most)
    lines = [(name if not first else "", row[first : first + columns])
             for name, row in rows.items() for first in range(0, len(row), columns)]  # fmt: skip
    wide, tall = (_CELL, _CELL * up / across) if across < 2 * up else (2 * _CELL, 2 * _CELL * up / across)
    width, height = max(4.6, columns * (wide + 0.08) + 1.7), len(lines) * (tall + 0.42) + 0.1
    figure = empty_figure(width, height, note, about)
    axes = figure.subplots(len(lines), columns, squeeze=False)
    reach = _reach([tile.found for tile in tiles])
    for line, (name, row) in zip(axes, lines, strict=True):
        line[0].set_ylabel(name, **BODY)
        for axis, tile in zip(line, [*row, *[None] * columns], strict=False):
            axis.set_xticks([])
            axis.set_yticks([])
            axis.spines[:].set_visible(False)
            if tile is not None:
                shown = _draw(axis, tile, reach)
                if failed:
                    _write_over(axis, failed, wide, tall)
    bar = figure.colorbar(shown, ax=axes, shrink=min(1.0, 2.4 / height), aspect=18, extend="both", pad=0.02)
    bar.outline.set_visible(False)
    if bar.solids is not None:
        bar.solids.set_alpha(1)
    bar.ax.yaxis.set_major_locator(MaxNLocator(5))
    bar.ax.tick_params(labelsize=SMALL["fontsize"], color=MUTED, labelcolor=INK, length=2)
    bar.set_label(f"{ends[0]}  \N{LEFTWARDS ARROW}  0  \N{RIGHTWARDS ARROW}  {ends[1]}", **SMALL)
    return figure


def map_thumbnails(images: Sequence[NDArray[Any]], maps: Sequence[NDArray[Any]]) -> NDArray[np.uint8]:
    """Small pictures of images with their maps, in the colours of `explanation_grid` and on one scale.

    Args:
        images, maps: pictures of one shape `(H, W)`, their first axis to the right, their second up.

    Returns:
        Of 0 to 255, shape `(n, height, width, 3)`, upright.
    """
    reach, red_and_blue, made = _reach(maps), colormaps[_COLOURS], []
    for image, found in zip(images, maps, strict=True):
        low, high = float(image.min()), float(image.max())
        grey = ((image - low) / ((high - low) or 1))[..., None]
        strength = (_OPAQUE * np.clip(np.abs(found) / reach, 0, 1))[..., None]
        colours = red_and_blue((found / reach + 1) / 2)[..., :3]
        made.append(thumbnail((255 * ((1 - strength) * grey + strength * colours)).astype(np.uint8)))
    return np.stack(made)


def _reach(maps: Sequence[NDArray[Any]]) -> float:
    """The size at which colours are deepest."""
    sizes = np.abs(np.concatenate([found.ravel() for found in maps]))
    return float(np.percentile(sizes[sizes > 0], _STRONGEST)) if sizes.max() > 0 else 1.0


def _write_over(axis: Axes, text: str, width: float, height: float) -> None:
    """In letters as large as fit into a picture of `width` by `height` inches."""
    lines = text.split("\n")
    points = min(10, 72 * 0.9 * width / (0.65 * max(map(len, lines))), 72 * 0.9 * height / (1.3 * len(lines)))
    edge = [withStroke(linewidth=2.5, foreground="white")]
    axis.text(0.5, 0.5, text, transform=axis.transAxes, ha="center", va="center", fontsize=points, weight="bold",
              color=VERMILLION, path_effects=edge, clip_on=True)  # fmt: skip


def _draw(axis: Axes, tile: Mapped, reach: float) -> Any:
    shown: dict[str, Any] = {"origin": "lower", "interpolation": "nearest"}
    low, high = float(tile.image.min()), float(tile.image.max())
    axis.imshow(tile.image.T, cmap="gray", vmin=low, vmax=high if high > low else low + 1, **shown)
    strength = np.clip(np.abs(tile.found.T) / reach, 0, 1)
    colours = axis.imshow(tile.found.T, cmap=_COLOURS, vmin=-reach, vmax=reach, alpha=_OPAQUE * strength, **shown)
    if tile.sure is not None and tile.sure.any() and not tile.sure.all():
        axis.contour(tile.sure.T.astype(float), levels=[0.5], colors="#FFD400", linewidths=1.0)
    axis.set_title(tile.title, fontsize=7.5, color=INK, linespacing=1.1)
    return colours
