"""Nothing within an epoch reads a number from the device, for which a GPU would have to wait.

The device is the CPU under another name, "cpu:0": what is copied to "cpu" would leave a GPU.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from contextlib import contextmanager
from typing import Any

import pytest
import torch
from ignite.engine import Engine, Events
from simulated_graphs import simulate
from torch.utils._python_dispatch import TorchDispatchMode

READS = ("item", "tolist", "numpy", "cpu", "__bool__", "__float__", "__int__", "__index__")
OPERATIONS = ("_local_scalar_dense", "nonzero", "masked_select", "equal", "_unique2", "is_nonzero")


class Reads(TorchDispatchMode):
    """Counts what a GPU would have to finish first.

    Attributes:
        within: from the first iteration's start to the last one's end, of any engine's epoch: what was asked -> times.
        epochs: per epoch of a trainer, validation included, how often anything was asked.
    """

    def __init__(self) -> None:
        super().__init__()
        self.within: Counter[str] = Counter()
        self.epochs: list[int] = []
        self.iterations = 0
        self.inside = self.silent = False

    def ask(self, what: str) -> None:
        if not self.silent:
            if self.inside:
                self.within[what] += 1
            if self.epochs:
                self.epochs[-1] += 1

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        if (name := function.overloadpacket.__name__) in OPERATIONS:
            self.ask(name)
        return function(*args, **(kwargs or {}))

    @contextmanager
    def silence(self):
        self.silent = True
        yield
        self.silent = False

    def fired(self, engine: Engine, event: Any, fire: Any) -> None:
        if event == Events.ITERATION_STARTED:
            self.inside = True
            self.iterations += 1
        if event == Events.EPOCH_STARTED and hasattr(engine, "optimizer"):
            self.epochs.append(0)
        fire()
        if event == Events.ITERATION_COMPLETED and engine.state.iteration % engine.state.epoch_length == 0:
            self.inside = False


def asking(reads: Reads, name: str) -> Callable[..., Any]:
    """A method of tensors that is counted."""
    method = getattr(torch.Tensor, name)

    def read(tensor: torch.Tensor, *args: Any, **options: Any) -> Any:
        reads.ask(name)
        return method(tensor, *args, **options)

    return read


@pytest.fixture
def reading(monkeypatch):
    """Have a block's reads counted."""

    @contextmanager
    def counted():
        reads = Reads()
        with monkeypatch.context() as patch, reads:
            for name in READS:
                patch.setattr(torch.Tensor, name, asking(reads, name))
            real_to, real_fire = torch.Tensor.to, Engine._fire_event

            def to(tensor, *args, **options):
                where = options.get("device", args[0] if args else None)
                if where == "cpu" or (isinstance(where, torch.device) and where == torch.device("cpu")):
                    reads.ask("to")
                return real_to(tensor, *args, **options)

            def fire(engine, event, *args, **options):
                reads.fired(engine, event, lambda: real_fire(engine, event, *args, **options))

            def maker(make):
                def made(*args, **options):
                    if options.get("device") is not None and torch.device(options["device"]) != torch.device("cpu"):
                        reads.ask(make.__name__)  # of numbers in Python, which a GPU has to be waited for to take
                    return make(*args, **options)

                return made

            for name in ("tensor", "as_tensor"):
                patch.setattr(torch, name, maker(getattr(torch, name)))
            patch.setattr(torch.Tensor, "to", to)
            patch.setattr(Engine, "_fire_event", fire)
            yield reads

    return counted


def test_what_is_counted(reading):
    """Each of these waits for a GPU: reading a number, and making a tensor there of one (a tensor's own `device` tells
    a CPU's other name no more)."""
    with reading() as reads:
        reads.inside = True
        there = torch.ones(2, device="cpu:0")
        for ask in (
            lambda: there.sum().item(), lambda: bool(there[0] > 0), lambda: there.to("cpu"), lambda: there.nonzero(),
            lambda: torch.tensor([1.0], device="cpu:0"), lambda: torch.as_tensor(1.0, device="cpu:0"),
        ):  # fmt: skip
            before = sum(reads.within.values())
            ask()
            assert sum(reads.within.values()) > before
        before = reads.within.copy()
        torch.tensor(1.0), torch.tensor(1.0, device="cpu"), torch.zeros(2, device="cpu:0"), there.to("cpu:0")
        assert reads.within == before


STAGES = {
    "pretrain": ("pretrain.json", {"augment": True}),
    "two_stage": ("train.json", {"pretrained": "none", "learn": "two_stage"}),
    "every epoch encodes": ("train.json", {"pretrained": "none", "learn": "frozen", "encode_once": False}),
    "covariates": ("train.json", {"pretrained": "none", "covariates": {"age": [75, 8]}, "network_def#histogram": 4}),
}


@pytest.mark.parametrize("compile", [pytest.param("off", marks=pytest.mark.slow), "graph"])
@pytest.mark.parametrize("stage", STAGES)
def test_an_epoch_reads_as_often_with_many_batches_as_with_few_and_never_between_them(
    run_bundle, discs, tmp_path, monkeypatch, reading, stage, compile
):
    config, options = STAGES[stage]
    found = []
    for batch_size in (6, 1):
        with reading() as reads:
            simulate(monkeypatch, around=reads.silence)  # CUDA itself refuses to record what reads
            run_bundle(
                config, discs, tmp_path / str(batch_size), batch_size=batch_size, max_epochs=5, channels=[4, 8],
                device="cpu:0", compile=compile, **options,
            )  # fmt: skip
        assert reads.within == {}
        found.append((reads.epochs, reads.iterations))
    (few, fewer), (many, more) = found
    assert more > 4 * fewer
    assert few[1:] == many[1:] and min(few) > 0, (few, many)
