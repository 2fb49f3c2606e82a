"""What the network predicts about a subject, and what depends on it."""

from monai_cae.targets.base import Target
from monai_cae.targets.diagnosis import ClassificationScore, Diagnosis

__all__ = ["ClassificationScore", "Diagnosis", "Target"]
