"""From a raw head to the template, at 3 mm and with a coarse registration."""

from __future__ import annotations

import hashlib
import sys
from dataclasses import replace
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from scipy.ndimage import gaussian_filter
from scipy.spatial.transform import Rotation

from monai_cae.data.heads import synthetic_heads
from monai_cae.data.images.planes import closest_view
from monai_cae.data.template import FRAME_SHAPE, frame_affine
from monai_cae.errors import MonaiCaeError
from monai_cae.prepare import PrepareSettings, RawScan, brain, prepare_scan, write_transform
from monai_cae.prepare.bias import bias_field
from monai_cae.prepare.grids import matrix_of
from monai_cae.prepare.intensity import from_zero, without_spikes
from monai_cae.prepare.pipeline import given_brain

sitk = pytest.importorskip("SimpleITK")
pytest.importorskip("nilearn")

COARSE = PrepareSettings(levels_mm=(4.0,), bias_iterations=(10, 10))
LANDMARKS = np.array([(0, 2, -4), (0, -26, -2), (28, -14, -20), (-28, -14, -20), (0, 60, 10), (0, -95, 0)], float)


def dice(one, other):
    return 2 * (one & other).sum() / (one.sum() + other.sum())


def points(prepared):
    matrix = matrix_of(prepared.transform)
    return LANDMARKS @ matrix[:3, :3].T + matrix[:3, 3]


@pytest.fixture(scope="module")
def head():
    return next(synthetic_heads(4, 1, spacing_mm=3.0))


@pytest.fixture(scope="module")
def scan(head):
    return RawScan(head.voxels.astype(np.float32), head.affine, "head")


@pytest.fixture(scope="module")
def mask(head):
    return RawScan(head.brain.astype(np.float32), head.affine, "mask")


@pytest.fixture(scope="module")
def prepared(scan, mask):
    return prepare_scan(scan, COARSE, mask)


def test_the_image_is_a_masked_brain_in_the_frame(prepared, head):
    assert prepared.image.shape == prepared.mask.shape == FRAME_SHAPE and prepared.image.dtype == np.float32
    np.testing.assert_array_equal(prepared.affine, frame_affine())
    assert (prepared.image[~prepared.mask] == 0).all()
    assert prepared.image[prepared.mask].min() > 0 and prepared.image.max() == 1
    np.testing.assert_array_equal(prepared.native_mask, head.brain)
    assert prepared.verdict.status != "fail" and prepared.notes == ("the brain's mask was given: mask",)
    assert prepared.seconds.keys() == {"read", "mask", "bias", "registration", "resampling", "quality"}


def test_the_brain_is_found_where_it_was_put(prepared, head):
    there = LANDMARKS @ head.motion[:3, :3].T + head.motion[:3, 3]
    error_mm = np.linalg.norm(points(prepared) - there, axis=1)
    # The brain itself is a deformed template: 1.7 mm, and 2 % of its size, which no affine of the frame undoes.
    assert np.median(error_mm) < 4 and error_mm.max() < 8


def test_a_head_that_is_turned_and_stored_otherwise_gives_the_same_image(prepared, scan, mask):
    motion = np.eye(4)
    motion[:3, :3] = Rotation.from_euler("xyz", (20, -12, 15), degrees=True).as_matrix()
    motion[:3, 3] = 30, -20, 10

    def moved(one):
        image = nib.Nifti1Image(one.voxels, motion @ one.affine)
        turn = nib.orientations.ornt_transform(
            nib.io_orientation(image.affine), nib.orientations.axcodes2ornt(("I", "R", "P"))
        )
        image = image.as_reoriented(turn)
        return replace(one, voxels=np.asarray(image.dataobj), affine=image.affine)

    again = prepare_scan(moved(scan), COARSE, moved(mask))
    there = points(prepared) @ motion[:3, :3].T + motion[:3, 3]
    assert np.linalg.norm(points(again) - there, axis=1).max() < 0.5
    assert dice(again.mask, prepared.mask) > 0.99
    assert np.corrcoef(again.image.ravel(), prepared.image.ravel())[0, 1] > 0.995
    assert again.native_mask.shape == moved(mask).voxels.shape


