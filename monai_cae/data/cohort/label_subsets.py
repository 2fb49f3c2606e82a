"""Fewer labelled subjects, or permuted labels, to compare results with."""

from __future__ import annotations

import math
import zlib
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from monai_cae.data.cohort.selection import Labels, PatientsAndControls
from monai_cae.errors import MonaiCaeError

Item = dict[str, Any]


def labelled_items(
    items: Sequence[Item],
    *,
    share: float = 1.0,
    permute_labels: bool = False,
    seed: int = 0,
    target: Labels | None = None,
) -> list[Item]:
    """The items of a set that a classifier learns from.

    Args:
        items: with `subject` and `label`.
        share: keep this share of the subjects, as far as that goes of each class (or stratum), and of each at least
            one; a larger share includes every smaller one, so a learning curve adds subjects and exchanges none.
        permute_labels: permute the subjects' labels at random, with one constraint: patients and controls get label 1
            equally often, so the new labels can't resemble the true ones by chance. A score above chance is then luck,
            or a leak.
        seed: decides which subjects are kept and how labels are permuted.
        target: what the labels are; by default classes.

    Raises:
        MonaiCaeError: a share outside (0, 1].
    """
    if not isinstance(share, (int, float)) or not 0 < share <= 1:
        raise MonaiCaeError(f"training_share must be above 0 and at most 1, not {share!r}")
    target = target or PatientsAndControls()
    label = {item["subject"]: item["label"] for item in items}
    strata = dict(zip(label, target.strata([*label.values()]), strict=True))
    order = np.random.default_rng(seed).permutation(sorted(label))
    places: dict[str, tuple[float, int]] = {}
    for stratum in set(strata.values()):
        members = [str(subject) for subject in order if strata[subject] == stratum]
        # its first one before all seconds, then all strata evenly
        places |= {one: (number / len(members), number) for number, one in enumerate(members)}
    ordered = sorted((str(subject) for subject in order), key=places.__getitem__)
    kept = set(ordered[: max(len(set(strata.values())), math.ceil(share * len(ordered)))])
    if permute_labels and target.classes:
        label = _dealt_out(label, seed)
    elif permute_labels:
        label = dict(zip(order.tolist(), (label[subject] for subject in sorted(label)), strict=True))
    return [{**item, "label": label[item["subject"]]} for item in items if item["subject"] in kept]


def _dealt_out(label: Mapping[str, float], seed: int) -> dict[str, float]:
    """As many labels of each kind as before, in equal shares among those who were of one kind."""
    rng = np.random.default_rng([seed, zlib.crc32("\n".join(sorted(label)).encode())])  # each fold has its own deal
    patients, controls = (rng.permutation(sorted(s for s in label if label[s] == kind)) for kind in (1, 0))
    among_patients = round(len(patients) ** 2 / len(label))
    among_controls = len(patients) - among_patients
    chosen = {*patients[:among_patients].tolist(), *controls[:among_controls].tolist()}
    return {subject: int(subject in chosen) for subject in label}
