"""A column of numbers as the target: one experiment, looked at from all sides, and what can't be one."""

from __future__ import annotations

import csv
import json
import math
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from scipy import stats
from sklearn import metrics
from sklearn.linear_model import RidgeCV
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from tiny import mistake, write_discs

from monai_cae.cli import main
from monai_cae.data import SliceExtraction, load_cohort, load_sets, split_cohort
from monai_cae.data.cohort.selection import CohortSettings
from monai_cae.data.layouts import read_scans
from monai_cae.networks import trained_with
from monai_cae.targets import Number


def write_people(root: Path, subjects: int = 24, first: int = 0, **changed: Any) -> Path:
    """Discs whose patients have a lower MMSE; `changed` has columns as functions of the row's number and its CDR."""
    write_discs(root, subjects, first)
    path = root / "oasis_cross-sectional.csv"
    with path.open(encoding="utf-8-sig") as file:
        rows = list(csv.DictReader(file))
    columns = {"MMSE": lambda i, cdr: 29 - 6 * (cdr > 0) - i % 3, **changed}
    for i, row in enumerate(rows, start=first):
        cdr = float(row["CDR"])
        row |= {name: make(i, cdr) for name, make in columns.items()}
    with path.open("w", encoding="utf-8", newline="") as file:
        table = csv.DictWriter(file, list(rows[0]))
        table.writeheader()
        table.writerows(rows)
    return root


@pytest.fixture(autouse=True)
def own_process(monkeypatch):
    """What a command changes in its process stays in its test."""
    monkeypatch.setattr(sys, "argv", sys.argv)
    monkeypatch.setattr(sys, "excepthook", sys.excepthook)


@pytest.fixture(scope="module")
def people(tmp_path_factory) -> Path:
    return write_people(tmp_path_factory.mktemp("people"))


PROBE = {"network_def#hidden": [], "network_def#pooling": 1}
PENALTY = {"code": 1, "histogram": 1, "covariates": 1}
BASELINES = ["mean", "table_ridge", "pixel_ridge", "pixel_kernel_ridge", "code_ridge"]
SETTINGS = {
    "split#kind": "kfold",
    "split#folds": 2,
    "repeats": 1,
    "max_epochs": 1,
    "channels": [4, 8],
    "stages#classifier": {"covariates": {"age": [70, 8]}},
    "variants#probe": {"classifier": PROBE, "train": {"learn": "linear_probe", "penalty": PENALTY}},
    "variants#half": {"train": {"training_share": 0.5}},
    "baselines": BASELINES,
}


@pytest.fixture(scope="module")
def done(run_bundle, people, tmp_path_factory) -> Path:
    """Two folds, with two variants and all baselines."""
    output = tmp_path_factory.mktemp("numbers") / "out"
    run_bundle(["experiment.yaml", "with_number.yaml"], people, output, **SETTINGS)
    return output


def test_scores_are_those_of_the_predictions(done):
    record = pd.read_csv(done / "predictions.csv")
    assert list(record) == ["method", "subject", "repeat", "fold", "label", "predicted", "cdr", "age", "sex"]
    assert set(record["method"]) == {"network", "probe", "half", *BASELINES}
    scores = pd.read_csv(done / "scores.csv", index_col=["method", "score"])
    for method, rows in record.groupby("method"):
        by_repeat = [
            (
                metrics.mean_absolute_error(*one[["label", "predicted"]].to_numpy().T),
                metrics.r2_score(*one[["label", "predicted"]].to_numpy().T),
            )
            for _, one in rows.groupby("repeat")
        ]
        assert len(by_repeat) == 1 and all(len(one) == 24 for _, one in rows.groupby("repeat"))
        mae, r2 = np.mean(by_repeat, axis=0)
        assert scores.loc[(method, "mae"), "mean"] == pytest.approx(mae, rel=1e-4)
        assert scores.loc[(method, "r2"), "mean"] == pytest.approx(r2, rel=1e-4)
        assert scores.loc[(method, "mae"), "low"] < mae < scores.loc[(method, "mae"), "high"]
    assert 0 < scores.loc[("network", "permutation_p"), "mean"] <= 1


