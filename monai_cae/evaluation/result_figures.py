"""Figures of how sure results are: calibration, ROC with a band, clinical grades, learning curves, models side by side.

Like `figures`: tables and arrays in, matplotlib `Figure` out, each with a `note` at the foot.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from numpy.typing import ArrayLike, NDArray

from monai_cae.errors import MonaiCaeError
from monai_cae.evaluation.calibration import BINS, reliability_bins
from monai_cae.evaluation.curves import RocBand
from monai_cae.evaluation.intervals import wilson_interval
from monai_cae.evaluation.scores import classification_scores
from monai_cae.evaluation.style import (
    BLUE,
    BODY,
    FAINT,
    HEADING,
    LEGEND,
    LINE_COLOURS,
    MUTED,
    SMALL,
    empty_figure,
    readable,
    tidy,
)

DASHES: dict[str, Any] = {"color": MUTED, "linewidth": 1, "linestyle": (0, (4, 3))}
INTERVAL = ("mean", "low", "high")


def reliability_diagram(labels: ArrayLike, probabilities: ArrayLike, note: str = "", bins: int = BINS) -> Figure:
    """Show what became of subjects with a given predicted probability, and how many there are.

    Args:
        labels: True classes of shape `(n,)`, 0 = HC, 1 = AD, one per subject.
        probabilities: Predicted probability of AD, shape `(n,)`.
        note: Footer line.
        bins: Bins of equal width.

    Returns:
        Observed share of AD with its 95 % Wilson interval against mean probability per bin, bars of the counts below,
        and calibration slope, intercept and error as the title.

    Raises:
        MonaiCaeError: For input that `classification_metrics` refuses, or no bin.
    """
    sorted_in = reliability_bins(labels, probabilities, bins)
    measured = classification_scores(labels, probabilities, names=("calibration_slope", "calibration_intercept", "ece"))
    some = sorted_in.subjects > 0
    subjects, predicted, observed = (values[some] for values in sorted_in)
    ends = np.array(
        [wilson_interval(round(n * share), n) for n, share in zip(subjects.tolist(), observed.tolist(), strict=True)]
    )
    figure = empty_figure(4.6, 5.9, note)
    above, below = figure.subplots(2, 1, sharex=True, height_ratios=(4, 1))
    above.plot((0, 1), (0, 1), label="Perfect calibration", **DASHES)
    _dots_with_intervals(above, predicted, observed, ends, "Observed, 95% interval")
    above.plot(predicted, observed, color=BLUE, linewidth=1, alpha=0.5)
    above.set(xlim=(0, 1), ylim=(0, 1))
    slope, intercept = _signed(measured["calibration_slope"]), _signed(measured["calibration_intercept"])
    above.set_title(f"Slope {slope}, intercept {intercept}, ECE {measured['ece']:.3f}", **HEADING)
    tidy(above, ylabel="Observed share of AD")
    above.legend(loc="upper left", **LEGEND)
    middles = (np.arange(bins) + 0.5) / bins
    below.bar(middles, sorted_in.subjects, width=0.9 / bins, color=BLUE, alpha=0.6)
    for middle, count in zip(middles, sorted_in.subjects, strict=True):
        if count:
            style = SMALL | {"ha": "center", "va": "bottom", "textcoords": "offset points"}
            below.annotate(str(count), (middle, count), (0, 1), **style)
    below.margins(y=0.25)
    below.yaxis.set_major_locator(MaxNLocator(2, integer=True))
    tidy(below, xlabel="Predicted probability of AD", ylabel="Subjects")
    return figure


def roc_with_band(band: RocBand, summary: pd.DataFrame, note: str = "") -> Figure:
    """Show the mean ROC curve of the repeats, each repeat thinly, and the band over subjects.

    Args:
        band: From `curves.roc_band`.
        summary: From `summary.summarise`, with the row `auc`.
        note: Footer line.

    Raises:
        MonaiCaeError: If the summary lacks the AUC.
    """
    mean, low, high = _interval(summary, "auc", "summary")
    figure = empty_figure(4.6, 5.0, note)
    axis = figure.subplots()
    axis.plot((0, 1), (0, 1), label="Chance, AUC 0.5", **DASHES)
    rates, repeats = band.false_positive_rate, len(band.repeats)
    axis.fill_between(
        rates, band.low, band.high, color=BLUE, alpha=0.18, linewidth=0, label="95% of resampled subjects"
    )
    if repeats > 1:
        thin: dict[str, Any] = {"color": BLUE, "linewidth": 0.7, "alpha": 0.45}
        for curve in band.repeats[1:]:
            axis.plot(rates, curve, **thin)
        axis.plot(rates, band.repeats[0], label="One repeat", **thin)
    name = f"Mean of {repeats} repeats" if repeats > 1 else "Classifier"
    label = f"{name}, AUC {mean:.3f}\n[{low:.3f}, {high:.3f}]"
    axis.plot(rates, band.mean, color=BLUE, linewidth=1.8, clip_on=False, zorder=3, label=label)
    axis.set(xlim=(0, 1), ylim=(0, 1), aspect="equal")
    tidy(axis, xlabel="1 \N{MINUS SIGN} specificity", ylabel="Sensitivity")
    axis.legend(loc="lower right", **LEGEND)
    return figure


def auc_by_grade(subgroups: pd.DataFrame, note: str = "") -> Figure:
    """Show how well each grade of CDR above 0 is told from CDR 0.

    Args:
        subgroups: From `subgroups.subgroup_table`, with the groups of `cdr`.
        note: Footer line.

    Raises:
        MonaiCaeError: If there is no AUC of a CDR grade.
    """
    known = subgroups[(subgroups["by"] == "cdr") & (subgroups["group"] != "unknown")]
    rows = known[known["score"] == "auc"]
    if rows.empty:
        raise MonaiCaeError("subgroups must hold the AUC of at least one CDR grade, not none.")
    controls = known.loc[known["group"] == "0", "subjects"]
    figure = empty_figure(1.5 + 1.2 * max(len(rows), 2), 3.8, note)
    axis = figure.subplots()
    axis.axhline(0.5, **DASHES)
    style: dict[str, Any] = {"textcoords": "offset points", "va": "bottom", "ha": "right"}
    axis.annotate("chance", (1, 0.5), (0, 2), xycoords=("axes fraction", "data"), **SMALL | style)
    places, (values, *ends) = np.arange(len(rows)), (rows[name].to_numpy() for name in INTERVAL)
    _dots_with_intervals(axis, places, values, np.transpose(ends))
    for place, value in zip(places, values, strict=True):
        text, height = ("undefined", 0.6) if np.isnan(value) else (f"{value:.2f}", value)
        axis.annotate(text, (place, height), (7, 0), textcoords="offset points", va="center", **BODY)
    axis.set_xticks(places, [f"CDR {row.group}\nn = {row.subjects}" for row in rows.itertuples()])
    axis.set_xlim(-0.5, len(rows) - 0.1)
    axis.set_ylim(min(0.4, np.nanmin([0.4, *ends[0]]) - 0.02), 1)
    size = f" (n = {controls.iloc[0]})" if len(controls) else ""
    axis.set_title(f"Against CDR 0{size}", **HEADING)
    tidy(axis, ylabel="AUC, 95% interval")
    axis.grid(axis="y", color=FAINT, linewidth=0.8)
    axis.tick_params(axis="x", length=0, labelsize=BODY["fontsize"])
    return figure


def learning_curve(
    curves: Mapping[str, pd.DataFrame], score: str, note: str = "", reference: float | None = None
) -> Figure:
    """Show what more training subjects would bring.

    Args:
        curves: Table by name of the model, a row per size of the training set: `subjects`, and `mean`, `low` and
            `high` of the test score, as `summary.summarise` gives them.
        score: Name of the score, such as `auc`.
        note: Footer line.
        reference: Score to compare with, drawn dashed, such as 0.5 for the AUC of chance.

    Raises:
        MonaiCaeError: If there is no model, or a table that lacks a column or has no row.
    """
    if not curves:
        raise MonaiCaeError("curves must hold at least one model, not none.")
    figure = empty_figure(7.2, 3.9, note)
    axis = figure.subplots()
    for (name, table), colour in zip(curves.items(), _colours(len(curves)), strict=True):
        if not {"subjects", *INTERVAL} <= set(table) or table.empty:
            raise MonaiCaeError(f"curves[{name!r}] must have rows with subjects, mean, low and high.")
        rows = table.sort_values("subjects")
        axis.fill_between(rows["subjects"], rows["low"], rows["high"], color=colour, alpha=0.15, linewidth=0)
        axis.plot(rows["subjects"], rows["mean"], "o-", color=colour, linewidth=1.6, markersize=5, label=name)
    if reference is not None:
        axis.axhline(reference, label=f"Reference {reference:g}", **DASHES)
    axis.set_xlim(left=0)
    axis.xaxis.set_major_locator(MaxNLocator(8, integer=True))
    tidy(axis, xlabel="Training subjects", ylabel=f"{readable(score)}, 95% interval")
    axis.grid(axis="y", color=FAINT, linewidth=0.8)
    axis.legend(loc="upper left", bbox_to_anchor=(1.01, 1.03), borderaxespad=0, **LEGEND)
    return figure


def forest_plot(
    summaries: Mapping[str, pd.DataFrame],
    scores: Sequence[str] = ("accuracy", "auc"),
    note: str = "",
    reference: Mapping[str, float] | None = None,
) -> Figure:
    """Show several models under one another, a panel per score: dot, interval and the numbers.

    Args:
        summaries: Table by name of the model, from `summary.summarise`.
        scores: Rows of the tables to show, one or more.
        note: Footer line.
        reference: Values to compare with by score, drawn dashed, such as the paper's `{"accuracy": 0.7466}`.

    Raises:
        MonaiCaeError: If there is no model or score, or a table lacks a score.
    """
    if not summaries or not scores:
        raise MonaiCaeError("summaries and scores must hold at least one model and one score.")
    models = list(summaries)
    figure = empty_figure(1.6 + 2.9 * len(scores), 1.2 + 0.42 * len(models), note)
    axes = figure.subplots(1, len(scores), sharey=True, squeeze=False)[0]
    places = np.arange(len(models))
    for axis, score in zip(axes, scores, strict=True):
        rows = np.array([_interval(summaries[model], score, f"summaries[{model!r}]") for model in models])
        if reference and score in reference:
            axis.axvline(reference[score], **DASHES)
            label = f"reference {reference[score]:.3f}"
            style = SMALL | {"ha": "center", "va": "bottom", "textcoords": "offset points"}
            axis.annotate(label, (reference[score], 1), (0, 2), xycoords=("data", "axes fraction"), **style)
        for place, (mean, low, high), colour in zip(places, rows, _colours(len(models)), strict=True):
            axis.plot((low, high), (place, place), color=colour, linewidth=1.6)
            axis.plot(mean, place, "o", color=colour, markersize=6, markeredgewidth=0)
            text = "undefined" if np.isnan(mean) else f"{mean:.3f} [{low:.3f}, {high:.3f}]"
            axis.annotate(text, (1.02, place), xycoords=("axes fraction", "data"), va="center", **SMALL)
        tidy(axis, xlabel=f"{readable(score)}, 95% interval")
        axis.xaxis.set_major_locator(MaxNLocator(4))
        axis.grid(axis="x", color=FAINT, linewidth=0.8)
        axis.spines["left"].set_visible(False)
        axis.tick_params(axis="y", length=0, labelsize=BODY["fontsize"])
    axes[0].set_yticks(places, models)
    axes[0].set_ylim(len(models) - 0.4, -0.6)
    return figure


def _dots_with_intervals(
    axis: Axes, x: NDArray[Any], values: NDArray[Any], ends: NDArray[Any], label: str = ""
) -> None:
    """Draw points and the ends of their intervals, shape `(n, 2)`; a resampled interval may miss its point."""
    low, high = ends.T
    axis.vlines(x, low, high, color=BLUE, linewidth=1.4)
    axis.plot(x, values, "o", color=BLUE, markersize=5, markeredgewidth=0, clip_on=False, label=label)


def _interval(table: pd.DataFrame, score: str, name: str) -> tuple[float, float, float]:
    if score not in table.index or not set(INTERVAL) <= set(table):
        raise MonaiCaeError(f"{name} must have the row {score} and the columns {', '.join(INTERVAL)}.")
    mean, low, high = (float(table.loc[score, column]) for column in INTERVAL)
    return mean, low, high


def _colours(number: int) -> list[str]:
    return [LINE_COLOURS[place % len(LINE_COLOURS)] for place in range(number)]


def _signed(value: float) -> str:
    return "undefined" if np.isnan(value) else f"{value:.2f}".replace("-", "\N{MINUS SIGN}")
