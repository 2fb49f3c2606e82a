"""Commands about data: who takes part, who is in which set, and whether anything leaks."""

from __future__ import annotations

import argparse
import json
import tempfile
from collections.abc import Iterable, Sequence
from dataclasses import fields
from pathlib import Path
from shlex import quote
from typing import TYPE_CHECKING

from monai_cae import DISCLAIMER
from monai_cae.cli.options import SLICE, cohort_settings, extraction, own_options, progress
from monai_cae.errors import MonaiCaeError
from monai_cae.files import write_text
from monai_cae.folders import bundle_folder
from monai_cae.terminal import say

if TYPE_CHECKING:
    from monai_cae.data import Audit, Cohort, Extraction, Scan

_RAW = ("BIDS", "OASIS-2", "OASIS-3", "LONI (ADNI, AIBL)", "IXI")  # layouts of scans as they left the scanner


def phantom(options: argparse.Namespace) -> None:
    from monai_cae.data import write_heads, write_phantom

    write = write_heads if options.head else write_phantom
    write(
        options.out,
        subjects=options.subjects,
        seed=options.seed,
        progress=progress("synthetic subjects", "subject", options.subjects),
        volumes=options.volumes,
    )
    print(f"{options.subjects} synthetic subjects (not real MRI) in {options.out}")
    print(f"next: monai-cae {'prepare' if options.head else 'cohort'} {options.out}" + " PREPARED" * options.head)


def cohort(options: argparse.Namespace) -> None:
    from monai_cae.data import load_cohort
    from monai_cae.data.cohort.tables import write_table
    from monai_cae.data.layouts import Asked
    from monai_cae.data.layouts.reading import read_rows

    if options.save:
        if options.save.exists():
            raise MonaiCaeError(f"{options.save} exists: choose another --save, or delete it")
        names = {field.name for field in fields(Asked)}
        asked = Asked(**{name: value for name, value in cohort_settings(options).items() if name in names})
        rows = read_rows(options.path, asked)
        write_table(options.save, rows.scans)
        for note in rows.notes:
            say(note.line())
        print(f"{len(rows.scans)} rows in {options.save}: for --table, once the images are prepared")
        return
    seen = extraction(options)
    _print_cohort(load_cohort(options.path, **cohort_settings(options)), seen, options)


def _print_cohort(cohort: Cohort, seen: Extraction, options: argparse.Namespace, names: bool = True) -> None:
    from monai_cae.data import PAPER_TABLE_1, balance, frame_lines, table_1

    ours, p = table_1(cohort), balance(cohort)
    print(f"{'SYNTHETIC cohort, not real MRI' if cohort.synthetic else 'cohort'}: {options.path} ({cohort.layout})\n")
    print(f"{'':<23}{'this cohort':>28}{'the paper (Table I)':>28}")
    print(f"{'':<23}" + f"{'patients':>14}{'controls':>14}" * 2)
    for row, paper in PAPER_TABLE_1.items():
        print(f"{row:<23}" + "".join(f"{cell:>14}" for cell in (*ours[row], *paper)))
    print(f"{'Age, p of t test':<23}{_p(p['age']):>28}{'0.15':>28}")
    print(f"{'Sex, p of chi-square':<23}{_p(p['sex']):>28}{'0.04':>28}")
    print(f"\npatients: {cohort.task.positive}; controls: {cohort.task.controls}")
    for note in cohort.notes:
        say(note.line(names))
    for reason, count in cohort.left_out.items():
        print(f"left out: {count:>4} {reason}")
    if cohort.layout in _RAW:
        say(
            f"note: raw {cohort.layout} images are not registered to one space; the same slice index shows different "
            "anatomy"
        )
    images = (str(scan.image) for scan in cohort.scans if scan.image is not None)
    _print_notes(frame_lines(images, seen), options, "note: ")


def _print_notes(notes: Iterable[str], options: argparse.Namespace, before: str = "  note: ") -> None:
    for note in notes:
        say(f"{before}{own_options(note, vars(options))}")


def _p(value: float) -> str:
    return "not given" if value != value else f"{value:.2g}"


