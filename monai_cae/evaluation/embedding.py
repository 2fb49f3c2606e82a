"""Figures and pictures inside an HTML page: SVG in the page's own colours and letters, and WebP as text."""

from __future__ import annotations

import base64
import html
import io
import re
from pathlib import Path
from typing import Any, NamedTuple

import matplotlib as mpl
import numpy as np
from markupsafe import Markup
from matplotlib.figure import Figure
from numpy.typing import NDArray
from PIL import Image

from monai_cae.evaluation.style import BLUE, FAINT, GREEN, INK, MUTED, ORANGE, PURPLE, SKY, VERMILLION

# what the page's style calls the colours of the figures: a dark page has others
_VARIABLES = {
    INK: "ink", "#000000": "ink", MUTED: "muted", FAINT: "line", "#ffffff": "paper", BLUE: "blue",
    VERMILLION: "vermillion", GREEN: "green", PURPLE: "purple", ORANGE: "orange", SKY: "sky",
}  # fmt: skip
_LARGEST = 300_000  # letters of an SVG; what draws more is shown as pixels
_WIDEST = 1400  # pixels of a picture
_QUALITY = 70  # of WebP


class Embedded(NamedTuple):
    """A figure for a page.

    Attributes:
        title: what is shown.
        about: on whom, and other lines of its title.
        markup: `<svg>` or `<img>`.
        broad: it is much wider than high.
    """

    title: str
    about: str
    markup: Markup
    broad: bool = False


def embedded(figure: Figure) -> Embedded:
    """The figure as SVG without its title, which the page tells itself, with text as text. It is changed by this.

    Args:
        figure: of matplotlib, in the colours of `monai_cae.evaluation.style`.
    """
    title, _, about = re.sub(r"\n", "\0", figure.get_suptitle(), count=1).partition("\0")
    figure.suptitle("")
    buffer = io.StringIO()
    with mpl.rc_context({"svg.fonttype": "none", "svg.hashsalt": "monai-cae"}):
        figure.savefig(buffer, format="svg", transparent=True, metadata={"Date": None})
    _, _, drawing = buffer.getvalue().partition("<svg")
    if len(drawing) > _LARGEST:
        raster = io.BytesIO()
        figure.savefig(raster, format="png", dpi=130)
        with Image.open(raster) as image:
            return Embedded(title, about.replace("\n", " "), picture(webp(image), title, image.size))
    width, height = re.findall(r'viewBox="0 0 ([\d.]+) ([\d.]+)"', drawing)[0]
    drawing = re.sub(r"<metadata>.*?</metadata>", "", drawing, flags=re.DOTALL)
    drawing = re.sub(r' id="[\w.]+_\d+"', "", drawing)  # of no use, and the same in every figure
    drawing = re.sub(r"(font-family: |font: [^;\"]*?px )[^;\"]*", r"\1var(--font)", drawing)
    drawing = re.sub(r"#[0-9a-f]{6}\b", _variable, drawing)
    head = f'<svg role="img" aria-label="{html.escape(title)}" style="max-width: {1.35 * float(width):.0f}px"'
    drawing = re.sub(r"^[^>]*>", f' viewBox="0 0 {width} {height}" xmlns="http://www.w3.org/2000/svg"'
                     ' xmlns:xlink="http://www.w3.org/1999/xlink">', drawing, count=1)  # fmt: skip
    broad = float(width) > 1.5 * float(height)
    return Embedded(title, about.replace("\n", " "), Markup(head + drawing), broad)


def _variable(found: re.Match[str]) -> str:
    name = next((name for colour, name in _VARIABLES.items() if colour.lower() == found[0]), "")
    return f"var(--{name})" if name else found[0]


def picture(uri: str, alternative: str, size: tuple[int, int]) -> Markup:
    """An `<img>` of a picture that lies in the page.

    Args:
        uri: from `webp`.
        alternative: what it shows, in words.
        size: width and height in pixels, so that the page does not jump.
    """
    text = html.escape(alternative)
    return Markup(f'<img src="{uri}" alt="{text}" width="{size[0]}" height="{size[1]}" loading="lazy">')


def webp(image: Image.Image | NDArray[np.uint8]) -> str:
    """A picture as a `data:` URI.

    Args:
        image: of 0 to 255, shape `(height, width[, 3])`, or of Pillow's.
    """
    made = image if isinstance(image, Image.Image) else Image.fromarray(image)
    buffer = io.BytesIO()
    made.save(buffer, "WEBP", quality=_QUALITY, method=4)
    return f"data:image/webp;base64,{base64.b64encode(buffer.getvalue()).decode()}"


def drawn_before(path: Path, title: str) -> Embedded | None:
    """A figure that is on disk as PNG; None where it can't be read.

    Args:
        path: of it.
        title: what it shows.
    """
    try:
        with Image.open(path) as found:
            image: Any = found.convert("RGB")
    except (OSError, ValueError):
        return None
    image.thumbnail((_WIDEST, 4 * _WIDEST))
    return Embedded(title, "", picture(webp(image), title, image.size))
