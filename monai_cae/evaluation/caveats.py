"""Caveats: what a reader must know before quoting a score, one sentence each, the same everywhere."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import ArrayLike
from scipy import stats

from monai_cae.evaluation.metrics import checked_scores, predicted_classes

STRANGERS_P = 0.01
SAME = 1e-6  # of a probability
SLOPES = (0.1, 10.0)  # of calibration; beyond them a predicted 0.99 means less than 0.62, or 0.55 more than 0.88


def dead_classifier(labels: ArrayLike, probabilities: ArrayLike, threshold: float = 0.5) -> list[str]:
    """Detect a classifier with one answer for all subjects; its accuracy is that of the constant answer.

    Args:
        labels: True classes of shape `(n,)`, 0 = HC, 1 = AD.
        probabilities: Predicted probability of AD, shape `(n,)`.
        threshold: Probability from which on a subject counts as AD.

    Returns:
        A sentence if all predictions are of one class though both are present, and one if all probabilities are equal.
        Nothing for fewer than two subjects.

    Raises:
        MonaiCaeError: For input that `classification_metrics` refuses.
    """
    truth, scores = checked_scores(labels, probabilities)
    decisions = set(predicted_classes(scores, threshold).tolist())
    found = []
    if len(set(truth.tolist())) == 2 and len(decisions) == 1:
        found.append(f"DEAD CLASSIFIER: all subjects are classified as {'AD' if 1 in decisions else 'HC'}.")
    if len(scores) > 1 and np.ptp(scores) < SAME:
        found.append("NOTHING LEARNED: all subjects have the same probability of AD.")
    return found


def equal_numbers(labels: ArrayLike, predicted: ArrayLike, name: str) -> list[str]:
    """Detect a network with one predicted number for all subjects.

    Args:
        labels: The true numbers, shape `(n,)`.
        predicted: shape `(n,)`.
        name: Of the number.
    """
    truth, found = np.asarray(labels, np.float64), np.asarray(predicted, np.float64)
    if len(truth) < 2 or np.ptp(found) > SAME * max(float(np.std(truth)), 1e-12):
        return []
    return [f"NOTHING LEARNED: all subjects have the same predicted {name}."]


def no_better_than_mean(r2: float) -> list[str]:
    """Detect predictions that are no nearer than one number for all. Args: r2: Of them; nan where there is none."""
    if not r2 <= 0:
        return []
    return [f"NO BETTER THAN THE MEAN: R2 is {r2:.3g}; the mean of these subjects for all has 0."]


def out_of_reach(slope: float) -> list[str]:
    """Detect probabilities that say almost nothing about how likely AD is.

    Args:
        slope: Of calibration, see `calibration.calibration_line`; nan where no finite one fits.
    """
    if SLOPES[0] <= slope <= SLOPES[1]:
        return []
    why = (
        f"the slope is {slope:.3g}, outside {SLOPES[0]:g} to {SLOPES[1]:g}"
        if math.isfinite(slope)
        else "no finite slope fits, as the probabilities separate the classes, or are all the same"
    )
    return [f"NOT CALIBRATED: {why}; the probabilities do not tell how likely AD is."]


def worse_than_mean_image(psnr: float, of_mean_image: float) -> list[str]:
    """Detect an autoencoder with worse reconstructions than one image for all subjects.

    Args:
        psnr: Of the reconstructions, mean over the images, in dB.
        of_mean_image: Of the mean training image given for each of them.
    """
    if psnr >= of_mean_image:
        return []
    return [
        f"WORSE THAN THE MEAN IMAGE: reconstructions have {psnr:.2f} dB, and the mean of the training images in their "
        f"place has {of_mean_image:.2f} dB."
    ]


def many_strangers(scans: int, marked: int, limit: float, validation: int) -> list[str]:
    """Detect a test set that is unlike the training's.

    Args:
        scans, marked: tested, and of these above the limit.
        limit: percentile of the validation scans.
        validation: how many of these there were.

    Returns:
        A sentence if so many would be marked of ordinary scans once in a hundred times at most.
    """
    share = 1 - limit / 100
    if stats.binom.sf(marked - 1, scans, share) > STRANGERS_P:
        return []
    return [
        f"UNLIKE THE TRAINING'S: {marked} of {scans} test scans are above percentile {limit:g} of the {validation} "
        f"validation scans, of ordinary scans about {share * scans:.0f} would be; their predictions mean nothing."
    ]
