"""The audit at the start of every training: refuse a leak, unless told so."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from monai_cae.data.cohort.selection import Labels
from monai_cae.data.splits.audit import Audit, audit_sets, hash_subject
from monai_cae.data.splits.datalists import SETS, Item
from monai_cae.data.splits.sets import Sets
from monai_cae.errors import MonaiCaeError
from monai_cae.files import replacing


def audit_training(
    sets: Sets,
    *,
    plane: str,
    slice_index: int,
    axes: str = "anatomical",
    pretrained_on: Sequence[str] = (),
    allow_leaks: bool = False,
    target: Labels | None = None,
) -> dict[str, Any]:
    """Audit the sets of a run, and refuse to go on with a leak.

    Args:
        sets: as read from the datalist.
        plane, slice_index, axes: the slice that is compared.
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
        plane=plane,
        slice_index=slice_index,
        axes=axes,
        synthetic=sets.synthetic,
        pretrained_on=pretrained_on,
        name_files=not sets.hashed,
        bad_scans=sets.bad_scans,
        target=target,
    )
    if audit.leaks and not allow_leaks:
        more = f" (and {len(audit.leaks) - 1} more)" if len(audit.leaks) > 1 else ""
        raise MonaiCaeError(
            f"leak between the sets: {audit.leaks[0].message}{more}; `monai-cae audit DATALIST` shows all; mend the "
            "datalist, or train anyway with --allow_leaks true: every result will say so"
        )
    return audit.to_dict()


def certify_datalist(path: str | Path, audit: Audit) -> None:
    """Write the outcome of an audit into its datalist, with a digest of the sets that it is of.

    Args:
        path: the datalist, rewritten atomically.
        audit: of its sets.

    Raises:
        MonaiCaeError: the file can't be written.
    """
    path = Path(path)
    content = json.loads(path.read_text(encoding="utf-8"))
    content["certificate"] = {
        "sets_sha256": sets_digest(content),
        "leaks": len(audit.leaks),
        "scans_left_out": len(audit.bad_scans),
        "checks": {check["name"]: check["passed"] for check in audit.checks},
    }
    with replacing(path) as temporary:
        temporary.write_text(json.dumps(content, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


def sets_digest(content: Mapping[str, Any]) -> str:
    """SHA-256 of a datalist's three sets, so that a certificate can be told from one of other sets."""
    sets = json.dumps([content[name] for name in SETS], sort_keys=True)
    return hashlib.sha256(sets.encode()).hexdigest()


def hashed_subjects(items: Iterable[Item]) -> list[str]:
    """The hashed subject IDs of some items, each once, for a checkpoint to carry."""
    return sorted({hash_subject(item["subject"]) for item in items})
