"""The audit at the start of every training: refuses leaks unless they are allowed."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from monai_cae.data.cohort.selection import Labels
from monai_cae.data.images.extraction import Extraction
from monai_cae.data.splits.audit import audit_sets
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
    """Audit the sets of a run, and refuse to go on with a leak.

    Args:
        sets: as read from the datalist.
        extraction: what is compared of the images.
        pretrained_on: hashed IDs of the subjects that the checkpoints in use have seen.
        allow_leaks: go on in spite of leaks.
        target: what the labels are; by default classes.

    Returns:
        The audit as plain data: `Audit.to_dict()`.

    Raises:
        MonaiCaeError: a leak that is not allowed.
    """
    audit = audit_sets(
        sets.training,
        sets.validation,
        sets.test,
        extraction=extraction,
        synthetic=sets.synthetic,
        pretrained_on=pretrained_on,
        name_files=not sets.hashed,
        bad_scans=sets.bad_scans,
        target=target,
    )
    if audit.leaks and not allow_leaks:
        more = f" (and {len(audit.leaks) - 1} more)" if len(audit.leaks) > 1 else ""
        raise MonaiCaeError(
            f"leak between the sets: {audit.leaks[0].message}{more}; `monai-cae audit DATALIST` shows all; correct the "
            "datalist, or train anyway with --allow_leaks true: every result will say so"
        )
    return audit.to_dict()
