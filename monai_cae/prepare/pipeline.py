"""From one raw T1w scan to the paper's kind of image."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from monai_cae.prepare.quality import Verdict
from monai_cae.prepare.raw import RawScan
from monai_cae.prepare.settings import PrepareSettings

if TYPE_CHECKING:
    import SimpleITK


@dataclass(frozen=True)
class Prepared:
    """A scan in the template's frame (`monai_cae.data.template`: 176 x 208 x 176 voxels of 1 mm, axes RAS+).

    Attributes:
        image: float32, 0 outside the mask, above 0 to 1 inside.
        mask: the brain, bool, of the same shape.
        affine: of both, shape (4, 4).
        native_mask: the brain on the voxels of the raw scan, bool, in their order.
        transform: affine; it maps a point of the template to the scan, in mm, LPS+, as ITK resamples images with:
            BIDS's `from-T1w_to-..._mode-image_xfm`. `write_transform` writes it.
        qc: the quality numbers by name; `monai_cae.prepare.quality.QUALITY` says what each is.
        notes: what was recognised and not done twice, what was guessed; a sentence each.
        verdict: whether to use it. What is marked "fail" must not be passed on.
        seconds: of each step, CPU time.
    """

    image: NDArray[np.float32] = field(repr=False)
    mask: NDArray[np.bool_] = field(repr=False)
    affine: NDArray[np.float64] = field(repr=False)
    native_mask: NDArray[np.bool_] = field(repr=False)
    transform: SimpleITK.Transform = field(repr=False)
    qc: Mapping[str, float]
    notes: tuple[str, ...]
    verdict: Verdict
    seconds: Mapping[str, float]


def prepare_scan(scan: RawScan, settings: PrepareSettings | None = None, mask: RawScan | None = None) -> Prepared:
    """Mask, correct, register and scale one scan.

    The same scan and settings give the same bytes: every step runs in one thread, and the registration's samples are
    drawn with one seed. Voxels are interpolated once, from the scan as it was read.

    Args:
        scan: the whole head, or a brain that another tool has stripped, in any orientation.
        settings: defaults if None.
        mask: the brain on the same head, by another tool; voxels above 0. It need not have the scan's grid: where it
            differs, it is carried over by the two affines.

    Returns:
        The image with its verdict. A doubtful or failed one is returned too, so that a page can show it.

    Raises:
        MonaiCaeError: what can't be prepared at all: one slice, slices thicker than the limit, an orientation that the
            file does not record, no brain in it, a mask that is empty or of another head, a registration that fails,
            software or weights that are not installed.
    """
    raise NotImplementedError


def write_transform(transform: Any, path: str | Path) -> None:
    """Write an affine as ITK's .tfm, which ANTs, SimpleITK and 3D Slicer read."""
    raise NotImplementedError
