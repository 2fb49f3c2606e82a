from __future__ import annotations

import itertools

import numpy as np
import pandas as pd
import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from simulated import predictions

from monai_cae.errors import MonaiCaeError
from monai_cae.evaluation import result_figures as figures
from monai_cae.evaluation.curves import roc_band
from monai_cae.evaluation.subgroups import subgroup_table
from monai_cae.evaluation.summary import summarise

TABLE = predictions()
FIRST = TABLE[TABLE["repeat"] == 1]
SHOWN = ("accuracy", "auc", "mcc", "ece", "calibration_slope", "calibration_intercept")
SUMMARY = summarise(TABLE, np.random.default_rng(0), scores=SHOWN, resamples=50)
GRADES = subgroup_table(TABLE, np.random.default_rng(0), by=("cdr",), resamples=50)
BAND = roc_band(TABLE, np.random.default_rng(0), resamples=50)
SIZES = pd.DataFrame({"subjects": [80, 20], "mean": [0.8, 0.7], "low": [0.7, 0.5], "high": [0.9, 0.8]})
MODELS = {"CAE, frozen encoder": SUMMARY, "Logistic regression on 128 components": SUMMARY}
ABOUT = "60 test subjects"
FIGURES = {
    "reliability_diagram": lambda note: figures.reliability_diagram(TABLE, SUMMARY, note, ABOUT),
    "roc_with_band": lambda note: figures.roc_with_band(BAND, SUMMARY, note, ABOUT),
    "auc_by_grade": lambda note: figures.auc_by_grade(GRADES, note, ABOUT),
    "learning_curve": lambda note: figures.learning_curve(
        {"CAE": SIZES, "Random": SIZES}, "auc", note, 0.5, about=ABOUT
    ),
    "forest_plot": lambda note: figures.forest_plot(
        MODELS, ("accuracy", "auc", "mcc"), note, {"accuracy": 0.7466}, about=ABOUT
    ),
}


def texts(figure: Figure) -> list[str]:
    return [text.get_text() for axis in figure.axes for text in (*axis.texts, *axis.get_xticklabels(), axis.title)]


def legend(figure: Figure) -> list[str]:
    return [text.get_text() for text in figure.axes[0].get_legend().get_texts()]


@pytest.mark.parametrize("name", FIGURES)
def test_note_is_below_everything_and_nothing_overlaps(name):
    note = "Synthetic data, not real MRI"
    figure = FIGURES[name](note)
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    renderer = canvas.get_renderer()
    [footer] = [text for text in figure.texts if text.get_text() == note]
    boxes = [axis.get_tightbbox(renderer) for axis in figure.axes]
    assert footer.get_window_extent(renderer).y1 <= min(box.y0 for box in boxes)
    assert not any(one.padded(-2).overlaps(other) for one, other in itertools.combinations(boxes, 2))
    title = figure._suptitle.get_window_extent(renderer)
    assert title.y0 >= max(box.y1 for box in boxes) - 1
    for box in (*boxes, title, footer.get_window_extent(renderer)):
        assert box.x0 >= -1
        assert box.y0 >= 0
        assert box.x1 <= figure.bbox.x1 + 1
        assert box.y1 <= figure.bbox.y1 + 1


@pytest.mark.parametrize("name", FIGURES)
def test_without_a_note_there_is_none_but_a_title_with_whom_it_is_about(name):
    (title,) = FIGURES[name]("").texts
    what, about = title.get_text().split("\n")
    assert what and about == ABOUT


def told(labels, probabilities, repeats=(1,)) -> pd.DataFrame:
    """What each repeat said of the same subjects, in the same words."""
    rows = {"subject": [f"S{place}" for place in range(len(labels))], "label": labels, "probability": probabilities}
    return pd.concat([pd.DataFrame(rows).assign(repeat=repeat, fold=1) for repeat in repeats])


