"""What the scores of a network allow to say, in a sentence or two, and no more."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, Literal, NamedTuple

from monai_cae.evaluation.numbers import COMPARED_NUMBER
from monai_cae.experiment.record import NETWORK
from monai_cae.experiment.results import Results
from monai_cae.experiment.wording import difference_with_interval, number_difference, p_value, readable, telling


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
    state, said = _against_chance(results)
    if "results" not in summary:  # one network alone, on another cohort
        return Verdict(state, said, [])
    rival, further = _against_simpler(results, summary["results"][0]["baselines"])
    return Verdict("open" if rival == "worse" and state == "good" else state, said, further)


def _leaks(count: int) -> str:
    return f"{count} leak{'s' * (count > 1)} between training and test sets; audit.html of each part names them."


def _against_chance(results: Results) -> tuple[Literal["good", "open", "bad"], str]:
    """By the interval of a score whose value for a method that knows nothing is known."""
    target = results.target
    name, chance = ("auc", 0.5) if target.binary else ("r2", 0.0)
    row = results.scores.loc[(NETWORK, name)]
    told = f"{target.score_names[name]} {telling(target)(row)}"
    nothing = "chance" if target.binary else "the mean of all subjects"
    if not math.isfinite(row["mean"]):
        return "open", f"Undecided: {told}"
    if not math.isfinite(row["low"]):
        return "open", f"{told}: too few subjects for an interval"
    if row["low"] > chance:
        return "good", f"Better than {nothing}: {told}"
    if row["high"] < chance:
        return "bad", f"Worse than {nothing}: {told}"
    return "open", f"Not shown to be better than {nothing}: {told}"


def _against_simpler(results: Results, simpler: list[str]) -> tuple[str, list[str]]:
    """Against the best baseline; "worse" only where the interval of the difference says so."""
    target = results.target
    known = [] if results.comparisons.empty else [name for name in simpler if name in results.comparisons.index]
    if not known:
        return "", ["No simpler method ran on the same splits, so what the network adds is not known."]
    score, sign = ("auc", 1) if target.binary else (COMPARED_NUMBER, -1)
    means = {name: sign * float(results.scores.loc[(name, score), "mean"]) for name in known}
    best = max(known, key=lambda name: means[name] if math.isfinite(means[name]) else -math.inf)
    row = results.comparisons.loc[(best, score)]
    told = (difference_with_interval if target.binary else number_difference)(row)
    low, high = sorted((sign * row["low"], sign * row["high"]))
    found = "better" if low > 0 else "worse" if high < 0 else "no difference is shown"
    tested = row["p_corrected_t"] if math.isfinite(row["p_corrected_t"]) else row["p_paired"]
    among = f"the best of {len(known)} simpler methods" if len(known) > 1 else "the simpler method"
    of_best = telling(target)(results.scores.loc[(best, score)])
    sentence = (
        f"Against {readable(best)}, {among} ({target.score_names[score]} {of_best}): difference {told}, "
        f"p {p_value(tested)}; {found if found.startswith('no') else f'the network is {found}'}."
    )
    return found, [sentence]
