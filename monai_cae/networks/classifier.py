"""The classifier of the paper (section III-C): dense layers on an encoder that can be frozen."""

from __future__ import annotations

import math
from collections.abc import Collection, Sequence

import torch
from torch import nn

from monai_cae.errors import MonaiCaeError
from monai_cae.networks.histogram import IntensityHistogram
from monai_cae.networks.pooling import MeanPool
from monai_cae.networks.samples import each_sample
from monai_cae.networks.widths import check_widths

MOST_VOLUME_WEIGHTS = 10**8  # of a dense layer; the paper's, on a slice's code, has 63 million


class EncoderClassifier(nn.Module):
    """Encoder, optional pooling, dense layers, one logit.

    The paper's head: no pooling, dense 256 + ReLU + dropout 0.2, dense 128 + ReLU, dense 1. With a 176 x 176 slice this
    has 63.76 million parameters; the 723,905 of the paper's Table II are the autoencoder's.

    Args:
        encoder: module with `out_channels` and `downsampling`, e.g. `ConvEncoder`, or `EachSample` of one.
        spatial_size: size of the input image; without pooling each must be divisible by `encoder.downsampling`.
        hidden: widths of the dense layers; none makes a logistic regression on the code.
        dropout: probability after the first dense layer.
        pooling: places along each axis that the code is averaged to (1: one mean per channel); 0 for no pooling; None:
            0 for a slice, 1 for a volume.
        histogram: bins of an `IntensityHistogram` of the image that the dense layers see beside the code, one of each
            sample; 0 for none.
        covariates: names of numbers about the subject, such as age, that add to the logit, each with its own weight.
        number: the output is a number in its own units, see `Head`, not a logit.

    Raises:
        MonaiCaeError: a spatial size that the encoder cannot halve evenly, or that pooling would not make smaller, or
            hidden layers that are not a list of whole numbers above 0, or more than 10^8 weights on a volume's code.
    """

    def __init__(
        self,
        *,
        encoder: nn.Module,
        spatial_size: Sequence[int] = (176, 176),
        hidden: Sequence[int] = (256, 128),
        dropout: float = 0.2,
        pooling: int | None = None,
        histogram: int = 0,
        covariates: Collection[str] = (),
        number: bool = False,
    ) -> None:
        super().__init__()
        check_widths("hidden", hidden, "[256, 128], or [] for none", fewest=0)
        samples = int(getattr(encoder, "samples", 1))
        downsampling, out_channels = int(encoder.downsampling), int(encoder.out_channels)  # type: ignore[arg-type]
        code_size = [size // downsampling for size in spatial_size]
        pooling = int(len(code_size) == 3) if pooling is None else pooling
        if not isinstance(pooling, int) or not 0 <= pooling <= min(code_size):
            raise MonaiCaeError(f"pooling must be from 0 to the code's size {tuple(code_size)}, not {pooling!r}")
        if not pooling and any(size % downsampling for size in spatial_size):
            raise MonaiCaeError(
                f"spatial_size must be divisible by {downsampling} (the encoder's pooling), "
                f"not {tuple(spatial_size)}: choose another image_size"
            )
        features = out_channels * math.prod([pooling] * len(code_size) if pooling else code_size)
        weights = features * (hidden[0] if hidden else 1)
        if len(code_size) == 3 and weights > MOST_VOLUME_WEIGHTS:
            raise MonaiCaeError(
                f"the first dense layer would have {weights:,} weights, for {features:,} numbers of a volume's code "
                f"(limit {MOST_VOLUME_WEIGHTS:,}): set network_def#pooling to 1"
            )
        self.encoder = encoder
        self.spatial_dims = len(code_size)
        self.pool = MeanPool(pooling, len(code_size)) if pooling else nn.Identity()
        self.histogram = each_sample(IntensityHistogram(histogram), samples) if histogram else None
        self.histogram_features = samples * histogram
        self.head = Head(_dense(features + self.histogram_features, hidden, dropout), len(covariates), number)
        self.encoder_frozen = False

    def forward(self, image: torch.Tensor, covariates: torch.Tensor | None = None) -> torch.Tensor:
        """
        Args:
            image: shape `(N, in_channels, H, W[, D])`, values in [0, 1]; a slice may keep the axis that it was cut
                from, `(N, in_channels, H, W, 1)`, which is how metadata.json describes it: MONAI Deploy takes an array
                of three dimensions for a volume only where the bundle's input has three.
            covariates: shape `(N, covariates)`, scaled as in training; without them everybody is taken to be average.

        Returns:
            Logits of AD, whose sigmoid is the probability, or the predicted numbers; shape `(N, 1)`.
        """
        if image.ndim == 3 + self.spatial_dims:
            image = image.squeeze(-1)
        return self.head(self.summarise(self.encoder(image), image), covariates)

    def summarise(self, code: torch.Tensor, image: torch.Tensor) -> torch.Tensor:
        """The features of an image that the dense layers see.

        Args:
            code: of the image, as the encoder gives it.
            image: as for `forward`.

        Returns:
            The pooled code, and the histogram where there is one, in one dimension: shape `(N, features)`.
        """
        seen = self.pool(code).flatten(1)
        if self.histogram is not None:
            seen = torch.cat([seen, self.histogram(image).to(seen.dtype)], dim=1)
        return seen

    def freeze_encoder(self, frozen: bool = True) -> None:
        """Stop (or resume) learning in the encoder: weights and batch-norm statistics."""
        self.encoder_frozen = frozen
        self.encoder.requires_grad_(not frozen)
        self.train(self.training)

    def train(self, mode: bool = True) -> EncoderClassifier:
        """As `torch.nn.Module.train`, but a frozen encoder stays in evaluation mode.

        MONAI's `SupervisedTrainer` calls this in every iteration, so this is the only place to fix batch-norm
        statistics.
        """
        super().train(mode)
        if self.encoder_frozen:
            self.encoder.eval()
        return self


class Head(nn.Sequential):
    """Dense layers on a code; the logit is their output plus a weighted sum of the covariates.

    Args:
        layers: from a flattened or unflattened code to one logit.
        covariates: how many numbers add to it; their weights start at 0.
        number: what comes out is `logit * unit + zero`, in the units of what is predicted. Both are kept with the
            weights, so that whoever loads them predicts in these units; see `set_units`.
    """

    def __init__(self, layers: Sequence[nn.Module], covariates: int = 0, number: bool = False) -> None:
        super().__init__(*layers)
        self.register_buffer("zero", torch.zeros(1) if number else None)
        self.register_buffer("unit", torch.ones(1) if number else None)
        self.covariate_weight = nn.Parameter(torch.zeros(covariates)) if covariates else None

    def forward(self, code: torch.Tensor, covariates: torch.Tensor | None = None) -> torch.Tensor:
        """
        Args:
            code: shape `(N, ...)`.
            covariates: shape `(N, covariates)`; None adds nothing.

        Returns:
            Logits or numbers, shape `(N, 1)`.
        """
        for layer in self:
            code = layer(code)
        if self.covariate_weight is not None and covariates is not None:
            code = code + (covariates * self.covariate_weight).sum(dim=1, keepdim=True)
        if self.zero is not None and self.unit is not None:
            # in float32, whatever the layers compute in; TorchScript takes no annotation that would tell mypy
            code = code * self.unit + self.zero  # type: ignore[operator]
        return code

    def set_units(self, zero: float, unit: float) -> None:
        """Say what a logit of 0 means and what one more of it adds, in a network of numbers.

        Raises:
            MonaiCaeError: it is a network of logits.
        """
        if not (isinstance(self.zero, torch.Tensor) and isinstance(self.unit, torch.Tensor)):
            raise MonaiCaeError("the network gives logits, and the target is a number: set network_def#number to true")
        self.zero.fill_(zero)
        self.unit.fill_(unit)

    def scale(self, factor: float) -> None:
        """Multiply the logits by a number, by scaling the last weights."""
        last = self[len(self) - 1]
        with torch.no_grad():
            for weight in (*last.parameters(), self.covariate_weight):
                if weight is not None:
                    weight.mul_(factor)


def _dense(features: int, hidden: Sequence[int], dropout: float) -> list[nn.Module]:
    layers: list[nn.Module] = [nn.Flatten()]
    for index, width in enumerate(hidden):
        layers += [nn.Linear(features, width), nn.ReLU(inplace=True)]
        if index == 0:
            layers.append(nn.Dropout(dropout))
        features = width
    return [*layers, nn.Linear(features, 1)]
