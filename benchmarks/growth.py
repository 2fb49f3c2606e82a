"""How time and memory grow with subjects, batch size and image size; draws docs/figures/growth.png.

Run: python benchmarks/growth.py [--quick] [--figure FILE]
     --quick stops at 10,000 subjects, of which nothing is claimed, batches of 32 and images of 176 x 176

Claims on the way: memory is flat in the number of volumes that are read from disk (`cache_share` 0), 16 to 128 of 88 x
104 x 88; and a cohort of 50,000 rows is read, split and audited (pixels aside) in at most 60 s and 2 GB. Every
point runs in a process of its own, so that the peak memory is its own. Reading the table with pandas alone is what
nobody can avoid. The cohort's images are empty files, nothing opens them here; the CAE trains on random slices, 32 a
measurement.
"""

from __future__ import annotations

import argparse
import itertools
import multiprocessing
import resource
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from report import Row, finish

Points = list[dict[str, float]]


def make_cohort(root: Path, rows: int) -> None:
    """A plain folder: a table that names an image for every subject, one in three a patient."""
    (root / "images").mkdir(parents=True)
    lines = ["ID,image,Age,sex,CDR"]
    for number in range(rows):
        name = f"images/{number:06d}.nii"
        (root / name).touch()
        lines.append(f"S{number:06d},{name},{60 + number % 37},{'FM'[number % 2]},{(0, 0.5, 0)[number % 3]}")
    (root / "participants.csv").write_text("\n".join(lines) + "\n", encoding="utf-8")


def measure_cohort(rows: int) -> dict[str, float]:
    """Seconds of every step from the table to the audited sets."""
    import pandas as pd

    from monai_cae.data import audit_sets, load_cohort, read_datalist, split_cohort, write_datalist

    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder, "cohort")
        make_cohort(root, rows)
        marks = [time.perf_counter()]
        pd.read_csv(root / "participants.csv", dtype=str)
        marks.append(time.perf_counter())
        cohort = load_cohort(root, controls="all")
        marks.append(time.perf_counter())
        sets = split_cohort(cohort)
        datalist = Path(folder, "out", "datalist.json")
        write_datalist(datalist, sets, root=root, synthetic=False, made_from={})
        read = read_datalist(datalist, root)
        marks.append(time.perf_counter())
        audit_sets(read.training, read.validation, read.test, pixels=False)
        marks.append(time.perf_counter())
    steps = dict(zip(("pandas", "read", "split", "audit"), (b - a for a, b in itertools.pairwise(marks)), strict=True))
    return {**steps, "seconds": steps["read"] + steps["split"] + steps["audit"]}


def measure_training(batch_size: int, size: int) -> dict[str, float]:
    """Seconds of the CAE's training per slice."""
    from workload import Stage, random_items

    items = random_items(max(32, batch_size), size)
    with tempfile.TemporaryDirectory() as folder:
        options = {"image_size": size, "batch_size": batch_size, "device": "cpu"}
        with Stage("pretrain.json", items, folder, **options) as stage:
            stage.training_epoch()
            seconds = min(stage.training_epoch() for _ in range(2))
    return {"seconds": seconds / len(items)}


def measure_volumes(count: int, percent: int) -> dict[str, float]:
    """Seconds of an epoch's batches of random volumes, from the cache of a training with this `cache_share`; without a
    network, whose memory would hide theirs."""
    from workload import VOLUME_BATCH, volume_cache

    from monai_cae.training import ResidentLoader

    with tempfile.TemporaryDirectory() as folder:
        loader = ResidentLoader(volume_cache(count, percent / 100, folder), VOLUME_BATCH, shuffle=True)
        next(iter(loader))
        started = time.perf_counter()
        shown = sum(float(batch["image"].mean()) for batch in loader)
        return {"seconds": time.perf_counter() - started, "mean": shown / len(loader)}


