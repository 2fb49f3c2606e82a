"""Split whole subjects into training, validation and test, stratified by the target."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from sklearn.model_selection import StratifiedKFold, train_test_split

from monai_cae.data.cohort.selection import Cohort, Labels, PatientsAndControls
from monai_cae.data.scan import Scan
from monai_cae.errors import MonaiCaeError

KINDS = ("holdout", "kfold")


@dataclass(frozen=True)
class Split:
    """How a cohort is split.

    Attributes:
        kind: "holdout" draws the test set; "kfold" takes one of `folds` equal parts, which together are everybody.
        folds: how many parts.
        fold: which part is the test set, counted from 1.
        test_fraction: share of all subjects in the test set of a hold-out.
        val_fraction: share of the remaining subjects in the validation set.
        stratify: "class", or with "+age" (tertiles) and "+sex" appended, e.g. "class+age+sex"; strata too small to
            divide are joined with others of their class.
        seed: decides the split, alone.

    Raises:
        MonaiCaeError: an unknown kind, a fraction outside (0, 1), no such fold or seed.
    """

    kind: str = "holdout"
    folds: int = 5
    fold: int = 1
    test_fraction: float = 0.3
    val_fraction: float = 0.2
    stratify: str = "class"
    seed: int = 0

    def __post_init__(self) -> None:
        if self.kind not in KINDS:
            raise MonaiCaeError(f"split kind must be one of {', '.join(KINDS)}, not {self.kind!r}")
        folds, fold = self.folds, self.fold
        if not (_is_whole(folds) and folds >= 2 and _is_whole(fold) and 1 <= fold <= folds):
            raise MonaiCaeError(f"fold must be from 1 to folds, and folds at least 2, not {fold} of {folds}")
        for name in ("test_fraction", "val_fraction"):
            fraction = getattr(self, name)
            if not (isinstance(fraction, float) and 0 < fraction < 1):
                raise MonaiCaeError(f"{name} must be between 0 and 1, not {fraction}")
        by_class, *others = str(self.stratify).split("+")
        if by_class != "class" or not set(others) <= {"age", "sex"}:
            raise MonaiCaeError(f"stratify must be class, class+age, class+sex or class+age+sex, not {self.stratify!r}")
        if not (_is_whole(self.seed) and 0 <= self.seed < 2**32):
            raise MonaiCaeError(f"seed must be a whole number from 0 to {2**32 - 1}, not {self.seed}")


def split_cohort(cohort: Cohort, *, target: Labels | None = None, **split: Any) -> dict[str, list[Scan]]:
    """Split whole subjects, stratified by class: of the paper's 200 subjects 112, 28 and 60 (section III-B).

    Args:
        cohort: who takes part; all scans of a subject go into one set.
        target: what the labels are; by default classes.
        **split: fields of `Split`.

    Raises:
        MonaiCaeError: what `Split` refuses, or too few subjects for the target, or for both classes in every set.
    """
    how, target = Split(**split), target or PatientsAndControls()
    strata = _strata(cohort, target, how.stratify)
    if len(strata) < target.fewest:
        raise MonaiCaeError(
            f"only {len(strata)} subjects have {target.name}, and {target.fewest} are the fewest for a regression: add "
            "subjects, or choose another target"
        )
    kinds = {subject: _kind(stratum) for subject, stratum in strata.items()}
    needed = {*map(_kind, target.strata([*target.classes]))} or {*kinds.values()}
    subjects = sorted(strata)
    try:
        if how.kind == "kfold":
            if min(Counter(kinds.values()).values()) < how.folds:
                raise ValueError("a fold would lack a class")  # scikit-learn only warns
            parts = StratifiedKFold(how.folds, shuffle=True, random_state=how.seed)
            joined = _joined([strata[subject] for subject in subjects], smallest=how.folds, most=len(subjects))
            rest_index, test_index = list(parts.split(subjects, joined))[how.fold - 1]
            rest, test = [subjects[i] for i in rest_index], [subjects[i] for i in test_index]
        else:
            rest, test = _divide(subjects, strata, how.test_fraction, how.seed)
        training, validation = _divide(rest, strata, how.val_fraction, how.seed)
    except ValueError as error:
        raise MonaiCaeError(_too_few(cohort, target)) from error
    sets: dict[str, list[Scan]] = {}
    for name, members in (("training", training), ("validation", validation), ("test", test)):
        if {kinds[subject] for subject in members} != needed:
            raise MonaiCaeError(_too_few(cohort, target))
        within = set(members)
        sets[name] = [scan for scan in cohort.scans if scan.subject in within]
    return sets


def _is_whole(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _strata(cohort: Cohort, labels: Labels, stratify: str) -> dict[str, str]:
    first = {scan.subject: scan for scan in reversed(cohort.scans)}
    found = labels.strata([scan.label for scan in first.values() if scan.label is not None])
    ages = [scan.age for scan in first.values() if scan.age is not None]
    edges = np.quantile(ages, [1 / 3, 2 / 3]) if ages and "age" in stratify else np.array([])
    strata = {}
    for (subject, scan), stratum in zip(first.items(), found, strict=True):
        age = np.searchsorted(edges, scan.age) if "age" in stratify and scan.age is not None else ""
        strata[subject] = f"{stratum} {age} {scan.sex if 'sex' in stratify else ''}"
    return strata


def _kind(stratum: str) -> str:
    """Its first word, of which every set needs somebody."""
    return stratum.partition(" ")[0]


def _joined(strata: list[str], smallest: int, most: int) -> list[str]:
    """The rarest stratum joined with the next of its kind, until each has `smallest` members and they are `most`."""
    while True:
        sizes = Counter(strata)
        kinds = Counter(map(_kind, sizes))
        rarest = sorted((size, stratum) for stratum, size in sizes.items() if kinds[_kind(stratum)] > 1)
        if not rarest or (rarest[0][0] >= smallest and len(sizes) <= most):
            return strata
        rare = rarest[0][1]
        other = next(stratum for _, stratum in rarest[1:] if _kind(stratum) == _kind(rare))
        strata = [other if stratum == rare else stratum for stratum in strata]


def _divide(subjects: list[str], strata: Mapping[str, str], fraction: float, seed: int) -> tuple[list[str], list[str]]:
    # as train_test_split counts, but one of each class in the smallest cohorts too; a part takes one of every stratum
    second = max(math.ceil(fraction * len(subjects)), 2)
    labels = _joined([strata[s] for s in subjects], smallest=2, most=min(second, len(subjects) - second))
    return train_test_split(subjects, test_size=second, stratify=labels, random_state=seed)


def _too_few(cohort: Cohort, target: Labels) -> str:
    sizes = Counter({scan.subject: scan.label for scan in cohort.scans}.values())
    found = " and ".join(f"{sizes[label]} {name}s" for label, name in target.classes.items())
    give = "do not give both classes in" if found else "are not enough for"
    return (
        f"too few subjects to split: {found or sizes.total()} {give} training, validation and test; add subjects, or "
        "change the split's fractions or folds"
    )
