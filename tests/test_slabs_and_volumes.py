"""The shipped overlays with_slab.yaml and with_volume.yaml: from pretraining to the predictions of a package."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest
import torch
from deploy import DICOM, Deploy
from label import BundleInferTask
from monai.bundle import ConfigParser
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
from monai_cae.networks import ConvEncoder, EncoderClassifier, trained_with
from monai_cae.sharing import export_network

VOLUME = {"image_size": [12, 16, 12], "channels": [4, 8], "batch_size": 4}
SLAB = {"extraction#slices": 3, "channels": [4, 8], "max_epochs": 1}
BASELINES = ["pca_logistic", "linear_svm", "code_logistic"]


@pytest.fixture(scope="module")
def through(run_bundle, discs, tmp_path_factory):
    """through(overlay): the run's folder, and what its package predicts of the scans of disc1."""

    def run(overlay: str, **settings: Any) -> tuple[Path, list[dict[str, str]]]:
        given = {"baselines": BASELINES, **settings}
        return run_to_predictions(run_bundle, discs, tmp_path_factory.mktemp(overlay), overlay, **given)

    return run


@pytest.fixture(scope="module")
def slab(through):
    return through("with_slab.yaml", **SLAB)


@pytest.fixture(scope="module")
def whole(through):
    return through("with_volume.yaml", **VOLUME)


@pytest.mark.parametrize("which", ["slab", "whole"])
def test_a_package_and_the_runs_folder_predict_as_tested(which, request, discs, tmp_path):
    made, predicted = request.getfixturevalue(which)
    assert_predicts_as_tested(made, predicted)
    assert main(["predict", str(made), str(discs / "disc1"), str(tmp_path / "out"), "--device", "cpu"]) == 0
    again = rows_of(tmp_path / "out" / "predictions.csv")
    assert [row["probability"] for row in again] == [row["probability"] for row in predicted]
    assert {row["method"] for row in rows_of(made.parent / "predictions.csv")} == {"network", *BASELINES}
    assert {path.name for path in (made / "figures").glob("pretrain_*.png")} >= {
        "pretrain_reconstructions.png", "pretrain_feature_maps.png"
    }  # fmt: skip


def test_the_networks_see_a_slab(slab):
    made, _ = slab
    brain = volume(1, 1).astype(float)[2:18, 4:20, 9:12]  # slices 10 to 12, counted from 1
    np.testing.assert_allclose(given_to_the_network(made, "OAS1_0002"), scaled(brain.transpose(2, 0, 1)), atol=1e-6)
    weights = torch.load(made / "models" / "autoencoder.pt", weights_only=True)
    assert weights["encoder.blocks.0.0.weight"].shape == (4, 3, 3, 3)
    assert "the same values in axial slices 10 to 12 of two subjects" in looked_for(made)
    assert_tells_what_it_sees(made, "axial slices 10 to 12", 3, [16, 16, 1], [16, 16])


def test_the_networks_see_an_averaged_volume(whole):
    made, _ = whole
    blocks = volume(1, 1).astype(float).reshape(10, 2, 12, 2, 10, 2).mean(axis=(1, 3, 5))
    blocks = np.pad(blocks, [(1, 1), (2, 2), (1, 1)])
    np.testing.assert_allclose(given_to_the_network(made, "OAS1_0002"), scaled(blocks)[None], atol=1e-5)
    weights = torch.load(made / "models" / "model.pt", weights_only=True)
    assert weights["encoder.blocks.0.0.weight"].shape == (4, 1, 3, 3, 3)
    assert weights["head.1.weight"].shape == (256, 8)  # the mean of each channel
    told = looked_for(made)
    assert "the same values in the volume at 2 mm of two subjects" in told
    assert "the same volume edited or mirrored, or moved by a voxel" in told
    assert_tells_what_it_sees(made, "the volume at 2 mm", 1, [12, 16, 12], [12, 16, 12])
    assert "| image_size | [12, 16, 12] |" in (made.parents[1] / "cae" / "docs" / "README.md").read_text()


