from __future__ import annotations

import itertools
import math
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from numpy.typing import NDArray

from monai_cae.errors import MonaiCaeError
from monai_cae.evaluation import figures, image_figures, style

LABELS = [1, 1, 1, 1, 0, 0, 0, 0, 0, 0]
PROBABILITIES = [0.9, 0.8, 0.6, 0.3, 0.7, 0.55, 0.4, 0.3, 0.2, 0.1]
IMAGES = np.random.default_rng(0).random((5, 16, 16))
HISTORY: dict[str, list[tuple[float, float]]] = {
    "train_loss": [(1, 1.0), (2, 0.5), (3, 0.05)],
    "val_mse": [(1, 0.9), (3, 0.1)],
    "val_psnr": [(1, 10.0), (3, 20.0)],
    "val_psnr_brain": [(1, 8.0), (3, 18.0)],
    "val_auc": [(1, 0.5), (3, 0.8)],
}
SCORES: dict[str, list[float]] = {"accuracy": [0.7, 0.8, 0.75], "f1": [0.6, 0.7, 0.65], "auc": [0.8, 0.9, 0.85]}
ABOUT = "28 validation scans"
FIGURES: dict[str, Callable[[str], Figure]] = {
    "reconstructions": lambda note: image_figures.reconstructions(IMAGES, IMAGES / 2, note, ABOUT),
    "feature_maps": lambda note: image_figures.feature_maps({f"layer {n}": IMAGES for n in range(6)}, note, ABOUT),
    "training_curves": lambda note: figures.training_curves(HISTORY, note, {"best": 2, "fine-tuning starts": 3}, ABOUT),
    "roc_curve": lambda note: figures.roc_curve(LABELS, PROBABILITIES, note=note, about=ABOUT),
    "confusion_matrix": lambda note: figures.confusion_matrix(LABELS, PROBABILITIES, note=note, about=ABOUT),
    "repeats": lambda note: figures.repeats(SCORES, note, {"accuracy": 0.7466}, about=ABOUT),
}


@pytest.fixture(autouse=True)
def _warnings_are_errors() -> Iterator[None]:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        yield


def draw(figure: Figure) -> Any:
    canvas: Any = FigureCanvasAgg(figure)
    canvas.draw()
    return canvas


def pixels(axis: Any) -> NDArray[np.float64]:
    """Grey values of what lies inside the axes, first row on top, as a viewer sees it."""
    canvas = draw(axis.figure)
    x0, y0, x1, y1 = axis.get_window_extent().extents.round().astype(int)
    picture: NDArray[np.float64] = np.asarray(canvas.buffer_rgba())[..., :3].mean(axis=2)
    return picture[len(picture) - y1 : len(picture) - y0, x0:x1]


def axes(figure: Figure) -> list[Any]:
    return list(figure.axes)


def texts(axis: Any) -> list[str]:
    return [text.get_text() for text in axis.texts]


@pytest.mark.parametrize("name", FIGURES)
def test_note_is_below_everything_and_nothing_overlaps(name: Any) -> None:
    note = "Synthetic data, not real MRI"
    figure = FIGURES[name](note)
    renderer = draw(figure).get_renderer()
    [footer] = [text for text in figure.texts if text.get_text() == note]
    boxes = [axis.get_tightbbox(renderer) for axis in axes(figure) if axis.axison]
    assert footer.get_window_extent(renderer).y1 <= min(box.y0 for box in boxes)
    assert not any(one.padded(-2).overlaps(other) for one, other in itertools.combinations(boxes, 2))
    title = figure._suptitle.get_window_extent(renderer)
    assert title.y0 >= max(box.y1 for box in boxes) - 1
    for box in (*boxes, title, footer.get_window_extent(renderer)):
        assert box.x0 >= 0
        assert box.y0 >= 0
        assert box.x1 <= figure.bbox.x1 + 1
        assert box.y1 <= figure.bbox.y1 + 1


