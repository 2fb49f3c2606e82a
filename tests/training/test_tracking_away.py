"""MLflow is away: training goes on, nothing is lost, nothing waits long. The server is MLflow's own, with faults."""

from __future__ import annotations

import json
import math
import os
import shutil
import signal
import sqlite3
import time
import warnings
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path

import killing
import pytest
import sqlalchemy
from flaky_mlflow import FlakyServer
from mlflow import MlflowClient

from monai_cae.cli import main
from monai_cae.errors import MonaiCaeError
from monai_cae.tracking import Store, StoreAway, limits, sync
from monai_cae.training import TrackedRun

WAIT = 0.6  # seconds here where a server hangs, for what are ten in earnest


@pytest.fixture(scope="module")
def empty(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A database without runs, to be copied: making one costs seconds."""
    path = tmp_path_factory.mktemp("empty") / "mlruns.db"
    MlflowClient(f"sqlite:///{path}")
    return path


@pytest.fixture(scope="module")
def application(empty: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[object]:
    database = shutil.copyfile(empty, tmp_path_factory.mktemp("server") / "server.db")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("_MLFLOW_SERVER_FILE_STORE", f"sqlite:///{database}")
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
    monkeypatch.setattr(limits, "PAUSE_SECONDS", 0.05)
    monkeypatch.setattr(limits, "MIRROR_SECONDS", 0.05)
    flaky = FlakyServer(application)
    flaky.start()
    yield flaky
    flaky.stop()


@pytest.fixture
def experiment(request: pytest.FixtureRequest) -> str:
    return request.node.name


@pytest.fixture
def track(server: FlakyServer, experiment: str, empty: Path, tmp_path: Path) -> Callable[..., TrackedRun]:
    def make(stage: str = "pretrain", folder: str = "", **options: str) -> TrackedRun:
        local = tmp_path / folder / "mlruns.db"
        if not local.exists() and "parent_run_id" not in options:  # nested runs go to the database of their parent
            local.parent.mkdir(exist_ok=True)
            shutil.copyfile(empty, local)
        where = {"tracking_uri": server.uri, "output_dir": str(tmp_path / folder), **options}
        return TrackedRun(stage=stage, **{"experiment_name": experiment, **where})

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
    there = client.get_experiment_by_name(experiment)
    found = client.search_runs([there.experiment_id]) if there else []
    by_stage = {run.data.tags["stage"]: run.info.run_id for run in found}
    assert len(by_stage) == len(found)
    return by_stage


def assert_complete(seen: dict) -> None:
    assert seen["status"] == "FINISHED"
    assert seen["loss"] == [(1, 0.5), (2, 1.0), (3, 1.5)]
    assert seen["files"] == {"config.json", "figures/roc.png"}
    assert seen["params"]["cohort.task"] == "ad" and "python" in seen["params"]
    assert seen["tags"]["mlflow.note.content"] == "all of it" and seen["tags"]["data"] == "synthetic"


def until(condition: Callable[[], object]) -> None:
    """Wait for what another thread does."""
    deadline = time.monotonic() + killing.LONGEST
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.02)


@pytest.fixture
def said(capsys: pytest.CaptureFixture[str]) -> Callable[[], str]:
    """All that has been printed so far."""
    told: list[str] = []
    return lambda: told.append(capsys.readouterr().out) or "".join(told)


@pytest.fixture
def short_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "WAIT_SECONDS", WAIT)


def assert_nothing_left(folder: Path) -> None:
    assert list(sync(folder)) == [f"there is nothing to send below {folder}"]


def test_nothing_is_left_where_mlflow_answers(server, track, tmp_path, experiment):
    with track() as run:
        log_all(run, tmp_path)
    runs = runs_of(server, experiment)
    assert_complete(page(server, runs["pretrain"]))
    assert runs["pretrain"] in run.address and server.uri in run.address
    server.stop()
    assert_nothing_left(tmp_path)


@pytest.mark.slow
def test_what_is_told_is_at_the_server_while_the_run_goes_on(server, track, tmp_path, experiment):
    with track("experiment") as parent, track("train", "repeat_1", parent_run_id=parent.run_id) as run:
        log_all(run, tmp_path)
        run.log_metrics({"early": math.nan, "loss": math.inf}, 7)
        run.send()
        until(lambda: {"train", "experiment"} <= runs_of(server, experiment).keys())
        there = runs_of(server, experiment)["train"]
        until(lambda: (seen := page(server, there))["early"] and len(seen["loss"]) == 4)  # they may come in two batches
        seen = page(server, there)
        assert seen["status"] == "RUNNING" and seen["params"]["cohort.task"] == "ad"
        assert seen["early"][0][0] == 7 and math.isnan(seen["early"][0][1])
    assert page(server, there)["tags"]["mlflow.parentRunId"] == runs_of(server, experiment)["experiment"]
    assert not (tmp_path / "repeat_1").exists()  # both are in the experiment's database


@pytest.mark.fault(
    "MLflow down from start to end, then `monai-cae sync`",
    "page complete, with the training's times; a second `sync` finds nothing to send",
)
def test_down_for_the_whole_run_and_sent_by_hand(server, track, tmp_path, experiment, capsys):
    server.stop()
    started = time.time()
    with track() as run:
        log_all(run, tmp_path)
    ended = time.time()
    said = capsys.readouterr().out
    assert said.count("training continues") == 1 and "Connection refused" in said
    assert f"monai-cae sync {tmp_path}" in said
    assert main(["sync", str(tmp_path)]) == 1
    refused = capsys.readouterr().err
    assert refused.count("\n") == 1 and "not all sent of 1 run" in refused and "Connection refused" in refused

    server.start()
    time.sleep(0.5)  # the page must not take the time of sending for that of training
    assert main(["sync", str(tmp_path)]) == 0
    said = capsys.readouterr().out.splitlines()
    there = runs_of(server, experiment)["pretrain"]
    assert said[0] == f"{run.name} (run {there}): 3 metrics, 2 files sent"
    seen = page(server, there)
    assert_complete(seen)
    assert seen["seconds"] <= ended - started + 0.01
    assert seen["tags"]["monai_cae.id"] == run.run_id
    assert main(["sync", str(tmp_path)]) == 0
    assert "nothing to send" in capsys.readouterr().out


@pytest.mark.fault(
    "MLflow dies, hangs, answers 500, 503 with `Retry-After: 3600`, a web page, or a byte at a time, then comes back",
    "page complete, every metric once; one line when it went, one when it came back",
)
@pytest.mark.parametrize(
    "fault", ["dead", "drip", *(pytest.param(name, marks=pytest.mark.slow) for name in ("500", "503", "html", "hang"))]
)
def test_away_in_the_middle_and_back(server, track, tmp_path, experiment, said, fault, monkeypatch):
    with track() as run:
        run._sent_at = 0.0
        run.log_metrics({"early": 0.5}, 1)
        until(lambda: "pretrain" in runs_of(server, experiment))
        monkeypatch.setattr(run.server, "seconds", WAIT)
        server.break_down(fault)
        run._sent_at = 0.0
        run.log_metrics({"early": 1.0}, 2)
        until(lambda: "training continues" in said())
        monkeypatch.setattr(run.server, "seconds", 10)
        server.mend()
        log_all(run, tmp_path)
    there = runs_of(server, experiment)
    assert there.keys() == {"pretrain"}
    seen = page(server, there["pretrain"])
    assert_complete(seen)
    assert seen["early"] == [(1, 0.5), (2, 1.0)]
    assert said().count("training continues") == 1 and said().count("answers again") == 1
    assert_nothing_left(tmp_path)


def test_json_that_is_not_mlflows_is_no_answer(server, track, tmp_path, experiment):
    server.break_down("json")
    with track() as run:
        log_all(run, tmp_path)
    server.mend()
    list(sync(tmp_path))
    assert_complete(page(server, runs_of(server, experiment)["pretrain"]))


@pytest.mark.fault("MLflow down at the start, back before the end", "page complete, nothing left to send")
def test_back_before_a_run_that_began_without_it_ends(server, track, tmp_path, experiment):
    server.stop()
    with track() as run:
        server.start()
        log_all(run, tmp_path)
        run.send()
        until(lambda: "pretrain" in runs_of(server, experiment))
    assert_complete(page(server, runs_of(server, experiment)["pretrain"]))
    assert_nothing_left(tmp_path)


@pytest.mark.fault(
    "MLflow down or hanging for a whole experiment", "asked twice in all; after `sync` all pages complete and nested"
)
@pytest.mark.parametrize("fault", ["dead", pytest.param("hang", marks=pytest.mark.slow)])
@pytest.mark.usefixtures("short_waits")
def test_experiment_of_three_stages_asks_twice(server, track, tmp_path, experiment, fault, monkeypatch):
    monkeypatch.setattr(limits, "PAUSE_SECONDS", 1000.0)
    asked = []
    ask = Store.ask

    def counting(store, question):
        if store.database is None:
            asked.append(time.monotonic())
        return ask(store, question)

    monkeypatch.setattr(Store, "ask", counting)
    server.break_down(fault)
    with track("experiment") as parent:
        for stage in ("pretrain", "train", "evaluate"):
            with track(stage, "repeat_1", parent_run_id=parent.run_id) as run:
                log_all(run, tmp_path)
                run.send()
        parent.log_metrics({"loss": 9.0})
        assert len(asked) == 1
        ending = time.monotonic()
    assert len(asked) == 2  # at the start, and once more at the end
    assert time.monotonic() - ending < WAIT + 5
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
        server.start()
        until(lambda: "experiment" in runs_of(server, experiment))
        with track("train", "repeat_1/fold_1", parent_run_id=parent.run_id) as run:
            log_all(run, tmp_path)
        runs = runs_of(server, experiment)
        assert_complete(page(server, runs["train"]))
        parent.log_metrics({"loss": 9.0})
    assert runs_of(server, experiment) == runs and runs.keys() == {"experiment", "train"}
    assert page(server, runs["train"])["tags"]["mlflow.parentRunId"] == runs["experiment"]
    assert page(server, runs["experiment"])["loss"] == [(0, 9.0)]
    assert_nothing_left(tmp_path)


def test_a_later_stage_sends_what_an_earlier_one_could_not(server, track, tmp_path, experiment):
    server.stop()
    with track("pretrain") as first:
        log_all(first, tmp_path)
    server.start()
    with track("train"):
        pass
    assert_complete(page(server, runs_of(server, experiment)["pretrain"]))
    assert_nothing_left(tmp_path)


@pytest.mark.fault("MLflow's artifact store fails", "metrics are there at once, files after `sync`")
def test_broken_artifact_store_holds_up_no_metrics(server, track, tmp_path, experiment, said):
    server.break_down("files")
    with track() as run:
        log_all(run, tmp_path)
        run.send()
        client = MlflowClient(server.uri)
        until(lambda: "pretrain" in runs_of(server, experiment))
        until(lambda: len(client.get_metric_history(runs_of(server, experiment)["pretrain"], "loss")) == 3)
    assert said().count("does not take files") == 1
    there = runs_of(server, experiment)["pretrain"]
    assert MlflowClient(server.uri).get_run(there).info.status == "FINISHED"
    with pytest.raises(MonaiCaeError, match=r"does not take files \(.*500"):
        list(sync(tmp_path))
    server.mend()
    list(sync(tmp_path))
    assert_complete(page(server, there))


@pytest.mark.fault("a run that began without MLflow is resumed", "one run with all of it")
@pytest.mark.parametrize("sent_before", [False, True])
def test_resumed_run_that_began_without_mlflow(server, track, tmp_path, experiment, sent_before):
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
    assert_nothing_left(tmp_path)


def test_resumed_at_another_server_is_there_as_a_whole(server, track, tmp_path, experiment, empty, capsys):
    elsewhere = shutil.copyfile(empty, tmp_path / "elsewhere.db")
    server.stop()
    with track(tracking_uri="http://127.0.0.1:9") as run:
        run.log_metrics({"early": 0.5}, 1)
    server.start()
    with track(resumed_run_id=run.run_id) as resumed:
        log_all(resumed, tmp_path)
    seen = page(server, runs_of(server, experiment)["pretrain"])
    assert_complete(seen)
    assert seen["early"] == [(1, 0.5)]
    with track(resumed_run_id=run.run_id, tracking_uri=f"sqlite:///{elsewhere}") as other:
        assert other.resumed_run_id == "" and other.run_id != run.run_id
    assert "is gone: continuing in a new one" in capsys.readouterr().out


@pytest.mark.fault(
    "MLflow dies during `sync`, after 1 to 11 requests", "the next `sync` completes the page, every metric once"
)
@pytest.mark.parametrize(
    "requests", [3, *(pytest.param(number, marks=pytest.mark.slow) for number in (1, 5, 7, 9, 11))]
)
def test_sync_that_is_broken_off_goes_on(server, track, tmp_path, experiment, requests):
    server.stop()
    with track() as run:
        log_all(run, tmp_path)
    server.start()
    server.break_down("500", after=requests)
    with pytest.raises(MonaiCaeError, match=r"not all sent of 1 run.*500"):
        list(sync(tmp_path))
    server.mend()
    list(sync(tmp_path))
    assert_complete(page(server, runs_of(server, experiment)["pretrain"]))
    assert_nothing_left(tmp_path)


@pytest.mark.fault("`sync` while the run is open", "nothing lost, nothing twice")
def test_sync_during_a_run_takes_nothing_from_it(server, track, tmp_path, experiment, monkeypatch):
    monkeypatch.setattr(limits, "PAUSE_SECONDS", 1000.0)
    server.stop()
    with track() as run:
        run.log_metrics({"early": 0.5}, 1)
        server.start()
        assert any("it has not ended" in line for line in sync(tmp_path))
        assert_nothing_left(tmp_path)
        log_all(run, tmp_path)
    seen = page(server, runs_of(server, experiment)["pretrain"])
    assert_complete(seen)
    assert seen["early"] == [(1, 0.5)]
    assert_nothing_left(tmp_path)


def test_several_that_sync_at_once_make_one_run(server, track, tmp_path, experiment):
    server.stop()
    with track() as run:
        log_all(run, tmp_path)
    server.start()
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(lambda _: list(sync(tmp_path)), range(4)))
    assert_complete(page(server, runs_of(server, experiment)["pretrain"]))


@pytest.mark.fault(
    "SIGKILL of a training, also while MLflow is down, then `sync`", "every metric that was written, once"
)
@pytest.mark.parametrize("fault", [pytest.param("", marks=pytest.mark.slow), "dead"])
def test_killed_training_is_sent_by_hand(server, track, tmp_path, experiment, discs, fault, empty):
    output = tmp_path / "out"
    output.mkdir()
    shutil.copyfile(empty, output / "mlruns.db")
    if fault:
        server.break_down(fault)
    settings = {**killing.SMALL, "max_epochs": 5000, "patience": 5000, "dataset_dir": str(discs)}
    settings |= {"tracking_uri": server.uri, "experiment_name": experiment, "output_dir": str(output)}
    process = killing.start(["pretrain.json"], tmp_path / "log", **settings)
    client = MlflowClient(f"sqlite:///{output}/mlruns.db")

    def written() -> list[tuple[int, float]]:
        found = client.get_experiment_by_name(experiment)
        runs = client.search_runs([found.experiment_id]) if found else []
        points = [point for run in runs for point in client.get_metric_history(run.info.run_id, "train_loss")]
        return [(point.step, point.value) for point in points]

    until(lambda: len(written()) > 3)
    assert killing.kill(process, signal.SIGKILL) == -signal.SIGKILL
    server.mend()
    assert any("it has not ended" in line for line in sync(output))
    there, server_client = runs_of(server, experiment)["pretrain"], MlflowClient(server.uri)
    history = server_client.get_metric_history(there, "train_loss")
    assert sorted((point.step, point.value) for point in history) == sorted(written())
    assert {"config.json", "audit.json"} <= {file.path for file in server_client.list_artifacts(there)}
    assert_nothing_left(output)


@pytest.fixture
def two_kept(server, track, tmp_path) -> list[TrackedRun]:
    """Two runs that were never sent, in a database each; the server is there again."""
    server.stop()
    runs = [track(folder, folder) for folder in ("a", "b")]
    for run in runs:
        with run:
            log_all(run, tmp_path)
    server.start()
    return runs


@pytest.mark.fault("a truncated database, or a file that is not one", "one line names it; other runs are sent")
@pytest.mark.parametrize("content", [b"", b"not a database, but long enough to be looked at" * 20, None])
def test_damaged_database_is_one_line_and_stops_no_other(server, two_kept, tmp_path, experiment, content):
    database = tmp_path / "a" / "mlruns.db"
    database.write_bytes(database.read_bytes()[:20_000] if content is None else content)
    with pytest.raises(MonaiCaeError, match=r"can't (read|use)") as told:
        list(sync(tmp_path))
    assert str(database) in str(told.value) and "\n" not in str(told.value)
    runs = runs_of(server, experiment)
    assert set(runs) == {"b"}
    assert_complete(page(server, runs["b"]))


@pytest.mark.fault(
    "a database with a forged run ID, links among a run's files", "no file outside `mlruns` next to it is read"
)
def test_files_outside_are_not_sent(server, two_kept, tmp_path, experiment):
    secret = tmp_path / "secret" / "artifacts" / "id_rsa"
    secret.parent.mkdir(parents=True)
    secret.write_text("secret")
    artifacts = tmp_path / "a" / "mlruns" / two_kept[0].run_id / "artifacts"
    (artifacts / "link").symlink_to(secret)
    (artifacts / "folder").symlink_to(secret.parent)
    with closing(sqlite3.connect(tmp_path / "b" / "mlruns.db")) as forged:
        for table in ("runs", "tags", "params", "metrics", "latest_metrics"):
            forged.execute(f"UPDATE {table} SET run_uuid = '../../secret'")
        forged.commit()
    list(sync(tmp_path))
    runs = runs_of(server, experiment)
    assert_complete(page(server, runs["a"]))
    assert page(server, runs["b"])["files"] == set()


def test_output_that_was_moved_is_sent_with_its_files(server, two_kept, tmp_path, experiment):
    shutil.move(tmp_path / "a", tmp_path / "moved")
    list(sync(tmp_path / "moved"))
    assert_complete(page(server, runs_of(server, experiment)["a"]))


def test_datasets_and_signature_are_sent(server, track, tmp_path, experiment):
    people = [{"subject": f"person {number}", "label": number % 2} for number in (1, 2, 3)]
    with track(cohort="/somewhere/oasis1") as run:
        run.log_datasets({"training": people, "test": people[:1]}, True)
        run.log_model((1, 16, 16), (1,), weights="model.pt")
    client, there = MlflowClient(server.uri), runs_of(server, experiment)["pretrain"]
    sent = client.get_run(there)
    found = {one.tags[0].value: one.dataset for one in sent.inputs.dataset_inputs}
    assert {name: dataset.name for name, dataset in found.items()} == {
        "training": "oasis1 training",
        "test": "oasis1 test",
    }
    profile = json.loads(found["training"].profile)
    assert profile == {"scans": 3, "subjects": 3, "AD": 2, "HC": 1, "synthetic": True}
    assert found["training"].digest != found["test"].digest and "person" not in str(found["training"].to_dictionary())
    assert (sent.info.run_name, sent.data.tags["cohort"]) == ("oasis1 pretrain", "oasis1")
    assert {file.path for file in client.list_artifacts(there, "model")} == {"model/MLmodel"}


def test_only_what_was_meant_for_a_server_is_sent_unless_one_is_given(server, empty, tmp_path, experiment, monkeypatch):
    shutil.copyfile(empty, tmp_path / "mlruns.db")
    local = f"sqlite:///{tmp_path}/mlruns.db"
    with TrackedRun(tracking_uri=local, experiment_name=experiment, stage="pretrain", output_dir=str(tmp_path)) as run:
        log_all(run, tmp_path)
    for environment in (server.uri, local):
        monkeypatch.setenv("MLFLOW_TRACKING_URI", environment)
        assert_nothing_left(tmp_path)
    assert list(sync(tmp_path, local)) == [f"there is nothing to send below {tmp_path}"]
    assert server.asked == 0
    list(sync(tmp_path, server.uri))
    assert_complete(page(server, runs_of(server, experiment)["pretrain"]))


@pytest.mark.parametrize(("fault", "said"), [("403", "403"), ("404", "404")])
def test_refusal_at_the_start_is_a_mistake_and_nothing_is_kept(server, track, tmp_path, fault, said):
    server.break_down(fault)
    with pytest.raises(MonaiCaeError, match=f"refuses to open the run.*{said}.*check --tracking_uri"), track():
        pass
    assert_nothing_left(tmp_path)


def test_deleted_experiment_is_a_mistake(server, track, tmp_path, experiment):
    client = MlflowClient(server.uri)
    client.delete_experiment(client.create_experiment(experiment))
    with pytest.raises(MonaiCaeError, match=r"refuses to open the run.*is deleted there"), track():
        pass
    assert_nothing_left(tmp_path)


@pytest.mark.parametrize("name", ['it\'s "odd" `name` = 1; --', "Äpfel/../.. %2F #1", "a" * 200])
def test_odd_names(server, track, tmp_path, name):
    with track("first", experiment_name=name, name=name) as run:
        log_all(run, tmp_path)
        assert run.mark_and_count("test_sets", ["a"]) == 0
    with track("second", experiment_name=name, parent_run_id=run.run_id):
        pass
    runs = runs_of(server, name)
    assert_complete(page(server, runs["first"]))
    assert page(server, runs["second"])["tags"]["mlflow.parentRunId"] == runs["first"]


def test_no_such_store(tmp_path):
    with (
        pytest.raises(MonaiCaeError, match="not 'ftp://host'"),
        TrackedRun(tracking_uri="ftp://me:word@host", experiment_name="e", stage="s", output_dir=str(tmp_path)),
    ):
        pass


@pytest.mark.fault("the run is deleted in MLflow during training", "training continues; `sync` names what was refused")
def test_run_that_is_deleted_in_mlflow_goes_on_training(server, track, tmp_path, experiment, capsys):
    with track() as run:
        until(lambda: "pretrain" in runs_of(server, experiment))
        there = runs_of(server, experiment)["pretrain"]
        MlflowClient(server.uri).delete_run(there)
        log_all(run, tmp_path)
    assert capsys.readouterr().out.count("refuses some of") == 1
    with pytest.raises(MonaiCaeError, match=f"refuses {run.name}.*{there} is deleted there: restore it"):
        list(sync(tmp_path))
    MlflowClient(server.uri).restore_run(there)
    list(sync(tmp_path))
    assert_complete(page(server, there))


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
    monkeypatch.delenv("MLFLOW_TRACKING_URI")
    assert_nothing_left(tmp_path)


def test_what_mlflow_knows_of_earlier_runs_is_not_known_without_it(server, track, experiment):
    with track("first") as first:
        assert first.mark_and_count("test_sets", ["a"]) == 0
    with track("second", "elsewhere") as second:
        assert second.mark_and_count("test_sets", ["a"]) == 1
        server.stop()
        assert second.mark_and_count("test_sets", ["b"]) is None
        server.start()
    client, runs = MlflowClient(server.uri), runs_of(server, experiment)
    tags = [client.get_run(runs[stage]).data.tags["test_sets"] for stage in ("first", "second")]
    assert tags[0] != tags[1]  # the second's is that of ["b"], sent when MLflow was back


@pytest.fixture
def own_database(empty, tmp_path) -> str:
    """A database of the user's own, and one already made in the place of those that can't be written."""
    shutil.copyfile(empty, tmp_path / "own.db")
    (tmp_path / "out").mkdir()
    shutil.copyfile(empty, tmp_path / "out" / "unsent.db")
    return f"sqlite:///{tmp_path}/own.db"


def in_own(own_database: str, tmp_path: Path, **options: str) -> TrackedRun:
    where = {"tracking_uri": own_database, "output_dir": str(tmp_path / "out")}
    return TrackedRun(experiment_name="own", stage="s", **where, **options)


def lock(database: str) -> sqlite3.Connection:
    other = sqlite3.connect(database.removeprefix("sqlite:///"))
    other.execute("BEGIN EXCLUSIVE")
    return other


@pytest.mark.fault("the SQLite database is locked, at the start or later", "kept in `unsent.db`, then sent; one run")
@pytest.mark.parametrize("at_start", [False, True])
@pytest.mark.parametrize("released", ["before the end", "after the end", "resumed"])
def test_locked_database(own_database, tmp_path, monkeypatch, at_start, released, capsys):
    monkeypatch.setattr(limits, "LOCAL_SECONDS", 2.0)
    monkeypatch.setattr(limits, "WAIT_SECONDS", 5.0)
    monkeypatch.setattr(limits, "PAUSE_SECONDS", 1000.0)
    other = lock(own_database) if at_start else None
    with in_own(own_database, tmp_path) as run:
        other = other or lock(own_database)
        run.log_metrics({"loss": 0.5}, 1)
        run.send()
        if released == "before the end":
            other.close()
    other.close()
    assert capsys.readouterr().out.count("training continues") == 1
    if released == "after the end":
        for _ in range(20):  # within WAIT_SECONDS a slow machine sends only some of it
            if "nothing to send" in " ".join(sync(tmp_path)):
                break
    if released == "resumed":
        with in_own(own_database, tmp_path, resumed_run_id=run.run_id) as resumed:
            resumed.log_metrics({"loss": 0.25}, 2)
    client = MlflowClient(own_database)
    (found,) = client.search_runs([client.get_experiment_by_name("own").experiment_id])
    assert found.info.status == "FINISHED" and "python" in found.data.params
    assert at_start or found.info.run_id == run.run_id
    points = client.get_metric_history(found.info.run_id, "loss")
    expected = [(1, 0.5), (2, 0.25)] if released == "resumed" else [(1, 0.5)]
    assert [(point.step, point.value) for point in points] == expected
    assert_nothing_left(tmp_path)


@pytest.mark.fault("the SQLite database is read-only, or in a folder that can't be created", "as if it were locked")
@pytest.mark.parametrize("fault", ["read-only", "folder"])
def test_database_that_can_not_be_written(own_database, tmp_path, fault, monkeypatch):
    database = tmp_path / "own.db"
    if fault == "folder":
        (tmp_path / "file").write_text("")
        own_database = f"sqlite:///{tmp_path}/file/own.db"
    else:
        from mlflow.store.tracking.sqlalchemy_store import SqlAlchemyStore

        def refusing(*args: object, **options: object) -> None:
            raise sqlalchemy.exc.OperationalError("INSERT", {}, sqlite3.OperationalError("readonly database"))

        monkeypatch.setattr(limits, "PAUSE_SECONDS", 1000.0)
        create = SqlAlchemyStore.create_experiment
        monkeypatch.setattr(
            SqlAlchemyStore,
            "create_experiment",
            lambda store, *args, **options: (refusing if "own.db" in store.db_uri else create)(store, *args, **options),
        )
    with in_own(own_database, tmp_path) as run:
        run.log_metrics({"loss": 0.5}, 1)
    client = MlflowClient(f"sqlite:///{tmp_path}/out/unsent.db")
    assert client.get_metric_history(run.run_id, "loss")[0].value == 0.5
    with pytest.raises(MonaiCaeError, match=r"not all sent of 1 run"):
        list(sync(tmp_path))
    assert database.is_file()


def test_database_in_a_folder_that_can_not_be_written_is_one_line(tmp_path):
    (tmp_path / "out").write_text("a file")
    uri = f"sqlite:///{tmp_path}/out/mlruns.db"
    with (
        pytest.raises(MonaiCaeError, match=r"can't write .*unsent\.db"),
        TrackedRun(tracking_uri=uri, experiment_name="e", stage="s", output_dir=str(tmp_path / "out")),
    ):
        pass


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