def _in_child(measure: Any, arguments: tuple[int, ...], queue: Any) -> None:
    figures = measure(*arguments)
    queue.put({**figures, "peak_gib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20})


def sweep(title: str, measure: Any, points: Sequence[tuple[int, ...]], x: int) -> Points:
    """Measure every point in a fresh process, and print it."""
    context = multiprocessing.get_context("spawn")
    print(f"{title:>12}{'seconds':>12}{'peak GiB':>12}")
    measured = []
    for point in points:
        queue = context.Queue()
        process = context.Process(target=_in_child, args=(measure, point, queue))
        process.start()
        figures = queue.get()
        process.join()
        measured.append({"x": point[x], **figures})
        print(f"{point[x]:>12}{figures['seconds']:>12.4g}{figures['peak_gib']:>12.2f}", flush=True)
    return measured


def draw(path: Path, sweeps: Sequence[tuple[str, str, Points]]) -> None:
    """Time above, memory below, a column per sweep."""
    import matplotlib.pyplot as plt

    plt.switch_backend("agg")
    figure, axes = plt.subplots(2, len(sweeps), figsize=(10, 5), layout="constrained", sharex="col")
    for column, (xlabel, ylabel, points) in enumerate(sweeps):
        x = [point["x"] for point in points]
        for row, (key, label) in enumerate((("seconds", ylabel), ("peak_gib", "peak memory, GiB"))):
            axis = axes[row, column]
            axis.plot(x, [point[key] for point in points], "o-", color="#3b6fb6")
            axis.set(xscale="log", xticks=x, ylabel=label, ylim=(0, 1.1 * max(point[key] for point in points)))
            axis.minorticks_off()
            axis.set_xticklabels([f"{value:,}" for value in x])
            axis.spines[["top", "right"]].set_visible(False)
        axes[1, column].set_xlabel(xlabel)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=110)


def main() -> None:
    """Print the sweeps and the table, write results/growth.json."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--figure", type=Path)
    options = parser.parse_args()
    subjects = (100, 1_000, 10_000) if options.quick else (100, 1_000, 10_000, 50_000)
    batches = (8, 32) if options.quick else (4, 8, 16, 32, 64)
    sizes = (88, 176) if options.quick else (64, 88, 128, 176, 256)
    cohort = sweep("subjects", measure_cohort, [(count,) for count in subjects], 0)
    batch = sweep("batch size", measure_training, [(count, 176) for count in batches], 0)
    volumes = (16, 64) if options.quick else (16, 64, 128)
    streamed = sweep("from disk", measure_volumes, [(count, 0) for count in volumes], 0)
    resident = sweep("in memory", measure_volumes, [(count, 100) for count in volumes], 0)
    size = sweep("image size", measure_training, [(32, edge) for edge in sizes], 1)
    if options.figure:
        per_slice = "CAE training, s per slice"
        draw(
            options.figure,
            [("subjects", "read, split, audit, s", cohort), ("batch size", per_slice, batch),
             ("image size, pixels", per_slice, size)],
        )  # fmt: skip
    last = cohort[-1]
    what = f"cohort of {last['x']:,} rows"
    seconds, gib = ("", "") if options.quick else ("<= 60", "<= 2")
    rows = [
        Row(f"{what}, seconds", last["seconds"], last["pandas"], "pandas alone", "s", last["seconds"], seconds),
        Row(f"{what}, GiB", last["peak_gib"], 0, "", "GiB", last["peak_gib"], gib),
    ]
    for what, points, target in (("from disk", streamed, "<= 1.1"), ("in memory", resident, "")):
        most, least = points[-1], points[0]
        what = f"peak memory, {most['x']} volumes {what}"
        ratio = most["peak_gib"] / least["peak_gib"]
        rows.append(Row(what, most["peak_gib"], least["peak_gib"], f"with {least['x']}", "GiB", ratio, target))
    finish("growth", rows, streamed=streamed, resident=resident, cohort=cohort, batch_size=batch, image_size=size)


if __name__ == "__main__":
    main()
