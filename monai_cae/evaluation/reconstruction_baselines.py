"""Trivial codecs to compare reconstructions with, and the size of each code."""

from __future__ import annotations

import io
import math
from collections.abc import Mapping
from typing import NamedTuple

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray
from PIL import Image
from scipy.ndimage import zoom
from sklearn.decomposition import PCA

from monai_cae.errors import MonaiCaeError
from monai_cae.evaluation.metrics import BRAIN_THRESHOLD, mean_and_sd, psnr, psnr_brain
from monai_cae.evaluation.similarity import mean_of_windows, ssim_windows

AUTOENCODER = "autoencoder"  # its row among the codecs
SHRUNK = {"half size": 2, "quarter size": 4, "eighth size": 8}
JPEG_QUALITIES = (10, 30, 50, 75, 95)


class Reconstruction(NamedTuple):
    """Images rebuilt from a code, shape `(n, H, W)` or `(n, H, W, D)`, and how many numbers the code has."""

    images: NDArray[np.float64]
    code_size: int


def shrinking_codecs(test: ArrayLike) -> dict[str, Reconstruction]:
    """What needs no training images: see `shrunk`, and of slices `jpeg` in several qualities.

    Args:
        test: Images of shape `(n, H, W)` or `(n, H, W, D)`, scaled to [0, 1].

    Raises:
        MonaiCaeError: If there is no image.
    """
    smaller = {name: shrunk(test, factor) for name, factor in SHRUNK.items()}
    if np.ndim(test) != 3:
        return smaller
    return smaller | {f"JPEG, quality {quality}": jpeg(test, quality) for quality in JPEG_QUALITIES}


def trivial_codecs(train: ArrayLike, test: ArrayLike, components: int = 128) -> dict[str, Reconstruction]:
    """Reconstruct test images without a network; nothing is fitted on the test images.

    Args:
        train: Training images of shape `(m, H, W)` or `(m, H, W, D)`, scaled to [0, 1].
        test: Test images, with the same sizes.
        components: Most principal components to keep; there are at most m - 1.

    Returns:
        `mean image` of the training set, `PCA-128` (or as many as there are) fitted on the training set, and those of
        `shrinking_codecs`.

    Raises:
        MonaiCaeError: For fewer than two training images, sizes that differ, or no component.
    """
    by_components = principal_components(train, test, components)
    return {
        "mean image": mean_image(train, test),
        f"PCA-{by_components.code_size}": by_components,
        **shrinking_codecs(test),
    }


def mean_image(train: ArrayLike, test: ArrayLike) -> Reconstruction:
    """Replace every test image with the mean of the training images: an empty code.

    Args:
        train: Training images of shape `(m, ...)`.
        test: Test images, with the same sizes.

    Raises:
        MonaiCaeError: If there is no training image, or sizes differ.
    """
    known, images = _checked(train, test)
    return Reconstruction(np.broadcast_to(known.mean(axis=0), images.shape), 0)


def principal_components(train: ArrayLike, test: ArrayLike, components: int = 128) -> Reconstruction:
    """Reconstruct test images from principal components: the best linear code of the training images.

    Args:
        train: Training images of shape `(m, ...)`, scaled to [0, 1]; two or more.
        test: Test images, with the same sizes.
        components: Most components to keep; m images span m - 1 of them.

    Returns:
        Reconstructions, clipped to [0, 1], the range of the autoencoder's sigmoid.

    Raises:
        MonaiCaeError: For fewer than two training images, sizes that differ, or no component.
    """
    known, images = _checked(train, test)
    pixels = math.prod(known.shape[1:])
    kept = min(components, len(known) - 1, pixels)
    if kept < 1:
        raise MonaiCaeError(f"PCA needs 1 component and 2 training images or more, not {components} and {len(known)}.")
    model = PCA(kept, svd_solver="full").fit(known.reshape(len(known), pixels))
    outputs = model.inverse_transform(model.transform(images.reshape(len(images), pixels)))
    return Reconstruction(np.clip(outputs, 0, 1).reshape(images.shape), kept)


