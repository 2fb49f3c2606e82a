"""Results of earlier runs of a stage in its folder: found before anything is written, replaced only on request."""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path

from monai_cae.errors import MonaiCaeError

_OF_ANY = (
    "results_{}.json",
    "config_{}.json",
    "models/resume_{}.pt",
    "figures/{}_*.png",
    "figures/{}_*.csv",
    "figures/{}_*.npz",
)
_WEIGHTS = {"pretrain": "models/autoencoder.pt", "train": "models/model.pt"}
_OF = {
    "pretrain": ("models/autoencoder_strangers.pt",),
    "evaluate": (
        "predictions.csv",
        "samples.csv",
        "sample_places.npz",
        "pictures.npz",
        "predictions_validation.csv",
        "reconstruction.csv",
    ),
    "baselines": ("baselines/*.csv",),
}
_MADE_OF_IT = {"pretrain": ("train", "evaluate", "baselines"), "train": ("evaluate",)}
_BASELINE = "subject,label,probability,prediction\n"
_NAMED = 3


def files_of(stage: str, folder: Path) -> list[Path]:
    """The files in a folder that a stage has written; what all stages share (the datalist, the audit) is not among
    them."""
    patterns = [pattern.format(stage) for pattern in _OF_ANY]
    patterns += [*_OF.get(stage, ()), *([_WEIGHTS[stage]] if stage in _WEIGHTS else [])]
    found = [path for pattern in patterns for path in sorted(folder.glob(pattern)) if path.is_file()]
    return [path for path in found if path.parent.name != "baselines" or _is_baseline(path)]


def outdated_by(stage: str, folder: Path, overwrite: bool) -> list[Path]:
    """What a new run of a stage makes outdated: its own files and, where it overwrites finished ones, those of the
    stages that go on from its network.

    Its own weights are not among them: the run may start from them, and its first epoch replaces them.
    """
    later = _MADE_OF_IT.get(stage, ()) if overwrite else ()
    found = [path for one in (stage, *later) for path in files_of(one, folder)]
    return [path for path in found if path != folder / _WEIGHTS.get(stage, "")]


def check_asked(resume: bool, overwrite: bool) -> None:
    """Raise MonaiCaeError if earlier results are to be kept and to be replaced."""
    if resume and overwrite:
        raise MonaiCaeError("--resume true keeps earlier results, --overwrite true replaces them: give one of the two")


def refuse(found: Iterable[Path], folder: Path, what: str, resumable: bool) -> None:
    """
    Args:
        found: files of an earlier run.
        folder: where they are.
        what: names them in the error.
        resumable: there is a setting `resume`.

    Raises:
        MonaiCaeError: there are any.
    """
    names = [str(path.relative_to(folder)) if path.is_relative_to(folder) else str(path) for path in found]
    if names:
        shown = ", ".join(names[:_NAMED]) + (", ..." if len(names) > _NAMED else "")
        going_on = "--resume true continues from them, " if resumable else ""
        raise MonaiCaeError(
            f"{folder} already has results of {what} ({shown}): {going_on}--overwrite true replaces them, or choose "
            "another --output_dir"
        )


def refuse_predictions(path: str, overwrite: bool) -> None:
    """
    Args:
        path: of the table that inference writes; samples.csv, left_out.csv and strangers.png may come beside it.
        overwrite: it may be replaced.

    Raises:
        MonaiCaeError: one of them is there, and may not.
    """
    beside = ("samples.csv", "left_out.csv", "strangers.png")
    for found in (Path(path), *(Path(path).with_name(name) for name in beside)):
        if found.exists() and not overwrite:
            raise MonaiCaeError(
                f"{found} already exists: --overwrite true replaces it, or choose another --output_dir or --predictions"
            )


def remove(found: Iterable[Path], folder: Path) -> None:
    """Remove files of an earlier run, and the folders below `folder` that are empty then."""
    for path in found:
        path.unlink(missing_ok=True)
        for parent in path.parents:
            if parent == folder or not parent.is_relative_to(folder):
                break
            with suppress(OSError):  # something else is in it
                parent.rmdir()


def _is_baseline(path: Path) -> bool:
    with path.open(encoding="utf-8", errors="replace") as file:
        return file.readline(100) == _BASELINE
