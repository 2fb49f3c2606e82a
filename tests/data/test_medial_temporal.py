"""The synthetic cohort of `monai-cae phantom --volumes`: what shrinks, by how much, and what is recorded of it."""

from __future__ import annotations

import csv
import io
import itertools
import json
from contextlib import redirect_stdout

import nibabel as nib
import numpy as np
import pytest

from monai_cae.cli import main
from monai_cae.data import phantom
from monai_cae.data.heads import synthetic_heads
from monai_cae.data.people import Atrophy, draw_people
from monai_cae.data.phantom import is_synthetic, synthetic_brains
from monai_cae.data.template import COMMISSURE, MNI_PER_T88

pytest.importorskip("nilearn")

SEED, SUBJECTS = 5, 6


@pytest.fixture(scope="module")
def cohort(tmp_path_factory):
    out = tmp_path_factory.mktemp("volumes") / "cohort"
    with redirect_stdout(io.StringIO()) as said:
        assert main(["phantom", str(out), "--subjects", str(SUBJECTS), "--seed", str(SEED), "--volumes"]) == 0
    assert "synthetic subjects (not real MRI)" in said.getvalue()
    return out


def volumes_of(root):
    return [np.asarray(nib.load(path).dataobj)[..., 0] for path in sorted(root.glob("disc*/*/*/*/*/*.hdr"))]


def rows_of(path):
    with path.open(encoding="utf-8-sig", newline="") as file:
        return list(csv.DictReader(file))


def medial_temporal(side):
    """The box around a hippocampus and its temporal horn, MNI -36 to -4 mm from back to front, -26 to -4 upwards."""
    corners = np.array([(side * 16, -36, -26), (side * 42, -4, -4)]) / MNI_PER_T88 + COMMISSURE
    return tuple(slice(round(min(axis)), round(max(axis))) for axis in corners.T)


def fluid_ml(volume, side):
    part = volume[medial_temporal(side)]
    return ((part > 0) & (part < 0.33 * np.percentile(volume[volume > 0], 90))).sum() / 1000


def test_the_cohort_is_read_as_one_and_called_synthetic(cohort, capsys):
    assert main(["cohort", str(cohort)]) == 0
    out = capsys.readouterr().out
    assert "SYNTHETIC cohort, not real MRI" in out
    assert next(line for line in out.splitlines() if line.startswith("Number of subjects")).split()[3:5] == ["3", "3"]


def test_hippocampi_are_as_small_as_published_and_overlap():
    people = draw_people(900, seed=0, volumes=True)
    cdr = np.array([float(person.row["CDR"]) for person in people])
    left = np.array([1 - person.atrophy.lost for person in people])
    ventricle = np.array([person.atrophy.ventricle_mm for person in people])
    controls = left[cdr == 0]
    assert left[cdr == 0.5].mean() / controls.mean() == pytest.approx(0.87, abs=0.03)  # MCI: 0.88
    assert left[cdr == 1].mean() / controls.mean() == pytest.approx(0.77, abs=0.03)  # AD: 0.76
    assert np.percentile(left[cdr > 0], 90) > np.percentile(controls, 30), "some patients look healthy"
    assert np.corrcoef(left[cdr == 0], ventricle[cdr == 0])[0, 1] == pytest.approx(-0.45, abs=0.15)

    def distance(values):
        return abs(values[cdr > 0].mean() - values[cdr == 0].mean()) / values[cdr == 0].std()

    assert distance(left) > distance(ventricle) > 0.8


def test_the_option_leaves_the_table_and_the_draws_alone():
    with_it, without, longer = (draw_people(n, SEED, volumes) for n, volumes in ((6, True), (6, False), (9, True)))
    assert [one.row for one in with_it] == [one.row for one in without]
    assert [one.atrophy for one in with_it] == [one.atrophy for one in longer[:6]]
    for one, other in zip(with_it, without, strict=True):
        assert other.atrophy.lost == 0 < one.atrophy.lost
        assert one.generator.random() == other.generator.random()
        if one.row["CDR"] == "0":
            assert one.atrophy[:2] == other.atrophy[:2]
            assert one.atrophy == one.unaffected
        else:
            assert one.atrophy.ventricle_mm < other.atrophy.ventricle_mm
            assert one.unaffected.lost < one.atrophy.lost and one.unaffected.ventricle_mm < one.atrophy.ventricle_mm


