"""The synthetic cohort as a scanner would give it: brains in a scalp and a skull, turned and biased."""

from __future__ import annotations

import csv
import itertools
import json
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
from numpy.typing import NDArray
from scipy import ndimage
from scipy.spatial.transform import Rotation

from monai_cae.data.people import Atrophy
from monai_cae.data.phantom import SyntheticBrain, synthetic_brains, truth, write_truth
from monai_cae.data.template import COMMISSURE, TEMPLATE_NAME
from monai_cae.files import new_folder

_Array = NDArray[Any]

_RIM = ((28, 28), (28, 28), (48, 16))  # voxels around the frame: the head, and room to turn it
_WHITE = 2000.0  # stored value of white matter in a synthetic brain
_FLUID, _BONE, _MARROW, _SCALP, _MUSCLE, _AIR, _EYE = 0.16, 0.06, 0.3, 0.85, 0.45, 0.03, 0.18  # relative to it
# How far from the brain each layer begins, mm, inside out.
_LAYERS = ((0.0, _FLUID), (3.0, _BONE), (4.5, _MARROW), (6.5, _BONE), (8.0, _SCALP), (14.0, 0.0))
_TURN_DEGREES, _SHIFT_MM, _BIAS = 8.0, 6.0, 0.12  # standard deviations
_AXES = ("RAS", "LAS", "PIR", "LPS", "ASL")  # how scanners and converters store heads


@dataclass(frozen=True)
class SyntheticHead:
    """A head of the synthetic cohort.

    Attributes:
        row: of the table, as OASIS-1's.
        voxels: int16, stored along any axes.
        affine: voxels to mm, RAS+.
        motion: a point of the T88-like frame, mm, to where it is in the scan, shape (4, 4).
        brain: its mask, bool, of the voxels' shape.
        ventricle_ml: volume of its lateral ventricles.
        hippocampus_ml: volume of its hippocampi; nan without `volumes`.
        atrophy: what it has lost.
    """

    row: Mapping[str, str]
    voxels: _Array
    affine: NDArray[np.float64]
    motion: NDArray[np.float64]
    brain: _Array
    ventricle_ml: float
    hippocampus_ml: float
    atrophy: Atrophy


def synthetic_heads(
    subjects: int, seed: int, spacing_mm: float = 1.0, volumes: bool = False
) -> Iterator[SyntheticHead]:
    """Put the brains of `write_phantom` into heads; no two are turned, biased or stored alike.

    Args:
        subjects, seed, volumes: as `write_phantom` has them.
        spacing_mm: size of a voxel; 1 gives some 13 million of them.
    """
    for index, brain in enumerate(synthetic_brains(subjects, seed, volumes)):
        yield _head(brain, spacing_mm, _AXES[index % len(_AXES)], np.random.default_rng((seed, index)))


def write_heads(
    out_dir: str | Path,
    subjects: int = 60,
    seed: int = 0,
    progress: Callable[[Iterable[Any]], Iterable[Any]] | None = None,
    volumes: bool = False,
) -> Path:
    """Write the synthetic cohort's raw scans as BIDS; see `write_phantom` for the arguments and errors.

    Returns:
        The folder: `sub-*/anat/sub-*_T1w.nii.gz`, participants.tsv with OASIS-1's columns, dataset_description.json;
        with `volumes` also truth.csv.
    """
    out = Path(out_dir).expanduser().resolve()
    heads = synthetic_heads(subjects, seed, volumes=volumes)
    first = next(heads)  # wrong arguments are refused before a folder is made
    rows, truths = [], []
    with new_folder(out) as partial:
        every = itertools.chain([first], heads)
        for head in every if progress is None else progress(every):
            name = "sub-" + head.row["ID"].replace("_", "")
            rows.append({"participant_id": name, **{key: value for key, value in head.row.items() if key != "ID"}})
            truths.append(truth(head.row, head.atrophy, head.ventricle_ml, head.hippocampus_ml))
            path = partial / name / "anat" / f"{name}_T1w.nii.gz"
            path.parent.mkdir(parents=True)
            image: Any = nib.Nifti1Image(head.voxels, head.affine)  # type: ignore[no-untyped-call]
            nib.save(image, path)
        with (partial / "participants.tsv").open("w", encoding="utf-8", newline="") as file:
            table = csv.DictWriter(file, rows[0], delimiter="\t", lineterminator="\n")
            table.writeheader()
            table.writerows(rows)
        if volumes:
            write_truth(partial, truths)
            (partial / ".bidsignore").write_text("truth.csv\n", encoding="utf-8")
        about = {"Name": "monai-cae synthetic heads", "BIDSVersion": "1.10.0", "synthetic": True, "seed": seed}
        about |= {
            "subjects": subjects,
            "generator": "monai-cae phantom --head" + " --volumes" * volumes,
            "template": TEMPLATE_NAME,
        }
        (partial / "dataset_description.json").write_text(json.dumps(about, indent=2) + "\n", encoding="utf-8")
    return out


