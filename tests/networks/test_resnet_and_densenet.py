"""MONAI's networks as encoders: published sizes, and what a classifier needs of them."""

from __future__ import annotations

import pytest
import torch
from tiny import mistake
from torch import nn

from monai_cae.networks import DenseNetEncoder, EncoderClassifier, ResNetEncoder

# Of torchvision's models, less the dense layer of 1000 classes.
PUBLISHED = {
    (ResNetEncoder, 18): 11_689_512 - 513_000,
    (ResNetEncoder, 34): 21_797_672 - 513_000,
    (ResNetEncoder, 50): 25_557_032 - 2_049_000,
    (ResNetEncoder, 101): 44_549_160 - 2_049_000,
    (DenseNetEncoder, 121): 7_978_856 - 1_025_000,
    (DenseNetEncoder, 169): 14_149_480 - 1_665_000,
    (DenseNetEncoder, 201): 20_013_928 - 1_921_000,
}


@pytest.mark.parametrize(("encoder", "depth"), PUBLISHED)
def test_parameters_are_the_published_ones(encoder, depth):
    with torch.device("meta"):
        flat, deep = (encoder(dims, 3, depth) for dims in (2, 3))
    assert sum(one.numel() for one in flat.parameters()) == PUBLISHED[encoder, depth]
    sizes = [{name: tuple(one.shape) for name, one in network.named_parameters()} for network in (flat, deep)]
    assert sizes[1] == {name: (*size, size[-1]) if len(size) == 4 else size for name, size in sizes[0].items()}
    with torch.device("meta"):
        instance = encoder(3, 3, depth, norm="instance")
    assert not any("running" in name for name in instance.state_dict())
    assert {name: tuple(one.shape) for name, one in instance.named_parameters()} == sizes[1]


@pytest.mark.parametrize(
    ("encoder", "channels", "size", "code"),
    [
        (ResNetEncoder, 512, (64, 33), (2, 2)),
        (ResNetEncoder, 512, (33, 32, 64), (2, 1, 2)),
        (DenseNetEncoder, 1024, (64, 40), (2, 1)),
        (DenseNetEncoder, 1024, (29, 32, 64), (1, 1, 2)),
    ],
)
def test_code_of_an_image_and_learning_from_it(encoder, channels, size, code):
    torch.manual_seed(0)
    made = encoder(len(size), 2)
    image = torch.rand(2, 2, *size)
    found = made.eval()(image)
    assert found.shape == (2, channels, *code) and (made.out_channels, made.downsampling) == (channels, 32)
    assert 0.01 < found.std() < 100 and found.min() == 0  # the last layer is a ReLU
    assert torch.equal(torch.jit.script(made)(image), found)
    network = EncoderClassifier(encoder=made, spatial_size=[32] * len(size), hidden=[], pooling=1).train()
    network(image).square().sum().backward()
    assert all(one.grad is not None and one.grad.abs().sum() > 0 for one in network.parameters())


def test_every_norm_of_a_resnet_is_the_chosen_one():
    kinds = {type(one) for one in ResNetEncoder(3, depth=10, norm="instance").modules() if "Norm" in type(one).__name__}
    assert kinds == {nn.InstanceNorm3d}


def test_unknown_depths_are_one_line():
    assert mistake(ResNetEncoder, depth=20) == (
        "depth of a ResNet must be one of 10, 18, 34, 50, 101, 152, 200, not 20"
    )
    assert mistake(DenseNetEncoder, depth="121") == ("depth of a DenseNet must be one of 121, 169, 201, 264, not '121'")
    assert mistake(ResNetEncoder, norm="none") == "norm must be one of batch, instance, not 'none'"
