"""The linear probe: the last layer as a penalised logistic, or of a number ridge, regression with a unique solution."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from monai.engines import SupervisedEvaluator
from numpy.typing import NDArray
from sklearn.linear_model import LogisticRegression, Ridge
from torch import nn
from torch.utils.data import ConcatDataset, Dataset

from monai_cae.errors import MonaiCaeError
from monai_cae.networks import EncoderClassifier
from monai_cae.networks.head import Head
from monai_cae.tracking import TrackedRun
from monai_cae.training.engines.handlers import BestCheckpoint

PENALISED = ("code", "histogram", "covariates")


class LinearProbe:
    """Fit a classifier without hidden layers to convergence, on all subjects that are given; the encoder stays.

    Every number that the last layer sees (of the code, the histogram, the covariates) is standardised over the
    subjects; the sum of the log-losses and of half of each weight's square times its penalty is minimised by
    scikit-learn's `LogisticRegression`. Of a number it is the sum of half of each squared error, in units of the
    training set's SD, and of the same penalties, by `Ridge`. There is nothing to stop early and hence no need of a
    validation set: its subjects can be fitted too. Standardisation and weights end up in the network's own layer.

    Where the samples of an image vote, each is fitted with its subject's label, and they share the weight of one image.

    Args:
        network: its encoder is evaluated as it is.
        best: keeps the fitted weights.
        run: gets the metrics, named `fitted_*`, as they are of subjects that were fitted.
        datasets: of items with `label`, the network's summary of the image under `image` (see `EncodedDataset`) and,
            where the network takes some, `covariates`.
        evaluator: of the validation set, with the classifier's metrics.
        penalty: "code", "histogram", "covariates" -> what the squares of their weights are multiplied by.
    """

    def __init__(
        self,
        network: EncoderClassifier,
        best: BestCheckpoint,
        run: TrackedRun,
        datasets: Sequence[Dataset],
        evaluator: SupervisedEvaluator,
        penalty: Mapping[str, float],
    ) -> None:
        self.network = network
        self.best = best
        self.tracked = run
        self.datasets = datasets
        self.evaluator = evaluator
        self.penalty = penalty

    def run(self) -> None:
        """Fit, and keep the weights with the metrics of the evaluator's subjects.

        Raises:
            MonaiCaeError: hidden layers, several processes, an invalid penalty, or one class alone.
        """
        if torch.distributed.is_initialized():
            raise MonaiCaeError("learn linear_probe fits in one process: start it without torchrun")
        penalties = _penalties(self.network, self.penalty)
        features, labels = self._features()
        voters = self.network.voters
        share = np.full(len(labels), 1 / voters) if voters > 1 else None  # of one image's weight
        if len(set(labels.tolist())) < 2:
            needed = "patients and controls" if self.network.head.unit is None else "different numbers"
            raise MonaiCaeError(f"learn linear_probe needs {needed} among the subjects to fit")
        centre, scale = features.mean(axis=0), (features.std(axis=0) + 1e-8) * np.sqrt(penalties)
        head = self.network.head
        if isinstance(head.zero, torch.Tensor) and isinstance(head.unit, torch.Tensor):
            fitted = Ridge(alpha=1.0)
            labels = (labels - head.zero.item()) / head.unit.item()
        else:
            fitted = LogisticRegression(C=1.0, tol=1e-8, max_iter=10_000)
        fitted.fit((features - centre) / scale, labels, share)
        weights = np.ravel(fitted.coef_) / scale
        self._write(weights, float(np.ravel(fitted.intercept_)[0] - weights @ centre))
        if not self.tracked.parent_run_id:  # an experiment would say it again and again
            scans = len(labels) // voters
            print(f"linear probe fitted to {scans} subjects' scans, including the validation set's", flush=True)
        self.tracked.epoch += 1
        self.evaluator.run()
        metrics = {name.replace("val_", "fitted_"): value for name, value in self.evaluator.state.metrics.items()}
        self.best.best, self.best.metric = metrics, self.best.metric.replace("val_", "fitted_")
        self.tracked.log_metrics(metrics, step=self.tracked.epoch)

    def _features(self) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """What the last layer sees of every image, or of every sample that votes, and its label."""
        network, voters = self.network.eval(), self.network.voters
        encoded: ConcatDataset[Any] = ConcatDataset(self.datasets)
        items = [encoded[index] for index in range(len(encoded))]
        rows = [item["image"].cpu().reshape(voters, -1) for item in items]
        if network.head.covariate_weight is not None:
            beside = [torch.as_tensor(item["covariates"]).expand(voters, -1) for item in items]
            rows = [torch.cat(both, dim=1) for both in zip(rows, beside, strict=True)]
        labels = np.array([float(item["label"]) for item in items])
        return torch.cat(rows).double().numpy(), np.repeat(labels, voters)

    def _write(self, weights: NDArray[np.float64], intercept: float) -> None:
        head = self.network.head
        last = _last(head)
        with torch.no_grad():
            last.weight.copy_(torch.from_numpy(weights[None, : last.in_features]))
            last.bias.fill_(intercept)
            if head.covariate_weight is not None:
                head.covariate_weight.copy_(torch.from_numpy(weights[last.in_features :]))


def check_linear_probe(learn: str, network: EncoderClassifier, penalty: Mapping[str, float]) -> None:
    """Refuse what a linear probe can't fit, before anything is trained for it.

    Args:
        learn: the setting; with another word than "linear_probe" there is nothing to check.
        network: to be fitted, with any weights.
        penalty: see `LinearProbe`.

    Raises:
        MonaiCaeError: hidden layers, or an invalid penalty.
    """
    if learn == "linear_probe":
        _penalties(network, penalty)


def _penalties(network: EncoderClassifier, penalty: Mapping[str, float]) -> NDArray[np.float64]:
    """One for each number that the last layer sees."""
    head = network.head
    if len(head) != 2 or not isinstance(head[1], nn.Linear):
        raise MonaiCaeError("learn linear_probe takes a network without hidden layers: set network_def#hidden to []")
    given = penalty if isinstance(penalty, Mapping) else {}
    for name in PENALISED:
        value = given.get(name)
        if isinstance(value, bool) or not isinstance(value, (int, float)) or value <= 0:
            raise MonaiCaeError(f"penalty#{name} must be a number above 0, not {value!r}")
    histogram = network.histogram_features
    covariates = 0 if head.covariate_weight is None else len(head.covariate_weight)
    sizes = (_last(head).in_features - histogram, histogram, covariates)
    return np.repeat([float(given[name]) for name in PENALISED], sizes)


def _last(head: Head) -> nn.Linear:
    layer = head[len(head) - 1]
    assert isinstance(layer, nn.Linear)
    return layer
