"""The format of results: names of scores and methods, numbers with intervals, tables."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from monai_cae.evaluation.subgroups import TOO_FEW
from monai_cae.experiment.space import told as drawn

if TYPE_CHECKING:  # whoever compares finished runs needs no PyTorch
    from monai_cae.targets import Target

MOST_SAMPLES = 60  # rows of a page's table
_SPELT = {"svm": "SVM", "rbf": "RBF", "pca": "PCA", "cnn": "CNN"}


def readable(method: str) -> str:
    """The name of a method as people read it: `linear_svm` is "linear SVM"."""
    return " ".join(_SPELT.get(word, word) for word in method.split("_"))


def is_number(value: Any) -> bool:
    """Not None, as JSON has it, and not nan."""
    return value is not None and math.isfinite(value)


def with_interval(row: Mapping[str, Any]) -> str:
    """`mean`, and `low` to `high` where there is an interval: "0.750 [0.631, 0.846]"."""
    if not is_number(row["mean"]):
        return TOO_FEW if row.get("note") == TOO_FEW else "undefined"
    return f"{row['mean']:.3f}" + (f" [{row['low']:.3f}, {row['high']:.3f}]" if is_number(row["low"]) else "")


def number_with_interval(row: Mapping[str, Any]) -> str:
    """`with_interval` in three digits, whatever the unit: "4.21 [3.9, 4.62]"."""
    if not is_number(row["mean"]):
        return "undefined"
    ends = f" [{row['low']:.3g}, {row['high']:.3g}]" if is_number(row["low"]) else ""
    return f"{row['mean']:.3g}{ends}"


def for_templates(target: Target) -> dict[str, Any]:
    """What the templates of results write names and numbers with: `number` and `signed` are for a score of this target
    and for a difference of two."""
    form = ".3f" if target.binary else ".3g"
    return {
        "LABELS": target.score_names,
        "most_samples": MOST_SAMPLES,
        "readable": readable,
        "with_interval": with_interval,
        "told": telling(target),
        "p_value": p_value,
        "drawn": drawn,
        "number": lambda value: format(value, form) if is_number(value) else "-",
        "signed": lambda value: format(value, f"+{form}") if is_number(value) else "-",
    }


def telling(target: Target) -> Callable[[Mapping[str, Any]], str]:
    """The function that writes a score of this target as text."""
    if target.binary:
        return with_interval
    return number_with_interval if target.number else mean_with_sd


def mean_with_sd(row: Mapping[str, Any]) -> str:
    """`mean`, and `sd` where there are several repeats: "4.21 ± 0.3"."""
    if not is_number(row["mean"]):
        return "undefined"
    return f"{row['mean']:.4g}" + (f" ± {row['sd']:.2g}" if is_number(row["sd"]) else "")


def difference_with_interval(row: Mapping[str, Any]) -> str:
    """`difference`, and `low` to `high` where there is an interval, all with their signs."""
    if not is_number(row["difference"]):
        return "undefined"
    ends = f" [{row['low']:+.3f}, {row['high']:+.3f}]" if is_number(row["low"]) else ""
    return f"{row['difference']:+.3f}{ends}"


def number_difference(row: Mapping[str, Any]) -> str:
    """`difference_with_interval` in three digits, whatever the unit."""
    ends = f" [{row['low']:+.3g}, {row['high']:+.3g}]" if is_number(row["low"]) else ""
    return f"{row['difference']:+.3g}{ends}"


def tested_by(row: Mapping[str, Any]) -> float:
    """The p value of a comparison: of the corrected t test where there is one, otherwise of the paired test."""
    return float(row["p_corrected_t"] if is_number(row.get("p_corrected_t")) else row["p_paired"])


def better_or_worse(row: Mapping[str, Any], sign: int) -> str:
    """ "better" or "worse" where the difference's interval leaves out 0 and its p value is below 0.05, otherwise "".

    Args:
        row: of the comparisons.
        sign: 1 for scores that are better when higher, -1 for errors.
    """
    low, high = sorted((sign * row["low"], sign * row["high"]))
    if not tested_by(row) < 0.05:
        return ""
    return "better" if low > 0 else "worse" if high < 0 else ""


def p_value(value: float | None) -> str:
    """Three decimals, and "-" where there is none."""
    if value is None or not math.isfinite(value):
        return "-"
    return "<0.001" if value < 0.001 else f"{value:.3f}"


def columns(rows: Sequence[Sequence[str]], gap: int = 3) -> list[str]:
    """Lines of a table for the terminal, with so many spaces between the columns."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return [
        ("  " + (" " * gap).join(f"{cell:<{width}}" for cell, width in zip(row, widths, strict=True))).rstrip()
        for row in rows
    ]


def markdown(rows: Sequence[Sequence[str]]) -> str:
    """A table in Markdown, whose first row is the head."""
    head, *body = (f"| {' | '.join(cell.replace('|', '/') for cell in row)} |" for row in rows)
    return "\n".join([head, "|" + "---|" * len(rows[0]), *body])
