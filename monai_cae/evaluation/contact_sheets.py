"""Contact sheets of a cohort's slices, and a figure of what a leaky split pretends."""

from __future__ import annotations

import textwrap
from collections import Counter
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from numpy.typing import NDArray

from monai_cae.errors import MonaiCaeError
from monai_cae.evaluation.style import BLUE, FAINT, INK, MUTED, ORANGE, SMALL, VERMILLION

PER_PAGE = 100
COLUMNS = 10

# Lengths of a contact sheet, in inches
_TILE, _GAP, _TITLE_LINE, _MARGIN, _HEAD, _FOOT = 0.92, 0.1, 0.1, 0.25, 0.85, 0.3
_TITLE: dict[str, Any] = {"fontsize": 5.5, "va": "bottom", "linespacing": 1.1}
_TITLE_CHARACTERS = 22  # of 5.5 points that go above one tile
_TITLE_LINES = 3
_LETTER: dict[str, Any] = {"fontsize": 6, "color": ORANGE, "weight": "bold", "zorder": 4}


class Tile(NamedTuple):
    """A scan on a contact sheet.

    Attributes:
        images: Side by side; shape `(h, w)` each, the first axis to the right, the second up; none where there is none.
            They have their own grey scale, from their minimum to their maximum, as the network gets it.
        title: Lines after the first say what is wrong with it, and are shortened to fit.
        marked: Whether to frame it.
        group: Its class; "" where that is not known.
        sides: Of each image, the letters of the body's sides at the left edge and on top, such as `("L", "A")`; none
            where they are not known.
    """

    images: Sequence[NDArray[Any]]
    title: str
    marked: bool = False
    group: str = ""
    sides: Sequence[tuple[str, str]] = ()


