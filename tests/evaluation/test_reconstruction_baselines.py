from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from monai.metrics.regression import SSIMMetric, compute_ssim_and_cs

from monai_cae.errors import MonaiCaeError
from monai_cae.evaluation import psnr
from monai_cae.evaluation.reconstruction_baselines import (
    Reconstruction,
    jpeg,
    mean_image,
    principal_components,
    reconstruction_table,
    shrunk,
    trivial_codecs,
)
from monai_cae.evaluation.similarity import ssim

GENERATOR = np.random.default_rng(0)
IMAGES = np.clip(GENERATOR.random((3, 24, 20)) * np.linspace(-0.5, 1, 20), 0, 1)
BLURRED = np.clip(IMAGES + 0.2 * GENERATOR.normal(size=IMAGES.shape), 0, 1)


def test_ssim_is_monais():
    images, outputs = (torch.as_tensor(values)[:, None] for values in (IMAGES, BLURRED))
    expected = SSIMMetric(spatial_dims=2)._compute_metric(outputs, images)[:, 0]
    assert 0.1 < expected.min() < expected.max() < 0.95
    assert ssim(IMAGES, BLURRED) == pytest.approx(expected.numpy(), abs=1e-6)


def test_ssim_of_volumes_and_other_intensities():
    images, outputs = GENERATOR.random((2, 2, 12, 13, 14)) * 255
    pair = (torch.as_tensor(values)[:, None] for values in (outputs, images))
    expected = SSIMMetric(spatial_dims=3, data_range=255)._compute_metric(*pair)[:, 0]
    assert ssim(images, outputs, max_intensity=255) == pytest.approx(expected.numpy(), abs=1e-6)


def test_ssim_brain_takes_the_windows_in_the_brain():
    pair = (torch.as_tensor(values)[:, None].float() for values in (BLURRED, IMAGES))
    similarity, _ = compute_ssim_and_cs(*pair, 2, kernel_size=(11, 11), kernel_sigma=(1.5, 1.5))
    brain = IMAGES[:, 5:-5, 5:-5] > 0.03
    expected = [values[0].numpy()[inside].mean() for values, inside in zip(similarity, brain, strict=True)]
    assert 0.2 < brain.mean() < 0.8
    assert ssim(IMAGES, BLURRED, 0.03) == pytest.approx(expected, abs=1e-6)


def test_ssim_of_the_same_and_of_nothing():
    empty = np.zeros((1, 11, 11))
    assert ssim(IMAGES, IMAGES) == pytest.approx(np.ones(3))
    assert ssim(empty, empty) == pytest.approx([1])
    assert np.isnan(ssim(empty, empty, 0.03)).all()


@pytest.mark.parametrize("threshold", [None, 0.03])
def test_ssim_hides_no_nan(threshold):
    broken = IMAGES.copy()
    broken[1, 12, 10] = math.nan
    for values in (ssim(broken, BLURRED, threshold), ssim(BLURRED, broken, threshold)):
        assert np.isnan(values).tolist() == [False, True, False]


@pytest.mark.parametrize(
    ("shape", "other", "intensity", "message"),
    [
        ((2, 16, 16), (1, 16, 16), 1, r"shape \(2, 16, 16\), not \(1, 16, 16\)"),
        ((2, 16, 10), (2, 16, 10), 1, r"11 pixels a side or more, not \(2, 16, 10\)"),
        ((16, 16), (16, 16), 1, r"not \(16, 16\)"),
        ((0, 16, 16), (0, 16, 16), 1, r"not \(0, 16, 16\)"),
        ((1, 16, 16), (1, 16, 16), 0, "max_intensity must be positive, not 0"),
    ],
)
def test_ssim_refuses(shape, other, intensity, message):
    with pytest.raises(MonaiCaeError, match=message):
        ssim(np.zeros(shape), np.zeros(other), max_intensity=intensity)


def test_mean_image_is_of_the_training_set():
    train = np.stack([np.zeros((4, 4)), np.full((4, 4), 0.5)])
    outputs, code_size = mean_image(train, np.ones((3, 4, 4)))
    assert outputs == pytest.approx(np.full((3, 4, 4), 0.25))
    assert code_size == 0


def test_principal_components_are_the_training_sets():
    train, test = GENERATOR.random((12, 6, 5)) * 0.5 + 0.25, GENERATOR.random((2, 6, 5)) * 0.2 + 0.4
    middle = train.mean(axis=0).ravel()
    _, _, axes = np.linalg.svd(train.reshape(12, 30) - middle, full_matrices=False)
    centred = test.reshape(2, 30) - middle
    expected = middle + centred @ axes[:4].T @ axes[:4]
    outputs, code_size = principal_components(train, test, 4)
    assert code_size == 4
    assert outputs.reshape(2, 30) == pytest.approx(expected)


def test_principal_components_know_their_training_images():
    train = GENERATOR.random((5, 6, 5))
    outputs, code_size = principal_components(train, train)
    assert code_size == 4
    assert outputs == pytest.approx(train)
    assert principal_components(train, 3 * train).images.max() == 1


