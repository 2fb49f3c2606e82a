"""The `monai-cae` command: parse, call, print. Training and inference run through `python -m monai.bundle`."""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
import textwrap
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from shlex import quote
from typing import TYPE_CHECKING, Any

from monai_cae import DISCLAIMER, __version__
from monai_cae.errors import MonaiCaeError
from monai_cae.files import replacing
from monai_cae.folders import copy_bundle

if TYPE_CHECKING:
    from monai_cae.data import Audit, Cohort

_LAYOUTS = "cohort folder (OASIS-1 discs, BIDS, Clinica CAPS, a folder with a table), or a datalist (.json)"


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command.

    Returns:
        Exit status: 0; 1 after a mistake that one line on stderr explains, or where `audit` or `check` found something;
        130 after Ctrl-C.
    """
    options = _parser().parse_args(arguments)
    try:
        return int(options.command(options) or 0)
    except MonaiCaeError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return 130


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="monai-cae",
        description="From a disk to a trustworthy datalist, for the MONAI bundle of a convolutional autoencoder on "
        f"single brain MRI slices. {DISCLAIMER}",
    )
    parser.add_argument("--version", action="version", version=f"monai-cae {__version__}")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    def command(name: str, function: Callable[[argparse.Namespace], int | None], text: str) -> argparse.ArgumentParser:
        sub = commands.add_parser(name, help=text, description=text)
        sub.set_defaults(command=function)
        return sub

    phantom = command("phantom", _phantom, "write a synthetic cohort in OASIS-1's disk format")
    phantom.add_argument("out", type=Path, help="new or empty folder")
    phantom.add_argument("--subjects", type=int, default=60, help="how many, half of them patients (default: 60)")
    phantom.add_argument("--seed", type=int, default=0, help="the same seed writes the same files (default: 0)")

    check = command("check", _check, "look at every scan of a cohort before training: headers, slices, orientation")
    _add_slice(check)
    check.add_argument("path", type=Path, help=f"{_LAYOUTS}, or a folder of images without a table")
    _add_hash_ids(check)
    check.add_argument("--out", type=Path, default=Path("check"), help="folder for contact sheets (default: check)")

    cohort = command("cohort", _cohort, "print who takes part, beside the paper's Table I")
    _add_cohort(cohort)

    datalist = command("datalist", _datalist, "split a cohort by subject into a MONAI datalist, with its audit")
    _add_cohort(datalist)
    _add_hash_ids(datalist)
    datalist.add_argument("--out", type=Path, default=Path("datalist"), help="folder to write (default: datalist)")
    datalist.add_argument("--kind", default="holdout", help="holdout or kfold (default: holdout)")
    datalist.add_argument("--folds", type=int, default=5, help="of kfold (default: 5)")
    datalist.add_argument("--test-fraction", type=float, default=0.3, help="of all subjects (default: 0.3)")
    datalist.add_argument("--val-fraction", type=float, default=0.2, help="of the rest (default: 0.2)")
    datalist.add_argument("--stratify", default="class", help="class, class+age, class+sex or class+age+sex")
    datalist.add_argument("--seed", type=int, default=0, help="decides the split (default: 0)")
    datalist.add_argument(
        "--on-bad-scan",
        "--on_bad_scan",
        default="fail",
        help="fail names all scans that can't be used, skip leaves them out and counts them (default: fail)",
    )

    audit = command("audit", _audit, "look for leaks between the sets of a datalist; exit status 1 if there is one")
    _add_slice(audit)
    audit.add_argument("path", type=Path, help="MONAI datalist JSON with training, validation and test")
    audit.add_argument("--dataset-dir", type=Path, help="what its image paths are relative to (default: as recorded)")
    audit.add_argument("--checkpoint", type=Path, nargs="*", default=[], help="pretrained weights in use")
    audit.add_argument("--no-pixels", action="store_true", help="do not read the images")
    _add_hash_ids(audit)
    audit.add_argument("--out", type=Path, help="folder for audit.json and audit.html (default: beside the datalist)")

    leakage = command("leakage-demo", _leakage, "what splitting slices instead of subjects does to an accuracy")
    _add_slice(leakage)
    leakage.add_argument("path", type=Path, nargs="?", help="cohort folder with volumes (default: a synthetic one)")
    leakage.add_argument("--out", type=Path, default=Path("leakage.png"), help="the figure (default: leakage.png)")

    compare = command("compare", _compare, "compare finished runs on the same test subjects: accuracy, AUC, tests")
    compare.add_argument(
        "runs",
        nargs="*",
        metavar="RUN",
        help="MLflow run (ID or name), folder of an experiment, or predictions.csv; with :METHOD one method of it. The "
        "first is compared with each other one",
    )
    compare.add_argument(
        "--tracking_uri", "--tracking-uri", default="", help="MLflow's store (default: MLFLOW_TRACKING_URI)"
    )
    compare.add_argument("--out", type=Path, help="folder for comparison.md, comparison.csv and comparison.png")
    compare.add_argument("--method", default="", help="of experiments that are given without one (default: network)")
    compare.add_argument(
        "--train_subjects",
        "--train-subjects",
        type=float,
        default=0,
        metavar="N",
        help="how many each network was trained on, for the corrected t test over folds and repeats",
    )

    export = command("export", _export, "write a network as TorchScript or ONNX, and prove that it agrees with PyTorch")
    export.add_argument("bundle", type=Path, help="folder with configs/ and models/; its inference.json is executed")
    export.add_argument("out", type=Path, help="file to write: OUT.ts or OUT.onnx; a report comes beside it")
    export.add_argument("--network", default="classifier", help="classifier or autoencoder (default: classifier)")
    export.add_argument("--checkpoint", type=Path, help="its weights (default: model.pt or autoencoder.pt in models/)")
    export.add_argument("--volumes", type=Path, help="volumes to compare on (default: random ones)")
    _add_trust(export)

    bundle = command("bundle", _bundle, "copy the MONAI bundle, or unpack a package, to a folder of your own")
    bundle.add_argument("folder", type=Path, help="new or empty folder")
    bundle.add_argument("--from", dest="package", type=Path, metavar="PACKAGE", help="zip of `monai-cae package`")
    _add_trust(bundle)

    sync = command("sync", _sync, "send an MLflow server what it lacks of the runs; exit status 1 if it is away")
    sync.add_argument("output_dir", type=Path, help="of a training or an experiment, or a folder around several")
    sync.add_argument(
        "--tracking_uri",
        "--tracking-uri",
        default="",
        help="server that gets every run there is (default: each run goes where it belongs, or to MLFLOW_TRACKING_URI)",
    )

    package = command("package", _package, "make a MONAI bundle with weights, numbers and model card of a finished run")
    package.add_argument("package", type=Path, help="new file: NAME.zip")
    package.add_argument("--output_dir", "--output-dir", type=Path, metavar="RUN", help="the run's output_dir")
    package.add_argument("--data", default="", help="where its images come from, for the model card")
    package.add_argument("--weights-url", default="", help="where the weights will be published, for large_files.yml")
    package.add_argument("--check", action="store_true", help="check a package, zip or unpacked, instead of making it")
    _add_trust(package)
    return parser


def _add_trust(parser: argparse.ArgumentParser) -> None:
    text = "accept configs that are not monai-cae's own; they can run any program"
    parser.add_argument("--trust", action="store_true", help=text)


def _add_hash_ids(parser: argparse.ArgumentParser) -> None:
    text = "keyed hashes instead of subject IDs in whatever is printed and drawn"
    parser.add_argument("--hash-ids", "--hash_ids", action="store_true", help=text)


def _add_slice(parser: argparse.ArgumentParser) -> None:
    text = "take images that a table or datalist names outside the folder"
    parser.add_argument("--allow-outside", "--allow_outside", action="store_true", help=text)
    parser.add_argument("--plane", default="axial", help="axial, coronal or sagittal (default: axial)")
    parser.add_argument("--slice-index", type=int, default=106, help="counted from 1 (default: 106, the paper's)")


def _add_cohort(parser: argparse.ArgumentParser) -> None:
    _add_slice(parser)
    parser.add_argument("path", type=Path, help=f"{_LAYOUTS}, or a table alone")
    parser.add_argument("--table", type=Path, help="the table, where it is not in the folder")
    parser.add_argument(
        "--task", default="paper", help="paper (CDR > 0 v 0), ad (CDR >= 1 v 0), very-mild (CDR 0.5 v 0)"
    )
    parser.add_argument("--positive", default="", help='or a rule for patients, such as "CDR>0" or "DX == \'AD\'"')
    parser.add_argument("--negative", default="", help="rule for controls (default: known not to be positive)")
    parser.add_argument("--label-column", default="", help="or a column of 1 and 0")
    parser.add_argument("--controls", default="oldest", help="oldest, matched (age and sex) or all (default: oldest)")
    parser.add_argument("--sessions", default="first", help="first scan of a subject, or all (default: first)")
    for role in ("subject", "session", "image", "age", "sex"):
        parser.add_argument(f"--{role}-column", default="", help=f"the table's column of the {role}")
    parser.add_argument(
        "--subject-pattern", default="", help="regular expression that finds the person in an ID; (.+) takes all of it"
    )
    parser.add_argument(
        "--missing-codes", help='numbers that mean "not given" (default: -1, -4, -8, -9, -99, -999, -9999)'
    )
    parser.add_argument("--sex-codes", default="", help="what the sex column's values mean, F=2,M=1; none: go without")
    parser.add_argument(
        "--acquisition", default="", help="of several BIDS T1w images take acq-NAME; none: those without"
    )
    parser.add_argument("--run", default="last", help="of several runs: last, first or a number (default: last)")
    parser.add_argument(
        "--allow-unmatched",
        "--allow_unmatched",
        action="store_true",
        help="go on where more than a tenth of the rows have no image, or of the images no row",
    )


def _cohort_options(options: argparse.Namespace) -> dict[str, Any]:
    names = (
        "table", "task", "positive", "negative", "label_column", "controls", "sessions", "subject_pattern",
        "missing_codes", "sex_codes", "acquisition", "run", "allow_unmatched",
    )  # fmt: skip
    roles = ("subject", "session", "image", "age", "sex")
    columns = {role: column for role in roles if (column := getattr(options, f"{role}_column"))}
    table = str(options.table) if options.table else ""
    given = {name: value for name in names if (value := getattr(options, name)) is not None}
    return {**given, "table": table, "columns": columns}


def _phantom(options: argparse.Namespace) -> None:
    from monai_cae.data import write_phantom

    write_phantom(
        options.out,
        subjects=options.subjects,
        seed=options.seed,
        progress=_progress("synthetic subjects", "subject", options.subjects),
    )
    print(f"{options.subjects} synthetic subjects (not real MRI) in {options.out}")
    print(f"next: monai-cae cohort {options.out}")


def _cohort(options: argparse.Namespace) -> None:
    from monai_cae.data import load_cohort

    allowed = {"allow_outside": options.allow_outside}
    cohort = load_cohort(options.path, plane=options.plane, **allowed, **_cohort_options(options))
    _print_cohort(cohort, options.path)


def _print_cohort(cohort: Cohort, path: Path, names: bool = True) -> None:
    from monai_cae.data import PAPER_TABLE_1, balance, table_1

    ours, p = table_1(cohort), balance(cohort)
    print(f"{'SYNTHETIC cohort, not real MRI' if cohort.synthetic else 'cohort'}: {path} ({cohort.layout})\n")
    print(f"{'':<24}{'this cohort':^32}{'the paper (Table I)':^32}")
    print(f"{'':<24}" + f"{'patients':>15}{'controls':>16} " * 2)
    for row, paper in PAPER_TABLE_1.items():
        print(f"{row:<24}" + f"{ours[row][0]:>15}{ours[row][1]:>16} " + f"{paper[0]:>15}{paper[1]:>16}")
    print(f"{'Age, p of t test':<24}{_p(p['age']):>31} {'0.15':>31}")
    print(f"{'Gender, p of chi-square':<24}{_p(p['sex']):>31} {'0.04':>31}")
    print(f"\npatients: {cohort.task.positive}; controls: {cohort.task.negative or 'not ' + cohort.task.positive}")
    for note in cohort.notes:
        print(textwrap.fill(note.line(names), 100, subsequent_indent="    ", break_on_hyphens=False))
    for reason, count in cohort.left_out.items():
        print(f"left out: {count:>4} {reason}")
    if cohort.layout == "BIDS":
        print("note: raw BIDS images are not registered to one space; the same slice index is another anatomy in each")


def _p(value: float) -> str:
    return "not given" if value != value else f"{value:.2g}"


def _datalist(options: argparse.Namespace) -> int:
    from monai_cae.data import load_usable_cohort, recipe_of, skipped_lines, split_cohort, write_datalist

    rules = _cohort_options(options)
    slices = {"plane": options.plane, "slice_index": options.slice_index}
    cohort = load_usable_cohort(
        options.path, **slices, on_bad_scan=options.on_bad_scan, allow_outside=options.allow_outside, **rules
    )
    _print_cohort(cohort, options.path, names=not options.hash_ids)
    if cohort.bad_scans:
        print("\n".join(["", *skipped_lines(cohort.bad_scans, len(cohort.scans) + len(cohort.bad_scans))]))
    names = ("kind", "folds", "test_fraction", "val_fraction", "stratify", "seed")
    split = {name: getattr(options, name) for name in names}
    leaks = 0
    print()
    for fold in range(1, options.folds + 1) if options.kind == "kfold" else [1]:
        path = options.out / (f"fold_{fold}" if options.kind == "kfold" else "") / "datalist.json"
        if path.exists():
            raise MonaiCaeError(f"{path} exists: choose another --out, or delete it")
        sets = split_cohort(cohort, **split, fold=fold)
        write_datalist(
            path,
            sets,
            root=options.path,
            synthetic=cohort.synthetic,
            made_from={"dataset_dir": str(options.path.resolve())},
            recipe={**rules, **split, "fold": fold, "plane": options.plane, **recipe_of(cohort, options.path)},
        )
        print(f"{path}: " + ", ".join(f"{len(scans)} {name}" for name, scans in sets.items()))
        leaks += len(_run_audit(path, options.path, path.parent, options).leaks)
    print(f"\nnext: pretrain.json, then train.json, with --dataset_dir {options.path} --datalist {path}\n{DISCLAIMER}")
    return int(leaks > 0)


def _audit(options: argparse.Namespace) -> int:
    recorded = _recorded_dataset_dir(options.path)
    folder = options.out or options.path.parent
    seen = _seen_by(options.checkpoint)
    audit = _run_audit(options.path, options.dataset_dir or recorded, folder, options, seen, not options.no_pixels)
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


def _recorded_dataset_dir(path: Path) -> Path:
    from monai_cae.data.datalists import read_content

    made_from = read_content(path).get("made_from") or {}
    return Path(made_from.get("dataset_dir") or path.parent)


def _run_audit(
    path: Path,
    dataset_dir: Path,
    folder: Path,
    options: argparse.Namespace,
    seen: Sequence[str] = (),
    pixels: bool = True,
) -> Audit:
    from monai_cae.data import audit_sets, certify_datalist, read_datalist, usable_sets

    sets = read_datalist(
        path, dataset_dir, allow_leaks=True, allow_outside=options.allow_outside, hash_ids=options.hash_ids
    )
    if pixels:
        slices = {"plane": options.plane, "slice_index": options.slice_index}
        sets = usable_sets(sets, path, **slices, on_bad_scan="fail")
    number = len(sets.training) + len(sets.validation) + len(sets.test)
    audit = audit_sets(
        sets.training,
        sets.validation,
        sets.test,
        plane=options.plane,
        slice_index=options.slice_index,
        pixels=pixels,
        synthetic=sets.synthetic,
        pretrained_on=seen,
        name_files=not options.hash_ids,
        bad_scans=sets.bad_scans,
        progress=_progress("audit", "image", number),
    )
    _write_audit(audit.to_dict(), folder)
    certify_datalist(path, audit)
    warnings = [finding for finding in audit.findings if not finding.leak]
    data = "SYNTHETIC data, not real MRI; " if audit.synthetic else ""
    print(f"audit of {path}: {data}{len(audit.leaks)} leaks, {len(warnings)} warnings; see {folder / 'audit.html'}")
    for finding in [*audit.leaks, *warnings][:10]:
        print(f"  {'LEAK' if finding.leak else 'warning'}: {finding.message}")
    return audit


def _write_audit(audit: Mapping[str, Any], folder: Path) -> None:
    from monai_cae.evaluation.audit_page import audit_page

    for name, text in (("audit.json", json.dumps(audit, indent=2) + "\n"), ("audit.html", audit_page(audit))):
        with replacing(folder / name) as temporary:
            temporary.write_text(text, encoding="utf-8")


def _check(options: argparse.Namespace) -> int:
    from monai_cae.data import check_cohort, find_images, is_synthetic, read_scans
    from monai_cae.data.pseudonyms import pseudonym
    from monai_cae.evaluation import figures, sheets

    try:
        found = read_scans(options.path, plane=options.plane, allow_unmatched=True, allow_outside=options.allow_outside)
        for note in found.notes:
            print(f"note: {note.line(names=not options.hash_ids)}")
        images = [(scan.name, scan.image) for scan in found.scans if scan.image is not None]
    except MonaiCaeError as error:  # the scans can be looked at all the same, and a broken one may be the reason
        images = [(path.name, path) for path in find_images(options.path)]
        print(f"note: not read as a cohort, every image there is looked at ({error})")
    if options.hash_ids:
        images = [(pseudonym(name), path) for name, path in images]
    result = check_cohort(
        images,
        plane=options.plane,
        slice_index=options.slice_index,
        progress=_progress("check", "scan", len(images)),
    )
    if options.hash_ids:
        result = result.without_files()
    synthetic = is_synthetic(options.path) if options.path.is_dir() else False
    pages = sheets.contact_sheet(
        [scan.thumbnail for scan in result.scans],
        [f"{scan.name}\n{scan.label}".strip() for scan in result.scans],
        [bool(scan.problems) for scan in result.scans],
        note="Synthetic data, not real MRI" if synthetic else "",
    )
    for number, page in enumerate(pages, start=1):
        figures.save_figure(page, options.out / f"slices_{number}.png")
    with replacing(options.out / "check.json") as temporary:
        temporary.write_text(json.dumps(result.to_dict(), indent=2) + "\n", encoding="utf-8")
    kind = "synthetic scans, not real MRI" if synthetic else "scans"
    print(f"{len(result.scans)} {kind}: {len(result.suspicious)} suspicious; see {options.out}/slices_*.png")
    for scan in result.suspicious:
        for problem in scan.problems:
            print(f"  {scan.name}: {problem}")
    for remark in result.notes:
        print(f"  note: {remark}")
    return int(bool(result.suspicious))


def _leakage(options: argparse.Namespace) -> None:
    if options.path is not None:
        _show_leakage(options.path, options)
        return
    from monai_cae.data import write_phantom

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "phantom")
        write_phantom(path, subjects=16, progress=_progress("synthetic subjects", "subject", 16))
        _show_leakage(path, options)


def _show_leakage(path: Path, options: argparse.Namespace) -> None:
    from monai_cae.data import is_synthetic, leakage_demo
    from monai_cae.evaluation import figures, sheets

    demo = leakage_demo(
        path, plane=options.plane, slice_index=options.slice_index, progress=_progress("read", "scan", None)
    )
    synthetic = is_synthetic(path)
    note = "Synthetic data, not real MRI" if synthetic else ""
    figure = sheets.leakage_figure(demo.by_image, demo.by_subject, demo.chance, note=note)
    figures.save_figure(figure, options.out)
    data = " on SYNTHETIC data, not real MRI" if synthetic else ""
    print(f"nearest-neighbour accuracy{data}: {demo.subjects} subjects, {demo.slices} slices")
    print(f"  split by image    {demo.by_image:.3f}   (neighbouring slices of one subject on both sides: a leak)")
    print(f"  split by subject  {demo.by_subject:.3f}   (chance: {demo.chance:.3f})")
    print(f"figure: {options.out}")


def _compare(options: argparse.Namespace) -> None:
    if len(options.runs) < 2:
        raise MonaiCaeError("give two or more runs, folders or files to compare")
    if options.train_subjects < 0:
        raise MonaiCaeError(f"--train_subjects must be a number of subjects, not {options.train_subjects:g}")
    from monai_cae.experiment.comparing import compare_predictions, comparison_lines, write_comparison
    from monai_cae.experiment.finished import read_predictions

    uri = options.tracking_uri or os.environ.get("MLFLOW_TRACKING_URI", "")
    read = [read_predictions(run, tracking_uri=uri, method=options.method) for run in options.runs]
    comparison = compare_predictions(read, train_subjects=options.train_subjects)
    print("\n".join(comparison_lines(comparison)))
    if options.out:
        for path in write_comparison(comparison, options.out):
            print(f"written: {path}")
    print(DISCLAIMER)


def _export(options: argparse.Namespace) -> None:
    from monai_cae.sharing import export_network
    from monai_cae.sharing.screening import screen_executed

    names = ("network", "checkpoint", "volumes", "trust")
    if options.trust:
        _print_trusted([str(doubt) for doubt in screen_executed(options.bundle)])
    parity = export_network(
        options.bundle,
        options.out,
        **{name: getattr(options, name) for name in names},
        progress=_progress("compare", "volume", None),
    )
    compared = f"{parity.volumes} {'random' if parity.synthetic else 'given'} volumes"
    print(f"{parity.network} of {parity.checkpoint} written to {options.out}")
    print(f"largest difference to PyTorch on {compared}: {parity.summary()}")
    print(f"report: {options.out}.parity.json")
    if parity.synthetic:
        print("next: the same command with --volumes FOLDER compares on your own scans")
    else:
        print("next: give the file to the other runtime with the preprocessing of the inference.json that it carries")
    print(DISCLAIMER)


def _bundle(options: argparse.Namespace) -> None:
    if options.package is None:
        copy_bundle(options.folder)
        config = options.folder / "configs" / "experiment.yaml"
        print(f"the bundle, without weights, is in {options.folder}")
        print(f"next: python -m monai.bundle run training --config_file {quote(str(config))} --dataset_dir COHORT")
        print(DISCLAIMER)
    else:
        from monai_cae.sharing import unpack

        bundle = unpack(options.package, options.folder, trust=options.trust)
        print(f"{bundle.name}: checked and unpacked to {options.folder}")
        _print_trusted(bundle.doubts)
        print(_next_of(options.folder))


def _sync(options: argparse.Namespace) -> None:
    from monai_cae.tracking import sync

    for line in sync(options.output_dir, options.tracking_uri):
        print(line, flush=True)


def _package(options: argparse.Namespace) -> None:
    from monai_cae.sharing import check_package, package_run

    if options.check:
        bundle = check_package(options.package, trust=options.trust)
        print(f"{bundle.name}: {options.package} is whole, and its weights fit its configs")
        _print_trusted(bundle.doubts)
        print(_next_of(options.package))
        return
    if options.output_dir is None:
        raise MonaiCaeError("give the run: --output_dir RUN; or --check, to check a package that is there")
    made = package_run(options.output_dir, options.package, data=options.data, weights_url=options.weights_url)
    print(f"{made.path}: {made.size / 1e6:.1f} MB, of a run on {made.run.kind}\nsha256: {made.sha256}")
    print("in it: weights, configs, metadata, model card, hashes; no image, no subject ID")
    print("".join(f"  ! {caveat}\n" for caveat in made.run.caveats), end="")
    if made.doubts:
        print(f"whoever unpacks it needs --trust: {len(made.doubts)} of its settings are not monai-cae's own:")
        print("\n".join(f"  {doubt}" for doubt in made.doubts))
    print(_next_of(made.path))


def _print_trusted(doubts: Sequence[str]) -> None:
    if doubts:
        count = "1 place" if len(doubts) == 1 else f"{len(doubts)} places, the first"
        print(f"trusted: what monai-cae does not ship runs as it is ({count}: {doubts[0]})")


def _next_of(package: Path) -> str:
    if package.is_dir():
        config = quote(str(package / "configs" / "inference.json"))
        return f"next: python -m monai.bundle run --config_file {config} --dataset_dir SCAN_OR_FOLDER\n{DISCLAIMER}"
    return f"next: monai-cae bundle FOLDER --from {quote(str(package))}\n{DISCLAIMER}"


def _progress(title: str, unit: str, total: int | None) -> Callable[[Iterable[Any]], Iterable[Any]]:
    from tqdm import tqdm

    return lambda items: tqdm(items, desc=title, unit=unit, total=total, mininterval=0.5, leave=False)


if __name__ == "__main__":
    sys.exit(main())
