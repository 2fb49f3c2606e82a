"""What the network predicts of a subject, and what follows from it."""

from monai_cae.targets.base import Target
from monai_cae.targets.diagnosis import ClassificationScore, Diagnosis

__all__ = ["ClassificationScore", "Diagnosis", "Target"]
