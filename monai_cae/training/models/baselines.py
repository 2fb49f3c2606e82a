"""Baselines on the same sets: simpler models of the table, of the pixels, of the frozen encoder's code.

Which models there are is the config's business (`bundle/configs/baselines.json`): features of ours, classifiers of
scikit-learn's. The parts here are what scikit-learn does not have.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray
from sklearn.base import BaseEstimator, TransformerMixin
from sklearn.model_selection import StratifiedKFold
from torch.utils.data import Dataset

from monai_cae.errors import MonaiCaeError
from monai_cae.evaluation import classification_metrics, predicted_classes
from monai_cae.files import replacing
from monai_cae.targets import Target
from monai_cae.terminal import progress_bar
from monai_cae.tracking import TrackedRun
from monai_cae.training.models.features import EncoderCodes, Features, Item, Table, TableColumns
from monai_cae.training.stages.run import data_kind

_NAME = re.compile(r"\w[\w.-]*")  # becomes a file's name and part of an MLflow metric's


class UnitNormScaler(TransformerMixin, BaseEstimator):
    """Centre the features, and divide all of them by one number: the mean squared norm becomes 1.

    C and gamma of a support vector machine, and C of a logistic regression, then mean the same for every image size.
    """

    def fit(self, X: ArrayLike, y: ArrayLike | None = None) -> UnitNormScaler:
        """Args: X: shape `(n, features)`; y: not used."""
        features = np.asarray(X, dtype=np.float64)
        self.mean_ = features.mean(axis=0)
        norm = float(np.sqrt(np.square(features - self.mean_).sum(axis=1).mean()))
        self.scale_ = norm or 1.0  # all the same: nothing to scale
        return self

    def transform(self, X: ArrayLike) -> NDArray[np.float64]:
        """Args: X: shape `(n, features)`. Returns: the same shape."""
        return (np.asarray(X, dtype=np.float64) - self.mean_) / self.scale_


class InnerFolds:
    """Stratified folds for choices within the fitting subjects: as many as asked for, fewer where a class is smaller.

    scikit-learn's StratifiedKFold has one number for every set that it divides; a search within a search divides ever
    smaller ones. Scans are divided, not subjects: with `--cohort#sessions all` the choice of C is a little optimistic,
    and the test subjects are as unseen as ever.

    Args:
        folds: at most this many.
        seed: decides the folds.
    """

    def __init__(self, folds: int = 5, seed: int = 0) -> None:
        self.folds = folds
        self.seed = seed

    def get_n_splits(self, X: Any = None, y: ArrayLike | None = None, groups: Any = None) -> int:
        """How many folds there are for the labels `y`.

        Raises:
            MonaiCaeError: a class has fewer than two subjects.
        """
        sizes = np.bincount(np.asarray(y, dtype=np.int64), minlength=2)
        if sizes.min() < 2:
            raise MonaiCaeError(
                f"too few subjects to choose or calibrate on: {sizes[1]} patients and {sizes[0]} controls are left "
                "within its inner folds, which need 2 of each"
            )
        return int(min(self.folds, sizes.min()))

    def split(self, X: Any, y: ArrayLike, groups: Any = None) -> Iterator[tuple[NDArray[np.int64], NDArray[np.int64]]]:
        """Indices of the fitting and of the left-out subjects, fold by fold."""
        folds = StratifiedKFold(self.get_n_splits(X, y), shuffle=True, random_state=self.seed)
        yield from folds.split(np.zeros(len(np.asarray(y))), y)


class Baselines:
    """Fit every model on the fitting subjects, and predict the test subjects.

    Args:
        models: name -> `features` (gives the features of a sequence of items) and `classifier` (scikit-learn's, with
            `predict_proba`).
        only: names of those to run, as a list or parted by commas; empty for all.
        fitting: items with `image`, `label`, `subject` and the table's columns, see `fitting_items`.
        test: items of the test subjects.
        output_dir: its subfolder `baselines` gets a table per model: subject, label, probability, prediction.
        target: with two classes.

    Attributes:
        models: those that are run.
        probabilities: model -> probability of AD of the test subjects, shape `(n,)`, once it has run.

    Raises:
        MonaiCaeError: an unknown or impossible model, no checkpoint for a model of the encoder's code, a table's column
            that nobody has, one class only, or a target without classes.
    """

    def __init__(
        self,
        models: Mapping[str, Mapping[str, Any]],
        only: str | Sequence[str],
        fitting: Dataset,
        test: Dataset,
        output_dir: str,
        target: Target,
    ) -> None:
        target.require_binary(baselines=True)
        self.fitting, self.test = _items(fitting), _items(test)
        self.models = check_models(models, only, self.fitting)
        self.folder = Path(output_dir, "baselines")
        self.probabilities: dict[str, NDArray[np.float64]] = {}
        if len(set(_labels(self.fitting))) < 2:
            raise MonaiCaeError("the training and validation subjects are all of one class: no model can be fitted")
        for name, model in self.models.items():
            if isinstance(model["features"], EncoderCodes):
                self._load(name, model["features"])

    def run(self) -> None:
        """Fit, predict and write, model by model."""
        features: dict[int, tuple[Table, Table]] = {}  # models share them
        labels = _labels(self.fitting)
        with closing(progress_bar("baselines", len(self.models), "model")) as progress:
            for name, model in self.models.items():
                extract: Features = model["features"]
                if id(extract) not in features:
                    features[id(extract)] = (extract(self.fitting), extract(self.test))
                self.probabilities[name] = _fitted(name, model["classifier"], labels, *features[id(extract)])
                self._write(name)
                progress.update(1)

    def path(self, name: str) -> Path:
        """The table of a model's predictions."""
        return self.folder / f"{name}.csv"

    def metrics(self) -> dict[str, dict[str, float]]:
        """Model -> what `monai_cae.evaluation.classification_metrics` gives on the test subjects."""
        labels = _labels(self.test)
        return {name: classification_metrics(labels, values) for name, values in self.probabilities.items()}

    def _load(self, name: str, features: EncoderCodes) -> None:
        if not features.checkpoint.is_file():
            raise MonaiCaeError(
                f"{name} needs an autoencoder, and there is none at {features.checkpoint}: run pretrain.json with "
                "the same --output_dir first, or name one with --pretrained"
                + _without(self.models, lambda other: isinstance(other, EncoderCodes))
            )
        features.load()

    def _write(self, name: str) -> None:
        table = {
            "subject": [item["subject"] for item in self.test],
            "label": _labels(self.test),
            "probability": self.probabilities[name],
            "prediction": predicted_classes(self.probabilities[name]),
        }
        with replacing(self.path(name)) as temporary:
            pd.DataFrame(table).to_csv(temporary, index=False, float_format="%.6f")


