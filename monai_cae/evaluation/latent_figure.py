"""What a component of the code does to the image: decoded one standard deviation below and above the mean."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.figure import Figure
from numpy.typing import NDArray

from monai_cae.evaluation.style import BODY, SMALL, empty_figure

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
