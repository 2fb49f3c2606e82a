"""One MLflow run per stage and repeat, nested under the experiment's run: in a local database, copied to a server."""

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
from collections.abc import Mapping, Sequence
from functools import cache, partial
from importlib.metadata import version
from pathlib import Path
from types import TracebackType
from typing import Any

import monai_cae
from monai_cae.errors import MonaiCaeError
from monai_cae.tracking.copying import (
    DATABASE,
    ID,
    MOST,
    PARENT,
    SERVER,
    UNSENT,
    Copying,
    experiment_id,
    find,
    identity,
    write,
)
from monai_cae.tracking.entities import cohort_name, dataset_inputs, model_text
from monai_cae.tracking.mirror import AWAY, Mirror, ask, tell
from monai_cae.tracking.store import Store, StoreAway, StoreRefuses, without_credentials

_PACKAGES = ("monai", "torch", "pytorch-ignite", "mlflow", "nibabel", "numpy", "scikit-learn")
_SEND_EVERY = 1.0  # seconds
_open: dict[str, Store] = {}  # runs that are open in this process, and their databases: nested runs go there too
lent: Store | None = None  # by another process, which takes over what is written there: see `lending`
History = dict[str, list[tuple[int, float]]]


def default_tracking_uri(output_dir: str) -> str:
    """MLFLOW_TRACKING_URI if it is set, else a SQLite database in the output folder."""
    return os.environ.get("MLFLOW_TRACKING_URI") or f"sqlite:///{Path(output_dir).resolve() / DATABASE}"


