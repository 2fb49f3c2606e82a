"""Batch-norm statistics that keep up with a network in its first updates."""

from __future__ import annotations

import torch
from ignite.engine import Engine, Events
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

LATEST = 10  # the statistics are of about one in so many of the updates, the latest


class BatchNormWarmup:
    """Have running statistics average the latest tenth of all updates, while that is less than momentum averages.

    With momentum 0.1, an exponential average of batches still has 0.9^n of its start, 0 and 1, after n updates, and
    looks back on ten networks, which differ much while the first are made. After a hundred updates this does nothing,
    and what it has done decays as 0.9^n. In training mode batch norm does not use these statistics, so the weights are
    the same with and without it.

    It undoes and repeats the averaging from outside, and leaves momentum alone, which a compiled network has built in.

    Args:
        network: its batch norms say themselves how many updates they have had.
    """

    def __init__(self, network: nn.Module) -> None:
        self.network = network
        self._young: list[_Statistics] = []

    def attach(self, engine: Engine) -> None:
        """Args: engine: the trainer, of one update per iteration."""
        engine.add_event_handler(Events.STARTED, self._start)
        engine.add_event_handler(Events.ITERATION_COMPLETED, self)

    def _start(self, engine: Engine) -> None:
        modules = self.network.modules()
        norms = [
            one for one in modules if isinstance(one, _BatchNorm) and one.momentum and one.running_mean is not None
        ]
        self._young = [_Statistics(norm) for norm in norms]

    def __call__(self, engine: Engine) -> None:
        """Average anew what the iteration has averaged."""
        self._young = [statistics for statistics in self._young if statistics.share() > statistics.momentum]
        for statistics in self._young:
            statistics.update()


class _Statistics:
    """Of one module, as they were before the next update."""

    def __init__(self, norm: _BatchNorm) -> None:
        self.norm = norm
        self.momentum = norm.momentum or 0.0
        self.updates = int(norm.num_batches_tracked or 0)
        self.before = [buffer.clone() for buffer in self._buffers()]

    def share(self) -> float:
        """What the next batch counts for."""
        return min(1.0, LATEST / (self.updates + 1))

    def update(self) -> None:
        factor = self.share() / self.momentum
        for now, before in zip(self._buffers(), self.before, strict=True):
            now.copy_(before.lerp(now, factor))
        self._buffers()[1].clamp_(min=0)  # a variance; rounding may take it below
        for now, before in zip(self._buffers(), self.before, strict=True):
            before.copy_(now)
        self.updates += 1

    def _buffers(self) -> tuple[torch.Tensor, torch.Tensor]:
        mean, variance = self.norm.running_mean, self.norm.running_var
        assert mean is not None and variance is not None
        return mean, variance
