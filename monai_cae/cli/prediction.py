"""`monai-cae predict`: of raw scans, where each has to be told whether to believe it, and of very many."""

from __future__ import annotations

import argparse
import csv
import json
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from monai_cae.cli.options import SHOWN, WORKERS, Arguments
from monai_cae.cli.prepare import inputs_given, prepare_folder
from monai_cae.errors import MonaiCaeError
from monai_cae.files import refuse_same_folder, replacing
from monai_cae.terminal import say

if TYPE_CHECKING:
    from monai_cae.data.layouts.derivative import Judged

FOLDER, TABLE = "prepared", "table.tsv"
_UNPLACED = "the training's volumes record no place, as OASIS-1's processed ones: what is seen may lie up to 5 mm off"
_ADDED = ("qc", "qc_reasons", "warnings")


def add_many(parser: Arguments) -> None:
    """The options of a prediction in chunks."""
    text = "predict in chunks, and write a Parquet data set in place of predictions.csv: OUT/predictions"
    parser.add_argument("--parquet", action="store_true", help=text)
    text = f"as --parquet, elsewhere; where to: {WORKERS}, see docs/how-to/cluster.md (default: this process)"
    parser.add_argument("--cluster", default="", metavar="WHERE", help=text)
    text = "scans of a chunk: what a worker does at a time, and what is lost with it (default: 128)"
    parser.add_argument("--chunk", type=int, metavar="N", help=text)
    text = "true goes on with a data set that was begun with the same scans, weights and settings"
    parser.add_argument("--resume", nargs="?", const="true", default="false", choices=("true", "false"), help=text)


def predict_parquet(options: argparse.Namespace, config: Path, settings: dict[str, Any]) -> int:
    """Predict in chunks; exit status 0."""
    from monai_cae.cluster.address import engine_of
    from monai_cae.prediction.batch import CHUNK, Asked, predict_many
    from monai_cae.prediction.predictor import Plan

    if options.prepare:
        raise MonaiCaeError(
            "--prepare writes no Parquet: prepare the scans with `monai-cae prepare`, and predict its folder"
        )
    refuse_inputs([name for name in inputs_given(options) if name not in ("table", "image_column")])
    refuse_same_folder(options.out, Path(options.scans), "the data")
    overwrite = settings.pop("overwrite", False) in (True, "true")
    for name in ("checkpoint", "pretrained"):  # workers have folders of their own
        if isinstance(place := settings.get(name), str) and not place.startswith(("$", "@")):
            settings[name] = str(Path(place).absolute())
    if options.table:
        settings["table"] = str(options.table.absolute())
    gpus = bool(options.cluster) and on_gpu(settings.get("device"))
    asked = Asked(
        plan=Plan(str(config.absolute()), json.dumps(settings)),
        scans=options.scans,
        column=options.image_column,
        out=options.out,
        chunk=CHUNK if options.chunk is None else options.chunk,
        resume=options.resume == "true",
        overwrite=overwrite,
        needs={"GPU": 1} if gpus else {},
    )
    sees = {"the model": options.model, "the scans": Path(options.scans), "the table": options.table}
    known = {what: path.absolute() for what, path in sees.items() if path is not None and path.exists()}
    with engine_of(options.cluster, sees=known, gpus=gpus, ahead=1) as engine:
        predict_many(asked, engine)
    return 0


def on_gpu(device: Any) -> bool:
    """Whether workers are to have a GPU each; where no device is named, as this machine has it."""
    import torch

    return torch.cuda.is_available() if device is None else str(device).startswith("cuda")


def refuse_many(options: argparse.Namespace) -> None:
    """MonaiCaeError for what only a prediction in chunks can do."""
    from monai_cae.prediction.listing import is_many

    for name, given in (("chunk", options.chunk is not None), ("resume", options.resume == "true")):
        if given:
            raise MonaiCaeError(f"--{name} is for a prediction in chunks: give --parquet, too, or leave it out")
    if is_many(options.scans) and not options.prepare:
        raise MonaiCaeError(f"{options.scans} can be predicted in chunks only: give --parquet, too")


