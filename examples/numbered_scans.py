"""Seam "layout": where subjects, images and rows are. Here scans/<number>/brain.nii.gz, and a table, who.txt."""

from __future__ import annotations

import dataclasses
from pathlib import Path

from monai_cae.data.cohort.tables import Table
from monai_cae.data.layouts import Asked, Images


class NumberedScans:
    """Images are named after the number of the scan, not after the ID of the person."""

    name = "numbered scans"

    def detect(self, root: Path) -> bool:
        return (root / "who.txt").is_file()

    def images(self, root: Path, asked: Asked) -> Images:
        return Images({path.parent.name: path for path in sorted(root.glob("scans/*/brain.nii.gz"))})

    def rows(self, root: Path, asked: Asked) -> Table:
        read = asked.rows(root / "who.txt")
        return Table([dataclasses.replace(scan, aliases=(scan.row["number"],)) for scan in read.scans], read.notes)
