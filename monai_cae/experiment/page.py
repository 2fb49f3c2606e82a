"""report.html: an experiment on one page, with pictures; the verdict and the doubts first."""

from __future__ import annotations

import platform
from collections.abc import Iterable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from markupsafe import Markup
from matplotlib.figure import Figure

from monai_cae import DISCLAIMER, __version__
from monai_cae.evaluation.embedding import Embedded, drawn_before, embedded, picture, webp
from monai_cae.experiment.card import Facts, claim_of, flow
from monai_cae.experiment.misjudged import write_errors
from monai_cae.experiment.record import NETWORK
from monai_cae.experiment.references import numbered
from monai_cae.experiment.results import Results
from monai_cae.experiment.verdict import verdict
from monai_cae.experiment.wording import for_templates, is_number
from monai_cae.files import sha256_of
from monai_cae.templates import render
from monai_cae.training.results.pictures import read_maps, read_pictures

PAGE = "report.html"
MOST_SUBJECTS = 120  # misjudged ones with a picture, at some 4 kB each
_MOST_PARTS = 30  # in the table of hashes
_LATER = ("methods", "code_sizes", "search")  # figures that are beside their tables, or in them
_BLANK = 64  # of 255, where there is no map
_FARTHEST = 10  # scans that are named as unlike the training's
_UNLIKE = ("unlike", "unlike_by", "stranger")
_RISING = ("cdr", "sex", "subject")  # what cards are sorted by from the lowest
_SCANS = ("predictions_scans.csv", "predictions.csv")  # of an evaluation, a row for each scan
_OF_STAGES = {"pretrain": "Autoencoder", "train": "Classifier", "evaluate": "Test"}
_TARGETS_OWN = ("evaluate_roc", "evaluate_confusion_matrix", "evaluate_scatter", "evaluate_bland_altman")


class Bar(NamedTuple):
    """A value and its interval as shares of a line's length; None where there is none."""

    mean: float | None
    low: float | None
    high: float | None
    reference: float | None


def experiment_page(
    summary: Mapping[str, Any], results: Results, output: Path, figures: Mapping[str, Figure], errors: pd.DataFrame
) -> str:
    """The page: self-contained, readable without scripts and on paper.

    Args:
        summary: as in summary.json.
        results: the tables.
        output: the experiment's folder, with those of its parts.
        figures: of `monai_cae.experiment.figures.drawings`; they lose their titles.
        errors: see `monai_cae.experiment.misjudged`.

    Raises:
        MonaiCaeError: a file of the first part is missing or broken.
    """
    target = results.target
    facts = Facts(summary, results, output / summary["results"][0]["folder"])
    drawn = {name: embedded(figure) for name, figure in figures.items()}
    scored = target.binary or target.number
    claim = claim_of(facts) if scored else []
    paragraph, references = _paragraph(facts) if scored else ("", [])
    return render(
        "report.html",
        facts=facts,
        summary=summary,
        results=results,
        target=target,
        verdict=verdict(summary, results),
        disclaimer=DISCLAIMER,
        version=__version__,
        headline=[(target.score_names[name], facts.score(name)) for name in _shown(results)],
        flow=flow(facts),
        methods=_methods(results),
        shown=target.headline[:2],
        curves=[one for name, one in drawn.items() if name not in _LATER],
        code_sizes=drawn["code_sizes"],
        search=drawn.get("search"),
        cards=_cards(results, output, errors),
        misjudged=_count(errors),
        strangers=_strangers(results, output),
        others_ran=len(results.methods) - 1,
        subgroups=_subgroups(results),
        stages=list(_of_stages(facts.folder)),
        parts=list(_parts(summary, output)),
        more_parts=max(0, len(summary["results"]) - _MOST_PARTS),
        python=f"Python {platform.python_version()} on {platform.system()} {platform.machine()}",
        paragraph=paragraph,
        references=references,
        claim=claim,
        open_items=sum(answer.startswith("open:") for _, answer in claim),
        NETWORK=NETWORK,
        is_number=is_number,
        part=partial(_part, NETWORK=NETWORK, results=results, summary=summary, target=target, **for_templates(target)),
        **for_templates(target),
    )


