"""Copy to a server what it lacks of the runs in a local database, for a run or for `monai-cae sync`.

Copying twice has the same result: a run is found again by a tag with its local ID, metrics carry their own time and
MLflow keeps equal points once, and files are overwritten.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from monai_cae.errors import MonaiCaeError
from monai_cae.tracking import limits
from monai_cae.tracking.store import Store, StoreAway, StoreRefuses

DATABASE, UNSENT = "mlruns.db", "unsent.db"  # in output_dir; the second where the user's own can't be written
ID = "monai_cae.id"  # tag: the run's first ID, which is the local one
SERVER = "monai_cae.server"  # tag of a local run: where it belongs
SENT = "monai_cae.sent"  # tag of a local run: what of it has arrived where
PARENT = "mlflow.parentRunId"
MOST = {"tags": 100, "params": 100, "metrics": 1000, "inputs": 100, "end": 1, "files": 1}  # that MLflow takes at once
_ABOUT = (
    "Experiments are the runs at the top: `accuracy`, `auc`, `f1` and `psnr` are means over the test sets, "
    "`accuracy/METHOD` those of each method. Below them are the stages of each repeat, told apart by the tags `stage`, "
    "`method`, `repeat` and `fold`. The tag `data` says whether the images are real or synthetic."
)
Content = dict[str, list[tuple[Any, ...]]]


class FilesAway(StoreAway):
    """Everything has arrived except files, which the server does not accept now."""


class Copying:
    """Copies runs from a local database to a server.

    Args:
        local: has the runs.
        server: gets them; another database may be one too.

    Attributes:
        there: local ID of a run -> experiment and run, as the server knows them.
    """

    def __init__(self, local: Store, server: Store) -> None:
        self.local, self.server = local, server
        self.there: dict[str, tuple[str, str]] = {}
        self.database = (local.database or Path()).resolve()
        self._lock = FileLock(self.database.with_name(f".{self.database.name}.lock"), timeout=2 * limits.WAIT_SECONDS)
        self._arrived: set[str] = set()

    def ask(self, question: Any) -> Any:
        """An answer of the local database."""
        try:
            return self.local.ask(question)
        except (StoreAway, StoreRefuses) as error:
            raise MonaiCaeError(f"can't use {self.database} ({error})") from error

    def get(self, run_id: str) -> Any:
        """A run of the database."""
        return self.ask(lambda client: client.get_run(run_id))

    def unsent(self) -> Iterator[Any]:
        """Runs of the database that belong to the server and are incomplete there."""
        return (run for run in self.ask(all_runs) if run.data.tags.get(SERVER) == self.server.shown and self.lacks(run))

    def lacks(self, run: Any) -> bool:
        """Whether the server lacks part of a run."""
        return bool(run.data.tags.get(SENT) != self._mark(self._content(run)))

    def copy(self, run: Any, *, files: bool = True) -> str:
        """Send what the server lacks of a run, and note in the database when everything is there, files included.

        Returns:
            A description of what was sent.

        Raises:
            StoreAway: the server does not answer, or (`FilesAway`) only its file store does not.
            StoreRefuses: it refuses the run, or part of it; the rest is there.
            MonaiCaeError: the database can't be used.
        """
        content, run_id = self._content(run), self._settle(run)
        refused, sent = "", dict.fromkeys(MOST, 0)
        for kind, most in MOST.items():
            if kind == "files" and not files:
                continue
            left = [item for item in content[kind] if repr((run_id, kind, item)) not in self._arrived]
            for part in (left[start : start + most] for start in range(0, len(left), most)):
                try:
                    self.server.ask(partial(write, run_id=run_id, kind=kind, part=part))
                except StoreRefuses as error:
                    refused = refused or str(error)
                except StoreAway as away:
                    raise FilesAway(str(away)) if kind == "files" else away from away
                else:
                    self._arrived |= {repr((run_id, kind, item)) for item in part}
                    sent[kind] += len(part)
        if refused:
            raise StoreRefuses(refused)
        if files:
            with suppress(StoreAway, StoreRefuses):  # it would be found out again
                self.local.ask(lambda client: client.set_tag(run.info.run_id, SENT, self._mark(content)))
        counted = [(sent[kind], kind) for kind in ("metrics", "files") if sent[kind]]
        return ", ".join(f"{number} {kind[: -1 if number == 1 else None]}" for number, kind in counted) or "the rest"

    def _mark(self, content: Content) -> str:
        here = repr(content).replace(str(self.database.parent), "")  # a folder that is moved has nothing new in it
        return f"{self.server.shown} {hashlib.sha256(here.encode()).hexdigest()[:16]}"

    def _content(self, run: Any) -> Content:
        keys, run_id = run.data.metrics, run.info.run_id
        points = self.ask(lambda client: [point for key in keys for point in client.get_metric_history(run_id, key)])
        root = self.database.parent / "mlruns"  # beside the database, wherever that has been copied to
        folder = root / run_id / "artifacts"
        # none that a link or a forged ID leads to elsewhere
        paths = [path for path in sorted(folder.rglob("*")) if path.is_file() and path.resolve().is_relative_to(root)]
        return {
            "tags": list(_tags(run).items()),
            "params": list(run.data.params.items()),
            "metrics": [(point.key, point.value, point.timestamp, point.step) for point in points],
            "inputs": [(one,) for one in run.inputs.dataset_inputs],
            "end": [(run.info.status, run.info.end_time)] * (run.info.status != "RUNNING"),
            "files": [(str(path), path.relative_to(folder).parent.as_posix(), path.stat().st_mtime) for path in paths],
        }

    def _settle(self, run: Any) -> str:
        """The run's ID at the server, where it is found or made, under its parent."""
        local_id = identity(run)
        if local_id not in self.there:
            name = self.ask(lambda client: client.get_experiment(run.info.experiment_id)).name
            experiment = self.server.ask(partial(experiment_id, name=name, database=self.server.database))
            try:
                with self._lock:
                    search = partial(find, experiment=experiment, local_id=local_id)
                    found = self.server.ask(search) or self._make(run, local_id, experiment)
            except Timeout:
                raise StoreAway("another process is sending the same") from None
            if found.info.lifecycle_stage != "active":
                raise StoreRefuses(f"the run {found.info.run_id} is deleted there: restore it")
            if found.info.status != "RUNNING" and self.get(run.info.run_id).info.status == "RUNNING":  # it is resumed
                self.server.ask(lambda client: client.update_run(found.info.run_id, status="RUNNING"))
            self.there[local_id] = experiment, found.info.run_id
        return self.there[local_id][1]

    def _make(self, run: Any, local_id: str, experiment: str) -> Any:
        tags = {**_tags(run), ID: local_id}
        if parent := run.data.tags.get(PARENT):
            kept = self.ask(partial(find, experiment=run.info.experiment_id, local_id=parent))
            known = None if kept else self.server.ask(partial(find, experiment=experiment, local_id=parent))
            tags[PARENT] = self._settle(kept) if kept else known.info.run_id if known else parent
        about = {"start_time": run.info.start_time, "tags": tags, "run_name": run.info.run_name}
        return self.server.ask(lambda client: client.create_run(experiment, **about))


