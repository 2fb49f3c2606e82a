"""Cohorts without labels in pretraining, and a finished model on a cohort that it has not seen: `monai-cae evaluate`."""

from __future__ import annotations

import json
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from tiny import mistake, volume

from monai_cae.networks import trained_on


@pytest.fixture(scope="module")
def ixi(tmp_path_factory) -> Path:
    root = tmp_path_factory.mktemp("ixi")
    for number in range(12):
        path = root / f"IXI{number + 2:03}-Guys-{number + 800:04}-T1.nii.gz"
        nib.save(nib.Nifti1Image(volume(number + 500, 0), np.eye(4)), path)
    return root


def test_an_autoencoder_is_pretrained_on_healthy_people_without_labels(run_bundle, ixi, discs, tmp_path):
    said = mistake(run_bundle, "pretrain.json", ixi, tmp_path / "with labels")
    assert "pretrain.json with --target#_target_ monai_cae.targets.Unlabelled trains the autoencoder" in said
    everybody = {"target#_target_": "monai_cae.targets.Unlabelled"}
    run_bundle("pretrain.json", ixi, tmp_path / "out", **everybody)
    sets = json.loads((tmp_path / "out" / "datalist.json").read_text())
    assert [len(sets[name]) for name in ("training", "validation", "test")] == [6, 2, 4]
    weights = tmp_path / "out" / "models" / "autoencoder.pt"
    assert len(trained_on(weights)) == 8
    said = mistake(run_bundle, "train.json", ixi, tmp_path / "out", **everybody)
    assert said == "there is nothing to predict with the target Unlabelled: it is for pretrain.json alone"
    run_bundle("train.json", discs, tmp_path / "trained", pretrained=str(weights), allow_other_frame=True)
    assert (tmp_path / "trained" / "models" / "model.pt").is_file()
