"""The report of an experiment: on the terminal, as pages, in MLflow."""

from __future__ import annotations

import math
import re
import shlex
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pandas as pd

from monai_cae import DISCLAIMER
from monai_cae.data.splits.datalists import SETS
from monai_cae.evaluation.numbers import COMPARED_NUMBER, PERMUTATIONS
from monai_cae.evaluation.style import save_figure
from monai_cae.experiment.card import experiment_card, write_card
from monai_cae.experiment.earlier import TABLES
from monai_cae.experiment.figures import drawings
from monai_cae.experiment.misjudged import write_errors
from monai_cae.experiment.page import PAGE, experiment_page
from monai_cae.experiment.record import NETWORK
from monai_cae.experiment.results import Results
from monai_cae.experiment.wording import columns, for_templates, markdown, p_value, readable, telling
from monai_cae.files import write_text
from monai_cae.templates import render
from monai_cae.terminal import duration, say, width
from monai_cae.tracking import TrackedRun, program, where_to_see
from monai_cae.training.stages.run import data_kind

_RECONSTRUCTION = {"test_psnr": "PSNR", "test_psnr_brain": "PSNR in the brain"}


def print_results(summary: Mapping[str, Any], results: Results, tracked: TrackedRun, output: Path, first: str) -> None:
    """Print what was found, what has to be known about it, and what to do next.

    Args:
        summary: as in summary.json.
        results: the tables.
        tracked: the experiment's run, closed.
        output: the experiment's folder.
        first: folder of the first part, whose network is packaged in the example.
    """
    command, run = program("monai-cae"), shlex.quote(str(output / first))
    parts = output / "repeat_*" / "fold_*" if summary["folds"] > 1 else output / "repeat_*"
    seen, at = where_to_see(tracked, output)
    print(f"\nexperiment finished on {data_kind(summary['synthetic'], summary['leaks'])}")
    say(f"  subjects           {_subjects(summary, results)}", indent=" " * 21)
    for label, value in _reconstruction(summary).items():
        print(f"  {label:<19}{value}")
    print("", *_fitting(results, width() or 1000), "", sep="\n")
    for text in (_explained(results), *_chosen(summary, results), *(f"! {caveat}" for caveat in results.caveats)):
        say(f"  {text}")
    lines = [
        "",
        f"  time               {duration(summary['seconds'])}",
        f"  page               {output / PAGE}, {output / 'results.md'}",
        f"  figures            {output / 'figures'}, {parts}/figures",
        f"  checkpoints        {parts}/models",
        f"  every prediction   {output / 'predictions.csv'}",
        f"  summary            {output / 'summary.json'}",
        "",
        f"open in a browser:   {(output / PAGE).resolve().as_uri()}",
        f"see the runs:        {seen}",
        f"                     {at}",
        f"predict new scans:   {command} predict {run} SCANS PREDICTED",
        f"share the network:   {command} package cae.zip --output-dir {run}",
        "",
        DISCLAIMER,
    ]
    print("\n".join(lines), flush=True)


def _chosen(summary: Mapping[str, Any], results: Results) -> list[str]:
    """In a line each, how often each candidate was chosen, and by how much the best in hindsight looks better."""
    if not (worth := summary.get("selection")):
        return []
    if "parameters" in worth:
        score = f"{results.target.score_names[worth['metric']]} {worth['nested']:.3f}"
        return [
            f"chosen within the training subjects, by {worth['tried']} trials in each split: "
            f"{score} on the test sets; the inner scores look better by {worth['optimism']:+.3f}"
        ]
    often = sorted(worth["candidates"].items(), key=lambda item: -item[1]["chosen"])
    metric = results.target.score_names[worth["metric"]]
    taken = ", ".join(f"{readable(name)} in {one['chosen']}" for name, one in often if one["chosen"])
    best, score = readable(worth["afterwards"]), f"{metric} {worth['non_nested']:.3f}"
    return [
        f"chosen within the training subjects: {taken} of {worth['parts']} splits",
        f"not nested: {best}, the best on the test sets, has {score}; chosen without them {worth['nested']:.3f}",
    ]


def _fitting(results: Results, width: int) -> list[str]:
    """The table of the methods; on a narrow terminal without its third score."""
    wide = columns(_headline_rows(results))
    return wide if max(map(len, wide)) <= width else columns(_headline_rows(results, most=2), gap=2)