def test_the_baselines_are_scikit_learns_without_the_column_itself(done, people):
    record = pd.read_csv(done / "predictions.csv")
    folder = done / "repeat_1" / "fold_2"
    sets = json.loads((folder / "datalist.json").read_text())
    known = pd.DataFrame(sets["training"] + sets["validation"])
    unseen = pd.DataFrame(sets["test"]).set_index("subject")
    ours = record[(record["repeat"] == 1) & (record["fold"] == 2)].set_index(["method", "subject"])["predicted"]
    assert ours["mean"].to_numpy() == pytest.approx(known["label"].mean(), abs=1e-6)

    def table(rows: pd.DataFrame) -> np.ndarray:
        return rows.assign(sex=(rows["sex"] == "M").astype(float))[["age", "sex", "nWBV", "Educ"]].to_numpy(float)

    ridge = make_pipeline(StandardScaler(), RidgeCV(alphas=[0.01, 0.1, 1, 10, 100, 1000]))
    expected = ridge.fit(table(known), known["label"]).predict(table(unseen))
    assert ours["table_ridge"][unseen.index].to_numpy() == pytest.approx(expected, abs=1e-5)


def test_each_method_is_tested_against_the_network_by_its_absolute_errors(done):
    record = pd.read_csv(done / "predictions.csv")
    record["error"] = (record["predicted"] - record["label"]).abs()
    wide = record.pivot(index=["subject", "repeat", "fold"], columns="method", values="error")
    found = pd.read_csv(done / "comparisons.csv", index_col="against")
    assert set(found["score"]) == {"mae"} and len(found) == 7
    for method, row in found.iterrows():
        apart = wide["network"] - wide[method]
        assert row["difference"] == pytest.approx(apart.mean(), rel=1e-3, abs=1e-4)
        assert row["p_paired"] == pytest.approx(stats.wilcoxon(apart.groupby("subject").mean()).pvalue, rel=1e-3)
        folds = apart.groupby(["repeat", "fold"]).mean()
        spread = math.sqrt((1 / 2 + 12 / 9) * folds.var())  # of 12 outside the test set three validate
        expected = 2 * stats.t(1).sf(abs(folds.mean()) / spread)
        assert row["p_corrected_t"] == pytest.approx(expected, rel=1e-2)


def test_mean_and_sd_of_the_training_labels_are_in_the_weights_and_nobody_elses(done):
    for part in ("repeat_1/fold_1", "repeat_1/fold_2"):
        sets = json.loads((done / part / "datalist.json").read_text())
        labels = [item["label"] for item in sets["training"]]
        for name in ("models/model.pt", "variants/probe/models/model.pt"):
            weights = torch.load(done / part / name, weights_only=True)
            assert weights["head.zero"].item() == pytest.approx(np.mean(labels), rel=1e-6)
            assert weights["head.unit"].item() == pytest.approx(np.std(labels), rel=1e-6)
    checkpoint = str(done / "repeat_1" / "fold_1" / "models" / "model.pt")
    assert trained_with(checkpoint)[checkpoint]["target"] == "Number('mmse')"


def test_the_linear_probe_tells_how_well_it_fits(done):
    folder = done / "repeat_1" / "fold_1" / "variants" / "probe"
    rows = pd.read_csv(folder / "predictions_validation.csv")
    results = json.loads((folder / "results_train.json").read_text())
    assert np.ptp(rows["predicted"]) > 0 and "fitted_loss" in results
    assert results["fitted_mae"] == pytest.approx((rows["predicted"] - rows["label"]).abs().mean(), rel=1e-4)


