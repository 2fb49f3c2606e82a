"""One process's share of an experiment whose splits several processes do, such as a job of an array."""

from __future__ import annotations

import re
from collections.abc import Sequence

from monai_cae.cluster.engine import InProcess
from monai_cae.data.splits.datalists import write_content
from monai_cae.errors import MonaiCaeError
from monai_cae.experiment.earlier import left_in, refuse_steps
from monai_cae.experiment.plan import Part, Plan
from monai_cae.experiment.running import run_steps
from monai_cae.experiment.sets import check_parts
from monai_cae.experiment.status import STATE
from monai_cae.targets import Target
from monai_cae.terminal import say
from monai_cae.tracking.lending import forget, writing_to
from monai_cae.training.stages.earlier import remove
from monai_cae.training.stages.run import write_record

_SHARE = re.compile(r"(\d+)/(\d+)")


def share_of(words: str, parts: Sequence[Part]) -> list[Part]:
    """The splits that "2/5" means: every fifth, from the second; none for "".

    Args:
        words: the setting `part`.
        parts: all splits.

    Raises:
        MonaiCaeError: no such share.
    """
    if words == "":
        return []
    found = _SHARE.fullmatch(words) if isinstance(words, str) else None
    number, of = map(int, found.groups()) if found else (0, 0)
    if not 1 <= number <= of:
        raise MonaiCaeError(f"part must be one of several, such as 2/5, not {words!r}")
    if of > len(parts):
        raise MonaiCaeError(f"part {words}: there are {len(parts)} splits to share, so at most {len(parts)} parts")
    return list(parts[number - 1 :: of])


def run_share(
    plan: Plan, parts: Sequence[Part], share: Sequence[Part], target: Target, resume: bool, overwrite: bool
) -> None:
    """Do the steps of some splits, without anything that others do too; MLflow's runs go to a database of their own,
    beside the first split, until an experiment that resumes takes them over.

    Args:
        plan: of the experiment.
        parts: of it.
        share: those that this process does.
        target: what is predicted.
        resume: keep what is finished of them.
        overwrite: remove what there is of them first.

    Raises:
        MonaiCaeError: earlier results that are neither to be kept nor to be overwritten, or whatever a stage refuses.
    """
    folders = [plan.output / part.folder for part in share]
    if resume:
        refuse_other_settings(plan, share)
    elif not overwrite:
        refuse_steps(plan.output, folders)
    say(f"{len(share)} of {len(parts)} splits into {plan.output}: {', '.join(part.folder for part in share)}")
    datalists = check_parts(plan, share, overwrite, target)
    if overwrite:
        own = [path for path in left_in(plan.output) if any(folder in path.parents for folder in folders)]
        remove(own, plan.output)
        forget(folders)
    for path, content in datalists.items():
        write_content(path, content)
    if not (plan.output / STATE).is_file():  # the others write the same
        write_record(plan.output / STATE, {"run_id": "", "steps": planned(plan, parts)})
    done = {part: plan.finished(part) if resume else {} for part in share}
    with writing_to(folders[0]):
        run_steps(plan, share, done, target, InProcess(), None)


def planned(plan: Plan, parts: Sequence[Part]) -> dict[str, list[str]]:
    """Part -> its steps, as the experiment's state records them."""
    return {part.folder: [step.name for step in plan.steps(part)] for part in parts}


def refuse_other_settings(plan: Plan, parts: Sequence[Part]) -> None:
    """Raise MonaiCaeError if a finished step of some parts had other settings."""
    for part in parts:
        done = plan.finished(part)
        for step in plan.steps(part):
            if step.name in done:
                step.refuse_other_settings(done[step.name]["settings"], plan.output / part.folder)
