"""How an experiment is told: on the terminal, as a page in Markdown, in MLflow."""

from __future__ import annotations

import math
import re
import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from monai_cae import DISCLAIMER
from monai_cae.data.splits.datalists import SETS
from monai_cae.evaluation.pooled import pooled
from monai_cae.evaluation.style import save_figure
from monai_cae.experiment.card import experiment_card, write_card
from monai_cae.experiment.earlier import TABLES
from monai_cae.experiment.figures import drawings
from monai_cae.experiment.methods import LEGEND
from monai_cae.experiment.record import NETWORK
from monai_cae.experiment.results import Results
from monai_cae.experiment.wording import HEADLINE, LABELS, columns, markdown, p_value, readable, with_interval
from monai_cae.files import replacing
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
    for text in (_explained(results), *(f"! {caveat}" for caveat in results.caveats)):
        say(f"  {text}")
    lines = [
        "",
        f"  time               {duration(summary['seconds'])}",
        f"  page               {output / 'results.md'}",
        f"  figures            {output / 'figures'}, {parts}/figures",
        f"  checkpoints        {parts}/models",
        f"  every prediction   {output / 'predictions.csv'}",
        f"  summary            {output / 'summary.json'}",
        "",
        f"see the runs:        {seen}",
        f"                     {at}",
        f"predict new scans:   {command} predict {run} SCANS PREDICTED",
        f"share the network:   {command} package cae.zip --output_dir {run}",
        "",
        DISCLAIMER,
    ]
    print("\n".join(lines), flush=True)


def _fitting(results: Results, width: int) -> list[str]:
    """The table of the methods; on a narrow terminal without its third score."""
    wide = columns(_headline_rows(results))
    return wide if max(map(len, wide)) <= width else columns(_headline_rows(results, HEADLINE[:2]), gap=2)


def log_results(tracked: TrackedRun, summary: Mapping[str, Any], results: Results, output: Path) -> None:
    """Write the page and the figures, and put everything into the experiment's MLflow run.

    Args:
        tracked: the experiment's run, open.
        summary: as in summary.json.
        results: the tables.
        output: the experiment's folder; results.md, model_card.md and the folder `figures` are written there.
    """
    page = results_page(summary, results)
    with replacing(output / "results.md") as temporary:
        temporary.write_text(page, encoding="utf-8")
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
    for score in HEADLINE:  # MLflow draws what has one name before the slash side by side
        means = results.scores.xs(score, level="score")["mean"]
        metrics |= {f"{score}/{method}": float(means[method]) for method in results.methods}
    # short names, which MLflow's columns begin with
    metrics |= {score: metrics[f"{score}/{NETWORK}"] for score in HEADLINE}
    metrics["psnr"] = summary["metrics"]["test_psnr"]["mean"]
    tracked.log_metrics({name: value for name, value in metrics.items() if math.isfinite(value)})
    for path in (output / name for name in ("summary.json", "results.md", *(f"{table}.csv" for table in TABLES))):
        if path.is_file():
            tracked.log_file(path)
    for name, figure in drawings(summary, results).items():
        path = output / "figures" / f"{name}.png"
        save_figure(figure, path)
        tracked.log_file(path, "figures")
    tracked.log_file(write_card(output / "model_card.md", experiment_card(summary, results, output)))


def results_page(summary: Mapping[str, Any], results: Results) -> str:
    """The results as Markdown: MLflow's description of the run, and results.md.

    Args:
        summary: as in summary.json.
        results: the tables.
    """
    parts = [
        f"# Results on {data_kind(summary['synthetic'], summary['leaks'])}",
        f"{_subjects(summary, results)}. {DISCLAIMER}",
        "\n".join(f"- **{caveat.split(':')[0]}**:{caveat.partition(':')[2]}" for caveat in results.caveats),
        "## Methods on the same test sets",
        markdown(_headline_rows(results)),
        _explained(results),
        "## What the methods are",
        "\n".join(f"- **{readable(method)}**: {summary['methods'][method]}" for method in results.methods),
        "## All scores",
        markdown(_score_rows(results)),
        _means_section(results),
        _comparison_section(results),
        _subgroup_section(results),
        "## Reconstruction of the test images",
        markdown(_reconstruction_rows(results)),
        "Means over the test images. In the brain: pixels above 0.03 of the image's range. The code of the autoencoder "
        "is larger than the image: its PSNR is no measure of compression.",
        "## Abbreviations",
        "\n".join(f"- {line}" for line in LEGEND),
    ]
    return "\n\n".join(part for part in parts if part) + "\n"


def _spaced(page: str) -> str:
    """With room at the end of every cell: MLflow's tables have no space between their columns."""
    return re.sub(r"^\| .*$", lambda row: row[0].replace(" |", "&ensp; |"), page, flags=re.MULTILINE)


def _subjects(summary: Mapping[str, Any], results: Results) -> str:
    ours = pooled(results.of(NETWORK))
    patients = int(ours.labels.sum())
    sets = ", ".join(f"{summary['subjects'][name]} {name}" for name in SETS)
    repeats, folds = summary["repeats"], summary["folds"]
    scheme = f"{repeats} x {folds} folds" if folds > 1 else f"{repeats} hold-out repeat{'s' * (repeats > 1)}"
    return f"{len(ours.labels)} tested ({patients} AD, {len(ours.labels) - patients} HC), {scheme} of {sets}"


