"""Which scans are patients and which are controls: a rule on the columns of the table for each side."""

from __future__ import annotations

import ast
import operator
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from monai_cae.errors import MonaiCaeError

# name -> (positive, negative): rules on the Clinical Dementia Rating
TASKS = {
    "paper": ("CDR > 0", "CDR == 0"),
    "ad": ("CDR >= 1", "CDR == 0"),
    "very-mild": ("CDR == 0.5", "CDR == 0"),
}
BLANK = {"", "n/a", "na", "nan", "none", "."}
Value = float | str | None
Row = Mapping[str, str]

_COMPARISONS: dict[type[ast.cmpop], Callable[[Any, Any], bool]] = {
    ast.Lt: operator.lt,
    ast.LtE: operator.le,
    ast.Gt: operator.gt,
    ast.GtE: operator.ge,
    ast.Eq: operator.eq,
    ast.NotEq: operator.ne,
    ast.In: lambda value, several: value in several,
    ast.NotIn: lambda value, several: value not in several,
}


@dataclass(frozen=True)
class Task:
    """Two rules; a scan that meets neither, or whose columns are blank, has no label and takes no part.

    Attributes:
        positive: rule of label 1, e.g. "CDR > 0".
        negative: rule of label 0; "" means: not positive, and nothing blank.
    """

    positive: str = TASKS["paper"][0]
    negative: str = TASKS["paper"][1]

    def labels(self, rows: Iterable[Row], names: Iterable[str]) -> list[int | None]:
        """The label of every row.

        Args:
            rows: column -> text.
            names: what to call the rows in errors, one each.

        Raises:
            MonaiCaeError: a rule that is none or names no column, or a row that meets both.
        """
        rows = list(rows)
        if not rows:
            return []
        columns = list(dict.fromkeys(column for row in rows for column in row))  # not every row has all of them
        positive = Rule(self.positive, columns)
        negative = Rule(self.negative or f"not ({self.positive})", columns)
        labels: list[int | None] = []
        for row, name in zip(rows, names, strict=True):
            is_positive, is_negative = positive(row), negative(row)
            if is_positive and is_negative:
                both = f"{self.positive!r} and {self.negative!r}"
                raise MonaiCaeError(f"{name} meets both {both}: make the rules exclusive")
            labels.append(1 if is_positive else 0 if is_negative else None)
        return labels


def make_task(task: str = "paper", positive: str = "", negative: str = "", label_column: str = "") -> Task:
    """The task that a user asks for.

    Args:
        task: one of `TASKS`; used when nothing else is given.
        positive: rule of label 1.
        negative: rule of label 0; without it, every row that is known not to be positive.
        label_column: column that holds 1 and 0; short for `positive="COLUMN == 1"`, `negative="COLUMN == 0"`.

    Raises:
        MonaiCaeError: an unknown task, or a negative rule without a positive one.
    """
    if positive:
        return Task(positive, negative)
    if negative:
        raise MonaiCaeError("negative needs positive: give both rules")
    if label_column:
        return Task(f"`{label_column}` == 1", f"`{label_column}` == 0")
    if task not in TASKS:
        raise MonaiCaeError(f"task must be one of {', '.join(TASKS)}, not {task!r}: or give a rule with positive")
    return Task(*TASKS[task])


class Rule:
    """A comparison on columns, such as "CDR >= 1", "Age > 60 and `M/F` == 'F'" or "DX in ('AD', 'MCI')".

    Known are <, <=, >, >=, ==, !=, in, not in, and, or, not, numbers, texts and column names; a name that is no
    identifier stands in backticks. Nothing else is evaluated. A blank cell makes its comparison unknown, and unknown is
    neither true nor false.

    Args:
        text: the rule.
        columns: the table's column names; matched without regard to case where no name fits exactly.

    Raises:
        MonaiCaeError: not such a comparison, or a name that is no column.
    """

    def __init__(self, text: str, columns: Iterable[str]) -> None:
        self.text = text
        self._columns = list(columns)
        quoted: dict[str, str] = {}

        def name_of(match: re.Match[str]) -> str:
            token = f"_column_{len(quoted)}"
            quoted[token] = match[1]
            return token

        plain = re.sub(r"`([^`]+)`", name_of, text)
        try:
            tree = ast.parse(plain.strip(), mode="eval").body
        except (SyntaxError, ValueError) as error:
            raise self._wrong("it is not a comparison") from error
        self._evaluate = self._compile(tree, quoted)

    def __call__(self, row: Row) -> bool | None:
        """True, False, or None where a blank cell leaves it open."""
        return self._evaluate(row)

    def _wrong(self, why: str) -> MonaiCaeError:
        return MonaiCaeError(f'can\'t read the rule {self.text!r}: {why}; write, for example, "CDR > 0"')

    def _compile(self, node: ast.expr, quoted: Mapping[str, str]) -> Callable[[Row], bool | None]:
        if isinstance(node, ast.BoolOp):
            parts = [self._compile(value, quoted) for value in node.values]
            decided = isinstance(node.op, ast.Or)  # a true part decides "or", a false one "and"
            return lambda row: _combine([part(row) for part in parts], decided)
        if isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.Not):
            inner = self._compile(node.operand, quoted)
            return lambda row: None if (value := inner(row)) is None else not value
        if isinstance(node, ast.Compare):
            return self._comparison(node, quoted)
        raise self._wrong("only comparisons, and, or, not are known")

    def _comparison(self, node: ast.Compare, quoted: Mapping[str, str]) -> Callable[[Row], bool | None]:
        operands = [self._operand(operand, quoted) for operand in (node.left, *node.comparators)]
        operators = [_COMPARISONS.get(type(op)) for op in node.ops]
        if None in operators:
            raise self._wrong("'is' is not known")

        def evaluate(row: Row) -> bool | None:
            values = [operand(row) for operand in operands]
            if None in values:
                return None
            pairs = zip(operators, values, values[1:], strict=False)
            return all(_compare(compare, left, right) for compare, left, right in pairs if compare is not None)

        return evaluate

    def _operand(self, node: ast.expr, quoted: Mapping[str, str]) -> Callable[[Row], Any]:
        if isinstance(node, ast.Name):
            column = self._column(quoted.get(node.id, node.id))
            return lambda row: parse(row.get(column, ""))
        try:
            constant = ast.literal_eval(node)
        except (ValueError, TypeError, SyntaxError) as error:
            raise self._wrong("a side of a comparison is a column, a number, a text or a list of them") from error
        if isinstance(constant, (list, tuple, set)):
            several = {float(value) if isinstance(value, (int, float)) else value for value in constant}
            return lambda row: several
        return lambda row: constant

    def _column(self, name: str) -> str:
        if name in self._columns:
            return name
        matches = [column for column in self._columns if column.lower() == name.lower()]
        if len(matches) != 1:
            have = ", ".join(self._columns)
            raise MonaiCaeError(f"the table has no column {name}, which the rule {self.text!r} needs (it has: {have})")
        return matches[0]


def parse(text: str) -> Value:
    """A cell as a number where it is one, else as text; None where it is blank ("N/A" and the like included)."""
    stripped = str(text).strip()
    if stripped.lower() in BLANK:
        return None
    try:
        return float(stripped)
    except ValueError:
        return stripped


def _compare(compare: Callable[[Any, Any], bool], left: Value, right: Value) -> bool:
    try:
        return compare(left, right)
    except TypeError:  # a text against a number: no order, so no match
        return False


def _combine(values: list[bool | None], decided: bool) -> bool | None:
    if decided in values:
        return decided
    return None if None in values else not decided
