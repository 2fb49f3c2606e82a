"""Compare an exported network with PyTorch on the same images."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import torch

Network = Callable[[torch.Tensor], torch.Tensor]

# What users see, a probability or a pixel, has to agree to 1e-5. The logit is a sum over 247,808 features that reaches
# 20: in float32 PyTorch is up to 1e-4 away from its own float64 there, so its bound only tells a wrong network.
TOLERANCES = {"logit": 1e-3, "probability": 1e-5, "pixel": 1e-5}
_MEASURES: dict[str, dict[str, Network]] = {
    "classifier": {"logit": lambda output: output, "probability": torch.sigmoid},
    "autoencoder": {"pixel": lambda output: output},
}
_BATCH = 4  # PyTorch rounds three times as much in the dense layers of a smaller batch (1.2e-5 in a probability)


@dataclass(frozen=True)
class Parity:
    """What an exported network gives, against the same network in PyTorch on the same preprocessed volumes.

    Attributes:
        file: name of the exported file.
        sha256: of that file.
        network: "classifier" or "autoencoder".
        checkpoint: the weights that were exported: a path in the bundle, or the name of a given file.
        checkpoint_sha256: of that file.
        volumes: how many were compared.
        synthetic: whether they are random volumes, drawn with a fixed seed, instead of given ones.
        image_shape: of one preprocessed image, channel first.
        largest_difference: absolute, by what was compared: "logit" and "probability", or "pixel".
        tolerance: the most that each of them may be.
        versions: of Python, this package and all that took part.
    """

    file: str
    sha256: str
    network: str
    checkpoint: str
    checkpoint_sha256: str
    volumes: int
    synthetic: bool
    image_shape: tuple[int, ...]
    largest_difference: dict[str, float]
    tolerance: dict[str, float]
    versions: dict[str, str]

    @property
    def passed(self) -> bool:
        """Whether no difference is above its tolerance, or not a number."""
        return all(value <= self.tolerance[name] for name, value in self.largest_difference.items())

    def summary(self) -> str:
        """The differences in one line."""
        found = self.largest_difference.items()
        return ", ".join(f"{name} {value:.1e} (at most {self.tolerance[name]:g})" for name, value in found)

    def to_dict(self) -> dict[str, Any]:
        """For JSON."""
        return {**asdict(self), "passed": self.passed}


def largest_differences(
    eager: Network, exported: Network, images: Iterable[torch.Tensor], network: str
) -> dict[str, float]:
    """The largest absolute differences between two forms of a network.

    Args:
        eager: the network in PyTorch, on the CPU in evaluation mode.
        exported: the other form, as a function of a batch.
        images: preprocessed, each of shape `(1, H, W)`.
        network: "classifier" (compared as logit and as probability) or "autoencoder" (compared by pixel).
    """
    measures = _MEASURES[network]
    largest = dict.fromkeys(measures, 0.0)
    remaining = iter(images)
    while batch := list(islice(remaining, _BATCH)):
        image = torch.stack((batch * _BATCH)[:_BATCH])
        with torch.inference_mode():
            expected, found = eager(image), exported(image)
        for name, measure in measures.items():
            difference = (measure(expected) - measure(found)).abs().max()
            largest[name] = float(np.maximum(largest[name], float(difference)))  # max() would pass over NaN
    return largest


def write_random_volumes(folder: Path, slice_index: int, image_size: int) -> list[Path]:
    """Blocks of random brightness in a dark frame; large enough for the slice and for something to be cropped.

    Nothing but blocks: noise in every voxel drives the networks so far out of what they know that rounding alone is
    above the tolerance.

    Returns:
        NIfTI files; the same ones for the same arguments.
    """
    size = 8 + max(slice_index * 8 // 7, image_size)  # the frame is an eighth
    frame, generator = size // 8, np.random.default_rng(0)
    files = [folder / f"{index}.nii" for index in range(_BATCH)]
    for file in files:
        blocks = generator.integers(64, 256, (16, 16, 16), dtype=np.uint8)
        place = np.arange(size) * 16 // size
        voxels = blocks[np.ix_(place, place, place)]
        inside = np.zeros(size, dtype=np.uint8)
        inside[frame : size - frame] = 1
        voxels *= inside[:, None, None] * inside[:, None] * inside
        nib.save(nib.Nifti1Image(voxels, np.eye(4)), file)
    return files
