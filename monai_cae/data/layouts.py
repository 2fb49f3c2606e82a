"""From a folder on disk to Scan records: OASIS-1 discs as downloaded, or a plain folder of images with a table."""

from __future__ import annotations

import dataclasses
import os
import re
from collections.abc import Iterator
from pathlib import Path

from monai_cae.data.planes import plane_axis
from monai_cae.data.scan import Scan
from monai_cae.data.tables import SUFFIXES, find_table, read_table
from monai_cae.errors import MonaiCaeError

# gain-field corrected, atlas-registered (T88), masked: the paper's input. n3 to n6 is the number of averaged
# acquisitions.
_T88 = re.compile(r"^(?P<name>OAS1_\d{4}_MR\d+)_mpr_n\d_anon_111_t88_masked_gfc\.hdr$")
_IMAGE_SUFFIXES = (".nii.gz", ".nii", ".hdr")


def read_scans(dataset_dir: str | Path, *, table: str | Path | None = None, plane: str = "axial") -> list[Scan]:
    """All scans of a cohort folder that the table knows and that have an image.

    OASIS-1 discs may lie at any depth. In a plain folder the images are named ID.nii.gz (or .nii, .hdr) and lie in a
    subfolder named after the plane, or beside the table. `dataset_dir` may also be a table alone: then no scan has an
    image.

    Args:
        dataset_dir: folder or table.
        table: the table, where it is not in the folder.
        plane: subfolder that a plain folder's images are looked for in first.

    Raises:
        MonaiCaeError: nothing there, no table, no images, two images for one subject, a header without its .img, an
            unknown plane.
    """
    plane_axis(plane)
    root = Path(dataset_dir)
    if root.is_file() and root.suffix.lower() in SUFFIXES:
        return read_table(root)
    if not root.is_dir():
        raise MonaiCaeError(
            f"dataset_dir {root} is not a folder: give the folder of the OASIS-1 discs with --dataset_dir "
            "(or make a synthetic one: monai-cae phantom OUT)"
        )
    rows = read_table(table if table else find_table(root))
    images = _oasis_images(root) or _plain_images(root, plane)
    if not images:
        raise MonaiCaeError(
            f"no images in {root}: neither OASIS-1's *_t88_masked_gfc.hdr nor ID.nii.gz in {root} or {root / plane}"
        )
    scans = [dataclasses.replace(row, image=images[row.name]) for row in rows if row.name in images]
    if not scans:
        raise MonaiCaeError(
            f"no image in {root} is named after an ID of the table: the first ID is {rows[0].name}, "
            f"the first image {next(iter(images.values())).name}"
        )
    for scan in scans:
        if scan.image is not None and scan.image.suffix == ".hdr" and not scan.image.with_suffix(".img").is_file():
            raise MonaiCaeError(f"{scan.image.with_suffix('.img')} is missing beside its .hdr: copy {scan.name} again")
    return scans


def find_images(path: str | Path) -> list[Path]:
    """The image or images that a user points at for inference.

    Args:
        path: one .nii, .nii.gz, .img or .hdr file, or a folder; of OASIS-1 discs only the atlas-registered, masked
            volumes.

    Returns:
        Image files in the order of their paths, the header for an Analyze pair.

    Raises:
        MonaiCaeError: nothing there, or no image.
    """
    path = Path(path)
    if path.is_dir():
        found = sorted(_oasis_images(path).values()) or sorted(
            file for file in _walk(path) if file.name.lower().endswith(_IMAGE_SUFFIXES)
        )
        if not found:
            raise MonaiCaeError(f"no .nii, .nii.gz or .hdr/.img image in {path}")
        return found
    if not path.is_file():
        raise MonaiCaeError(f"no image at {path}: give a volume or a folder with --dataset_dir")
    if path.suffix.lower() == ".img":
        path = path.with_suffix(".hdr")
    if not path.name.lower().endswith(_IMAGE_SUFFIXES) or not path.is_file():
        raise MonaiCaeError(f"{path} is not a .nii, .nii.gz or .hdr/.img image")
    return [path]


def _oasis_images(root: Path) -> dict[str, Path]:
    images: dict[str, Path] = {}
    for path in _walk(root):
        match = _T88.match(path.name)
        if match:
            _add(images, match["name"], path)
    return images


def _plain_images(root: Path, plane: str) -> dict[str, Path]:
    folder = root / plane if (root / plane).is_dir() else root
    images: dict[str, Path] = {}
    for path in sorted(folder.iterdir()):
        suffix = next((s for s in _IMAGE_SUFFIXES if path.name.lower().endswith(s)), None)
        if suffix:
            _add(images, path.name[: -len(suffix)], path)
    return images


def _add(images: dict[str, Path], name: str, path: Path) -> None:
    if name in images:
        raise MonaiCaeError(f"two images for {name}: {images[name]} and {path}: remove one")
    images[name] = path


def _walk(root: Path) -> Iterator[Path]:
    seen: set[str] = set()
    for folder, subfolders, files in os.walk(root, followlinks=True):
        real = os.path.realpath(folder)
        if real in seen:  # a link that leads back to where we were
            subfolders.clear()
            continue
        seen.add(real)
        subfolders.sort()
        yield from (Path(folder, file) for file in sorted(files))
