"""The figures of a stage, by name in the config item `figures`: each is a function of the stage's outcome."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import pandas as pd
import torch
from matplotlib.figure import Figure
from numpy.typing import NDArray
from torch import nn
from torch.utils.data import Dataset

from monai_cae.evaluation import figures, image_figures
from monai_cae.evaluation.image_figures import Pictures
from monai_cae.evaluation.metrics import psnr
from monai_cae.evaluation.pooled import mean_of_scans
from monai_cae.evaluation.sample_figures import sample_bars, vote_map
from monai_cae.evaluation.style import save_figure
from monai_cae.files import replacing
from monai_cae.networks import reconstruction_of
from monai_cae.targets import Target
from monai_cae.tracking import TrackedRun
from monai_cae.training.results.samples import Places, sample_scores

SYNTHETIC_NOTE = "Synthetic data, not real MRI"
MOST_VALUES = 2**26  # of images that are compared in memory, 256 MiB: 2,166 slices of 176 x 176, 83 volumes at 2 mm
Infer = Callable[[torch.Tensor, nn.Module], Any]


@dataclass(frozen=True)
class Outcome:
    """The outcome of a stage, for figures.

    Attributes:
        stage: "pretrain", "train" or "evaluate".
        network: with the best weights, in evaluation mode, on its device; the autoencoder in pretrain, else the
            classifier.
        infer: `infer(images, network)` calls the network, or a part of it, as the stage does.
        extraction: makes the pictures to draw.
        dataset: items with `image`, shape `(channels, H, W)` or `(channels, X, Y, Z)`, `label` and more: the
            validation set, in evaluate the test set.
        training: the training set; None in evaluate.
        predictions: in evaluate, a row per item of `dataset`: `subject`, `label`, and what the target predicts.
        samples: in evaluate, where the samples of images vote, a row for each sample, see `SampleTable`.
        places: in evaluate, where samples that vote lie, if that is known.
        target: in evaluate, what is predicted.
        threshold: probabilities of this or more are predicted as AD.
        history: metric -> [(epoch, value), ...], in pretrain and train.
        marks: epochs to mark, such as the best, by their label.
        synthetic: the images are a phantom's.
    """

    stage: str
    network: nn.Module
    infer: Infer
    extraction: Pictures
    dataset: Dataset
    training: Dataset | None = None
    predictions: pd.DataFrame = field(default_factory=pd.DataFrame)
    samples: pd.DataFrame = field(default_factory=pd.DataFrame)
    places: Places | None = None
    target: Target | None = None
    threshold: float = 0.5
    history: Mapping[str, Sequence[tuple[int, float]]] = field(default_factory=dict)
    marks: Mapping[str, int] = field(default_factory=dict)
    synthetic: bool = False

    @property
    def note(self) -> str:
        """The note that every figure must show."""
        return SYNTHETIC_NOTE if self.synthetic else ""

    @property
    def about(self) -> str:
        """Whom it is about, for a title: "28 validation scans"."""
        return f"{_size(self.dataset)} {'test' if self.stage == 'evaluate' else 'validation'} scans"

    def images(self, most: int) -> torch.Tensor:
        """The first images of the dataset, on the network's device."""
        return first_images(self.dataset, self.network, most)


Drawn: TypeAlias = Figure | pd.DataFrame | Mapping[str, NDArray[Any]]
Draw = Callable[[Outcome], Drawn | Mapping[str, Drawn] | None]


