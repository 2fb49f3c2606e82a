"""Masks of another tool: which belongs to which scan."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path

from monai_cae.data.cohort.persons import loose, subject_of
from monai_cae.data.layouts.base import IMAGE_SUFFIXES, walk
from monai_cae.errors import MonaiCaeError

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
