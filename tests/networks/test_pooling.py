"""Pooling where PyTorch's own has no deterministic gradient; TorchScript and ONNX get PyTorch's own."""

from __future__ import annotations

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from monai_cae.networks import ConvEncoder, EncoderClassifier
from monai_cae.networks.pooling import MaxPool, MeanOfTwo, MeanPool


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
    """PyTorch's own raises an error in its backward pass on CUDA; a CPU has the same numbers either way."""
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


@pytest.mark.parametrize("size", [(4, 6, 8), (5, 7, 9)], ids=str)
@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last_3d], ids=str)
@pytest.mark.parametrize(("places", "padding"), [(2, 0), (3, 1)])
def test_deterministic_maxima_of_volumes_on_a_gpu_are_the_same_bits(size, layout, places, padding, deterministic):
    """Numbers from 0 to 2, so most maxima are there several times: the same one gets the gradient."""
    drawn = torch.randint(3, (2, 3, *size)).float().contiguous(memory_format=layout)
    upstream = torch.randint(9, (2, 3, *((side + padding) // 2 for side in size))).float()  # sums in any order
    found = []
    for kind in (torch.Tensor, OnCuda):
        x = drawn.clone().as_subclass(kind).requires_grad_()
        with Kernels() as kernels:
            pooled = MaxPool(3, places, padding)(x)
            (pooled * upstream).sum().backward()
        found.append((pooled.as_subclass(torch.Tensor).detach(), x.grad.as_subclass(torch.Tensor)))
        assert any("max_pool3d" in name for name in kernels.names) == (kind is torch.Tensor)
    for ours, expected in zip(found[1], found[0], strict=True):
        assert torch.equal(ours, expected)


def test_deterministic_means_of_volumes_on_a_gpu_have_kernels_that_add_up_in_order(deterministic):
    drawn, found = torch.randn(2, 3, 5, 6, 7, dtype=torch.float64), []
    upstream = torch.randn(2, 3, 2, 3, 3, dtype=torch.float64)
    for kind in (torch.Tensor, OnCuda):
        x = drawn.clone().as_subclass(kind).requires_grad_()
        with Kernels() as kernels:
            pooled = MeanOfTwo(3)(x)
            (pooled * upstream).sum().backward()
        found.append((pooled.as_subclass(torch.Tensor).detach(), x.grad.as_subclass(torch.Tensor)))
        assert any("avg_pool3d" in name for name in kernels.names) == (kind is torch.Tensor)
    by_hand = drawn[..., :4, :6, :6].reshape(2, 3, 2, 2, 3, 2, 3, 2).mean((3, 5, 7))
    for pooled, grad in found:
        torch.testing.assert_close(pooled, by_hand)
        torch.testing.assert_close(grad, found[0][1])


@pytest.mark.parametrize("size", [(8, 12), (8, 12, 8)], ids=["2d", "3d"])
def test_scripted_and_exported_pooling_is_the_same(size):
    encoder = ConvEncoder(spatial_dims=len(size), channels=(2, 3))
    made = EncoderClassifier(encoder=encoder, spatial_size=size, pooling=3, hidden=[]).eval()
    image = torch.rand(2, 1, *size)
    expected = made(image)
    assert torch.equal(torch.jit.script(made)(image), expected)
    assert torch.equal(torch.export.export(made, (image,)).module()(image), expected)