def _reconstruction(summary: Mapping[str, Any]) -> dict[str, str]:
    told = {}
    for name, label in _RECONSTRUCTION.items():
        spread = summary["metrics"][name]
        sd = f" ± {spread['sd']:.2f}" if math.isfinite(spread["sd"]) else ""
        told[label] = f"{spread['mean']:.2f}{sd} dB"
    return told


def _headline_rows(results: Results, shown: Sequence[str] = HEADLINE) -> list[list[str]]:
    several = len(results.methods) > 1
    rows = [["method", *(LABELS[name] for name in shown), *(["p acc.", "p AUC"] if several else [])]]
    for method in results.methods:
        scores = results.scores.loc[method]
        row = [readable(method), *(with_interval(scores.loc[name]) for name in shown)]
        if several:
            row += [_p_value(results.comparisons, method, name) for name in ("accuracy", "auc")]
        rows.append(row)
    return rows


def _score_rows(results: Results) -> list[list[str]]:
    ours = results.scores.loc[NETWORK]
    rows = [[label, with_interval(ours.loc[name]), _number(ours.loc[name, "sd"])] for name, label in LABELS.items()]
    return [["the network's", "mean and 95 % interval", "SD over repeats"], *rows]


def _means_section(results: Results) -> str:
    """Everybody's means, a line per method: a column per method would be wider than any page."""
    if len(results.methods) == 1:
        return ""
    rows = [["method", *LABELS.values()]]
    for method in results.methods:
        rows.append([readable(method), *(_number(results.scores.loc[(method, name), "mean"]) for name in LABELS)])
    return f"{markdown(rows)}\n\nMeans over the repeats; intervals and SD in scores.csv."


def _number(value: float) -> str:
    return f"{value:.3f}" if math.isfinite(value) else "-"


def _reconstruction_rows(results: Results) -> list[list[str]]:
    rows = [["code", "numbers in it", "per pixel", "PSNR", "PSNR in the brain", "SSIM", "SSIM in the brain"]]
    for code, row in results.reconstruction.iterrows():
        shown = {"psnr": "{:.2f} dB", "psnr_brain": "{:.2f} dB", "ssim": "{:.3f}", "ssim_brain": "{:.3f}"}
        scores = [form.format(row[name]) if not math.isnan(row[name]) else "undefined" for name, form in shown.items()]
        rows.append([str(code), f"{row['code_size']:,.0f}", f"{row['per_pixel']:.3g}", *scores])
    return rows


def _comparison_section(results: Results) -> str:
    if results.comparisons.empty:
        return ""
    rows = [["against", "score", "difference", "95 % interval", "p, corrected t", "p, paired", "paired test"]]
    for (method, score), row in results.comparisons.iterrows():  # type: ignore[misc]  # the index has two levels
        interval = f"{_signed(row['low'])} to {_signed(row['high'])}"
        tested = [p_value(row["p_corrected_t"]), p_value(row["p_paired"]), row["paired_test"]]
        rows.append([readable(method), LABELS[score], _signed(row["difference"]), interval, *tested])
    text = (
        "Positive differences: the network is better. Corrected t: Nadeau and Bengio (2003) over the folds of all "
        "repeats, training included. Paired: exact McNemar (accuracy) and DeLong (AUC) on each subject's mean "
        "prediction, the trained networks as given. No correction for comparing with several methods."
    )
    return f"## Is the difference real?\n\n{markdown(rows)}\n\n{text}"


def _subgroup_section(results: Results) -> str:
    if results.subgroups.empty:
        return ""
    rows = [["group", "subjects", "AD", "score", "mean and 95 % interval"]]
    for row in results.subgroups.to_dict("records"):
        group = f"{row['by'].upper() if row['by'] == 'cdr' else row['by']} {row['group']}"
        score = LABELS[row["score"]]
        rows.append([group, str(row["subjects"]), str(row["patients"]), score, with_interval(row)])
    text = "The network's. AUC of a CDR grade is against all of CDR 0. Small groups: read the interval, not the mean."
    return f"## For whom\n\n{markdown(rows)}\n\n{text}"


def _explained(results: Results) -> str:
    text = "95 % intervals over resampled subjects, Wilson's where they are few"
    if len(results.methods) == 1:
        return text + "; compare with simpler methods by with_baselines.yaml"
    few = _by_paired_test(results.comparisons)
    test = "McNemar's and DeLong's test" if few else "Nadeau and Bengio's corrected t test"
    return f"{text}; p: {test} against the network, two-sided"


def _by_paired_test(comparisons: pd.DataFrame) -> bool:
    return bool(comparisons["p_corrected_t"].isna().all())


def _p_value(comparisons: pd.DataFrame, method: str, score: str) -> str:
    if method == NETWORK:
        return ""
    return p_value(comparisons.loc[(method, score), "p_paired" if _by_paired_test(comparisons) else "p_corrected_t"])


def _signed(value: float) -> str:
    return "-" if math.isnan(value) else f"{value:+.3f}"
