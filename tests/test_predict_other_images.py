"""A network of slabs or volumes is given other shapes, voxels and sizes: one line each, or the right number."""

from __future__ import annotations

import nibabel as nib
import numpy as np
import pytest
from runs import rows_of, run_to_predictions
from tiny import mistake, volume

from monai_cae.cli import main

SETTINGS = {
    "with_slab.yaml": {"extraction#slices": 3, "channels": [4, 8], "max_epochs": 1},
    "with_volume.yaml": {"image_size": [12, 16, 12], "channels": [4, 8], "batch_size": 4, "max_epochs": 1},
}


@pytest.fixture(scope="module")
def package(run_bundle, discs, tmp_path_factory):
    """package(overlay): an unpacked package, and what it predicts of the scans of disc1."""
    made = {}

    def get(overlay):
        if overlay not in made:
            folder = tmp_path_factory.mktemp(overlay)
            out, rows = run_to_predictions(run_bundle, discs, folder, overlay, **SETTINGS[overlay])
            made[overlay] = out.parents[1] / "cae", {row["subject"]: float(row["probability"]) for row in rows}
        return made[overlay]

    return get


def save(path, voxels, spacing=1.0):
    image = nib.Nifti1Image(voxels, np.diag([spacing, spacing, spacing, 1.0]))
    image.header.set_qform(None, 0)
    image.header.set_sform(None, 0)  # no orientation, as the training's
    image.to_filename(path)
    return path


BRAIN = volume(1, 1)
REFUSED = {
    "one slice": (
        BRAIN[:, :, 10:11],
        [],
        "slice 10 of axial slices 10 to 12 is outside",
        "a volume has sides from 2 to 2048 voxels",
    ),
    "a thin stack": (
        BRAIN[:, :, 9:11],
        [],
        "slice 10 of axial slices 10 to 12 is outside",
        "has 20 x 24 x 2 mm, the tr",
    ),
    "two volumes": (
        np.stack([BRAIN] * 2, -1),
        [],
        "is not a 3D volume: its shape is",
        "is not a 3D volume: its shape is",
    ),
    "a small volume": (
        BRAIN[5:15, 7:17, 5:15],
        [],
        "is outside",
        "has 10 x 10 x 10 mm, the training's 20 x 24 x 20 (li",
    ),
    "another image_size": (BRAIN, ["--image_size", "8"], "image_size", "image_size"),
}


@pytest.mark.parametrize("number", [pytest.param(0, id="slab", marks=pytest.mark.slow), pytest.param(1, id="volume")])
@pytest.mark.parametrize("given", REFUSED)
def test_other_images_are_refused_in_a_line(package, tmp_path, number, given):
    voxels, options, *said = REFUSED[given]
    where, _ = package(list(SETTINGS)[number])
    scan = save(tmp_path / "a.nii.gz", voxels)
    assert said[number] in mistake(predict, where, scan, tmp_path / "out", *options)
    assert not (tmp_path / "out").exists()


def predict(where, scan, out, *options):
    return main(["predict", str(where), str(scan), str(out), "--device", "cpu", *options])


def test_a_volume_of_finer_voxels_is_averaged_to_the_same(package, tmp_path):
    where, before = package("with_volume.yaml")
    fine = BRAIN.repeat(2, 0).repeat(2, 1).repeat(2, 2)
    assert predict(where, save(tmp_path / "a.nii.gz", fine, 0.5), tmp_path / "out") == 0
    (row,) = rows_of(tmp_path / "out" / "predictions.csv")
    assert float(row["probability"]) == pytest.approx(before["OAS1_0002"], abs=1e-5)