def test_pages_and_figures_are_about_a_number(done):
    page, card = (done / "results.md").read_text(), (done / "model_card.md").read_text()
    for text in (page, card):
        assert "mean absolute error" in text and "AUC" not in text and "HC" not in text and "AD)" not in text
    assert "p, 9,999 permutations" in page and "Wilcoxon" in page and "| pixel kernel ridge |" in page
    drawn = {path.name for path in (done / "figures").iterdir()}
    curves = {"learning_curve.png", "code_sizes.png"}
    assert drawn == {"methods.png", "target_scatter.png", "target_bland_altman.png", *curves}
    tested = {path.name for path in (done / "repeat_1" / "fold_1" / "figures").glob("evaluate_*")}
    explained = {"evaluate_explanations.png", "evaluate_explanations_groups.png", "evaluate_explanations_tests.csv"}
    explained |= {"evaluate_explanations_maps.npz"}
    assert tested == {"evaluate_scatter.png", "evaluate_bland_altman.png", "evaluate_decoder.png", *explained}
    assert "MMSE" in card and "Bland" in card


def test_a_finished_experiment_is_resumed_to_nothing(run_bundle, people, done, capsys):
    run_bundle(["experiment.yaml", "with_number.yaml"], people, done, resume=True, **SETTINGS)
    assert "nothing is left to do" in capsys.readouterr().out


@pytest.mark.usefixtures("drawn")
def test_compare_reads_numbers(done, tmp_path, capsys):
    assert main(["compare", str(done), f"{done}:mean", "--train-subjects", "9", "--out", str(tmp_path / "out")]) == 0
    said = capsys.readouterr().out
    known = pd.read_csv(done / "comparisons.csv", index_col="against").loc["mean"]
    (row,) = pd.read_csv(tmp_path / "out" / "comparison.csv").to_dict("records")
    for name in ("difference", "p_paired", "p_corrected_t"):
        assert row[name] == pytest.approx(known[name], rel=1e-3)
    assert "24 subjects, 1 repeat, 2 test sets" in said and "are smaller" in said and "AUC" not in said
    assert "mean absolute error" in (tmp_path / "out" / "comparison.md").read_text()
    assert (tmp_path / "out" / "comparison.png").stat().st_size > 5000


def test_numbers_are_not_compared_with_classes(done, tmp_path):
    classes = tmp_path / "classes.csv"
    classes.write_text("subject,label,probability\na,0,0.1\nb,1,0.7\n")
    assert main(["compare", str(done), str(classes)]) == 1


def test_a_package_and_a_run_predict_in_the_columns_units_and_are_tested_on_others(done, people, tmp_path, capsys):
    run, package = done / "repeat_1" / "fold_1" / "variants" / "probe", tmp_path / "cae.zip"
    assert main(["package", str(package), "--output-dir", str(done / "repeat_1" / "fold_1")]) == 0
    assert main(["bundle", str(tmp_path / "cae"), "--from", str(package)]) == 0  # nothing in it has to be trusted
    metadata = json.loads((tmp_path / "cae" / "configs" / "metadata.json").read_text())
    assert metadata["network_data_format"]["post_processed_outputs"]["pred"]["channel_def"] == {"0": "MMSE"}
    table = str(people / "oasis_cross-sectional.csv")
    for number, model in enumerate((tmp_path / "cae", done / "repeat_1" / "fold_1")):
        out = tmp_path / f"predicted {number}"
        assert main(["predict", str(model), str(people / "disc1"), str(out), "--table", table, "--device", "cpu"]) == 0
        found = pd.read_csv(out / "predictions.csv").set_index("subject")["predicted"]
        tested = pd.read_csv(done / "repeat_1" / "fold_1" / "predictions.csv").set_index("subject")["predicted"]
        both = found.index.intersection(tested.index)
        assert len(both) > 3 and found[both].to_numpy() == pytest.approx(tested[both].to_numpy(), abs=1e-3)
    assert "MMSE from" in capsys.readouterr().out
    # the same number under another name, and 20 people that the network has not seen
    others = write_people(tmp_path / "others", 20, 30, MMSE=lambda i, cdr: "", MMSCORE=lambda i, cdr: 25 - i % 4)
    number = str({"_target_": "monai_cae.targets.Number", "column": "MMSCORE", "name": "MMSE"})
    given = ["--target", number, "--device", "cpu", "--cohort#sessions", "all"]
    assert main(["evaluate", str(done / "repeat_1" / "fold_1"), str(others), str(tmp_path / "out"), *given]) == 0
    rows = pd.read_csv(tmp_path / "out" / "predictions.csv")
    summary = json.loads((tmp_path / "out" / "summary.json").read_text())
    assert len(rows) == 20 and sorted(rows["label"].unique()) == [22, 23, 24, 25]
    mae = metrics.mean_absolute_error(rows["label"], rows["predicted"])
    assert summary["scores"]["mae"]["mean"] == pytest.approx(mae, rel=1e-6)
    own = pd.read_csv(done / "repeat_1" / "fold_1" / "predictions.csv")
    before = summary["own_test"]["scores"]["mae"]
    assert before["mean"] == pytest.approx(metrics.mean_absolute_error(own["label"], own["predicted"]), rel=1e-4)
    assert before["low"] < before["mean"] < before["high"] and run.is_dir()


