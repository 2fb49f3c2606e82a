"""`monai-cae compare`: numbers as other libraries give them, and one line for whatever can't be compared."""

from __future__ import annotations

import itertools
import math
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg
from scipy import stats
from sklearn.metrics import roc_auc_score

from monai_cae.cli import main
from monai_cae.evaluation.comparison_figure import comparison_figure
from monai_cae.evaluation.curves import roc_band
from monai_cae.experiment.compare import compare_predictions
from monai_cae.experiment.load_runs import read_predictions

LABELS = np.repeat([0, 1], 12)


def table(seed: int, gain: float, repeats: int = 1) -> pd.DataFrame:
    """24 subjects, tested in every repeat."""
    rng = np.random.default_rng(seed)
    rows = [
        {"subject": f"S{number:02d}", "repeat": repeat, "fold": 1, "label": label,
         "probability": round(1 / (1 + math.exp(-gain * (label - 0.5) - rng.normal())), 6)}
        for repeat in range(1, repeats + 1)
        for number, label in enumerate(LABELS)
    ]  # fmt: skip
    return pd.DataFrame(rows)


def write(path: Path, content: pd.DataFrame) -> str:
    content.to_csv(path, index=False)
    return str(path)


@pytest.fixture
def two(tmp_path) -> list[str]:
    return [write(tmp_path / "good.csv", table(5, 1.2)), write(tmp_path / "weak.csv", table(2, 0.4))]


def written(folder: Path) -> pd.DataFrame:
    return pd.read_csv(folder / "comparison.csv").set_index("score")


def test_labels_may_be_rounded_otherwise(tmp_path, capsys):
    """A number of 10 to 90: with four decimals the same, with none another one."""
    rng = np.random.default_rng(0)
    content = pd.DataFrame({"subject": [f"S{n:02d}" for n in range(24)], "label": rng.uniform(10, 90, 24)})
    first = content.assign(predicted=content["label"] + rng.normal(size=24))
    given = [write(tmp_path / "first.csv", first)]
    for digits in (4, 0):
        other = content.assign(label=content["label"].round(digits), predicted=rng.uniform(10, 90, 24))
        given.append(write(tmp_path / f"{digits}.csv", other))
    assert main(["compare", *given[:2]]) == 0
    error = (first["predicted"] - first["label"]).abs().mean()
    (line,) = [line for line in capsys.readouterr().out.splitlines() if line.startswith("  first   ")]
    assert float(line.split()[1]) == pytest.approx(error, abs=0.005)
    assert main(["compare", given[0], given[2]]) == 1
    assert "different labels" in capsys.readouterr().err


@pytest.mark.usefixtures("drawn")
def test_scores_and_tests_are_what_other_libraries_say(two, tmp_path, capsys, in_browser):
    assert main(["compare", *two, "--out", str(tmp_path / "out")]) == 0
    rows = written(tmp_path / "out")
    good, weak = (pd.read_csv(path)["probability"].to_numpy() for path in two)
    for side, probabilities in (("first", good), ("other", weak)):
        assert rows.loc["auc", f"{side}_value"] == pytest.approx(roc_auc_score(LABELS, probabilities), abs=1e-6)
        right = (probabilities >= 0.5) == LABELS
        assert rows.loc["accuracy", f"{side}_value"] == pytest.approx(right.mean(), abs=1e-6)
        assert rows.loc["auc", f"{side}_low"] < rows.loc["auc", f"{side}_value"] < rows.loc["auc", f"{side}_high"]
    first, other = ((probabilities >= 0.5) == LABELS for probabilities in (good, weak))
    only = int(np.sum(first & ~other)), int(np.sum(other & ~first))
    assert min(only) > 0
    expected = stats.binomtest(only[0], sum(only)).pvalue
    assert rows.loc["accuracy", "p_paired"] == pytest.approx(expected, rel=1e-5)
    assert rows.loc["auc", "p_paired"] == pytest.approx(delong_by_pairs(good, weak), rel=1e-5)
    assert rows["subjects"].tolist() == [24, 24] and "p_corrected_t" not in rows
    assert rows.loc["auc", "low"] < rows.loc["auc", "difference"] < rows.loc["auc", "high"]
    out = capsys.readouterr().out
    assert "24 subjects (12 AD, 12 HC), 1 repeat, 1 test set" in out and "not a medical device" in out
    assert f"{rows.loc['auc', 'difference']:+.3f}" in out and "--train_subjects" not in out
    page = (tmp_path / "out" / "comparison.md").read_text()
    assert f"{rows.loc['accuracy', 'difference']:+.3f}" in page and page.startswith("# good against weak")
    assert (tmp_path / "out" / "comparison.png").stat().st_size > 10_000
    told = (tmp_path / "out" / "comparison.html").read_text()
    in_browser(tmp_path / "out" / "comparison.html")
    low = rows.loc["auc", "low"]
    assert ("No difference is shown" if low <= 0 else " is better") in told and told.count("<svg") == 2
    assert f"{rows.loc['auc', 'difference']:+.3f} [{low:+.3f}, " in told and "<script" not in told


