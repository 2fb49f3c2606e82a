"""Scores of a classifier and of reconstructions, as pure functions on arrays.

Labels are 0 for healthy controls (HC, CDR 0) and 1 for Alzheimer's disease (AD, CDR > 0); AD is the positive class.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray
from sklearn.metrics import accuracy_score, f1_score, recall_score, roc_auc_score

from monai_cae.errors import MonaiCaeError

CLASS_NAMES = ("HC", "AD")  # of the labels 0 and 1; by which rule is the cohort's to say
BRAIN_THRESHOLD = 0.03  # of the [0, 1] image; below it lies the masked-out background


def classification_metrics(labels: ArrayLike, probabilities: ArrayLike, threshold: float = 0.5) -> dict[str, float]:
    """Score predicted probabilities against the true classes.

    Args:
        labels: True classes of shape `(n,)`, 0 = HC, 1 = AD.
        probabilities: Predicted probability of AD, shape `(n,)`, between 0 and 1.
        threshold: Probability from which on a subject counts as AD, see `predicted_classes`.

    Returns:
        `accuracy`, `balanced_accuracy`, `sensitivity`, `specificity`, `f1` and `auc`, each between 0 and 1.
        What a missing class leaves undefined is nan: sensitivity without AD, specificity without HC, balanced
        accuracy and AUC without either. F1 is 0 where no subject is AD, truly or by prediction.

    Raises:
        MonaiCaeError: For arrays that differ in length, are empty, or hold anything but classes and probabilities.
    """
    truth, scores = checked_scores(labels, probabilities)
    predicted = predicted_classes(scores, threshold)
    sensitivity = float(recall_score(truth, predicted, pos_label=1, zero_division=np.nan))
    specificity = float(recall_score(truth, predicted, pos_label=0, zero_division=np.nan))
    # scikit-learn warns, and scores what is left, when a class is missing
    both_classes = np.unique(truth).size == 2
    return {
        "accuracy": float(accuracy_score(truth, predicted)),
        "balanced_accuracy": (sensitivity + specificity) / 2,
        "sensitivity": sensitivity,
        "specificity": specificity,
        "f1": float(f1_score(truth, predicted, zero_division=0.0)),
        "auc": float(roc_auc_score(truth, scores)) if both_classes else float("nan"),
    }


def predicted_classes(probabilities: ArrayLike, threshold: float = 0.5) -> NDArray[np.int64]:
    """Turn probabilities of AD into classes: AD where `probability >= threshold`.

    At the default threshold this is the sign of the logit: AD for a logit above 0, HC below. A logit of exactly 0
    (probability 0.5) counts as AD, as in scikit-learn's ROC curve and MONAI's `AsDiscrete`.

    Args:
        probabilities: Probability of AD, any shape.
        threshold: Between 0 and 1.

    Returns:
        Classes of the same shape, 0 = HC, 1 = AD.

    Raises:
        MonaiCaeError: For a threshold outside [0, 1].
    """
    if not 0 <= threshold <= 1:
        raise MonaiCaeError(f"threshold must be a probability between 0 and 1, not {threshold}.")
    return (np.asarray(probabilities) >= threshold).astype(np.int64)


CRITERIA = ("youden", "accuracy", "f1")  # by which a threshold can be chosen


def threshold_for(
    labels: ArrayLike, probabilities: ArrayLike, by: Literal["youden", "accuracy", "f1"] = "youden"
) -> float:
    """Choose a decision threshold, on validation subjects; one chosen on the test set would flatter the test score.

    Args:
        labels: True classes of shape `(n,)`, 0 = HC, 1 = AD.
        probabilities: Predicted probability of AD, shape `(n,)`.
        by: What to maximise: `youden`, sensitivity + specificity - 1 (Youden 1950, Cancer 3:32), which does not depend
            on how many subjects have AD; `accuracy`; or `f1`, of AD.

    Returns:
        A threshold for `predicted_classes`, midway between two neighbouring probabilities, or beyond the first or the
        last; of several equally good ones the nearest to 0.5.

    Raises:
        MonaiCaeError: For input that `classification_metrics` refuses, a missing class, or an unknown criterion.
    """
    if by not in CRITERIA:
        raise MonaiCaeError(f"by must be one of {', '.join(CRITERIA)}, not {by!r}.")
    truth, scores = checked_scores(labels, probabilities)
    patients, controls = int(truth.sum()), int((truth == 0).sum())
    if not patients or not controls:
        raise MonaiCaeError(
            f"labels must hold both classes to choose a threshold, not {patients} AD and {controls} HC."
        )
    # no threshold up to 1 is above a probability of 1
    distinct = np.unique(np.append(scores, 1.0))
    candidates = np.append(0.0, (distinct[1:] + distinct[:-1]) / 2)
    taken = scores >= candidates[:, None]
    found, alarms = taken[:, truth == 1].sum(axis=1), taken[:, truth == 0].sum(axis=1)
    criteria = {
        "youden": found / patients - alarms / controls,
        "accuracy": (found + controls - alarms) / len(truth),
        "f1": 2 * found / (found + alarms + patients),
    }
    best = candidates[criteria[by] >= criteria[by].max() - 1e-12]
    return float(best[np.argmin(np.abs(best - 0.5))])


def psnr(originals: ArrayLike, reconstructions: ArrayLike, max_intensity: float = 1.0) -> NDArray[np.float64]:
    """Peak signal-to-noise ratio of each image, the paper's equation 2.

    Args:
        originals: Images of shape `(n, ...)`, two- or three-dimensional.
        reconstructions: Their reconstructions, same shape.
        max_intensity: The largest value a pixel can have, Max_I; 1 for images scaled to [0, 1].

    Returns:
        `10 log10(Max_I^2 / MSE)` in dB, shape `(n,)`; inf where an image and its reconstruction are identical.

    Raises:
        MonaiCaeError: For shapes that differ, no image, or a `max_intensity` that is not positive.
    """
    _, squared_errors = _squared_errors(originals, reconstructions)
    return _decibels(squared_errors.mean(axis=1), max_intensity)


def psnr_brain(
    originals: ArrayLike, reconstructions: ArrayLike, threshold: float = BRAIN_THRESHOLD, max_intensity: float = 1.0
) -> NDArray[np.float64]:
    """Peak signal-to-noise ratio of each image inside the brain only.

    About half of a brain-masked slice is background, which is easy to reconstruct and flatters `psnr`.

    Args:
        originals: Brain-masked images of shape `(n, ...)`.
        reconstructions: Their reconstructions, same shape.
        threshold: Pixels count where the original is above this intensity.
        max_intensity: The largest value a pixel can have, Max_I.

    Returns:
        PSNR in dB, shape `(n,)`; inf for identical pixels, nan for an image without a pixel above the threshold.

    Raises:
        MonaiCaeError: As `psnr`.
    """
    images, squared_errors = _squared_errors(originals, reconstructions)
    # the negation keeps a nan pixel in, so that it shows in the result
    inside = ~(images <= threshold)
    pixels = inside.sum(axis=1)
    total = np.where(inside, squared_errors, 0.0).sum(axis=1)
    mse = np.divide(total, pixels, out=np.full(len(pixels), np.nan), where=pixels > 0)
    return _decibels(mse, max_intensity)


def mean_and_sd(values: Sequence[float] | NDArray[np.floating]) -> tuple[float, float]:
    """Mean and sample standard deviation of a score over repeats of an experiment.

    Args:
        values: One value per repeat. A nan is not skipped: it makes both results nan.

    Returns:
        Mean, and standard deviation with n - 1 in the denominator; the latter is nan for a single value.

    Raises:
        MonaiCaeError: If there is no value.
    """
    repeats = np.asarray(values, dtype=np.float64)
    if repeats.size == 0:
        raise MonaiCaeError("values must hold at least one repeat, not none.")
    with np.errstate(invalid="ignore"):
        sd = float(repeats.std(ddof=1)) if repeats.size > 1 else float("nan")
    return float(repeats.mean()), sd


def checked_scores(labels: ArrayLike, probabilities: ArrayLike) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """Return labels and probabilities as arrays of shape `(n,)`, or raise MonaiCaeError in one line."""
    truth, scores = np.asarray(labels), np.asarray(probabilities, dtype=np.float64)
    if truth.ndim != 1 or truth.shape != scores.shape:
        shapes = f"{truth.shape} and {scores.shape}"
        raise MonaiCaeError(f"labels and probabilities must each be one value per subject, not of shapes {shapes}.")
    if truth.size == 0:
        raise MonaiCaeError("labels and probabilities must hold at least one subject, not none.")
    unknown = ~np.isin(truth, (0, 1))
    if unknown.any():
        raise MonaiCaeError(f"labels must be 0 (CDR 0) or 1 (CDR > 0), not {truth[unknown][0]}.")
    if not np.isfinite(scores).all():
        raise MonaiCaeError(
            f"probabilities must be finite, not {scores[~np.isfinite(scores)][0]}; has the training diverged?"
        )
    outside = (scores < 0) | (scores > 1)
    if outside.any():
        raise MonaiCaeError(
            f"probabilities must be between 0 and 1, not {scores[outside][0]:g}; pass logits through a sigmoid first."
        )
    return truth.astype(np.int64), scores


def _squared_errors(
    originals: ArrayLike, reconstructions: ArrayLike
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return images and their squared errors as `(n, pixels)`."""
    # float64 before subtracting: unsigned integers would wrap around
    images, outputs = np.asarray(originals, dtype=np.float64), np.asarray(reconstructions, dtype=np.float64)
    if images.shape != outputs.shape:
        raise MonaiCaeError(f"reconstructions must have the originals' shape {images.shape}, not {outputs.shape}.")
    if images.ndim < 2 or images.size == 0:
        raise MonaiCaeError(f"originals must be images of shape (n, ...), not {images.shape}.")
    images = images.reshape(len(images), -1)
    return images, np.square(images - outputs.reshape(images.shape))


def _decibels(mse: NDArray[np.float64], max_intensity: float) -> NDArray[np.float64]:
    if not max_intensity > 0:
        raise MonaiCaeError(f"max_intensity must be positive, not {max_intensity}.")
    with np.errstate(divide="ignore"):
        return np.asarray(10 * np.log10(max_intensity**2 / mse), dtype=np.float64)
