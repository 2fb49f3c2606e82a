"""One figure of two or more classifiers on the same subjects: ROC curves and differences."""

from __future__ import annotations

from collections.abc import Mapping
from textwrap import fill
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from monai_cae.errors import MonaiCaeError
from monai_cae.evaluation.curves import RocBand
from monai_cae.evaluation.style import BODY, FAINT, HEADING, LEGEND, LINE_COLOURS, MUTED, SMALL, empty_figure, tidy

_DASHES: dict[str, Any] = {"color": MUTED, "linewidth": 1, "linestyle": (0, (4, 3))}
_WIDTH = 26  # letters of a name in a line
_SHORT = {"accuracy": "Accuracy", "auc": "AUC"}


def comparison_figure(
    bands: Mapping[str, RocBand], scores: pd.DataFrame, differences: pd.DataFrame, note: str = "", about: str = ""
) -> Figure:
    """Show all ROC curves on one axis, and the differences between the first and each other classifier.

    Args:
        bands: From `curves.roc_band`, by name; the others are compared with the first.
        scores: Index (name, score), columns `mean`, `low` and `high`, with the score `auc`.
        differences: Index (against, score), columns of `summary.compare`.
        note, about: Footer and title.

    Returns:
        Mean ROC curves with their bands on the left; on the right a dot, an interval and the numbers per difference,
        right of 0 where the first is better.

    Raises:
        MonaiCaeError: If there are fewer than two, or a difference names none of them.
    """
    first, *others = names = list(bands)
    if not others or set(differences.index.get_level_values(0)) != set(others):
        raise MonaiCaeError("bands must hold the first and each that it is compared with, two or more.")
    colours = {name: LINE_COLOURS[place % len(LINE_COLOURS)] for place, name in enumerate(names)}
    figure = empty_figure(10.6, max(4.9, 1.6 + 0.42 * len(differences)), note, about)
    left, right = figure.subplots(1, 2, width_ratios=(1, 0.72))
    _curves(left, bands, scores, colours)
    _differences(right, differences, colours, first)
    return figure


def _curves(axis: Axes, bands: Mapping[str, RocBand], scores: pd.DataFrame, colours: Mapping[str, str]) -> None:
    axis.plot((0, 1), (0, 1), label="Chance, AUC 0.500", **_DASHES)
    for place, (name, band) in enumerate(bands.items()):
        rates, colour = band.false_positive_rate, colours[name]
        axis.fill_between(rates, band.low, band.high, color=colour, alpha=0.14, linewidth=0)
        mean, low, high = (float(scores.loc[(name, "auc"), end]) for end in ("mean", "low", "high"))
        ends = "" if np.isnan(low) else f" [{low:.3f}, {high:.3f}]"
        # alike curves stay visible: the later ones are drawn dashed over the first
        style = "-" if not place else (0, (5, 1.5))
        label = f"{fill(name, _WIDTH)}\nAUC {mean:.3f}{ends}"
        axis.plot(rates, band.mean, color=colour, linewidth=1.8, linestyle=style, clip_on=False, zorder=3, label=label)
    axis.set(xlim=(0, 1), ylim=(0, 1), aspect="equal")
    axis.set_title("Mean ROC curves, 95% bands", **HEADING)
    tidy(axis, xlabel="1 \N{MINUS SIGN} specificity", ylabel="Sensitivity")
    # beside the axes it covers no curve
    axis.legend(loc="upper left", bbox_to_anchor=(1.01, 1.0), borderaxespad=0, **LEGEND)


def _differences(axis: Axes, differences: pd.DataFrame, colours: Mapping[str, str], first: str) -> None:
    axis.axvline(0, **_DASHES)
    marks = []
    for place, ((name, score), row) in enumerate(differences.iterrows()):  # type: ignore[misc]  # two levels
        value, low, high, colour = row["difference"], row["low"], row["high"], colours[str(name)]
        axis.plot((low, high), (place, place), color=colour, linewidth=1.6)
        axis.plot(value, place, "o", color=colour, markersize=6, markeredgewidth=0)
        ends = "" if np.isnan(low) else f" [{low:+.3f}, {high:+.3f}]"
        text = "undefined" if np.isnan(value) else f"{value:+.3f}{ends}\n{row['paired_test']} {_p(row['p_paired'])}"
        axis.annotate(
            text.replace("-", "\N{MINUS SIGN}"), (1.03, place), xycoords=("axes fraction", "data"), va="center", **SMALL
        )
        marks.append(f"{_SHORT.get(score, score)} against\n{fill(str(name), _WIDTH)}")
    reach = np.nanmax(np.abs([*differences[["difference", "low", "high"]].to_numpy().ravel(), 0.02]))
    axis.set_xlim(-1.08 * reach, 1.08 * reach)
    axis.set_yticks(range(len(marks)), marks)
    axis.set_ylim(len(marks) - 0.4, -0.6)
    axis.set_title(f"{fill(first, 2 * _WIDTH)}\nminus each of the others", **HEADING)
    tidy(axis, xlabel="Difference, 95% interval; right: the first is better")
    axis.xaxis.set_major_locator(MaxNLocator(4, symmetric=True))
    axis.grid(axis="x", color=FAINT, linewidth=0.8)
    axis.spines["left"].set_visible(False)
    axis.tick_params(axis="y", length=0, labelsize=BODY["fontsize"])


def _p(value: float) -> str:
    return "undefined" if np.isnan(value) else "p < 0.001" if value < 0.001 else f"p = {value:.3f}"
