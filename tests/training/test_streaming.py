"""Batches that are streamed are those that are resident, however late either of the GPU's streams runs."""

from __future__ import annotations

import itertools
import threading

import pytest
import torch

from monai_cae.errors import MonaiCaeError
from monai_cae.training import ResidentLoader
from monai_cae.training.engines import loaders

ITEMS = [{"image": torch.full((1, 2, 2), float(n)), "label": torch.tensor([n % 2]), "name": f"S{n}"} for n in range(23)]
JUNK = -7.0


class Stream:
    """Work that is asked for now and done later: at once where `eager`, else when somebody waits for it."""

    def __init__(self, eager: bool) -> None:
        self.eager, self.work, self.done = eager, [], 0

    def ask(self, work) -> None:
        self.work.append(work)
        if self.eager:
            self.run(force=False)

    def wait_event(self, event: Event) -> None:
        self.ask(event.recorded)

    def run(self, until: int | None = None, force: bool = True) -> None:
        while self.done < (len(self.work) if until is None else until):
            work = self.work[self.done]
            if isinstance(work, tuple):  # a place in another stream
                stream, place = work
                if stream.done < place and not force:
                    return
                stream.run(place)
            elif work is not None:
                work()
            self.done += 1


class Event:
    def __init__(self) -> None:
        self.recorded: tuple[Stream, int] | None = None

    def record(self, stream: Stream) -> None:
        self.recorded = stream, len(stream.work)

    def synchronize(self) -> None:
        if self.recorded:
            self.recorded[0].run(self.recorded[1])


class LateGPU:
    """In place of CUDA: its memory is the host's, and its streams are as late as can be."""

    eager = (False, False)

    def __init__(self, _: torch.device) -> None:
        self.copying, self.computing = map(Stream, self.eager)
        LateGPU.latest = self

    event = staticmethod(Event)

    def buffers(self, like: torch.Tensor, count: int) -> tuple[torch.Tensor, torch.Tensor]:
        host, there = (torch.zeros(count, *like.shape[1:], dtype=like.dtype) for _ in range(2))
        self.computing.ask(lambda: there.fill_(JUNK))  # by a kernel that had this memory before
        return host, there

    def copy(self, stream: Stream, source: torch.Tensor, target: torch.Tensor) -> None:
        stream.ask(lambda: target.copy_(source))


@pytest.fixture(params=[(False, False), (True, False), (False, True), (True, True)], ids=str)
def late_gpu(request, monkeypatch):
    monkeypatch.setattr(LateGPU, "eager", request.param)
    monkeypatch.setattr(loaders, "Cuda", LateGPU)
    yield LateGPU
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("gathering")]


def loader(device: str, items=ITEMS, **options) -> ResidentLoader:
    generator = torch.Generator().manual_seed(4)
    return ResidentLoader(items, 3, True, device, generator=generator, resident_bytes=0, **options)


def values(batch: dict) -> tuple[list, list, list]:
    return batch["image"][:, 0, 0, 0].tolist(), batch["label"][:, 0].tolist(), batch["name"]


@pytest.mark.parametrize("count", [23, 21, 5, 2])
def test_streamed_batches_are_the_resident_ones_in_their_order(late_gpu, count):
    streamed, resident = loader("cuda", ITEMS[:count]), loader("cpu", ITEMS[:count])
    for _ in range(2):
        kept = list(streamed)
        late_gpu.latest.computing.run()
        assert [values(batch) for batch in kept] == [values(batch) for batch in resident]
        assert streamed.order == resident.order


@pytest.mark.parametrize("late_gpu", [(False, False), (True, False)], indirect=True, ids=str)
def test_host_is_some_batches_ahead_of_the_device_and_not_all(late_gpu):
    steps, batches = [], iter(loader("cuda", ITEMS + ITEMS))
    for number in range(4):
        next(batches)
        late_gpu.latest.computing.work.append(lambda number=number: steps.append(number))
    assert steps == []
    for number in range(4, 12):
        next(batches)
        late_gpu.latest.computing.work.append(lambda number=number: steps.append(number))
    assert 4 <= len(steps) < 12
    batches.close()


def test_whoever_stops_early_leaves_no_thread_and_no_copy_into_memory_that_is_given_back(late_gpu):
    streamed, resident = loader("cuda"), loader("cpu")
    batches = iter(streamed)
    next(batches), next(batches)
    gathering = next(thread for thread in threading.enumerate() if thread.name.startswith("gathering"))
    batches.close()
    assert not gathering.is_alive()
    gpu = late_gpu.latest
    gpu.computing.run()
    assert gpu.copying.done == len(gpu.copying.work)
    next(iter(resident))
    again = list(streamed)
    late_gpu.latest.computing.run()
    assert [values(batch) for batch in again] == [values(batch) for batch in resident]


def test_error_of_the_gathering_thread_is_raised_where_the_batch_is_asked_for(late_gpu):
    streamed = ResidentLoader(ITEMS, 3, device="cuda", resident_bytes=0, sampler=[0, 1, 2, 3, 4, 5, 6, 99, 7, 8, 9, 10])
    batches = iter(streamed)
    got = list(itertools.islice(batches, 2))
    late_gpu.latest.computing.run()
    assert [batch["name"] for batch in got] == [["S0", "S1", "S2"], ["S3", "S4", "S5"]]
    with pytest.raises(IndexError):
        next(batches)


def test_engines_stop_asking_at_the_last_batch_and_leave_no_thread(late_gpu):
    batches = iter(loader("cuda"))
    assert len(list(itertools.islice(batches, 8))) == 8
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("gathering")]


def test_augmentation_sees_what_was_streamed(late_gpu):
    seen = []
    list(loader("cuda", augmentation=lambda batch: seen.append(batch) or batch))
    late_gpu.latest.computing.run()
    assert sorted(number for batch in seen for number in values(batch)[0]) == list(range(23))


def test_a_cpu_has_all_data_anyway(monkeypatch):
    monkeypatch.setattr(loaders, "Cuda", None)
    assert len(list(loader("cpu"))) == 8


@pytest.mark.parametrize("size", [-1, 0.5, True, "4 GiB"])
def test_impossible_resident_bytes(size):
    with pytest.raises(MonaiCaeError, match=f"resident_bytes must be a whole number, 0 or more, not {size!r}"):
        ResidentLoader(ITEMS, resident_bytes=size)