@pytest.mark.parametrize("name", FIGURES)
def test_no_note_no_footer_but_a_title_with_whom_it_is_about(name: Any) -> None:
    (title,) = FIGURES[name]("").texts
    what, about = title.get_text().split("\n")
    assert what and ABOUT in about


def test_reconstructions_content() -> None:
    originals = np.full((3, 16, 16), 0.5)
    offsets = np.array([0.1, 0.01, 0.0])
    figure = image_figures.reconstructions(originals, originals + offsets[:, None, None])
    rows = np.array(axes(figure)[:9]).reshape(3, 3)
    assert len(axes(figure)) == 10, "nine images and the colour bar of the errors"
    assert [axis.get_title() for axis in rows[0]] == ["20.0 dB", "40.0 dB", "identical"]
    assert [axis.get_ylabel() for axis in rows[:, 0]] == ["Original", "Reconstruction", "Absolute error"]
    values: Any = [[axis.images[0].get_array().mean() for axis in row] for row in rows]
    assert np.allclose(values, np.stack([np.full(3, 0.5), 0.5 + offsets, offsets]))
    limits = {axis.images[0].get_clim() for axis in rows[2]}
    assert len(limits) == 1, "errors share one scale"
    assert limits.pop() == (0, pytest.approx(0.1))
    assert {axis.images[0].get_clim() for axis in rows[:2].flat} == {(0, 1)}


def test_reconstructions_are_upright() -> None:
    image = np.zeros((1, 16, 24))
    image[0, 1, -2] = 1.0
    axis = axes(image_figures.reconstructions(image, image))[0]
    picture = pixels(axis)
    row, column = np.unravel_index(picture.argmax(), picture.shape)
    assert row < 0.2 * picture.shape[0], "the anterior end is on top"
    assert column < 0.2 * picture.shape[1], "the first index grows to the right"
    assert picture.shape[0] / picture.shape[1] == pytest.approx(24 / 16, rel=0.03)


@pytest.mark.parametrize(
    ("everywhere", "in_one_pixel", "ceiling"),
    [(0.1, 1.0, 0.1), (0.1, math.nan, 0.1), (0.1, math.inf, 0.1), (0.0, 0.4, 0.4), (0.0, 0.0, 1.0)],
    ids=["one bright error hides no other", "nor does nan", "nor does inf", "one error alone is seen", "no error"],
)
def test_scale_of_the_errors(everywhere: float, in_one_pixel: float, ceiling: float) -> None:
    outputs = np.full((1, 50, 50), everywhere)
    outputs[0, 0, 0] = in_one_pixel
    axis = axes(image_figures.reconstructions(np.zeros((1, 50, 50)), outputs))[2]
    assert axis.images[0].get_clim() == (0, pytest.approx(ceiling))


@pytest.mark.parametrize(
    ("originals", "outputs", "message"),
    [
        (np.zeros((9, 4, 4)), np.zeros((9, 4, 4)), r"1 to 8 images .*, not \(9, 4, 4\)"),
        (np.zeros((2, 1, 4, 4)), np.zeros((2, 1, 4, 4)), r"not \(2, 1, 4, 4\)"),
        (np.zeros((2, 4, 4)), np.zeros((1, 4, 4)), r"shape \(2, 4, 4\), not \(1, 4, 4\)"),
        (np.zeros((0, 4, 4)), np.zeros((0, 4, 4)), r"not \(0, 4, 4\)"),
    ],
)
def test_reconstructions_refuse(originals: Any, outputs: Any, message: Any) -> None:
    with pytest.raises(MonaiCaeError, match=message):
        image_figures.reconstructions(originals, outputs)


def tile(axis: Any, row: int, column: int, size: int) -> NDArray[np.float64]:
    """Mosaic tile as shown, first row on top."""
    image = axis.images[0]
    mosaic = np.ma.filled(image.get_array(), np.nan)
    mosaic = mosaic[::-1] if image.origin == "lower" else mosaic
    start = row * (size + 1), column * (size + 1)
    return mosaic[start[0] : start[0] + size, start[1] : start[1] + size]


