"""Activation checkpointing: the same numbers in less memory, and batch norm counts each batch once."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from tiny import mistake
from torch import nn

from monai_cae.networks import (
    ConvAutoencoder,
    ConvDecoder,
    ConvEncoder,
    DenseNetEncoder,
    EncoderClassifier,
    ResNetEncoder,
    VGG16Encoder,
    recomputing,
)
from monai_cae.training.engines.counting import count_step

STEPS = 3


def autoencoder(spatial_dims: int, norm: str = "batch", channels: tuple[int, ...] = (3, 4, 6)) -> nn.Module:
    return ConvAutoencoder(
        encoder=ConvEncoder(spatial_dims, channels=channels, norm=norm),
        decoder=ConvDecoder(spatial_dims, channels=channels, norm=norm),
    )


def classifier(encoder: nn.Module, *sizes: int) -> nn.Module:
    return EncoderClassifier(encoder=encoder, spatial_size=sizes, hidden=[4], pooling=1)


NETWORKS: dict[str, tuple[Callable[[], nn.Module], tuple[int, ...]]] = {
    "slices": (lambda: autoencoder(2), (8, 12)),
    "volumes": (lambda: autoencoder(3), (8, 4, 8)),
    "instance": (lambda: autoencoder(3, "instance"), (8, 8, 8)),
    "classifier": (lambda: classifier(ConvEncoder(3, channels=(3, 4)), 4, 6, 4), (4, 6, 4)),
    "resnet": (lambda: classifier(ResNetEncoder(2, depth=10), 40, 33), (40, 33)),
    "densenet": (lambda: classifier(DenseNetEncoder(2, depth=121), 40, 40), (40, 40)),
}


def trained(make: Callable[[], nn.Module], sizes: tuple[int, ...], recompute: bool, half: bool) -> nn.Module:
    torch.manual_seed(0)
    network = recomputing(make(), recompute).train()
    optimizer = torch.optim.Adam(network.parameters(), lr=0.01)
    for _ in range(STEPS):
        image = torch.rand(3, 1, *sizes)
        optimizer.zero_grad()
        with torch.autocast("cpu", torch.bfloat16, enabled=half):
            output = network(image)
        (output.float() - 0.3).square().mean().backward()
        optimizer.step()
    return network


@pytest.mark.parametrize("half", [False, True], ids=["float32", "bfloat16"])
@pytest.mark.parametrize("name", NETWORKS)
def test_weights_and_statistics_are_those_of_ordinary_steps_bit_for_bit(name, half):
    expected, found = (trained(*NETWORKS[name], recompute, half).state_dict() for recompute in (False, True))
    assert expected.keys() == found.keys()
    for key, tensor in expected.items():
        assert torch.equal(found[key], tensor), key
        if key.endswith("num_batches_tracked"):
            assert int(tensor) == STEPS
        if key.endswith("running_mean"):
            assert tensor.abs().sum() > 0, key  # something was counted


def test_momentum_and_counters_are_back_after_a_step():
    network = trained(*NETWORKS["slices"], True, False)
    norms = [one for one in network.modules() if isinstance(one, nn.BatchNorm2d)]
    counters = [norm.num_batches_tracked for norm in norms]
    assert len(norms) == 12 and all(norm.momentum == 0.1 for norm in norms)
    network(torch.rand(2, 1, 8, 12)).sum().backward()
    assert all(norm.num_batches_tracked is own for norm, own in zip(norms, counters, strict=True))
    assert all(int(counter) == STEPS + 1 for counter in counters)


@pytest.mark.parametrize("name", NETWORKS)
def test_blocks_are_computed_a_second_time_and_only_for_gradients(name):
    make, sizes = NETWORKS[name]
    network, calls = recomputing(make()).train(), []
    convolution = next(one for one in network.modules() if isinstance(one, (nn.Conv2d, nn.Conv3d)))
    if name == "resnet":  # its first layers need as much memory either way, and are kept
        convolution = network.encoder.layer1[0].conv1
    convolution.register_forward_hook(lambda *_: calls.append(1))
    network(torch.rand(3, 1, *sizes)).sum().backward()
    assert len(calls) == 2
    with torch.no_grad():
        network.eval()(torch.rand(3, 1, *sizes))
    assert len(calls) == 3
    recomputing(network, False).train()(torch.rand(3, 1, *sizes)).sum().backward()
    assert len(calls) == 4


def counted(network: nn.Module, *shape: int) -> int:
    def batch():
        image = torch.zeros(shape)
        return image, image, (), {}

    return count_step(network, lambda image, call: call(image), batch, nn.MSELoss(), "cpu")


def test_what_is_kept_is_what_goes_into_blocks_and_one_block():
    """Numbers for a pixel of the paper's autoencoder, see test_memory.py: 584 to 640 in an ordinary step. Here image,
    32, 16 and 8 in front of poolings and code, 8, 16 and 32 behind the decoder's blocks, output; when the last block is
    computed again, 64, 32, 32 and 32 in it, and gradients of up to 32 + 64."""
    network = autoencoder(2, channels=(32, 64, 128))
    weights = 4 * 722_113
    pixels = 4 * 64 * 64
    ordinary = (counted(network, 4, 1, 64, 64) - 4 * weights) / (4 * pixels)
    recomputed = (counted(recomputing(network), 4, 1, 64, 64) - 4 * weights) / (4 * pixels)
    kept, again = 1 + 32 + 16 + 8 + 8 + 16 + 32 + 1, 64 + 32 + 32 + 32
    assert 584 < ordinary < 650
    assert kept + again < recomputed < kept + again + 32 + 64 + 20


def test_torchscript_has_the_ordinary_pass():
    for make, sizes in NETWORKS.values():
        network = recomputing(make()).eval()
        image = torch.rand(2, 1, *sizes)
        assert torch.equal(torch.jit.script(network)(image), network(image))


def test_a_network_that_can_not_is_refused():
    network = classifier(VGG16Encoder(), 32, 32)
    assert recomputing(network, False) is network
    assert mistake(recomputing, network) == (
        "no part of EncoderClassifier has an attribute recompute: leave --activation_checkpointing out"
    )
