"""What has to be known of predictions before a score of them is quoted."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike

from monai_cae.evaluation.metrics import checked_scores, predicted_classes

SAME = 1e-6  # probabilities are written with six decimals


def dead_classifier(labels: ArrayLike, probabilities: ArrayLike, threshold: float = 0.5) -> list[str]:
    """Tell a classifier that says one thing whatever it is shown; its accuracy is that of saying so.

    Args:
        labels: True classes of shape `(n,)`, 0 = HC, 1 = AD.
        probabilities: Predicted probability of AD, shape `(n,)`.
        threshold: Probability from which on a subject counts as AD.

    Returns:
        A sentence for everybody in one class, though both are there, and one for probabilities that are all the same.
        Of fewer than two subjects nothing is said.

    Raises:
        MonaiCaeError: For input that `classification_metrics` refuses.
    """
    truth, scores = checked_scores(labels, probabilities)
    decisions = set(predicted_classes(scores, threshold).tolist())
    found = []
    if len(set(truth.tolist())) == 2 and len(decisions) == 1:
        found.append(f"DEAD CLASSIFIER: everybody is taken for {'AD' if 1 in decisions else 'HC'}.")
    if len(scores) > 1 and np.ptp(scores) < SAME:
        found.append(f"The probability is the same for everybody ({scores[0]:.3f}): it has learned nothing.")
    return found
