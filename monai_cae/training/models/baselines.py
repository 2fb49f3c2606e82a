"""Baselines on the same sets: simpler models of the table, of the pixels, of the frozen encoder's code.

Which models there are is the config's business (`bundle/configs/baselines.json`): features of ours, classifiers of
scikit-learn's. The parts here are what scikit-learn does not have.
"""

from __future__ import annotations

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

from monai_cae.errors import MonaiCaeError, suggestion
from monai_cae.evaluation.pooled import DEFAULT_THRESHOLD
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
        models: name -> `features` (gives the features of a sequence of items) and scikit-learn's `classifier`, with
            `predict_proba`, or for a number `regressor`.
        only: names of those to run, as a list or parted by commas; empty for all.
        fitting: items with `image`, `label`, `subject` and the table's columns, see `fitting_items`.
        test: items of the test subjects.
        output_dir: its subfolder `baselines` gets a table per model: subject, label, and the target's columns.
        target: with two classes, or a number.
        rules: see `monai_cae.data.with_covariates`.

    Attributes:
        models: those that are run.
        predicted: model -> what it predicts of the test subjects, shape `(n,)`, once it has run: the probability of AD,
            or the number.

    Raises:
        MonaiCaeError: an unknown or impossible model, no checkpoint for a model of the encoder's code, a table's column
            that nobody has or that gives the label, one class only, or another target.
    """

    def __init__(
        self,
        models: Mapping[str, Mapping[str, Any]],
        only: str | Sequence[str],
        fitting: Dataset,
        test: Dataset,
        output_dir: str,
        target: Target,
        rules: Sequence[str] = (),
    ) -> None:
        target.require_scored(baselines=True)
        self.fitting, self.test = _items(fitting), _items(test)
        self.models = check_models(models, only, self.fitting, target, rules)
        self.folder = Path(output_dir, "baselines")
        self.target = target
        self.predicted: dict[str, NDArray[np.float64]] = {}
        if len(set(_labels(self.fitting))) < 2:
            what = "of one class" if target.binary else "alike"
            raise MonaiCaeError(f"the training and validation subjects are all {what}: no model can be fitted")
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
                self.predicted[name] = _fitted(name, model[_kind(self.target)], labels, *features[id(extract)])
                self._write(name)
                progress.update(1)

    def path(self, name: str) -> Path:
        """The table of a model's predictions."""
        return self.folder / f"{name}.csv"

    def metrics(self) -> dict[str, dict[str, float]]:
        """Model -> the target's scores of the test subjects."""
        labels = np.array(_labels(self.test))
        return {name: self.target.scores(labels, values) for name, values in self.predicted.items()}

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
            **self.target.columns(self.predicted[name].tolist(), DEFAULT_THRESHOLD, classes=False),
        }
        with replacing(self.path(name)) as temporary:
            pd.DataFrame(table).to_csv(temporary, index=False, float_format=self.target.written)


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
        target, width = baselines.target, max(len("model"), *map(len, metrics)) + 2
        shown = ("accuracy", "f1", "auc") if target.binary else target.headline
        heads = [target.score_names[key] for key in shown]
        print(
            f"\ntest subjects, {data_kind(synthetic, leaks)}\n  {'model':<{width}}{'  '.join(f'{h:>8}' for h in heads)}"
        )
        for name, found in metrics.items():
            cells = [
                format(found[key], f"{max(8, len(head))}{'.3f' if target.binary else '.3g'}")
                for key, head in zip(shown, heads, strict=True)
            ]
            print(f"  {name:<{width}}{'  '.join(cells)}", flush=True)
    return {"fitted": len(baselines.fitting), "tested": len(baselines.test), "models": metrics}


