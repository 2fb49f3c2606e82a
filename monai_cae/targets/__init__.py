"""What the network predicts about a subject, and what depends on it."""

from monai_cae.targets.base import Target
from monai_cae.targets.diagnosis import ClassificationScore, Diagnosis
from monai_cae.targets.number import Number
from monai_cae.targets.unlabelled import Unlabelled

__all__ = ["ClassificationScore", "Diagnosis", "Number", "Target", "Unlabelled"]
