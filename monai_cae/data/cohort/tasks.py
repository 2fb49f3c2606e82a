"""Which scans are of patients and which of controls: one rule for each class, on the table's columns."""

from __future__ import annotations

import ast
import operator
import re
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from monai_cae.errors import MonaiCaeError

RULES = ("task", "positive", "negative", "label_column")  # settings that say who is a patient and who a control
# name -> (positive, negative): rules on the Clinical Dementia Rating
TASKS = {
    "paper": ("CDR > 0", "CDR == 0"),
    "ad": ("CDR >= 1", "CDR == 0"),
    "very-mild": ("CDR == 0.5", "CDR == 0"),
}
BLANK = {
    "", "n/a", "na", "nan", "none", ".", "null", "-", "?", "missing", "#n/a", "#na", "#null!", "#value!", "#ref!",
    "#div/0!", "#name?", "#num!",
}  # fmt: skip
MISSING_CODES = "-1, -4, -8, -9, -99, -999, -9999"  # ADNI has -1 and -4, NACC -4, SPSS and PLINK -9
_UNKNOWN = re.compile(r"([89])\1*|9[5-8]")  # as NACC writes "not applicable" (8, 88, 95 ...) and "unknown" (9, 99 ...)
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


_ORDERED = (ast.Lt, ast.LtE, ast.Gt, ast.GtE)
# what an error says of a cohort that has none
UNLABELLED = (
    "without labels, pretrain.json with --target#_target_ monai_cae.targets.Unlabelled trains the autoencoder, and "
    "`monai-cae predict` predicts"
)
MOST_VALUES = 8  # of a column, that are counted one by one


@dataclass(frozen=True)
class Task:
    """Two rules; a scan that meets neither, or has blanks in their columns, has no label and does not take part.

    Attributes:
        positive: rule of label 1, e.g. "CDR > 0".
        negative: rule of label 0; if "", all rows known not to be positive.
        missing: numbers that mean "not given".
    """

    positive: str = TASKS["paper"][0]
    negative: str = TASKS["paper"][1]
    missing: frozenset[float] = field(default_factory=lambda: read_codes(MISSING_CODES))

    @property
    def controls(self) -> str:
        """The rule of label 0, in words too where none is given."""
        return self.negative or f"not ({self.positive})"

    def labels(self, rows: Iterable[Row], names: Iterable[str]) -> list[int | None]:
        """The label of every row (column -> text); errors call the rows by these names.

        Raises:
            MonaiCaeError: an invalid rule, one that names no column, or a row that meets both.
        """
        rows = list(rows)
        if not rows:
            return []
        positive, negative = self._rules(rows)
        labels: list[int | None] = []
        for row, name in zip(rows, names, strict=True):
            is_positive, is_negative = positive(row), negative(row)
            if is_positive and is_negative:
                both = f"{self.positive!r} and {self.negative!r}"
                raise MonaiCaeError(f"{name} meets both {both}: make the rules exclusive")
            labels.append(1 if is_positive else 0 if is_negative else None)
        return labels

    def values(self, rows: Sequence[Row], labels: Sequence[int | None]) -> list[str]:
        """In words, which values of the rules' columns made patients, controls and nobody, by what `labels` gave."""
        if not rows:
            return []
        used = list(dict.fromkeys(column for rule in self._rules(rows) for column in rule.used))
        lines = []
        for label, who in ((1, "patients"), (0, "controls"), (None, "neither")):
            members = [row for row, given in zip(rows, labels, strict=True) if given == label]
            told = [f"{column} {_counted(row.get(column, '') for row in members)}" for column in used if members]
            lines += [f"{who} ({len(members)}): {'; '.join(told)}"] if members else []
        return lines + [line for column in used if (line := self._codes(column, rows, labels))]

    def _codes(self, column: str, rows: Sequence[Row], labels: Sequence[int | None]) -> str:
        """A warning of values that made patients or controls, and may be codes: far above all others of the column."""
        labelled = (row for row, label in zip(rows, labels, strict=True) if label is not None)
        return perhaps_codes(column, [parse(row.get(column, ""), self.missing) for row in labelled])

    def _rules(self, rows: Sequence[Row]) -> tuple[Rule, Rule]:
        columns = list(dict.fromkeys(column for row in rows for column in row))  # not every row has all of them
        return Rule(self.positive, columns, self.missing), Rule(self.controls, columns, self.missing)