@pytest.mark.slow
def test_the_same_scan_gives_the_same_bytes_however_many_threads(prepared, scan, mask):
    before = sitk.ProcessObject.GetGlobalDefaultNumberOfThreads()
    sitk.ProcessObject.SetGlobalDefaultNumberOfThreads(3)
    try:
        again = prepare_scan(scan, COARSE, mask)
    finally:
        sitk.ProcessObject.SetGlobalDefaultNumberOfThreads(before)
    np.testing.assert_array_equal(again.image, prepared.image)
    assert again.transform.GetParameters() == prepared.transform.GetParameters() and again.qc == prepared.qc


def test_a_prepared_scan_is_recognised_and_left_as_it_is(prepared):
    again = prepare_scan(RawScan(prepared.image, prepared.affine, "prepared"), replace(COARSE, bias=False))
    assert [note.split(":")[0] for note in again.notes] == ["already stripped", "already registered"]
    np.testing.assert_allclose(matrix_of(again.transform), np.eye(4), atol=1e-9)
    assert dice(again.mask, prepared.mask) > 0.999
    np.testing.assert_allclose(again.image[again.mask], prepared.image[again.mask], atol=0.02)


def test_the_transform_is_written_for_other_tools(prepared, tmp_path):
    write_transform(prepared.transform, tmp_path / "a.tfm")
    read = sitk.ReadTransform(str(tmp_path / "a.tfm"))
    point = (10.0, -20.0, 30.0)
    assert read.TransformPoint(point) == pytest.approx(prepared.transform.TransformPoint(point))


@pytest.mark.slow
def test_a_brain_half_outside_fails(scan, mask):
    cut = {}
    for name, one in {"scan": scan, "mask": mask}.items():
        image = nib.as_closest_canonical(nib.Nifti1Image(one.voxels, one.affine))
        middle = int(
            np.argwhere(nib.as_closest_canonical(nib.Nifti1Image(mask.voxels, mask.affine)).dataobj)[:, 2].mean()
        )
        part = image.slicer[:, :, middle:]
        cut[name] = replace(one, voxels=np.asarray(part.dataobj), affine=part.affine)
    assert prepare_scan(cut["scan"], COARSE, cut["mask"]).verdict.status == "fail"


@pytest.mark.slow
def test_a_brain_without_a_hemisphere_fails(scan, mask, head):
    right = (head.affine[:3, :3] @ np.indices(head.brain.shape).reshape(3, -1) + head.affine[:3, 3:])[0]
    lost = head.brain & (right.reshape(head.brain.shape) > head.motion[0, 3])
    verdict = prepare_scan(replace(scan, voxels=np.where(lost, np.float32(90), scan.voxels)), COARSE, mask).verdict
    assert verdict.status == "fail" and any("correlation with the template" in reason for reason in verdict.reasons)


SHAPE = (40, 40, 40)
GREY = np.random.default_rng(0).normal(100, 10, SHAPE).astype(np.float32)
REFUSED = {
    "one-slice": (GREY[:, :, :1], (5, 5, 3), "one axial slice"),
    "thick": (GREY, (3, 10, 3), "coronal slices of 10 mm"),
    "few": (GREY[:, :, :20], (3, 3, 3), "60 mm deep"),
    "series": (GREY[..., None], (3, 3, 3), "is a series"),
}


@pytest.mark.parametrize(("voxels", "spacing", "message"), REFUSED.values(), ids=REFUSED)
def test_what_is_no_volume_of_a_head_is_refused(voxels, spacing, message):
    with pytest.raises(MonaiCaeError, match=message):
        prepare_scan(RawScan(voxels, np.diag([*spacing, 1.0]), "it"))


def test_slices_of_five_mm_are_taken_at_any_angle():
    affine = np.eye(4)
    affine[:3, :3] = (Rotation.from_euler("xyz", (21, 10, 5), degrees=True).as_matrix() * 5).astype(np.float32)
    assert np.linalg.norm(affine[:3, :3], axis=0).max() > 5  # by a rounding
    ball = np.linalg.norm(np.indices(SHAPE) - 20, axis=0) < 11
    with pytest.raises(MonaiCaeError, match="no contrast"):  # as far as it gets
        prepare_scan(RawScan(np.ones(SHAPE, np.float32), affine, "it"), mask=RawScan(ball.astype("f4"), affine, "mask"))