def draw(wanted: Mapping[str, Draw | None], outcome: Outcome, run: TrackedRun, output_dir: str) -> None:
    """Draw what the config names into `output_dir/figures`, as STAGE_NAME.png, and log it in MLflow.

    A figure that fails is named in one line, and the others are drawn; the stage keeps its results.

    Args:
        wanted: name -> function that returns the figure, a table, which becomes a .csv in its place, or several of them
            by the end of their names, among which may be arrays by their names, which become a .npz; None if there is
            nothing to show; null for none.
        outcome: of the stage.
        run: open.
        output_dir: the stage's.
    """
    for name, function in wanted.items():
        try:
            made = function(outcome) if function is not None else None
            several = made if isinstance(made, Mapping) else {"": made}
            stem = Path(output_dir, "figures", f"{outcome.stage}_{name}")
            drawn = {f"{stem}_{end}" if end else str(stem): one for end, one in several.items() if one is not None}
            files = [_write(one, path) for path, one in drawn.items()]
        except Exception as error:  # whatever a user's figure raises
            tell_undrawn(name, error)
        else:
            for path in files:
                if path.suffix != ".npz":  # for our pages; MLflow could not show it
                    run.log_file(path, "figures")


def _write(drawn: Drawn, stem: str) -> Path:
    if isinstance(drawn, Mapping):
        with replacing(f"{stem}.npz") as temporary, temporary.open("wb") as file:
            np.savez_compressed(file, **drawn)
        return Path(f"{stem}.npz")
    if not isinstance(drawn, pd.DataFrame):
        return save_figure(drawn, f"{stem}.png")
    with replacing(f"{stem}.csv") as temporary:
        drawn.to_csv(temporary, index=False, float_format="%.4g")
    return Path(f"{stem}.csv")


def tell_undrawn(name: str, error: Exception) -> None:
    """Name a figure that failed, in one line on stderr."""
    reason = f"{type(error).__name__}: {error}".partition("\n")[0]
    print(f"the figure {name} could not be drawn ({reason})", file=sys.stderr, flush=True)


def reconstructions(outcome: Outcome) -> Figure:
    """The paper's figure 4: validation images and what the autoencoder makes of them."""
    images = outcome.images(image_figures.MAX_COLUMNS)
    images = images[: image_figures.columns_of(_drawn(images[:1], outcome.extraction).shape[1:])]
    with torch.no_grad():
        outputs = reconstruction_of(outcome.network, outcome.infer(images, outcome.network))
    shown, made = (_drawn(stack, outcome.extraction) for stack in (images, outputs))
    whole = psnr(images.float().cpu().numpy(), outputs.float().cpu().numpy())
    return image_figures.reconstructions(shown, made, outcome.note, f"{len(shown)} of {outcome.about}", whole)


def _drawn(images: torch.Tensor, extraction: Pictures) -> np.ndarray:
    """A picture of each image."""
    return np.stack([extraction.picture(image) for image in images.detach().float().cpu().numpy()])


def feature_maps(outcome: Outcome) -> Figure:
    """The paper's figure 3: what the encoder's layers see in the first validation image; of an encoder without ReLU,
    which may be anybody's, the code alone."""
    maps = _activations(outcome.network.get_submodule("encoder"), outcome.images(1))
    drawn = {name: np.stack([outcome.extraction.flat(one) for one in channels]) for name, channels in maps.items()}
    sizes = {name: channels.shape[1:] for name, channels in maps.items()}
    return image_figures.feature_maps(drawn, outcome.note, f"the first of {outcome.about}", sizes)


def training_curves(outcome: Outcome) -> Figure | None:
    """Losses and scores by epoch; None where there was one epoch alone."""
    if not any(epoch > 1 for points in outcome.history.values() for epoch, _ in points):
        return None
    network = "Autoencoder" if outcome.stage == "pretrain" else "Classifier"
    known = f"{_size(outcome.training)} training and " if outcome.training is not None else ""
    about = f"{network}, {known}{outcome.about}"
    return figures.training_curves(outcome.history, outcome.note, outcome.marks, about)


