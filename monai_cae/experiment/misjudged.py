"""Who was misjudged: the network's wrong answers, or its errors where it predicts numbers, subject by subject."""

from __future__ import annotations

from pathlib import Path

import pandas as pd

from monai_cae.experiment.record import NETWORK
from monai_cae.experiment.results import Results
from monai_cae.files import replacing

FILE = "errors.csv"
_KNOWN = ("cdr", "age", "sex")


def misjudged(results: Results) -> pd.DataFrame:
    """The subjects that the network was wrong about, the worst first.

    Args:
        results: the tables of an experiment, or of another cohort's test.

    Returns:
        A row for each subject: `subject`, `label`, what was predicted (mean over its tests), how often it was `tested`,
        `repeat` and `fold` of its first wrong test, `cdr`, `age`, `sex`. Of a binary target those whose answer was
        `wrong` in any test, how often, `margin`, by how much the mean lies beyond its threshold, and `others`, how many
        of the other methods are wrong about them too, in most of their tests. Of numbers everybody, with the `error`,
        predicted less true. No row for targets of another kind.
    """
    target = results.target
    if not (target.binary or target.number):
        return pd.DataFrame()
    ours, said = results.of(NETWORK), target.column
    if target.number:
        ours = ours.assign(error=ours[said] - ours["label"])
        people = ours.groupby("subject", sort=False).agg(**_told(said, "mean"), error=("error", "mean"))
        order = people["error"].abs().sort_values(ascending=False, kind="stable").index
        return people.loc[order].reset_index()
    ours = _judged(ours)
    wrong = ours[ours["wrong"]]
    people = ours.groupby("subject", sort=False).agg(
        **_told(said, "first"), wrong=("wrong", "sum"), margin=("margin", "mean")
    )
    first = wrong.groupby("subject", sort=False)[["repeat", "fold"]].first()
    people = people.loc[first.index].assign(repeat=first["repeat"], fold=first["fold"])
    others = _judged(results.record[results.record["method"] != NETWORK])
    share = others.groupby(["subject", "method"])["wrong"].mean() > 0.5
    people["others"] = share.groupby("subject").sum().reindex(people.index, fill_value=0).astype(int)
    share_wrong = people["wrong"] / people["tested"]
    order = pd.DataFrame({"share": share_wrong, "margin": people["margin"]}).sort_values(
        ["share", "margin"], ascending=False, kind="stable"
    )
    return people.loc[order.index].reset_index()


def write_errors(results: Results, output: Path) -> pd.DataFrame:
    """Write `misjudged` as errors.csv; nothing where the target has none.

    Args:
        results: see `misjudged`.
        output: the folder.

    Returns:
        The table.
    """
    table = misjudged(results)
    if len(table.columns):
        with replacing(output / FILE) as temporary:
            table.to_csv(temporary, index=False, float_format="%.6g")
    return table


def _judged(rows: pd.DataFrame) -> pd.DataFrame:
    """With `wrong`, and with `margin`: how far on the wrong side of the threshold, below 0 on the right side."""
    beyond = rows["probability"] - rows["threshold"]
    return rows.assign(wrong=(beyond >= 0) != (rows["label"] == 1), margin=beyond.where(rows["label"] == 0, -beyond))


def _told(said: str, label: str) -> dict[str, tuple[str, str]]:
    told = {"label": ("label", label), said: (said, "mean"), "tested": (said, "size")}
    return told | {name: (name, "first") for name in ("repeat", "fold", *_KNOWN)}