def darkness(head):
    """A head of 100 to 700 in air, its brain alone, and the mask."""
    brain = head.brain
    return head.voxels.astype(np.float32), np.where(brain, head.voxels, 0).astype(np.float32), brain


@pytest.mark.parametrize(("slope", "shift"), [(1, 900), (1, 250), (0.004, -1), (1e-12, -3e-10), (1, -32768)])
def test_a_scan_whose_dark_is_not_0_is_the_same_scan(head, slope, shift):
    for voxels in darkness(head)[:2]:
        plain, notes = from_zero(voxels, head.brain, "it")
        assert plain is voxels and notes == []
        moved, notes = from_zero((voxels.astype(float) * slope + shift).astype(np.float32), head.brain, "it")
        off = np.abs(moved / np.float32(slope) - voxels)[head.brain]
        assert off.max() < 0.03 * voxels[head.brain].max()  # the air's noise
        assert len(notes) == 1 and "was taken for 0, and subtracted" in notes[0]


@pytest.mark.parametrize("spike", [1e6, -1e6, 1e14])
def test_a_spike_is_cut_and_told(head, spike):
    voxels, _, brain = darkness(head)
    assert without_spikes(voxels, brain) == (voxels, [])
    where, top = tuple(np.argwhere(brain)[2000]), np.percentile(voxels[brain], 99.5)
    spoilt = voxels.copy()
    spoilt[where] = spike
    cut, notes = without_spikes(spoilt, brain)
    assert cut[where] == pytest.approx(np.sign(spike) * 10 * top, rel=0.01) and (cut != voxels).sum() == 1
    assert len(notes) == 1 and notes[0].startswith("1 voxels more than 10 times as bright as the brain were cut to ")


def test_zeros_around_a_head_do_not_hide_that_its_0_is_elsewhere(head):
    voxels, _, brain = darkness(head)
    air = np.clip(voxels, 0.01 * voxels.max(), None)
    inside = np.pad(brain, 10)
    plain = np.pad(air, 10)
    assert from_zero(plain, inside, "it") == (plain, [])
    with pytest.raises(MonaiCaeError, match="0 only around it, so that nothing tells its 0"):
        from_zero(np.pad(air + voxels.max(), 10), inside, "it")


def test_a_brain_that_was_normalised_by_itself_is_refused(head):
    _, stripped, brain = darkness(head)
    values = stripped[brain]
    z_scores = np.where(brain, (stripped - values.mean()) / values.std(), 0).astype(np.float32)
    marked = np.where(brain, stripped, -1000).astype(np.float32)  # outside, nothing was measured
    for voxels in (z_scores, marked, np.pad(z_scores, 40)):
        inside = np.pad(brain, 40) if voxels.shape != brain.shape else brain
        with pytest.raises(MonaiCaeError, match="nothing tells its 0: give the scan as it was before"):
            prepare_scan(RawScan(voxels, head.affine, "it"), COARSE, RawScan(inside.astype("f4"), head.affine, "mask"))


def test_a_scan_that_does_not_record_its_orientation_is_refused():
    with pytest.raises(MonaiCaeError, match="it does not record its orientation: say with --orientation"):
        prepare_scan(RawScan(GREY, np.diag([3.0, 3, 3, 1]), "it", oriented=False))


@pytest.mark.parametrize("codes", ["RAS", "PIR", "LSA", "IPL"])
def test_a_mask_may_be_stored_along_other_axes_than_its_scan(scan, mask, head, codes):
    image = nib.Nifti1Image(mask.voxels, mask.affine)
    wanted = nib.orientations.axcodes2ornt(tuple(codes))
    image = image.as_reoriented(nib.orientations.ornt_transform(nib.io_orientation(image.affine), wanted))
    other = replace(mask, voxels=np.asarray(image.dataobj), affine=image.affine)
    view = closest_view(scan.voxels.shape, scan.affine)
    np.testing.assert_array_equal(given_brain(other, scan, view), view.turned(head.brain))


