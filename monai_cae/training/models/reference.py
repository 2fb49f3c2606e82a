"""The autoencoder's view of the scans that it has learned from, as numbers that another scan can be compared with."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from scipy import stats
from sklearn.covariance import ledoit_wolf_shrinkage

from monai_cae.errors import MonaiCaeError
from monai_cae.files import marked
from monai_cae.networks import read_checkpoint, write_checkpoint

FEWEST = 5  # scans to learn from, and as many to compare with
NEIGHBOURS = 5
MEASURES = ("reconstruction", "code", "neighbours", "sides")
_SMALLEST = 1e-12  # before a logarithm: a black image is reconstructed without an error
_ALIKE = 1e-6  # spread of a logarithm
_ADVICE = "run pretrain.json again, or get the package from its source again"


@dataclass(frozen=True)
class Cloud:
    """Numbers of the training scans, as a centre that others have a Mahalanobis distance from, with the covariance
    shrunk as by Ledoit and Wolf (2004, J Multivar Anal 88:365).

    Attributes:
        centre, scale: of the numbers, shape `(d,)`.
        components, variances: of the standardised numbers, shapes `(k, d)` and `(k,)`, after shrinkage.
        rest: variance in every other direction.
    """

    centre: torch.Tensor
    scale: torch.Tensor
    components: torch.Tensor
    variances: torch.Tensor
    rest: float

    @classmethod
    def fitted(cls, known: torch.Tensor) -> Cloud:
        """Args: known: the numbers of each training scan, shape `(n, d)`."""
        spread, centre = known.std(dim=0), known.mean(dim=0)
        scale = spread.clamp(min=max(1e-3 * float(spread.median()), 1e-6))
        standard = (known - centre) / scale
        shrinkage = float(ledoit_wolf_shrinkage(standard.numpy(), assume_centered=True))
        _, singular, components = torch.linalg.svd(standard, full_matrices=False)
        rest = max(shrinkage * float(standard.square().mean()), 1e-6)
        return cls(centre, scale, components, (1 - shrinkage) * singular.square() / len(known) + rest, rest)

    def standardised(self, numbers: torch.Tensor) -> torch.Tensor:
        """In standard deviations of the training's, from their mean."""
        return (numbers.double() - self.centre) / self.scale

    def distances(self, standard: torch.Tensor) -> torch.Tensor:
        """Of standardised numbers, shape `(N, d)`."""
        along = standard @ self.components.T
        outside = (standard.square().sum(dim=1) - along.square().sum(dim=1)).clamp(min=0)
        return ((along.square() / self.variances).sum(dim=1) + outside / self.rest).sqrt()

    @property
    def fits(self) -> bool:
        """Whether the shapes belong together, and the numbers are finite."""
        d = len(self.centre)
        tensors = (self.centre, self.scale, self.components, self.variances)
        shapes = self.scale.shape == (d,) and self.components.shape == (len(self.variances), d)
        return bool(shapes and self.rest > 0 and all(bool(one.isfinite().all()) for one in tensors))


class Measured(NamedTuple):
    """What an autoencoder makes of images, on the CPU.

    Attributes:
        errors: mean squared error of the pixels above 0.03, of all where none is, shape `(N,)`.
        codes: the pooled codes, shape `(N, d)`.
        sides: how the two sides of each image along its first axis differ, at a few places, shape `(N, e)`.
    """

    errors: torch.Tensor
    codes: torch.Tensor
    sides: torch.Tensor


