"""Check every scan of a cohort before training: continues after a broken file, and says what is unusual.

What is usual is the cohort's own median, so no scan needs to be known as good. Left and right can't be told from an
axial or coronal slice, and are not judged.
"""

from __future__ import annotations

import hashlib
import itertools
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
from numpy.typing import NDArray

from monai_cae.data.images.extraction import PAPER_SLICE, Extraction
from monai_cae.data.images.frames import PLACE_MM, Frame, frame_lines, frame_of, times
from monai_cae.data.images.planes import plane_axis
from monai_cae.data.images.readers import read_image
from monai_cae.data.images.views import View
from monai_cae.data.images.volumes import find_volume
from monai_cae.data.texts import listed
from monai_cae.errors import MonaiCaeError

_Array = NDArray[np.float32]

THUMBNAIL_PIXELS = 104  # longest side: 38 kB a scan, and OASIS-1's 176 x 208 pixels are halved exactly
FEWEST = 8  # readable slices from which on a cohort's median and spread say what is usual
ROBUST_Z = 6.0  # spreads (1.4826 x median absolute deviation) from the median; 138 OASIS-1 slices stay within 4
MARGIN = 0.02  # of correlation, by which another orientation has to fit better; upright OASIS-1 slices: below -0.06
BACKGROUND = 0.1  # of the median slice's brightest pixel: darker is not the brain

# Below these a difference is harmless, however alike the other scans are.
_LEAST = {
    "mean": np.log(1.5),  # each slice is scaled by itself later
    "99th percentile": np.log(1.5),
    "brightest pixel": np.log(2.0),  # leaves half the grey levels to the brain
    "non-zero share": 0.06,
    "fit": 0.3,  # OASIS-1 slices: 0.60 to 0.86, median 0.77; with another contrast or 15 mm away: below 0.35
}
_WORDS = {
    "mean": ("brightness", "mean of the non-zero pixels"),
    "99th percentile": ("brightness", "99th percentile of the non-zero pixels"),
    "brightest pixel": ("bright spot", "brightest pixel relative to the 99th percentile"),
    "non-zero share": ("non-zero share", "share of non-zero pixels"),
    "fit": ("unlike the others", "correlation with the cohort's median {plane}slice inside the brain"),
}
_OTHERS = {
    True: "the header records none, though most others do: it is taken as stored",
    False: "the header records one, though most others record none and are taken as stored",
}
_OPPOSITE = dict(zip("LRPAIS", "RLAPSI", strict=True))
_Turn = Callable[[NDArray[Any]], NDArray[Any]]
# How a slice can lie, seen with its first axis to the right and its second up; the second name is the mirrored slice's,
# which in the axial and coronal planes is the same but for left and right.
_LIES: tuple[tuple[str, str, _Turn], ...] = (
    ("as usual", "mirrored", lambda image: image),
    ("upside down", "turned by 180 degrees", lambda image: image[:, ::-1]),
    ("turned clockwise", "transposed", lambda image: image.T[:, ::-1]),
    ("turned anticlockwise", "transposed and turned by 180 degrees", lambda image: image.T[::-1]),
)


@dataclass
class ScanCheck:
    """What is known of one scan; what could not be read keeps its default."""

    name: str
    path: Path
    problems: list[str] = field(default_factory=list)  # a sentence each, "kind: what was measured, what is usual"
    frame: Frame | None = None
    affine: NDArray[np.float64] | None = None
    views: list[View] = field(default_factory=list)  # averaged to at most 104 pixels, in the file's units
    # of the body, for each view: where its first axis begins and its second ends, such as ("L", "A")
    sides: list[tuple[str, str]] = field(default_factory=list)
    measures: dict[str, float] = field(default_factory=dict)
    digest: bytes = b""

    @property
    def label(self) -> str:
        """The kinds of problems in a few words, for a picture's title; "" where there are none."""
        return ", ".join(dict.fromkeys(problem.split(":")[0] for problem in self.problems))


