"""Claim: the autoencoder tells scans unlike the training's, kind by kind, from subjects that it has not seen.

Run: python benchmarks/strangers.py [--run RUN] [--subjects N] [--epochs N] [--seed N] [--quick]

RUN is the folder of a finished pretrain.json, whose cohort is still in its place; its test subjects are the held-out
ones, and every kind of stranger is made of them. Without one, a cohort of `monai-cae phantom` is pretrained on; its
brains are synthetic, not real MRI. The reference is measured anew from the run's training and validation scans.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import torch
from monai.bundle import ConfigParser
from monai.data import MetaTensor
from monai.transforms import Compose
from numpy.typing import NDArray
from report import Row, finish
from scipy import ndimage, stats
from sklearn.metrics import roc_auc_score
from torch.utils.data import Dataset

from monai_cae.data import write_phantom
from monai_cae.evaluation.comparison import delong
from monai_cae.evaluation.intervals import wilson_interval
from monai_cae.networks import load_weights, on_device
from monai_cae.training.models.reference import MEASURES, Reference
from monai_cae.training.models.strangers import measure, reference_path, write_reference

_Volume = NDArray[np.float32]
_LIMIT = 95
_CONFIG = Path(__file__).parents[1] / "bundle" / "configs" / "pretrain.json"


def _noisy(brain: _Volume, mask: NDArray[np.bool_], rng: np.random.Generator) -> _Volume:
    real, imaginary = 0.1 * np.percentile(brain[mask], 80) * rng.standard_normal((2, *brain.shape), dtype=np.float32)
    return np.where(mask, np.hypot(brain + real, imaginary), 0)


def _biased(brain: _Volume, mask: NDArray[np.bool_], rng: np.random.Generator) -> _Volume:
    nodes = rng.standard_normal((3, 3, 3))
    field = ndimage.zoom(nodes, [n / 3 for n in brain.shape], order=2, mode="nearest", grid_mode=True)
    return brain * (0.6 + 0.8 * (field - field.min()) / np.ptp(field)).astype(np.float32)


def _unstripped(brain: _Volume, mask: NDArray[np.bool_], rng: np.random.Generator) -> _Volume:
    """Dark bone of 8 mm and bright scalp of 5 mm around the brain."""
    away = ndimage.distance_transform_edt(~mask)
    return np.where((away > 8) & (away < 13), np.float32(np.percentile(brain[mask], 95)), brain)


def _inverted(brain: _Volume, mask: NDArray[np.bool_], rng: np.random.Generator) -> _Volume:
    return np.where(mask, 1.1 * np.percentile(brain[mask], 99.5) - brain, 0).clip(0).astype(np.float32)


def _lesion(brain: _Volume, mask: NDArray[np.bool_], rng: np.random.Generator) -> _Volume:
    """As dark as fluid, 25 mm across, somewhere in the brain."""
    deep = np.argwhere(ndimage.distance_transform_edt(mask) > 14)
    middle = deep[np.abs(deep[:, 2] - _lesion_plane).argsort()[: max(1, len(deep) // 20)]]
    place = middle[rng.integers(len(middle))]
    inside = sum((axis - at) ** 2 for axis, at in zip(np.ogrid[tuple(map(slice, brain.shape))], place)) < 12.5**2
    return np.where(inside & mask, np.float32(np.percentile(brain[mask], 2)), brain)


_lesion_plane = 105  # where the paper's slice cuts it


def _ball(brain: _Volume, mask: NDArray[np.bool_], rng: np.random.Generator) -> _Volume:
    axes = np.ogrid[tuple(slice(-n / 2, n / 2) for n in brain.shape)]
    inside = sum(axis**2 for axis in axes) < 70**2
    return np.where(inside, 1000 + 30 * rng.standard_normal(brain.shape), 0).clip(0).astype(np.float32)


def _zoomed(brain: _Volume, mask: NDArray[np.bool_], rng: np.random.Generator) -> _Volume:
    middle = (np.array(brain.shape) - 1) / 2
    return ndimage.affine_transform(brain, np.full(3, 1 / 1.25), middle - middle / 1.25, order=1)


Kind = Callable[[_Volume, NDArray[np.bool_], np.random.Generator], _Volume]
KINDS: dict[str, Kind] = {
    "another plane": lambda brain, mask, rng: brain.transpose(0, 2, 1),
    "20 mm lower": lambda brain, mask, rng: np.roll(brain, 20, axis=2),
    "mean of nine slices": lambda brain, mask, rng: ndimage.uniform_filter1d(brain, 9, axis=2),
    "left and right mirrored": lambda brain, mask, rng: brain[::-1],
    "front and back mirrored": lambda brain, mask, rng: brain[:, ::-1],
    "turned by 20 degrees": lambda brain, mask, rng: ndimage.rotate(brain, 20, reshape=False, order=1),
    "a quarter larger": _zoomed,
    "noise of 10 %": _noisy,
    "bias of 80 %": _biased,
    "unstripped": _unstripped,
    "contrast inverted": _inverted,
    "lesion of 25 mm": _lesion,
    "phantom head (a ball)": _ball,
}


def main() -> None:
    """Print a line for each kind and the table, write results/strangers.json."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--run", type=Path)
    parser.add_argument("--subjects", type=int, default=120)
    parser.add_argument("--epochs", type=int, default=25)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--quick", action="store_true")
    chosen = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        run = chosen.run
        if run is None:
            few = chosen.quick
            run = _pretrained(Path(folder), 40 if few else chosen.subjects, 3 if few else chosen.epochs, chosen.seed)
        _measured(run, Path(folder), chosen.seed, claimed=not chosen.quick)


