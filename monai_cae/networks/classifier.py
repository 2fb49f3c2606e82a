"""The classifier of the paper (section III-C): dense layers on an encoder that can be frozen."""

from __future__ import annotations

import math
from collections.abc import Collection, Sequence
from typing import Literal

import torch
from torch import nn

from monai_cae.errors import MonaiCaeError
from monai_cae.networks.head import VOTES, Head, VotingHead, dense_layers
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
        votes: "mean", "majority" or "attention" for a `VotingHead`, which takes each of the encoder's samples by
            itself; "none" for dense layers that see all samples at once.
        probabilities: whether votes are of a probability, or of a number.

    Raises:
        MonaiCaeError: a spatial size that the encoder cannot halve evenly, or that pooling would not make smaller, or
            hidden layers that are not a list of whole numbers above 0, or more than 10^8 weights on a volume's code,
            an unknown word for `votes`, or votes that `VotingHead` refuses.
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
        votes: Literal["none", "mean", "majority", "attention"] = "none",
        probabilities: bool = True,
    ) -> None:
        super().__init__()
        if votes not in VOTES:
            raise MonaiCaeError(f"votes must be one of {', '.join(VOTES)}, not {votes!r}")
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
        together = samples if votes == "none" else 1  # that the dense layers see
        channels = out_channels // samples * together
        features = channels * math.prod([pooling] * len(code_size) if pooling else code_size)
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
        self.histogram_features = together * histogram
        self.voters = samples // together
        seen, count = features + self.histogram_features, len(covariates)
        self.head = (
            Head([nn.Flatten(), *dense_layers(seen, hidden, dropout)], count, number)
            if votes == "none"
            else VotingHead(seen, samples, votes, hidden, dropout, count, number, probabilities)
        )
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
            The pooled code, and the histogram where there is one, in one dimension: shape `(N, features)`; of each
            sample that votes, one behind the other.
        """
        seen = self.pool(code).flatten(1)
        if self.histogram is not None:
            each = [self.voters, -1]
            beside = self.histogram(image).to(seen.dtype)
            seen = torch.cat([seen.unflatten(1, each), beside.unflatten(1, each)], dim=2).flatten(1)
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
