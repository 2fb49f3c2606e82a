"""What `--cluster` says: which engine, where, and how to reach it safely."""

from __future__ import annotations

import ipaddress
import logging
import os
import uuid
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from monai_cae.cluster.engine import Engine, InProcess
from monai_cae.errors import MonaiCaeError
from monai_cae.files import write_text
from monai_cae.terminal import say

KEYS = "MONAI_CAE_CLUSTER_KEYS"  # environment variable: the folder of `monai-cae cluster keys`
_FORMS = "local:N, tls://HOST:PORT, tcp://127.0.0.1:PORT or slurm:FILE.yaml"
_START_SECONDS = 120  # for workers of this machine, which import PyTorch


def engine_of(cluster: str, *, sees: Mapping[str, Path] | None = None, gpus: bool = False, ahead: int = 0) -> Engine:
    """The engine that `--cluster` names; nothing is started or asked before its `with` block.

    Args:
        cluster: "" for this process; `local:N` for N processes of this machine; `tls://HOST:PORT` (or `tcp://` on this
            machine alone) for a Dask scheduler that runs; `slurm:FILE.yaml` for workers as jobs of SLURM.
        sees: paths that every worker must see, by what they are, such as {"the data": folder}.
        gpus: whether tasks need GPUs: `local:N` gives each GPU to one worker then.
        ahead: see `DaskEngine`.

    Raises:
        MonaiCaeError: no such kind, an address beyond this machine without TLS, no keys, or Dask is not installed.
    """
    if not isinstance(cluster, str):
        raise MonaiCaeError(f"cluster must be {_FORMS}, not {cluster!r}")
    if not cluster:
        return InProcess()
    kind, _, rest = cluster.partition(":")
    if kind == "local":
        if not (rest.isascii() and rest.isdigit() and int(rest)):
            raise MonaiCaeError(f"cluster local:N needs a number of processes, such as local:2, not {cluster!r}")
        connect = partial(_local, int(rest), gpus)
    elif kind in ("tls", "tcp"):
        _check_host(cluster)
        connect = partial(_running, cluster, key_files() if kind == "tls" else {})
    elif kind == "slurm":
        from monai_cae.cluster.jobs import read_jobs, submit

        connect = partial(submit, read_jobs(Path(rest).expanduser(), gpus))
    else:
        raise MonaiCaeError(f"cluster must be {_FORMS}, not {cluster!r}")
    if find_spec("distributed") is None or (kind == "slurm" and find_spec("dask_jobqueue") is None):
        raise MonaiCaeError("--cluster needs Dask: pip install 'monai-cae[cluster]'")
    from monai_cae.cluster.dask_engine import DaskEngine

    return DaskEngine(connect, cluster, sees, ahead)


@contextmanager
def entered(
    cluster: str, *, reads: Mapping[str, Path], writes: Path, gpus: bool = False, ahead: int = 0
) -> Iterator[Engine]:
    """The engine that `--cluster` names, ready, with workers that see what tasks read and the folder they write to.

    Args:
        cluster: see `engine_of`.
        reads: paths, by what they are.
        writes: a folder, which is made if it is not there.
        gpus: see `engine_of`.
        ahead: see `engine_of`.

    Raises:
        MonaiCaeError: it can't be had, or a worker does not see them.
    """
    if not cluster:
        yield engine_of(cluster)
        return
    token = writes.absolute() / f".workers-{uuid.uuid4().hex[:8]}"  # not in a folder of this name on another disk
    sees = {what: path.absolute() for what, path in reads.items()} | {"the output folder, by its file": token}
    asked = engine_of(cluster, sees=sees, gpus=gpus, ahead=ahead)
    write_text(token, "")
    try:
        with asked as engine:
            say(f"  {engine.workers} worker{'s' * (engine.workers != 1)} of {cluster}")
            yield engine
    finally:
        token.unlink(missing_ok=True)


def key_files() -> dict[str, Path]:
    """The files of `monai-cae cluster keys`, by what they are: cert and key.

    Raises:
        MonaiCaeError: the environment names no folder, or they are not in it.
    """
    folder = os.environ.get(KEYS, "")
    if not folder:
        raise MonaiCaeError(f"a tls:// cluster needs keys: `monai-cae cluster keys FOLDER`, then export {KEYS}=FOLDER")
    found = {name: Path(folder).expanduser() / f"{name}.pem" for name in ("cert", "key")}
    for path in found.values():
        if not path.is_file():
            raise MonaiCaeError(f"no {path}: {KEYS} must be a folder that `monai-cae cluster keys` has made")
    return found