def delong_by_pairs(ours: np.ndarray, other: np.ndarray) -> float:
    """DeLong's test as it is defined, over every pair of a patient and a control."""
    wins = []
    for scores in (ours, other):
        pairs = scores[LABELS == 1][:, None] - scores[LABELS == 0]
        wins.append((pairs > 0) + 0.5 * (pairs == 0))
    gain = wins[0] - wins[1]
    variance = gain.mean(axis=1).var(ddof=1) / 12 + gain.mean(axis=0).var(ddof=1) / 12
    return 2 * stats.norm.sf(abs(gain.mean()) / math.sqrt(variance))


def test_corrected_t_is_nadeau_and_bengios_over_the_repeats(tmp_path, capsys):
    tables = [table(seed, gain, repeats=4) for seed, gain in ((5, 1.2), (2, 0.4))]
    files = [write(tmp_path / f"{number}.csv", content) for number, content in enumerate(tables)]
    assert main(["compare", *files]) == 0
    assert "--train_subjects N" in capsys.readouterr().out
    assert main(["compare", *files, "--train_subjects", "96", "--out", str(tmp_path / "out")]) == 0
    aucs = [[roc_auc_score(rows["label"], rows["probability"]) for _, rows in one.groupby("repeat")] for one in tables]
    gains = np.subtract(*aucs)
    t = gains.mean() / math.sqrt((1 / 4 + 24 / 96) * gains.var(ddof=1))
    rows = written(tmp_path / "out")
    assert rows.loc["auc", "p_corrected_t"] == pytest.approx(2 * stats.t.sf(abs(t), 3), rel=1e-4)
    assert rows.loc["auc", "trials"] == 4 and rows.loc["auc", "repeats"] == 4
    assert rows.loc["auc", "first_value"] == pytest.approx(np.mean(aucs[0]), abs=1e-6)


def test_one_method_of_an_experiment(tmp_path, capsys):
    both = [table(1, 2).assign(method="network"), table(2, 0.4).assign(method="linear_svm")]
    folder = tmp_path / "experiment"
    folder.mkdir()
    path = write(folder / "predictions.csv", pd.concat(both))
    (folder / "summary.json").write_text('{"synthetic": true, "leaks": 2}')
    assert main(["compare", str(folder), f"{path}:linear_svm", "--out", str(tmp_path / "out")]) == 0
    assert capsys.readouterr().out.startswith("SYNTHETIC data, not real MRI, LEAKY, the scores are worthless\n")
    assert "**SYNTHETIC data" in (tmp_path / "out" / "comparison.md").read_text().splitlines()[2]
    rows = written(tmp_path / "out")
    assert rows["first"].unique() == ["experiment"] and rows["other"].unique() == ["experiment, linear SVM"]
    assert rows.loc["auc", "first_value"] == pytest.approx(roc_auc_score(LABELS, both[0]["probability"]), abs=1e-6)
    assert rows.loc["auc", "other_value"] == pytest.approx(roc_auc_score(LABELS, both[1]["probability"]), abs=1e-6)
    assert rows["data"].str.startswith("SYNTHETIC").all()
    other = write(tmp_path / "weak.csv", table(3, 0.2))
    assert main(["compare", str(folder), other, "--method", "linear_svm"]) == 0
    assert "experiment, linear SVM against" in capsys.readouterr().out


