"""Claim: the autoencoder tells scans unlike the training's, kind by kind, from subjects that it has not seen.

Run: python benchmarks/strangers.py [--run RUN [--elsewhere PLANE=FOLDER ...]] [--subjects N] [--epochs N] [--quick]

RUN is the folder of a finished pretrain.json, whose cohort is still in its place; its test subjects are the held-out
ones, and every kind of stranger is made of them. Without one, a cohort of `monai-cae phantom` is pretrained on; its
brains are synthetic, not real MRI. The reference is measured anew from the run's training and validation scans. FOLDER
has the same scans, cut in another plane, where the cohort itself is of single slices.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from monai.bundle import ConfigParser
from numpy.typing import NDArray
from report import Row, finish
from scipy import ndimage, stats
from sklearn.metrics import roc_auc_score

from monai_cae.data import write_phantom
from monai_cae.evaluation.comparison import delong
from monai_cae.evaluation.intervals import wilson_interval
from monai_cae.networks import load_weights, on_device
from monai_cae.training.models.reference import MEASURES, Reference
from monai_cae.training.models.strangers import measure, reference_path, write_reference

_Image = NDArray[np.float32]
_Mask = NDArray[np.bool_]
_LIMIT = 95
_CONFIG = Path(__file__).parents[1] / "bundle" / "configs" / "pretrain.json"
_ELSEWHERE: dict[str, dict[str, Any]] = {
    "coronal slice 107": {"plane": "coronal", "slice_index": 107},
    "20 mm lower": {"slice_index": 86},
}


def _noisy(brain: _Image, mask: _Mask, rng: np.random.Generator) -> _Image:
    """Rician, a tenth of white matter."""
    real, imaginary = 0.1 * np.percentile(brain[mask], 80) * rng.standard_normal((2, *brain.shape), dtype=np.float32)
    return np.where(mask, np.hypot(brain + real, imaginary), 0)


def _biased(brain: _Image, mask: _Mask, rng: np.random.Generator) -> _Image:
    nodes = rng.standard_normal((3,) * brain.ndim)
    field = ndimage.zoom(nodes, [n / 3 for n in brain.shape], order=2, mode="nearest", grid_mode=True)
    return brain * (0.6 + 0.8 * (field - field.min()) / np.ptp(field)).astype(np.float32)


def _unstripped(brain: _Image, mask: _Mask, rng: np.random.Generator) -> _Image:
    """Dark bone of 8 mm and bright scalp of 5 mm around the brain."""
    away = ndimage.distance_transform_edt(~mask)
    return np.where((away > 8) & (away < 13), np.percentile(brain[mask], 95), brain)


def _inverted(brain: _Image, mask: _Mask, rng: np.random.Generator) -> _Image:
    return np.where(mask, 1.1 * np.percentile(brain[mask], 99.5) - brain, 0).clip(0)


def _lesion(brain: _Image, mask: _Mask, rng: np.random.Generator) -> _Image:
    """As dark as fluid, 25 mm across, anywhere in the brain."""
    deep = np.argwhere(ndimage.distance_transform_edt(mask) > 14)
    return np.where(
        _ball(brain.shape, deep[rng.integers(len(deep))], 12.5) & mask, np.percentile(brain[mask], 2), brain
    )


def _phantom_head(brain: _Image, mask: _Mask, rng: np.random.Generator) -> _Image:
    inside = _ball(brain.shape, np.array(brain.shape) / 2, 65)
    return np.where(inside, 1 + 0.03 * rng.standard_normal(brain.shape), 0).clip(0)


def _ball(shape: tuple[int, ...], middle: NDArray[Any], radius: float) -> _Mask:
    axes = np.ogrid[tuple(map(slice, shape))]
    squares = [(axis - at) ** 2 for axis, at in zip(axes, middle, strict=True)]
    return np.asarray(sum(squares) < radius**2)


def _larger(brain: _Image, mask: _Mask, rng: np.random.Generator) -> _Image:
    middle = (np.array(brain.shape) - 1) / 2
    return ndimage.affine_transform(brain, np.full(brain.ndim, 1 / 1.25), middle - middle / 1.25, order=1)


Kind = Callable[[_Image, _Mask, np.random.Generator], _Image]
KINDS: dict[str, Kind] = {
    "left and right mirrored": lambda brain, mask, rng: brain[::-1],
    "front and back mirrored": lambda brain, mask, rng: brain[:, ::-1],
    "turned by 10 degrees": lambda brain, mask, rng: ndimage.rotate(brain, 10, reshape=False, order=1),
    "a quarter larger": _larger,
    "blurred by 2 mm": lambda brain, mask, rng: ndimage.gaussian_filter(brain, 2),
    "noise of 10 %": _noisy,
    "bias of 80 %": _biased,
    "unstripped": _unstripped,
    "contrast inverted": _inverted,
    "lesion of 25 mm": _lesion,
    "phantom head (a ball)": _phantom_head,
    "black": lambda brain, mask, rng: np.zeros_like(brain),
}


def main() -> None:
    """Print a line for each kind and the table, write results/strangers.json."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--run", type=Path)
    parser.add_argument("--elsewhere", nargs="*", default=[], metavar="PLANE=FOLDER")
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
        _measured(run, Path(folder), chosen.seed, dict(part.split("=", 1) for part in chosen.elsewhere))


