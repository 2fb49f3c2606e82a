"""Masks of another tool: which belongs to which scan."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from monai_cae.data.cohort.persons import loose, subject_of
from monai_cae.data.images.volumes import find_volume
from monai_cae.data.layouts.base import IMAGE_SUFFIXES, walk
from monai_cae.errors import MonaiCaeError
from monai_cae.prepare.raw import RawScan, read_raw

_END = re.compile(r"(?:[_.-](?:desc-)?(?:brain|bet))?[_.-]?mask$", re.IGNORECASE)


def is_mask(stem: str) -> bool:
    """Whether a file is a mask by its name, without the suffix."""
    return _END.search(stem) is not None


def find_masks(scans: Sequence[tuple[str, str]], mask: Path | None) -> list[Path | None]:
    """The mask of each scan: the file, or of a folder the one that is named after the scan.

    Args:
        scans: the name of each in the derivative, and in the input.
        mask: a file, a folder, or None for no masks.

    Raises:
        MonaiCaeError: no such file, one file for several scans, a scan with no mask or several.
    """
    if mask is None:
        return [None] * len(scans)
    if mask.is_file():
        if len(scans) > 1:
            raise MonaiCaeError(f"--mask is one file, and there are {len(scans)} scans: give a folder of masks")
        return [mask]
    if not mask.is_dir():
        raise MonaiCaeError(f"no mask at {mask}: give a file, a folder of files named after the scans, or none")
    masks: dict[str, list[Path]] = defaultdict(list)
    for path in walk(mask):
        if path.name.lower().endswith(IMAGE_SUFFIXES):
            subject, session = subject_of(path)
            masks[loose(_END.sub("", f"{subject}_{session}" if session else subject))].append(path)
    out: list[Path | None] = []
    for name, original in scans:
        found = masks.get(loose(name)) or masks.get(loose(original.partition(".")[0])) or []
        named = [path for path in found if "mask" in path.name.lower()] or found
        if len(named) != 1:
            raise MonaiCaeError(f"{len(named) or 'no'} masks for {name} in {mask}: name one like the scan, with _mask")
        out.append(named[0])
    return out


def read_mask(mask: Path, name: str, scan: Path | None = None, orientation: str = "") -> RawScan:
    """A mask, on the axes that its scan was read with.

    Args:
        mask: the file.
        name: of the scan, for messages.
        scan: its file, if it is one.
        orientation: what was said of the scan's axes in place of its header; "" for nothing.

    Raises:
        MonaiCaeError: see `read_raw`; or where the scan lies was said, and the mask has other voxels.
    """
    called = f"the mask of {name}"
    if not orientation or scan is None:
        return read_raw(mask, name=called)
    ours, theirs = (find_volume(str(path)).layout for path in (mask, scan))
    if ours.shape != theirs.shape or not np.allclose(ours.stored.affine, theirs.stored.affine, atol=1e-3):
        raise MonaiCaeError(
            f"{called} has another grid than the scan, whose axes were said (--orientation) and not read: give a mask "
            "on the scan's own voxels"
        )
    return read_raw(mask, orientation, name=called)