@dataclass(frozen=True)
class Reference:
    """Four measures of how unlike the training's a scan is, and what they are in scans that were not learned from.

    `reconstruction` is the mean squared error in the brain; `code` the Mahalanobis distance of the pooled code from the
    training's; `neighbours` the distance of the standardised code from the fifth nearest of the training's; `sides` the
    Mahalanobis distance of the difference of the image's two sides, which tells a mirrored scan and a lesion on one
    side. Each is given in standard deviations of its logarithm over the validation scans, and the largest decides.

    Attributes:
        autoencoder: SHA-256 of the checkpoint that it belongs to.
        image: shape of one image, `(C, H, W[, D])`.
        validation: number of scans that the measures are calibrated on, none of which the autoencoder has learned from.
        code, sides: of the training's scans.
        codes: of the training, standardised, shape `(n, d)`.
        usual, spread: mean and standard deviation of the measures' logarithms in validation, shape `(4,)`.
        largest: mean and standard deviation of the largest of them there, shape `(2,)`.
    """

    autoencoder: str
    image: list[int]
    validation: int
    code: Cloud
    sides: Cloud
    codes: torch.Tensor
    usual: torch.Tensor
    spread: torch.Tensor
    largest: torch.Tensor

    @classmethod
    def fitted(cls, autoencoder: str, image: list[int], known: Measured, unseen: Measured) -> Reference:
        """
        Args:
            autoencoder, image: see the attributes.
            known, unseen: the training scans and the validation scans.

        Raises:
            MonaiCaeError: the validation scans do not differ.
        """
        code, sides = Cloud.fitted(known.codes.double()), Cloud.fitted(known.sides.double())
        made = cls(
            autoencoder, list(image), len(unseen.codes), code, sides, code.standardised(known.codes),
            torch.zeros(len(MEASURES), dtype=torch.double), torch.ones(len(MEASURES), dtype=torch.double),
            torch.tensor([0.0, 1.0]),
        )  # fmt: skip
        logs = made.logarithms(unseen)
        usual, spread = logs.mean(dim=0), logs.std(dim=0)
        if float(spread[:-1].min()) < _ALIKE:  # images may well be symmetric
            raise MonaiCaeError("the validation scans are all alike, which says nothing of others")
        spread = spread.clamp(min=_ALIKE)
        largest = ((logs - usual) / spread).amax(dim=1)
        largest = torch.stack([largest.mean(), largest.std().clamp(min=1e-6)])
        return replace(made, usual=usual, spread=spread, largest=largest)

    def compare(self, measured: Measured) -> tuple[np.ndarray, np.ndarray, list[str]]:
        """How unlike the training's some scans are.

        Returns:
            Of each scan: how far the largest measure lies above its mean in validation, in standard deviations; its
            percentile among scans like those of validation, by Student's t for one more value of a sample that small,
            so that few validation scans make nobody extreme; and the name of that measure.
        """
        far, which = ((self.logarithms(measured) - self.usual) / self.spread).max(dim=1)
        mean, deviation = (float(value) for value in self.largest)
        spread = deviation * (1 + 1 / self.validation) ** 0.5
        percentiles = 100 * stats.t.cdf((far.numpy() - mean) / spread, df=self.validation - 1)
        return far.numpy(), np.asarray(percentiles), [MEASURES[number] for number in which.tolist()]

    def logarithms(self, measured: Measured) -> torch.Tensor:
        """Logarithms of the measures, shape `(N, 4)`; what is not finite counts as very unlike."""
        standard = self.code.standardised(measured.codes)
        near = torch.cdist(standard, self.codes).kthvalue(min(NEIGHBOURS, len(self.codes)), dim=1).values
        sides = self.sides.distances(self.sides.standardised(measured.sides))
        measures = torch.stack([measured.errors.double(), self.code.distances(standard), near, sides], dim=1)
        return measures.nan_to_num(nan=1e30, posinf=1e30).clamp(min=_SMALLEST).log()

    def places(self, codes: torch.Tensor) -> np.ndarray:
        """Where codes lie along the two directions in which the training's standardised codes vary most.

        Args:
            codes: standardised, as `codes` of the training are, shape `(N, d)`.

        Returns:
            Shape `(N, 2)`; the second is 0 where there is one direction alone.
        """
        along = (codes @ self.code.components[:2].T).numpy()
        return np.pad(along, ((0, 0), (0, 2 - along.shape[1])))

    def save(self, path: str | Path) -> None:
        """Write it as tensors and plain values, numbers in float32.

        Raises:
            MonaiCaeError: the file can't be written.
        """
        content = _mapped(asdict(self), lambda tensor: tensor.float().contiguous())
        write_checkpoint(marked(content), path)

    @classmethod
    def load(cls, path: str | Path) -> Reference:
        """Read what `save` has written, as data.

        Raises:
            MonaiCaeError: something else is in the file.
        """
        content = read_checkpoint(path, advice=_ADVICE)
        if not isinstance(content, Mapping) or content.keys() != {field.name for field in fields(cls)}:
            raise MonaiCaeError(f"{path} is not what pretrain.json writes about its training scans: {_ADVICE}")
        parts = _mapped(content, lambda tensor: tensor.double())
        try:
            made = cls(**{**parts, "code": Cloud(**parts["code"]), "sides": Cloud(**parts["sides"])})
            shapes = [tuple(getattr(made, name).shape) for name in ("usual", "spread", "largest")]
            fits = shapes == [(len(MEASURES),)] * 2 + [(2,)] and made.code.fits and made.sides.fits
            fits &= made.codes.shape[1:] == made.code.centre.shape and len(made.codes) >= 1 and made.validation >= 2
            fits &= all(size > 0 for size in made.image)
            fits &= all(bool(one.isfinite().all()) for one in (made.codes, made.usual, made.spread, made.largest))
        except (TypeError, ValueError, AttributeError):
            fits = False
        if not fits:
            raise MonaiCaeError(f"{path} has numbers that do not fit together: {_ADVICE}")
        return made


def _mapped(content: Any, change: Callable[[torch.Tensor], torch.Tensor]) -> Any:
    """The tensors of a dictionary and of those within it changed."""
    if isinstance(content, Mapping):
        return {name: _mapped(value, change) for name, value in content.items()}
    return change(content) if isinstance(content, torch.Tensor) else content
