"""One network for every sample of an image: its slices, planes or patches."""

from __future__ import annotations

import torch
from torch import nn

from monai_cae.errors import MonaiCaeError


def each_sample(network: nn.Module, samples: int) -> nn.Module:
    """The network itself for one sample, else `EachSample` of it.

    Args:
        network: of one sample.
        samples: how many an image has, one behind the other in its channels; see `monai_cae.data.Extraction`.

    Raises:
        MonaiCaeError: not a whole number above 0.
    """
    if type(samples) is not int or samples < 1:
        raise MonaiCaeError(f"samples must be a whole number above 0, not {samples!r}")
    return network if samples == 1 else EachSample(network, samples)


class EachSample(nn.Module):
    """A network with the same weights for each sample of an image.

    The samples go through it as images of their own; batch norm sees them all. What it makes of them lies one behind
    the other in the channels again.

    Args:
        network: of one sample; from and to tensors of shape `(N, C, ...)`.
        samples: of an image.

    Attributes:
        out_channels: of all samples together, where the network has `out_channels`.
        downsampling: the network's, where it has one.
    """

    def __init__(self, network: nn.Module, samples: int) -> None:
        super().__init__()
        self.network = network
        self.samples = samples
        if hasattr(network, "out_channels"):
            self.out_channels = samples * int(network.out_channels)  # type: ignore[arg-type]
        if hasattr(network, "downsampling"):
            self.downsampling = int(network.downsampling)  # type: ignore[arg-type]

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        """
        Args:
            image: shape `(N, samples * C, ...)`.

        Returns:
            Shape `(N, samples * C', ...)`, where the network makes `C'` channels of `C`.
        """
        output = self.network(image.unflatten(1, [self.samples, -1]).flatten(0, 1))
        return output.unflatten(0, [-1, self.samples]).flatten(1, 2)
