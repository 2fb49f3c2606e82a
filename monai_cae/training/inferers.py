"""Calling a network in the precision that the device is fast in."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from typing import Any

import torch
from monai.inferers import SimpleInferer

from monai_cae.errors import MonaiCaeError

PRECISIONS = ("auto", "bfloat16", "float32")


class PrecisionInferer(SimpleInferer):
    """MONAI's SimpleInferer under `torch.autocast`, images in channels-last order; predictions are float32.

    An inferer is the one place that trainer and evaluator share for the forward pass. `SupervisedTrainer(amp=True)` is
    wired to float16 on CUDA.

    Args:
        precision: "bfloat16", "float32", or "auto": bfloat16 where the device computes in it, else float32.

    Raises:
        MonaiCaeError: an unknown precision.
    """

    def __init__(self, precision: str = "auto") -> None:
        super().__init__()
        if precision not in PRECISIONS:
            raise MonaiCaeError(f"precision must be one of {', '.join(PRECISIONS)}, not {precision!r}")
        self.precision = precision

    def __call__(
        self, inputs: torch.Tensor, network: Callable[..., torch.Tensor], *args: Any, **kwargs: Any
    ) -> torch.Tensor:
        """
        Args:
            inputs: shape `(N, C, H, W[, D])`.
            network: called with them.

        Returns:
            The network's output, in float32.
        """
        if inputs.ndim == 4:
            inputs = inputs.contiguous(memory_format=torch.channels_last)
        half = self.precision == "bfloat16" or (self.precision == "auto" and has_fast_bfloat16(inputs.device))
        context = torch.autocast(inputs.device.type, torch.bfloat16) if half else contextlib.nullcontext()
        with context:
            return super().__call__(inputs, network, *args, **kwargs).float()


def has_fast_bfloat16(device: torch.device) -> bool:
    """Whether the device has instructions for bfloat16 matrix products (elsewhere it is slower than float32)."""
    if device.type == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    return device.type == "cpu" and bool(torch.cpu._is_avx512_bf16_supported())