def shrunk(test: ArrayLike, factor: int) -> Reconstruction:
    """Shrink each side of the test images by averaging blocks of pixels, and enlarge them again linearly.

    Args:
        test: Images of shape `(n, H, W)` or `(n, H, W, D)`; sides that it does not divide are lengthened by their last
            pixels.
        factor: Pixels of a block's side.

    Raises:
        MonaiCaeError: If there is no image.
    """
    images, _ = _checked(test, test)
    sizes = images.shape[1:]
    even = np.pad(images, [(0, 0), *((0, -size % factor) for size in sizes)], mode="edge")
    blocks = [part for size in even.shape[1:] for part in (size // factor, factor)]
    small = even.reshape(len(images), *blocks).mean(axis=tuple(range(2, 2 * len(sizes) + 1, 2)))
    large = zoom(small, (1, *[factor] * len(sizes)), order=1, mode="nearest", grid_mode=True)
    cropped = large[tuple(map(slice, images.shape))]
    return Reconstruction(np.asarray(cropped), math.prod(small.shape[1:]))


def jpeg(test: ArrayLike, quality: int) -> Reconstruction:
    """Store each test image as a grey JPEG of 8 bits a pixel.

    Args:
        test: Images of shape `(n, H, W)`, scaled to [0, 1].
        quality: From 1 to 95, as libjpeg has it.

    Returns:
        The images, and the mean number of bytes of their files, each counted as a number.

    Raises:
        MonaiCaeError: If there is no image.
    """
    images, _ = _checked(test, test)
    decoded, sizes = [], []
    for image in images:
        file = io.BytesIO()
        Image.fromarray(np.rint(np.clip(image, 0, 1) * 255).astype(np.uint8)).save(file, "jpeg", quality=quality)
        sizes.append(file.tell())
        decoded.append(np.asarray(Image.open(file)) / 255)
    return Reconstruction(np.stack(decoded), round(float(np.mean(sizes))))


def reconstruction_table(
    originals: ArrayLike, reconstructions: Mapping[str, Reconstruction], threshold: float = BRAIN_THRESHOLD
) -> pd.DataFrame:
    """Compare ways to reconstruct the same test images.

    Args:
        originals: Test images of shape `(n, H, W)` or `(n, H, W, D)`, scaled to [0, 1], 11 pixels a side or more.
        reconstructions: Of these images, by name, such as the autoencoder's and `trivial_codecs`.
        threshold: A pixel is in the brain where the original is above this intensity.

    Returns:
        A row per name with `code_size`, numbers kept per image, `per_pixel`, the same as a share of the pixels, and
        the mean over the images and the standard deviation (`_sd`) of `psnr` and `psnr_brain` in dB, `ssim` and
        `ssim_brain`.

    Raises:
        MonaiCaeError: If there is no reconstruction, for shapes that differ, or images that are too small.
    """
    if not reconstructions:
        raise MonaiCaeError("reconstructions must hold at least one way to reconstruct, not none.")
    images = np.asarray(originals, dtype=np.float64)
    rows = {}
    for name, (outputs, code_size) in reconstructions.items():
        windows = ssim_windows(images, outputs)
        values = {
            "psnr": psnr(images, outputs),
            "psnr_brain": psnr_brain(images, outputs, threshold),
            "ssim": mean_of_windows(windows, images),
            "ssim_brain": mean_of_windows(windows, images, threshold),
        }
        row: dict[str, float] = {"code_size": code_size, "per_pixel": code_size / math.prod(images.shape[1:])}
        for measure, by_image in values.items():
            row[measure], row[f"{measure}_sd"] = mean_and_sd(by_image)
        rows[name] = row
    return pd.DataFrame.from_dict(rows, orient="index").astype({"code_size": int}).rename_axis("reconstruction")


def _checked(train: ArrayLike, test: ArrayLike) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    known, images = np.asarray(train, dtype=np.float64), np.asarray(test, dtype=np.float64)
    if known.ndim < 3 or known.shape[1:] != images.shape[1:] or not known.size or not images.size:
        shapes = f"{known.shape} and {images.shape}"
        raise MonaiCaeError(f"train and test must be images of shape (n, ...) with the same sizes, not {shapes}.")
    return known, images
