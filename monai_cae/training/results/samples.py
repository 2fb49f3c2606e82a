"""What each sample of an image says by itself, where a network's samples vote: the samples' table, and scores of it."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import torch
from ignite.engine import Engine, Events
from numpy.typing import NDArray
from torch import nn
from torch.utils.hooks import RemovableHandle

from monai_cae.evaluation import mean_and_sd
from monai_cae.evaluation.numbers import summarise_numbers
from monai_cae.evaluation.scores import SCORES
from monai_cae.evaluation.summary import summarise
from monai_cae.files import replacing
from monai_cae.networks.head import VotingHead
from monai_cae.targets import Target
from monai_cae.training.results.predictions import SAMPLES, PredictionTable

PLACES = "sample_places.npz"
_ALONE = ("accuracy", "auc")  # of a sample, where the target is binary
_OF_THE_SCAN = ("subject", "file")  # the columns of the table of predictions that tell whose sample it is


class Places(NamedTuple):
    """Where samples of a volume lie in it: what a map of their scores is drawn over.

    Attributes:
        volume: the mean of the images, shape `(X, Y, Z)`.
        boxes: of each sample.
    """

    volume: NDArray[np.float32]
    boxes: Sequence[tuple[slice, slice, slice]]

    def write(self, path: Path) -> None:
        """Args: path: a NumPy archive, which is made or replaced."""
        ends = np.array([[(side.start, side.stop) for side in box] for box in self.boxes])
        with replacing(path) as temporary, temporary.open("wb") as file:
            np.savez_compressed(file, volume=self.volume.astype(np.float32), boxes=ends)

    @classmethod
    def read(cls, path: Path) -> Places:
        """Args: path: as written by `write`."""
        with np.load(path, allow_pickle=False) as found:
            boxes = [[slice(int(start), int(stop)) for start, stop in box] for box in found["boxes"]]
            return cls(found["volume"], [(x, y, z) for x, y, z in boxes])


class SampleTable:
    """Collect the votes of every case's samples, and write them as a table beside that of the predictions.

    A row per sample: `subject`; `file`, or `scan`, which counts the scans of a subject; `sample`; `label` where it is
    known; what is predicted from this sample alone, as the target has it; `weight` in the subject's prediction. With
    votes "mean" a scan's prediction is the mean of its rows, but for a calibration, which comes after it.

    Where no samples vote nothing is written, and an older table goes.

    Args:
        table: of the predictions, for whose rows the samples are.
        network: the classifier.
        samples: names of its samples.
        name: of the file.
    """

    def __init__(self, table: PredictionTable, network: nn.Module, samples: Sequence[str], name: str = SAMPLES) -> None:
        self.table = table
        self.head = getattr(network, "head", None)
        self.samples = list(samples)
        self.name = name
        self._rows: list[pd.DataFrame] = []
        self._scans: defaultdict[str, int] = defaultdict(int)
        self._votes: tuple[torch.Tensor, torch.Tensor] | None = None
        self._handle: RemovableHandle | None = None

    @property
    def path(self) -> Path:
        """Of the file."""
        return self.table.path.with_name(self.name)

    def attach(self, engine: Engine) -> None:
        """Args: engine: the evaluator."""
        engine.add_event_handler(Events.STARTED, self._start)
        engine.add_event_handler(Events.ITERATION_COMPLETED, self)
        engine.add_event_handler(Events.COMPLETED, self._write)

    def frame(self) -> pd.DataFrame:
        """The rows that were collected; none where no samples vote."""
        return pd.concat(self._rows, ignore_index=True) if self._rows else pd.DataFrame()

    def _start(self, engine: Engine) -> None:
        self._rows.clear()
        self._scans.clear()
        self._remove()
        if isinstance(self.head, VotingHead):
            self._handle = self.head.register_forward_hook(self._listen)

    def _listen(self, head: VotingHead, given: tuple[torch.Tensor, ...], logits: torch.Tensor) -> None:
        """The head is asked once more, and not the encoder, which takes the time."""
        self._votes = head.votes(*given)

    def __call__(self, engine: Engine) -> None:
        """Add the rows of one batch."""
        if self._votes is None:
            return
        votes, weights = (one.detach().float().cpu() for one in self._votes)
        predicted = self.table.target.activation()({"pred": votes.reshape(-1, 1)})["pred"]
        batch: Any = engine.state.batch
        cases, each = len(votes), len(self.samples)
        found: dict[str, Any] = {name: list(batch[name]) for name in _OF_THE_SCAN if name in batch}
        if "file" not in found:
            found["scan"] = [self._number(subject) for subject in found["subject"]]
        columns = {name: np.repeat(np.asarray(values), each) for name, values in found.items()}
        columns["sample"] = np.tile(self.samples, cases)
        if "label" in batch:
            columns["label"] = np.repeat(batch["label"].flatten().cpu().numpy(), each)
        columns[self.table.target.column] = torch.as_tensor(predicted).flatten().numpy()
        columns["weight"] = weights.flatten().numpy()
        self._rows.append(pd.DataFrame(columns))

    def _number(self, subject: str) -> int:
        self._scans[subject] += 1
        return self._scans[subject]

    def _write(self, engine: Engine) -> None:
        self._remove()
        if not self._rows:
            self.path.unlink(missing_ok=True)
            return
        frame = self.frame()
        if self.table.withhold:
            frame.loc[np.repeat(self.table.marked, len(self.samples)), self.table.target.column] = np.nan
        with replacing(self.path) as temporary:
            written(frame).to_csv(temporary, index=False, float_format=self.table.target.written)

    def _remove(self) -> None:
        self._votes = None
        if self._handle is not None:
            self._handle.remove()
            self._handle = None


def written(samples: pd.DataFrame) -> pd.DataFrame:
    """As a table has them: labels of classes as whole numbers."""
    labels = samples.get("label")
    whole = labels is not None and (labels == labels.round()).all()
    return samples.astype({"label": int}) if whole else samples


def scores_of(rows: pd.DataFrame, target: Target, seed: int, names: Sequence[str] = SCORES) -> pd.DataFrame:
    """The scores of one method, as `monai_cae.evaluation.summary.summarise` has those of classes.

    Args:
        rows: as described in `monai_cae.evaluation.pooled`, but for what is predicted, which the target names.
        target: what is predicted.
        seed: of the resamples.
        names: which of a binary target's.
    """
    if target.binary:
        return summarise(rows, np.random.default_rng(seed), scores=names)
    return summarise_numbers(rows, np.random.default_rng(seed)) if target.number else _means_of(rows, target)


def _means_of(rows: pd.DataFrame, target: Target) -> pd.DataFrame:
    """The target's own scores, each repeat over all its folds together, as `summarise` has those of classes."""
    numbers = ["label", target.column]
    by_repeat = pd.DataFrame([target.scores(*one[numbers].to_numpy().T) for _, one in rows.groupby("repeat")])
    found = pd.DataFrame([mean_and_sd(by_repeat[name]) for name in by_repeat], index=by_repeat.columns)
    found = found.set_axis(["mean", "sd"], axis=1).rename_axis("score")
    repeats = {"subjects": rows["subject"].nunique(), "repeats": len(by_repeat)}
    return found.assign(low=np.nan, high=np.nan, **repeats, note="")


def sample_scores(samples: pd.DataFrame, target: Target, seed: int = 0) -> pd.DataFrame:
    """What each sample would score by itself: a subject is one unit, whatever the number of its samples.

    Args:
        samples: columns `sample`, `weight`, and those that `scores_of` needs.
        target: what is predicted.
        seed: of the resamples, the same ones for every sample.

    Returns:
        Index (sample, score), columns of `scores_of` and `weight`, the mean; accuracy and AUC, or the headline of a
        target that is not binary.
    """
    names = _ALONE if target.binary else target.headline
    found: Mapping[Any, pd.DataFrame] = {
        sample: scores_of(rows, target, seed, _ALONE).loc[list(names)].assign(weight=rows["weight"].mean())
        for sample, rows in samples.groupby("sample", sort=False)
    }
    return pd.concat(found, names=["sample"])