def samples(outcome: Outcome) -> Figure | None:
    """How often each sample of an image is right by itself: a map over the mean image if they are patches of a volume,
    else a bar each; None where no samples vote."""
    target = outcome.target
    if target is None or outcome.samples.empty:
        return None
    classes = bool(target.classes)
    alone = {"repeat": 1, "fold": 1, "threshold": outcome.threshold}
    scores = sample_scores(mean_of_scans(outcome.samples, target.column, classes).assign(**alone), target)
    label = "first" if classes else "mean"
    by_subject = outcome.predictions.groupby("subject").agg({"label": label, target.column: "mean"})
    told = {"note": outcome.note, "about": f"{len(by_subject)} test subjects"}
    labels, predicted = by_subject.to_numpy(dtype=float).T
    return sample_figure(scores, target.scores(labels, predicted, outcome.threshold), target, outcome.places, **told)


def sample_figure(
    scores: pd.DataFrame,
    together: Mapping[str, float],
    target: Target,
    places: Places | None,
    note: str = "",
    about: str = "",
) -> Figure:
    """`sample_bars` of accuracy or, of a target that is not binary, of its first score; `vote_map` of accuracy where
    the samples' places are known.

    Args:
        scores: see `sample_scores`.
        together: scores of the subjects' predictions.
        target: what is predicted.
        places: of the samples, in the order of the scores.
        note, about: footer and title.
    """
    if target.binary and places is not None:
        accuracies = scores.xs("accuracy", level="score")["mean"]
        return vote_map(places.volume, places.boxes, accuracies, "accuracy", note, about)
    name = "accuracy" if target.binary else target.headline[0]
    return sample_bars(scores.xs(name, level="score"), target.score_names[name], together[name], note, about)


def places_in(extraction: Pictures, dataset: Dataset) -> Places | None:
    """Where the samples of images lie, if these are patches (`monai_cae.data.PatchesExtraction`), over the mean of a
    dataset's images."""
    boxes = getattr(extraction, "sample_boxes", None)
    if boxes is None:
        return None
    count = _size(dataset)
    total = sum(torch.as_tensor(dataset[index]["image"]).double() for index in range(count))
    return Places(extraction.assembled(np.asarray(total / count)), boxes)  # type: ignore[attr-defined]  # as boxes are


def _size(dataset: Dataset) -> int:
    return len(dataset)  # type: ignore[arg-type]  # map-style datasets have a length


def first_images(dataset: Dataset, network: nn.Module, most: int) -> torch.Tensor:
    """The first images of a dataset on a network's device, as far as they have at most `MOST_VALUES` values."""
    device = next(network.parameters()).device
    fitting = MOST_VALUES // torch.as_tensor(dataset[0]["image"]).numel()
    chosen = range(min(most, max(1, fitting), _size(dataset)))
    return torch.stack([torch.as_tensor(dataset[index]["image"]) for index in chosen]).to(device)


def in_one(images: torch.Tensor) -> np.ndarray:
    """Images of one channel each: several lie one above the other, the first on top."""
    channels = images.detach().float().cpu().numpy().swapaxes(0, 1)
    return np.concatenate(channels[::-1], axis=2)


def _activations(encoder: nn.Module, image: torch.Tensor) -> dict[str, np.ndarray]:
    activations = [module for module in encoder.modules() if isinstance(module, nn.ReLU)]
    layers: dict[str, nn.Module] = {f"convolution {i}": module for i, module in enumerate(activations, start=1)} or {
        "code": encoder
    }
    maps: dict[str, np.ndarray] = {}

    def keep(name: str) -> Callable[[nn.Module, Sequence[torch.Tensor], torch.Tensor], None]:
        def hook(module: nn.Module, inputs: Sequence[torch.Tensor], output: torch.Tensor) -> None:
            middle = output[len(output) // 2]  # of an image's samples, which lie in the batch
            maps[name] = middle.detach().float().cpu().numpy().copy()

        return hook

    hooks = [module.register_forward_hook(keep(name)) for name, module in layers.items()]
    try:
        with torch.no_grad():
            encoder(image)
    finally:
        for handle in hooks:
            handle.remove()
    return maps
