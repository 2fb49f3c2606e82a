"""The record of an experiment: the predictions of every method for every test subject, in one table."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd

from monai_cae.evaluation.pooled import DEFAULT_THRESHOLD
from monai_cae.files import replacing

if TYPE_CHECKING:  # whoever compares finished runs needs no PyTorch
    from monai_cae.targets import Target

NETWORK = "network"
_ABOUT = ("cdr", "age", "sex")


def pool(
    results: Sequence[Mapping[str, Any]],
    output: Path,
    target: Target,
    items: Sequence[Mapping[str, Any]] | None = None,
    scans: str = "predictions.csv",
) -> pd.DataFrame:
    """Read the test predictions of all parts, and write them as one table, `output/predictions.csv`.

    Args:
        results: what the parts left, see `protocol`.
        output: the experiment's folder.
        target: what is predicted.
        items: the tested, where their datalist is not in the parts' folders.
        scans: name of the stage's own table in them.

    Returns:
        A row per method and tested subject, with columns as in `monai_cae.evaluation.pooled`, but for what is
        predicted, which the target names. A subject with several scans in a part has the mean of their predictions.
    """
    tables = [
        table.assign(method=method, repeat=part["repeat"], fold=part["fold"], threshold=threshold)
        for part in results
        for method, table, threshold in _tables(part, output / part["folder"], target, items, scans)
    ]
    decided = ["threshold"] if target.binary else []
    columns = ["method", "subject", "repeat", "fold", "label", target.column, *decided, *_ABOUT]
    record = pd.concat(tables, ignore_index=True)[columns]
    with replacing(output / "predictions.csv") as temporary:
        record.to_csv(temporary, index=False)
    return record


def read_sets(folder: Path, hash_ids: bool) -> dict[str, list[dict[str, Any]]]:
    """The sets of a part's datalist, with pseudonyms where its predictions have them."""
    from monai_cae.data.cohort.pseudonyms import with_pseudonyms  # whoever compares finished runs needs no MONAI
    from monai_cae.data.splits.datalists import SETS

    content = json.loads((folder / "datalist.json").read_text(encoding="utf-8"))
    return {name: with_pseudonyms(content[name]) if hash_ids else content[name] for name in SETS}


def _tables(
    part: Mapping[str, Any], folder: Path, target: Target, items: Sequence[Mapping[str, Any]] | None, scans: str
) -> Iterator[tuple[str, pd.DataFrame, float]]:
    items = items or read_sets(folder, part.get("hash_ids", False))["test"]
    people = {item["subject"]: {key: item.get(key) for key in _ABOUT} for item in items}
    about = pd.DataFrame.from_dict(people, orient="index")
    for method in (NETWORK, *part["variants"]):
        threshold = part["steps"][method]["results"]["evaluate"].get("threshold", DEFAULT_THRESHOLD)
        yield method, _read(folder / _place(method) / scans, about, target), threshold
    for method in part["baselines"]:
        yield method, _read(folder / "baselines" / f"{method}.csv", about, target), DEFAULT_THRESHOLD


def _place(method: str) -> str:
    return "" if method == NETWORK else f"variants/{method}"


def _read(path: Path, about: pd.DataFrame, target: Target) -> pd.DataFrame:
    table = pd.read_csv(path, dtype={"subject": str}, keep_default_na=False)
    label = "first" if target.classes else "mean"  # a number may have changed from scan to scan
    by_subject = table.groupby("subject", sort=False).agg({"label": label, target.column: "mean"})
    return by_subject.join(about).reset_index(names="subject")
