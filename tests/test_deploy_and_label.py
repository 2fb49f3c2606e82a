"""MONAI Deploy and MONAI Label read inference.json and metadata.json their own way: the same calls, on a tiny bundle.

Deploy: `deploy`. Label: `label`.
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import monai.bundle
import nibabel as nib
import numpy as np
import pytest
import torch
from deploy import DICOM, Deploy
from label import BundleInferTask
from tiny import CONFIGS, SHAPE, TINY, mistake

from monai_cae.networks import ConvEncoder, EncoderClassifier, save_weights

SETTINGS = {name: TINY[name] for name in ("image_size", "slice_index", "device")}


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A bundle for tiny images with random weights."""
    folder = tmp_path_factory.mktemp("bundle")
    shutil.copytree(CONFIGS, folder / "configs")
    config = json.loads((CONFIGS / "inference.json").read_text())
    (folder / "configs" / "inference.json").write_text(json.dumps({**config, **SETTINGS}, indent=4))
    torch.manual_seed(2)
    size = TINY["image_size"]
    save_weights(EncoderClassifier(encoder=ConvEncoder(), spatial_size=(size, size)), folder / "models" / "model.pt")
    return folder


@pytest.fixture
def volume() -> np.ndarray:
    return np.random.default_rng(5).integers(0, 900, SHAPE).astype(np.int16)


def expected(bundle: Path, volume: np.ndarray) -> float:
    """The probability of the slice, preprocessed in NumPy."""
    plane = volume[:, :, TINY["slice_index"] - 1].astype(np.float64)
    (x, y), size = ((SHAPE[0] - TINY["image_size"]) // 2, (SHAPE[1] - TINY["image_size"]) // 2), TINY["image_size"]
    plane = plane[x : x + size, y : y + size]
    image = torch.tensor((plane - plane.min()) / (plane.max() - plane.min()), dtype=torch.float32)[None, None]
    network = EncoderClassifier(encoder=ConvEncoder(), spatial_size=(size, size))
    network.load_state_dict(torch.load(bundle / "models" / "model.pt", weights_only=True))
    with torch.no_grad():
        return torch.sigmoid(network.eval()(image)).item()


@pytest.fixture(scope="module")
def exported(bundle, tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("exported") / "model.ts"
    monai.bundle.ckpt_export(
        net_id="network_def",
        filepath=str(path),
        ckpt_file=str(bundle / "models" / "model.pt"),
        meta_file=str(bundle / "configs" / "metadata.json"),
        config_file=str(bundle / "configs" / "inference.json"),
        key_in_ckpt="",
    )
    return path


@pytest.mark.parametrize("form", ["bundle", "exported"])
@pytest.mark.parametrize("given", ["DICOM", "array", "array with a channel"])
def test_deploy_gets_a_probability_from_a_volume_in_memory(request, bundle, volume, form, given):
    """From another folder, as everywhere in these tests."""
    deploy = Deploy(request.getfixturevalue(form))
    found = deploy(volume[..., None] if "channel" in given else volume, DICOM if given == "DICOM" else None)
    assert found["result"] == ["probability of Alzheimer's disease (CDR > 0)"]
    assert found["probabilities"].shape == (1, 1)
    assert found["probabilities"][0, 0] == pytest.approx(expected(bundle, volume), abs=1e-5)


def test_deploy_names_a_probability_that_is_rounded_to_1(bundle):
    names = Deploy(bundle).formats["outputs"]["pred"]["channel_def"]
    assert all(name.startswith("probability of Alzheimer's disease (CDR > 0)") for name in names.values())
    assert names.keys() == {"0", "1"}


@pytest.mark.parametrize("form", ["bundle", "exported"])
def test_a_lone_slice_is_refused_unless_asked_for(request, bundle, volume, form):
    deploy = Deploy(request.getfixturevalue(form))
    lone = volume[..., TINY["slice_index"] - 1 :][..., :1]
    assert "single axial slice (shape (20, 24, 1))" in mistake(deploy, lone)
    deploy.parser["single_slice"] = True
    deploy.pre = deploy._without_files("preprocessing")
    assert deploy(lone)["probabilities"][0, 0] == pytest.approx(expected(bundle, volume), abs=1e-5)


@pytest.fixture
def label_folder(bundle, tmp_path) -> Path:
    """The bundle under the name by which Label knows what it is."""
    return Path(shutil.copytree(bundle, tmp_path / "cae_classification"))


@pytest.mark.parametrize("in_memory", [True, False])
def test_label_gets_a_probability_from_memory_and_from_a_file(bundle, label_folder, volume, tmp_path, in_memory):
    nib.save(nib.Nifti1Image(volume, np.eye(4)), tmp_path / "scan.nii.gz")
    task = BundleInferTask(str(label_folder), {}, add_post_restore=False)
    _, found = task({"device": "cpu", "image": volume if in_memory else str(tmp_path / "scan.nii.gz")})
    (one,) = found["prediction"]
    assert one["label"] == "probability of alzheimer's disease (cdr > 0)" and task.dimension == 3
    assert one["score"] == pytest.approx(expected(bundle, volume), abs=1e-5)


def test_labels_default_step_can_not_take_a_probability(label_folder, volume):
    with pytest.raises(ValueError, match="could not be broadcast together"):
        BundleInferTask(str(label_folder), {})({"device": "cpu", "image": volume})
