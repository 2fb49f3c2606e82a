"""MONAI's ResNets as encoders, for slices and volumes."""

from __future__ import annotations

from typing import Any

import torch
from monai.networks.nets.resnet import ResNet, get_inplanes, resnet_params
from torch import nn

from monai_cae.errors import MonaiCaeError
from monai_cae.networks.norms import monai_norm
from monai_cae.networks.pooling import MaxPool
from monai_cae.networks.recomputation import recomputed

DEPTHS = {int(name.removeprefix("resnet")): (block, layers) for name, (block, layers, *_) in resnet_params.items()}


class ResNetEncoder(ResNet):
    """A ResNet up to its last block (He et al., arXiv:1512.03385): MONAI's, with the layers that torchvision's have.

    A 7x7 convolution of stride 2, a max pool of stride 2, four stages of blocks, the last three of which halve the
    image. A bottleneck shrinks in its 3x3 convolution ("ResNet v1.5"), not in the first 1x1 convolution as in the
    publication; shortcuts have a convolution without bias where sizes differ. There is no average pool and no dense
    layer.

    Args:
        spatial_dims: 2 for slices, 3 for volumes.
        in_channels: channels of the image.
        depth: 10, 18 or 34 with basic blocks, 50, 101, 152 or 200 with bottlenecks.
        norm: "batch" or "instance"; see `norm_layer`.

    Attributes:
        downsampling: 32. Other sizes are rounded up: 88 x 104 x 88 becomes 3 x 4 x 3.
        out_channels: 512 with basic blocks, 2048 with bottlenecks.
        input: what an image goes through first; nothing is done to it here.
        recompute: see `recomputing`.

    Raises:
        MonaiCaeError: an unknown depth or norm.
    """

    def __init__(self, spatial_dims: int = 2, in_channels: int = 1, depth: int = 18, norm: str = "batch") -> None:
        if depth not in DEPTHS:
            raise MonaiCaeError(f"depth of a ResNet must be one of {', '.join(map(str, DEPTHS))}, not {depth!r}")
        block, layers = DEPTHS[depth]
        self.norm = monai_norm(norm)  # MONAI's own argument reaches only the first layer
        super().__init__(
            block=block,
            layers=layers,
            block_inplanes=get_inplanes(),
            spatial_dims=spatial_dims,
            n_input_channels=in_channels,
            conv1_t_size=7,
            conv1_t_stride=2,
            feed_forward=False,
            bias_downsample=False,
            norm=self.norm,
        )
        self.maxpool = MaxPool(spatial_dims, size=3, padding=1)  # type: ignore[assignment]
        self.downsampling = 32
        self.out_channels = self.in_planes
        self.input: nn.Module = nn.Identity()
        self.recompute = False

    def _make_layer(self, *args: Any, **kwargs: Any) -> nn.Sequential:
        return super()._make_layer(*args, **{**kwargs, "norm": self.norm})

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        """
        Args:
            image: shape `(N, in_channels, H, W[, D])`, values in [0, 1].

        Returns:
            Code of shape `(N, out_channels, ceil(H / 32), ceil(W / 32)[, ceil(D / 32)])`.
        """
        x = self.act(self.bn1(self.conv1(self.input(image))))
        x = self.maxpool(x)
        if not torch.jit.is_scripting():  # noqa: SIM102  # by itself: TorchScript then leaves out what it can't compile
            if self.recompute:
                return recomputed(self._segments(), x)
        return self.layer4(self.layer3(self.layer2(self.layer1(x))))

    def _segments(self) -> list[list[nn.Module]]:
        return [[block] for stage in (self.layer1, self.layer2, self.layer3, self.layer4) for block in stage]
