"""Figures of results: calibration, ROC with a band, clinical grades, learning curves, methods side by side.

Like `figures`: tables and arrays in, matplotlib `Figure` out, each with a `note` at the foot and `about` in its title.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, MaxNLocator
from numpy.typing import NDArray

from monai_cae.errors import MonaiCaeError
from monai_cae.evaluation.calibration import FEWEST, reliability_bins
from monai_cae.evaluation.curves import RocBand
from monai_cae.evaluation.intervals import wilson_interval
from monai_cae.evaluation.pooled import pooled
from monai_cae.evaluation.style import (
    BLUE,
    BODY,
    FAINT,
    INK,
    LEGEND,
    LINE_COLOURS,
    MUTED,
    SMALL,
    capital,
    empty_figure,
    readable,
    tidy,
)
from monai_cae.evaluation.subgroups import TOO_FEW
from monai_cae.evaluation.summary import FEW, TOO_NARROW

DASHES: dict[str, Any] = {"color": MUTED, "linewidth": 1, "linestyle": (0, (4, 3))}
INTERVAL = ("mean", "low", "high")
LINE = ("slope", "intercept")
LONGEST = 40  # characters of a name beside a line; of a longer path only the end is shown


def reliability_diagram(predictions: pd.DataFrame, summary: pd.DataFrame, note: str = "", about: str = "") -> Figure:
    """Show what became of subjects with a given predicted probability, and how probabilities are distributed.

    Args:
        predictions: Table as described in `pooled`; those of all repeats are sorted into bins together.
        summary: From `summary.summarise`, with `calibration_slope`, `calibration_intercept` and `ece`: means of the
            repeats, each of which has its own.
        note, about: Footer and title.

    Returns:
        Observed share of AD against mean probability per bin of `reliability_bins`, with the 95 % Wilson interval of as
        many subjects as are in the bin; a histogram below, and the summary's numbers above.

    Raises:
        MonaiCaeError: For predictions that `pooled` refuses, or a summary without these scores.
    """
    record = pooled(predictions)
    places, labels, probabilities = (
        np.concatenate([getattr(each, field) for each in record.repeats.values()])
        for field in ("places", "labels", "probabilities")
    )
    _, subjects, predicted, observed = reliability_bins(labels, probabilities, places)
    repeats = len(record.repeats)
    figure = empty_figure(4.6, 6.3, note, f"Calibration\n{about}")
    above, below = figure.subplots(2, 1, sharex=True, height_ratios=(4, 1))
    above.plot((0, 1), (0, 1), label="Perfect calibration", **DASHES)
    if len(subjects):
        counts = [round(n * share) for n, share in zip(subjects, observed, strict=True)]
        ends = np.array([wilson_interval(*pair) for pair in zip(counts, subjects.tolist(), strict=True)])
        together = f", {repeats} repeats together" if repeats > 1 else ""
        _dots_with_intervals(above, predicted, observed, ends, f"Observed, 95% interval{together}")
        above.plot(predicted, observed, color=BLUE, linewidth=1, alpha=0.5)
    else:
        few = f"Too few subjects, or probabilities too alike,\nfor two bins of {FEWEST} subjects"
        above.text(0.5, 0.5, few, ha="center", va="center", backgroundcolor="white", **BODY)
    above.set(xlim=(0, 1), ylim=(0, 1))
    slope, intercept = (_with_ends(*_interval(summary, f"calibration_{name}", "summary")) for name in LINE)
    ece, *_ = _interval(summary, "ece", "summary")
    means = f", means of {repeats} repeats" if repeats > 1 else ""
    above.set_title(f"Slope {slope}, ECE {ece:.3f}\nIntercept {intercept}{means}", pad=38, **BODY)
    tidy(above, ylabel="Observed share of AD")
    above.legend(loc="lower left", bbox_to_anchor=(-0.02, 1.0), borderaxespad=0.2, **LEGEND)
    below.hist(probabilities, bins=np.linspace(0, 1, 21).tolist(), rwidth=0.9, color=BLUE, alpha=0.6)
    below.yaxis.set_major_locator(MaxNLocator(2, integer=True))
    counted = "Predictions" if repeats > 1 else "Subjects"
    tidy(below, xlabel="Predicted probability of AD", ylabel=counted)
    return figure


def roc_with_band(band: RocBand, summary: pd.DataFrame, note: str = "", about: str = "") -> Figure:
    """Show the mean ROC curve of the repeats, each repeat thinly, and the band over subjects.

    Args:
        band: From `curves.roc_band`.
        summary: From `summary.summarise`, with the row `auc`, and how many `subjects` it is of.
        note, about: Footer and title.

    Raises:
        MonaiCaeError: If the summary lacks the AUC.
    """
    mean, low, high = _interval(summary, "auc", "summary")
    about = about or f"{summary.loc['auc', 'subjects']} test subjects"
    figure = empty_figure(4.6, 4.9, note, f"ROC curve\n{about}")
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
    label = f"{name}, AUC {_with_ends(mean, low, high)}".replace(" [", "\n[")
    axis.plot(rates, band.mean, color=BLUE, linewidth=1.8, clip_on=False, zorder=3, label=label)
    axis.set(xlim=(0, 1), ylim=(0, 1), aspect="equal")
    tidy(axis, xlabel="1 \N{MINUS SIGN} specificity", ylabel="Sensitivity")
    axis.legend(loc="lower right", **LEGEND)
    return figure


def auc_by_grade(subgroups: pd.DataFrame, note: str = "", about: str = "") -> Figure:
    """Show how well each grade of CDR above 0 is told from CDR 0.

    Args:
        subgroups: From `subgroups.subgroup_table`, with the groups of `cdr`.
        note, about: Footer and title.

    Raises:
        MonaiCaeError: If there is no AUC of a CDR grade.
    """
    known = subgroups[(subgroups["by"] == "cdr") & (subgroups["group"] != "unknown")]
    rows = known[known["score"] == "auc"]
    if rows.empty:
        raise MonaiCaeError("subgroups must hold the AUC of at least one CDR grade, not none.")
    controls = known.loc[known["group"] == "0", "subjects"]
    size = f" (n = {controls.iloc[0]})" if len(controls) else ""
    figure = empty_figure(1.5 + 1.2 * max(len(rows), 2), 3.8, note, f"AUC by CDR, against CDR 0{size}\n{about}")
    axis = figure.subplots()
    axis.axhline(0.5, **DASHES)
    style: dict[str, Any] = {"textcoords": "offset points", "va": "bottom", "ha": "right"}
    axis.annotate("chance", (1, 0.5), (0, 2), xycoords=("axes fraction", "data"), **SMALL | style)
    places, (values, *ends) = np.arange(len(rows)), (rows[name].to_numpy() for name in INTERVAL)
    few = rows["note"].str.contains(TOO_NARROW).to_numpy()
    for chosen, fill in ((few, "white"), (~few, BLUE)):
        if not chosen.any():  # a line without points would lie at the corner of the figure
            continue
        _dots_with_intervals(axis, places[chosen], values[chosen], np.transpose(ends)[chosen], fill=fill)
    for place, value, note_of_row in zip(places, values, rows["note"], strict=True):
        absent = "too few" if note_of_row == TOO_FEW else "undefined"
        text, height = (absent, 0.6) if np.isnan(value) else (f"{value:.2f}", value)
        axis.annotate(text, (place, height), (7, 0), textcoords="offset points", va="center", **BODY)
    axis.set_xticks(places, [f"CDR {row.group}\nn = {row.subjects}" for row in rows.itertuples()])
    axis.set_xlim(-0.5, len(rows) - 0.1)
    axis.set_ylim(min(0.4, np.nanmin([0.4, *ends[0]]) - 0.02), 1)
    hollow = f"hollow: fewer than {FEW},\n{TOO_NARROW}" if few.any() else ""
    axis.set_title(hollow, pad=12, **SMALL)  # a number stands beside a dot at the top
    tidy(axis, ylabel="AUC, 95% interval")
    axis.grid(axis="y", color=FAINT, linewidth=0.8)
    axis.tick_params(axis="x", length=0, labelsize=BODY["fontsize"])
    return figure


def learning_curve(
    curves: Mapping[str, pd.DataFrame],
    score: str,
    note: str = "",
    reference: float | None = None,
    reference_name: str = "reference",
    about: str = "",
) -> Figure:
    """Show the score against the number of training subjects.

    Args:
        curves: Table by name of the model, a row per size of the training set: `subjects`, and `mean`, `low` and
            `high` of the test score, as `summary.summarise` gives them.
        score: Name of the score, such as `auc`.
        note, about: Footer and title.
        reference: Score to compare with, drawn dashed, such as 0.5 for the AUC of chance.
        reference_name: What it is, such as "chance".

    Raises:
        MonaiCaeError: If there is no model, or a table that lacks a column or has no row.
    """
    if not curves:
        raise MonaiCaeError("curves must hold at least one model, not none.")
    figure = empty_figure(7.2, 3.9, note, f"{readable(score)} by the number of training subjects\n{about}")
    axis = figure.subplots()
    for (name, table), colour in zip(curves.items(), _colours(len(curves)), strict=True):
        if not {"subjects", *INTERVAL} <= set(table) or table.empty:
            raise MonaiCaeError(f"curves[{name!r}] must have rows with subjects, mean, low and high.")
        rows = table.sort_values("subjects")
        axis.fill_between(rows["subjects"], rows["low"], rows["high"], color=colour, alpha=0.15, linewidth=0)
        axis.plot(rows["subjects"], rows["mean"], "o-", color=colour, linewidth=1.6, markersize=5, label=name)
    if reference is not None:
        axis.axhline(reference, label=f"{capital(reference_name)}, {reference:g}", **DASHES)
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
    reference_name: str = "reference",
    about: str = "",
    title: str = "Methods on the same test sets",
    bounded: bool = True,
) -> Figure:
    """Show several models below one another, a panel per score: dot, interval and numbers.

    Args:
        summaries: Table by name of the model, from `summary.summarise`; the first stands out.
        scores: Rows of the tables to show, one or more.
        note, about: Footer and title.
        reference: Values to compare with by score, drawn dashed, such as the paper's `{"accuracy": 0.7466}`.
        reference_name: What these are, such as "paper".
        title: What is shown, above whom.
        bounded: No score lies beyond 1; False for errors in units of their own.

    Raises:
        MonaiCaeError: If there is no model or score, or a table lacks a score.
    """
    if not summaries or not scores:
        raise MonaiCaeError("summaries and scores must hold at least one model and one score.")
    models = list(summaries)
    size = (1.6 + 2.9 * len(scores), 1.2 + 0.42 * len(models))
    figure = empty_figure(*size, note, f"{title}\n{about}")
    axes = figure.subplots(1, len(scores), sharey=True, squeeze=False)[0]
    places = np.arange(len(models))
    for axis, score in zip(axes, scores, strict=True):
        rows = np.array([_interval(summaries[model], score, f"summaries[{model!r}]") for model in models])
        if reference and score in reference:
            axis.axvline(reference[score], **DASHES)
            label = f"{reference_name}: {reference[score]:.3f}"
            style = SMALL | {"ha": "center", "va": "bottom", "textcoords": "offset points"}
            axis.annotate(label, (reference[score], 1), (0, 2), xycoords=("data", "axes fraction"), **style)
        for place, (mean, low, high) in zip(places, rows, strict=True):
            colour = INK if place else BLUE
            axis.plot((low, high), (place, place), color=colour, linewidth=1.6)
            axis.plot(mean, place, "o", color=colour, markersize=6, markeredgewidth=0)
            axis.annotate(
                _with_ends(mean, low, high), (1.02, place), xycoords=("axes fraction", "data"), va="center", **SMALL
            )
        tidy(axis, xlabel=f"{readable(score)}, 95% interval")
        if bounded:
            left, right = axis.get_xlim()
            axis.set_xlim(left, min(1.02, right))
            ticks = MaxNLocator(4).tick_values(*axis.get_xlim())
            axis.xaxis.set_major_locator(FixedLocator(ticks[(ticks >= left) & (ticks <= min(1, right))]))
        else:
            axis.xaxis.set_major_locator(MaxNLocator(4))
        axis.grid(axis="x", color=FAINT, linewidth=0.8)
        axis.spines["left"].set_visible(False)
        axis.tick_params(axis="y", length=0, labelsize=BODY["fontsize"])
    axes[0].set_yticks(places, [name if len(name) <= LONGEST else f"...{name[3 - LONGEST :]}" for name in models])
    axes[0].set_ylim(len(models) - 0.4, -0.6)
    return figure


def code_sizes(reconstruction: pd.DataFrame, note: str = "", about: str = "") -> Figure:
    """Show the PSNR against the size of the code, of autoencoders and of trivial codecs.

    Args:
        reconstruction: See `reconstruction_table` of `monai_cae.evaluation.reconstruction_baselines`.
        note, about: Footer and title.
    """
    figure = empty_figure(7.2, 3.9, note, f"Reconstruction by the size of the code\n{about}")
    axis = figure.subplots()
    coded = reconstruction[reconstruction["code_size"] > 0]
    kinds = ("autoencoder", "PCA", "size", "JPEG")
    for kind, label, colour in zip(kinds, ("autoencoder", "PCA", "fewer pixels", "JPEG"), LINE_COLOURS, strict=False):
        rows = coded[[kind in name for name in coded.index]].sort_values("code_size")
        if len(rows):
            axis.plot(rows["per_pixel"], rows["psnr"], "o-", color=colour, linewidth=1.2, markersize=5, label=label)
    if "mean image" in reconstruction.index:
        level = float(reconstruction.loc["mean image", "psnr"])
        axis.axhline(level, label=f"mean image, {level:.1f} dB", **DASHES)
    axis.set_xscale("log")
    axis.xaxis.set_major_formatter("{x:g}")
    tidy(axis, xlabel="Numbers in the code for each pixel (JPEG: bytes)", ylabel="PSNR of the test images, dB")
    axis.grid(axis="y", color=FAINT, linewidth=0.8)
    axis.legend(loc="upper left", bbox_to_anchor=(1.01, 1.03), borderaxespad=0, **LEGEND)
    return figure


def _dots_with_intervals(
    axis: Axes, x: NDArray[Any], values: NDArray[Any], ends: NDArray[Any], label: str = "", fill: str = BLUE
) -> None:
    """Draw points and the ends of their intervals, shape `(n, 2)`; a resampled interval may miss its point."""
    low, high = ends.T
    axis.vlines(x, low, high, color=BLUE, linewidth=1.4)
    axis.plot(x, values, "o", color=BLUE, markersize=5, markerfacecolor=fill, clip_on=False, label=label)


def _interval(table: pd.DataFrame, score: str, name: str) -> tuple[float, float, float]:
    if score not in table.index or not set(INTERVAL) <= set(table):
        raise MonaiCaeError(f"{name} must have the row {score} and the columns {', '.join(INTERVAL)}.")
    mean, low, high = (float(table.loc[score, column]) for column in INTERVAL)
    return mean, low, high


def _colours(number: int) -> list[str]:
    return [LINE_COLOURS[place % len(LINE_COLOURS)] for place in range(number)]


def _with_ends(mean: float, low: float, high: float) -> str:
    if np.isnan(mean):
        return "undefined"
    ends = "" if np.isnan(low) else f" [{low:.3f}, {high:.3f}]"
    return f"{mean:.3f}{ends}".replace("-", "\N{MINUS SIGN}")
