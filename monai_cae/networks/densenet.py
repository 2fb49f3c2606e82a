"""MONAI's DenseNets as encoders, for slices and volumes."""

from __future__ import annotations

import torch
from monai.networks.nets.densenet import DenseNet
from torch import nn

from monai_cae.errors import MonaiCaeError
from monai_cae.networks.norms import monai_norm
from monai_cae.networks.pooling import MaxPool, MeanOfTwo
from monai_cae.networks.recomputation import recomputed

# Layers of each block and growth rate, by the published table (Huang et al., arXiv:1608.06993).
DEPTHS = {121: (6, 12, 24, 16), 169: (6, 12, 32, 32), 201: (6, 12, 48, 32), 264: (6, 12, 64, 48)}


class DenseNetEncoder(DenseNet):
    """A DenseNet of growth rate 32 up to its last norm and ReLU (Huang et al., arXiv:1608.06993): MONAI's.

    A 7x7 convolution of stride 2, a max pool of stride 2, four blocks, and between these 1x1 convolutions that halve
    the channels and average pools that halve the image.

    Args:
        spatial_dims: 2 for slices, 3 for volumes.
        in_channels: channels of the image.
        depth: 121, 169, 201 or 264.
        norm: "batch" or "instance"; see `norm_layer`.

    Attributes:
        downsampling: 32. Other sizes are rounded: 88 x 104 x 88 becomes 2 x 3 x 2. Sides need 29 pixels.
        out_channels: 1024, 1664, 1920 or 2688.
        recompute: see `recomputing`.

    Raises:
        MonaiCaeError: an unknown depth or norm.
    """

    def __init__(self, spatial_dims: int = 2, in_channels: int = 1, depth: int = 121, norm: str = "batch") -> None:
        if depth not in DEPTHS:
            raise MonaiCaeError(f"depth of a DenseNet must be one of {', '.join(map(str, DEPTHS))}, not {depth!r}")
        super().__init__(spatial_dims, in_channels, 1, block_config=DEPTHS[depth], norm=monai_norm(norm))
        self.downsampling = 32
        self.out_channels = int(self.class_layers[-1].in_features)  # type: ignore[arg-type]
        self.class_layers = nn.Sequential(nn.ReLU(inplace=True))
        self.features.pool0 = MaxPool(spatial_dims, size=3, padding=1)
        for number in range(1, 4):
            self.features.get_submodule(f"transition{number}").pool = MeanOfTwo(spatial_dims)
        self.recompute = False

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        """
        Args:
            image: shape `(N, in_channels, H, W[, D])`, values in [0, 1].

        Returns:
            Code of shape `(N, out_channels, h, w[, d])`, about a 32nd of each size.
        """
        if not torch.jit.is_scripting():  # noqa: SIM102  # by itself: TorchScript then leaves out what it can't compile
            if self.recompute:
                return self.class_layers(recomputed(self._segments(), image))
        return self.class_layers(self.features(image))

    def _segments(self) -> list[list[nn.Module]]:
        parts = list(self.features)
        return [
            parts[:4],
            *([part] for part in parts[4:]),
        ]  # a ReLU, which writes over what it gets, is never the first
