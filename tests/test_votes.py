"""Samples that vote: from pretraining to the samples' tables of a test, a package, another cohort and an experiment."""

from __future__ import annotations

import json
import shutil
import sys
from collections import defaultdict
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from matplotlib.image import imread
from runs import rows_of, run_to_predictions
from scipy.special import expit, logit
from sklearn import metrics
from tiny import CONFIGS, mistake, write_discs

from monai_cae.cli import main
from monai_cae.experiment.earlier import left_in
from monai_cae.experiment.record import pool_places
from monai_cae.sharing import export_network
from monai_cae.training.results.samples import Places
from monai_cae.training.stages.earlier import files_of

SMALL = {"channels": [4, 8], "max_epochs": 1, "extraction#slices": 3, "extraction#step": 2}
SLICES = ["axial slice 9", "axial slice 11", "axial slice 13"]
HISTOGRAM = {"network_def#histogram": 4}
VARIANTS = {
    "attention": {"classifier": {"votes": "attention"}},
    "together": {"classifier": {"votes": "none"}},
    "cooled": {"train": {"calibrate": True}},
    "probe": {"classifier": {"network_def#hidden": [], "network_def#pooling": 1}, "train": {"learn": "linear_probe"}},
}
VOTING = ["network", "attention", "cooled", "probe"]


@pytest.fixture(autouse=True)
def own_process(monkeypatch):
    """What a command changes in its process stays in its test."""
    monkeypatch.setattr(sys, "argv", sys.argv)
    monkeypatch.setattr(sys, "excepthook", sys.excepthook)


@pytest.fixture(scope="module")
def made(run_bundle, discs, tmp_path_factory):
    """The folder of an experiment's first part, and what its package predicts of the scans of disc1."""
    folder = tmp_path_factory.mktemp("votes")
    options = {"variants": VARIANTS, "stages#classifier": HISTOGRAM, **SMALL}
    return run_to_predictions(run_bundle, discs, folder, "with_slices.yaml", **options)


def folder_of(made: Path, method: str) -> Path:
    return made if method == "network" else made / "variants" / method


def votes_of(rows: list[dict[str, str]], column: str = "probability") -> dict[str, np.ndarray]:
    found = defaultdict(list)
    for row in rows:
        found[row["subject"]].append(float(row[column]))
    return {subject: np.array(values) for subject, values in found.items()}


def predicted_of(rows: list[dict[str, str]], column: str = "probability") -> dict[str, float]:
    return {row["subject"]: float(row[column]) for row in rows}


def test_a_subject_is_one_row_and_its_samples_are_in_a_table_beside(made):
    run, _ = made
    for method in VOTING:
        samples = rows_of(folder_of(run, method) / "samples.csv")
        tested = rows_of(folder_of(run, method) / "predictions.csv")
        assert list(samples[0]) == ["subject", "scan", "sample", "label", "probability", "weight"]
        assert len(tested) == 8 and len(samples) == 24
        assert [row["sample"] for row in samples] == SLICES * 8
        assert [(row["subject"], row["label"]) for row in samples[::3]] == [
            (row["subject"], row["label"]) for row in tested
        ]
        assert {row["scan"] for row in samples} == {"1"}
        for weights in votes_of(samples, "weight").values():
            assert weights.sum() == pytest.approx(1, abs=2e-6)
    assert not (folder_of(run, "together") / "samples.csv").exists()


@pytest.mark.parametrize("method", ["network", "probe"])
def test_the_samples_mean_is_the_subjects_probability(made, method):
    folder = folder_of(made[0], method)
    votes, tested = votes_of(rows_of(folder / "samples.csv")), predicted_of(rows_of(folder / "predictions.csv"))
    for subject, probability in tested.items():
        assert votes[subject].mean() == pytest.approx(probability, abs=1e-5)
    assert max(np.ptp(one) for one in votes.values()) > 1e-3


def test_a_calibration_divides_the_logit_of_the_mean(made):
    folder = folder_of(made[0], "cooled")
    votes, tested = votes_of(rows_of(folder / "samples.csv")), predicted_of(rows_of(folder / "predictions.csv"))
    factor = float(torch.load(folder / "models" / "model.pt", weights_only=True)["head.factor"])
    assert abs(factor - 1) > 0.01
    for subject, probability in tested.items():
        assert expit(factor * logit(votes[subject].mean())) == pytest.approx(probability, abs=1e-3)


def test_attention_differs_from_subject_to_subject(made):
    weights = votes_of(rows_of(folder_of(made[0], "attention") / "samples.csv"), "weight")
    assert len({tuple(one) for one in weights.values()}) > 1