def test_half_size_keeps_blocks_and_ramps():
    blocks = np.kron(GENERATOR.random((2, 3, 3)), np.ones((1, 2, 2)))
    ramp = np.broadcast_to(np.arange(8.0) / 10, (1, 8, 8))
    outputs, code_size = shrunk(ramp, 2)
    assert code_size == 16
    assert outputs[:, :, 1:-1] == pytest.approx(ramp[:, :, 1:-1])
    # beyond the middle of the last block its mean goes on
    assert outputs[0, 0, [0, -1]] == pytest.approx([0.05, 0.65])
    # a pixel lies a quarter of a block from its own middle
    first, second, below, across = blocks[0, 0, 0], blocks[0, 0, 2], blocks[0, 2, 0], blocks[0, 2, 2]
    expected = (9 * first + 3 * second + 3 * below + across) / 16
    assert shrunk(blocks, 2).images[0, 1, 1] == pytest.approx(expected)


def test_quarter_size_is_the_mean_of_16_pixels():
    outputs, code_size = shrunk(GENERATOR.random((1, 4, 4)) + np.zeros((1, 4, 4)), 4)
    assert code_size == 1 and outputs == pytest.approx(np.full((1, 4, 4), outputs[0, 0, 0]))
    image = GENERATOR.random((1, 8, 4))
    assert shrunk(image, 4).images[0, 0] == pytest.approx(np.full(4, image[0, :4].mean()))


def test_jpeg_counts_the_bytes_of_its_files():
    flat = np.full((2, 16, 16), 0.5)
    outputs, code_size = jpeg(np.concatenate([flat, IMAGES[:1, :16, :16]]), 95)
    assert outputs[:2] == pytest.approx(flat, abs=1 / 255)  # a grey level that 8 bits hold
    sizes = [jpeg(images, 95).code_size for images in (flat, IMAGES[:1, :16, :16])]
    assert sizes[0] < sizes[1]
    assert code_size == round((2 * sizes[0] + sizes[1]) / 3)


@pytest.mark.parametrize(("shape", "code_size"), [((2, 7, 8), 16), ((2, 7, 5, 3), 24)])
def test_half_size_of_odd_sides_and_volumes(shape, code_size):
    images = GENERATOR.random(shape)
    outputs, size = shrunk(images, 2)
    assert outputs.shape == shape
    assert size == code_size
    # an image and its enlarged half are on the same grid
    errors = [np.square(np.roll(outputs, shift, axis=1) - images).mean() for shift in (-1, 0, 1)]
    assert min(errors) == errors[1]


def test_reconstruction_table():
    train = np.clip(IMAGES.mean(axis=0) + 0.1 * GENERATOR.normal(size=(9, 24, 20)), 0, 1)
    codecs = {"network": Reconstruction(BLURRED, 960), **trivial_codecs(train, IMAGES, 5)}
    table = reconstruction_table(IMAGES, codecs)
    assert table.index.tolist()[:6] == ["network", "mean image", "PCA-5", "half size", "quarter size", "eighth size"]
    assert table["code_size"].tolist()[:6] == [960, 0, 5, 120, 30, 9]
    assert table["per_pixel"].tolist()[:4] == pytest.approx([2, 0, 5 / 480, 0.25])
    assert table.index.tolist()[6:] == [f"JPEG, quality {quality}" for quality in (10, 30, 50, 75, 95)]
    assert table["psnr"][6:].is_monotonic_increasing and table["code_size"][6:].is_monotonic_increasing
    assert table.loc["network", "psnr"] == pytest.approx(psnr(IMAGES, BLURRED).mean())
    assert table.loc["network", "psnr_sd"] == pytest.approx(psnr(IMAGES, BLURRED).std(ddof=1))
    assert table.loc["network", "ssim_brain"] == pytest.approx(ssim(IMAGES, BLURRED, 0.03).mean())
    assert table.loc["PCA-5", "psnr"] >= table.loc["mean image", "psnr"]
    assert set(table) == {"code_size", "per_pixel"} | {
        f"{measure}{end}" for measure in ("psnr", "psnr_brain", "ssim", "ssim_brain") for end in ("", "_sd")
    }


def test_a_perfect_reconstruction_has_no_finite_psnr():
    row = reconstruction_table(IMAGES, {"original": Reconstruction(IMAGES, 480)}).loc["original"]
    assert row["psnr"] == math.inf
    assert row["ssim"] == pytest.approx(1)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: trivial_codecs(IMAGES[:1], IMAGES), "2 training images or more, not 128 and 1"),
        (lambda: principal_components(IMAGES, IMAGES, 0), "1 component .*, not 0"),
        (lambda: mean_image(IMAGES, IMAGES[:, 1:]), r"same sizes, not \(3, 24, 20\) and \(3, 23, 20\)"),
        (lambda: mean_image(IMAGES[:0], IMAGES), "not .0, 24, 20"),
        (lambda: shrunk(IMAGES[0], 2), r"not \(24, 20\)"),
        (lambda: reconstruction_table(IMAGES, {}), "at least one way"),
    ],
)
def test_codecs_refuse(call, message):
    with pytest.raises(MonaiCaeError, match=message):
        call()
