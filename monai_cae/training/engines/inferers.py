"""Call a network in the precision in which the device is fast, compiled where that is faster."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from typing import Any
from weakref import WeakKeyDictionary

import torch
from monai.inferers import SimpleInferer
from torch import nn

from monai_cae.errors import MonaiCaeError
from monai_cae.networks.reconstruction import each_tensor

PRECISIONS = ("auto", "bfloat16", "float32")
COMPILE = ("auto", True, False)


class PrecisionInferer(SimpleInferer):
    """MONAI's SimpleInferer under `torch.autocast`, images in channels-last order; predictions are float32.

    An inferer is the one place that trainer and evaluator share for the forward pass. `SupervisedTrainer(amp=True)` is
    wired to float16 on CUDA, and its `compile=True` renames the weights in checkpoints; here the network stays as it
    is.

    Args:
        precision: "bfloat16", "float32", or "auto": bfloat16 where the device computes in it, else float32.
        compile: call the network through `torch.compile`, on CUDA with CUDA graphs; "auto": on CUDA only. On CPUs it
            is no faster than oneDNN's kernels, and costs half a minute of compiling.

    Raises:
        MonaiCaeError: an unknown precision, or a `compile` other than true, false and auto.
    """

    def __init__(self, precision: str = "auto", compile: bool | str = False) -> None:
        super().__init__()
        if precision not in PRECISIONS:
            raise MonaiCaeError(f"precision must be one of {', '.join(PRECISIONS)}, not {precision!r}")
        if compile not in COMPILE:
            raise MonaiCaeError(f"compile must be true, false or auto, not {compile!r}")
        self.precision = precision
        self.compile = compile
        self._compiled: WeakKeyDictionary[nn.Module, Callable[..., torch.Tensor]] = WeakKeyDictionary()

    def __call__(self, inputs: torch.Tensor, network: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        """
        Args:
            inputs: shape `(N, C, H, W[, D])`.
            network: called with them.

        Returns:
            The network's output, its tensors in float32.
        """
        if inputs.ndim == 4:
            inputs = inputs.contiguous(memory_format=torch.channels_last)
        device = inputs.device
        half = self.precision == "bfloat16" or (self.precision == "auto" and has_fast_bfloat16(device))
        graphs = False
        if isinstance(network, nn.Module) and (self.compile is True or (self.compile == "auto" and _is_cuda(device))):
            network, graphs = self._compile(network, device), _is_cuda(device)
        context = torch.autocast(device.type, torch.bfloat16) if half else contextlib.nullcontext()
        with context:
            output = super().__call__(inputs, network, *args, **kwargs)

        def full(tensor: torch.Tensor) -> torch.Tensor:
            precise = tensor.to(torch.promote_types(tensor.dtype, torch.float32))
            # the next replay of a CUDA graph writes over its output
            return precise.clone() if graphs and precise is tensor else precise

        return each_tensor(output, full)

    def _compile(self, network: nn.Module, device: torch.device) -> Callable[..., torch.Tensor]:
        if network not in self._compiled:
            mode = "reduce-overhead" if _is_cuda(device) else "default"
            self._compiled[network] = torch.compile(network, mode=mode, dynamic=False)
        if _is_cuda(device):
            torch.compiler.cudagraph_mark_step_begin()
        return self._compiled[network]


def _is_cuda(device: torch.device) -> bool:
    return device.type == "cuda"


def has_fast_bfloat16(device: torch.device) -> bool:
    """Whether the device has instructions for bfloat16 matrix products (elsewhere it is slower than float32)."""
    if device.type == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    return device.type == "cpu" and bool(torch.cpu._is_avx512_bf16_supported())
