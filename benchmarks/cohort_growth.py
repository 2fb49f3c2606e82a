"""Claim: a cohort of 50,000 rows is read, split and audited (pixels aside) in at most 60 s and 2 GB on two cores.

Run: python benchmarks/cohort_growth.py [--quick]        --quick stops at 10,000 rows

Each size runs in a process of its own, so that the peak memory is its own. The alternative that is measured in the same
run is reading the table with pandas alone: what nobody can avoid. Images are empty files; nothing opens them here.
"""

from __future__ import annotations

import argparse
import itertools
import json
import multiprocessing
import resource
import tempfile
import time
from pathlib import Path
from typing import Any

TARGET_SECONDS, TARGET_GIB = 60.0, 2.0


def make(root: Path, rows: int) -> None:
    """A plain folder: a table that names an image for every subject, one in three a patient."""
    (root / "images").mkdir(parents=True)
    lines = ["ID,image,Age,sex,CDR"]
    for number in range(rows):
        name = f"images/{number:06d}.nii"
        (root / name).touch()
        lines.append(f"S{number:06d},{name},{60 + number % 37},{'FM'[number % 2]},{(0, 0.5, 0)[number % 3]}")
    (root / "participants.csv").write_text("\n".join(lines) + "\n", encoding="utf-8")


def measure(root: str, rows: int, queue: Any) -> None:
    """Seconds of every step, and the peak memory of this process in GiB."""
    import pandas as pd

    from monai_cae.data import audit_sets, load_cohort, read_datalist, split_cohort, write_datalist

    marks = [time.perf_counter()]
    pd.read_csv(Path(root, "participants.csv"), dtype=str)
    marks.append(time.perf_counter())
    cohort = load_cohort(root, controls="all")
    marks.append(time.perf_counter())
    sets = split_cohort(cohort)
    datalist = Path(root, "out", "datalist.json")
    write_datalist(datalist, sets, root=Path(root), synthetic=False, made_from={})
    read = read_datalist(datalist, root)
    marks.append(time.perf_counter())
    audit_sets(read.training, read.validation, read.test, pixels=False)
    marks.append(time.perf_counter())
    steps = dict(zip(("pandas", "read", "split", "audit"), (b - a for a, b in itertools.pairwise(marks)), strict=True))
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    queue.put({"rows": rows, **steps, "total": steps["read"] + steps["split"] + steps["audit"], "peak_gib": peak})


def main() -> None:
    """Print one line per size, write cohort_growth.json."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true")
    sizes = (1_000, 10_000) if parser.parse_args().quick else (1_000, 10_000, 50_000)
    context = multiprocessing.get_context("spawn")
    results = []
    print(f"{'rows':>8}{'read s':>9}{'split s':>9}{'audit s':>9}{'total s':>9}{'x pandas':>10}{'peak GiB':>10}")
    for rows in sizes:
        with tempfile.TemporaryDirectory() as folder:
            root = Path(folder, "cohort")
            make(root, rows)
            queue = context.Queue()
            process = context.Process(target=measure, args=(str(root), rows, queue))
            process.start()
            one = queue.get()
            process.join()
        results.append(one)
        print(
            f"{rows:>8}{one['read']:>9.2f}{one['split']:>9.2f}{one['audit']:>9.2f}{one['total']:>9.2f}"
            f"{one['total'] / one['pandas']:>10.0f}{one['peak_gib']:>10.2f}",
            flush=True,
        )
    print(f"target at 50,000 rows: {TARGET_SECONDS:.0f} s, {TARGET_GIB:.0f} GiB")
    Path("cohort_growth.json").write_text(json.dumps(results, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
