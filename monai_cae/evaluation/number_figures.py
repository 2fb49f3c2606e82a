"""Figures of predicted numbers: against the true ones, and their differences (Bland and Altman 1986, Lancet 1:307)."""

from __future__ import annotations

from typing import Any

import numpy as np
from matplotlib.figure import Figure
from numpy.typing import NDArray

from monai_cae.evaluation.numbers import number_scores
from monai_cae.evaluation.style import BLUE, FAINT, LEGEND, MUTED, SMALL, VERMILLION, empty_figure, tidy

_DASHES: dict[str, Any] = {"color": MUTED, "linewidth": 1, "linestyle": (0, (4, 3))}
_DOTS: dict[str, Any] = {"s": 22, "color": BLUE, "alpha": 0.7, "linewidths": 0, "zorder": 3}
LIMITS = 1.96  # standard deviations on both sides: 95 % of normal differences
Numbers = NDArray[np.float64]


def predicted_against_true(labels: Numbers, predicted: Numbers, name: str, note: str = "", about: str = "") -> Figure:
    """Show each subject's predicted number over its true one, with the line of equality.

    Args:
        labels: the true numbers, shape `(n,)`.
        predicted: shape `(n,)`.
        name: of the number.
        note, about: footer and title.
    """
    scores = number_scores(labels, predicted)
    figure = empty_figure(4.6, 4.9, note, f"Predicted against true {name}\n{about}")
    axis = figure.subplots()
    low, high = float(min(labels.min(), predicted.min())), float(max(labels.max(), predicted.max()))
    room = 0.04 * (high - low) or 1.0
    ends = (low - room, high + room)
    axis.plot(ends, ends, label="Equal", **_DASHES)
    axis.scatter(labels, predicted, **_DOTS)
    axis.set(xlim=ends, ylim=ends, aspect="equal")
    told = f"n = {len(labels)}, r = {_signed(scores['pearson'])}, mean absolute error {scores['mae']:.3g}"
    axis.set_title(told.replace("nan", "undefined"), pad=8, **SMALL)
    tidy(axis, xlabel=f"True {name}", ylabel=f"Predicted {name}")
    axis.grid(color=FAINT, linewidth=0.8)
    axis.legend(loc="upper left", **LEGEND)
    return figure


def bland_altman(labels: Numbers, predicted: Numbers, name: str, note: str = "", about: str = "") -> Figure:
    """Show each subject's difference, predicted minus true, over the mean of both, with mean and limits of agreement.

    Args:
        labels, predicted, name, note, about: see `predicted_against_true`.
    """
    differences, means = predicted - labels, (predicted + labels) / 2
    middle = float(differences.mean())
    spread = LIMITS * float(differences.std(ddof=1)) if len(differences) > 1 else 0.0
    figure = empty_figure(5.6, 4.3, note, f"Differences of predicted and true {name}\n{about}")
    axis = figure.subplots()
    axis.axhline(0, color=FAINT, linewidth=1.2)
    axis.scatter(means, differences, **_DOTS)
    lines = (("mean", middle, VERMILLION), ("+1.96 SD", middle + spread, MUTED), ("-1.96 SD", middle - spread, MUTED))
    for text, height, colour in lines:
        axis.axhline(height, color=colour, linewidth=1.2, linestyle="-" if text == "mean" else (0, (4, 3)))
        told = f"{text}\n{height:+.3g}".replace("-", "\N{MINUS SIGN}")
        axis.annotate(told, (1.01, height), xycoords=("axes fraction", "data"), va="center", **SMALL)
    tidy(axis, xlabel=f"Mean of predicted and true {name}", ylabel="Predicted minus true")
    return figure


def _signed(value: float) -> str:
    return f"{value:.2f}".replace("-", "\N{MINUS SIGN}")