def _pretrained(folder: Path, subjects: int, epochs: int, seed: int) -> Path:
    write_phantom(folder / "cohort", subjects, seed)
    settings = {"dataset_dir": folder / "cohort", "output_dir": folder / "run", "max_epochs": epochs, "seed": seed}
    options = [
        part for name, value in (settings | {"learning_rate": 0.001}).items() for part in (f"--{name}", str(value))
    ]
    command = [sys.executable, "-m", "monai.bundle", "run", "training", "--config_file", str(_CONFIG), *options]
    subprocess.run(command, check=True)
    return folder / "run"


def _measured(run: Path, folder: Path, seed: int, claimed: bool) -> None:
    executed = json.loads((run / "config_pretrain.json").read_text(encoding="utf-8").replace("::", "#"))
    parser = ConfigParser(executed | {"device": "cpu", "output_dir": str(run), "overwrite": False})
    weights = run / "models" / "autoencoder.pt"
    network = on_device(load_weights(parser.get_parsed_content("network_def"), weights), "cpu").eval()
    transforms = parser.get_parsed_content("train#preprocessing").transforms
    preprocess = Compose([t for t in transforms if type(t).__name__ not in ("LoadImaged", "EnsureChannelFirstd")])
    sets = json.loads((run / "datalist.json").read_text(encoding="utf-8"))
    place = Path(executed["dataset_dir"])

    def image(volume: _Volume, affine: Any) -> torch.Tensor:
        whole = np.ascontiguousarray(volume)[None]
        given = torch.as_tensor(whole) if affine is None else MetaTensor(whole, affine=torch.as_tensor(affine))
        return torch.as_tensor(preprocess({"image": given, "label": 0})["image"])

    copied = folder / weights.name
    copied.write_bytes(weights.read_bytes())
    known, unseen = (_Images(sets[name], place, image) for name in ("training", "validation"))
    if not write_reference(network, copied, known, unseen):
        raise SystemExit(1)
    reference = Reference.load(reference_path(copied))
    held_out = [_read(place / item["image"]) for item in sets["test"]]
    rng, started = np.random.default_rng(seed), time.process_time()
    usual = _scores(reference, network, [image(*one) for one in held_out])
    seconds = (time.process_time() - started) / len(held_out)
    false = wilson_interval(int((usual[:, 4] > _LIMIT).sum()), len(usual))
    print(f"{len(known)} training, {len(unseen)} validation, {len(held_out)} held-out scans", flush=True)
    print(f"held-out above {_LIMIT}: {(usual[:, 4] > _LIMIT).mean():.3f} ({false.low:.3f} to {false.high:.3f})")
    rows = []
    for name, make in KINDS.items():
        made = [image(make(volume, volume > 0, rng), affine) for volume, affine in held_out]
        strange = _scores(reference, network, made)
        labels = np.repeat([0, 1], [len(usual), len(strange)])
        aucs = [roc_auc_score(labels, np.concatenate([usual[:, n], strange[:, n]])) for n in range(4)]
        together = stats.rankdata(np.concatenate([usual[:, 3], strange[:, 3]])) / len(labels)
        error = delong(labels, together, np.zeros(len(labels))).standard_error
        marked = wilson_interval(int((strange[:, 4] > _LIMIT).sum()), len(strange))
        alone = ", ".join(f"{measure} {auc:.3f}" for measure, auc in zip(MEASURES, aucs, strict=False))
        print(
            f"{name}: AUROC {aucs[3]:.3f} ({aucs[3] - 1.96 * error:.3f} to {min(1, aucs[3] + 1.96 * error):.3f}), "
            f"marked {(strange[:, 4] > _LIMIT).mean():.2f} ({marked.low:.2f} to {marked.high:.2f}); {alone}",
            flush=True,
        )
        rows.append(Row(name, aucs[3], aucs[0], "reconstruction error alone", "AUROC", aucs[3] / max(aucs[0], 1e-9)))
    facts = {"training": len(known), "validation": len(unseen), "held_out": len(held_out), "seconds": seconds}
    finish("strangers", rows, marked_of_held_out=float((usual[:, 4] > _LIMIT).mean()), limit=_LIMIT, **facts)


def _read(path: Path) -> tuple[_Volume, Any]:
    """A volume and its affine; None for Analyze, which records none."""
    loaded: Any = nib.load(path)
    volume = np.asarray(loaded.dataobj, dtype=np.float32).reshape(loaded.shape[:3])
    return volume, loaded.affine if isinstance(loaded, nib.Nifti1Pair) else None


class _Images(Dataset):  # type: ignore[type-arg]
    def __init__(self, items: list[dict[str, Any]], place: Path, image: Callable[[_Volume, Any], torch.Tensor]) -> None:
        self.images = [image(*_read(place / item["image"])) for item in items]

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int) -> dict[str, torch.Tensor]:
        return {"image": self.images[index]}


def _scores(reference: Reference, network: torch.nn.Module, images: list[torch.Tensor]) -> NDArray[np.float64]:
    """Of each image the three measures, the largest in standard deviations, and its percentile."""
    found = []
    for first in range(0, len(images), 16):
        errors, codes, _ = measure(network, torch.stack(images[first : first + 16]))
        far, percentiles, _ = reference.compare(errors, codes)
        found.append(np.column_stack([reference.logarithms(errors, codes), far, percentiles]))
    return np.concatenate(found)


if __name__ == "__main__":
    main()