def datalist(options: argparse.Namespace) -> int:
    from monai_cae.data import load_usable_cohort, recipe_of, skipped_lines, split_cohort, write_datalist
    from monai_cae.data.splits.datalists import folder_of

    seen, rules = extraction(options), cohort_settings(options)
    del rules["plane"]
    frame = {"allow_other_frame": options.allow_other_frame}
    cohort = load_usable_cohort(options.path, seen, on_bad_scan=options.on_bad_scan, frame=frame, **rules)
    _print_cohort(cohort, seen, options, names=not options.hash_ids)
    if cohort.bad_scans:
        print("\n".join(["", *skipped_lines(cohort.bad_scans, len(cohort.scans) + len(cohort.bad_scans))]))
    names = ("kind", "folds", "test_fraction", "val_fraction", "stratify", "seed")
    split = {name: getattr(options, name) for name in names}
    folds = range(1, options.folds + 1) if options.kind == "kfold" else [1]
    places = [options.out / (f"fold_{fold}" if options.kind == "kfold" else "") / "datalist.json" for fold in folds]
    for path in places:
        if path.exists():
            raise MonaiCaeError(f"{path} exists: choose another --out, or delete it")
    leaks, drawn = 0, [split_cohort(cohort, **split, fold=fold) for fold in folds]
    print()
    for fold, path, sets in zip(folds, places, drawn, strict=True):
        write_datalist(
            path,
            sets,
            root=options.path,
            synthetic=cohort.synthetic,
            made_from={"dataset_dir": str(folder_of(options.path).resolve())},
            recipe={**rules, **split, "fold": fold, **seen.settings, **recipe_of(cohort, options.path)},
        )
        print(f"{path}: " + ", ".join(f"{len(scans)} {name}" for name, scans in sets.items()))
        leaks += len(_run_audit(path, options.path, path.parent, seen, options).leaks)
    print("\n".join(["", *([] if leaks else _next_of_datalist(options, places)), DISCLAIMER]))
    return int(leaks > 0)


def _next_of_datalist(options: argparse.Namespace, places: Sequence[Path]) -> list[str]:
    """The commands that train on what has been written: an experiment, or the first stage alone."""
    from monai_cae.cli.overlays import as_settings, overlay_files
    from monai_cae.data.splits.datalists import folder_of

    given = {name: getattr(options, name) for name, usual in SLICE.items() if getattr(options, name) != usual}
    given |= {name: "true" for name in ("allow_outside", "hash_ids") if getattr(options, name)}

    further = " ".join(map(quote, as_settings(options.settings, ())))

    def command(config: str, datalist: Path, output: Path) -> str:
        places = {"dataset_dir": folder_of(options.path), "datalist": datalist, "output_dir": output}
        settings = " ".join(f"--{name} {quote(str(value))}" for name, value in (places | given).items())
        files = [str(path) for path in (bundle_folder() / "configs" / config, *overlay_files(options.overlays))]
        path = quote(files[0]) if len(files) == 1 else f'"{files}"'
        return f"python -m monai.bundle run training --config_file {path} {settings} {further}".rstrip()

    everything = options.out if len(places) > 1 else places[0]
    return [
        f"next: {command('experiment.yaml', everything, options.out / 'experiment')}",
        f"or one stage: {command('pretrain.json', places[0], places[0].parent / 'stages')}",
    ]


def audit(options: argparse.Namespace) -> int:
    from monai_cae.data.splits.datalists import recorded_folder

    root = options.dataset_dir or recorded_folder(options.path)
    folder = options.out or options.path.parent
    known, pixels = _seen_by(options.checkpoint), not options.no_pixels
    audit = _run_audit(options.path, root, folder, extraction(options), options, known, pixels)
    _print_notes(audit.notes, options)
    print(DISCLAIMER)
    return int(bool(audit.leaks))


def _seen_by(checkpoints: Iterable[Path]) -> list[str]:
    from monai_cae.networks import trained_on

    seen: list[str] = []
    for checkpoint in checkpoints:
        if not checkpoint.is_file():
            raise MonaiCaeError(f"no checkpoint at {checkpoint}: check --checkpoint")
        subjects = trained_on(checkpoint)
        if not subjects:
            raise MonaiCaeError(
                f"{checkpoint} does not say which subjects it has seen: it was not written by monai-cae"
            )
        seen += subjects
    return seen


def _run_audit(
    path: Path,
    root: Path,
    folder: Path,
    extraction: Extraction,
    options: argparse.Namespace,
    known: Sequence[str] = (),
    pixels: bool = True,
) -> Audit:
    from monai_cae.data import audit_datalist, read_datalist, usable_sets
    from monai_cae.evaluation.audit_page import audit_page

    allowed = {name: getattr(options, name) for name in ("allow_outside", "hash_ids")}
    sets = read_datalist(path, root, allow_leaks=True, **allowed)
    if pixels:
        frame = {"allow_other_frame": options.allow_other_frame}
        sets = usable_sets(sets, path, extraction, on_bad_scan="fail", frame=frame)
    looked = progress("audit", "image", len(sets.training) + len(sets.validation) + len(sets.test))
    audit = audit_datalist(sets, extraction, pixels=pixels, pretrained_on=known, progress=looked)
    content = audit.to_dict()
    for name, text in (("audit.json", json.dumps(content, indent=2) + "\n"), ("audit.html", audit_page(content))):
        write_text(folder / name, text)
    warnings = [finding for finding in audit.findings if not finding.leak]
    data = "SYNTHETIC data, not real MRI; " if audit.synthetic else ""
    print(f"audit of {path}: {data}{len(audit.leaks)} leaks, {len(warnings)} warnings; see {folder / 'audit.html'}")
    for finding in [*audit.leaks, *warnings][:10]:
        say(f"  {'LEAK' if finding.leak else 'warning'}: {finding.message}")
    return audit


