"""Batch norm as it was, and instance norm: each image by itself, with no statistics."""

from __future__ import annotations

import pytest
import torch
from ignite.engine import Engine
from tiny import mistake
from torch import nn

from monai_cae.networks import ConvAutoencoder, ConvDecoder, ConvEncoder, load_weights, save_weights
from monai_cae.training import BatchNormWarmup

CHANNELS = (3, 4)


def autoencoder(norm: str, spatial_dims: int = 2) -> ConvAutoencoder:
    torch.manual_seed(0)
    return ConvAutoencoder(
        encoder=ConvEncoder(spatial_dims, channels=CHANNELS, norm=norm),
        decoder=ConvDecoder(spatial_dims, channels=CHANNELS, norm=norm),
    )


@pytest.mark.parametrize("spatial_dims", [2, 3])
def test_batch_has_the_names_and_bits_of_before(spatial_dims):
    """Drawn here layer by layer, as PyTorch's own layers draw them."""
    conv = {2: nn.Conv2d, 3: nn.Conv3d}[spatial_dims]
    torch.manual_seed(0)
    expected = {}
    for part, widths in (("encoder", (1, 3, 4)), ("decoder", (4, 4, 3))):
        for block in range(2):
            for place, inputs in ((0, widths[block]), (3, widths[block + 1])):
                made = conv(inputs, widths[block + 1], 3, padding=1)
                name = f"{part}.blocks.{block}"
                expected[f"{name}.{place}.weight"], expected[f"{name}.{place}.bias"] = made.weight, made.bias
                for kind, value in (("weight", 1.0), ("bias", 0.0), ("running_mean", 0.0), ("running_var", 1.0)):
                    expected[f"{name}.{place + 2}.{kind}"] = torch.full((widths[block + 1],), value)
                expected[f"{name}.{place + 2}.num_batches_tracked"] = torch.tensor(0)
    last = conv(3, 1, 3, padding=1)
    expected |= {"decoder.output.0.weight": last.weight, "decoder.output.0.bias": last.bias}
    found = autoencoder("batch", spatial_dims).state_dict()
    assert list(found) == list(expected)
    assert all(torch.equal(tensor, expected[name]) for name, tensor in found.items())


@pytest.mark.parametrize("spatial_dims", [2, 3])
def test_instance_normalises_each_channel_of_each_image_and_keeps_no_statistics(spatial_dims):
    network = autoencoder("instance", spatial_dims)
    first = network.encoder.blocks[0]
    x = torch.rand(2, 3, *[6] * spatial_dims)
    places = list(range(2, x.ndim))
    centred = x - x.mean(places, keepdim=True)
    by_hand = centred / (centred.square().mean(places, keepdim=True) + 1e-5).sqrt()
    factor, offset = torch.tensor([1.0, 2.0, 3.0]), torch.tensor([0.5, 0.0, -1.0])
    first[2].load_state_dict({"weight": factor, "bias": offset})
    shape = [3] + [1] * spatial_dims
    torch.testing.assert_close(first[2](x), by_hand * factor.view(shape) + offset.view(shape))
    assert {name.rpartition(".")[2] for name in network.state_dict()} == {"weight", "bias"}


def test_an_image_is_the_same_in_any_company_and_in_training_and_evaluation():
    images = torch.rand(3, 1, 8, 8)
    for norm, alone in (("instance", True), ("batch", False)):
        network = autoencoder(norm).train()
        together, single = network(images)[:1], network(images[:1])
        assert torch.allclose(together, single, atol=1e-6) == alone
        assert torch.allclose(network.eval()(images[:1]), single, atol=1e-6) == alone


def test_weights_of_the_other_norm_are_refused(tmp_path):
    for norm in ("batch", "instance"):
        save_weights(autoencoder(norm), tmp_path / f"{norm}.pt")
    assert "running_mean is unknown here" in mistake(load_weights, autoencoder("instance"), tmp_path / "batch.pt")
    assert "running_mean is missing" in mistake(load_weights, autoencoder("batch"), tmp_path / "instance.pt")


def test_warming_up_finds_nothing_to_do():
    network = autoencoder("instance").train()
    before = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    engine = Engine(lambda engine, batch: network(batch).sum())
    BatchNormWarmup(network).attach(engine)
    engine.run([torch.rand(2, 1, 8, 8)] * 3)
    assert all(torch.equal(tensor, before[name]) for name, tensor in network.state_dict().items())


@pytest.mark.parametrize("coder", [ConvEncoder, ConvDecoder])
def test_another_norm_is_refused(coder):
    assert mistake(coder, norm="group") == "norm must be one of batch, instance, not 'group'"
