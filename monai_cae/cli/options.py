"""Options that several commands share, with their help."""

from __future__ import annotations

import argparse
import re
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from monai_cae.data import SliceExtraction

SLICE = {"plane": "axial", "slice_index": 106}
_OF_A_TRAINING = ("on_bad_scan", "allow_leaks", "allow_outside")
LAYOUTS = "cohort folder (OASIS-1 discs, BIDS, Clinica CAPS, a folder with a table), or a datalist (.json)"


def add_trust(parser: argparse.ArgumentParser) -> None:
    text = "accept configs that are not monai-cae's own; they can run any program"
    parser.add_argument("--trust", action="store_true", help=text)


def add_hash_ids(parser: argparse.ArgumentParser) -> None:
    text = "keyed hashes instead of subject IDs in everything printed and drawn"
    parser.add_argument("--hash-ids", action="store_true", help=text)


def add_other_frame(parser: argparse.ArgumentParser) -> None:
    text = "accept slices more than 5 mm or 10 degrees from where the others lie"
    parser.add_argument("--allow-other-frame", action="store_true", help=text)


def add_slice(parser: argparse.ArgumentParser) -> None:
    text = "accept images outside the folder that a table or datalist names"
    parser.add_argument("--allow-outside", action="store_true", help=text)
    parser.add_argument("--plane", default="axial", help="axial, coronal or sagittal (default: axial)")
    text = "counted from 1, left to right, back to front or upwards (default: 106, the paper's)"
    parser.add_argument("--slice-index", type=int, default=106, help=text)
    text = "anatomical finds the plane from each header's orientation, stored from the order of the axes"
    parser.add_argument("--axes", default="anatomical", help=f"{text} (default: anatomical)")


def add_cohort(parser: argparse.ArgumentParser) -> None:
    add_slice(parser)
    parser.add_argument("path", type=Path, help=f"{LAYOUTS}, or a table alone")
    add_reading(parser)
    parser.add_argument(
        "--task", default="paper", help="paper (CDR > 0 v 0), ad (CDR >= 1 v 0), very-mild (CDR 0.5 v 0)"
    )
    parser.add_argument("--positive", default="", help='or a rule for patients, such as "CDR>0" or "DX == \'AD\'"')
    parser.add_argument("--negative", default="", help="rule for controls (default: known not to be patients)")
    parser.add_argument("--label-column", default="", help="or a column of 1 and 0")
    parser.add_argument("--controls", default="oldest", help="oldest, matched (age and sex) or all (default: oldest)")
    parser.add_argument("--sessions", default="first", help="first scan of a subject, or all (default: first)")
    parser.add_argument(
        "--allow-unmatched",
        action="store_true",
        help="continue even if more than a tenth of the rows have no image, or of the images no row",
    )


def add_reading(parser: argparse.ArgumentParser) -> None:
    """Add the options for reading a cohort, before selection."""
    parser.add_argument("--table", type=Path, help="the table, if it is not in the folder")
    for role in ("subject", "session", "image", "age", "sex"):
        none = "" if role == "subject" else "; none: do without it"
        parser.add_argument(f"--{role}-column", default="", help=f"the table's column for {role}{none}")
    parser.add_argument(
        "--subject-pattern",
        default="",
        help="regular expression that finds the subject in an ID; (.+) takes the whole ID",
    )
    parser.add_argument(
        "--missing-codes", help='numbers that mean "not given" (default: -1, -4, -8, -9, -99, -999, -9999)'
    )
    parser.add_argument(
        "--sex-codes", default="", help="what the values in the sex column mean: F=2,M=1; none: do without it"
    )
    parser.add_argument(
        "--acquisition", default="", help="which of several BIDS T1w images to take: acq-NAME; none: those without acq-"
    )
    parser.add_argument(
        "--run", default="last", help="which of several BIDS runs to take: last, first or a number (default: last)"
    )


def reading_options(options: argparse.Namespace) -> dict[str, Any]:
    names = ("subject_pattern", "missing_codes", "sex_codes", "acquisition", "run")
    roles = ("subject", "session", "image", "age", "sex")
    columns = {role: column for role in roles if (column := getattr(options, f"{role}_column"))}
    table = str(options.table) if options.table else ""
    given = {name: value for name in names if (value := getattr(options, name)) is not None}
    return {**given, "table": table, "columns": columns}


def cohort_options(options: argparse.Namespace) -> dict[str, Any]:
    names = ("task", "positive", "negative", "label_column", "controls", "sessions", "allow_unmatched")
    return {**reading_options(options), **{name: getattr(options, name) for name in names}}


def extraction(options: argparse.Namespace) -> SliceExtraction:
    from monai_cae.data import SliceExtraction

    return SliceExtraction(options.plane, options.slice_index, options.axes)


def own_options(message: str, options: Mapping[str, Any]) -> str:
    """Replace the bundle's settings in a message with the options of the running command."""

    def own(found: re.Match[str]) -> str:
        link, name, value = found.groups(default="")
        name = name.replace("-", "_")
        if name in options:
            shown = name if name == "output_dir" else name.replace("_", "-")  # a config's, whatever runs now
            return f"{link}--{shown}" + ("" if isinstance(options[name], bool) else value)
        if name in ("dataset_dir", "datalist"):
            return f"{'as' if link == 'with ' else link.strip()} the path"
        if link == "choose another " and name == "output_dir":
            return "choose another place"
        return f"{found[0]} (of a training)" if name in _OF_A_TRAINING else found[0]

    return re.sub(r"(with |check |choose another )?--(\w[\w-]*)( true| skip)?", own, message)


def progress(title: str, unit: str, total: int | None) -> Callable[[Iterable[Any]], Iterable[Any]]:
    from tqdm import tqdm

    return lambda items: tqdm(items, desc=title, unit=unit, total=total, mininterval=0.5, leave=False)
