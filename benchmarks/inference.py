"""Claim: a folder of scans becomes predictions.csv 3 x faster than in plain MONAI, in flat memory and linear time.

Run: python benchmarks/inference.py [--quick]
     --quick takes 2 turns of fewer scans instead of 7; for the growth 500 and 1,500 volumes instead of 1,000 and
     10,000, of whose peak memory, which varies by a tenth, nothing is claimed

Ours is inference.json as it is, float32; what `--precision auto` does is a row of its own. Plain MONAI is a DataLoader
of batch size 1 and NibabelReader, which reads the volume, before the same transforms and the same network in float32.
Each way has a process of its own and is warm; they take turns, and their tables must agree. Volumes are 176 x 208 x 176
int16, hard links of three (an ellipsoid of noise on nothing): OASIS-1's .img pairs, and .nii.gz. Files are in
memory, so that no disk is measured.

A network of whole volumes (with_volume.yaml: 2 mm, 88 x 104 x 88, 8 to 32 channels) has rows of its own. Plain MONAI
reads the volume, turns it (Orientation), resamples it (Spacing), crops and scales it; its numbers are others, as a
resampled volume isn't an averaged one.

Memory and linear time are those of `--precision auto` on .img pairs, every size in a process of its own; the sizes take
turns.
"""

from __future__ import annotations

import argparse
import contextlib
import csv
import io
import itertools
import multiprocessing
import os
import resource
import tempfile
import time
from collections.abc import Sequence
from functools import partial
from multiprocessing.connection import Connection
from pathlib import Path
from typing import TYPE_CHECKING

import nibabel as nib
import numpy as np
from report import Row, alternate, finish

if TYPE_CHECKING:
    import torch

SHAPE, SLICE, SIZE = (176, 208, 176), 106, 176
WHOLE = " of volumes"  # behind the name of a way
VOLUME = {"image_size": [88, 104, 88], "channels": [8, 16, 32]}
AVERAGED = {"_target_": "monai_cae.data.VolumeExtraction", "spacing_mm": 2.0, "size": "@image_size", "axes": "@axes"}
CONFIG = Path(__file__).parents[1] / "bundle" / "configs" / "inference.json"


def make_volumes(root: Path) -> dict[str, list[Path]]:
    """Three distinct volumes in both formats: the files of each, by format."""
    grid = np.meshgrid(*(np.linspace(-1, 1, size) for size in SHAPE), indexing="ij", sparse=True)
    inside = sum(axis**2 for axis in grid) < 0.64
    header = nib.AnalyzeHeader(endianness=">")
    header.set_data_dtype(np.int16)
    made: dict[str, list[Path]] = {".img": [], ".nii.gz": []}
    root.mkdir()
    for seed in range(3):
        noise = np.random.default_rng(seed).normal(1500, 150, SHAPE)
        volume = np.where(inside, noise, 0).astype(np.int16)
        nib.save(nib.AnalyzeImage(volume[..., None], None, header), root / f"{seed}.img")
        nib.save(nib.Nifti1Image(volume, np.eye(4)), root / f"{seed}.nii.gz")
        made[".img"] += [root / f"{seed}.img", root / f"{seed}.hdr"]
        made[".nii.gz"].append(root / f"{seed}.nii.gz")
    return made


def link_volumes(folder: Path, files: list[Path], count: int) -> Path:
    """A folder of so many scans: the volumes' hard links, in turn."""
    folder.mkdir()
    for number in range(count):
        for file in files:
            if int(file.name.split(".")[0]) == number % 3:
                os.link(file, folder / f"scan{number:05d}{file.name[1:]}")
    return folder


class Ours:
    """The bundle's inference on one folder, of slices or of volumes."""

    def __init__(self, folder: Path, checkpoint: Path, output: Path, precision: str, volume: bool) -> None:
        from monai.bundle import ConfigWorkflow

        options = {"dataset_dir": str(folder), "checkpoint": str(checkpoint), "output_dir": str(output)}
        options |= {**VOLUME, "extraction": AVERAGED} if volume else {}
        self.workflow = ConfigWorkflow(str(CONFIG), **options, precision=precision, overwrite=True)
        self.workflow.initialize()

    def run(self) -> None:
        """From the list of files to predictions.csv."""
        from monai_cae.data.images.slice_cache import forget

        forget()  # of the run before
        with contextlib.redirect_stdout(io.StringIO()):
            self.workflow.run()


