"""Denoising, masked, sparse, dense and variational autoencoders: what they compute, against numpy."""

from __future__ import annotations

import copy

import numpy as np
import pytest
import torch
from tiny import mistake
from torch import nn

from monai_cae.networks import (
    ConvAutoencoder,
    ConvDecoder,
    ConvEncoder,
    DenoisingAutoencoder,
    DenseDecoder,
    DenseEncoder,
    EncoderClassifier,
    GaussianEncoder,
    MaskedAutoencoder,
    SparseEncoder,
    VariationalAutoencoder,
    each_sample,
    reconstruction_of,
)
from monai_cae.networks.hiding import Hidden, HiddenLoss
from monai_cae.networks.variational import Drawn, VariationalLoss
from monai_cae.training.results.latent import latent_statistics

CHANNELS = (3, 5)


class Given(nn.Module):
    """An "encoder" that gives back what it is given."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.out_channels, self.downsampling = channels, 1
        self.seen: list[torch.Tensor] = []

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        self.seen.append(image)
        return image


def plainly(image: torch.Tensor, network: nn.Module) -> torch.Tensor:
    return network(image)


def parts(size: tuple[int, ...], latent: int = 4, encoder: type[DenseEncoder] = DenseEncoder) -> dict[str, nn.Module]:
    dims = len(size)
    return {
        "encoder": encoder(network=ConvEncoder(dims, 1, CHANNELS), spatial_size=size, latent_size=latent),
        "decoder": DenseDecoder(
            network=ConvDecoder(dims, 1, CHANNELS), spatial_size=size, latent_size=latent, channels=CHANNELS
        ),
    }


def test_noise_is_on_what_the_encoder_sees_in_training_only():
    network = DenoisingAutoencoder(encoder=Given(1), decoder=nn.Identity(), noise=0.25)
    image = torch.full((4, 1, 64, 64), 0.5)
    torch.manual_seed(3)
    noisy = network(image)
    torch.manual_seed(3)
    assert torch.equal(noisy, network(image)) and not torch.equal(noisy, network(image))
    error = (noisy - image).numpy()
    assert abs(error.std() - 0.25) < 0.01 and abs(error.mean()) < 0.01
    assert torch.equal(network.eval()(image), image)


@pytest.mark.parametrize(("size", "places"), [((8, 12), 6), ((10, 9), 9), ((8, 4, 8), 4)])
def test_masked_patches_are_whole_black_and_as_many_as_asked(size, places):
    network = MaskedAutoencoder(encoder=Given(2), decoder=nn.Identity(), patch=4, hidden=0.5)
    image = torch.rand(5, 2, *size) + 0.1
    torch.manual_seed(0)
    output = network(image)
    hidden = output.hidden.numpy()
    assert hidden.shape == (5, 1, *size)
    corners = hidden[(slice(None), 0, *[slice(None, None, 4)] * len(size))]
    assert corners[0].size == places and set(corners.reshape(5, -1).sum(axis=1)) == {round(places / 2)}
    whole = corners
    for axis in range(1, 1 + len(size)):
        whole = whole.repeat(4, axis=axis)
    assert np.array_equal(whole[(slice(None), *map(slice, size))], hidden[:, 0])
    np.testing.assert_array_equal(network.encoder.seen[0].numpy(), image.numpy() * (1 - hidden))
    assert len({one.tobytes() for one in corners}) > 1  # other patches in other images
    assert torch.equal(reconstruction_of(network, output), output.image)
    whole = network.eval()(image)
    assert torch.equal(whole, image) and torch.equal(reconstruction_of(network, whole), image)


def test_loss_is_of_the_hidden_pixels_and_a_share_of_the_visible():
    image, made = torch.zeros(1, 2, 1, 4), torch.tensor([1.0, 2, 3, 4, 5, 6, 7, 8]).reshape(1, 2, 1, 4)
    hidden = torch.tensor([0.0, 1, 1, 1]).reshape(1, 1, 1, 4)
    of_hidden, of_visible = (4 + 9 + 16 + 36 + 49 + 64) / 3, (1 + 25) / 1
    for visible in (0.0, 0.5):
        expected = (of_hidden + visible * of_visible) / 2  # two channels
        assert float(HiddenLoss(visible)(Hidden(made, hidden), image)) == pytest.approx(expected)


def winners(code: np.ndarray, keep: int, axis: int) -> np.ndarray:
    rank = np.argsort(np.argsort(-code, axis=axis), axis=axis)
    return np.where(rank < keep, code, 0)


@pytest.mark.parametrize("spatial", [False, True])
def test_the_largest_remain_fewer_with_every_step(spatial):
    code = torch.rand(2, 8, 2, 3, generator=torch.Generator().manual_seed(0)) + 0.1
    flat = code.reshape(2, 8, 6).numpy()
    axis = 2 if spatial else 1
    encoder = SparseEncoder(network=Given(8), keep=2, spatial=spatial, start=6, steps=4, wider=1.5)
    for remain in (6, 5, 4, 3, 2, 2):  # from 6 to 2 in four steps
        np.testing.assert_array_equal(encoder(code).reshape(2, 8, 6).numpy(), winners(flat, remain, axis))
    state = encoder.state_dict()
    assert int(state["steps_done"]) == 6  # goes on from there
    again = SparseEncoder(network=Given(8), keep=2, spatial=spatial, start=6, steps=9)
    np.testing.assert_array_equal(again.eval()(code).reshape(2, 8, 6).numpy(), winners(flat, 2, axis))
    np.testing.assert_array_equal(encoder.eval()(code).reshape(2, 8, 6).numpy(), winners(flat, 3, axis))
    assert int(again.steps_done) == 0


def test_winners_learn_and_losers_do_not():
    code = torch.tensor([0.1, 0.4, 0.3, -0.5]).reshape(1, 4, 1, 1).requires_grad_()
    SparseEncoder(network=Given(4), keep=3)(code).sum().backward()
    assert code.grad.flatten().tolist() == [1, 1, 1, 0]
    one = SparseEncoder(network=Given(4), keep=1)(code)
    assert one.flatten().tolist() == pytest.approx([0, 0.4, 0, 0])


def test_samples_compete_apart():
    network = each_sample(ConvEncoder(2, 1, CHANNELS), 3)
    made = SparseEncoder(network=network, keep=2).eval()(torch.rand(2, 3, 4, 4))
    assert made.shape == (2, 15, 2, 2)
    assert int((made.unflatten(1, [3, 5]) != 0).sum(dim=2).max()) == 2
    assert made.unflatten(1, [3, 5]).sum(dim=(0, 2, 3, 4)).min() > 0  # each has winners


@pytest.mark.parametrize("size", [(8, 8), (8, 12), (4, 8, 8)])
def test_a_dense_code_is_what_the_classifier_counts_on(size):
    network = parts(size, latent=6)["encoder"].eval()
    image = torch.rand(2, 1, *size)
    places = network.network(image).reshape(2, -1).detach().numpy()
    expected = places @ network.dense.weight.detach().numpy().T + network.dense.bias.detach().numpy()
    np.testing.assert_allclose(network(image).detach().numpy().reshape(2, 6), expected, rtol=1e-4, atol=1e-5)
    assert network(image).shape == (2, 6, *[1] * len(size))
    assert EncoderClassifier(encoder=network, spatial_size=size, pooling=1).eval()(image).shape == (2, 1)
    if len(set(size)) == 1:
        assert EncoderClassifier(encoder=network, spatial_size=size, pooling=0).eval()(image).shape == (2, 1)


def test_each_sample_has_a_vector_of_its_own():
    made = parts((8, 8), encoder=GaussianEncoder)
    one = VariationalAutoencoder(**made).eval()
    whole = VariationalAutoencoder(**parts((8, 8), encoder=GaussianEncoder)).eval()
    for part, other in ((whole.encoder, made["encoder"]), (whole.decoder, made["decoder"])):
        part.dense, part.network, part.samples = other.dense, each_sample(other.network, 3), 3
    image = torch.rand(2, 3, 8, 8)
    expected = [one(image[:, sample : sample + 1]) for sample in range(3)]
    torch.testing.assert_close(whole(image), torch.cat(expected, dim=1))
    dense = DenseEncoder(network=each_sample(ConvEncoder(2, 1, CHANNELS), 3), spatial_size=(8, 8), latent_size=4)
    assert dense(image).shape == (2, 12, 1, 1) and (dense.out_channels, dense.samples) == (12, 3)
    voting = EncoderClassifier(encoder=dense, spatial_size=(8, 8), pooling=1, votes="mean").eval()
    assert voting(image).shape[0] == 2


@pytest.mark.parametrize("size", [(8, 12), (4, 4, 8)])
def test_a_variational_autoencoder_draws_in_training_only(size):
    network = VariationalAutoencoder(**parts(size, encoder=GaussianEncoder))
    image = torch.rand(2, 1, *size)
    torch.manual_seed(1)
    first = copy.deepcopy(network)(image)
    torch.manual_seed(1)
    second = copy.deepcopy(network)(image)
    assert torch.equal(first.image, second.image) and first.image.shape == image.shape
    assert not torch.equal(network(image).image, network(image).image)
    network.eval()
    mean, log_variance = network.encoder.distribution(image)
    assert torch.equal(network(image), network(image)) and torch.equal(network.encoder(image).flatten(1), mean)
    torch.testing.assert_close(network(image), network.decoder(mean))
    assert mean.shape == log_variance.shape == (2, 4)


def test_loss_is_error_and_divergence_with_free_bits():
    mean, log_variance = np.array([[1.0, 0.0], [-2.0, 0.1]]), np.array([[0.5, 0.0], [-1.0, 0.2]])
    variance = np.exp(log_variance)
    kl = np.log(1 / np.sqrt(variance)) + (variance + mean**2) / 2 - 0.5  # of N(m, v) from N(0, 1)
    image, made = torch.zeros(2, 1, 2, 2), torch.full((2, 1, 2, 2), 0.3)
    output = Drawn(made, torch.tensor(mean), torch.tensor(log_variance))
    for free in (0.0, 0.1, 3.0):
        cost = np.maximum(kl.mean(axis=0), free * np.log(2)).sum()
        assert float(VariationalLoss(0.2, free)(output, image)) == pytest.approx(0.09 + 0.2 * cost / 4, rel=1e-5)


def test_dead_units_and_active_numbers_are_counted():
    images = torch.zeros(3, 4, 2, 2)
    images[0, 1, 0, 0], images[1, 1] = 1, 2  # one channel of four, 5 of 48 numbers
    statistics, caveats = latent_statistics(nn.ModuleDict({"encoder": Given(4)}), images, plainly)
    assert statistics == {"latent_dead": 0.75, "latent_active": pytest.approx(5 / 48)}
    assert caveats == ["DEAD UNITS: 3 of the code's 4 channels are the same in all validation images."]
    images[:, 0], images[2, 0] = 7, 8
    statistics, caveats = latent_statistics(nn.ModuleDict({"encoder": Given(4)}), images, plainly)
    assert statistics["latent_dead"] == 0.5 and caveats == []


def test_a_collapsed_code_is_told():
    network = VariationalAutoencoder(**parts((8, 8), latent=12, encoder=GaussianEncoder)).eval()
    images = torch.rand(10, 1, 8, 8)
    with torch.no_grad():
        network.encoder.dense.weight.mul_(100)
    statistics, caveats = latent_statistics(network, images, plainly)
    mean, log_variance = (part.detach().numpy() for part in network.encoder.distribution(images))
    kl = (np.log(1 / np.sqrt(np.exp(log_variance))) + (np.exp(log_variance) + mean**2) / 2 - 0.5).sum(axis=1).mean()
    assert statistics["latent_kl"] == pytest.approx(kl, rel=1e-4)
    assert statistics["latent_active_dimensions"] == (mean.var(axis=0) > 0.01).sum() > 1 and caveats == []
    with torch.no_grad():
        for layer in (network.encoder.dense, network.encoder.log_variance):
            layer.weight.mul_(1e-6), layer.bias.zero_()
    statistics, (caveat,) = latent_statistics(network, images, plainly)
    assert statistics["latent_active_dimensions"] == 0 and statistics["latent_kl"] < 1e-3
    assert caveat.startswith("COLLAPSED CODE: 0 of 12 dimensions differ between the validation images (divergence ")


@pytest.mark.parametrize("kind", ["denoising", "masked", "channels", "places", "variational"])
def test_a_training_step_never_asks_for_a_number(kind):
    """Tensors on "meta" have none; a recorded CUDA graph could not wait for one."""
    image = torch.zeros(2, 1, 8, 8, device="meta")
    if kind in ("channels", "places"):
        encoder = SparseEncoder(network=ConvEncoder(2, 1, CHANNELS), keep=2, spatial=kind == "places", start=4, steps=3)
        network, loss = ConvAutoencoder(encoder=encoder, decoder=ConvDecoder(2, 1, CHANNELS)), nn.MSELoss()
    elif kind == "variational":
        network, loss = VariationalAutoencoder(**parts((8, 8), encoder=GaussianEncoder)), VariationalLoss()
    else:
        both = {"encoder": ConvEncoder(2, 1, CHANNELS), "decoder": ConvDecoder(2, 1, CHANNELS)}
        masked = kind == "masked"
        network = MaskedAutoencoder(**both, patch=4) if masked else DenoisingAutoencoder(**both)
        loss = HiddenLoss() if masked else nn.MSELoss()
    loss(network.to("meta")(image), image).backward()
    assert all(parameter.grad is not None for parameter in network.parameters())


WHOLE = {"network": Given(8)}
BOTH = {"encoder": Given(1), "decoder": nn.Identity()}


@pytest.mark.parametrize(
    ("make", "given", "message"),
    [
        (DenoisingAutoencoder, {**BOTH, "noise": 0}, "noise must be a standard deviation above 0"),
        (MaskedAutoencoder, {**BOTH, "patch": 0}, "patch must be a whole number of pixels above 0"),
        (MaskedAutoencoder, {**BOTH, "hidden": 1}, "hidden must be a share between 0 and 1"),
        (HiddenLoss, {"visible": -1}, "visible must be a number from 0"),
        (SparseEncoder, {**WHOLE, "keep": 9}, "keep is 9, and the code has 8 channels: make it smaller"),
        (SparseEncoder, {**WHOLE, "keep": 6, "wider": 1.5}, "wider times keep is 9, and the code has 8 channels"),
        (SparseEncoder, {**WHOLE, "keep": 0}, "keep must be a whole number from 1"),
        (SparseEncoder, {**WHOLE, "keep": 4, "start": 3}, "start 3 is below keep 4"),
        (SparseEncoder, {**WHOLE, "keep": 1, "spatial": "yes"}, "spatial must be true or false"),
        (SparseEncoder, {**WHOLE, "keep": 1, "wider": 0.5}, "wider must be a factor from 1"),
        (DenseEncoder, {**WHOLE, "spatial_size": (4, 4), "latent_size": 128}, "below the 128 of the code"),
        (VariationalAutoencoder, BOTH, "Given gives no distribution"),
        (VariationalLoss, {"beta": -1}, "beta must be a number from 0"),
    ],
)
def test_what_is_impossible_is_one_line(make, given, message):
    assert message in mistake(make, **given)


def test_what_only_the_image_shows_is_one_line():
    image = torch.zeros(1, 8, 2, 2)
    assert "keep is 5, and the code has 4 places" in mistake(
        SparseEncoder(network=Given(8), keep=5, spatial=True), image
    )
    assert "patch 4 is as large as the image (2, 2)" in mistake(MaskedAutoencoder(**BOTH, patch=4), image)
    with pytest.raises(Exception, match="spatial_size must be divisible by 2"):
        parts((5, 4))


@pytest.mark.parametrize("samples", [1, 2])
def test_in_evaluation_they_can_be_scripted(samples):
    def encoder() -> nn.Module:
        return each_sample(ConvEncoder(2, 1, CHANNELS), samples)

    def decoder() -> nn.Module:
        return each_sample(ConvDecoder(2, 1, CHANNELS), samples)

    k_sparse = SparseEncoder(network=encoder(), keep=2, steps=4)
    winner = SparseEncoder(network=encoder(), keep=1, spatial=True, start=8, steps=4)
    gaussian = GaussianEncoder(network=encoder(), spatial_size=(8, 8), latent_size=4)
    back = DenseDecoder(network=decoder(), spatial_size=(8, 8), latent_size=4, channels=CHANNELS, samples=samples)
    image = torch.rand(3, samples, 8, 8)
    for network in (
        DenoisingAutoencoder(encoder=encoder(), decoder=decoder()),
        MaskedAutoencoder(encoder=encoder(), decoder=decoder(), patch=4),
        ConvAutoencoder(encoder=k_sparse, decoder=decoder()),
        ConvAutoencoder(encoder=winner, decoder=decoder()),
        EncoderClassifier(encoder=k_sparse, spatial_size=(8, 8), hidden=[3]),
        VariationalAutoencoder(encoder=gaussian, decoder=back),
    ):
        scripted = torch.jit.script(network.eval())
        torch.testing.assert_close(scripted(image), network(image), rtol=1e-5, atol=1e-5)
