"""Predict the scans of a chunk, in any process: inference.json's own items, with weights that are loaded once."""

from __future__ import annotations

import contextlib
import io
import json
import os
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple

from monai.bundle import ConfigWorkflow

from monai_cae.data.cohort.persons import subject_of
from monai_cae.data.images.frames import frame_lines
from monai_cae.data.images.scan_quality import find_bad, forget_good
from monai_cae.errors import MonaiCaeError
from monai_cae.networks import Ensemble
from monai_cae.prediction.fetching import fetched
from monai_cae.prediction.listing import Listed, voxels_of
from monai_cae.training.engines.memory import is_full
from monai_cae.training.results.predictions import SPREAD, UNLIKE, PredictionTable
from monai_cae.training.stages.workflow import find_mistake, mistakes_alone

Row = dict[str, Any]
REASON, NOTE = "reason", "note"  # columns: why a scan could not be used; what of it differs from the training's
_READY = "_ready"
_OWN = {  # scans come later, and rows are taken from the table
    "handlers": [],
    "dataset#data": "$@items([])",
    _READY: "$[@evaluator, @prediction_table, @items, @dataset], "
    "{'checkpoint': str(@checkpoint), 'pretrained': str(@pretrained), 'table': @table}, "
    "{'extraction': @extraction, 'training': @scans::training, 'allow_other_frame': @allow_other_frame}",
}


class Plan(NamedTuple):
    """What predicts; small, and the same for all chunks.

    Attributes:
        config: path of an inference.json.
        settings: of it, name -> value, as JSON.
    """

    config: str
    settings: str


class Predictor:
    """The evaluator of an inference.json, which waits for scans.

    Args:
        plan: what predicts.
        **settings: that are otherwise in this process.

    Attributes:
        table: the config's, which knows target, threshold and strangers.
        config: as it is executed, nothing evaluated.
        files: paths of weights and table.

    Raises:
        MonaiCaeError: settings or weights that a prediction of a single scan refuses, too.
    """

    def __init__(self, plan: Plan, **settings: Any) -> None:
        with mistakes_alone():
            given = {**json.loads(plan.settings), **_OWN, **settings}
            workflow = ConfigWorkflow(plan.config, run_id=_READY, workflow_type="infer", **given)
            workflow.initialize()
            # through the workflow, which expressions ask for the bundle's folder
            parts, self.files, self._wanted = workflow.run()[0]
            self.config = workflow.parser.get()
            self.table: PredictionTable
            self._evaluator, self.table, self._items, self._dataset = parts
            self.table.collect(self._evaluator)
            self._said = False

    @property
    def columns(self) -> dict[str, str]:
        """Name -> type of the columns of a prediction, as `PredictionTable` writes them, and of a scan without one."""
        table = self.table
        told = table.target.columns([0.0], table.threshold, table.classes)
        kinds: dict[str, type] = dict.fromkeys(table.keys, str)
        kinds |= {name: type(values[0]) for name, values in told.items()}
        if isinstance(self._evaluator.network, Ensemble):
            kinds |= {f"{table.target.column}_{end}": float for end in SPREAD}
        if not table.unknown:
            kinds |= dict(zip(UNLIKE, (float, str, str), strict=True))
        return {name: kind.__name__ for name, kind in (kinds | {REASON: str, NOTE: str}).items()}

    def predict(self, scans: Sequence[Listed]) -> list[Row]:
        """A row for each scan, in their order.

        A scan that can't be used has a reason in its row. So has one that ends a prediction with an error, which is
        then done again scan by scan; if that ends them all, it is raised, as it is none of theirs.
        """
        with mistakes_alone(), fetched([scan.path for scan in scans if "://" in scan.path]) as copies:
            rows: list[Row] = []
            usable: list[tuple[Row, Path]] = []
            for scan in scans:
                rows.append(row_of(scan))
                found = copies.get(scan.path, Path(scan.path))
                reason = str(found) if isinstance(found, MonaiCaeError) else _changed(scan, found) or self._look(found)
                if reason or isinstance(found, MonaiCaeError):
                    rows[-1][REASON] = reason
                else:
                    usable.append((rows[-1], found))
            forget_good()  # each is looked at once
            self._fill(usable)
        return rows

    def _look(self, image: Path) -> str:
        """Why a scan can't be used. By itself: what others are like must not depend on how they are divided."""
        try:
            bad = find_bad([("", image)], cohort=False, **self._wanted)
        except MonaiCaeError as error:  # an index outside the volume
            return _brief(str(error), image)
        return bad[0].brief if bad else ""

    def _fill(self, usable: Sequence[tuple[Row, Path]]) -> None:
        try:
            self._evaluate(usable)
        except Exception as error:
            if is_full(error) or len(usable) < 2:
                raise
            failed = 0
            for row, image in usable:
                try:
                    self._evaluate([(row, image)])
                except Exception as own:
                    failed += 1
                    row[REASON] = _brief(
                        " ".join(str(find_mistake(own) or f"{type(own).__name__}: {own}").split()), image
                    )
            if failed == len(usable) and find_mistake(error) is None:
                raise

    def _evaluate(self, usable: Sequence[tuple[Row, Path]]) -> None:
        if not usable:
            return
        with contextlib.redirect_stdout(io.StringIO()) if self._said else contextlib.nullcontext():  # notes, once
            self._dataset.data = self._items([image for _, image in usable])
        self._said = True
        self._evaluator.state.epoch_length = len(self._evaluator.data_loader)
        self._evaluator.run()
        found = self.table.rows
        for number, (row, image) in enumerate(usable):
            row |= {name: values[number] for name, values in found.items() if name != "file"}
            lines = frame_lines([str(image)], self._wanted["extraction"], training=self._wanted["training"])
            row[NOTE] = "; ".join(lines) or None


def row_of(scan: Listed, reason: str | None = None) -> Row:
    """Of a scan without a prediction."""
    return {"subject": subject_of(scan.path)[0], "file": scan.path, REASON: reason}


def predict_scans(plan: Plan, scans: Sequence[Listed]) -> list[Row]:
    """The task: see `Predictor.predict`. The network is loaded once in a process."""
    return _predictor(plan).predict(scans)


@lru_cache(maxsize=1)
def _predictor(plan: Plan) -> Predictor:
    with contextlib.redirect_stdout(io.StringIO()):  # what concerns all scans is said once, where the run is started
        return Predictor(plan)


def _changed(scan: Listed, image: Path) -> str:
    try:
        now = os.stat(voxels_of(str(image)))  # noqa: PTH116  # as `listing` has it
    except OSError:
        return ""  # whoever reads it says it better
    since = None if "://" in scan.path else scan.time  # a copy has its own
    if scan.size in (None, now.st_size) and since in (None, now.st_mtime):
        return ""
    return f"{image.name} has changed since the list of scans was made"


def _brief(reason: str, image: Path) -> str:
    return reason.replace(f"{image.parent}{os.sep}", "")
