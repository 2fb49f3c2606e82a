"""What layouts of studies share: their rows are joined from several tables, one row per scan."""

from __future__ import annotations

import re
from abc import ABC, abstractmethod
from collections.abc import Sequence
from pathlib import Path
from typing import ClassVar

from monai_cae.data.cohort.cells import Cells
from monai_cae.data.cohort.joining import Source, find_tables, readable
from monai_cae.data.cohort.tables import Table
from monai_cae.data.layouts.base import Asked
from monai_cae.data.scan import Note
from monai_cae.errors import MonaiCaeError


class Study(ABC):
    """A layout with several tables.

    Attributes:
        name: in words.
        sources: the tables, and what is taken from them.
        scans: names of folders with images, which no table lies in.
    """

    name: ClassVar[str]
    sources: ClassVar[Sequence[Source]]
    scans: ClassVar[re.Pattern[str]]

    def rows(self, root: Path, asked: Asked) -> Table:
        """One row per scan; those of `table`, if that is a file, such as one that `monai-cae cohort --save` wrote."""
        if asked.table and Path(asked.table).is_file():
            return asked.rows(Path(asked.table))
        tables, passed_over = readable(self.tables(root, asked))
        cells, notes = self.joined(root, asked, tables)
        read = asked.joined(cells, root)
        return Table(read.scans, [*passed_over, *notes, *read.notes])

    def tables(self, root: Path, asked: Asked) -> list[Path]:
        """All tables in the folder, or in the one that is named; MonaiCaeError if that does not exist."""
        if asked.table and not Path(asked.table).is_dir():
            raise MonaiCaeError(f"no table or folder of tables at {asked.table}: check --table")
        return find_tables([Path(asked.table)] if asked.table else [root], self.scans)

    @abstractmethod
    def joined(self, root: Path, asked: Asked, tables: Sequence[Path]) -> tuple[Cells, list[Note]]:
        """One row per scan, with the columns `subject`, `session`, and what the tables give."""
