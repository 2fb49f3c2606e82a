"""What a run shows beside its numbers is made at little cost, unless a test is about that.

On a tiny cohort, drawing and explaining take two thirds of a run's time, and are the same for every run.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from matplotlib.figure import Figure
from PIL import Image

from monai_cae.evaluation import style
from monai_cae.explanations import explained

COARSE = 50  # dots per inch: nobody looks at what a test draws
PASSES = 200  # of images through a network that is explained
_OWN = {"savefig": Figure.savefig, "TESTED": explained.TESTED, "_method": explained.Explained._method}


def draw_little() -> None:
    """From here on figures are composed and not drawn, and explanations are coarse and tested on one scan."""
    style.save_figure.__defaults__ = (COARSE,)
    Figure.savefig = _blank
    explained.TESTED = 1
    explained.Explained._method = _coarse


@contextmanager
def drawing() -> Iterator[None]:
    """Figures are drawn, though coarse, and explanations are what users get."""
    Figure.savefig = _OWN["savefig"]
    explained.TESTED = _OWN["TESTED"]
    explained.Explained._method = _OWN["_method"]
    try:
        yield
    finally:
        draw_little()


def _blank(figure: Figure, file: Any, *, format: str, **_: Any) -> None:
    """A file of the right kind and shape with nothing in it."""
    width, height = figure.get_size_inches()
    if format == "svg":
        file.write(f'<svg viewBox="0 0 {72 * width:g} {72 * height:g}"></svg>')
    else:
        Image.new("RGB", (int(10 * width), int(10 * height))).save(file, format)


def _coarse(self: explained.Explained, *args: Any) -> Any:
    self.passes = min(self.passes or PASSES, PASSES)
    return _OWN["_method"](self, *args)