# --- what can't be a target


def selected(root: Path, target: Number, **settings: Any) -> Any:
    return CohortSettings(**settings).of(read_scans(root).scans, target)


@pytest.mark.parametrize(
    ("column", "make", "message"),
    [
        ("CDRSUM", lambda i, cdr: 4.5, "CDRSUM is 4.5 for all of 24 scans: nothing is to be learned"),
        ("CDRSUM", lambda i, cdr: "" if i % 3 else i, "16 of 24 scans have no CDRSUM, more than the share that t"),
        ("CDRSUM", lambda i, cdr: "low" if i == 3 else i, "the target CDRSUM is text: OAS1_0004_MR1 has 'low'; choose"),
        ("CDRSUM", lambda i, cdr: "inf", "the target CDRSUM is text: OAS1_0001_MR1 has 'inf'"),
        ("CDR SUM", lambda i, cdr: i, "the table has no column CDRSUM for the target: did you mean CDR SUM?"),
        ("other", lambda i, cdr: i, "no column CDRSUM for the target: there are ID, M/F, Age, Educ, CDR, MMSE, nWBV"),
    ],
)  # fmt: skip
def test_a_column_that_is_no_target_is_refused(tmp_path, column, make, message):
    root = write_people(tmp_path / "people", **{column: make})
    assert message in mistake(selected, root, Number("CDRSUM"))


def test_what_counts_as_not_given_is_told_and_what_may_mean_it(tmp_path, capsys):
    """A change of -1 or -4 is a number, which ADNI's codes take away; 999 is learned as one unless it is a code."""
    change = {0: -1, 1: -4, 2: -1, 3: -2, 4: "", 5: 999}
    root = write_people(tmp_path / "people", Change=lambda i, cdr: change.get(i, i % 7))
    cohort = selected(root, Number("change"))
    assert [note.text for note in cohort.notes] == [
        'Change -4 (1), -1 (2) count as "not given": where they are numbers, take them out of --missing-codes',
        'Change 999 may mean "not given": if so, add 999 to the numbers of --missing-codes',
    ]
    load_sets(root, tmp_path / "datalist.json", extraction=SliceExtraction(slice_index=11), target=Number("change"))
    said = capsys.readouterr().out
    assert 'note: Change -4 (1), -1 (2) count as "not given"' in said and "left out: 4 scans without change" in said
    cohort = selected(root, Number("Change"), missing_codes="999")
    assert {-1, -2, -4} < {scan.label for scan in cohort.scans} and len(cohort.scans) == 22
    assert selected(root, Number("age")).notes == ()


def test_fewer_than_twenty_subjects_and_settings_of_classes_are_refused(tmp_path):
    root = write_people(tmp_path / "people", 22, CDRSUM=lambda i, cdr: i if i < 19 else "")
    cohort = selected(root, Number("cdrsum"))
    assert len(cohort.scans) == 19 and cohort.left_out == {"scans without cdrsum": 3}
    said = mistake(split_cohort, cohort, target=Number("cdrsum"))
    assert said.startswith("only 19 subjects have cdrsum, and 20 are the fewest for a regression")
    assert len(split_cohort(selected(root, Number("MMSE")), target=Number("MMSE"))["test"]) == 7
    assert "cohort#controls is about classes" in mistake(selected, root, Number("MMSE"), controls="all")
    assert "target#column must be the name of a column" in mistake(Number, "")
    assert "target#most_missing must be from 0 to 1, not 2" in mistake(Number, "MMSE", most_missing=2)
    assert "MMSE is 25 for all training subjects" in mistake(Number("MMSE").fitted, [25, 25])


