"""Slices of subjects that only look like themselves: known by image, guessed by subject."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest

from monai_cae.data import SliceExtraction
from monai_cae.data.splits.leakage import leakage_demo

SHAPE = (16, 20, 9)
SUBJECTS = 20


@pytest.fixture
def cohort(tmp_path, write_table, write_pair):
    """write(label_shows): half patients; each brain is its own noise, the same in all its slices."""

    def write(label_shows: bool = False, slices: int = SHAPE[2]) -> Path:
        names = [f"OAS1_{number:04d}_MR1" for number in range(1, SUBJECTS + 1)]
        write_table(tmp_path / "t.csv", [(name, "F", 70 + i, (0, 1)[i % 2]) for i, name in enumerate(names)])
        for i, name in enumerate(names):
            own = np.random.default_rng(i).integers(100, 900, (*SHAPE[:2], 1))
            noise = np.random.default_rng(100 + i).integers(0, 50, (*SHAPE[:2], slices))
            volume = own + noise
            if label_shows:
                volume[:, : SHAPE[1] // 2] += (i % 2) * 3000
            write_pair(tmp_path / f"{name}.hdr", volume.astype(np.int16))
        return tmp_path

    return write


def run(root: Path, **options: Any) -> Any:
    return leakage_demo(root, **{"extraction": SliceExtraction("axial", 5), "neighbours": 2, **options})


def test_by_image_recognises_the_subject_and_by_subject_does_not(cohort):
    demo = run(cohort())
    assert (demo.by_image, demo.same_subject) == (1.0, 1.0)
    assert 0.1 < demo.by_subject < 0.9
    # two of nine slices on either side of the fifth
    assert (demo.chance, demo.subjects, demo.slices) == (0.5, SUBJECTS, SUBJECTS * 5)


def test_both_are_right_where_the_disease_shows(cohort):
    demo = run(cohort(label_shows=True))
    assert demo.by_image == demo.by_subject == 1.0


def test_slices_end_with_the_volume(cohort):
    assert run(cohort(), neighbours=50).slices == SUBJECTS * SHAPE[2]


def test_only_the_slab_is_looked_at(cohort, write_pair):
    """Every slice outside the slab shows the label; the accuracies don't change."""
    root = cohort()
    before = run(root, neighbours=1)
    for number, path in enumerate(sorted(root.glob("*.hdr"))):
        volume = np.asarray(nib.load(path).dataobj)[..., 0].copy()
        volume[:, :, [0, 1, 2, 6, 7, 8]] = 5000 * (number % 2) + 1
        write_pair(path, volume)
    assert run(root, neighbours=1) == before


def test_the_seed_decides_and_the_global_state_stays(cohort):
    root, state = cohort(), np.random.get_state()[1].copy()  # noqa: NPY002
    first = run(root, seed=1)
    assert run(root, seed=1) == first
    assert run(root, seed=2).by_subject != first.by_subject
    assert np.array_equal(state, np.random.get_state()[1])  # noqa: NPY002


def test_progress(cohort):
    seen = []
    run(cohort(), progress=lambda scans: (seen.append(scan.name) or scan for scan in scans))
    assert len(seen) == SUBJECTS


def test_refused(cohort, refused, write_table, write_pair):
    root = cohort()
    for neighbours in (0, -1, 1.5, True):
        with refused("neighbours must be a whole number, 1 or more"):
            run(root, neighbours=neighbours)
    with refused("slice_index 99 is outside"):
        run(root, extraction=SliceExtraction("axial", 99))
    write_pair(root / "OAS1_0003_MR1.hdr", np.ones((16, 20, 4), dtype=np.int16))
    with refused("slice_index 5 is outside .*OAS1_0003"):
        run(root)
    write_pair(root / "OAS1_0003_MR1.hdr", np.ones((16, 22, 9), dtype=np.int16))
    with refused("differ in shape"):
        run(root)
    write_pair(root / "OAS1_0003_MR1.hdr", np.zeros(SHAPE, dtype=np.int16))
    with refused("axial slices around 5 .*OAS1_0003.* is zero everywhere"):
        run(root)
    write_table(root / "t.csv", [(f"OAS1_{i:04d}_MR1", "F", 70, int(i > 4)) for i in range(1, SUBJECTS)])
    with refused("needs 5 controls for its 5 folds, not 4"):
        run(root)


def test_one_slice_cannot_leak(cohort, refused):
    with refused("has one axial slice"):
        run(cohort(slices=1))
    root = cohort()
    with refused("needs the folder with the volumes"):
        run(root / "t.csv")
