"""Claim: prepared from raw heads, the synthetic cohort's ventricles keep their volumes (correlation above 0.95).

Run: python benchmarks/ventricles.py [--subjects N] [--seed N] [--quick]        --quick takes 4 subjects

Each subject of the synthetic cohort is put into a head, turned and biased, stored along any axes, and prepared. Fluid
near the template's lateral ventricles is counted in the prepared image, and, to compare, in the subject's own T88-like
volume, which was never a raw scan. The truth is the volume that the brain was drawn with.
"""

from __future__ import annotations

import argparse
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray
from report import Row, finish
from scipy import ndimage

from monai_cae.data.heads import synthetic_heads
from monai_cae.data.phantom import synthetic_brains
from monai_cae.data.template import COMMISSURE, MNI_PER_T88
from monai_cae.prepare import RawScan, prepare_scan
from monai_cae.prepare.grids import matrix_of
from monai_cae.prepare.template import load_template

BODIES_MNI = ((-8, -10, 22), (8, -10, 22))  # mm, in the lateral ventricles
REACH_MM = 7.0


def main() -> None:
    """Print a line for each subject and the table, write results/ventricles.json."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--subjects", type=int, default=60)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--quick", action="store_true")
    chosen = parser.parse_args()
    subjects = 4 if chosen.quick else chosen.subjects
    found = []
    pairs = zip(synthetic_heads(subjects, chosen.seed), synthetic_brains(subjects, chosen.seed), strict=True)
    for head, brain in pairs:
        prepared = prepare_scan(RawScan(head.voxels.astype(np.float32), head.affine, head.row["ID"]))
        size = abs(np.linalg.det(matrix_of(prepared.transform)[:3, :3]))
        unprepared = fluid_ml(brain.volume.astype(np.float32))
        in_frame = fluid_ml(prepared.image)
        found.append((head.ventricle_ml, unprepared, in_frame, in_frame * size))
        dice = 2 * (prepared.native_mask & head.brain).sum() / (prepared.native_mask.sum() + head.brain.sum())
        figures = " ".join(f"{value:.1f}" for value in found[-1])
        print(f"{head.row['ID']} {figures} ml, mask {dice:.3f}, {prepared.verdict.status}", flush=True)
    truth, unprepared, in_frame, prepared_ml = np.array(found).T
    before, framed, after = (np.corrcoef(truth, one)[0, 1] for one in (unprepared, in_frame, prepared_ml))
    rows = [
        Row("ventricles, prepared against the truth", after, before, "unprepared", "r", after, ">= 0.95"),
        Row("the same, in the template's size", framed, before, "unprepared", "r", framed),
    ]
    finish("ventricles", rows, subjects=subjects, seed=chosen.seed, ml=np.round(found, 2).tolist())


def fluid_ml(image: NDArray[np.float32]) -> float:
    """What is dark near the template's lateral ventricles, ml."""
    white = load_template().white > 0.9
    level = 0.45 * np.median(image[white & (image > 0)])
    return float(((image > 0) & (image < level) & _region()).sum() / 1000)


@lru_cache(maxsize=1)
def _region() -> NDArray[np.bool_]:
    template = load_template()
    labels, _ = ndimage.label((template.brain < 110 / 255) & ndimage.binary_erosion(template.mask, iterations=12))
    bodies = [labels[tuple(np.add(COMMISSURE, np.divide(mm, MNI_PER_T88)).astype(int))] for mm in BODIES_MNI]
    return np.asarray(ndimage.distance_transform_edt(~np.isin(labels, bodies)) <= REACH_MM)


if __name__ == "__main__":
    main()
