"""Nobody's label: for training the autoencoder alone."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NoReturn

from torch import nn

from monai_cae.data import Cohort, Scan
from monai_cae.data.cohort.selection import select_everybody
from monai_cae.errors import MonaiCaeError
from monai_cae.evaluation.pooled import DEFAULT_THRESHOLD
from monai_cae.targets.base import Numbers, Target


class Unlabelled(Target):
    """Everybody takes part, with or without a diagnosis: for pretrain.json on a cohort such as IXI, which has none."""

    name = "nothing"
    score_names: Mapping[str, str] = {}
    headline: Sequence[str] = ()

    def select(self, scans: Sequence[Scan], *, sessions: str, missing_codes: Any, **rules: Any) -> Cohort:
        """See `select_everybody`; rules of classes mean nothing here, and are passed over."""
        return select_everybody(scans, sessions)

    def loss(self) -> nn.Module:
        """Refused."""
        _refuse()

    def activation(self) -> Callable[[Any], Any]:
        """Refused."""
        _refuse()

    def scores(self, labels: Numbers, predicted: Numbers, threshold: float = DEFAULT_THRESHOLD) -> dict[str, float]:
        """Refused."""
        _refuse()


def _refuse() -> NoReturn:
    raise MonaiCaeError("there is nothing to predict with the target Unlabelled: it is for pretrain.json alone")
