"""Random changes of whole batches, on the training device."""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch.nn import functional

from monai_cae.errors import MonaiCaeError


class BatchAugmentation:
    """Turn, scale, shift, mirror and brighten every image of a batch, each by its own amount, in a few calls for all.

    MONAI's random transforms work on one image at a time, before the batch is made. The amounts are drawn evenly from
    their ranges; images stay within [0, 1], and what moves in from outside is 0. Brains keep their anatomy: amounts are
    those between two positions of a head in the scanner and two settings of it. All channels of an image move together,
    and so do its samples if they show one plane. Samples of several planes move each by itself: a head that turns in
    one plane does not turn in another. Volumes turn about all three axes; patches each about its own middle, all of a
    head by the same amounts.

    Args:
        planes: of the body, that each sample of an image shows.
        rotation: at most so many degrees either way, about each axis that there is.
        scale: at most this share larger or smaller.
        translation: at most this share of the image's size, along each axis.
        flip: mirror every other image along its first axis, which is left-right, by chance; not sagittal slices, whose
            first axis is back-front.
        gamma: exponent of the intensities, from `1 - gamma` to `1 + gamma`.
        noise: standard deviation of Gaussian noise that is added.
        seed: of the generator, which is this object's own.

    Raises:
        MonaiCaeError: a negative amount, or a scale, translation or gamma of 1 or more.
    """

    def __init__(
        self,
        rotation: float = 10.0,
        scale: float = 0.1,
        translation: float = 0.05,
        flip: bool = True,
        gamma: float = 0.2,
        noise: float = 0.0,
        seed: int = 0,
        planes: Sequence[str] = ("axial",),
    ) -> None:
        shares = {"scale": scale, "translation": translation, "gamma": gamma}
        for name, value in {"rotation": rotation, "noise": noise, **shares}.items():
            if value < 0 or (name in shares and value >= 1):
                raise MonaiCaeError(f"augmentation's {name} must be 0 or more{', below 1' * (name in shares)}: {value}")
        self.rotation = rotation
        self.scale = scale
        self.translation = translation
        self.flip = flip
        self.gamma = gamma
        self.noise = noise
        self.seed = seed
        self.planes = tuple(planes) if len({*planes}) > 1 else tuple(planes[:1])
        self._generator: torch.Generator | None = None

    def __call__(self, batch: Mapping[str, Any]) -> dict[str, Any]:
        """
        Args:
            batch: has `image`, shape `(N, C, H, W)` or `(N, C, X, Y, Z)`, values in [0, 1].

        Returns:
            The batch with changed images, of the same shape and range.
        """
        image: torch.Tensor = batch["image"]
        self.generator(image.device)
        shape = image.shape
        image = image.unflatten(1, [len(self.planes), -1]).flatten(0, 1)
        grid = functional.affine_grid(self._affine(image), list(image.shape), align_corners=False)
        image = functional.grid_sample(image, grid.to(image.dtype), align_corners=False)
        if self.gamma:
            image = image.clamp(min=0) ** (1 + self._draw(image, self.gamma)).view(-1, *[1] * (image.ndim - 1))
        if self.noise:
            image = image + self.noise * torch.randn(
                image.shape, generator=self._generator, device=image.device, dtype=image.dtype
            )
        return {**batch, "image": image.clamp(0, 1).reshape(shape)}

    def generator(self, device: torch.device) -> torch.Generator:
        """What the amounts are drawn with, on the device of the images."""
        if self._generator is None:
            self._generator = torch.Generator(device).manual_seed(self.seed)
        return self._generator

    def _affine(self, image: torch.Tensor) -> torch.Tensor:
        """From output to input positions, shape `(N, 2, 3)` or `(N, 3, 4)`: the last axis first, each from -1 to 1."""
        sizes = image.shape[:1:-1]
        axes = range(len(sizes))
        turned = _turned(
            {pair: self._draw(image, math.radians(self.rotation)) for pair in itertools.combinations(axes, 2)}
        )
        zoom = 1 + self._draw(image, self.scale)
        mirror = torch.where(self._draw(image, 1.0) < 0, -1.0, 1.0) if self.flip else torch.ones_like(zoom)
        for number, plane in enumerate(self.planes):
            if plane == "sagittal":
                mirror[number :: len(self.planes)] = 1.0
        rows = [
            torch.stack(
                [*(turned[i][j] / zoom * (sizes[j] / sizes[i]) for j in axes), 2 * self._draw(image, self.translation)],
                dim=1,
            )
            for i in axes
        ]
        return torch.stack([*rows[:-1], mirror[:, None] * rows[-1]], dim=1)

    def _draw(self, image: torch.Tensor, most: float) -> torch.Tensor:
        """One number per image, evenly from -most to most."""
        drawn = torch.rand(len(image), generator=self._generator, device=image.device)
        return (2 * drawn - 1) * most


def _turned(angles: Mapping[tuple[int, int], torch.Tensor]) -> list[list[Any]]:
    """The matrix of turns, one after the other, each from one axis towards another; entries have the angles' shape."""
    last = max(max(pair) for pair in angles)
    rows: list[list[Any]] = [[float(i == j) for j in range(last + 1)] for i in range(last + 1)]
    for (one, other), angle in angles.items():
        cos, sin = angle.cos(), angle.sin()
        rows[one], rows[other] = (
            [cos * a - sin * b for a, b in zip(rows[one], rows[other], strict=True)],
            [sin * a + cos * b for a, b in zip(rows[one], rows[other], strict=True)],
        )
    return rows
