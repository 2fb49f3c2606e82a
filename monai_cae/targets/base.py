"""The interface of a target: everything that depends on what is predicted."""

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
from monai_cae.data.cohort.covariates import label_in
from monai_cae.data.cohort.selection import select_measured
from monai_cae.data.texts import shown
from monai_cae.errors import MonaiCaeError
from monai_cae.evaluation.pooled import DEFAULT_THRESHOLD

Numbers = NDArray[np.float64]

# What else the tables of predictions have.
_TAKEN = {"method", "subject", "repeat", "fold", "label", "threshold", "cdr", "age", "sex", "file", "seen_in_training"}


class Target(ABC):
    """What the network's output means for a subject; chosen by the config item `target`.

    Attributes:
        name: of what is predicted, in tables and messages.
        binary: whether it is patients and controls, and a probability. If not, threshold, calibration and ROC are
            refused or left out; two other classes are the numbers 0 and 1.
        number: whether it is scored and compared as `monai_cae.targets.Number` is, with `predicted` as its column. What
            is neither binary nor such a number has no linear probe, no baselines and no tests between methods.
        fewest: subjects of a cohort that is split.
        classes: label -> name of the class; empty if the label is a number.
        column: of predictions.csv, with the predictions.
        key_metric: validation metric that chooses weights and stops training; lower is better.
        shown: validation metrics next to the progress bar.
        score_names: name in `scores` -> name on pages.
        headline: the scores that come first.
    """

    binary: bool = False
    number: bool = False
    fewest: int = 0
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
        """The label of a scan, from its row, for the default `select`; a scan with None does not take part."""
        raise MonaiCaeError(f"{type(self).__name__} has no method value(scan), which gives the label of a scan")

    @abstractmethod
    def loss(self) -> nn.Module:
        """Loss of the network's output and the labels, each of shape `(N, 1)`."""

    def fitted(self, labels: Sequence[float]) -> Target:
        """The target with what it takes from the training set's labels; by default the same."""
        return self

    def begin(self, network: nn.Module) -> nn.Module:
        """An untrained network, made ready for this target; by default as it is."""
        return network

    @abstractmethod
    def activation(self) -> Callable[[Any], Any]:
        """A dictionary transform from the network's output to the prediction, under `pred`."""

    @abstractmethod
    def scores(self, labels: Numbers, predicted: Numbers, threshold: float = DEFAULT_THRESHOLD) -> dict[str, float]:
        """Scores of a test set's predictions, by the names of `score_names`.

        Args:
            labels: shape `(n,)`.
            predicted: shape `(n,)`.
            threshold: of a binary target.
        """

    def metrics(self) -> dict[str, Metric]:
        """Validation metrics besides `val_loss`, each named `val_*`, on an output with `pred` and `label`.

        One of Ignite's adds up on the CPU unless it is given a `device`, and a GPU waits for it after every batch.
        """
        return {}

    def figures(self) -> dict[str, Callable[[Numbers, Numbers, float, str, str], Figure]]:
        """Figures of a test set by name: functions of labels, predictions, threshold, note and whom they show."""
        return {}

    def caveats(self, labels: Numbers, predicted: Numbers, threshold: float) -> list[str]:
        """What a reader must know before quoting a score, one sentence each."""
        return []

    @property
    def tells(self) -> Collection[str]:
        """Columns of the table that give the label, in lower case; they can't be covariates."""
        return ("label", self.name.lower())

    def select(self, scans: Sequence[Scan], *, sessions: str, missing_codes: Any, **rules: Any) -> Cohort:
        """Select all scans with a label.

        Args:
            scans: the scans to choose from.
            sessions: see `monai_cae.data.select_cohort`.
            missing_codes: of the table; ages, CDR and covariates of the scans are without them.
            **rules: further cohort settings that differ from their defaults.

        Raises:
            MonaiCaeError: there are such settings, or no scan has a label.
        """
        if rules:
            raise MonaiCaeError(f"cohort#{min(rules)} is about classes, and the target is {self.name}: leave it out")

        def number(scan: Scan) -> float | None:
            found = self.value(scan)
            return None if found is None else self.checked(found, f"{self.name} of {scan.name}")

        return select_measured(scans, number, name=self.name, sessions=sessions)

    def checked(self, label: Any, what: str) -> float:
        """Check a label of a given datalist.

        Raises:
            MonaiCaeError: it is not a number; `what` names it.
        """
        label = label.item() if isinstance(label, np.generic) else label
        if isinstance(label, bool) or not isinstance(label, (int, float)) or not math.isfinite(label):
            raise MonaiCaeError(f"{what} is {shown(label)}; it must be a number, {self.name}")
        return label

    def strata(self, labels: Sequence[float]) -> list[str]:
        """Strata of a split: quarters of the labels, which may be joined in small cohorts."""
        if not labels:
            return []
        return [f"all {quarter}" for quarter in np.searchsorted(np.quantile(labels, [0.25, 0.5, 0.75]), labels)]

    def columns(self, predicted: Sequence[float], threshold: float, classes: bool) -> dict[str, list[Any]]:
        """Columns of predictions.csv.

        Args:
            predicted: of some scans.
            threshold: of a binary target.
            classes: whether the table is for users who predict, not for tests.
        """
        return {self.column: list(predicted)}

    def written(self, value: float) -> str:
        """A prediction or a label as tables have it: probabilities with all that float32 has, as many are near 1; of
        numbers six decimals, and seven digits below 1, as they may have any unit."""
        if self.binary:
            return f"{value:.9g}"
        return f"{value:.6f}" if abs(value) >= 1 else f"{value:.7g}"

    def told(self, columns: Mapping[str, Sequence[Any]], threshold: float) -> str:
        """A one-line summary of predictions.

        Args:
            columns: result of `columns` for all scans.
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
        if self.number and (self.binary or self.column != "predicted"):
            raise MonaiCaeError(f"{name}: number is for what is not binary, and has the column predicted")
        if self.binary and self.column != "probability":
            raise MonaiCaeError(f"{name}: binary is for patients and controls; other classes are numbers, 0 and 1")

    def label_in(
        self, values: Sequence[float | None], labels: Sequence[float], name: str, rules: Sequence[str] = ()
    ) -> str:
        """In which way a column of the table is the label under another name, see `covariates.label_in`."""
        return label_in(values, labels, name, rules)

    def without_label(self, columns: Sequence[str]) -> list[str]:
        """Those columns of the table that do not give the label."""
        return [name for name in columns if name.lower() not in self.tells]

    def require_scored(self, **asked: bool) -> None:
        """
        Args:
            **asked: setting -> whether it is asked for.

        Raises:
            MonaiCaeError: one is, and this target is neither binary nor a number.
        """
        if not self.number:
            self._refuse(asked, "for two classes or monai_cae.targets.Number")

    def require_binary(self, **asked: bool) -> None:
        """
        Args:
            **asked: setting -> whether it is asked for.

        Raises:
            MonaiCaeError: one is, and this target is not binary.
        """
        self._refuse(asked, "for two classes")

    def _refuse(self, asked: Mapping[str, bool], what: str) -> None:
        if not self.binary and any(asked.values()):
            name = next(name for name, is_asked in asked.items() if is_asked)
            raise MonaiCaeError(f"{name} is {what}, and the target is {self.name}: leave it out")
