"""Tasks on processes of this machine: done in order, retried when a worker dies, heard by nobody else."""

from __future__ import annotations

import os
import signal
from operator import floordiv, mul
from pathlib import Path

import psutil
import pytest

from monai_cae.cluster.address import engine_of
from monai_cae.cluster.dask_engine import DaskEngine
from monai_cae.cluster.engine import Done, NotDone, Task, WorkerLost
from monai_cae.errors import MonaiCaeError

pytest.importorskip("distributed")


@pytest.fixture(scope="module")
def engine():
    with engine_of("local:2") as engine:
        yield engine


def die_once(marker: Path) -> int:
    """A worker that is killed, as for want of memory, the first time."""
    if not marker.exists():
        marker.touch()
        os.kill(os.getpid(), signal.SIGKILL)
    return os.getpid()


def die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def noisy(lines: int) -> None:
    for number in range(lines):
        print("line", number)
    raise MonaiCaeError("the third scan is empty")


def circle() -> None:
    """An error that is raised again from what it has led to."""
    first = ValueError("the first")
    try:
        raise RuntimeError("what it has led to") from first
    except RuntimeError as error:
        raise first from error


def test_an_error_stops_only_what_needs_it(engine):
    tasks = [
        Task("six", mul, (2, 3)),
        Task("broken", floordiv, (1, 0)),
        Task("after", mul, (1, 1), after=("six", "broken")),
        Task("and after that", mul, (1, 1), after=("after",)),
        Task("ten", mul, (2, 5), after=("six",)),
        Task("told", noisy, (100,)),
        Task("circle", circle),
    ]
    done = {one.key: one for one in engine.run(tasks)}
    assert done.keys() == {task.key for task in tasks}
    assert (done["six"].value, done["ten"].value, done["ten"].error) == (6, 10, None)
    assert isinstance(done["broken"].error, ZeroDivisionError) and "floordiv" not in str(done["broken"].error)
    assert isinstance(done["after"].error, NotDone) and str(done["after"].error) == "broken"
    assert isinstance(done["and after that"].error, NotDone) and str(done["and after that"].error) == "after"
    assert str(done["told"].error) == "the third scan is empty"
    assert "what it has led to" in str(done["circle"].error)
    assert done["told"].log.splitlines() == [f"line {number}" for number in range(80, 100)]


def test_what_comes_may_depend_on_what_is_done(engine):
    known: list[int] = []

    def tasks():
        yield Task("first", mul, (2, 3))
        while not known:
            yield None
        yield Task("second", mul, (known[0], 7))

    for one in engine.run(tasks()):
        known.append(one.value)
    assert known == [6, 42]
    with pytest.raises(RuntimeError, match="never given"):
        list(engine.run([None]))


def test_a_long_list_is_taken_as_it_is_done(engine):
    taken, most = 0, 0

    def tasks():
        nonlocal taken
        for taken in range(1, 41):
            yield Task(str(taken), mul, (taken, 2))

    values = []
    for number, one in enumerate(engine.run(tasks())):
        most = max(most, taken - number)
        values.append(one.value)
    assert sorted(values) == [2 * number for number in range(1, 41)] and most <= 2 + engine.workers


def test_a_task_whose_worker_is_killed_is_done_by_another(engine, tmp_path):
    first, second = engine.run([Task("killed", die_once, (tmp_path / "tried",)), Task("other", os.getpid)])
    assert first.error is second.error is None and (tmp_path / "tried").exists()


def test_a_task_that_kills_every_worker_is_given_up(engine, monkeypatch):
    monkeypatch.setattr(engine._cluster.scheduler, "allowed_failures", 1)
    done: dict[str, Done] = {}

    def tasks():
        yield Task("deadly", die)
        yield Task("after", mul, (1, 1), after=("deadly",))
        while "deadly" not in done:  # a task that waits on a worker while it dies is blamed, too
            yield None
        yield Task("other", mul, (3, 4))

    for one in engine.run(tasks()):
        done[one.key] = one
    assert isinstance(done["deadly"].error, WorkerLost) and "2 workers have died" in str(done["deadly"].error)
    assert isinstance(done["after"].error, NotDone) and done["other"].value == 12