def _pretrained(folder: Path, subjects: int, epochs: int, seed: int) -> Path:
    write_phantom(folder / "cohort", subjects, seed)
    settings = {"dataset_dir": folder / "cohort", "output_dir": folder / "run", "max_epochs": epochs, "seed": seed}
    options = [
        part for name, value in (settings | {"learning_rate": 0.001}).items() for part in (f"--{name}", str(value))
    ]
    command = [sys.executable, "-m", "monai.bundle", "run", "training", "--config_file", str(_CONFIG), *options]
    subprocess.run(command, check=True)
    return folder / "run"


def _measured(run: Path, folder: Path, seed: int, elsewhere: Mapping[str, str]) -> None:
    executed = json.loads((run / "config_pretrain.json").read_text(encoding="utf-8").replace("::", "#"))
    executed |= {"device": "cpu", "output_dir": str(run), "overwrite": False}
    sets = json.loads((run / "datalist.json").read_text(encoding="utf-8"))
    weights, place = run / "models" / "autoencoder.pt", Path(executed["dataset_dir"])
    parser = ConfigParser(dict(executed))
    network = on_device(load_weights(parser.get_parsed_content("network_def"), weights), "cpu").eval()

    def images(name: str, settings: Mapping[str, Any] | None = None, other: Path | None = None) -> list[_Image]:
        preprocess = ConfigParser({**executed, **(settings or {})}).get_parsed_content("train#preprocessing")
        paths = [other / Path(item["image"]).name if other else place / item["image"] for item in sets[name]]
        return [np.asarray(preprocess({"image": str(path), "label": 0})["image"]) for path in paths]

    copied = folder / weights.name
    copied.write_bytes(weights.read_bytes())
    known, unseen, held_out = (images(name) for name in ("training", "validation", "test"))
    parts: Any = [[{"image": image} for image in part] for part in (known, unseen)]
    if not write_reference(network, copied, *parts):
        raise SystemExit(1)
    reference = Reference.load(reference_path(copied))
    started = time.process_time()
    usual = _scores(reference, network, held_out)
    seconds = (time.process_time() - started) / len(held_out)
    false = (usual[:, -1] > _LIMIT).mean()
    told = wilson_interval(int(false * len(usual)), len(usual))
    print(f"{len(known)} training, {len(unseen)} validation, {len(held_out)} held-out scans")
    print(f"held-out above percentile {_LIMIT}: {false:.3f} ({told.low:.3f} to {told.high:.3f})", flush=True)
    rng = np.random.default_rng(seed)
    made = {name: [_changed(image, make, rng) for image in held_out] for name, make in KINDS.items()}
    if elsewhere:
        made |= {plane: images("test", {"plane": plane}, Path(other)) for plane, other in elsewhere.items()}
    elif parser.get_parsed_content("extraction").name == "axial slice 106":
        made |= {name: images("test", settings) for name, settings in _ELSEWHERE.items()}
    rows = [_row(name, usual, _scores(reference, network, strange)) for name, strange in made.items()]
    facts = {"training": len(known), "validation": len(unseen), "held_out": len(held_out), "seconds": seconds}
    finish("strangers", rows, marked_of_held_out=float(false), limit=_LIMIT, **facts)


def _changed(image: _Image, make: Kind, rng: np.random.Generator) -> _Image:
    """Each channel by itself, then scaled to [0, 1] as ScaleIntensity does."""
    made = np.stack([make(channel, channel > 0.03, rng) for channel in image]).astype(np.float32)
    return (made - made.min()) / (np.ptp(made) or 1)


def _row(name: str, usual: NDArray[np.float64], strange: NDArray[np.float64]) -> Row:
    labels = np.repeat([0, 1], [len(usual), len(strange)])
    whole = len(MEASURES)
    aucs = [float(roc_auc_score(labels, np.concatenate([usual[:, n], strange[:, n]]))) for n in range(whole + 1)]
    ranks = stats.rankdata(np.concatenate([usual[:, whole], strange[:, whole]])) / len(labels)
    reach = 1.96 * delong(labels, ranks, np.zeros(len(labels))).standard_error
    marked = int((strange[:, -1] > _LIMIT).sum())
    told = wilson_interval(marked, len(strange))
    alone = ", ".join(f"{measure} {auc:.3f}" for measure, auc in zip(MEASURES, aucs[:whole], strict=True))
    print(
        f"{name}: AUROC {aucs[whole]:.3f} ({aucs[whole] - reach:.3f} to {min(1, aucs[whole] + reach):.3f}), marked "
        f"{marked / len(strange):.2f} ({told.low:.2f} to {told.high:.2f}); alone: {alone}",
        flush=True,
    )
    error = "reconstruction error alone"
    return Row(name, aucs[whole], aucs[0], error, "AUROC", aucs[whole] / max(aucs[0], 1e-9))


def _scores(reference: Reference, network: torch.nn.Module, images: Sequence[_Image]) -> NDArray[np.float64]:
    """Of each image the measures, the largest in standard deviations, and its percentile."""
    found = []
    for first in range(0, len(images), 16):
        measured, _ = measure(network, torch.as_tensor(np.stack(images[first : first + 16])))
        far, percentiles, _ = reference.compare(measured)
        found.append(np.column_stack([reference.logarithms(measured), far, percentiles]))
    return np.concatenate(found)


if __name__ == "__main__":
    main()
