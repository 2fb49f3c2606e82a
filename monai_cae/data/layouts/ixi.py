"""IXI: T1 images of healthy persons, IXI002-Guys-0828-T1.nii.gz, and IXI.xls; for pretraining, as nobody is a patient.

https://brain-development.org/ixi-dataset
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

from monai_cae.data.cohort.cells import Cells
from monai_cae.data.cohort.joining import Source, Wanted, join, tables_of
from monai_cae.data.layouts.base import Asked, Images, add_image, subfolders, walk
from monai_cae.data.layouts.study import Study
from monai_cae.data.scan import Note

_SCAN = re.compile(r"(IXI\d{3})-(\w+)-\d+-T1\.nii(\.gz)?")


class Ixi(Study):
    """`IXI*-T1.nii.gz` at any depth; the table, saved as xlsx or csv, gives ages and sexes."""

    name = "IXI"
    scans = re.compile(r"IXI-", re.IGNORECASE)
    sources = (
        Source(
            "table of persons",
            person=("ixi_id",),
            gives={"age": ("age",), "sex": ("sex_id (1=m, 2=f)",)},
            codes={"sex_id (1=m, 2=f)": {"1": "M", "2": "F", "0": ""}},
        ),
    )

    def detect(self, root: Path) -> bool:
        """Whether there are T1 images of IXI, or the folder of them."""
        names = [path.name for path in root.iterdir()] if root.is_dir() else []
        return any(path.name.upper() == "IXI-T1" for path in subfolders(root)) or any(map(_SCAN.fullmatch, names))

    def images(self, root: Path, asked: Asked) -> Images:
        """The T1 images; T2, PD, MRA and DTI are others'."""
        images: dict[str, Path] = {}
        for path in walk(root):
            if found := _SCAN.fullmatch(path.name):
                add_image(images, found[1], path)
        return Images(images)

    def joined(self, root: Path, asked: Asked, tables: Sequence[Path]) -> tuple[Cells, list[Note]]:
        """A row per image; with the table, ages and sexes."""
        scans = [
            Wanted(name, name, {}, {"subject": name, "site": path.name.split("-")[1]})
            for name, path in self.images(root, asked).by_name.items()
        ]
        found = tables_of(self.sources, tables)
        cells, notes = join(scans, self.sources, found, asked.days, person=_number)
        if not found:
            text = "no table of ages and sexes: save IXI.xls as IXI.xlsx, the old format of Excel is not read"
            notes.append(Note(text))
        return cells, notes


def _number(name: str) -> str:
    return name.strip().upper().removeprefix("IXI").lstrip("0")
