"""A user's own parts go through pretrain -> train -> evaluate -> package -> inference by config alone."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import monai.bundle
import nibabel as nib
import numpy as np
import pytest
import torch
import yaml
from mlflow import MlflowClient
from numbered_scans import NumberedScans
from runs import (
    assert_predicts_as_tested,
    assert_tells_what_it_sees,
    given_to_the_network,
    looked_for,
    rows_of,
    scaled,
)
from tiny import CONFIGS, mistake, random_network, volume
from two_outputs import ShrinkingAutoencoder, ShrinkingLoss

from monai_cae.cli import main
from monai_cae.data import load_cohort, read_scans
from monai_cae.data.splits.sets import read_datalist
from monai_cae.errors import MonaiCaeError
from monai_cae.experiment.load_runs import read_predictions
from monai_cae.networks import reconstruction_of, trained_with
from monai_cae.training.stages.workflow import find_mistake

EXAMPLES = CONFIGS.parents[1] / "examples"


@pytest.fixture(scope="module")
def through(run_bundle, discs, tmp_path_factory):
    """through(overlay): the run's folder and what its package predicts of the scans of disc1, or another cohort's."""

    def run(
        overlay: str | Path, cohort: Path = discs, scans: str = "disc1", **settings: Any
    ) -> tuple[Path, list[dict[str, str]]]:
        file = EXAMPLES / overlay
        folder = tmp_path_factory.mktemp(file.name)
        run_bundle(["experiment.yaml", str(file)], cohort, folder / "out", **{"repeats": 1, **settings})
        made, package = folder / "out" / "repeat_1", folder / "cae.zip"
        assert main(["package", str(package), "--output-dir", str(made)]) == 0
        assert main(["bundle", str(folder / "cae"), "--from", str(package)]) == 1  # nobody's code runs unasked
        assert main(["bundle", str(folder / "cae"), "--from", str(package), "--trust"]) == 0
        given = {"dataset_dir": str(cohort / scans), "output_dir": str(folder / "predicted"), "device": "cpu"}
        monai.bundle.run(run_id="run", config_file=str(folder / "cae" / "configs" / "inference.json"), **given)
        return made, rows_of(folder / "predicted" / "predictions.csv")

    return run


def test_an_autoencoder_with_two_outputs_and_its_own_loss(through):
    made, predicted = through("with_two_outputs.yaml")
    results = json.loads((made / "results_evaluate.json").read_text())
    assert 0 < results["test_psnr"] < 60 and results["test_mse"] > 0
    pretrained = json.loads((made / "config_pretrain.json").read_text())
    assert pretrained["network_def"]["_target_"] == "two_outputs.ShrinkingAutoencoder"
    assert pretrained["loss"] == {"_target_": "two_outputs.ShrinkingLoss", "weight": 0.01}
    assert {path.name for path in (made / "figures").glob("pretrain_*.png")} >= {"pretrain_reconstructions.png"}
    assert_predicts_as_tested(made, predicted)


def test_a_target_that_is_a_number(through, run_bundle, discs, capsys):
    made, predicted = through("with_brain_volume.yaml", repeats=2, **{"target#_target_": "plugins.mistaken.BadlyDrawn"})
    said = capsys.readouterr()
    told = said.out
    for name, times in (("broken", 2), ("target_broken", 1)):  # of the stage in each repeat, and of all repeats
        assert said.err.count(f"the figure {name} could not be drawn (ValueError: nothing to draw)") == times
    whole = made.parent
    record = rows_of(whole / "predictions.csv")
    assert list(record[0]) == ["method", "subject", "repeat", "fold", "label", "nwbv", "cdr", "age", "sex"]
    errors = [[float(row["nwbv"]) - float(row["label"]) for row in record if row["repeat"] == r] for r in "12"]
    maes = [sum(map(abs, one)) / len(one) for one in errors]
    mae, sd = sum(maes) / 2, abs(maes[0] - maes[1]) / math.sqrt(2)
    assert len(record) == 16 and all(0.7 <= float(row["label"]) <= 0.76 for row in record) and 0 < mae < 1
    scores = json.loads((whole / "summary.json").read_text())["scores"]["network"]
    assert math.isclose(scores["mae"]["mean"], mae, rel_tol=1e-6) and math.isclose(
        scores["mae"]["sd"], sd, rel_tol=1e-6
    )
    assert math.isclose(scores["bias"]["mean"], sum(map(sum, errors)) / 16, abs_tol=1e-6)
    assert math.isclose(json.loads((made / "results_evaluate.json").read_text())["test_mae"], maes[0], rel_tol=1e-4)
    page = (whole / "results.md").read_text()
    assert f"| mean absolute error | {mae:.4g} ± {sd:.2g} |" in page and "AUC" not in page and "AD" not in page
    assert "mean absolute error" in told and f"network   {mae:.4g} ± {sd:.2g}" in told and "AUC" not in told
    assert {path.name for path in (whole / "figures").iterdir()} == {"target_predicted.png", "code_sizes.png"}
    assert (made / "figures" / "evaluate_predicted.png").is_file() and not (whole / "model_card.md").exists()
    metadata = json.loads((whole.parent / "cae" / "configs" / "metadata.json").read_text())
    assert metadata["network_data_format"]["post_processed_outputs"]["pred"]["channel_def"] == {"0": "nWBV"}
    card = (whole.parent / "cae" / "docs" / "README.md").read_text()
    assert "Label: nWBV." in card and "| mae |" in card and "patients" not in card
    assert "has no column probability" in mistake(read_predictions, str(whole))  # `monai-cae compare` is for classes
    with pytest.raises(MonaiCaeError, match=r"the labels of .*datalist\.json are nWBV, and this is for patients"):
        read_datalist(made / "datalist.json", discs)
    assert "nWBV from 0." in told and list(predicted[0]) == ["subject", "file", "seen_in_training", "nwbv"]
    tested = {row["subject"]: float(row["nwbv"]) for row in rows_of(made / "predictions.csv")}
    both = [(float(row["nwbv"]), tested[row["subject"]]) for row in predicted if row["subject"] in tested]
    assert both and all(abs(a - b) < 1e-4 for a, b in both)
    assert len({round(value, 5) for value in tested.values()}) > 1
    options = {"run_id": "run", "checkpoint": str(made / "models" / "model.pt")}
    said = mistake(run_bundle, "inference.json", discs / "disc1", whole / "again", **options)
    assert "was trained with target 'BadlyDrawn(centre=0.73, scale=0.02)', not Diagnosis(): take the target" in said


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"stages#train#calibrate": True}, "train: calibrate is for two classes, and the target is nWBV: leave it out"),
        ({"stages#train#learn": "linear_probe"}, "train: linear_probe is for two classes"),
        ({"stages#evaluate#threshold": "youden"}, "evaluate: threshold is for two classes"),
        ({"baselines": ["majority"]}, "baselines is for two classes"),
        ({"cohort#controls": "all"}, "cohort#controls is about classes, and the target is nWBV: leave it out"),
        ({"stages#classifier": {"covariates": {"nWBV": [0.7, 0.1]}}}, "nWBV is what the network predicts"),
    ],
)
def test_what_makes_no_sense_for_a_number_is_refused(run_bundle, discs, tmp_path, settings, message):
    config = ["experiment.yaml", str(EXAMPLES / "with_brain_volume.yaml")]
    assert message in mistake(run_bundle, config, discs, tmp_path / "out", repeats=1, **settings)
    assert not (tmp_path / "out" / "experiment.json").exists()


PLACE = {"centre": 0.73, "scale": 0.02}
SLICES = {"plane": "@plane", "slice_index": "@slice_index"}


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"target": {"_target_": "brain_volume.BrianVolume"}}, "Python finds no brain_volume.BrianVolume"),
        ({"target": {"_target_": "brain_volume.BrainVolume", "center": 1}}, "unexpected keyword argument 'center'"),
        ({"target": {"_target_": "plugins.mistaken.Nothing"}}, "abstract methods activation, headline, loss, name"),
        ({"target": "brain_volume.BrainVolume"}, "target must be a monai_cae.targets.Target"),
        ({"target": {"_target_": "plugins.mistaken.ColumnOfOthers", **PLACE}}, "the column age is another's in the"),
        ({"target": {"_target_": "plugins.mistaken.UnknownMetric", **PLACE}}, "val_rmse is neither val_loss nor"),
        ({"target": {"_target_": "plugins.mistaken.OtherClasses", **PLACE}}, "other classes are numbers, 0 and 1"),
        ({"target": {"_target_": "plugins.mistaken.Alike", **PLACE}}, "nWBV is 0.75 for all of 24 scans"),
        (
            {"target": {"_target_": "plugins.mistaken.NoValue", **PLACE}},
            "NoValue has no method value(scan), which",
        ),
        ({"target": {"_target_": "plugins.mistaken.Text", **PLACE}}, "nWBV of OAS1_0001_MR1 is 'F'; it must be a num"),
        ({"stages": {"classifier": {"target": {"_target_": "a.B"}}}}, "classifier under stages has a target"),
        ({"variants": {"v": {"train": {"target#x": 1}}}}, "train under variants v has a target"),
        (
            {"extraction": "one slice"},
            "extraction must be of the kind Extraction, such as {_target_: my_package.MyClass}",
        ),
        ({"layout": "mine"}, "layout must be of the kind Layout"),
        (
            {"extraction": {"_target_": "plugins.mistaken.ThreeAnnounced", **SLICES}},
            "shape (2, 20, 24), and its channe",
        ),
        ({"stages": {"pretrain": {"network_def#_target_": "plugins.mistaken.NoEncoder"}}}, "NoEncoder has no encoder"),
    ],
)
def test_a_part_with_a_mistake_is_refused_before_the_first_training(run_bundle, discs, tmp_path, changed, message):
    with pytest.raises(Exception) as raised:
        run_bundle("experiment.yaml", discs, tmp_path / "out", repeats=1, **changed)
    assert message in str(find_mistake(raised.value)) and not list(tmp_path.rglob("*.pt"))


def test_its_loss_is_what_it_was_trained_with():
    network = random_network("autoencoder")
    own = ShrinkingAutoencoder(network.encoder, network.decoder)
    image = torch.rand(2, 1, 16, 16, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        output, code = own(image), network.encoder(image)
        expected = ((network(image) - image) ** 2).mean() + 0.5 * (code**2).mean()
        assert math.isclose(float(ShrinkingLoss(0.5)(output, image)), float(expected), rel_tol=1e-5)
        assert torch.equal(reconstruction_of(own, output), network(image))
        assert torch.equal(reconstruction_of(network, (image, code)), image)  # the first, where nothing else is said


def test_an_output_without_an_image_is_one_line():
    network = random_network("autoencoder")
    assert "ConvAutoencoder returns str: give it a method reconstruction_of" in mistake(reconstruction_of, network, "x")


@pytest.fixture(scope="module")
def numbered(tmp_path_factory):
    """24 persons, whose scans have other numbers than their rows, and a scan of nobody."""
    root = tmp_path_factory.mktemp("numbered")
    rows = ["ID;CDR;age;number"]
    for index in range(24):
        rows.append(f"person {index};{(0, 0.5)[index % 2]};{60 + index};{100 - index}")
        path = root / "scans" / str(100 - index) / "brain.nii.gz"
        path.parent.mkdir(parents=True)
        nib.Nifti1Image(volume(index, index % 2), np.eye(4)).to_filename(path)
    (root / "who.txt").write_text("\n".join(rows))
    (root / "scans" / "7").mkdir()
    (root / "scans" / "7" / "brain.nii.gz").touch()
    return root


def test_a_layout_of_ones_own(through, numbered):
    made, predicted = through("with_numbered_scans.yaml", numbered, "scans/95")
    content = json.loads((made / "datalist.json").read_text())
    items = [item for name in ("training", "validation", "test") for item in content[name]]
    # of person 5 the CDR is 0.5 and the scan is 95
    assert {item["subject"]: (item["image"], item["label"]) for item in items} == {
        f"person {index}": (f"scans/{100 - index}/brain.nii.gz", index % 2) for index in range(24)
    }
    assert content["recipe"]["layout"] == content["made_from"]["layout"] == "numbered scans"
    assert content["recipe"]["left_out"] == {"images without a row in the table": 1}
    results = json.loads((made / "results_evaluate.json").read_text())
    assert 0 < results["test_psnr"] < 60 and 0 <= results["test_auc"] <= 1
    assert len(predicted) == 1 and 0 <= float(predicted[0]["probability"]) <= 1


def test_a_layout_of_ones_own_that_does_not_fit_is_one_line(numbered, discs, tmp_path):
    said = mistake(load_cohort, discs, layout=NumberedScans())
    assert said == f"{discs} does not look like numbered scans: check --dataset_dir and --layout"
    (tmp_path / "who.txt").write_text("ID;CDR;number\nperson 1;0;1\n")
    said = mistake(load_cohort, tmp_path, layout=NumberedScans())
    assert said.startswith(f"no images in {tmp_path} where numbered scans would have them")
    assert "layout must be an object with name, detect, images and rows" in mistake(read_scans, discs, layout="mine")
    assert read_scans(numbered, layout=NumberedScans()).layout == "numbered scans"


def test_two_slices_as_channels(through, run_bundle, discs, tmp_path):
    made, predicted = through("with_two_slices.yaml", baselines=["linear_svm", "code_logistic"])
    assert_predicts_as_tested(made, predicted)
    brain = volume(1, 1).astype(float)[2:18, 4:20]
    expected = scaled(np.stack([brain[..., 7], brain[..., 10]]))
    np.testing.assert_allclose(given_to_the_network(made, "OAS1_0002"), expected, atol=1e-6)
    checkpoint = str(made / "models" / "autoencoder.pt")
    weights = torch.load(checkpoint, weights_only=True)
    assert (
        weights["encoder.blocks.0.0.weight"].shape == (32, 2, 3, 3) and weights["decoder.output.0.weight"].shape[0] == 2
    )
    recorded = trained_with(checkpoint)[checkpoint]
    assert {name: recorded[name] for name in ("extraction", "slice_index", "apart", "plane", "axes")} == {
        "extraction": "TwoSlices", "slice_index": 11, "apart": 3, "plane": "axial", "axes": "anatomical"
    }  # fmt: skip
    assert "the same values in axial slices 8 and 11 of two subjects" in looked_for(made)
    assert {row["method"] for row in rows_of(made.parent / "predictions.csv")} >= {"linear_svm", "code_logistic"}
    assert "sees axial slices 8 and 11 of a volume" in (made.parent / "model_card.md").read_text()
    assert_tells_what_it_sees(made, "axial slices 8 and 11", 2, [16, 16, 1], [16, 16])
    # a run's folder predicts as its package does, and an autoencoder of other slices is refused
    assert main(["predict", str(made), str(discs / "disc1"), str(tmp_path / "out"), "--device", "cpu"]) == 0
    assert [row["probability"] for row in rows_of(tmp_path / "out" / "predictions.csv")] == [
        row["probability"] for row in predicted
    ]
    other = {"_target_": "two_slices.TwoSlices", "plane": "@plane", "slice_index": "@slice_index", "apart": 2}
    given = {"pretrained": checkpoint, "extraction": other, "max_epochs": 1}
    said = mistake(run_bundle, "train.json", discs, tmp_path / "other", **given)
    assert "was trained with extraction#apart 3, not 2: give --extraction#apart 3, or another checkpoint" in said


def test_a_figure_of_ones_own_and_one_with_a_mistake(through, tracking_uri, tmp_path, capfd):
    overlay = yaml.safe_load((EXAMPLES / "with_code_map.yaml").read_text())
    mistaken = {"_target_": "plugins.mistaken.no_such_column", "_mode_": "callable"}
    left_out = {"figures#confusion_matrix": None, "figures#decoder": None}
    quick = {"figures#explanations#method": "smooth_gradient"}
    overlay["+stages"]["evaluate"].update({"figures#broken": mistaken, **left_out, **quick})
    (tmp_path / "with_mistake.yaml").write_text(yaml.safe_dump(overlay))
    made, predicted = through(tmp_path / "with_mistake.yaml")
    drawn = {path.name for path in (made / "figures").glob("evaluate_*.png")}
    explained = {"evaluate_explanations.png", "evaluate_explanations_groups.png"}
    assert drawn == {"evaluate_roc.png", "evaluate_code_map.png", *explained}
    line = "the figure broken could not be drawn (KeyError: 'no such column\\nin the table')"
    assert capfd.readouterr().err.count(line) == 1
    results = json.loads((made / "results_evaluate.json").read_text())
    client = MlflowClient(tracking_uri)
    assert {Path(one.path).name for one in client.list_artifacts(results["run_id"], "figures")} == {
        *drawn,
        "evaluate_explanations_tests.csv",
    }
    assert client.get_run(results["run_id"]).info.status == "FINISHED"
    assert len(predicted) == 12


def test_a_figure_that_is_not_there_ends_an_experiment_before_its_first_training(run_bundle, discs, tmp_path):
    given = {"evaluate": {"figures#mine": {"_target_": "code_map.CodeMap"}}}
    said = mistake(run_bundle, "experiment.yaml", discs, tmp_path / "out", repeats=1, stages=given)
    assert said.startswith("evaluate: ") and "most" in said and not list((tmp_path / "out").glob("repeat_*"))
