"""What stands where on the pages, read back from the figure and from its pixels."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import to_hex
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from monai_cae.errors import MonaiCaeError
from monai_cae.evaluation.contact_sheets import Tile, contact_sheet, leakage_figure
from monai_cae.evaluation.figures import BLUE, VERMILLION

IMAGES = np.random.default_rng(0).random((5, 8, 10))
NAMES = list("abcde")


def tiles(images, names, marks, **others) -> list[Tile]:
    shown = [[] if image is None else [image] for image in images]
    return [Tile(*one, **others) for one in zip(shown, names, marks, strict=True)]


def texts(figure: Figure) -> list[str]:
    return [text.get_text() for axis in figure.axes for text in axis.texts] + [text.get_text() for text in figure.texts]


def frames(figure: Figure) -> list[Rectangle]:
    patches: list[Any] = list(figure.axes[0].patches)
    return [patch for patch in patches if not patch.get_fill() and to_hex(patch.get_edgecolor()).upper() == VERMILLION]


def picture(figure: Figure) -> np.ndarray:
    canvas: Any = FigureCanvasAgg(figure)
    canvas.draw()
    return np.asarray(canvas.buffer_rgba())[..., :3].astype(float)


def test_marked_ones_come_first_and_are_framed():
    (figure,) = contact_sheet(tiles(IMAGES, NAMES, [False, True, False, True, False]), note="Synthetic data")
    words = texts(figure)
    assert [word for word in words if word in NAMES] == ["b", "d", "a", "c", "e"]
    assert "5 scans, 2 to look at (framed, first)" in words and "Synthetic data" in words
    shown = [np.asarray(image.get_array()) for image in figure.axes[0].images]
    for drawn, place in zip(shown, (1, 3, 0, 2, 4), strict=True):
        assert np.array_equal(drawn, IMAGES[place].T)
    boxes = [image.get_extent() for image in figure.axes[0].images]
    for frame, (left, right, bottom, top) in zip(frames(figure), boxes[:2], strict=True):
        x, y = frame.get_xy()
        assert x <= left < right <= x + frame.get_width() + 1e-9
        assert y <= bottom < top <= y + frame.get_height() + 1e-9
    assert boxes[0][0] < boxes[1][0] < boxes[2][0]


def test_anterior_is_up():
    image = np.zeros((8, 10))
    image[:, 5:] = 1  # the anterior half
    (figure,) = contact_sheet([Tile([image], "a")])
    pixels = picture(figure).mean(axis=2)
    left, right, bottom, top = (round(100 * inch) for inch in figure.axes[0].images[0].get_extent())
    shown = pixels[len(pixels) - top + 3 : len(pixels) - bottom - 3, left + 3 : right - 3]
    assert shown[: len(shown) // 3].min() > 250 and shown[-len(shown) // 3 :].max() < 5


def test_a_hundred_to_a_page():
    marks = [number >= 205 for number in range(210)]
    pages = contact_sheet(tiles(np.repeat(IMAGES, 42, axis=0), [f"n{i}" for i in range(210)], marks))
    assert [len(page.axes[0].images) for page in pages] == [100, 100, 10]
    assert [word for word in texts(pages[0]) if word.startswith("n") and word[1:].isdigit()][:6] == [
        "n205",
        "n206",
        "n207",
        "n208",
        "n209",
        "n0",
    ]
    assert [len(frames(page)) for page in pages] == [5, 0, 0]
    assert all(f"page {number} of 3" in texts(page) for number, page in enumerate(pages, start=1))
    assert "210 scans, 5 to look at (framed, first)" in texts(pages[2])


def test_missing_images_other_shapes_and_long_titles():
    titles = ["x" * 60, "b\nother shape, turned clockwise, and a good deal more than fits here, by far", "c\nwhy"]
    (figure,) = contact_sheet(tiles([None, IMAGES[0].T, IMAGES[0]], titles, [True, True, False]), columns=2)
    words = texts(figure)
    assert "no image" in words and len(figure.axes[0].images) == 2
    assert "x" * 21 + "…" in words
    (reasons,) = (word for word in words if word.startswith("b\n"))
    assert len(reasons.split("\n")) == 3 and reasons.endswith("…")
    left, right, bottom, top = figure.axes[0].images[0].get_extent()
    assert (right - left) / (top - bottom) == pytest.approx(10 / 8)
    lower = figure.axes[0].images[1].get_extent()
    assert lower[3] < bottom, "the third one starts a second row"
    picture(figure)
    canvas: Any = figure.canvas
    (title,) = (text for text in figure.axes[0].texts if text.get_text() == "c\nwhy")
    box = title.get_window_extent(canvas.get_renderer()).transformed(figure.dpi_scale_trans.inverted())
    assert lower[3] < box.y0 < box.y1 < frames(figure)[0].get_y(), "its title is between the rows"


@pytest.mark.parametrize(
    ("sides", "said"),
    [
        ([[("L", "A")], [("R", "S")]], "letters at the edges: sides of the body"),
        ([[], [("L", "A")]], "letters at the edges: sides of the body (not recorded for 1, shown as stored)"),
        ([[], []], "sides of the body not recorded, shown as stored"),
    ],
)
def test_classes_and_sides_stand_in_the_tiles(sides, said):
    pair = [Tile([IMAGES[0]], "a", group="AD", sides=sides[0]), Tile([IMAGES[1]], "b", group="HC", sides=sides[1])]
    (figure,) = contact_sheet(pair, about="axial slice 106")
    words = texts(figure)
    assert any(" ".join(word.split()) == f"axial slice 106; 1 AD, 1 HC; {said}" for word in words)
    assert [word for word in words if word in ("AD", "HC")] == ["AD", "HC"]
    letters = [letter for known in sides for both in known for letter in both]
    assert [word for word in words if word in list("LRAPSI")] == letters
    picture(figure)
    axis, canvas = figure.axes[0], figure.canvas
    for image, side in zip(axis.images, sides, strict=True):
        left, right, bottom, top = image.get_extent()
        inside = [
            text
            for text in axis.texts
            if left <= text.get_position()[0] <= right and bottom <= text.get_position()[1] <= top
        ]
        letters = {text.get_text(): text.get_window_extent(canvas.get_renderer()) for text in inside if text.get_text()}
        for first, second in side:  # the one at the left edge, the other on top
            assert letters[first].x1 < figure.dpi * (left + right) / 2
            assert letters[second].y0 > figure.dpi * (bottom + top) / 2


def test_a_clean_cohort_says_so():
    (figure,) = contact_sheet(tiles(IMAGES, NAMES, [False] * 5))
    assert "5 scans, none looks wrong" in texts(figure) and frames(figure) == []


@pytest.mark.parametrize(
    ("arguments", "match"),
    [
        (([],), "not be empty"),
        (([Tile([IMAGES[0, 0]], "a")],), r"\(h, w\), not \(10,\)"),
        (([Tile([IMAGES[0]], "a")], "", "", 0), "columns must be 1 or more, not 0"),
    ],
)
def test_refused(arguments, match):
    with pytest.raises(MonaiCaeError, match=match):
        contact_sheet(*arguments)


def test_the_figure_for_a_talk():
    figure = leakage_figure(0.994, 0.596, 0.5, note="Synthetic data")
    words = texts(figure)
    assert {"99.4%", "59.6%", "chance 50%", "Synthetic data"} <= set(words)
    assert "40 points of accuracy come from recognising subjects" in words
    bars: list[Any] = list(figure.axes[0].patches)
    widths = {to_hex(bar.get_facecolor()).upper(): bar.get_width() for bar in bars}
    assert widths[VERMILLION] == 0.994 and widths[BLUE] == 0.596
    # all of the text lies on the paper
    picture(figure)
    canvas: Any = figure.canvas
    for text in [*figure.axes[0].texts, *figure.texts]:
        box = text.get_window_extent(canvas.get_renderer())
        assert box.x0 >= 0 and box.y0 >= 0 and box.x1 <= figure.bbox.width and box.y1 <= figure.bbox.height


def test_no_claim_where_nothing_leaks():
    assert not any("points" in word for word in texts(leakage_figure(0.6, 0.6, 0.5)))


def test_accuracies_are_shares():
    with pytest.raises(MonaiCaeError, match=r"by_subject must be an accuracy from 0 to 1, not 59\.6"):
        leakage_figure(0.994, 59.6, 0.5)
    with pytest.raises(MonaiCaeError, match="chance"):
        leakage_figure(0.994, 0.6, float("nan"))
