"""`monai-cae prepare`: raw scans in, a BIDS derivative with its QC page out."""

from __future__ import annotations

import argparse
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from shlex import quote
from typing import TYPE_CHECKING

from monai_cae.cli.options import ROLES, SHOWN, WORKERS, Arguments, add_flags, add_options, progress
from monai_cae.errors import MonaiCaeError
from monai_cae.terminal import progress_bar, say

if TYPE_CHECKING:
    from monai_cae.prepare.batch import Outcome
    from monai_cae.prepare.sources import Source, Wanted

INPUTS = "a scan (NIfTI, Analyze, DICOM), a folder of scans, BIDS, DICOM of any nesting, or a study's download"
_FAILED = ("error", "fail")


def add_prepare(parser: argparse.ArgumentParser) -> None:
    """Its arguments."""
    parser.add_argument("path", type=Path, metavar="IN", help=INPUTS)
    parser.add_argument("out", type=Path, metavar="OUT", help="folder of the BIDS derivative to write")
    add_inputs(parser)
    text = f"whose workers prepare: {WORKERS} (default: --jobs of this machine)"
    parser.add_argument("--cluster", default="", help=text)
    parser.add_argument(
        "--resume", action="store_true", help="keep what is finished with the same settings, do the rest"
    )
    parser.add_argument("--overwrite", action="store_true", help="as --resume, and prepare again what is otherwise")


def add_inputs(parser: Arguments) -> None:
    """The options that say what is prepared, and how."""
    add_options(
        parser,
        jobs=(1, "scans at a time, each in a process of its own (default: 1)"),
        mask=("auto", "auto; another tool's file, or folder of files named after the scans; none (default: auto)"),
        orientation=("", "directions of a file's axes where it records none, such as ASL"),
        series=("", "which DICOM series: its number, or a part of its name"),
        subject=("", "BIDS label of the only subject"),
        subject_pattern=("", "regular expression that finds the subject in an ID, or in the path of a DICOM series"),
        acquisition=("", "which of several BIDS T1w images to take: acq-NAME; none: those without acq-"),
        run=("", "which of several runs: last, first or a number (default: last; first of raw OASIS-1 and OASIS-2)"),
        days=(365, "of studies whose diagnoses have days of their own: the farthest visit that counts (default: 365)"),
    )
    parser.add_argument(
        "--table", type=Path, help="the cohort's table, or a study's folder of them, if not in the folder"
    )
    for role in ROLES[:3]:
        parser.add_argument(f"--{role}-column", default="", help=f"the table's column for {role}")
    add_flags(parser, "hash-ids", "allow-outside")


def inputs_given(options: argparse.Namespace) -> list[str]:
    """Names of those options that are not as they are by default."""
    parser = argparse.ArgumentParser()
    add_inputs(parser)
    return [name for name, usual in vars(parser.parse_args([])).items() if getattr(options, name) != usual]


def prepare(options: argparse.Namespace) -> int:
    outcomes = prepare_folder(options.path, options.out, options, resume=options.resume, overwrite=options.overwrite)
    return _summary(outcomes, options)


def prepare_folder(
    path: Path, out: Path, options: argparse.Namespace, *, resume: bool, overwrite: bool
) -> list[Outcome]:
    """Prepare with the options of `add_inputs`, and tell what is chosen and what becomes of each scan."""
    from monai_cae.prepare import PrepareSettings
    from monai_cae.prepare.cohort import prepare_cohort
    from monai_cae.prepare.sources import find_sources

    if options.jobs < 1:
        raise MonaiCaeError(f"--jobs must be 1 or more, not {options.jobs}")
    _refuse_nested(path, out)
    sources = find_sources(path, _wanted(options))
    print(f"{len(sources.scans)} scan{'s' if len(sources.scans) != 1 else ''}: {sources.layout}", flush=True)
    for note in sources.notes:
        say(f"note: {note.line(names=not sources.private)}")
    _print_choices(sources.scans)
    return prepare_cohort(
        sources,
        out,
        PrepareSettings(mask="none" if options.mask == "none" else "auto"),
        jobs=options.jobs,
        cluster=getattr(options, "cluster", ""),
        resume=resume,
        overwrite=overwrite,
        columns=_columns(options),
        progress=_shown,
    )


def _refuse_nested(path: Path, out: Path) -> None:
    from monai_cae.data.layouts.bids import Bids

    inner, outer = out.resolve(), path.resolve()
    if inner == outer:
        raise MonaiCaeError(f"IN and OUT are the same, {out}: choose another folder for OUT")
    if outer in inner.parents and not (Bids().detect(outer) and outer / "derivatives" in inner.parents):
        raise MonaiCaeError(f"{out} lies in {path}, and would be read with it: choose a folder beside it")


def _wanted(options: argparse.Namespace) -> Wanted:
    from monai_cae.data.layouts import Asked
    from monai_cae.prepare.sources import Wanted

    asked = Asked(
        table=options.table,
        columns={**_columns(options), "age": "none", "sex": "none"},  # rows are carried over as they are
        subject_pattern=options.subject_pattern,
        acquisition=options.acquisition,
        run=options.run,
        days=options.days,
        allow_outside=options.allow_outside,
    )
    return Wanted(
        asked=asked,
        subject=options.subject,
        series=options.series,
        orientation=options.orientation,
        mask=None if options.mask in ("auto", "none") else Path(options.mask),
        hash_ids=options.hash_ids,
        progress=progress("headers", "file", None),
    )


def _columns(options: argparse.Namespace) -> dict[str, str]:
    return {role: name for role in ROLES[:3] if (name := getattr(options, f"{role}_column"))}


def _print_choices(scans: Sequence[Source]) -> None:
    chosen = [scan for scan in scans if scan.lines]
    for scan in chosen[:SHOWN]:
        for line in scan.lines:
            say(f"{scan.name}: {line}")
    if len(chosen) > SHOWN:
        print(f"and {len(chosen) - SHOWN} more, in the same way")


def _shown(outcomes: Iterable[Outcome], total: int) -> Iterator[Outcome]:
    """Show a bar, and a line for each scan."""
    if not total:
        return
    bar = progress_bar("prepare", total, "scan")
    try:
        for number, outcome in enumerate(outcomes, start=1):
            say(f"{number} of {total}: {outcome.line}")
            bar.update(1)
            yield outcome
    finally:
        bar.close()


def _summary(outcomes: Sequence[Outcome], options: argparse.Namespace) -> int:
    page = options.out / "qc.html"
    counts = Counter(outcome.verdict for outcome in outcomes)
    failed = counts["error"] + counts["fail"]
    print(f"\n{counts['pass']} prepared, {counts['review']} to review, {failed} failed; see {page}")
    for outcome in [one for one in outcomes if one.verdict in _FAILED][:SHOWN]:
        say(f"  {outcome.line}")
    if counts["pass"] + counts["review"]:
        print(f"next: open {quote(str(page))}, then monai-cae check {quote(str(options.out))}")
    return int(failed > 0)
