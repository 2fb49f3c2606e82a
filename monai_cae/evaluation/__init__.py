"""After training: what a network's outputs are worth, in numbers (here) and in pictures (`evaluation.figures`).

Arrays in, numbers and figures out; nothing here knows of networks, files or engines.
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
