"""A finished network on a cohort that it has not seen: scores with intervals, beside those of its own test set."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd
from matplotlib.figure import Figure

from monai_cae import DISCLAIMER
from monai_cae.data import Sets, recorded_rules
from monai_cae.data.splits.audit import ALIKE, PRETRAINING, TWICE
from monai_cae.data.splits.datalists import read_content
from monai_cae.errors import MonaiCaeError
from monai_cae.evaluation import result_figures
from monai_cae.evaluation.reconstruction_baselines import AUTOENCODER
from monai_cae.evaluation.scores import LABELS
from monai_cae.evaluation.style import save_figure
from monai_cae.experiment.earlier import told_in
from monai_cae.experiment.figures import drawings
from monai_cae.experiment.page import PAGE, external_html
from monai_cae.experiment.record import NETWORK, pool, pool_places, pool_samples
from monai_cae.experiment.results import Results, certainty_of, samples_scored, subgroups_of
from monai_cae.experiment.wording import columns, for_templates, markdown, telling
from monai_cae.files import replacing, sha256_of, unmarked, write_text
from monai_cae.targets import Target
from monai_cae.templates import render
from monai_cae.tracking import TrackedRun, cohort_name
from monai_cae.training import PredictionTable, report_test
from monai_cae.training.results.caveats import data_caveats
from monai_cae.training.results.samples import scores_of
from monai_cae.training.stages.earlier import remove
from monai_cae.training.stages.run import data_kind, write_record

SCANS, SAMPLES = "predictions_scans.csv", "samples_scans.csv"


@dataclass(frozen=True)
class Own:
    """What is known of the test that a network had before, on subjects of the cohort that it was trained on.

    Attributes:
        scores: like `Results.scores` of one method, as far as it is known; empty where nothing is.
        subjects, patients: of that test set; None where that is not known.
        psnr: of its reconstructions, dB; nan where it is not known.
        rules: of patients and controls; "" where they are not known.
    """

    scores: pd.DataFrame
    subjects: int | None = None
    patients: int | None = None
    psnr: float = math.nan
    rules: tuple[str, str] = ("", "")


def report_external(
    *,
    run: TrackedRun,
    table: PredictionTable,
    sets: Sets,
    audit: Mapping[str, Any],
    checkpoint: str,
    pretrained_on: Sequence[str],
    cohort: str,
    datalist: str,
    output_dir: str,
    seed: int,
    synthetic: bool,
    **others: Any,
) -> dict[str, Any]:
    """`report_test`, and what an experiment makes of its test sets: tables, figures, results.md and report.html.

    Args:
        run, table, output_dir, synthetic, **others: see `report_test`; the table was written as predictions_scans.csv.
        sets: everybody is in the test set.
        audit: of them, as plain data.
        checkpoint: the classifier; what lies beside it tells of its own test.
        pretrained_on: hashed IDs of the subjects that it has seen.
        cohort: folder of the cohort.
        datalist: records its rules.
        seed: of the bootstrap.

    Returns:
        What `report_test` returns, with further caveats.
    """
    output, target = Path(output_dir), table.target
    remove(told_in(output), output)
    tested = report_test(run=run, table=table, output_dir=output_dir, synthetic=synthetic, **others)
    content = read_content(Path(datalist))
    rules = recorded_rules({**(content.get("made_from") or {}), **(content.get("recipe") or {})})
    own = own_test(checkpoint, target, seed)
    part = _part({**tested, "threshold": table.threshold}, sets)
    record = pool([part], output, target, items=sets.test, scans=SCANS)
    samples = pool_samples([part], output, target, scans=SAMPLES)
    ours = record.drop(columns="method")
    scores = scores_of(ours, target, seed)
    facts = {"leaks": int(audit["leaks"]), "scans_left_out": len(audit["bad_scans"]), "synthetic": synthetic}
    caveats = _caveats(tested["caveats"], facts, scores, rules, own, pretrained_on, audit)
    results = Results(
        target,
        record,
        scores=pd.concat({NETWORK: scores}, names=["method"]),
        comparisons=pd.DataFrame(),
        subgroups=subgroups_of(ours, seed) if target.binary else pd.DataFrame(),
        reconstruction=pd.read_csv(output / "reconstruction.csv", index_col="reconstruction"),
        training_subjects=0,
        sample_scores=samples_scored(samples, target, seed),
        places=pool_places([part], samples, output),
        shares={},
        selective=certainty_of({NETWORK: ours}, seed)["selective"] if target.binary else pd.DataFrame(),
        caveats=[*data_caveats({"synthetic": synthetic, "leaks": facts["leaks"]}), *caveats],
        summary={},
    )
    notes = [] if sets.hashed else (content.get("recipe") or {}).get("notes", [])  # they give examples of IDs
    summary = _summary(results, own, facts, tested, cohort, rules)
    summary["images_of_training"] = audit["images_of_training"]
    _write(output, results, summary)
    page = external_page(results, own, summary, [*notes, *audit["notes"]])
    write_text(output / "results.md", page)
    drawn = _drawings(results, own, summary)
    for name, figure in drawn.items():
        save_figure(figure, output / "figures" / f"{name}.png")
    write_text(output / PAGE, external_html(page, summary, results, output, drawn))
    for path in told_in(output):
        run.log_file(path, "figures" if path.suffix == ".png" else "")
    known = {f"test_{name}_{end}": float(row[end]) for name, row in scores.iterrows() for end in ("low", "high")}
    run.log_metrics({name: value for name, value in known.items() if math.isfinite(value)})
    print("\n".join(["", *columns(_beside(results, own, target.headline)), "", f"  page  {output / PAGE}"]))
    return {**tested, "caveats": caveats}


def own_test(checkpoint: str | Path, target: Target, seed: int) -> Own:
    """The scores of a network's own test, if they lie beside its weights: with predictions in a run, as numbers alone
    in a package."""
    path = Path(checkpoint).absolute()
    folder = path.parents[1]
    results, datalist, metadata = (
        _json(folder / name) for name in ("results_evaluate.json", "datalist.json", "configs/metadata.json")
    )
    weights = results.get("weights")
    if isinstance(weights, dict) and weights.get("checkpoint") == sha256_of(path):
        return _own_run(folder, results, datalist, target, seed)
    told = metadata.get("eval_metrics")
    told = told if isinstance(told, dict) else {}
    known = {name: told.get(f"test_{name}") for name in target.score_names}
    numbers = {name: float(value) for name, value in known.items() if isinstance(value, (int, float))}
    psnr = told.get("test_psnr")
    return Own(_without_intervals(numbers), psnr=float(psnr) if isinstance(psnr, (int, float)) else math.nan)


def _own_run(folder: Path, results: Mapping[str, Any], datalist: Mapping[str, Any], target: Target, seed: int) -> Own:
    rules = recorded_rules({**(datalist.get("made_from") or {}), **(datalist.get("recipe") or {})})
    psnr = results.get("test_psnr")
    psnr = math.nan if psnr is None else float(psnr)
    name = SCANS if (folder / SCANS).is_file() else "predictions.csv"
    try:
        table = pd.read_csv(folder / name, dtype={"subject": str}, keep_default_na=False)
        label = "first" if target.classes else "mean"
        people = table.groupby("subject").agg({"label": label, target.column: "mean"}).reset_index()
    except (OSError, ValueError, KeyError) as error:
        raise MonaiCaeError(f"{folder / name} is not what evaluate.json writes: run it again") from error
    rows = people.assign(repeat=1, fold=1, threshold=float(results.get("threshold", 0.5)))
    patients = int((rows["label"] == 1).sum()) if target.binary else None
    return Own(scores_of(rows, target, seed), len(rows), patients, psnr, rules)


def _without_intervals(numbers: Mapping[str, float]) -> pd.DataFrame:
    rows = {name: {"mean": value, "sd": math.nan, "low": math.nan, "high": math.nan} for name, value in numbers.items()}
    return pd.DataFrame.from_dict(rows, orient="index").rename_axis("score").assign(note="") if rows else pd.DataFrame()


def _json(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return unmarked(content, path) if isinstance(content, dict) else {}


def _part(tested: Mapping[str, Any], sets: Sets) -> dict[str, Any]:
    """The test as an experiment has its parts."""
    evaluated = {"results": {"evaluate": dict(tested)}}
    return {
        "folder": "", "repeat": 1, "fold": 1, "steps": {NETWORK: evaluated}, "variants": [], "baselines": [],
        "hash_ids": sets.hashed,
    }  # fmt: skip


def _caveats(
    of_test: Sequence[str],
    facts: Mapping[str, Any],
    scores: pd.DataFrame,
    rules: tuple[str, str],
    own: Own,
    pretrained_on: Sequence[str],
    audit: Mapping[str, Any],
) -> list[str]:
    found = []
    if facts["scans_left_out"]:
        found.append(
            f"SCANS LEFT OUT: {facts['scans_left_out']}, as they can't be used; audit.html says which and why."
        )
    unsure = [one["message"] for one in audit["findings"] if one["check"] == PRETRAINING]
    if not pretrained_on or (unsure and not facts["leaks"]):
        why = "the weights do not say" if not pretrained_on else "they were made with another --hash_ids"
        found.append(f"TRAINING UNKNOWN: whether the network has seen these subjects is not known, as {why}.")
    if audit["unplaced"]:
        found.append(
            "PLACE UNSURE: the volumes of the network's training do not record where they lie, as OASIS-1's, and these "
            "do: the slice may lie some millimetres off, and left and right may be exchanged."
        )
    if audit["other_voxels"]:
        found.append(f"OTHER VOXELS: {audit['other_voxels']}; the network sees these brains larger or smaller.")
    alike = [one["message"] for one in audit["findings"] if one["check"] == ALIKE]
    if alike:
        found.append(f"NAMES ALIKE: {alike[0]} (earlier training is the network's); audit.html has all {len(alike)}.")
    twice = [one["message"] for one in audit["findings"] if one["check"] in TWICE and not one["leak"]]
    if twice:
        found.append(f"COUNTED TWICE: {twice[0]}; audit.html has all {len(twice)}. Intervals are too narrow.")
    if any(own.rules) and own.rules != rules:
        found.append(
            f"OTHER LABELS: the network learned {own.rules[0]} against {own.rules[1]}, and is tested on {rules[0]} "
            f"against {rules[1]}."
        )
    for name, row in scores.iterrows():
        if name in ("accuracy", "auc") and row["note"]:
            found.append(f"About the {LABELS[name]}: {row['note']}.")
    return [*of_test, *found]


def _summary(
    results: Results, own: Own, facts: Mapping[str, Any], tested: Mapping[str, Any], cohort: str, rules: tuple[str, str]
) -> dict[str, Any]:
    people = results.record.groupby("subject")["label"].first()
    counted: dict[str, Any] = {"subjects": len(people)}
    if results.target.binary:
        counted |= {"patients": int((people == 1).sum()), "prevalence": float((people == 1).mean())}
    return {
        **facts,
        "cohort": cohort_name(cohort),
        "repeats": 1,
        **counted,
        "rules": list(rules),
        "caveats": results.caveats,
        "threshold": tested.get("threshold"),
        "scores": results.scores.loc[NETWORK].to_dict("index"),
        "reconstruction": results.reconstruction.to_dict("index"),
        "subgroups": results.subgroups.to_dict("records"),
        "own_test": {
            "subjects": own.subjects,
            "patients": own.patients,
            "psnr": own.psnr,
            "rules": list(own.rules),
            "scores": own.scores.to_dict("index"),
        },
    }


def _write(output: Path, results: Results, summary: Mapping[str, Any]) -> None:
    tables = {"scores": results.scores, "subgroups": results.subgroups, "sample_scores": results.sample_scores}
    tables["selective"] = results.selective
    for name, frame in tables.items():
        if not frame.empty:
            with replacing(output / f"{name}.csv") as temporary:
                frame.to_csv(temporary, float_format="%.5g", index=name not in ("subgroups", "selective"))
    write_record(output / "summary.json", summary)


def _beside(results: Results, own: Own, names: Sequence[str]) -> list[list[str]]:
    """Scores of this cohort beside those of the network's own test; the first row is the head."""
    told = telling(results.target)
    scores, psnr = results.scores.loc[NETWORK], results.reconstruction.loc[AUTOENCODER, "psnr"]
    rows = [["", "this cohort", "own test set"]]
    for name in names:
        before = told(own.scores.loc[name]) if name in own.scores.index else "not known"
        rows.append([results.target.score_names[name], told(scores.loc[name]), before])
    return [*rows, ["PSNR", f"{psnr:.2f} dB", f"{own.psnr:.2f} dB" if math.isfinite(own.psnr) else "not known"]]


