"""Parts with a mistake each."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from brain_volume import BrainVolume
from matplotlib.figure import Figure
from torch import nn
from two_slices import TwoSlices

from monai_cae.data import Scan
from monai_cae.targets import Target
from monai_cae.training import Outcome


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


class BadlyDrawn(BrainVolume):
    def figures(self) -> dict[str, Callable[..., Figure]]:
        return {"broken": broken, **super().figures()}


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


def broken(*tested: object) -> Figure:
    raise ValueError("nothing to draw")


def no_such_column(outcome: Outcome) -> Figure:
    raise KeyError("no such column\nin the table")
