"""MONAI Deploy and MONAI Label read inference.json and metadata.json their own way: the same calls, on a tiny bundle.

Deploy: monai-deploy-app-sdk, monai/deploy/operators/monai_bundle_inference_operator.py. Label: MONAILabel,
monailabel/tasks/infer/bundle.py and basic_infer.py.
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import monai.bundle
import numpy as np
import pytest
import torch
from monai.bundle import ConfigItem, ConfigParser
from monai.data import MetaTensor
from monai.transforms import Compose, LoadImaged, MapTransform, SaveImaged
from monai.utils import MetaKeys, SpaceKeys, convert_to_dst_type
from tiny import CONFIGS, SHAPE, TINY

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


def test_deploy_gets_a_probability_from_a_volume_in_memory(bundle, volume, tmp_path):
    exported = tmp_path / "model.ts"
    monai.bundle.ckpt_export(
        net_id="network_def",
        filepath=str(exported),
        ckpt_file=str(bundle / "models" / "model.pt"),
        meta_file=str(bundle / "configs" / "metadata.json"),
        config_file=str(bundle / "configs" / "inference.json"),
        key_in_ckpt="",
    )
    parser = ConfigParser()
    extra = {"metadata.json": "", "inference.json": ""}
    network = torch.jit.load(exported, _extra_files=extra).eval()
    parser.read_meta(f=json.loads(extra["metadata.json"]))
    parser.read_config(f=json.loads(extra["inference.json"]))
    parser.parse()
    device = parser.get_parsed_content("device")
    inferer = parser.get_parsed_content("inferer")
    outputs = parser["_meta_"]["network_data_format"]["outputs"]
    pre, post = (parser.get_parsed_content(name) for name in ("preprocessing", "postprocessing"))
    for compose in (pre, post):
        kept = [t for t in compose.transforms if not any(n in type(t).__name__ for n in ("LoadImage", "SaveImage"))]
        compose.transforms = tuple(kept)
        assert isinstance(kept[0], MapTransform)
    meta = {
        MetaKeys.AFFINE: np.eye(4),
        MetaKeys.ORIGINAL_AFFINE: np.eye(4),
        MetaKeys.SPACE: SpaceKeys.LPS,
        MetaKeys.SPATIAL_SHAPE: np.asarray(volume.shape),
        MetaKeys.ORIGINAL_CHANNEL_DIM: "no_channel",
    }
    with torch.no_grad():
        value = MetaTensor.ensure_torch_and_prune_meta(convert_to_dst_type(volume, dst=volume)[0], meta)
        inputs = pre({"image": value})
        first = inputs["image"]
        assert isinstance(first.meta, dict)
        predicted = inferer(inputs=first[None].to(device), network=network)
        result = post({"pred": predicted, "image": first})
    assert outputs["pred"]["type"] == "probabilities"
    value = result["pred"]
    _, _ = value.max(dim=0)
    names = [outputs["pred"]["channel_def"][str(int(v))] for v in [*value.flatten(), 1.0]]
    assert all("Alzheimer's disease" in name for name in names)
    assert value.shape == (1, 1) and value.cpu().numpy()[0, 0] == pytest.approx(expected(bundle, volume), abs=1e-5)


@pytest.mark.parametrize("in_memory", [True, False])
def test_label_gets_a_probability_from_memory_and_from_a_file(bundle, volume, tmp_path, in_memory):
    import nibabel as nib

    config = ConfigParser()
    config.read_config(str(bundle / "configs" / "inference.json"))
    config.config.update({"bundle_root": str(bundle)})
    network = config.get_parsed_content("network_def", instantiate=True)
    metadata = json.loads((bundle / "configs" / "metadata.json").read_text())
    key_image = next(iter(metadata["network_data_format"]["inputs"]))
    key_pred, pred = next(iter(metadata["network_data_format"]["outputs"].items()))
    assert {name.lower(): int(number) for number, name in pred["channel_def"].items()}
    network.load_state_dict(torch.load(bundle / "models" / "model.pt", weights_only=True), strict=True)
    config.config.update({"device": "cpu"})
    if config.ref_resolver.items.get("device"):
        config.ref_resolver.items["device"] = ConfigItem(config="cpu", id="device")
    pre = list(config.get_parsed_content("preprocessing", instantiate=True).transforms)
    post = list(config.get_parsed_content("postprocessing", instantiate=True).transforms)
    inferer = config.get_parsed_content("inferer", instantiate=True)
    assert not any(isinstance(step, SaveImaged) for step in post)
    nib.save(nib.Nifti1Image(volume, np.eye(4)), tmp_path / "scan.nii.gz")
    data = {key_image: str(tmp_path / "scan.nii.gz")}
    if in_memory:
        data = {key_image: MetaTensor(torch.as_tensor(volume), meta={MetaKeys.ORIGINAL_CHANNEL_DIM: "no_channel"})}
        pre = [step for step in pre if not isinstance(step, LoadImaged)]
    data = Compose(pre)(data)
    with torch.no_grad():
        data[key_pred] = inferer(data[key_image][None], network.eval())[0]
    result = Compose(post)(data)[key_pred]
    assert result.shape == (1,) and result.item() == pytest.approx(expected(bundle, volume), abs=1e-5)