def test_age_is_read_in_years_and_any_columns_case_fits(people):
    ages = {scan.subject: scan.label for scan in selected(people, Number("AGE")).scans}
    assert ages == {scan.subject: scan.age for scan in read_scans(people).scans}
    volumes = [scan.label for scan in selected(people, Number("nwbv")).scans]
    assert volumes == pytest.approx([0.7 + i % 7 / 100 for i in range(24)])
    assert len(load_cohort(people).scans) == 24  # the diagnosis is what it was


def test_a_covariate_or_baseline_that_is_the_target_itself_is_not_taken(run_bundle, people, tmp_path):
    assert Number("age").without_label(["age", "sex", "nWBV"]) == ["sex", "nWBV"]
    age = {"_target_": "monai_cae.targets.Number", "column": "age"}
    given = {"target": age, "stages#classifier": {"covariates": {"age^2": [70, 8]}}, "repeats": 1}
    said = mistake(run_bundle, "experiment.yaml", people, tmp_path / "out", **given)
    assert "covariates: age^2 is what the network predicts; leave it out" in said
    given = {"target": age, "baselines": ["linear_svm"], "repeats": 1}
    said = mistake(run_bundle, "experiment.yaml", people, tmp_path / "out", **given)
    assert "names linear_svm, which is for classes, and the target is a number: there are mean, table_ridge" in said
    network = {"_target_": "monai_cae.networks.EncoderClassifier", "encoder": "@autoencoder_def#encoder"}
    given = {"target": age, "stages#classifier": {"network_def#number": False}, "repeats": 1}
    said = mistake(run_bundle, "experiment.yaml", people, tmp_path / "out", **given)
    assert "the network gives logits, and the target is a number: set network_def#number to true" in said, network
    years = write_people(tmp_path / "years", Years=lambda i, cdr: 60 + i)  # as Age has them
    copied = {"_target_": "monai_cae.targets.Number", "column": "Years"}
    for setting, value, who in (
        ("stages#classifier", {"covariates": {"age": [70, 8]}}, "covariates: age is"),
        ("baselines", ["table_ridge"], "table_ridge has the column age, which is"),
    ):
        said = mistake(
            run_bundle, "experiment.yaml", years, tmp_path / "out", target=copied, repeats=1, **{setting: value}
        )
        assert f"{who} what is predicted, in another unit or other steps, in all" in said
    assert not (tmp_path / "out" / "experiment.json").exists()


def test_target_on_the_command_line_names_a_column(people, tmp_path, capsys):
    """It gets as far as the first check of what the column is."""
    given = [str(people), str(tmp_path / "out"), "--target", "MMSS", "--repeats", "1"]
    said = mistake(main, ["run", *given])
    assert said == "the table has no column MMSS for the target: did you mean MMSE?"
    told = capsys.readouterr().out
    assert "--target \"{'_target_': 'monai_cae.targets.Number', 'column': 'MMSS'}\"" in told
    assert not (tmp_path / "out").exists()


def test_every_fold_has_all_quarters_of_the_numbers(people):
    cohort = selected(people, Number("age"))
    edges = np.quantile([scan.label for scan in cohort.scans], [0.25, 0.5, 0.75])
    for fold in range(1, 5):
        sets = split_cohort(cohort, target=Number("age"), kind="kfold", folds=4, fold=fold)
        quarters = np.bincount(np.searchsorted(edges, [scan.label for scan in sets["test"]]), minlength=4)
        assert len(sets["test"]) == 6 and set(quarters) <= {1, 2}
