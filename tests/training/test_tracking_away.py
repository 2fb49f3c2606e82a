"""MLflow is away: training goes on, nothing is lost, nothing waits long. The server is MLflow's own, with faults."""

from __future__ import annotations

import json
import os
import sqlite3
import time
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from flaky_mlflow import FlakyServer
from mlflow import MlflowClient

from monai_cae.cli import main
from monai_cae.delivery import Store, StoreAway, limits, sync
from monai_cae.errors import MonaiCaeError
from monai_cae.training import TrackedRun

WAIT = 0.6  # seconds here, for what are ten in earnest


@pytest.fixture(scope="module")
def application(tracking_uri: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[object]:
    MlflowClient(tracking_uri)  # makes the database
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("_MLFLOW_SERVER_FILE_STORE", tracking_uri)
        patch.setenv("_MLFLOW_SERVER_SERVE_ARTIFACTS", "true")
        patch.setenv("_MLFLOW_SERVER_ARTIFACT_ROOT", "mlflow-artifacts:/")
        patch.setenv("_MLFLOW_SERVER_ARTIFACT_DESTINATION", str(tmp_path_factory.mktemp("artifacts")))
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of what the server imports, some of it at its first request
            from mlflow.server import app, fastapi_app, handlers

        assert fastapi_app
        patch.setenv("MLFLOW_TRACKING_URI", "")
        handlers._get_tracking_store()
        patch.delenv("MLFLOW_TRACKING_URI")  # the server sets it for its children; here it is the clients' too
        yield app


@pytest.fixture
def server(application: object, monkeypatch: pytest.MonkeyPatch) -> Iterator[FlakyServer]:
    monkeypatch.setattr(limits, "WAIT_SECONDS", WAIT)
    monkeypatch.setattr(limits, "PAUSE_SECONDS", 0.0)
    flaky = FlakyServer(application)
    flaky.start()
    yield flaky
    flaky.stop()


@pytest.fixture
def experiment(request: pytest.FixtureRequest) -> str:
    return request.node.name


@pytest.fixture
def track(server: FlakyServer, experiment: str, tmp_path: Path) -> Callable[..., TrackedRun]:
    def make(stage: str = "pretrain", folder: str = "", **options: str) -> TrackedRun:
        where = {"tracking_uri": server.uri, "output_dir": str(tmp_path / folder), **options}
        return TrackedRun(experiment_name=experiment, stage=stage, **where)

    return make


def log_all(run: TrackedRun, folder: Path) -> None:
    """One of everything that a run can tell, and three metrics in three batches."""
    run.log_params({"cohort#task": "ad"})
    run.describe("all of it", {"data": "synthetic"})
    picture = folder / "roc.png"
    picture.write_bytes(b"picture")
    run.log_file(picture, "figures")
    run.log_json({"a": 1}, "config.json")
    for epoch in (1, 2, 3):
        run._sent_at = 0.0
        run.log_metrics({"loss": epoch / 2}, epoch)
    picture.unlink()


def page(server: FlakyServer, run_id: str) -> dict:
    """The run as its page has it."""
    client = MlflowClient(server.uri)
    found = client.get_run(run_id)
    files = {file.path for folder in ("", "figures") for file in client.list_artifacts(run_id, folder or None)}
    return {
        "status": found.info.status,
        "params": found.data.params,
        "tags": found.data.tags,
        **{
            name: [(point.step, point.value) for point in client.get_metric_history(run_id, name)]
            for name in ("loss", "early")
        },
        "files": files - {"figures"},
        "seconds": ((found.info.end_time or 0) - found.info.start_time) / 1000,
    }


def runs_of(server: FlakyServer, experiment: str) -> dict[str, str]:
    """Stage -> ID of the experiment's runs; a run that is there twice fails the test."""
    client = MlflowClient(server.uri)
    found = client.search_runs([client.get_experiment_by_name(experiment).experiment_id])
    by_stage = {run.data.tags["stage"]: run.info.run_id for run in found}
    assert len(by_stage) == len(found)
    return by_stage


def assert_complete(seen: dict) -> None:
    assert seen["status"] == "FINISHED"
    assert seen["loss"] == [(1, 0.5), (2, 1.0), (3, 1.5)]
    assert seen["files"] == {"config.json", "figures/roc.png"}
    assert seen["params"]["cohort.task"] == "ad" and "python" in seen["params"]
    assert seen["tags"]["mlflow.note.content"] == "all of it" and seen["tags"]["data"] == "synthetic"


def test_nothing_is_kept_while_mlflow_answers(server, track, tmp_path):
    with track() as run:
        log_all(run, tmp_path)
    assert_complete(page(server, run.run_id))
    assert not any(tmp_path.iterdir())


@pytest.mark.fault(
    "MLflow down from start to end, then `monai-cae sync`",
    "page complete, with the training's times; a second `sync` says that there is nothing",
)
def test_down_for_the_whole_run_and_sent_by_hand(server, track, tmp_path, experiment, capsys):
    server.stop()
    started = time.time()
    with track() as run:
        log_all(run, tmp_path)
    ended = time.time()
    said = capsys.readouterr().out
    assert said.count("training goes on") == 1 and "Connection refused" in said
    assert f"monai-cae sync {tmp_path}" in said
    assert run.run_id.startswith("offline-")
    assert main(["sync", str(tmp_path)]) == 1
    refused = capsys.readouterr().err
    assert refused.count("\n") == 1 and "not all sent of 1 run" in refused and "Connection refused" in refused

    server.start()
    time.sleep(0.5)  # the page must not take the time of sending for that of training
    assert main(["sync", str(tmp_path)]) == 0
    said = capsys.readouterr().out.splitlines()
    real = runs_of(server, experiment)["pretrain"]
    assert said[0] == f"{run.name} (run {real}): 3 metrics, 2 files, 5 other records sent"
    seen = page(server, real)
    assert_complete(seen)
    assert seen["seconds"] <= ended - started + 0.01
    assert not any(tmp_path.iterdir())
    assert main(["sync", str(tmp_path)]) == 0
    assert "nothing to send" in capsys.readouterr().out


@pytest.mark.fault(
    "MLflow dies, answers 500 or 503 with `Retry-After: 3600`, hangs, or answers a byte at a time; then it is back",
    "page complete, every metric once; one line when it went, one when it came back",
)
@pytest.mark.parametrize("fault", ["dead", "500", "503", "hang", "drip"])
def test_away_in_the_middle_and_back(server, track, tmp_path, experiment, capsys, fault):
    with track() as run:
        run._sent_at = 0.0
        run.log_metrics({"early": 0.5}, 1)
        server.break_down(fault)
        run._sent_at = 0.0
        run.log_metrics({"early": 1.0}, 2)
        kept = list(tmp_path.rglob("operations.jsonl"))
        assert [path.parent.name for path in kept] == [run.run_id]
        server.mend()
        log_all(run, tmp_path)
    seen = page(server, run.run_id)
    assert_complete(seen)
    assert seen["early"] == [(1, 0.5), (2, 1.0)]
    assert runs_of(server, experiment) == {"pretrain": run.run_id}
    said = capsys.readouterr().out
    assert said.count("training goes on") == 1 and said.count("answers again") == 1
    assert not any(tmp_path.iterdir())


@pytest.mark.fault("MLflow down at the start, back before the end", "page complete, nothing kept")
def test_back_before_a_run_that_began_offline_ends(server, track, tmp_path, experiment):
    server.stop()
    with track() as run:
        assert run.run_id.startswith("offline-")
        server.start()
        log_all(run, tmp_path)
        assert run.run_id == runs_of(server, experiment)["pretrain"]
    assert_complete(page(server, run.run_id))
    assert not any(tmp_path.iterdir())


@pytest.mark.fault(
    "MLflow down or hanging for a whole experiment", "asked twice in all; after `sync` all pages complete and nested"
)
@pytest.mark.parametrize("fault", ["dead", "hang"])
def test_experiment_of_three_stages_asks_twice(server, track, tmp_path, experiment, fault, monkeypatch):
    monkeypatch.setattr(limits, "PAUSE_SECONDS", 1000.0)
    waits = []
    ask = Store.ask
    monkeypatch.setattr(Store, "ask", lambda *args, **options: waits.append(1) or ask(*args, **options))
    server.break_down(fault)
    started = time.monotonic()
    with track("experiment") as parent:
        for stage in ("pretrain", "train", "evaluate"):
            with track(stage, "repeat_1", parent_run_id=parent.run_id) as run:
                log_all(run, tmp_path)
        parent.log_metrics({"loss": 9.0})
        assert len(waits) == 1
    assert len(waits) == 2  # at the start, and once more at the end
    assert time.monotonic() - started < 2 * WAIT + 2
    monkeypatch.undo()

    server.mend()
    told = list(sync(tmp_path))
    assert len(told) == 5 and told[0].startswith(parent.name)
    runs = runs_of(server, experiment)
    for stage in ("pretrain", "train", "evaluate"):
        seen = page(server, runs[stage])
        assert_complete(seen)
        assert seen["tags"]["mlflow.parentRunId"] == runs["experiment"]
    assert page(server, runs["experiment"])["loss"] == [(0, 9.0)]


@pytest.mark.fault("the experiment began without MLflow, a stage with it", "nested under the right run")
def test_stage_of_an_offline_experiment_finds_its_parent_when_mlflow_is_back(server, track, tmp_path, experiment):
    server.stop()
    with track("experiment") as parent:
        known = parent.run_id
        server.start()
        with track("train", "repeat_1/fold_1", parent_run_id=known) as run:
            log_all(run, tmp_path)
        seen = page(server, run.run_id)
        parent.log_metrics({"loss": 9.0})
    runs = runs_of(server, experiment)
    assert set(runs) == {"experiment", "train"} and parent.run_id == runs["experiment"]
    assert_complete(seen)
    assert seen["tags"]["mlflow.parentRunId"] == parent.run_id
    assert page(server, parent.run_id)["loss"] == [(0, 9.0)]
    assert not list(tmp_path.rglob("unsent"))


def test_a_later_stage_sends_what_an_earlier_one_kept(server, track, tmp_path, experiment):
    server.stop()
    with track("pretrain") as first:
        log_all(first, tmp_path)
    server.start()
    with track("train"):
        pass
    assert_complete(page(server, runs_of(server, experiment)["pretrain"]))
    assert not any(tmp_path.iterdir())


@pytest.mark.fault("MLflow's artifact store fails", "metrics are there at once, files after `sync`")
def test_broken_artifact_store_holds_up_no_metrics(server, track, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(limits, "PAUSE_SECONDS", 1000.0)
    server.break_down("files")
    with track() as run:
        log_all(run, tmp_path)
        run._send()
        assert [point.step for point in MlflowClient(server.uri).get_metric_history(run.run_id, "loss")] == [1, 2, 3]
    assert capsys.readouterr().out.count("does not take files") == 1
    assert MlflowClient(server.uri).get_run(run.run_id).info.status == "FINISHED"
    with pytest.raises(MonaiCaeError, match=r"takes no files \(it answers with error 500\)"):
        list(sync(tmp_path))
    server.mend()
    list(sync(tmp_path))
    assert_complete(page(server, run.run_id))


@pytest.mark.fault("a run that began without MLflow is resumed", "one run with all of it")
@pytest.mark.parametrize("sent_before", [False, True])
def test_resumed_under_its_offline_name(server, track, tmp_path, experiment, sent_before):
    server.stop()
    run = track()

    def train() -> None:
        with run:
            run.log_metrics({"early": 0.5}, 1)
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train()
    known = run.run_id
    if sent_before:
        server.start()
        list(sync(tmp_path))
        assert page(server, runs_of(server, experiment)["pretrain"])["status"] == "KILLED"
        server.stop()
    with track(resumed_run_id=known) as resumed:
        assert resumed.run_id == known == resumed.resumed_run_id
        server.start()
        log_all(resumed, tmp_path)
    seen = page(server, runs_of(server, experiment)["pretrain"])
    assert_complete(seen)
    assert seen["early"] == [(1, 0.5)]
    assert not any(tmp_path.iterdir())


def test_sent_run_is_resumed_by_its_offline_name(server, track, tmp_path, experiment):
    server.stop()
    with track() as run:
        pass
    server.start()
    list(sync(tmp_path))
    with track(resumed_run_id=run.run_id) as resumed:
        log_all(resumed, tmp_path)
    assert resumed.run_id == runs_of(server, experiment)["pretrain"]
    assert_complete(page(server, resumed.run_id))


@pytest.mark.fault(
    "MLflow dies during `sync`, after 1 to 11 requests", "the next `sync` completes the page, every metric once"
)
@pytest.mark.parametrize("requests", range(1, 12, 2))
def test_sync_that_is_broken_off_goes_on(server, track, tmp_path, experiment, requests):
    server.stop()
    with track() as run:
        log_all(run, tmp_path)
    server.start()
    server.break_down("500", after=requests)
    with pytest.raises(MonaiCaeError, match=r"not all sent of 1 run.* error 500"):
        list(sync(tmp_path))
    server.mend()
    list(sync(tmp_path))
    assert_complete(page(server, runs_of(server, experiment)["pretrain"]))
    assert run.run_id.startswith("offline-")


@pytest.mark.fault("`sync` while the run is open", "nothing lost, nothing twice")
def test_sync_during_a_run_takes_nothing_from_it(server, track, tmp_path, experiment, monkeypatch):
    monkeypatch.setattr(limits, "PAUSE_SECONDS", 1000.0)
    server.stop()
    with track() as run:
        run.log_metrics({"early": 0.5}, 1)
        server.start()
        assert any("it has not ended" in line for line in sync(tmp_path))
        assert [*sync(tmp_path)] == [f"there is nothing to send below {tmp_path}"]
        log_all(run, tmp_path)
    seen = page(server, runs_of(server, experiment)["pretrain"])
    assert_complete(seen)
    assert seen["early"] == [(1, 0.5)]
    assert not any(tmp_path.iterdir())


@pytest.fixture
def two_kept(server, track, tmp_path) -> list[Path]:
    """Journals of two runs that were never sent; the server is there again."""
    server.stop()
    journals = []
    for folder in ("a", "b"):
        with track(folder, folder) as run:
            log_all(run, tmp_path)
        journals.append(tmp_path / folder / "unsent" / run.run_id / "operations.jsonl")
    server.start()
    return journals


@pytest.mark.fault("a journal that breaks off in its last line", "told; the rest is sent")
def test_last_line_that_breaks_off_is_told_and_the_rest_sent(server, two_kept, tmp_path, experiment):
    content = two_kept[0].read_bytes()
    two_kept[0].write_bytes(content[:-20])
    told = list(sync(tmp_path))
    assert [line for line in told if "broke off" in line] == [told[0]] and str(two_kept[0]) in told[0]
    assert "it has not ended" in told[1]
    runs = runs_of(server, experiment)
    cut = page(server, runs["a"])
    assert cut["loss"] == [(1, 0.5), (2, 1.0), (3, 1.5)] and cut["status"] == "RUNNING"
    assert_complete(page(server, runs["b"]))
    assert list(sync(tmp_path)) == [f"there is nothing to send below {tmp_path}"]


@pytest.mark.fault(
    "a journal that is damaged or forged elsewhere",
    "one line with file and line; other runs are sent; no file outside its folder is read",
)
@pytest.mark.parametrize(
    "damage",
    [
        "not json",
        '{"do": "explode"}',
        '{"do": "end", "status": 3}',
        '{"do": "batch", "params": {}, "tags": {}, "metrics": [["loss", "high", 0, 1]]}',
        '{"do": "file", "name": "x", "folder": "", "file": "files/../../../secret"}',
        '{"do": "file", "name": "x", "folder": "", "file": "/etc/passwd"}',
    ],
)
def test_damaged_journal_is_one_line_and_stops_no_other(server, two_kept, tmp_path, experiment, damage):
    lines = two_kept[0].read_text().splitlines()
    lines[3] = damage
    two_kept[0].write_text("\n".join(lines) + "\n")
    with pytest.raises(MonaiCaeError) as told:
        list(sync(tmp_path))
    assert f"{two_kept[0]}, line 4, is not what monai-cae writes" in str(told.value) and "\n" not in str(told.value)
    runs = runs_of(server, experiment)
    assert set(runs) == {"b"}
    assert_complete(page(server, runs["b"]))


def test_lost_copy_of_a_file_is_told_and_stops_nothing_else(server, two_kept, tmp_path, experiment):
    next(two_kept[0].parent.rglob("roc.png")).unlink()
    with pytest.raises(MonaiCaeError, match=r"roc\.png is missing.*delete it to give that up"):
        list(sync(tmp_path))
    seen = page(server, runs_of(server, experiment)["a"])
    assert seen["files"] == {"config.json"} and len(seen["loss"]) == 3


@pytest.mark.parametrize(("fault", "said"), [("403", "403"), ("404", "404")])
def test_refusal_at_the_start_is_a_mistake_and_nothing_is_kept(server, track, tmp_path, fault, said):
    server.break_down(fault)
    with pytest.raises(MonaiCaeError, match=f"refuses to open the run.*{said}.*check --tracking_uri"), track():
        pass
    assert not any(tmp_path.iterdir())


def test_no_such_store(tmp_path):
    with (
        pytest.raises(MonaiCaeError, match="not 'ftp://host'"),
        TrackedRun(tracking_uri="ftp://me:word@host", experiment_name="e", stage="s", output_dir=str(tmp_path)),
    ):
        pass


@pytest.mark.fault("the run is deleted in MLflow during training", "training goes on; `sync` names what was refused")
def test_run_that_is_deleted_in_mlflow_goes_on_training(server, track, tmp_path, capsys):
    with track() as run:
        MlflowClient(server.uri).delete_run(run.run_id)
        log_all(run, tmp_path)
    assert capsys.readouterr().out.count("refuses some of") == 1
    with pytest.raises(MonaiCaeError, match=f"refuses some of .*{run.run_id}.*delete it to give that up"):
        list(sync(tmp_path))
    MlflowClient(server.uri).restore_run(run.run_id)
    list(sync(tmp_path))
    assert_complete(page(server, run.run_id))


def test_password_is_neither_written_nor_printed(server, track, tmp_path, capsys, monkeypatch):
    uri = server.uri.replace("//", "//me:pa55@")
    server.stop()
    with track(tracking_uri=uri) as run:
        run.log_params({"tracking_uri": uri})
        run.log_json({"tracking_uri": uri}, "config.json")
    assert server.uri in capsys.readouterr().out
    server.start()
    for path in tmp_path.rglob("*"):
        assert path.is_dir() or b"pa55" not in path.read_bytes(), path
    monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
    assert main(["sync", str(tmp_path)]) == 0
    printed = capsys.readouterr()
    assert "pa55" not in printed.out + printed.err


def test_what_mlflow_knows_of_earlier_runs_is_not_known_without_it(server, track, tmp_path):
    with track("first") as first:
        assert first.mark_and_count("test_sets", ["a"]) == 0
    with track("second") as second:
        assert second.mark_and_count("test_sets", ["a"]) == 1
        server.stop()
        assert second.mark_and_count("test_sets", ["b"]) is None
        server.start()
    client = MlflowClient(server.uri)
    tags = [client.get_run(run.run_id).data.tags["test_sets"] for run in (first, second)]
    assert tags[0] != tags[1]  # the second's is that of ["b"], sent when MLflow was back


@pytest.mark.fault("the SQLite database is locked", "kept, then sent")
def test_locked_database(tracking_uri, tmp_path, monkeypatch):
    monkeypatch.setattr(limits, "WAIT_SECONDS", 1.5)
    monkeypatch.setattr(limits, "PAUSE_SECONDS", 0.0)
    with TrackedRun(tracking_uri=tracking_uri, experiment_name="locked", stage="s", output_dir=str(tmp_path)) as run:
        other = sqlite3.connect(tracking_uri.removeprefix("sqlite:///"))
        other.execute("BEGIN EXCLUSIVE")
        run.log_metrics({"early": 0.5}, 1)
        assert (tmp_path / "unsent" / run.run_id).is_dir()
        other.rollback()
        other.close()
    history = MlflowClient(tracking_uri).get_metric_history(run.run_id, "early")
    assert [(point.step, point.value) for point in history] == [(1, 0.5)]
    assert not any(tmp_path.iterdir())


def test_file_that_is_no_database_is_a_mistake(tmp_path):
    (tmp_path / "mlruns.db").write_text("not a database, but long enough to be looked at" * 20)
    uri = f"sqlite:///{tmp_path}/mlruns.db"
    with (
        pytest.raises(MonaiCaeError, match="is not an MLflow database"),
        TrackedRun(tracking_uri=uri, experiment_name="e", stage="s", output_dir=str(tmp_path)),
    ):
        pass


def test_limits_in_earnest():
    """What the documentation promises; MLflow is told not to try again, nor to wait as long as a server asks."""
    assert (limits.REQUEST_SECONDS, limits.WAIT_SECONDS, limits.PAUSE_SECONDS) == (5, 10, 30)
    with pytest.raises(StoreAway, match="Connection refused"):
        Store("http://127.0.0.1:9").ask(lambda client: client.get_run("x"))
    assert os.environ["MLFLOW_HTTP_REQUEST_TIMEOUT"] == "5"
    assert os.environ["MLFLOW_HTTP_REQUEST_MAX_RETRIES"] == "0"
    assert os.environ["MLFLOW_HTTP_RESPECT_RETRY_AFTER_HEADER"] == "false"


def test_journal_says_where_it_belongs(server, two_kept):
    header = json.loads(two_kept[0].read_text().splitlines()[0])
    assert header["tracking_uri"] == server.uri and header["run_id"] == two_kept[0].parent.name
