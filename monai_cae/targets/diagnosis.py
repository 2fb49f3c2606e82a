"""Patients and controls, the paper's target: the probability of Alzheimer's disease."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from ignite.metrics import Metric
from matplotlib.figure import Figure
from monai.handlers import from_engine
from monai.transforms import Activationsd
from torch import nn

from monai_cae.data.cohort.selection import PatientsAndControls
from monai_cae.evaluation import CLASS_NAMES, classification_metrics, figures
from monai_cae.evaluation.caveats import dead_classifier, out_of_reach
from monai_cae.evaluation.pooled import DEFAULT_THRESHOLD
from monai_cae.evaluation.scores import HEADLINE, LABELS, classification_scores
from monai_cae.targets.base import Numbers, Target
from monai_cae.targets.epoch_score import EpochScore


class Diagnosis(PatientsAndControls, Target):
    """Label 1 for AD and 0 for HC, by the rules of the cohort's settings; predicts the probability of AD."""

    binary = True
    column = "probability"
    shown = ("val_loss", "val_accuracy", "val_auc")
    score_names = LABELS
    headline = HEADLINE

    def loss(self) -> nn.Module:
        """Cross-entropy of the logits."""
        return nn.BCEWithLogitsLoss()

    def activation(self) -> Callable[[Any], Any]:
        """The sigmoid of the logit."""
        return Activationsd(keys="pred", sigmoid=True)

    def metrics(self) -> dict[str, Metric]:
        """Accuracy, F1 and AUC."""
        output = from_engine(["pred", "label"])
        return {f"val_{name}": ClassificationScore(name, output) for name in ("accuracy", "f1", "auc")}

    def scores(self, labels: Numbers, predicted: Numbers, threshold: float = DEFAULT_THRESHOLD) -> dict[str, float]:
        """See `classification_metrics`."""
        return classification_metrics(labels, predicted, threshold=threshold)

    def figures(self) -> dict[str, Callable[[Numbers, Numbers, float, str, str], Figure]]:
        """ROC curve and confusion matrix."""
        return {"roc": figures.roc_curve, "confusion_matrix": figures.confusion_matrix}

    def caveats(self, labels: Numbers, predicted: Numbers, threshold: float) -> list[str]:
        """A classifier with one answer for all, or with probabilities that say nothing."""
        slope = classification_scores(labels, predicted, names=["calibration_slope"])["calibration_slope"]
        return dead_classifier(labels, predicted, threshold) + out_of_reach(slope)

    def columns(self, predicted: Sequence[float], threshold: float, classes: bool) -> dict[str, list[Any]]:
        """The probability and the predicted class; with `classes`, also its name and the threshold."""
        decided = [int(probability >= threshold) for probability in predicted]
        found: dict[str, list[Any]] = {self.column: list(predicted), "prediction": decided}
        if classes:
            found["class"] = [CLASS_NAMES[prediction] for prediction in decided]
            found["threshold"] = [threshold] * len(decided)
        return found

    def told(self, columns: Mapping[str, Sequence[Any]], threshold: float) -> str:
        """How many scans are predicted as each class."""
        control, patient = CLASS_NAMES
        scans, positive = len(columns["prediction"]), sum(columns["prediction"])
        return f"{positive} predicted as {patient}, {scans - positive} as {control} (threshold {threshold:g})"


class ClassificationScore(EpochScore):
    """One of `monai_cae.evaluation.classification_metrics` over all cases of an evaluation; nan if a logit is.

    Args:
        name: its key, e.g. "accuracy", "f1" or "auc".
        output_transform: engine output -> (logits, labels), each of shape `(N, 1)` or `(N,)`.
    """

    def __init__(self, name: str, output_transform: Callable[[Any], tuple[torch.Tensor, torch.Tensor]]) -> None:
        def compute(logits: torch.Tensor, labels: torch.Tensor) -> float:
            probabilities, labels = torch.stack([torch.sigmoid(logits.float()), labels.float()]).cpu()
            if probabilities.isnan().any():
                return math.nan  # for LossWatch to tell, which knows the epoch
            return classification_metrics(labels.numpy().astype(int), probabilities.numpy())[name]

        super().__init__(compute, output_transform=output_transform, check_compute_fn=False)
