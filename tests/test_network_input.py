"""A network knows its input: a checkpoint carries what it was trained with, and other input is refused."""

from __future__ import annotations

import json
import shutil

import nibabel as nib
import numpy as np
import pytest
import torch
from tiny import SHAPE, TINY, mistake, random_network

from monai_cae.networks import save_weights, trained_on, trained_with


@pytest.fixture(scope="module")
def trained(run_bundle, discs, tmp_path_factory):
    """A run with both checkpoints, one with covariates."""
    output = tmp_path_factory.mktemp("trained")
    run_bundle("pretrain.json", discs, output, max_epochs=1)
    run_bundle("train.json", discs, output, max_epochs=1, covariates={"age": [75, 8]})
    return output


@pytest.fixture
def scan(discs):
    return next(discs.rglob("*.hdr"))


def test_checkpoints_carry_what_they_were_trained_with(trained):
    paths = [str(trained / "models" / name) for name in ("autoencoder.pt", "model.pt")]
    autoencoder, classifier = trained_with(*paths).values()
    frame = {
        "codes": "", "shape": list(SHAPE), "spacing": [1.0, 1.0, 1.0], "above_middle": 0.5, "centre": None,
        "normal": None, "along": None,
    }  # fmt: skip
    expected = {
        "extraction": "SliceExtraction", "plane": "axial", "slice_index": TINY["slice_index"], "axes": "anatomical",
        "image_size": TINY["image_size"], "intensity": "ScaleIntensity minv 0 maxv 1", "frame": frame,
    }  # fmt: skip
    ranges = [one.pop("ranges") for one in (autoencoder, classifier)]
    seen = json.loads((trained / "datalist.json").read_text())["training"]
    assert len({item["age"] for item in seen}) > 1
    for name in ("age", "nWBV", "Educ"):
        values = [item[name] for item in seen]
        assert [one[name] for one in ranges] == [[min(values), max(values)]] * 2
    assert all("MMSE" not in one for one in ranges)  # nobody has one
    assert autoencoder == expected
    assert classifier == {**expected, "covariates": {"age": [75, 8]}, "target": "Diagnosis()"}
    for path in paths:
        assert trained_on(path)
        assert all(isinstance(value, torch.Tensor) for value in torch.load(path, weights_only=True).values())


SETTINGS = [
    ({"plane": "coronal"}, "plane axial, not coronal: give --plane axial"),
    ({"slice_index": 9}, "slice_index 11, not 9: give --slice_index 11"),
    ({"axes": "stored"}, "axes anatomical, not stored: give --axes anatomical"),
    ({"image_size": 20}, "image_size 16, not 20: give --image_size 16"),
]


@pytest.mark.parametrize(("options", "message"), SETTINGS)
def test_other_settings_are_refused_by_every_stage(trained, discs, scan, run_bundle, tmp_path, options, message):
    given = {
        "train.json": {"pretrained": str(trained / "models" / "autoencoder.pt"), "max_epochs": 1},
        "baselines.json": {"pretrained": str(trained / "models" / "autoencoder.pt")},
        "inference.json": {"checkpoint": str(trained / "models" / "model.pt"), "covariates": {"age": [75, 8]}},
        "evaluate.json": {
            "pretrained": str(trained / "models" / "autoencoder.pt"),
            "checkpoint": str(trained / "models" / "model.pt"),
            "covariates": {"age": [75, 8]},
        },
    }
    for config, settings in given.items():
        data, run_id = (scan, "run") if config == "inference.json" else (discs, "training")
        output = tmp_path / config
        said = mistake(run_bundle, config, data, output, run_id=run_id, **settings, **options)
        assert f".pt was trained with {message}, or another checkpoint" in said
        assert not (output / "predictions.csv").exists() and not (output / "datalist.json").exists()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({}, "covariates {'age': [75, 8]}, not {}: give --covariates \"{'age': [75, 8]}\""),
        ({"covariates": {"age": [70, 8]}}, "covariates {'age': [75, 8]}, not {'age': [70, 8]}: give --covariates"),
        (
            {
                "covariates": {"age": [75, 8]},
                "preprocessing#transforms#4": {"_target_": "NormalizeIntensityd", "keys": "image"},
            },
            "intensity 'ScaleIntensity minv 0 maxv 1', not NormalizeIntensity: take the preprocessing",
        ),
        (
            {"covariates": {"age": [75, 8]}, "preprocessing#transforms#4#maxv": 255.0},
            "intensity 'ScaleIntensity minv 0 maxv 1', not ScaleIntensity minv 0 maxv 255: take the preprocessing",
        ),
    ],
)
def test_other_numbers_beside_the_image_are_refused(trained, scan, run_bundle, tmp_path, options, message):
    checkpoint = str(trained / "models" / "model.pt")
    said = mistake(run_bundle, "inference.json", scan, tmp_path, run_id="run", checkpoint=checkpoint, **options)
    assert f"{checkpoint} was trained with {message}" in said


