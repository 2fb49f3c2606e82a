"""How unlike the training's the scans of groups are: by site, or over time."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date

import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from scipy import stats

from monai_cae.errors import MonaiCaeError
from monai_cae.evaluation.intervals import wilson_interval
from monai_cae.evaluation.style import BLUE, BODY, MUTED, SMALL, VERMILLION, empty_figure, tidy

FEWEST = 5  # subjects of a group that is tested
MOST_GROUPS = 40
_PARTS = 4  # that time is cut into


@dataclass(frozen=True)
class Drift:
    """
    Attributes:
        groups: a row for each: `group`, `subjects`, `median` percentile, `marked` subjects, their `share` with its
            interval `low` to `high`, and the one-sided p of as many among ordinary subjects, under `q` corrected for
            the number of groups (Benjamini and Hochberg); nan for groups of fewer than five.
        test: name of the test between the groups, or over time; "" where there is one group.
        statistic, p: of it; nan where it can't be made.
        time: the groups are parts of time.
    """

    groups: pd.DataFrame
    test: str
    statistic: float
    p: float
    time: bool


def drift(scans: pd.DataFrame, limit: float, as_sites: bool = False) -> Drift:
    """Compare groups of scans by their percentiles.

    Args:
        scans: a row each: `subject`, `unlike`, and `by`, a text; an empty one is "not given". Numbers and dates
            (2024-05-31) are time, which is cut into four parts of as many subjects. Several scans of a subject in one
            group count once, with their mean.
        limit: percentile above which a scan is marked, as `100 - limit` % of ordinary scans are.
        as_sites: numbers and dates are groups like other texts, such as the codes of sites.

    Raises:
        MonaiCaeError: texts of more than 40 kinds.
    """
    when = None if as_sites else _time(scans["by"])
    if when is None and scans["by"].nunique() > MOST_GROUPS:
        raise MonaiCaeError(
            f"the column has {scans['by'].nunique()} different texts, {MOST_GROUPS} are the most: name a column of "
            "sites, numbers or dates"
        )
    known = scans.assign(when=when if when is not None else 0.0, text=scans["by"])
    people = known.groupby(["subject", "when", "text"], dropna=False, sort=False)
    people = people.agg({"unlike": "mean", "by": "first"}).reset_index()
    if when is not None:
        people["by"] = _parts(people)
    parts = {name: rows["unlike"].to_numpy() for name, rows in people.groupby("by", sort=when is None)}
    if when is not None:
        parts = {name: parts[name] for name in people.sort_values("when")["by"].unique()}
    rows = [_group(name, found, limit) for name, found in parts.items()]
    table = pd.DataFrame(rows)
    tested = table["p"].notna()
    table["q"] = np.nan
    if tested.any():
        table.loc[tested, "q"] = stats.false_discovery_control(table.loc[tested, "p"])
    return Drift(table, *_test(people, parts, when is not None), when is not None)


def _time(texts: pd.Series) -> pd.Series | None:
    """Numbers, or days; None for other texts."""
    given = texts[texts != ""]
    if given.empty:
        return None
    for read in (float, lambda text: float(date.fromisoformat(text).toordinal())):
        try:
            found = {text: read(text) for text in given.unique()}
        except ValueError:
            continue
        when = texts.map(found).astype(float)
        return when if np.isfinite(when[texts != ""]).all() and given.nunique() > 1 else None
    return None


def _parts(people: pd.DataFrame) -> list[str]:
    """Names of the parts of time, from the first text to the last in it."""
    when = people["when"]
    edges = np.quantile(when.dropna(), np.linspace(0, 1, _PARTS + 1)[1:-1])
    number = np.where(when.isna(), -1, np.searchsorted(edges, when, side="left"))
    names = {-1: "not given"}
    for part in set(number) - {-1}:
        texts = people.loc[number == part].sort_values("when")["by"]
        first, last = texts.iloc[0], texts.iloc[-1]
        names[part] = first if first == last else f"{first} to {last}"
    return [names[part] for part in number]


def _group(name: str, percentiles: np.ndarray, limit: float) -> dict[str, object]:
    count, marked = len(percentiles), int((percentiles > limit).sum())
    interval = wilson_interval(marked, count)
    p = stats.binom.sf(marked - 1, count, 1 - limit / 100) if count >= FEWEST else np.nan
    return {
        "group": name or "not given", "subjects": count, "median": float(np.median(percentiles)), "marked": marked,
        "share": marked / count, "low": interval.low, "high": interval.high, "p": float(p),
    }  # fmt: skip


def _test(people: pd.DataFrame, parts: dict[str, np.ndarray], time: bool) -> tuple[str, float, float]:
    if time:
        known = people.dropna(subset="when")
        if len(known) < FEWEST or known["unlike"].nunique() == 1:
            return "Spearman's correlation with time", np.nan, np.nan
        found = stats.spearmanr(known["when"], known["unlike"])
        return "Spearman's correlation with time", float(found.statistic), float(found.pvalue)
    if len(parts) < 2:
        return "", np.nan, np.nan
    large = [found for found in parts.values() if len(found) >= FEWEST]
    if len(large) < 2 or people["unlike"].nunique() == 1:
        return "Kruskal and Wallis's test between groups of five or more", np.nan, np.nan
    tested = stats.kruskal(*large)
    return "Kruskal and Wallis's test between groups of five or more", float(tested.statistic), float(tested.pvalue)


def drift_figure(found: Drift, limit: float, note: str = "", about: str = "") -> Figure:
    """Share of marked subjects of each group with its interval, beside the share of ordinary subjects."""
    table = found.groups
    figure = empty_figure(6.5, 1.0 + 0.3 * len(table), note, f"Subjects unlike the training's\n{about}")
    axis = figure.subplots()
    places = np.arange(len(table))[::-1]
    for place, row in zip(places, table.to_dict("records"), strict=True):
        colour = VERMILLION if row["q"] < 0.05 else BLUE
        axis.plot([row["low"], row["high"]], [place, place], color=colour, linewidth=1.5, solid_capstyle="butt")
        axis.plot(row["share"], place, "o", color=colour, markersize=6, markeredgewidth=0)
    ordinary = 1 - limit / 100
    axis.axvline(ordinary, color=MUTED, linewidth=1, linestyle=":")
    axis.annotate("ordinary", (ordinary, 1.0), xycoords=("data", "axes fraction"), ha="center", va="bottom", **SMALL)
    axis.set_yticks(places, [f"{row['group']} ({row['subjects']})" for row in table.to_dict("records")], **BODY)
    axis.set_xlim(-0.02, 1.02)
    axis.set_ylim(-0.6, len(table) - 0.4)
    tidy(axis, f"share above percentile {limit:g}, with 95 % interval")
    return figure
