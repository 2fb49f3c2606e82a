"""A tiny cohort in OASIS-1's disk format, for tests that run the bundle."""

from __future__ import annotations

import csv
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest
import torch

from monai_cae.networks import ConvAutoencoder, ConvDecoder, ConvEncoder, EncoderClassifier, save_weights
from monai_cae.training.stages.workflow import find_mistake

CONFIGS = Path(__file__).resolve().parents[1] / "bundle" / "configs"
SHAPE = (20, 24, 20)
TINY = {"image_size": 16, "slice_index": 11, "batch_size": 4, "max_epochs": 2, "device": "cpu", "precision": "float32"}
# of the run that is packaged; no default among them: what a package does not take from the run is found out
PACKAGED = {"channels": [4, 8], "seed": 3, "experiment_name": "ward-seven", "split#stratify": "class+sex"}
HIDDEN = [32, 16]
UNTRAINED = ("baselines.json", "evaluate.json", "inference.json")


def write_pair(path: Path, volume: np.ndarray) -> None:
    """An Analyze 7.5 pair as OASIS-1 has it: big-endian int16, four-dimensional with a trailing 1."""
    header = nib.AnalyzeHeader(endianness=">")
    header.set_data_dtype(np.int16)
    path.parent.mkdir(parents=True, exist_ok=True)
    nib.save(nib.AnalyzeImage(volume[..., None].astype(np.int16), None, header), path)


def volume(seed: int, label: int) -> np.ndarray:
    """Blocks of a brightness of their own in a black frame, with a dark middle that is larger in patients."""
    rng = np.random.default_rng(seed)
    blocks = np.kron(rng.integers(300, 1000, (10, 12, 10)), np.ones((2, 2, 2), dtype=np.int16))
    out = np.zeros(SHAPE, dtype=np.int16)
    out[2:18, 3:21, 2:18] = blocks[2:18, 3:21, 2:18]
    radius = 2 + 2 * label
    out[10 - radius : 10 + radius, 12 - radius : 12 + radius, 3:17] = rng.integers(100, 200)
    return out


def write_discs(root: Path, subjects: int = 24, first: int = 0) -> Path:
    """OASIS-1 discs: even subjects are controls, odd ones patients; others in cohorts with another `first`."""
    root.mkdir(parents=True, exist_ok=True)
    rows = []
    for index in range(first, first + subjects):
        name = f"OAS1_{index + 1:04d}_MR1"
        folder = root / f"disc{1 + index // 12}" / name / "PROCESSED" / "MPRAGE" / "T88_111"
        write_pair(folder / f"{name}_mpr_n{3 + index % 4}_anon_111_t88_masked_gfc.img", volume(index, index % 2))
        rows.append(
            {
                "ID": name,
                "M/F": "FM"[index // 2 % 2],
                "Age": 60 + index,
                "Educ": 1 + index % 5,
                "CDR": (0, 0.5)[index % 2],
                "MMSE": "N/A",
                "nWBV": 0.7 + index % 7 / 100,
            }
        )
    with (root / "oasis_cross-sectional.csv").open("w", encoding="utf-8-sig", newline="") as file:
        table = csv.DictWriter(file, list(rows[0]))
        table.writeheader()
        table.writerows(rows)
    return root


def random_network(network: str, channels: tuple[int, ...] = (32, 64, 128), seed: int = 0) -> torch.nn.Module:
    """A "classifier" of 16 x 16 slices or an "autoencoder", batch-norm statistics random too, in evaluation mode."""
    encoder, decoder = ConvEncoder(channels=channels), ConvDecoder(channels=channels)
    made = {"classifier": EncoderClassifier(encoder=encoder, spatial_size=(16, 16)),
            "autoencoder": ConvAutoencoder(encoder=encoder, decoder=decoder)}[network]  # fmt: skip
    generator = torch.Generator().manual_seed(seed)
    for name, tensor in made.state_dict().items():
        if tensor.ndim > 1:
            tensor.normal_(0, (2 / tensor[0].numel()) ** 0.5, generator=generator)
        elif tensor.is_floating_point():
            middle = 1 if name.endswith(("weight", "var")) else 0  # of batch norm
            tensor.uniform_(middle - 0.2, middle + 0.2, generator=generator)
    return made.eval()


def write_bundle(root: Path, **settings: Any) -> Path:
    """The bundle as it lies on a disk after training on 16 x 16 slices, with random weights."""
    shutil.copytree(CONFIGS, root / "configs")
    path = root / "configs" / "inference.json"
    config = json.loads(path.read_text()) | {"image_size": 16, "slice_index": 11, "device": "cpu", **settings}
    path.write_text(json.dumps(config))
    for network, name in (("classifier", "model.pt"), ("autoencoder", "autoencoder.pt")):
        save_weights(random_network(network, tuple(config["channels"])), root / "models" / name)
    return root


def mistake(call: Callable[..., Any], *args: Any, **options: Any) -> str:
    """The one line that a user sees of what a call refuses; MONAI wraps it."""
    with pytest.raises(Exception) as raised:
        call(*args, **options)
    found = find_mistake(raised.value)
    assert found is not None, raised.value
    first, *others = str(found).splitlines()
    assert not others or "scans can't be used" in first  # which has a line for each
    return str(found)
