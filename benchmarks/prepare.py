"""Claims: eight landmarks within 1 mm (median) and 2 mm (worst) whatever is wrong with the scan; 45 s, 1.5 GB a scan.

Run: python benchmarks/prepare.py [SCAN] [--quick] [--bad] [--only TEXT]        without SCAN, a synthetic head

SCAN is a good whole-head T1w scan, such as Colin27, ch2.nii.gz of Debian's package mricron-data. It is distorted in
known ways (distortions.py) and prepared each time. Each mask is compared with that of the undistorted scan, and where
eight landmarks of the template are found in it with where they would be. Seconds are CPU time of one thread. --bad also
prepares what should not pass.
"""

from __future__ import annotations

import argparse
import re
import resource
import time
from pathlib import Path
from typing import Any

import numpy as np
from distortions import BAD, GOOD, Head
from report import Row, finish

from monai_cae.data.heads import synthetic_heads
from monai_cae.data.template import MNI_PER_T88
from monai_cae.errors import MonaiCaeError
from monai_cae.prepare import Prepared, PrepareSettings, RawScan, prepare_scan, read_raw
from monai_cae.prepare.grids import matrix_of

QUICK = ("turned, PIR, 1.25 mm, bias, noise", "slices of 3 mm")
# Commissures, heads of the hippocampi, a temporal, the frontal and the occipital pole, the vertex; MNI, mm.
LANDMARKS_MNI = [
    (0, 2, -4), (0, -26, -2), (28, -14, -20), (-28, -14, -20), (40, 14, -32), (0, 60, 10), (0, -95, 0), (0, -30, 72)
]  # fmt: skip
LANDMARKS = np.array(LANDMARKS_MNI) / MNI_PER_T88


def main() -> None:
    """Print a line for each distortion and the table, write results/prepare.json."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("scan", type=Path, nargs="?")
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--bad", action="store_true")
    parser.add_argument("--only", default="", help="distortions whose name has this regular expression in it")
    chosen = parser.parse_args()
    scan = read_raw(chosen.scan) if chosen.scan else synthetic()
    settings = PrepareSettings(recognise=False)
    undistorted = prepare_scan(scan, settings)
    head = Head(scan, undistorted.native_mask, np.eye(4))
    before = points(undistorted)
    found, details = [], {"undistorted": dict(undistorted.qc)}
    for name, distort in (GOOD | BAD if chosen.bad else GOOD).items():
        if (chosen.quick and name not in QUICK) or not re.search(chosen.only, name):
            continue
        distorted = distort(head)
        start = time.process_time()
        try:
            prepared = prepare_scan(distorted.scan, settings)
        except MonaiCaeError as error:
            print(f"{name}: refused: {error}", flush=True)
            details[name] = {"refused": str(error)}
            continue
        seconds = time.process_time() - start
        there = before @ distorted.moved[:3, :3].T + distorted.moved[:3, 3]
        error_mm = np.linalg.norm(points(prepared) - there, axis=1)
        dice = 2 * (prepared.native_mask & distorted.brain).sum() / (prepared.native_mask.sum() + distorted.brain.sum())
        figures: dict[str, Any] = {
            "dice_mask": round(float(dice), 4),
            "median_mm": round(float(np.median(error_mm)), 3),
        }
        figures |= {"worst_mm": round(float(error_mm.max()), 3), "cpu_s": round(seconds, 1)}
        status, reasons = prepared.verdict.status, prepared.verdict.reasons
        details[name] = figures | {"verdict": status, "reasons": reasons, "notes": prepared.notes, **prepared.qc}
        print(f"{name}: {figures} {status} {'; '.join(reasons)}", flush=True)
        if name in GOOD:
            found.append(figures)
    peak_gb = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6
    medians, worst, seconds_, dices = (
        [one[key] for one in found] for key in ("median_mm", "worst_mm", "cpu_s", "dice_mask")
    )
    rows = [
        Row("landmarks, largest median", max(medians), 0, "", "mm", max(medians), "<= 1"),
        Row("landmarks, worst", max(worst), 0, "", "mm", max(worst), "<= 2"),
        Row("brain mask, lowest Dice", min(dices), 0, "", "", min(dices)),
        Row("one scan, slowest, one core", max(seconds_), 0, "", "s", max(seconds_), "<= 45"),
        Row("peak memory", peak_gb, 0, "", "GB", peak_gb, "<= 1.5"),
    ]
    finish("prepare", rows, scan=scan.name, distortions=details)


def points(prepared: Prepared) -> np.ndarray:
    """The landmarks in the scan, mm, RAS+."""
    matrix = matrix_of(prepared.transform)
    return LANDMARKS @ matrix[:3, :3].T + matrix[:3, 3]


def synthetic() -> RawScan:
    """A head of the synthetic cohort."""
    head = next(synthetic_heads(4, seed=0))
    return RawScan(head.voxels.astype(np.float32), head.affine, "synthetic head")


if __name__ == "__main__":
    main()