def test_the_same_settings_are_taken(trained, discs, scan, run_bundle, tmp_path, capsys):
    options = {"covariates": {"age": [75, 8]}, "checkpoint": str(trained / "models" / "model.pt")}
    run_bundle("inference.json", scan, tmp_path, run_id="run", **options)
    assert (tmp_path / "predictions.csv").is_file() and "note:" not in capsys.readouterr().out
    shutil.copytree(trained, tmp_path / "run")
    run_bundle("evaluate.json", discs, tmp_path / "run", covariates={"age": [75, 8]})


def test_a_scan_of_another_frame_is_refused_or_left_out(trained, run_bundle, tmp_path, capsys):
    """The training's volumes are 20 slices high, and slice 11 lies half a millimetre above their middle."""
    voxels = np.random.default_rng(0).integers(1, 900, (20, 24, 40)).astype(np.int16)
    nib.save(nib.Nifti1Image(voxels, np.eye(4)), tmp_path / "high.nii")
    options = {"covariates": {"age": [75, 8]}, "checkpoint": str(trained / "models" / "model.pt"), "run_id": "run"}
    said = mistake(run_bundle, "inference.json", tmp_path / "high.nii", tmp_path / "out", **options)
    assert "axial slice 11 of" in said and "lies 10 mm from the training's (limit 5 mm)" in said
    assert not (tmp_path / "out" / "predictions.csv").exists()
    run_bundle("inference.json", tmp_path / "high.nii", tmp_path / "out", allow_other_frame=True, **options)
    assert "note: the volumes have 20 x 24 x 40 voxels" in capsys.readouterr().out
    assert (tmp_path / "out" / "predictions.csv").is_file()


@pytest.mark.parametrize("recorded", [None, {}, {"shape": "odd"}, {"frame": {"codes": 1}, "subjects": 4}, [1], "text"])
def test_checkpoints_without_a_record_are_taken_as_before(scan, run_bundle, tmp_path, recorded):
    path = tmp_path / "model.pt"
    save_weights(random_network("classifier"), path, network_input=recorded if isinstance(recorded, dict) else None)
    if isinstance(recorded, (list, str)):
        state = torch.load(path, weights_only=True)
        state._metadata["monai_cae"]["input"] = recorded
        torch.save(state, path)
    run_bundle("inference.json", scan, tmp_path / "out", run_id="run", checkpoint=str(path))
    plain = tmp_path / "plain.pt"
    torch.save(dict(random_network("classifier").state_dict()), plain)
    run_bundle("inference.json", scan, tmp_path / "plain", run_id="run", checkpoint=str(plain))
    tables = [(tmp_path / name / "predictions.csv").read_text() for name in ("out", "plain")]
    assert tables[0] == tables[1]


def test_what_a_stranger_wrote_into_a_checkpoint_is_shown_on_one_line(scan, run_bundle, tmp_path):
    evil = "axial\n\x1b[31merror"
    save_weights(random_network("classifier"), tmp_path / "model.pt", network_input={"plane": evil})
    said = mistake(run_bundle, "inference.json", scan, tmp_path, run_id="run", checkpoint=str(tmp_path / "model.pt"))
    assert "was trained with plane 'axial\\n\\x1b[31merror', not axial" in said


def test_training_goes_by_the_affine_and_says_where_it_was(run_bundle, discs, tmp_path):
    """The same cohort, stored from back to front as NIfTI, gives the same weights as one that is not."""
    weights, frames = [], []
    for codes in ("RAS", "PSR"):
        root = tmp_path / codes
        shutil.copytree(discs, root)
        for path in root.rglob("*.hdr"):
            image = nib.Nifti1Image(np.asarray(nib.load(path).dataobj)[..., 0], np.diag([1, 1, 1.5, 1]))
            for old in (path, path.with_suffix(".img")):
                old.unlink()
            wanted = nib.orientations.axcodes2ornt(codes)
            image = image.as_reoriented(nib.orientations.ornt_transform(nib.io_orientation(image.affine), wanted))
            nib.Nifti1Pair(image.dataobj, image.affine).to_filename(path)
        run_bundle("pretrain.json", root, tmp_path / f"out-{codes}", max_epochs=1)
        path = str(tmp_path / f"out-{codes}" / "models" / "autoencoder.pt")
        weights.append(torch.load(path, weights_only=True))
        frames.append(trained_with(path)[path]["frame"])
        made = json.loads((tmp_path / f"out-{codes}" / "datalist.json").read_text())
        assert made["recipe"]["axes"] == "anatomical"
    assert all(torch.equal(weights[0][name], weights[1][name]) for name in weights[0])
    assert frames[1] == {**frames[0], "codes": "PSR"}
    assert frames[0]["centre"] == [9.5, 11.5, 15.0] and frames[0]["normal"] == [0.0, 0.0, 1.0]
    assert frames[0]["spacing"] == [1.0, 1.0, 1.5]
