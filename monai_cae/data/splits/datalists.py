"""A datalist's JSON as data of the right types, whoever wrote it; readers decide what it means."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from monai_cae.data.path_safety import below
from monai_cae.data.scan import Scan
from monai_cae.data.texts import one_line, require_plain, shown
from monai_cae.errors import MonaiCaeError
from monai_cae.files import marked, unmarked, write_text

SETS = ("training", "validation", "test")
MAX_BYTES = 64 << 20  # 100,000 items are about half of it
_OBJECTS = ("made_from", "recipe")
_NAMES = ("image", "subject", "session", "sex")  # texts on one line
Item = dict[str, Any]


def read_content(path: Path, hint: str = "give a MONAI datalist JSON") -> dict[str, Any]:
    """What is in the file, checked but for its items; an error says the hint where it is none.

    Raises:
        MonaiCaeError: no file, too large, not JSON in UTF-8, a later format, or an invalid record of how it was made.
    """
    if not path.is_file():
        raise MonaiCaeError(f"no datalist at {path}: check --datalist")
    try:
        if path.stat().st_size > MAX_BYTES:
            raise ValueError(f"it has {path.stat().st_size} bytes, the limit is {MAX_BYTES}")
        content = json.loads(path.read_text(encoding="utf-8"))
        json.dumps(content, ensure_ascii=False).encode()  # a half of a pair, such as \ud800, is in no text
    except (OSError, ValueError, RecursionError) as error:
        raise MonaiCaeError(f"{path} is not readable JSON ({one_line(error)}): {hint}") from error
    if not isinstance(content, dict):
        raise MonaiCaeError(f"{path} is not a usable datalist: it is not an object with training, validation and test")
    content = unmarked(content, path)
    for name in _OBJECTS:
        if not isinstance(content.get(name) or {}, dict):
            raise MonaiCaeError(f"{path} is not a usable datalist (its {name} is {shown(content[name])}): {hint}")
    check_record(content, path)
    return content


def recorded_folder(path: Path) -> Path:
    """What a datalist's image paths are relative to: the folder that it records, else its own."""
    return Path((read_content(path).get("made_from") or {}).get("dataset_dir") or path.parent)


def check_record(content: Mapping[str, Any], path: Path) -> None:
    """Raise MonaiCaeError where what a datalist records of its making is of the wrong type or not plain."""
    made_from, recipe = (content.get(name) or {} for name in ("made_from", "recipe"))
    for what, value in (("dataset_dir", made_from.get("dataset_dir")), ("layout", recipe.get("layout"))):
        if value is not None:
            if not isinstance(value, str):
                raise MonaiCaeError(f"{path} is not a usable datalist: its {what} is {shown(value)}, not a text")
            require_plain(value, f"{path}: its {what}")
    left_out = recipe.get("left_out") or {}
    if not (isinstance(left_out, dict) and all(type(n) is int and 0 <= n < 1 << 32 for n in left_out.values())):
        raise MonaiCaeError(
            f"{path} is not a usable datalist: its left_out is {shown(left_out)}, not numbers by reason"
        )
    for why in left_out:
        require_plain(why, f"{path}: a reason in its left_out")


def write_datalist(path: Path, sets: Mapping[str, Sequence[Scan]], **about: Any) -> None:
    """Write the sets as a MONAI datalist JSON (`monai.data.load_decathlon_datalist` reads it), atomically.

    Args:
        path: the file; MonaiCaeError where it can't be written.
        sets, about: see `datalist_content`.
    """
    write_content(path, datalist_content(sets, **about))


def datalist_content(
    sets: Mapping[str, Sequence[Scan]],
    *,
    root: Path,
    synthetic: bool,
    made_from: Mapping[str, Any],
    recipe: Mapping[str, Any] | None = None,
    labels: str = "label 0 = control, 1 = patient, by the recorded rules",
) -> dict[str, Any]:
    """What a datalist has in it.

    Args:
        sets: "training", "validation", "test" -> scans.
        root: the image paths are relative to it.
        synthetic: the images are a phantom's.
        made_from, recipe: settings that a run must share to use the file, and how else it came about, for the record.
        labels: what they mean.
    """
    content: dict[str, Any] = {
        "name": "synthetic cohort, not real MRI" if synthetic else root.resolve().name,
        "description": f"whole subjects per set; {labels}",
        "synthetic": synthetic,
        "made_from": dict(made_from),
        **({"recipe": dict(recipe)} if recipe else {}),
    }
    return content | {name: [_item(scan, folder_of(root)) for scan in sets[name]] for name in SETS}


def write_content(path: str | Path, content: Mapping[str, Any]) -> None:
    """Write a datalist's content, atomically."""
    write_text(path, json.dumps(marked(content), indent=2, ensure_ascii=False) + "\n")


def folder_of(dataset_dir: Path) -> Path:
    """What image paths are relative to; of a datalist whose subjects are split anew, what its own are."""
    if dataset_dir.is_file() and dataset_dir.suffix.lower() == ".json":
        return recorded_folder(dataset_dir)
    return dataset_dir.parent if dataset_dir.is_file() else dataset_dir


def _item(scan: Scan, folder: Path) -> Item:
    if scan.image is None or scan.label is None:
        raise MonaiCaeError(f"{scan.name} has no image or no CDR: a table alone can't be split for training")
    given = {"session": scan.session, "cdr": scan.cdr, "age": scan.age, "sex": scan.sex, **scan.covariates}
    return {
        "image": below(scan.image, folder),
        "label": scan.label,
        "subject": scan.subject,
        **{k: v for k, v in given.items() if v not in (None, "")},
    }


def checked_item(item: Any, what: str) -> dict[str, Any]:
    """An item with its names as texts; some write the subject 7 as a number. Errors name it as `what`: file and set.

    Raises:
        MonaiCaeError: no image or subject, or another value than a datalist has: a name that is no text, an age or CDR
            that is no number, a number that is not finite.
    """
    given = dict(item) if isinstance(item, dict) else {}
    for name in _NAMES:
        value = given.get(name)
        if value is None:
            continue
        text = str(value) if _is_number(value) and name != "image" else value
        if not isinstance(text, str):
            raise MonaiCaeError(f"{what} has the {name} {shown(value)}, not a text: correct it")
        require_plain(text, f"{what}: its {name}")
        given[name] = text
    if not (given.get("image") or "").strip() or not (given.get("subject") or "").strip():
        raise MonaiCaeError(f"{what} has no image or no subject: both are needed")
    for name, value in given.items():
        if value is not None and (name in ("age", "cdr") or _is_number(value)) and not _is_finite(value):
            raise MonaiCaeError(
                f"{what}: {shown(name)} of {given['subject']} is {shown(value)}, not a finite number: correct it or "
                "leave it out"
            )
    age = given.get("age")
    if age is not None and not 0 < age < 130:
        raise MonaiCaeError(f"{what}: the age of {given['subject']} is {age:g} years: correct it or leave it out")
    return given


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def _is_finite(value: Any) -> bool:
    try:
        return _is_number(value) and math.isfinite(value)
    except OverflowError:  # a whole number of hundreds of digits
        return False
