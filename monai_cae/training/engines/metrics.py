"""Metrics that the engines compute on every validation, beside MONAI's own."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from ignite.metrics import EpochMetric
from monai.handlers import IgniteMetricHandler
from monai.metrics.regression import RegressionMetric
from monai.utils import evenly_divisible_all_gather

from monai_cae.evaluation import BRAIN_THRESHOLD, classification_metrics


class ImageMetric(IgniteMetricHandler):
    """MONAI's handler of a metric per image, whose mean is nan where one image's is.

    MONAI leaves such images out of the mean, and where all are left out it gives 0: the best of all errors.
    """

    def compute(self) -> Any:
        """The mean over the images, those of all processes."""
        lost = bool(torch.isnan(torch.as_tensor(self.metric_fn.get_buffer())).any())
        mean = super().compute()  # puts 0 where nan is
        return math.nan if lost else mean


class BrainPSNR(RegressionMetric):
    """Peak signal-to-noise ratio over the pixels where the image is above a threshold, per image, then the mean.

    Half of a masked slice is background, which any autoencoder gets right: the PSNR of the whole image flatters.

    Args:
        max_val: the largest possible intensity (Max_I of the paper's equation 2).
        threshold: pixels of the original above it count as brain.
    """

    def __init__(self, max_val: float = 1.0, threshold: float = BRAIN_THRESHOLD) -> None:
        super().__init__()
        self.max_val = max_val
        self.threshold = threshold

    def _compute_metric(self, y_pred: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        brain = y > self.threshold
        dims = tuple(range(1, y.ndim))
        mse = ((y_pred - y).square() * brain).sum(dims) / brain.sum(dims)
        return (10 * torch.log10(self.max_val**2 / mse)).unsqueeze(1)


class ClassificationScore(EpochMetric):
    """One of `monai_cae.evaluation.classification_metrics` over all cases of an evaluation; nan where a logit is.

    Args:
        name: its key, e.g. "accuracy", "f1" or "auc".
        output_transform: engine output -> (logits, labels), each of shape `(N, 1)` or `(N,)`.
    """

    def __init__(self, name: str, output_transform: Callable[[Any], tuple[torch.Tensor, torch.Tensor]]) -> None:
        def compute(logits: torch.Tensor, labels: torch.Tensor) -> float:
            probabilities = torch.sigmoid(logits.float()).cpu().numpy()
            if np.isnan(probabilities).any():
                return math.nan  # for LossWatch to tell, which knows the epoch
            return classification_metrics(labels.cpu().numpy().astype(int), probabilities)[name]

        super().__init__(compute, output_transform=output_transform, check_compute_fn=False)

    def compute(self) -> float:
        """The score; the cases of all processes together, which may have different numbers of them."""
        gathered = [
            evenly_divisible_all_gather(torch.cat(parts), concat=True) for parts in (self._predictions, self._targets)
        ]
        return self.compute_fn(*gathered)
