"""What no step can do without: the bytes that it moves through memory, and how fast this machine moves bytes."""

from __future__ import annotations

import copy
import time
from collections.abc import Sequence

import torch
from torch import nn

FLOAT32 = 4
# of each weight and step: read; its gradient written and read; Adam reads and writes the weight and its two moments
LEARNING = 9 * FLOAT32
_COPIED = 2**30


def bytes_moved(network: nn.Module, shape: Sequence[int], activation: int, *, learning: bool) -> float:
    """Of one step of a network of convolutions or dense layers, if nothing is moved that could be fused away.

    Weights are float32, and read once if they don't learn. Activations, forward: a convolution or dense layer reads its
    input and writes its output; batch norm reads its input for the statistics, and again to normalise it, and writes
    it. Backward: both gradients of a convolution read that of its output, and read its input or write the input's
    gradient; batch norm reads its input and gradient for the two sums, and again for the gradient that it writes. The
    image has no gradient. In evaluation batch norm is part of the convolution before it. ReLU, pooling, up-sampling,
    dropout and the loss are done on the way.

    Args:
        network: on any device; it is not run.
        shape: of its input.
        activation: bytes of one number between the layers.
        learning: forward and backward and Adam, or forward in evaluation.
    """
    moved = 0
    first = True

    def count(module: nn.Module, inputs: tuple[torch.Tensor, ...], output: torch.Tensor) -> None:
        nonlocal moved, first
        x, y = inputs[0].numel(), output.numel()
        if isinstance(module, nn.modules.batchnorm._BatchNorm):
            moved += (3 + 5) * y if learning else 0
        elif isinstance(module, (nn.modules.conv._ConvNd, nn.Linear)):
            moved += x + y + ((1 if first else 2) * (x + y) if learning else 0)
            first = False

    skeleton = copy.deepcopy(network).to("meta")
    hooks = [module.register_forward_hook(count) for module in skeleton.modules()]
    with torch.no_grad():
        skeleton(torch.empty(*shape, device="meta"))
    for hook in hooks:
        hook.remove()
    weights = sum(weight.numel() for weight in network.parameters())
    return moved * activation + weights * (LEARNING if learning else FLOAT32)


def copy_rate(device: str) -> float:
    """Bytes per second that a copy of a gigabyte moves, read and written: what no kernel exceeds by much."""
    source = torch.ones(_COPIED // FLOAT32, device=device)
    target = torch.empty_like(source)
    best = 0.0
    for _ in range(4):
        wait(device)
        started = time.perf_counter()
        target.copy_(source)
        wait(device)
        best = max(best, 2 * _COPIED / (time.perf_counter() - started))
    return best


def wait(device: str) -> None:
    """Until the device has done all that it was asked."""
    if device != "cpu":
        torch.cuda.synchronize()
