"""The figure of a search: each parameter's values against the score that the trials had."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from monai_cae.evaluation.style import BLUE, BODY, SMALL, VERMILLION, empty_figure, tidy

_ROW = 3  # panels side by side


def search_slices(
    trials: pd.DataFrame,
    parameters: Mapping[str, bool],
    importance: Mapping[str, float],
    chosen: Sequence[bool],
    label: str,
    note: str = "",
    about: str = "",
) -> Figure:
    """A panel for each parameter: one dot for each finished trial, the chosen ones ringed.

    Args:
        trials: a row each, with the parameters as columns and the score as `mean`, nan of one that did not finish.
        parameters: name -> whether its axis is logarithmic; of words the panel has one place for each.
        importance: share of the differences between trials that a parameter explains, where it is known.
        chosen: of each row, whether it is what a split's network has.
        label: of the score.
        note, about: footer and title.
    """
    rows = math.ceil(len(parameters) / _ROW)
    across = min(_ROW, len(parameters))
    figure = empty_figure(2.4 * across + 0.6, 2.1 * rows + 0.3, note, f"Trials of the search\n{about}")
    panels = np.atleast_1d(figure.subplots(rows, across, sharey=True, squeeze=False).ravel())
    ringed = trials[np.asarray(chosen, bool)]
    for number, (axis, (name, log)) in enumerate(zip(panels, parameters.items(), strict=False)):
        places = _places(axis, trials[name], log)
        axis.plot(places(trials[name]), trials["mean"], "o", color=BLUE, markersize=4, alpha=0.6, markeredgewidth=0)
        ring: dict[str, Any] = {"markersize": 9, "markerfacecolor": "none", "markeredgecolor": VERMILLION}
        axis.plot(places(ringed[name]), ringed["mean"], "o", markeredgewidth=1.3, **ring)
        tidy(axis, xlabel=name, ylabel=label if number % across == 0 else "")
        if name in importance:
            axis.set_title(f"importance {importance[name]:.2f}", **SMALL)
    for axis in panels[len(parameters) :]:
        axis.set_visible(False)
    return figure


def _places(axis: Axes, values: pd.Series, log: bool) -> Any:
    """Where a value lies on the axis, which gets its scale."""
    if pd.api.types.is_numeric_dtype(values):
        if log:
            axis.set_xscale("log")
        return lambda some: some
    words = sorted(map(str, values.dropna().unique()))
    axis.set_xticks(range(len(words)), words, **{**BODY, "fontsize": 8})
    axis.margins(x=0.3)
    return lambda some: [words.index(str(value)) for value in some]
