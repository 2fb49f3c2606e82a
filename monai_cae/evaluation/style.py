"""The common style of the figures: colours, text sizes, plain axes."""

from __future__ import annotations

from typing import Any, Literal

from matplotlib.axes import Axes
from matplotlib.figure import Figure

# Okabe and Ito's palette, distinct under the common colour vision deficiencies
BLUE, VERMILLION, GREEN, PURPLE, ORANGE, SKY = "#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9"
LINE_COLOURS = (BLUE, VERMILLION, GREEN, PURPLE, ORANGE, SKY)
INK, MUTED, FAINT = "#222222", "#6B6B6B", "#E4E4E4"
HEADING: dict[str, Any] = {"fontsize": 10, "color": INK}
BODY: dict[str, Any] = {"fontsize": 9, "color": INK}
SMALL: dict[str, Any] = {"fontsize": 8, "color": MUTED}
NUMBER: dict[str, Any] = {"fontsize": 20}
DOT: dict[str, Any] = {"markersize": 6, "markeredgewidth": 0}
LEGEND: dict[str, Any] = {"fontsize": 8, "labelcolor": INK, "frameon": False}

WORDS = {"train": "training", "val": "validation", "brain": "(brain)", "brier": "brier score"}
WORDS |= {name: name.upper() for name in ("mse", "psnr", "f1", "auc", "mcc", "ece", "ssim")}


def empty_figure(
    width: float, height: float, note: str, layout: Literal["constrained"] | None = "constrained"
) -> Figure:
    """Return an empty white figure, sized in inches, with the note at its foot."""
    figure = Figure(figsize=(width, height), facecolor="white", layout=layout)
    if note:
        # unlike a plain text, a common x label has its own space in the layout
        figure.supxlabel(note, x=0.1 / width, ha="left", **SMALL)
    return figure


def readable(name: str) -> str:
    """Spell the name of a score out, as a label begins: `val_psnr_brain` as `Validation PSNR (brain)`."""
    words = " ".join(WORDS.get(word, word) for word in name.split("_"))
    return capital(words)


def capital(words: str) -> str:
    """The words as a label begins, with a capital."""
    return words[:1].upper() + words[1:]


def tidy(axis: Axes, xlabel: str = "", ylabel: str = "") -> None:
    """Label axes and remove unneeded parts of their frame."""
    axis.set_xlabel(xlabel, **BODY)
    axis.set_ylabel(ylabel, **BODY)
    axis.spines[["top", "right"]].set_visible(False)
    axis.spines[["left", "bottom"]].set_color(MUTED)
    axis.tick_params(which="both", labelsize=SMALL["fontsize"], color=MUTED, labelcolor=INK, length=3)
