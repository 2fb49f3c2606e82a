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
COMPILE = ("auto", "graph", "inductor", "off")
FORMER = {"true": "inductor", "false": "off"}
_FEWEST = 3  # places along an axis of a code, so that no kernel of 3 x 3 x 3 is larger than what it sees
_MOST_DOWNSAMPLING = 32  # of a network that does not say: as ResNet and DenseNet


class PrecisionInferer(SimpleInferer):
    """MONAI's SimpleInferer under `torch.autocast`, images in channels-last order; predictions are float32.

    An inferer is the one place that trainer and evaluator share for the forward pass. `SupervisedTrainer(amp=True)` is
    wired to float16 on CUDA, and its `compile=True` renames the weights in checkpoints; here the network stays as it
    is. On a CPU, volumes whose code may have fewer than three places along an axis are computed in float32 whatever is
    asked for: PyTorch 2.13's bfloat16 gradients of kernels that are larger than their image are wrong there.

    Args:
        precision: "bfloat16", "float32", or "auto": bfloat16 where the device computes in it, else float32.
        compile: "inductor" calls the network through `torch.compile`, which fuses batch norm and ReLU on CUDA. On CPUs
            it is no faster than oneDNN's kernels, and costs half a minute of compiling. The other words of `COMPILE`
            are for `TrainingStep`.

    Raises:
        MonaiCaeError: an unknown precision or `compile`.
    """

    def __init__(self, precision: str = "auto", compile: str = "off") -> None:
        super().__init__()
        if precision not in PRECISIONS:
            raise MonaiCaeError(f"precision must be one of {', '.join(PRECISIONS)}, not {precision!r}")
        check_compile(compile)
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
        device = inputs.device
        if inputs.ndim == 4:
            inputs = inputs.contiguous(memory_format=torch.channels_last)
        elif inputs.ndim == 5:
            inputs = inputs.contiguous(memory_format=torch.channels_last_3d)
        half = self.precision == "bfloat16" or (self.precision == "auto" and has_fast_bfloat16(device))
        half = half and not (device.type == "cpu" and inputs.ndim == 5 and _places(network, inputs) < _FEWEST)
        if isinstance(network, nn.Module) and self.compile == "inductor":
            network = self._compile(network)
        context = torch.autocast(device.type, torch.bfloat16) if half else contextlib.nullcontext()
        with context:
            output = super().__call__(inputs, network, *args, **kwargs)
        return each_tensor(output, lambda tensor: tensor.to(torch.promote_types(tensor.dtype, torch.float32)))

    def _compile(self, network: nn.Module) -> Callable[..., torch.Tensor]:
        if network not in self._compiled:
            self._compiled[network] = torch.compile(network, dynamic=False)
        return self._compiled[network]


def _places(network: Callable[..., Any], images: torch.Tensor) -> int:
    """How many places along its shortest axis the code of these volumes has, at least."""
    part = getattr(network, "encoder", network)
    while isinstance(inner := getattr(part, "network", None), nn.Module):
        part = inner
    return min(images.shape[2:]) // int(getattr(part, "downsampling", _MOST_DOWNSAMPLING))


def check_compile(value: Any) -> None:
    """
    Raises:
        MonaiCaeError: not one of `COMPILE`; for a former word the message gives the new one.
    """
    if (word := FORMER.get(str(value).lower())) is not None:
        quotes = "" if word == "inductor" else ", in a YAML file with quotes"
        raise MonaiCaeError(f"compile {str(value).lower()} is called {word} now: give --compile {word}{quotes}")
    if value not in COMPILE:
        raise MonaiCaeError(f"compile must be one of {', '.join(COMPILE)}, not {value!r}")


def has_fast_bfloat16(device: torch.device) -> bool:
    """Whether the device has instructions for bfloat16 matrix products (elsewhere it is slower than float32)."""
    if device.type == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    return device.type == "cpu" and bool(torch.cpu._is_avx512_bf16_supported())
