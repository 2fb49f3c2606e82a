"""The paper's figures and those of the experiment: arrays in, matplotlib `Figure` out.

Figures are built without pyplot: none stays in memory after its last reference, and none needs a display. Each takes
a `note`, a small line at the foot such as "Synthetic data, not real MRI", and `about`, whom it is about, for its title:
"60 test scans". Images are stored as (left-right,
posterior-anterior) and shown with anterior up.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.image import AxesImage
from matplotlib.ticker import LogLocator, MaxNLocator, NullFormatter, StrMethodFormatter
from numpy.typing import ArrayLike, NDArray
from sklearn import metrics as sklearn_metrics

from monai_cae.errors import MonaiCaeError
from monai_cae.evaluation.metrics import (
    CLASS_NAMES,
    checked_scores,
    classification_metrics,
    mean_and_sd,
    predicted_classes,
    psnr,
)
from monai_cae.evaluation.style import (
    BLUE,
    BODY,
    DOT,
    FAINT,
    HEADING,
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

MAX_COLUMNS = 8

PANELS = {
    "Loss": {"loss", "mse"},
    "PSNR (dB)": {"psnr"},
    "Score": {"accuracy", "sensitivity", "specificity", "f1", "auc"},
}


def columns_of(shape: Sequence[int]) -> int:
    """How many of n images of shape `(n, H, W)` `reconstructions` has room for: of wide ones fewer."""
    count, width, height = shape
    return min(count, max(1, round(MAX_COLUMNS * min(1.0, height / width))))


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
        A mosaic of 4 x 4 channels per layer, three layers in a row, of wide ones one.

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
    columns = min(3 if shape[0] < 2 * shape[1] else 1, len(layers))
    grid, width = (-(-len(layers) // columns), columns), 2.9 if columns > 1 else 2.9 * max(1.0, shape[0] / shape[1])
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
