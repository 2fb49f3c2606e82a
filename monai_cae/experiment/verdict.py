"""What the scores of a network allow to say, in a sentence or two, and no more."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, Literal, NamedTuple

from monai_cae.evaluation.numbers import COMPARED_NUMBER
from monai_cae.evaluation.summary import TOO_NARROW
from monai_cae.experiment.record import NETWORK
from monai_cae.experiment.results import Results
from monai_cae.experiment.wording import (
    better_or_worse,
    difference_with_interval,
    number_difference,
    p_value,
    readable,
    telling,
    tested_by,
)

_SCORE = {True: "auc", False: "r2"}  # of patients and controls, of a number


class Verdict(NamedTuple):
    """What is said first.

    Attributes:
        state: whether it is good news.
        said: in one sentence.
        further: sentences that belong to it.
    """

    state: Literal["good", "open", "bad"]
    said: str
    further: list[str]


def verdict(summary: Mapping[str, Any], results: Results) -> Verdict:
    """Whether the network is better than chance, and than the best of the simpler methods on the same splits.

    Args:
        summary: as in summary.json.
        results: the tables.
    """
    target = results.target
    if summary["leaks"]:
        return Verdict("bad", "The scores are worthless: the sets leak", [_leaks(summary["leaks"])])
    if not (target.binary or target.number):
        score = target.headline[0]
        told = telling(target)(results.scores.loc[(NETWORK, score)])
        return Verdict("open", f"{target.score_names[score]} {told}", [])
    state, compared = _against_chance(results)
    row = results.scores.loc[(NETWORK, _SCORE[target.binary])]
    score = f"{target.score_names[_SCORE[target.binary]]} {telling(target)(row)}"
    if "results" not in summary:  # one network alone, on another cohort
        return Verdict(state, f"{compared}: {score}", [])
    rival, further = _against_simpler(results, summary["results"][0]["baselines"])
    if state == "good" and rival:
        return Verdict("open", f"{compared}, but {rival}: {score}", further)
    return Verdict(state, f"{compared}: {score}", further)


def _leaks(count: int) -> str:
    return f"{count} leak{'s' * (count > 1)} between training and test sets; audit.html of each part names them."


def _against_chance(results: Results) -> tuple[Literal["good", "open", "bad"], str]:
    """By the interval of a score whose value for a method that knows nothing is known."""
    binary = results.target.binary
    chance, nothing = (0.5, "chance") if binary else (0.0, "the mean of all subjects")
    row = results.scores.loc[(NETWORK, _SCORE[binary])]
    if not math.isfinite(row["low"]):
        return "open", "Undecided, without an interval"
    if row["low"] > chance:
        narrow = TOO_NARROW in str(row["note"])  # and the true one may reach it
        return ("open", f"Perhaps better than {nothing}") if narrow else ("good", f"Better than {nothing}")
    return (
        ("bad", f"Worse than {nothing}") if row["high"] < chance else ("open", f"Not shown to be better than {nothing}")
    )


def _against_simpler(results: Results, simpler: list[str]) -> tuple[str, list[str]]:
    """Against the best baseline: "" where the network is better than it, or there is none; otherwise what it is. And a
    sentence with the numbers."""
    target = results.target
    known = [] if results.comparisons.empty else [name for name in simpler if name in results.comparisons.index]
    if not known:
        return "", ["No simpler method ran on the same splits, so what the network adds is not known."]
    score, sign = ("auc", 1) if target.binary else (COMPARED_NUMBER, -1)
    means = {name: sign * float(results.scores.loc[(name, score), "mean"]) for name in known}
    best = max(known, key=lambda name: means[name] if math.isfinite(means[name]) else -math.inf)
    row = results.comparisons.loc[(best, score)]
    told = (difference_with_interval if target.binary else number_difference)(row)
    found = better_or_worse(row, sign)
    rival = "" if found == "better" else f"{found or 'not shown to be better'} than {readable(best)}"
    among = f"the best of {len(known)} simpler methods" if len(known) > 1 else "the simpler method"
    which = "" if target.binary else " (above 0, the network's errors are larger)"
    of_best = telling(target)(results.scores.loc[(best, score)])
    return rival, [
        f"Against {readable(best)}, {among} ({target.score_names[score]} {of_best}): difference {told}{which}, "
        f"p {p_value(tested_by(row))}."
    ]