def log_results(tracked: TrackedRun, summary: Mapping[str, Any], results: Results, output: Path) -> None:
    """Write the page and the figures, and put everything into the experiment's MLflow run.

    Args:
        tracked: the experiment's run, open.
        summary: as in summary.json.
        results: the tables.
        output: the experiment's folder; results.md, report.html, model_card.md, errors.csv and the folder `figures` are
            written there.
    """
    page = results_page(summary, results)
    write_text(output / "results.md", page)
    errors = write_errors(results, output)
    head = page[: page.index("## All scores")]  # MLflow cuts a description after 8,000 characters
    tracked.describe(
        f"{_spaced(head)}All scores: results.md.",
        {"data": "synthetic" if summary["synthetic"] else "real", "leaks": str(summary["leaks"])},
    )
    metrics: dict[str, float] = {}
    for name, spread in summary["metrics"].items():
        metrics |= {f"{name}_mean": spread["mean"], f"{name}_sd": spread["sd"]}
    for score, row in results.scores.loc[NETWORK].iterrows():
        metrics |= {f"test_{score}_{part}": float(row[part]) for part in ("mean", "sd", "low", "high")}
    for score in results.target.headline:  # MLflow draws what has one name before the slash side by side
        means = results.scores.xs(score, level="score")["mean"]
        metrics |= {f"{score}/{method}": float(means[method]) for method in results.methods}
    worth = summary.get("selection", {})
    told = ("nested", "non_nested", "gain", "optimism")
    metrics |= {f"selection/{name}": worth[name] for name in told if name in worth}
    # short names, which MLflow's columns begin with
    metrics |= {score: metrics[f"{score}/{NETWORK}"] for score in results.target.headline}
    metrics["psnr"] = summary["metrics"]["test_psnr"]["mean"]
    tracked.log_metrics({name: value for name, value in metrics.items() if math.isfinite(value)})
    for path in (output / name for name in ("summary.json", "results.md", *(f"{table}.csv" for table in TABLES))):
        if path.is_file():
            tracked.log_file(path)
    drawn = drawings(summary, results)
    for name, figure in drawn.items():
        path = output / "figures" / f"{name}.png"
        save_figure(figure, path)
        tracked.log_file(path, "figures")
    write_text(output / PAGE, experiment_page(summary, results, output, drawn, errors))
    tracked.log_file(output / PAGE)
    if results.target.binary or results.target.number:
        tracked.log_file(write_card(output / "model_card.md", experiment_card(summary, results, output)))


def results_page(summary: Mapping[str, Any], results: Results) -> str:
    """The results as Markdown: MLflow's description of the run, and results.md.

    Args:
        summary: as in summary.json.
        results: the tables.
    """
    target = results.target
    return render(
        "results.md",
        data=data_kind(summary["synthetic"], summary["leaks"]),
        subjects=_subjects(summary, results),
        disclaimer=DISCLAIMER,
        summary=summary,
        results=results,
        target=target,
        headline=markdown(_headline_rows(results)),
        explained=_explained(results),
        NETWORK=NETWORK,
        permutations=PERMUTATIONS,
        **for_templates(target),
    )


def _spaced(page: str) -> str:
    """With room at the end of every cell: MLflow's tables have no space between their columns."""
    return re.sub(r"^\| .*$", lambda row: row[0].replace(" |", "&ensp; |"), page, flags=re.MULTILINE)


def _subjects(summary: Mapping[str, Any], results: Results) -> str:
    people = results.of(NETWORK).groupby("subject")["label"].first()
    tested = f"{len(people)} tested"
    if results.target.binary:
        tested += f" ({people.sum()} AD, {len(people) - people.sum()} HC)"
    sets = ", ".join(f"{summary['subjects'][name]} {name}" for name in SETS)
    repeats, folds = summary["repeats"], summary["folds"]
    scheme = f"{repeats} x {folds} folds" if folds > 1 else f"{repeats} hold-out repeat{'s' * (repeats > 1)}"
    return f"{tested}, {scheme} of {sets}"


def _reconstruction(summary: Mapping[str, Any]) -> dict[str, str]:
    told = {}
    for name, label in _RECONSTRUCTION.items():
        spread = summary["metrics"][name]
        sd = f" ± {spread['sd']:.2f}" if math.isfinite(spread["sd"]) else ""
        told[label] = f"{spread['mean']:.2f}{sd} dB"
    return told


def _headline_rows(results: Results, most: int | None = None) -> list[list[str]]:
    target, several = results.target, not results.comparisons.empty
    shown = target.headline[:most]
    tested = {"accuracy": "p acc.", "auc": "p AUC"} if target.binary else {COMPARED_NUMBER: "p"}
    tested = tested if several else {}
    rows = [["method", *(target.score_names[name] for name in shown), *tested.values()]]
    for method in results.methods:
        scores = results.scores.loc[method]
        row = [readable(method), *(telling(target)(scores.loc[name]) for name in shown)]
        rows.append([*row, *(_p_value(results.comparisons, method, name) for name in tested)])
    return rows


def _explained(results: Results) -> str:
    target = results.target
    if not (target.binary or target.number):
        return "mean ± SD over the repeats, of the test subjects of each"
    text = "95 % intervals over resampled subjects" + (", Wilson's where they are few" if target.binary else "")
    if len(results.methods) == 1:
        return text + "; with_baselines.yaml adds simpler methods"
    few = _by_paired_test(results.comparisons)
    paired = "McNemar's and DeLong's test" if target.binary else "Wilcoxon's test of the absolute errors"
    test = paired if few else "Nadeau and Bengio's corrected t test"
    return f"{text}; p: {test} against the network, two-sided"


def _by_paired_test(comparisons: pd.DataFrame) -> bool:
    return bool(comparisons["p_corrected_t"].isna().all())


def _p_value(comparisons: pd.DataFrame, method: str, score: str) -> str:
    if method == NETWORK:
        return ""
    return p_value(comparisons.loc[(method, score), "p_paired" if _by_paired_test(comparisons) else "p_corrected_t"])
