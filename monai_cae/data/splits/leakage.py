"""Why whole subjects must stay together: one classifier on the same slices, split wrongly and rightly."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.model_selection import StratifiedGroupKFold, StratifiedKFold
from sklearn.neighbors import NearestNeighbors

from monai_cae.data.cohort.selection import load_cohort
from monai_cae.data.images.extraction import PAPER_SLICE, Extraction
from monai_cae.data.images.readers import check_slice
from monai_cae.data.images.volumes import find_volume, read_slices
from monai_cae.data.scan import Scan
from monai_cae.errors import MonaiCaeError

_Array = NDArray[Any]

FOLDS = 5
PIXELS = 32  # longest side after averaging: enough to know a brain again, and seconds of work


@dataclass(frozen=True)
class LeakageDemo:
    """How often the nearest other slice has the right class, by how the slices were split."""

    by_image: float  # accuracy with slices split at random: a subject's neighbouring slices are on both sides
    by_subject: float  # accuracy with whole subjects kept together: the one that holds for new patients
    chance: float  # share of the larger class
    same_subject: float  # share of slices whose nearest one, split by image, is of the same subject: it was recognised
    subjects: int  # the uncertainty of `by_subject` is theirs
    slices: int  # each is tested once


def leakage_demo(
    dataset_dir: str | Path,
    *,
    extraction: Extraction = PAPER_SLICE,
    neighbours: int = 10,
    seed: int = 0,
    progress: Callable[[Iterable[Any]], Iterable[Any]] | None = None,
    **selection: Any,
) -> LeakageDemo:
    """Cross-validate a nearest-neighbour classifier on neighbouring slices, split by image and split by subject.

    Nothing is learned of the disease: neighbouring slices of one brain are nearly the same picture, so that the
    classifier recognises the subject.

    Args:
        dataset_dir: a cohort of volumes; of each only the wanted slices are read.
        extraction: has the slice in the middle of those that are taken.
        neighbours: slices taken on either side, as far as the volume goes.
        seed: of both splits.
        progress: wraps the iterable of scans, e.g. tqdm.
        **selection: further settings of `load_cohort`.

    Raises:
        MonaiCaeError: what `load_cohort` and the readers refuse, fewer than five subjects in a class, volumes of
            different shapes, or of one slice.
    """
    if isinstance(neighbours, bool) or not isinstance(neighbours, int) or neighbours < 1:
        raise MonaiCaeError(f"neighbours must be a whole number, 1 or more, not {neighbours!r}")
    cohort = load_cohort(dataset_dir, plane=extraction.plane, **selection)
    for found, what in ((cohort.patients, "patients"), (cohort.controls, "controls")):
        subjects = len({scan.subject for scan in found})
        if subjects < FOLDS:
            raise MonaiCaeError(f"the demonstration needs {FOLDS} {what} for its {FOLDS} folds, not {subjects}")
    scans = cohort.scans
    slabs = [_read_slab(scan, extraction, neighbours) for scan in (scans if progress is None else progress(scans))]
    for scan, slab in zip(scans, slabs, strict=True):
        if slab.shape != slabs[0].shape:
            raise MonaiCaeError(f"{scan.image} and {scans[0].image} differ in shape: leave one out or resample it")
    return _compare(np.concatenate(slabs), scans, len(slabs[0]), seed)


def _read_slab(scan: Scan, extraction: Extraction, neighbours: int) -> _Array:
    """Neighbouring slices, averaged to few pixels and scaled to [0, 1] each: (count, height, width)."""
    if scan.image is None:
        raise MonaiCaeError(f"{scan.name} has no image: the demonstration needs the folder with the volumes")
    volume, plane, axis = find_volume(str(scan.image)), extraction.plane, extraction.axis
    view = volume.layout.view(extraction.axes)
    shape = view.shape
    positions = extraction.positions(shape, str(scan.image))
    middle = positions[len(positions) // 2]
    if shape[axis] == 1:
        raise MonaiCaeError(f"{scan.image} has one {plane} slice: the demonstration needs whole volumes, or a slab")
    start, stop = max(0, middle - neighbours), min(shape[axis], middle + neighbours + 1)
    slab = np.moveaxis(view.turned(read_slices(volume, *view.stored(axis, start, stop))), axis, 0)
    for one in slab:
        check_slice(one, f"one of the {plane} slices around {middle + 1} of {scan.image}")
    step = -(-max(slab.shape[1:]) // PIXELS)
    count, height, width = len(slab), slab.shape[1] // step, slab.shape[2] // step
    small = slab[:, : height * step, : width * step].reshape(count, height, step, width, step).mean(axis=(2, 4))
    lowest, highest = (edge(small, axis=(1, 2), keepdims=True) for edge in (np.min, np.max))
    return (small - lowest) / np.maximum(highest - lowest, np.finfo(float).tiny)


def _compare(images: _Array, scans: Sequence[Scan], count: int, seed: int) -> LeakageDemo:
    pixels = images.reshape(len(images), -1)
    labels = np.repeat([int(scan.label or 0) for scan in scans], count)
    subjects = np.repeat([scan.subject for scan in scans], count)
    by_image = StratifiedKFold(FOLDS, shuffle=True, random_state=seed).split(pixels, labels)
    by_subject = StratifiedGroupKFold(FOLDS, shuffle=True, random_state=seed).split(pixels, labels, subjects)
    leaky, sound = _nearest(pixels, by_image), _nearest(pixels, by_subject)
    return LeakageDemo(
        by_image=float(np.mean(labels[leaky] == labels)),
        by_subject=float(np.mean(labels[sound] == labels)),
        chance=float(np.bincount(labels).max() / len(labels)),
        same_subject=float(np.mean(subjects[leaky] == subjects)),
        subjects=len(set(subjects)),
        slices=len(images),
    )


def _nearest(pixels: _Array, folds: Iterable[tuple[_Array, _Array]]) -> _Array:
    """For each slice, the place of the training slice that is most like it when its fold is the test set."""
    nearest = np.empty(len(pixels), dtype=int)
    for training, test in folds:
        found = NearestNeighbors(n_neighbors=1).fit(pixels[training]).kneighbors(pixels[test], return_distance=False)
        nearest[test] = training[found[:, 0]]
    return nearest