def seen_of(which: str, subject: str) -> np.ndarray:
    """The pixels of the baselines: a slab's, or a volume's averaged once more, over 2 x 2 x 2."""
    number = int(subject.removeprefix("OAS1_")) - 1
    brain = volume(number, number % 2).astype(float)
    if which == "slab":
        return scaled(brain[2:18, 4:20, 9:12].transpose(2, 0, 1)).ravel()
    blocks = brain.reshape(10, 2, 12, 2, 10, 2).mean(axis=(1, 3, 5))
    padded = scaled(np.pad(blocks, [(1, 1), (2, 2), (1, 1)]))
    return padded.reshape(6, 2, 8, 2, 6, 2).mean(axis=(1, 3, 5)).ravel()


@pytest.mark.parametrize("which", ["slab", "whole"])
def test_principal_components_are_of_the_fitting_subjects_alone(which, request, tmp_path):
    made, _ = request.getfixturevalue(which)
    config = ConfigParser(json.loads((made / "config_baselines.json").read_text().replace("::", "#")))
    config["output_dir"], config["only"] = str(tmp_path), ["pca_logistic"]
    sets, baselines = (config.get_parsed_content(name) for name in ("sets", "baselines"))
    baselines.run()
    known = sorted(item["subject"] for item in sets.training + sets.validation)
    assert not set(known) & {item["subject"] for item in sets.test}
    components = baselines.models["pca_logistic"]["classifier"].named_steps["pca"]
    assert components.n_samples_ == len(known)
    expected = np.mean([seen_of(which, subject) for subject in known], axis=0)
    np.testing.assert_allclose(components.mean_, expected, atol=1e-5)


@pytest.mark.parametrize("suffix", ["ts", "onnx"])
@pytest.mark.parametrize(
    ("which", "shape"), [pytest.param("slab", (3, 16, 16), marks=pytest.mark.slow), ("whole", (1, 12, 16, 12))]
)
def test_exports_agree(which, shape, suffix, request, tmp_path, discs):
    package = request.getfixturevalue(which)[0].parents[1] / "cae"
    for network, volumes in (("classifier", discs / "disc1"), ("autoencoder", None)):
        parity = export_network(package, tmp_path / f"{network}.{suffix}", network=network, volumes=volumes)
        assert parity.image_shape == shape and parity.passed


@pytest.mark.parametrize("form", ["bundle", "exported"])
@pytest.mark.parametrize("which", ["slab", "whole"])
def test_deploy_and_label_predict_from_a_package_as_the_command_does(which, form, request, tmp_path):
    made, predicted = request.getfixturevalue(which)
    package = made.parents[1] / "cae"
    path = package
    if form == "exported":
        path = tmp_path / "model.ts"
        export_network(package, path)
    deploy = Deploy(path)
    (expected,) = [float(row["probability"]) for row in predicted if row["subject"] == "OAS1_0002"]
    brain = volume(1, 1)
    for given, meta in ((brain, DICOM), (brain, None), (brain[..., None], None)):
        found = deploy(given, meta)
        assert found["probabilities"].shape == (1, 1)
        assert found["probabilities"][0, 0] == pytest.approx(expected, abs=1e-5)
    if form == "exported":
        return
    named = Path(shutil.copytree(package, tmp_path / "cae_classification"))
    nib.save(nib.Nifti1Image(brain, np.eye(4)), tmp_path / "scan.nii.gz")
    for given in (brain, str(tmp_path / "scan.nii.gz")):
        task = BundleInferTask(str(named), {}, add_post_restore=False)
        ((one,),) = [task({"device": "cpu", "image": given})[1]["prediction"]]
        assert one["score"] == pytest.approx(expected, abs=1e-5) and task.dimension == 3


