"""A MONAI datalist: the items of all its sets."""

from __future__ import annotations

from pathlib import Path

from monai_cae.data.cohort.persons import name_persons
from monai_cae.data.cohort.tables import Table
from monai_cae.data.layouts.base import Asked
from monai_cae.data.path_safety import require_inside
from monai_cae.data.scan import Scan
from monai_cae.data.splits.datalists import checked_item, read_content, recorded_folder
from monai_cae.errors import MonaiCaeError


class Datalist:
    """A .json file with training, validation and test."""

    name = "MONAI datalist"

    def detect(self, root: Path) -> bool:
        """Whether it is a .json file."""
        return root.is_file() and root.suffix.lower() == ".json"

    def images(self, root: Path, asked: Asked) -> None:
        """The items have theirs."""

    def rows(self, root: Path, asked: Asked) -> Table:
        """The items, each with its image."""
        return Table(*name_persons(_scans(root, asked.allow_outside), asked.subject_pattern, str(root)))


def _scans(path: Path, allow_outside: bool) -> list[Scan]:
    content = read_content(path)
    sets = [content.get(name, []) for name in ("training", "validation", "test")]
    items = [item for one in sets if isinstance(one, list) for item in one]
    if not items or not all(isinstance(item, dict) and "label" in item for item in items):
        raise MonaiCaeError(f"{path} is not a datalist with image, label and subject in every item")
    base = recorded_folder(path)
    items = [checked_item(item, f"{path}: an item") for item in items]
    for item in items:
        require_inside(item["image"], base, f"{path}: the item of {item['subject']}", allow_outside)
    return [
        Scan(
            subject=item["subject"],
            session=item.get("session") or "",
            image=base / item["image"],
            cdr=item.get("cdr"),
            age=item.get("age"),
            sex=item.get("sex") or "",
            row={"label": str(item["label"]), **{key: str(value) for key, value in item.items()}},
        )
        for item in items
    ]
