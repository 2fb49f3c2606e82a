"""Claim: once the autoencoders are trained, 20 recipes on 10 folds take under an hour, and so do their 3 inner folds.

Run: python benchmarks/many_runs.py [--quick]        --quick takes 3 of the candidates of with_selection.yaml

One split of 138 random slices of 176 x 208 by experiment.yaml and with_selection.yaml, one epoch of pretraining. The
seconds are those in steps.json: of a method in the table (train, evaluate, with audit, MLflow and figures) and of a
candidate in an inner fold. The network's own step is what every method would take that told its reconstructions again.
"""

from __future__ import annotations

import argparse
import csv
import json
import statistics
import tempfile
from pathlib import Path
from typing import Any

import monai.bundle
import nibabel as nib
import numpy as np
import yaml
from report import Row, finish

from monai_cae.folders import bundle_folder

SUBJECTS, RECIPES, FOLDS, INNER = 138, 20, 10, 3
HOUR = 3600


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
                [name, "FM"[number % 2], 60 + number % 30, 1 + number % 5, number % 2 / 2, 0.7 + number % 9 / 100]
            )


def seconds_of_steps(candidates: int | None) -> dict[str, float]:
    """Step -> seconds, of one split."""
    configs = bundle_folder() / "configs"
    select: dict[str, Any] = yaml.safe_load((configs / "with_selection.yaml").read_text(encoding="utf-8"))["select"]
    select["candidates"] = dict(list(select["candidates"].items())[-(candidates or 0) :])
    with tempfile.TemporaryDirectory() as folder:
        root, output = Path(folder, "cohort"), Path(folder, "output")
        root.mkdir()
        write_cohort(root)
        monai.bundle.run(
            "training",
            config_file=[str(configs / name) for name in ("experiment.yaml", "with_selection.yaml")],
            dataset_dir=str(root), output_dir=str(output), axes="stored", slice_index=1, max_epochs=1, repeats=1,
            select=select,
        )  # fmt: skip
        steps = json.loads((output / "repeat_1" / "steps.json").read_text(encoding="utf-8"))
    return {name: step["seconds"] for name, step in steps.items()}


def main() -> None:
    """Print the table, write results/many_runs.json."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true")
    took = seconds_of_steps(3 if parser.parse_args().quick else None)
    inner = statistics.median(value for name, value in took.items() if name.startswith("inner_"))
    known = ("pretrain", "network")
    method = statistics.median(value for name, value in took.items() if "/" not in name and name not in known)
    tested, chosen = RECIPES * FOLDS * method, RECIPES * FOLDS * INNER * inner
    again = "with its reconstructions"
    finish(
        "many_runs",
        [
            Row("a method, trained and tested", method, took["network"], again, "s", method / took["network"]),
            Row("a candidate in an inner fold", inner, took["network"], again, "s", inner / took["network"]),
            Row("20 recipes x 10 folds", tested, RECIPES * FOLDS * took["network"], again, "s", tested / HOUR, "<= 1"),
            Row("their choice in 3 inner folds", chosen, tested, "20 recipes x 10 folds", "s", chosen / HOUR, "<= 1"),
        ],
        subjects=SUBJECTS,
    )


if __name__ == "__main__":
    main()
