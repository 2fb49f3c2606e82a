"""Autoencoders that learn the label, pairs of them, inception blocks and greedy layers, against numpy."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from tiny import mistake
from torch import nn

from monai_cae.networks import (
    ConvAutoencoder,
    ConvDecoder,
    ConvEncoder,
    DenseEncoder,
    ErrorClassifier,
    JointAutoencoder,
    PairedAutoencoder,
    PairedEncoder,
    StackedAutoencoder,
    each_sample,
    reconstruction_of,
)
from monai_cae.networks.inception import InceptionBlock
from monai_cae.networks.joint import JointLoss
from monai_cae.networks.pairs import PairedLoss
from monai_cae.networks.stacked import StackedLoss

CHANNELS = (3, 5)
BOTH = pytest.mark.parametrize(("size", "samples"), [((8, 8), 1), ((8, 4, 8), 2)])


def parts(size: tuple[int, ...], samples: int = 1, channels: tuple[int, ...] = CHANNELS) -> dict[str, nn.Module]:
    encoder, decoder = (kind(len(size), 1, channels) for kind in (ConvEncoder, ConvDecoder))
    return {"encoder": each_sample(encoder, samples), "decoder": each_sample(decoder, samples)}


@BOTH
def test_a_joint_autoencoder_predicts_each_samples_label_from_the_codes_means(size, samples):
    network = JointAutoencoder(**parts(size, samples))
    image, label = torch.rand(3, samples, *size), torch.tensor([[0.0], [1], [1]])
    network.eval().training = True  # batch norm gives the same numbers in every pass
    means = network.encoder(image).detach().numpy().reshape(3, samples, CHANNELS[-1], -1).mean(axis=3)
    votes = means @ network.head.weight.detach().numpy()[0] + network.head.bias.item()
    output = network(image)
    assert output.votes.shape == (3, samples) and reconstruction_of(network, output) is output.image
    np.testing.assert_allclose(output.votes.detach().numpy(), votes, atol=1e-5)
    of_label = np.log1p(np.exp(np.where(label.numpy() == 1, -votes, votes))).mean()
    squares = float(np.square(output.image.detach().numpy() - image.numpy()).mean())
    found = JointLoss(binary=True, weight=0.3)(output, (image, label))
    assert found.item() == pytest.approx(squares + 0.3 * of_label, rel=1e-5)
    found.backward()
    assert all(parameter.grad is not None for parameter in network.parameters())
    whole = network.eval()(image)
    assert whole.shape == image.shape and reconstruction_of(network, whole) is whole


class Shade(nn.Module):
    """An "autoencoder" that answers one shade to everything."""

    def __init__(self, shade: float, samples: int) -> None:
        super().__init__()
        self.encoder = nn.Identity()
        self.encoder.out_channels, self.encoder.downsampling, self.encoder.samples = samples, 1, samples
        self.shade = nn.Parameter(torch.tensor(shade))

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        return self.shade.expand_as(image)


def shades(size: tuple[int, ...], samples: int, errors: bool = False) -> PairedEncoder:
    """Controls are dark and patients are bright."""
    return PairedEncoder(controls=Shade(0.2, samples), patients=Shade(0.8, samples), spatial_size=size, errors=errors)


@BOTH
def test_of_a_pair_each_class_trains_its_own(size, samples):
    network = PairedAutoencoder(encoder=shades(size, samples))
    image, label = torch.full((3, samples, *size), 0.5), torch.tensor([[0.0], [1], [1]])
    image[0] = 0.3
    loss = PairedLoss(binary=True)(network(image), (image, label))
    assert loss.item() == pytest.approx((0.1**2 + 0.3**2 + 0.3**2) / 3)
    loss.backward()
    assert network.encoder.controls.shade.grad.item() == pytest.approx(2 * (0.2 - 0.3) / 3)
    assert network.encoder.patients.shade.grad.item() == pytest.approx(2 * 2 * (0.8 - 0.5) / 3)


@BOTH
def test_the_smaller_error_reconstructs_and_decides(size, samples):
    network = PairedAutoencoder(encoder=shades(size, samples)).eval()
    image = torch.full((2, samples, *size), 0.3)
    image[1] = 0.6
    whole = network(image)
    assert [one.unique().tolist() for one in whole] == [[pytest.approx(0.2)], [pytest.approx(0.8)]]
    decides = ErrorClassifier(encoder=shades(size, samples, errors=True), spatial_size=size)
    assert sum(one.numel() for one in decides.head.parameters()) == 1
    expected = [np.log(0.1**2 / 0.5**2), np.log(0.4**2 / 0.2**2)]
    np.testing.assert_allclose(decides(image).detach().numpy()[:, 0], expected, rtol=1e-4)
    decides.head.scale(-2.0)  # whatever is learned, the smaller error decides
    np.testing.assert_allclose(decides(image).detach().numpy()[:, 0], 2 * np.array(expected), rtol=1e-4)


def test_a_pairs_code_is_both_codes_of_each_sample():
    both = [ConvAutoencoder(**parts((8, 8), 2)) for _ in range(2)]
    pair = PairedEncoder(controls=both[0], patients=both[1], spatial_size=(8, 8)).eval()
    image = torch.rand(3, 2, 8, 8)
    code = pair(image).reshape(3, 2, 2, CHANNELS[-1], 4, 4)
    assert (pair.out_channels, pair.downsampling, pair.samples) == (20, 2, 2)
    for index, one in enumerate(both):
        torch.testing.assert_close(code[:, :, index].flatten(1, 2), one.encoder(image), rtol=0, atol=1e-6)


@pytest.mark.parametrize("dims", [2, 3])
def test_the_branches_of_an_inception_block_see_one_place_and_their_neighbours(dims):
    block = InceptionBlock(dims, 3, 16).eval()
    for weight in block.parameters():
        weight.detach().abs_()  # so that no ReLU hides a change
    image = torch.rand(1, 3, *[9] * dims)
    other = image.clone()
    other[(0, 0, *[4] * dims)] += 5
    with torch.no_grad():
        changed = (block(image) != block(other))[0].numpy()
    assert changed.shape == (16, *[9] * dims)
    branches = np.split(changed, [4, 12, 14])  # 1x1, 3x3, 5x5, pooling
    for branch, reach in zip(branches, (0, 1, 2, 1), strict=True):
        places = np.argwhere(branch.any(axis=0))
        assert np.abs(places - 4).max() == reach


@BOTH
def test_layers_learn_one_after_another(size, samples):
    channels = (2, 3, 4)
    network = StackedAutoencoder(**parts(size, samples, channels))
    encoder = network.encoder.network if samples > 1 else network.encoder
    image = torch.rand(2, samples, *size)
    given = [image.reshape(-1, 1, *size)]
    network.eval().training = True
    with torch.no_grad():
        for index, block in enumerate(encoder.blocks[:2]):
            given.append(block(encoder.pool(given[-1]) if index else given[-1]))
    seen = []
    for epoch in range(7):
        network.begin_epoch(epoch, 7)
        network.zero_grad()
        output = network(image)
        layer = [0, 0, 0, 1, 1, 2, 2][epoch]
        torch.testing.assert_close(output.given, given[layer], rtol=0, atol=1e-6)
        assert output.decoded.shape == given[layer].shape
        loss = StackedLoss()(output, image)
        squares = np.square(output.decoded.detach().numpy() - given[layer].numpy()).mean()
        assert loss.item() == pytest.approx(float(squares), rel=1e-5)
        loss.backward()
        seen.append({name for name, one in network.named_parameters() if one.grad is not None})
    assert seen[0] == seen[2] and seen[3] == seen[4] and seen[5] == seen[6]
    assert not seen[0] & seen[3] and not seen[3] & seen[5] and not seen[0] & seen[5]
    assert seen[0] | seen[3] | seen[5] == {name for name, _ in network.named_parameters()}
    assert network.eval()(image).shape == image.shape


@BOTH
def test_they_can_be_scripted(size, samples):
    image, pairs = torch.rand(2, samples, *size), []
    for errors in (False, True):
        both = [ConvAutoencoder(**parts(size, samples)) for _ in range(2)]
        pairs.append(PairedEncoder(controls=both[0], patients=both[1], spatial_size=size, errors=errors))
    networks = [kind(**parts(size, samples)) for kind in (JointAutoencoder, StackedAutoencoder)]
    networks += [PairedAutoencoder(encoder=pairs[0]), ErrorClassifier(encoder=pairs[1], spatial_size=size)]
    for network in networks:
        scripted = torch.jit.script(network.eval())
        torch.testing.assert_close(scripted(image), network(image), rtol=1e-5, atol=1e-5)


def test_what_is_impossible_is_one_line():
    classes = "learns from patients and controls, and the target is something else"
    assert classes in mistake(JointLoss, False) and classes in mistake(PairedLoss, False)
    assert "weight must be a number from 0" in mistake(JointLoss, True, weight=-1)
    assert "multiples of 8, not 12" in mistake(ConvEncoder, channels=(8, 12), inception=True)
    pair = {"controls": ConvAutoencoder(**parts((8, 8))), "patients": ConvAutoencoder(**parts((8, 8)))}
    assert "must be divisible by 2" in mistake(PairedEncoder, **pair, spatial_size=(8, 7))
    dense = DenseEncoder(network=ConvEncoder(channels=CHANNELS), spatial_size=(8, 8))
    assert "DenseEncoder can't be trained layer by layer" in mistake(
        StackedAutoencoder, encoder=dense, decoder=ConvDecoder(channels=CHANNELS)
    )
    assert "max_epochs 1 is too few for 2 layers" in mistake(StackedAutoencoder(**parts((8, 8))).begin_epoch, 0, 1)
