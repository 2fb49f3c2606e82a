"""One finished run and its package, for all tests of what is shared."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from tiny import HIDDEN, PACKAGED

from monai_cae.cli import main


@pytest.fixture(scope="session")
def finished_run(run_bundle, discs, tmp_path_factory) -> Path:
    """The output_dir of pretrain, train and evaluate; not to be changed."""
    output = tmp_path_factory.mktemp("a run")
    settings = {**PACKAGED, "cohort#table": str(discs / "oasis_cross-sectional.csv")}
    head = {"network_def#hidden": HIDDEN}
    run_bundle("pretrain.json", discs, output, **settings)
    run_bundle("train.json", discs, output, **settings, **head)
    run_bundle("evaluate.json", discs, output, **settings, **head, threshold=0.45)
    return output


@pytest.fixture(scope="session")
def package(finished_run, tmp_path_factory) -> Path:
    """The zip of that run; not to be changed."""
    path = tmp_path_factory.mktemp("packages") / "shared_model.zip"
    assert main(["package", str(path), "--output_dir", str(finished_run)]) == 0
    return path


@pytest.fixture(scope="session")
def unpacked(package, tmp_path_factory) -> Path:
    """The package in a folder of its own; not to be changed."""
    folder = tmp_path_factory.mktemp("unpacked") / "shared_model"
    assert main(["bundle", str(folder), "--from", str(package)]) == 0
    return folder


@pytest.fixture(scope="session")
def results(finished_run) -> dict:
    return json.loads((finished_run / "results_evaluate.json").read_text())