class TrackedRun:
    """One MLflow run, open inside a `with` block; it ends FINISHED, FAILED after an error, KILLED by Ctrl-C or SIGTERM.

    MONAI's MLFlowHandler can't nest runs, finds its run by name, and leaves crashed runs RUNNING, so this class uses
    MlflowClient. A SQLite database gets the run directly. For a server the run is written to `output_dir/mlruns.db`,
    which is the truth; a thread copies what is new, and the end of the block copies the rest. A server that is away
    does not end the block, and delays it by at most 10 s in all. A SQLite database that can't be written is treated as
    a server that is away, with `output_dir/unsent.db` in its place.

    Args:
        tracking_uri: `sqlite:///...` or a server's `http(s)://...`.
        experiment_name: MLflow experiment, made when it is missing.
        stage: what the run is of.
        name: of the run; "" for cohort and stage.
        parent_run_id: run to nest under; "" for none.
        params: hyper-parameters.
        tags: whatever else describes the run.
        resumed_run_id: a run of the same database to go on with, where it is still there; "" for a new one.
        output_dir: where the database lies, unless it is given.
        cohort: place of the images; its name, without the folders above, becomes a tag.

    Attributes:
        server: gets a copy of the run; None if it is written where it belongs.
        run_id: in the database; at a server it is the tag `monai_cae.id`. "" before the run has begun.
        history: metric -> [(epoch, value), ...], whether or not the run is open.
        marks: label -> epoch to mark in the curves.

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
        cohort: str = "",
    ) -> None:
        self.tracking_uri = tracking_uri
        self.experiment_name = experiment_name
        self.cohort = cohort_name(cohort) if cohort else ""
        self.name = name or f"{self.cohort} {stage}".strip()
        self.parent_run_id = parent_run_id
        self.params = dict(params or {})
        of = {"cohort": self.cohort} if self.cohort else {}
        self.tags = {"stage": stage, **of, **_source_tags(), **(tags or {})}
        self.history: History = {}
        self.marks: dict[str, int] = {}
        self.epoch = 0
        self.resumed_run_id = resumed_run_id
        self.output_dir = output_dir
        self.run_id = ""
        self._local: Store | None = None
        self._local_id = ""  # in the database that is written; another than run_id where that one had to be left
        self._experiment_id = ""
        self.server: Store | None = None
        self._mirror: Mirror | None = None
        self._open = False
        self._unsent: list[tuple[Any, ...]] = []
        self._sent_at = -math.inf

    def __enter__(self) -> TrackedRun:
        target, unsent = lent or Store(self.tracking_uri), self._in_output(UNSENT)
        shared = lent or _open.get(self.parent_run_id)
        if shared is None and unsent.is_file():  # what an earlier run could not write elsewhere
            Mirror(Store(f"sqlite:///{unsent}"), target).close()
        database = self._in_output(DATABASE)
        self._local = shared or (target if target.database else Store(f"sqlite:///{database}"))
        self.server = None if self._local.uri == target.uri else target
        try:
            if self.server and shared is None:  # a wrong address, name or login ends here, before anything is written
                ask(self.server, database, partial(experiment_id, name=self.experiment_name, database=None))
            self._begin()
        except StoreAway as away:
            self._leave_database(away)
        except StoreRefuses as refused:
            raise MonaiCaeError(
                f"MLflow at {target.shown} refuses to open the run ({refused}): check --tracking_uri, "
                "--experiment_name and your login"
            ) from refused
        if not self.resumed_run_id:
            self.log_params({**self.params, **_versions()})
        self._open = True
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.send()
        self._open = False
        ended = kind is not None and issubclass(kind, (KeyboardInterrupt, SystemExit))
        status = "FINISHED" if kind is None else "KILLED" if ended else "FAILED"
        self._log("end", [(status, _milliseconds())])
        _open.pop(self.run_id, None)
        if self._mirror:
            self._mirror.close(alone=_open.get(self.parent_run_id) is not self._local)

    def _begin(self) -> None:
        run = self.database.ask(self._go_on_or_make)
        self._local_id, self.run_id = run.info.run_id, identity(run)
        _open[self.run_id] = self.database
        self._mirror = Mirror(self.database, self.server, self._local_id) if self.server else None

    def _go_on_or_make(self, client: Any) -> Any:
        """The run in the database."""
        self._experiment_id = experiment_id(client, self.experiment_name, self.database.database)
        known, instead = self.run_id or self.resumed_run_id, self.database.database == self._in_output(UNSENT)
        server = {SERVER: self.server.shown} if self.server else {}
        run = find(client, self._experiment_id, known) if known else None
        if run and run.info.lifecycle_stage == "active":
            client.update_run(run.info.run_id, status="RUNNING")
            for key, value in server.items():
                client.set_tag(run.info.run_id, key, value)
            return run
        if known and not instead:
            print(f"the MLflow run {known} is gone: continuing in a new one", flush=True)
            self.resumed_run_id = known = ""
        more = {PARENT: self.parent_run_id, ID: known}
        tags = {**self.tags, **server, **{key: value for key, value in more.items() if value}}
        return client.create_run(self._experiment_id, _milliseconds(), tags, self.name)

    def _leave_database(self, error: Exception) -> None:
        """Go on in a database of one's own; the other gets the run as a server does."""
        try:
            if self.database.database == self._in_output(UNSENT):
                raise error
            if self._mirror:
                self._mirror.stop()
            self.server = self.server or self.database
            tell(self.server, self._in_output(UNSENT), AWAY, str(error))
            self._local = Store(f"sqlite:///{self._in_output(UNSENT)}")
            self._begin()
        except (StoreAway, StoreRefuses) as again:
            raise MonaiCaeError(f"can't write {self.database.database} ({again}): make room for it") from again

    def _log(self, kind: str, items: list[tuple[Any, ...]]) -> None:
        """Write to the database; the server gets it from there."""
        for part in (items[start : start + MOST[kind]] for start in range(0, len(items), MOST[kind])):
            try:
                self.database.ask(partial(write, run_id=self._local_id, kind=kind, part=part))
            except (StoreAway, StoreRefuses) as error:
                if isinstance(error, StoreRefuses) and self.database.database == self._in_output(UNSENT):
                    tell(self.database, self._in_output(UNSENT), f"refuses some of {self.name}", str(error))
                else:
                    self._leave_database(error)
                    self._log(kind, part)
        if self._mirror:
            self._mirror.news.set()

    def _in_output(self, name: str) -> Path:
        return Path(self.output_dir).resolve() / name

    @property
    def database(self) -> Store:
        """Where the run is written."""
        if self._local is None:
            raise RuntimeError("the run is not open: use it inside its with block")
        return self._local

    @property
    def address(self) -> str:
        """The run's page: on the server, or in `mlflow ui` with its default port."""
        uri = without_credentials(self.tracking_uri)
        server = uri.rstrip("/") if uri.startswith(("http://", "https://")) else "http://127.0.0.1:5000"
        there = self._mirror.copying.there.get(self.run_id) if self._mirror else None
        experiment, run = there or (self._experiment_id, self.run_id)
        return f"{server}/#/experiments/{experiment}/runs/{run}"

    def log_params(self, params: Mapping[str, Any]) -> None:
        """Log hyper-parameters; MLflow allows no # in a name, so `cohort#task` is `cohort.task` there."""
        shown = {key.replace("#", "."): self._without_credentials(str(value)) for key, value in params.items()}
        self._log("params", list(shown.items()))

    def describe(self, text: str, tags: Mapping[str, str]) -> None:
        """Set the run's description in MLflow (Markdown) and tags to filter by."""
        self._log("tags", list({"mlflow.note.content": text, **tags}.items()))

    def log_datasets(self, sets: Mapping[str, Sequence[Mapping[str, Any]]], synthetic: bool) -> None:
        """Which sets the run uses; see `dataset_inputs`."""
        self._log("inputs", [(one,) for one in dataset_inputs(self.cohort, sets, synthetic)])

    def log_model(self, image: Sequence[int], pred: Sequence[int], **about: Any) -> None:
        """The trained network's signature, as the artifact model/MLmodel; see `model_text`."""
        self._log_text(model_text(image, pred, self.run_id, about), "MLmodel", "model")

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

        def count(client: Any) -> int:
            experiment = client.get_experiment_by_name(self.experiment_name)
            found = client.search_runs([experiment.experiment_id], same) if experiment else []
            return sum(identity(run) != self.run_id for run in found)

        try:
            shown = self._in_output(DATABASE)
            others = ask(self.server, shown, count) if self.server else self.database.ask(count)
        except (StoreAway, StoreRefuses):
            others = None
        self._log("tags", [(name, value)])
        return others

    def log_metrics(self, metrics: Mapping[str, float], step: int = 0) -> None:
        """Log metrics, written together at most once a second, and before the run ends, even by an error.

        Writing takes as long as an epoch on a fast GPU. Without an open run (the engine was started by other code)
        only the history grows.
        """
        for name, value in metrics.items():
            self.history.setdefault(name, []).append((step, value))
        if self._open:
            now = _milliseconds()
            self._unsent += [(name, float(value), now, step) for name, value in metrics.items()]
            if time.monotonic() - self._sent_at >= _SEND_EVERY:
                self.send()

    def send(self) -> None:
        """Write the metrics that wait for the second to pass: before anything relies on what the run has."""
        if self._open:
            self._log("metrics", self._unsent)
            self._unsent = []
            self._sent_at = time.monotonic()

    def log_file(self, path: str | Path, folder: str = "") -> None:
        """Log a file as an artifact of the run."""
        self._log("files", [(str(path), folder)])

    def log_json(self, content: Any, name: str) -> None:
        """A JSON artifact."""
        self._log_text(self._without_credentials(json.dumps(content, indent=2, default=str)) + "\n", name)

    def _log_text(self, text: str, name: str, folder: str = "") -> None:
        with tempfile.TemporaryDirectory() as temporary:
            path = Path(temporary, name)
            path.write_text(text, encoding="utf-8")
            self.log_file(path, folder)

    def _without_credentials(self, text: str) -> str:
        return text.replace(self.tracking_uri, without_credentials(self.tracking_uri))