def fitting_items(*sets: Sequence[Item]) -> list[Item]:
    """The items of several sets of a datalist, in an order that depends on the subjects alone, as inner folds do."""
    return sorted((item for items in sets for item in items), key=lambda item: (item["subject"], item["image"]))


def report_baselines(run: TrackedRun, baselines: Baselines, synthetic: bool, leaks: int) -> dict[str, Any]:
    """Log what every model scores on the test subjects, and print it as a table.

    Args:
        run: open; gets metrics named `test_<model>_<metric>`, and the predictions.
        baselines: have run.
        synthetic: say so.
        leaks: found by the audit.

    Returns:
        `fitted` and `tested`, the numbers of scans, and `models`: model -> metric -> value.
    """
    metrics = baselines.metrics()
    run.log_metrics({f"test_{name}_{key}": value for name, found in metrics.items() for key, value in found.items()})
    for name in metrics:
        run.log_file(baselines.path(name), "baselines")
    if not run.parent_run_id:
        width = max(len("model"), *map(len, metrics)) + 2
        print(f"\ntest subjects, {data_kind(synthetic, leaks)}\n  {'model':<{width}}accuracy   F1 (AD)       AUC")
        for name, found in metrics.items():
            print(f"  {name:<{width}}{found['accuracy']:8.3f}  {found['f1']:8.3f}  {found['auc']:8.3f}", flush=True)
    return {"fitted": len(baselines.fitting), "tested": len(baselines.test), "models": metrics}