def test_threshold_is_what_the_decisions_tell(tmp_path):
    content = table(1, 2)
    for threshold in (0.3, 0.5, 0.8):
        taken = (content["probability"] >= threshold).astype(int)
        path = write(tmp_path / f"{threshold}.csv", content.drop(columns=["repeat", "fold"]).assign(prediction=taken))
        read = read_predictions(path).table
        assert ((read["probability"] >= read["threshold"]) == (taken == 1)).all()
    chosen = write(tmp_path / "chosen.csv", content.assign(threshold=0.7))
    assert read_predictions(chosen).table["threshold"].unique() == [0.7]


def test_three_at_once_each_against_the_first_under_names_apart(tmp_path, capsys):
    files = []
    for number in range(3):
        (tmp_path / str(number) / "same").mkdir(parents=True)
        files.append(write(tmp_path / str(number) / "same" / "predictions.csv", table(number, number)))
    assert main(["compare", *files, "--out", str(tmp_path / "out")]) == 0
    rows = written(tmp_path / "out")
    assert rows["first"].unique() == [files[0]] and list(rows["other"].unique()) == files[1:]
    assert "No correction for multiple comparisons" in capsys.readouterr().out


def test_order_of_the_rows_and_spelling_of_the_numbers_change_nothing(two, tmp_path, capsys):
    assert main(["compare", *two]) == 0
    expected = capsys.readouterr().out
    shuffled = pd.read_csv(two[1], dtype=str).sample(frac=1, random_state=0).assign(repeat="1.0")
    Path(two[1]).write_text("\ufeff" + shuffled.to_csv(index=False), encoding="utf-8")
    assert main(["compare", *two]) == 0
    assert capsys.readouterr().out == expected


GOOD = table(5, 1.2)
BAD = {
    "no column probability": GOOD.drop(columns="probability"),
    "has no row": GOOD[:0],
    "row 3 (subject S02): the probability must be between 0 and 1, not 1.5; 1 rows are wrong": GOOD.assign(
        probability=[0.5, 0.5, 1.5, *[0.5] * 21]
    ),
    "row 1 (subject S00): the probability must be a number, not blank; 24 rows": GOOD.assign(probability=np.nan),
    "the probability must be a number, not high": GOOD.assign(probability="high"),
    "the probability must be a number, not inf": GOOD.assign(probability=np.inf),
    "the label must be 0 (HC) or 1 (AD), not 2": GOOD.assign(label=2),
    "row 1: subject is blank": GOOD.assign(subject=""),
    "only one class, AD (label 1)": GOOD.assign(label=1),
    "subject S00 twice in repeat 1": pd.concat([GOOD, GOOD[:2]]),
    "gives 24 subjects both labels, the first is S00": pd.concat(
        [GOOD, GOOD.assign(repeat=2, label=1 - GOOD["label"])]
    ),
    "only one class in repeat 2, HC": pd.concat([GOOD, GOOD[:5].assign(repeat=2)]),
    "the threshold must be between 0 and 1, not 7": GOOD.assign(threshold=7),
    "predictions that no threshold": GOOD.assign(prediction=(GOOD["probability"] < 0.5).astype(int)),
    "lacks 2 that": GOOD[2:],
    "the first is S00": GOOD[2:],
    "has 1 that": pd.concat([GOOD, GOOD[:1].assign(subject="T01")]),
    "different labels, the first is S00: both must be tested by one rule": GOOD.assign(label=[1, *GOOD["label"][1:]]),
    "tested 24 subjects in different repeats or folds, the first is S00": GOOD.assign(fold=2),
    "tested 1 subjects in different repeats or folds, the first is S03": pd.concat(
        [GOOD.drop(3), GOOD[3:4].assign(fold=2)]
    ),
}