def external_html(
    page: str, summary: Mapping[str, Any], results: Results, output: Path, figures: Mapping[str, Figure]
) -> str:
    """The page of a finished network's test on another cohort; errors.csv is written too.

    Args:
        page: results.md, whose sections are taken.
        summary, results, output, figures: see `experiment_page`.
    """
    errors = write_errors(results, output)
    _, _, who, *_ = page.split("\n", 3)
    sections = page[page.index("\n## ") :]
    return render(
        "external.html",
        summary=summary,
        results=results,
        target=results.target,
        verdict=verdict(summary, results),
        who=who,
        body=sections,
        curves=[embedded(figure) for figure in figures.values()],
        cards=_cards(results, output, errors),
        misjudged=_count(errors),
        strangers=_strangers(results, output),
        others_ran=0,
        is_number=is_number,
        disclaimer=DISCLAIMER,
        version=__version__,
    )


def _part(name: str, /, **known: Any) -> str:
    """A part that the Markdown pages have too."""
    return render(f"part_{name}.md", **known)


def _shown(results: Results) -> Sequence[str]:
    """Scores at the top of the page."""
    binary = ("accuracy", "auc", "sensitivity", "specificity", "f1")
    return binary if results.target.binary else results.target.headline


def _methods(results: Results) -> list[dict[str, Any]]:
    """Each method's first scores, each with a bar on a scale that all methods share."""
    shown = results.target.headline[:2]
    chance = {"accuracy": 0.5, "auc": 0.5} if results.target.binary else {"r2": 0.0}
    scales = {name: _scale(results.scores.xs(name, level="score"), chance.get(name)) for name in shown}
    found = []
    for method in results.methods:
        scores = results.scores.loc[method]
        bars = {name: _bar(scores.loc[name], scales[name], chance.get(name)) for name in shown}
        found.append({"name": method, "scores": scores, "bars": bars})
    return found


def _subgroups(results: Results) -> list[dict[str, Any]]:
    if results.subgroups.empty:
        return []
    scale = (0.0, 1.0)
    return [{**row, "bar": _bar(row, scale, 0.5)} for row in results.subgroups.to_dict("records")]


def _scale(scores: pd.DataFrame, reference: float | None) -> tuple[float, float]:
    values = scores[["mean", "low", "high"]].to_numpy(dtype=float).ravel().tolist()
    values += [] if reference is None else [reference]
    finite = [value for value in values if np.isfinite(value)] or [0.0, 1.0]
    low, high = min(finite), max(finite)
    return (low, high) if high > low else (low - 0.5, high + 0.5)


def _bar(row: Mapping[str, Any], scale: tuple[float, float], reference: float | None) -> Bar:
    def place(value: float | None) -> float | None:
        if value is None or not np.isfinite(value):
            return None
        return min(1.0, max(0.0, (float(value) - scale[0]) / (scale[1] - scale[0])))

    return Bar(place(row["mean"]), place(row["low"]), place(row["high"]), place(reference))


def _cards(results: Results, output: Path, errors: pd.DataFrame) -> list[dict[str, Any]]:
    """The misjudged subjects with their pictures, and their ranks by what the page sorts them by."""
    if errors.empty:
        return []
    folders = {(part["repeat"], part["fold"]): output / part["folder"] for part in _of_record(results, output)}
    found = []
    for (repeat, fold), rows in errors.head(MOST_SUBJECTS).groupby(["repeat", "fold"]):
        folder = folders.get((int(repeat), int(fold)))
        pictures = read_pictures(folder) if folder else {}
        maps, failed = read_maps(folder) if folder else ({}, "")
        unlike = _unlike(folder) if folder else {}
        for place, row in rows.iterrows():
            name = str(row["subject"])
            drawn = _side_by_side(pictures.get(name), maps.get(name), name, bool(maps))
            told = {"picture": drawn, "mapped": name in maps, "failed": failed, "unlike": unlike.get(name)}
            found.append({"place": place, **row.to_dict(), **told})
    found.sort(key=lambda card: card["place"])
    table = pd.DataFrame([{name: card[name] for name in card if name != "picture"} for card in found])
    table["unlike"] = pd.to_numeric(table["unlike"])
    ranks = {
        name: table[name].rank(method="first", na_option="bottom", ascending=name in _RISING).astype(int)
        for name in (results.target.column, "age", "cdr", "sex", "unlike", "subject")
        if table[name].notna().any()
    }
    return [
        {**card, "order": {name: int(rank[number]) for name, rank in ranks.items()}}
        for number, card in enumerate(found)
    ]


