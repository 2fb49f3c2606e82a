"""Every kind of autoencoder goes from pretraining to the predictions of a package by its overlay alone."""

from __future__ import annotations

import csv
from typing import Any

import pytest
import torch
from mlflow import MlflowClient
from runs import assert_predicts_as_tested, rows_of, run_to_predictions, written

from monai_cae.data import hashed_subjects
from monai_cae.files import sha256_of
from monai_cae.networks import labels_learned

CONTROL = {"random_weights": {"train": {"pretrained": "none"}}}
KINDS: dict[str, dict[str, Any]] = {
    "denoising": {},
    "masked": {"image_size": 20},  # four patches
    "k_sparse": {},
    "winner_take_all": {},
    "z_layer": {},
    "variational": {},
    "inception": {"image_size": [16, 16, 16], "extraction#spacing_mm": 1.0},
    "pairs": {},
    "stacked": {"max_epochs": 3},  # an epoch each
    "joint": {"variants": {**CONTROL, "permuted": {"train": {"permute_labels": True}}}},
}
SIZES = {"variational": 64, "z_layer": 64, "masked": 32 * 5**2, "inception": 32 * 4**3, "pairs": 2 * 32 * 4**2}  # codes
UNDRAWN = {f"stages#{stage}#figures": {} for stage in ("pretrain", "train", "evaluate")}
SETTINGS = {"channels": [8, 16, 32], "max_epochs": 2, "baselines": ["code_logistic"], **UNDRAWN}


@pytest.mark.parametrize("kind", KINDS)
def test_a_kind_of_autoencoder_from_pretraining_to_predictions(run_bundle, discs, tmp_path, tracking_uri, kind):
    overlay = [*(["with_volume.yaml"] if kind == "inception" else []), f"with_{kind}.yaml"]
    made, predicted = run_to_predictions(run_bundle, discs, tmp_path, overlay, **{**SETTINGS, **KINDS[kind]})
    assert_predicts_as_tested(made, predicted)
    pretrained = written(made, "results_pretrain.json")
    assert 0 <= pretrained["latent_dead"] <= 1 and 0 < pretrained["latent_active"] <= 1
    logged = MlflowClient(tracking_uri).get_run(pretrained["run_id"]).data.metrics
    latent = {name: value for name, value in pretrained.items() if name.startswith("latent_")}
    assert latent.items() <= logged.items()
    assert ("latent_kl" in latent) == ("latent_active_dimensions" in latent) == (kind == "variational")
    if kind == "k_sparse":
        assert pretrained["latent_active"] <= 16 / 32
    if kind == "winner_take_all":
        assert pretrained["latent_active"] <= 1 / 16
    codecs = {row["reconstruction"]: row for row in rows_of(made / "reconstruction.csv")}
    assert float(codecs["autoencoder"]["code_size"]) == SIZES.get(kind, 32 * 4**2)
    with (made / "variants" / "random_weights" / "predictions.csv").open() as file:
        assert len([*csv.DictReader(file)]) == 8  # the control, on the same subjects
    assert len(rows_of(made / "baselines" / "code_logistic.csv")) == 8
    if kind == "pairs":
        for name in ("by_errors", "switch_on_errors"):
            assert len(rows_of(made / "variants" / name / "predictions.csv")) == 8
    if kind == "joint":  # whose labels are permuted when the autoencoder is trained, too
        own = made / "variants" / "permuted" / "models" / "autoencoder.pt"
        assert sha256_of(own) != sha256_of(made / "models" / "autoencoder.pt")
        used = written(made / "variants" / "permuted", "results_train.json")["weights"]["pretrained"]
        assert used == sha256_of(own)
    assert "pretrained" not in written(made / "variants" / "random_weights", "results_train.json")["weights"]
    learned = hashed_subjects(written(made, "datalist.json")["training"]) if kind in ("joint", "pairs") else []
    assert labels_learned(made / "models" / "autoencoder.pt") == learned
    weights = torch.load(made / "models" / "autoencoder.pt", weights_only=True)
    steps = int(weights.get("encoder.steps_done", 0))  # of the best epoch, three each
    assert steps in ((3, 6) if kind in ("k_sparse", "winner_take_all") else (0,))
