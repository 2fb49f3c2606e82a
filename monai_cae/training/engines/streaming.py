"""Batches from the host's memory, copied to the GPU while it computes."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import torch

from monai_cae.training.engines.disk_rows import DiskRows, take

_SLOTS = 4  # one that is computed with, one that is copied, two that are gathered


class Cuda:
    """What streaming needs of CUDA; a test on a CPU puts something else in its place.

    Args:
        device: where the batches go.

    Attributes:
        copying: the stream of the copies.
    """

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self.copying: Any = torch.cuda.Stream(device)

    @property
    def computing(self) -> Any:
        """The stream of whoever asks for a batch."""
        return torch.cuda.current_stream(self.device)

    def event(self) -> Any:
        """One that has not happened; nobody waits for it before it is recorded."""
        return torch.cuda.Event()

    def buffers(self, like: torch.Tensor | DiskRows, count: int) -> tuple[torch.Tensor, torch.Tensor]:
        """Room for some rows of a tensor, in pinned memory and on the device."""
        shape = (count, *like.shape[1:])
        host = torch.empty(shape, dtype=like.dtype, pin_memory=True)
        return host, torch.empty(shape, dtype=like.dtype, device=self.device)

    def copy(self, stream: Any, source: torch.Tensor, target: torch.Tensor) -> None:
        """Have a stream copy, once it has done what it was asked before; waits for nothing."""
        with torch.cuda.stream(stream):
            target.copy_(source, non_blocking=True)


class _Slot:
    """Buffers for one batch: a thread gathers into `host`, one stream copies to `there`, the other takes it away."""

    def __init__(self, data: Mapping[str, torch.Tensor | DiskRows], count: int, cuda: Cuda) -> None:
        self.data, self.cuda = data, cuda
        self.host: dict[str, torch.Tensor] = {}
        self.there: dict[str, torch.Tensor] = {}
        for key, value in data.items():
            self.host[key], self.there[key] = cuda.buffers(value, count)
        self.rows = slice(0)
        self.gathered: Future[None] = Future()
        self.sent, self.taken = cuda.event(), cuda.event()
        self.taken.record(cuda.computing)  # kernels may still use what lay where `there` is now

    def gather(self, indices: Sequence[int], pool: ThreadPoolExecutor) -> None:
        """Fill `host` in a thread, which calls nothing of CUDA: that would disturb the recording of a graph."""
        self.sent.synchronize()
        self.rows = slice(len(indices))
        self.gathered = pool.submit(self._gather, torch.tensor(indices))

    def _gather(self, where: torch.Tensor) -> None:
        for key, value in self.data.items():
            take(value, where, self.host[key][self.rows])

    @property
    def ready(self) -> bool:
        """Whether it can be sent at once; what went wrong is told when its batch is due."""
        return self.gathered.done() and self.gathered.exception() is None

    def send(self) -> None:
        """Copy to the device, once the batch before in this slot has been taken away."""
        self.gathered.result()
        self.cuda.copying.wait_event(self.taken)
        for key, value in self.host.items():
            self.cuda.copy(self.cuda.copying, value[self.rows], self.there[key][self.rows])
        self.sent.record(self.cuda.copying)

    def take(self) -> dict[str, torch.Tensor]:
        """The batch, in memory of its own: whoever has it may keep it."""
        stream = self.cuda.computing
        stream.wait_event(self.sent)
        batch = {key: torch.empty_like(value[self.rows]) for key, value in self.there.items()}
        for key, value in batch.items():
            self.cuda.copy(stream, self.there[key][self.rows], value)
        self.taken.record(stream)
        return batch


def stream_batches(
    data: Mapping[str, torch.Tensor | DiskRows], order: Sequence[Sequence[int]], cuda: Cuda
) -> Iterator[dict[str, torch.Tensor]]:
    """Gather, copy and compute at the same time; the host waits only once it is several batches ahead.

    Args:
        data: rows in the host's memory or on disk, shape `(subjects, ...)`.
        order: the rows of each batch.
        cuda: the device.

    Yields:
        The batches on the device, in order.
    """
    pool = ThreadPoolExecutor(1, "gathering")
    slots = [_Slot(data, max(map(len, order)), cuda) for _ in order[:_SLOTS]]
    try:
        for slot, indices in zip(slots, order, strict=False):
            slot.gather(indices, pool)
        filled, sent = len(slots), 0
        for number in range(len(order)):
            if number and filled < len(order):
                slots[filled % _SLOTS].gather(order[filled], pool)
                filled += 1
            while sent < filled and (sent <= number or slots[sent % _SLOTS].ready):
                slots[sent % _SLOTS].send()
                sent += 1
            batch = slots[number % _SLOTS].take()
            if number == len(order) - 1:
                pool.shutdown()  # engines ask no further, and leave the iterator where it is
            yield batch
    finally:
        pool.shutdown(cancel_futures=True)
        for slot in slots:
            cuda.computing.wait_event(slot.sent)  # their memory goes back to this stream