def _counted(cells: Iterable[str]) -> str:
    """Values with how often they occur, the most frequent first; many numbers as their range."""
    counts = Counter(cell.strip() or "blank" for cell in cells).most_common()
    if len(counts) > MOST_VALUES:
        numbers = [value for cell, _ in counts if isinstance(value := parse(cell), float)]
        if len(numbers) == len(counts):
            return f"{min(numbers):g} to {max(numbers):g}"
    shown = [f"{cell[:40]} ({count})" for cell, count in counts[:MOST_VALUES]]
    return ", ".join(shown) + (f" and {len(counts) - MOST_VALUES} other values" if len(counts) > MOST_VALUES else "")


def perhaps_codes(column: str, values: Iterable[Value]) -> str:
    """A warning of numbers that may be codes, far above all others of the column; "" where there are none."""
    numbers = {value for value in values if isinstance(value, float)}
    codes = sorted(value for value in numbers if _UNKNOWN.fullmatch(f"{value:g}"))
    while codes and codes[0] <= 2 * max(numbers - set(codes), default=codes[0]):
        codes = codes[1:]
    if not codes:
        return ""
    listed = ", ".join(f"{code:g}" for code in codes)
    return f'{column} {listed} may mean "not given": if so, add {listed} to the numbers of --missing-codes'


def told_codes(column: str, cells: Iterable[str], missing: frozenset[float]) -> list[str]:
    """Which numbers of a column count as "not given", and which may mean it.

    Args:
        column: its name.
        cells: its texts.
        missing: see `read_codes`.
    """
    counts = Counter(value for cell in cells if isinstance(value := parse(cell), float))
    dropped = ", ".join(f"{value:g} ({counts[value]})" for value in sorted(counts) if value in missing)
    told = f'{column} {dropped} count as "not given": where they are numbers, take them out of --missing-codes'
    return list(filter(None, [told * bool(dropped), perhaps_codes(column, counts.keys() - missing)]))


def read_codes(codes: Any) -> frozenset[float]:
    """Numbers that mean "not given", of a text such as "-4, -9", one number, or a list of them; "" for none.

    Raises:
        MonaiCaeError: something else.
    """
    parts = codes if isinstance(codes, (list, tuple)) else str(codes).replace(",", " ").split()
    try:
        return frozenset(float(part) for part in parts)
    except (TypeError, ValueError) as error:
        raise MonaiCaeError(f'missing_codes must be numbers, such as "-4, -9", not {codes!r}') from error


def make_task(
    task: str = "paper",
    positive: str = "",
    negative: str = "",
    label_column: str = "",
    missing_codes: Any = MISSING_CODES,
) -> Task:
    """Make the task that a user asks for.

    Args:
        task: one of `TASKS`; the default is used when nothing else is given.
        positive, negative: rules of labels 1 and 0; without the latter, 0 is whoever is known not to be positive.
        label_column: column that holds 1 and 0; short for `positive="COLUMN == 1"`, `negative="COLUMN == 0"`.
        missing_codes: see `read_codes`.

    Raises:
        MonaiCaeError: an unknown task, a negative rule without a positive one, or two settings that both say who is a
            patient.
    """
    missing = read_codes(missing_codes)
    asked = {"task": task != "paper", "positive": positive, "label_column": label_column}
    if len(given := [name for name, value in asked.items() if value]) > 1:
        raise MonaiCaeError(f"{' and '.join(given)} each say who is a patient: give one of them")
    if positive:
        return Task(positive, negative, missing)
    if negative:
        raise MonaiCaeError("negative needs positive: give both rules")
    if label_column:
        return Task(f"`{label_column}` == 1", f"`{label_column}` == 0", missing)
    if task not in TASKS:
        raise MonaiCaeError(f"task must be one of {', '.join(TASKS)}, not {task!r}: or give a rule with positive")
    return Task(*TASKS[task], missing)


def recorded_rules(recorded: Mapping[str, Any]) -> tuple[str, str]:
    """The rules of patients and of controls as a datalist records them; "" where it does not, or two that exclude each
    other, as earlier versions did."""
    if not all(isinstance(recorded.get(name), str) for name in RULES):
        return "", ""
    try:
        task = make_task(**{name: recorded[name] for name in RULES})
    except MonaiCaeError:
        return "", ""
    return task.positive, task.controls


