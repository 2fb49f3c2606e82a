"""The record of an experiment: the predictions of every method for every test subject, in one table."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from monai_cae.evaluation.pooled import DEFAULT_THRESHOLD, mean_of_scans
from monai_cae.files import replacing

if TYPE_CHECKING:  # whoever compares finished runs needs no PyTorch
    from monai_cae.targets import Target
    from monai_cae.training.results.samples import Places

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


def pool_samples(
    results: Sequence[Mapping[str, Any]], output: Path, target: Target, scans: str = "samples.csv"
) -> pd.DataFrame:
    """Read what the samples of images said, where they voted, and write it as one table, `output/samples.csv`.

    Args:
        results, output, target: see `pool`.
        scans: name of the stage's own table in the parts.

    Returns:
        A row per method, tested subject and sample, the mean of the subject's scans; empty where no network's samples
        vote, and then nothing is written.
    """
    tables = []
    for part in results:
        for method in (NETWORK, *part["variants"]):
            path = output / part["folder"] / _place(method) / scans
            if path.is_file():
                table = pd.read_csv(path, dtype={"subject": str, "sample": str}, keep_default_na=False)
                about = {"method": method, "repeat": part["repeat"], "fold": part["fold"]}
                decided = {"threshold": _threshold(part, method)} if target.binary else {}
                tables.append(mean_of_scans(table, target.column, bool(target.classes)).assign(**about, **decided))
    if not tables:
        return pd.DataFrame()
    first = ["method", "subject", "repeat", "fold", "sample", "label", target.column, "weight"]
    record = pd.concat(tables, ignore_index=True)
    record = record[[*first, *(name for name in record if name not in first)]]
    with replacing(output / "samples.csv") as temporary:
        record.to_csv(temporary, index=False)
    return record


def pool_places(results: Sequence[Mapping[str, Any]], samples: pd.DataFrame, output: Path) -> Places | None:
    """Where the samples of the first method whose samples vote lie, over the mean of all parts' test images.

    Args:
        results, output: see `pool`.
        samples: see `pool_samples`.

    Returns:
        None where no samples vote, or theirs are no patches of a volume.
    """
    from monai_cae.training.results.samples import PLACES, Places

    if samples.empty:
        return None
    folder = _place(samples["method"].iloc[0])
    paths = [output / part["folder"] / folder / PLACES for part in results]
    if not all(path.is_file() for path in paths):  # none, or parts that an older version has finished
        return None
    found = [Places.read(path) for path in paths]
    tested = samples.groupby(["repeat", "fold"])["subject"].nunique()
    weights = [tested.loc[(part["repeat"], part["fold"])] for part in results]
    return Places(np.average([one.volume for one in found], axis=0, weights=weights), found[0].boxes)


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
        yield method, _read(folder / _place(method) / scans, about, target), _threshold(part, method)
    for method in part["baselines"]:
        yield method, _read(folder / "baselines" / f"{method}.csv", about, target), DEFAULT_THRESHOLD


def _threshold(part: Mapping[str, Any], method: str) -> float:
    threshold: float = part["steps"][method]["results"]["evaluate"].get("threshold", DEFAULT_THRESHOLD)
    return threshold


def _place(method: str) -> str:
    return "" if method == NETWORK else f"variants/{method}"


def _read(path: Path, about: pd.DataFrame, target: Target) -> pd.DataFrame:
    table = pd.read_csv(path, dtype={"subject": str}, keep_default_na=False)
    label = "first" if target.classes else "mean"  # a number may have changed from scan to scan
    by_subject = table.groupby("subject", sort=False).agg({"label": label, target.column: "mean"})
    return by_subject.join(about).reset_index(names="subject")