def check_models(
    models: Mapping[str, Mapping[str, Any]], only: str | Sequence[str], fitting: Sequence[Item]
) -> dict[str, Mapping[str, Any]]:
    """The models that are to be run, looked at as far as that needs neither images nor an autoencoder.

    Args:
        models, only: see `Baselines`.
        fitting: items of the fitting subjects; their images are not looked at.

    Raises:
        MonaiCaeError: an unknown or impossible model, or a table's column that nobody has.
    """
    chosen = _chosen(models, only)
    for name, model in chosen.items():
        if empty := _empty_columns(model["features"], fitting):
            raise MonaiCaeError(
                f"{name} needs the column {' and '.join(empty)}, which no training or validation subject "
                "has: add it to the table and make the datalist again"
                + _without(chosen, lambda other: bool(_empty_columns(other, fitting)))
            )
    return chosen


def _empty_columns(features: Features, items: Sequence[Item]) -> list[str]:
    return features.empty(items) if isinstance(features, TableColumns) else []


def _without(models: Mapping[str, Mapping[str, Any]], excluded: Callable[[Features], bool]) -> str:
    left = [name for name, model in models.items() if not excluded(model["features"])]
    return f", or leave such models out: --only {','.join(left)}" if left else ""


def _chosen(models: Mapping[str, Mapping[str, Any]], only: str | Sequence[str]) -> dict[str, Mapping[str, Any]]:
    for name, model in models.items():
        if not _NAME.fullmatch(name):
            raise MonaiCaeError(f"a model can't be called {name!r}: use letters, digits, _, - and .")
        if not (
            isinstance(model, Mapping) and callable(model.get("features")) and hasattr(model.get("classifier"), "fit")
        ):
            raise MonaiCaeError(f"models#{name} must have features and a classifier, like the others in baselines.json")
        if not hasattr(model["classifier"], "predict_proba"):
            raise MonaiCaeError(
                f"the classifier of models#{name} gives no probabilities: "
                "wrap it in sklearn.calibration.CalibratedClassifierCV"
            )
    names = [part.strip() for part in only.split(",") if part.strip()] if isinstance(only, str) else list(only)
    for name in names:
        if name not in models:
            close = difflib.get_close_matches(str(name), models, n=1)
            hint = f"did you mean {close[0]}?" if close else f"there are {', '.join(models)}"
            raise MonaiCaeError(f"--only names the unknown model {name}: {hint}")
    found = {name: model for name, model in models.items() if not names or name in names}
    if not found:
        raise MonaiCaeError("models is empty: there is nothing to run")
    return found


def _fitted(name: str, classifier: Any, labels: Sequence[int], known: Table, unknown: Table) -> NDArray[np.float64]:
    try:
        classifier.fit(known, np.array(labels))
        found = classifier.predict_proba(unknown)
    except ValueError as error:  # MonaiCaeError is one too
        reason = str(error).strip().splitlines()[0]
        raise MonaiCaeError(f"{name} can't be fitted: {reason}") from error
    return np.asarray(found, dtype=np.float64)[:, list(classifier.classes_).index(1)]


def _items(dataset: Dataset) -> list[Item]:
    return [dataset[index] for index in range(len(dataset))]  # type: ignore[arg-type]  # map-style have a length


def _labels(items: Sequence[Item]) -> list[int]:
    return [int(item["label"]) for item in items]
