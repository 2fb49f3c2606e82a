"""The experiment's figures, each drawn from the results' tables."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from monai_cae.evaluation import figures, result_figures
from monai_cae.evaluation.certainty import selective_figure
from monai_cae.evaluation.curves import roc_band
from monai_cae.evaluation.numbers import COMPARED_NUMBER
from monai_cae.evaluation.pooled import DEFAULT_THRESHOLD, Pooled, pooled
from monai_cae.evaluation.scores import HEADLINE, LABELS
from monai_cae.evaluation.search_figures import search_slices
from monai_cae.evaluation.style import LINE_COLOURS, capital
from monai_cae.experiment.record import NETWORK
from monai_cae.experiment.results import Results
from monai_cae.experiment.wording import readable
from monai_cae.training.results.figures import SYNTHETIC_NOTE, sample_figure, tell_undrawn

_PAPER = {"accuracy": 0.7466, "f1": 0.66}
_INTERVAL = ("mean", "low", "high")
_OF_THE_PAPER = "paper, other subjects"


def drawings(summary: Mapping[str, Any], results: Results) -> dict[str, Figure]:
    """Draw what there is to draw.

    Args:
        summary: as in summary.json.
        results: the tables.

    Returns:
        Figure by the name of its file. Always `code_sizes`; of a search `search`; of a binary target `roc`,
        `calibration`, `methods` and `selective`, and `auc_by_cdr`, `learning_curve`, `samples` and `repeats` where
        there are grades, shares of the training subjects, samples that vote or several repeats. Of others those that
        the target has of a test set, of all repeats together.
    """
    note = SYNTHETIC_NOTE if summary["synthetic"] else ""
    note = f"LEAKY. {note}".strip() if summary["leaks"] else note
    paper = {} if summary["synthetic"] else _PAPER
    ours, scores = results.of(NETWORK), results.scores.loc[NETWORK]
    tests = f"{ours['subject'].nunique()} test subjects"
    coded = {"code_sizes": result_figures.code_sizes(results.reconstruction, note, tests)}
    if not results.trials.empty:
        coded["search"] = _search(summary["selection"], results, note)
    if not results.target.binary:
        averaged = tests
        if results.target.number:  # one dot for each subject
            ours = ours.groupby("subject", as_index=False)[["label", results.target.column]].mean()
            averaged += f", mean of {summary['repeats']} repeats' predictions" if summary["repeats"] > 1 else ""
        labels, predicted = (ours[name].to_numpy() for name in ("label", results.target.column))
        about, own = tests, coded
        if not results.sample_scores.empty:
            own["samples"] = _samples(results, about, note)
        for name, draw in results.target.figures().items():
            try:
                own[f"target_{name}"] = draw(labels, predicted, DEFAULT_THRESHOLD, note, averaged)
            except Exception as error:  # whatever a user's figure raises
                tell_undrawn(f"target_{name}", error)
        return own | (_of_number(results, note, about) if results.target.number else {})
    record = pooled(ours)
    patients, tested = int(record.labels.sum()), len(record.subjects)
    repeats = f", {summary['repeats']} repeats" if summary["repeats"] > 1 else ""
    told: dict[str, Any] = {
        "note": note,
        "about": f"{tested} test subjects: {patients} AD, {tested - patients} HC{repeats}",
    }
    network: dict[str, str] = {**told, "about": f"Network, {told['about']}"}
    summaries = {readable(method): results.scores.loc[method] for method in results.methods}
    drawn = {
        "roc": result_figures.roc_with_band(roc_band(ours, np.random.default_rng(0)), scores, **network),
        "calibration": result_figures.reliability_diagram(ours, scores, **network),
        "methods": result_figures.forest_plot(summaries, reference=paper, reference_name=_OF_THE_PAPER, **told),
        **coded,
    }
    if not results.selective.empty:
        first = results.methods[: len(LINE_COLOURS)]
        curves = {readable(method): rows for method, rows in results.selective.groupby("method") if method in first}
        drawn["selective"] = selective_figure({readable(name): curves[readable(name)] for name in first}, **told)
    groups = results.subgroups
    if not groups.empty and ((groups["by"] == "cdr") & (groups["score"] == "auc")).any():
        drawn["auc_by_cdr"] = result_figures.auc_by_grade(groups, **network)
    if curves := _learning_curves(results, "auc"):
        drawn["learning_curve"] = result_figures.learning_curve(
            curves, "auc", reference=0.5, reference_name="chance", **told
        )
    if not results.sample_scores.empty:
        drawn["samples"] = _samples(results, **told)
    if summary["repeats"] > 1:
        drawn["repeats"] = _repeats(record, paper, network)
    return drawn


def _samples(results: Results, about: str, note: str) -> Figure:
    """Of the network, or of the first variant whose samples vote."""
    method = next(iter(results.sample_scores.index.unique("method")))
    together = results.scores.loc[method]["mean"]
    who = f"{capital(readable(method))}, {about}"
    return sample_figure(results.sample_scores.loc[method], together, results.target, results.places, note, who)


def _of_number(results: Results, note: str, about: str) -> dict[str, Figure]:
    """The methods side by side, and the learning curve."""
    told: dict[str, Any] = {"note": note, "about": about}
    summaries = {readable(method): results.scores.loc[method] for method in results.methods}
    drawn = {"methods": result_figures.forest_plot(summaries, (COMPARED_NUMBER, "r2"), bounded=False, **told)}
    if curves := _learning_curves(results, COMPARED_NUMBER):
        drawn["learning_curve"] = result_figures.learning_curve(curves, COMPARED_NUMBER, **told)
    return drawn


def _repeats(record: Pooled, paper: Mapping[str, float], told: Mapping[str, str]) -> Figure:
    """The scores whose mean the table has: each repeat's, of all its folds together."""
    by_repeat = record.scores(np.ones((1, len(record.subjects))), HEADLINE)
    values = {LABELS[name]: scores[:, 0].tolist() for name, scores in by_repeat.items()}
    reference = {LABELS[name]: value for name, value in paper.items()}
    return figures.repeats(values, reference=reference, reference_name=_OF_THE_PAPER, **told)


def _learning_curves(results: Results, score: str) -> dict[str, pd.DataFrame]:
    """Of the network and of variants, the score and that on fewer training subjects, by their number."""
    curves = {}
    for whole, shares in results.shares.items():
        rows = [
            {"subjects": share * results.training_subjects, **results.scores.loc[(method, score)][[*_INTERVAL]]}
            for method, share in {whole: 1.0, **shares}.items()
        ]
        curves[capital(readable(whole))] = pd.DataFrame(rows)
    return curves


def _search(worth: Mapping[str, Any], results: Results, note: str) -> Figure:
    label = f"{results.target.score_names[worth['metric']]}, inner folds"
    names = {name.partition("#")[2]: name for name in worth["parameters"]}
    tried = f"{worth['parts']} x {worth['tried']}" if worth["parts"] > 1 else f"{worth['tried']}"
    about = f"{worth['finished']} of {tried} trials finished"
    return search_slices(
        results.trials.rename(columns={name: shown for shown, name in names.items()}),
        {shown: worth["parameters"][name] for shown, name in names.items()},
        {shown: worth["importance"][name] for shown, name in names.items() if name in worth["importance"]},
        list(results.trials["chosen"] == 1),
        label,
        note,
        f"{about}; ringed: chosen",
    )