def test_a_package_and_the_runs_folder_give_the_same_votes(made, run_bundle, discs, tmp_path, capsys):
    run, predicted = made
    samples = rows_of(run.parents[1] / "predicted" / "samples.csv")
    assert list(samples[0]) == ["subject", "file", "sample", "probability", "weight"]
    votes, tested = votes_of(samples), votes_of(rows_of(run / "samples.csv"))
    assert len(samples) == 3 * len(predicted) and {row["file"] for row in samples} == {row["file"] for row in predicted}
    both = votes.keys() & tested.keys()
    assert both and all(np.abs(votes[subject] - tested[subject]).max() < 1e-5 for subject in both)
    for row in predicted:
        assert votes[row["subject"]].mean() == pytest.approx(float(row["probability"]), abs=1e-5)
    command = ["predict", str(run), str(discs / "disc1"), str(tmp_path / "out"), "--device", "cpu"]
    assert main(command) == 0
    written = tmp_path / "out" / "samples.csv"
    assert f"samples      {written}" in capsys.readouterr().out
    assert [row["probability"] for row in rows_of(written)] == [row["probability"] for row in samples]
    (tmp_path / "out" / "predictions.csv").unlink()
    assert "samples.csv already exists: --overwrite true replaces it" in mistake(main, command)
    other = {"checkpoint": str(run / "variants" / "together" / "models" / "model.pt"), "votes": "none", **HISTOGRAM}
    given = {**other, "overwrite": True, **{name: value for name, value in SMALL.items() if name != "max_epochs"}}
    run_bundle(["inference.json", "with_slices.yaml"], discs / "disc1", tmp_path / "out", run_id="run", **given)
    assert (tmp_path / "out" / "predictions.csv").is_file() and not written.exists()  # its samples do not vote


def test_an_experiment_pools_the_samples_and_scores_each(made):
    output = made[0].parent
    pooled = rows_of(output / "samples.csv")
    assert list(dict.fromkeys(row["method"] for row in pooled)) == VOTING
    scored = {(row["method"], row["sample"], row["score"]): row for row in rows_of(output / "sample_scores.csv")}
    for method in VOTING:
        for sample in SLICES:
            rows = [row for row in pooled if (row["method"], row["sample"]) == (method, sample)]
            assert len(rows) == 8 == len({row["subject"] for row in rows})
            truth, found = (np.array([float(row[name]) for row in rows]) for name in ("label", "probability"))
            accuracy, auc = (scored[method, sample, score] for score in ("accuracy", "auc"))
            assert float(accuracy["mean"]) == pytest.approx(metrics.accuracy_score(truth, found >= 0.5), abs=1e-4)
            assert float(auc["mean"]) == pytest.approx(metrics.roc_auc_score(truth, found), abs=1e-4)
            assert accuracy["subjects"] == "8"  # not 24
            low, high = float(accuracy["low"]), float(accuracy["high"])
            assert high - low > 0.3  # Wilson's of 8 subjects; of 24 samples it would be narrower
    page = (output / "results.md").read_text()
    assert page.count("| axial slice 11 |") == len(VOTING) and "## Each sample by itself" in page
    assert (output / "figures" / "samples.png").is_file()
    drawn = [folder_of(made[0], method) / "figures" / "evaluate_samples.png" for method in (*VOTING, "together")]
    assert [path.is_file() for path in drawn] == [True, True, True, True, False]


def test_they_are_known_as_files_of_the_stage_and_of_the_experiment(made):
    run, _ = made
    assert run / "samples.csv" in files_of("evaluate", run)
    known = left_in(run.parent)
    assert {run / "samples.csv", run.parent / "samples.csv", run.parent / "sample_scores.csv"} <= {*known}
    assert run.parent / "figures" / "samples.png" in known


@pytest.mark.parametrize("method", [pytest.param("network", marks=pytest.mark.slow), "attention"])
def test_exports_agree(made, tmp_path, method):
    run, _ = made
    package = Path(shutil.copytree(run.parents[1] / "cae", tmp_path / "cae"))
    config = json.loads((package / "configs" / "inference.json").read_text())
    config["votes"] = "mean" if method == "network" else method
    (package / "configs" / "inference.json").write_text(json.dumps(config))
    for name in ("a.ts", "a.onnx"):
        weights = folder_of(run, method) / "models" / "model.pt"
        assert export_network(package, tmp_path / name, checkpoint=weights).passed