def check_models(
    models: Mapping[str, Mapping[str, Any]],
    only: str | Sequence[str],
    fitting: Sequence[Item],
    target: Target,
    rules: Sequence[str] = (),
) -> dict[str, Mapping[str, Any]]:
    """The models that are to be run, looked at as far as that needs neither images nor an autoencoder.

    Args:
        models, only, target, rules: see `Baselines`; without names, all models of the target's kind.
        fitting: items of the fitting subjects; their images are not looked at.

    Raises:
        MonaiCaeError: an unknown or impossible model, or a table's column that nobody has, or that gives the label.
    """
    chosen = _chosen(models, only, _kind(target))
    for name, model in chosen.items():
        if empty := _empty_columns(model["features"], fitting):
            raise MonaiCaeError(
                f"{name} needs the column {' and '.join(empty)}, which no training or validation subject "
                "has: add it to the table and make the datalist again"
                + _without(chosen, lambda other: bool(_empty_columns(other, fitting)))
            )
        if telling := _telling_columns(model["features"], fitting, target, rules):
            column, why = next(iter(telling.items()))
            raise MonaiCaeError(
                f"{name} has the column {column}, which {why}: take it out of features"
                + _without(chosen, lambda other: bool(_telling_columns(other, fitting, target, rules)))
            )
    return chosen


def _telling_columns(features: Features, items: Sequence[Item], target: Target, rules: Sequence[str]) -> dict[str, str]:
    """Columns that give the label by their values, and how."""
    table = features(items) if isinstance(features, TableColumns) else pd.DataFrame()
    labels = _labels(items)
    found = {
        name: target.label_in(values.tolist(), labels, str(name), rules) for name, values in pd.DataFrame(table).items()
    }
    return {str(name): why for name, why in found.items() if why}


def _empty_columns(features: Features, items: Sequence[Item]) -> list[str]:
    return features.empty(items) if isinstance(features, TableColumns) else []


def _without(models: Mapping[str, Mapping[str, Any]], excluded: Callable[[Features], bool]) -> str:
    left = [name for name, model in models.items() if not excluded(model["features"])]
    return f", or leave such models out: --only {','.join(left)}" if left else ""


def _kind(target: Target) -> str:
    return "regressor" if target.number else "classifier"


def _chosen(
    models: Mapping[str, Mapping[str, Any]], only: str | Sequence[str], kind: str
) -> dict[str, Mapping[str, Any]]:
    for name, model in models.items():
        if not _NAME.fullmatch(name):
            raise MonaiCaeError(f"a model can't be called {name!r}: use letters, digits, _, - and .")
        made = [model[one] for one in ("classifier", "regressor") if one in model] if isinstance(model, Mapping) else []
        if len(made) != 1 or not (callable(model.get("features")) and hasattr(made[0], "fit")):
            raise MonaiCaeError(
                f"models#{name} must have features and a classifier or a regressor, like the others in baselines.json"
            )
        if "classifier" in model and not hasattr(model["classifier"], "predict_proba"):
            raise MonaiCaeError(
                f"the classifier of models#{name} gives no probabilities: "
                "wrap it in sklearn.calibration.CalibratedClassifierCV"
            )
    names = [part.strip() for part in only.split(",") if part.strip()] if isinstance(only, str) else list(only)
    for name in names:
        if name not in models:
            raise MonaiCaeError(f"--only names the unknown model {name}: {suggestion(name, models)}")
        if kind not in models[name]:
            others = ", ".join(other for other, model in models.items() if kind in model)
            what = (
                "numbers, and the target is not one" if kind == "classifier" else "classes, and the target is a number"
            )
            raise MonaiCaeError(f"--only names {name}, which is for {what}: there are {others or 'none'}")
    found = {name: model for name, model in models.items() if kind in model and (not names or name in names)}
    if not found:
        raise MonaiCaeError("models is empty: there is nothing to run")
    return found


def _fitted(name: str, model: Any, labels: Sequence[float], known: Table, unknown: Table) -> NDArray[np.float64]:
    try:
        model.fit(known, np.array(labels))
        found = model.predict_proba(unknown) if hasattr(model, "predict_proba") else model.predict(unknown)
    except ValueError as error:  # MonaiCaeError is one too
        reason = str(error).strip().splitlines()[0]
        raise MonaiCaeError(f"{name} can't be fitted: {reason}") from error
    found = np.asarray(found, dtype=np.float64)
    return found[:, list(model.classes_).index(1)] if found.ndim == 2 else found


def _items(dataset: Dataset) -> list[Item]:
    return [dataset[index] for index in range(len(dataset))]  # type: ignore[arg-type]  # map-style have a length


def _labels(items: Sequence[Item]) -> list[float]:
    """A class as the whole number that it is."""
    labels = [float(item["label"]) for item in items]
    return [int(label) if label.is_integer() else label for label in labels]
