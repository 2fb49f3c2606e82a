"""A page in Markdown as HTML in the style of all pages, with its figures inside."""

from __future__ import annotations

import re
from pathlib import Path

from monai_cae import DISCLAIMER, __version__
from monai_cae.evaluation.embedding import Embedded, drawn_before
from monai_cae.templates import render

_FIGURE = re.compile(r"^!\[(.+?)\]\((.+?)\)$", re.MULTILINE)


def short_page(text: str, folder: Path, command: str, synthetic: bool) -> str:
    """The page: self-contained, readable without scripts and on paper.

    Args:
        text: in Markdown; its first line is the title, and a line such as `![what it shows](figures/one.png)` a figure.
        folder: that the figures are in; one that is missing is left out.
        command: of monai-cae, that has made it.
        synthetic: the images are a phantom's.
    """
    title, _, rest = text.partition("\n")
    parts: list[str | Embedded | None] = []
    for number, part in enumerate(_FIGURE.split(rest)):
        if number % 3 == 1:
            shows = part
        else:
            parts.append(part if number % 3 == 0 else drawn_before(folder / part, shows))
    return render(
        "short.html",
        title=title.lstrip("# "),
        parts=[part for part in parts if part],
        command=command,
        synthetic=synthetic,
        disclaimer=DISCLAIMER,
        version=__version__,
    )
