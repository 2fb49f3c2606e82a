"""Scores by clinical grade, age and sex."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd

from monai_cae.errors import MonaiCaeError
from monai_cae.evaluation.intervals import RESAMPLES
from monai_cae.evaluation.pooled import pooled
from monai_cae.evaluation.summary import summarise

UNKNOWN = "unknown"
FEWEST = 5  # subjects of a group that is scored; of fewer, one more or less decides
TOO_FEW = f"fewer than {FEWEST} subjects, no score"  # what the note of such a group says
_OF_ALL: tuple[str, ...] = ("accuracy", "sensitivity", "specificity", "auc")


def subgroup_table(
    predictions: pd.DataFrame,
    rng: np.random.Generator,
    *,
    by: Sequence[str] = ("cdr", "age", "sex"),
    resamples: int = RESAMPLES,
) -> pd.DataFrame:
    """Score the subjects of each CDR grade, age tertile and sex.

    A CDR grade has only one class. Grades above 0 get sensitivity, and AUC against all of CDR 0; CDR 0 gets
    specificity. Age is cut where it divides the subjects, not their predictions, into thirds.

    Args:
        predictions: Table as described in `pooled`, with the columns of `by`.
        rng: Source of the resamples.
        by: Which groups, of `cdr`, `age` and `sex`.
        resamples: How many bootstrap resamples of each group, 1 or more.

    Returns:
        A row per group and score: `by`, `group` (such as `0.5`, `62-74` or `F`; `unknown` for a blank), how many
        `subjects` and `patients` (AD) it has, `score`, and `mean`, `sd`, `low`, `high` and `note` as in `summarise`. A
        group of fewer than 5 subjects has one row with its counts, and no score.

    Raises:
        MonaiCaeError: For predictions that `pooled` refuses, a missing column, a subject with two values in it, or a
            grade of CDR that does not fit the label.
    """
    subjects = _subjects(predictions, by)
    names = predictions["subject"].astype(str)
    tables = []
    for name in by:
        groups = _age_tertiles(subjects["age"]) if name == "age" else subjects[name]
        for group in sorted(groups.unique(), key=_order):
            members = groups.index[groups == group]
            included, scores = members, _OF_ALL
            if name == "cdr" and group == "0":
                scores = ("specificity",)
            elif name == "cdr" and group != UNKNOWN:
                included, scores = members.union(subjects.index[subjects["label"] == 0]), ("sensitivity", "auc")
            rows = predictions[names.isin(included)]
            if len(members) < FEWEST:
                nothing = dict.fromkeys(("mean", "sd", "low", "high"), np.nan)
                scored = pd.DataFrame([{"score": scores[-1], **nothing, "note": TOO_FEW}])
            else:
                scored = summarise(rows, rng, scores=scores, resamples=resamples).reset_index()
            head = {"by": name, "group": group, "patients": int(subjects.loc[members, "label"].sum())}
            tables.append(scored.assign(**head, subjects=len(members)))
    columns = ["by", "group", "subjects", "patients", "score", "mean", "sd", "low", "high", "note"]
    return pd.concat(tables, ignore_index=True)[columns]


def _subjects(predictions: pd.DataFrame, by: Sequence[str]) -> pd.DataFrame:
    """Return a row per subject, its name as the index, with texts under cdr and sex and numbers under age."""
    unknown = [name for name in by if name not in ("cdr", "age", "sex")]
    missing = [name for name in by if name not in predictions]
    if unknown or missing or not by:
        raise MonaiCaeError(f"by must name columns of the predictions, of cdr, age and sex, not {list(by)}.")
    pooled(predictions)
    table = predictions.assign(subject=predictions["subject"].astype(str))[["subject", "label", *by]]
    table = table.drop_duplicates().set_index("subject")
    twice = table.index[table.index.duplicated()]
    if len(twice):
        raise MonaiCaeError(f"a subject has one {', '.join(by)} in all its rows, but {twice[0]} has several.")
    if "cdr" in by:
        grades = table["cdr"].astype(float)
        wrong = grades.notna() & ((grades > 0) != (table["label"] == 1))
        if wrong.any():
            raise MonaiCaeError(f"label must be 0 for CDR 0 and 1 above it, but not for subject {wrong.idxmax()}.")
        table["cdr"] = [f"{grade:g}" if grade == grade else UNKNOWN for grade in grades]
    if "sex" in by:
        table["sex"] = table["sex"].astype(object).where(table["sex"].notna(), UNKNOWN).astype(str)
    return table


def _age_tertiles(ages: pd.Series) -> pd.Series:
    """Name the third each subject is in by the youngest and oldest age found there."""
    known = ages.astype(float).dropna()
    groups = pd.Series(UNKNOWN, index=ages.index, dtype=object)
    if len(known):
        thirds = np.searchsorted(np.quantile(known, (1 / 3, 2 / 3)), known)
        for _, members in known.groupby(thirds):
            youngest, oldest = f"{members.min():g}", f"{members.max():g}"
            groups[members.index] = youngest if youngest == oldest else f"{youngest}-{oldest}"
    return groups


def _order(group: str) -> tuple[bool, float, str]:
    """Sort grades and ages as numbers, anything else as text, and the unknown last."""
    first = group.split("-")[0]
    number = float(first) if first.replace(".", "", 1).isdigit() else 0.0
    return group == UNKNOWN, number, group
