"""Where a slice lies: which volumes show the wanted plane, and what is unusual about the others.

A slice index alone means another anatomy in every frame. What the others of a cohort, a network's training or the
paper's template have is compared with what each header says; headers are all that is read.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from monai_cae.data.images.averaging import Grid
from monai_cae.data.images.extraction import Extraction
from monai_cae.data.images.volumes import Layout, find_volume
from monai_cae.data.template import FRAME_SHAPE, FRAME_SPACING
from monai_cae.errors import MonaiCaeError

MOST_MM = 5.0  # from the wanted plane: lateral ventricles look different from there on
MOST_DEGREES = 10.0
LEAST_SHARE = 0.8  # of the field of view that other volumes have, along each axis; less may lack some of the brain
PLACE_MM = 0.1  # within which most headers must agree to be a frame: a rounded affine does less
OTHER_SIZE = 0.05  # of a voxel: a brain looks that much larger or smaller
MIXED = "mixed"
_Point = tuple[float, float, float]


class Frame(NamedTuple):
    """How a volume, or most of a cohort's, lies; shape and spacing are those of the volume as it is read."""

    codes: str  # directions of the stored axes, such as "PSR"; "" where the header records none; "mixed" of several
    shape: tuple[int, int, int]
    spacing: _Point  # mm
    above_middle: float  # mm from the volume's middle to the slice
    centre: _Point | None = None  # of the slice in mm; None where it is not recorded, or where headers do not agree
    normal: _Point | None = None  # unit vector across the slice; None likewise
    along: _Point | None = None  # unit vector along its first axis, where slices of other planes, or all, are seen too

    @property
    def tilt(self) -> float:
        """Degrees between the slice and the closest plane of the body."""
        return max((_degrees(max(map(abs, one))) for one in (self.normal, self.along) if one), default=0.0)

    @property
    def on_template(self) -> bool:
        """Its voxels are those of OASIS-1's T88 volumes."""
        return (self.shape, self.spacing) == (FRAME_SHAPE, FRAME_SPACING)


def frame_of(layout: Layout, extraction: Extraction) -> Frame:
    """The frame of one volume; an index outside the volume is not looked at."""
    view, axis = layout.view(extraction.axes), extraction.axis
    x, y, z = (layout.spacing[stored] for stored in view.order)
    above = float(_from_middle(view.shape, (x, y, z), extraction)[axis])
    if not layout.codes:
        return Frame("", view.shape, (x, y, z), above)
    first, second = (view.affine[:3, other] for other in range(3) if other != axis)
    centre = view.affine[:3, :3] @ extraction.centre(view.shape) + view.affine[:3, 3]
    along = _point(_unit(first)) if extraction.whole else None
    placed = {"centre": _point(centre), "normal": _point(_unit(np.cross(first, second))), "along": along}
    return Frame(layout.codes, view.shape, (x, y, z), above, **placed)


def frames_of(images: Iterable[str], extraction: Extraction) -> list[Frame]:
    """Of the images whose headers can be read."""
    layouts = map(_layout_of, images)
    return [frame_of(layout, extraction) for layout in layouts if layout]


def common_frame(frames: Sequence[Frame]) -> Frame:
    """What most of the frames have; with a place if more than half of the headers agree on it."""
    usual = Counter((frame.shape, frame.spacing) for frame in frames).most_common(1)[0][0]
    alike = [frame for frame in frames if (frame.shape, frame.spacing) == usual]
    codes = {frame.codes for frame in frames}
    common = alike[0]._replace(codes=codes.pop() if len(codes) == 1 else MIXED, centre=None, normal=None, along=None)
    placed = [frame for frame in frames if frame.centre is not None and frame.normal is not None]
    if 2 * len(placed) <= len(frames):
        return common
    centre = np.median([frame.centre for frame in placed], axis=0)
    apart = np.linalg.norm(np.array([frame.centre for frame in placed]) - centre, axis=1)
    if 2 * np.count_nonzero(apart <= PLACE_MM) <= len(frames):
        return common
    first = placed[int(apart.argmin())]
    return common._replace(centre=first.centre, normal=first.normal, along=first.along)


