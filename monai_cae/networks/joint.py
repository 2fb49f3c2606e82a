"""An autoencoder that learns the label too: one loss of the reconstruction and of what a layer on the code predicts.

After M. Mendoza-Leon et al. 2020, who train autoencoder and classifier of a patch as one model; their layers are not
public.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import nn
from torch.nn import functional

from monai_cae.errors import MonaiCaeError
from monai_cae.networks.autoencoder import ConvAutoencoder
from monai_cae.networks.head import VoteLoss
from monai_cae.networks.widths import check_weight


class Joint(NamedTuple):
    """What a joint autoencoder returns in training.

    Args:
        image: the reconstruction, shape `(N, C, H, W[, D])`.
        votes: logit of AD of each sample of the image, shape `(N, samples)`.
    """

    image: torch.Tensor
    votes: torch.Tensor


class JointAutoencoder(ConvAutoencoder):
    """In training one layer on the means of the code's channels predicts the label, for each sample by itself.

    That layer is for training the encoder alone: the classifier afterwards has a head of its own.

    Args:
        encoder: has `out_channels`, and perhaps `samples`, as `EachSample`.
        decoder: as for `ConvAutoencoder`.
    """

    def __init__(self, *, encoder: nn.Module, decoder: nn.Module) -> None:
        super().__init__(encoder=encoder, decoder=decoder)
        self.samples = int(getattr(encoder, "samples", 1))
        self.head = nn.Linear(int(encoder.out_channels) // self.samples, 1)  # type: ignore[arg-type]

    def forward(self, image: torch.Tensor) -> Any:
        """
        Args:
            image: as for `ConvAutoencoder.forward`.

        Returns:
            In training `Joint`; in evaluation the reconstruction, of the image's shape.
        """
        code = self.encoder(image)
        if not self.training:
            return self.decoder(code)
        means = code.unflatten(1, [self.samples, -1]).flatten(3).mean(dim=3)
        return Joint(self.decoder(code), self.head(means).flatten(1))

    def reconstruction_of(self, output: Any) -> Any:
        """The image in what `forward` returns."""
        return output.image if isinstance(output, Joint) else output


class JointLoss(nn.Module):
    """Mean squared error of the reconstruction, plus a weight times the votes' cross-entropy.

    Args:
        binary: whether the target is patients and controls.
        weight: on the cross-entropy.

    Attributes:
        labelled: the loss is given the label beside the image.

    Raises:
        MonaiCaeError: another target, or weight is not a number from 0.
    """

    labelled = True

    def __init__(self, binary: bool, weight: float = 0.01) -> None:
        super().__init__()
        require_classes(binary)
        check_weight("weight", weight, 0.01)
        self.of_votes = VoteLoss(nn.BCEWithLogitsLoss())
        self.weight = weight

    def forward(self, output: Joint, given: tuple[torch.Tensor, torch.Tensor]) -> torch.Tensor:
        """
        Args:
            output: of `JointAutoencoder` in training.
            given: the image, and its label of shape `(N, 1)`.

        Returns:
            One number.
        """
        image, label = given
        return functional.mse_loss(output.image, image) + self.weight * self.of_votes(output.votes, label)


def require_classes(binary: bool) -> None:
    """Raises: MonaiCaeError: the target, by its `binary`, is not patients and controls."""
    if not binary:
        raise MonaiCaeError(
            "this autoencoder learns from patients and controls, and the target is something else: take another overlay"
        )
