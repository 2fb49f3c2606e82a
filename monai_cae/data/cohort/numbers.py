"""The columns of a table that hold numbers."""

from __future__ import annotations

import math
from collections.abc import Sequence

import pandas as pd

from monai_cae.data.cohort.tables import ROLES, SCAN_IDS
from monai_cae.data.cohort.tasks import parse
from monai_cae.data.scan import Scan

_NO_NUMBERS = {name for role in ("subject", "session", "image", "age", "sex") for name in ROLES[role]} | {*SCAN_IDS}


def number_columns(
    scans: Sequence[Scan], missing: frozenset[float], fewest: int
) -> tuple[pd.DataFrame, dict[str, str]]:
    """All columns of the scans' rows that are numbers, one row per subject: the mean of its scans.

    Args:
        scans: with their rows.
        missing: numbers that mean "not given".
        fewest: subjects that must have a number.

    Returns:
        A table whose index is the subject, with `age` in years first where it is known; and the columns that were left
        out, and why. IDs, files and sex are neither.
    """
    found: dict[str, list[float | None]] = {"age": [scan.age for scan in scans]}
    left_out: dict[str, str] = {}
    for name in dict.fromkeys(column for scan in scans for column in scan.row):
        if name.strip().lower() in _NO_NUMBERS:
            continue
        cells = [parse(scan.row.get(name, ""), missing) for scan in scans]
        texts = [cell for cell in cells if isinstance(cell, str) or (cell is not None and not math.isfinite(cell))]
        if texts:
            left_out[name] = "text"
        else:
            found[name] = [cell for cell in cells if not isinstance(cell, str)]
    table = pd.DataFrame(found, dtype="float64").groupby([scan.subject for scan in scans]).mean()
    for name in [*table]:
        if table[name].notna().sum() < fewest:
            left_out[name] = f"given for {table[name].notna().sum()} subjects"
        elif table[name].nunique() == 1:
            left_out[name] = "the same for all"
    return table.drop(columns=[name for name in left_out if name in table]), left_out
