"""From the record of predictions to tables: scores, intervals and comparisons of the methods."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from monai_cae.evaluation import mean_and_sd
from monai_cae.evaluation.caveats import (
    dead_classifier,
    equal_numbers,
    no_better_than_mean,
    out_of_reach,
    worse_than_mean_image,
)
from monai_cae.evaluation.certainty import conformal_sets, selective_accuracy
from monai_cae.evaluation.numbers import compare_numbers
from monai_cae.evaluation.reconstruction_baselines import AUTOENCODER
from monai_cae.evaluation.scores import LABELS
from monai_cae.evaluation.subgroups import subgroup_table
from monai_cae.evaluation.summary import compare
from monai_cae.experiment.explained import explanation_tests
from monai_cae.experiment.plan import STAGES
from monai_cae.experiment.record import NETWORK, pool_places
from monai_cae.experiment.wording import readable
from monai_cae.files import replacing
from monai_cae.targets import Target
from monai_cae.training.results.samples import Places, sample_scores, scores_of

_WITHOUT_INDEX = ("subgroups", "certainty", "selective", "explanations")
ENOUGH_REPEATS = 5  # the paper's; an SD of four is off by a third, one time in three


@dataclass(frozen=True)
class Results:
    """The tables of an experiment.

    Attributes:
        target: what was predicted.
        record: see `record.pool`.
        scores: index (method, score), columns of `monai_cae.evaluation.summary.summarise`.
        comparisons: index (against, score), columns of `monai_cae.evaluation.summary.compare`: the network
            against each.
        subgroups: the network's, see `monai_cae.evaluation.subgroups`.
        reconstruction: autoencoder, those of variants, and trivial codecs, means over the parts.
        sample_scores: index (method, sample, score): what each sample of an image scores by itself, where they vote;
            see `monai_cae.training.results.samples.sample_scores`.
        places: see `record.pool_places`.
        training_subjects: mean number over the parts.
        shares: of the learning curves, see `Plan.shares`.
        caveats: what a reader has to know before a number is quoted.
        summary: all of it as plain data, for summary.json.
        certainty: of a binary target, a row per method and error rate of its conformal sets, see
            `monai_cae.evaluation.certainty`; empty for one test set.
        selective: of a binary target, a row per method and share of subjects that are answered.
        trials: of a search, see `monai_cae.experiment.searching.trials_of`.
        explanations: see `monai_cae.experiment.explained.explanation_tests`.
    """

    target: Target
    record: pd.DataFrame
    scores: pd.DataFrame
    comparisons: pd.DataFrame
    subgroups: pd.DataFrame
    reconstruction: pd.DataFrame
    sample_scores: pd.DataFrame
    places: Places | None
    training_subjects: float
    shares: Mapping[str, Mapping[str, float]]
    caveats: list[str]
    summary: dict[str, Any]
    certainty: pd.DataFrame = field(default_factory=pd.DataFrame)
    selective: pd.DataFrame = field(default_factory=pd.DataFrame)
    trials: pd.DataFrame = field(default_factory=pd.DataFrame)
    explanations: pd.DataFrame = field(default_factory=pd.DataFrame)

    @property
    def methods(self) -> list[str]:
        """The network first, then the others in the order of the settings."""
        return list(dict.fromkeys(self.record["method"]))

    def of(self, method: str) -> pd.DataFrame:
        """The predictions of one method."""
        return self.record[self.record["method"] == method]


def compute(
    record: pd.DataFrame,
    samples: pd.DataFrame,
    results: Sequence[Mapping[str, Any]],
    output: Path,
    *,
    target: Target,
    seed: int,
    seen_before: int | None,
) -> Results:
    """Score and compare all methods, and write the tables beside the record.

    Args:
        record: see `record.pool`.
        samples: see `record.pool_samples`.
        results: what the parts left, see `protocol`.
        output: scores.csv, comparisons.csv, subgroups.csv, reconstruction.csv and sample_scores.csv are written there.
        target: what was predicted; methods are compared where it is binary or a number, subgroups told apart where it
            is binary.
        seed: of the bootstrap.
        seen_before: how many earlier experiments have scored the same test sets; None where that is not known.
    """
    by_method = {method: rows.drop(columns="method") for method, rows in record.groupby("method", sort=False)}
    ours = by_method[NETWORK]
    scores = {method: scores_of(rows, target, seed) for method, rows in by_method.items()}
    n_train, n_test = (float(np.mean([part["subjects"][name] for part in results])) for name in ("training", "test"))
    if "fitted_loss" in results[0]["steps"][NETWORK]["results"]["train"]:  # learn linear_probe
        n_train += float(np.mean([part["subjects"]["validation"] for part in results]))
    against = compare if target.binary else compare_numbers
    comparisons = {
        method: against(ours, rows, np.random.default_rng(seed), n_train, n_test)
        for method, rows in by_method.items()
        if method != NETWORK and (target.binary or target.number)
    }
    tables = {
        "scores": pd.concat(scores, names=["method"]),
        "comparisons": pd.concat(comparisons, names=["against"]) if comparisons else pd.DataFrame(),
        "subgroups": subgroups_of(ours, seed) if target.binary else pd.DataFrame(),
        "reconstruction": _reconstruction(results, output),
        "sample_scores": samples_scored(samples, target, seed),
        "explanations": explanation_tests([output / part["folder"] for part in results]),
        **(certainty_of(by_method, seed) if target.binary else {}),
    }
    for name, table in tables.items():
        if not table.empty:
            with replacing(output / f"{name}.csv") as temporary:
                table.to_csv(temporary, float_format="%.5g", index=name not in _WITHOUT_INDEX)
    caveats = _caveats(record, results, tables["scores"], tables["reconstruction"], seen_before, target)
    shares = results[0]["shares"]
    return Results(
        target,
        record,
        **tables,
        training_subjects=n_train,
        shares=shares,
        caveats=caveats,
        places=pool_places(results, samples, output),
        summary=_summary(tables, results, caveats),
    )


def samples_scored(samples: pd.DataFrame, target: Target, seed: int) -> pd.DataFrame:
    """See `Results.sample_scores`; empty where no samples vote."""
    if samples.empty:
        return samples
    scored = {method: sample_scores(rows, target, seed) for method, rows in samples.groupby("method", sort=False)}
    return pd.concat(scored, names=["method"])


def certainty_of(by_method: Mapping[str, pd.DataFrame], seed: int) -> dict[str, pd.DataFrame]:
    """`Results.certainty` and `Results.selective`."""
    sets = [conformal_sets(rows).assign(method=method) for method, rows in by_method.items()]
    curves = [selective_accuracy(rows, seed).assign(method=method) for method, rows in by_method.items()]
    found = {"certainty": pd.concat(sets, ignore_index=True), "selective": pd.concat(curves, ignore_index=True)}
    return {name: table[["method", *table.columns.drop("method")]] for name, table in found.items()}


def subgroups_of(ours: pd.DataFrame, seed: int) -> pd.DataFrame:
    graded = ours["cdr"].notna()
    told_by_cdr = graded.all() and ((ours["cdr"] > 0) == (ours["label"] == 1)).all()
    by = [name for name in ("cdr", "age", "sex") if (told_by_cdr if name == "cdr" else ours[name].notna().any())]
    return subgroup_table(ours, np.random.default_rng(seed), by=by) if by else pd.DataFrame()


def _reconstruction(results: Sequence[Mapping[str, Any]], output: Path) -> pd.DataFrame:
    """The network's autoencoder, those of variants with one of their own for images of as many pixels, and codecs."""
    tables = [_reconstructed(part, output) for part in results]
    together = pd.concat(tables, ignore_index=True)
    return together.groupby("reconstruction", sort=False).mean()


