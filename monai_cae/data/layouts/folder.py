"""A plain folder: a table, and images named after its IDs."""

from __future__ import annotations

from pathlib import Path

from monai_cae.data.layouts.base import IMAGE_SUFFIXES, Asked, Images, WithTable, add_image, entries


class Folder(WithTable):
    """ID.nii.gz in a subfolder named after the plane, or beside the table; or wherever the table says."""

    name = "plain folder"

    def detect(self, root: Path) -> bool:
        """Whether it is a folder."""
        return root.is_dir()

    def images(self, root: Path, asked: Asked) -> Images:
        """The images by their names without the suffix."""
        images: dict[str, Path] = {}
        for path in entries(root / asked.plane if (root / asked.plane).is_dir() else root):
            suffix = next((s for s in IMAGE_SUFFIXES if path.name.lower().endswith(s)), None)
            if suffix:
                add_image(images, path.name[: -len(suffix)], path)
        return Images(images)