@dataclass(frozen=True)
class CohortCheck:
    """What is usual in a cohort, and which scans differ."""

    scans: list[ScanCheck]  # every scan, in the order given
    shape: tuple[int, int, int] | None  # the usual one; None where no volume can be opened, like spacing
    spacing: tuple[float, float, float] | None  # mm
    notes: tuple[str, ...] = ()  # what could not be judged, and why

    @property
    def suspicious(self) -> list[ScanCheck]:
        """The scans with a problem."""
        return [scan for scan in self.scans if scan.problems]

    def without_files(self) -> CohortCheck:
        """The same without the names of files, which contain the subjects' IDs."""
        hidden = []
        for scan in self.scans:
            file = str(scan.path.parent / scan.path.name.partition(".")[0])
            problems = [problem.replace(file, scan.name) for problem in scan.problems]
            hidden.append(replace(scan, path=Path(scan.name), problems=problems))
        return replace(self, scans=hidden)

    def to_dict(self) -> dict[str, Any]:
        """The same for a JSON file, without the pictures."""
        return {
            "scans": len(self.scans),
            "shape": self.shape and list(self.shape),
            "spacing_mm": self.spacing and list(self.spacing),
            "notes": list(self.notes),
            "suspicious": [
                {"name": scan.name, "path": str(scan.path), "problems": scan.problems} for scan in self.suspicious
            ],
        }


def check_cohort(
    images: Sequence[tuple[str, Path]],
    *,
    extraction: Extraction = PAPER_SLICE,
    progress: Callable[[Iterable[Any]], Iterable[Any]] | None = None,
) -> CohortCheck:
    """Look at the header of every scan and at what the network sees of it, and compare each with the others.

    Found are files that are missing, broken or truncated, slices outside the volume, empty or not finite, the same
    image under two names, another shape, voxel size, axis order or place in the header, another brightness, an image
    that is upside down or turned in any plane that it shows, and one that is unlike the others.

    Args:
        images: name and file of each scan.
        extraction: what of a volume is looked at; how it lies is judged in the middle slice of each plane.
        progress: wraps the iterable of scans, e.g. tqdm.

    Raises:
        MonaiCaeError: no images. A scan's own faults are collected.
    """
    if not images:
        raise MonaiCaeError("there are no images to check: give the folder with the images with --dataset_dir")
    looks = [_look(name, path, extraction) for name, path in (images if progress is None else progress(images))]
    frames = [look.frame for look in looks if look.frame]
    shape, spacing = (_most_common(getattr(frame, name) for frame in frames) for name in ("shape", "spacing"))
    notes = _compare_headers(looks, shape, spacing)
    _find_copies(looks, extraction.kind)
    notes += _compare_pixels(looks, extraction.kind)
    notes += frame_lines((str(path) for _, path in images), extraction)
    return CohortCheck(looks, shape, spacing, tuple(notes))