def quarters(repeats=(1,)) -> pd.DataFrame:
    """40 subjects, of whom 1, 4, 6 and 9 of every ten have AD, with about these probabilities."""
    labels = np.concatenate([np.arange(10) < patients for patients in (1, 4, 6, 9)]).astype(int)
    return told(labels, np.repeat([0.12, 0.42, 0.62, 0.92], 10) + np.tile(np.arange(10) / 1000, 4), repeats)


@pytest.mark.parametrize("repeats", [(1,), (1, 2, 3)])
def test_reliability_diagram_shows_shares_of_ten_subjects(repeats):
    above, below = figures.reliability_diagram(quarters(repeats), SUMMARY).axes
    [dots] = [line for line in above.lines if line.get_marker() == "o"]
    expected = [[0.1245, 0.1], [0.4245, 0.4], [0.6245, 0.6], [0.9245, 0.9]]
    assert dots.get_xydata() == pytest.approx(np.array(expected))
    # of 1 of ten subjects, each counted once, the Wilson interval as Wilson's formula has it
    assert above.collections[0].get_segments()[0][:, 1] == pytest.approx([0.0179, 0.4042], abs=1e-4)
    heights = {round(bar.get_x(), 2): bar.get_height() for bar in below.patches if bar.get_height()}
    assert heights == {round(left, 2): 10 * len(repeats) for left in (0.1, 0.4, 0.6, 0.9)}
    assert below.get_ylabel() == ("Subjects" if len(repeats) == 1 else "Predictions")


@pytest.mark.parametrize("probabilities", [np.linspace(0.1, 0.9, 19), np.full(40, 0.5)], ids=["few", "alike"])
def test_reliability_diagram_says_what_is_too_little_for_bins(probabilities):
    labels = np.arange(len(probabilities)) % 2
    above, below = figures.reliability_diagram(told(labels, probabilities, (1, 2, 3)), SUMMARY).axes
    assert [line.get_marker() for line in above.lines] == ["None"], "the diagonal alone"
    assert "for two bins of 10 subjects" in above.texts[0].get_text()
    assert sum(bar.get_height() for bar in below.patches) == 3 * len(probabilities)


def test_reliability_diagram_tells_the_numbers_of_the_table():
    slope, intercept = (SUMMARY.loc[f"calibration_{name}"] for name in ("slope", "intercept"))
    title = figures.reliability_diagram(TABLE, SUMMARY).axes[0].get_title().replace("\N{MINUS SIGN}", "-")
    assert title == (
        f"Slope {slope['mean']:.3f} [{slope['low']:.3f}, {slope['high']:.3f}], ECE {SUMMARY.loc['ece', 'mean']:.3f}\n"
        f"Intercept {intercept['mean']:.3f} [{intercept['low']:.3f}, {intercept['high']:.3f}], means of 3 repeats"
    )


def test_reliability_diagram_of_what_has_no_slope():
    table = told([0, 1], [0.5, 0.5])
    summary = summarise(table, np.random.default_rng(0), resamples=20)
    title = figures.reliability_diagram(table, summary).axes[0].get_title()
    assert title == "Slope undefined, ECE 0.000\nIntercept 0.000"


def test_roc_with_band_tells_the_auc_of_the_summary():
    row = SUMMARY.loc["auc"]
    entries = legend(FIGURES["roc_with_band"](""))
    assert entries[-1] == f"Mean of 3 repeats, AUC {row['mean']:.3f}\n[{row['low']:.3f}, {row['high']:.3f}]"
    assert "One repeat" in entries
    (axis,) = FIGURES["roc_with_band"]("").axes
    assert figures.roc_with_band(BAND, SUMMARY).get_suptitle() == f"ROC curve\n{row['subjects']:.0f} test subjects"
    assert all(line.get_xydata()[0].tolist() == [0, 0] for line in axis.lines)
    single = roc_band(FIRST, np.random.default_rng(0), resamples=20)
    assert "One repeat" not in legend(figures.roc_with_band(single, SUMMARY))


