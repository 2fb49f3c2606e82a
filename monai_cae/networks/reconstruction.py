"""The image in an autoencoder's output, whatever its forward pass returns."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import nn

from monai_cae.errors import MonaiCaeError


def reconstruction_of(network: nn.Module, output: Any) -> torch.Tensor:
    """Find the image in an autoencoder's output.

    An autoencoder is a module with an `encoder` (image -> code; `EncoderClassifier` says what it needs of one). Its
    forward pass may return anything that its loss understands: where that is not an image, the network's own method
    `reconstruction_of(output)` finds it; without one it is the first of several tensors.

    Args:
        network: the autoencoder.
        output: as its forward pass returns it.

    Returns:
        Shape `(N, C, H, W[, D])`.

    Raises:
        MonaiCaeError: the output has no image.
    """
    own = getattr(network, "reconstruction_of", None)
    image = own(output) if own is not None else output[0] if isinstance(output, (tuple, list)) else output
    if not isinstance(image, torch.Tensor):
        raise MonaiCaeError(
            f"{type(network).__name__} returns {type(image).__name__}: give it a method reconstruction_of(output) that "
            "finds the image"
        )
    return image


def each_tensor(output: Any, change: Callable[[torch.Tensor], Any]) -> Any:
    """Apply a function to each tensor of an output: in tuples, lists, mappings and dataclasses."""
    if isinstance(output, torch.Tensor):
        return change(output)
    if isinstance(output, Mapping):
        return {name: each_tensor(value, change) for name, value in output.items()}
    if isinstance(output, tuple) and hasattr(output, "_fields"):
        return type(output)(*(each_tensor(value, change) for value in output))
    if isinstance(output, (tuple, list)):
        return type(output)(each_tensor(value, change) for value in output)
    if dataclasses.is_dataclass(output) and not isinstance(output, type):
        fields = {field.name: getattr(output, field.name) for field in dataclasses.fields(output)}
        return dataclasses.replace(output, **{name: each_tensor(value, change) for name, value in fields.items()})
    return output
