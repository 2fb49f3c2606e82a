"""What a stage leaves behind when its engines have run: the best weights restored, figures, test metrics."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from ignite.engine import Engine
from matplotlib.figure import Figure
from torch import nn
from torch.utils.data import Dataset

from monai_cae.evaluation import figures
from monai_cae.evaluation.caveats import worse_than_mean_image
from monai_cae.evaluation.metrics import psnr
from monai_cae.evaluation.reconstruction_baselines import (
    Reconstruction,
    mean_image,
    reconstruction_table,
    trivial_codecs,
)
from monai_cae.files import replacing
from monai_cae.networks import reconstruction_of
from monai_cae.tracking import TrackedRun
from monai_cae.training.engines.handlers import BestCheckpoint
from monai_cae.training.results.predictions import PredictionTable

SYNTHETIC_NOTE = "Synthetic data, not real MRI"
Infer = Callable[[torch.Tensor, nn.Module], Any]
Flat = Callable[[np.ndarray], np.ndarray]


def report_autoencoder(
    run: TrackedRun,
    network: nn.Module,
    checkpoint: BestCheckpoint,
    dataset: Dataset,
    training: Dataset,
    inferer: Infer,
    flat: Flat,
    output_dir: str,
    synthetic: bool,
) -> dict[str, Any]:
    """Restore the best weights; draw the curves, reconstructions (the paper's figure 4) and feature maps (figure 3).

    Args:
        run: open; gets the figures.
        network: on its device.
        checkpoint: what kept the best weights.
        dataset: validation images, under `image`.
        training: training images; of the first 2,000 the mean is compared with.
        inferer: calls the network.
        flat: a channel of an image, in two or three dimensions -> what is drawn of it, in two.
        output_dir: its subfolder `figures` is written.
        synthetic: say so in the figures.

    Returns:
        The best epoch's validation metrics, and `caveats`.
    """
    checkpoint.restore()
    network.eval()
    images = _images(dataset, network, count=8)
    with torch.no_grad():
        reconstructions = reconstruction_of(network, inferer(images, network))
    note = SYNTHETIC_NOTE if synthetic else ""
    drawn = {
        "reconstructions": figures.reconstructions(_planes(images, flat), _planes(reconstructions, flat), note=note),
        "feature_maps": figures.feature_maps(
            {
                name: _each(flat, maps)
                for name, maps in _feature_maps(network.get_submodule("encoder"), images[:1]).items()
            },
            note=note,
        ),
    }
    metrics = _report_training(run, checkpoint, output_dir, "pretrain", drawn, note)
    known, unseen = (_planes(_images(images, network, count=2000)) for images in (training, dataset))
    trivial = float(psnr(unseen, mean_image(known, unseen).images).mean())
    return {**metrics, "caveats": worse_than_mean_image(checkpoint.best["val_psnr"], trivial)}


def report_classifier(
    run: TrackedRun, checkpoint: BestCheckpoint, output_dir: str, synthetic: bool
) -> dict[str, float]:
    """Restore the best weights of both stages, and draw the curves.

    Args:
        run: open; gets the figure.
        checkpoint: what kept the best weights.
        output_dir: its subfolder `figures` is written.
        synthetic: say so in the figure.

    Returns:
        The best epoch's validation metrics.
    """
    checkpoint.restore()
    return _report_training(run, checkpoint, output_dir, "train", {}, SYNTHETIC_NOTE if synthetic else "")


def compare_codecs(network: nn.Module, inferer: Infer, dataset: Dataset, training: Dataset) -> pd.DataFrame:
    """What the autoencoder's reconstructions are worth beside the trivial ones: mean image, principal components, half
    size.

    Args:
        network: on its device, with its weights.
        inferer: calls the network.
        dataset: test images, under `image`; the first 500 are compared.
        training: training images, which the mean and the components are of; the first 2,000.

    Returns:
        See `reconstruction_table` of `monai_cae.evaluation.reconstruction_baselines`; the network's row is named
        `autoencoder`.
    """
    network.eval()
    outputs = []
    images = _images(dataset, network, count=500)
    with torch.no_grad():
        for batch in images.split(32):
            outputs.append(_planes(reconstruction_of(network, inferer(batch, network))))
        code_size = inferer(images[:1], network.get_submodule("encoder")).numel()
    test, known = _planes(images), _planes(_images(training, network, count=2000))
    ours = Reconstruction(np.concatenate(outputs), code_size)
    return reconstruction_table(test, {"autoencoder": ours, **trivial_codecs(known, test)})


def report_test(
    run: TrackedRun,
    table: PredictionTable,
    reconstruction: Engine,
    codecs: Callable[[], pd.DataFrame],
    output_dir: str,
    synthetic: bool,
) -> dict[str, Any]:
    """Test metrics and figures of the classifier, as its target has them, and test metrics of the autoencoder.

    Args:
        run: open; gets metrics, figures and the predictions.
        table: has collected the classifier's predictions, with the column `label`.
        reconstruction: evaluator of the autoencoder, has run; its metrics are named `test_*`.
        codecs: gives the table of `compare_codecs`, which is written as reconstruction.csv.
        output_dir: it and its subfolder `figures` are written.
        synthetic: say so in the figures.

    Returns:
        The name of the `target`, the metrics, each named `test_*`, the `threshold` that classes were decided by, and
        `caveats`: what has to be known before a metric is quoted, one sentence each.
    """
    target, note = table.target, SYNTHETIC_NOTE if synthetic else ""
    tested = np.array(table.column("label")), np.array(table.column(target.column)), table.threshold
    scores = target.scores(*tested)
    coded = codecs()
    similar = {f"test_{name}": float(coded.loc["autoencoder", name]) for name in ("ssim", "ssim_brain")}
    metrics = {**reconstruction.state.metrics, **similar, **{f"test_{name}": value for name, value in scores.items()}}
    metrics |= {"threshold": table.threshold} if target.binary else {}
    run.log_metrics(metrics)
    run.log_file(table.path)
    with replacing(Path(output_dir, "reconstruction.csv")) as temporary:
        coded.to_csv(temporary, float_format="%.5g")
    run.log_file(Path(output_dir, "reconstruction.csv"))
    _save(run, output_dir, "evaluate", target.figures(*tested, note))
    caveats = target.caveats(*tested) + worse_than_mean_image(*coded.loc[["autoencoder", "mean image"], "psnr"])
    return {"target": target.name, **metrics, "caveats": caveats}


def _report_training(
    run: TrackedRun, checkpoint: BestCheckpoint, output_dir: str, stage: str, drawn: dict[str, Figure], note: str
) -> dict[str, float]:
    value = checkpoint.best[checkpoint.metric]
    of_value = [epoch for epoch, other in run.history[checkpoint.metric] if other == value]
    best_epoch = of_value[0] if checkpoint.keep == "best" else run.epoch
    marks = {**run.marks, "best" if checkpoint.keep == "best" else "kept": best_epoch}
    if run.epoch > 1:
        drawn["training_curves"] = figures.training_curves(run.history, marks=marks, note=note)
    _save(run, output_dir, stage, drawn)
    run.log_metrics({f"best_{name}": value for name, value in checkpoint.best.items()})
    return {**checkpoint.best, "best_epoch": best_epoch, "epochs": run.epoch}


def _save(run: TrackedRun, output_dir: str, stage: str, drawn: Mapping[str, Figure]) -> None:
    for name, figure in drawn.items():
        path = Path(output_dir, "figures", f"{stage}_{name}.png")
        figures.save_figure(figure, path)
        run.log_file(path, "figures")


def _images(dataset: Dataset, network: nn.Module, count: int) -> torch.Tensor:
    device = next(network.parameters()).device
    chosen = range(min(count, len(dataset)))  # type: ignore[arg-type]  # map-style datasets have a length
    return torch.stack([torch.as_tensor(dataset[index]["image"]) for index in chosen]).to(device)


def _planes(images: torch.Tensor, flat: Flat | None = None) -> np.ndarray:
    """The channels of each image side by side, in full or as they are drawn."""
    channels = images.detach().float().cpu().numpy().swapaxes(0, 1)
    return np.concatenate([_each(flat, channel) if flat else channel for channel in channels], axis=1)


def _each(flat: Flat, stack: np.ndarray) -> np.ndarray:
    return np.stack([flat(one) for one in stack])


def _feature_maps(encoder: nn.Module, image: torch.Tensor) -> dict[str, np.ndarray]:
    activations = [module for module in encoder.modules() if isinstance(module, nn.ReLU)]
    maps: dict[str, np.ndarray] = {}

    def keep(name: str) -> Callable[[nn.Module, Sequence[torch.Tensor], torch.Tensor], None]:
        def hook(module: nn.Module, inputs: Sequence[torch.Tensor], output: torch.Tensor) -> None:
            maps[name] = output[0].detach().float().cpu().numpy().copy()

        return hook

    hooks = [module.register_forward_hook(keep(f"convolution {i}")) for i, module in enumerate(activations, start=1)]
    try:
        with torch.no_grad():
            encoder(image)
    finally:
        for handle in hooks:
            handle.remove()
    return maps
