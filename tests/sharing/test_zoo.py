"""The model zoo's checks pass on the bundle and on a package, and tell what is wrong with others; tools/zoo.py."""

from __future__ import annotations

import importlib
import json
import runpy
import shutil

import pytest
from tiny import CONFIGS, mistake

zoo_checks = runpy.run_path(str(CONFIGS.parents[1] / "tools" / "zoo_checks.py"))
STATES = ("ok ", "left out ", "failed ")


@pytest.fixture
def check(capsys):
    """Exit status of the script, and what it prints: check -> (state, reason)."""

    def run(*arguments: object) -> tuple[int, dict[str, tuple[str, str]]]:
        status = zoo_checks["main"]([str(argument) for argument in arguments])
        lines = capsys.readouterr().out.splitlines()
        return status, {line[10:33].strip(): (line[:9].strip(), line[34:]) for line in lines if line.startswith(STATES)}

    return run


def test_the_bundle_passes_but_for_weights_that_nobody_has_published(check):
    status, found = check()
    assert status == 0 and len(found) == len(zoo_checks["CHECKS"])
    assert {name for name, (state, _) in found.items() if state != "ok"} == {"preferred files"}
    assert "no models/model.pt is published" in found["preferred files"][1]
    assert "random weights" in found["torchscript"][1]
    assert not (CONFIGS.parent / "eval").exists()


def test_a_package_passes_all(check, package):
    status, found = check(package)
    assert status == 0 and {state for state, _ in found.values()} == {"ok"}
    assert "exported with models/model.pt" in found["torchscript"][1]


def spoilt_metadata(metadata: dict) -> None:
    metadata["version"] = "0.0.1"
    metadata["pytorch_version"] = "2.13.0+cpu"
    del metadata["task"]
    metadata["network_data_format"]["inputs"]["image"]["num_channels"] = 3


def test_every_fault_is_named(check, unpacked, tmp_path):
    folder = tmp_path / "bundle"
    shutil.copytree(unpacked, folder)
    (folder / "LICENSE").unlink()
    (folder / "models" / "model.pt").unlink()
    (folder / "notes.bin").write_bytes(bytes(25_000_001))
    (folder / "docs" / "README.md").write_text("nothing")
    path = folder / "configs" / "metadata.json"
    metadata = json.loads(path.read_text())
    spoilt_metadata(metadata)
    path.write_text(json.dumps(metadata, indent=2))
    for name, text in (("train", '"validate": {'), ("inference", '"inferer": {')):
        path = folder / "configs" / f"{name}.json"
        path.write_text(path.read_text().replace(text, text.replace('": ', '_": ')).replace("/data/", "/home/me/"))
    status, found = check(folder)
    reasons = {name: reason for name, (state, reason) in found.items() if state == "failed"}
    expected = {
        "necessary files": "LICENSE missing",
        "large files": "notes.bin has 25 MB: upload it",
        "version and changelog": "version 0.0.1 is not in the changelog",
        "requirements": "pytorch_version 2.13.0+cpu",
        "metadata format": "missing or of another type: task",
        "key names": "inference.json inferer, train.json validate#evaluator",
        "no personal paths": "/home/",
        "json format": "metadata.json is not indented by 4 spaces",
        "tensorrt is mentioned": "does not say whether TensorRT works",
        "data shape": "3 channels",
    }
    assert status == 1 and found["preferred files"][0] == "left out"
    assert {name: expected[name] in reasons.get(name, "") for name in expected} == dict.fromkeys(expected, True), (
        reasons
    )


def test_files_to_download_must_be_the_ones_that_are_named(check, unpacked, tmp_path):
    folder = tmp_path / "bundle"
    shutil.copytree(unpacked, folder)
    entry = {"path": "models/model.pt", "url": "", "hash_val": "0", "hash_type": "sha256"}
    for changes, message in (
        ({}, "models/model.pt has no url"),
        ({"url": "https://example.org/model.pt"}, "models/model.pt has another hash"),
        ({"path": "../model.pt"}, "../model.pt leads out of the bundle"),
    ):
        (folder / "large_files.yml").write_text(json.dumps({"large_files": [entry | changes]}))
        with pytest.raises(zoo_checks["Failed"], match=message):
            zoo_checks["large_files"](zoo_checks["Bundle"](folder))


def test_a_broken_package_is_one_line(tmp_path, capsys):
    (tmp_path / "x.zip").write_bytes(b"no zip")
    assert zoo_checks["main"]([str(tmp_path)]) == 1
    assert capsys.readouterr().err == f"error: {tmp_path} has no configs/: give a bundle's folder or a package\n"
    assert zoo_checks["main"]([str(tmp_path / "x.zip")]) == 1
    assert capsys.readouterr().err.startswith(f"error: {tmp_path / 'x.zip'} is not an intact zip file")


@pytest.fixture
def zoo(monkeypatch):
    """tools/zoo.py, with the cheap ones of the zoo's checks."""
    monkeypatch.syspath_prepend(str(CONFIGS.parents[1] / "tools"))
    module = importlib.import_module("zoo")
    checks = module.zoo_checks
    monkeypatch.setattr(checks, "CHECKS", (checks.necessary_files, checks.preferred_files, checks.large_files))
    return module


def test_a_run_on_synthetic_data_becomes_a_folder_of_the_zoo(zoo, finished_run, tmp_path):
    run, out = tmp_path / "run", tmp_path / "zoo" / "brain_mri_cae"
    shutil.copytree(finished_run, run)
    results = run / "results_evaluate.json"
    results.write_text(json.dumps(json.loads(results.read_text()) | {"synthetic": True}))
    zoo.publish(run, out)
    assert json.loads((out / "configs" / "metadata.json").read_text())["name"].startswith(
        "SYNTHETIC DATA, NOT REAL MRI"
    )
    assert "SYNTHETIC" in (out / "docs" / "README.md").read_text().split("## Model")[0]
    assert not (out / "docs" / "data_license.txt").exists()  # OASIS-1's
    assert (out / "models" / "model.pt").is_file() and [path.name for path in out.parent.iterdir()] == [out.name]
    assert "exists and is not an empty folder" in mistake(zoo.publish, run, out)


def test_no_other_run_becomes_one(zoo, finished_run, tmp_path, monkeypatch):
    assert "not marked as trained on synthetic data" in mistake(zoo.publish, finished_run, tmp_path / "zoo")
    monkeypatch.setattr(zoo, "MARK", "")
    monkeypatch.setattr(zoo.zoo_checks, "LARGEST", 1)
    assert "a check has failed" in mistake(zoo.publish, finished_run, tmp_path / "zoo")
    assert not any(tmp_path.iterdir())
