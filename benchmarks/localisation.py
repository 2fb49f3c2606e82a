"""Claim: on the synthetic cohort, whose lesions are known, maps point at them better than the image alone does.

Run: python benchmarks/localisation.py FOLDER [--subjects N] [--seed N] [--methods NAMES]
FOLDER has the finished evaluate of a network (a repeat of an experiment, or one of its variants) on the cohort that
`monai-cae phantom --subjects N` has written with that seed.

A lesion is what CDR has changed: the difference of a brain from the same brain without its disease, drawn by
`synthetic_brains(lesions=True)`, where it is more than a tenth of white matter's brightness. Of every patient of the
test set, within the brain: the AUC by which the map, positive towards AD, ranks places inside the lesion before
others; and whether its largest place lies inside or a pixel beside it (the pointing game; by chance as often as the
share that the lesion has of the brain, with its rim). What the maps have to beat is the absolute difference from the
mean image.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from monai.bundle import ConfigParser
from monai.transforms import ResizeWithPadOrCrop
from numpy.typing import NDArray
from report import Row, finish
from scipy import ndimage
from sklearn.metrics import roc_auc_score

from monai_cae.data.phantom import synthetic_brains
from monai_cae.errors import MonaiCaeError
from monai_cae.explanations import METHODS, Explained
from monai_cae.targets import Diagnosis
from monai_cae.training import Outcome

LESION = 0.1  # of white matter's brightness
SMOOTH = 2.0  # pixels, of the difference from the mean image


def main() -> None:
    """Print a table by method, write results/localisation.json."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--subjects", type=int, default=60)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--methods", nargs="*", default=["occlusion", *METHODS])
    chosen = parser.parse_args()
    outcome = finished(chosen.folder)
    patients = outcome.predictions[outcome.predictions["label"] == 1]
    lesions = lesions_of(set(patients["subject"]), outcome, chosen.subjects, chosen.seed)
    images = [np.asarray(outcome.dataset[index]["image"]) for index in range(len(outcome.predictions))]
    mean = np.mean(images, axis=0)
    brain = mean[0] > 0.02 * mean.max()
    found = {"difference from the mean": [ndimage.gaussian_filter(np.abs(images[n] - mean), (0, SMOOTH, SMOOTH))
                                          for n in patients.index]}  # fmt: skip
    tests: dict[str, Any] = {}
    for method in chosen.methods:
        try:
            made = Explained(method, passes=4000, scans=len(images)).maps(outcome)
        except MonaiCaeError as error:
            print(f"{method}: {error}")
            continue
        tests[method] = {check.test: check.value for check in made.checks}
        found[method] = [made.maps[n].numpy() for n in patients.index]
    truths = [lesions[subject] for subject in patients["subject"]]
    scores = {name: [score(one[0], truth, brain) for one, truth in zip(maps, truths, strict=True)]
              for name, maps in found.items()}  # fmt: skip
    table = pd.DataFrame({name: np.mean(one, axis=0) for name, one in scores.items()}, ["auc", "pointing", "chance"]).T
    print(table.to_string(float_format="{:.3f}".format), flush=True)
    base = float(table["auc"].iloc[0])
    rows = [Row(f"{name}: AUC of its map", float(auc), base, "difference from the mean", "AUC", float(auc))
            for name, auc in table["auc"].items()]  # fmt: skip
    finish("localisation", rows, patients=len(patients), table=table.round(4).to_dict("index"), tests=tests)


def finished(folder: Path) -> Outcome:
    """A finished evaluate, as its figures see it."""
    config = ConfigParser(json.loads((folder / "config_evaluate.json").read_text(encoding="utf-8")))
    parts: dict[str, Any] = {name: config.get_parsed_content(name) for name in ("network", "extraction", "dataset")}
    rows = pd.read_csv(folder / "predictions.csv", dtype={"subject": str})
    infer = config.get_parsed_content("inferer")
    return Outcome("evaluate", infer=infer, predictions=rows, target=Diagnosis(), synthetic=True, **parts)


def lesions_of(wanted: set[str], outcome: Outcome, subjects: int, seed: int) -> dict[str, NDArray[np.float32]]:
    """Subject -> what CDR has changed, as the extraction sees it."""
    extraction: Any = outcome.extraction
    size = torch.as_tensor(outcome.dataset[0]["image"]).shape[1:]
    found = {}
    for brain in synthetic_brains(subjects, seed, lesions=True, only={f"{subject}_MR1" for subject in wanted}):
        slices = np.moveaxis(np.asarray(brain.lesion), extraction.axis, 0)
        each = slices[[one - 1 for one in extraction.indices(len(slices))]]
        found[brain.row["ID"].rpartition("_")[0]] = np.asarray(ResizeWithPadOrCrop(size)(extraction.image(each)))[0]
    if missing := wanted - found.keys():
        raise MonaiCaeError(f"the synthetic cohort has no {min(missing)}: give its --subjects and --seed")
    return found


def score(
    found: NDArray[np.float32], lesion: NDArray[np.float32], brain: NDArray[np.bool_]
) -> tuple[float, float, float]:
    """AUC, whether the largest place hits, and how often it would by chance."""
    inside = np.abs(lesion)[brain] > LESION
    near = ndimage.binary_dilation(np.abs(lesion) > LESION)[brain]
    values = found[brain]
    auc = roc_auc_score(inside, values) if 0 < inside.sum() < len(inside) else np.nan
    return auc, float(near[values.argmax()]), float(near.mean())


if __name__ == "__main__":
    main()
