"""The `monai-cae` command: parse, call, print. `python -m monai.bundle` does training and inference."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from monai_cae import DISCLAIMER, __version__
from monai_cae.cli import cluster, cohorts, fitting, prediction, prepare, runs, sharing
from monai_cae.cli.options import (
    LAYOUTS,
    WORKERS,
    add_cohort,
    add_flags,
    add_options,
    add_reading,
    add_slice,
    own_options,
)
from monai_cae.doctor import add_doctor, doctor
from monai_cae.errors import MonaiCaeError


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command.

    Returns:
        Exit status: 0; 1 after a user's mistake, explained in one line on stderr, or if `audit` or `check` found
        something; 130 after Ctrl-C.
    """
    parser = command_parser()
    given = [_hyphenated(text) for text in (sys.argv[1:] if arguments is None else arguments)]
    options, further = parser.parse_known_args(given)
    if hasattr(options, "settings"):
        options.settings = further
        if hasattr(options, "beginnings") and (others := _not_of(options.beginnings, further)):
            parser.error(f"unrecognized arguments: {' '.join(others)}")
        if further:  # what precedes the first setting must be whole, or its value may have been taken for a place
            parser.parse_known_args(given[: given.index(further[0])])
    elif further:
        parser.error(f"unrecognized arguments: {' '.join(further)}")
    try:
        return int(options.command(options) or 0)
    except MonaiCaeError as error:
        print(f"error: {own_options(str(error), vars(options))}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return 130
    except BrokenPipeError:  # whoever reads, such as head, has had enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 141


def _not_of(beginnings: tuple[str, ...], given: Sequence[str]) -> Sequence[str]:
    """The options that begin otherwise, or all that is given where it begins with no option."""
    if given and not given[0].startswith("--"):
        return given
    return [text for text in given if text.startswith("--") and not text[2:].startswith(beginnings)]


def _hyphenated(argument: str) -> str:
    """An option in one spelling: the settings of a bundle have underscores where options have hyphens."""
    name, equals, value = argument.partition("=")
    return f"{name.replace('_', '-')}{equals}{value}" if name.startswith("--") and "#" not in name else argument


def command_parser() -> argparse.ArgumentParser:
    """The parser of `monai-cae`, from which the site of the documentation lists every command with its help."""
    parser = argparse.ArgumentParser(
        prog="monai-cae",
        description="From a cohort on disk to an audited datalist, for the MONAI bundle of a convolutional autoencoder "
        f"on single brain MRI slices. {DISCLAIMER}",
    )
    parser.add_argument("--version", action="version", version=f"monai-cae {__version__}")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    def command(name: str, function: Callable[[argparse.Namespace], int | None], text: str) -> argparse.ArgumentParser:
        sub = commands.add_parser(name, help=text, description=text, allow_abbrev=False)
        sub.set_defaults(command=function)
        return sub

    phantom = command("phantom", cohorts.phantom, "write a synthetic cohort that is laid out like the OASIS-1 discs")
    phantom.add_argument("out", type=Path, help="new or empty folder")
    counted = (60, "number of subjects, half of them patients (default: 60)")
    add_options(phantom, subjects=counted, seed=(0, "the same seed writes the same files (default: 0)"))
    add_flags(phantom, "head", "volumes")

    text = "raw T1w scans, DICOM or NIfTI, into the paper's kind of image, as a BIDS derivative with a QC page"
    prepare.add_prepare(command("prepare", prepare.prepare, text))

    text = "look at every scan of a cohort before training: headers, slices, orientation"
    check = command("check", cohorts.check, text)
    add_slice(check)
    check.add_argument("path", type=Path, help=f"{LAYOUTS}, or a folder of images without a table")
    add_reading(check)
    add_flags(check, "hash-ids")
    check.add_argument("--out", type=Path, default=Path("check"), help="folder for contact sheets (default: check)")

    cohort = command("cohort", cohorts.cohort, "print who takes part, next to the paper's Table I")
    add_cohort(cohort)
    text = "write the rows, one per scan, to this file (.tsv) instead, and look for no image"
    cohort.add_argument("--save", type=Path, metavar="FILE", help=text)

    datalist = command("datalist", cohorts.datalist, "split a cohort by subject into a MONAI datalist, with its audit")
    add_cohort(datalist)
    add_flags(datalist, "hash-ids", "allow-other-frame")
    datalist.add_argument("--out", type=Path, default=Path("datalist"), help="folder to write (default: datalist)")
    add_options(
        datalist,
        kind=("holdout", "holdout or kfold (default: holdout)"),
        folds=(5, "for kfold (default: 5)"),
        test_fraction=(0.3, "of all subjects (default: 0.3)"),
        val_fraction=(0.2, "of the rest (default: 0.2)"),
        stratify=("class", "class, class+age, class+sex or class+age+sex"),
        seed=(0, "decides the split (default: 0)"),
        on_bad_scan=(
            "fail",
            "fail names all scans that can't be used, skip leaves out and counts them (default: fail)",
        ),
    )

    text = "look for leaks between the sets of a datalist; exit status 1 if there is one"
    audit = command("audit", cohorts.audit, text)
    add_slice(audit)
    audit.add_argument("path", type=Path, help="MONAI datalist JSON with training, validation and test")
    audit.add_argument("--dataset-dir", type=Path, help="what its image paths are relative to (default: as recorded)")
    audit.add_argument(
        "--checkpoint",
        type=Path,
        nargs="*",
        default=[],
        help="pretrained weights, to look for test subjects that they have seen",
    )
    audit.add_argument("--no-pixels", action="store_true", help="do not read the images")
    add_flags(audit, "allow-other-frame", "hash-ids")
    audit.add_argument("--out", type=Path, help="folder for audit.json and audit.html (default: next to the datalist)")

    leakage = command("leakage-demo", cohorts.leakage, "what splitting slices instead of subjects does to accuracy")
    add_slice(leakage)
    leakage.add_argument("path", type=Path, nargs="?", help="cohort folder with volumes (default: a synthetic one)")
    leakage.add_argument("--out", type=Path, default=Path("leakage.png"), help="the figure (default: leakage.png)")

    run = command("run", runs.run, "the experiment: pretrain, train and evaluate on several splits, and compare")
    run.add_argument("data", type=Path, help=LAYOUTS)
    run.add_argument("out", type=Path, help="folder for all output")
    _add_overlays(run)
    run.epilog = "Settings of the config can follow, such as --repeats 2 --cohort#task ad: see `monai-cae settings`."

    text = "the experiment with settings from a search: in every split Optuna's best by inner folds, tested once"
    search = command("search", runs.search, text)
    search.add_argument("data", type=Path, help=LAYOUTS)
    search.add_argument("out", type=Path, help="folder for all output")
    text = "YAML: which settings, and from which values (default: what --with has; without both, --with search)"
    search.add_argument("--space", type=Path, metavar="FILE", help=text)
    search.add_argument("--trials", type=int, metavar="N", help="in each split (default: the overlay's)")
    _add_overlays(search)
    search.epilog = "Settings can follow, such as --select#inner_folds 5 --select#pruner hyperband --split#kind kfold."

    text = "the largest batch and the largest image that fit into the memory, found without training"
    fit = command("fit", fitting.fit, text)
    fit.usage = "monai-cae fit [pretrain | train] [--SETTING VALUE ...]"
    fit.set_defaults(settings=[])
    text = (
        "pretrain (default) is the autoencoder, train the classifier when everything learns. Settings of the config can"
    )
    fit.epilog = f"{text} follow, such as --image_size 512 --device cuda:1: see `monai-cae settings`."

    text = "keys for a cluster that --cluster tls://HOST:PORT reaches"
    cluster.add_cluster(command("cluster", cluster.keys, text))

    status = command("status", runs.status, "how far an experiment is: done, running, left, and about how long")
    status.add_argument("output_dir", type=Path, help="of the experiment")

    predict = command("predict", runs.predict, "probabilities for scans, from a package or a run")
    text = "an unpacked package, a run's output folder, or a checkpoint of the default network"
    predict.add_argument("model", type=Path, help=text)
    text = (
        "with --parquet also a glob, a table of paths (.csv, .tsv, .parquet), or any of these as s3://, gs://, https://"
    )
    text = f"a .nii, .nii.gz or .img, or a folder of them; with --prepare {prepare.INPUTS}; {text}"
    predict.add_argument("scans", help=text)
    predict.add_argument("out", type=Path, help="folder for predictions.csv, or for the data set of --parquet")
    predict.set_defaults(settings=[])
    predict.epilog = "Settings of inference.json can follow, such as --device cpu: see `monai-cae settings`."
    add_flags(predict, "trust")
    text = "the scans are raw: prepare them into OUT/prepared, and predict from those that pass"
    predict.add_argument("--prepare", action="store_true", help=text)
    prepare.add_inputs(predict.add_argument_group("with --prepare, of `monai-cae prepare` (--table without it, too)"))
    prediction.add_many(predict.add_argument_group("for very many scans"))

    text = "the whole test of a finished model on a cohort that it has not seen: scores with intervals, calibration"
    evaluate = command("evaluate", runs.evaluate, text)
    text = (
        "an unpacked package, a run's output folder, or a checkpoint of the default network beside its autoencoder.pt"
    )
    evaluate.add_argument("model", type=Path, help=text)
    evaluate.add_argument("cohort", type=Path, help=LAYOUTS)
    evaluate.add_argument("out", type=Path, nargs="?", default=Path("external"), help="for results (default: external)")
    text = f"whose worker tests: {WORKERS}, see docs/how-to/cluster.md (default: this process)"
    evaluate.add_argument("--cluster", default="", metavar="WHERE", help=text)
    evaluate.set_defaults(settings=[])
    evaluate.epilog = "Settings can follow, such as --cohort#positive \"DX == 'AD'\": see `monai-cae settings`."
    add_flags(evaluate, "trust")

    text = "what the code of a trained autoencoder has to do with the numbers in a cohort's table"
    latent = command("latent", runs.latent, text)
    _add_autoencoder(latent, "latent", "an autoencoder.pt", "--cohort#table FILE or --places 2")
    text = "how unlike those that an autoencoder has learned from the scans of a cohort are, over time or sites"
    drift = command("drift", runs.drift, text)
    text = "an autoencoder.pt with what it has seen beside it"
    _add_autoencoder(drift, "drift", text, "--by COLUMN (sites, dates or numbers) or --unlike_limit 99")

    settings = command("settings", runs.settings, "what a setting means, its default, and which config reads it")
    settings.add_argument("name", nargs="?", default="", help="of the setting (default: all)")

    compare = command(
        "compare", runs.compare, "compare finished runs on the same test subjects: accuracy and AUC or errors, tests"
    )
    text = "MLflow run (ID or name), folder of an experiment, or predictions.csv; with :METHOD at its end one method"
    compare.add_argument(
        "runs", nargs="*", metavar="RUN", help=f"{text}. The first is compared with each of the others"
    )
    compare.add_argument("--tracking-uri", default="", help="MLflow's store (default: MLFLOW_TRACKING_URI)")
    compare.add_argument("--out", type=Path, help="folder for comparison.md, comparison.csv and comparison.png")
    compare.add_argument("--method", default="", help="of experiments given without :METHOD (default: network)")
    text = "subjects that each network was trained on, for the corrected t test over folds and repeats"
    compare.add_argument("--train-subjects", type=float, default=0, metavar="N", help=text)

    text = "write a network as TorchScript or ONNX, and check that it agrees with PyTorch"
    export = command("export", sharing.export, text)
    export.add_argument("bundle", type=Path, help="folder with configs/ and models/; its inference.json is executed")
    export.add_argument("out", type=Path, help="file to write: OUT.ts or OUT.onnx; a report is written next to it")
    export.add_argument("--network", default="classifier", help="classifier or autoencoder (default: classifier)")
    export.add_argument("--checkpoint", type=Path, help="its weights (default: model.pt or autoencoder.pt in models/)")
    export.add_argument("--volumes", type=Path, help="volumes to compare on (default: random ones)")
    add_flags(export, "trust")

    bundle = command("bundle", sharing.bundle, "copy the MONAI bundle, or unpack a package, to a new folder")
    bundle.add_argument("folder", type=Path, help="new or empty folder")
    bundle.add_argument("--from", dest="package", type=Path, metavar="PACKAGE", help="zip of `monai-cae package`")
    add_flags(bundle, "trust")

    sync = command("sync", runs.sync, "send an MLflow server what it still lacks; exit status 1 if something is left")
    sync.add_argument("output_dir", type=Path, help="of a training or an experiment, or a folder that holds several")
    text = "server for all runs (default: the one that each run was meant for, or MLFLOW_TRACKING_URI)"
    sync.add_argument("--tracking-uri", default="", help=text)

    text = "make a MONAI bundle with weights, scores and model card from a finished run"
    package = command("package", sharing.package, text)
    package.add_argument("package", type=Path, help="new file: NAME.zip")
    package.add_argument("--output-dir", type=Path, metavar="RUN", help="the run's output_dir")
    text = "RUN is an experiment: package the networks of all its folds and repeats as one, their mean"
    package.add_argument("--ensemble", action="store_true", help=text)
    package.add_argument("--data", default="", help="where its images come from, for the model card")
    package.add_argument("--weights-url", default="", help="where the weights will be published, for large_files.yml")
    package.add_argument(
        "--check", action="store_true", help="check a package, zipped or unpacked, instead of making one"
    )
    add_flags(package, "trust")

    text = "versions, machine and a self-test, to paste into an issue; exit status 1 if something fails"
    add_doctor(command("doctor", doctor, text))
    return parser


def _add_overlays(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--with", dest="overlays", default="", metavar="NAMES", help="overlays, such as selection,baselines"
    )
    parser.set_defaults(settings=[])


def _add_autoencoder(parser: argparse.ArgumentParser, out: str, model: str, settings: str) -> None:
    """The arguments of a command that looks at a cohort with an autoencoder."""
    parser.add_argument("model", type=Path, help=f"an unpacked package, a run's output folder, or {model}")
    parser.add_argument("cohort", type=Path, help=LAYOUTS)
    text = f"for tables and page (default: {out})"
    parser.add_argument("out", type=Path, nargs="?", default=Path(out), help=text)
    parser.set_defaults(settings=[])
    parser.epilog = f"Settings can follow, such as {settings}: see `monai-cae settings`."
    add_flags(parser, "trust")
