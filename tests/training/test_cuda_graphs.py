"""What surrounds the recording of a CUDA graph, with stand-ins for what only a GPU has."""

from __future__ import annotations

import gc
from contextlib import contextmanager, nullcontext
from types import SimpleNamespace

import pytest
import torch

from monai_cae.training.engines.cuda_graphs import CudaGraphs, Outputs


class Generator:
    """Counts what was drawn; `state` is replaced as a whole, as that of a CUDA generator is."""

    def __init__(self) -> None:
        self.state = {"drawn": 3, "recording": False}

    def clone_state(self):
        return dict(self.state)

    def graphsafe_set_state(self, state) -> None:
        self.state = state


@pytest.fixture
def cuda(monkeypatch):
    """PyTorch's side: recording sets the generator's state, and an error within leaves it as it is."""
    generator, replays = Generator(), []

    @contextmanager
    def recording(graph, pool, stream, capture_error_mode):
        assert (pool, stream, capture_error_mode) == ("pool", "stream", "thread_local")
        generator.state["recording"] = True
        yield
        generator.state["recording"] = False

    stand_ins = {
        "device": lambda device: nullcontext(),
        "stream": lambda stream: nullcontext(),
        "Stream": lambda: "stream",
        "current_stream": lambda device=None: "main",
        "current_device": lambda: 0,
        "graph_pool_handle": lambda: "pool",
        "default_generators": [generator],
        "CUDAGraph": lambda: SimpleNamespace(replay=lambda: replays.append(1)),
        "graph": recording,
    }
    for name, value in stand_ins.items():
        monkeypatch.setattr(torch.cuda, name, value)
    return SimpleNamespace(graphs=CudaGraphs(torch.device("cuda")), generator=generator, replays=replays)


@pytest.mark.parametrize("collects", [True, False])
def test_nothing_is_collected_while_work_is_recorded(cuda, collects):
    """A graph of an earlier training, in a cycle that nobody holds, would be destroyed just then."""
    outputs = Outputs(torch.zeros(1), torch.zeros(()), [])
    seen = []

    def work() -> Outputs:
        seen.append(gc.isenabled())
        return outputs

    (gc.enable if collects else gc.disable)()
    try:
        replay = cuda.graphs.record(work)
        assert seen == [False] and gc.isenabled() == collects
    finally:
        gc.enable()
    assert replay() is outputs and replay() is outputs and len(cuda.replays) == 2 and len(seen) == 1


def test_what_cannot_be_recorded_leaves_generator_and_collector_as_they_were(cuda):
    def work() -> Outputs:
        cuda.generator.state["drawn"] += 1
        raise RuntimeError("operation not permitted when stream is capturing")

    with pytest.raises(RuntimeError, match="not permitted"):
        cuda.graphs.record(work)
    assert cuda.generator.state == {"drawn": 3, "recording": False} and gc.isenabled()
