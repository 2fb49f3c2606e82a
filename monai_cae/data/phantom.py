"""A synthetic cohort in OASIS-1's disk format, for tests, demonstrations and runs without real data."""

from __future__ import annotations

import csv
import json
import math
from collections.abc import Callable, Container, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import nibabel as nib
import numpy as np
from numpy.typing import NDArray
from scipy import ndimage
from scipy.interpolate import make_interp_spline

from monai_cae.data.medial_temporal import MedialTemporal, load_medial_temporal, values_at
from monai_cae.data.people import Atrophy, Person, draw_people
from monai_cae.data.template import COMMISSURE, FRAME_SHAPE, MNI_PER_T88, TEMPLATE_NAME, load_icbm152
from monai_cae.files import new_folder

_Array = NDArray[Any]
_Generator = np.random.Generator

_MARKER = "dataset_description.json"
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
_TEMPORAL_MM = 3.0  # by how much more it thins in the temporal lobes, per share of the hippocampus that is lost


def write_phantom(
    out_dir: str | Path,
    subjects: int = 60,
    seed: int = 0,
    progress: Callable[[Iterable[Any]], Iterable[Any]] | None = None,
    volumes: bool = False,
) -> Path:
    """Write a synthetic cohort that is laid out like the OASIS-1 discs and reads like them.

    Every brain is the ICBM152 2009a template in a T88-like space, under a random affine and a smooth random deformation
    with its own contrast, residual bias field and Rician noise. Atrophy, in mm, follows CDR and age with overlapping
    distributions: it pushes tissue away from the lateral ventricles and opens the sulci. Half the subjects are patients
    (CDR > 0); of an odd number one more is a control. Subject k is the same in cohorts of any size, save that last one.

    With `volumes` atrophy is elsewhere: the hippocampus, the amygdala and the temporal lobe's cortex shrink by CDR and
    age, and ventricles and the other cortex give way less to CDR than without. So slices through the hippocampus, and
    volumes, tell more about CDR than slice 106 does. Table, folds and noise are the same as without.

    The anterior commissure lies 5 mm higher than in real T88 volumes, so that slice 106 cuts the lateral ventricles as
    it does in OASIS-1's aged brains. Nothing is claimed about laterality, and no result about real brains follows.

    Args:
        out_dir: a folder that is absent or empty; it appears only when the cohort is complete.
        subjects: 4 to 999.
        seed: 0 or greater; the same seed gives the same bytes.
        progress: wraps the iterable of subjects, e.g. tqdm.
        volumes: whether there is atrophy below the ventricles, too.

    Returns:
        The folder: disc1, disc2 ... with volumes of 176 x 208 x 176 voxels of 1 mm, oasis_cross-sectional.csv and
        dataset_description.json; with `volumes` also truth.csv, which nothing reads.

    Raises:
        MonaiCaeError: out_dir is not empty or not writable, subjects or seed out of range, nilearn not installed.
    """
    out = Path(out_dir).expanduser().resolve()
    people = draw_people(subjects, seed, volumes)
    anatomy = _load_anatomy(volumes)
    truths = []
    with new_folder(out) as partial:
        for person in people if progress is None else progress(people):
            image = _render(anatomy, person.atrophy, person.generator)
            _write_volume(partial / person.folder, person, image.volume)
            truths.append(truth(person.row, person.atrophy, image.ventricle_ml, image.hippocampus_ml))
        if volumes:
            write_truth(partial, truths)
        with (partial / "oasis_cross-sectional.csv").open("w", encoding="utf-8-sig", newline="") as file:
            table = csv.DictWriter(file, people[0].row)
            table.writeheader()
            table.writerows(person.row for person in people)
        about = {"Name": "monai-cae synthetic cohort", "synthetic": True, "seed": seed, "subjects": subjects}
        about |= {"generator": "monai-cae phantom" + " --volumes" * volumes, "template": TEMPLATE_NAME}
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
        atrophy: what it has lost.
        hippocampus_ml: volume of both hippocampi; nan in a cohort without atrophy below the ventricles.
        lesion: by how much CDR has changed the brightness, relative to white matter: float32 of the volume's shape, 0
            in controls; None unless asked for.
    """

    row: Mapping[str, str]
    volume: _Array
    inside: _Array
    ventricle_ml: float
    atrophy: Atrophy
    hippocampus_ml: float
    lesion: _Array | None


def synthetic_brains(
    subjects: int, seed: int, volumes: bool = False, lesions: bool = False, only: Container[str] | None = None
) -> Iterator[SyntheticBrain]:
    """Draw the brains that `write_phantom` writes, one after the other; it has the arguments and the errors.

    Args:
        subjects, seed, volumes: as `write_phantom` has them.
        lesions: whether each comes with what CDR has changed: the difference from the same brain, drawn with the
            atrophy that it would have with CDR 0, before noise. Takes as long again.
        only: IDs of those to draw; None draws all.
    """
    people = draw_people(subjects, seed, volumes)
    anatomy = _load_anatomy(volumes)
    for person in people:
        if only is not None and person.row["ID"] not in only:
            continue
        image = _render(anatomy, person.atrophy, person.generator, person.unaffected if lesions else None)
        measured = (image.ventricle_ml, person.atrophy, image.hippocampus_ml, image.lesion)
        yield SyntheticBrain(person.row, image.volume, anatomy.inside, *measured)


def truth(row: Mapping[str, str], atrophy: Atrophy, ventricle_ml: float, hippocampus_ml: float) -> dict[str, str]:
    """A row of truth.csv: what a brain was drawn with, and the volumes of what was drawn."""
    drawn = {name: f"{value:.3f}" for name, value in atrophy._asdict().items()}
    measured = {"ventricle_ml": f"{ventricle_ml:.2f}", "hippocampus_ml": f"{hippocampus_ml:.2f}"}
    return {"ID": row["ID"], "CDR": row["CDR"], **measured, **drawn}


def write_truth(folder: Path, truths: Sequence[Mapping[str, str]]) -> None:
    """Write truth.csv, which no layout reads."""
    with (folder / "truth.csv").open("w", encoding="utf-8", newline="") as file:
        table = csv.DictWriter(file, truths[0])
        table.writeheader()
        table.writerows(truths)


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
class _Anatomy:
    """What all subjects share: float32 maps (153, 189, 159) on the template's 1 mm grid, and the T88 brain mask."""

    brightness: _Array  # T1 relative to white matter
    depth: _Array  # mm from the white matter into the cortex and beyond; 0 in deep nuclei
    ventricle: _Array  # mm from the walls of the lateral ventricles, negative inside
    outward: _Array  # gradient of `ventricle`, (3, 153, 189, 159)
    origin: _Array  # the anterior commissure's voxel on the template's grid
    inside: _Array  # brain mask (176, 208, 176)
    medial: MedialTemporal | None  # None: nothing shrinks below the ventricles


