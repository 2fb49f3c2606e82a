"""Bad scans: all are found and named before anything is trained, or left out and counted."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from monai_cae.data.images.extraction import Extraction
from monai_cae.data.images.frames import Frame, frame_faults, frame_lines, frame_of
from monai_cae.data.images.readers import read_image
from monai_cae.data.images.slice_cache import stamp
from monai_cae.data.images.volumes import Volume, find_volume
from monai_cae.data.path_safety import below
from monai_cae.data.scan import BadScan
from monai_cae.data.texts import require_plain
from monai_cae.errors import MonaiCaeError

ON_BAD_SCAN = ("fail", "skip")
SHOWN = 20  # a screen of lines; the rest is counted
_good: set[tuple[Any, ...]] = set()
LEFT_OUT = "scans that can't be used (on_bad_scan skip)"


def find_bad(
    images: Sequence[tuple[str, str | Path]],
    extraction: Extraction,
    *,
    cohort: bool = True,
    training: Frame | None = None,
    allow_other_frame: bool = False,
) -> list[BadScan]:
    """Read every header and what is wanted, and say of each scan that can't be used why; goes on after each.

    What was found good is not read again in this process, unless its file has changed since.

    Args:
        images: subject and file of each scan.
        extraction: what is wanted of them.
        cohort: the images are one: a volume of another shape than most have is bad too, and one that lies elsewhere
            than most headers say.
        training: what a checkpoint records of its training; a slice of another place is bad.
        allow_other_frame: a slice of another place or tilt is not bad, see `monai_cae.data.images.frames`.

    Raises:
        MonaiCaeError: a slice_index that is outside the volumes that most are like.
    """
    volumes: dict[str, Volume] = {}
    reasons: dict[str, str] = {}
    for _, image in images:
        try:
            volumes[str(image)] = find_volume(str(image))
        except MonaiCaeError as error:
            reasons[str(image)] = str(error)
    shapes = {image: volume.layout.view(extraction.axes).shape for image, volume in volumes.items()}
    usual = Counter(shapes.values()).most_common(1)[0][0] if shapes else None
    if usual is not None:  # a wrong setting is no fault of the scans
        first = next(image for image, shape in shapes.items() if shape == usual)
        extraction.cuts(usual, first)
    for image, volume in volumes.items():
        if cohort and extraction.grid is None and shapes[image] != usual:
            shape = f"{image} has the shape {shapes[image]}, the other volumes {usual}"
            reasons[image] = f"{shape}: leave it out or resample it"
            continue
        try:
            _read_once(image, stamp(volume), extraction)
        except MonaiCaeError as error:
            reasons[image] = str(error)
    if not allow_other_frame:
        frames = {image: frame_of(volume.layout, extraction) for image, volume in volumes.items()}
        why = frame_faults(frames, extraction, cohort=cohort, training=training)
        for image, fault in why.items():
            reasons.setdefault(image, f"{extraction.name} of {image} {fault}, or --allow_other_frame true")
    return [BadScan(subject, str(image), reasons[str(image)]) for subject, image in images if str(image) in reasons]


def bad_scans(
    images: Sequence[tuple[str, str | Path]], extraction: Extraction, on_bad_scan: str, **options: Any
) -> list[BadScan]:
    """What `find_bad`, which has the other options, finds; "fail" refuses it, "skip" gives it.

    Raises:
        MonaiCaeError: bad scans: the first line says how many and what to do, then a line for each; or neither word.
    """
    if on_bad_scan not in ON_BAD_SCAN:
        raise MonaiCaeError(f"on_bad_scan must be fail or skip, not {on_bad_scan!r}")
    bad = find_bad(images, extraction, **options)
    if bad and on_bad_scan == "fail":
        first = f"{len(bad)} of {len(images)} scans can't be used: repair them, or leave them out with"
        raise MonaiCaeError("\n".join([f"{first} --on_bad_scan skip", *bad_lines(bad)]))
    return bad


def skipped_lines(bad: Sequence[BadScan], total: int) -> list[str]:
    """How many of so many scans are left out, and a line for each."""
    return [f"{len(bad)} of {total} scans can't be used and are left out:", *bad_lines(bad)]


def bad_lines(bad: Sequence[BadScan]) -> list[str]:
    """A line for each scan, subject and reason; after the first 20 the rest is counted."""
    lines = [f"  {scan.subject}: {scan.reason}" if scan.subject else f"  {scan.reason}" for scan in bad[:SHOWN]]
    return [*lines, f"  and {len(bad) - SHOWN} more"] if len(bad) > SHOWN else lines


class UsableImages(NamedTuple):
    """Images to predict from."""

    images: list[Path]  # those that can be used
    left_out: dict[str, str]  # files that can't be used, and why


def usable_images(
    images: Sequence[Path],
    extraction: Extraction,
    *,
    on_bad_scan: str,
    training: Frame | None = None,
    allow_other_frame: bool = False,
) -> UsableImages:
    """Check images before any is predicted from; their shapes may differ.

    Args:
        images, extraction: files, and what is wanted of them.
        on_bad_scan: "fail" names all bad images; "skip" leaves them out, and prints which.
        training, allow_other_frame: see `find_bad`; what else of the volumes differs from the training's is printed.

    Raises:
        MonaiCaeError: bad images, or none left.
    """
    frame = {"training": training, "allow_other_frame": allow_other_frame}
    bad = bad_scans([("", path) for path in images], extraction, on_bad_scan, cohort=False, **frame)
    if len(bad) == len(images):
        raise MonaiCaeError(f"none of {len(images)} scans can be used, the first: {bad[0].reason}")
    if bad:
        print("\n".join(skipped_lines(bad, len(images))), flush=True)
    left_out = {scan.image: scan.brief for scan in bad}
    kept = [path for path in images if str(path) not in left_out]
    for line in frame_lines(map(str, kept), extraction, training=training):
        print(f"note: {line}", flush=True)
    return UsableImages(kept, left_out)


def recorded(bad: Sequence[BadScan], root: Path | None = None) -> list[dict[str, str]]:
    """For JSON: subject, set, image and reason.

    An image below `root` is named relative to it, as in a datalist; without a root the files' names alone are given.
    """
    return [
        {
            "subject": scan.subject,
            **({"set": scan.set} if scan.set else {}),
            "image": below(Path(scan.image), root) if root else Path(scan.image).name,
            "reason": scan.brief,
        }
        for scan in bad
    ]


def from_record(records: Any) -> list[BadScan]:
    """What `recorded` wrote; ValueError where it is something else."""
    try:
        bad = [BadScan(*(str(one[name]) for name in ("subject", "image", "reason"))) for one in records]
    except (TypeError, KeyError, AttributeError) as error:
        raise ValueError("bad_scans is not a list of subject, image and reason") from error
    for scan in bad:
        for text in (scan.subject, scan.image, scan.reason):
            require_plain(text, "a text in bad_scans")
    return bad


def forget_good() -> None:
    """Remember no scan that was found good: of millions, each is looked at once."""
    _good.clear()


def _read_once(image: str, stamp: tuple[Any, ...], extraction: Extraction) -> None:
    """Read to see that it can be; errors are not remembered, so a file can be repaired meanwhile."""
    key = (image, stamp, json.dumps(extraction.settings))
    if key not in _good:
        read_image(extraction, image)
        _good.add(key)
