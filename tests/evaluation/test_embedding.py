"""What a page is made of: figures as SVG in the page's colours, pictures as WebP, Markdown as HTML."""

from __future__ import annotations

import base64
import io
import re

import numpy as np
import pytest
from matplotlib.figure import Figure
from PIL import Image

from monai_cae.evaluation.embedding import drawn_before, embedded, webp
from monai_cae.evaluation.style import BLUE, empty_figure, tidy
from monai_cae.templates.markdown import in_html

pytestmark = pytest.mark.usefixtures("drawn")


def a_figure() -> Figure:
    figure = empty_figure(4, 3, "Synthetic", "ROC curve\n60 subjects & more")
    axis = figure.subplots()
    axis.plot((0, 1), (0, 1), color=BLUE)
    tidy(axis, xlabel="1 < specificity")
    return figure


def test_a_figure_is_svg_with_text_in_the_colours_of_the_page():
    one = embedded(a_figure())
    assert (one.title, one.about) == ("ROC curve", "60 subjects & more")
    drawn = str(one.markup)
    assert drawn.startswith("<svg role") and drawn.rstrip().endswith("</svg>") and 'aria-label="ROC curve"' in drawn
    assert "1 &lt; specificity</text>" in drawn and "Synthetic</text>" in drawn and "60 subjects" not in drawn
    assert "var(--blue)" in drawn and "var(--ink)" in drawn and BLUE.lower() not in drawn
    assert not re.search(r"DejaVu|<metadata|href=.http|#fff", drawn) and "var(--font)" in drawn
    assert drawn == str(embedded(a_figure()).markup)


def test_a_figure_of_many_points_becomes_pixels():
    figure = a_figure()
    figure.axes[0].scatter(*np.random.default_rng(0).random((2, 20_000)))
    drawn = str(embedded(figure).markup)
    assert drawn.startswith('<img src="data:image/webp;base64,') and len(drawn) < 200_000


def test_pictures_are_webp_and_a_broken_file_is_none(tmp_path):
    grey = np.tile(np.arange(0, 240, 4, dtype=np.uint8), (40, 1))
    head, _, data = webp(grey).partition(",")
    with Image.open(io.BytesIO(base64.b64decode(data))) as image:
        assert head == "data:image/webp;base64" and image.size == (60, 40)
        assert np.abs(np.asarray(image.convert("L")).astype(int) - grey).mean() < 4
    path = tmp_path / "wide.png"
    Image.new("RGB", (2800, 700), "red").save(path)
    found = drawn_before(path, "Test: a > b")
    assert 'alt="Test: a &gt; b" width="1400" height="350"' in found.markup
    path.write_bytes(b"PNG?")
    assert drawn_before(path, "") is None


def test_markdown_is_html_and_never_markup_of_others():
    table = "| who | n |\n|---|---|\n| **a** `b` | 0.5 [0.4, 0.6] |\n| <i>x</i> | 12 |"
    made = str(in_html(f"## Names\n\n{table}\n\n- one\n- two & three\n\nEnd."))
    assert made.startswith("<h3>Names</h3>") and made.endswith(
        "<ul><li>one</li><li>two &amp; three</li></ul>\n<p>End.</p>"
    )
    assert "<th scope=row><b>a</b> <code>b</code></th><td class=number>0.5 [0.4, 0.6]</td>" in made
    assert "&lt;i&gt;x" in made and "<i>" not in made and made.count("<tr>") == 3
