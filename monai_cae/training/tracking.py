"""MLflow: one run per stage and repeat, nested under the experiment's run."""

from __future__ import annotations

import hashlib
import json
import math
import os
import platform
import shlex
import shutil
import subprocess
import sys
import tempfile
import time
import uuid
from collections.abc import Mapping
from importlib.metadata import version
from pathlib import Path
from types import TracebackType
from typing import Any

from ignite.engine import Engine, Events

import monai_cae
from monai_cae.delivery import MOST_METRICS, Delivery, Store, batch, milliseconds, sync_hint, without_credentials

_PACKAGES = ("monai", "torch", "pytorch-ignite", "mlflow", "nibabel", "numpy", "scikit-learn")
_SEND_EVERY = 1.0  # seconds
History = dict[str, list[tuple[int, float]]]


def default_tracking_uri(output_dir: str) -> str:
    """MLFLOW_TRACKING_URI where it is set, else a SQLite database in the output folder."""
    return os.environ.get("MLFLOW_TRACKING_URI") or f"sqlite:///{Path(output_dir).resolve()}/mlruns.db"


class TrackedRun:
    """One MLflow run, open inside a `with` block; it ends FINISHED, FAILED after an error, KILLED by Ctrl-C or SIGTERM.

    MONAI's MLFlowHandler can't nest runs, finds its run by name, and leaves crashed ones RUNNING; this talks to
    MlflowClient. An MLflow that is away, at the start or later, does not end the block, and lets it wait for 10 s at
    most, and no sooner again than 30 s later (`monai_cae.delivery`): what it has not got is kept in
    `output_dir/unsent`, and sent when it is back.

    Args:
        tracking_uri: `sqlite:///...` or a server's `http(s)://...`.
        experiment_name: MLflow experiment, made when it is missing.
        stage: what the run is of.
        name: of the run; "" for the stage with a random suffix.
        parent_run_id: run to nest under; "" for none.
        params: hyper-parameters.
        tags: whatever else describes the run.
        resumed_run_id: a run of the same store to go on with, where it is still there; "" for a new one.
        output_dir: where what MLflow has not got is kept.

    Attributes:
        history: metric -> [(epoch, value), ...], whether or not the run is open.
        marks: label -> epoch, moments to show in the curves.

    Raises:
        MonaiCaeError: MLflow has no such kind of store, or (on entering) answers and refuses.
    """

    def __init__(
        self,
        *,
        tracking_uri: str,
        experiment_name: str,
        stage: str,
        name: str = "",
        parent_run_id: str = "",
        params: Mapping[str, Any] | None = None,
        tags: Mapping[str, str] | None = None,
        resumed_run_id: str = "",
        output_dir: str = ".",
    ) -> None:
        self.tracking_uri = tracking_uri
        self.experiment_name = experiment_name
        self.name = name or f"{stage}-{uuid.uuid4().hex[:8]}"
        self.parent_run_id = parent_run_id
        self.params = dict(params or {})
        self.tags = {"stage": stage, **_source_tags(), **(tags or {})}
        self.history: History = {}
        self.marks: dict[str, int] = {}
        self.epoch = 0
        self.resumed_run_id = resumed_run_id
        self.output_dir = output_dir
        self._delivery: Delivery | None = None
        self._open = False
        self._unsent: list[list[Any]] = []
        self._sent_at = -math.inf

    def __enter__(self) -> TrackedRun:
        self._delivery = Delivery(Store(self.tracking_uri), Path(self.output_dir), self.name, self.experiment_name)
        if self.resumed_run_id and not self._delivery.go_on(self.resumed_run_id):
            print(f"the MLflow run {self.resumed_run_id} is gone: going on in a new one", flush=True)
            self.resumed_run_id = ""
        if not self.resumed_run_id:
            self._delivery.start(self.tags, self.parent_run_id)
            self.log_params({**self.params, **_versions()})
        self._open = True
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._send()
        self._open = False
        ended = kind is not None and issubclass(kind, (KeyboardInterrupt, SystemExit))
        status = "FINISHED" if kind is None else "KILLED" if ended else "FAILED"
        self._way.tell({"do": "end", "status": status, "time": milliseconds()})
        self._way.close(last=not self.parent_run_id)

    @property
    def run_id(self) -> str:
        """As MLflow knows the run; `offline-...` until MLflow has answered, "" before the run has begun."""
        return self._delivery.run_id if self._delivery else ""

    @property
    def experiment_id(self) -> str:
        """As MLflow knows the experiment; "" until MLflow has answered."""
        return self._delivery.experiment_id if self._delivery else ""

    @property
    def address(self) -> str:
        """The run's page: on the server, or in `mlflow ui` with its default port."""
        uri = without_credentials(self.tracking_uri)
        server = uri.rstrip("/") if uri.startswith(("http://", "https://")) else "http://127.0.0.1:5000"
        return f"{server}/#/experiments/{self.experiment_id}/runs/{self.run_id}"

    @property
    def _way(self) -> Delivery:
        if self._delivery is None:
            raise RuntimeError("the run is not open: use it inside its with block")
        return self._delivery

    def log_params(self, params: Mapping[str, Any]) -> None:
        """Hyper-parameters, in one request; MLflow allows no # in a name, so `cohort#task` is `cohort.task` there."""
        shown = {key.replace("#", "."): self._without_credentials(str(value)) for key, value in params.items()}
        self._way.tell(batch(params=shown))

    def describe(self, text: str, tags: Mapping[str, str]) -> None:
        """The run's description in MLflow, in Markdown, and tags to filter by."""
        self._way.tell(batch(tags={"mlflow.note.content": text, **tags}))

    def mark_and_count(self, name: str, content: Any) -> int | None:
        """Tag the run with the hash of some content, and count the other finished runs of its experiment that have it.

        Args:
            name: of the tag.
            content: what JSON can hold.

        Returns:
            The number; None where MLflow does not answer.
        """
        value = hashlib.sha256(json.dumps(content).encode()).hexdigest()[:16]
        same = f"tags.{name} = '{value}' and attributes.status = 'FINISHED'"
        others = self._way.look_up(lambda client, experiment: client.search_runs([experiment], filter_string=same))
        self._way.tell(batch(tags={name: value}))
        return None if others is None else sum(run.info.run_id != self.run_id for run in others)

    def log_metrics(self, metrics: Mapping[str, float], step: int = 0) -> None:
        """Metrics, sent together once a second at most, and before the run ends, also by an error.

        A request takes as long as an epoch on a fast GPU. Without an open run (the engine was started by other code)
        only the history grows.
        """
        for name, value in metrics.items():
            self.history.setdefault(name, []).append((step, value))
        if self._open:
            now = milliseconds()
            self._unsent += [[name, float(value), now, step] for name, value in metrics.items()]
            if time.monotonic() - self._sent_at >= _SEND_EVERY:
                self._send()

    def _send(self) -> None:
        for start in range(0, len(self._unsent), MOST_METRICS):
            self._way.tell(batch(metrics=self._unsent[start : start + MOST_METRICS]))
        self._unsent = []
        self._sent_at = time.monotonic()

    def log_file(self, path: str | Path, folder: str = "") -> None:
        """Copy a file to the run's artifacts."""
        self._way.tell({"do": "file", "name": Path(path).name, "folder": folder}, Path(path))

    def log_json(self, content: Any, name: str) -> None:
        """A JSON artifact."""
        text = self._without_credentials(json.dumps(content, indent=2, default=str)) + "\n"
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder, name)
            path.write_text(text, encoding="utf-8")
            self.log_file(path)

    def _without_credentials(self, text: str) -> str:
        return text.replace(self.tracking_uri, without_credentials(self.tracking_uri))