def test_a_finished_experiment_is_resumed_and_other_sizes_are_refused(whole, run_bundle, discs):
    out = whole[0].parent
    trained = (out / "repeat_1" / "models" / "model.pt").stat().st_mtime_ns
    given = {"repeats": 1, "baselines": BASELINES, "resume": True, **VOLUME}
    run_bundle(["experiment.yaml", "with_volume.yaml"], discs, out, **given)
    assert (out / "repeat_1" / "models" / "model.pt").stat().st_mtime_ns == trained
    config = ["experiment.yaml", "with_volume.yaml"]
    assert "image_size" in mistake(run_bundle, config, discs, out, **{**given, "image_size": [12, 12, 12]})


def test_an_autoencoder_of_another_image_is_refused(slab, whole, run_bundle, discs, tmp_path):
    of_slab, of_volume = (str(made / "models" / "autoencoder.pt") for made, _ in (slab, whole))
    recorded = trained_with(of_volume)[of_volume]
    assert [recorded[name] for name in ("extraction", "spacing_mm", "size", "image_size")] == [
        "VolumeExtraction", 2.0, [12, 16, 12], [12, 16, 12]
    ]  # fmt: skip
    for overlay, pretrained, changed, message in (
        ("with_slab.yaml", of_slab, {"extraction#slices": 5}, "extraction#slices 3, not 5: give --extraction#slices 3"),
        ("with_slab.yaml", of_volume, {}, "was trained with extraction VolumeExtraction, not SlabExtraction: take the"),
        (
            "with_volume.yaml",
            of_volume,
            {"image_size": [12, 12, 12]},
            "image_size [12, 16, 12], not [12, 12, 12]: give --image",
        ),
        ("with_volume.yaml", of_volume, {"extraction#spacing_mm": 1}, "extraction#spacing_mm 2.0, not 1: give"),
    ):
        options = {**(VOLUME if "volume" in overlay else {"channels": [4, 8]}), "pretrained": pretrained, **changed}
        assert message in mistake(run_bundle, ["train.json", overlay], discs, tmp_path / "out", **options)


@pytest.mark.parametrize(
    ("overlay", "settings", "message"),
    [
        ("with_slab.yaml", {"extraction#slices": 4}, "slices of a slab must be an odd number, such as 5, not 4"),
        ("with_slab.yaml", {"slice_index": 19}, "slice 21 of axial slices 17 to 21 is outside"),
        ("with_slab.yaml", {"image_size": [8, 8, 8]}, "or a list of 2 for a slab, not [8, 8, 8]"),
        (
            "with_volume.yaml",
            {"plane": "coronal", **VOLUME},
            "--plane coronal has no effect: VolumeExtraction does not read",
        ),
        ("with_volume.yaml", {"image_size": "many"}, "or a list of 3 for a volume, not 'many'"),
        ("with_volume.yaml", {"image_size": [8, 12]}, "or a list of 3 for a volume, not [8, 12]"),
        ("with_volume.yaml", {"image_size": [8, 10, 9], "channels": [4, 8]}, "must be divisible by 2"),
    ],
)
def test_what_makes_no_sense_is_one_line(overlay, settings, message, run_bundle, discs, tmp_path):
    assert message in mistake(run_bundle, ["pretrain.json", overlay], discs, tmp_path / "out", **settings)
    assert not list(tmp_path.rglob("*.pt"))


def test_a_dense_layer_on_the_code_of_a_volume_is_refused_with_its_size():
    options = {"encoder": ConvEncoder(spatial_dims=3), "spatial_size": (88, 104, 88)}
    # 22 x 26 x 22 places of 128 channels, 256 neurons
    said = mistake(EncoderClassifier, **options, pooling=0)
    assert "would have 412,352,512 weights, for 1,610,752 numbers of a volume's code (limit" in said
    assert said.endswith("set network_def#pooling to 1")
    assert EncoderClassifier(**options).head[1].weight.shape == (256, 128)
