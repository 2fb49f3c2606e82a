"""What an earlier experiment left in its folder, and no other files there."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from itertools import product
from pathlib import Path

from monai_cae.errors import MonaiCaeError
from monai_cae.experiment.plan import BASELINES, CODES, SEARCH, STAGES
from monai_cae.training.stages.earlier import files_of, refuse

TABLES = (
    "predictions", "samples", "scores", "sample_scores", "comparisons", "subgroups", "reconstruction", "selection",
    "certainty", "selective", "errors", "search", "explanations",
)  # fmt: skip
FIGURES = (
    "roc",
    "calibration",
    "methods",
    "auc_by_cdr",
    "learning_curve",
    "repeats",
    "own_test",
    "samples",
    "selective",
    "code_sizes",
    "search",
)
_TOLD = (
    "summary.json", "results.md", "report.html", "model_card.md", *(f"{name}.csv" for name in TABLES),
    *(f"figures/{name}.png" for name in FIGURES),
)  # fmt: skip
_SHARED = ("datalist.json", "audit.json", "audit.html", ".lock")  # of a part's stages; without results they are none
JOURNAL = "trials.journal"  # of a search, in its folder
_PART = re.compile(r"(repeat_\d+)(/fold_\d+)?(/inner_\d+)?(/variants/[\w-]+)?")


def told_in(output: Path) -> list[Path]:
    """Tables, figures and pages: what an experiment computes from its parts in the end."""
    own = sorted(output.glob("figures/target_*.png"))
    return [*(output / name for name in _TOLD if (output / name).is_file()), *own]


def left_in(output: Path) -> list[Path]:
    """All files of an earlier experiment but MLflow's."""
    found = [*told_in(output), output / "experiment.json"]
    for folder in _parts(output):
        found += [folder / name for name in ("steps.json", f"{SEARCH}/{JOURNAL}", *_SHARED)]
        found += sorted(folder.glob(f"{CODES}/*"))
        found += [path for stage in (*STAGES, BASELINES) for path in files_of(stage, folder)]
    return [path for path in found if path.is_file()]


def refuse_earlier(output: Path, resume: bool, overwrite: bool) -> None:
    """
    Raises:
        MonaiCaeError: the folder has results that this experiment may neither go on with nor replace.
    """
    alone = [name for stage in (*STAGES, BASELINES) if (output / (name := f"results_{stage}.json")).is_file()]
    if alone:
        raise MonaiCaeError(
            f"{output} has results of stages that were run alone ({', '.join(alone)}): choose another --output_dir"
        )
    if not overwrite and not (resume and (output / "experiment.json").is_file()):
        found = [path for path in left_in(output) if path.name not in _SHARED]
        refuse(found, output, "an experiment", resumable=not resume)


def refuse_steps(output: Path, folders: Sequence[Path]) -> None:
    """
    Raises:
        MonaiCaeError: some parts of an experiment have results already.
    """
    own = [path for path in left_in(output) if any(folder in path.parents for folder in folders)]
    refuse([path for path in own if path.name not in _SHARED], output, "an experiment", resumable=True)


def _parts(output: Path) -> Iterator[Path]:
    for parts, inner, variants in product(("repeat_*", "repeat_*/fold_*"), ("", "/inner_*"), ("", "/variants/*")):
        for folder in sorted(output.glob(f"{parts}{inner}{variants}")):
            if folder.is_dir() and _PART.fullmatch(folder.relative_to(output).as_posix()):
                yield folder