class _Image(NamedTuple):
    volume: _Array
    ventricle_ml: float
    hippocampus_ml: float
    lesion: _Array | None


def _load_anatomy(volumes: bool = False) -> _Anatomy:
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
        inside=(inside := _brain_mask(brain, origin)),
        medial=load_medial_temporal(origin, inside) if volumes else None,
    )


def _brain_mask(brain: _Array, origin: _Array) -> _Array:
    """The template's brain on the T88 grid, sulci closed; the same for all, as OASIS-1's atlas mask is."""
    scale = np.array(MNI_PER_T88)
    offset = origin - scale * COMMISSURE
    on_grid = ndimage.affine_transform(brain.astype(np.float32), scale, offset, FRAME_SHAPE, order=1) > 0.5
    closing_mm, tight_mm = 8.0, 1.0
    dilated = ndimage.distance_transform_edt(~on_grid) <= closing_mm
    return np.asarray(ndimage.distance_transform_edt(dilated) > closing_mm + tight_mm)


def _render(anatomy: _Anatomy, atrophy: Atrophy, rng: _Generator, unaffected: Atrophy | None = None) -> _Image:
    """Simulate one masked T1 volume, int16 (176, 208, 176), 0 outside the mask, and measure what it shows."""
    box = ndimage.find_objects(anatomy.inside.astype(np.int8))[0]
    inside = anatomy.inside[box]
    warp_mm, (folding, bias) = _draw_fields(inside, rng)
    source = _to_template(np.argwhere(inside).T + [[axis.start] for axis in box], anatomy.origin, rng) + warp_mm
    lesion = None
    if unaffected is not None:
        lesion = np.zeros(FRAME_SHAPE, dtype=np.float32)
        if unaffected != atrophy:
            lesion[box][inside] = -_shrink(anatomy, source.copy(), folding, unaffected)[0]
    brightness, ventricle_ml, hippocampus_ml = _shrink(anatomy, source, folding, atrophy)
    if lesion is not None and unaffected != atrophy:
        lesion[box][inside] += brightness
    volume = np.zeros(FRAME_SHAPE, dtype=np.int16)
    volume[box][inside] = _acquire(brightness, bias, rng)
    return _Image(volume, ventricle_ml, hippocampus_ml, lesion)


