"""Metrics of every validation, besides MONAI's own."""

from __future__ import annotations

import math
from typing import Any

import torch
from monai.handlers import IgniteMetricHandler
from monai.metrics.regression import RegressionMetric

from monai_cae.evaluation import BRAIN_THRESHOLD


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
