"""A number of the cohort's table: MMSE, age, nWBV, the sum of CDR's boxes."""

from __future__ import annotations

import copy
import dataclasses
import difflib
import math
from collections.abc import Callable, Collection, Sequence
from functools import partial
from typing import Any

import numpy as np
import torch
from ignite.metrics import Metric
from matplotlib.figure import Figure
from monai.handlers import from_engine
from monai.transforms import Identityd
from torch import nn

from monai_cae.data import Cohort, Scan
from monai_cae.data.cohort.selection import select_measured
from monai_cae.data.cohort.tables import ROLES, SHOWN
from monai_cae.data.cohort.tasks import parse, read_codes, told_codes
from monai_cae.data.scan import Note
from monai_cae.data.texts import listed, shown
from monai_cae.errors import MonaiCaeError
from monai_cae.evaluation import number_figures
from monai_cae.evaluation.caveats import equal_numbers, no_better_than_mean
from monai_cae.evaluation.numbers import NUMBER_HEADLINE, NUMBER_LABELS, number_scores
from monai_cae.evaluation.pooled import DEFAULT_THRESHOLD
from monai_cae.targets.base import Numbers, Target
from monai_cae.targets.epoch_score import EpochScore

_DRAWINGS = {"scatter": number_figures.predicted_against_true, "bland_altman": number_figures.bland_altman}


