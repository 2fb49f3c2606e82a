"""Workers as jobs of SLURM, as a file describes them."""

from __future__ import annotations

import re
import shutil
import sys
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from monai_cae.errors import MonaiCaeError, suggestion
from monai_cae.terminal import say

_LOOK_SECONDS = 2  # between two looks at whether a job has started or been refused
_WALLTIME = re.compile(r"(\d+-)?\d{1,3}(:\d{2}){1,2}")
_NAME = re.compile(r"[\w.,-]*")
_MEMORY = re.compile(r"\d+(\.\d+)? ?[KMGT]i?B")


@dataclass(frozen=True)
class Jobs:
    """What `slurm:FILE.yaml` says. Each job is one worker.

    Attributes:
        file: that says it; job logs, and the keys while they are in use, lie beside it.
        jobs: how many at a time.
        cores: of each.
        memory: of each, such as "16 GB".
        walltime: of each, such as "12:00:00"; what a job has not finished then, another goes on with.
        gpus: of each, 0 or 1.
        partition: "" for the usual one.
        account: "" for the usual one.
        interface: network interface by which the jobs reach this machine; "" for the usual one.
        prologue: lines of shell before the worker starts, such as "module load cuda".
        options: further ones of sbatch, such as "--constraint=a100".
    """

    file: Path
    jobs: int
    cores: int
    memory: str
    walltime: str = "12:00:00"
    gpus: int = 0
    partition: str = ""
    account: str = ""
    interface: str = ""
    prologue: tuple[str, ...] = ()
    options: tuple[str, ...] = ()


def read_jobs(path: Path, needs_gpu: bool = False) -> Jobs:
    """
    Args:
        path: a YAML file.
        needs_gpu: whether there will be tasks that need one.

    Raises:
        MonaiCaeError: no file, no such setting, a value that can't be, or no GPU where one is needed.
    """
    from yaml import YAMLError, safe_load

    try:
        given = safe_load(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise MonaiCaeError(f"can't read {path} ({error.strerror}): give the settings of the jobs") from error
    except (YAMLError, UnicodeDecodeError) as error:
        raise MonaiCaeError(f"{path} is no YAML file ({str(error).splitlines()[0]})") from error
    if not isinstance(given, Mapping):
        raise MonaiCaeError(f"{path} must have settings, such as jobs: 8, not {given!r}")
    known = {one.name: one for one in fields(Jobs) if one.name != "file"}
    for name in given:
        if name not in known:
            raise MonaiCaeError(f"{path} has an unknown setting {name}: {suggestion(name, known)}")
    for name in ("jobs", "cores", "memory"):
        if name not in given:
            raise MonaiCaeError(f"{path} does not say {name}: see docs/how-to/cluster.md")
    for name, value in given.items():
        _check(path, str(name), value)
    made: dict[str, Any] = {name: tuple(value) if isinstance(value, list) else value for name, value in given.items()}
    jobs = Jobs(file=path.resolve(), **made)
    if needs_gpu and not jobs.gpus:
        raise MonaiCaeError(f"{path} asks for no GPU, and device cuda needs one: add gpus: 1, or give --device cpu")
    return jobs


def _check(path: Path, name: str, value: Any) -> None:
    whole = isinstance(value, int) and not isinstance(value, bool)
    if name in ("jobs", "cores") and not (whole and value > 0):
        wrong = "a whole number above 0"
    elif name == "gpus" and not (whole and value in (0, 1)):
        wrong = "0 or 1: a job is one worker, and a worker uses one GPU"
    elif name == "memory" and not (isinstance(value, str) and _MEMORY.fullmatch(value)):
        wrong = 'a size, such as "16 GB"'
    elif name == "walltime" and not (isinstance(value, str) and _WALLTIME.fullmatch(value)):
        wrong = 'a time in quotes, such as "12:00:00"'  # without quotes YAML makes a number of it
    elif name in ("prologue", "options") and not (
        isinstance(value, list) and all(isinstance(line, str) and "\n" not in line for line in value)
    ):
        wrong = "a list of lines"
    elif name in ("partition", "account", "interface") and not (isinstance(value, str) and _NAME.fullmatch(value)):
        wrong = "a name"
    else:
        return
    raise MonaiCaeError(f"{path}: {name} must be {wrong}, not {value!r}")


def submit(jobs: Jobs) -> tuple[Any, Any]:
    """Submit the jobs and wait for the first; with encryption by keys that only these jobs get.

    Returns:
        Dask's client, and its cluster.

    Raises:
        MonaiCaeError: SLURM is not here, or refuses a job.
    """
    if shutil.which("sbatch") is None:
        raise MonaiCaeError("cluster slurm: there is no sbatch here; run the command where SLURM's own work")
    from dask_jobqueue import SLURMCluster
    from distributed import Client, Security

    own: dict[str, Any] = {"queue": jobs.partition, "account": jobs.account, "interface": jobs.interface}
    own = {name: value for name, value in own.items() if value}
    gpu, has_gpu = (["--gres=gpu:1"], ["--resources", "GPU=1"]) if jobs.gpus else ([], [])
    threads = [f"export {name}_NUM_THREADS={jobs.cores}" for name in ("OMP", "MKL", "OPENBLAS")]
    dask = ["export DASK_DISTRIBUTED__WORKER__DAEMON=False", "export DASK_DISTRIBUTED__WORKER__HTTP__ROUTES=[]"]
    cluster, refused = None, list[Exception]()

    usual: Any = SLURMCluster.job_cls

    class Job(usual):
        """Tells what sbatch says, which Dask only logs."""

        async def start(self) -> None:
            try:
                await super().start()
            except RuntimeError as error:
                refused.append(error)
                raise

    try:
        cluster = SLURMCluster(
            cores=1,  # of a worker as Dask counts: one task at a time
            job_cpu=jobs.cores,
            processes=1,
            memory=jobs.memory,
            walltime=jobs.walltime,
            job_name="monai-cae",
            python=sys.executable,
            job_script_prologue=[*threads, *dask, *jobs.prologue],
            job_extra_directives=[*gpu, *jobs.options],
            # SLURM itself watches the memory; Dask would end a training at a share of it
            worker_extra_args=["--memory-limit", "0", "--no-dashboard", *has_gpu],
            scheduler_options={"dashboard": False, "dashboard_address": "127.0.0.1:0", "port": 0},
            protocol="tls://",
            security=Security.temporary(),
            shared_temp_directory=str(jobs.file.parent),
            log_directory=str(jobs.file.parent / "slurm_logs"),
            **{**own, "job_cls": Job},
        )
        cluster.adapt(minimum_jobs=jobs.jobs, maximum_jobs=jobs.jobs)  # another for one whose time is up
        client = Client(cluster, set_as_default=False)
        say(f"  {jobs.jobs} job{'s' * (jobs.jobs != 1)} for SLURM; waiting for the first to start")
        while not client.nthreads():
            if refused:
                raise refused[0]
            with suppress(TimeoutError):
                client.wait_for_workers(1, timeout=_LOOK_SECONDS)
    except (OSError, RuntimeError, ValueError) as error:
        if cluster is not None:
            with suppress(Exception):  # jobs that never were
                cluster.close(timeout=_LOOK_SECONDS)
        why = str(error).strip().rpartition("\n")[2].rpartition("error: ")[2]
        raise MonaiCaeError(f"SLURM does not take the jobs of {jobs.file} ({why})") from error
    return client, cluster