def ui_command(tracking_uri: str) -> str:
    """The command that shows the runs in a browser on this machine."""
    if tracking_uri.startswith(("http://", "https://")):
        return f"open {without_credentials(tracking_uri)} in a browser"
    return f"{program('mlflow')} ui --backend-store-uri {shlex.quote(without_credentials(tracking_uri))}"


def where_to_see(run: TrackedRun, folder: Path) -> list[str]:
    """Lines of a summary: how to see the runs, or how to send what the server lacks of the runs in a folder."""
    if _lacks(Store(run.tracking_uri), folder.resolve()):
        command = f"{program('monai-cae')} sync {shlex.quote(str(folder))}"
        return [command, f"sends what MLflow at {without_credentials(run.tracking_uri)} still lacks"]
    return [ui_command(run.tracking_uri), *([run.address] if run.run_id else [])]


def _lacks(server: Store, folder: Path) -> bool:
    paths = [path for path in (*folder.glob(DATABASE), *folder.rglob(UNSENT)) if path != server.database]
    try:
        return any(True for path in paths for _ in Copying(Store(f"sqlite:///{path}"), server).unsent())
    except MonaiCaeError:
        return True


def program(name: str) -> str:
    """How to call a program of this environment: by its name if the shell finds it, else by its path."""
    ours = Path(sys.executable).with_name(name)
    found = shutil.which(name)
    return name if found and Path(found).resolve() == ours.resolve() else shlex.quote(str(ours))


def _milliseconds() -> int:
    """Now, as MLflow counts."""
    return int(time.time() * 1000)


@cache
def _versions() -> dict[str, str]:
    return {
        "python": platform.python_version(),
        "monai-cae": monai_cae.__version__,
        **{package: version(package) for package in _PACKAGES},
    }


@cache  # what a process has imported does not change
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