def test_feature_maps_show_the_sixteen_most_active_channels_in_order() -> None:
    maps = np.full((17, 4, 4), 3.0)
    for channel in range(17):
        x, y = divmod(channel % 16, 4)
        maps[channel, x, y] += channel + 1
    axis = axes(image_figures.feature_maps({"Convolution 1": maps}))[0]
    for place, channel in enumerate(range(16, 0, -1)):
        shown = tile(axis, *divmod(place, 4), 4)
        x, y = divmod(channel % 16, 4)
        assert np.argwhere(shown == 1).tolist() == [[3 - y, x]], f"channel {channel}"
        assert shown.min() == 0


def test_feature_maps_titles_sizes_and_unused_places() -> None:
    figure = image_figures.feature_maps({"Convolution 1": np.ones((32, 8, 6)), "b": IMAGES, "c": IMAGES, "d": IMAGES})
    assert [axis.get_title() for axis in axes(figure) if axis.axison] == ["Convolution 1", "b", "c", "d"]
    assert axes(figure)[0].get_xlabel() == "16 of 32 channels, 8 \N{MULTIPLICATION SIGN} 6"
    assert axes(figure)[1].get_xlabel() == "5 of 5 channels, 16 \N{MULTIPLICATION SIGN} 16"
    assert np.isnan(tile(axes(figure)[1], 3, 3, 16)).all(), "no sixteenth channel"


def test_dead_channels_come_last_and_are_black() -> None:
    maps = np.full((3, 8, 8), 9.0)
    maps[2] = 0.0
    maps[2, 4, 4] = 0.001
    axis = axes(image_figures.feature_maps({"layer": maps}))[0]
    assert tile(axis, 0, 0, 8).max() == 1
    assert (tile(axis, 0, 1, 8) == 0).all()
    assert (tile(axis, 0, 2, 8) == 0).all()


@pytest.mark.parametrize(
    ("maps", "message"), [({}, "at least one layer"), ({"a": np.zeros((4, 4))}, r"maps\['a'\] .*, not \(4, 4\)")]
)
def test_feature_maps_refuse(maps: Any, message: Any) -> None:
    with pytest.raises(MonaiCaeError, match=message):
        image_figures.feature_maps(maps)


def test_no_axis_shows_scores_above_one() -> None:
    (axis,) = figures.training_curves({"val_auc": [(1, 1.0), (2, 1.0)]}).axes
    assert 1 < axis.get_ylim()[1] <= 1.02


def test_training_curves_group_metrics_into_panels() -> None:
    figure = figures.training_curves({"learning_rate": [(1, 1e-4), (2, 1e-5)], **HISTORY})
    lines = {axis.get_ylabel(): {line.get_label(): line for line in axis.lines} for axis in axes(figure)}
    assert {panel: list(names) for panel, names in lines.items()} == {
        "Loss": ["Training loss", "Validation MSE"],
        "PSNR (dB)": ["Validation PSNR", "Validation PSNR (brain)"],
        "Score": ["Validation AUC"],
        "Learning rate": ["Learning rate"],
    }
    assert lines["Loss"]["Training loss"].get_xydata().tolist() == [[1, 1.0], [2, 0.5], [3, 0.05]]
    assert len({line.get_color() for line in lines["Loss"].values()}) == 2
    assert len({axis.get_xlim() for axis in axes(figure)}) == 1, "one epoch axis for all"
    assert [axis.get_yscale() for axis in axes(figure)] == ["log", "linear", "linear", "linear"]


@pytest.mark.parametrize(
    ("values", "scale"),
    [([1.0, 0.11], "linear"), ([1.0, 0.09], "log"), ([1.0, 0.0], "linear"), ([1.0, math.nan], "linear")],
)
def test_log_scale_only_for_more_than_a_decade(values: Any, scale: Any) -> None:
    figure = figures.training_curves({"val_loss": list(enumerate(values))})
    draw(figure)
    axis = axes(figure)[0]
    assert axis.get_yscale() == scale
    figure.canvas.draw()
    assert not any("10^" in label.get_text() for label in axis.get_yticklabels(which="both"))


