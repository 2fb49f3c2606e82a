"""The convolutional autoencoder of the paper (section III-B, figure 2).

With 2D images, one channel and the default channels it has 723,905 parameters as Keras counts them, batch-norm
statistics
included: the number in the paper's Table II.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import TypeVar

import torch
from monai.networks.layers.factories import Conv
from torch import nn

from monai_cae.errors import MonaiCaeError
from monai_cae.networks.inception import InceptionBlock
from monai_cae.networks.norms import norm_layer
from monai_cae.networks.pooling import MaxPool
from monai_cae.networks.recomputation import recomputed
from monai_cae.networks.widths import check_widths

DEFAULT_CHANNELS = (32, 64, 128)
Network = TypeVar("Network", bound=nn.Module)


class ConvAutoencoder(nn.Module):
    """Encoder and decoder in sequence.

    Both are passed in, so a classifier can share the encoder.

    Args:
        encoder: maps an image to its code, e.g. `ConvEncoder`.
        decoder: maps a code back to an image, e.g. `ConvDecoder`.
    """

    def __init__(self, *, encoder: nn.Module, decoder: nn.Module) -> None:
        super().__init__()
        self.encoder = encoder
        self.decoder = decoder

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        """
        Args:
            image: shape `(N, in_channels, H, W[, D])`, values in [0, 1]; sizes divisible by the encoder's
                `downsampling`.

        Returns:
            Reconstruction of the same shape, values in (0, 1).
        """
        return self.decoder(self.encoder(image))


class ConvEncoder(nn.Module):
    """Blocks of two [convolution 3x3, ReLU, norm], with 2x2 max-pooling between blocks.

    Three blocks and the input are the paper's "first 15 layers".

    Args:
        spatial_dims: 2 for slices, 3 for volumes.
        in_channels: channels of the image.
        channels: filters of each block.
        norm: "batch", as in the paper, or "instance"; see `norm_layer`.
        inception: each block is an `InceptionBlock`.

    Attributes:
        downsampling: factor by which every spatial size shrinks, `2 ** (len(channels) - 1)`.
        out_channels: channels of the code, `channels[-1]`.
        recompute: see `recomputing`.

    Raises:
        MonaiCaeError: channels is not a list of whole numbers above 0, or not what `InceptionBlock` takes; or an
            unknown norm.
    """

    def __init__(
        self,
        spatial_dims: int = 2,
        in_channels: int = 1,
        channels: Sequence[int] = DEFAULT_CHANNELS,
        norm: str = "batch",
        inception: bool = False,
    ) -> None:
        super().__init__()
        check_widths("channels", channels, str(list(DEFAULT_CHANNELS)))
        self.blocks = _blocks(spatial_dims, in_channels, channels, norm, inception)
        self.pool = MaxPool(spatial_dims)
        self.recompute = False
        self.downsampling = 2 ** (len(channels) - 1)
        self.out_channels = channels[-1]

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        """
        Args:
            image: shape `(N, in_channels, H, W[, D])`.

        Returns:
            Code of shape `(N, channels[-1], H / downsampling, ...)`; 1 x 176 x 176 becomes 128 x 44 x 44.
        """
        if not torch.jit.is_scripting():  # noqa: SIM102  # by itself: TorchScript then leaves out what it can't compile
            if self.recompute:
                return recomputed(_segments(self.blocks, self.pool), image)
        x = image
        for index, block in enumerate(self.blocks):
            if index > 0:
                x = self.pool(x)
            x = block(x)
        return x


class ConvDecoder(nn.Module):
    """The mirrored encoder: blocks with nearest-neighbour up-sampling between them, then convolution and sigmoid.

    Args:
        spatial_dims: 2 for slices, 3 for volumes.
        out_channels: channels of the image.
        channels: the encoder's filters, in the encoder's order.
        norm, inception: as for the encoder.

    Attributes:
        recompute: see `recomputing`.

    Raises:
        MonaiCaeError: channels is not a list of whole numbers above 0, or not what `InceptionBlock` takes; or an
            unknown norm.
    """

    def __init__(
        self,
        spatial_dims: int = 2,
        out_channels: int = 1,
        channels: Sequence[int] = DEFAULT_CHANNELS,
        norm: str = "batch",
        inception: bool = False,
    ) -> None:
        super().__init__()
        check_widths("channels", channels, str(list(DEFAULT_CHANNELS)))
        self.blocks = _blocks(spatial_dims, channels[-1], channels[::-1], norm, inception)
        self.recompute = False
        self.upsample = nn.Upsample(scale_factor=2, mode="nearest")
        self.output = nn.Sequential(
            Conv[Conv.CONV, spatial_dims](channels[0], out_channels, 3, padding=1), nn.Sigmoid()
        )

    def forward(self, code: torch.Tensor) -> torch.Tensor:
        """
        Args:
            code: shape `(N, channels[-1], h, w[, d])`.

        Returns:
            Image of shape `(N, out_channels, h * 2 ** (len(channels) - 1), ...)`, values in (0, 1).
        """
        if not torch.jit.is_scripting():  # noqa: SIM102  # as above
            if self.recompute:
                return self.output(recomputed(_segments(self.blocks, self.upsample), code))
        x = code
        for index, block in enumerate(self.blocks):
            if index > 0:
                x = self.upsample(x)
            x = block(x)
        return self.output(x)


def for_images(network: Network, sizes: Sequence[int]) -> Network:
    """The network, if it gives back images of these sizes; of networks that are not from here nothing is known.

    Args:
        network: an autoencoder.
        sizes: of an image, one for each axis.

    Raises:
        MonaiCaeError: the encoder cannot halve them evenly.
    """
    downsampling = getattr(network.encoder, "downsampling", 1) if isinstance(network, ConvAutoencoder) else 1
    if any(size % downsampling for size in sizes):
        given = sizes[0] if len({*sizes}) == 1 else list(sizes)
        raise MonaiCaeError(f"image_size must be divisible by {downsampling} (the encoder's pooling), not {given}")
    return network


def _segments(blocks: nn.ModuleList, between: nn.Module) -> list[list[nn.Module]]:
    return [[between, block] if index else [block] for index, block in enumerate(blocks)]


def _blocks(spatial_dims: int, first: int, widths: Sequence[int], norm: str, inception: bool) -> nn.ModuleList:
    """One for each width, from `first` channels."""
    make = InceptionBlock if inception else _block
    return nn.ModuleList(make(spatial_dims, i, o, norm) for i, o in pairwise([first, *widths]))


def _block(spatial_dims: int, in_channels: int, out_channels: int, norm: str) -> nn.Module:
    conv = Conv[Conv.CONV, spatial_dims]
    return nn.Sequential(
        conv(in_channels, out_channels, 3, padding=1),
        nn.ReLU(inplace=True),
        norm_layer(norm, spatial_dims, out_channels),
        conv(out_channels, out_channels, 3, padding=1),
        nn.ReLU(inplace=True),
        norm_layer(norm, spatial_dims, out_channels),
    )
