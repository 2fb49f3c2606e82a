"""PyTorch's pooling, on CUDA also where `torch.use_deterministic_algorithms` asks for the same bits every time.

Gradients of `AdaptiveAvgPool`, `AvgPool3d` and (in PyTorch 2.11) of `MaxPool3d` add up in any order there, so PyTorch
refuses to compute them in that case. Then the same is done axis by axis.
"""

from __future__ import annotations

import torch
from monai.networks.layers.factories import Pool
from torch import nn
from torch.nn import functional


class MeanPool(nn.Module):
    """Adaptive average pooling to so many places along each axis.

    Args:
        places: along each axis.
        spatial_dims: 1, 2 or 3.
    """

    def __init__(self, places: int, spatial_dims: int) -> None:
        super().__init__()
        self.places = places
        self.pool = Pool[Pool.ADAPTIVEAVG, spatial_dims](places)

    def forward(self, code: torch.Tensor) -> torch.Tensor:
        """
        Args:
            code: shape `(N, C, H, W[, D])`.

        Returns:
            Shape `(N, C, places, places[, places])`.
        """
        if not torch.jit.is_scripting():  # noqa: SIM102  # by itself: TorchScript then leaves out what it can't compile
            if code.is_cuda and torch.are_deterministic_algorithms_enabled():
                return _mean_in_order(code, self.places)
        return self.pool(code)


class MaxPool(nn.Module):
    """Maximum of 2 x 2 (x 2) places, or of more around each of them, at every second place.

    Args:
        spatial_dims: 1, 2 or 3.
        size: places along each axis.
        padding: places beyond each border, which are never the largest.
    """

    def __init__(self, spatial_dims: int, size: int = 2, padding: int = 0) -> None:
        super().__init__()
        self.size = size
        self.padding = padding
        self.pool = Pool[Pool.MAX, spatial_dims](size, stride=2, padding=padding)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """
        Args:
            x: shape `(N, C, H, W[, D])`.

        Returns:
            Shape `(N, C, H // 2, W // 2[, D // 2])`; with padding, halves are rounded up.
        """
        if not torch.jit.is_scripting():  # noqa: SIM102  # as above
            if x.ndim == 5 and x.is_cuda and torch.are_deterministic_algorithms_enabled():
                return _max_in_order(x, self.size, self.padding)
        return self.pool(x)


class MeanOfTwo(nn.Module):
    """Mean of every 2 x 2 (x 2) places.

    Args:
        spatial_dims: 1, 2 or 3.
    """

    def __init__(self, spatial_dims: int) -> None:
        super().__init__()
        self.pool = Pool[Pool.AVG, spatial_dims](2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """
        Args:
            x: shape `(N, C, H, W[, D])`.

        Returns:
            Shape `(N, C, H // 2, W // 2[, D // 2])`.
        """
        if not torch.jit.is_scripting():  # noqa: SIM102  # as above
            if x.ndim == 5 and x.is_cuda and torch.are_deterministic_algorithms_enabled():
                slices = functional.avg_pool2d(x.flatten(1, 2), 2).unflatten(1, x.shape[1:3])
                return functional.avg_pool2d(slices.flatten(3, 4), (2, 1)).unflatten(3, slices.shape[3:])
        return self.pool(x)


def _mean_in_order(code: torch.Tensor, places: int) -> torch.Tensor:
    """Neighbours overlap where their number does not divide the size."""
    for axis in range(2, code.ndim):
        size = code.shape[axis]
        bounds = [(place * size // places, -(-(place + 1) * size // places)) for place in range(places)]
        code = torch.stack([code.narrow(axis, first, end - first).mean(axis) for first, end in bounds], dim=axis)
    return code


def _max_in_order(x: torch.Tensor, size: int, padding: int) -> torch.Tensor:
    """The last two axes, then the first; of equal numbers, the first in memory learns, as in `MaxPool3d`."""
    slices = functional.max_pool2d(x.flatten(1, 2), size, 2, padding).unflatten(1, x.shape[1:3])
    return functional.max_pool2d(slices.flatten(3, 4), (size, 1), (2, 1), (padding, 0)).unflatten(3, slices.shape[3:])
