"""MONAI Deploy App SDK 4.0.0's operator for a bundle, as far as this bundle meets it:
monai/deploy/operators/monai_bundle_inference_operator.py."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import torch
from monai.bundle import ConfigParser
from monai.data import MetaTensor
from monai.transforms import Compose, MapTransform
from monai.utils import MetaKeys, SpaceKeys, convert_to_dst_type
from tiny import SHAPE

DICOM = {  # of its DICOM loader
    MetaKeys.AFFINE: np.eye(4),
    MetaKeys.ORIGINAL_AFFINE: np.eye(4),
    MetaKeys.SPACE: SpaceKeys.LPS,
    MetaKeys.SPATIAL_SHAPE: np.asarray(SHAPE),
    MetaKeys.ORIGINAL_CHANNEL_DIM: "no_channel",
}


def as_deploy_reads(value: np.ndarray, image: dict) -> tuple[np.ndarray, object]:
    """An array and its `original_channel_dim`, as `_receive_input` makes them from what metadata.json says."""
    if value.ndim == 4:
        return (value, -1) if value.shape[-1] == image["num_channels"] else (value[..., 0], "no_channel")
    if len(image["spatial_shape"]) == 2 and value.shape[-1] != image["num_channels"]:
        value = value[..., 0:1]
    return value, "no_channel"


class Deploy:
    """`MonaiBundleInferenceOperator` with a bundle's folder or a TorchScript file with the configs in it."""

    def __init__(self, path: Path) -> None:
        self.parser = ConfigParser()
        configs = {"metadata.json": "", "inference.json": ""}
        if path.is_dir():
            texts = {name: json.loads((path / "configs" / name).read_text()) for name in configs}
            self.parser.read_meta(f=texts["metadata.json"])
            self.parser.read_config([path / "configs" / "inference.json"])
        else:
            network = torch.jit.load(path, _extra_files=configs)
            self.parser.read_meta(f=json.loads(configs["metadata.json"]))
            self.parser.read_config(f=json.loads(configs["inference.json"]))
        self.parser.parse()
        self.device, self.inferer = (self.parser.get_parsed_content(name) for name in ("device", "inferer"))
        self.network = (self._loaded(path / "models" / "model.pt") if path.is_dir() else network).eval()
        self.formats = self.parser["_meta_"]["network_data_format"]
        self.pre, self.post = (self._without_files(name) for name in ("preprocessing", "postprocessing"))

    def _loaded(self, weights: Path) -> torch.nn.Module:
        if self.parser.get("network") is not None:
            network = self.parser.get_parsed_content("network")
        else:
            network = self.parser.get_parsed_content("network_def").to(self.device)
        network.load_state_dict(torch.load(weights, map_location=self.device), strict=True)
        return network

    def _without_files(self, name: str) -> Compose:
        compose = self.parser.get_parsed_content(name)
        kept = [t for t in compose.transforms if not any(n in type(t).__name__ for n in ("LoadImage", "SaveImage"))]
        assert isinstance(kept[0], MapTransform)
        compose.transforms = tuple(kept)
        return compose

    def __call__(self, value: np.ndarray, meta: dict | None = None) -> dict:
        if meta is None:
            value, channel = as_deploy_reads(value, self.formats["inputs"]["image"])
            meta = {MetaKeys.ORIGINAL_CHANNEL_DIM: channel}
        with torch.no_grad():
            tensor = MetaTensor.ensure_torch_and_prune_meta(convert_to_dst_type(value, dst=value)[0], dict(meta))
            first = self.pre({"image": tensor})["image"]
            predicted = self.inferer(inputs=first[None].to(self.device), network=self.network)
            pred = self.post({"pred": predicted, "image": first})["pred"]
        out = self.formats["outputs"]["pred"]
        assert out["type"] == "probabilities" and isinstance(first.meta, dict)
        _, _ = pred.max(dim=0)
        return {"result": [out["channel_def"][str(int(v))] for v in pred.flatten()], "probabilities": pred.numpy()}
