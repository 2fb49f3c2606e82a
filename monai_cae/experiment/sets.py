"""Who is in which set in every part: split by the experiment, or given; checked before anything is written."""

from __future__ import annotations

import re
import tempfile
from collections.abc import Mapping, Sequence
from contextlib import nullcontext, redirect_stdout
from io import StringIO
from pathlib import Path
from typing import Any

from monai_cae.data.images.scan_quality import from_record, skipped_lines
from monai_cae.data.splits.datalists import SETS, read_content, write_content
from monai_cae.errors import MonaiCaeError
from monai_cae.experiment.checking import check_steps, evaluate
from monai_cae.experiment.plan import STAGES, Part, Plan, Settings
from monai_cae.experiment.selecting import inner_datalists
from monai_cae.networks import trained_on
from monai_cae.targets import Target
from monai_cae.training.stages.transfer import Transfer, sources

_FOLD = re.compile(r"fold_(\d+)")


def given_datalists(path: str) -> list[Path]:
    """The ready datalist that a user names, or those of the folds in a folder of `monai-cae datalist --kind kfold`.

    Args:
        path: a file; a folder with datalist.json, or with fold_1/datalist.json and so on; "" for none.

    Raises:
        MonaiCaeError: nothing of that, a fold that is missing, or a subject in the test sets of two folds.
    """
    if not path:
        return []
    folder = Path(path).absolute()
    if not folder.is_dir():
        read_content(folder)
        return [folder]
    folds = {int(found[1]): one for one in folder.iterdir() if (found := _FOLD.fullmatch(one.name))}
    if not folds:
        read_content(folder / "datalist.json")
        return [folder / "datalist.json"]
    lists = [folder / f"fold_{number}" / "datalist.json" for number in range(1, max(folds) + 1)]
    _refuse_tested_twice(lists)
    return lists


def _refuse_tested_twice(lists: Sequence[Path]) -> None:
    fold_of: dict[str, str] = {}
    for path in lists:
        test = read_content(path).get("test") or []
        for subject in {str(item.get("subject")) for item in test if isinstance(item, dict)}:
            if fold_of.setdefault(subject, path.parent.name) != path.parent.name:
                raise MonaiCaeError(
                    f"{subject} is tested in {fold_of[subject]} and in {path.parent.name} of {path.parents[1]}: the "
                    "folds of one split test every subject once; make them with `monai-cae datalist --kind kfold`"
                )


def check_parts(plan: Plan, parts: Sequence[Part], overwrite: bool, target: Target) -> dict[Path, Mapping[str, Any]]:
    """Make or read the sets of every part, audit them, and check the settings of every step; nothing is written.

    Args:
        plan: of the experiment.
        parts: all of them.
        overwrite: datalists of an earlier experiment do not count.
        target: what is predicted.

    Returns:
        The datalists that are to be written, by their path.

    Raises:
        MonaiCaeError: bad input, a leak, or a setting of any stage that can't be.
    """
    unwritten: dict[Path, Mapping[str, Any]] = {}
    with tempfile.TemporaryDirectory() as folder:
        absent, first = Path(folder, "absent.json"), Path(folder, "datalist.json")
        for part in parts:
            place, given = plan.datalist_of(part), plan.given[part.fold - 1] if plan.given else None
            read = given or (absent if overwrite else place)
            step = next(plan.steps(part))
            settings = {**step.stages[STAGES[0]], **_of_sources(plan, part), "datalist": str(read)}
            # the other parts are of the same cohort
            settings |= {"_checked": ["@sets", "@audit"], "sets#compare": part is parts[0]}
            with nullcontext() if part is parts[0] else redirect_stdout(StringIO()):  # of one cohort the same notes
                sets, audit = evaluate(plan, step, STAGES[0], settings, "_checked")
            content = _copied(given, place, overwrite) if given else sets.unwritten
            if content:
                unwritten[place] = content
            unwritten |= inner_datalists(plan, part, content or read_content(place), target)
            if part is parts[0]:
                _print_left_out(audit)
                write_content(first, content or read_content(place))
        check_steps(plan, parts[0], first)
    return unwritten


def refuse_changed(plan: Plan, part: Part) -> None:
    """Raise MonaiCaeError where the cohort of a finished part is there, and not what its results were made from."""
    if Path(str(plan.shared["dataset_dir"])).exists():
        step, checked = next(plan.steps(part)), {"_checked": ["@sets"], "sets#compare": True, "sets#read": False}
        settings = {**step.stages[STAGES[0]], "datalist": str(plan.datalist_of(part)), **checked}
        with redirect_stdout(StringIO()):
            evaluate(plan, step, STAGES[0], settings, "_checked")


def _of_sources(plan: Plan, part: Part) -> Settings:
    """What the audit of a part has to know of the networks from elsewhere that any of its steps starts from."""
    elsewhere: set[Path] = set()
    for train in (step.stages[STAGES[1]] for step in plan.steps(part) if STAGES[1] in step.stages):
        elsewhere |= {*plan.elsewhere(str(train.get("pretrained", "none")))}
        elsewhere |= {*Transfer(str(train.get("transfer", "none"))).checkpoints}
    seen = sorted({subject for path in elsewhere for subject in trained_on(path)})
    return {"audit#pretrained_on": seen, "audit#checkpoints": sources(*sorted(elsewhere))} if elsewhere else {}


def _copied(given: Path, place: Path, overwrite: bool) -> dict[str, Any]:
    """A given datalist as the experiment keeps it: without the settings that it was made with, but for the folder."""
    content = read_content(given)
    recorded = (content.get("made_from") or {}).get("dataset_dir")
    content["made_from"] = {"dataset_dir": recorded} if recorded else {}
    if overwrite or not place.is_file():
        return content
    before = read_content(place)
    if any(before.get(name) != content.get(name) for name in SETS):
        raise MonaiCaeError(
            f"{place} has other sets than {given}: choose another --output_dir, or --overwrite true in place of "
            "--resume true to do all of it again"
        )
    return {}


def _print_left_out(audit: Mapping[str, Any]) -> None:
    if left_out := from_record(audit["bad_scans"]):
        total = len(left_out) + sum(one_set["n"] for one_set in audit["sets"].values())
        print("\n".join(skipped_lines(left_out, total)), flush=True)