def test_auc_by_grade_tells_how_many():
    shown = texts(figures.auc_by_grade(GRADES))
    counts = GRADES.set_index(["group", "score"])["subjects"]
    assert f"CDR 0.5\nn = {counts['0.5', 'auc']}" in shown
    title = figures.auc_by_grade(GRADES).get_suptitle()
    assert title == f"AUC by CDR, against CDR 0 (n = {counts['0', 'specificity']})"
    small = predictions(subjects=20)
    axis = figures.auc_by_grade(subgroup_table(small, np.random.default_rng(0), by=("cdr",), resamples=20)).axes[0]
    assert axis.get_title() == "hollow: fewer than 10,\ninterval too narrow"
    undefined = GRADES.assign(mean=np.nan, low=np.nan, high=np.nan)
    assert texts(figures.auc_by_grade(undefined)).count("undefined") == 2


def test_learning_curve_goes_by_size():
    axis = figures.learning_curve({"CAE": SIZES}, "auc").axes[0]
    assert axis.lines[0].get_xydata().tolist() == [[20, 0.7], [80, 0.8]]
    assert axis.get_ylabel() == "AUC, 95% interval"


def test_reference_says_whose_it_is():
    figure = figures.forest_plot(MODELS, ("accuracy",), reference={"accuracy": 0.7466}, reference_name="paper")
    assert "paper: 0.747" in texts(figure)
    axes = figures.learning_curve({"CAE": SIZES}, "auc", reference=0.5, reference_name="chance").axes[0]
    assert axes.get_legend().get_texts()[-1].get_text() == "Chance, 0.5"


def test_no_axis_shows_scores_that_there_are_not():
    one = SUMMARY.assign(mean=1.0, low=1.0, high=1.0)
    for table in (SUMMARY, one):
        (axis,) = figures.forest_plot({"one": table}, ("auc",)).axes
        assert axis.get_xlim()[1] <= 1.02 and axis.get_xticks().max() <= 1
        assert axis.get_xlim()[0] <= table.loc["auc", "low"]


def test_forest_plot_writes_the_numbers():
    row = SUMMARY.loc["auc"]
    figure = figures.forest_plot(MODELS, ("auc",))
    assert texts(figure).count(f"{row['mean']:.3f} [{row['low']:.3f}, {row['high']:.3f}]") == 2
    assert [label.get_text() for label in figure.axes[0].get_yticklabels()] == list(MODELS)
    # the first model stands on top, and out
    assert figure.axes[0].get_ylim()[0] > figure.axes[0].get_ylim()[1]
    many = figures.forest_plot({f"model {number}": SUMMARY for number in range(16)}, ("auc",)).axes[0].lines
    colours = [line.get_color() for line in many if line.get_marker() == "o"]
    assert len(set(colours[1:])) == 1 and colours[0] != colours[1]
    patients = summarise(TABLE[TABLE["label"] == 1], np.random.default_rng(0), scores=("auc",), resamples=20)
    assert "undefined" in texts(figures.forest_plot({"one": SUMMARY, "no AUC": patients}, ("auc",)))


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: figures.reliability_diagram(TABLE, SUMMARY.drop("ece")), "summary must have the row ece"),
        (lambda: figures.roc_with_band(BAND, SUMMARY.drop("auc")), "summary must have the row auc"),
        (lambda: figures.auc_by_grade(GRADES[GRADES["score"] != "auc"]), "at least one CDR grade"),
        (lambda: figures.learning_curve({}, "auc"), "at least one model"),
        (lambda: figures.learning_curve({"CAE": SIZES.drop(columns="low")}, "auc"), "curves.'CAE'. must have"),
        (lambda: figures.learning_curve({"CAE": SIZES.iloc[:0]}, "auc"), "curves.'CAE'. must have"),
        (lambda: figures.forest_plot({}), "at least one model"),
        (lambda: figures.forest_plot(MODELS, ()), "one score"),
        (lambda: figures.forest_plot(MODELS, ("brier",)), "summaries.'CAE, frozen encoder'. must have the row brier"),
    ],
)
def test_refuses(call, message):
    with pytest.raises(MonaiCaeError, match=message):
        call()