def test_a_mask_of_probabilities_is_cut_at_a_half(scan, mask, head):
    view = closest_view(scan.voxels.shape, scan.affine)
    soft = gaussian_filter(mask.voxels, 1)
    found = given_brain(replace(mask, voxels=soft), scan, view)
    assert dice(found, view.turned(head.brain)) > 0.99 and (soft > 0).sum() > 1.3 * head.brain.sum()
    labels = mask.voxels * np.float32(2) + 40 * (soft > 0.9)
    np.testing.assert_array_equal(given_brain(replace(mask, voxels=labels), scan, view), view.turned(labels > 0))


def test_masks_that_are_no_brain_of_this_head_are_refused(scan, mask):
    away = np.eye(4)
    away[0, 3] = 250
    for other, message in (
        (replace(mask, voxels=np.zeros_like(mask.voxels)), "mask is empty"),
        (replace(mask, voxels=np.ones_like(mask.voxels)), "it is not one of a brain"),
        (replace(mask, affine=away @ mask.affine), "it is one of another head"),
    ):
        with pytest.raises(MonaiCaeError, match=message):
            prepare_scan(scan, COARSE, other)


def test_none_is_for_stripped_scans(scan):
    with pytest.raises(MonaiCaeError, match="head is not stripped"):
        prepare_scan(scan, replace(COARSE, mask="none"))
    with pytest.raises(MonaiCaeError, match="mask must be auto, none"):
        PrepareSettings(mask="maybe")


def test_a_known_bias_field_is_found(head):
    x = np.linspace(-1, 1, head.brain.shape[0])[:, None, None]
    field = np.broadcast_to(np.exp(0.4 * x), head.brain.shape)
    flat = np.where(head.brain, np.float32(100), np.float32(0))
    found = bias_field((flat * field).astype(np.float32), head.brain, head.affine, PrepareSettings())
    left = (field / found)[head.brain]
    assert left.std() / left.mean() < 0.2 * field[head.brain].std() / field[head.brain].mean()
    assert np.log(found[head.brain]).mean() == pytest.approx(0, abs=1e-5)


@pytest.mark.skipif(brain.weights_folder() is None, reason="deepbet's weights are not installed")
def test_the_brain_is_found_in_a_head(scan, head):
    canonical = nib.as_closest_canonical(nib.Nifti1Image(scan.voxels, scan.affine))
    truth = np.asarray(nib.as_closest_canonical(nib.Nifti1Image(head.brain.astype(np.uint8), head.affine)).dataobj) > 0
    assert dice(brain.find_brain(np.asarray(canonical.dataobj), "it"), truth) > 0.92


@pytest.mark.skipif(brain.weights_folder() is None, reason="deepbet's weights are not installed")
def test_no_brain_is_found_in_noise():
    with pytest.raises(MonaiCaeError, match="it"):
        brain.find_brain(np.full(SHAPE, 7, np.float32), "it")


@pytest.fixture
def weights(tmp_path, monkeypatch):
    folder = tmp_path / "data" / "models"
    folder.mkdir(parents=True)
    monkeypatch.setenv("MONAI_CAE_DEEPBET", str(tmp_path))
    return folder


def test_weights_that_are_not_installed_are_named_with_the_command(weights):
    with pytest.raises(MonaiCaeError, match=r"pip install --no-deps --target .* deepbet==1\.0\.2; or give a --mask"):
        brain.find_brain(GREY, "it")


def test_other_weights_are_not_run(weights):
    for file in ("bbox_model.pt", "model.pt"):
        (weights / file).write_bytes(b"import os")
    assert hashlib.sha256(b"import os").hexdigest() not in brain._SHA256.values()
    with pytest.raises(MonaiCaeError, match=r"bbox_model\.pt is not the file of deepbet 1\.0\.2"):
        brain.find_brain(GREY, "it")


def test_make_installs_the_weights_that_are_looked_for():
    makefile = (Path(__file__).parents[2] / "Makefile").read_text()
    assert f"--target .venv/share/monai-cae/deepbet deepbet=={brain.VERSION} " in makefile
    assert brain.FOLDER.relative_to(sys.prefix) == Path("share/monai-cae/deepbet")