def _reconstructed(part: Mapping[str, Any], output: Path) -> pd.DataFrame:
    folder = output / part["folder"]
    table = pd.read_csv(folder / "reconstruction.csv")
    ours, codecs = (table[(table["reconstruction"] == AUTOENCODER) == wanted] for wanted in (True, False))
    for variant in part["variants"]:
        if STAGES[0] in part["steps"][variant]["results"]:
            other = pd.read_csv(folder / "variants" / variant / "reconstruction.csv").iloc[:1]
            pixels = [float((one["code_size"] / one["per_pixel"]).iloc[0]) for one in (ours, other)]
            if math.isclose(*pixels, rel_tol=1e-3):  # both are rounded
                name = f"{AUTOENCODER}, {readable(variant)}"
                ours = pd.concat([ours, other.assign(reconstruction=name)], ignore_index=True)
    return pd.concat([ours, codecs], ignore_index=True)


def _caveats(
    record: pd.DataFrame,
    results: Sequence[Mapping[str, Any]],
    scores: pd.DataFrame,
    reconstruction: pd.DataFrame,
    seen_before: int | None,
    target: Target,
) -> list[str]:
    return [
        *_of_sets(results, record["repeat"].nunique(), seen_before),
        *(_of_classifier(record, scores) if target.binary else ()),
        *(_of_number(record, scores, target) if target.number else ()),
        *worse_than_mean_image(*reconstruction.loc[[AUTOENCODER, "mean image"], "psnr"]),
        *(_of_others(record) if target.binary else ()),
    ]


