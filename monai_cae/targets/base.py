"""The one place that knows what is predicted: from a row of the table to the figures of the test."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any

import numpy as np
from ignite.metrics import Metric
from matplotlib.figure import Figure
from numpy.typing import NDArray
from torch import nn

from monai_cae.data import Cohort, Scan
from monai_cae.data.cohort.selection import select_measured
from monai_cae.data.texts import shown
from monai_cae.errors import MonaiCaeError
from monai_cae.evaluation.pooled import DEFAULT_THRESHOLD

Numbers = NDArray[np.float64]

# What else the tables of predictions have.
_TAKEN = {"method", "subject", "repeat", "fold", "label", "threshold", "cdr", "age", "sex", "file", "seen_in_training"}


class Target(ABC):
    """A number of a subject, of which the network's only output is made; chosen by the config item `target`.

    Attributes:
        name: what is predicted, as tables and messages call it.
        binary: patients and controls, of whom the pages speak, and a probability: threshold, calibration, linear probe,
            baselines, ROC and tests between methods make sense. Without, they are refused or left out; two other
            classes are the numbers 0 and 1.
        classes: label -> what somebody with it is called; none where the label is a number.
        column: of predictions.csv, with what is predicted.
        key_metric: of the validation, by which weights are chosen and training stops; the lower, the better.
        shown: metrics of the validation beside the progress bar.
        score_names: what `scores` gives -> as pages call it.
        headline: those of `score_names` that come first.
    """

    binary: bool = False
    classes: Mapping[float, str] = {}
    column: str = "predicted"
    key_metric: str = "val_loss"
    shown: Sequence[str] = ("val_loss",)

    @property
    @abstractmethod
    def name(self) -> str: ...

    @property
    @abstractmethod
    def score_names(self) -> Mapping[str, str]: ...

    @property
    @abstractmethod
    def headline(self) -> Sequence[str]: ...

    def __repr__(self) -> str:
        """Class and settings, by which a checkpoint knows its target."""
        return f"{type(self).__name__}({', '.join(f'{name}={value!r}' for name, value in vars(self).items())})"

    def value(self, scan: Scan) -> float | None:
        """The label of a scan by its row, where `select` asks nothing more; None takes no part."""
        raise NotImplementedError

    @abstractmethod
    def loss(self) -> nn.Module:
        """Of the network's output and the labels, each of shape `(N, 1)`."""

    @abstractmethod
    def activation(self) -> Callable[[Any], Any]:
        """A transform on dictionaries that makes what is predicted of the output, under `pred`."""

    @abstractmethod
    def scores(self, labels: Numbers, predicted: Numbers, threshold: float = DEFAULT_THRESHOLD) -> dict[str, float]:
        """What a test set's predictions are worth, by the names of `score_names`.

        Args:
            labels: shape `(n,)`.
            predicted: shape `(n,)`.
            threshold: of a binary target.
        """

    def metrics(self) -> dict[str, Metric]:
        """Metrics of the validation beside `val_loss`, each named `val_*`, on an output with `pred` and `label`."""
        return {}

    def figures(self) -> dict[str, Callable[[Numbers, Numbers, float, str], Figure]]:
        """Figures of a test set by name: functions of labels, predictions, threshold, and a note to stand in it."""
        return {}

    def caveats(self, labels: Numbers, predicted: Numbers, threshold: float) -> list[str]:
        """What has to be known before a score is quoted, a sentence each."""
        return []

    @property
    def tells(self) -> Collection[str]:
        """Columns of the table that tell the label, in lower case: no covariates."""
        return ("label", self.name.lower())

    def select(self, scans: Sequence[Scan], *, sessions: str, missing_codes: Any, **rules: Any) -> Cohort:
        """Everybody who has the number.

        Args:
            scans: the scans to choose from.
            sessions: see `monai_cae.data.select_cohort`.
            missing_codes: of the table; ages, CDR and covariates of the scans are without them.
            **rules: further settings of the cohort that differ from their defaults.

        Raises:
            MonaiCaeError: there are such settings, or nobody has the number.
        """
        if rules:
            raise MonaiCaeError(f"cohort#{min(rules)} is about classes, and the target is {self.name}: leave it out")

        def number(scan: Scan) -> float | None:
            found = self.value(scan)
            return None if found is None else self.checked(found, f"{self.name} of {scan.name}")

        return select_measured(scans, number, name=self.name, sessions=sessions)

    def checked(self, label: Any, what: str) -> float:
        """A label of a given datalist.

        Raises:
            MonaiCaeError: it is no number; named as `what`.
        """
        label = label.item() if isinstance(label, np.generic) else label
        if isinstance(label, bool) or not isinstance(label, (int, float)) or not math.isfinite(label):
            raise MonaiCaeError(f"{what} is {shown(label)}; it must be a number, {self.name}")
        return label

    def strata(self, labels: Sequence[float]) -> list[str]:
        """What a split is stratified by: quarters, which may be joined in small cohorts."""
        if not labels:
            return []
        return [f"all {quarter}" for quarter in np.searchsorted(np.quantile(labels, [0.25, 0.5, 0.75]), labels)]

    def columns(self, predicted: Sequence[float], threshold: float, classes: bool) -> dict[str, list[Any]]:
        """Columns of predictions.csv.

        Args:
            predicted: of some scans.
            threshold: of a binary target.
            classes: the table is for people who predict, not for us who test.
        """
        return {self.column: list(predicted)}

    def told(self, columns: Mapping[str, Sequence[Any]], threshold: float) -> str:
        """Predictions in a line.

        Args:
            columns: what `columns` gave of all scans.
            threshold: of a binary target.
        """
        found = np.array(columns[self.column])
        return f"{self.name} from {found.min():.4g} to {found.max():.4g}, mean {found.mean():.4g}"

    def require_consistent(self) -> None:
        """
        Raises:
            MonaiCaeError: what the class says of itself does not fit together, or collides with other columns.
        """
        name = type(self).__name__
        if self.column in _TAKEN or self.column not in self.columns([0.0], DEFAULT_THRESHOLD, classes=False):
            why = "is another's in the tables" if self.column in _TAKEN else "is not among its columns"
            raise MonaiCaeError(
                f"{name}: the column {self.column} {why}: give it another, such as predicted_{self.name}"
            )
        if self.key_metric not in ("val_loss", *self.metrics()):
            raise MonaiCaeError(f"{name}: key_metric {self.key_metric} is neither val_loss nor among its metrics")
        if self.binary and self.column != "probability":
            raise MonaiCaeError(f"{name}: binary is for patients and controls; other classes are numbers, 0 and 1")

    def require_binary(self, **asked: bool) -> None:
        """
        Args:
            **asked: setting -> whether it is asked for.

        Raises:
            MonaiCaeError: one is, and this is no binary target.
        """
        if not self.binary and any(asked.values()):
            name = next(name for name, is_asked in asked.items() if is_asked)
            raise MonaiCaeError(f"{name} is for two classes, and the target is {self.name}: leave it out")
