"""The paper's figures and those of the experiment: arrays in, matplotlib `Figure` out.

Figures are built without pyplot: none stays in memory after its last reference, and none needs a display. Each takes
a `note`, a small line at the foot such as "Synthetic data, not real MRI", and `about`, whom it is about, for its title:
"60 test scans".
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, MaxNLocator, NullFormatter, StrMethodFormatter
from numpy.typing import ArrayLike
from sklearn import metrics as sklearn_metrics

from monai_cae.errors import MonaiCaeError
from monai_cae.evaluation.metrics import (
    CLASS_NAMES,
    checked_scores,
    classification_metrics,
    mean_and_sd,
    predicted_classes,
)
from monai_cae.evaluation.style import (
    BLUE,
    BODY,
    DOT,
    FAINT,
    INK,
    LEGEND,
    LINE_COLOURS,
    MUTED,
    NUMBER,
    SMALL,
    VERMILLION,
    capital,
    empty_figure,
    readable,
    tidy,
)

PANELS = {
    "Loss": {"loss", "mse"},
    "PSNR (dB)": {"psnr"},
    "Score": {"accuracy", "sensitivity", "specificity", "f1", "auc"},
}


def training_curves(
    history: Mapping[str, Sequence[tuple[float, float]]],
    note: str = "",
    marks: Mapping[str, int] | None = None,
    about: str = "",
) -> Figure:
    """Show the course of training: one panel each for losses, PSNR, scores, and any other kind of metric.

    Args:
        history: Points `(epoch, value)` by metric name, such as `train_loss`, `val_psnr` or `val_auc`.
        note, about: Footer and title.
        marks: Epochs to mark with a labelled vertical line, such as `{"best": 37}`.

    Returns:
        Panels above one another on a common epoch axis. Losses that span more than a decade have a log scale.

    Raises:
        MonaiCaeError: If there is no point at all.
    """
    if not any(len(points) for points in history.values()):
        raise MonaiCaeError("history must hold at least one (epoch, value) point, not none; has an epoch finished?")
    panels = _panels(list(history))
    figure = empty_figure(7.5, 0.8 + 1.9 * len(panels), note, f"Training, epoch by epoch\n{about}")
    axes = figure.subplots(len(panels), 1, sharex=True, squeeze=False)[:, 0]
    for axis, (panel, names) in zip(axes, panels.items(), strict=True):
        for name, colour in zip(names, itertools.cycle(LINE_COLOURS), strict=False):
            epochs, values = np.asarray(history[name], dtype=np.float64).reshape(-1, 2).T
            # one point alone makes no line
            marker = "o" if len(epochs) == 1 else ""
            axis.plot(epochs, values, color=colour, linewidth=1.4, marker=marker, label=readable(name))
        if panel == "Loss" and _spans_a_decade([value for name in names for _, value in history[name]]):
            axis.set_yscale("log")
            axis.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
            axis.yaxis.set_major_formatter(StrMethodFormatter("{x:g}"))  # 0.2, not 2 x 10^-1
            axis.yaxis.set_minor_formatter(NullFormatter())
        if panel == "Score":
            axis.set_ylim(top=min(1.02, axis.get_ylim()[1]))  # no score lies beyond 1
        tidy(axis, ylabel=panel)
        axis.grid(axis="y", color=FAINT, linewidth=0.8)
        axis.legend(loc="upper left", bbox_to_anchor=(1.01, 1.03), borderaxespad=0, **LEGEND)
    axes[-1].set_xlabel("Epoch", **BODY)
    axes[-1].xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
    figure.align_ylabels(axes)
    _draw_marks(list(axes), marks or {})
    return figure


def roc_curve(
    labels: ArrayLike, probabilities: ArrayLike, threshold: float = 0.5, note: str = "", about: str = ""
) -> Figure:
    """Show sensitivity against 1 - specificity over all thresholds, and where the one in use lies.

    Args:
        labels: True classes of shape `(n,)`, 0 = HC, 1 = AD.
        probabilities: Predicted probability of AD, shape `(n,)`.
        threshold: Probability from which on a subject counts as AD.
        note, about: Footer and title.

    Raises:
        MonaiCaeError: For input that `classification_metrics` refuses, or if a class is missing.
    """
    truth, scores = checked_scores(labels, probabilities)
    patients, subjects = int(truth.sum()), len(truth)
    if patients in (0, subjects):
        raise MonaiCaeError(f"labels must hold both classes for a ROC curve, not {patients} AD of {subjects} subjects.")
    measured = classification_metrics(truth, scores, threshold=threshold)
    false_positive_rate, true_positive_rate, _ = sklearn_metrics.roc_curve(truth, scores)
    classes = f"{patients} {CLASS_NAMES[1]}, {subjects - patients} {CLASS_NAMES[0]}"
    figure = empty_figure(4.6, 4.9, note, f"ROC curve\n{about}{': ' if about else ''}{classes}")
    axis = figure.subplots()
    axis.plot((0, 1), (0, 1), color=MUTED, linewidth=1, linestyle=(0, (4, 3)), label="Chance, AUC = 0.5")
    curve: dict[str, Any] = {
        "linewidth": 1.8,
        "clip_on": False,
        "zorder": 3,
        "label": f"Classifier, AUC = {measured['auc']:.3f}",
    }
    axis.plot(false_positive_rate, true_positive_rate, color=BLUE, **curve)
    sensitivity, specificity = measured["sensitivity"], measured["specificity"]
    label = f"Threshold {threshold:.3g}: sensitivity {sensitivity:.2f},\nspecificity {specificity:.2f}"
    point: dict[str, Any] = {"markersize": 7, "markeredgecolor": "white", "clip_on": False, "zorder": 4}
    axis.plot(1 - specificity, sensitivity, "o", color=VERMILLION, label=label, **point)
    axis.set(xlim=(0, 1), ylim=(0, 1), aspect="equal")
    tidy(axis, xlabel="1 \N{MINUS SIGN} specificity", ylabel="Sensitivity")
    axis.legend(loc="lower right", **LEGEND)
    return figure


def confusion_matrix(
    labels: ArrayLike, probabilities: ArrayLike, threshold: float = 0.5, note: str = "", about: str = ""
) -> Figure:
    """Show how many subjects of each true class (row) were taken for which (column), with the row's percentages.

    Args:
        labels: True classes of shape `(n,)`, 0 = HC, 1 = AD.
        probabilities: Predicted probability of AD, shape `(n,)`.
        threshold: Probability from which on a subject counts as AD.
        note, about: Footer and title.

    Raises:
        MonaiCaeError: For input that `classification_metrics` refuses.
    """
    truth, scores = checked_scores(labels, probabilities)
    counts = sklearn_metrics.confusion_matrix(truth, predicted_classes(scores, threshold), labels=[0, 1])
    totals = counts.sum(axis=1)
    shares = counts / np.maximum(totals, 1)[:, None]
    title = f"Confusion matrix\n{about or f'{len(truth)} subjects'}, threshold {threshold:.3g}"
    figure = empty_figure(4.1, 4.2, note, title)
    axis = figure.subplots()
    axis.imshow(shares, cmap="Blues", vmin=0.0, vmax=1.0)
    for (row, column), share in np.ndenumerate(shares):
        style: dict[str, Any] = {"ha": "center", "va": "center", "color": "white" if share > 0.55 else INK}
        axis.text(column, row - 0.06, str(counts[row, column]), **NUMBER | style)
        axis.text(column, row + 0.17, f"{share:.1%}" if totals[row] else "no subjects", **BODY | style)
    axis.set_xticks((0, 1), CLASS_NAMES)
    axis.set_yticks((0, 1), CLASS_NAMES)
    tidy(axis, xlabel="Predicted class", ylabel="True class (100% per row)")
    axis.spines[:].set_visible(False)
    axis.tick_params(length=0)
    return figure


def repeats(
    values: Mapping[str, Sequence[float]],
    note: str = "",
    reference: Mapping[str, float] | None = None,
    reference_name: str = "reference",
    about: str = "",
) -> Figure:
    """Show each repeat's score as a dot, with their mean and standard deviation.

    Args:
        values: One value per repeat by metric name, such as `{"accuracy": [0.74, ...]}`; one axis serves all.
        note, about: Footer and title.
        reference: Values to compare with, drawn dashed, such as the paper's `{"accuracy": 0.7466, "f1": 0.66}`.
        reference_name: What these are, such as "paper".

    Raises:
        MonaiCaeError: If there is no metric, a metric without a value, or a reference for a metric not in `values`.
    """
    reference = reference or {}
    unknown = sorted(set(reference) - set(values))
    if not values or unknown:
        raise MonaiCaeError(f"values must hold every metric of reference, and at least one; missing: {unknown}.")
    figure = empty_figure(1.6 * len(values) + 1.4, 3.9, note, f"Scores of the repeats\n{about}")
    axis = figure.subplots()
    names = []
    for place, (name, scores) in enumerate(values.items()):
        mean, sd = mean_and_sd(scores)
        spread = np.linspace(-0.24, 0.0, len(scores)) if len(scores) > 1 else -0.12
        dots, *_ = axis.plot(np.full(len(scores), place) + spread, scores, "o", color=BLUE, alpha=0.75, **DOT)
        # the SD of one repeat is nan: no bar
        bar = axis.errorbar(place + 0.18, mean, yerr=np.nan_to_num(sd), fmt="D", color=VERMILLION, **DOT)
        names.append(f"{readable(name)}\n{mean:.3f}" + (f" ± {sd:.3f}" if len(scores) > 1 else ""))
        if name in reference:
            dashes: dict[str, Any] = {"colors": INK, "linestyles": "dashed", "linewidth": 1.2}
            line = axis.hlines(reference[name], place - 0.38, place + 0.38, **dashes)
            names[-1] += f"\ndashed: {reference[name]:.3f}"
    handles: dict[str, Any] = {"One repeat": dots, "Mean ± SD": bar} | (
        {capital(reference_name): line} if reference else {}
    )
    place_above: dict[str, Any] = {"loc": "lower center", "bbox_to_anchor": (0.5, 1.0), "ncols": len(handles)}
    axis.legend(list(handles.values()), list(handles), **place_above, **LEGEND)
    axis.set_xticks(range(len(values)), names)
    axis.set_xlim(-0.5, len(values) - 0.5)
    tidy(axis, ylabel="Test score")
    axis.grid(axis="y", color=FAINT, linewidth=0.8)
    axis.tick_params(axis="x", length=0, labelsize=BODY["fontsize"])
    return figure


def _panels(names: Sequence[str]) -> dict[str, list[str]]:
    """Group metrics by what they measure; one of a kind not known here gets a panel of its own."""
    panels = {title: [name for name in names if words & set(name.split("_"))] for title, words in PANELS.items()}
    grouped = set(itertools.chain.from_iterable(panels.values()))
    panels |= {readable(name): [name] for name in names if name not in grouped}
    return {title: members for title, members in panels.items() if members}


def _spans_a_decade(values: Sequence[float]) -> bool:
    finite = [value for value in values if np.isfinite(value)]
    return bool(finite) and min(finite) > 0 and max(finite) > 10 * min(finite)


def _draw_marks(axes: Sequence[Axes], marks: Mapping[str, int]) -> None:
    """Draw vertical lines through all panels, labelled above the first; near labels go one line higher each."""
    first, last = axes[0].get_xlim()
    previous, level = -np.inf, 0
    for label, epoch in sorted(marks.items(), key=lambda mark: mark[1]):
        for axis in axes:
            axis.axvline(epoch, color=MUTED, linewidth=1, linestyle=(0, (2, 2)), zorder=1)
        level = level + 1 if epoch - previous < 0.3 * (last - first) else 0
        previous = epoch
        style: dict[str, Any] = {"textcoords": "offset points", "ha": "center", "va": "bottom", **SMALL}
        above = (0, 3 + 11 * level)
        axes[0].annotate(f"{label} ({epoch})", (epoch, 1), above, xycoords=("data", "axes fraction"), **style)
