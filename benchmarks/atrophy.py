"""Claim: in the cohort of `phantom --volumes`, the hippocampus' slices and volumes tell more of CDR than slice 106.

Run: python benchmarks/atrophy.py [--subjects N] [--seed N] [--without] [--quick]        --quick takes 20 subjects

A penalised logistic regression on averaged pixels tells patients from controls, out of fold. Intervals are DeLong's.
`--without` does the same to the cohort as it is without --volumes. The brains are synthetic, not real MRI: the figures
are about the cohort, not about patients.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray
from report import Row, finish
from sklearn.decomposition import PCA
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score
from sklearn.model_selection import GridSearchCV, StratifiedKFold
from sklearn.pipeline import make_pipeline

from monai_cae.data.phantom import synthetic_brains
from monai_cae.evaluation.comparison import delong
from monai_cae.training.models.baselines import UnitNormScaler

AXIAL, CORONAL, SAGITTAL = 67, 107, 114  # counted from 1, through the hippocampus; axial 106 is the paper's
_Volume = NDArray[np.float32]
VIEWS: dict[str, Callable[[_Volume], list[_Volume]]] = {
    "axial 106": lambda volume: [_mean(volume[:, :, 105], 2)],
    "axial 67": lambda volume: [_mean(volume[:, :, AXIAL - 1], 2)],
    "coronal 107": lambda volume: [_mean(volume[:, CORONAL - 1], 2)],
    "sagittal 114": lambda volume: [_mean(volume[SAGITTAL - 1], 2)],
    "slab of five around axial 106": lambda volume: [_mean(volume[:, :, z], 2) for z in range(99, 112, 3)],
    "slab of five around axial 67": lambda volume: [_mean(volume[:, :, z], 2) for z in range(60, 73, 3)],
    "axial 106, coronal 107, sagittal 114": lambda volume: [
        _mean(plane, 2) for plane in (volume[:, :, 105], volume[:, CORONAL - 1], volume[SAGITTAL - 1])
    ],
    "volume at 4 mm": lambda volume: [_mean(volume, 4)],
}
CLAIMED = ("axial 67", "coronal 107", "slab of five around axial 67", "volume at 4 mm")


def main() -> None:
    """Print a line for each view and the table, write results/atrophy.json."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--subjects", type=int, default=60)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--without", action="store_true")
    parser.add_argument("--quick", action="store_true")
    chosen = parser.parse_args()
    subjects = 20 if chosen.quick else chosen.subjects
    features: dict[str, list[_Volume]] = {name: [] for name in VIEWS}
    labels, truth, started = [], [], time.process_time()
    for brain in synthetic_brains(subjects, chosen.seed, volumes=not chosen.without):
        scaled = brain.volume / np.float32(np.percentile(brain.volume[brain.volume > 0], 98))
        for name, view in VIEWS.items():
            features[name].append(np.concatenate([part.ravel() for part in view(scaled)]))
        labels.append(float(brain.row["CDR"]) > 0)
        truth.append((brain.ventricle_ml, -brain.hippocampus_ml))
    seconds = (time.process_time() - started) / subjects
    patients = np.array(labels, dtype=np.int64)
    scores = {name: _out_of_fold(np.stack(rows), patients) for name, rows in features.items()}
    drawn = dict(zip(("ventricles, true volume", "hippocampi, true volume"), np.array(truth).T, strict=True))
    if chosen.without:
        del drawn["hippocampi, true volume"]
    first, rows = float(roc_auc_score(patients, scores["axial 106"])), []
    for name, score in (scores | {name: _ranks(values) for name, values in drawn.items()}).items():
        auc = float(roc_auc_score(patients, score))
        error = delong(patients, score, np.full(subjects, 0.5)).standard_error
        against = delong(patients, score, scores["axial 106"])
        print(f"{name}: AUC {auc:.3f} ({auc - 1.96 * error:.3f} to {min(1.0, auc + 1.96 * error):.3f}), ", end="")
        print(f"{against.difference:+.3f} against axial 106, p {against.p_value:.2g}", flush=True)
        claimed = name in CLAIMED and not (chosen.quick or chosen.without)
        rows.append(Row(name, auc, first, "axial 106", "AUC", auc / first, ">= 1.0" if claimed else ""))
    print(f"{seconds:.2f} s of processor time per subject")
    finish("atrophy", rows, subjects=subjects, seed=chosen.seed, volumes=not chosen.without, seconds=seconds)


def _mean(image: _Volume, size: int) -> _Volume:
    """The mean over squares or cubes of `size` voxels a side."""
    image = image[tuple(slice(n // size * size) for n in image.shape)]
    for axis in range(image.ndim):
        image = image.reshape(*image.shape[:axis], -1, size, *image.shape[axis + 1 :]).mean(axis=axis + 1)
    return image


def _out_of_fold(features: _Volume, patients: NDArray[np.int64], repeats: int = 4) -> NDArray[np.float64]:
    """Mean probability of being a patient, from folds that did not see the subject; C is chosen within the others."""
    scores = np.zeros(len(patients))
    grid = {"C": [1.0, 10.0, 100.0, 1000.0]}
    for seed in range(repeats):
        for known, new in StratifiedKFold(5, shuffle=True, random_state=seed).split(features, patients):
            search = GridSearchCV(LogisticRegression(max_iter=2000), grid, scoring="neg_log_loss", cv=5)
            model = make_pipeline(UnitNormScaler(), PCA(svd_solver="full"), search)  # all components: only a rotation
            model.fit(features[known], patients[known])
            scores[new] += model.predict_proba(features[new])[:, 1] / repeats
    return scores


def _ranks(values: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.asarray(values.argsort().argsort() / len(values))


if __name__ == "__main__":
    main()
