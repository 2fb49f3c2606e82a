"""CUDA graphs as a CPU can have them: recording does nothing, and a replay does the work into the same tensors."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from typing import Any, ClassVar

import torch

from monai_cae.networks.reconstruction import each_tensor
from monai_cae.training.engines import step
from monai_cae.training.engines.cuda_graphs import Outputs, Work


class SimulatedGraphs:
    """In place of `CudaGraphs`, see `simulate`.

    Attributes:
        log: "step" for one in the ordinary way, "record", "replay".
        waits: whether a step in the ordinary way waits for the device.
        failure: what recording raises; None records.
        around: makes a context that the work is done in.
    """

    log: ClassVar[list[str]] = []
    waits = False
    failure: Exception | None = None
    around: Callable[[], AbstractContextManager[Any]] = nullcontext

    def __init__(self, device: torch.device) -> None:
        self.waited = False

    @staticmethod
    def usable(device: torch.device) -> bool:
        return True

    def run(self, work: Work) -> Outputs:
        self.log.append("step")
        self.waited = self.waits
        with self.around():
            return work()

    def record(self, work: Work) -> Work:
        self.log.append("record")
        if self.failure is not None:
            raise self.failure
        kept: list[Outputs] = []

        def replay() -> Outputs:
            self.log.append("replay")
            with self.around():
                fresh = work()
            if not kept:
                kept.append(each_tensor(fresh, torch.clone))
            targets = tensors(kept[0])
            for tensor, new in zip(targets, tensors(fresh), strict=True):
                tensor.copy_(new)
                new.zero_()  # a graph leaves nothing in Python's hands, such as gradients that the work has set
            return kept[0]

        return replay


def tensors(outputs: Outputs) -> list[torch.Tensor]:
    found: list[torch.Tensor] = []
    each_tensor(outputs, found.append)
    return found


def simulate(monkeypatch, **how) -> type[SimulatedGraphs]:
    """Have training steps use them.

    Args:
        **how: attributes of the class.
    """
    kind = type("Simulated", (SimulatedGraphs,), {"log": [], **how})
    monkeypatch.setattr(step, "CudaGraphs", kind)
    return kind
