"""The shipped overlays of several samples a scan: from pretraining to the predictions of a package."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from runs import (
    assert_predicts_as_tested,
    assert_tells_what_it_sees,
    given_to_the_network,
    looked_for,
    rows_of,
    run_to_predictions,
    scaled,
)
from tiny import mistake, volume

from monai_cae.cli import main
from monai_cae.networks import trained_with
from monai_cae.sharing import export_network

BASELINES = ["pca_logistic", "code_logistic"]
SMALL = {"channels": [4, 8], "max_epochs": 1}
GIVEN = {
    "with_slices.yaml": {"extraction#slices": 3, **SMALL},
    "with_planes.yaml": {"extraction#coronal": 13, "extraction#sagittal": 8, **SMALL},
    # of 16 x 16 x 16 cubes of 1 mm, eight patches that overlap
    "with_patches.yaml": {
        "image_size": 12,
        "extraction#spacing_mm": 1,
        "extraction#size": 16,
        "extraction#step": 4,
        **SMALL,
    },
}
SEEN = {
    "with_slices.yaml": "axial slices 7 to 15 in steps of 4",
    "with_planes.yaml": "axial slice 11, coronal slice 13 and sagittal slice 8",
    "with_patches.yaml": "8 patches of the volume at 1 mm",
}
NAMED = {  # the first channel and the third
    "with_slices.yaml": ("axial slice 7", "axial slice 15"),
    "with_planes.yaml": ("axial slice 11", "sagittal slice 8"),
    "with_patches.yaml": ("patch at -2, -2, -2 mm", "patch at -2, 2, -2 mm"),
}


@pytest.fixture(scope="module", params=GIVEN)
def made(request, run_bundle, discs, tmp_path_factory):
    """The overlay, the run's folder, and what its package predicts of the scans of disc1."""
    folder = tmp_path_factory.mktemp(request.param)
    given = {"baselines": BASELINES, **GIVEN[request.param]}
    return request.param, *run_to_predictions(run_bundle, discs, folder, request.param, **given)


def expected(overlay: str) -> np.ndarray:
    """What the network sees of the second subject, a patient, before it is scaled."""
    brain = volume(1, 1).astype(float)  # 20 x 24 x 20
    if overlay == "with_slices.yaml":
        return brain[2:18, 4:20, [6, 10, 14]].transpose(2, 0, 1)
    if overlay == "with_planes.yaml":
        return np.stack([brain[2:18, 4:20, 10], brain[2:18, 12, 2:18], brain[7, 4:20, 2:18]])
    places = [(a, b, c) for a in (2, 6) for b in (4, 8) for c in (2, 6)]
    return np.stack([brain[a : a + 12, b : b + 12, c : c + 12] for a, b, c in places])


def test_the_networks_see_the_samples(made):
    overlay, run, _ = made
    np.testing.assert_allclose(given_to_the_network(run, "OAS1_0002"), scaled(expected(overlay)), atol=1e-5)
    assert f"the same values in {SEEN[overlay]} of two subjects" in looked_for(run)
    shape = [12, 12, 12] if overlay == "with_patches.yaml" else [16, 16]
    whole = shape if len(shape) == 3 else [*shape, 1]
    assert_tells_what_it_sees(run, SEEN[overlay], len(expected(overlay)), whole, shape)
    weights = torch.load(run / "models" / "autoencoder.pt", weights_only=True)
    one = [tuple(tensor.shape) for name, tensor in weights.items() if name.endswith("blocks.0.0.weight")]
    assert (4, 1, *[3] * len(shape)) in one  # it sees a sample alone
    metadata = json.loads((run.parents[1] / "cae" / "configs" / "metadata.json").read_text())
    channels = metadata["network_data_format"]["inputs"]["image"]["channel_def"]
    assert (channels["0"], channels["2"]) == NAMED[overlay]


def test_a_package_and_the_runs_folder_predict_as_tested(made, discs, tmp_path):
    _, run, predicted = made
    assert_predicts_as_tested(run, predicted)
    assert len({row["subject"] for row in predicted}) == len(predicted) == 12  # a subject is one row
    assert main(["predict", str(run), str(discs / "disc1"), str(tmp_path / "out"), "--device", "cpu"]) == 0
    again = rows_of(tmp_path / "out" / "predictions.csv")
    assert [row["probability"] for row in again] == [row["probability"] for row in predicted]
    assert {row["method"] for row in rows_of(run.parent / "predictions.csv")} == {"network", *BASELINES}


def test_exports_agree(made, tmp_path):
    overlay, run, _ = made
    for network in ("classifier", "autoencoder"):
        parity = export_network(run.parents[1] / "cae", tmp_path / f"{network}.ts", network=network)
        assert parity.image_shape == expected(overlay).shape and parity.passed


def test_an_autoencoder_of_another_image_is_refused(made, run_bundle, discs, tmp_path):
    overlay, run, _ = made
    pretrained = str(run / "models" / "autoencoder.pt")
    recorded = trained_with(pretrained)[pretrained]
    kinds = {"with_slices.yaml": "Slices", "with_planes.yaml": "Planes", "with_patches.yaml": "Patches"}
    assert recorded["extraction"] == f"{kinds[overlay]}Extraction"
    own, before, other = {
        "with_slices.yaml": ("step", 4, 2),
        "with_planes.yaml": ("coronal", 13, 12),
        "with_patches.yaml": ("step", 4, 2),
    }[overlay]
    for config, changed, message in (
        (
            overlay,
            {f"extraction#{own}": other},
            f"was trained with extraction#{own} {before}, not {other}: give --extrac",
        ),
        ("with_slab.yaml", {}, f"was trained with extraction {kinds[overlay]}Extraction, not SlabExtraction: take the"),
    ):
        options = {**(GIVEN[overlay] if config == overlay else SMALL), "pretrained": pretrained, **changed}
        assert message in mistake(run_bundle, ["train.json", config], discs, tmp_path / "out", **options)


@pytest.mark.parametrize(
    ("overlay", "settings", "message"),
    [
        ("with_slices.yaml", {"extraction#slices": 4}, "slices of a stack must be an odd number, such as 5, not 4"),
        ("with_slices.yaml", {"extraction#step": 0}, "step must be a whole number from 1 on, not 0"),
        ("with_slices.yaml", {"slice_index": 15}, "slice 23 of axial slices 7 to 23 in steps of 4 is outside"),
        (
            "with_planes.yaml",
            {**GIVEN["with_planes.yaml"], "image_size": [8, 8, 8]},
            "or a list of 2 for a triple, not [8, 8, 8]",
        ),
        ("with_planes.yaml", {}, "coronal slice 99 is outside"),
        (
            "with_patches.yaml",
            {"image_size": 106},
            "patch 106 is larger than the volume, which has (88, 104, 88) voxels",
        ),
        ("with_patches.yaml", {"image_size": [8, 8, 8]}, "patch must be a whole number from 11 on, not [8, 8, 8]"),
        ("with_patches.yaml", {"extraction#step": 1}, "patches is too large: at most 4096 patches"),
    ],
)
def test_what_makes_no_sense_is_one_line(overlay, settings, message, run_bundle, discs, tmp_path):
    assert message in mistake(run_bundle, ["pretrain.json", overlay], discs, tmp_path / "out", **settings)
    assert not list(tmp_path.rglob("*.pt"))
