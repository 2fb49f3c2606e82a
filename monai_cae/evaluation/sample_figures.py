"""Figures of votes: how often each sample of an image is right by itself, as bars, or as a map over the volume."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from matplotlib.patheffects import withStroke
from matplotlib.ticker import MaxNLocator
from numpy.typing import ArrayLike, NDArray

from monai_cae.evaluation.style import BLUE, BODY, INK, LEGEND, MUTED, SMALL, VERMILLION, capital, empty_figure, tidy

MOST_BARS = 40
_LAYERS = 4  # that a plane is shown in
_PLANES = ("sagittal", "coronal", "axial")  # which cut the axes of a volume
Box = tuple[slice, slice, slice]


def sample_bars(scores: pd.DataFrame, label: str, together: float, note: str = "", about: str = "") -> Figure:
    """Show one score of each sample by itself, beside that of all together.

    Args:
        scores: Index of samples' names; `mean`, `low` and `high`, nan where there is no interval; `weight`.
        label: What the score is called.
        together: The score of the subjects' predictions, from all samples.
        note, about: Footer and title.

    Returns:
        A row per sample with its 95 % interval; the weight at the right where the samples' differ. Of more than 40
        samples a line.
    """
    title = f"{capital(label)} of each sample by itself\n{about}"
    mean, low, high = (scores[name].to_numpy(dtype=float) for name in ("mean", "low", "high"))
    place = np.arange(len(scores))
    if len(scores) > MOST_BARS:
        figure = empty_figure(5.6, 3.2, note, title)
        axis = figure.subplots()
        axis.fill_between(place, low, high, color=BLUE, alpha=0.18, linewidth=0, label="95% interval")
        axis.plot(place, mean, color=BLUE, linewidth=1.2)
        mark: Callable[..., Any] = axis.axhline
        ends = ("Sample, in the order of the table", capital(label))
    else:
        figure = empty_figure(5.6, 0.9 + 0.24 * len(scores), note, title)
        axis = figure.subplots()
        axis.barh(place, mean, height=0.62, color=BLUE, alpha=0.45)
        known = np.isfinite(low) & np.isfinite(high)
        spread = np.stack([mean - low, high - mean])[:, known]
        axis.errorbar(
            mean[known], place[known], xerr=spread.clip(min=0), fmt="none", ecolor=BLUE, elinewidth=1.2, capsize=2
        )
        axis.set_yticks(place, [capital(str(name)) for name in scores.index])
        axis.invert_yaxis()
        _tell_weights(axis, place, scores["weight"].to_numpy(dtype=float))
        mark, ends = axis.axvline, (f"{capital(label)}, 95% interval over subjects", "")
    mark(together, color=VERMILLION, linewidth=1.4, label=f"All samples together, {together:.3f}")
    tidy(axis, *ends)
    axis.legend(loc="lower left", bbox_to_anchor=(-0.02, 1.0), borderaxespad=0.2, ncols=2, **LEGEND)
    return figure


def vote_map(
    volume: ArrayLike, boxes: Sequence[Box], values: ArrayLike, label: str, note: str = "", about: str = ""
) -> Figure:
    """Show where in a volume the samples are right by themselves: their score over the mean image, in three planes.

    Args:
        volume: The mean image, shape `(X, Y, Z)`: from left to right, back to front and bottom to top.
        boxes: Where each sample lies in it.
        values: The score of each sample, between 0 and 1.
        label: What the score is called.
        note, about: Footer and title.

    Returns:
        Up to four cuts through the middles of samples for each plane. Where samples overlap, the mean of their scores;
        where they do not, each has its number. Colours are symmetric around 0.5.
    """
    image, scores = np.asarray(volume, dtype=float), np.asarray(values, dtype=float)
    field = _field(image.shape, boxes, scores)
    reach = max(0.1, float(np.nanmax(np.abs(scores - 0.5))))
    overlapping = sum(np.prod([one.stop - one.start for one in box]) for box in boxes) > np.isfinite(field).sum()
    cuts = [_middles(boxes, axis) for axis in range(3)]
    columns = max(map(len, cuts))
    figure = empty_figure(1.1 + 1.7 * columns, 5.6, note, f"{capital(label)} of each sample by itself\n{about}")
    grid = figure.subplots(3, columns, squeeze=False)
    brightest = float(image.max()) or 1.0
    for row, axis in zip(grid, (2, 1, 0), strict=True):
        for panel, cut in zip(row, [*cuts[axis], *[None] * columns], strict=False):
            panel.set_axis_off()
            if cut is None:
                continue
            shown: Any = {"origin": "lower", "interpolation": "nearest"}
            panel.imshow(image.take(cut, axis).T, cmap="gray", vmin=-brightest, vmax=brightest, **shown)
            colours = panel.imshow(
                field.take(cut, axis).T, cmap="RdBu", vmin=0.5 - reach, vmax=0.5 + reach, alpha=0.5, **shown
            )
            panel.set_title(f"{_PLANES[axis]} {cut + 1}", **SMALL)
            if not overlapping:
                _tell_scores(panel, boxes, scores, axis, cut)
    bar = figure.colorbar(colours, ax=grid, shrink=0.6, pad=0.02)
    bar.set_label(f"{capital(label)}", **BODY)
    bar.outline.set_visible(False)
    bar.ax.yaxis.set_major_locator(MaxNLocator(5))
    bar.ax.tick_params(labelsize=SMALL["fontsize"], color=MUTED, labelcolor=INK, length=2)
    return figure


def _field(shape: Sequence[int], boxes: Sequence[Box], scores: NDArray[np.float64]) -> NDArray[np.float64]:
    """The mean score of the samples at each place; nan where there is none."""
    total, count = np.zeros((2, *shape))
    for box, score in zip(boxes, scores, strict=True):
        if np.isfinite(score):
            total[box] += score
            count[box] += 1
    return np.where(count > 0, total / np.maximum(count, 1), np.nan)


def _middles(boxes: Sequence[Box], axis: int) -> list[int]:
    """Of up to four layers of samples, evenly chosen."""
    found = sorted({(box[axis].start + box[axis].stop) // 2 for box in boxes})
    chosen = np.linspace(0, len(found) - 1, min(_LAYERS, len(found))).round().astype(int)
    return [found[one] for one in chosen]


def _tell_scores(panel: Any, boxes: Sequence[Box], scores: NDArray[np.float64], axis: int, cut: int) -> None:
    across, up = (other for other in range(3) if other != axis)
    for box, score in zip(boxes, scores, strict=True):
        if box[axis].start <= cut < box[axis].stop and np.isfinite(score):
            x, y = ((box[one].start + box[one].stop - 1) / 2 for one in (across, up))
            text = f"{score:.2f}".removeprefix("0")
            edge = [withStroke(linewidth=1.5, foreground="white")]
            panel.text(x, y, text, ha="center", va="center", fontsize=7, color=INK, path_effects=edge)


def _tell_weights(axis: Any, place: NDArray[np.int64], weights: NDArray[np.float64]) -> None:
    if np.ptp(weights) < 1e-6:
        return
    right = axis.get_yaxis_transform()
    axis.text(1.02, -0.9, "Weight", transform=right, va="center", **SMALL)
    for row, weight in zip(place, weights, strict=True):
        axis.text(1.02, row, f"{weight:.3f}", transform=right, va="center", **SMALL)
