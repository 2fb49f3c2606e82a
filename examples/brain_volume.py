"""Seam "target": what the network predicts. Here normalised whole-brain volume, in units of its spread.

For a number in a column of the table the shipped `monai_cae.targets.Number` does more. This is all that a target of
one's own needs; `monai_cae.targets.Target` says what else it may define.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, ClassVar

import numpy as np
import torch
from matplotlib.figure import Figure
from monai.transforms import Lambdad
from torch import nn

from monai_cae.data import Scan
from monai_cae.targets import Target


class BrainVolume(Target):
    """The network's output times `scale` plus `centre`."""

    name = "nWBV"
    column = "nwbv"
    score_names: ClassVar = {"mae": "mean absolute error", "bias": "mean error"}
    headline = ("mae",)

    def __init__(self, centre: float, scale: float) -> None:
        self.centre, self.scale = centre, scale

    def value(self, scan: Scan) -> float | None:
        return scan.covariates.get("nWBV")

    def loss(self) -> nn.Module:
        return ScaledError(self.centre, self.scale)

    def activation(self) -> Callable[[Any], Any]:
        return Lambdad("pred", lambda output: output * self.scale + self.centre)

    def scores(self, labels: np.ndarray, predicted: np.ndarray, threshold: float = 0.5) -> dict[str, float]:
        errors = predicted - labels
        return {"mae": float(np.abs(errors).mean()), "bias": float(errors.mean())}

    def figures(self) -> dict[str, Callable[..., Figure]]:
        return {"predicted": predicted_against_true}


def predicted_against_true(
    labels: np.ndarray, predicted: np.ndarray, threshold: float, note: str, about: str
) -> Figure:
    figure = Figure()
    axes = figure.add_subplot(title=f"{about} {note}".strip(), xlabel="nWBV", ylabel="predicted nWBV")
    axes.scatter(labels, predicted)
    return figure


class ScaledError(nn.Module):
    """Squared error in units of `scale`."""

    def __init__(self, centre: float, scale: float) -> None:
        super().__init__()
        self.centre, self.scale = centre, scale

    def forward(self, output: torch.Tensor, label: torch.Tensor) -> torch.Tensor:
        return (output - (label - self.centre) / self.scale).square().mean()
