"""A prediction in chunks, from the list of scans to the summary: what the coordinator does."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from monai_cae import __version__
from monai_cae.cluster.engine import Done, Engine, Task, WorkerLost
from monai_cae.errors import MonaiCaeError
from monai_cae.files import only_writer, sha256_of
from monai_cae.prediction.listing import Listed, list_scans
from monai_cae.prediction.predictor import REASON, Plan, Predictor, Row, predict_scans, row_of
from monai_cae.prediction.record import DATASET, Record
from monai_cae.prediction.summary import print_summary
from monai_cae.terminal import progress_bar
from monai_cae.training.models.strangers import reference_path

CHUNK = 128
_MOST = 1_000_000  # scans of a chunk
ENDED = "ended the process that read it"
# of a config, what says nothing of the numbers that come out, or is compared by the file's content
_PLACES = (
    "dataset_dir", "output_dir", "predictions", "overwrite", "checkpoint", "pretrained", "table", "device", "threads",
    "num_workers", "handlers", "on_bad_scan",
)  # fmt: skip


@dataclass(frozen=True)
class Asked:
    """What is to be predicted, and how.

    Attributes:
        plan: what predicts.
        scans: see `list_scans`.
        column: of a table of scans.
        out: folder for the data set.
        chunk: scans that a worker does at a time, and that a file of the data set has.
        resume: go on with what is there.
        overwrite: replace what is there.
        needs: see `Task`.
    """

    plan: Plan
    scans: str
    out: Path
    column: str = ""
    chunk: int = CHUNK
    resume: bool = False
    overwrite: bool = False
    needs: Mapping[str, float] = field(default_factory=dict)


def predict_many(asked: Asked, engine: Engine) -> int:
    """Predict every scan of a list once, whatever is killed meanwhile, and tell what came out.

    Returns:
        How many scans were predicted.

    Raises:
        MonaiCaeError: what a prediction of one scan refuses, see `Record.begin` and `list_scans`; a chunk that failed
            by another fault than a scan's.
    """
    if not 1 <= asked.chunk <= _MOST:
        raise MonaiCaeError(f"--chunk must be 1 to {_MOST}, not {asked.chunk}")
    # whoever starts the work may have no GPU
    predictor = Predictor(asked.plan, **({} if engine.here else {"device": "cpu"}))
    with only_writer(asked.out / DATASET):
        record = Record(asked.out.absolute(), _made(predictor, asked))
        record.begin(list_scans(asked.scans, asked.column), resume=asked.resume, overwrite=asked.overwrite)
        before, started = sum(map(record.size, record.done())), time.perf_counter()
        if before:
            print(f"{before} of {record.scans} scans are done", flush=True)
        with _Progress(record.scans, before) as progress:
            _run(record, asked.plan, asked.needs, engine, progress)
        seconds, checkpoint = time.perf_counter() - started, predictor.files["checkpoint"]
        return print_summary(record, predictor.table, checkpoint, record.scans - before, seconds)


def _made(predictor: Predictor, asked: Asked) -> dict[str, Any]:
    """What the predictions depend on."""
    config, named = predictor.config, {**predictor.files}
    named["strangers"] = str(reference_path(named["pretrained"]))
    return {
        "software": __version__,
        "given": asked.scans if "://" in asked.scans else str(Path(asked.scans).absolute()),
        "chunk": asked.chunk,
        "files": {name: sha256_of(path) for name, path in named.items() if path and Path(path).is_file()},
        "settings": {name: value for name, value in config.items() if not name.startswith("_") and name not in _PLACES},
        "columns": predictor.columns,
    }


def _run(record: Record, plan: Plan, needs: Mapping[str, float], engine: Engine, progress: _Progress) -> None:
    """Have the chunks done that are left.

    One that was lost with its workers is done at the end, scan by scan and nothing beside it: an engine may blame a
    task for the death of a worker that had it only in its queue, and no scan may be left out for another's fault.
    """
    working: dict[str, tuple[int, list[Listed]]] = {}  # key of a task -> its chunk and scans
    lost: deque[tuple[int, list[Listed]]] = deque()
    rows: dict[int, list[Row]] = {}  # of chunks that are done scan by scan
    failed: list[Done] = []

    def task(number: int, scans: list[Listed], name: str) -> Task:
        working[name] = number, scans
        return Task(name, predict_scans, (plan, scans), needs=needs)

    def tasks() -> Iterator[Task | None]:
        for number, scans in record.left():
            if failed:
                return
            yield task(number, scans, f"predict-{number}")
        while working or lost:
            if working:
                yield None
                continue
            number, scans = lost.popleft()
            rows[number] = []
            for place, scan in enumerate(scans):
                yield task(number, [scan], f"predict-{number}-{place}")
                while working:
                    yield None
                if failed:
                    return

    for done in engine.run(tasks()):
        number, scans = working.pop(done.key)
        apart = number in rows
        if isinstance(done.error, WorkerLost):
            if not apart:
                lost.append((number, scans))
                continue
            found = [row_of(scan, ENDED) for scan in scans]
        elif done.error:
            failed.append(done)
            continue
        else:
            found = done.value
        if apart:
            rows[number] += found
            if len(rows[number]) < record.size(number):
                continue
            found = rows.pop(number)
        record.write(number, found)
        progress.add(found)
    if failed:
        error = failed[0].error
        if not isinstance(error, MonaiCaeError):
            print(failed[0].log, flush=True)
        first = str(error) or type(error).__name__
        raise MonaiCaeError(f"{first} (what is done is kept: --resume true goes on)") from error


class _Progress:
    """What is done, and how many of it were left out."""

    def __init__(self, total: int, before: int) -> None:
        self.left_out = 0
        self._bar = progress_bar("predictions", total, "scan", initial=before)

    def __enter__(self) -> _Progress:
        return self

    def __exit__(self, *error: Any) -> None:
        self._bar.close()

    def add(self, rows: Iterable[Mapping[str, Any]]) -> None:
        """Count what is done."""
        reasons = [row.get(REASON) for row in rows]
        self.left_out += sum(map(bool, reasons))
        if self.left_out:
            self._bar.set_postfix({"left out": self.left_out}, refresh=False)
        self._bar.update(len(reasons))
