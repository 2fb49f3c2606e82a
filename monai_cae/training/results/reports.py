"""What a stage leaves after its engines have run: the best weights restored, figures, test metrics."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from ignite.engine import Engine
from matplotlib.figure import Figure
from torch import nn
from torch.utils.data import Dataset

from monai_cae.errors import MonaiCaeError
from monai_cae.evaluation.caveats import many_strangers, worse_than_mean_image
from monai_cae.evaluation.image_figures import Pictures
from monai_cae.evaluation.metrics import psnr
from monai_cae.evaluation.reconstruction_baselines import (
    AUTOENCODER,
    Reconstruction,
    mean_image,
    reconstruction_table,
    shrinking_codecs,
    trivial_codecs,
)
from monai_cae.files import replacing
from monai_cae.networks import reconstruction_of
from monai_cae.tracking import TrackedRun
from monai_cae.training.engines.handlers import BestCheckpoint
from monai_cae.training.models.strangers import Strangers, write_reference
from monai_cae.training.results.figures import Draw, Infer, Outcome, draw, first_images, in_one, places_in
from monai_cae.training.results.latent import latent_statistics
from monai_cae.training.results.predictions import PredictionTable
from monai_cae.training.results.samples import PLACES, SampleTable

_BATCH_VALUES = 2**20  # of 33 slices of 176 x 176, or of a volume at 2 mm


def report_classifier(
    run: TrackedRun,
    network: nn.Module,
    checkpoint: BestCheckpoint,
    dataset: Dataset,
    training: Dataset,
    inferer: Infer,
    extraction: Pictures,
    figures: Mapping[str, Draw | None],
    output_dir: str,
    synthetic: bool,
    stage: str = "train",
) -> dict[str, Any]:
    """Restore the best weights, and draw the figures.

    Args:
        run: open; gets the figures.
        network: on its device.
        checkpoint: what kept the best weights.
        dataset: validation images, under `image`.
        training: training images.
        inferer: calls the network.
        extraction: makes the pictures that are drawn.
        figures: see `draw`.
        output_dir: its subfolder `figures` is written.
        synthetic: said in the figures.
        stage: begins the names of the figures.

    Returns:
        The best epoch's validation metrics.
    """
    checkpoint.restore()
    value = checkpoint.best[checkpoint.metric]
    of_value = [epoch for epoch, other in run.history[checkpoint.metric] if other == value]
    best_epoch = of_value[0] if checkpoint.keep == "best" else run.epoch
    marks = {**run.marks, "best" if checkpoint.keep == "best" else "kept": best_epoch}
    told: dict[str, Any] = {"history": run.history, "marks": marks, "synthetic": synthetic}
    draw(figures, Outcome(stage, network.eval(), inferer, extraction, dataset, training, **told), run, output_dir)
    image = first_images(dataset, network, 1)
    with torch.no_grad():
        output = reconstruction_of(network, network(image)) if stage == "pretrain" else network(image)
    run.log_model(image.shape[1:], output.shape[1:], weights=checkpoint.path.name, synthetic=synthetic)
    run.log_metrics({f"best_{name}": value for name, value in checkpoint.best.items()})
    return {**checkpoint.best, "best_epoch": best_epoch, "epochs": run.epoch}


def report_autoencoder(
    network: nn.Module, checkpoint: BestCheckpoint, dataset: Dataset, training: Dataset, **others: Any
) -> dict[str, Any]:
    """`report_classifier` of the first stage, a comparison with the mean of the first 2,000 training images, and the
    reference that tells strangers.

    Returns:
        The best epoch's validation metrics, what `latent_statistics` says of the first 500 validation images, and
        `caveats`.
    """
    given = {"network": network, "checkpoint": checkpoint, "dataset": dataset, "training": training, **others}
    metrics = report_classifier(**given, stage="pretrain")
    known, unseen = (in_one(first_images(images, network, 2000)) for images in (training, dataset))
    trivial = float(psnr(unseen, mean_image(known, unseen).images).mean())
    latent, caveats = latent_statistics(network, first_images(dataset, network, 500), others["inferer"])
    others["run"].log_metrics(latent)
    write_reference(network, checkpoint.path, training, dataset)
    return {**metrics, **latent, "caveats": worse_than_mean_image(checkpoint.best["val_psnr"], trivial) + caveats}


def compare_codecs(network: nn.Module, inferer: Infer, dataset: Dataset, training: Dataset) -> pd.DataFrame:
    """What the autoencoder's reconstructions are worth beside trivial ones: mean image, principal components, fewer
    pixels, JPEG.

    Args:
        network: on its device, with its weights.
        inferer: calls the network.
        dataset: test images, under `image`; the first 500 are compared, of volumes as many as `first_images` gives.
        training: training images, which the mean and the components are of; the first 2,000, likewise. Without any, the
            test images are compared with what needs none.

    Returns:
        See `reconstruction_table` of `monai_cae.evaluation.reconstruction_baselines`; the network's row is named
        `autoencoder`.
    """
    network.eval()
    outputs = []
    images = first_images(dataset, network, 500)
    with torch.no_grad():
        for batch in images.split(max(1, min(32, _BATCH_VALUES // images[0].numel()))):
            outputs.append(in_one(reconstruction_of(network, inferer(batch, network))))
        code_size = inferer(images[:1], network.get_submodule("encoder")).numel()
    test, ours = in_one(images), Reconstruction(np.concatenate(outputs), code_size)
    if not len(training):  # type: ignore[arg-type]  # map-style datasets have a length
        return reconstruction_table(test, {AUTOENCODER: ours, **shrinking_codecs(test)})
    known = in_one(first_images(training, network, 2000))
    return reconstruction_table(test, {AUTOENCODER: ours, **trivial_codecs(known, test)})


def report_test(
    run: TrackedRun,
    table: PredictionTable,
    samples: SampleTable,
    reconstruction: Engine | None,
    codecs: Callable[[], pd.DataFrame] | None,
    network: nn.Module,
    dataset: Dataset,
    inferer: Infer,
    extraction: Pictures,
    figures: Mapping[str, Draw | None],
    output_dir: str,
    synthetic: bool,
) -> dict[str, Any]:
    """Test metrics of the classifier, as its target has them, and of the autoencoder, and the figures.

    Args:
        run: open; gets metrics, figures and the predictions.
        table: has collected the classifier's predictions, with the column `label`.
        samples: has collected the votes of their samples, if these vote.
        reconstruction: evaluator of the autoencoder, has run; its metrics are named `test_*`. None leaves them out.
        codecs: gives the table of `compare_codecs`, which is written as reconstruction.csv; None for no table.
        network, dataset, inferer: the classifier, the test images, and what calls it.
        extraction: see `report_classifier`.
        figures: see `draw`.
        output_dir: it and its subfolder `figures` are written.
        synthetic: said in the figures.

    Returns:
        The name of the `target`, the metrics, each named `test_*`, the `threshold` that classes were decided by, how
        many `strangers` were marked where that is known, and `caveats`: what has to be known before a metric is
        quoted, one sentence each.

    Raises:
        MonaiCaeError: the target names a score that it does not give.
    """
    target = table.target
    tested = np.array(table.column("label")), np.array(table.column(target.column)), table.threshold
    scores = target.scores(*tested)
    if not target.binary and (missing := {*target.score_names, *target.headline} - scores.keys()):
        raise MonaiCaeError(
            f"{type(target).__name__}.scores gives no {min(missing)}, which it names: correct the class"
        )
    metrics: dict[str, Any] = dict(reconstruction.state.metrics) if reconstruction else {}
    coded = codecs() if codecs else pd.DataFrame()
    if not coded.empty:
        metrics |= {f"test_{name}": float(coded.loc[AUTOENCODER, name]) for name in ("ssim", "ssim_brain")}
        with replacing(Path(output_dir, "reconstruction.csv")) as temporary:
            coded.to_csv(temporary, float_format="%.5g")
        run.log_file(Path(output_dir, "reconstruction.csv"))
    metrics |= {f"test_{name}": value for name, value in scores.items()}
    metrics |= {"threshold": table.threshold} if target.binary else {}
    run.log_metrics(metrics)
    for path in (table.path, samples.path):
        if path.is_file():
            run.log_file(path)
    votes = samples.frame()
    places = None if votes.empty else places_in(extraction, dataset)
    if places is not None:
        places.write(Path(output_dir, PLACES))
    told = {"predictions": pd.DataFrame(table.columns), "samples": votes, "places": places, "target": target}
    told |= {"threshold": table.threshold, "synthetic": synthetic}
    own = {name: _of_test(function, *tested) for name, function in target.figures().items()}
    strangers = table.strangers
    if strangers is not None:
        own["strangers"] = lambda outcome: strangers.figure(outcome.note)
        own["latent_map"] = lambda outcome: _latent_map(table, strangers, outcome)
    draw({**own, **figures}, Outcome("evaluate", network.eval(), inferer, extraction, dataset, **told), run, output_dir)
    caveats = target.caveats(*tested)
    unlike: dict[str, Any] = {}
    if strangers is not None and not isinstance(strangers.reference, str):
        unlike = {"scans": len(table.marked), "marked": sum(table.marked), "limit": strangers.limit}
        unlike |= {"validation": strangers.reference.validation}
        run.log_metrics({"test_strangers": unlike["marked"] / unlike["scans"]})
        caveats += many_strangers(**unlike)
    if "mean image" in coded.index:
        caveats += worse_than_mean_image(*coded.loc[[AUTOENCODER, "mean image"], "psnr"])
    return {"target": target.name, **metrics, "strangers": unlike, "caveats": caveats}


def _latent_map(table: PredictionTable, strangers: Strangers, outcome: Outcome) -> Figure | None:
    labels, predicted = (np.array(table.column(name), dtype=float) for name in ("label", table.target.column))
    told = {"note": outcome.note, "about": outcome.about}
    if table.target.binary:
        predicted = predicted >= table.threshold
    return strangers.latent_map(labels, predicted, np.array(table.marked), table.target.binary, told)


def _of_test(function: Callable[..., Figure], *tested: Any) -> Draw:
    return lambda outcome: function(*tested, outcome.note, outcome.about)