def frame_faults(
    frames: Mapping[str, Frame], extraction: Extraction, *, cohort: bool, training: Frame | None
) -> dict[str, str]:
    """Which volumes do not show the wanted plane: why, and what to do, as the end of a sentence.

    Args:
        frames: by file.
        extraction: what of them is seen: across a slice, or for `Extraction.whole` in any direction, they may be off.
        cohort: the volumes are one; what most of them have is wanted, where there is no training.
        training: what a checkpoint records.
    """
    usual = common_frame(list(frames.values())) if cohort and frames else None
    silent = sum(not frame.codes for frame in frames.values())
    faults = {}
    for image, frame in frames.items():
        fault = _misplaced(frame, training or usual, "the training's" if training else "the others'", extraction)
        if fault:
            faults[image] = f"{fault}: register it"
        elif usual and bool(frame.codes) == (2 * silent >= len(frames)):
            has, others = ("an", "do not") if frame.codes else ("no", "do")
            faults[image] = (
                f"may have another orientation: its header records {has} orientation, most others {others}: correct it"
            )
    return faults


def _misplaced(frame: Frame, wanted: Frame | None, others: str, extraction: Extraction) -> str:
    """Where a header or the training records no place, the middle of the volume has to do."""
    tilt = off = 0.0
    if frame.centre and frame.normal and wanted and wanted.centre and wanted.normal:
        tilt = _degrees(abs(float(np.dot(frame.normal, wanted.normal))))
        if frame.along and wanted.along:
            tilt = max(tilt, _degrees(abs(float(np.dot(frame.along, wanted.along)))))
        apart = np.subtract(frame.centre, wanted.centre)
        off = float(np.linalg.norm(apart)) if extraction.whole else abs(float(np.dot(apart, wanted.normal)))
    elif wanted and (wanted.centre or not wanted.codes) and not _same_voxels(frame, wanted):
        ours, theirs = (_from_middle(one.shape, one.spacing, extraction) for one in (frame, wanted))
        off = float(np.abs(ours - theirs).max())
    if wanted and extraction.grid is not None:
        ours, theirs = (_field(one, extraction.grid) for one in (frame, wanted))
        if (ours < LEAST_SHARE * theirs).any():
            return f"has {times(ours)} mm, {others} {times(theirs)} (limit {LEAST_SHARE:.0%} of each)"
    if off > MOST_MM:
        return f"lies {off:.3g} mm from {others} (limit {MOST_MM:g} mm)"
    if tilt > MOST_DEGREES:
        return f"is tilted by {tilt:.3g} degrees from {others} (limit {MOST_DEGREES:g})"
    if frame.on_template and frame.tilt > MOST_DEGREES:
        return f"is oblique by {frame.tilt:.3g} degrees, though the volume has the template's voxels"
    return ""


def _field(frame: Frame, grid: Grid) -> NDArray[np.float64]:
    """What of the cubes a volume fills, in mm."""
    return np.minimum(np.multiply(frame.shape, frame.spacing), np.multiply(grid.size, grid.spacing))


def times(sizes: Iterable[float]) -> str:
    """Sizes in one text, such as "176 x 208"."""
    return " x ".join(f"{size:g}" for size in sizes)


def frame_lines(images: Iterable[str], extraction: Extraction, *, training: Frame | None = None) -> list[str]:
    """What of the volumes differs from a network's training, or else from the template, and what would mend it.

    Args:
        images: files; one whose header can't be read is passed over.
        extraction: what of a volume is looked at.
        training: what the checkpoint records; None for the template, OASIS-1's T88 volumes, of which no line is true.
    """
    images = list(images)
    frames = frames_of(images, extraction)
    if not frames:
        return []
    usual, axes = common_frame(frames), extraction.axes
    above = float(_from_middle(FRAME_SHAPE, FRAME_SPACING, extraction)[extraction.axis])
    wanted = training or Frame("", FRAME_SHAPE, FRAME_SPACING, above)
    lines = []
    if not _same_voxels(usual, wanted):
        stored = f" (stored as {usual.codes})" if usual.codes not in ("", MIXED) else ""
        whose, where = ("those of the training", "its space") if training else ("the template's", "a template")
        alike = sum(frame[1:3] == usual[1:3] for frame in frames)
        have = "the volumes have" if alike == len(frames) else f"{alike} of {len(frames)} volumes have"
        lies = f"lies {usual.above_middle:+.3g} mm from the middle, not {wanted.above_middle:+.3g} mm: "
        whole = extraction.whole
        lines.append(
            f"{have} {_voxels(usual)}{stored}, {whose} {_voxels(wanted)}; "
            f"{'' if whole or usual.shape[extraction.axis] == 1 else f'{extraction.name} {lies}'}register the scans to "
            f"{where}{'' if training or whole else ', or choose another --slice_index'}"
        )
    lines += _contradictions(images, axes)
    lines += _spacing_lines(frames, usual, extraction)
    return [*lines, *_orientation_lines(frames, axes, training), *_place_lines(frames, usual, extraction)]


