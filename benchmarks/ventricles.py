"""Claim: prepared from raw heads, the synthetic cohort's ventricles keep their volumes (correlation above 0.95).

Run: python benchmarks/ventricles.py [--subjects N] [--seed N] [--quick] [--prepared FOLDER]
--quick takes 4 subjects; --prepared reads what `monai-cae prepare` made of `monai-cae phantom --head` of the same N.

Each subject of the synthetic cohort is put into a head, turned and biased, stored along any axes, and prepared. Fluid
near the template's lateral ventricles is counted in the prepared image, and, to compare, in the subject's own T88-like
volume, which was never a raw scan. The truth is the volume that the brain was drawn with.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path

import nibabel as nib
import numpy as np
import SimpleITK as sitk
from numpy.typing import NDArray
from report import Row, finish
from scipy import ndimage

from monai_cae.data.heads import synthetic_heads
from monai_cae.data.phantom import SyntheticBrain, synthetic_brains
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
    parser.add_argument("--prepared", type=Path)
    chosen = parser.parse_args()
    subjects = 4 if chosen.quick else chosen.subjects
    found = []
    each = _read(chosen.prepared, subjects, chosen.seed) if chosen.prepared else _made(subjects, chosen.seed)
    for brain, image, size, told in each:
        in_frame = fluid_ml(image)
        found.append((brain.ventricle_ml, fluid_ml(brain.volume.astype(np.float32)), in_frame, in_frame * size))
        figures = " ".join(f"{value:.1f}" for value in found[-1])
        print(f"{brain.row['ID']} {figures} ml{told}", flush=True)
    truth, unprepared, in_frame, prepared_ml = np.array(found).T
    before, framed, after = (np.corrcoef(truth, one)[0, 1] for one in (unprepared, in_frame, prepared_ml))
    rows = [
        Row("ventricles, prepared against the truth", after, before, "unprepared", "r", after, ">= 0.95"),
        Row("the same, in the template's size", framed, before, "unprepared", "r", framed),
    ]
    finish("ventricles", rows, subjects=subjects, seed=chosen.seed, ml=np.round(found, 2).tolist())


def _made(subjects: int, seed: int) -> Iterator[tuple[SyntheticBrain, NDArray[np.float32], float, str]]:
    """For each subject: the brain, its prepared image, how many ml of the head a ml of the frame is, and a remark."""
    for head, brain in zip(synthetic_heads(subjects, seed), synthetic_brains(subjects, seed), strict=True):
        prepared = prepare_scan(RawScan(head.voxels.astype(np.float32), head.affine, head.row["ID"]))
        dice = 2 * (prepared.native_mask & head.brain).sum() / (prepared.native_mask.sum() + head.brain.sum())
        yield brain, prepared.image, _size(prepared.transform), f", mask {dice:.3f}, {prepared.verdict.status}"


def _read(folder: Path, subjects: int, seed: int) -> Iterator[tuple[SyntheticBrain, NDArray[np.float32], float, str]]:
    for brain in synthetic_brains(subjects, seed):
        name = f"sub-{brain.row['ID'].replace('_', '')}"
        anat = folder / name / "anat"
        image = np.asarray(nib.load(anat / f"{name}_space-T88like_desc-preproc_T1w.nii.gz").dataobj, np.float32)
        transform = sitk.ReadTransform(str(anat / f"{name}_from-T1w_to-T88like_mode-image_xfm.tfm"))
        yield brain, image, _size(sitk.AffineTransform(transform)), ""


def _size(transform: sitk.Transform) -> float:
    return float(abs(np.linalg.det(matrix_of(transform)[:3, :3])))


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
