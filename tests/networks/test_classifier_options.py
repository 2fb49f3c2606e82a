"""Pooling, covariates and calibration of the classifier's head."""

from __future__ import annotations

import pytest
import torch

from monai_cae.errors import MonaiCaeError
from monai_cae.networks import ConvEncoder, EncoderClassifier


def network(size=(8, 12), **options) -> EncoderClassifier:
    torch.manual_seed(0)
    encoder = ConvEncoder(spatial_dims=len(size), channels=(2, 3))
    return EncoderClassifier(encoder=encoder, spatial_size=size, **options).eval()


@pytest.mark.parametrize("size", [(8, 12), (8, 12, 4)], ids=["2d", "3d"])
def test_pooling_to_one_place_is_the_mean_of_each_channel(size):
    made = network(size, pooling=1, hidden=[])
    image = torch.rand(5, 1, *size)
    means = made.encoder(image).flatten(2).mean(dim=2)
    linear = made.head[-1]
    torch.testing.assert_close(made(image), means @ linear.weight.T + linear.bias)
    assert linear.weight.shape == (1, 3)


def test_pooling_to_two_places_keeps_quarters_apart():
    made = network(pooling=2, hidden=[])
    code = made.encoder(torch.rand(1, 1, 8, 12))  # 4 x 6 places
    quarters = torch.stack([code[..., :2, :3], code[..., :2, 3:], code[..., 2:, :3], code[..., 2:, 3:]], dim=-1)
    torch.testing.assert_close(made.pool(code).flatten(2), quarters.flatten(2, 3).mean(dim=2))


def test_pooling_takes_sizes_that_do_not_divide():
    assert network((9, 11), pooling=1)(torch.rand(2, 1, 9, 11)).shape == (2, 1)


@pytest.mark.parametrize("pooling", [-1, 5])
def test_pooling_that_would_not_make_smaller_is_refused(pooling):
    with pytest.raises(MonaiCaeError, match=r"pooling must be from 0 to the code's size \(4, 6\)"):
        network(pooling=pooling)


def test_covariates_add_to_the_logit_and_start_at_nothing():
    made = network(covariates=["age", "sex"])
    image, numbers = torch.rand(3, 1, 8, 12), torch.tensor([[1.0, 0.0], [0.0, 1.0], [-2.0, 1.0]])
    torch.testing.assert_close(made(image, numbers), made(image))
    with torch.no_grad():
        made.head.covariate_weight.copy_(torch.tensor([0.5, 3.0]))
    torch.testing.assert_close(made(image, numbers) - made(image), torch.tensor([[0.5], [3.0], [2.0]]))


def test_scripted_network_takes_covariates_or_none():
    made = network(covariates={"age": [75, 8]}, pooling=1)
    with torch.no_grad():
        made.head.covariate_weight.fill_(2)
    scripted = torch.jit.script(made)
    image, numbers = torch.rand(2, 1, 8, 12), torch.tensor([[1.0], [3.0]])
    torch.testing.assert_close(scripted(image), made(image))
    torch.testing.assert_close(scripted(image, numbers), made(image, numbers))


def test_weights_of_a_network_without_covariates_have_the_same_names_as_ever():
    assert not any("covariate" in name for name in network().state_dict())
    assert "head.covariate_weight" in network(covariates=["age"]).state_dict()


def test_scaling_multiplies_logits_of_image_and_covariates():
    made = network(covariates=["age"])
    with torch.no_grad():
        made.head.covariate_weight.fill_(0.7)
    image, numbers = torch.rand(4, 1, 8, 12), torch.rand(4, 1)
    before = made(image, numbers)
    made.head.scale(0.25)
    torch.testing.assert_close(made(image, numbers), before / 4)
