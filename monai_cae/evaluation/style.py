"""The house style of the figures: colours, text sizes, titles, plain axes, whole files."""

from __future__ import annotations

from pathlib import Path
from textwrap import fill
from typing import Any, Literal

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from monai_cae.files import replacing

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
WORDS |= {name: name.upper() for name in ("mse", "psnr", "f1", "auc", "mcc", "ece", "ssim", "mae", "r2")}


def empty_figure(
    width: float, height: float, note: str, title: str = "", layout: Literal["constrained"] | None = "constrained"
) -> Figure:
    """Return an empty white figure, in inches and with room for its title, with the note at its foot.

    The title says what is shown and, in lines of their own, on whom.
    """
    lines = [line for line in title.splitlines() if line]
    title = "\n".join(fill(line, int(13 * width)) for line in lines)
    figure = Figure(figsize=(width, height + title_height(title)), facecolor="white", layout=layout)
    if title:
        place = {} if layout else {"y": 1 - 0.08 / figure.get_figheight()}
        figure.suptitle(title, **HEADING, **place)
    if note:
        # unlike a plain text, a common x label has its own space in the layout
        figure.supxlabel(note, x=0.1 / width, ha="left", **SMALL)
    return figure


def title_height(title: str) -> float:
    """Inches that a title takes."""
    return 0.17 * (title.count("\n") + 1) + 0.05 if title else 0.0


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


def save_figure(figure: Figure, path: str | Path, dpi: int = 150) -> Path:
    """Write a figure so that the file is there whole or not at all; the folder is made if missing.

    Args:
        figure: What to write.
        path: File to write or replace; its suffix sets the format (`.png`, `.pdf`, `.svg` ...).
        dpi: Pixels per inch, for pixel formats.

    Returns:
        The path written.

    Raises:
        MonaiCaeError: The folder or the file can't be written.
        ValueError: For a suffix that matplotlib does not know.
    """
    target = Path(path)
    with replacing(target) as temporary:
        figure.savefig(temporary, dpi=dpi, format=target.suffix.lstrip(".") or "png")
    return target
