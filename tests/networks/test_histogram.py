"""The histogram of the brain's intensities, against NumPy."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from monai_cae.errors import MonaiCaeError
from monai_cae.networks import ConvEncoder, EncoderClassifier, IntensityHistogram


def by_hand(image: np.ndarray, bins: int) -> np.ndarray:
    brain = image[image > np.float32(0.02)].astype(np.float64)
    relative = np.minimum(brain / np.percentile(brain, 97), 1) * (bins - 1)
    counts = np.zeros(bins)
    for value in relative:
        left = min(int(value), bins - 2)
        counts[left] += left + 1 - value
        counts[left + 1] += value - left
    return np.sqrt(counts / len(brain))


@pytest.mark.parametrize("bins", [2, 5, 16])
def test_histogram_is_that_of_the_brain_relative_to_its_97th_percentile(bins):
    rng = np.random.default_rng(0)
    images = rng.random((3, 1, 20, 24), dtype=np.float32)
    images[:, :, :5] = 0.02  # background, up to and with its bound
    images[2] *= 0.4
    made = IntensityHistogram(bins)(torch.from_numpy(images)).numpy()
    assert made.shape == (3, bins)
    for image, histogram in zip(images, made, strict=True):
        np.testing.assert_allclose(histogram, by_hand(image, bins), atol=2e-4)
    np.testing.assert_allclose((made**2).sum(axis=1), 1, atol=1e-5)


def test_darker_scan_of_the_same_brain_has_the_same_histogram():
    image = torch.rand(1, 1, 16, 16) * 0.9 + 0.1
    histogram = IntensityHistogram()
    torch.testing.assert_close(histogram(0.5 * image), histogram(image))


def test_slice_without_a_brain_gives_zeros():
    assert torch.equal(IntensityHistogram(4)(torch.zeros(2, 1, 8, 8)), torch.zeros(2, 4))


@pytest.mark.parametrize("bins", [1, -3, 2.5, True])
def test_impossible_bins(bins):
    with pytest.raises(MonaiCaeError, match="whole number of bins from 2"):
        IntensityHistogram(bins)


def test_dense_layers_see_code_then_histogram_and_the_network_can_be_scripted():
    torch.manual_seed(0)
    network = EncoderClassifier(
        encoder=ConvEncoder(channels=(2, 3)), spatial_size=(8, 12), hidden=[], pooling=1, histogram=4
    ).eval()
    image = torch.rand(5, 1, 8, 12)
    seen = torch.cat([network.encoder(image).mean(dim=(2, 3)), IntensityHistogram(4)(image)], dim=1)
    last = network.head[-1]
    torch.testing.assert_close(network(image), seen @ last.weight.T + last.bias)
    torch.testing.assert_close(torch.jit.script(network)(image), network(image))
    assert (
        network.state_dict().keys()
        == EncoderClassifier(encoder=ConvEncoder(channels=(2, 3)), spatial_size=(8, 12), hidden=[], pooling=1)
        .state_dict()
        .keys()
    )
