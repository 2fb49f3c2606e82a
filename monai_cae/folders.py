"""The folder of the bundle, and a copy of it to run and change."""

from __future__ import annotations

import shutil
from pathlib import Path

from monai_cae.errors import MonaiCaeError
from monai_cae.files import new_folder

# What belongs to the bundle, not what was trained or written in its folder; pyproject.toml has the same for the wheel.
_FILES = ("LICENSE", "large_files.yml", "configs/*", "docs/*")


def bundle_folder() -> Path:
    """The bundle that belongs to this package: inside it where it was installed, beside it in a checkout.

    Raises:
        MonaiCaeError: it is in neither place.
    """
    package = Path(__file__).resolve().parent
    for folder in (package / "bundle", package.parent / "bundle"):
        if (folder / "configs" / "metadata.json").is_file():
            return folder
    raise MonaiCaeError(f"{package} was installed without its bundle: pip install --force-reinstall monai-cae")


def bundle_files() -> list[Path]:
    """The bundle's files, relative to `bundle_folder()`, in a fixed order."""
    root = bundle_folder()
    found = [path for pattern in _FILES for path in root.glob(pattern) if path.is_file()]
    return sorted(path.relative_to(root) for path in found)


def copy_bundle(folder: str | Path) -> None:
    """Copy the bundle, without weights, to a new folder.

    Args:
        folder: absent or empty; it appears only when the copy is complete.

    Raises:
        MonaiCaeError: the folder is not empty, or can't be written.
    """
    root = bundle_folder()
    with new_folder(folder) as temporary:
        for file in bundle_files():
            (temporary / file).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(root / file, temporary / file)
