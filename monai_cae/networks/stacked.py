"""An autoencoder that is trained greedily, one layer after another.

Sources: Y. Bengio et al., Greedy layer-wise training of deep networks, NIPS 2006; J. Masci et al., Stacked
convolutional auto-encoders for hierarchical feature extraction, ICANN 2011. R. Ferri et al. 2021 stack dense layers on
vectors; their sizes are not public.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import nn
from torch.nn import functional

from monai_cae.errors import MonaiCaeError
from monai_cae.networks.autoencoder import ConvAutoencoder, ConvDecoder, ConvEncoder
from monai_cae.networks.samples import EachSample


class Stacked(NamedTuple):
    """What a stacked autoencoder returns in training.

    Args:
        decoded: what the learning layer makes of its code, shape `(N, C, H, W[, D])`; N counts samples.
        given: what it was given: the image, or what the layer below makes of it.
    """

    decoded: torch.Tensor
    given: torch.Tensor


class StackedAutoencoder(ConvAutoencoder):
    """In training one block of the encoder, with the decoder's way back from it, reconstructs what it is given; those
    below do not learn any more, and those above do not yet. Evaluation goes through all of them.

    Args:
        encoder: a `ConvEncoder`, or `EachSample` of one.
        decoder: the `ConvDecoder` of the same channels, likewise.

    Raises:
        MonaiCaeError: other networks, or of another number of blocks each.
    """

    def __init__(self, *, encoder: nn.Module, decoder: nn.Module) -> None:
        super().__init__(encoder=encoder, decoder=decoder)
        for network, kind in ((encoder, ConvEncoder), (decoder, ConvDecoder)):
            if not isinstance(_of_one_sample(network), kind):
                raise MonaiCaeError(
                    f"{type(network).__name__} can't be trained layer by layer: with StackedAutoencoder take a "
                    f"{kind.__name__}, without with_z_layer.yaml and the like"
                )
        self.layers = len(_of_one_sample(encoder).blocks)  # type: ignore[arg-type]
        if len(_of_one_sample(decoder).blocks) != self.layers:  # type: ignore[arg-type]
            raise MonaiCaeError("encoder and decoder must have the same channels")
        self.layer = 0

    def begin_epoch(self, epoch: int, epochs: int) -> None:
        """Have the layer learn whose turn it is: each has an equal share of the epochs.

        Args:
            epoch: counted from 0.
            epochs: of the whole training.

        Raises:
            MonaiCaeError: fewer epochs than layers.
        """
        if epochs < self.layers:
            raise MonaiCaeError(
                f"max_epochs {epochs} is too few for {self.layers} layers, which learn one after another: give at "
                f"least {self.layers}"
            )
        self.layer = epoch * self.layers // epochs
        self.requires_grad_(False)
        for module in (_of_one_sample(self.encoder).blocks[self.layer], *self._way_back()):  # type: ignore[index,union-attr]
            module.requires_grad_(True)

    def forward(self, image: torch.Tensor) -> Any:
        """
        Args:
            image: as for `ConvAutoencoder.forward`.

        Returns:
            In training `Stacked`; in evaluation the reconstruction, of the image's shape.
        """
        if not torch.jit.is_scripting():  # noqa: SIM102  # by itself: TorchScript then leaves out what it can't compile
            if self.training:
                return self._learned(image)
        return self.decoder(self.encoder(image))

    def _learned(self, image: torch.Tensor) -> Any:
        encoder: Any = _of_one_sample(self.encoder)
        if isinstance(self.encoder, EachSample):
            image = image.unflatten(1, [self.encoder.samples, -1]).flatten(0, 1)
        given = image
        with torch.no_grad():
            for index, block in enumerate(encoder.blocks[: self.layer]):
                given = block(encoder.pool(given) if index else given)
        decoded = encoder.blocks[self.layer](encoder.pool(given) if self.layer else given)
        for module in self._way_back():
            decoded = module(decoded)
        return Stacked(decoded, given)

    def reconstruction_of(self, output: Any) -> Any:
        """The image in what `forward` returns; in training what stands for it in the layer that learns."""
        return output.decoded if isinstance(output, Stacked) else output

    def _way_back(self) -> list[nn.Module]:
        """From the code of the layer to what it was given."""
        decoder: Any = _of_one_sample(self.decoder)
        last = [decoder.upsample, decoder.blocks[self.layers - self.layer]] if self.layer else [decoder.output]
        return ([decoder.blocks[0]] if self.layer == self.layers - 1 else []) + last


class StackedLoss(nn.Module):
    """Mean squared error of what the learning layer was given."""

    def forward(self, output: Stacked, image: torch.Tensor) -> torch.Tensor:
        """
        Args:
            output: of `StackedAutoencoder` in training.
            image: not looked at.

        Returns:
            One number.
        """
        return functional.mse_loss(output.decoded, output.given)


def _of_one_sample(network: nn.Module) -> nn.Module:
    return network.network if isinstance(network, EachSample) else network
