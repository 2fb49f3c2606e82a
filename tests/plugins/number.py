"""A target that is a number: normalised whole-brain volume, learned in units of its spread."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, ClassVar

import numpy as np
import torch
from ignite.metrics import MeanAbsoluteError, Metric
from matplotlib.figure import Figure
from monai.transforms import Lambdad
from torch import nn

from monai_cae.data import Scan
from monai_cae.targets import Target


class BrainVolume(Target):
    """The network's output times `scale` plus `centre`."""

    name = "nWBV"
    column = "nwbv"
    key_metric = "val_mae"
    shown = ("val_loss", "val_mae")
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

    def metrics(self) -> dict[str, Metric]:
        def volumes(output: dict[str, torch.Tensor]) -> tuple[torch.Tensor, torch.Tensor]:
            return output["pred"] * self.scale + self.centre, output["label"]

        return {"val_mae": MeanAbsoluteError(output_transform=volumes)}

    def scores(self, labels: np.ndarray, predicted: np.ndarray, threshold: float = 0.5) -> dict[str, float]:
        errors = predicted - labels
        return {"mae": float(np.abs(errors).mean()), "bias": float(errors.mean())}

    def figures(self) -> dict[str, Callable[..., Figure]]:
        return {"broken": broken, "predicted": predicted_against_true}


def broken(*tested: object) -> Figure:
    raise ValueError("nothing to draw")


def predicted_against_true(
    labels: np.ndarray, predicted: np.ndarray, threshold: float, note: str, about: str
) -> Figure:
    figure = Figure()
    axes = figure.add_subplot(title=f"Predicted against true nWBV, {about} {note}".strip())
    axes.scatter(labels, predicted)
    return figure


class ScaledError(nn.Module):
    """Squared error in units of `scale`."""

    def __init__(self, centre: float, scale: float) -> None:
        super().__init__()
        self.centre, self.scale = centre, scale

    def forward(self, output: torch.Tensor, label: torch.Tensor) -> torch.Tensor:
        return (output - (label - self.centre) / self.scale).square().mean()
