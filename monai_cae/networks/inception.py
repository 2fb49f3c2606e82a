"""An inception block: convolutions of several sizes beside each other, in 2D and 3D.

After C. Szegedy et al., Going deeper with convolutions, CVPR 2015, with two convolutions 3x3 for one 5x5 as in their
Rethinking the inception architecture, CVPR 2016. K. Oh et al. 2019 have an autoencoder of such modules on volumes;
their layers are not public.
"""

from __future__ import annotations

import torch
from monai.networks.layers.factories import Conv, Pool
from torch import nn

from monai_cae.errors import MonaiCaeError
from monai_cae.networks.norms import norm_layer

_SHARES = 8  # of the filters: 2 for 1x1, 4 for 3x3, 1 for 5x5, 1 for pooling, as in GoogLeNet's first module


class InceptionBlock(nn.Module):
    """Four branches, one behind the other in the channels: a convolution 1x1; 1x1, then 3x3; 1x1, then twice 3x3;
    max-pooling 3x3 at every place, then 1x1. Each convolution is followed by ReLU and a norm.

    Args:
        spatial_dims: 2 for slices, 3 for volumes.
        in_channels: of what comes in.
        out_channels: of all branches together.
        norm: see `norm_layer`.

    Raises:
        MonaiCaeError: out_channels cannot be divided among the branches.
    """

    def __init__(self, spatial_dims: int, in_channels: int, out_channels: int, norm: str = "batch") -> None:
        super().__init__()
        if out_channels % _SHARES:
            raise MonaiCaeError(f"inception blocks need channels that are multiples of {_SHARES}, not {out_channels}")
        share = out_channels // _SHARES

        def conv(i: int, o: int, size: int) -> list[nn.Module]:
            convolution = Conv[Conv.CONV, spatial_dims](i, o, size, padding=size // 2)
            return [convolution, nn.ReLU(inplace=True), norm_layer(norm, spatial_dims, o)]

        pool = Pool[Pool.MAX, spatial_dims](3, stride=1, padding=1)
        self.branches = nn.ModuleList(
            nn.Sequential(*layers)
            for layers in (
                conv(in_channels, 2 * share, 1),
                [*conv(in_channels, 2 * share, 1), *conv(2 * share, 4 * share, 3)],
                [*conv(in_channels, share, 1), *conv(share, share, 3), *conv(share, share, 3)],
                [pool, *conv(in_channels, share, 1)],
            )
        )

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        """
        Args:
            image: shape `(N, in_channels, H, W[, D])`.

        Returns:
            Shape `(N, out_channels, H, W[, D])`.
        """
        return torch.cat([branch(image) for branch in self.branches], dim=1)
