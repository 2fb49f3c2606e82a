"""Every parameter of the preparation, once."""

from __future__ import annotations

from dataclasses import dataclass

from monai_cae.errors import MonaiCaeError


@dataclass(frozen=True)
class PrepareSettings:
    """How a raw scan is prepared; the sidecar of a prepared scan records all of it.

    Attributes:
        mask: "auto" finds the brain with deepbet's network; "none" takes what is not background as the brain, for scans
            that another tool has stripped. A mask of another tool is an argument of `prepare_scan` instead.
        bias: correct the bias field.
        bias_shrink_mm: voxel size in mm at which the field is estimated.
        bias_spline_mm: distance of the knots of the field's spline.
        bias_iterations: at most so many at each level; each level halves the knots' distance.
        start_mm: voxel size at which the registration's start is looked for.
        start_degrees: by how much the head is turned either way, about each axis, for another start.
        levels_mm: voxel sizes of the affine registration, coarse to fine.
        iterations: at most so many steps at a level.
        percentile: of the brain's voxels; what lies there becomes 1, what is brighter too.
        recognise: leave what already lies where the template does; False moves it to where the registration finds it.
    """

    mask: str = "auto"
    bias: bool = True
    bias_shrink_mm: float = 4.0
    bias_spline_mm: float = 60.0
    bias_iterations: tuple[int, ...] = (30, 30, 20)
    start_mm: float = 8.0
    start_degrees: float = 25.0
    levels_mm: tuple[float, ...] = (4.0, 2.0)
    iterations: int = 100
    percentile: float = 99.5
    recognise: bool = True

    def __post_init__(self) -> None:
        if self.mask not in ("auto", "none"):
            raise MonaiCaeError(f"mask must be auto, none, or a file or folder with masks, not {self.mask!r}")
