"""Claim: a folder of volumes becomes predictions.csv 3 x faster than in plain MONAI, in flat memory and linear time.

Run: python benchmarks/inference.py [--quick]
     --quick takes 2 turns of fewer scans instead of 7; for the growth 500 and 1,500 volumes instead of 1,000 and
     10,000, of whose peak memory, which varies by a tenth, nothing is claimed

Ours is inference.json as it is, float32; what `--precision auto` does is a row of its own. Plain MONAI is a DataLoader
of batch size 1 and NibabelReader, which reads the volume, before the same transforms and the same network in float32.
Each way has a process of its own and is warm; they take turns, and their tables must agree. Volumes are 176 x 208 x 176
int16, hard links of three (an ellipsoid of noise on nothing): OASIS-1's .img pairs, and .nii.gz. Files are in
memory, so that no disk is measured.

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

import nibabel as nib
import numpy as np
from report import Row, alternate, finish

SHAPE, SLICE, SIZE = (176, 208, 176), 106, 176
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
    """The bundle's inference on one folder."""

    def __init__(self, folder: Path, checkpoint: Path, output: Path, precision: str) -> None:
        from monai.bundle import ConfigWorkflow

        options = {"dataset_dir": str(folder), "checkpoint": str(checkpoint), "output_dir": str(output)}
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

    def __init__(self, folder: Path, checkpoint: Path, output: Path) -> None:
        import torch
        from monai import transforms as mt
        from monai.data import DataLoader, Dataset, NibabelReader

        from monai_cae.networks import ConvEncoder, EncoderClassifier

        self.path = output / "predictions.csv"
        self.path.parent.mkdir(parents=True)
        self.network = EncoderClassifier(encoder=ConvEncoder()).eval()
        self.network.load_state_dict(torch.load(checkpoint, weights_only=True))
        steps = [
            mt.LoadImaged("image", reader=NibabelReader()),
            mt.EnsureChannelFirstd("image", channel_dim="no_channel"),
            mt.Lambdad("image", lambda volume: volume.reshape(1, *SHAPE)[..., SLICE - 1]),
            mt.ResizeWithPadOrCropd("image", (SIZE, SIZE)),
            mt.ScaleIntensityd("image"),
        ]
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
        predictors.append(
            Plain(folder, checkpoint, place) if way == "plain" else Ours(folder, checkpoint, place, precision=way)
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


def compare(root: Path, made: dict[str, list[Path]], checkpoint: Path, quick: bool) -> dict[tuple[str, str], float]:
    """Scans per second by format and way; plain MONAI has fewer scans, as each takes it as long."""
    ours, plain, turns = (96, 16, 2) if quick else (192, 48, 7)
    counts = {"float32": ours, "auto": ours, "plain": plain}
    processes = {}
    for way, count in counts.items():
        folders = [link_volumes(root / f"{way}{suffix}", files, count) for suffix, files in made.items()]
        processes[way] = Process(way, folders, checkpoint, root / f"output {way}")
    rates = {}
    for number, suffix in enumerate(made):
        seconds = alternate({way: partial(process.seconds, number) for way, process in processes.items()}, turns)
        tables = {way: predicted(root / f"output {way}" / str(number) / "predictions.csv") for way in counts}
        for name, expected in tables["plain"].items():
            if abs(tables["float32"][name] - expected) > 1e-5 or abs(tables["auto"][name] - expected) > 1e-2:
                raise RuntimeError(f"{name}: {[table[name] for table in tables.values()]}")
        rates |= {(suffix, way): counts[way] / seconds[way] for way in counts}
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
        checkpoint = root / "model.pt"
        making = multiprocessing.get_context("spawn").Process(target=make_checkpoint, args=(checkpoint,))
        making.start()
        made = make_volumes(root / "volumes")
        making.join()
        rates = compare(root, made, checkpoint, quick)
        growth = grow(root, made[".img"], checkpoint, quick)
    rows = []
    for suffix, (way, option) in itertools.product(made, (("float32", ""), ("auto", ", --precision auto"))):
        ours, plain = rates[suffix, way], rates[suffix, "plain"]
        rows.append(
            Row(f"{suffix} to predictions{option}", ours, plain, "plain MONAI", "scans/s", ours / plain, ">= 3")
        )
    finish("inference", [*rows, *growth])


def make_checkpoint(path: Path) -> None:
    """A classifier of random weights, in a process of its own: a parent's memory would count as its children's."""
    import torch

    from monai_cae.networks import ConvEncoder, EncoderClassifier, save_weights

    torch.manual_seed(0)
    network = EncoderClassifier(encoder=ConvEncoder())
    for weights in network.parameters():
        if weights.ndim > 1:
            torch.nn.init.kaiming_normal_(weights)
    save_weights(network, path)


if __name__ == "__main__":
    main()
