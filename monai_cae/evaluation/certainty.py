"""How sure predictions are: conformal sets of classes, and accuracy against the share of subjects that are answered."""

from __future__ import annotations

import math
from collections.abc import Mapping

import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from numpy.typing import NDArray

from monai_cae.evaluation.intervals import wilson_interval
from monai_cae.evaluation.pooled import DEFAULT_THRESHOLD
from monai_cae.evaluation.style import FAINT, INK, LEGEND, LINE_COLOURS, empty_figure, tidy

ERROR_RATES = (0.05, 0.1, 0.2)
_CURVE = tuple(np.linspace(0.1, 1.0, 19).round(2))
_Numbers = NDArray[np.float64]


def conformal_sets(record: pd.DataFrame, error_rates: tuple[float, ...] = ERROR_RATES) -> pd.DataFrame:
    """Measure sets of classes that leave out a subject's own class at a chosen rate at most.

    A class is in the set if its probability is not among the lowest of the subjects who have that class (label-
    conditional conformal prediction: Vovk 2012, PMLR 25:475). A test set's subjects are compared with those of the
    other test sets of the experiment, by what networks predicted that had not seen them (cross-conformal: Vovk 2015,
    Ann Math Artif Intell 74:9); of several predictions of a subject each counts as a part of one. So no validation
    subject is needed, by which epochs were chosen or a probe was fitted.

    Args:
        record: as in `monai_cae.evaluation.pooled`, of one method.
        error_rates: of the sets, each between 0 and 1.

    Returns:
        A row per error rate: the measured `coverage`, the share of sets with the subject's own class, with Wilson's 95
        % interval `low` to `high` over subjects; `coverage_AD` and `coverage_HC`; `one`, the share of sets of one
        class, and their `accuracy`; `both` and `none`. Empty where there is one test set alone.
    """
    record = record.reset_index(drop=True)
    parts = [rows for _, rows in record.groupby(["repeat", "fold"])]
    if len(parts) < 2:
        return pd.DataFrame()
    found = pd.concat([_p_values(record, part) for part in parts], ignore_index=True)
    patient = (found["label"] == 1).to_numpy()
    rows = []
    for rate in error_rates:
        inside = (found[["HC", "AD"]] > rate).to_numpy()
        own, size = np.where(patient, inside[:, 1], inside[:, 0]), inside.sum(axis=1)
        people = pd.Series(own, dtype=float).groupby(found["subject"].to_numpy()).mean()
        interval = wilson_interval(round(float(people.mean()) * len(people)), len(people))
        rows.append({
            "error_rate": rate, "subjects": len(people), "coverage": float(people.mean()), "low": interval.low,
            "high": interval.high, "coverage_AD": _mean(own[patient]), "coverage_HC": _mean(own[~patient]),
            "one": _mean(size == 1), "accuracy": _mean(own[size == 1]), "both": _mean(size == 2),
            "none": _mean(size == 0),
        })  # fmt: skip
    return pd.DataFrame(rows)


def _p_values(record: pd.DataFrame, part: pd.DataFrame) -> pd.DataFrame:
    """Of each subject of a test set, how ordinary it would be as AD and as HC: the share of that class's subjects,
    itself included, whose probability of the class is as low or lower."""
    others = record[(record["repeat"] != part["repeat"].iloc[0]) | (record["fold"] != part["fold"].iloc[0])]
    weight = 1 / others.groupby("subject")["subject"].transform("size")  # of one prediction of several
    found = part[["subject", "label"]].copy()
    for name, label in (("AD", 1), ("HC", 0)):
        usual = others[others["label"] == label]
        sign = 1 if label else -1
        other = (part["subject"].to_numpy()[:, None] != usual["subject"].to_numpy()) * weight[usual.index].to_numpy()
        lower = sign * usual["probability"].to_numpy() <= sign * part["probability"].to_numpy()[:, None]
        found[name] = (1 + (lower * other).sum(axis=1)) / (1 + other.sum(axis=1))
    return found


def _mean(values: NDArray[np.bool_]) -> float:
    return float(np.mean(values)) if len(values) else math.nan


