"""A scan as it left the scanner: voxels, where they lie, and what is known of them."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from monai_cae.data.images.frames import times
from monai_cae.data.images.volumes import LARGEST_VALUE, find_volume, read_slices
from monai_cae.errors import MonaiCaeError


@dataclass(frozen=True)
class RawScan:
    """One volume in memory.

    Attributes:
        voxels: three-dimensional, float32, in any order of axes; NaN, infinite and absurd voxels are 0.
        affine: voxels to mm, RAS+, shape (4, 4).
        name: what messages call it; never an identity.
        source: the file or folder that it was read from; "" where it never was a file.
        oriented: the file says which way is up; otherwise `affine` is a guess, and `prepare_scan` refuses it.
        notes: what was changed or guessed while it was read, a sentence each.
    """

    voxels: NDArray[np.float32] = field(repr=False)
    affine: NDArray[np.float64]
    name: str
    source: str = ""
    oriented: bool = True
    notes: tuple[str, ...] = ()

    @property
    def spacing(self) -> tuple[float, float, float]:
        """Size of a voxel along the array's axes, mm."""
        x, y, z = (float(size) for size in np.linalg.norm(self.affine[:3, :3], axis=0))
        return x, y, z


def read_raw(path: str | Path, orientation: str = "", name: str = "") -> RawScan:
    """Read a NIfTI or Analyze volume, within the limits of `monai_cae.data.images.volumes`.

    Args:
        path: the .nii, the .nii.gz, or either file of a pair.
        orientation: directions of the stored axes, such as "ASL" (the first runs to the front, the second upwards, the
            third to the left), for a file that records none or a wrong one; "" takes what the file says.
        name: what messages call the scan; the file's name if "".

    Raises:
        MonaiCaeError: no such file, no readable volume, a series of volumes, an impossible orientation, no finite
            voxel.
    """
    volume = find_volume(str(path))
    layout = volume.layout
    with np.errstate(over="ignore"):
        voxels = read_slices(volume, 2, 0, layout.shape[2]).astype(np.float32)
    notes = []
    broken = ~(np.abs(voxels) <= LARGEST_VALUE)
    if broken.all():
        raise MonaiCaeError(f"{path} has no finite voxel below {LARGEST_VALUE:g}: copy it again")
    if broken.any():
        voxels[broken] = 0
        notes.append(f"{int(broken.sum())} voxels that are not finite, or beyond {LARGEST_VALUE:g}, were set to 0")
    affine = layout.stored.affine.copy()
    if layout.others and not orientation:
        notes.append(
            f"its qform says {layout.others}, its sform {layout.codes}, which was taken: find out which is right"
        )
    if layout.pixdim != layout.spacing:
        notes.append(
            f"its pixdim says voxels of {times(layout.pixdim)} mm, its affine {times(layout.spacing)}, which was "
            "taken: find out which is right"
        )
    if orientation:
        affine = oriented_affine(layout.shape, layout.spacing, orientation)
        notes.append(f"read as {orientation.upper()}, as asked")
    return RawScan(
        voxels=voxels,
        affine=affine,
        name=name or Path(path).name,
        source=str(path),
        oriented=bool(layout.codes or orientation),
        notes=tuple(notes),
    )


def oriented_affine(
    shape: tuple[int, int, int], spacing: tuple[float, float, float], orientation: str
) -> NDArray[np.float64]:
    """The affine of a volume whose axes run in these directions, with the middle of the volume at 0.

    Args:
        shape, spacing: of the array's axes, in voxels and mm.
        orientation: three of R, L, A, P, S, I, one of each pair.

    Raises:
        MonaiCaeError: no such orientation.
    """
    codes = orientation.upper()
    if len(codes) != 3 or any(len(set(codes) & set(pair)) != 1 for pair in ("RL", "AP", "SI")):
        raise MonaiCaeError(
            f"orientation must be three letters, one each of R/L, A/P and S/I, such as ASL, not {orientation!r}"
        )
    towards = {"R": (1, 0, 0), "L": (-1, 0, 0), "A": (0, 1, 0), "P": (0, -1, 0), "S": (0, 0, 1), "I": (0, 0, -1)}
    affine = np.eye(4)
    affine[:3, :3] = np.array([towards[code] for code in codes], dtype=float).T * spacing
    affine[:3, 3] = -affine[:3, :3] @ ((np.array(shape) - 1) / 2)
    return affine
