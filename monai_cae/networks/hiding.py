"""Autoencoders that see less than they have to give back: noise over the image, or patches of it hidden.

In training the image is spoilt; in evaluation it is not, and nothing is drawn. What is drawn comes from torch's default
generator, on a GPU too, so the seed decides it, and it goes on where a resumed training was ended.

Sources: P. Vincent et al., Extracting and composing robust features with denoising autoencoders, ICML 2008; K. He et
al., Masked autoencoders are scalable vision learners, CVPR 2022. Their encoders are other networks: the layers here are
those of `ConvAutoencoder`.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import nn
from torch.nn import functional

from monai_cae.errors import MonaiCaeError
from monai_cae.networks.autoencoder import ConvAutoencoder
from monai_cae.networks.widths import check_weight


class DenoisingAutoencoder(ConvAutoencoder):
    """In training the encoder sees the image with Gaussian noise on it; the loss compares with the image without.

    Args:
        encoder, decoder: as for `ConvAutoencoder`.
        noise: standard deviation; the image's values are in [0, 1].

    Raises:
        MonaiCaeError: noise is not a number above 0.
    """

    def __init__(self, *, encoder: nn.Module, decoder: nn.Module, noise: float = 0.1) -> None:
        super().__init__(encoder=encoder, decoder=decoder)
        if not _is_number(noise) or not 0 < noise < float("inf"):
            raise MonaiCaeError(f"noise must be a standard deviation above 0, such as 0.1, not {noise!r}")
        self.noise = noise

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        """As `ConvAutoencoder.forward`."""
        seen = image + self.noise * torch.randn_like(image) if self.training else image
        return self.decoder(self.encoder(seen))


class Hidden(NamedTuple):
    """What a masked autoencoder returns in training.

    Args:
        image: the reconstruction, shape `(N, C, H, W[, D])`.
        hidden: 1 where the encoder saw 0 instead of the image, else 0; shape `(N, 1, H, W[, D])`.
    """

    image: torch.Tensor
    hidden: torch.Tensor


class MaskedAutoencoder(ConvAutoencoder):
    """In training some of the image's patches are black; `HiddenLoss` compares these.

    The same patches are hidden in all channels: neighbouring slices would tell what is behind a patch.

    Args:
        encoder, decoder: as for `ConvAutoencoder`.
        patch: edge of a patch in pixels; those at the far borders are cut off where it does not divide the image.
        hidden: share of the patches, rounded to whole patches, at least one, and one remains visible.

    Raises:
        MonaiCaeError: patch is not a whole number above 0, or hidden is not between 0 and 1; in `forward`, an image of
            a single patch.
    """

    def __init__(self, *, encoder: nn.Module, decoder: nn.Module, patch: int = 16, hidden: float = 0.5) -> None:
        super().__init__(encoder=encoder, decoder=decoder)
        if type(patch) is not int or patch < 1:
            raise MonaiCaeError(f"patch must be a whole number of pixels above 0, such as 16, not {patch!r}")
        if not _is_number(hidden) or not 0 < hidden < 1:
            raise MonaiCaeError(f"hidden must be a share between 0 and 1, such as 0.5, not {hidden!r}")
        self.patch = patch
        self.hidden = hidden

    def forward(self, image: torch.Tensor) -> Any:
        """
        Args:
            image: as for `ConvAutoencoder.forward`.

        Returns:
            In training `Hidden`; in evaluation the reconstruction of the whole image, of its shape.
        """
        if not torch.jit.is_scripting():  # noqa: SIM102  # by itself: TorchScript then leaves out what it can't compile
            if self.training:
                hidden = self.draw(image)
                return Hidden(self.decoder(self.encoder(image * (1 - hidden))), hidden)
        return self.decoder(self.encoder(image))

    def draw(self, image: torch.Tensor) -> torch.Tensor:
        """Patches to hide, as `Hidden.hidden`; other ones in every image."""
        sizes = image.shape[2:]
        grid = [-(-size // self.patch) for size in sizes]
        places = torch.Size(grid).numel()
        if places == 1:
            raise MonaiCaeError(f"patch {self.patch} is as large as the image {tuple(sizes)}: make it smaller")
        count = min(max(round(self.hidden * places), 1), places - 1)
        chosen = torch.rand(len(image), places, device=image.device).topk(count, dim=1).indices
        mask = torch.zeros(len(image), places, dtype=image.dtype, device=image.device).scatter(1, chosen, 1.0)
        mask = mask.unflatten(1, [1, *grid])
        for axis, size in enumerate(sizes, start=2):
            mask = mask.repeat_interleave(self.patch, dim=axis, output_size=mask.shape[axis] * self.patch)
            mask = mask.narrow(axis, 0, size)
        return mask

    def reconstruction_of(self, output: Any) -> Any:
        """The image in what `forward` returns."""
        return output.image if isinstance(output, Hidden) else output


class HiddenLoss(nn.Module):
    """Mean squared error of the hidden pixels, and a share of that of the visible ones.

    Args:
        visible: weight of the visible pixels' error. With 0 nothing says what they should become, and the
            reconstruction of a whole image, by which the epoch is chosen, means little.

    Raises:
        MonaiCaeError: visible is not a number from 0.
    """

    def __init__(self, visible: float = 0.1) -> None:
        super().__init__()
        check_weight("visible", visible, 0.1)
        self.visible = visible

    def forward(self, output: Hidden, image: torch.Tensor) -> torch.Tensor:
        """
        Args:
            output: of `MaskedAutoencoder` in training.
            image: what it was given.

        Returns:
            One number.
        """
        squares = functional.mse_loss(output.image, image, reduction="none")
        hidden = output.hidden.expand_as(squares)
        of_hidden = (squares * hidden).sum() / hidden.sum()
        return of_hidden + self.visible * (squares * (1 - hidden)).sum() / (1 - hidden).sum()


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)
