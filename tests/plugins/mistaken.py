"""Parts with a mistake each."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import nn

from monai_cae.data import Scan
from monai_cae.targets import Target
from plugins.number import BrainVolume
from plugins.two_slices import TwoSlices


class Nothing(Target):
    pass


class ColumnOfOthers(BrainVolume):
    column = "age"


class UnknownMetric(BrainVolume):
    key_metric = "val_rmse"


class OtherClasses(BrainVolume):
    binary = True


class Alike(BrainVolume):
    def value(self, scan: Scan) -> float | None:
        return 0.75


class Text(BrainVolume):
    def value(self, scan: Scan) -> float | None:
        return scan.sex  # type: ignore[return-value]


class NoValue(BrainVolume):
    value = Target.value


@dataclass(frozen=True)
class ThreeAnnounced(TwoSlices):
    channels = 3


class NoEncoder(nn.Module):
    def __init__(self, encoder: nn.Module, decoder: nn.Module) -> None:
        super().__init__()
        self.parts = nn.Sequential(encoder, decoder)

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        return self.parts(image)
