"""The autoencoder's view of the scans that it has learned from, as numbers that another scan can be compared with."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np
import torch
from scipy import stats
from sklearn.covariance import ledoit_wolf_shrinkage

from monai_cae.errors import MonaiCaeError
from monai_cae.networks import read_checkpoint, write_checkpoint

FEWEST = 5  # scans to learn from, and as many to compare with
NEIGHBOURS = 5
MEASURES = ("reconstruction", "code", "neighbours")
_SMALLEST = 1e-12  # before a logarithm: a black image is reconstructed without an error
_ALIKE = 1e-6  # spread of a logarithm
_ADVICE = "run pretrain.json again, or get the package from its source again"


@dataclass(frozen=True)
class Reference:
    """Three measures of how unlike the training's a scan is, and what they are in scans that were not learned from.

    `reconstruction` is the mean squared error in the brain; `code` the Mahalanobis distance of the pooled code from the
    training's, with the covariance shrunk as by Ledoit and Wolf (2004, J Multivar Anal 88:365); `neighbours` the
    distance of the standardised code from the fifth nearest of the training's. Each is given in standard deviations of
    its logarithm over the validation scans, and the largest of the three decides.

    Attributes:
        autoencoder: SHA-256 of the checkpoint that it belongs to.
        image: shape of one image, `(C, H, W[, D])`.
        validation: number of scans that the measures are calibrated on, none of which the autoencoder has learned from.
        centre, scale: of the training's codes, shape `(d,)`.
        components, variances: of the standardised codes, shapes `(k, d)` and `(k,)`, after shrinkage.
        rest: variance in every other direction.
        codes: of the training, standardised, shape `(n, d)`.
        usual, spread: mean and standard deviation of the measures' logarithms in validation, shape `(3,)`.
        largest: mean and standard deviation of the largest of the three there, shape `(2,)`.
    """

    autoencoder: str
    image: list[int]
    validation: int
    centre: torch.Tensor
    scale: torch.Tensor
    components: torch.Tensor
    variances: torch.Tensor
    rest: float
    codes: torch.Tensor
    usual: torch.Tensor
    spread: torch.Tensor
    largest: torch.Tensor

    @classmethod
    def fitted(
        cls,
        autoencoder: str,
        image: list[int],
        known: torch.Tensor,
        errors: torch.Tensor,
        codes: torch.Tensor,
    ) -> Reference:
        """
        Args:
            autoencoder, image: see the attributes.
            known: pooled codes of the training scans, shape `(n, d)`.
            errors, codes: of the validation scans, shapes `(m,)` and `(m, d)`.

        Raises:
            MonaiCaeError: the validation scans do not differ.
        """
        known = known.double()
        spread = known.std(dim=0)
        centre, scale = known.mean(dim=0), spread.clamp(min=max(1e-3 * float(spread.median()), 1e-6))
        standard = (known - centre) / scale
        shrinkage = float(ledoit_wolf_shrinkage(standard.numpy(), assume_centered=True))
        mean_variance = float(standard.square().mean())
        _, singular, components = torch.linalg.svd(standard, full_matrices=False)
        rest = max(shrinkage * mean_variance, 1e-6)
        made = cls(
            autoencoder, list(image), len(codes), centre, scale, components,
            (1 - shrinkage) * singular.square() / len(known) + rest, rest, standard,
            torch.zeros(3, dtype=torch.double), torch.ones(3, dtype=torch.double), torch.tensor([0.0, 1.0]),
        )  # fmt: skip
        logs = made.logarithms(errors, codes)
        usual, spread = logs.mean(dim=0), logs.std(dim=0)
        if float(spread.min()) < _ALIKE:
            raise MonaiCaeError("the validation scans are all alike, which says nothing of others")
        largest = ((logs - usual) / spread).amax(dim=1)
        return cls(**made._parts() | {
            "usual": usual, "spread": spread, "largest": torch.stack([largest.mean(), largest.std().clamp(min=1e-6)]),
        })  # fmt: skip

    def compare(self, errors: torch.Tensor, codes: torch.Tensor) -> tuple[np.ndarray, np.ndarray, list[str]]:
        """How unlike the training's some scans are.

        Args:
            errors, codes: see `fitted`, shapes `(N,)` and `(N, d)`.

        Returns:
            Of each scan: how far the largest measure lies above its mean in validation, in standard deviations; its
            percentile among scans like those of validation, by Student's t for one more value of a sample that small,
            so that few validation scans make nobody extreme; and the name of that measure.
        """
        far, which = ((self.logarithms(errors, codes) - self.usual) / self.spread).max(dim=1)
        mean, deviation = (float(value) for value in self.largest)
        spread = deviation * (1 + 1 / self.validation) ** 0.5
        percentiles = 100 * stats.t.cdf((far.numpy() - mean) / spread, df=self.validation - 1)
        return far.numpy(), np.asarray(percentiles), [MEASURES[number] for number in which.tolist()]

    def logarithms(self, errors: torch.Tensor, codes: torch.Tensor) -> torch.Tensor:
        """Logarithms of the measures, shape `(N, 3)`; what is not finite counts as very unlike."""
        standard = self.standardised(codes)
        along = standard @ self.components.T
        outside = (standard.square().sum(dim=1) - along.square().sum(dim=1)).clamp(min=0)
        distance = (along.square() / self.variances).sum(dim=1) + outside / self.rest
        near = torch.cdist(standard, self.codes).kthvalue(min(NEIGHBOURS, len(self.codes)), dim=1).values
        measures = torch.stack([errors.double(), distance.sqrt(), near], dim=1)
        return measures.nan_to_num(nan=1e30, posinf=1e30).clamp(min=_SMALLEST).log()

    def places(self, codes: torch.Tensor) -> np.ndarray:
        """Where codes lie along the two directions in which the training's standardised codes vary most.

        Args:
            codes: standardised, as `codes` of the training are, shape `(N, d)`.

        Returns:
            Shape `(N, 2)`; the second is 0 where there is one direction alone.
        """
        along = (codes @ self.components[:2].T).numpy()
        return np.pad(along, ((0, 0), (0, 2 - along.shape[1])))

    def standardised(self, codes: torch.Tensor) -> torch.Tensor:
        """Codes in standard deviations of the training's, from their mean."""
        return (codes.double() - self.centre) / self.scale

    def _parts(self) -> dict[str, Any]:
        return {field.name: getattr(self, field.name) for field in fields(self)}

    def save(self, path: str | Path) -> None:
        """Write it as tensors and plain values, numbers in float32.

        Raises:
            MonaiCaeError: the file can't be written.
        """
        content = {
            name: value.float().contiguous() if isinstance(value, torch.Tensor) else value
            for name, value in asdict(self).items()
        }
        write_checkpoint(content, path)

    @classmethod
    def load(cls, path: str | Path) -> Reference:
        """Read what `save` has written, as data.

        Raises:
            MonaiCaeError: something else is in the file.
        """
        content = read_checkpoint(path, advice=_ADVICE)
        if not isinstance(content, Mapping) or content.keys() != {field.name for field in fields(cls)}:
            raise MonaiCaeError(f"{path} is not what pretrain.json writes about its training scans: {_ADVICE}")
        parts: dict[str, Any] = {k: v.double() if isinstance(v, torch.Tensor) else v for k, v in content.items()}
        try:
            made = cls(**parts)
            n, d = made.codes.shape
            shapes = [tuple(getattr(made, name).shape) for name in ("centre", "scale", "usual", "spread", "largest")]
            fits = shapes == [(d,), (d,), (3,), (3,), (2,)] and n >= 1 and made.validation >= 2 and made.rest > 0
            fits &= made.components.shape == (len(made.variances), d) and all(size > 0 for size in made.image)
            fits &= all(bool(v.isfinite().all()) for v in parts.values() if isinstance(v, torch.Tensor))
        except (TypeError, ValueError, AttributeError):
            fits = False
        if not fits:
            raise MonaiCaeError(f"{path} has numbers that do not fit together: {_ADVICE}")
        return made