def test_a_resource_that_no_worker_has_is_refused(engine):
    with pytest.raises(MonaiCaeError, match="no worker of local:2 has a GPU, which was asked for"):
        list(engine.run([Task("training", mul, (1, 1), needs={"GPU": 1})]))


def test_nobody_else_is_heard_and_no_thread_is_too_many(engine):
    me = psutil.Process()
    listening = [
        one.laddr.ip
        for process in (me, *me.children(recursive=True))
        for one in process.net_connections()
        if one.status == "LISTEN"
    ]
    assert len(listening) > 3 and {*listening} == {"127.0.0.1"}
    (threads,) = {one.value for one in engine.run([Task("threads", os.getenv, ("OMP_NUM_THREADS",))])}
    assert threads == os.environ.get("OMP_NUM_THREADS", str(max(1, len(os.sched_getaffinity(0)) // 2)))


@pytest.mark.parametrize(
    ("given", "told"),
    [
        ("local:0", "needs a number of processes"),
        ("local", "needs a number of processes"),
        ("spark:2", "cluster must be local:N, tls://"),
        (3, "cluster must be local:N"),
        ("tls://node7", "has no host and port"),
        ("tls://node7:70000", "has no host and port"),
        ("tls://node7:8786", "needs keys"),
        ("tcp://10.0.0.7:8786", "beyond this machine and not encrypted"),
        ("tcp://node7:8786", "beyond this machine and not encrypted"),
    ],
)
def test_an_address_that_can_not_be_is_refused_in_one_line(given, told, monkeypatch):
    monkeypatch.delenv("MONAI_CAE_CLUSTER_KEYS", raising=False)
    with pytest.raises(MonaiCaeError, match=told) as error:
        engine_of(given)
    assert "\n" not in str(error.value)


def test_a_cluster_that_does_not_answer_is_told_in_time(monkeypatch):
    monkeypatch.setattr("monai_cae.cluster.dask_engine.CONNECT_SECONDS", 0.5)
    with pytest.raises(MonaiCaeError, match=r"can't reach the cluster tcp://127.0.0.1:9 \(no answer"):
        engine_of("tcp://127.0.0.1:9").__enter__()


def test_workers_must_be_of_this_version_and_see_the_data(engine, tmp_path, monkeypatch):
    from distributed import Client

    def connect() -> tuple[Client, None]:
        return Client(engine._cluster, set_as_default=False), None

    with pytest.raises(MonaiCaeError, match=r"the worker tls://.* of local:2 does not see the data /nowhere"):
        DaskEngine(connect, "local:2", {"the data": Path("/nowhere")}).__enter__()
    there = tmp_path / "there"
    there.touch()
    with DaskEngine(connect, "local:2", {"the data": there}) as other:
        assert [one.value for one in other.run([Task("six", mul, (2, 3))])] == [6]
    monkeypatch.setattr("monai_cae.__version__", "9.9")
    with pytest.raises(MonaiCaeError, match=r"has monai-cae [\d.]+, not 9.9: install the same version there"):
        DaskEngine(connect, "local:2").__enter__()
    with pytest.raises(MonaiCaeError, match=r"the worker tls://.* has monai-cae [\d.]+, not 9.9"):  # that came later
        list(engine.run([Task("six", mul, (2, 3))]))


def test_a_scheduler_that_goes_is_told():
    import dask
    from distributed import Client, LocalCluster

    options = {"host": "127.0.0.1", "dashboard_address": "127.0.0.1:0", "silence_logs": 50}
    cluster = LocalCluster(n_workers=1, threads_per_worker=1, processes=False, protocol="tcp://", **options)

    def tasks():
        yield Task("first", mul, (2, 3))
        cluster.close()
        yield Task("second", mul, (2, 3))

    with (
        dask.config.set({"distributed.comm.timeouts.connect": "1s"}),
        DaskEngine(lambda: (Client(cluster.scheduler_address, set_as_default=False), None), "tcp://x") as engine,
        pytest.raises(MonaiCaeError, match="the cluster tcp://x does not answer any more"),
    ):
        list(engine.run(tasks()))
