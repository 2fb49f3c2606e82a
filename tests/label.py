"""MONAI Label 0.8.5's task for a bundle, as far as this bundle meets it: tasks/infer/bundle.py and basic_infer.py, and
transform/pre.py, post.py and writer.py."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import torch
from monai.bundle import ConfigItem, ConfigParser
from monai.data import MetaTensor
from monai.transforms import Compose, LoadImaged, SaveImaged
from monai.utils import MetaKeys


class BundleInferTask:
    """`BundleInferTask(path, conf)(request)`, steps and arguments as there."""

    def __init__(self, path: str, conf: dict[str, str], add_post_restore: bool = True) -> None:
        self.add_post_restore = add_post_restore
        self.config = ConfigParser()
        self.config.read_config(str(Path(path) / "configs" / "inference.json"))
        self.config.config.update({"bundle_root": path})
        self.network = self.config.get_parsed_content("network_def", instantiate=True)
        weights = torch.load(Path(path) / "models" / "model.pt", weights_only=True)
        self.network.load_state_dict(weights, strict=True)
        formats = json.loads((Path(path) / "configs" / "metadata.json").read_text())["network_data_format"]
        self.key_image, image = next(iter(formats["inputs"].items()))
        self.key_pred, pred = next(iter(formats["outputs"].items()))
        self.names = {int(number): name.lower() for number, name in pred["channel_def"].items()}
        self.dimension = len(image["spatial_shape"])
        self.type = "classification" if "classification" in Path(path).name.lower() else "segmentation"

    def __call__(self, request: dict[str, Any]) -> tuple[None, dict[str, Any]]:
        self.config.config.update({"device": request["device"]})
        if self.config.ref_resolver.items.get("device"):
            self.config.ref_resolver.items["device"] = ConfigItem(config=request["device"], id="device")
        pre, post = (list(self._parsed(name).transforms) for name in ("preprocessing", "postprocessing"))
        data = {self.key_image: request["image"]}
        if not isinstance(request["image"], str):  # LoadImageTensord
            meta = {"spatial_shape": request["image"].shape[:-1], MetaKeys.ORIGINAL_CHANNEL_DIM: "no_channel"}
            data = {self.key_image: MetaTensor(torch.as_tensor(request["image"]), meta=meta)}
            pre = [step for step in pre if not isinstance(step, LoadImaged)]
        data = Compose(pre)(data)
        with torch.no_grad():
            data[self.key_pred] = self._parsed("inferer")(data[self.key_image][None], self.network.eval())[0]
        data = Compose([step for step in post if not isinstance(step, SaveImaged)])(data)
        if self.add_post_restore:
            self._restore(data)
        if self.type != "classification":
            raise NotImplementedError("a mask is written, but a probability is not a mask")
        scores = [
            {"label": self.names[index], "score": float(value)} for index, value in enumerate(data[self.key_pred])
        ]
        return None, {"prediction": scores}

    def _parsed(self, name: str) -> Any:
        return self.config.get_parsed_content(name, instantiate=True)

    def _restore(self, data: dict[str, Any]) -> None:
        current = data[self.key_pred].shape[1:]
        spatial = data[self.key_image].meta["spatial_shape"]
        if np.any(np.not_equal(current, spatial[-len(current) :])):
            raise NotImplementedError("the prediction is resized")
