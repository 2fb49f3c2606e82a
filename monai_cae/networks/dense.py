"""A code without places: a vector for each image or sample, from dense layers around an encoder and a decoder.

With `ConvAutoencoder` and mean squared error this is a "z-layer" autoencoder, after F. J. Martinez-Murcia et al. 2019,
whose layers are not public.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import nn

from monai_cae.errors import MonaiCaeError
from monai_cae.networks.autoencoder import DEFAULT_CHANNELS
from monai_cae.networks.widths import check_widths


class DenseEncoder(nn.Module):
    """An encoder and a dense layer on its whole code.

    Args:
        network: makes a code with places; has `out_channels` and `downsampling`, and perhaps `samples`, as
            `EachSample`: then each sample has a vector of its own, by the same weights.
        spatial_size: of the image.
        latent_size: numbers of a vector.

    Attributes:
        out_channels: latent_size times samples.
        downsampling: the largest number that divides each size of the image; `EncoderClassifier` counts the vector
            right without pooling where the image is a square or a cube, and with pooling 1 always.
        samples: the network's.

    Raises:
        MonaiCaeError: latent_size is not a whole number above 0 or not below the numbers of the code, or the encoder
            can't halve the image evenly.
    """

    def __init__(self, *, network: nn.Module, spatial_size: Sequence[int], latent_size: int = 64) -> None:
        super().__init__()
        channels, factor = int(network.out_channels), int(network.downsampling)  # type: ignore[arg-type]
        self.samples = int(getattr(network, "samples", 1))
        features = math.prod([channels // self.samples, *code_sizes(spatial_size, factor)])
        check_latent_size(latent_size, features)
        self.network = network
        self.dense = nn.Linear(features, latent_size)
        self.out_channels = latent_size * self.samples
        self.downsampling = math.gcd(*spatial_size)

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        """
        Args:
            image: shape `(N, C, H, W[, D])` with the sizes given.

        Returns:
            Shape `(N, samples * latent_size, 1, 1[, 1])`.
        """
        return as_code(self.dense(self.features(image)).flatten(1), image.ndim)

    def features(self, image: torch.Tensor) -> torch.Tensor:
        """The network's code, each sample's in one dimension: shape `(N, samples, features)`."""
        return self.network(image).unflatten(1, [self.samples, -1]).flatten(2)


class DenseDecoder(nn.Module):
    """A dense layer and a decoder: the way back from `DenseEncoder`.

    Args:
        network: from a code with places to the image.
        spatial_size: of the image.
        latent_size: numbers of a vector.
        channels: of the `ConvEncoder` on which the dense layer lies.
        samples: of an image.

    Raises:
        MonaiCaeError: as for `DenseEncoder`.
    """

    def __init__(
        self,
        *,
        network: nn.Module,
        spatial_size: Sequence[int],
        latent_size: int = 64,
        channels: Sequence[int] = DEFAULT_CHANNELS,
        samples: int = 1,
    ) -> None:
        super().__init__()
        check_widths("channels", channels, str(list(DEFAULT_CHANNELS)))
        self.samples = samples
        self.shape = [channels[-1], *code_sizes(spatial_size, 2 ** (len(channels) - 1))]
        check_latent_size(latent_size, math.prod(self.shape))
        self.dense = nn.Linear(latent_size, math.prod(self.shape))
        self.network = network

    def forward(self, code: torch.Tensor) -> torch.Tensor:
        """
        Args:
            code: shape `(N, samples * latent_size, 1, 1[, 1])`.

        Returns:
            Image, as the decoder gives it.
        """
        places = torch.relu(self.dense(code.flatten(1).unflatten(1, [self.samples, -1])))
        return self.network(places.unflatten(2, self.shape).flatten(1, 2))


def as_code(vector: torch.Tensor, ndim: int) -> torch.Tensor:
    """A vector of shape `(N, L)` with one place, in so many dimensions."""
    return vector.reshape([vector.shape[0], vector.shape[1]] + [1] * (ndim - 2))


def check_latent_size(latent_size: int, features: int) -> None:
    """Raises: MonaiCaeError: not a whole number above 0, or no less than the numbers of the code with places."""
    if type(latent_size) is not int or not 0 < latent_size < features:
        raise MonaiCaeError(
            f"latent_size must be a whole number above 0 and below the {features:,} of the code that it is to shorten, "
            f"not {latent_size!r}"
        )


def code_sizes(spatial_size: Sequence[int], downsampling: int) -> list[int]:
    """Those of the code; MonaiCaeError where the encoder can't halve the image evenly."""
    if any(size % downsampling for size in spatial_size):
        raise MonaiCaeError(
            f"spatial_size must be divisible by {downsampling} (the encoder's pooling), not {tuple(spatial_size)}: "
            "choose another image_size"
        )
    return [size // downsampling for size in spatial_size]
