"""Rules on columns: what they accept, what a blank cell means, and what they refuse."""

from __future__ import annotations

import pytest

from monai_cae.data.cohort.tasks import Rule, Task, make_task, recorded_rules
from monai_cae.errors import MonaiCaeError

ROW = {"CDR": "0.5", "Age": "70", "M/F": "F", "DX": "MCI", "MMSE": "N/A"}


@pytest.mark.parametrize(
    ("rule", "expected"),
    [
        ("CDR > 0", True),
        ("cdr >= 1", False),
        ("CDR == 0.5", True),
        ("60 < Age <= 70", True),
        ("`M/F` == 'F' and Age != 70", False),
        ("DX in ('AD', 'MCI')", True),
        ("DX not in ['AD']", True),
        ("CDR in (0, 0.5)", True),
        ("Age > 75 or DX == 'MCI'", True),
        ("not CDR > 0", False),
        ("DX > 3", None),
        ("MMSE < 24", None),
        ("not MMSE < 24", None),
        ("MMSE < 24 and CDR > 1", False),
        ("MMSE < 24 or CDR > 0", True),
        ("MMSE < 24 and CDR > 0", None),
    ],
)
def test_rule(rule, expected):
    assert Rule(rule, ROW)(ROW) is expected


@pytest.mark.parametrize(
    ("rule", "message"),
    [
        ("CDRR > 0", "no column CDRR.*CDR, Age, M/F, DX, MMSE"),
        ("CDR >", "not a comparison"),
        ("__import__('os').system('true') == 0", "a column, a number, a text"),
        ("CDR", "only comparisons"),
        ("CDR is 0", "'is' is not allowed"),
        ("CDR.real > 0", "a column, a number"),
        ("", "not a comparison"),
    ],
)
def test_rules_that_are_none(rule, message):
    with pytest.raises(MonaiCaeError, match=message) as error:
        Rule(rule, ROW)
    assert "\n" not in str(error.value)


ROWS = [{"CDR": value} for value in ("0", "0.5", "1", "2", "", "N/A")]


@pytest.mark.parametrize(
    ("options", "labels"),
    [
        ({}, [0, 1, 1, 1, None, None]),
        ({"task": "ad"}, [0, None, 1, 1, None, None]),
        ({"task": "very-mild"}, [0, 1, None, None, None, None]),
        ({"positive": "CDR >= 1"}, [0, 0, 1, 1, None, None]),
        ({"positive": "CDR == 2", "negative": "CDR == 1"}, [None, None, 0, 1, None, None]),
        ({"label_column": "CDR"}, [0, None, 1, None, None, None]),
    ],
)
def test_labels_and_a_blank_is_never_negative(options, labels):
    assert make_task(**options).labels(ROWS, "abcdef") == labels


@pytest.mark.parametrize(
    ("changed", "rules"),
    [
        ({"task": "ad"}, ("CDR >= 1", "CDR == 0")),
        ({"positive": "MMSE < 24"}, ("MMSE < 24", "not (MMSE < 24)")),
        ({"task": "ad", "positive": "MMSE < 24"}, ("", "")),  # of an earlier version, which ignored one of them
        ({"task": ["ad"]}, ("", "")),
    ],
)
def test_rules_are_those_that_a_datalist_records(changed, rules):
    recorded = {"task": "paper", "positive": "", "negative": "", "label_column": "", "seed": 3}
    assert recorded_rules({**recorded, **changed}) == rules
    assert recorded_rules({}) == ("", "")


def test_rules_that_overlap_are_refused():
    with pytest.raises(MonaiCaeError, match="b meets both 'CDR > 0' and 'CDR < 1'"):
        Task("CDR > 0", "CDR < 1").labels(ROWS, "abcdef")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"task": "mci"}, "task must be one of paper, ad, very-mild"),
        ({"negative": "CDR == 0"}, "give both"),
        ({"label_column": "CDR", "positive": "CDR > 0"}, "^positive and label_column each say who is a patient"),
        ({"label_column": "CDR", "task": "ad"}, "^task and label_column each say"),
        ({"positive": "CDR > 0", "task": "ad"}, "^task and positive each say"),
    ],
)
def test_tasks_that_are_none(options, message):
    with pytest.raises(MonaiCaeError, match=message):
        make_task(**options)
