"""What the numbers of a code have to do with the numbers of a table, corrected for how many of both there are."""

from __future__ import annotations

import warnings

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy import stats
from sklearn.linear_model import RidgeCV
from sklearn.model_selection import KFold, cross_val_predict
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from monai_cae.evaluation.numbers import number_scores

FEWEST = 20  # subjects of a column
FOLDS = 5
PENALTIES = tuple(10.0**power for power in range(-2, 6))
KINDS = ("pearson", "spearman", "partial")
Numbers = NDArray[np.float64]


def correlations(codes: pd.DataFrame, columns: pd.DataFrame, nuisance: pd.DataFrame) -> pd.DataFrame:
    """Correlate every component of a code with every column of a table, over subjects.

    Args:
        codes: a row per subject, a column per component.
        columns: a row per subject, in the same order; nan where a number is not given.
        nuisance: what the partial correlation is free of, such as age and sex, in the same form. A column is not
            corrected for itself, and subjects without one of these do not count in it.

    Returns:
        A row per component and column: `component`, `column`, `n` subjects, and for each of `pearson`, `spearman` and
        `partial` (Pearson's, of what is left after a linear regression on the nuisance) the correlation, its two-sided
        p under `_p`, and under `_q` the p corrected for all rows of the table (Benjamini and Hochberg 1995, J R Stat
        Soc B 57:289). A correlation with what does not vary is nan.
    """
    tables = []
    for name in columns:
        known = columns[name].notna().to_numpy()
        x, y = codes.to_numpy(np.float64)[known], columns[name].to_numpy(np.float64)[known]
        found = {"component": codes.columns, "column": name, "n": int(known.sum())}
        for kind, pair in (("pearson", (x, y)), ("spearman", (stats.rankdata(x, axis=0), stats.rankdata(y)))):
            found[kind], found[f"{kind}_p"] = _correlation(*pair, free=len(y) - 2)
        found["partial"], found["partial_p"] = _partial(codes, columns, name, nuisance)
        tables.append(pd.DataFrame(found))
    return _corrected(pd.concat(tables, ignore_index=True)) if tables else pd.DataFrame()


def regressors(codes: pd.DataFrame, columns: pd.DataFrame, nuisance: pd.DataFrame, seed: int = 0) -> pd.DataFrame:
    """Predict every column from the whole code by ridge regression, each subject by a model that has not seen it.

    Args:
        codes, columns, nuisance: see `correlations`.
        seed: of the five folds.

    Returns:
        A row per column: `column`, `n`, `mae` and `r2` of the predictions, and their correlations with the column as in
        `correlations`; p is one-sided, as only predictions that rise with the column say something.
    """
    rows = []
    for name in columns:
        known = columns[name].notna().to_numpy()
        x, y = codes.to_numpy(np.float64)[known], columns[name].to_numpy(np.float64)[known]
        model = make_pipeline(StandardScaler(), RidgeCV(alphas=PENALTIES))
        folds = KFold(FOLDS, shuffle=True, random_state=seed)
        predicted = np.asarray(cross_val_predict(model, x, y, cv=folds), dtype=np.float64)
        scores = number_scores(y, predicted)
        row = {"column": name, "n": len(y), "mae": scores["mae"], "r2": scores["r2"]}
        ranks = stats.rankdata(predicted)[:, None], stats.rankdata(y)
        for kind, (told, true) in (("pearson", (predicted[:, None], y)), ("spearman", ranks)):
            (row[kind],), (row[f"{kind}_p"],) = _correlation(told, true, free=len(y) - 2, one_sided=True)
        whole = pd.DataFrame({"predicted": np.nan}, index=codes.index)
        whole.loc[codes.index[known], "predicted"] = predicted
        (row["partial"],), (row["partial_p"],) = _partial(whole, columns, name, nuisance, one_sided=True)
        rows.append(row)
    return _corrected(pd.DataFrame(rows)) if rows else pd.DataFrame()


def _partial(
    codes: pd.DataFrame, columns: pd.DataFrame, name: str, nuisance: pd.DataFrame, one_sided: bool = False
) -> tuple[Numbers, Numbers]:
    others = nuisance[[other for other in nuisance if other != name]]
    known = (columns[name].notna() & others.notna().all(axis=1)).to_numpy()
    x, y = codes.to_numpy(np.float64)[known], columns[name].to_numpy(np.float64)[known]
    design = np.column_stack([np.ones(len(y)), others.to_numpy(np.float64)[known]])
    rank = int(np.linalg.matrix_rank(design)) if len(y) else 0
    if len(y) - rank - 1 < 1:
        return np.full(codes.shape[1], np.nan), np.full(codes.shape[1], np.nan)
    both = np.column_stack([x, y])
    left = both - design @ np.linalg.lstsq(design, both, rcond=None)[0]
    left[:, left.std(axis=0) < 1e-9 * (np.abs(both).max(axis=0) + 1e-300)] = 0  # told by the nuisance: rounding alone
    return _correlation(left[:, :-1], left[:, -1], free=len(y) - rank - 1, one_sided=one_sided)


def _correlation(x: Numbers, y: Numbers, free: int, one_sided: bool = False) -> tuple[Numbers, Numbers]:
    """Pearson's of each column of `x`, shape `(n, k)`, with `y`, and its p with so many degrees of freedom."""
    with warnings.catch_warnings(), np.errstate(divide="ignore", invalid="ignore"):
        warnings.simplefilter("ignore", stats.ConstantInputWarning)
        warnings.simplefilter("ignore", stats.NearConstantInputWarning)
        r = np.asarray(stats.pearsonr(x, y[:, None], axis=0).statistic, dtype=np.float64)
        t = r * np.sqrt(free / (1 - r * r))
    return r, np.asarray(stats.t.sf(t, free) if one_sided else 2 * stats.t.sf(np.abs(t), free))


def _corrected(table: pd.DataFrame) -> pd.DataFrame:
    for kind in KINDS:
        p = table[f"{kind}_p"]
        q = pd.Series(np.nan, index=table.index)
        if p.notna().any():
            q[p.notna()] = stats.false_discovery_control(p.dropna())
        table.insert(int(table.columns.get_indexer([f"{kind}_p"])[0]) + 1, f"{kind}_q", q)
    return table