def _check_host(cluster: str) -> None:
    parts = urlsplit(cluster)
    try:
        host, port = parts.hostname or "", parts.port
    except ValueError:
        host, port = "", None
    if not host or not port:
        raise MonaiCaeError(f"cluster {cluster} has no host and port: such as {parts.scheme}://HOST:8786")
    if parts.scheme == "tcp" and not _is_here(host):
        raise MonaiCaeError(
            f"cluster {cluster} is beyond this machine and not encrypted, so whoever answers there could run anything "
            "here: start its scheduler with the keys of `monai-cae cluster keys FOLDER`, and use tls://"
        )


def _is_here(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _running(address: str, keys: Mapping[str, Path]) -> tuple[Any, None]:
    """Connect to a scheduler that somebody has started."""
    from distributed import Client

    from monai_cae.cluster.dask_engine import CONNECT_SECONDS

    try:
        client = Client(
            address, timeout=CONNECT_SECONDS, security=security_of(keys) if keys else None, set_as_default=False
        )
    except (OSError, TimeoutError) as error:
        told = str(error.__cause__ or error)
        why = "its certificate is not of these keys" if "CERTIFICATE" in told.upper() else "no answer within 10 s"
        raise MonaiCaeError(f"can't reach the cluster {address} ({why}): check that its scheduler runs") from error
    return client, None


def security_of(keys: Mapping[str, Path]) -> Any:
    """Dask's `Security`, where scheduler, workers and client have the same key, and trust nobody else."""
    from distributed.security import Security

    cert, key = str(keys["cert"]), str(keys["key"])
    roles = ("client", "scheduler", "worker")
    files = {f"tls_{role}_{what}": path for role in roles for what, path in (("cert", cert), ("key", key))}
    return Security(require_encryption=True, tls_ca_file=cert, **files)


def _local(number: int, gpus: bool) -> tuple[Any, Any]:
    """Processes of this machine, encrypted too: other users of it can reach an open port."""
    import dask
    from distributed import Client, Nanny, Scheduler, Security, SpecCluster

    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    settings: dict[str, Any] = {
        f"distributed.nanny.pre-spawn-environ.{name}_NUM_THREADS": max(1, cores // number)
        for name in ("OMP", "MKL", "OPENBLAS")
    }
    settings |= {"distributed.worker.daemon": False}  # a task may have processes of its own
    settings |= {f"distributed.{who}.http.routes": [] for who in ("scheduler", "worker")}
    common = {"host": "127.0.0.1", "dashboard_address": "127.0.0.1:0", "dashboard": False}
    common |= {"protocol": "tls://", "security": (security := Security.temporary())}
    # a training is not to be ended at the share of the memory that Dask finds enough
    options = {**common, "nthreads": 1, "memory_limit": 0, "silence_logs": logging.CRITICAL}
    each = _one_gpu_each(number) if gpus else [{}] * number
    workers = {name: {"cls": Nanny, "options": {**options, **more}} for name, more in enumerate(each)}
    cluster = None
    try:
        with dask.config.set(settings):
            scheduler = {"cls": Scheduler, "options": {**common, "port": 0}}
            cluster = SpecCluster(workers, scheduler, security=security, silence_logs=False, name="monai-cae")
            client = Client(cluster, set_as_default=False)
            client.wait_for_workers(number, timeout=_START_SECONDS)
    except (OSError, TimeoutError, RuntimeError) as error:
        if cluster is not None:
            cluster.close()
        raise MonaiCaeError(f"can't start local:{number} ({error}): try fewer processes") from error
    return client, cluster


def _one_gpu_each(number: int) -> list[dict[str, Any]]:
    """What each process gets: the first ones a GPU, the others none."""
    import torch

    seen = os.environ.get("CUDA_VISIBLE_DEVICES") or ",".join(map(str, range(torch.cuda.device_count())))
    gpus = [gpu for gpu in seen.split(",") if gpu][:number]
    with_one = [{"env": {"CUDA_VISIBLE_DEVICES": gpu}, "resources": {"GPU": 1}} for gpu in gpus]
    return [*with_one, *([{"env": {"CUDA_VISIBLE_DEVICES": ""}}] * (number - len(gpus)))]