def _of_sets(results: Sequence[Mapping[str, Any]], repeats: int, seen_before: int | None) -> list[str]:
    leaks = sum(part["steps"][NETWORK]["results"]["evaluate"]["leaks"] for part in results)
    found = []
    if leaks:
        found.append(f"LEAKY: {leaks} leaks between the sets, the scores are worthless.")
    left_out = max(part["steps"][NETWORK]["results"]["evaluate"]["scans_left_out"] for part in results)
    if left_out:
        found.append(f"SCANS LEFT OUT: {left_out}, as they can't be used; the audit of each part says which and why.")
    if seen_before is None:
        found.append(
            "TEST SETS PERHAPS SEEN BEFORE: MLflow did not answer, so it is not known whether earlier experiments "
            "scored the same test subjects."
        )
    elif seen_before:
        times = "once" if seen_before == 1 else f"{seen_before} times"
        found.append(
            f"TEST SETS SEEN BEFORE: {times}, by earlier experiments here on the same test subjects. Choosing the "
            "best of several by its test score tunes on the test set, and its score is then too high."
        )
    if repeats < ENOUGH_REPEATS:
        what = "one repeat" if repeats == 1 else f"{repeats} repeats"
        found.append(f"FEW REPEATS: {what}; too few to tell how much scores vary with the split and the weights.")
    if results[0].get("given") and repeats > 1:
        found.append(
            "GIVEN SETS: they are the same in every repeat, so SD and corrected t tests show what other weights do, "
            "not other splits."
        )
    return found


def _of_classifier(record: pd.DataFrame, scores: pd.DataFrame) -> list[str]:
    found = []
    for score in ("accuracy", "auc"):
        row = scores.loc[(NETWORK, score)]
        if row["note"]:
            found.append(f"About the {LABELS[score]}: {row['note']}.")
    found += _dead(record[record["method"] == NETWORK])
    return found + out_of_reach(scores.loc[(NETWORK, "calibration_slope"), "mean"])


def _of_number(record: pd.DataFrame, scores: pd.DataFrame, target: Target) -> list[str]:
    """Of the test sets, and of the R2 that stands in the table."""
    ours = record[record["method"] == NETWORK]
    equal = _in_sets(ours, lambda rows: equal_numbers(rows["label"], rows[target.column], target.name))
    return equal + no_better_than_mean(float(scores.loc[(NETWORK, "r2"), "mean"]))


def _of_others(record: pd.DataFrame) -> list[str]:
    dead = [method for method, rows in record.groupby("method", sort=False) if _one_class_only(rows)]
    others = [method for method in dead if method not in (NETWORK, "majority")]
    said = f"All subjects in one class, in at least one test set: {', '.join(map(readable, others))}."
    return [said] if others else []


def _dead(ours: pd.DataFrame) -> list[str]:
    """What `dead_classifier` says of the test sets, and of how many."""
    return _in_sets(ours, lambda rows: dead_classifier(rows["label"], rows["probability"], rows["threshold"].iloc[0]))


def _in_sets(ours: pd.DataFrame, told: Callable[[pd.DataFrame], list[str]]) -> list[str]:
    sets = [rows for _, rows in ours.groupby(["repeat", "fold"])]
    said = Counter(sentence for rows in sets for sentence in told(rows))
    where = f" This holds in {{}} of {len(sets)} test sets." if len(sets) > 1 else ""
    return [sentence + where.format(times) for sentence, times in said.items()]


def _one_class_only(rows: pd.DataFrame) -> bool:
    taken = (rows["probability"] >= rows["threshold"]).groupby([rows["repeat"], rows["fold"]])
    return bool((taken.nunique() == 1).any())


def _summary(
    tables: Mapping[str, pd.DataFrame], results: Sequence[Mapping[str, Any]], caveats: Sequence[str]
) -> dict[str, Any]:
    evaluated = [part["steps"][NETWORK]["results"]["evaluate"] for part in results]
    reconstructed = {}
    for name in ("test_mse", "test_psnr", "test_psnr_brain", "test_ssim", "test_ssim_brain"):
        mean, sd = mean_and_sd([np.nan if one[name] is None else one[name] for one in evaluated])
        reconstructed[name] = {"mean": mean, "sd": sd}
    return {
        "caveats": list(caveats),
        "metrics": reconstructed,
        "scores": _nested(tables["scores"]),
        "comparisons": _nested(tables["comparisons"]),
        "subgroups": tables["subgroups"].to_dict("records"),
        "reconstruction": tables["reconstruction"].to_dict("index"),
        **{name: tables[name].to_dict("records") for name in ("certainty", "selective") if name in tables},
    }


def _nested(table: pd.DataFrame) -> dict[str, dict[str, Any]]:
    nested: dict[str, dict[str, Any]] = {}
    for row in table.reset_index().to_dict("records") if len(table) else ():
        outer, inner = (row.pop(name) for name in list(row)[:2])
        nested.setdefault(outer, {})[inner] = row
    return nested
