"""Registration of a brain to the template: turned, moved and scaled as a whole, then affine."""

from __future__ import annotations

from itertools import product
from typing import Any

import numpy as np
from numpy.typing import NDArray

from monai_cae.prepare.grids import load_sitk, to_sitk
from monai_cae.prepare.settings import PrepareSettings
from monai_cae.prepare.template import Template

_BEST = 3  # of the starts are followed
_BRIGHTEST = 99.5  # percentile of the brain: brighter voxels are vessels and what a mask has left of the skull


def register(
    brain: NDArray[np.float32], affine: NDArray[np.float64], template: Template, settings: PrepareSettings
) -> Any:
    """Find where the template lies in a scan, by the correlation of their voxels.

    Args:
        brain: the scan without bias, 0 outside the brain, axes RAS+.
        affine: of the scan, voxels to mm, RAS+.
        template: see `load_template`.
        settings: `start_mm`, `start_degrees`, `levels_mm`, `iterations`.

    Returns:
        A SimpleITK AffineTransform that maps a point of the template to the scan, mm, LPS+.

    Raises:
        RuntimeError: as ITK does where the two never overlap.
    """
    sitk = load_sitk()
    moving = to_sitk(*_cropped(brain, affine))
    fixed = to_sitk(template.brain, template.affine)
    start = _best_start(_smoothed(fixed, settings.start_mm), _smoothed(moving, settings.start_mm), settings)
    first = sitk.AffineTransform(3)
    first.SetCenter(start.GetCenter())
    first.SetMatrix(start.GetMatrix())
    first.SetTranslation(start.GetTranslation())
    method = _method(settings)
    method.SetShrinkFactorsPerLevel([max(1, round(mm)) for mm in settings.levels_mm])
    method.SetSmoothingSigmasPerLevel([mm / 2 for mm in settings.levels_mm])
    method.SetInitialTransform(first, inPlace=True)
    method.Execute(fixed, moving)
    return first


def _best_start(fixed: Any, moving: Any, settings: PrepareSettings) -> Any:
    """The best similarity transform on coarse images, from several turns of the head about the brain's middle."""
    sitk = load_sitk()
    angles = np.radians([-settings.start_degrees, 0, settings.start_degrees])
    tried = []
    for turn in product(angles, repeat=3):
        start = sitk.CenteredTransformInitializer(
            fixed, moving, sitk.Euler3DTransform(), sitk.CenteredTransformInitializerFilter.MOMENTS
        )
        start.SetRotation(*turn)
        method = _method(settings)
        method.SetInitialTransform(start)
        tried.append((method.MetricEvaluate(fixed, moving), start))
    found = []
    for _, start in sorted(tried, key=lambda one: one[0])[:_BEST]:
        similar = sitk.Similarity3DTransform()
        similar.SetCenter(start.GetCenter())
        similar.SetMatrix(start.GetMatrix())
        similar.SetTranslation(start.GetTranslation())
        method = _method(settings)
        method.SetInitialTransform(similar, inPlace=True)
        method.Execute(fixed, moving)
        found.append((method.GetMetricValue(), similar))
    return min(found, key=lambda one: one[0])[1]


def _method(settings: PrepareSettings) -> Any:
    sitk = load_sitk()
    method = sitk.ImageRegistrationMethod()
    method.SetMetricAsCorrelation()
    method.SetInterpolator(sitk.sitkLinear)
    method.SetOptimizerAsRegularStepGradientDescent(
        learningRate=1.0,
        minStep=0.005,
        numberOfIterations=settings.iterations,
        relaxationFactor=0.6,
        gradientMagnitudeTolerance=1e-8,
    )
    method.SetOptimizerScalesFromPhysicalShift()
    return method


def _cropped(
    brain: NDArray[np.float32], affine: NDArray[np.float64]
) -> tuple[NDArray[np.float32], NDArray[np.float64]]:
    """The brain with a rim of background, scaled to [0, 1], and where it lies."""
    box = tuple(slice(max(0, int(found.min()) - 4), int(found.max()) + 5) for found in np.nonzero(brain))
    near = affine.copy()
    near[:3, 3] += affine[:3, :3] @ [axis.start for axis in box]
    top = np.percentile(brain[brain > 0], _BRIGHTEST)
    return np.clip(brain[box] / top, 0, 1).astype(np.float32), near


def _smoothed(image: Any, mm: float) -> Any:
    """Smoothed and shrunk to voxels of about that size."""
    sitk = load_sitk()
    smooth = sitk.SmoothingRecursiveGaussian(image, mm / 2)
    return sitk.Shrink(smooth, [max(1, round(mm / size)) for size in image.GetSpacing()])
