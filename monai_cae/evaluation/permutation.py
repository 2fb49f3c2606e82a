"""Whether a classifier is better than chance: what the same score is worth with permuted labels."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import ArrayLike, NDArray

from monai_cae.errors import MonaiCaeError
from monai_cae.evaluation.metrics import checked_scores, predicted_classes
from monai_cae.evaluation.scores import PROBABILISTIC, resampled_scores


def permutation_p_value(score: float, permuted: ArrayLike) -> float:
    """Share of permutations at least as good as the real labels, the real ones counted among them.

    Args:
        score: With the real labels; higher is better.
        permuted: With permuted labels, such as of trainings that were repeated with them, shape `(n,)`.

    Returns:
        `(1 + count(permuted >= score)) / (1 + n)`, which is never 0 (Phipson & Smyth 2010); nan for a score of nan.

    Raises:
        MonaiCaeError: If there is no permutation, or one is nan.
    """
    values = np.asarray(permuted, dtype=np.float64)
    if values.ndim != 1 or not values.size or np.isnan(values).any():
        raise MonaiCaeError("permuted must hold at least one score, and no nan.")
    if math.isnan(score):
        return math.nan
    # permutations that give the real score up to rounding are as good
    as_good = values >= score - 1e-12
    return float((1 + as_good.sum()) / (1 + values.size))


def permuted_label_test(
    labels: ArrayLike,
    probabilities: ArrayLike,
    rng: np.random.Generator,
    *,
    score: str = "auc",
    threshold: float = 0.5,
    permutations: int = 999,
) -> float:
    """Test whether predictions have anything to do with the classes: how often do permuted labels fit them as well?

    The training is not repeated: this is about predictions as they are, of subjects the network has not seen.

    Args:
        labels: True classes of shape `(n,)`, 0 = HC, 1 = AD.
        probabilities: Predicted probability of AD, shape `(n,)`, one per subject.
        rng: Source of the permutations.
        score: Of `scores.SCORES`, one where higher is better.
        threshold: Probability from which on a subject counts as AD.
        permutations: How many, 1 or more.

    Returns:
        The p value, see `permutation_p_value`.

    Raises:
        MonaiCaeError: For input that `classification_scores` refuses, a score where lower is better, or no permutation.
    """
    truth, scores = checked_scores(labels, probabilities)
    if score in PROBABILISTIC:
        raise MonaiCaeError(f"score must be one where higher is better, such as auc, not {score}.")
    if permutations < 1:
        raise MonaiCaeError(f"permutations must be 1 or more, not {permutations}.")
    counts, decisions = np.ones((1, len(truth))), predicted_classes(scores, threshold) == 1

    def measured(classes: NDArray[np.int64]) -> float:
        return float(resampled_scores(classes, scores, decisions, counts, [score])[score][0])

    observed = measured(truth)
    if math.isnan(observed):
        return math.nan
    return permutation_p_value(observed, [measured(rng.permutation(truth)) for _ in range(permutations)])