def selective_accuracy(record: pd.DataFrame, seed: int = 0, resamples: int = 200) -> pd.DataFrame:
    """Accuracy if only the surest predictions are given.

    A prediction is the surer the farther its probability lies from the threshold, as a share of what it could.

    Args:
        record: as in `monai_cae.evaluation.pooled`, of one method.
        seed, resamples: of the bootstrap over subjects.

    Returns:
        A row per share that is answered: `share`, `accuracy`, the mean over the repeats, its percentile interval `low`
        to `high`; and `aurc`, the area under the curve of errors against shares (Geifman and El-Yaniv 2017, NeurIPS),
        the same in each row: the error itself where probabilities do not tell who is right.
    """
    rng = np.random.default_rng(seed)
    names = record["subject"].unique()
    repeats = [_sorted(rows, names) for _, rows in record.groupby("repeat")]
    ones = np.ones(len(names))
    curve = np.mean([_accuracies(*each, ones)[0] for each in repeats], axis=0)
    aurc = float(np.mean([_accuracies(*each, ones)[1] for each in repeats]))
    drawn = rng.multinomial(len(names), ones / len(names), size=resamples).astype(np.float64)
    resampled = [np.mean([_accuracies(*each, counts)[0] for each in repeats], axis=0) for counts in drawn]
    low, high = np.nanpercentile(resampled, [2.5, 97.5], axis=0)
    return pd.DataFrame({"share": _CURVE, "accuracy": curve, "low": low, "high": high, "aurc": aurc})


def _sorted(rows: pd.DataFrame, names: NDArray[np.object_]) -> tuple[_Numbers, NDArray[np.int64], NDArray[np.int64]]:
    """Whether each prediction is right, whose it is, and which are equally sure, the surest first."""
    probability = rows["probability"].to_numpy()
    threshold = rows["threshold"].to_numpy() if "threshold" in rows else np.full(len(rows), DEFAULT_THRESHOLD)
    above = probability >= threshold
    room = np.where(above, 1 - threshold, threshold)
    sure = np.abs(probability - threshold) / np.where(room > 0, room, 1)
    order = np.argsort(-sure, kind="stable")
    right = (above == (rows["label"].to_numpy() == 1)).astype(float)
    places = pd.Index(names).get_indexer(rows["subject"])
    equal = np.cumsum(np.diff(sure[order], prepend=sure[order[:1]]) < 0)
    return right[order], np.asarray(places)[order], equal


def _accuracies(
    right: _Numbers, places: NDArray[np.int64], equal: NDArray[np.int64], counts: NDArray[np.float64]
) -> tuple[_Numbers, float]:
    """Among equally sure predictions no order is better than another: each is as right as all of them are."""
    weights = counts[places].astype(float)
    size = np.bincount(equal, weights)
    right = (np.bincount(equal, weights * right) / np.where(size > 0, size, 1))[equal]
    answered = np.cumsum(weights)
    if not answered[-1]:
        return np.full(len(_CURVE), math.nan), math.nan
    correct = np.cumsum(weights * right)
    risks = 1 - correct[weights > 0] / answered[weights > 0]
    at = np.searchsorted(answered, np.array(_CURVE) * answered[-1] - 1e-9)
    at = at.clip(max=len(right) - 1)
    return correct[at] / answered[at], float(np.average(risks, weights=weights[weights > 0]))


def selective_figure(curves: Mapping[str, pd.DataFrame], note: str = "", about: str = "") -> Figure:
    """Accuracy against the share of subjects that are answered, the first method's with its interval.

    Args:
        curves: `selective_accuracy` by the name of the method.
        note, about: footer and title.
    """
    figure = empty_figure(5.5, 3.8, note, f"Accuracy if only the surest predictions are given\n{about}")
    axis = figure.subplots()
    for number, (name, curve) in enumerate(curves.items()):
        colour = LINE_COLOURS[number % len(LINE_COLOURS)]
        if number == 0:
            axis.fill_between(curve["share"], curve["low"], curve["high"], color=FAINT, linewidth=0)
        told = f"{name} (AURC {curve['aurc'].iloc[0]:.3f})"
        axis.plot(curve["share"], curve["accuracy"], color=colour, linewidth=2 if number == 0 else 1.2, label=told)
    axis.set_xlim(0.1, 1.0)
    bottom = min(0.5, *(float(curve["accuracy"].min()) for curve in curves.values()))
    axis.set_ylim(max(0.0, bottom - 0.03), 1.02)
    axis.axhline(1.0, color=INK, linewidth=0.5)
    tidy(axis, "share of subjects answered, the surest first", "accuracy")
    axis.legend(**LEGEND, loc="lower left")
    return figure
