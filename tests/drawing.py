"""Figures of runs: composed but not drawn, unless a test asks for the drawing itself."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from matplotlib.figure import Figure
from PIL import Image

from monai_cae.evaluation import style

_savefig = Figure.savefig
COARSE = 50  # dots per inch: nobody looks at what a test draws


def blank(figure: Figure, file: Any, *, format: str, **_: Any) -> None:
    """In place of `Figure.savefig`: a file of the right kind and shape with nothing in it.

    Drawing is half of what a run on a tiny cohort costs, and the same for every run.
    """
    width, height = figure.get_size_inches()
    if format == "svg":
        file.write(f'<svg viewBox="0 0 {72 * width:g} {72 * height:g}"></svg>')
    else:
        Image.new("RGB", (int(10 * width), int(10 * height))).save(file, format)


def draw_nothing() -> None:
    """For the rest of this process."""
    style.save_figure.__defaults__ = (COARSE,)
    Figure.savefig = blank


@contextmanager
def drawing() -> Iterator[None]:
    """Figures are drawn as users see them, though coarse."""
    Figure.savefig = _savefig
    try:
        yield
    finally:
        Figure.savefig = blank
