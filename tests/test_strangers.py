"""Strangers, from pretraining to what a package says of a scan unlike all that it has learned from."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from deploy import Deploy
from runs import rows_of
from tiny import SHAPE, mistake, volume, write_pair

from monai_cae.cli import main
from monai_cae.evaluation.latent_figure import latent_map
from monai_cae.training.models.reference import Reference

SPLIT = {"split#val_fraction": 0.5}  # 8 training and 8 validation subjects


@pytest.fixture(scope="module")
def run(run_bundle, discs, tmp_path_factory) -> Path:
    out = tmp_path_factory.mktemp("strangers") / "run"
    run_bundle("pretrain.json", discs, out, max_epochs=20, channels=[4, 8], learning_rate=0.003, **SPLIT)
    run_bundle("train.json", discs, out, channels=[4, 8], **SPLIT)
    run_bundle("evaluate.json", discs, out, channels=[4, 8], **SPLIT)
    return out


@pytest.fixture(scope="module")
def package(run, tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("package")
    assert main(["package", str(folder / "cae.zip"), "--output-dir", str(run)]) == 0
    assert main(["bundle", str(folder / "cae"), "--from", str(folder / "cae.zip")]) == 0
    return folder / "cae"


@pytest.fixture(scope="module")
def scans(tmp_path_factory) -> Path:
    """Two scans like the training's, and one of stripes."""
    folder = tmp_path_factory.mktemp("scans")
    for number, seed in enumerate((100, 101)):
        write_pair(folder / f"ordinary_{number}.img", volume(seed, number))
    stripes = volume(102, 0)
    stripes[::2] = 0
    write_pair(folder / "stripes.img", stripes)
    return folder


def test_the_reference_is_of_the_training_scans_and_calibrated_on_validation(run):
    reference = Reference.load(run / "models" / "autoencoder_strangers.pt")
    assert reference.validation == 8 and reference.codes.shape[0] == 8 and reference.image == [1, 16, 16]


def test_every_test_subject_has_a_percentile(run):
    rows = rows_of(run / "predictions.csv")
    assert all(0 <= float(row["unlike"]) <= 100 for row in rows) and len(rows) == 8
    assert all(row["stranger"] == ("yes" if float(row["unlike"]) > 95 else "no") for row in rows)
    told = json.loads((run / "results_evaluate.json").read_text())["strangers"]
    marked = sum(row["stranger"] == "yes" for row in rows)
    assert told == {"scans": 8, "marked": marked, "limit": 95, "validation": 8}


def test_test_scans_are_drawn_on_the_map_of_the_trainings_code(run):
    assert (run / "figures" / "evaluate_latent_map.png").is_file()
    reference = Reference.load(run / "models" / "autoencoder_strangers.pt")
    known = reference.places(reference.codes)
    _, singular, _ = np.linalg.svd(reference.codes.numpy(), full_matrices=False)
    assert known.shape == (8, 2) and np.linalg.norm(known, axis=0) == pytest.approx(singular[:2], rel=1e-4)
    labels, unlike = np.arange(8) % 2, np.arange(8) == 5
    figure = latent_map(known, known, (0.5, 0.25), labels, 1 - labels, unlike, classes=True, about="8 test scans")
    said = [text.get_text() for text in figure.axes[0].get_legend().get_texts()]
    assert said == ["training (8)", "HC (4)", "AD (4)", "misclassified (8)", "unlike the training's (1)"]
    assert figure.axes[0].get_ylabel() == "component 2 (25 % of the variance)"
    number = latent_map(known, known, (0.5, 0.25), labels / 3, labels / 2, ~unlike & False, classes=False)
    assert any("largest errors" in text.get_text() for text in number.axes[0].get_legend().get_texts())


def test_a_run_and_its_package_tell_a_stranger_alike(run, package, discs, scans, tmp_path, capsys):
    for model in (run, package):
        assert main(["predict", str(model), str(scans), str(tmp_path / model.name)]) == 0
        said = capsys.readouterr().out
        assert "UNLIKE THE TRAINING'S: 1 of 3 scans are above percentile 95 of the 8 validation scans" in said
        assert "mean nothing: stripes (" in said and (tmp_path / model.name / "strangers.png").is_file()
    one, other = (rows_of(tmp_path / model.name / "predictions.csv") for model in (run, package))
    assert [row["stranger"] for row in one] == ["no", "no", "yes"] and all(row["probability"] for row in one)
    assert [row["unlike"] for row in one] == [row["unlike"] for row in other]
    assert main(["predict", str(package), str(discs / "disc1"), str(tmp_path / "again")]) == 0
    again = {row["subject"]: row["unlike"] for row in rows_of(tmp_path / "again" / "predictions.csv")}
    tested = {row["subject"]: row["unlike"] for row in rows_of(run / "predictions.csv")}
    both = again.keys() & tested.keys()
    assert both and all(abs(float(again[name]) - float(tested[name])) < 1e-3 for name in both)


@pytest.mark.usefixtures("drawn")
def test_a_strangers_prediction_is_withheld_if_asked(package, scans, tmp_path, capsys):
    assert main(["predict", str(package), str(scans), str(tmp_path), "--withhold", "true"]) == 0
    rows = rows_of(tmp_path / "predictions.csv")
    assert [bool(row["probability"]) for row in rows] == [bool(row["class"]) for row in rows] == [True, True, False]
    said = capsys.readouterr().out
    assert "are withheld: stripes (" in said and "1 predicted as AD, 1 as HC" in said


