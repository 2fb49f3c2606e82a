"""Strangers: scans unlike all that the autoencoder has learned from, whose predictions mean nothing."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from matplotlib.figure import Figure
from monai.utils import CommonKeys
from torch import nn
from torch.nn import functional
from torch.utils.data import Dataset

from monai_cae.errors import MonaiCaeError
from monai_cae.evaluation import BRAIN_THRESHOLD, image_figures
from monai_cae.evaluation.image_figures import Pictures
from monai_cae.evaluation.latent_figure import latent_map
from monai_cae.files import sha256_of
from monai_cae.networks import load_weights, on_device, reconstruction_of
from monai_cae.training.engines.inferers import PrecisionInferer
from monai_cae.training.models.reference import FEWEST, Measured, Reference

MOST_SCANS = 2000  # of the training that are kept
_PLACES = 2  # along each axis that a code is averaged to
_PLACES_OF_SIDES = 8  # and half of an image
_MOST_NUMBERS = 4096  # of a code
_BATCH_VALUES = 2**20  # of 33 slices of 176 x 176, or of a volume at 2 mm


def reference_path(autoencoder: str | Path) -> Path:
    """Of the file that says what an autoencoder's training scans look like to it, beside its checkpoint."""
    path = Path(autoencoder)
    return path.with_name(f"{path.stem}_strangers.pt")


def write_reference(network: nn.Module, checkpoint: str | Path, training: Dataset, validation: Dataset) -> int:
    """Measure an autoencoder's training and validation scans, in float32, and write the `Reference` beside it.

    Too few scans are told in one line, and so is an encoder whose output is no code; then nothing is written.

    Args:
        network: the autoencoder, on its device, in evaluation mode.
        checkpoint: its weights.
        training, validation: items with `image`; of the training the first 2,000.

    Returns:
        The number of validation scans; 0 where nothing was written.
    """
    path, sizes = reference_path(checkpoint), [min(MOST_SCANS, len(one)) for one in (training, validation)]  # type: ignore[arg-type]  # map-style datasets have a length
    path.unlink(missing_ok=True)
    try:
        if min(sizes) < FEWEST:
            raise MonaiCaeError(f"{sizes[0]} training and {sizes[1]} validation scans, {FEWEST} of each are the fewest")
        measured = [_measure_all(network, one, size) for one, size in zip((training, validation), sizes, strict=True)]
        image = torch.as_tensor(training[0][CommonKeys.IMAGE])
        known, unseen = measured
        if not known.codes.isfinite().all() or not unseen.errors.isfinite().all():
            raise MonaiCaeError("the autoencoder's output is not finite")
        Reference.fitted(sha256_of(checkpoint), list(image.shape), known, unseen).save(path)
    except (MonaiCaeError, RuntimeError, AttributeError) as error:  # a user's encoder may give anything
        reason = str(error).partition("\n")[0]
        text = f"strangers, scans unlike the training's, can't be told by this autoencoder: {reason}"
        print(text, file=sys.stderr, flush=True)
        return 0
    return sizes[1]