def _shrink(anatomy: _Anatomy, source: _Array, folding: _Array, atrophy: Atrophy) -> tuple[_Array, float, float]:
    """Give the brightness of the voxels inside, and measure ventricles and hippocampi; `source` is moved in place."""
    _widen_ventricles(source, anatomy, atrophy.ventricle_mm)
    ventricle_ml = float((values_at(anatomy.ventricle, source) < 0).sum()) / 1000
    hippocampus_ml = math.nan
    cortex_mm: float | _Array = atrophy.cortex_mm
    if anatomy.medial:
        near, whole, fluid, hippocampus_ml = anatomy.medial.shrink(source, atrophy.lost)
        cortex_mm = np.float32(atrophy.cortex_mm) + np.float32(_TEMPORAL_MM * atrophy.lost) * anatomy.medial.lobe
    brightness = values_at(anatomy.brightness, source)
    excess_mm = values_at(anatomy.depth, source) - (_CORTEX_MM - cortex_mm) - 0.6 * folding
    thinned = np.clip(excess_mm / 1.2 + 0.5, 0, 1)
    if anatomy.medial:
        thinned[near] *= 1 - whole
    brightness -= thinned * np.maximum(brightness - _CSF, 0)
    if anatomy.medial:
        brightness[near] += fluid * (_CSF - brightness[near])
    return brightness, ventricle_ml, hippocampus_ml


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
    distance = values_at(anatomy.ventricle, source)
    near = np.flatnonzero((distance > -1) & (distance < 2 * _VENTRICLE_REACH_MM))
    points, distance = source[:, near], distance[near]
    pull = np.minimum(distance + 1, wall_mm * np.exp(-0.5 * (distance / _VENTRICLE_REACH_MM) ** 2))
    source[:, near] -= pull * np.stack([values_at(component, points) for component in anatomy.outward])


def _acquire(brightness: _Array, bias: _Array, rng: _Generator) -> _Array:
    """Turn brightness relative to white matter into stored values: contrast, residual bias field, Rician noise."""
    signal = brightness ** np.float32(rng.normal(1, 0.08)) * (1 + np.float32(rng.uniform(0.01, 0.04)) * bias)
    noise = np.float32(rng.uniform(0.015, 0.03)) * rng.standard_normal((2, signal.size), dtype=np.float32)
    measured = np.hypot(signal + noise[0], noise[1])
    return np.asarray(np.maximum(measured * _WHITE_LEVEL * rng.normal(1, 0.05), 1).astype(np.int16))


def _write_volume(folder: Path, person: Person, volume: _Array) -> None:
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