def _head(brain: SyntheticBrain, spacing_mm: float, axes: str, rng: np.random.Generator) -> SyntheticHead:
    inside, around = _surroundings(brain.inside.tobytes(), brain.inside.shape)
    values = np.where(inside, np.pad(brain.volume, _RIM) / np.float32(_WHITE), around)
    motion = _motion(rng)
    frame = np.eye(4)
    frame[:3, 3] = -_middle()
    grid = np.diag([spacing_mm, spacing_mm, spacing_mm, 1.0])
    shape = tuple(int(n / spacing_mm) for n in values.shape)
    grid[:3, 3] = frame[:3, 3]
    back = np.linalg.inv(frame) @ np.linalg.inv(motion) @ grid  # voxels of the scan to those of the frame and its rim
    values = ndimage.gaussian_filter(values, 0.4 * max(0.0, spacing_mm - 1))
    values = ndimage.affine_transform(values, back[:3, :3], back[:3, 3], shape, order=1)
    mask = ndimage.affine_transform(inside.astype(np.float32), back[:3, :3], back[:3, 3], shape, order=1) > 0.5
    coarse = rng.standard_normal((3, 3, 3), dtype=np.float32)
    field = ndimage.zoom(coarse, [n / 3 for n in shape], order=2, mode="nearest", grid_mode=True)
    noise = 0.02 * rng.standard_normal((2, *shape), dtype=np.float32)
    measured = np.hypot(values * np.exp(_BIAS * field) + noise[0], noise[1])
    stored: Any = nib.Nifti1Image((measured * 600).astype(np.int16), grid)  # type: ignore[no-untyped-call]
    turn = nib.orientations.ornt_transform(nib.io_orientation(grid), nib.orientations.axcodes2ornt(tuple(axes)))
    turned = stored.as_reoriented(turn)
    masks: Any = nib.Nifti1Image(mask.astype(np.uint8), grid)  # type: ignore[no-untyped-call]
    return SyntheticHead(
        row=brain.row,
        voxels=np.asarray(turned.dataobj),
        affine=np.asarray(turned.affine),
        motion=motion,
        brain=np.asarray(masks.as_reoriented(turn).dataobj, dtype=bool),
        ventricle_ml=brain.ventricle_ml,
        hippocampus_ml=brain.hippocampus_ml,
        atrophy=brain.atrophy,
    )


def _middle() -> NDArray[np.float64]:
    """The anterior commissure's voxel, rim included."""
    return np.add(COMMISSURE, [before for before, _ in _RIM])


def _motion(rng: np.random.Generator) -> NDArray[np.float64]:
    motion = np.eye(4)
    motion[:3, :3] = Rotation.from_euler("xyz", rng.normal(0, _TURN_DEGREES, size=3), degrees=True).as_matrix()
    motion[:3, 3] = rng.normal(0, _SHIFT_MM, size=3)
    return motion


@lru_cache(maxsize=1)
def _surroundings(mask: bytes, shape: tuple[int, ...]) -> tuple[_Array, _Array]:
    """The brain's mask with its rim, and what is around it, relative to white matter; takes seconds, kept."""
    inside = np.pad(np.frombuffer(mask, dtype=bool).reshape(shape), _RIM)
    x, y, z = (axis - middle for axis, middle in zip(np.ogrid[tuple(map(slice, inside.shape))], _middle(), strict=True))
    depth = ndimage.distance_transform_edt(~inside).astype(np.float32)
    neck = ((x / 58) ** 2 + ((y + 25) / 62) ** 2 < 1) & (z < -25)
    face = (x / 56) ** 2 + ((y - 35) / 52) ** 2 + ((z + 62) / 62) ** 2 < 1
    soft = (neck | face) & (depth > _LAYERS[-2][0])
    head = np.where(soft, np.float32(_MUSCLE), np.float32(0))
    head[soft & ~ndimage.binary_erosion(soft, iterations=5)] = _SCALP
    for (start, brightness), (end, _) in itertools.pairwise(_LAYERS):
        head[(depth > start) & (depth <= end)] = brightness
    head[((x / 14) ** 2 + ((y - 55) / 30) ** 2 + ((z + 38) / 16) ** 2 < 1) & (depth > 6)] = _AIR  # sinuses
    for side in (-1, 1):
        eye = ((x - side * 32) / 13) ** 2 + ((y - 58) / 13) ** 2 + ((z + 22) / 12) ** 2 < 1
        head[eye & (depth > _LAYERS[1][0])] = _EYE
    texture = ndimage.gaussian_filter(np.random.default_rng(0).standard_normal(inside.shape, dtype=np.float32), 2)
    return inside, head * (1 + 0.15 * texture / texture.std())
