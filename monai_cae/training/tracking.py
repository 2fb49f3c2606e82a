"""MLflow: one run per stage and repeat, nested under the experiment's run."""

from __future__ import annotations

import hashlib
import json
import logging
import math
import os
import platform
import shlex
import shutil
import subprocess
import sys
import time
import uuid
from collections.abc import Mapping
from importlib.metadata import version
from pathlib import Path
from types import TracebackType
from typing import Any

from ignite.engine import Engine, Events

import monai_cae
from monai_cae.errors import MonaiCaeError

# MLflow would report its own usage to its makers from the machine that holds the patients' images.
os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")

_PARENT = "mlflow.parentRunId"
_PACKAGES = ("monai", "torch", "pytorch-ignite", "mlflow", "nibabel", "numpy", "scikit-learn")
_SEND_EVERY = 1.0  # seconds
_MOST_METRICS = 1000  # that MLflow takes in one request
History = dict[str, list[tuple[int, float]]]


def default_tracking_uri(output_dir: str) -> str:
    """MLFLOW_TRACKING_URI where it is set, else a SQLite database in the output folder."""
    return os.environ.get("MLFLOW_TRACKING_URI") or f"sqlite:///{Path(output_dir).resolve()}/mlruns.db"


class TrackedRun:
    """One MLflow run, open inside a `with` block; it ends FINISHED, FAILED after an error, KILLED by Ctrl-C or SIGTERM.

    MONAI's MLFlowHandler can't nest runs, finds its run by name, and leaves crashed ones RUNNING; this talks to
    MlflowClient.

    Args:
        tracking_uri: `sqlite:///...` or a server's `http(s)://...`.
        experiment_name: MLflow experiment, made when it is missing.
        stage: what the run is of.
        name: of the run; "" for the stage with a random suffix.
        parent_run_id: run to nest under; "" for none.
        params: hyper-parameters.
        tags: whatever else describes the run.
        resumed_run_id: a run of the same store to go on with, where it is still there; "" for a new one.

    Attributes:
        history: metric -> [(epoch, value), ...], whether or not the run is open.
        marks: label -> epoch, moments to show in the curves.
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
        self.run_id = ""
        self.experiment_id = ""
        self._client: Any = None
        self._unsent: list[Any] = []
        self._sent_at = -math.inf

    def __enter__(self) -> TrackedRun:
        self._client = _client(self.tracking_uri)
        self.experiment_id = _experiment(self._client, self.experiment_name, self.tracking_uri)
        if self._resume():
            return self
        tags = {**self.tags, **({_PARENT: self.parent_run_id} if self.parent_run_id else {})}
        run = self._client.create_run(self.experiment_id, run_name=self.name, tags=tags)
        self.run_id = run.info.run_id
        self.log_params({**self.params, **_versions()})
        return self

    def _resume(self) -> bool:
        """Open the run to go on with, unless the store no longer has it."""
        from mlflow.exceptions import MlflowException

        if not self.resumed_run_id:
            return False
        try:
            run = self._client.get_run(self.resumed_run_id)
        except MlflowException:
            run = None
        if run is None or run.info.experiment_id != self.experiment_id or run.info.lifecycle_stage != "active":
            print(f"the MLflow run {self.resumed_run_id} is gone: going on in a new one", flush=True)
            self.resumed_run_id = ""
            return False
        self.run_id = self.resumed_run_id
        self._client.update_run(self.run_id, status="RUNNING")
        return True

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._send()
        ended = kind is not None and issubclass(kind, (KeyboardInterrupt, SystemExit))
        status = "FINISHED" if kind is None else "KILLED" if ended else "FAILED"
        self._client.set_terminated(self.run_id, status)
        self._client = None

    @property
    def address(self) -> str:
        """The run's page in `mlflow ui` with its default port."""
        return f"http://127.0.0.1:5000/#/experiments/{self.experiment_id}/runs/{self.run_id}"

    def log_params(self, params: Mapping[str, Any]) -> None:
        """Hyper-parameters, in one request; MLflow allows no # in a name, so `cohort#task` is `cohort.task` there."""
        from mlflow.entities import Param

        batch = [Param(key.replace("#", "."), str(value)) for key, value in params.items()]
        self._client.log_batch(self.run_id, params=batch)

    def describe(self, text: str, tags: Mapping[str, str]) -> None:
        """The run's description in MLflow, in Markdown, and tags to filter by."""
        for key, value in {"mlflow.note.content": text, **tags}.items():
            self._client.set_tag(self.run_id, key, value)

    def mark_and_count(self, name: str, content: Any) -> int:
        """Tag the run with the hash of some content, and count the other finished runs of its experiment that have it.

        Args:
            name: of the tag.
            content: what JSON can hold.
        """
        value = hashlib.sha256(json.dumps(content).encode()).hexdigest()[:16]
        others = self._client.search_runs(
            [self.experiment_id], filter_string=f"tags.{name} = '{value}' and attributes.status = 'FINISHED'"
        )
        self._client.set_tag(self.run_id, name, value)
        return sum(run.info.run_id != self.run_id for run in others)

    def log_metrics(self, metrics: Mapping[str, float], step: int = 0) -> None:
        """Metrics, sent together once a second at most, and before the run ends, also by an error.

        A request takes as long as an epoch on a fast GPU. Without an open run (the engine was started by other code)
        only the history grows.
        """
        for name, value in metrics.items():
            self.history.setdefault(name, []).append((step, value))
        if self._client is not None:
            from mlflow.entities import Metric

            now = int(time.time() * 1000)
            self._unsent += [Metric(name, value, now, step) for name, value in metrics.items()]
            if time.monotonic() - self._sent_at >= _SEND_EVERY:
                self._send()

    def _send(self) -> None:
        for start in range(0, len(self._unsent), _MOST_METRICS):
            self._client.log_batch(self.run_id, metrics=self._unsent[start : start + _MOST_METRICS])
        self._unsent = []
        self._sent_at = time.monotonic()

    def log_file(self, path: str | Path, folder: str = "") -> None:
        """Copy a file to the run's artifacts."""
        self._client.log_artifact(self.run_id, str(path), folder or None)

    def log_json(self, content: Any, name: str) -> None:
        """A JSON artifact."""
        self._client.log_text(self.run_id, json.dumps(content, indent=2, default=str) + "\n", name)


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
        return f"open {tracking_uri} in a browser"
    return f"{program('mlflow')} ui --backend-store-uri {shlex.quote(tracking_uri)}"


