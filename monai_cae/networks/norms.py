"""How activations are normalised."""

from __future__ import annotations

from typing import Any

from monai.networks.layers.utils import get_norm_layer
from torch import nn

from monai_cae.errors import MonaiCaeError

# As MONAI's factory of norms has them; both have a factor and an offset for each channel.
NORMS: dict[str, Any] = {"batch": "batch", "instance": ("instance", {"affine": True})}


def norm_layer(norm: str, spatial_dims: int, channels: int) -> nn.Module:
    """
    Args:
        norm: "batch" for the mean and variance of a batch, and running statistics of these in evaluation; "instance"
            for those of each image, in training and evaluation alike.
        spatial_dims: 2 for slices, 3 for volumes.
        channels: of the activations.

    Raises:
        MonaiCaeError: another norm.
    """
    return get_norm_layer(monai_norm(norm), spatial_dims, channels)


def monai_norm(norm: str) -> Any:
    """A norm as MONAI's networks take it.

    Raises:
        MonaiCaeError: neither "batch" nor "instance".
    """
    if norm not in NORMS:
        raise MonaiCaeError(f"norm must be one of {', '.join(NORMS)}, not {norm!r}")
    return NORMS[norm]