def experiment_id(client: Any, name: str, database: Path | None) -> str:
    """The experiment's, made when it is missing; artifacts of a SQLite database lie beside it."""
    from mlflow.exceptions import MlflowException

    beside = None if database is None else (database.parent / "mlruns").resolve().as_uri()
    # the UI shows runs and their curves for this kind; without it, it opens its pages for language models
    kind = {"mlflow.experimentKind": "custom_model_development", "mlflow.note.content": _ABOUT}
    experiment = client.get_experiment_by_name(name)
    if experiment is None:
        try:
            return str(client.create_experiment(name, artifact_location=beside, tags=kind))
        except MlflowException:  # another process may have been quicker
            if (experiment := client.get_experiment_by_name(name)) is None:
                raise
    if not experiment.experiment_id:
        raise StoreAway("its answer is not MLflow's")
    if experiment.lifecycle_stage != "active":
        raise StoreRefuses(f"the experiment {name} is deleted there: restore it, or choose another name")
    return str(experiment.experiment_id)


def identity(run: Any) -> str:
    """The run's first ID, the same in every store."""
    return str(run.data.tags.get(ID, run.info.run_id))


def find(client: Any, experiment: str, local_id: str) -> Any:
    """The run with this local ID, deleted ones too; None where there is none."""
    from mlflow.entities import ViewType

    for what in (f"tags.`{ID}`", "attributes.run_id"):
        text = f"{what} = '{local_id}'"
        if found := client.search_runs([experiment], text, run_view_type=ViewType.ALL, max_results=1):
            return found[0]
    return None