class EpochTracking:
    """Log the metrics of a trainer and its evaluator together, once an epoch.

    Trainers that share a run count its epochs on: fine-tuning starts where the frozen stage ended.

    Args:
        run: where to log.
        validator: runs before this handler in every epoch.
        title: mark in the curves where this trainer starts; "" for none.
    """

    def __init__(self, run: TrackedRun, validator: Engine, title: str = "") -> None:
        self.run = run
        self.validator = validator
        self.title = title

    def attach(self, engine: Engine) -> None:
        """Args: engine: the trainer."""
        engine.add_event_handler(Events.EPOCH_COMPLETED, self)
        if self.title:
            engine.add_event_handler(Events.STARTED, lambda _: self.run.marks.update({self.title: self.run.epoch + 1}))

    def __call__(self, engine: Engine) -> None:
        """Log the epoch that has just ended."""
        self.run.epoch += 1
        self.run.log_metrics({**engine.state.metrics, **self.validator.state.metrics}, step=self.run.epoch)


def ui_command(tracking_uri: str) -> str:
    """The command that shows the runs in a browser on this machine."""
    if tracking_uri.startswith(("http://", "https://")):
        return f"open {without_credentials(tracking_uri)} in a browser"
    return f"{program('mlflow')} ui --backend-store-uri {shlex.quote(without_credentials(tracking_uri))}"


def where_to_see(run: TrackedRun, folder: Path) -> list[str]:
    """Lines of a summary: how to see the runs, or how to send what MLflow has not got of those below a folder."""
    command = sync_hint(folder, program("monai-cae"))
    if command:
        return [command, f"sends what MLflow at {without_credentials(run.tracking_uri)} has not got yet"]
    return [ui_command(run.tracking_uri), *([run.address] if run.run_id else [])]


def program(name: str) -> str:
    """How to call a program of this environment: by its name where the shell finds it, else by its path."""
    ours = Path(sys.executable).with_name(name)
    found = shutil.which(name)
    return name if found and Path(found).resolve() == ours.resolve() else shlex.quote(str(ours))


def _versions() -> dict[str, str]:
    return {
        "python": platform.python_version(),
        "monai-cae": monai_cae.__version__,
        **{package: version(package) for package in _PACKAGES},
    }


def _source_tags() -> dict[str, str]:
    """Where the code came from, with the git revision where the package is used from its checkout."""
    source = {"mlflow.source.name": f"monai-cae {monai_cae.__version__}", "mlflow.source.type": "LOCAL"}
    folder = Path(monai_cae.__file__).resolve().parent
    command = ["git", "-C", str(folder), "describe", "--always", "--dirty", "--abbrev=40", "--exclude=*"]
    try:
        described = subprocess.run(command, capture_output=True, text=True, timeout=10, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return source
    revision = described.stdout.strip()
    return {**source, "mlflow.source.git.commit": revision} if described.returncode == 0 and revision else source
