"""Options that several commands share, with their help."""

from __future__ import annotations

import argparse
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from monai_cae.data import Extraction

ROLES = ("subject", "session", "image", "age", "sex")
SLICE = {"plane": "axial", "slice_index": 106, "axes": "anatomical"}
OF_EXTRACTION = ("extraction#", "image-size")  # settings that may follow the commands that look at images
SHOWN = 20  # lines about scans; a screen
_OF_A_TRAINING = ("on_bad_scan", "allow_leaks", "allow_outside")
WORKERS = "local:N, tls://HOST:PORT or slurm:FILE.yaml"
LAYOUTS = "cohort folder (OASIS-1 to -3, ADNI, AIBL, IXI, BIDS, Clinica CAPS, or with a table), or a datalist (.json)"


FLAGS = {
    "head": "write raw scans, as BIDS: each brain in a scalp and a skull, turned, biased and stored along any axes",
    "volumes": "atrophy for whole volumes: with CDR the hippocampus, amygdala and temporal lobe shrink, the rest less "
    "than without, so that slices through the hippocampus and volumes tell more than slice 106; adds "
    "truth.csv, with volumes in ml",
    "trust": "accept configs that are not monai-cae's own; they can run any program",
    "hash-ids": "keyed hashes instead of subject IDs in everything printed and drawn",
    "allow-other-frame": "accept slices more than 5 mm or 10 degrees from where the others lie",
    "allow-outside": "accept images outside the folder that a table or datalist names",
    "allow-unmatched": "continue even if more than a tenth of the rows have no image, or of the images no row",
}


Arguments = argparse.ArgumentParser | argparse._ArgumentGroup


def add_flags(parser: Arguments, *names: str) -> None:
    for name in names:
        parser.add_argument(f"--{name}", action="store_true", help=FLAGS[name])


def add_options(parser: Arguments, **options: tuple[Any, str]) -> None:
    """Options by their names: the default, which tells the type, and what they say."""
    for name, (default, text) in options.items():
        parser.add_argument(f"--{name.replace('_', '-')}", type=type(default), default=default, help=text)


def add_slice(parser: argparse.ArgumentParser) -> None:
    """Add the options that say what is looked at of a volume."""
    parser.set_defaults(settings=[], beginnings=OF_EXTRACTION)
    parser.epilog = (
        "Of another extraction than a slice the settings can follow: --with slab --extraction#slices 3, --with volume "
        "--image_size 64."
    )
    parser.add_argument(
        "--with",
        dest="overlays",
        default="",
        metavar="NAMES",
        help="overlays of the experiment that say what the network sees, such as slab or volume (default: one slice)",
    )
    add_flags(parser, "allow-outside")
    add_options(
        parser,
        plane=("axial", "axial, coronal or sagittal (default: axial)"),
        slice_index=(106, "counted from 1, left to right, back to front or upwards (default: 106, the paper's)"),
        axes=(
            "anatomical",
            "anatomical finds the plane from each header's orientation, stored from the order of the axes (default: "
            "anatomical)",
        ),
    )


def add_cohort(parser: argparse.ArgumentParser) -> None:
    add_slice(parser)
    parser.add_argument("path", type=Path, help=f"{LAYOUTS}, or a table alone")
    add_reading(parser)
    add_options(
        parser,
        task=("paper", "paper (CDR > 0 v 0), ad (CDR >= 1 v 0), very-mild (CDR 0.5 v 0)"),
        positive=("", 'or a rule for patients, such as "CDR>0" or "DX == \'AD\'"'),
        negative=("", "rule for controls (default: known not to be patients)"),
        label_column=("", "or a column of 1 and 0"),
        controls=("oldest", "oldest, matched (age and sex) or all (default: oldest)"),
        sessions=("first", "first scan of a subject, or all (default: first)"),
        converters=(
            "as_scanned",
            "subjects with scans of both labels: as_scanned takes each scan for what it was, leave_out leaves them out",
        ),
        unseen_by=("", "folder of a finished run, or its datalist: whom it was trained on takes no part"),
    )
    add_flags(parser, "allow-unmatched")


def add_reading(parser: argparse.ArgumentParser) -> None:
    """Add the options for reading a cohort, before selection."""
    parser.add_argument("--table", type=Path, help="the table, or a study's folder of them, if not in the folder")
    for role in ROLES:
        none = "" if role == "subject" else "; none: do without it"
        parser.add_argument(f"--{role}-column", default="", help=f"the table's column for {role}{none}")
    codes = 'numbers that mean "not given" (default: -1, -4, -8, -9, -99, -999, -9999)'
    parser.add_argument("--missing-codes", help=codes)
    add_options(
        parser,
        subject_pattern=("", "regular expression that finds the subject in an ID; (.+) takes the whole ID"),
        sex_codes=("", "what the values in the sex column mean: F=2,M=1; none: do without it"),
        acquisition=("", "which of several T1w images to take: acq-NAME, or LONI's description; none: those without"),
        run=("last", "which of several runs to take: last, first or a number (default: last)"),
        days=(365, "of studies whose diagnoses have days of their own: the farthest visit that counts (default: 365)"),
    )


def cohort_settings(options: argparse.Namespace, **others: Any) -> dict[str, Any]:
    """Those fields of `CohortSettings` that the command has an option for."""
    from monai_cae.data.cohort.selection import CohortSettings

    known = {field.name for field in fields(CohortSettings)}
    given = {name: value for name, value in vars(options).items() if name in known and value is not None}
    given["columns"] = {role: column for role in ROLES if (column := getattr(options, f"{role}_column"))}
    given["table"] = str(options.table or "")
    return {**given, **others}


def extraction(options: argparse.Namespace) -> Extraction:
    """What is looked at of a volume: one slice, or what the overlays and the settings say."""
    from monai_cae.cli.overlays import as_settings, extraction_of, overlay_files, parsed
    from monai_cae.data import SliceExtraction

    if not options.overlays and not options.settings:
        return SliceExtraction(options.plane, options.slice_index, options.axes)
    own = {name: given for name, usual in SLICE.items() if (given := getattr(options, name)) != usual}
    return extraction_of(overlay_files(options.overlays), own | parsed(as_settings(options.settings, ())))


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

    return lambda items: tqdm(items, desc=title, unit=unit, total=total, mininterval=0.5, leave=False, disable=None)