def program(name: str) -> str:
    """How to call a program of this environment: by its name where the shell finds it, else by its path."""
    ours = Path(sys.executable).with_name(name)
    found = shutil.which(name)
    return name if found and Path(found).resolve() == ours.resolve() else shlex.quote(str(ours))


def _client(tracking_uri: str) -> Any:
    if not tracking_uri.startswith(("sqlite:///", "http://", "https://", "postgresql", "mysql", "mssql", "databricks")):
        raise MonaiCaeError(
            f"tracking_uri must be sqlite:///FILE or http(s)://SERVER, not {tracking_uri!r}: MLflow has no other stores"
        )
    for chatty in ("alembic", "mlflow.store.db.utils"):  # tell every migration of a new database otherwise
        logging.getLogger(chatty).setLevel(logging.WARNING)
    if tracking_uri.startswith("sqlite:///"):
        database = Path(tracking_uri.removeprefix("sqlite:///"))
        if not database.exists():
            print(f"making the MLflow database {database} (once, about 10 s)", flush=True)
        try:
            database.parent.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise MonaiCaeError(f"can't write {database} ({error.strerror}): choose another --output_dir") from error
    from mlflow import MlflowClient

    return MlflowClient(tracking_uri)


def _experiment(client: Any, name: str, tracking_uri: str) -> str:
    experiment = client.get_experiment_by_name(name)
    if experiment is not None:
        return str(experiment.experiment_id)
    local = tracking_uri.startswith("sqlite:///")
    beside = (Path(tracking_uri.removeprefix("sqlite:///")).parent / "mlruns").resolve().as_uri() if local else None
    # the UI shows runs and their curves for this kind; without it, it opens its pages for language models
    kind = {"mlflow.experimentKind": "custom_model_development"}
    return str(client.create_experiment(name, artifact_location=beside, tags=kind))


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
