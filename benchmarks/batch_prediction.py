"""Claim: prediction in chunks uses each worker fully, in flat memory, and loses and repeats nothing when workers die.

Run: python benchmarks/batch_prediction.py [--quick] [--volumes N] [--kills K]
     --quick takes 2 turns of 64 volumes instead of 3 of 1,000, 1,000 volumes instead of 5,000 for the memory, and 3,000
     with 3 kills instead of 100,000 with 20 for the last run; --volumes and --kills are of the last run alone

All volumes are synthetic. Workers are processes of this machine (`--cluster local:N`), with one thread each.

- One and two workers: volumes of 176 x 208 x 176 int16 (hard links of three) and the default network; the two engines
  are warm and take turns. Where other programs use the cores, the processor time of a scan tells what an idle machine
  would do: twice that of one worker over that of two.
  Tasks that only sleep tell what Dask and the engine themselves cost.
- Memory: of one worker after 100 and after 5,000 volumes of 8 x 8 x 8, through the smallest network; and of a
  predictor without Dask, in this process, Python's objects.
- Overhead: a task that predicts nothing, with 100 scans and 100 rows: all that is not prediction, per scan.
- Kills: volumes of 8 x 8 x 8 (300 distinct, hard links) through the smallest network; a random worker gets SIGKILL each
  time a random share of the parts is there. Then every file is in exactly one row.
"""

from __future__ import annotations

import argparse
import contextlib
import gc
import io
import json
import os
import random
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import nibabel as nib
import numpy as np
import psutil
from report import Row, alternate, finish

from monai_cae.cluster.address import engine_of
from monai_cae.cluster.engine import Engine, Task

if TYPE_CHECKING:  # workers import this script, too, and have the rest by their tasks
    from monai_cae.prediction.listing import Listed
    from monai_cae.prediction.predictor import Plan

CONFIG = Path(__file__).parents[1] / "bundle" / "configs" / "inference.json"
SHAPE = (176, 208, 176)
ALONE = {"device": "cpu", "threads": 1, "num_workers": 0}
SMALLEST = {"image_size": 8, "slice_index": 4, "channels": [2, 2, 2], "network_def#hidden": [4]}
DISTINCT, A_FOLDER = 300, 1000
SEED = 0


def plan(folder: Path, **settings: Any) -> Plan:
    """The network with random weights."""
    import torch

    from monai_cae.networks import ConvEncoder, EncoderClassifier, save_weights
    from monai_cae.prediction.predictor import Plan

    torch.manual_seed(SEED)
    size = settings.get("image_size", 176)
    more = {"hidden": settings["network_def#hidden"]} if "network_def#hidden" in settings else {}
    encoder = ConvEncoder(channels=settings.get("channels", (32, 64, 128)))
    path = folder / f"model{size}.pt"
    save_weights(EncoderClassifier(encoder=encoder, spatial_size=(size, size), **more), path)
    given = {"checkpoint": str(path), "pretrained": str(folder / "none.pt"), **ALONE, **settings}
    return Plan(str(CONFIG), json.dumps(given))