def external_page(results: Results, own: Own, summary: Mapping[str, Any], notes: Sequence[str]) -> str:
    """The results as Markdown.

    Args:
        results: the tables.
        own: of the network's own test.
        summary: as in summary.json.
        notes: how the cohort was read, and how its volumes differ from those that the paper's slice is of.
    """
    return render(
        "external.md",
        data=data_kind(summary["synthetic"], summary["leaks"]),
        disclaimer=DISCLAIMER,
        summary=summary,
        results=results,
        own=own,
        target=results.target,
        beside=markdown(
            [["score", "this cohort", "own test set"], *_beside(results, own, [*results.target.score_names])[1:]]
        ),
        compared=_compared(**summary["images_of_training"]),
        notes=notes,
        **for_templates(results.target),
    )


def _compared(compared: int, missing: int) -> str:
    """How subjects were compared with those of the training, as the page says it."""
    if not compared:
        return (
            "by their names alone: the images that the network was trained on are not at hand. The same person under "
            "another name would pass unnoticed"
        )
    others = f"; {missing} others are not at hand, and of these the names were compared alone" if missing else ""
    return f"by their names, and with the {compared} images of the training by their pixels{others}"


def _drawings(results: Results, own: Own, summary: Mapping[str, Any]) -> dict[str, Figure]:
    """The experiment's figures that one test set has, and the scores beside those of the own test."""
    drawn = drawings(summary, results)
    drawn.pop("methods", None)
    known = [name for name in ("accuracy", "auc") if name in own.scores.index]
    if results.target.binary and known and own.subjects is not None:
        both = {"This cohort": results.scores.loc[NETWORK], "Own test set": own.scores}
        about = f"{summary['subjects']} subjects of this cohort, {own.subjects} of the own test set"
        drawn["own_test"] = result_figures.forest_plot(both, about=about, title="The network on two cohorts")
    return drawn
