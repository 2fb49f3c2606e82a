"""The classifier of the paper (section III-C): dense layers on an encoder that can be frozen."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import nn

from monai_cae.errors import MonaiCaeError


class EncoderClassifier(nn.Module):
    """Encoder, flatten, dense layers, one logit.

    The paper's head: dense 256 + ReLU + dropout 0.2, dense 128 + ReLU, dense 1. With a 176 x 176 slice this has 63.76
    million parameters; the 723,905 of the paper's Table II are the autoencoder's.

    Args:
        encoder: module with `out_channels` and `downsampling`, e.g. `ConvEncoder`.
        spatial_size: size of the input image; each must be divisible by `encoder.downsampling`.
        hidden: widths of the dense layers.
        dropout: probability after the first dense layer.

    Raises:
        MonaiCaeError: a spatial size that the encoder cannot halve evenly.
    """

    def __init__(
        self,
        *,
        encoder: nn.Module,
        spatial_size: Sequence[int] = (176, 176),
        hidden: Sequence[int] = (256, 128),
        dropout: float = 0.2,
    ) -> None:
        super().__init__()
        downsampling, out_channels = int(encoder.downsampling), int(encoder.out_channels)  # type: ignore[arg-type]
        if any(size % downsampling for size in spatial_size):
            raise MonaiCaeError(
                f"spatial_size must be divisible by {downsampling} (the encoder's pooling), "
                f"not {tuple(spatial_size)}: choose another image_size"
            )
        features = out_channels * math.prod(size // downsampling for size in spatial_size)
        self.encoder = encoder
        self.head = _head(features, hidden, dropout)
        self.encoder_frozen = False

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        """
        Args:
            image: shape `(N, in_channels, H, W[, D])`, values in [0, 1].

        Returns:
            Logits of AD, shape `(N, 1)`; the probability is their sigmoid.
        """
        return self.head(self.encoder(image))

    def freeze_encoder(self, frozen: bool = True) -> None:
        """Stop (or resume) learning in the encoder: its weights and its batch-norm statistics."""
        self.encoder_frozen = frozen
        self.encoder.requires_grad_(not frozen)
        self.train(self.training)

    def train(self, mode: bool = True) -> EncoderClassifier:
        """As `torch.nn.Module.train`, but a frozen encoder stays in evaluation mode.

        MONAI's `SupervisedTrainer` calls this in every iteration, so batch-norm statistics can only be kept still here.
        """
        super().train(mode)
        if self.encoder_frozen:
            self.encoder.eval()
        return self


def _head(features: int, hidden: Sequence[int], dropout: float) -> nn.Sequential:
    layers: list[nn.Module] = [nn.Flatten()]
    for index, width in enumerate(hidden):
        layers += [nn.Linear(features, width), nn.ReLU(inplace=True)]
        if index == 0:
            layers.append(nn.Dropout(dropout))
        features = width
    return nn.Sequential(*layers, nn.Linear(features, 1))
