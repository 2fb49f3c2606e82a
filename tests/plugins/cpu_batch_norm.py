"""Batch norm that sees the batches of all processes on CPUs, where torch has it for GPUs alone."""

from __future__ import annotations

from typing import Any

import torch
from torch import distributed, nn
from torch.nn.modules.batchnorm import _BatchNorm

from monai_cae.training import become_replica


def become_cpu_replica(network: nn.Module, seed: int) -> None:
    """`become_replica`, with batch norms that look at all processes."""
    become_replica(network, seed)
    for module in network.modules():
        if isinstance(module, _BatchNorm):
            module.__class__ = CPUSyncBatchNorm  # as torch's parametrizations do; weights and buffers stay the same


class CPUSyncBatchNorm(_BatchNorm):
    """`torch.nn.SyncBatchNorm`, which refuses CPU tensors, in plain operations."""

    running_mean: torch.Tensor
    running_var: torch.Tensor
    num_batches_tracked: torch.Tensor
    momentum: float

    def _check_input_dim(self, input: torch.Tensor) -> None:
        """Any number of dimensions."""

    def forward(self, input: torch.Tensor) -> torch.Tensor:
        """Args: input: shape `(N, C, ...)`; N may differ between the processes."""
        if not self.training:
            return super().forward(input)
        dims = [0, *range(2, input.ndim)]
        shape = [1, -1] + [1] * (input.ndim - 2)
        image = input.to(torch.promote_types(input.dtype, torch.float32))
        count = _Sum.apply(image.new_tensor(image.numel() / image.shape[1]))
        mean = _Sum.apply(image.sum(dims)) / count
        centred = image - mean.view(shape)
        variance = _Sum.apply(centred.square().sum(dims)) / count
        with torch.no_grad():
            self.num_batches_tracked.add_(1)
            self.running_mean.lerp_(mean, self.momentum)
            self.running_var.lerp_(variance * count / (count - 1), self.momentum)
        scale = self.weight * torch.rsqrt(variance + self.eps)
        return (centred * scale.view(shape) + self.bias.view(shape)).to(input.dtype)


class _Sum(torch.autograd.Function):
    """Sum over all processes; a gradient of one process's sum is one of every process's summand."""

    @staticmethod
    def forward(ctx: Any, tensor: torch.Tensor) -> torch.Tensor:
        total = tensor.clone()
        distributed.all_reduce(total)
        return total

    @staticmethod
    def backward(ctx: Any, *gradients: torch.Tensor) -> torch.Tensor:
        return _Sum.forward(ctx, gradients[0])
