"""Structural similarity of reconstructions, in the whole image and in the brain."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike, NDArray

from monai_cae.errors import MonaiCaeError

WINDOW, SIGMA = 11, 1.5  # pixels; the paper's and the defaults of MONAI's SSIMMetric
_TOGETHER = 1_000_000  # pixels that are compared at a time: the convolution needs several times their memory


def require_windows(sizes: Sequence[int]) -> None:
    """MonaiCaeError where images of these sizes are smaller than a window, so that nothing can be scored by `ssim`."""
    if min(sizes) < WINDOW:
        raise MonaiCaeError(
            f"image_size must be {WINDOW} or more: that is the window of the structural similarity by which "
            f"reconstructions are scored; not {' x '.join(map(str, sizes))}"
        )


def ssim(
    originals: ArrayLike, reconstructions: ArrayLike, threshold: float | None = None, max_intensity: float = 1.0
) -> NDArray[np.float64]:
    """Structural similarity of each image (Wang et al. 2004, IEEE Trans Image Process 13:600), as MONAI computes it.

    Args:
        originals: Images of shape `(n, H, W)` or `(n, H, W, D)`, each side 11 pixels or more.
        reconstructions: Their reconstructions, same shape.
        threshold: See `mean_of_windows`.
        max_intensity: The largest value a pixel can have; 1 for images scaled to [0, 1].

    Returns:
        Mean over the windows, shape `(n,)`, at most 1, which identical images have; nan for an image without any.

    Raises:
        MonaiCaeError: For shapes that differ or are too small, or a `max_intensity` that is not positive.
    """
    return mean_of_windows(ssim_windows(originals, reconstructions, max_intensity), originals, threshold)


def ssim_windows(originals: ArrayLike, reconstructions: ArrayLike, max_intensity: float = 1.0) -> NDArray[np.float32]:
    """Structural similarity of each window of 11 pixels a side, shape `(n, H - 10, W - 10)` or with a third size; see
    `ssim`."""
    import torch
    from monai.metrics.regression import compute_ssim_and_cs  # whoever asks for no similarity waits for neither

    images, outputs = np.asarray(originals, dtype=np.float32), np.asarray(reconstructions, dtype=np.float32)
    if images.shape != outputs.shape:
        raise MonaiCaeError(f"reconstructions must have the originals' shape {images.shape}, not {outputs.shape}.")
    if images.ndim not in (3, 4) or not len(images) or min(images.shape[1:]) < WINDOW:
        raise MonaiCaeError(
            f"originals must be images of shape (n, H, W) or (n, H, W, D), {WINDOW} pixels a side or more, "
            f"not {images.shape}."
        )
    if not max_intensity > 0:
        raise MonaiCaeError(f"max_intensity must be positive, not {max_intensity}.")
    axes = images.ndim - 1
    together = max(1, _TOGETHER // images[0].size)
    found = []
    for first in range(0, len(images), together):
        truth, prediction = (torch.from_numpy(part[first : first + together, None]) for part in (images, outputs))
        windows, _ = compute_ssim_and_cs(prediction, truth, axes, [WINDOW] * axes, [SIGMA] * axes, max_intensity)
        found.append(windows[:, 0].numpy())
    return np.concatenate(found)


def mean_of_windows(
    windows: NDArray[np.float32], originals: ArrayLike, threshold: float | None = None
) -> NDArray[np.float64]:
    """Mean of each image's windows.

    Args:
        windows: From `ssim_windows`.
        originals: The images.
        threshold: Only windows whose centre is above this intensity in the original count. In the background of a
            brain-masked image similarity is nearly 1, which flatters. None for all windows.

    Returns:
        Shape `(n,)`; nan for an image without any window that counts.
    """
    images, middle = np.asarray(originals), slice(WINDOW // 2, -(WINDOW // 2))
    means = []
    for image, similarity in zip(images, windows, strict=True):
        if threshold is not None:  # the negation keeps a nan pixel in, so that it shows in the result
            similarity = similarity[~(image[(middle,) * image.ndim] <= threshold)]
        means.append(similarity.mean(dtype=np.float64) if similarity.size else np.nan)
    return np.array(means, dtype=np.float64)
