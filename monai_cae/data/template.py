"""The ICBM152 template, and the T88-like frame that synthetic and prepared scans share."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
from numpy.typing import NDArray

from monai_cae.errors import MonaiCaeError

TEMPLATE_NAME = (
    "ICBM 152 Nonlinear symmetric 2009a, 1 mm (Fonov et al. 2011, NeuroImage 54:313-327; "
    "Fonov et al. 2009, NeuroImage 47:S102)"
)
FRAME_NAME = "T88like"  # BIDS's label of the space: like OASIS-1's T88, of which no template is at hand
FRAME_SHAPE = (176, 208, 176)  # left-right, posterior-anterior, inferior-superior
FRAME_SPACING = (1.0, 1.0, 1.0)  # mm
# Anterior commissure, voxels. In real T88 volumes z is about 75, but the template's ventricles do not reach as high.
COMMISSURE = (87.5, 119.9, 80.0)
MNI_PER_T88 = (1.015, 1.034, 1.06)  # the ICBM152 brain is larger than the T88 one

_Box = tuple[slice, slice, slice]
_WHOLE: _Box = (slice(0, 197), slice(0, 233), slice(0, 189))


def frame_affine() -> NDArray[np.float64]:
    """Voxels of the frame to mm, RAS+, shape (4, 4): the anterior commissure is at 0."""
    affine = np.eye(4)
    affine[:3, 3] = np.negative(COMMISSURE)
    return affine


def load_icbm152(name: str, extra: str, box: _Box = _WHOLE) -> tuple[NDArray[np.float32], NDArray[np.float64]]:
    """Read one of the template's maps from nilearn's files, without importing nilearn, which takes seconds.

    Args:
        name: "t1", "wm" or "gm".
        extra: the extra of this package that installs nilearn, for the message.
        box: the part to read.

    Returns:
        The map, 0 to 255, axes RAS+, 1 mm; and the voxel of the anterior commissure in it.

    Raises:
        MonaiCaeError: nilearn, or its file, is not installed.
    """
    advice = f"pip install 'monai-cae[{extra}]'"
    spec = importlib.util.find_spec("nilearn")
    if spec is None or spec.origin is None:
        raise MonaiCaeError(f"the ICBM152 template comes with the nilearn package, which is not installed: {advice}")
    path = Path(spec.origin).parent / "datasets" / "data" / f"mni_icbm152_{name}_tal_nlin_sym_09a_converted.nii.gz"
    if not path.is_file():
        raise MonaiCaeError(f"{path} is missing: install a version of nilearn that has it: {advice}")
    image: Any = nib.load(path)
    origin = -image.affine[:3, 3] - [part.start for part in box]
    return np.asarray(image.dataobj[box], dtype=np.float32), origin
