"""Decimal commas, as spreadsheets in many languages write them."""

from __future__ import annotations

import re
from collections.abc import Collection

from monai_cae.data.cohort.cells import Cells
from monai_cae.data.scan import Note
from monai_cae.data.texts import listed

_DECIMAL = re.compile(r"-?\d+,\d+")
_THOUSANDS = re.compile(r"-?[1-9]\d{0,2},\d{3}")
_FEW = 5  # columns that a note names


def with_points(cells: Cells, texts: Collection[str], age: str, ages: re.Pattern[str]) -> Cells:
    """Decimal points in place of decimal commas; told in a note.

    Args:
        cells: of a table.
        texts: columns that stay as they are.
        age: the column of ages, "" for none; a comma in it never separates thousands.
        ages: what a cell of it looks like.
    """

    def commas(column: str) -> list[str]:
        pattern = ages if column == age else _DECIMAL
        found = (row[column].strip() for _, row in cells.rows if "," in row[column])
        return [] if column in texts else [text for text in found if pattern.fullmatch(text)]

    found = {column: numbers for column in cells.columns if (numbers := commas(column))}
    doubtful = {name: one[0] for name, one in found.items() if name != age and all(map(_THOUSANDS.fullmatch, one))}
    points = {name: {text: text.replace(",", ".") for text in found[name]} for name in found if name not in doubtful}
    notes = [*cells.notes]
    if points:
        notes.append(Note(f"decimal commas are read as decimal points in {listed([*points], _FEW)}"))
    if doubtful:
        examples = listed([f"{text} in {name}" for name, text in doubtful.items()], _FEW)
        notes.append(Note(f"read as text, as the comma may be decimal or separate thousands: {examples}"))
    rows = [
        (number, {name: points.get(name, {}).get(text.strip(), text) for name, text in row.items()})
        for number, row in (cells.rows if points else ())
    ]
    return Cells(cells.columns, rows or cells.rows, notes)