def _spacing_lines(frames: Sequence[Frame], usual: Frame, extraction: Extraction) -> list[str]:
    """A cube of a grid has the same size in every scan, a pixel of a slice has the scan's."""
    if extraction.grid is not None:
        return []
    seen = [np.greater(frame.shape, 1) for frame in frames]  # the thickness of a single slice is not
    others = Counter(
        frame.spacing
        for frame, axes in zip(frames, seen, strict=True)
        if np.any(np.not_equal(frame.spacing, usual.spacing) & axes)
    )
    if not others:
        return []
    listed = ", ".join(f"{_mm(spacing)} ({count})" for spacing, count in others.most_common(3))
    return [
        f"{others.total()} of {len(frames)} volumes have voxels of another size than {_mm(usual.spacing)}: {listed}; "
        "resample them to one size"
    ]


def other_voxels(frames: Sequence[Frame], extraction: Extraction, training: Frame | None) -> str:
    """How many scans a network sees larger or smaller than those of its training; "" for none, and cubes of a grid."""
    if training is None or extraction.grid is not None:
        return ""
    seen = [axis for axis in range(3) if extraction.whole or axis != extraction.axis]

    def differs(frame: Frame, axis: int) -> bool:
        single = 1 in (frame.shape[axis], training.shape[axis])  # whose thickness is not seen
        return not single and abs(frame.spacing[axis] / training.spacing[axis] - 1) > OTHER_SIZE

    others = Counter(frame.spacing for frame in frames if any(differs(frame, axis) for axis in seen))
    if not others:
        return ""
    sizes = _mm(others.most_common(1)[0][0]), _mm(training.spacing)
    return f"{others.total()} of {len(frames)} scans have voxels such as {sizes[0]}, those of the training {sizes[1]}"


def _contradictions(images: Iterable[str], axes: str) -> list[str]:
    layouts = [layout for image in images if (layout := _layout_of(image))]
    turned = [f"{one.codes} against {one.others}" for one in layouts if one.others and axes == "anatomical"]
    sized = [f"{_mm(one.spacing)} against {_mm(one.pixdim)}" for one in layouts if one.spacing != one.pixdim]
    lines = []
    for who, what, found, used in (
        ("sform and qform", "directions", turned, "sform"),
        ("affine and pixdim", "voxel sizes", sized, "affine"),
    ):
        listed = ", ".join(f"{pair} ({count})" for pair, count in Counter(found).most_common(3))
        if found:
            lines.append(
                f"{who} disagree on the {what} of {len(found)} scans ({listed}); the {used} is used: look at them in a "
                "viewer, and correct the wrong one"
            )
    return lines


def _layout_of(image: str) -> Layout | None:
    try:
        return find_volume(image).layout
    except MonaiCaeError:
        return None


