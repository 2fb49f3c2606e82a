"""What the benchmarks share: taking turns, medians, one table, one JSON file each."""

from __future__ import annotations

import itertools
import json
import os
import platform
import statistics
import textwrap
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

RESULTS = Path(__file__).parent / "results"
COLUMNS = 80


@dataclass(frozen=True)
class Row:
    """One claim: what was measured, ours, the alternative measured in the same run, and the ratio that is aimed at.

    Attributes:
        what: the claim in a few words.
        ours: our figure, in `unit`.
        alternative: the alternative's figure, in `unit`; 0 where there is none, then `ratio` is `ours` itself.
        against: what the alternative is.
        unit: of both figures.
        ratio: what the target is for.
        target: for example "<= 0.40" or ">= 3"; "" for a figure without one.
    """

    what: str
    ours: float
    alternative: float
    against: str
    unit: str
    ratio: float
    target: str = ""

    @property
    def met(self) -> bool | None:
        """Whether the ratio reaches the target; None without one."""
        if not self.target:
            return None
        sign, value = self.target.split()
        return self.ratio <= float(value) if sign == "<=" else self.ratio >= float(value)


def alternate(ways: Mapping[str, Callable[[], float]], repeats: int, warm_up: int = 1) -> dict[str, float]:
    """Median of what each way returns (usually seconds), the ways taking turns: A B A B ..., as machines are noisy.

    Args:
        ways: name -> a function that measures once.
        repeats: turns that count.
        warm_up: turns that do not.
    """
    measured: dict[str, list[float]] = {name: [] for name in ways}
    for turn in range(warm_up + repeats):
        for name, measure in ways.items():
            figure = measure()
            if turn >= warm_up:
                measured[name].append(figure)
    return {name: statistics.median(figures) for name, figures in measured.items()}


def finish(name: str, rows: Sequence[Row], **details: object) -> None:
    """Print the rows as a table and write benchmarks/results/NAME.json.

    Args:
        name: of the benchmark, as the script is called.
        rows: its claims.
        details: whatever else belongs to the measurement.
    """
    print_table(rows)
    machine = {"processor": platform.machine(), "cores": os.cpu_count(), "python": platform.python_version()}
    content = {"benchmark": name, "machine": machine, "rows": [asdict(row) for row in rows], "details": details}
    RESULTS.mkdir(exist_ok=True)
    (RESULTS / f"{name}.json").write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")


def print_table(rows: Sequence[Row]) -> None:
    """What, ours, alternative, ratio, target: a claim in as many lines as its words take in 80 columns."""
    lines = [("what", "ours", "alternative", "ratio", "target", "")]
    for row in rows:
        other = f"{_figure(row.alternative, row.unit)} {row.against}".strip() if row.alternative else row.against or "-"
        verdict = {None: "", True: "met", False: "NOT MET"}[row.met]
        lines.append((row.what, _figure(row.ours, row.unit), other, f"{row.ratio:.3g}", row.target, verdict))
    widths = [max(len(line[column]) for line in lines) for column in range(len(lines[0]))]
    left = COLUMNS - sum(widths) + widths[0] + widths[2] - 2 * (len(widths) - 1)
    widths[2] = min(widths[2], max(left - widths[0], left // 2 - 3))
    widths[0] = min(widths[0], left - widths[2])
    for line in lines:
        cells = [textwrap.wrap(cell, width) if cell else [] for cell, width in zip(line, widths, strict=True)]
        for part in itertools.zip_longest(*cells, fillvalue=""):
            print("  ".join(cell.ljust(width) for cell, width in zip(part, widths, strict=True)).rstrip(), flush=True)


def _figure(value: float, unit: str) -> str:
    return f"{value:.3g} {unit}".strip()
