"""Is it good? The numbers of a prepared scan, their limits, and the verdict."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from monai_cae.data.template import MNI_PER_T88
from monai_cae.prepare.grids import matrix_of, resampled
from monai_cae.prepare.recognition import similarity
from monai_cae.prepare.template import Template

PASS, REVIEW, FAIL = "pass", "review", "fail"

_SMOOTHING_MM = 2.0  # of a mask, to see how rough it is
_BLUR_MM = (
    1.0  # of the template, for the correlation; twice that of the scan, which is one brain and not the mean of many
)
_FIELD_MM = 12.0  # what is smoother in white matter is bias
_TISSUE = 0.45  # of white matter's median: darker is fluid
_NOISE_GAIN = math.sqrt(6 / 7)  # of a voxel minus the mean of its six neighbours (Coupe et al. 2008)
_MAD_TO_SD = 1.4826
_Map = NDArray[np.float32]
_Mask = NDArray[np.bool_]


@dataclass(frozen=True)
class Verdict:
    """Whether to use a prepared scan.

    Attributes:
        status: "pass", "review" (look at it) or "fail" (not to be used).
        reasons: why, a line each; empty for "pass".
    """

    status: str
    reasons: tuple[str, ...] = ()


@dataclass(frozen=True)
class Quality:
    """One number of quality, and its limits.

    Attributes:
        name: the key in `Prepared.qc` and the sidecar.
        unit: "" where it has none.
        meaning: what it is, a few words for a table and for a reason.
        good: the lowest and the highest value that passes.
        usable: the lowest and the highest value that is no failure.
    """

    name: str
    unit: str
    meaning: str
    good: tuple[float, float]
    usable: tuple[float, float]


_NONE = math.inf
_NEAR = 0.2
# Where the limits come from: docs/how-to/prepare.md, "Limits".
QUALITY: tuple[Quality, ...] = (
    Quality("brain_ml", "ml", "volume of the brain", (1000, 2150), (800, 2500)),
    Quality("smoothness", "", "Dice of the mask with itself smoothed", (0.98, 1), (0.95, 1)),
    Quality("dice", "", "Dice of the mask with the template's", (0.93, 1), (0.88, 1)),
    Quality("similarity", "", "correlation with the template", (0.55, 1), (0.45, 1)),
    Quality("scale", "", "size relative to MNI's brain", (0.84, 1.12), (0.75, 1.25)),
    Quality("stretch", "", "largest over smallest scale", (1, 1.2), (1, 1.35)),
    Quality("shear_deg", "deg", "shear of the affine", (0, 6), (0, 12)),
    Quality("turn_deg", "deg", "rotation against the template", (0, 45), (0, 75)),
    Quality("asymmetry", "", "difference between tissue left and right", (0, 0.05), (0, 0.15)),
    Quality("outside", "", "share of the template's brain outside the scan", (0, 0.01), (0, 0.03)),
    Quality("bias", "", "variation of white matter that is left", (0, 0.06), (0, 0.15)),
    Quality("snr", "", "white matter over noise", (10, _NONE), (5, _NONE)),
)


def excess(value: float, quality: Quality) -> float:
    """How far a number is beyond its limits: 0 at the limit of passing, 1 at that of failing; negative inside."""
    if math.isnan(value):
        return 1.0
    (low, high), (worst_low, worst_high) = quality.good, quality.usable
    sides = [(low - value, low - worst_low), (value - high, worst_high - high)]
    # a limit that is the same for both is one by definition, as a Dice of at most 1
    return max((distance / width for distance, width in sides if 0 < width < math.inf), default=-math.inf)


def close_to_limits(qc: Mapping[str, float]) -> list[str]:
    """Numbers that pass, and would not if they were a little worse: by a fifth of the way from passing to failing."""
    near = [item for item in QUALITY if item.name in qc and -_NEAR < excess(qc[item.name], item) <= 0]
    return [f"{item.meaning} is close to its limit: {qc[item.name]:.4g} {item.unit}".rstrip() for item in near]


def judge(qc: Mapping[str, float]) -> Verdict:
    """Hold the numbers against `QUALITY`. A number that is not finite is a failure."""
    failed: list[str] = []
    doubtful: list[str] = []
    for item in QUALITY:
        value = qc[item.name]
        for limits, reasons in ((item.usable, failed), (item.good, doubtful)):
            if not limits[0] <= value <= limits[1]:
                reasons.append(_reason(item, value, limits))
                break
    return Verdict(FAIL if failed else REVIEW if doubtful else PASS, (*failed, *doubtful))


def measure(
    native: _Map,
    brain: _Mask,
    affine: NDArray[np.float64],
    image: _Map,
    mask: _Mask,
    transform: Any,
    template: Template,
) -> dict[str, float]:
    """All numbers of `QUALITY`.

    Args:
        native, brain, affine: the scan without bias and its mask, axes RAS+, and where they lie.
        image, mask: the same in the template's frame, scaled.
        transform: maps a point of the template to the scan.
    """
    shift = matrix_of(transform)[:3, :3] / MNI_PER_T88
    turn, stretch = _polar(shift)
    scales = np.linalg.eigvalsh(stretch)
    unit = stretch / np.sqrt(np.outer(stretch.diagonal(), stretch.diagonal()))
    there = resampled(np.ones_like(native), affine, mask.shape, template.affine, transform) > 0.5
    both = mask & template.mask
    white = mask & (template.white > 0.9)
    numbers = {
        "brain_ml": brain.sum() * abs(np.linalg.det(affine[:3, :3])) / 1000,
        "smoothness": _dice(mask, ndimage.gaussian_filter(mask.astype(np.float32), _SMOOTHING_MM) > 0.5),
        "dice": _dice(mask, template.mask),
        "similarity": similarity(
            ndimage.gaussian_filter(image, 2 * _BLUR_MM), ndimage.gaussian_filter(template.brain, _BLUR_MM), both
        ),
        "scale": np.linalg.det(shift) ** (1 / 3),
        "stretch": scales[-1] / scales[0],
        "shear_deg": np.degrees(np.arcsin(np.abs(unit[np.triu_indices(3, 1)]).max())),
        "turn_deg": np.degrees(np.arccos(np.clip((np.trace(turn) - 1) / 2, -1, 1))),
        "asymmetry": _asymmetry(image, mask, white),
        "outside": 1 - there[template.mask].mean(),
        "bias": _remaining_bias(image, white),
        "snr": _snr(native, brain),
    }
    return {name: round(float(value), 4) for name, value in numbers.items()}


def _reason(item: Quality, value: float, limits: tuple[float, float]) -> str:
    unit = f" {item.unit}" if item.unit else ""
    low, high = limits
    if value < low:
        return f"{item.meaning}: {value:.4g}{unit}, less than {low:g}"
    if value > high:
        return f"{item.meaning}: {value:.4g}{unit}, more than {high:g}"
    return f"{item.meaning}: not a number"


def _dice(one: _Mask, other: _Mask) -> float:
    return float(2 * (one & other).sum() / max(1, one.sum() + other.sum()))


def _polar(matrix: NDArray[np.float64]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """A rotation and a symmetric stretch whose product is the matrix."""
    left, singular, right = np.linalg.svd(matrix)
    return left @ right, right.T @ np.diag(singular) @ right


def _asymmetry(image: _Map, mask: _Mask, white: _Mask) -> float:
    """0 to 1: what one half has more of tissue, as a share of all."""
    tissue = mask & (image > _TISSUE * (np.median(image[white]) if white.any() else 1))
    middle = mask.shape[0] // 2
    left, right = int(tissue[:middle].sum()), int(tissue[middle:].sum())
    return abs(left - right) / max(1, left + right)


def _remaining_bias(image: _Map, white: _Mask) -> float:
    """Coefficient of variation of the smooth part of white matter, at every second voxel."""
    values, weight = (volume[::2, ::2, ::2] for volume in (np.where(white, image, 0), white.astype(np.float32)))
    if not weight.any():
        return math.nan
    smooth, support = (ndimage.gaussian_filter(volume, _FIELD_MM / 2) for volume in (values, weight))
    field = (smooth / np.maximum(support, 1e-6))[weight > 0]
    return float(field.std() / field.mean())


def _snr(native: _Map, brain: _Mask) -> float:
    """Median of the brighter half of the brain over the noise there, on the scan's own voxels."""
    inner = ndimage.binary_erosion(brain, iterations=3)
    if not inner.any():
        return math.nan
    bright = inner & (native > np.median(native[inner]))
    box = ndimage.find_objects(bright.astype(np.int8))[0]
    part, kernel = native[box], ndimage.generate_binary_structure(3, 1).astype(np.float32) / -6
    kernel[1, 1, 1] = 1
    residual = _NOISE_GAIN * ndimage.convolve(part, kernel)[bright[box]]
    noise = _MAD_TO_SD * np.median(np.abs(residual - np.median(residual)))
    return float(np.median(part[bright[box]]) / noise) if noise > 0 else math.inf