@pytest.mark.parametrize("message", BAD)
def test_a_table_that_cant_be_compared_is_one_line(two, message, tmp_path, capsys):
    write(Path(two[1]), BAD[message])
    assert main(["compare", *two, "--out", str(tmp_path / "out")]) == 1
    assert_one_line(capsys, message)
    assert not (tmp_path / "out").exists()


def assert_one_line(capsys, *messages: str) -> None:
    printed = capsys.readouterr()
    assert printed.err.startswith("error: ") and printed.err.count("\n") == 1 and not printed.out
    for message in messages:
        assert message in printed.err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "give two or more"),
        (["{good}"], "give two or more"),
        (["{good}", "{tmp}/none.csv"], "no file or folder"),
        (["{good}", "none.csv:linear_svm"], "no file or folder none.csv:linear_svm"),
        (["{good}", "{tmp}"], "has no predictions.csv"),
        (["{good}", "{good}"], "the same predictions"),
        (["{good}", "{tmp}/../{name}/good.csv"], "the same predictions"),
        (["{good}", "{weak}:network"], "has no column method"),
        (["{good}", "evaluate-1"], "evaluate-1 is neither a file nor a folder: for an MLflow run, give --tracking-uri"),
        (["{good}", "evaluate-1", "--tracking_uri", "sqlite:///{tmp}/no.db"], "no MLflow database"),
        (["{good}", "evaluate-1", "--tracking_uri", "{tmp}"], "tracking_uri must be sqlite:///FILE"),
        (["{good}", "evaluate-1", "--tracking_uri", "sqlite:///{good}"], "is not an MLflow database"),
        (["{good}", "{weak}", "--train_subjects", "-1"], "--train-subjects must be"),
    ],
)
def test_mistakes_on_the_command_line_are_one_line(two, arguments, message, tmp_path, capsys, monkeypatch):
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    names = {"good": two[0], "weak": two[1], "tmp": tmp_path, "name": tmp_path.name}
    assert main(["compare", *(argument.format(**names) for argument in arguments)]) == 1
    assert_one_line(capsys, message)


def test_a_broken_file_and_an_unknown_method_are_one_line(two, tmp_path, capsys):
    Path(two[1]).write_bytes(b"\xff\xfe\x00broken")
    assert main(["compare", *two]) == 1
    assert_one_line(capsys, "not a readable csv file")
    Path(two[1]).write_text("")
    assert main(["compare", *two]) == 1
    assert_one_line(capsys, "not a readable csv file")
    path = write(tmp_path / "several.csv", pd.concat([GOOD.assign(method=name) for name in ("network", "svm")]))
    assert main(["compare", two[0], f"{path}:tree"]) == 1
    assert_one_line(capsys, "has no method tree: it has network, svm")


def test_a_place_that_cant_be_written_is_one_line(two, tmp_path, capsys):
    (tmp_path / "out").write_text("a file")
    assert main(["compare", *two, "--out", str(tmp_path / "out")]) == 1
    assert "choose another --out" in capsys.readouterr().err


@pytest.fixture(scope="module")
def finished(run_bundle, discs, tmp_path_factory, tracking_uri) -> dict[str, Path]:
    """Two runs of evaluate.json on one split, with other thresholds, in one MLflow store."""
    output = tmp_path_factory.mktemp("a run")
    run_bundle("pretrain.json", discs, output)
    run_bundle("train.json", discs, output, max_epochs=1)
    for name, threshold in (("low", 0.0), ("high", 1.0)):
        run_bundle(
            "evaluate.json", discs, output, threshold=threshold, run_name=f"compared {name}", overwrite=True,
            predictions=str(output / name / "predictions.csv"),
        )  # fmt: skip
    return {name: output / name / "predictions.csv" for name in ("low", "high")}


