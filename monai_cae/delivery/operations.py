"""What a run tells MLflow, as plain data: done at once or read back from disk, by the same code.

Everything may be done twice with the same outcome: metrics carry their own time, and MLflow keeps equal points once; a
run is known by a tag, so that one whose creation went unanswered is found again.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path, PurePosixPath
from typing import Any

MOST_METRICS = 1000  # that MLflow takes in one request
PARENT = "mlflow.parentRunId"
LOCAL_ID = "monai_cae.id"  # tag: what the run is called while MLflow does not know it
RECORDS, FILES = "records", "files"  # two lanes: a broken artifact store holds up no metrics
Operation = dict[str, Any]

_FIELDS: Mapping[str, Mapping[str, type]] = {
    "create": {"experiment": str, "name": str, "tags": dict, "parent": str, "time": int},
    "reopen": {},
    "batch": {"params": dict, "tags": dict, "metrics": list},
    "file": {"name": str, "folder": str},
    "end": {"status": str, "time": int},
}


def find_fault(operation: Mapping[str, Any]) -> str:
    """The field that is wrong in an operation read from disk; "" for none."""
    fields = _FIELDS.get(str(operation.get("do")))
    if fields is None:
        return "do"
    for name, kind in fields.items():
        if not isinstance(operation.get(name), kind):
            return name
    texts = {**operation.get("params", {}), **operation.get("tags", {})}
    if not all(isinstance(value, str) for value in texts.values()):
        return "params"
    if not all(_is_metric(metric) for metric in operation.get("metrics", [])):
        return "metrics"
    if operation["do"] == "file" and not _is_inside(operation.get("file")):
        return "file"
    return ""


def _is_metric(metric: Any) -> bool:
    kinds: tuple[tuple[type, ...], ...] = ((str,), (int, float), (int,), (int,))
    whole = isinstance(metric, list) and len(metric) == len(kinds)
    return whole and all(isinstance(part, kind) for part, kind in zip(metric, kinds, strict=True))


def _is_inside(file: Any) -> bool:
    """Whether it names a file three levels deep under `files`, where the copies lie, and no other."""
    parts = PurePosixPath(file).parts if isinstance(file, str) else ()
    return len(parts) == 3 and parts[0] == "files" and ".." not in parts


def lane(operation: Operation) -> str:
    """Which operations it has to keep its place among."""
    return FILES if operation["do"] == "file" else RECORDS


def experiment_id(client: Any, name: str, tracking_uri: str) -> str:
    """The experiment's, made when it is missing; artifacts of a SQLite database lie beside it."""
    experiment = client.get_experiment_by_name(name)
    if experiment is not None:
        return str(experiment.experiment_id)
    local = tracking_uri.startswith("sqlite:///")
    beside = (Path(tracking_uri.removeprefix("sqlite:///")).parent / "mlruns").resolve().as_uri() if local else None
    # the UI shows runs and their curves for this kind; without it, it opens its pages for language models
    kind = {"mlflow.experimentKind": "custom_model_development"}
    return str(client.create_experiment(name, artifact_location=beside, tags=kind))


def find_local(client: Any, experiment: str, local_id: str) -> str:
    """The run that was made under this local name; "" where there is none."""
    found = client.search_runs([experiment], filter_string=f"tags.`{LOCAL_ID}` = '{local_id}'", max_results=1)
    return str(found[0].info.run_id) if found else ""


def create_run(client: Any, operation: Operation, experiment: str, parent: str) -> str:
    """Make the run, nested under `parent` unless that is ""."""
    tags = {**operation["tags"], **({PARENT: parent} if parent else {})}
    run = client.create_run(experiment, start_time=operation["time"], tags=tags, run_name=operation["name"])
    return str(run.info.run_id)


def perform(client: Any, operation: Operation, run_id: str, source: Path | None) -> None:
    """Do whatever is not the creation of a run.

    Args:
        client: MLflow's.
        operation: what to do.
        run_id: of the run.
        source: the file, of an operation that has one.
    """
    if operation["do"] == "file":
        client.log_artifact(run_id, str(source), operation["folder"] or None)
    elif operation["do"] == "reopen":
        client.update_run(run_id, status="RUNNING")
    elif operation["do"] == "end":
        client.set_terminated(run_id, operation["status"], end_time=operation["time"])
    else:
        _log_batch(client, operation, run_id)


def _log_batch(client: Any, operation: Operation, run_id: str) -> None:
    from mlflow.entities import Metric, Param

    params = [Param(key, value) for key, value in operation["params"].items()]
    metrics = [Metric(*metric) for metric in operation["metrics"]]
    if params or metrics:
        client.log_batch(run_id, metrics=metrics, params=params)
    for key, value in operation["tags"].items():
        client.set_tag(run_id, key, value)
