"""Two autoencoders, each trained on the images of one class; whose reconstruction is better tells the class.

After R. Ferri et al. 2021 and the switch of M. Mendoza-Leon et al. 2020, whose rules are not public: a switch is any
classifier on the two codes or on the two errors.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import nn

from monai_cae.networks.classifier import EncoderClassifier
from monai_cae.networks.dense import as_code, code_sizes
from monai_cae.networks.head import Head
from monai_cae.networks.joint import require_classes


class PairedEncoder(nn.Module):
    """The codes of two autoencoders, or the logarithms of their mean squared errors, of each sample by itself.

    Args:
        controls, patients: autoencoders of one shape; their encoders have `out_channels` and `downsampling`, and
            perhaps `samples`, as `EachSample`.
        spatial_size: of the image.
        errors: the code is the two errors; else the two codes.

    Attributes:
        out_channels, samples: of both codes together; of the errors, two for each sample.
        downsampling: the encoders'; of errors as of `DenseEncoder`.

    Raises:
        MonaiCaeError: the encoders can't halve the image evenly.
    """

    def __init__(
        self, *, controls: nn.Module, patients: nn.Module, spatial_size: Sequence[int], errors: bool = False
    ) -> None:
        super().__init__()
        encoder = controls.get_submodule("encoder")
        self.samples = int(getattr(encoder, "samples", 1))
        code_sizes(spatial_size, int(encoder.downsampling))  # type: ignore[arg-type]
        self.controls = controls
        self.patients = patients
        self.errors = errors
        self.out_channels = 2 * (self.samples if errors else int(encoder.out_channels))  # type: ignore[arg-type]
        self.downsampling = math.gcd(*spatial_size) if errors else int(encoder.downsampling)  # type: ignore[arg-type]

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        """
        Args:
            image: shape `(N, C, H, W[, D])` with the sizes given.

        Returns:
            Of each sample the controls' code and the patients', shape `(N, out_channels, H / downsampling, ...)`; or
            the two logarithms, `(N, 2 * samples, 1, 1[, 1])`.
        """
        if self.errors:
            controls, patients = self.reconstructed(image)
            both = torch.stack([self.squares(image, controls), self.squares(image, patients)], dim=2)
            return as_code(both.clamp(min=1e-8).log().flatten(1), image.ndim)  # no logarithm of 0
        codes = [self.controls.encoder(image), self.patients.encoder(image)]  # type: ignore[operator]
        return torch.cat([code.unflatten(1, [self.samples, -1]) for code in codes], dim=2).flatten(1, 2)

    def reconstructed(self, image: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Both reconstructions, the controls' first."""
        return self.controls(image), self.patients(image)

    def squares(self, image: torch.Tensor, reconstruction: torch.Tensor) -> torch.Tensor:
        """Mean squared error of each sample, of shape `(N, samples)`, in float32."""
        error = (reconstruction.float() - image.float()).square()
        return error.unflatten(1, [self.samples, -1]).flatten(2).mean(dim=2)


class Pair(NamedTuple):
    """What a pair returns in training: the reconstruction of all images by each, of shape `(N, C, H, W[, D])`."""

    controls: torch.Tensor
    patients: torch.Tensor


class PairedAutoencoder(nn.Module):
    """Both autoencoders; in evaluation, of each sample the reconstruction with the smaller error.

    Args:
        encoder: has both.
    """

    def __init__(self, *, encoder: PairedEncoder) -> None:
        super().__init__()
        self.encoder = encoder

    def forward(self, image: torch.Tensor) -> Any:
        """
        Args:
            image: as for `PairedEncoder.forward`.

        Returns:
            In training `Pair`; in evaluation the reconstruction, of the image's shape.
        """
        controls, patients = self.encoder.reconstructed(image)
        if self.training:
            return Pair(controls, patients)
        better = self.encoder.squares(image, patients) < self.encoder.squares(image, controls)
        split = [made.unflatten(1, [self.encoder.samples, -1]) for made in (controls, patients)]
        while better.ndim < split[0].ndim:
            better = better.unsqueeze(-1)
        return torch.where(better, split[1], split[0]).flatten(1, 2)

    def reconstruction_of(self, output: Any) -> Any:
        """The image in what `forward` returns; in training the controls'."""
        return output.controls if isinstance(output, Pair) else output


class PairedLoss(nn.Module):
    """Mean squared error of each image in the reconstruction by its class's autoencoder.

    The other's is not looked at, but batch norm in both sees the images of both classes, as in evaluation.

    Args:
        binary: whether the target is patients and controls.

    Attributes:
        labelled: the loss is given the label beside the image.

    Raises:
        MonaiCaeError: another target.
    """

    labelled = True

    def __init__(self, binary: bool) -> None:
        super().__init__()
        require_classes(binary)

    def forward(self, output: Pair, given: tuple[torch.Tensor, torch.Tensor]) -> torch.Tensor:
        """
        Args:
            output: of `PairedAutoencoder` in training.
            given: the image, and its label of shape `(N, 1)`: 1 for patients, 0 for controls.

        Returns:
            One number.
        """
        image, label = given
        of_controls, of_patients = ((made - image).square().flatten(1).mean(dim=1, keepdim=True) for made in output)
        return ((1 - label) * of_controls + label * of_patients).mean()


class ErrorClassifier(EncoderClassifier):
    """A patient is whose image the patients' autoencoder reconstructs better.

    The logit is the difference of the errors' logarithms, of several samples their mean, times one number above 0,
    which is all that can be learned: it makes a probability of it, and decides nothing.

    Args:
        encoder: a `PairedEncoder` with `errors`.
        spatial_size: of the image.
    """

    def __init__(self, *, encoder: nn.Module, spatial_size: Sequence[int]) -> None:
        super().__init__(encoder=encoder, spatial_size=spatial_size, hidden=(), pooling=1)
        self.head = Head([nn.Flatten(), SmallerError()])


class SmallerError(nn.Module):
    """From pairs of logarithms, shape `(N, 2 * samples)`, to one logit, shape `(N, 1)`."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(1))

    def forward(self, errors: torch.Tensor) -> torch.Tensor:
        """Above 0 where the second error is the smaller one."""
        both = errors.unflatten(1, [-1, 2])
        return (both[..., 0] - both[..., 1]).mean(dim=1, keepdim=True) * self.weight.abs()