class Number(Target):
    """The number in a column of the table, learned as `(number - mean) / SD` of the training set's labels.

    Mean and SD end up in the network's weights (see `monai_cae.networks.classifier.Head`), so whatever the network
    gives is in the column's units.

    Args:
        column: its name, without regard to case. `age` is in years, whatever the table calls it.
        name: of the number on pages and in checkpoints, by default the column's; in a cohort that calls the same number
            otherwise, give its column, and the name that the network was trained with.
        most_missing: the share of scans that may be without it.

    Raises:
        MonaiCaeError: a column that is no text, or a share that is not from 0 to 1.
    """

    number = True
    fewest = 20
    shown = ("val_loss", "val_mae")
    score_names = NUMBER_LABELS
    headline = NUMBER_HEADLINE

    def __init__(self, column: str, name: str = "", most_missing: float = 0.5) -> None:
        if not isinstance(column, str) or not column.strip():
            raise MonaiCaeError(f"target#column must be the name of a column, such as MMSE, not {column!r}")
        if isinstance(most_missing, bool) or not isinstance(most_missing, (int, float)) or not 0 <= most_missing <= 1:
            raise MonaiCaeError(f"target#most_missing must be from 0 to 1, not {most_missing!r}")
        self._column = column.strip()
        self._name = name or self._column
        self._most_missing = most_missing
        self._zero, self._unit = 0.0, 1.0

    @property
    def name(self) -> str:
        """What is predicted."""
        return self._name

    def __repr__(self) -> str:
        """The class and what is predicted, by which a checkpoint knows its target."""
        return f"{type(self).__name__}({self._name.casefold()!r})"

    @property
    def tells(self) -> Collection[str]:
        """The column itself, in lower case."""
        return ("label", self._column.lower(), self._name.lower())

    def select(self, scans: Sequence[Scan], *, sessions: str, missing_codes: Any, **rules: Any) -> Cohort:
        """Select the scans that have the number; of a subject's scans, with "first", the first that has it.

        Raises:
            MonaiCaeError: rules of classes, no such column, a cell with text, a number that most scans lack, or one
                that is the same for all.
        """
        if rules:
            raise MonaiCaeError(f"cohort#{min(rules)} is about classes, and the target is {self.name}: leave it out")
        missing, column = read_codes(missing_codes), self._found(scans)
        values = [self._cell(scan, column, missing) if column else scan.age for scan in scans]
        known = [
            dataclasses.replace(scan, label=value)
            for scan, value in zip(scans, values, strict=True)
            if value is not None
        ]
        lacking = len(scans) - len(known)
        if lacking > self._most_missing * len(scans):
            raise MonaiCaeError(
                f"{lacking} of {len(scans)} scans have no {self.name}, more than the share that "
                f"target#most_missing {self._most_missing:g} takes: choose another column, or give a larger share"
            )
        cohort = select_measured(known, lambda scan: scan.label, name=self.name, sessions=sessions)
        left_out = {f"scans without {self.name}": lacking} if lacking else {}
        told = told_codes(column, [scan.row.get(column, "") for scan in scans], missing) if column else []
        notes = (*cohort.notes, *map(Note, told))
        return dataclasses.replace(cohort, left_out={**left_out, **cohort.left_out}, notes=notes)

    def _found(self, scans: Sequence[Scan]) -> str:
        """The column as the table writes it; "" for the scans' ages in years."""
        wanted = self._column.lower()
        columns = list(dict.fromkeys(name for scan in scans for name in scan.row))
        found = next((name for name in columns if name.strip().lower() == wanted), None)
        if (
            wanted in ROLES["age"]
            and (found is None or wanted == "age")
            and any(scan.age is not None for scan in scans)
        ):
            return ""
        if found is None:
            by_lower = {name.lower(): name for name in columns}
            near = [by_lower[name] for name in difflib.get_close_matches(wanted, by_lower, n=3, cutoff=0.7)]
            hint = f"did you mean {' or '.join(near)}?" if near else f"there are {listed(columns, SHOWN) or 'none'}"
            raise MonaiCaeError(f"the table has no column {self._column} for the target: {hint}")
        return found

    def _cell(self, scan: Scan, column: str, missing: frozenset[float]) -> float | None:
        text = scan.row.get(column, "")
        value = parse(text, missing)
        if isinstance(value, str) or (value is not None and not math.isfinite(value)):
            raise MonaiCaeError(
                f"the target {column} is text: {scan.name} has {shown(text)}; choose a column of numbers, or "
                "correct the table"
            )
        return value

    def fitted(self, labels: Sequence[float]) -> Number:
        """The same, in units of the training set's mean and SD.

        Raises:
            MonaiCaeError: the labels are all equal.
        """
        own = copy.copy(self)
        own._zero, own._unit = float(np.mean(labels)), float(np.std(labels))
        if own._unit == 0:
            raise MonaiCaeError(f"{self.name} is {labels[0]:g} for all training subjects: nothing is to be learned")
        return own

    def begin(self, network: nn.Module) -> nn.Module:
        """Tell the network's last layer the units.

        Raises:
            MonaiCaeError: it can't give a number in units.
        """
        set_units = getattr(getattr(network, "head", None), "set_units", None)
        if set_units is None:
            raise MonaiCaeError(
                f"{type(network).__name__} can't predict {self.name} in its units: take a network with a "
                "monai_cae.networks.classifier.Head, such as EncoderClassifier with number: true"
            )
        set_units(self._zero, self._unit)
        return network

    def loss(self) -> nn.Module:
        """Mean squared error in units of the SD."""
        return SquaredError(self._unit)

    def activation(self) -> Callable[[Any], Any]:
        """Nothing: the network's output has the column's units."""
        return Identityd(keys="pred")

    def metrics(self) -> dict[str, Metric]:
        """The mean absolute error, in the column's units."""
        score = EpochScore(_mean_absolute_error, from_engine(["pred", "label"]), check_compute_fn=False)
        return {"val_mae": score}

    def scores(self, labels: Numbers, predicted: Numbers, threshold: float = DEFAULT_THRESHOLD) -> dict[str, float]:
        """See `number_scores`."""
        return number_scores(labels, predicted)

    def figures(self) -> dict[str, Callable[[Numbers, Numbers, float, str, str], Figure]]:
        """Predicted against true, and Bland and Altman's figure."""
        return {name: partial(_drawn, draw, self.name) for name, draw in _DRAWINGS.items()}

    def caveats(self, labels: Numbers, predicted: Numbers, threshold: float) -> list[str]:
        """Equal predictions, or predictions that are worse than one number for all."""
        r2 = number_scores(labels, predicted)["r2"]
        return equal_numbers(labels, predicted, self.name) or no_better_than_mean(r2)


class SquaredError(nn.Module):
    """Mean squared error in units of `unit`, which keeps it near 1 whatever is predicted."""

    def __init__(self, unit: float) -> None:
        super().__init__()
        self.unit = unit

    def forward(self, output: torch.Tensor, label: torch.Tensor) -> torch.Tensor:
        """Args: output, label: shape `(N, 1)`."""
        return ((output - label) / self.unit).square().mean()


def _mean_absolute_error(outputs: torch.Tensor, labels: torch.Tensor) -> float:
    return float((outputs.float() - labels.float()).abs().mean())


def _drawn(
    draw: Callable[..., Figure], name: str, labels: Numbers, predicted: Numbers, threshold: float, note: str, about: str
) -> Figure:
    return draw(labels, predicted, name, note, about)