def contact_sheet(tiles: Sequence[Tile], note: str = "", about: str = "", columns: int = COLUMNS) -> list[Figure]:
    """Show every scan of a cohort, those to look at first and in a coloured frame.

    Args:
        tiles: The scans.
        note: Footer line.
        about: What they are, such as "axial slice 106".
        columns: Images in a row; where a scan has several, they fill so many of them.

    Returns:
        Pages of at most 100 images.

    Raises:
        MonaiCaeError: If there is no image, or one is not two-dimensional.
    """
    if not tiles:
        raise MonaiCaeError("tiles must not be empty.")
    for tile in tiles:
        for image in tile.images:
            if np.ndim(image) != 2:
                raise MonaiCaeError(f"images must have the shape (h, w), not {np.shape(image)}.")
    if columns < 1:
        raise MonaiCaeError(f"columns must be 1 or more, not {columns}.")
    ordered = sorted(tiles, key=lambda tile: not tile.marked)
    across = max(1, *(len(tile.images) for tile in tiles))
    columns, most = max(1, columns // across), max(1, PER_PAGE // across)
    pages = [ordered[first : first + most] for first in range(0, len(tiles), most)]
    framed = sum(tile.marked for tile in tiles)
    head = f"{len(tiles)} scans" + (f", {framed} to look at (framed, first)" if framed else ", none looks wrong")
    counts = Counter(tile.group for tile in tiles if tile.group)
    silent = sum(not tile.sides for tile in tiles)
    lines = [about, ", ".join(f"{counts[group]} {group}" for group in sorted(counts)), _letters(silent, len(tiles))]
    figures = []
    for number, page in enumerate(pages, start=1):
        where = f"page {number} of {len(pages)}" if len(pages) > 1 else ""
        words = (head, "; ".join(filter(None, lines)), where, note)
        figures.append(_page(page, words, min(columns, len(tiles)), across * _TILE))
    return figures


def _letters(silent: int, total: int) -> str:
    letters = "letters at the edges: sides of the body"
    if silent == total:
        return "sides of the body not recorded, shown as stored"
    return f"{letters} (not recorded for {silent}, shown as stored)" if silent else letters


def _page(tiles: Sequence[Tile], words: tuple[str, str, str, str], columns: int, tile_width: float) -> Figure:
    tall = tile_width * max((high / wide for wide, high in map(_size, tiles) if wide), default=1.0)
    rows = [tiles[first : first + columns] for first in range(0, len(tiles), columns)]
    characters = int(_TITLE_CHARACTERS * tile_width / _TILE)
    wrapped = [[_wrap(tile.title, characters) for tile in row] for row in rows]
    above = [_TITLE_LINE * max(map(len, row)) + 0.05 for row in wrapped]
    width = 2 * _MARGIN + max(columns * (tile_width + _GAP), 4 * (_TILE + _GAP)) - _GAP
    height = _HEAD + sum(above) + len(rows) * (tall + _GAP) + _FOOT
    figure = Figure(figsize=(width, height), facecolor="white")
    # one axis in inches: a hundred axes take seconds to draw
    axis = figure.add_axes((0, 0, 1, 1))
    axis.set_axis_off()
    top = height - _HEAD
    for row, titles, title_height in zip(rows, wrapped, above, strict=True):
        top -= title_height + tall
        for column, (tile, lines) in enumerate(zip(row, titles, strict=True)):
            _draw(axis, (_MARGIN + column * (tile_width + _GAP), top), (tile_width, tall), tile, lines)
        top -= _GAP
    head, about, where, note = words
    axis.text(_MARGIN, height - 0.26, head, fontsize=12, color=INK, va="center")
    told = textwrap.fill(about, int(14 * width))
    axis.text(_MARGIN, height - 0.42, told, va="top", **SMALL)
    axis.text(width - _MARGIN, height - 0.26, where, ha="right", va="center", **SMALL)
    axis.text(_MARGIN, 0.18, note, va="center", **SMALL)
    axis.set(xlim=(0, width), ylim=(0, height))
    return figure


def _size(tile: Tile) -> tuple[int, int]:
    """Of its images side by side: width and height in pixels."""
    return sum(len(image) for image in tile.images), max((image.shape[1] for image in tile.images), default=0)


def _draw(axis: Axes, corner: tuple[float, float], size: tuple[float, float], tile: Tile, lines: list[str]) -> None:
    framed, (left, bottom), (width, tall) = tile.marked, corner, size
    axis.add_patch(Rectangle(corner, width, tall, facecolor="black" if tile.images else FAINT, linewidth=0))
    if not tile.images:
        axis.text(left + width / 2, bottom + tall / 2, "no image", ha="center", va="center", **SMALL)
    else:
        _draw_images(axis, corner, size, tile)
    if framed:
        axis.add_patch(Rectangle(corner, width, tall, fill=False, edgecolor=VERMILLION, linewidth=2, zorder=3))
    axis.text(left + 0.04, bottom + 0.04, tile.group, va="bottom", **_LETTER)
    style = _TITLE | {"color": VERMILLION if framed else MUTED}
    axis.text(left, bottom + tall + 0.04, "\n".join(lines), **style)


def _draw_images(axis: Axes, corner: tuple[float, float], size: tuple[float, float], tile: Tile) -> None:
    (left, bottom), (width, tall), (wide, high) = corner, size, _size(tile)
    scale = min(width / wide, tall / high)
    lowest, highest = min(image.min() for image in tile.images), max(image.max() for image in tile.images)
    style: dict[str, Any] = {"cmap": "gray", "vmin": lowest, "vmax": highest, "aspect": "auto", "zorder": 2}
    x = left + (width - wide * scale) / 2
    for number, image in enumerate(tile.images):
        right, y = x + len(image) * scale, bottom + (tall - image.shape[1] * scale) / 2
        axis.imshow(image.T, origin="lower", extent=(x, right, y, y + image.shape[1] * scale), **style)
        if tile.sides:
            axis.text(x + 0.04, bottom + tall / 2, tile.sides[number][0], va="center", **_LETTER)
            axis.text((x + right) / 2, bottom + tall - 0.03, tile.sides[number][1], ha="center", va="top", **_LETTER)
        x = right


def _wrap(title: str, characters: int) -> list[str]:
    name, *reasons = title.split("\n")
    lines = [name if len(name) <= characters else name[: characters - 1] + "…"]
    if reasons:
        lines += textwrap.wrap(
            " ".join(reasons), characters, max_lines=_TITLE_LINES - 1, placeholder="…", break_long_words=True
        )
    return lines


def leakage_figure(by_image: float, by_subject: float, chance: float, note: str = "", about: str = "") -> Figure:
    """Show for a talk what splitting by image pretends: two bars, one classifier.

    Args:
        by_image: Accuracy with slices split at random.
        by_subject: Accuracy with whole subjects kept together.
        chance: Accuracy of always naming the larger class.
        note: Footer line.
        about: What was measured, and on whom.

    Raises:
        MonaiCaeError: For a value outside [0, 1].
    """
    for name, value in (("by_image", by_image), ("by_subject", by_subject), ("chance", chance)):
        if not 0 <= value <= 1:
            raise MonaiCaeError(f"{name} must be an accuracy from 0 to 1, not {value}.")
    figure = Figure(figsize=(8, 4.5), facecolor="white")
    axis = figure.add_axes((0.24, 0.17, 0.7, 0.58))
    bars = (
        (by_image, VERMILLION, "Split by image", "slices of one subject on both sides"),
        (by_subject, BLUE, "Split by subject", "every subject on one side only"),
    )
    for place, (value, colour, name, meaning) in enumerate(bars):
        axis.barh(place, 1, height=0.42, color=FAINT)
        axis.barh(place, value, height=0.42, color=colour)
        axis.text(-0.03, place, _percent(value), ha="right", va="center", fontsize=30, color=colour)
        axis.text(0, place - 0.29, name, va="bottom", fontsize=14, color=INK)
        axis.text(1, place - 0.29, meaning, ha="right", va="bottom", fontsize=10, color=MUTED)
        dashes: dict[str, Any] = {
            "color": "white" if value > chance else MUTED,
            "linewidth": 1.6,
            "linestyle": (0, (3, 2)),
        }
        axis.plot((chance, chance), (place - 0.21, place + 0.21), **dashes)
    axis.plot((chance, chance), (1.21, 1.31), color=MUTED, linewidth=1.2)
    axis.text(chance, 1.33, f"chance {_percent(chance)}", ha="center", va="top", fontsize=10, color=MUTED)
    axis.set(xlim=(0, 1), ylim=(1.4, -0.6))
    axis.set_axis_off()
    figure.text(0.04, 0.92, "The same slices, the same classifier: only the split differs", fontsize=16, color=INK)
    points = 100 * (by_image - by_subject)
    if points > 0:
        claim = f"{points:.0f} points of accuracy come from recognising subjects"
        figure.text(0.04, 0.83, claim, fontsize=13, color=VERMILLION)
    figure.text(0.04, 0.04, note, **SMALL)
    figure.text(0.24, 0.12, about, fontsize=10, color=MUTED)
    return figure


def _percent(share: float) -> str:
    return f"{100 * share:.3g}%"