class Plain:
    """The same from MONAI's parts, put together as its tutorials do."""

    def __init__(self, folder: Path, checkpoint: Path, output: Path, volume: bool) -> None:
        import torch
        from monai import transforms as mt
        from monai.data import DataLoader, Dataset, NibabelReader

        self.path = output / "predictions.csv"
        self.path.parent.mkdir(parents=True)
        self.network = classifier(volume).eval()
        self.network.load_state_dict(torch.load(checkpoint, weights_only=True))
        load = [mt.LoadImaged("image", reader=NibabelReader())]
        cut = [
            mt.EnsureChannelFirstd("image", channel_dim="no_channel"),
            mt.Lambdad("image", lambda volume: volume.reshape(1, *SHAPE)[..., SLICE - 1]),
            mt.ResizeWithPadOrCropd("image", (SIZE, SIZE)),
        ]
        resample = [
            mt.Lambdad("image", lambda image: image.reshape(*SHAPE)),
            mt.EnsureChannelFirstd("image", channel_dim="no_channel"),
            mt.Orientationd("image", axcodes="RAS"),
            mt.Spacingd("image", pixdim=(2, 2, 2)),
            mt.ResizeWithPadOrCropd("image", VOLUME["image_size"]),
        ]
        steps = [*load, *(resample if volume else cut), mt.ScaleIntensityd("image")]
        files = sorted(path for path in folder.iterdir() if path.suffix in (".hdr", ".gz"))
        items = [{"image": str(path), "file": str(path)} for path in files]
        self.loader = DataLoader(Dataset(items, mt.Compose(steps)), batch_size=1)

    def run(self) -> None:
        """From the list of files to predictions.csv."""
        import torch

        with torch.no_grad(), self.path.open("w", newline="", encoding="utf-8") as file:
            table = csv.writer(file)
            table.writerow(["file", "probability", "prediction"])
            for batch in self.loader:
                probability = torch.sigmoid(self.network(batch["image"])).item()
                table.writerow([batch["file"][0], f"{probability:.6f}", int(probability >= 0.5)])


def serve(way: str, folders: Sequence[Path], checkpoint: Path, output: Path, orders: Connection) -> None:
    """Predict the folder of each number that is ordered, and answer with the seconds; last with the peak in MiB."""
    predictors: list[Ours | Plain] = []
    for number, folder in enumerate(folders):
        place = output / str(number)
        kind, volume = way.removesuffix(WHOLE), way.endswith(WHOLE)
        predictors.append(
            Plain(folder, checkpoint, place, volume)
            if kind == "plain"
            else Ours(folder, checkpoint, place, kind, volume)
        )
    while (number := orders.recv()) is not None:
        started = time.perf_counter()
        predictors[number].run()
        orders.send(time.perf_counter() - started)
    orders.send(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**10)


class Process:
    """One way in a process of its own, for some folders."""

    def __init__(self, way: str, folders: Sequence[Path], checkpoint: Path, output: Path) -> None:
        context = multiprocessing.get_context("spawn")
        self.orders, theirs = context.Pipe()
        self.process = context.Process(target=serve, args=(way, folders, checkpoint, output, theirs), daemon=True)
        self.process.start()
        theirs.close()

    def seconds(self, number: int) -> float:
        """Of predicting one of the folders."""
        self.orders.send(number)
        return float(self.orders.recv())

    def end(self) -> float:
        """End the process; its peak memory in MiB."""
        self.orders.send(None)
        peak = float(self.orders.recv())
        self.process.join()
        return peak


def predicted(path: Path) -> dict[str, float]:
    """Probability by file name."""
    with path.open(encoding="utf-8") as file:
        return {Path(row["file"]).name: float(row["probability"]) for row in csv.DictReader(file)}


