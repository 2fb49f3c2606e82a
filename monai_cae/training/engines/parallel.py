"""Several processes that train one network, started by `torchrun`; named by multi_gpu_train.json."""

from __future__ import annotations

import itertools
import os
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import ignite.distributed as idist
import torch
from torch import distributed, nn
from torch.nn.parallel import DistributedDataParallel

from monai_cae.errors import MonaiCaeError
from monai_cae.training.engines.inferers import PrecisionInferer

_TOLD_BY_TORCHRUN = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "MASTER_ADDR", "MASTER_PORT")
_GROUPS = itertools.count()


def is_first() -> bool:
    """Whether this process is the one that writes and prints; a process that trains alone is."""
    return not distributed.is_initialized() or distributed.get_rank() == 0


def local_device() -> torch.device:
    """The GPU of this process's own, or the CPU where there is none.

    Raises:
        MonaiCaeError: more processes than GPUs.
    """
    if not torch.cuda.is_available():
        return torch.device("cpu")
    number, gpus = int(os.environ.get("LOCAL_RANK", 0)), torch.cuda.device_count()
    if number >= gpus:
        raise MonaiCaeError(
            f"process {number + 1} of this machine has no GPU of its own, there are {gpus}: "
            f"use --nproc_per_node={gpus}, or --device cpu"
        )
    return torch.device("cuda", number)


def join_processes(device: str | torch.device, minutes: float) -> None:
    """Become one of the processes that torchrun has started; does nothing in one that is.

    Args:
        device: of this process: its own GPU, or the CPU.
        minutes: after which a process that waits for another in vain ends with an error.

    Raises:
        MonaiCaeError: not started by torchrun, or another process's GPU.
    """
    if distributed.is_initialized():
        return
    if any(name not in os.environ for name in _TOLD_BY_TORCHRUN):
        raise MonaiCaeError(
            "multi_gpu_train.json is for several processes: start it with `torchrun --nproc_per_node=GPUS "
            "-m monai.bundle` instead of `python -m monai.bundle`, or leave it out to train in one"
        )
    device = torch.device(device)
    cuda = device.type == "cuda"
    if cuda and device != local_device():
        raise MonaiCaeError(f"device {device} is not this process's own ({local_device()}): leave --device out")
    if cuda:
        torch.cuda.set_device(device)
    timeout = timedelta(minutes=minutes)
    store, rank, processes = next(distributed.rendezvous("env://", timeout=timeout))
    store = distributed.PrefixStore(f"group {next(_GROUPS)}", store)  # or a second run would find the first's addresses
    distributed.init_process_group(
        "nccl" if cuda else "gloo",
        store=store,
        rank=rank,
        world_size=processes,
        timeout=timeout,
        device_id=device if cuda else None,
    )
    idist.sync()  # waits for every process; by itself Ignite does it at its first metric


def leave_processes() -> None:
    """Wait until every process has come here, the one that writes included; does nothing in one that trains alone."""
    if distributed.is_initialized():
        distributed.barrier()
        idist.finalize()


def become_replica(network: nn.Module, seed: int) -> None:
    """Normalise batches by the statistics of all GPUs; draw other random numbers, for dropout, in each process.

    On CPUs, for which torch has no such batch norm, each process normalises its own share of the batch.

    Args:
        network: changed in place; the names of its weights stay.
        seed: the same in every process.
    """
    torch.manual_seed(seed + distributed.get_rank())
    if next(network.parameters()).is_cuda:
        nn.SyncBatchNorm.convert_sync_batchnorm(network)


class ParallelInferer(PrecisionInferer):
    """PrecisionInferer that trains through DistributedDataParallel: gradients become their mean over all processes.

    The engines keep the plain network, so checkpoints have no `module.` in their names, and an evaluation waits for
    nobody: processes may have different numbers of batches. Only what learns when a trainer starts is wrapped; the
    frozen stage and fine-tuning differ in that.

    Args:
        precision: as for PrecisionInferer.
        compile: "off", which "auto" means here.

    Raises:
        MonaiCaeError: another `compile`, or an unknown precision.
    """

    def __init__(self, precision: str = "auto", compile: str = "off") -> None:
        super().__init__(precision, compile)
        if compile not in ("off", "auto"):
            raise MonaiCaeError(f"compile {compile} is for one process; multi_gpu_train.json has off: leave it out")
        self._replica: DistributedDataParallel | None = None
        self._learning: list[int] = []

    def __call__(
        self, inputs: torch.Tensor, network: Callable[..., torch.Tensor], *args: Any, **kwargs: Any
    ) -> torch.Tensor:
        """As PrecisionInferer; every process must call it as often while the network is in training."""
        if isinstance(network, nn.Module) and network.training and torch.is_grad_enabled():
            network = self._parallel(network)
        return super().__call__(inputs, network, *args, **kwargs)

    def _parallel(self, network: nn.Module) -> DistributedDataParallel:
        learning = [id(parameter) for parameter in network.parameters() if parameter.requires_grad]
        if self._replica is None or self._replica.module is not network or self._learning != learning:
            self._replica = DistributedDataParallel(network)
            self._learning = learning
        return self._replica
