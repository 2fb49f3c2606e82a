"""Statistics of batch norm in the first updates, in late ones, and where nothing may move."""

from __future__ import annotations

import copy

import numpy as np
import pytest
import torch
from ignite.engine import Engine
from torch import nn

from monai_cae.networks import ConvAutoencoder, ConvDecoder, ConvEncoder, EncoderClassifier
from monai_cae.training import BatchNormWarmup


def trained(network: nn.Module, batches: list[torch.Tensor], warmup: bool = True, runs: int = 1) -> nn.Module:
    """A copy, after a step of SGD for each batch that has its output nearer to 0; in so many runs of one trainer."""
    network = copy.deepcopy(network)
    optimizer = torch.optim.SGD(network.parameters(), lr=0.01)

    def step(_: Engine, batch: torch.Tensor) -> None:
        network.train()
        optimizer.zero_grad()
        network(batch).square().mean().backward()
        optimizer.step()

    trainer = Engine(step)
    if warmup:
        BatchNormWarmup(network).attach(trainer)
    for part in np.array_split(np.arange(len(batches)), runs):
        trainer.run([batches[index] for index in part], max_epochs=1)
    return network


def batches(number: int, seed: int = 0) -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return [3 * torch.rand((5, 1, 8, 8), generator=generator) + index % 7 for index in range(number)]


def expected(drawn: list[torch.Tensor]) -> tuple[float, float]:
    """Mean and variance by hand: a batch counts for ten of all updates so far, at most 1 and at least 0.1."""
    mean, variance = 0.0, 1.0
    for number, batch in enumerate(drawn, start=1):
        share = min(1.0, max(0.1, 10 / number))
        mean += share * (batch.numpy().mean() - mean)
        variance += share * (batch.numpy().astype(np.float64).var(ddof=1) - variance)
    return mean, variance


@pytest.mark.parametrize("updates", [1, 2, 10, 11, 40, 100, 150])
def test_statistics_are_of_the_latest_tenth_of_the_updates(updates):
    drawn = batches(updates)
    norm = trained(nn.BatchNorm2d(1), drawn)
    assert (norm.running_mean.item(), norm.running_var.item()) == pytest.approx(expected(drawn), rel=1e-4)
    if updates <= 10:
        assert norm.running_mean.item() == pytest.approx(drawn[-1].mean().item(), rel=1e-5)


def autoencoder() -> ConvAutoencoder:
    torch.manual_seed(1)
    return ConvAutoencoder(encoder=ConvEncoder(channels=(2, 3)), decoder=ConvDecoder(channels=(2, 3)))


@pytest.mark.slow
def test_a_long_run_ends_with_the_weights_and_statistics_it_had_without():
    drawn = batches(300)
    ours, plain = (trained(autoencoder(), drawn, warmup).state_dict() for warmup in (True, False))
    assert ours.keys() == plain.keys()
    for name, tensor in ours.items():
        if "running" in name:
            torch.testing.assert_close(tensor, plain[name], rtol=1e-5, atol=1e-6)
        else:
            assert torch.equal(tensor, plain[name]), name


@pytest.mark.parametrize("updates", [3, 30, 120])
def test_a_trainer_that_goes_on_does_what_one_that_was_not_ended_does(updates):
    drawn = batches(updates)
    once, thrice = (trained(autoencoder(), drawn, runs=runs).state_dict() for runs in (1, 3))
    assert all(torch.equal(tensor, thrice[name]) for name, tensor in once.items())


def test_a_short_run_evaluates_as_it_trains():
    drawn = 6 * batches(1)
    image = drawn[-1]

    def distance(network: nn.Module) -> float:
        with torch.no_grad():
            return (network.eval()(image) - network.train()(image)).abs().mean().item()

    ours, plain = (distance(trained(autoencoder(), drawn, warmup)) for warmup in (True, False))
    assert ours < plain / 10


def test_a_frozen_encoder_and_fixed_statistics_stay():
    network = EncoderClassifier(encoder=autoencoder().encoder, spatial_size=(8, 8), hidden=[2])
    network.freeze_encoder()
    before = copy.deepcopy(network.encoder.state_dict())
    after = trained(network, batches(4)).encoder.state_dict()
    assert all(torch.equal(tensor, after[name]) for name, tensor in before.items())
    trained(nn.BatchNorm2d(1, track_running_stats=False), batches(2))
    cumulative = trained(nn.BatchNorm2d(1, momentum=None), drawn := batches(12))
    assert cumulative.running_mean.item() == pytest.approx(np.mean([one.mean() for one in drawn]), rel=1e-5)


def test_variance_does_not_fall_below_zero():
    norm = nn.BatchNorm2d(1)
    norm.running_var.fill_(1e6)
    assert trained(norm, [torch.zeros(2, 1, 8, 8)]).running_var.item() >= 0
