"""The audits that a training and a test on another cohort have to pass before they begin."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from monai_cae.data.cohort.pseudonyms import hash_subject, names_of, with_pseudonyms
from monai_cae.data.cohort.selection import Labels
from monai_cae.data.images.extraction import Extraction
from monai_cae.data.images.frames import Frame, frames_of, other_voxels
from monai_cae.data.images.readers import read_image
from monai_cae.data.splits.audit import PRETRAINING, audit_datalist
from monai_cae.data.splits.datalists import SETS, Item, checked_item, read_content, recorded_folder
from monai_cae.data.splits.sets import Sets
from monai_cae.errors import MonaiCaeError
from monai_cae.terminal import say


def audit_training(
    sets: Sets,
    extraction: Extraction,
    *,
    pretrained_on: Sequence[str] = (),
    labels_of: Sequence[str] = (),
    checkpoints: Sequence[str | Path] = (),
    datalist: str = "",
    allow_leaks: bool = False,
    target: Labels | None = None,
) -> dict[str, Any]:
    """Audit the sets of a run, and refuse to go on with a leak, unless it is allowed; the audit as plain data.

    Args:
        sets: as read from the datalist.
        extraction, pretrained_on, target: see `audit_sets`.
        labels_of: `hash_subject` of every subject whose label a pretrained checkpoint has learned; a note of the audit
            tells whose of the validation set.
        checkpoints: what the run starts from; the test images are compared with those of their trainings, too.
        datalist: of these sets, with which nothing is compared twice.
        allow_leaks: go on in spite of leaks.

    Raises:
        MonaiCaeError: a leak that is not allowed.
    """
    seen, missing = images_of_training(checkpoints, extraction, hash_ids=sets.hashed, without=datalist)
    audit = audit_datalist(sets, extraction, pretrained_on=pretrained_on, trained_on=seen, target=target)
    if missing:
        total = missing + len(seen)
        told = f"{missing} of {total} images that earlier trainings have seen are not there: names alone tell"
        audit = replace(audit, notes=[*audit.notes, told])
    people = {item["subject"] for item in sets.validation}
    known = {name for name in people if {*labels_of} & {hash_subject(alias) for alias in names_of(name)}}
    if known:
        told = (
            f"the pretrained checkpoint has learned the labels of {len(known)} of {len(people)} validation subjects: "
            "what is chosen by their scores is chosen too well"
        )
        audit = replace(audit, notes=[*audit.notes, told])
        say(f"note: {told}")
    if audit.leaks and not allow_leaks:
        more = f" (and {len(audit.leaks) - 1} more)" if len(audit.leaks) > 1 else ""
        earlier = audit.leaks[0].check == PRETRAINING
        advice = "leave its subjects out with --cohort#unseen_by RUN" if earlier else "correct the datalist"
        raise MonaiCaeError(
            f"leak between the sets: {audit.leaks[0].message}{more}; `monai-cae audit DATALIST` shows all; {advice}, "
            "or train anyway with --allow_leaks true: every result will say so"
        )
    return audit.to_dict()


def audit_external(
    sets: Sets,
    extraction: Extraction,
    *,
    pretrained_on: Sequence[str] = (),
    checkpoints: Sequence[str | Path] = (),
    datalist: str = "",
    training: Frame | None = None,
    allow_leaks: bool = False,
    target: Labels | None = None,
) -> dict[str, Any]:
    """`audit_training` of a cohort that a finished network is tested on: it must not have seen anybody there.

    Subjects are compared by their names, and by the images of the training that are still where a datalist beside the
    weights says.

    Args:
        sets, extraction, pretrained_on, datalist, allow_leaks, target: see `audit_training`.
        checkpoints: the weights of the network and of what it started from, in the folders that their runs have left.
        training: where the weights say that the volumes of the training lie.

    Returns:
        The audit as plain data; "images_of_training" counts those that were compared, and those that were not there;
        "other_voxels" says how many look larger or smaller than the training's;
        "unplaced" is true where the training's volumes do not say where they lie, and some of these do.

    Raises:
        MonaiCaeError: it has seen some of them, or that can't be told because of pseudonyms, and it is not allowed.
    """
    seen, missing = images_of_training(checkpoints, extraction, hash_ids=sets.hashed, without=datalist)
    audit = audit_datalist(sets, extraction, pretrained_on=pretrained_on, trained_on=seen, target=target)
    unsure = [finding for finding in audit.findings if finding.check == PRETRAINING and not finding.leak]
    if unsure and not allow_leaks:
        raise MonaiCaeError(
            "whether the network has seen these subjects can't be told, as it was trained with another --hash_ids: "
            f"give --hash_ids {str(not sets.hashed).lower()}, or go on with --allow_leaks true"
        )
    by_name = {finding.message for finding in audit.leaks if finding.check == PRETRAINING}
    if by_name and not allow_leaks:
        people = {item["subject"] for item in sets.test}
        first = next(finding for finding in audit.leaks if finding.check == PRETRAINING)
        raise MonaiCaeError(
            f"{len(by_name)} of {len(people)} subjects were seen by the network in training, by their names, such as "
            f"{first.members[0].removeprefix('test: ')}: leave them out of the table, or go on with --allow_leaks "
            "true, also where they are others of the same name: every result will say so"
        )
    if audit.leaks and not allow_leaks:
        more = f" (and {len(audit.leaks) - 1} more)" if len(audit.leaks) > 1 else ""
        raise MonaiCaeError(
            "the network has seen images of this cohort in training, under other names: "
            f"{audit.leaks[0].message}{more}; leave them out of the table, or go on with --allow_leaks true: every "
            "result will say so"
        )
    frames = frames_of([item["image"] for item in sets.test], extraction)
    unplaced = training is not None and not training.codes and any(frame.codes for frame in frames)
    return {
        **audit.to_dict(),
        "images_of_training": {"compared": len(seen), "missing": missing},
        "unplaced": unplaced,
        "other_voxels": other_voxels(frames, extraction, training),
    }


def images_of_training(
    checkpoints: Sequence[str | Path], extraction: Extraction, *, hash_ids: bool = False, without: str = ""
) -> tuple[list[Item], int]:
    """The items that a network was trained and chosen on, whose images are still there, and how many others there are.

    Args:
        checkpoints: weights in the folders that their runs have left: RUN/datalist.json and RUN/models/FILE, or
            RUN/variants/NAME/models/FILE.
        extraction: what can be read of the images.
        hash_ids: give their subjects pseudonyms.
        without: a datalist that does not count.
    """
    known: dict[str, Item] = {}
    runs = [Path(path).absolute().parent.parent for path in checkpoints]
    runs += [run.parents[1] for run in runs if run.parent.name == "variants"]
    for datalist in dict.fromkeys(run / "datalist.json" for run in runs):
        if without and datalist.resolve() == Path(without).resolve():
            continue
        try:
            content, root = read_content(datalist), recorded_folder(datalist)
            items = [checked_item(item, str(datalist)) for name in SETS[:2] for item in content.get(name) or []]
        except (MonaiCaeError, TypeError):  # none, or nobody's
            continue
        for item in items:
            known.setdefault(str(root / item["image"]), {**item, "image": str(root / item["image"])})
    there = [item for item in known.values() if _readable(item["image"], extraction)]
    return with_pseudonyms(there) if hash_ids else there, len(known) - len(there)


def _readable(image: str, extraction: Extraction) -> bool:
    try:
        read_image(extraction, image)
    except MonaiCaeError:
        return False
    return True
