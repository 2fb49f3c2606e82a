"""What MLflow has not got yet, on disk: one folder per run, with a journal that only grows.

`unsent/<run>/operations.jsonl` is one JSON object per line. The first says which run it is and where it belongs; then
come operations, in order; `{"sent": [3, 4], ...}` says that those lines have arrived. Files lie beside it under
`files`. A process that is killed leaves a journal that another one can go on with.
"""

from __future__ import annotations

import json
import shutil
import time
import uuid
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any

from monai_cae.delivery.operations import Operation, find_fault
from monai_cae.errors import MonaiCaeError

UNSENT = "unsent"  # folder in a run's output_dir
OFFLINE = "offline-"  # what the name of a run begins with that MLflow does not know yet
_JOURNAL = "operations.jsonl"
_FORMAT = 1
_HEADER = {"format": int, "tracking_uri": str, "run_id": str, "name": str, "experiment": str}


@dataclass
class Journal:
    """What a folder holds.

    Attributes:
        tracking_uri: where it belongs, without user name and password.
        name: of the run.
        experiment: MLflow's experiment.
        run_id: as MLflow knows the run; "" where it does not yet.
        experiment_id: as MLflow knows the experiment; "" where that was not told.
        pending: line -> operation that has not arrived.
        ended: whether the run has ended; another process may still be adding to one that has not.
        cut: whether the last line breaks off, as a process leaves it that is killed while it writes.
    """

    tracking_uri: str
    name: str
    experiment: str
    run_id: str
    experiment_id: str = ""
    pending: dict[int, Operation] = field(default_factory=dict)
    ended: bool = False
    cut: bool = False


class Kept:
    """The folder of one run.

    Args:
        folder: `unsent/<run>`; made when something is added.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.path = folder / _JOURNAL

    @property
    def run_id(self) -> str:
        """As the run was called when it was kept."""
        return self.folder.name

    def begin(self, *, tracking_uri: str, name: str, experiment: str) -> bool:
        """Write the first line, or go on with a journal that is there; whether its last line broke off."""
        if self.path.is_file():
            return self.mend()
        about = {"run_id": self.run_id, "name": name, "experiment": experiment}
        self._append({"format": _FORMAT, "tracking_uri": tracking_uri, **about})
        return False

    def mend(self) -> bool:
        """Take away a last line that breaks off; whether there was one."""
        for attempt in range(2):
            content = self.path.read_bytes()
            if not content or content.endswith(b"\n"):
                return False
            if attempt == 0:
                time.sleep(0.1)  # a process that lives is done with its line by then
        with self._telling(), self.path.open("r+b") as file:
            file.truncate(content.rfind(b"\n") + 1)
        return True

    def add(self, operation: Operation, source: Path | None = None) -> None:
        """Append an operation, with a copy of its file.

        Raises:
            MonaiCaeError: the folder can't be written.
        """
        if source is not None:
            inside = PurePosixPath("files", uuid.uuid4().hex[:12], operation["name"])
            with self._telling():
                target = self.folder / inside
                target.parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(source, target)
            operation = {**operation, "file": str(inside)}
        self._append(operation)

    def mark_sent(self, lines: Sequence[int], run_id: str, experiment_id: str) -> None:
        """Note that these lines have arrived, under MLflow's own names."""
        self._append({"sent": list(lines), "run_id": run_id, "experiment_id": experiment_id})

    def read(self) -> Journal:
        """The journal, checked.

        Raises:
            FileNotFoundError: there is none (any more).
            MonaiCaeError: it is damaged.
        """
        content = self.path.read_bytes()
        whole, _, rest = content.rpartition(b"\n")
        lines = [self._parse(line, number) for number, line in enumerate(whole.split(b"\n"), start=1)]
        header = lines[0]
        if header.get("format") != _FORMAT or not all(isinstance(header.get(k), kind) for k, kind in _HEADER.items()):
            raise self._damaged(1)
        real = "" if header["run_id"].startswith(OFFLINE) else header["run_id"]
        journal = Journal(header["tracking_uri"], header["name"], header["experiment"], real, cut=bool(rest))
        for number, line in enumerate(lines[1:], start=2):
            if isinstance(line.get("sent"), list):
                journal.run_id = str(line.get("run_id") or journal.run_id)
                journal.experiment_id = str(line.get("experiment_id") or journal.experiment_id)
                for done in line["sent"]:
                    journal.pending.pop(done, None)
            elif find_fault(line):
                raise self._damaged(number)
            else:
                journal.pending[number] = line
                journal.ended = line["do"] == "end"
        return journal

    def file_of(self, operation: Operation) -> Path:
        """Where the copy of an operation's file lies."""
        return self.folder / operation["file"]

    def drop_file(self, operation: Operation) -> None:
        """Delete the copy of a file that has arrived."""
        shutil.rmtree(self.file_of(operation).parent, ignore_errors=True)

    def remove(self) -> None:
        """Delete the folder, and the one around it when it was the last."""
        shutil.rmtree(self.folder, ignore_errors=True)
        if self.folder.parent.is_dir() and not any(self.folder.parent.iterdir()):
            self.folder.parent.rmdir()

    def _append(self, line: dict[str, Any]) -> None:
        with self._telling():
            self.folder.mkdir(parents=True, exist_ok=True)
            with self.path.open("ab") as file:
                file.write(json.dumps(line).encode() + b"\n")

    def _parse(self, line: bytes, number: int) -> dict[str, Any]:
        try:
            parsed = json.loads(line)
        except ValueError:
            parsed = None
        if not isinstance(parsed, dict):
            raise self._damaged(number)
        return parsed

    def _damaged(self, number: int) -> MonaiCaeError:
        return MonaiCaeError(f"{self.path}, line {number}, is not what monai-cae writes: repair or delete that line")

    @contextmanager
    def _telling(self) -> Iterator[None]:
        try:
            yield
        except FileNotFoundError:
            raise
        except OSError as error:
            raise MonaiCaeError(f"can't write {self.folder} ({error.strerror or error}): make room for it") from error


def kept_in(output_dir: Path) -> list[Kept]:
    """The folders of runs with this `output_dir`."""
    return [Kept(path.parent) for path in sorted((output_dir / UNSENT).glob(f"*/{_JOURNAL}"))]


def kept_below(folder: Path) -> list[Kept]:
    """Every run's folder at any depth, those of outer folders first: a parent before what is nested under it."""
    found = [path.parent for path in folder.rglob(f"{UNSENT}/*/{_JOURNAL}")]
    return [Kept(path) for path in sorted(found, key=lambda path: (len(path.parts), str(path)))]