def test_strangers_are_told_and_withheld_in_chunks_alike(package, scans, tmp_path, capsys):
    command = ["predict", str(package), str(scans), str(tmp_path / "out"), "--withhold", "true"]
    assert main(command) == 0
    (before,) = [line for line in capsys.readouterr().out.splitlines() if "UNLIKE" in line]
    rows = rows_of(tmp_path / "out" / "predictions.csv")
    command[3] += " of chunks"
    assert main([*command, "--parquet", "--chunk", "2"]) == 0
    assert before in capsys.readouterr().out.splitlines()
    found = pd.read_parquet(tmp_path / "out of chunks" / "predictions")
    assert list(found.columns) == [*rows[0], "reason", "note", "group"]
    assert list(found["stranger"]) == ["no", "no", "yes"] and found.loc[2, ["probability", "class"]].isna().all()
    assert list(found["unlike"]) == pytest.approx([float(row["unlike"]) for row in rows], abs=1e-3)


def test_deploy_and_the_limit(package, volume_of_stripes, monkeypatch, capsys):
    """Deploy evaluates configs from the working directory, which is the bundle's here."""
    monkeypatch.chdir(package)
    assert Deploy(package)(volume_of_stripes)["probabilities"].shape == (1, 1)
    assert "UNLIKE THE TRAINING'S: this image" in capsys.readouterr().err
    deploy = Deploy(package)
    deploy.post.transforms[1].limit = 100  # nothing is above it
    deploy(volume_of_stripes)
    assert capsys.readouterr().err == ""


@pytest.fixture
def volume_of_stripes() -> np.ndarray:
    stripes = volume(102, 0)
    stripes[::2] = 0
    return stripes


def test_without_what_the_training_looked_like_nobody_is_told(run, package, scans, tmp_path, capsys):
    """A package of an earlier version, another autoencoder beside the file, a look that is not wanted."""
    older = Path(shutil.copytree(package, tmp_path / "older"))
    (older / "models" / "autoencoder_strangers.pt").unlink()
    sums = (older / "SHA256SUMS").read_text().splitlines(keepends=True)
    (older / "SHA256SUMS").write_text("".join(line for line in sums if "strangers" not in line))
    assert main(["predict", str(older), str(scans), str(tmp_path / "a")]) == 0
    told = capsys.readouterr().out
    assert "unlike the training's: not known, as" in told and "or with fewer than 5 scans in training or valid" in told
    assert "unlike" not in rows_of(tmp_path / "a" / "predictions.csv")[0]
    asked = mistake(main, ["predict", str(older), str(scans), str(tmp_path / "b"), "--withhold", "true"])
    assert "withhold needs to know which scans are unlike the training's, and this is not known" in asked

    other = Path(shutil.copytree(run, tmp_path / "other")) / "models"
    weights = torch.load(other / "autoencoder.pt", weights_only=True)
    torch.save(weights, other / "autoencoder.pt")  # the same weights in another file
    assert main(["predict", str(other / "model.pt"), str(scans), str(tmp_path / "c"), "--image_size", "16",
                 "--slice_index", "11", "--channels", "[4,8]"]) == 0  # fmt: skip
    assert "is about another autoencoder" in capsys.readouterr().out
    assert main(["predict", str(run), str(scans), str(tmp_path / "d"), "--unlike_limit", "0"]) == 0
    assert "unlike the training's" not in capsys.readouterr().out


def test_too_few_scans_are_told(run_bundle, discs, tmp_path, capsys):
    run_bundle("pretrain.json", discs, tmp_path, max_epochs=1, channels=[4, 8])
    said = capsys.readouterr().err
    assert "strangers, scans unlike the training's, can't be told by this autoencoder: 12 training and 4 val" in said
    assert [path.name for path in (tmp_path / "models").iterdir()] == ["autoencoder.pt"]


@pytest.mark.usefixtures("drawn")
def test_drift_tells_by_a_column_who_is_unlike_the_training(package, discs, tmp_path, capsys, in_browser):
    """A cohort of which one ward's scanner makes stripes."""
    cohort = Path(shutil.copytree(discs, tmp_path / "cohort"))
    table = pd.read_csv(cohort / "oasis_cross-sectional.csv", encoding="utf-8-sig", keep_default_na=False)
    table["ward"] = ["north" if number < 12 else "east" for number in range(24)]
    table.to_csv(cohort / "oasis_cross-sectional.csv", index=False)
    for path in (cohort / "disc2").rglob("*.img"):
        stripes = np.fromfile(path, dtype=">i2").reshape(SHAPE, order="F")
        stripes[::2] = 0
        write_pair(path, stripes)
    out = tmp_path / "out"
    assert main(["drift", str(package), str(cohort), str(out), "--by", "ward"]) == 0
    groups = {row["group"]: row for row in rows_of(out / "drift_groups.csv")}
    scans = rows_of(out / "drift.csv")
    assert int(groups["east"]["marked"]) == 12 and int(groups["north"]["marked"]) <= 3
    assert [row["ward"] for row in scans].count("east") == 12 == int(groups["east"]["subjects"])
    assert float(groups["east"]["p"]) == pytest.approx(0.05**12, rel=1e-3)
    in_browser(out / "drift.html")
    told = (out / "drift.html").read_text()
    assert "<th scope=row>east</th><td class=number>12</td>" in told and told.count("<img ") == 2
    assert "<script" not in told and "![" not in told
    page = (out / "drift.md").read_text()
    assert "| east | 12 |" in page and "Kruskal and Wallis" in page and "16 scans are of subjects" in page
    assert {path.name for path in (out / "figures").iterdir()} == {"drift.png", "strangers.png"}
    asked = ["drift", str(package), str(cohort), str(tmp_path / "b"), "--unlike_limit", "0"]
    assert mistake(main, asked) == "drift counts the scans above unlike_limit: give a percentile such as 95, not 0"
    assert "the table has no column site" in mistake(
        main, ["drift", str(package), str(cohort), str(tmp_path / "b"), "--by", "site"]
    )
