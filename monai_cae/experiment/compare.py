"""Compare finished runs on the same subjects in the same splits."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from monai_cae import DISCLAIMER, __version__
from monai_cae.errors import MonaiCaeError
from monai_cae.evaluation.intervals import RESAMPLES
from monai_cae.evaluation.numbers import (
    COMPARED_NUMBER,
    NUMBER_HEADLINE,
    NUMBER_LABELS,
    compare_numbers,
    summarise_numbers,
)
from monai_cae.evaluation.scores import LABELS
from monai_cae.evaluation.summary import COMPARED, compare, summarise
from monai_cae.experiment.load_runs import SPLITS, Predictions
from monai_cae.experiment.wording import (
    better_or_worse,
    columns,
    difference_with_interval,
    markdown,
    number_difference,
    number_with_interval,
    p_value,
    with_interval,
)
from monai_cae.files import replacing, write_text
from monai_cae.templates import render

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_ADVICE = "choose another --out"
_ROUNDED = 1e-3  # of the labels' range


@dataclass(frozen=True)
class Comparison:
    """The first of several methods against each other one.

    Attributes:
        compared: what was compared, the first one first.
        scores: index (name, score), columns of `monai_cae.evaluation.summary.summarise`.
        differences: index (against, score), columns of `monai_cae.evaluation.summary.compare`; `p_corrected_t` only
            where it is known how many subjects each network was trained on, and there are several test sets.
        patients, controls: tested subjects; of numbers, whose `patients` is None, all of them are under `controls`.
        repeats, test_sets: how many; a test set is a fold of a repeat.
    """

    compared: list[Predictions]
    scores: pd.DataFrame
    differences: pd.DataFrame
    tested: int
    patients: int | None
    repeats: int
    test_sets: int

    @property
    def said(self) -> str:
        """What has to be said first; "" where nothing is known against the data."""
        leaks = sum(one.leaks for one in self.compared)
        parts = ["SYNTHETIC data, not real MRI"] if any(one.synthetic for one in self.compared) else []
        return ", ".join([*parts, *(["LEAKY, the scores are worthless"] if leaks else [])])

    @property
    def subjects(self) -> str:
        """Who was tested, and how often."""
        repeats, sets = f"{self.repeats} repeat{'s' * (self.repeats > 1)}", self.test_sets
        classes = "" if self.patients is None else f" ({self.patients} AD, {self.tested - self.patients} HC)"
        return f"{self.tested} subjects{classes}, {repeats}, {sets} test set{'s' * (sets > 1)}"

    @property
    def number(self) -> bool:
        """Numbers were predicted, not classes."""
        return self.patients is None

    @property
    def shown(self) -> Mapping[str, str]:
        """The scores of each method, and what they are called."""
        return {name: NUMBER_LABELS[name] for name in NUMBER_HEADLINE} if self.number else LABELS


def compare_predictions(
    compared: Sequence[Predictions], *, train_subjects: float = 0, seed: int = 0, resamples: int = RESAMPLES
) -> Comparison:
    """Compare the first with each other one, on the same subjects: by accuracy and AUC, or numbers by their absolute
    errors.

    Args:
        compared: two or more.
        train_subjects: how many each network was trained on, for the corrected t test; 0 leaves it out.
        seed: of the bootstrap.
        resamples: how many.

    Raises:
        MonaiCaeError: fewer than two, the same twice, not the same subjects, labels, repeats and folds, or
            numbers beside classes.
    """
    if len(compared) < 2:
        raise MonaiCaeError("give two or more runs, folders or files to compare")
    _refuse_the_same_twice(compared)
    first, *others = compared = _named_apart(compared)
    if len({one.number for one in compared}) > 1:
        ours, theirs = (next(one.given for one in compared if one.number == number) for number in (True, False))
        raise MonaiCaeError(f"{ours} predicts a number, and {theirs} classes: compare methods with one target")
    others = [_agreeing(first, other) for other in others]
    compared = [first, *others]
    people = first.table.drop_duplicates("subject")
    test_sets = first.table.groupby(list(SPLITS)).size()
    scores = {
        one.name: summarise_numbers(one.table, np.random.default_rng(seed), resamples=resamples)
        if one.number
        else summarise(one.table, np.random.default_rng(seed), scores=COMPARED, resamples=resamples)
        for one in compared
    }
    differences = pd.concat(
        {
            other.name: (compare_numbers if first.number else compare)(
                first.table,
                other.table,
                np.random.default_rng(seed),
                n_train=train_subjects or 1,
                n_test=float(test_sets.mean()),
                resamples=resamples,
            )
            for other in others
        },
        names=["against"],
    )
    if not train_subjects or len(test_sets) < 2:
        differences = differences.drop(columns="p_corrected_t")
    return Comparison(
        compared,
        pd.concat(scores, names=["name"]),
        differences,
        tested=len(people),
        patients=None if first.number else int(people["label"].sum()),
        repeats=first.table["repeat"].nunique(),
        test_sets=len(test_sets),
    )


def comparison_lines(comparison: Comparison) -> list[str]:
    """What is printed on the terminal."""
    return [
        *([comparison.said] if comparison.said else []),
        f"compared on {comparison.subjects}",
        "",
        *columns(_score_rows(comparison)),
        "",
        *columns(_difference_rows(comparison)),
        "",
        *(f"  {line}" for line in _remarks(comparison)),
    ]


def write_comparison(comparison: Comparison, folder: Path) -> list[Path]:
    """Write comparison.html, comparison.md, comparison.csv and comparison.png.

    Args:
        comparison: from `compare_predictions`.
        folder: made where it is missing.

    Raises:
        MonaiCaeError: the folder can't be written.
    """
    from monai_cae.evaluation.comparison_figure import comparison_figure
    from monai_cae.evaluation.curves import roc_band
    from monai_cae.evaluation.result_figures import forest_plot
    from monai_cae.evaluation.style import save_figure

    paths = [folder / f"comparison.{suffix}" for suffix in ("md", "csv", "png", "html")]
    write_text(paths[0], _page(comparison), _ADVICE)
    with replacing(paths[1], _ADVICE) as temporary:
        _flat(comparison).to_csv(temporary, index=False, float_format="%.6g")
    about = f"Compared on {comparison.subjects}"
    summaries = {one.name: comparison.scores.loc[one.name] for one in comparison.compared}
    shown = ("mae", "r2") if comparison.number else COMPARED
    forest = forest_plot(summaries, shown, comparison.said, about=about, bounded=not comparison.number)
    drawn = [forest]
    if not comparison.number:
        bands = {one.name: roc_band(one.table, np.random.default_rng(0)) for one in comparison.compared}
        titled = f"ROC curves and differences\n{about}"
        both = comparison_figure(bands, comparison.scores, comparison.differences, comparison.said, titled)
        drawn = [both, forest]
    save_figure(drawn[0], paths[2])
    write_text(paths[3], _html(comparison, drawn), _ADVICE)
    return paths


def _html(comparison: Comparison, figures: Sequence[Figure]) -> str:
    from monai_cae.evaluation.embedding import embedded  # what is only printed needs no figures

    return render(
        "comparison.html",
        names=[one.name for one in comparison.compared],
        verdict=_verdict(comparison),
        said=comparison.said,
        subjects=comparison.subjects,
        scores=markdown(_score_rows(comparison)),
        differences=markdown(_difference_rows(comparison)),
        remarks="\n".join(f"- {line}" for line in _remarks(comparison)),
        figures=[embedded(figure) for figure in figures],
        disclaimer=DISCLAIMER,
        version=__version__,
    )


def _verdict(comparison: Comparison) -> dict[str, Any]:
    """Whether the first is better than each other, by AUC or mean error."""
    first = comparison.compared[0].name
    score, sign = (COMPARED_NUMBER, -1) if comparison.number else ("auc", 1)
    words, further = [], []
    for other in comparison.compared[1:]:
        row = comparison.differences.loc[(other.name, score)]
        words.append(better_or_worse(row, sign))
        told = (number_difference if comparison.number else difference_with_interval)(row)
        further.append(f"Against {other.name}: {comparison.shown[score]} {told}, p {p_value(row['p_paired'])}.")
    found = set(words)
    said = f"{first} is {words[0]}" if len(found) == 1 and words[0] else "No difference is shown"
    if len(found) > 1:
        counts = [f"{word} than {words.count(word)}" for word in ("better", "worse") if word in found]
        said = f"{first} is {' and '.join(counts)} of {len(words)}"
    leaky = any(one.leaks for one in comparison.compared)
    return {"state": "bad" if leaky else "good" if found == {"better"} else "open", "said": said, "further": further}


def _page(comparison: Comparison) -> str:
    parts = [
        f"# {comparison.compared[0].name} against {', '.join(one.name for one in comparison.compared[1:])}",
        f"**{comparison.said}**" if comparison.said else "",
        f"{comparison.subjects}. {DISCLAIMER}",
        markdown(_score_rows(comparison)),
        markdown(_difference_rows(comparison)),
        "\n".join(f"- {line}" for line in _remarks(comparison)),
        f"![{'Errors' if comparison.number else 'ROC curves and differences'}](comparison.png)",
    ]
    return "\n\n".join(part for part in parts if part) + "\n"


def _score_rows(comparison: Comparison) -> list[list[str]]:
    names = NUMBER_HEADLINE if comparison.number else COMPARED
    told = number_with_interval if comparison.number else with_interval
    rows = [["", *(f"{comparison.shown[score]}, 95 % interval" for score in names)]]
    for one in comparison.compared:
        rows.append([one.name, *(told(comparison.scores.loc[(one.name, score)]) for score in names)])
    return rows


def _difference_rows(comparison: Comparison) -> list[list[str]]:
    corrected = "p_corrected_t" in comparison.differences
    first = comparison.compared[0].name
    rows = [[f"{first} against", "score", "difference, 95 % interval", "p, paired", *["p, corrected t"] * corrected]]
    for (name, score), row in comparison.differences.iterrows():  # type: ignore[misc]  # the index has two levels
        paired = f"{p_value(row['p_paired'])} ({row['paired_test']})"
        tested = [p_value(row["p_corrected_t"])] if corrected else []
        told = number_difference if comparison.number else difference_with_interval
        rows.append([str(name), comparison.shown[str(score)], told(row), paired, *tested])
    return rows


def _remarks(comparison: Comparison) -> list[str]:
    """How to read the tables, and what makes them doubtful."""
    first, given = comparison.compared[0].name, "the trained networks as given."
    lines = [
        f"Positive differences: {first} is better. Intervals over resampled subjects. Paired: exact McNemar (accuracy) "
        f"and DeLong (AUC) on each subject's mean prediction, {given}",
    ]
    if comparison.number:
        lines = [
            f"Differences below 0: the errors of {first} are smaller. Intervals over resampled subjects. Paired: "
            f"Wilcoxon's signed-rank test on each subject's absolute error, {given}",
        ]
    if "p_corrected_t" in comparison.differences:
        lines.append("Corrected t: Nadeau and Bengio (2003) over the test sets, training included.")
    elif comparison.test_sets > 1:
        lines.append("--train_subjects N, the subjects that each network was trained on, adds a corrected t test.")
    if len(comparison.compared) > 2:
        lines.append("No correction for multiple comparisons.")
    notes = {
        f"{comparison.shown[score]}: {note}" for (_, score), note in comparison.differences["note"].items() if note
    }
    return lines + [f"! {note}" for note in sorted(notes)]


def _flat(comparison: Comparison) -> pd.DataFrame:
    rows = []
    first = comparison.compared[0].name
    for (name, score), row in comparison.differences.iterrows():  # type: ignore[misc]
        values = {
            f"{side}_{end}": comparison.scores.loc[(which, score), column]
            for side, which in (("first", first), ("other", name))
            for end, column in (("value", "mean"), ("low", "low"), ("high", "high"))
        }
        tested = {key: value for key, value in row.items() if key not in ("ours", "other", "note")}
        counts = {"subjects": comparison.tested, "repeats": comparison.repeats}
        about = {"first": first, "other": name, "score": score}
        rows.append({**about, **values, **tested, **counts, "note": row["note"], "data": comparison.said})
    return pd.DataFrame(rows)


def _refuse_the_same_twice(compared: Iterable[Predictions]) -> None:
    seen: dict[tuple[str, str], str] = {}
    for one in compared:
        if one.origin in seen:
            raise MonaiCaeError(f"{seen[one.origin]} and {one.given} are the same predictions: give each once")
        seen[one.origin] = one.given


def _named_apart(compared: Sequence[Predictions]) -> list[Predictions]:
    """The same, with what the user gave as the names where they would be alike."""
    names = [one.name for one in compared]
    if len(set(names)) == len(names):
        return list(compared)
    return [Predictions(one.given, one.given, one.origin, one.table, one.synthetic, one.leaks) for one in compared]


def _agreeing(first: Predictions, other: Predictions) -> Predictions:
    """The other with the first's labels, which may be rounded otherwise; an error where they don't fit together."""
    mine, theirs = (one.table.drop_duplicates("subject").set_index("subject")["label"] for one in (first, other))
    lacking, extra = sorted(mine.index.difference(theirs.index)), sorted(theirs.index.difference(mine.index))
    if lacking or extra:
        parts = [
            f"{verb} {len(who)} that {first.given} {rest}, the first is {who[0]}"
            for verb, who, rest in (("lacks", lacking, "has"), ("has", extra, "lacks"))
            if who
        ]
        raise MonaiCaeError(f"not the same subjects: {other.given} {' and '.join(parts)}")
    different = mine.index[(mine - theirs[mine.index]).abs() > _ROUNDED * np.ptp(mine)]
    if len(different):
        raise MonaiCaeError(
            f"{first.given} and {other.given} give {len(different)} subjects different labels, the first is "
            f"{different[0]}: both must be tested by one rule for patients and controls, or of one number"
        )
    keys = [one.table.set_index(["subject", *SPLITS]).index for one in (first, other)]
    apart = sorted(keys[0].symmetric_difference(keys[1]))
    if apart:
        people = len({subject for subject, _, _ in apart})
        raise MonaiCaeError(
            f"{first.given} and {other.given} tested {people} subjects in different repeats or folds, the first is "
            f"{apart[0][0]}: both must come from the same splits"
        )
    return replace(other, table=other.table.assign(label=other.table["subject"].map(mine)))