def _unlike(folder: Path) -> dict[str, float]:
    """Subject -> percentile of how unlike the training's its scan is, of several the highest; none where no evaluation
    has looked."""
    percentiles = _looked(folder).groupby("subject")["unlike"].max()
    return {str(subject): float(value) for subject, value in percentiles.items()}


def _looked(folder: Path) -> pd.DataFrame:
    """`subject`, `unlike`, `unlike_by`, `stranger` of each scan that an evaluation has looked at; no row where none."""
    path = next((one for name in _SCANS if (one := folder / name).is_file()), None)
    table = pd.DataFrame() if path is None else pd.read_csv(path, dtype=str, keep_default_na=False)
    if not {*_UNLIKE} <= {*table}:
        return pd.DataFrame(columns=["subject", *_UNLIKE]).astype({"unlike": float})
    return table[["subject", *_UNLIKE]].assign(unlike=pd.to_numeric(table["unlike"], errors="coerce")).dropna()


def _strangers(results: Results, output: Path) -> dict[str, Any] | None:
    """How many of the tested scans are marked as unlike the training's, and the farthest; None where none was looked
    at."""
    table = pd.concat([_looked(output / part["folder"]) for part in _of_record(results, output)])
    if table.empty:
        return None
    farthest = table.sort_values("unlike", ascending=False, kind="stable").head(_FARTHEST).to_dict("records")
    return {"scans": len(table), "marked": int((table["stranger"] == "yes").sum()), "farthest": farthest}


def _count(errors: pd.DataFrame) -> int | None:
    """How many were misjudged; None where the target has no such subjects."""
    return len(errors) if len(errors.columns) else None


def _of_record(results: Results, output: Path) -> Iterable[dict[str, Any]]:
    """The folders of the parts, by their repeats and folds."""
    several = results.record["fold"].nunique() > 1
    for repeat, fold in results.record[["repeat", "fold"]].drop_duplicates().itertuples(index=False):
        folder = f"repeat_{repeat}/fold_{fold}" if several else f"repeat_{repeat}"
        yield {"repeat": repeat, "fold": fold, "folder": folder if (output / folder).is_dir() else ""}


def _side_by_side(pair: Any, explanation: Any, subject: str, mapped: bool) -> Markup | None:
    """Scan, reconstruction and, if others are `mapped`, explanation or a blank; wide ones one below the other."""
    shown = [np.stack([one] * 3, axis=-1) for one in (pair if pair is not None else ())]
    shown += [] if explanation is None else [explanation]
    if not shown:
        return None
    if mapped and explanation is None:
        shown.append(np.full_like(shown[0], _BLANK))
    height, width, _ = shown[0].shape
    together = np.concatenate(shown, axis=0 if width > 1.5 * height else 1)
    further = ["its reconstruction"] * (pair is not None) + ["its map"] * (explanation is not None)
    alternative = ", ".join([f"scan of {subject}", *further])
    return picture(webp(together), alternative, (together.shape[1], together.shape[0]))


def _of_stages(folder: Path) -> Iterable[Embedded]:
    """What the stages of the first part drew, but for the figures of its test alone that the page has of all."""
    for stage, name in _OF_STAGES.items():
        for path in sorted(folder.glob(f"figures/{stage}_*.png")):
            if path.stem not in _TARGETS_OWN:
                title = f"{name}: {path.stem.removeprefix(f'{stage}_').replace('_', ' ')}"
                if found := drawn_before(path, title):
                    yield found


def _parts(summary: Mapping[str, Any], output: Path) -> Iterable[dict[str, Any]]:
    """Of each part what another run has to have to be the same."""
    for part in summary["results"][:_MOST_PARTS]:
        weights = part["steps"][NETWORK]["results"]["evaluate"].get("weights", {})
        datalist = output / part["folder"] / "datalist.json"
        yield {
            "name": part["folder"].replace("_", " ").replace("/", ", "),
            "seed": part["seed"],
            "datalist": sha256_of(datalist) if datalist.is_file() else "",
            "autoencoder": weights.get("pretrained") or "",
            "classifier": weights.get("checkpoint") or "",
        }


def _paragraph(facts: Facts) -> tuple[str, list[str]]:
    positive, negative = facts.rules
    others = len(facts.results.methods) - 1
    told = {"positive": positive, "negative": negative, "flow": flow(facts), "others": others}
    return numbered(render("paragraph.md", facts=facts, summary=facts.summary, **told))