class Rule:
    """A comparison on columns, such as "CDR >= 1", "Age > 60 and `M/F` == 'F'" or "DX in ('AD', 'MCI')".

    Known are <, <=, >, >=, ==, !=, in, not in, and, or, not, numbers, texts and column names; a name that is no
    identifier stands in backticks. Nothing else is evaluated. Texts are compared without regard to case, columns by it
    where one fits exactly. A cell that is blank, a missing code, a text beside a number or a number beside a text makes
    its comparison unknown, and unknown is neither true nor false. `used` has the columns that it compares.

    Raises:
        MonaiCaeError: not such a comparison, texts compared by < or >, or a name that is not a
            column.
    """

    def __init__(self, text: str, columns: Iterable[str], missing: frozenset[float] = frozenset()) -> None:
        self.text = text
        self.missing = missing
        self.used: list[str] = []
        self._columns = list(columns)
        first, *others = re.split(r"`([^`]+)`", text)
        quoted = {f"_column_{number}": name for number, name in enumerate(others[::2])}
        plain = first + "".join(token + rest for token, rest in zip(quoted, others[1::2], strict=True))
        try:
            tree = ast.parse(plain.strip(), mode="eval").body
        except (SyntaxError, ValueError) as error:
            raise self._wrong("it is not a comparison") from error
        self._evaluate = self._compile(tree, quoted)

    def __call__(self, row: Row) -> bool | None:
        """True, False, or None if it is unknown."""
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
        raise self._wrong("only comparisons, and, or and not are allowed")

    def _comparison(self, node: ast.Compare, quoted: Mapping[str, str]) -> Callable[[Row], bool | None]:
        operands = [self._operand(operand, quoted) for operand in (node.left, *node.comparators)]
        kinds = [type(op) for op in node.ops]
        if not set(kinds) <= set(_COMPARISONS):
            raise self._wrong("'is' is not allowed")
        for kind, *pair in zip(kinds, (node.left, *node.comparators), node.comparators, strict=False):
            if kind in _ORDERED and any(isinstance(one, ast.Constant) and isinstance(one.value, str) for one in pair):
                raise self._wrong("texts can't be compared by size")

        def evaluate(row: Row) -> bool | None:
            values = [operand(row) for operand in operands]
            pairs = zip(kinds, values, values[1:], strict=False)
            return _combine([_compare(kind, left, right) for kind, left, right in pairs], decided=False)

        return evaluate

    def _operand(self, node: ast.expr, quoted: Mapping[str, str]) -> Callable[[Row], Any]:
        if isinstance(node, ast.Name):
            column = self._column(quoted.get(node.id, node.id))
            self.used.append(column)
            return lambda row: parse(row.get(column, ""), self.missing)
        try:
            constant = ast.literal_eval(node)
        except (ValueError, TypeError, SyntaxError) as error:
            raise self._wrong("each side of a comparison must be a column, a number, a text or a list") from error
        several = [_plain(value) for value in constant] if isinstance(constant, (list, tuple, set)) else None
        return lambda row: _plain(constant) if several is None else several

    def _column(self, name: str) -> str:
        if name in self._columns:
            return name
        matches = [column for column in self._columns if column.lower() == name.lower()]
        if len(matches) != 1:
            have = ", ".join(self._columns)
            raise MonaiCaeError(
                f"the table has no column {name}, which the rule {self.text!r} needs (it has: {have}): say who is a "
                f"patient and who a control with --positive and --negative; {UNLABELLED}"
            )
        return matches[0]


def parse(text: str, missing: frozenset[float] = frozenset()) -> Value:
    """A cell as a number if possible, else as text; None if it is blank ("N/A" and similar) or a missing code."""
    stripped = str(text).strip()
    if stripped.lower() in BLANK:
        return None
    value = _plain(stripped)
    return None if value in missing else value


def _plain(value: Any) -> Any:
    """A number where it is or reads as one, else text in lower case."""
    try:
        return float(value)
    except (TypeError, ValueError):
        return str(value).strip().casefold()


def _compare(kind: type[ast.cmpop], left: Any, right: Any) -> bool | None:
    """None where a side is blank, or where a number stands beside a text."""
    if left is None or right is None:
        return None
    if isinstance(right, list):
        right = [value for value in right if type(value) is type(left)]
        return _COMPARISONS[kind](left, right) if right else None
    if type(left) is not type(right) or (kind in _ORDERED and isinstance(left, str)):
        return None
    return _COMPARISONS[kind](left, right)


def _combine(values: list[bool | None], decided: bool) -> bool | None:
    if decided in values:
        return decided
    return None if None in values else not decided
