"""Claim: 20 recipes on 10 folds of 138 slices take under an hour on two cores, and 50 trials of a search ten minutes.

Run: python benchmarks/many_runs.py [--quick]        --quick takes 3 recipes on 2 folds, and scales up:
                                                      by too much for a target, as a fold tests more subjects

Random slices of 176 x 208, one epoch of pretraining. The recipes are linear probes on one autoencoder per fold, trained
and tested from end to end with audit, MLflow, figures, comparison and page. A trial is what scores a recipe in 3 inner
folds; the inner steps come from an experiment with `select`. Where other processes keep the cores busy, the seconds of
this process's work ("processor") say more than the clock's.
"""

from __future__ import annotations

import argparse
import csv
import statistics
import tempfile
import time
from itertools import product
from pathlib import Path
from typing import Any

import monai.bundle
import nibabel as nib
import numpy as np
import yaml
from report import Row, finish

from monai_cae.experiment.status import read_status
from monai_cae.folders import bundle_folder

SUBJECTS, RECIPES, FOLDS, INNER, TRIALS = 138, 20, 10, 3, 50
HOUR, TEN_MINUTES = 3600, 600
CONFIGS = bundle_folder() / "configs"


def recipes() -> dict[str, dict[str, Any]]:
    """Twenty linear probes: pooled to 1 or 4 places a side, with or without a histogram, by five penalties."""
    found = {}
    for pooling, bins, penalty in product((1, 4), (0, 16), (40, 200, 1000, 5000, 25000)):
        network = {"network_def#pooling": pooling, "network_def#histogram": bins}
        penalties = {"code": penalty, "histogram": 3, "covariates": 1}
        found[f"p{pooling}_h{bins}_{penalty}"] = {"classifier": network, "train": {"penalty": penalties}}
    return found


def write_cohort(root: Path) -> None:
    """A plain folder: an image of one slice for each subject, and a table."""
    rng = np.random.default_rng(0)
    with (root / "participants.tsv").open("w", newline="") as file:
        table = csv.writer(file, delimiter="\t")
        table.writerow(["ID", "M/F", "Age", "Educ", "CDR", "nWBV"])
        for number in range(SUBJECTS):
            name = f"OAS1_{number + 1:04d}_MR1"
            image = nib.Nifti1Image(rng.integers(0, 4096, (176, 208, 1), dtype=np.int16), np.eye(4))
            nib.save(image, root / f"{name}.nii.gz")
            table.writerow(
                [name, "FM"[number // 2 % 2], 60 + number % 30, 1 + number % 5, number % 2 / 2, 0.7 + number % 9 / 100]
            )


def run(root: Path, output: Path, **options: Any) -> tuple[float, float, dict[str, list[float]]]:
    """Of an experiment, the seconds on the clock and of the processor, and those of every step in all parts."""
    started, worked = time.perf_counter(), time.process_time()
    monai.bundle.run(
        "training",
        config_file=[str(CONFIGS / name) for name in ("experiment.yaml", "with_selection.yaml")],
        dataset_dir=str(root), output_dir=str(output), axes="stored", slice_index=1, max_epochs=1, repeats=1, **options,
    )  # fmt: skip
    took = time.perf_counter() - started, time.process_time() - worked
    steps: dict[str, list[float]] = {}
    for done in read_status(output).done.values():
        for name, seconds in done.items():
            steps.setdefault(name, []).append(seconds)
    return (*took, steps)


def main() -> None:
    """Print the table, write results/many_runs.json."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true")
    count, folds = (3, 2) if parser.parse_args().quick else (RECIPES, FOLDS)
    tried = dict(list(recipes().items())[-count:])
    none: dict[str, Any] = {"candidates": {}, "inner_folds": INNER, "metric": ""}
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder, "cohort")
        root.mkdir()
        write_cohort(root)
        split = {"split#kind": "kfold", "split#folds": folds}
        clock, processor, steps = run(root, Path(folder, "recipes"), variants=tried, select=none, **split)
        few = yaml.safe_load((CONFIGS / "with_selection.yaml").read_text(encoding="utf-8"))["select"]["candidates"]
        chosen = {**none, "candidates": dict(list(few.items())[-3:])}
        *_, inner = run(root, Path(folder, "chosen"), select=chosen)
    method = statistics.median(seconds for name in tried for seconds in steps[name])
    network = statistics.median(steps["network"])
    step = statistics.median(seconds for name, (seconds,) in inner.items() if name.startswith("inner_"))
    share = RECIPES * FOLDS / (count * folds)  # of all; the folds' own steps are scaled up too, by more than they take
    again, whole = "with its reconstructions", f"{RECIPES} recipes x {FOLDS} folds"
    finish(
        "many_runs",
        [
            Row("a method, trained and tested", method, network, again, "s", method / network),
            Row("a recipe in an inner fold", step, method, "a method, trained and tested", "s", step / method),
            Row(whole, share * clock, 0, "", "s", share * clock / HOUR, "<= 1" if share == 1 else ""),
            Row(f"{whole}, processor", share * processor, 0, "", "s", share * processor / HOUR),
            Row(f"{TRIALS} trials", TRIALS * INNER * step, 0, "", "s", TRIALS * INNER * step / TEN_MINUTES, "<= 1"),
        ],
        subjects=SUBJECTS,
        recipes=count,
        folds=folds,
    )


if __name__ == "__main__":
    main()
