"""Between arrays with an affine in RAS+, as nibabel has them, and SimpleITK's images in LPS+."""

from __future__ import annotations

import importlib.util
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
from numpy.typing import NDArray

from monai_cae.data.images.planes import View
from monai_cae.errors import MonaiCaeError

_TO_LPS = np.diag([-1.0, -1.0, 1.0])
_FLIP = np.diag([-1.0, -1.0, 1.0, 1.0])


def load_sitk() -> Any:
    """SimpleITK, imported where it is needed; MonaiCaeError where it is not installed."""
    if importlib.util.find_spec("SimpleITK") is None:
        raise MonaiCaeError("preparing scans needs the SimpleITK package: pip install 'monai-cae[prepare]'")
    import SimpleITK

    return SimpleITK


@contextmanager
def one_thread() -> Iterator[None]:
    """Let ITK compute in one thread: filters that filters are made of take this number, and sums depend on it."""
    process = load_sitk().ProcessObject
    before = process.GetGlobalDefaultNumberOfThreads()
    process.SetGlobalDefaultNumberOfThreads(1)
    try:
        yield
    finally:
        process.SetGlobalDefaultNumberOfThreads(before)


def to_sitk(voxels: NDArray[Any], affine: NDArray[np.float64]) -> Any:
    """An image that shares no memory with the array (x, y, z); bool becomes uint8."""
    sitk = load_sitk()
    array = voxels.astype(np.uint8) if voxels.dtype == bool else voxels
    image = sitk.GetImageFromArray(np.ascontiguousarray(array.T))
    image.SetSpacing(np.linalg.norm(affine[:3, :3], axis=0).tolist())
    image.SetOrigin((_TO_LPS @ affine[:3, 3]).tolist())
    image.SetDirection(_directions(affine))
    return image


def to_array(image: Any) -> NDArray[Any]:
    """The voxels (x, y, z) of a SimpleITK image."""
    return np.asarray(load_sitk().GetArrayFromImage(image).T)


def matrix_of(transform: Any) -> NDArray[np.float64]:
    """An affine of SimpleITK as a matrix (4, 4) on points in mm, RAS+."""
    matrix = np.eye(4)
    linear = np.array(transform.GetMatrix()).reshape(3, 3)
    centre = np.array(transform.GetCenter())
    matrix[:3, :3] = linear
    matrix[:3, 3] = np.array(transform.GetTranslation()) + centre - linear @ centre
    return np.asarray(_FLIP @ matrix @ _FLIP)


def transform_of(matrix: NDArray[np.float64]) -> Any:
    """What `matrix_of` undoes: an affine of SimpleITK from a matrix (4, 4) on points in mm, RAS+."""
    lps = _FLIP @ matrix @ _FLIP
    transform = load_sitk().AffineTransform(3)
    transform.SetMatrix(lps[:3, :3].ravel().tolist())
    transform.SetTranslation(lps[:3, 3].tolist())
    return transform


def resampled(
    voxels: NDArray[np.float32],
    affine: NDArray[np.float64],
    shape: tuple[int, ...],
    onto: NDArray[np.float64],
    transform: Any = None,
    spline: bool = False,
) -> NDArray[np.float32]:
    """A volume on another grid; 0 outside it.

    Args:
        voxels, affine: the volume, voxels to mm, RAS+.
        shape, onto: the other grid.
        transform: of SimpleITK; maps a point of the other grid to the volume. The identity if None.
        spline: by cubic splines instead of linearly.
    """
    sitk = load_sitk()
    resampler = sitk.ResampleImageFilter()
    resampler.SetSize([int(size) for size in shape])
    resampler.SetOutputSpacing(np.linalg.norm(onto[:3, :3], axis=0).tolist())
    resampler.SetOutputOrigin((_TO_LPS @ onto[:3, 3]).tolist())
    resampler.SetOutputDirection(_directions(onto))
    resampler.SetInterpolator(sitk.sitkBSpline if spline else sitk.sitkLinear)
    if transform is not None:
        resampler.SetTransform(transform)
    return to_array(resampler.Execute(to_sitk(voxels, affine)))


def turned_back(volume: NDArray[Any], view: View) -> NDArray[Any]:
    """From a view's axes to the stored ones: what `View.turned` does, undone."""
    steps = tuple(slice(None, None, -1 if flipped else 1) for flipped in view.flipped)
    return np.ascontiguousarray(volume[steps].transpose(np.argsort(view.order)))


def _directions(affine: NDArray[np.float64]) -> list[float]:
    return [float(value) for value in (_TO_LPS @ affine[:3, :3] / np.linalg.norm(affine[:3, :3], axis=0)).ravel()]
