"""A package of a network that takes numbers of the table beside the image."""

from __future__ import annotations

import csv
import json

import monai.bundle
import pytest

from monai_cae.cli import main


def test_unpacked_package_predicts_what_the_run_did(run_bundle, discs, tmp_path):
    run = tmp_path / "run"
    head = {"network_def#pooling": 1, "network_def#hidden": [], "covariates": {"age": [70, 8], "sex": [0, 1]}}
    run_bundle("pretrain.json", discs, run, max_epochs=1)
    run_bundle("train.json", discs, run, **head, learn="frozen", learning_rate=0.5)
    run_bundle("evaluate.json", discs, run, **head, threshold="youden")
    assert main(["package", str(tmp_path / "cae.zip"), "--output_dir", str(run)]) == 0
    assert main(["bundle", str(tmp_path / "cae"), "--from", str(tmp_path / "cae.zip")]) == 0
    config = json.loads((tmp_path / "cae" / "configs" / "inference.json").read_text())
    assert config["covariates"] == {"age": [70, 8], "sex": [0, 1]}
    assert config["threshold"] == json.loads((run / "results_evaluate.json").read_text())["threshold"]
    table = str(discs / "oasis_cross-sectional.csv")
    path = str(tmp_path / "cae" / "configs" / "inference.json")
    given = {"dataset_dir": str(discs), "output_dir": str(tmp_path / "new"), "table": table, "device": "cpu"}
    monai.bundle.run(run_id="run", config_file=path, **given)
    with (run / "predictions.csv").open() as file:
        expected = {row["subject"]: (row["probability"], row["prediction"]) for row in csv.DictReader(file)}
    with (tmp_path / "new" / "predictions.csv").open() as file:
        rows = {row["file"]: (row["probability"], row["prediction"]) for row in csv.DictReader(file)}
    found = {subject: next(v for name, v in rows.items() if subject in name) for subject in expected}
    for subject, (probability, prediction) in expected.items():
        assert float(found[subject][0]) == pytest.approx(float(probability), abs=2e-6)
        assert found[subject][1] == prediction
    assert len({probability for probability, _ in found.values()}) > 1
