"""Why a network predicts what it predicts: maps of what pushes its output up and down, and tests of these maps."""

from monai_cae.explanations.checks import Check, check
from monai_cae.explanations.decoded import Decoded
from monai_cae.explanations.explained import Explained
from monai_cae.explanations.methods import METHODS, Method, Occlusion, Score, Subject

__all__ = ["METHODS", "Check", "Decoded", "Explained", "Method", "Occlusion", "Score", "Subject", "check"]