def _look(name: str, path: Path, extraction: Extraction) -> ScanCheck:
    look = ScanCheck(name, path)
    try:
        layout = find_volume(str(path)).layout
    except MonaiCaeError as error:
        look.problems.append(f"not readable: {error}")
        return look
    look.frame, look.affine = frame_of(layout, extraction), layout.view(extraction.axes).affine
    try:
        image = read_image(extraction, str(path))
    except MonaiCaeError as error:
        look.problems.append(f"no usable {extraction.kind}: {error}")
        return look
    views = extraction.views(image)
    step = -(-max(size for view in views for size in view.pixels.shape) // THUMBNAIL_PIXELS)
    look.views = [View(plane, _thumbnail(pixels, step)) for plane, pixels in views]
    if look.frame.codes and extraction.upright:
        look.sides = [_sides(nib.aff2axcodes(look.affine), plane) for plane, _ in views]
    look.measures = _measure(image)
    look.digest = hashlib.blake2b(np.ascontiguousarray(image).tobytes()).digest()
    return look


def _sides(codes: Sequence[str], plane: str) -> tuple[str, str]:
    right, up = (code for axis, code in enumerate(codes) if axis != plane_axis(plane))
    return _OPPOSITE[right], up


def _thumbnail(pixels: NDArray[Any], step: int) -> _Array:
    (rows, high), (columns, wide) = ((max(1, size // step), min(size, step)) for size in pixels.shape)
    blocks = pixels[: rows * high, : columns * wide].reshape(rows, high, columns, wide)
    largest = np.finfo(np.float32).max
    return blocks.mean(axis=(1, 3), dtype=np.float64).clip(-largest, largest).astype(np.float32)


def _measure(pixels: NDArray[Any]) -> dict[str, float]:
    size = np.abs(pixels.astype(np.float64))
    bright = size[size > 0]
    high = np.percentile(bright, 99)
    return {
        "mean": float(np.log(bright.mean())),
        "99th percentile": float(np.log(high)),
        "brightest pixel": float(np.log(bright.max() / high)),
        "non-zero share": bright.size / size.size,
    }


def _most_common(values: Iterable[Any]) -> Any:
    counts = Counter(value for value in values if value is not None).most_common(1)
    return counts[0][0] if counts else None


def _compare_headers(looks: Sequence[ScanCheck], shape: Any, spacing: Any) -> list[str]:
    alike = []
    recorded = _most_common(bool(look.frame.codes) for look in looks if look.frame is not None)
    for look in looks:
        if look.frame is None or look.affine is None:
            continue
        if look.frame.shape != shape:
            look.problems.append(f"different shape: {times(look.frame.shape)} voxels, usually {times(shape)}")
        elif look.frame.spacing != spacing:
            look.problems.append(f"different voxel size: {times(look.frame.spacing)} mm, usually {times(spacing)} mm")
        elif not np.isfinite(look.affine).all():
            look.problems.append("no orientation: the header's affine is not finite")
        elif recorded != bool(look.frame.codes):
            look.problems.append(f"no orientation: {_OTHERS[recorded]}")
        else:
            alike.append((look, look.affine, "".join(code or "?" for code in nib.aff2axcodes(look.affine))))
    usual = _most_common(codes for *_, codes in alike)
    for look, _, codes in alike:
        if codes != usual:
            look.problems.append(f"different axis order: the header says {codes}, usually {usual}")
    placed = [(look, affine) for look, affine, codes in alike if codes == usual]
    if not placed:
        return []
    corners = np.array([(*corner, 1) for corner in itertools.product(*((0, size - 1) for size in shape))])
    middle = np.median([affine for _, affine in placed], axis=0)
    apart = [float(np.linalg.norm((corners @ (affine - middle).T), axis=1).max()) for _, affine in placed]
    if np.median(apart) > PLACE_MM:
        return ["most headers place the volume differently: not compared"]
    for (look, _), distance in zip(placed, apart, strict=True):
        if distance > PLACE_MM:
            look.problems.append(
                f"different place: the header puts the volume up to {distance:.3g} mm from where the others lie "
                f"(limit {PLACE_MM} mm)"
            )
    return []


def _find_copies(looks: Sequence[ScanCheck], kind: str) -> None:
    same = defaultdict(list)
    for look in looks:
        same[look.digest].append(look)
    for look in looks:
        others = [other.name for other in same[look.digest] if other is not look] if look.digest else []
        if others:
            look.problems.append(f"same {kind} twice: every pixel equals that of {listed(others, 3)}")


def _compare_pixels(looks: Sequence[ScanCheck], kind: str) -> list[str]:
    seen = [(look, tuple(tuple(sorted(view.pixels.shape)) for view in look.views)) for look in looks if look.views]
    usual_sizes = _most_common(sizes for _, sizes in seen)
    alike = [look for look, sizes in seen if sizes == usual_sizes]  # a transposed slice too
    if len(alike) < FEWEST:
        return [f"{len(alike)} {kind}s of one size are too few to tell what is usual: only headers were compared"]
    planes = list(dict.fromkeys(view.plane for view in alike[0].views))
    seen_in = f"one {planes[0]} slice" if kind == "slice" else f"a {kind}"
    notes = [f"left and right can't be told from {seen_in}: not judged"]
    for plane in planes:
        notes += _judge_orientation(alike, plane, f"{plane} " if len(planes) > 1 else "")
    for name in alike[0].measures:
        values = np.array([look.measures[name] for look in alike])
        least = _LEAST[name.partition(":")[0]]
        usual, limit = float(np.median(values)), max(ROBUST_Z * _spread(values), least)
        for look, value in zip(alike, values, strict=True):
            off = value - usual
            # a slice that fits better than the others is none to look at
            if off < -limit or (off > limit and not name.startswith("fit")):
                look.problems.append(_unusual(name, float(value), usual, limit))
    return notes


def _judge_orientation(looks: Sequence[ScanCheck], plane: str, named: str) -> list[str]:
    """Name the slices that lie another way round than the cohort's median slice, and measure how each fits it.

    Args:
        looks: with views of one size.
        plane: that is judged: its middle view.
        named: the plane with a blank, or nothing if there is one alone.
    """
    views = [[view.pixels for view in look.views if view.plane == plane] for look in looks]
    slices = np.stack([_square(pictures[len(pictures) // 2]) for pictures in views])
    flat = _unit(slices.reshape(len(slices), -1)).reshape(slices.shape)
    ways = _ways(plane)
    usual = np.ones(len(slices), dtype=bool)
    for _ in range(2):  # the second median is of those alone that lie as usual in the first
        median = np.median(flat[usual], axis=0)
        fits = _fits(flat, median, np.ones_like(median, dtype=bool), ways)
        usual = fits.argmax(axis=0) == 0
        usual |= not usual.any()
    shade = np.abs(np.median(slices[usual], axis=0))
    # the brain's outline alone correlates by 0.8, whatever it encloses
    inside = _fits(flat, median, shade >= BACKGROUND * shade.max(), ways)
    notes, lies = [], np.zeros(len(looks), dtype=int)
    for index, way in enumerate(list(ways)[1:], start=1):
        margins = fits[index] - fits[0]
        if np.median(margins) > -MARGIN:
            notes.append(f"the {named}slices are too symmetric to tell whether one is {way}: not judged")
            continue
        least = max(MARGIN, float(np.median(margins[usual])) + ROBUST_Z * _spread(margins[usual]))
        # a slice of something else can have the outline of a brain that is turned
        brain = inside[index] > np.median(inside[0]) / 2
        clear = brain & (margins > least) & (fits[index] > fits[lies, range(len(looks))])
        lies[clear] = index
    for place, look in enumerate(looks):
        way, turned = list(ways)[lies[place]], fits[lies[place], place]
        look.measures[f"fit:{named}"] = float(inside[lies[place], place])
        if lies[place]:
            look.problems.append(
                f"{way}: correlation with the cohort's median {named}slice {fits[0, place]:.3f} as it is, {turned:.3f} "
                f"turned back, usually {np.median(fits[0]):.3f} as it is (limit: {MARGIN} better)"
            )
    return notes


def _ways(plane: str) -> dict[str, list[_Turn]]:
    ways: dict[str, list[_Turn]] = {}
    for name, mirrored, turn in _LIES:
        both: list[_Turn] = [turn, lambda image, turn=turn: turn(image[::-1])]  # type: ignore[misc]
        ways |= {name: both[:1], mirrored: both[1:]} if plane_axis(plane) == 0 else {name: both}
    return ways


def _fits(
    slices: _Array, median: _Array, inside: NDArray[np.bool_], ways: Mapping[str, Sequence[_Turn]]
) -> NDArray[np.float64]:
    """Correlation of each slice with the median slice lying each way, over the pixels inside: (ways, slices)."""
    return np.stack(
        [
            np.max([_unit(slices[:, turn(inside)]) @ _unit(turn(median)[turn(inside)]) for turn in turns], axis=0)
            for turns in ways.values()
        ]
    )


def _square(image: _Array) -> _Array:
    """Lay an image on a square, so that it can be turned; its largest value becomes 1."""
    side = max(image.shape)
    square = np.zeros((side, side), dtype=np.float32)
    first, second = ((side - size) // 2 for size in image.shape)
    square[first : first + image.shape[0], second : second + image.shape[1]] = image / (np.abs(image).max() or 1)
    return square


def _unit(vectors: _Array) -> _Array:
    """Vectors of mean 0 and length 1 along the last axis; constant ones are 0."""
    centred = vectors - vectors.mean(axis=-1, keepdims=True)
    length = np.linalg.norm(centred, axis=-1, keepdims=True)
    return centred / np.where(length > 0, length, 1)


def _spread(values: NDArray[np.float64]) -> float:
    return 1.4826 * float(np.median(np.abs(values - np.median(values))))  # the SD, were they normal


def _unusual(name: str, value: float, usual: float, limit: float) -> str:
    measure, _, plane = name.partition(":")
    kind, what = _WORDS[measure]
    back: Any = float if measure in ("fit", "non-zero share") else np.exp
    bounds = f"{back(usual - limit):.3g}" + ("" if measure == "fit" else f" to {back(usual + limit):.3g}")
    return f"{kind}: {what.format(plane=plane)} {back(value):.3g}, usually {back(usual):.3g} (limit {bounds})"
