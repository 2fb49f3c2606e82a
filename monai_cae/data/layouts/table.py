"""A table alone: rows without images."""

from __future__ import annotations

from pathlib import Path

from monai_cae.data.cohort.tables import SUFFIXES, Table
from monai_cae.data.layouts.base import Asked


class TableAlone:
    """A .csv, .tsv or .xlsx file."""

    name = "table alone"

    def detect(self, root: Path) -> bool:
        """Whether it is a table, by its suffix."""
        return root.is_file() and root.suffix.lower() in SUFFIXES

    def images(self, root: Path, asked: Asked) -> None:
        """There are none."""

    def rows(self, root: Path, asked: Asked) -> Table:
        """The table's."""
        return asked.rows(root)