def predict_raw(
    options: argparse.Namespace,
    given: Sequence[str],
    checkpoint: Path,
    infer: Callable[[Path, Sequence[str]], None],
    check: Callable[[], None],
) -> int:
    """Prepare what there is into OUT/prepared, predict from what passes, and say in predictions.csv what does not.

    Args:
        options: of the command.
        given: settings of inference.json, as the bundle spells them.
        checkpoint: the classifier's, whose record says what its training was like.
        infer: writes predictions.csv for the images of a folder, with further settings.
        check: refuses settings with which it could not, before hours of preparation.

    Returns:
        Exit status: 1 if nothing was predicted.

    Raises:
        MonaiCaeError: there are predictions, which may not be replaced, and whatever `prepare` refuses.
    """
    from monai_cae.data.layouts.derivative import QC_TABLE, read_qc
    from monai_cae.networks import trained_with
    from monai_cae.prepare.derivative import Place, read_tables
    from monai_cae.training import refuse_predictions

    predictions, folder = options.out / "predictions.csv", options.out / FOLDER
    overwrite = _value(given, "overwrite") in ("true", "True")
    refuse_predictions(str(predictions), overwrite)
    record = next(iter(trained_with(checkpoint).values()), {})
    check()
    prepare_folder(Path(options.scans), folder, options, resume=True, overwrite=overwrite)
    judged = read_qc(folder / QC_TABLE)
    usable = [name for name, one in judged.items() if not one.left_out]
    print(f"\n{len(usable)} of {len(judged)} scans can be predicted from; see {folder / 'qc.html'}", flush=True)
    rows: dict[str, dict[str, str]] = {}
    warnings: dict[str, list[str]] = {}
    if usable:
        table = _write_table(options.out / TABLE, read_tables(folder, usable))
        infer(folder, ["--table", placed(table)] if table else [])
        of_file = {str(Place(folder, name).image.absolute()): name for name in usable}
        with predictions.open(newline="", encoding="utf-8") as file:
            rows = {of_file[str(Path(row["file"]).absolute())]: row for row in csv.DictReader(file)}
        images = {name: Place(folder, name).image for name in rows}
        warnings = _warnings(record, images, table, folder)
    _write_predictions(predictions, judged, rows, warnings)
    _tell(predictions, judged, rows, warnings)
    return int(not rows)


def _write_predictions(
    path: Path,
    judged: Mapping[str, Judged],
    rows: Mapping[str, Mapping[str, str]],
    warnings: Mapping[str, Sequence[str]],
) -> None:
    """A row for every scan, those that were predicted first."""
    columns = list(dict.fromkeys(["scan", "subject", *(name for row in rows.values() for name in row), *_ADDED]))
    with replacing(path) as temporary, temporary.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, columns, restval="")
        writer.writeheader()
        for name, one in sorted(judged.items(), key=lambda item: (item[0] not in rows, item[0])):
            left = "" if name in rows else one.left_out or "left out, see left_out.csv"
            reasons = "; ".join(text for text in (one.reasons, left) if text)
            added = {"qc": one.verdict, "qc_reasons": reasons, "warnings": "; ".join(warnings.get(name, []))}
            writer.writerow({"scan": name, "subject": name.partition("_")[0], **rows.get(name, {}), **added})


def _tell(
    path: Path, judged: Mapping[str, Judged], rows: Collection[str], warnings: Mapping[str, Sequence[str]]
) -> None:
    """The closing summary: how many were predicted, which were not, and what to be careful with."""
    lines = [
        f"{name}: {one.verdict}, not predicted ({one.reasons or one.left_out or 'see left_out.csv'})"
        for name, one in judged.items()
        if name not in rows
    ]
    lines += [f"{name}: {line}" for name, found in warnings.items() for line in found]
    lines += [f"{name}: to review ({judged[name].reasons})" for name in rows if judged[name].verdict == "review"]
    print(f"{len(rows)} of {len(judged)} scans predicted: {path}")
    for line in lines[:SHOWN]:
        say(f"  ! {line}")
    if len(lines) > SHOWN:
        print(f"  and {len(lines) - SHOWN} more, in {path}")