def all_runs(client: Any) -> list[Any]:
    """Every run of a store, the oldest first."""
    experiments = [experiment.experiment_id for experiment in client.search_experiments()]
    return list(client.search_runs(experiments, max_results=50_000, order_by=["attributes.start_time ASC"]))


def _tags(run: Any) -> dict[str, str]:
    return {key: value for key, value in run.data.tags.items() if key not in (ID, SERVER, SENT, PARENT)}


def write(client: Any, run_id: str, kind: str, part: list[tuple[Any, ...]]) -> None:
    """Have a store take at most `MOST[kind]` of something."""
    from mlflow.entities import Metric, Param, RunTag

    if kind == "files":
        path, folder = part[0][:2]
        client.log_artifact(run_id, path, None if folder in ("", ".") else folder)
    elif kind == "inputs":
        client.log_inputs(run_id, datasets=[one for (one,) in part])
    elif kind == "end":
        client.set_terminated(run_id, *part[0])
    else:
        entity = {"tags": RunTag, "params": Param, "metrics": Metric}[kind]
        client.log_batch(run_id, **{kind: [entity(*item) for item in part]})


def sync(folder: Path, tracking_uri: str = "") -> Iterator[str]:
    """Copy the runs of every database below a folder, at any depth, to where they belong.

    Args:
        folder: a run's `output_dir`, or a folder with several.
        tracking_uri: the server that gets all of them; "" for the one that each belongs to (with the address in
            MLFLOW_TRACKING_URI where that is set), so that what was never meant for a server stays.

    Yields:
        A line per run, and one at the end.

    Raises:
        MonaiCaeError: something is left: in one line how much, and why.
    """
    if not folder.is_dir():
        raise MonaiCaeError(f"no folder {folder}: give the --output_dir of a training")
    left: list[str] = []
    away: dict[str, str] = {}
    sent = "there is nothing to send"
    databases = [path for name in (DATABASE, UNSENT) for path in folder.resolve().rglob(name)]
    for database in sorted(databases, key=lambda path: (len(path.parts), path)):
        local = Store(f"sqlite:///{database}", limits.SYNC_SECONDS)
        try:
            runs = local.ask(all_runs)
        except (StoreAway, StoreRefuses, MonaiCaeError) as error:
            left.append(f"can't read {database} ({error})")
            continue
        for run in runs:
            belongs = run.data.tags.get(SERVER, "")
            address = tracking_uri or (belongs and os.environ.get("MLFLOW_TRACKING_URI", belongs))
            try:
                line = address and _sync_run(Copying(local, Store(address, limits.SYNC_SECONDS)), run, away)
            except MonaiCaeError as error:
                left.append(str(error))
            else:
                sent = "nothing is left to send" if line else sent
                yield from [line] * bool(line)
    if left:
        what = f"{len(left)} run{'s' * (len(left) > 1)} below {folder}"
        raise MonaiCaeError(f"not all sent of {what}: {'; '.join(dict.fromkeys(left))}")
    yield f"{sent} below {folder}"


def _sync_run(copying: Copying, run: Any, away: dict[str, str]) -> str:
    where = f"MLflow at {copying.server.shown}"
    if copying.server.uri == copying.local.uri or not copying.lacks(run):
        return ""
    try:
        if where in away:
            raise StoreAway(away[where])
        try:
            content = copying.copy(run)
        except StoreRefuses as refused:
            if "UNIQUE constraint" not in str(refused):
                raise
            content = copying.copy(run)  # the rest of it: a thread that was given up has sent the same just now
    except FilesAway as error:
        raise MonaiCaeError(f"{where} does not take files ({error}): try again later") from error
    except StoreAway as error:
        away[where] = str(error)
        raise MonaiCaeError(f"{where} does not answer ({error}): try again later") from error
    except StoreRefuses as error:
        raise MonaiCaeError(f"{where} refuses {run.info.run_name} or some of it ({error})") from error
    there = f"{run.info.run_name} (run {copying.there[identity(run)][1]})"
    return f"{there}: {content} sent" + "; it has not ended" * (run.info.status == "RUNNING")
