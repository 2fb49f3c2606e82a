"""Prediction from a package: like its exports, with what is known and doubtful of the network."""

from __future__ import annotations

import csv
import json
import shutil
from pathlib import Path

import monai.bundle
import nibabel as nib
import numpy as np
import onnxruntime
import pytest
import torch
from tiny import CONFIGS

from monai_cae.cli import main

DOUBTS = ["DEAD CLASSIFIER: all subjects are classified as AD.", "A sentence of tomorrow, with 100 % and 3 < 4."]


def edit(path: Path, **changes: object) -> None:
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


@pytest.fixture(scope="module")
def run(finished_run, tmp_path_factory) -> Path:
    """A run that was evaluated in whatever precision is fast, and has doubts."""
    folder = Path(shutil.copytree(finished_run, tmp_path_factory.mktemp("runs") / "run"))
    edit(folder / "config_evaluate.json", precision="bfloat16")
    edit(folder / "results_evaluate.json", caveats=DOUBTS)
    return folder


@pytest.fixture(scope="module")
def bundle(run, tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("packages")
    assert main(["package", str(folder / "cae.zip"), "--output_dir", str(run)]) == 0
    assert main(["bundle", str(folder / "cae"), "--from", str(folder / "cae.zip")]) == 0
    return folder / "cae"


def predict(config: Path, scans: Path, out: Path, **settings: object) -> list[dict[str, str]]:
    given = {"dataset_dir": str(scans), "output_dir": str(out), "device": "cpu", **settings}
    monai.bundle.run(run_id="run", config_file=str(config / "configs" / "inference.json"), **given)
    with (out / "predictions.csv").open(encoding="utf-8") as file:
        return list(csv.DictReader(file))


def image(path: str) -> torch.Tensor:
    plane = np.asarray(nib.load(path).dataobj)[2:18, 4:20, 10, 0].astype(float)
    return torch.tensor((plane - plane.min()) / (plane.max() - plane.min()), dtype=torch.float32)[None]


def test_package_predicts_what_its_exports_do(bundle, discs, tmp_path):
    precisions = {
        name: json.loads((bundle / "configs" / f"{name}.json").read_text())["precision"]
        for name in ("evaluate", "inference")
    }
    assert precisions == {"evaluate": "bfloat16", "inference": "float32"}
    rows = predict(bundle, discs, tmp_path / "out")
    images = torch.stack([image(row["file"]) for row in rows])
    found = np.array([float(row["probability"]) for row in rows])
    for name in ("model.ts", "model.onnx"):
        assert main(["export", str(bundle), str(tmp_path / name)]) == 0
    scripted = torch.jit.load(tmp_path / "model.ts")(images)
    session = onnxruntime.InferenceSession(str(tmp_path / "model.onnx"), providers=["CPUExecutionProvider"])
    for logits in (scripted.detach().numpy(), session.run(["pred"], {"image": images.numpy()})[0]):
        np.testing.assert_allclose(1 / (1 + np.exp(-logits[:, 0])), found, atol=1e-5)
    half = predict(bundle, discs, tmp_path / "half", precision="bfloat16")
    assert [row["probability"] for row in half] != [row["probability"] for row in rows]


def test_predictions_name_subject_class_threshold_and_who_was_in_training(run, bundle, discs, tmp_path, capsys):
    rows = predict(bundle, discs, tmp_path / "out")
    sets = json.loads((run / "datalist.json").read_text())
    of_test = {item["subject"] for item in sets["test"]}
    assert len(rows) == 24 and {row["subject"] for row in rows} == {f"OAS1_{number:04d}" for number in range(1, 25)}
    for row in rows:
        assert row["subject"] in Path(row["file"]).name and row["threshold"] == "0.45"
        assert row["class"] == ("AD" if float(row["probability"]) >= 0.45 else "HC")
        assert row["prediction"] == str(int(row["class"] == "AD"))
        assert row["seen_in_training"] == ("no" if row["subject"] in of_test else "yes")
    printed = capsys.readouterr().out
    assert f"! SEEN IN TRAINING: {24 - len(of_test)} of 24 subjects; " in printed and "(threshold 0.45)" in printed


def test_one_scan_is_one_scan(bundle, discs, tmp_path, capsys):
    nib.save(nib.load(next(discs.rglob("*.hdr"))), tmp_path / "NA.nii")
    (row,) = predict(bundle, tmp_path / "NA.nii", tmp_path / "out")
    assert (row["subject"], row["seen_in_training"]) == ("NA", "unknown")
    printed = capsys.readouterr().out
    assert "\n1 scan in " in printed and "SEEN" not in printed
    assert "For 1 of 1 subject it is not known whether the checkpoint saw them in training." in printed


def told(printed: str) -> list[str]:
    return [line.removeprefix("  ! ") for line in printed.splitlines() if line.startswith("  ! ")]


@pytest.mark.parametrize("changes", [{}, {"synthetic": True}, {"leaks": 3}, {"caveats": []}], ids=str)
def test_doubts_travel_with_the_weights(run, discs, tmp_path, capsys, changes):
    run = Path(shutil.copytree(run, tmp_path / "run"))
    edit(run / "results_evaluate.json", **changes)
    of_data = {"synthetic": ["SYNTHETIC DATA, NOT REAL MRI: the results say nothing about patients."],
               "leaks": ["LEAKY: 3 found between the sets, the scores are worthless."]}  # fmt: skip
    of_results = changes.get("caveats", DOUBTS)
    expected = [*of_data.get(next(iter(changes), ""), []), *of_results]
    assert main(["package", str(tmp_path / "cae.zip"), "--output_dir", str(run)]) == 0
    assert told(capsys.readouterr().out) == of_results
    assert main(["bundle", str(tmp_path / "cae"), "--from", str(tmp_path / "cae.zip")]) == 0
    assert json.loads((tmp_path / "cae" / "configs" / "metadata.json").read_text())["caveats"] == expected
    card = (tmp_path / "cae" / "docs" / "README.md").read_text()
    assert all(f"- {doubt}" in card for doubt in of_results) and ("## Caveats" in card) is bool(of_results)
    scan = next(discs.rglob("*.hdr"))
    settings = {"image_size": 16, "slice_index": 11, "channels": [4, 8], "network_def#hidden": [32, 16]}
    for config, checkpoint in ((tmp_path / "cae", tmp_path / "cae"), (CONFIGS.parent, run)):
        capsys.readouterr()
        predict(
            config,
            scan,
            tmp_path / "out",
            checkpoint=str(checkpoint / "models" / "model.pt"),
            overwrite=True,
            **settings,
        )
        assert [line for line in told(capsys.readouterr().out) if "SEEN" not in line] == expected


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (
            {"weights": {"checkpoint": "another"}, "caveats": DOUBTS},
            "UNTESTED: no test results are stored with these weights",
        ),
        (
            {"caveats": DOUBTS},
            "results_evaluate.json can't be read, so the caveats of these weights are not known",
        ),
        ([], "results_evaluate.json can't be read, so the caveats of"),
    ],
    ids=["of other weights", "older", "broken"],
)
def test_doubts_of_other_weights_are_not_told(run, discs, tmp_path, capsys, content, expected):
    shutil.copytree(run / "models", tmp_path / "run" / "models")
    (tmp_path / "run" / "results_evaluate.json").write_text(json.dumps(content))
    settings = {"image_size": 16, "slice_index": 11, "channels": [4, 8], "network_def#hidden": [32, 16]}
    checkpoint = str(tmp_path / "run" / "models" / "model.pt")
    predict(CONFIGS.parent, next(discs.rglob("*.hdr")), tmp_path / "out", checkpoint=checkpoint, **settings)
    found = [line for line in told(capsys.readouterr().out) if "SEEN" not in line]
    assert bool(found) is bool(expected) and all(expected in line for line in found)
