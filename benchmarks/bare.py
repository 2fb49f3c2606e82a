"""What the GPU benchmarks share: the card, and the loop that somebody would write who knows CUDA graphs."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Callable
from typing import Any

import torch
from bounds import wait
from torch import nn

_WARM_UP = 3


def require_gpu() -> str:
    """The name of the card; without one the process ends with a line and status 1, before it has written anything."""
    if not torch.cuda.is_available():
        sys.exit("no CUDA GPU here: nothing measured")
    return torch.cuda.get_device_name()


def machine() -> dict[str, Any]:
    """Card, driver and versions, for whoever reads the figures."""
    return {
        "card": torch.cuda.get_device_name(),
        "memory_gib": torch.cuda.get_device_properties(0).total_memory / 2**30,
        "driver": _driver(),
        "cuda": torch.version.cuda,
        "cudnn": torch.backends.cudnn.version(),
        "torch": torch.__version__,
    }


def _driver() -> str:
    command = ["nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader"]
    try:
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.split("\n")[0].strip()
    except (OSError, subprocess.CalledProcessError):
        return "unknown"


class BareLoop:
    """An autoencoder trained on images that lie on the device: each step, from forward to Adam, is one CUDA graph.

    No validation, metrics, checkpoints or logging; bfloat16 under autocast, channels last, one graph a size of batch.

    Args:
        network: trained in place.
        images: shape `(N, C, H, W[, D])`, on the device.
        batch: images per step; the last of an epoch has what is left.
    """

    def __init__(self, network: nn.Module, images: torch.Tensor, batch: int) -> None:
        layout = torch.channels_last if images.ndim == 4 else torch.channels_last_3d
        self.device = images.device
        self.images = images.contiguous(memory_format=layout)
        self.batch = batch
        self.network = network.to(self.device, memory_format=layout)
        graphs = self.device.type == "cuda"
        self.optimizer = torch.optim.Adam(network.parameters(), lr=1e-4, fused=True, capturable=graphs)
        self._replays: dict[int, tuple[torch.Tensor, Callable[[], None]]] = {}

    def epochs(self, count: int) -> float:
        """Seconds of some epochs; the first call also records the graphs."""
        sizes = {len(part) for part in torch.arange(len(self.images)).split(self.batch)}
        for size in sizes - self._replays.keys():
            self._replays[size] = self._recorded(size)
        wait(self.device.type)
        started = time.perf_counter()
        for _ in range(count):
            for indices in torch.randperm(len(self.images), device=self.device).split(self.batch):
                images, replay = self._replays[len(indices)]
                torch.index_select(self.images, 0, indices, out=images)
                replay()
        wait(self.device.type)
        return time.perf_counter() - started

    def _recorded(self, size: int) -> tuple[torch.Tensor, Callable[[], None]]:
        images = self.images[:size].clone(memory_format=torch.preserve_format)

        def step() -> None:
            self.optimizer.zero_grad(set_to_none=True)
            with torch.autocast(self.device.type, torch.bfloat16):
                reconstruction = self.network(images)
            nn.functional.mse_loss(reconstruction.float(), images).backward()
            self.optimizer.step()

        if self.device.type != "cuda":  # tries the loop
            return images, step
        side = torch.cuda.Stream()
        side.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(side):
            for _ in range(_WARM_UP):
                step()
        torch.cuda.current_stream().wait_stream(side)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            step()
        return images, graph.replay