def test_another_cohort_has_the_samples_of_each_scan_and_of_each_subject(made, tmp_path):
    others = write_discs(tmp_path / "others", subjects=12, first=24)
    assert main(["evaluate", str(made[0]), str(others), str(tmp_path / "out"), "--device", "cpu"]) == 0
    scans, people = (rows_of(tmp_path / "out" / name) for name in ("samples_scans.csv", "samples.csv"))
    assert len(scans) == len(people) == 3 * 12
    assert "scan" in scans[0] and "scan" not in people[0]
    votes = votes_of(people)
    for subject, probability in predicted_of(rows_of(tmp_path / "out" / "predictions.csv")).items():
        assert votes[subject].mean() == pytest.approx(probability, abs=1e-5)
    assert "| network | axial slice 9 |" in (tmp_path / "out" / "results.md").read_text()
    assert len(rows_of(tmp_path / "out" / "sample_scores.csv")) == 6


def test_patches_have_a_map_and_pseudonyms_where_the_predictions_have_them(run_bundle, discs, tmp_path):
    given = {"image_size": 12, "extraction#spacing_mm": 1, "extraction#size": 16, "extraction#step": 4}
    options = {"channels": [2, 4], "max_epochs": 1, "repeats": 1, "hash_ids": True, **given}
    run_bundle(["experiment.yaml", "with_patches.yaml"], discs, tmp_path / "out", **options)
    run = tmp_path / "out" / "repeat_1"
    votes, tested = votes_of(rows_of(run / "samples.csv")), predicted_of(rows_of(run / "predictions.csv"))
    assert votes.keys() == tested.keys() and not any("OAS1" in subject for subject in tested)
    for subject, probability in tested.items():
        assert len(votes[subject]) == 8 and votes[subject].mean() == pytest.approx(probability, abs=1e-5)
    drawn = run / "figures" / "evaluate_samples.png", tmp_path / "out" / "figures" / "samples.png"
    assert len({imread(path).shape for path in drawn}) == 1  # maps; bars have another
    assert run / "sample_places.npz" in files_of("evaluate", run)
    assert "OAS1" not in (tmp_path / "out" / "samples.csv").read_text()


def test_the_map_of_an_experiment_is_over_the_mean_of_all_test_images(tmp_path):
    """Three subjects of one fold, one of the other."""
    boxes = [(slice(0, 2), slice(1, 3), slice(2, 4)), (slice(2, 4), slice(1, 3), slice(2, 4))]
    for fold, value in ((1, 0.2), (2, 1.0)):
        folder = tmp_path / f"repeat_1/fold_{fold}/variants/small"
        folder.mkdir(parents=True)
        Places(np.full((4, 4, 4), value, np.float32), boxes).write(folder / "sample_places.npz")
    parts = [{"folder": f"repeat_1/fold_{fold}", "repeat": 1, "fold": fold, "variants": ["small"]} for fold in (1, 2)]
    samples = pd.DataFrame({"method": "small", "subject": [*"AABBCCDD"], "repeat": 1, "fold": [1] * 6 + [2] * 2})
    found = pool_places(parts, samples, tmp_path)
    assert found.boxes == boxes
    np.testing.assert_allclose(found.volume, np.full((4, 4, 4), 0.4), rtol=1e-6)
    assert pool_places(parts, samples.assign(method="network"), tmp_path) is None  # no patches
    assert pool_places(parts, pd.DataFrame(), tmp_path) is None


def test_votes_about_a_number_are_averaged(run_bundle, discs, tmp_path):
    number = str(CONFIGS.parents[1] / "examples" / "with_brain_volume.yaml")
    config = ["experiment.yaml", "with_slices.yaml", number]
    run_bundle(config, discs, tmp_path / "out", repeats=1, **SMALL)
    run = tmp_path / "out" / "repeat_1"
    votes = votes_of(rows_of(run / "samples.csv"), "nwbv")
    tested = predicted_of(rows_of(run / "predictions.csv"), "nwbv")
    for subject, value in tested.items():
        assert votes[subject].mean() == pytest.approx(value, abs=2e-6)
    scored = rows_of(tmp_path / "out" / "sample_scores.csv")
    assert {row["score"] for row in scored} == {"mae"} and len(scored) == 3  # the headline
    assert (tmp_path / "out" / "figures" / "samples.png").is_file()


def test_a_slice_has_no_votes(run_bundle, discs, tmp_path):
    said = mistake(run_bundle, "train.json", discs, tmp_path / "out", pretrained="none", votes="mean")
    assert "votes mean is for images of several samples, and these have one: set votes to none, or take" in said
    assert not list(tmp_path.rglob("*.pt"))
