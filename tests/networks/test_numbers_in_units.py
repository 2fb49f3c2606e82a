"""A network whose output is a number in its own units."""

from __future__ import annotations

import pytest
import torch
from tiny import mistake

from monai_cae.networks import ConvEncoder, EncoderClassifier, load_weights, save_weights
from monai_cae.targets import Number


def made(number: bool) -> EncoderClassifier:
    torch.manual_seed(0)
    return EncoderClassifier(
        encoder=ConvEncoder(channels=(2, 3)), spatial_size=(8, 8), hidden=[4], number=number
    ).eval()


def test_the_units_are_in_the_weights_and_in_whatever_is_made_of_them(tmp_path):
    image = torch.rand(3, 1, 8, 8, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        logits = made(False)(image)
        network = Number("MMSE").fitted([20, 24, 28, 28]).begin(made(True))
        expected = 25 + logits * torch.tensor([20.0, 24, 28, 28]).std(correction=0)
        torch.testing.assert_close(network(image), expected)
        save_weights(network, tmp_path / "model.pt")
        torch.testing.assert_close(load_weights(made(True), tmp_path / "model.pt")(image), expected)
        torch.testing.assert_close(torch.jit.script(network)(image), expected)
        with torch.autocast("cpu", torch.bfloat16):  # which has 0.125 as its next number after 25
            assert (network(image) - expected).abs().max() < 0.05


def test_the_loss_is_the_squared_error_in_units_of_the_training_sets_sd():
    loss = Number("MMSE").fitted([20.0, 24, 28, 28]).loss()
    output, label = torch.tensor([[20.0], [30.0]]), torch.tensor([[24.0], [28.0]])
    assert float(loss(output, label)) == pytest.approx((4**2 + 2**2) / 2 / 11)  # their variance


def test_logits_are_no_numbers():
    assert "the target is a number: set network_def#number to true" in mistake(Number("MMSE").begin, made(False))
    assert "Linear can't predict MMSE in its units" in mistake(Number("MMSE").begin, torch.nn.Linear(2, 1))
    assert not {"head.zero", "head.unit"} & made(False).state_dict().keys()