def check(options: argparse.Namespace) -> int:
    from monai_cae.data import check_cohort, find_images, is_synthetic, read_scans
    from monai_cae.data.cohort.pseudonyms import pseudonym
    from monai_cae.evaluation import contact_sheets
    from monai_cae.evaluation.check_page import check_page
    from monai_cae.evaluation.style import save_figure

    seen = extraction(options)
    try:
        found = read_scans(options.path, **cohort_settings(options, allow_unmatched=True))
        for note in found.notes:
            say(f"note: {note.line(names=not options.hash_ids)}")
        images = [(scan.name, scan.image) for scan in found.scans if scan.image is not None]
        groups = [_group(scan, found.layout) for scan in found.scans if scan.image is not None]
    except MonaiCaeError as error:  # the scans can be looked at all the same, and a broken one may be the reason
        images = [(path.name, path) for path in find_images(options.path)]
        groups = [""] * len(images)
        say(f"note: not read as a cohort, so every image there is checked ({own_options(str(error), vars(options))})")
    if options.hash_ids:
        images = [(pseudonym(name), path) for name, path in images]
    looked = progress("check", "scan", len(images))
    result = check_cohort(images, extraction=seen, progress=looked)
    if options.hash_ids:
        result = result.without_files()
    synthetic = is_synthetic(options.path) if options.path.is_dir() else False
    tiles = [
        contact_sheets.Tile(
            [view.pixels for view in scan.views],
            f"{scan.name}\n{scan.label}".strip(),
            bool(scan.problems),
            group,
            scan.sides,
        )
        for scan, group in zip(result.scans, groups, strict=True)
    ]
    footer = "Synthetic data, not real MRI" if synthetic else ""
    pages = contact_sheets.contact_sheet(tiles, footer, seen.pictured)
    sheets = [save_figure(page, options.out / f"slices_{number}.png") for number, page in enumerate(pages, start=1)]
    told = result.to_dict()
    write_text(options.out / "check.json", json.dumps(told, indent=2) + "\n")
    write_text(options.out / "check.html", check_page(told, sheets, seen.pictured, synthetic))
    kind = "synthetic scans, not real MRI" if synthetic else "scans"
    print(f"{len(result.scans)} {kind}: {len(result.suspicious)} suspicious; see {options.out}/check.html")
    for scan in result.suspicious:
        for problem in scan.problems:
            say(f"  {scan.name}: {problem}")
    _print_notes(result.notes, options)
    return int(bool(result.suspicious))


def _group(scan: Scan, layout: str) -> str:
    """AD or HC, where a datalist tells by its labels, or a table by CDR."""
    from monai_cae.evaluation import CLASS_NAMES

    if layout == "MONAI datalist":
        return dict(zip("01", CLASS_NAMES, strict=True)).get(scan.row["label"], "")
    return "" if scan.cdr is None else CLASS_NAMES[int(scan.cdr > 0)]


def leakage(options: argparse.Namespace) -> None:
    if options.path is not None:
        _show_leakage(options.path, options)
        return
    from monai_cae.data import write_phantom

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "phantom")
        write_phantom(path, subjects=16, progress=progress("synthetic subjects", "subject", 16))
        _show_leakage(path, options)


def _show_leakage(path: Path, options: argparse.Namespace) -> None:
    from monai_cae.data import is_synthetic, leakage_demo
    from monai_cae.evaluation import contact_sheets
    from monai_cae.evaluation.style import save_figure

    demo = leakage_demo(path, extraction=extraction(options), progress=progress("read", "scan", None))
    synthetic = is_synthetic(path)
    note = "Synthetic data, not real MRI" if synthetic else ""
    about = f"accuracy of the nearest neighbour, {demo.subjects} subjects, {demo.slices} slices"
    figure = contact_sheets.leakage_figure(demo.by_image, demo.by_subject, demo.chance, note, about)
    save_figure(figure, options.out)
    data = " on SYNTHETIC data, not real MRI" if synthetic else ""
    print(f"nearest-neighbour accuracy{data}: {demo.subjects} subjects, {demo.slices} slices")
    print(f"  split by image    {demo.by_image:.3f}   (neighbouring slices of one subject on both sides: a leak)")
    print(f"  split by subject  {demo.by_subject:.3f}   (chance: {demo.chance:.3f})")
    print(f"figure: {options.out}")
