"""A variational autoencoder with a dense code: a Gaussian for each image instead of a vector.

Sources: D. P. Kingma and M. Welling, Auto-encoding variational Bayes, ICLR 2014; beta: I. Higgins et al., ICLR 2017;
free bits: D. P. Kingma et al., Improved variational inference with inverse autoregressive flow, NIPS 2016. With a
classifier on the means it is like S. Basu et al. 2019, whose layers are not public.

MONAI's VarAutoEncoder is not used: what leads to its mean is not one module, which a classifier could share.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import nn
from torch.nn import functional

from monai_cae.errors import MonaiCaeError
from monai_cae.networks.autoencoder import ConvAutoencoder
from monai_cae.networks.dense import DenseEncoder, as_code
from monai_cae.networks.widths import check_weight


class GaussianEncoder(DenseEncoder):
    """`DenseEncoder` whose vector is the mean of a Gaussian; a second dense layer gives its variances.

    Args: as for `DenseEncoder`.
    """

    def __init__(self, *, network: nn.Module, spatial_size: Sequence[int], latent_size: int = 64) -> None:
        super().__init__(network=network, spatial_size=spatial_size, latent_size=latent_size)
        self.log_variance = nn.Linear(self.dense.in_features, latent_size)

    def distribution(self, image: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """
        Args:
            image: shape `(N, C, H, W[, D])`.

        Returns:
            Means and logarithms of the variances, each of shape `(N, samples * latent_size)`.
        """
        features = self.features(image)
        mean, log_variance = self.dense(features).flatten(1), self.log_variance(features).flatten(1)
        return mean.float(), log_variance.float().clamp(-15.0, 15.0)  # beyond, exp is of no use


class Drawn(NamedTuple):
    """What a variational autoencoder returns in training.

    Args:
        image: the reconstruction from a vector that was drawn, shape `(N, C, H, W[, D])`.
        mean, log_variance: of the Gaussian that it was drawn from, shape `(N, samples * latent_size)`.
    """

    image: torch.Tensor
    mean: torch.Tensor
    log_variance: torch.Tensor


class VariationalAutoencoder(ConvAutoencoder):
    """In training the decoder sees a vector drawn from the encoder's Gaussian, in evaluation its mean.

    Args:
        encoder: a `GaussianEncoder`.
        decoder: from its code to the image, as `DenseDecoder`.

    Raises:
        MonaiCaeError: the encoder gives no distribution.
    """

    def __init__(self, *, encoder: nn.Module, decoder: nn.Module) -> None:
        super().__init__(encoder=encoder, decoder=decoder)
        if not hasattr(encoder, "distribution"):
            raise MonaiCaeError(
                f"{type(encoder).__name__} gives no distribution: the encoder must be a GaussianEncoder"
            )

    def forward(self, image: torch.Tensor) -> Any:
        """
        Args:
            image: as for `ConvAutoencoder.forward`.

        Returns:
            In training `Drawn`; in evaluation the reconstruction, of the image's shape.
        """
        if not self.training:
            return self.decoder(self.encoder(image))
        mean, log_variance = self.encoder.distribution(image)  # type: ignore[operator]
        drawn = mean + torch.exp(0.5 * log_variance) * torch.randn_like(mean)
        return Drawn(self.decoder(as_code(drawn, image.ndim)), mean, log_variance)

    def reconstruction_of(self, output: Any) -> Any:
        """The image in what `forward` returns."""
        return output.image if isinstance(output, Drawn) else output


class VariationalLoss(nn.Module):
    """Mean squared error, plus beta times the divergence of the code from a standard Gaussian, per pixel.

    With beta = 2 s^2 it is the negative evidence bound, scaled, of pixels with Gaussian noise of standard deviation s.

    Args:
        beta: weight of the divergence, in nats for each number of the image.
        free_bits: what each dimension may tell, on a batch's average, at no cost.

    Raises:
        MonaiCaeError: one of them is not a number from 0.
    """

    def __init__(self, beta: float = 0.01, free_bits: float = 0.1) -> None:
        super().__init__()
        check_weight("beta", beta, 0.01)
        check_weight("free_bits", free_bits, 0.1)
        self.beta = beta
        self.free_nats = free_bits * math.log(2)

    def forward(self, output: Drawn, image: torch.Tensor) -> torch.Tensor:
        """
        Args:
            output: of `VariationalAutoencoder` in training.
            image: what it was given.

        Returns:
            One number.
        """
        costs = divergence(output.mean, output.log_variance).mean(dim=0).clamp(min=self.free_nats).sum()
        return functional.mse_loss(output.image, image) + self.beta * costs / image[0].numel()


def divergence(mean: torch.Tensor, log_variance: torch.Tensor) -> torch.Tensor:
    """Kullback-Leibler divergence of Gaussians from the standard one, in nats, for each dimension of each image."""
    return 0.5 * (mean.square() + log_variance.exp() - 1 - log_variance)
