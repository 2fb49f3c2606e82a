"""Out-of-fold predictions of a classifier that exists only here, in the form that `evaluation.pooled` describes."""

from __future__ import annotations

import numpy as np
import pandas as pd


def predictions(
    subjects: int = 60, repeats: int = 3, folds: int = 5, *, seed: int = 0, strength: float = 1.2, noise: float = 0.5
) -> pd.DataFrame:
    """Simulate a classifier; those of one size have the same subjects, labels and folds, whatever their seed."""
    cohort, classifier = np.random.default_rng(99), np.random.default_rng(seed)
    labels = (np.arange(subjects) % 5 < 2).astype(int)
    fixed = {
        "subject": [f"S{number:03d}" for number in range(subjects)],
        "label": labels,
        "cdr": np.where(labels == 1, cohort.choice([0.5, 1.0], subjects), 0.0),
        "age": cohort.integers(60, 95, subjects),
        "sex": cohort.choice(["F", "M"], subjects),
    }
    signal = classifier.normal(size=subjects) + strength * labels
    tables = []
    for repeat in range(1, repeats + 1):
        log_odds = signal - strength / 2 + noise * classifier.normal(size=subjects)
        split = {"repeat": repeat, "fold": cohort.permutation(subjects) % folds + 1}
        tables.append(pd.DataFrame({**fixed, **split, "probability": 1 / (1 + np.exp(-log_odds))}))
    return pd.concat(tables, ignore_index=True)
