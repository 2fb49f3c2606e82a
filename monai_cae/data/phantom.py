"""A synthetic cohort in OASIS-1's disk format, for tests, demonstrations and runs without real data."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
from numpy.typing import NDArray
from scipy import ndimage
from scipy.interpolate import make_interp_spline

from monai_cae.data.template import COMMISSURE, FRAME_SHAPE, MNI_PER_T88, TEMPLATE_NAME, load_icbm152
from monai_cae.errors import MonaiCaeError
from monai_cae.files import new_folder

_Array = NDArray[Any]
_Generator = np.random.Generator

_MARKER = "dataset_description.json"
_FIRST_NUMBER, _LAST_NUMBER = 9001, 9999  # real IDs end at OAS1_0457: no synthetic subject carries a real one's
_SUBJECTS_PER_DISC = 40

_BLOCK_VOXELS = 2048  # 4 KiB, a file system's block: all-zero ones are left as holes in the .img
_TEMPLATE_BOX = (slice(22, 175), slice(23, 212), slice(0, 159))  # the brain and 4 mm around it, of 197 x 233 x 189
_NODE_SPACING_MM = 7.0  # of the random fields

_WHITE_LEVEL = 2000.0  # stored value of white matter
_CSF = 0.16  # brightness relative to white matter, as in OASIS-1's masked, gain-field corrected T1
# The template's contrast, from CSF to white matter, and what the same tissue looks like in OASIS-1.
_T1_VALUES = (0.0, 67.0, 125.0, 150.0, 175.0, 190.0, 205.0, 222.0, 255.0)
_T1_BRIGHTNESS = (_CSF, _CSF, 0.22, 0.36, 0.50, 0.59, 0.74, 0.97, 1.03)
_VENTRICLE_REACH_MM = 13.0  # how far around the ventricles tissue gives way
_CORTEX_MM = 5.6  # depth from the white matter at which a young cortex ends

_CDR_GRADES, _CDR_SHARES = (0.5, 1.0, 2.0), (0.70, 0.28, 0.02)
_CDR_SEVERITY_MM = {0.0: 0.0, 0.5: 2.4, 1.0: 3.2, 2.0: 4.2}
_MMSE = {0.0: (29.0, 1.2, 25, 30), 0.5: (25.6, 3.5, 14, 30), 1.0: (21.7, 3.8, 15, 29), 2.0: (15.0, 1.0, 12, 18)}


def write_phantom(
    out_dir: str | Path,
    subjects: int = 60,
    seed: int = 0,
    progress: Callable[[Iterable[Any]], Iterable[Any]] | None = None,
) -> Path:
    """Write a synthetic cohort that is laid out like the OASIS-1 discs and reads like them.

    Every brain is the ICBM152 2009a template in a T88-like space, under a random affine and a smooth random deformation
    with its own contrast, residual bias field and Rician noise. Atrophy, in mm, follows CDR and age with overlapping
    distributions: it pushes tissue away from the lateral ventricles and opens the sulci. Half the subjects are patients
    (CDR > 0); of an odd number one more is a control. Subject k is the same in cohorts of any size, save that last one.

    The anterior commissure lies 5 mm higher than in real T88 volumes, so that slice 106 cuts the lateral ventricles as
    it does in OASIS-1's aged brains. Nothing is claimed about laterality, and no result about real brains follows.

    Args:
        out_dir: a folder that is absent or empty; it appears only when the cohort is complete.
        subjects: 4 to 999.
        seed: 0 or greater; the same seed gives the same bytes.
        progress: wraps the iterable of subjects, e.g. tqdm.

    Returns:
        The folder: disc1, disc2 ... with volumes of 176 x 208 x 176 voxels of 1 mm, oasis_cross-sectional.csv and
        dataset_description.json.

    Raises:
        MonaiCaeError: out_dir is not empty or not writable, subjects or seed out of range, nilearn not installed.
    """
    out = Path(out_dir).expanduser().resolve()
    people = _draw_people(subjects, seed)
    anatomy = _load_anatomy()
    with new_folder(out) as partial:
        for person in people if progress is None else progress(people):
            volume, _ = _render(anatomy, person.ventricle_mm, person.cortex_mm, person.generator)
            _write_volume(partial / person.folder, person, volume)
        with (partial / "oasis_cross-sectional.csv").open("w", encoding="utf-8-sig", newline="") as file:
            table = csv.DictWriter(file, people[0].row)
            table.writeheader()
            table.writerows(person.row for person in people)
        about = {"Name": "monai-cae synthetic cohort", "synthetic": True, "seed": seed, "subjects": subjects}
        about |= {"generator": "monai-cae phantom", "template": TEMPLATE_NAME}
        (partial / _MARKER).write_text(json.dumps(about, indent=2) + "\n", encoding="utf-8")
    return out


@dataclass(frozen=True)
class SyntheticBrain:
    """A subject of the synthetic cohort.

    Attributes:
        row: of the table, as OASIS-1's.
        volume: int16 (176, 208, 176) in the T88-like frame, 0 outside the brain.
        inside: the brain's mask, the same for all subjects.
        ventricle_ml: volume of its lateral ventricles.
    """

    row: Mapping[str, str]
    volume: _Array
    inside: _Array
    ventricle_ml: float


def synthetic_brains(subjects: int, seed: int) -> Iterator[SyntheticBrain]:
    """Draw the brains that `write_phantom` writes, one after the other; it has the arguments and the errors."""
    people = _draw_people(subjects, seed)
    anatomy = _load_anatomy()
    for person in people:
        volume, ventricle_ml = _render(anatomy, person.ventricle_mm, person.cortex_mm, person.generator)
        yield SyntheticBrain(person.row, volume, anatomy.inside, ventricle_ml)


def is_synthetic(root: str | Path) -> bool:
    """Whether a cohort folder was written by `write_phantom`, or a datalist was made from one.

    Reads a folder's dataset_description.json (BIDS has a file of that name too, without the key "synthetic").
    """
    path = Path(root)
    try:
        description = json.loads((path if path.is_file() else path / _MARKER).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return False
    return isinstance(description, dict) and description.get("synthetic") is True


@dataclass(frozen=True)
class _Person:
    """A subject: its row of the table, its place on disk, by how much the ventricles' walls give way and the cortex
    thins, and the generator that draws its image."""

    row: dict[str, str]
    folder: Path
    acquisitions: int
    ventricle_mm: float
    cortex_mm: float
    generator: _Generator


@dataclass(frozen=True)
class _Anatomy:
    """What all subjects share: float32 maps (153, 189, 159) on the template's 1 mm grid, and the T88 brain mask."""

    brightness: _Array  # T1 relative to white matter
    depth: _Array  # mm from the white matter into the cortex and beyond; 0 in deep nuclei
    ventricle: _Array  # mm from the walls of the lateral ventricles, negative inside
    outward: _Array  # gradient of `ventricle`, (3, 153, 189, 159)
    origin: _Array  # the anterior commissure's voxel on the template's grid
    inside: _Array  # brain mask (176, 208, 176)


