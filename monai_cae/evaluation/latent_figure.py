"""The code as pictures: what a component of it does to the image, and where scans lie on a map of it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from numpy.typing import NDArray

from monai_cae.evaluation.style import BLUE, BODY, INK, LEGEND, MUTED, SMALL, VERMILLION, empty_figure, tidy

Image = NDArray[np.float64]
_HEADS = ("\N{MINUS SIGN}1 SD", "mean code", "+1 SD", "difference of the two")


def influence_maps(
    decoded: Mapping[str, Sequence[Image]],
    note: str = "",
    about: str = "",
    title: str = "What single components of the code do",
) -> Figure:
    """Show a row for each component.

    Args:
        decoded: what the component is called -> images of shape `(H, W)` of the mean code less one SD of it, the mean
            code, and the mean code plus one SD.
        note, about, title: footer, the title's later lines, its first.

    Returns:
        The three images, and the third less the first in colours of its own: red where more of it makes the image
        brighter, blue where darker, as deep as the component's largest change.
    """
    width, height = next(iter(decoded.values()))[0].shape
    row = min(max(2.1 * height / width, 0.9), 3.0)  # inches: images of several planes are wide
    figure = empty_figure(9.2, 0.8 + row * len(decoded), note, f"{title}\n{about}")
    axes = figure.subplots(len(decoded), 4, squeeze=False)
    for line, (name, (below, mean, above)) in zip(axes, decoded.items(), strict=True):
        for axis, image in zip(line, (below, mean, above), strict=False):
            axis.imshow(image.T, cmap="gray", vmin=0, vmax=1, origin="lower")
        change = above - below
        most = float(np.abs(change).max()) or 1.0
        shown = line[3].imshow(change.T, cmap="RdBu_r", vmin=-most, vmax=most, origin="lower")
        bar = figure.colorbar(shown, ax=line[3], shrink=0.8)
        bar.ax.tick_params(labelsize=SMALL["fontsize"])
        line[0].set_ylabel(name, rotation=0, ha="right", va="center", **BODY)
        for axis in line:
            axis.set_xticks([])
            axis.set_yticks([])
    for axis, head in zip(axes[0], _HEADS, strict=True):
        axis.set_title(head, **BODY)
    return figure


def latent_map(
    known: NDArray[np.float64],
    places: NDArray[np.float64],
    shares: Sequence[float],
    labels: NDArray[np.float64],
    predicted: NDArray[Any],
    unlike: NDArray[np.bool_],
    classes: bool,
    note: str = "",
    about: str = "",
) -> Figure:
    """Show where the codes of test scans lie among those of the training.

    Args:
        known, places: of the training's scans and of the test scans, along the first two principal components of the
            training's codes, shapes `(n, 2)` and `(m, 2)`.
        shares: of the variance of the training's codes that the two have.
        labels, predicted: of the test scans, shape `(m,)`; of classes 0 and 1.
        unlike: which of them are strangers.
        classes: whether labels are classes.
        note, about: footer and the title's later lines.
    """
    figure = empty_figure(5.6, 5.2, note, f"Map of the code: where test scans lie among the training's\n{about}")
    axis = figure.subplots()
    axis.scatter(
        known[:, 0], known[:, 1], s=10, color=MUTED, alpha=0.35, linewidths=0, label=f"training ({len(known)})"
    )
    if classes:
        for label, name, colour in ((0, "HC", BLUE), (1, "AD", VERMILLION)):
            chosen = labels == label
            axis.scatter(
                places[chosen, 0], places[chosen, 1], s=26, color=colour, linewidths=0, label=f"{name} ({chosen.sum()})"
            )
        chosen = (labels == 1) != predicted.astype(bool)
        told = f"misclassified ({chosen.sum()})"
    else:
        shown = axis.scatter(
            places[:, 0], places[:, 1], s=26, c=labels, cmap="viridis", linewidths=0, label=f"test ({len(places)})"
        )
        bar = figure.colorbar(shown, ax=axis, shrink=0.8)
        bar.set_label("label", **SMALL)
        bar.ax.tick_params(labelsize=SMALL["fontsize"])
        errors = np.abs(predicted - labels)
        chosen = errors >= np.quantile(errors, 0.9)
        told = f"the largest errors ({chosen.sum()})"
    rings: dict[str, Any] = {"s": 70, "facecolors": "none", "edgecolors": INK, "linewidths": 1.0}
    if chosen.any():
        axis.scatter(places[chosen, 0], places[chosen, 1], label=told, **rings)
    if unlike.any():
        told = f"unlike the training's ({unlike.sum()})"
        axis.scatter(places[unlike, 0], places[unlike, 1], marker="s", label=told, **rings)
    axis.set_aspect("equal", adjustable="datalim")
    tidy(axis, *(f"component {n} ({100 * share:.0f} % of the variance)" for n, share in enumerate(shares, start=1)))
    axis.legend(**LEGEND, loc="upper center", bbox_to_anchor=(0.5, -0.13), ncols=3)
    return figure
