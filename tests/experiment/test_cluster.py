"""An experiment on workers: the same results as in one process, whatever dies or fails on the way."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from mlflow import MlflowClient
from tiny import mistake, write_discs

from monai_cae.cli import main
from monai_cae.training.stages.checkpointing import Resuming

pytest.importorskip("distributed")
SELECT = {"candidates": {"frozen": {}, "slower": {"train": {"learning_rate": 1e-4}}}, "inner_folds": 2}


@pytest.fixture(scope="module")
def cluster():
    """Two processes that several experiments use, as a scheduler that runs already."""
    import dask
    from distributed import LocalCluster

    nowhere = "127.0.0.1:0"
    with (
        dask.config.set({"distributed.worker.daemon": False, "distributed.worker.preload": ["patient"]}),
        LocalCluster(
            n_workers=2, threads_per_worker=1, memory_limit=0, dashboard_address=nowhere, silence_logs=50
        ) as cluster,
    ):
        yield cluster.scheduler_address


@pytest.fixture(scope="module")
def run(run_bundle, discs):
    """An experiment whose pretraining is killed and one of whose variants fails, unless that has happened before."""

    def run(output: Path, marks: Path, **options: Any) -> None:
        inferer = {"_target_": "breaking.Once", "precision": "@precision", "compile": "@compile"}
        killed = {**inferer, "marker": str(marks / "killed"), "how": "kill", "batch": 12}
        failed = {**inferer, "marker": str(marks / "failed"), "how": "fail", "batch": 3}
        settings = {
            "stages": {
                "pretrain": {"train#inferer": killed, "figures": {}},
                "train": {"learn": "frozen", "figures": {}},
                "evaluate": {"figures": {}},
            },
            "variants": {"fragile": {"train": {"train#inferer": failed}}},
            "baselines": ["majority"],
            "experiment_name": str(output),
            "max_epochs": 4,
            "save_every": 0,
            "repeats": 1,
        }
        run_bundle("experiment.yaml", discs, output, **{**settings, **options})

    return run


@pytest.fixture(scope="module")
def marked(tmp_path_factory):
    """A folder that says that all has gone wrong before."""
    folder = tmp_path_factory.mktemp("marks")
    for name in ("killed", "failed"):
        (folder / name).touch()
    return folder


@pytest.fixture(scope="module")
def whole(run, marked, tmp_path_factory):
    """In one process, never ended."""
    output = tmp_path_factory.mktemp("whole")
    run(output, marked)
    return output


def steps(output: Path) -> dict[str, Any]:
    return json.loads((output / "repeat_1" / "steps.json").read_text())


def runs(uri: str, output: Path) -> dict[str, Any]:
    """What MLflow has of an experiment: run -> whether it is nested in it, how it ended, what it was given and gave."""
    client = MlflowClient(uri)
    experiment = client.get_experiment_by_name(str(output))
    found = client.search_runs([experiment.experiment_id])
    (parent,) = [run.info.run_id for run in found if "mlflow.parentRunId" not in run.data.tags]
    assert parent == json.loads((output / "experiment.json").read_text())["run_id"]
    assert len({run.info.run_name for run in found}) == len(found)
    told = {}
    for run in found:
        curve = client.get_metric_history(run.info.run_id, "train_loss")
        values = {name: value for name, value in run.data.metrics.items() if name != "seconds" and value == value}
        other = ("parent_run_id", "resume")
        given = {name: value.replace(str(output), "") for name, value in run.data.params.items() if name not in other}
        files = {item.path for item in client.list_artifacts(run.info.run_id)}
        nested = run.data.tags.get("mlflow.parentRunId", parent) == parent
        points = {(point.step, point.value) for point in curve}  # an epoch that is done again has two of the same
        name = run.info.run_name.replace(output.name, "")
        told[name] = nested, run.info.status, values, given, files, points
    return told


@pytest.mark.slow
def test_a_killed_worker_and_a_failing_step_cost_what_they_did(
    run, marked, cluster, tracking_uri, tmp_path, capsys, monkeypatch
):
    output, whole = tmp_path / "out", tmp_path / "whole"
    run(whole, marked, select=SELECT)
    told = mistake(run, output, tmp_path, cluster=cluster, select=SELECT)
    assert told == "1 step failed: what is finished is kept; the same command with --resume true does the rest"
    assert (tmp_path / "killed").exists() and (tmp_path / "failed").exists()
    printed = capsys.readouterr().out
    assert "| continuing after epoch " in printed
    assert (
        "repeat 1, fragile: failed: OSError: the disk of this node is full\n" in printed and "in __call__\n" in printed
    )
    assert steps(output).keys() == steps(whole).keys() - {"fragile"}
    run(output, tmp_path, select=SELECT, resume=True)
    assert (output / "predictions.csv").read_bytes() == (whole / "predictions.csv").read_bytes()
    assert (output / "selection.csv").read_bytes() == (whole / "selection.csv").read_bytes()


def test_what_a_job_of_an_array_has_begun_is_finished_by_workers(
    run, whole, marked, cluster, tracking_uri, tmp_path, monkeypatch
):
    output, seen = tmp_path / "out", []
    after_epoch = Resuming.after_epoch

    def interrupted(self, name, trainer):
        after_epoch(self, name, trainer)
        seen.append(name)
        if len(seen) == 2:
            raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(Resuming, "after_epoch", interrupted)
        with pytest.raises(KeyboardInterrupt):
            run(output, marked, part="1/1")
    assert not (output / "repeat_1" / "steps.json").exists() and not (output / "mlruns.db").exists()
    run(output, marked, resume=True, cluster=cluster)
    assert (output / "predictions.csv").read_bytes() == (whole / "predictions.csv").read_bytes()
    assert runs(tracking_uri, output) == runs(tracking_uri, whole)
    assert not [path.name for path in output.rglob(".*") if path.name != ".lock"]


@pytest.mark.slow
def test_a_worker_tests_a_network_on_a_cohort_as_this_process_does(
    whole, cluster, tracking_uri, tmp_path, capsys, monkeypatch
):
    monkeypatch.setattr(sys, "argv", sys.argv)
    monkeypatch.setattr(sys, "excepthook", sys.excepthook)
    cohort = write_discs(tmp_path / "cohort", first=24)

    def evaluate(out: Path, *further: str) -> int:
        known = ["--tracking_uri", tracking_uri, "--experiment_name", str(tmp_path), *further]
        return main(["evaluate", str(whole / "repeat_1"), str(cohort), str(out), *known])

    assert evaluate(tmp_path / "here") == 0
    assert evaluate(tmp_path / "there", "--cluster", cluster) == 0
    assert "report.html" in capsys.readouterr().out.rpartition("1 worker")[2]
    here, there = ((tmp_path / name / "predictions.csv").read_text() for name in ("here", "there"))
    assert here == there and here.count("\n") == 25
    client = MlflowClient(tracking_uri)
    experiment = client.get_experiment_by_name(str(tmp_path))
    one, other = client.search_runs([experiment.experiment_id])
    assert one.data.metrics["test_auc"] == other.data.metrics["test_auc"]
    assert evaluate(tmp_path / "there", "--cluster", cluster) == 1
    assert capsys.readouterr().err.count("\n") == 1 and (tmp_path / "there" / "predictions.csv").read_text() == here
    assert evaluate(tmp_path / "none", "--cluster", cluster, "--batch_size", "0") == 1
    assert "batch_size must be" in capsys.readouterr().err and not (tmp_path / "none").exists()
    (tmp_path / "file").touch()
    assert evaluate(tmp_path / "file", "--cluster", cluster) == 1
    assert capsys.readouterr().err.count("\n") == 1 and (tmp_path / "file").read_bytes() == b""
    away = "http://user:secret@127.0.0.1:9"
    assert evaluate(tmp_path / "away", "--cluster", cluster, "--tracking_uri", away) == 0
    told = capsys.readouterr()
    assert "monai-cae sync" in told.err and "secret" not in told.out + told.err
    assert (tmp_path / "away" / "predictions.csv").read_text() == here


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ({"part": 2}, "part must be one of several, such as 2/5, not 2"),
        ({"part": "0/2"}, "part must be one of several, such as 2/5, not '0/2'"),
        ({"part": "3/2"}, "part must be one of several, such as 2/5, not '3/2'"),
        ({"part": "1/2"}, "part 1/2: there are 1 splits to share, so at most 1 parts"),
        ({"part": "1/1", "cluster": "local:2"}, "--part is for jobs without a cluster"),
        ({"cluster": "local:many"}, "cluster local:N needs a number of processes"),
        pytest.param(
            {"cluster": "local:1", "device": "cuda", "overwrite": True},
            "no worker of local:1 has a GPU",
            marks=pytest.mark.skipif(torch.cuda.is_available(), reason="its worker would have the GPU"),
        ),
    ],
)
def test_what_can_not_be_is_refused_in_one_line(run, marked, tmp_path, options, told):
    assert told in mistake(run, tmp_path / "out", marked, **options)
    assert "device" in options or not (tmp_path / "out").exists()