def _draw_people(subjects: int, seed: int) -> list[_Person]:
    most = _LAST_NUMBER - _FIRST_NUMBER + 1
    if not 4 <= subjects <= most:
        raise MonaiCaeError(f"subjects must be 4 to {most}, not {subjects}")
    if seed < 0:
        raise MonaiCaeError(f"seed must be 0 or greater, not {seed}")
    own, pairs = np.random.SeedSequence(seed).spawn(2)
    patient_first = [np.random.default_rng(pair).random() < 0.5 for pair in pairs.spawn((subjects + 1) // 2)]
    people = []
    for index, sequence in enumerate(own.spawn(subjects)):
        alone = index == subjects - 1 and index % 2 == 0
        is_patient = not alone and patient_first[index // 2] == (index % 2 == 0)
        people.append(_draw_person(index, is_patient, np.random.default_rng(sequence)))
    return people


def _draw_person(index: int, is_patient: bool, rng: _Generator) -> _Person:
    """Draw demographics like those of OASIS-1's 100 patients and 100 oldest controls, and atrophy to go with them."""
    cdr = float(rng.choice(_CDR_GRADES, p=_CDR_SHARES)) if is_patient else 0.0
    female = rng.random() < (0.59 if is_patient else 0.73)
    age = round(np.clip(rng.normal(76.7, 7.1), 62, 96) if is_patient else np.clip(rng.normal(75.5, 9.2), 59, 94))
    severity_mm = _CDR_SEVERITY_MM[cdr] + 0.035 * (age - 75) + rng.normal(0, 0.85)
    ventricle_mm = max(0.0, 1.4 + severity_mm + rng.normal(0, 0.5))
    cortex_mm = max(0.0, 0.7 + 0.4 * severity_mm + rng.normal(0, 0.25))
    nwbv = np.clip(0.753 - 0.012 * severity_mm - 0.002 * (age - 76) + rng.normal(0, 0.026), 0.64, 0.84)
    mean, deviation, lowest, highest = _MMSE[cdr]
    etiv_ml = round(np.clip(rng.normal(1400 if female else 1580, 130), 1120, 1990))
    name = f"OAS1_{_FIRST_NUMBER + index}_MR1"
    row = {
        "ID": name,
        "M/F": "F" if female else "M",
        "Hand": "R",
        "Age": str(age),
        "Educ": str(rng.integers(1, 6)),
        "eTIV": str(etiv_ml),
        "nWBV": f"{nwbv:.3g}",
        "ASF": f"{round(1755 / etiv_ml, 3):g}",
        "Delay": "N/A",
        "MMSE": str(round(np.clip(rng.normal(mean, deviation), lowest, highest))),
        "CDR": f"{cdr:g}",
        "SES": "" if rng.random() < (0.17 if is_patient else 0.01) else str(rng.integers(1, 5)),
    }
    folder = Path(f"disc{1 + index // _SUBJECTS_PER_DISC}") / name / "PROCESSED" / "MPRAGE" / "T88_111"
    acquisitions = int(rng.choice((3, 4, 5, 6), p=(0.1, 0.8, 0.05, 0.05)))
    return _Person(row, folder, acquisitions, ventricle_mm, cortex_mm, rng)


def _load_anatomy() -> _Anatomy:
    """Derive from the template what every subject's image is made of; takes seconds."""
    t1, origin = load_icbm152("t1", "phantom", _TEMPLATE_BOX)
    white, _ = load_icbm152("wm", "phantom", _TEMPLATE_BOX)
    brain = t1 > 0
    x, y, z = (axis - o for axis, o in zip(np.ogrid[tuple(map(slice, t1.shape))], origin, strict=True))
    sharp = np.where(brain, t1 + 1.5 * (t1 - ndimage.gaussian_filter(t1, 1.5)), 0)
    sulcal = np.clip((165 - sharp) / 25, 0, 3)
    depth = ndimage.gaussian_filter(ndimage.distance_transform_edt(white <= 127), 0.6) + sulcal
    deep_nuclei = np.sqrt((x / 34) ** 2 + ((y + 8) / 34) ** 2 + ((z - 4) / 20) ** 2)
    cerebellum = (y < -35) & (z < -12 - (y + 35) / 4)
    cortical = np.clip((deep_nuclei - 0.95) / 0.15, 0, 1) * np.where(cerebellum, 0.5, 1.0)
    labels, _ = ndimage.label(t1 < 110)
    bodies = [labels[tuple(np.add(origin, mni_mm).astype(int))] for mni_mm in ((-8, -10, 22), (8, -10, 22))]
    lateral = np.isin(labels, bodies)
    outside_mm, inside_mm = (ndimage.distance_transform_edt(part) for part in (~lateral, lateral))
    ventricle = ndimage.gaussian_filter(np.asarray(outside_mm - inside_mm, dtype=np.float32), 0.7)
    return _Anatomy(
        brightness=np.interp(sharp, _T1_VALUES, _T1_BRIGHTNESS).astype(np.float32),
        depth=(depth * cortical).astype(np.float32),
        ventricle=ventricle,
        outward=np.stack(np.gradient(ndimage.gaussian_filter(ventricle, 2.0))),
        origin=origin,
        inside=_brain_mask(brain, origin),
    )


def _brain_mask(brain: _Array, origin: _Array) -> _Array:
    """The template's brain on the T88 grid, sulci closed; the same for all, as OASIS-1's atlas mask is."""
    scale = np.array(MNI_PER_T88)
    offset = origin - scale * COMMISSURE
    on_grid = ndimage.affine_transform(brain.astype(np.float32), scale, offset, FRAME_SHAPE, order=1) > 0.5
    closing_mm, tight_mm = 8.0, 1.0
    dilated = ndimage.distance_transform_edt(~on_grid) <= closing_mm
    return np.asarray(ndimage.distance_transform_edt(dilated) > closing_mm + tight_mm)


def _render(anatomy: _Anatomy, ventricle_mm: float, cortex_mm: float, rng: _Generator) -> tuple[_Array, float]:
    """Simulate one masked T1 volume, int16 (176, 208, 176), 0 outside the mask; count its lateral ventricles, ml."""
    box = ndimage.find_objects(anatomy.inside.astype(np.int8))[0]
    inside = anatomy.inside[box]
    warp_mm, (folding, bias) = _draw_fields(inside, rng)
    source = _to_template(np.argwhere(inside).T + [[axis.start] for axis in box], anatomy.origin, rng) + warp_mm
    _widen_ventricles(source, anatomy, ventricle_mm)
    brightness = _sample(anatomy.brightness, source)
    excess_mm = _sample(anatomy.depth, source) - (_CORTEX_MM - cortex_mm) - 0.6 * folding
    brightness -= np.clip(excess_mm / 1.2 + 0.5, 0, 1) * np.maximum(brightness - _CSF, 0)
    volume = np.zeros(FRAME_SHAPE, dtype=np.int16)
    volume[box][inside] = _acquire(brightness, bias, rng)
    return volume, float((_sample(anatomy.ventricle, source) < 0).sum()) / 1000


def _draw_fields(inside: _Array, rng: _Generator) -> tuple[_Array, _Array]:
    """Draw smooth fields at the voxels inside: a displacement (3, voxels) in mm, two of unit variance (2, voxels)."""
    nodes = tuple(2 + int(n / _NODE_SPACING_MM) for n in inside.shape)
    displacement = 1.7 * _draw_lattice(3, nodes, 3.5, rng) + 1.0 * _draw_lattice(3, nodes, 0.9, rng)
    others = [_draw_lattice(1, nodes, smoothing, rng) for smoothing in (1.2, 3.0)]
    fields = np.concatenate([displacement, *others])
    for axis, (n, voxels) in enumerate(zip(nodes, inside.shape, strict=True), start=1):
        spline = make_interp_spline(np.linspace(0, voxels - 1, n), np.eye(n), k=3)(np.arange(voxels)).astype(np.float32)
        fields = np.moveaxis(np.tensordot(spline, fields, axes=(1, axis)), 0, axis)
    values = fields[:, inside]
    return values[:3], values[3:]


def _draw_lattice(count: int, nodes: tuple[int, ...], smoothing: float, rng: _Generator) -> _Array:
    noise = rng.standard_normal((count, *nodes), dtype=np.float32)
    smooth = ndimage.gaussian_filter(noise, (0, smoothing, smoothing, smoothing), mode="wrap")
    return np.asarray(smooth / smooth.std())


def _to_template(voxels: _Array, origin: _Array, rng: _Generator) -> _Array:
    """Map T88 voxels (3, n) to template voxels under a small random affine."""
    a, b, c = rng.normal(0, 0.02, size=3)
    rotation = np.array([[1, -c, b], [c, 1, -a], [-b, a, 1]])
    matrix = rotation * (MNI_PER_T88 * rng.normal(1, 0.009, size=3))
    shift = origin + rng.normal(0, 0.8, size=3) - matrix @ np.array(COMMISSURE)
    return np.asarray(matrix.astype(np.float32) @ voxels.astype(np.float32) + shift.astype(np.float32)[:, None])


def _widen_ventricles(source: _Array, anatomy: _Anatomy, wall_mm: float) -> None:
    """Pull sampling points towards the ventricles, in place: their walls appear up to `wall_mm` further out."""
    distance = _sample(anatomy.ventricle, source)
    near = np.flatnonzero((distance > -1) & (distance < 2 * _VENTRICLE_REACH_MM))
    points, distance = source[:, near], distance[near]
    pull = np.minimum(distance + 1, wall_mm * np.exp(-0.5 * (distance / _VENTRICLE_REACH_MM) ** 2))
    source[:, near] -= pull * np.stack([_sample(component, points) for component in anatomy.outward])


def _sample(volume: _Array, points: _Array) -> _Array:
    return np.asarray(ndimage.map_coordinates(volume, points, output=np.float32, order=1, mode="nearest"))


def _acquire(brightness: _Array, bias: _Array, rng: _Generator) -> _Array:
    """Turn brightness relative to white matter into stored values: contrast, residual bias field, Rician noise."""
    signal = brightness ** np.float32(rng.normal(1, 0.08)) * (1 + np.float32(rng.uniform(0.01, 0.04)) * bias)
    noise = np.float32(rng.uniform(0.015, 0.03)) * rng.standard_normal((2, signal.size), dtype=np.float32)
    measured = np.hypot(signal + noise[0], noise[1])
    return np.asarray(np.maximum(measured * _WHITE_LEVEL * rng.normal(1, 0.05), 1).astype(np.int16))


def _write_volume(folder: Path, person: _Person, volume: _Array) -> None:
    folder.mkdir(parents=True)
    stem = f"{person.row['ID']}_mpr_n{person.acquisitions}_anon_111_t88_masked_gfc"
    header: Any = nib.AnalyzeHeader(endianness=">")  # type: ignore[no-untyped-call]
    header.set_data_shape((*FRAME_SHAPE, 1))
    header.set_data_dtype(np.int16)
    header.set_zooms((1, 1, 1, 1))
    header["descrip"] = b"synthetic phantom, monai-cae"
    with (folder / f"{stem}.hdr").open("wb") as file:
        header.write_to(file)
    blocks = volume.astype(">i2").ravel(order="F").reshape(-1, _BLOCK_VOXELS)
    with (folder / f"{stem}.img").open("wb") as file:
        for block in np.flatnonzero(blocks.any(axis=1)):
            file.seek(int(block) * blocks[0].nbytes)
            file.write(blocks[block].tobytes())
        file.truncate(blocks.nbytes)
