"""The two encoders that Yagis et al. compare with theirs: ResNet50 and VGG16, from ImageNet or from scratch.

Their tensors have the names and shapes of torchvision's models, so its weight files can be read; torchvision itself
is not needed.
"""

from __future__ import annotations

from pathlib import Path

import torch
from torch import nn

from monai_cae.errors import MonaiCaeError
from monai_cae.networks.resnet import ResNetEncoder
from monai_cae.networks.weights import first_misfit, read_state

# Of the RGB images in [0, 1] that torchvision's models were trained on.
_MEAN = (0.485, 0.456, 0.406)
_STD = (0.229, 0.224, 0.225)
_VGG16 = (64, 64, "M", 128, 128, "M", 256, 256, 256, "M", 512, 512, 512, "M", 512, 512, 512, "M")


class ResNet50Encoder(ResNetEncoder):
    """`ResNetEncoder` of depth 50 for slices, which can start from ImageNet.

    Args:
        in_channels: channels of the image; with weights 1 (copied to red, green and blue) or 3.
        weights: file of torchvision's ImageNet weights, such as resnet50-11ad3fa6.pth. Images in [0, 1] are then
            normalised as in its training. Nothing for random weights, which take the image as it is.

    Raises:
        MonaiCaeError: no such file, or one without the weights of a ResNet50.
    """

    def __init__(self, in_channels: int = 1, weights: str = "") -> None:
        super().__init__(spatial_dims=2, in_channels=3 if weights else in_channels, depth=50)
        self.input = _input_of(in_channels, weights)
        if weights:
            _load_imagenet(self, weights, ignored="fc.")


class VGG16Encoder(nn.Module):
    """The convolutions and poolings of VGG16, configuration D (Simonyan and Zisserman, arXiv:1409.1556), no batch norm.

    Args:
        in_channels: channels of the image; with weights 1 (copied to red, green and blue) or 3.
        weights: file of torchvision's ImageNet weights, such as vgg16-397923af.pth. Images in [0, 1] are then
            normalised as in its training. Nothing for random weights, which take the image as it is.

    Attributes:
        downsampling: 32. Other sizes are rounded down: 176 x 176 becomes 5 x 5.
        out_channels: 512.

    Raises:
        MonaiCaeError: no such file, or one without the weights of a VGG16.
    """

    def __init__(self, in_channels: int = 1, weights: str = "") -> None:
        super().__init__()
        self.downsampling = 32
        self.out_channels = 512
        self.input = _input_of(in_channels, weights)
        layers: list[nn.Module] = []
        channels = 3 if weights else in_channels
        for width in _VGG16:
            if isinstance(width, int):
                layers += [nn.Conv2d(channels, width, 3, padding=1), nn.ReLU(inplace=True)]
                channels = width
            else:
                layers.append(nn.MaxPool2d(2))
        self.features = nn.Sequential(*layers)
        if weights:
            _load_imagenet(self, weights, ignored="classifier.")
            return
        for layer in layers:  # PyTorch's own start lets the signal fade in 13 layers without batch norm
            if isinstance(layer, nn.Conv2d) and layer.bias is not None:
                nn.init.kaiming_normal_(layer.weight, mode="fan_out", nonlinearity="relu")
                nn.init.zeros_(layer.bias)

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        """
        Args:
            image: shape `(N, in_channels, H, W)`, values in [0, 1].

        Returns:
            Code of shape `(N, 512, H // 32, W // 32)`.
        """
        return self.features(self.input(image))


class _ImageNetInput(nn.Module):
    """Images in [0, 1], grey or RGB, as torchvision's models were trained on them.

    A step of its own, because the convolution pads with zeros after it: folded into kernels and a constant, the mean
    would be missing along the border.
    """

    def __init__(self) -> None:
        super().__init__()
        self.mean: torch.Tensor
        self.std: torch.Tensor
        self.register_buffer("mean", torch.tensor(_MEAN).reshape(1, 3, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(_STD).reshape(1, 3, 1, 1), persistent=False)

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        return (image - self.mean) / self.std  # a single channel is broadcast to three


def _input_of(in_channels: int, weights: str) -> nn.Module:
    if not weights:
        return nn.Identity()
    if in_channels not in (1, 3):
        raise MonaiCaeError(f"in_channels must be 1 or 3 with the ImageNet weights of {weights}, not {in_channels}")
    return _ImageNetInput()


def _load_imagenet(encoder: nn.Module, path: str, ignored: str) -> None:
    file = Path(path)
    if not file.is_file():
        raise MonaiCaeError(
            f"no ImageNet weights at {path}: check the path, or leave it empty to start from random weights"
        )
    ours = encoder.state_dict()
    # torchvision's older files lack batch norm's counters, which nothing here reads
    counters = {name: value for name, value in ours.items() if name.endswith("num_batches_tracked")}
    theirs = {**counters, **{name: value for name, value in read_state(file).items() if not name.startswith(ignored)}}
    misfit = first_misfit(ours, theirs)
    if misfit:
        raise MonaiCaeError(
            f"{path} does not hold torchvision's weights of the network in {type(encoder).__name__} ({misfit}): "
            "name another file"
        )
    encoder.load_state_dict(theirs)
