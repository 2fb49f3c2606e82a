"""The audits that a training and a test on another cohort have to pass before they begin."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from monai_cae.data.cohort.selection import Labels
from monai_cae.data.images.extraction import Extraction
from monai_cae.data.splits.audit import PRETRAINING, audit_datalist
from monai_cae.data.splits.sets import Sets
from monai_cae.errors import MonaiCaeError


def audit_training(
    sets: Sets,
    extraction: Extraction,
    *,
    pretrained_on: Sequence[str] = (),
    allow_leaks: bool = False,
    target: Labels | None = None,
) -> dict[str, Any]:
    """Audit the sets of a run, and refuse to go on with a leak, unless it is allowed; the audit as plain data.

    Args:
        sets: as read from the datalist.
        extraction, pretrained_on, target: see `audit_sets`.
        allow_leaks: go on in spite of leaks.

    Raises:
        MonaiCaeError: a leak that is not allowed.
    """
    audit = audit_datalist(sets, extraction, pretrained_on=pretrained_on, target=target)
    if audit.leaks and not allow_leaks:
        more = f" (and {len(audit.leaks) - 1} more)" if len(audit.leaks) > 1 else ""
        raise MonaiCaeError(
            f"leak between the sets: {audit.leaks[0].message}{more}; `monai-cae audit DATALIST` shows all; correct the "
            "datalist, or train anyway with --allow_leaks true: every result will say so"
        )
    return audit.to_dict()


def audit_external(
    sets: Sets,
    extraction: Extraction,
    *,
    pretrained_on: Sequence[str] = (),
    allow_leaks: bool = False,
    target: Labels | None = None,
) -> dict[str, Any]:
    """`audit_training` of a cohort that a finished network is tested on: it must not have seen anybody there.

    The images that it was trained on are not at hand, so that subjects are compared by their names alone.

    Raises:
        MonaiCaeError: it has seen some of them, or that can't be told because of pseudonyms, and it is not allowed.
    """
    audit = audit_datalist(sets, extraction, pretrained_on=pretrained_on, target=target)
    unsure = [finding for finding in audit.findings if finding.check == PRETRAINING and not finding.leak]
    if unsure and not allow_leaks:
        raise MonaiCaeError(
            "whether the network has seen these subjects can't be told, as it was trained with another --hash_ids: "
            f"give --hash_ids {str(not sets.hashed).lower()}, or go on with --allow_leaks true"
        )
    if audit.leaks and not allow_leaks:
        people, seen = {item["subject"] for item in sets.test}, {finding.message for finding in audit.leaks}
        first = audit.leaks[0].members[0].removeprefix("test: ")
        raise MonaiCaeError(
            f"{len(seen)} of {len(people)} subjects were seen by the network in training, by their names, such as "
            f"{first}: leave them out of the table, or go on with --allow_leaks true, also where "
            "they are others of the same name: every result will say so"
        )
    return audit.to_dict()
