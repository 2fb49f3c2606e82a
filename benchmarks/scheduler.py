"""Claim: one Dask scheduler serves 100 workers and a million scans, for less than 2 ms of its own time per scan.

Run: python benchmarks/scheduler.py [--quick] [--tasks N]
     --quick has 10 and 50 workers and 1,000 tasks each, instead of 10, 50 and 100 workers and 10,000 tasks

A simulation: Dask's own scheduler in a process of its own, its workers as objects of one further process, both on
127.0.0.1 by TCP, and our engine and coordinator here. A task has the paths of 100 scans and returns 100 rows at once,
so 10,000 tasks are a million scans. With tasks that take no time, all the workers ask the scheduler as fast as it
answers: what is measured is the most that it can do. Its processor time is the operating system's. No real predictions.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import psutil
from report import Row, finish

from monai_cae.cluster.dask_engine import DaskEngine
from monai_cae.cluster.engine import Task

SCANS = 100  # of a task
QUIET = ("--no-dashboard", "--host", "127.0.0.1", "--port", "0")


def pretend(scans: list[tuple[str, int, float]]) -> list[dict[str, Any]]:
    """Rows as a prediction has them."""
    told = {"seen_in_training": "no", "probability": 0.5, "prediction": 1, "class": "AD", "threshold": 0.5}
    return [{"subject": "s", "file": path, **told} for path, *_ in scans]


async def serve(file: str, count: int) -> None:
    """So many workers, until the scheduler ends."""
    from distributed import Worker

    made = [Worker(scheduler_file=file, nthreads=1, host="127.0.0.1", dashboard=False) for _ in range(count)]
    workers = await asyncio.gather(*made)
    await asyncio.gather(*(worker.finished() for worker in workers))


@contextlib.contextmanager
def simulated(folder: Path, workers: int) -> Iterator[tuple[DaskEngine, psutil.Process]]:
    """An engine with so many workers, and the scheduler's process."""
    from distributed import Client

    file = folder / f"scheduler of {workers}.json"
    command = [sys.executable, "-m", "distributed.cli.dask_scheduler", *QUIET, "--scheduler-file", str(file)]
    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    scheduler = subprocess.Popen(command, **quiet)  # type: ignore[call-overload]
    serving = [sys.executable, __file__, "--serve", str(file), "--workers", str(workers)]
    try:
        while not file.exists():
            time.sleep(0.1)
        others = subprocess.Popen(serving, **quiet)  # type: ignore[call-overload]
        try:
            client = Client(scheduler_file=str(file), timeout=60, set_as_default=False)
            client.wait_for_workers(workers, timeout=300)
            with DaskEngine(lambda: (client, None), "the simulation", ahead=1) as engine:
                yield engine, psutil.Process(scheduler.pid)
        finally:
            others.kill()
            others.wait()
    finally:
        scheduler.kill()
        scheduler.wait()


def measure(folder: Path, workers: int, tasks: int) -> tuple[float, float, float, float]:
    """Milliseconds per task: of the clock, of the scheduler's and of the coordinator's processor time; and the
    scheduler's memory in MiB."""
    scans = [(f"/a/study/sub-{number:07d}/anat/sub-{number:07d}_T1w.nii.gz", 10**7, 1.7e9) for number in range(SCANS)]
    make = partial(Task, function=pretend, args=(scans,))
    with simulated(folder, workers) as (engine, scheduler):
        for _ in engine.run(make(f"warm-{number}") for number in range(2 * workers)):
            pass
        before, ours, started = sum(scheduler.cpu_times()[:2]), time.process_time(), time.perf_counter()
        done = sum(not one.error for one in engine.run(make(f"task-{number}") for number in range(tasks)))
        took = time.perf_counter() - started, sum(scheduler.cpu_times()[:2]) - before, time.process_time() - ours
        memory = scheduler.memory_info().rss / 2**20
    assert done == tasks
    clock, its, own = (seconds / tasks * 1e3 for seconds in took)
    return clock, its, own, memory


def main() -> None:
    """Print the table, write results/scheduler.json."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--tasks", type=int, default=0, help="for each number of workers")
    parser.add_argument("--serve", default="", help=argparse.SUPPRESS)
    parser.add_argument("--workers", type=int, default=0, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.serve:
        asyncio.run(serve(given.serve, given.workers))
        return
    tasks = given.tasks or (1000 if given.quick else 10_000)
    rows, details = [], {}
    with tempfile.TemporaryDirectory() as folder:
        for workers in (10, 50) if given.quick else (10, 50, 100):
            clock, its, own, memory = measure(Path(folder), workers, tasks)
            each, what = its / SCANS, f"{workers} workers, {tasks * SCANS:,} scans: scheduler, a scan"
            rows.append(Row(what, each, own / SCANS, "coordinator", "ms", each, "<= 2"))
            details[f"{workers} workers"] = {
                "tasks": tasks, "clock_ms_of_a_task": clock, "scheduler_ms_of_a_task": its,
                "coordinator_ms_of_a_task": own, "scheduler_mib": memory,
            }  # fmt: skip
            print(f"  {workers} workers: {details[f'{workers} workers']}", flush=True)
    finish("scheduler", rows, **details)


if __name__ == "__main__":
    main()