def _value(settings: Sequence[str], name: str) -> str:
    """Of a setting, as MONAI reads it: `--name value`, `--name=value`, and `--name` for true."""
    found = ""
    for number, part in enumerate(settings):
        if part.startswith(f"--{name}="):
            found = part.partition("=")[2]
        elif part == f"--{name}":
            after = settings[number + 1 : number + 2]
            found = after[0] if after and not after[0].startswith("--") else "true"
    return found


def placed(path: Path) -> str:
    """As a setting; ./ keeps MONAI from reading true, 12 or a,b as something else, -a as a setting."""
    return str(path) if path.is_absolute() else f"./{path}"


def _write_table(path: Path, rows: Mapping[str, Mapping[str, str]]) -> Path | None:
    """The numbers that a network may take, by the names of the prepared scans; None where nothing is known of any."""
    from monai_cae.data.cohort.tables import COVARIATES, ROLES
    from monai_cae.prepare.derivative import write_tsv

    wanted = {name.casefold() for name in (*ROLES["age"], *ROLES["sex"], *COVARIATES, "CDR")}
    kept = {scan: {name: text for name, text in row.items() if name.casefold() in wanted} for scan, row in rows.items()}
    if not any(kept.values()):
        path.unlink(missing_ok=True)
        return None
    write_tsv(path, [{**_ids(scan), **row} for scan, row in kept.items()])
    return path


def _ids(scan: str) -> dict[str, str]:
    subject, _, session = scan.partition("_")
    return {"participant_id": subject, **({"session_id": session} if session else {})}


def _warnings(
    record: Mapping[str, Any], images: Mapping[str, Path], table: Path | None, folder: Path
) -> dict[str, list[str]]:
    """Where a scan is unlike the training's, or its numbers of quality hardly pass."""
    from monai_cae.data.images.inputs import out_of_range
    from monai_cae.prepare.batch import finished_in
    from monai_cae.prepare.quality import close_to_limits

    numbers, quality = _numbers(table), finished_in(folder)
    frames = _other_frame(record, images.values())
    found = {}
    for name, image in images.items():
        known = numbers.get(name, {})
        taken = {one.removesuffix("^2") for one in record.get("covariates") or {}} - {"sex"}
        missing = [f"{one} is not known: taken to be average" for one in sorted(taken) if known.get(one) is None]
        near = close_to_limits(quality[name].qc)
        found[name] = [*out_of_range(record, known), *missing, *frames.get(str(image), []), *near]
    return {name: lines for name, lines in found.items() if lines}


def _numbers(table: Path | None) -> dict[str, dict[str, Any]]:
    from monai_cae.data.cohort.tables import read_table

    rows = read_table(table, subject_pattern="(.+)", sex_codes="none") if table else []
    return {row.name: {"age": row.age, "cdr": row.cdr, **row.covariates} for row in rows}


def _other_frame(record: Mapping[str, Any], images: Iterable[Path]) -> dict[str, list[str]]:
    """Images that show, or may show, another place than the training's, as far as inference goes on with them."""
    from monai_cae.data.images.frames import frame_faults, frame_of, from_record
    from monai_cae.data.images.inputs import recorded_extraction
    from monai_cae.data.images.volumes import find_volume

    training, extraction = from_record(record.get("frame")), recorded_extraction(record)
    if training is None or extraction is None:
        return {}
    frames = {str(image): frame_of(find_volume(str(image)).layout, extraction) for image in images}
    if not training.codes:  # as OASIS-1's processed volumes, whose atlas lies elsewhere in the same grid
        return {image: [_UNPLACED] for image in frames}
    faults = frame_faults(frames, extraction, cohort=False, training=training)
    return {image: [f"{extraction.name} {fault.removesuffix(': register it')}"] for image, fault in faults.items()}


def refuse_inputs(names: Sequence[str]) -> None:
    """MonaiCaeError where options of the preparation are given, and nothing is prepared."""
    if names:
        raise MonaiCaeError(f"--{names[0].replace('_', '-')} is for raw scans: give --prepare, too, or leave it out")
