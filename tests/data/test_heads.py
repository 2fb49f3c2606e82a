"""Synthetic brains in a scalp and a skull: where they lie, what is around them, how they are written."""

from __future__ import annotations

import csv
import json

import nibabel as nib
import numpy as np
import pytest

from monai_cae.cli import main
from monai_cae.data import find_images, phantom
from monai_cae.data.heads import synthetic_heads, write_heads
from monai_cae.data.people import Atrophy
from monai_cae.data.phantom import is_synthetic, synthetic_brains
from monai_cae.data.template import frame_affine
from monai_cae.errors import MonaiCaeError

pytest.importorskip("nilearn")


@pytest.fixture(scope="module")
def heads():
    return list(synthetic_heads(4, 1, spacing_mm=4.0))


@pytest.mark.slow
def test_the_brain_lies_where_motion_says(heads):
    brain = next(synthetic_brains(4, 1))
    head = heads[0]
    middle = frame_affine()[:3] @ [*np.argwhere(brain.inside).mean(axis=0), 1]
    there = head.affine[:3] @ [*np.argwhere(head.brain).mean(axis=0), 1]
    np.testing.assert_allclose(there, head.motion[:3] @ [*middle, 1], atol=1)
    volume_ml = head.brain.sum() * abs(np.linalg.det(head.affine[:3, :3])) / 1000
    assert volume_ml == pytest.approx(brain.inside.sum() / 1000, rel=0.03)


@pytest.mark.slow
def test_the_head_is_more_than_the_brain_and_darker_between(heads):
    for head in heads:
        voxels = nib.Nifti1Image(head.voxels, head.affine)
        assert (head.voxels > 150)[~head.brain].sum() > 0.5 * head.brain.sum(), "scalp, face and neck"
        assert voxels.shape == head.brain.shape
    codes = {"".join(nib.aff2axcodes(head.affine)) for head in heads}
    assert len(codes) == 4, "stored along four kinds of axes"
    assert len({head.motion.tobytes() for head in heads}) == 4


@pytest.mark.slow
def test_wider_ventricles_have_more_volume():
    anatomy = phantom._load_anatomy()
    drawn = [
        phantom._render(anatomy, Atrophy(mm, 0.7, 0.0), np.random.default_rng(2)).ventricle_ml for mm in (0.0, 3.0, 6.0)
    ]
    assert drawn[0] < drawn[1] < drawn[2]


def test_a_cohort_of_heads_is_bids_and_synthetic(tmp_path, monkeypatch, capsys):
    coarse = list(synthetic_heads(4, 1, spacing_mm=8.0))
    monkeypatch.setattr("monai_cae.data.heads.synthetic_heads", lambda *_, **__: iter(coarse))
    out = tmp_path / "out"
    assert main(["phantom", str(out), "--subjects", "4", "--seed", "1", "--head"]) == 0
    assert f"next: monai-cae prepare {out} PREPARED" in capsys.readouterr().out
    assert is_synthetic(out) and json.loads((out / "dataset_description.json").read_text())["BIDSVersion"]
    rows = list(csv.DictReader((out / "participants.tsv").read_text().splitlines(), delimiter="\t"))
    assert [row["participant_id"] for row in rows] == [f"sub-OAS1900{number}MR1" for number in (1, 2, 3, 4)]
    assert [row["CDR"] for row in rows] == [head.row["CDR"] for head in coarse]
    assert len(find_images(out)) == 4
    image = nib.load(out / rows[0]["participant_id"] / "anat" / f"{rows[0]['participant_id']}_T1w.nii.gz")
    assert np.array_equal(image.dataobj, coarse[0].voxels) and np.allclose(image.affine, coarse[0].affine, atol=1e-4)


def test_wrong_numbers_leave_nothing(tmp_path):
    with pytest.raises(MonaiCaeError, match="subjects must be 4 to 999, not 2"):
        write_heads(tmp_path / "out", subjects=2)
    assert not (tmp_path / "out").exists()