def test_marks_cross_every_panel_and_are_named() -> None:
    figure = figures.training_curves(HISTORY, marks={"best": 2, "fine-tuning starts": 3})
    for axis in axes(figure):
        upright = [line.get_xdata()[0] for line in axis.lines if line.get_label().startswith("_")]
        assert upright == [2, 3]
    assert texts(axes(figure)[0]) == ["best (2)", "fine-tuning starts (3)"]


def test_near_marks_do_not_cover_each_other() -> None:
    figure = figures.training_curves(HISTORY, marks={"fine-tuning starts": 2, "best epoch": 2})
    renderer = draw(figure).get_renderer()
    one, other = (text.get_window_extent(renderer) for text in axes(figure)[0].texts)
    assert not one.overlaps(other)


def test_first_epoch_alone_is_visible() -> None:
    figure = figures.training_curves({"train_loss": [(1, 0.5)], "val_auc": []})
    draw(figure)
    assert axes(figure)[0].lines[0].get_marker() == "o"
    assert all(float(tick).is_integer() for tick in axes(figure)[-1].get_xticks())


@pytest.mark.parametrize("history", [{}, {"train_loss": []}])
def test_training_curves_refuse_nothing(history: Any) -> None:
    with pytest.raises(MonaiCaeError, match="at least one"):
        figures.training_curves(history)


def test_roc_curve() -> None:
    axis = axes(figures.roc_curve(LABELS, PROBABILITIES))[0]
    _, curve, point = axis.lines
    # 3 of 4 AD and 2 of 6 HC lie at or above 0.5; AUC by counting pairs
    assert point.get_xydata() == pytest.approx(np.array([[2 / 6, 3 / 4]]))
    assert curve.get_label() == f"Classifier, AUC = {19.5 / 24:.3f}"
    x, y = curve.get_xydata().T
    assert (np.diff(x) * (y[1:] + y[:-1]) / 2).sum() == pytest.approx(19.5 / 24)
    assert point.get_label() == "Threshold 0.5: sensitivity 0.75,\nspecificity 0.67"
    assert curve.get_xydata()[0].tolist() == [0, 0] and curve.get_xydata()[-1].tolist() == [1, 1]
    assert axis.figure.get_suptitle() == "ROC curve\n4 AD, 6 HC"


def test_roc_curve_marks_the_threshold_in_use() -> None:
    axis = axes(figures.roc_curve(LABELS, PROBABILITIES, 0.65))[0]
    # 2 of 4 AD and 1 of 6 HC lie at or above 0.65
    assert axis.lines[-1].get_xydata() == pytest.approx(np.array([[1 / 6, 2 / 4]]))
    assert axis.lines[-1].get_label() == "Threshold 0.65: sensitivity 0.50,\nspecificity 0.83"


def test_roc_curve_needs_both_classes() -> None:
    with pytest.raises(MonaiCaeError, match="not 2 AD of 2 subjects"):
        figures.roc_curve([1, 1], [0.2, 0.9])


def test_confusion_matrix() -> None:
    axis = axes(figures.confusion_matrix(LABELS, PROBABILITIES))[0]
    draw(axis.figure)
    # true class in rows, HC first
    assert texts(axis) == ["4", "66.7%", "2", "33.3%", "1", "25.0%", "3", "75.0%"]
    names = ["HC", "AD"]
    assert [label.get_text() for label in axis.get_xticklabels()] == names
    assert [label.get_text() for label in axis.get_yticklabels()] == names
    heights = [text.get_window_extent().y0 for text in axis.texts]
    assert heights[0] > heights[4], "controls above patients"


