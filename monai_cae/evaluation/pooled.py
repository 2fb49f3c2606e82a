"""The record that every result is computed from: out-of-fold predictions of all repeats, one row each.

| column | meaning |
|---|---|
| `subject` | who; the unit that is resampled |
| `repeat` | which repetition of the whole experiment, each with its own splits and weights |
| `fold` | which test set within the repeat; 1 throughout for a hold-out |
| `label` | 0 = HC (CDR 0), 1 = AD (CDR > 0) |
| `probability` | of AD, predicted by a network that has not seen the subject |
| `threshold` | optional: probabilities of this or more are AD in this fold, chosen on its validation set; default 0.5 |
| `cdr`, `age`, `sex` | of the subject; only `subgroups` needs them; blanks form their own group |

A subject has one row per repeat that tested it: every repeat for k folds, some for a hold-out.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from monai_cae.errors import MonaiCaeError
from monai_cae.evaluation.metrics import checked_scores
from monai_cae.evaluation.scores import SCORES, resampled_scores

COLUMNS = ("subject", "repeat", "fold", "label", "probability")
DEFAULT_THRESHOLD = 0.5


class Repeat(NamedTuple):
    """The predictions of one repeat, each field of shape `(n,)`; `places` are indices into `Pooled.subjects`."""

    places: NDArray[np.int64]
    folds: NDArray[np.str_]
    labels: NDArray[np.int64]
    probabilities: NDArray[np.float64]
    thresholds: NDArray[np.float64]

    @property
    def decisions(self) -> NDArray[np.bool_]:
        """Whether each was predicted as AD."""
        return self.probabilities >= self.thresholds


class Pooled(NamedTuple):
    """The record as arrays: subjects in the order of their names, shape `(subjects,)`; each repeat's predictions."""

    subjects: NDArray[np.str_]
    labels: NDArray[np.int64]
    repeats: dict[str, Repeat]

    def scores(self, counts: NDArray[np.float64], names: Sequence[str] = SCORES) -> dict[str, NDArray[np.float64]]:
        """Score each repeat in each resample.

        Args:
            counts: How often each subject was drawn, shape `(resamples, subjects)`.
            names: Which of `scores.SCORES`.

        Returns:
            Scores of shape `(repeats, resamples)` by name.
        """
        by_repeat = [
            resampled_scores(each.labels, each.probabilities, each.decisions, counts[:, each.places], names)
            for each in self.repeats.values()
        ]
        return {name: np.stack([scores[name] for scores in by_repeat]) for name in names}

    def mean_predictions(self) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
        """Give each subject one prediction: its mean over the repeats that tested it.

        Returns:
            Mean probability, and whether it lies above the threshold on average, each of shape `(subjects,)`.
        """
        total, margin, tests = (np.zeros(len(self.subjects)) for _ in range(3))
        for each in self.repeats.values():
            total[each.places] += each.probabilities
            margin[each.places] += each.probabilities - each.thresholds
            tests[each.places] += 1
        # rounding must not take a mean that lies on the threshold below it
        return total / tests, margin / tests >= -1e-12


def pooled(predictions: pd.DataFrame) -> Pooled:
    """Check the record of predictions and turn it into arrays.

    Args:
        predictions: Table with the columns above, in any order of rows.

    Returns:
        The arrays, independent of the order of the rows.

    Raises:
        MonaiCaeError: For a missing column, a blank, an invalid label or probability, a subject with two labels
            or with two predictions in one repeat.
    """
    table = _checked(predictions)
    subjects, first, places = np.unique(table["subject"], return_index=True, return_inverse=True)
    labels = table["label"].to_numpy()[first]
    mixed = table["label"].to_numpy() != labels[places]
    if mixed.any():
        raise MonaiCaeError(f"a subject has one label, but {table['subject'][mixed].iloc[0]} has 0 and 1.")
    repeats = {}
    for repeat, rows in table.assign(place=places).groupby("repeat"):
        fields = ("place", "fold", "label", "probability", "threshold")
        repeats[str(repeat)] = Repeat(*(rows[field].to_numpy() for field in fields))
    return Pooled(np.asarray(subjects, dtype=np.str_), labels, repeats)


def _checked(predictions: pd.DataFrame) -> pd.DataFrame:
    missing = [name for name in COLUMNS if name not in predictions]
    if missing:
        raise MonaiCaeError(f"predictions must have the columns {', '.join(COLUMNS)}; missing: {', '.join(missing)}.")
    table = predictions.reset_index(drop=True)
    if "threshold" not in table:
        table = table.assign(threshold=DEFAULT_THRESHOLD)
    for name in (*COLUMNS, "threshold"):
        if table[name].isna().any():
            raise MonaiCaeError(f"predictions have a blank under {name!r}, in row {table[name].isna().argmax() + 1}.")
    labels, probabilities = checked_scores(table["label"].to_numpy(), table["probability"].to_numpy())
    thresholds = table["threshold"].to_numpy(dtype=np.float64)
    if not ((thresholds >= 0) & (thresholds <= 1)).all():
        raise MonaiCaeError("threshold must be a probability between 0 and 1 in every row of the predictions.")
    texts = {name: table[name].astype(str) for name in ("subject", "repeat", "fold")}
    table = table.assign(label=labels, probability=probabilities, threshold=thresholds, **texts)
    twice = table.duplicated(["subject", "repeat"])
    if twice.any():
        subject, repeat = table.loc[twice.argmax(), ["subject", "repeat"]]
        raise MonaiCaeError(f"a subject has one prediction per repeat, but {subject} has two in repeat {repeat}.")
    return table.sort_values(["repeat", "subject"], ignore_index=True)


def mean_of_scans(samples: pd.DataFrame, column: str, classes: bool) -> pd.DataFrame:
    """Give each sample of a subject one row, the mean of the subject's scans.

    Args:
        samples: Columns `subject`, `sample`, `label`, `weight`, and `column` with what is predicted.
        column: Its name.
        classes: Whether labels are classes; numbers may have changed from scan to scan.

    Returns:
        These columns, samples and subjects in the order of the table.
    """
    means = {"label": "first" if classes else "mean", column: "mean", "weight": "mean"}
    return samples.groupby(["subject", "sample"], sort=False).agg(means).reset_index()