def _measure_all(network: nn.Module, dataset: Dataset, most: int) -> Measured:
    device = next(network.parameters()).device
    each = torch.as_tensor(dataset[0][CommonKeys.IMAGE]).numel()
    batch = max(1, min(32, _BATCH_VALUES // each))
    found = []
    for first in range(0, most, batch):
        images = [torch.as_tensor(dataset[index][CommonKeys.IMAGE]) for index in range(first, min(first + batch, most))]
        found.append(measure(network, torch.stack(images).to(device))[0])
    return Measured(*(torch.cat(parts) for parts in zip(*found, strict=True)))


def measure(network: nn.Module, images: torch.Tensor) -> tuple[Measured, torch.Tensor]:
    """What an autoencoder makes of images, in float32.

    Args:
        network: the autoencoder, in evaluation mode.
        images: on its device, shape `(N, C, H, W[, D])`.

    Returns:
        What is compared, and the reconstructions, on the CPU.

    Raises:
        MonaiCaeError: its encoder's output is no tensor.
    """
    kept: list[Any] = []
    hook = network.get_submodule("encoder").register_forward_hook(lambda module, given, code: kept.append(code))
    try:
        with torch.no_grad():
            made = reconstruction_of(network, PrecisionInferer("float32")(images, network)).float()
    finally:
        hook.remove()
    if not kept or not isinstance(kept[0], torch.Tensor) or kept[0].ndim < 2:
        raise MonaiCaeError(f"the encoder of {type(network).__name__} gives no code, which is one tensor")
    brain = images > BRAIN_THRESHOLD
    brain |= ~brain.flatten(1).any(dim=1).reshape(-1, *[1] * (images.ndim - 1))
    errors = ((made - images).square() * brain).flatten(1).sum(dim=1) / brain.flatten(1).sum(dim=1)
    return Measured(errors.double().cpu(), _pooled(kept[0], _PLACES), _sides(images)), made.cpu()


def _sides(images: torch.Tensor) -> torch.Tensor:
    """The image less its mirror image along the first axis, which is left and right but in sagittal planes, on one side
    of the middle."""
    differences = images.float() - images.float().flip(2)
    return _pooled(differences[:, :, : max(1, images.shape[2] // 2)], _PLACES_OF_SIDES)


def _pooled(code: torch.Tensor, places: int) -> torch.Tensor:
    """Each channel at some places along each axis; of more than 4,096 numbers, means of neighbouring ones."""
    code = code.float().cpu()
    if code.ndim > 2:
        pool = (functional.adaptive_avg_pool1d, functional.adaptive_avg_pool2d, functional.adaptive_avg_pool3d)
        code = pool[code.ndim - 3](code, places).flatten(1)
    if code.shape[1] > _MOST_NUMBERS:
        code = functional.adaptive_avg_pool1d(code[:, None], _MOST_NUMBERS)[:, 0]
    return code


@dataclass(frozen=True)
class Shown:
    """A marked scan, for the figure: its percentile, name, image and reconstruction."""

    far: float
    percentile: float
    name: str
    image: np.ndarray
    made: np.ndarray


class Strangers:
    """Dictionary transform behind a prediction: how unlike the training's the image is that it was made from.

    Adds `unlike`, a percentile among scans like those of validation, of shape `(N,)`; `unlike_by`, the names of the
    measures that say so, see `Reference`; and `stranger`, whether the percentile is above the limit. Nothing is added
    where nothing is known of the training.

    Args:
        autoencoder: that the encoder was trained in.
        checkpoint: its weights, with the reference beside them.
        extraction: makes the pictures of the figure.
        limit: percentile above which a scan is a stranger; 0 does not look.
        device: of the network.

    Attributes:
        shown: the farthest of those above the limit.
        places: of every case in turn, see `Reference.places`.

    Raises:
        MonaiCaeError: a limit that is no percentile.
    """

    def __init__(
        self,
        autoencoder: nn.Module,
        checkpoint: str,
        extraction: Pictures,
        limit: float = 95,
        device: str | torch.device = "cpu",
    ) -> None:
        if isinstance(limit, bool) or not isinstance(limit, (int, float)) or not 0 <= limit < 100:
            raise MonaiCaeError(
                f"unlike_limit must be a percentile under 100, such as 95, or 0 not to look, not {limit!r}"
            )
        self.autoencoder = autoencoder
        self.checkpoint = str(checkpoint)
        self.extraction = extraction
        self.limit = limit
        self.device = device
        self.shown: list[Shown] = []
        self.places: list[tuple[float, float]] = []
        self._network: nn.Module | None = None

    @cached_property
    def reference(self) -> Reference | str:
        """Of the autoencoder, or in words why there is none.

        Raises:
            MonaiCaeError: a broken file.
        """
        path = reference_path(self.checkpoint)
        if not self.limit:
            return "not looked for (unlike_limit 0)"
        if not Path(self.checkpoint).is_file() or not path.is_file():
            if not Path(self.checkpoint).is_file():
                return f"not known, as {self.checkpoint} is not there"
            fewest = f"with fewer than {FEWEST} scans in training or validation"
            return f"not known, as {path} is not there (trained by an older version, or {fewest})"
        reference = Reference.load(path)
        if reference.autoencoder != sha256_of(Path(self.checkpoint)):
            return f"not known, as {path.name} is about another autoencoder than {self.checkpoint}"
        return reference

    def forget(self) -> None:
        """Begin anew with `shown` and `places`."""
        self.shown.clear()
        self.places.clear()

    def __call__(self, data: Mapping[str, Any]) -> dict[str, Any]:
        """
        Args:
            data: with `image`, of one case or of a batch; its names are taken from `subject`.

        Raises:
            MonaiCaeError: images of another shape than the training's.
        """
        reference = self.reference
        if isinstance(reference, str):
            return dict(data)
        given, shape = torch.as_tensor(data[CommonKeys.IMAGE]), tuple(reference.image)
        if given.shape[-1] == 1 != shape[-1]:  # a slice that keeps the axis that it was cut from
            given = given.squeeze(-1)
        if given.shape[-len(shape) :] != shape or given.ndim > len(shape) + 1:
            raise MonaiCaeError(
                f"an image of shape {tuple(given.shape)}, and {reference_path(self.checkpoint)} is of images of shape "
                f"{shape}: give the extraction and image_size that the autoencoder was trained with"
            )
        if self._network is None:
            self._network = on_device(load_weights(self.autoencoder, self.checkpoint), self.device).eval()
        images = given.float().reshape(-1, *shape).to(self.device)
        measured, made = measure(self._network, images)
        far, percentiles, which = reference.compare(measured)
        self.places += map(tuple, reference.places(reference.code.standardised(measured.codes)).tolist())
        marked = percentiles > self.limit
        names = data.get("subject", ["this image"] * len(images))
        self._keep(far, percentiles, marked, names, images.cpu(), made)
        if marked.any() and given.ndim == len(shape):  # one case: nobody makes a table of it
            print(
                f"! UNLIKE THE TRAINING'S: {names[0]}, percentile {percentiles[0]:.1f} of {reference.validation} "
                f"validation scans by its {which[0]}; its prediction means nothing",
                file=sys.stderr,
                flush=True,
            )
        return {
            **data,
            "unlike": torch.from_numpy(percentiles),
            "unlike_by": which,
            "stranger": torch.from_numpy(marked),
        }

    def _keep(
        self,
        far: np.ndarray,
        percentiles: np.ndarray,
        marked: np.ndarray,
        names: Any,
        images: torch.Tensor,
        made: torch.Tensor,
    ) -> None:
        """The farthest few, for the figure."""
        self.shown += [
            Shown(float(far[n]), float(percentiles[n]), str(names[n]), images[n].numpy(), made[n].numpy())
            for n in np.flatnonzero(marked)
        ]
        self.shown = sorted(self.shown, key=lambda one: -one.far)[: image_figures.MAX_COLUMNS]

    def latent_map(
        self, labels: Any, predicted: Any, unlike: Any, classes: bool, told: Mapping[str, str]
    ) -> Figure | None:
        """All cases on the map of the training's codes; None where nothing is known of the training.

        Args:
            labels, predicted, unlike: of each case, in the order that it was seen in; whether it is a stranger.
            classes: labels and predictions are of two classes, as numbers of 0 and 1.
            told: footer `note` and whom it is `about`.
        """
        reference = self.reference
        if isinstance(reference, str) or len(self.places) != len(labels):
            return None
        shares = reference.codes.square().mean(dim=0).sum()
        along = torch.as_tensor(reference.places(reference.codes)).square().mean(dim=0) / shares
        known = reference.places(reference.codes)
        return latent_map(known, np.array(self.places), along.tolist(), labels, predicted, unlike, classes, **told)

    def figure(self, note: str = "") -> Figure | None:
        """The scans most unlike the training's, what the autoencoder makes of them, and where it fails; None where no
        scan is marked.

        Args:
            note: footer.
        """
        if not self.shown:
            return None
        first = self.extraction.picture(self.shown[0].image)
        shown = self.shown[: image_figures.columns_of(first.shape)]
        images, made = (
            np.stack([self.extraction.picture(getattr(one, part)) for one in shown]) for part in ("image", "made")
        )
        names = ", ".join(f"{one.name} ({one.percentile:.1f})" for one in shown)
        about = f"Unlike the training's (percentile of the validation scans): {names}"
        return image_figures.reconstructions(images, made, note, about)