def compare(
    root: Path, made: dict[str, list[Path]], checkpoints: Sequence[Path], quick: bool
) -> dict[tuple[str, str], float]:
    """Scans per second by format and way; plain MONAI has fewer scans, as each takes it as long."""
    ours, plain, turns = (96, 16, 2) if quick else (192, 48, 7)
    few = (12, 4) if quick else (36, 12)  # of volumes
    counts = {"float32": ours, "auto": ours, "plain": plain, f"float32{WHOLE}": few[0], f"plain{WHOLE}": few[1]}
    processes = {}
    for way, count in counts.items():
        folders = [link_volumes(root / f"{way}{suffix}", files, count) for suffix, files in made.items()]
        processes[way] = Process(way, folders, checkpoints[way.endswith(WHOLE)], root / f"output {way}")
    rates = {}
    for number, suffix in enumerate(made):
        for ways in ([way for way in counts if way.endswith(WHOLE) is volume] for volume in (False, True)):
            seconds = alternate({way: partial(processes[way].seconds, number) for way in ways}, turns)
            rates |= {(suffix, way): counts[way] / seconds[way] for way in ways}
        tables = {way: predicted(root / f"output {way}" / str(number) / "predictions.csv") for way in counts}
        for name, expected in tables["plain"].items():
            if abs(tables["float32"][name] - expected) > 1e-5 or abs(tables["auto"][name] - expected) > 1e-2:
                raise RuntimeError(f"{name}: {[table[name] for table in tables.values()]}")
    for process in processes.values():
        process.end()
    return rates


def grow(root: Path, files: list[Path], checkpoint: Path, quick: bool) -> list[Row]:
    """Time per volume and peak memory of so many volumes, against fewer."""
    sizes, turns = ((500, 1_500), 2) if quick else ((1_000, 10_000), 3)
    processes = {
        size: Process("auto", [link_volumes(root / str(size), files, size)], checkpoint, root / f"output {size}")
        for size in sizes
    }
    ways = {str(size): partial(process.seconds, 0) for size, process in processes.items()}
    seconds = alternate(ways, turns, warm_up=0)
    few, many = ({"ms": 1e3 * seconds[str(size)] / size, "mib": processes[size].end()} for size in sizes)
    what, against = f"{sizes[1]:,} volumes", f"with {sizes[0]:,}"
    return [
        Row(f"peak memory, {what}", many["mib"], few["mib"], against, "MiB", many["mib"] / few["mib"],
            "" if quick else "<= 1.1"),
        Row(f"time per volume, {what}", many["ms"], few["ms"], against, "ms", many["ms"] / few["ms"], "<= 1.1"),
    ]  # fmt: skip


def main() -> None:
    """Print the table, write results/inference.json."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true")
    quick = parser.parse_args().quick
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        checkpoints = [root / "model.pt", root / "model of volumes.pt"]
        making = multiprocessing.get_context("spawn").Process(target=make_checkpoints, args=(checkpoints,))
        making.start()
        made = make_volumes(root / "volumes")
        making.join()
        rates = compare(root, made, checkpoints, quick)
        growth = grow(root, made[".img"], checkpoints[0], quick)
    rows = []
    for suffix, (way, option) in itertools.product(made, (("float32", ""), ("auto", ", --precision auto"))):
        ours, plain = rates[suffix, way], rates[suffix, "plain"]
        rows.append(
            Row(f"{suffix} to predictions{option}", ours, plain, "plain MONAI", "scans/s", ours / plain, ">= 3")
        )
    for suffix in made:
        ours, plain = rates[suffix, f"float32{WHOLE}"], rates[suffix, f"plain{WHOLE}"]
        what = f"{suffix} to predictions from volumes of 2 mm"
        rows.append(Row(what, ours, plain, "plain MONAI", "scans/s", ours / plain, ">= 3"))
    finish("inference", [*rows, *growth])


def classifier(volume: bool) -> torch.nn.Module:
    """Of slices or of volumes."""
    from monai_cae.networks import ConvEncoder, EncoderClassifier

    if volume:
        encoder = ConvEncoder(spatial_dims=3, channels=VOLUME["channels"])
        return EncoderClassifier(encoder=encoder, spatial_size=VOLUME["image_size"])
    return EncoderClassifier(encoder=ConvEncoder())


def make_checkpoints(paths: Sequence[Path]) -> None:
    """Classifiers of random weights, in a process of its own: a parent's memory would count as its children's."""
    import torch

    from monai_cae.networks import save_weights

    for volume, path in enumerate(paths):
        torch.manual_seed(0)
        network = classifier(bool(volume))
        for weights in network.parameters():
            if weights.ndim > 1:
                torch.nn.init.kaiming_normal_(weights)
        save_weights(network, path)


if __name__ == "__main__":
    main()
