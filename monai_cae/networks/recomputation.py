"""Blocks that are computed again for their gradients, so that their activations need not be kept."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager
from functools import partial
from typing import Any, TypeVar

import torch
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.utils.checkpoint import checkpoint

from monai_cae.errors import MonaiCaeError

Context = AbstractContextManager[Any]
Network = TypeVar("Network", bound=nn.Module)


def recomputing(network: Network, enabled: bool = True) -> Network:
    """Switch activation checkpointing on or off in every module that has it: an attribute `recompute`.

    Args:
        network: changed in place.
        enabled: keep only what goes into each block, and compute the block again in the backward pass.

    Raises:
        MonaiCaeError: enabled, and no module has it.
    """
    able = [module for module in network.modules() if hasattr(module, "recompute")]
    if enabled and not able:
        raise MonaiCaeError(
            f"no part of {type(network).__name__} has an attribute recompute: leave --activation_checkpointing out"
        )
    for module in able:
        module.recompute = enabled  # type: ignore[assignment]  # not a tensor or module
    return network


def recomputed(segments: Sequence[Sequence[nn.Module]], x: torch.Tensor) -> torch.Tensor:
    """Go through layers, and keep for the gradients only what goes into each segment. Where there are no gradients,
    this is an ordinary pass.

    Batch norm sees a batch twice, and counts it once. Random numbers would be drawn anew: dropout has no place here.

    Args:
        segments: layers, one behind the other.
        x: goes into the first.

    Returns:
        What comes out of the last.
    """
    for layers in segments:
        # torch.compile takes no contexts, and repeats nothing that writes to statistics
        contexts: dict[str, Any] = {} if torch.compiler.is_compiling() else {"context_fn": partial(_contexts, layers)}
        x = checkpoint(_through, layers, x, use_reentrant=False, preserve_rng_state=False, **contexts)
    return x


def _through(layers: Sequence[nn.Module], x: torch.Tensor) -> torch.Tensor:
    for layer in layers:
        x = layer(x)
    return x


def _contexts(layers: Sequence[nn.Module]) -> tuple[Context, Context]:
    return contextlib.nullcontext(), _statistics_stay(layers)


@contextlib.contextmanager
def _statistics_stay(layers: Sequence[nn.Module]) -> Iterator[None]:
    """With momentum 0 a batch counts for nothing. Without statistics, other tensors would be kept than the first time,
    which PyTorch refuses."""
    norms = [one for layer in layers for one in layer.modules() if isinstance(one, _BatchNorm)]
    before = [(norm.momentum, norm.num_batches_tracked) for norm in norms]
    for norm in norms:
        counter = norm.num_batches_tracked
        norm.momentum, norm.num_batches_tracked = 0.0, None if counter is None else counter.clone()
    try:
        yield
    finally:
        for norm, (momentum, counter) in zip(norms, before, strict=True):
            norm.momentum, norm.num_batches_tracked = momentum, counter
