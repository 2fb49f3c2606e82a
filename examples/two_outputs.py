"""Seam "autoencoder": a module with an `encoder`. Here it returns two things, and its own loss takes both."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import nn


class Output(NamedTuple):
    penalty: torch.Tensor
    image: torch.Tensor


class ShrinkingAutoencoder(nn.Module):
    """Its loss asks for a small code, too."""

    def __init__(self, encoder: nn.Module, decoder: nn.Module) -> None:
        super().__init__()
        self.encoder, self.decoder = encoder, decoder

    def forward(self, image: torch.Tensor) -> Output:
        code = self.encoder(image)
        return Output(code.square().mean().reshape(1), self.decoder(code))

    def reconstruction_of(self, output: Output) -> torch.Tensor:
        return output.image


class ShrinkingLoss(nn.Module):
    """Squared error and the code's size."""

    def __init__(self, weight: float) -> None:
        super().__init__()
        self.weight = weight

    def forward(self, output: Output, image: torch.Tensor) -> torch.Tensor:
        return (output.image - image).square().mean() + self.weight * output.penalty.mean()
