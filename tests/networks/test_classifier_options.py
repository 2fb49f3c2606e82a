"""Pooling, covariates and calibration of the classifier's head."""

from __future__ import annotations

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from monai_cae.errors import MonaiCaeError
from monai_cae.networks import ConvEncoder, EncoderClassifier
from monai_cae.networks.classifier import MeanPool


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


class OnCuda(torch.Tensor):
    """A CPU's tensor that says that it is a GPU's; its kernels are the CPU's."""

    is_cuda = True


class Kernels(TorchDispatchMode):
    """Attributes: names: of the kernels that were called."""

    def __init__(self) -> None:
        super().__init__()
        self.names: set[str] = set()

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        self.names.add(function.overloadpacket.__name__)
        return function(*args, **(kwargs or {}))


@pytest.fixture
def deterministic():
    torch.use_deterministic_algorithms(True)
    yield
    torch.use_deterministic_algorithms(False)


@pytest.mark.parametrize("shape", [(2, 3, 12), (2, 3, 44, 44), (2, 3, 9, 11), (2, 3, 7, 8, 9)], ids=str)
@pytest.mark.parametrize("places", [1, 2, 4])
def test_deterministic_pooling_on_a_gpu_has_no_kernel_that_adds_up_in_any_order(shape, places, deterministic):
    """PyTorch raises an error in the backward pass of its own on CUDA; a CPU has the same numbers either way."""
    pool = MeanPool(places, len(shape) - 2)
    drawn = torch.randn(shape, dtype=torch.float64)
    upstream, found = torch.randn((*shape[:2], *[places] * (len(shape) - 2)), dtype=torch.float64), []
    for kind in (torch.Tensor, OnCuda):
        code = drawn.clone().as_subclass(kind).requires_grad_()
        with Kernels() as kernels:
            pooled = pool(code)
            (pooled * upstream).sum().backward()
        found.append((pooled.as_subclass(torch.Tensor).detach(), code.grad.as_subclass(torch.Tensor)))
        own = any("adaptive" in name for name in kernels.names)
        assert own == (kind is torch.Tensor and places > 1)  # to one place, PyTorch takes the mean
    for ours, expected in zip(found[1], found[0], strict=True):
        torch.testing.assert_close(ours, expected)


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


@pytest.mark.parametrize("size", [(8, 12), (8, 12, 8)], ids=["2d", "3d"])
def test_scripted_and_exported_pooling_is_the_same(size):
    made, image = network(size, pooling=3, hidden=[]), torch.rand(2, 1, *size)
    expected = made(image)
    assert torch.equal(torch.jit.script(made)(image), expected)
    assert torch.equal(torch.export.export(made, (image,)).module()(image), expected)
