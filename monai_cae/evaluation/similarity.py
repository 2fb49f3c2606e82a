"""Structural similarity of reconstructions, whole and in the brain."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.ndimage import gaussian_filter

from monai_cae.errors import MonaiCaeError
from monai_cae.evaluation.metrics import BRAIN_THRESHOLD

WINDOW, SIGMA = 11, 1.5  # pixels; with K the paper's and MONAI's SSIMMetric's
K = (0.01, 0.03)


def ssim(originals: ArrayLike, reconstructions: ArrayLike, max_intensity: float = 1.0) -> NDArray[np.float64]:
    """Structural similarity of each image (Wang et al. 2004, IEEE Trans Image Process 13:600).

    Local means, variances and covariance are weighted by a Gaussian window of 11 pixels a side; windows that reach
    over the edge are left out, as in MONAI's `SSIMMetric`, which gives the same numbers.

    Args:
        originals: Images of shape `(n, H, W)` or `(n, H, W, D)`, each side 11 pixels or more.
        reconstructions: Their reconstructions, same shape.
        max_intensity: The largest value a pixel can have; 1 for images scaled to [0, 1].

    Returns:
        Mean over the windows, shape `(n,)`, at most 1, which identical images have.

    Raises:
        MonaiCaeError: For shapes that differ or are too small, or a `max_intensity` that is not positive.
    """
    return np.array([similarity.mean() for _, similarity in _maps(originals, reconstructions, max_intensity)])


def ssim_brain(
    originals: ArrayLike, reconstructions: ArrayLike, threshold: float = BRAIN_THRESHOLD, max_intensity: float = 1.0
) -> NDArray[np.float64]:
    """Structural similarity of each image, over the windows whose middle is in the brain.

    Windows that lie in the background have a similarity of nearly 1 and flatter `ssim`.

    Args:
        originals: Brain-masked images, as `ssim`.
        reconstructions: Their reconstructions, same shape.
        threshold: A pixel is in the brain where the original is above this intensity.
        max_intensity: The largest value a pixel can have.

    Returns:
        Mean over those windows, shape `(n,)`; nan for an image without any.

    Raises:
        MonaiCaeError: As `ssim`.
    """
    maps = _maps(originals, reconstructions, max_intensity)
    # the negation keeps a nan pixel in, so that it shows in the result
    inside = ((~(middles <= threshold), similarity) for middles, similarity in maps)
    return np.array([similarity[brain].mean() if brain.any() else np.nan for brain, similarity in inside])


def _maps(
    originals: ArrayLike, reconstructions: ArrayLike, max_intensity: float
) -> list[tuple[NDArray[np.float64], NDArray[np.float64]]]:
    """Return for each image the pixels that are the middle of a whole window, and the similarity there."""
    images, outputs = np.asarray(originals, dtype=np.float64), np.asarray(reconstructions, dtype=np.float64)
    if images.shape != outputs.shape:
        raise MonaiCaeError(f"reconstructions must have the originals' shape {images.shape}, not {outputs.shape}.")
    if images.ndim not in (3, 4) or not len(images) or min(images.shape[1:]) < WINDOW:
        raise MonaiCaeError(
            f"originals must be images of shape (n, H, W) or (n, H, W, D), {WINDOW} pixels a side or more, "
            f"not {images.shape}."
        )
    if not max_intensity > 0:
        raise MonaiCaeError(f"max_intensity must be positive, not {max_intensity}.")
    whole = (slice(WINDOW // 2, -(WINDOW // 2)),) * (images.ndim - 1)
    return [
        (image[whole], _similarity(image, output, max_intensity)[whole])
        for image, output in zip(images, outputs, strict=True)
    ]


def _similarity(image: NDArray[np.float64], output: NDArray[np.float64], max_intensity: float) -> NDArray[np.float64]:
    def local_mean(values: NDArray[np.float64]) -> NDArray[np.float64]:
        return np.asarray(gaussian_filter(values, SIGMA, radius=WINDOW // 2))

    first, second = ((factor * max_intensity) ** 2 for factor in K)
    mean, output_mean = local_mean(image), local_mean(output)
    variance = local_mean(image * image) - mean**2
    output_variance = local_mean(output * output) - output_mean**2
    covariance = local_mean(image * output) - mean * output_mean
    brightness = (2 * mean * output_mean + first) / (mean**2 + output_mean**2 + first)
    return brightness * (2 * covariance + second) / (variance + output_variance + second)