def link(folder: Path, distinct: Sequence[Path], count: int) -> Path:
    """A folder of so many scans, 1,000 in a subfolder, each a hard link of one of the distinct ones."""
    for number in range(count):
        if number % A_FOLDER == 0:
            (folder / str(number // A_FOLDER)).mkdir(parents=True)
        os.link(distinct[number % len(distinct)], folder / str(number // A_FOLDER) / f"sub-{number:06d}_T1w.nii")
    return folder


def distinct_volumes(folder: Path, shape: tuple[int, int, int], count: int, kind: Any) -> list[Path]:
    """Random volumes."""
    folder.mkdir()
    rng, paths = np.random.default_rng(SEED), []
    for number in range(count):
        paths.append(folder / f"{number}.nii")
        nib.save(nib.Nifti1Image(rng.integers(0, 250, shape).astype(kind), np.eye(4)), paths[-1])
    return paths


def predict(plan: Plan, scans: Path, out: Path, chunk: int, engine: Engine) -> float:
    """Seconds from the list to the summary."""
    from monai_cae.prediction import batch

    asked = batch.Asked(plan, str(scans), out, chunk=chunk)
    started = time.perf_counter()
    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
        batch.predict_many(asked, engine)
    return time.perf_counter() - started


def worker_processes() -> list[psutil.Process]:
    """Of this process's engines."""
    found = []
    for child in psutil.Process().children():
        with contextlib.suppress(psutil.Error):
            if "spawn_main" in " ".join(child.cmdline()):
                found.append(child)
    return found


def processor_seconds(processes: Sequence[psutil.Process]) -> float:
    """Of these processes until now."""
    return sum(sum(one.cpu_times()[:2]) for one in processes)


def one_and_two(root: Path, volumes: int, turns: int) -> list[Row]:
    """Seconds and processor time of a scan, with one worker and with two."""
    scans = link(root / "large", distinct_volumes(root / "large volumes", SHAPE, 3, np.int16), volumes)
    made, runs = plan(root), iter(range(1000))
    processor: dict[int, list[float]] = {1: [], 2: []}
    with contextlib.ExitStack() as stack:
        engines, theirs = {}, {}
        for workers in (1, 2):
            before = worker_processes()
            engines[workers] = stack.enter_context(engine_of(f"local:{workers}", ahead=1))
            theirs[workers] = [one for one in worker_processes() if one not in before]

        def measured(workers: int) -> Callable[[], float]:
            def once() -> float:
                before = processor_seconds(theirs[workers])
                seconds = predict(made, scans, root / f"out {next(runs)}", 16, engines[workers]) / volumes
                processor[workers].append((processor_seconds(theirs[workers]) - before) / volumes)
                return seconds * 1e3

            return once

        took = alternate({"one": measured(1), "two": measured(2)}, turns)
    one, two = (float(np.median(processor[workers][1:])) * 1e3 for workers in (1, 2))
    return [
        Row("two workers, a scan", took["two"], took["one"], "one worker", "ms", took["one"] / took["two"], ">= 1.8"),
        Row("two workers, processor time of a scan", two, one, "one worker", "ms", 2 * one / two, ">= 1.8"),
    ]


def waiting() -> Row:
    """What Dask and the engine make of two workers, whatever else the cores do: tasks that sleep for a second."""
    took = {}
    for workers in (1, 2):
        with engine_of(f"local:{workers}", ahead=1) as engine:
            for name, seconds in (("first", 0.01), ("counted", 1.0)):
                started = time.perf_counter()
                for _ in engine.run(Task(f"{name}-{number}", time.sleep, (seconds,)) for number in range(16)):
                    pass
            took[workers] = time.perf_counter() - started
    return Row("two workers, 16 tasks of a second", took[2], took[1], "one worker", "s", took[1] / took[2], ">= 1.8")


def memory(root: Path, small: int, large: int) -> Row:
    """Of one worker that has predicted few scans, and many more."""
    distinct = distinct_volumes(root / "small volumes", (8, 8, 8), DISTINCT, np.uint8)
    made, resident = plan(root, **SMALLEST), []
    with engine_of("local:1", ahead=1) as engine:
        (worker,) = worker_processes()
        for count in (small, large):
            predict(made, link(root / f"small {count}", distinct, count), root / f"out of {count}", 100, engine)
            resident.append(worker.memory_info().rss / 2**20)
    what = f"memory of a worker after {small + large:,} scans"
    return Row(what, resident[1], resident[0], f"after {small}", "MiB", resident[1] / resident[0], "<= 1.05")


def objects(root: Path, small: int, large: int) -> Row:
    """Python's objects, where a predictor has done few scans, and many more: what is kept of a scan shows."""
    from monai_cae.prediction.listing import list_scans
    from monai_cae.prediction.predictor import Predictor

    distinct = distinct_volumes(root / "seen volumes", (8, 8, 8), DISTINCT, np.uint8)
    scans = list(list_scans(str(link(root / "seen", distinct, large))))
    predictor, counted = Predictor(plan(root, **SMALLEST)), {}
    for start in range(0, large, 100):
        predictor.predict(scans[start : start + 100])
        gc.collect()
        counted[start + 100] = len(gc.get_objects())
    few, many = counted[small], counted[large]
    what = f"objects after {large:,} scans, without Dask"
    return Row(what, many, few, f"after {small}", "", many / few, "<= 1.001")


def pretend(plan: Plan, scans: Sequence[Listed]) -> list[dict[str, Any]]:
    """The task without a prediction: rows of the usual size."""
    told = {"seen_in_training": "no", "probability": 0.5, "prediction": 1, "class": "AD", "threshold": 0.5}
    return [{"subject": "s", "file": scan.path, **told} for scan in scans]


def overhead(root: Path, scans: int) -> Row:
    """All that is not prediction, from the list to the summary, per scan."""
    from monai_cae.prediction import batch

    made, usual = plan(root, **SMALLEST), batch.predict_scans
    batch.predict_scans = pretend
    try:
        with engine_of("local:2", ahead=1) as engine:
            for count in (200, scans):  # the first imports everything
                table = root / f"{count} scans.csv"
                table.write_text("\n".join(["path", *(f"/scans/sub-{n:07d}_T1w.nii.gz" for n in range(count))]))
                seconds = predict(made, table, root / f"pretended {count}", 100, engine)
    finally:
        batch.predict_scans = usual
    each = seconds / scans * 1e3
    return Row("everything but prediction, a scan, in chunks of 100", each, 0, "", "ms", each, "<= 2")


@contextlib.contextmanager
def killing(out: Path, parts: int, kills: int) -> Iterator[list[int]]:
    """Kill a random worker when each of so many random numbers of parts are there."""
    chance = random.Random(SEED)
    moments, killed = sorted(chance.sample(range(1, parts - 1), kills)), []
    ended = threading.Event()

    def watch() -> None:
        while moments and not ended.wait(0.02):
            there = sum(1 for _ in (out / "predictions").glob("group=*/part-*"))
            while moments and there >= moments[0]:
                alive = worker_processes()
                if not alive:
                    break
                victim = chance.choice(alive)
                with contextlib.suppress(psutil.Error):
                    victim.kill()
                    killed.append(victim.pid)
                    moments.pop(0)
                    print(
                        f"  {there} of {parts} parts: killed {len(killed)} of {kills}", file=sys.__stdout__, flush=True
                    )
                break  # one at a time

    thread = threading.Thread(target=watch)
    thread.start()
    try:
        yield killed
    finally:
        ended.set()
        thread.join()


def survived(root: Path, volumes: int, kills: int) -> tuple[list[Row], dict[str, Any]]:
    """Predict many tiny volumes while workers are killed."""
    import pandas as pd

    chunk, out = max(8, min(128, volumes // 100)), root / "survived"
    scans = link(root / "tiny", distinct_volumes(root / "tiny volumes", (8, 8, 8), DISTINCT, np.uint8), volumes)
    made = plan(root, **SMALLEST)
    with engine_of("local:2", ahead=1) as engine, killing(out, -(-volumes // chunk), kills) as killed:
        seconds = predict(made, scans, out, chunk, engine)
    found = pd.read_parquet(out / "predictions", columns=["file", "probability", "reason"])
    expected = {str(path) for path in scans.rglob("*.nii")}
    lost, twice = len(expected - {*found["file"]}), int(found["file"].duplicated().sum())
    left_out = int(found["reason"].notna().sum())
    told = f"{volumes:,} volumes, {len(killed)} workers killed"
    rows = [
        Row(f"{told}: scans lost", lost, 0, "", "", lost, "<= 0"),
        Row(f"{told}: scans twice", twice, 0, "", "", twice, "<= 0"),
        Row(f"{told}: without a prediction", left_out, 0, "", "", left_out, "<= 0"),
        Row(f"{told}: to the end", seconds, 0, "", "s", seconds),
    ]
    return rows, {"killed": len(killed), "chunk": chunk, "seed": SEED}


def main() -> None:
    """Print the table, write results/batch_prediction.json."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--volumes", type=int, default=0, help="of the last run")
    parser.add_argument("--kills", type=int, default=0, help="of the last run")
    parser.add_argument("--only", default="", help="workers, memory, overhead or kills")
    given = parser.parse_args()
    quick = given.quick
    rows: list[Row] = []
    details: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        if given.only in ("", "workers"):
            rows += [*one_and_two(root, 64 if quick else 1000, 2 if quick else 3), waiting()]
        if given.only in ("", "memory"):
            rows += [memory(root, 100, 900 if quick else 4900), objects(root, 500, 1000 if quick else 5000)]
        if given.only in ("", "overhead"):
            rows.append(overhead(root, 20_000 if quick else 100_000))
        if given.only in ("", "kills"):
            volumes = given.volumes or (3000 if quick else 100_000)
            more, details = survived(root, volumes, given.kills or (3 if quick else 20))
            rows += more
    finish("batch_prediction", rows, **details)


if __name__ == "__main__":
    main()
