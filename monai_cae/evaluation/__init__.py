"""Scores and figures of a network's outputs.

Arrays in, numbers and figures out; independent of networks, files and engines.
"""

from __future__ import annotations

from monai_cae.evaluation.metrics import (
    BRAIN_THRESHOLD,
    CLASS_NAMES,
    CRITERIA,
    classification_metrics,
    mean_and_sd,
    predicted_classes,
    psnr,
    psnr_brain,
    threshold_for,
)

__all__ = [
    "BRAIN_THRESHOLD",
    "CLASS_NAMES",
    "CRITERIA",
    "classification_metrics",
    "mean_and_sd",
    "predicted_classes",
    "psnr",
    "psnr_brain",
    "threshold_for",
]
