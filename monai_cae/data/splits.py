"""Whole subjects into training, validation and test: written once as a MONAI datalist, read back by every stage."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sklearn.model_selection import train_test_split

from monai_cae.data.cohort import Cohort, load_cohort
from monai_cae.data.readers import check_images
from monai_cae.data.scan import Scan
from monai_cae.errors import MonaiCaeError
from monai_cae.files import replacing

SETS = ("training", "validation", "test")
Item = dict[str, Any]


@dataclass(frozen=True)
class Sets:
    """The items of a datalist: `image` (absolute path), `label` (0 HC, 1 AD), `subject`, and the table's columns.

    Attributes:
        training, validation, test: the three sets, whole subjects each.
        synthetic: the images are a phantom's, not real MRI.
    """

    training: list[Item]
    validation: list[Item]
    test: list[Item]
    synthetic: bool = False


def load_sets(
    dataset_dir: str | Path,
    datalist: str | Path,
    *,
    table: str | Path | None = None,
    plane: str = "axial",
    slice_index: int = 106,
    controls: str = "oldest",
    test_fraction: float = 0.3,
    val_fraction: float = 0.2,
    seed: int = 0,
) -> Sets:
    """The three sets, read from the datalist; where there is none yet, it is made from the cohort first.

    Args:
        dataset_dir: cohort folder; the datalist's image paths are relative to it.
        datalist: JSON file, written atomically when it does not exist.
        table, plane, controls: see `load_cohort`.
        slice_index: 1-based; every image must have that slice.
        test_fraction, val_fraction, seed: see `split_cohort`.

    Raises:
        MonaiCaeError: a datalist of other settings, a subject in two sets, a missing image, or what `load_cohort`,
            `split_cohort` and `check_images` refuse.
    """
    datalist = Path(datalist)
    made_from = {
        "dataset_dir": str(Path(dataset_dir).resolve()),
        "controls": controls,
        "test_fraction": test_fraction,
        "val_fraction": val_fraction,
        "seed": seed,
    }
    if not datalist.exists():
        cohort = load_cohort(dataset_dir, table=table, plane=plane, controls=controls)
        check_images([scan.image for scan in cohort.scans], plane=plane, slice_index=slice_index)
        sets = split_cohort(cohort, test_fraction=test_fraction, val_fraction=val_fraction, seed=seed)
        write_datalist(datalist, sets, root=Path(dataset_dir), synthetic=cohort.synthetic, made_from=made_from)
    return read_datalist(datalist, dataset_dir, made_from=made_from)


def split_cohort(
    cohort: Cohort, *, test_fraction: float = 0.3, val_fraction: float = 0.2, seed: int = 0
) -> dict[str, list[Scan]]:
    """Split by subject, stratified by class: of the paper's 200 subjects 112, 28 and 60 (section III-B).

    Args:
        cohort: one scan per subject.
        test_fraction: share of all subjects in the test set.
        val_fraction: share of the remaining subjects in the validation set.
        seed: decides the split, alone.

    Raises:
        MonaiCaeError: a fraction outside (0, 1), no such seed, or too few subjects for both classes in every set.
    """
    for name, fraction in (("test_fraction", test_fraction), ("val_fraction", val_fraction)):
        if not (isinstance(fraction, float) and 0 < fraction < 1):
            raise MonaiCaeError(f"{name} must be between 0 and 1, not {fraction}")
    if isinstance(seed, bool) or not isinstance(seed, int) or not 0 <= seed < 2**32:
        raise MonaiCaeError(f"seed must be a whole number from 0 to {2**32 - 1}, not {seed}")
    try:
        rest, test = _stratified(cohort.scans, test_fraction, seed)
        training, validation = _stratified(rest, val_fraction, seed)
    except ValueError as error:
        raise MonaiCaeError(_too_few(cohort)) from error
    sets = {"training": training, "validation": validation, "test": test}
    if any({scan.label for scan in scans} != {0, 1} for scans in sets.values()):
        raise MonaiCaeError(_too_few(cohort))
    return sets


def _stratified(scans: list[Scan], fraction: float, seed: int) -> tuple[list[Scan], list[Scan]]:
    labels = [scan.label for scan in scans]
    return train_test_split(scans, test_size=fraction, stratify=labels, random_state=seed)


def _too_few(cohort: Cohort) -> str:
    return (
        f"too few subjects to split: {len(cohort.patients)} patients and {len(cohort.controls)} controls do not give "
        "both classes in training, validation and test; add subjects or change test_fraction and val_fraction"
    )


def write_datalist(
    path: Path, sets: Mapping[str, Sequence[Scan]], *, root: Path, synthetic: bool, made_from: Mapping[str, Any]
) -> None:
    """Write the sets as a MONAI datalist JSON (`monai.data.load_decathlon_datalist` reads it), atomically.

    Raises:
        MonaiCaeError: the folder can't be written.
    """
    content: dict[str, Any] = {
        "name": "synthetic cohort, not real MRI" if synthetic else root.resolve().name,
        "description": "whole subjects per set; label 0 = HC (CDR 0), 1 = AD (CDR > 0)",
        "synthetic": synthetic,
        "made_from": dict(made_from),
    }
    for name in SETS:
        content[name] = [_item(scan, root) for scan in sets[name]]
    with replacing(path) as temporary:
        temporary.write_text(json.dumps(content, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


def _item(scan: Scan, root: Path) -> Item:
    if scan.image is None or scan.label is None:
        raise MonaiCaeError(f"{scan.name} has no image or no CDR: a table alone can't be split for training")
    given = {"session": scan.session, "cdr": scan.cdr, "age": scan.age, "sex": scan.sex, **scan.covariates}
    image = os.path.relpath(scan.image, root)
    return {
        "image": image,
        "label": scan.label,
        "subject": scan.subject,
        **{k: v for k, v in given.items() if v not in (None, "")},
    }


def read_datalist(path: str | Path, dataset_dir: str | Path, *, made_from: Mapping[str, Any] | None = None) -> Sets:
    """Read a datalist and check that it can be trusted.

    Args:
        path: MONAI datalist JSON with "training", "validation" and "test".
        dataset_dir: what its image paths are relative to.
        made_from: the settings of this run; a datalist that records other ones is refused.

    Raises:
        MonaiCaeError: not a datalist, made from other settings, a subject in two sets, a label other than 0 and 1, a
            missing image.
    """
    path = Path(path)
    content = _read_json(path)
    recorded = content.get("made_from") or {}
    for key, value in (made_from or {}).items():
        if key in recorded and recorded[key] != value:
            raise MonaiCaeError(
                f"{path} was made with {key} {recorded[key]}, not {value}: choose another --output_dir, or delete "
                f"the file"
            )
    # not load_decathlon_datalist: it makes a path of every value that happens to name a file, of subject IDs too
    root = Path(dataset_dir).absolute()
    sets = {name: [_located(item, root, name, path) for item in content[name]] for name in SETS}
    owner: dict[str, str] = {}
    for name, items in sets.items():
        for item in items:
            if owner.setdefault(item["subject"], name) != name:
                raise MonaiCaeError(
                    f"{path}: subject {item['subject']} is in {owner[item['subject']]} and in {name}: "
                    "a subject may be in one set only, or the result is worthless"
                )
    return Sets(**sets, synthetic=bool(content.get("synthetic", False)))


def _read_json(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise MonaiCaeError(f"no datalist at {path}: check --datalist and --output_dir") from error
    except (OSError, ValueError) as error:
        raise MonaiCaeError(f"{path} is not readable JSON ({error}): delete it to have it made anew") from error
    given = content if isinstance(content, dict) else {}
    missing = [name for name in SETS if not isinstance(given.get(name), list) or not given[name]]
    if missing:
        raise MonaiCaeError(f"{path} is no datalist for this: it has no {', '.join(missing)} set")
    return given


def _located(item: Any, root: Path, name: str, path: Path) -> Item:
    if not (isinstance(item, dict) and isinstance(item.get("image"), str) and isinstance(item.get("subject"), str)):
        raise MonaiCaeError(f"{path}: an item of {name} has no image or no subject: both are needed")
    if item.get("label") not in (0, 1):
        raise MonaiCaeError(
            f"{path}: the label of {item['subject']} is {item.get('label')!r}; it must be 0 (HC) or 1 (AD)"
        )
    image = root / item["image"]
    if not image.is_file():
        raise MonaiCaeError(f"{image} is missing ({path} names it): check --dataset_dir")
    return {**item, "image": str(image)}
