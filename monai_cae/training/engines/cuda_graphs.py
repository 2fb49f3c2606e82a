"""CUDA graphs: work that is recorded once and replayed without Python, and without the GPU waiting for it."""

from __future__ import annotations

import gc
import warnings
from collections.abc import Callable
from typing import Any, NamedTuple

import torch

_WAITED = "called a synchronizing CUDA operation"  # c10/cuda/CUDAFunctions.cpp


class Outputs(NamedTuple):
    """What a training step leaves.

    Args:
        pred: the network's output.
        loss: one number.
        grads: of each of the network's parameters; None for those that do not learn.
    """

    pred: Any
    loss: torch.Tensor
    grads: list[torch.Tensor | None]


Work = Callable[[], Outputs]


class CudaGraphs:
    """Graphs of one device that share a stream and a memory pool.

    The pool may be shared though graphs are replayed in any order: each computes all that it reads, except parameters,
    buffers and inputs, which lie outside, and what it returns is to be copied before the next replay.

    Args:
        device: of everything that the work touches.

    Attributes:
        waited: whether the work that `run` did last has waited for the GPU, which a recording can't.
    """

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self.waited = False
        with torch.cuda.device(device):
            self._stream = torch.cuda.Stream()
            self._pool = torch.cuda.graph_pool_handle()

    @staticmethod
    def usable(device: torch.device) -> bool:
        """Whether work on the device can be recorded."""
        return device.type == "cuda"

    def run(self, work: Work) -> Outputs:
        """Do the work in the ordinary way, on the stream of the recordings.

        What is chosen or allocated at the first time, which a recording can't do, is so for this stream and these
        shapes: cuDNN's kernels, cuBLAS's workspace, an optimizer's state, inductor's code. Autograd's nodes belong to
        the stream where they were made; one of the main stream would drag that into the recording.
        """
        with torch.cuda.device(self.device), warnings.catch_warnings(record=True) as told:
            warnings.simplefilter("always")
            main, mode = torch.cuda.current_stream(), torch.cuda.get_sync_debug_mode()
            self._stream.wait_stream(main)
            torch.cuda.set_sync_debug_mode("warn")
            try:
                with torch.cuda.stream(self._stream):
                    outputs = work()
            finally:
                torch.cuda.set_sync_debug_mode(mode)
            main.wait_stream(self._stream)
        self.waited = any(_WAITED in str(warning.message) for warning in told)
        for warning in told:
            if "ynchroniz" not in str(warning.message):
                warnings.warn_explicit(warning.message, warning.category, warning.filename, warning.lineno)
        return outputs

    def record(self, work: Work) -> Work:
        """Record the work without doing it.

        Why the numbers are those of ordinary steps: autocast is entered and left within the work, so that its copies of
        the weights are made anew in every replay; the default generator adds to its offset in every replay what the
        work draws, so dropout draws as it would, and the recording itself draws nothing; deterministic kernels are
        chosen when work is recorded, as they are otherwise.

        Returns:
            Does the work, in the order of the current stream; its outputs are the same tensors every time.

        Raises:
            RuntimeError: it can't be recorded. Stream and random numbers are as before; PyTorch itself would leave both
                in the middle of the recording (aten/src/ATen/cuda/CUDAGraph.cpp, reset).
        """
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.device(self.device), torch.cuda.stream(torch.cuda.current_stream(self.device)):
            generator = torch.cuda.default_generators[torch.cuda.current_device()]
            before, collects = generator.clone_state(), gc.isenabled()
            gc.disable()  # graphs of an earlier training that are destroyed meanwhile would make this one invalid
            try:
                # other threads, such as a loader's, may allocate meanwhile
                with torch.cuda.graph(graph, self._pool, self._stream, capture_error_mode="thread_local"):
                    outputs = work()
            except RuntimeError:
                generator.graphsafe_set_state(before)
                raise
            finally:
                if collects:
                    gc.enable()

        def replay() -> Outputs:
            graph.replay()
            return outputs

        return replay