def test_runs_are_found_in_mlflow_by_name_and_by_id(finished, tracking_uri, tmp_path, capsys, monkeypatch):
    from mlflow import MlflowClient

    monkeypatch.setenv("MLFLOW_TRACKING_URI", tracking_uri)
    client = MlflowClient(tracking_uri)
    experiments = [one.experiment_id for one in client.search_experiments()]
    [high] = client.search_runs(experiments, "attributes.run_name = 'compared high'")
    logged = {artifact.path for artifact in client.list_artifacts(high.info.run_id)}
    assert logged >= {"predictions.csv"}
    assert main(["compare", "compared low", high.info.run_id, "--out", str(tmp_path / "out")]) == 0
    rows = written(tmp_path / "out")
    labels, probabilities = (pd.read_csv(finished["low"])[name] for name in ("label", "probability"))
    assert rows["first"].unique() == ["compared low"] and rows["other"].unique() == ["compared high"]
    assert rows.loc["auc", "first_value"] == pytest.approx(roc_auc_score(labels, probabilities), abs=1e-6)
    # everybody is a patient below a threshold of 0, nobody is one from 1 on; half of the test subjects are
    assert rows.loc["accuracy", ["first_value", "other_value", "difference"]].tolist() == [0.5, 0.5, 0]
    assert rows.loc["accuracy", "p_paired"] == 1
    client.set_tag(high.info.run_id, "monai_cae.id", "a5c0ffee")  # the ID in results, at a server
    assert main(["compare", "compared low", "a5c0ffee", "--out", str(tmp_path / "by local id")]) == 0
    assert written(tmp_path / "by local id")["other"].unique() == ["compared high"]
    capsys.readouterr()
    assert main(["compare", "compared low", str(finished["low"].parent)]) == 0  # the same, from MLflow and from disk
    assert capsys.readouterr().out.count("+0.000 [+0.000, +0.000]") == 2


def test_a_run_that_is_none_is_one_line(finished, two, tracking_uri, capsys):
    given = ["--tracking_uri", tracking_uri]
    assert main(["compare", "compared low", "compared lower", *given]) == 1
    assert_one_line(capsys, "no run with ID or name compared lower")
    assert main(["compare", "compared low", two[0], *given]) == 1
    assert_one_line(capsys, "not the same subjects")
    from mlflow import MlflowClient

    client = MlflowClient(tracking_uri)
    [low] = client.search_runs(
        [one.experiment_id for one in client.search_experiments()], "attributes.run_name = 'compared low'"
    )
    assert main(["compare", "compared low", low.info.run_id, *given]) == 1
    assert_one_line(capsys, "the same predictions")
    for _ in range(2):
        client.create_run(low.info.experiment_id, run_name="a twin")
    assert main(["compare", "compared low", "a twin", *given]) == 1
    assert_one_line(capsys, "2 runs are called a twin: give the ID of one")
    bare = client.create_run(low.info.experiment_id, run_name="bare").info.run_id
    assert main(["compare", "compared low", bare, *given]) == 1
    assert_one_line(capsys, "has no predictions.csv")


def test_nothing_in_the_figure_overlaps_or_is_cut_off(tmp_path):
    note = "SYNTHETIC data, not real MRI"
    names = ("cae", "linear_svm", "Region volumes and a kernel with a rather long name")
    files = [write(tmp_path / f"{name}.csv", table(place, 2 - place)) for place, name in enumerate(names)]
    found = compare_predictions([read_predictions(path) for path in files], resamples=50)
    bands = {one.name: roc_band(one.table, np.random.default_rng(0), resamples=50) for one in found.compared}
    figure = comparison_figure(bands, found.scores, found.differences, note)
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    renderer = canvas.get_renderer()
    boxes = [axis.get_tightbbox(renderer) for axis in figure.axes]
    assert not any(one.padded(-2).overlaps(other) for one, other in itertools.combinations(boxes, 2))
    [footer] = [text for text in figure.texts if text.get_text() == note]
    for box in (*boxes, footer.get_window_extent(renderer)):
        assert box.x0 >= -1 and box.y0 >= 0 and box.x1 <= figure.bbox.x1 + 1 and box.y1 <= figure.bbox.y1 + 1
    shown = [text.get_text() for text in figure.axes[1].texts]
    for text, (_, row) in zip(shown, found.differences.iterrows(), strict=True):
        assert text.startswith(f"{row['difference']:+.3f}".replace("-", "\N{MINUS SIGN}"))
