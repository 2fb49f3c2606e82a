"""Seam "layout": where subjects, images and rows are. Here scans/<number>/brain.nii.gz, and a table, who.txt.

python examples/numbered_scans.py demo/phantom demo/numbered      # makes such a folder of a synthetic cohort
"""

from __future__ import annotations

import csv
import dataclasses
import sys
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


def renumber(discs: Path, folder: Path) -> None:
    """Copy OASIS-1 discs with their table to such a folder, numbered from 100."""
    import nibabel as nib

    with next(discs.glob("*.csv")).open(encoding="utf-8-sig") as file:
        rows = [{**row, "number": str(number)} for number, row in enumerate(csv.DictReader(file), 100)]
    for row in rows:
        target = folder / "scans" / row["number"] / "brain.nii.gz"
        target.parent.mkdir(parents=True)
        image = nib.load(next(discs.rglob(f"{row['ID']}*_t88_masked_gfc.img")))
        nib.save(nib.Nifti1Image(image.dataobj[..., 0], image.affine), target)
    with (folder / "who.txt").open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)


if __name__ == "__main__":
    renumber(*map(Path, sys.argv[1:3]))