def _orientation_lines(frames: Sequence[Frame], axes: str, training: Frame | None) -> list[str]:
    lines = []
    counts = Counter(frame.codes for frame in frames if frame.codes)
    found = ", ".join(f"{codes} {count}" for codes, count in counts.most_common())
    if axes == "stored" and not all(re.fullmatch("[LR][PA][IS]", codes) for codes in counts):
        lines.append(
            f"the scans are stored as {found}, and with axes stored the planes are not those of the body: give --axes "
            "anatomical"
        )
    elif len(counts) > 1:
        how = (
            "turned to one orientation by their affines"
            if axes == "anatomical"
            else "not turned: give --axes anatomical"
        )
        lines.append(f"the scans are stored in {len(counts)} orientations ({found}), and {how}")
    elif training and axes == "stored" and counts and training.codes not in ("", *counts):
        lines.append(f"the scans are stored as {found}, those of the training as {training.codes}: reorient them")
    silent = sum(not frame.codes for frame in frames)
    if counts and silent:
        lines.append(f"{silent} of {len(frames)} scans record no orientation, and are taken as stored")
    elif training and bool(training.codes) != bool(counts):
        which = ["those of the training", "the scans"][:: 1 if silent else -1]
        lines.append(f"{which[0]} record an orientation, {which[1]} do not: left and right may be exchanged")
    return lines


def _place_lines(frames: Sequence[Frame], usual: Frame, extraction: Extraction) -> list[str]:
    lines, slice_name = [], extraction.name
    tilted = [frame.tilt for frame in frames if frame.tilt > MOST_DEGREES]
    if tilted:
        lines.append(
            f"{len(tilted)} of {len(frames)} scans are oblique by more than {MOST_DEGREES:g} degrees, by up to "
            f"{max(tilted):.3g}: their {slice_name} is tilted; register them, or resample them to straight axes"
        )
    placed = [(frame.centre, frame.normal) for frame in frames if frame.centre and frame.normal]
    if usual.centre is None and placed:
        apart = np.ptp([centre for centre, _ in placed], axis=0)
        across = int((apart if extraction.whole else np.abs(np.array(placed[0][1]))).argmax())
        heights = [centre[across] for centre, _ in placed]
        if max(heights) - min(heights) > MOST_MM:
            lines.append(
                f"the headers place {slice_name} from {min(heights):.3g} to {max(heights):.3g} mm: the scans are not "
                "registered to one space, and one index shows different anatomy in each; register them to a template"
            )
    return lines


def _from_middle(shape: Sequence[int], spacing: Sequence[float], extraction: Extraction) -> NDArray[np.float64]:
    """From a volume's middle to that of what is seen, along each axis, in mm."""
    return (np.array(extraction.centre(shape)) - (np.array(shape) - 1) / 2) * spacing


def _same_voxels(frame: Frame, wanted: Frame) -> bool:
    """A single slice was cut by somebody else: its size alone can be compared."""
    pairs = zip(zip(*frame[1:3], strict=True), zip(*wanted[1:3], strict=True), strict=True)
    return all(ours == theirs or 1 in (ours[0], theirs[0]) for ours, theirs in pairs)


def _voxels(frame: Frame) -> str:
    return f"{' x '.join(map(str, frame.shape))} voxels of {_mm(frame.spacing)}"


def _mm(spacing: _Point) -> str:
    sizes = [f"{size:g}" for size in spacing]
    return f"{sizes[0] if len(set(spacing)) == 1 else ' x '.join(sizes)} mm"


def _unit(vector: NDArray[np.float64]) -> NDArray[np.float64]:
    return vector / np.linalg.norm(vector)


def _point(values: NDArray[np.float64]) -> _Point:
    x, y, z = (round(float(value), 6) for value in values)
    return x, y, z


def _degrees(cosine: float) -> float:
    return float(np.degrees(np.arccos(min(1.0, cosine))))


def from_record(record: Any) -> Frame | None:
    """A frame that a checkpoint carries, `Frame._asdict()`; None where it is something else."""
    try:
        *named, _ = Frame._fields
        codes, shape, spacing, above, *points = (record[name] for name in named)
        points = [None if one is None else _point(np.asarray(one, float)) for one in (spacing, *points)]
        points.append(None if record.get("along") is None else _point(np.asarray(record["along"], float)))
        sizes = [int(size) for size in shape]
    except (TypeError, KeyError, ValueError, OverflowError):
        return None
    if len(sizes) != 3 or points[0] is None or not isinstance(codes, str) or not isinstance(above, (int, float)):
        return None
    return Frame(codes, (sizes[0], sizes[1], sizes[2]), points[0], float(above), *points[1:])