def test_confusion_matrix_threshold_and_missing_class() -> None:
    axis = axes(figures.confusion_matrix([0, 0], [0.5, 0.7], threshold=0.6))[0]
    assert texts(axis) == ["1", "50.0%", "1", "50.0%", "0", "no subjects", "0", "no subjects"]
    assert axis.figure.get_suptitle() == "Confusion matrix\n2 subjects, threshold 0.6"


def test_repeats() -> None:
    axis = axes(
        figures.repeats(
            {"accuracy": [0.7, 0.8, 0.75], "f1": [0.6]}, reference={"accuracy": 0.7466}, reference_name="paper's"
        )
    )[0]
    dots = [line.get_ydata().tolist() for line in axis.lines if line.get_marker() == "o"]
    means = [line.get_ydata() for line in axis.lines if line.get_marker() == "D"]
    assert dots == [[0.7, 0.8, 0.75], [0.6]]
    assert np.ravel(means) == pytest.approx([0.75, 0.6])
    [bar, dashed, _] = [collection.get_segments()[0][:, 1] for collection in axis.collections]
    assert bar == pytest.approx([0.75 - 0.05, 0.75 + 0.05])
    assert dashed == pytest.approx([0.7466, 0.7466])
    names = [label.get_text() for label in axis.get_xticklabels()]
    assert names == ["Accuracy\n0.750 ± 0.050\ndashed: 0.747", "F1\n0.600"]
    assert axis.get_legend().get_texts()[-1].get_text() == "Paper's"


@pytest.mark.parametrize(
    ("values", "reference", "message"),
    [
        ({}, None, "at least one"),
        ({"f1": [0.5]}, {"auc": 0.5}, r"missing: \['auc'\]"),
        ({"f1": []}, None, "one repeat"),
    ],
)
def test_repeats_refuse(values: Any, reference: Any, message: Any) -> None:
    with pytest.raises(MonaiCaeError, match=message):
        figures.repeats(values, reference=reference)


@pytest.mark.usefixtures("drawn")
@pytest.mark.parametrize(("suffix", "start"), [(".png", b"\x89PNG"), (".pdf", b"%PDF"), ("", b"\x89PNG")])
def test_save_figure_writes_one_file(tmp_path: Any, suffix: Any, start: Any) -> None:
    path = tmp_path / "new" / f"figure{suffix}"
    path.parent.mkdir()
    path.write_bytes(b"old")
    assert style.save_figure(Figure((1, 1)), path) == path
    assert path.read_bytes().startswith(start)
    assert list(path.parent.iterdir()) == [path]


@pytest.mark.usefixtures("drawn")
def test_save_figure_replaces_and_does_not_overwrite(tmp_path: Path) -> None:
    path, link = tmp_path / "figure.png", tmp_path / "link.png"
    path.write_bytes(b"old")
    link.hardlink_to(path)
    style.save_figure(Figure((1, 1)), path)
    assert link.read_bytes() == b"old", "whoever reads the old file meanwhile reads it whole"
    assert path.read_bytes() != b"old"


@pytest.mark.usefixtures("drawn")
def test_save_figure_makes_the_folder_and_takes_the_resolution(tmp_path: Any) -> None:
    path = style.save_figure(Figure((2, 1)), tmp_path / "a" / "b" / "figure.png", dpi=50)
    # width and height stand at bytes 16 to 24 of a PNG
    assert np.frombuffer(path.read_bytes()[16:24], ">u4").tolist() == [100, 50]


def test_save_figure_that_fails_keeps_the_old_file(tmp_path: Any, monkeypatch: Any) -> None:
    path = tmp_path / "figure.png"
    path.write_bytes(b"old")

    def break_off(self: Figure, name: Path, **_: Any) -> None:
        name.write_bytes(b"half")
        raise OSError("disk full")

    monkeypatch.setattr(Figure, "savefig", break_off)
    with pytest.raises(MonaiCaeError, match="disk full"):
        style.save_figure(Figure(), path)
    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]