def test_loss_is_of_the_hippocampus_alone(anatomy):
    images = [phantom._render(anatomy, Atrophy(2.0, 0.9, lost), np.random.default_rng(1)) for lost in (0.0, 0.15, 0.35)]
    whole = images[0].hippocampus_ml
    assert 7 < whole < 12, "both, in a space that is larger than most heads"
    assert [image.hippocampus_ml / whole for image in images[1:]] == pytest.approx([0.85, 0.65], abs=0.03)
    assert len({image.ventricle_ml for image in images}) == 1
    for image in images[1:]:
        assert np.array_equal(image.volume[:, :, 105], images[0].volume[:, :, 105]), "slice 106 does not show it"
    for side in (-1, 1):
        amounts = [fluid_ml(image.volume, side) for image in images]
        assert amounts[1] > amounts[0] + 0.5 and amounts[2] > amounts[1] + 0.5


def test_written_images_follow_the_truth(cohort):
    truth = rows_of(cohort / "truth.csv")
    table = rows_of(cohort / "oasis_cross-sectional.csv")
    assert [(row["ID"], row["CDR"]) for row in truth] == [(row["ID"], row["CDR"]) for row in table]
    fluid = [fluid_ml(volume, -1) + fluid_ml(volume, 1) for volume in volumes_of(cohort)]
    for column, least in (("lost", 0.8), ("hippocampus_ml", 0.7)):
        assert abs(np.corrcoef(fluid, [float(row[column]) for row in truth])[0, 1]) > least
    assert is_synthetic(cohort)
    about = json.loads((cohort / "dataset_description.json").read_text())
    assert about["generator"] == "monai-cae phantom --volumes"
    assert main(["cohort", str(cohort)]) == 0


@pytest.mark.slow
def test_lesions_are_what_cdr_changed(cohort):
    written = volumes_of(cohort)
    brains = list(itertools.islice(synthetic_brains(SUBJECTS, SEED, volumes=True, lesions=True), 2))
    assert {brain.row["CDR"] == "0" for brain in brains} == {True, False}
    for brain, volume in zip(brains, written, strict=False):
        assert np.array_equal(brain.volume, volume), "to look for lesions changes nothing"
        assert not brain.lesion[~brain.inside].any()
        if brain.row["CDR"] == "0":
            assert not brain.lesion.any()
            continue
        darker = brain.lesion < -0.3
        assert darker.sum() > 2 * (brain.lesion > 0.3).sum() > 0, "fluid for tissue; what gives way hides sulci"
        assert np.median(volume[darker]) < 0.5 * np.median(volume[brain.inside])
        near = np.zeros_like(darker)
        for side in (-1, 1):
            near[medial_temporal(side)] = True
        assert darker[near].mean() > 2.5 * darker[brain.inside & ~near].mean()


@pytest.mark.slow
def test_heads_have_the_same_brains_and_truth(tmp_path, monkeypatch):
    coarse = list(synthetic_heads(4, 1, spacing_mm=8.0, volumes=True))
    monkeypatch.setattr("monai_cae.data.heads.synthetic_heads", lambda *_, volumes: iter(coarse) if volumes else None)
    out = tmp_path / "heads"
    assert main(["phantom", str(out), "--subjects", "4", "--seed", "1", "--head", "--volumes"]) == 0
    truth = rows_of(out / "truth.csv")
    assert [row["hippocampus_ml"] for row in truth] == [f"{head.hippocampus_ml:.2f}" for head in coarse]
    assert all(3.5 < float(row["hippocampus_ml"]) < 12 for row in truth)
    assert (out / ".bidsignore").read_text() == "truth.csv\n"
