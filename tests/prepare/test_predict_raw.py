"""`monai-cae predict MODEL RAW OUT --prepare`: what is predicted, what is not, and what is said of each."""

from __future__ import annotations

import csv
import sys
from functools import partial
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import torch
from dicoms import SECRETS, write_series
from fake_preparation import FAIL, REFUSE, REVIEW, fake
from monai.transforms import Compose, ScaleIntensityd
from tiny import mistake, random_network, write_pair

from monai_cae.cli import main
from monai_cae.data import NetworkInput, SliceExtraction
from monai_cae.data.template import FRAME_SHAPE, frame_affine
from monai_cae.networks import ConvEncoder, EncoderClassifier, save_weights
from monai_cae.prepare import cohort
from monai_cae.targets import Diagnosis

SETTINGS = ("--image-size", "16", "--device", "cpu")


@pytest.fixture(autouse=True)
def own_process(monkeypatch):
    """What a command changes in its process stays in its test; preparation takes no time."""
    monkeypatch.setattr(sys, "argv", sys.argv)
    monkeypatch.setattr(sys, "excepthook", sys.excepthook)
    monkeypatch.setattr(cohort, "prepare_cohort", partial(cohort.prepare_cohort, prepare=fake))
    monkeypatch.setenv("MONAI_CAE_ID_KEY", "a key for this test")


def write_model(
    folder: Path, up: float = 0, covariates: dict[str, list[float]] | None = None, image: Path | None = None
) -> Path:
    """A network with random weights, whose record says that it learned from persons of 60 to 84 in the prepared frame,
    so many mm above it, or in the image's."""
    affine = frame_affine()
    affine[2, 3] += up
    folder.mkdir(parents=True)
    nib.save(nib.Nifti1Image(np.ones(FRAME_SHAPE, np.uint8), affine), folder / "frame.nii")
    seen = NetworkInput(SliceExtraction(), 16, Compose([ScaleIntensityd("image")]), covariates or {}, Diagnosis())
    record = seen.record([{"image": image or folder / "frame.nii", "age": age} for age in (60.5, 83.2)])
    network = random_network("classifier")
    if covariates:
        network = EncoderClassifier(encoder=ConvEncoder(), spatial_size=(16, 16), covariates=covariates)
        for name, tensor in network.state_dict().items():
            if "covariate" in name:
                torch.nn.init.constant_(tensor, 0.5)
    save_weights(network, folder / "model.pt", network_input=record)
    return folder / "model.pt"


@pytest.fixture(scope="module")
def model(tmp_path_factory) -> Path:
    return write_model(tmp_path_factory.mktemp("model") / "usual")


def write_scans(root: Path, scans: dict[str, tuple[int, str]]) -> Path:
    """Name -> what `fake` is to do, and the age in the table."""
    root.mkdir()
    for name, (brightest, _) in scans.items():
        volume = np.zeros((6, 7, 8), np.int16)
        volume[2:4, 2:5, 2:5] = 100
        volume[0, 0, 0] = brightest
        nib.save(nib.Nifti1Image(volume, np.diag([20.0, 20, 20, 1])), root / f"{name}.nii.gz")
    if any(age for _, age in scans.values()):
        rows = [f"{name},{age}" for name, (_, age) in scans.items()]
        (root / "table.csv").write_text("\n".join(["ID,Age", *rows]) + "\n")
    return root


def predict(*arguments: object) -> int:
    return main(["predict", *map(str, arguments), "--prepare", *SETTINGS])


def rows_of(path: Path) -> dict[str, dict[str, str]]:
    with path.open() as file:
        return {row["scan"]: row for row in csv.DictReader(file)}


def test_what_passes_is_predicted_and_what_does_not_has_no_probability(model, tmp_path, capsys):
    raw = write_scans(
        tmp_path / "raw", {"S0": (500, "70"), "S1": (REVIEW, "34"), "S2": (FAIL, "71"), "S3": (REFUSE, "72")}
    )
    out = tmp_path / "out"
    assert predict(model, raw, out) == 0
    said = capsys.readouterr().out
    rows = rows_of(out / "predictions.csv")
    assert {name: (row["qc"], bool(row["probability"])) for name, row in rows.items()} == {
        "sub-S0": ("pass", True), "sub-S1": ("review", True), "sub-S2": ("fail", False), "sub-S3": ("error", False),
    }  # fmt: skip
    assert rows["sub-S0"]["warnings"] == rows["sub-S0"]["qc_reasons"] == ""
    assert rows["sub-S1"]["warnings"] == "age 34 is outside the training's 60 to 84"
    assert rows["sub-S1"]["qc_reasons"] == "Dice of the mask with the template's: 0.9"
    assert rows["sub-S2"]["qc_reasons"].startswith("Dice of the mask with the template's: 0.5; scans that failed")
    assert "has no brain in it" in rows["sub-S3"]["qc_reasons"] and rows["sub-S3"]["class"] == ""
    for line in (
        "2 of 4 scans predicted: ",
        "! sub-S2: fail, not predicted (Dice of the mask",
        "! sub-S3: error, not predicted (",
        "! sub-S1: age 34 is outside the training's 60 to 84",
        "! sub-S1: to review (Dice of the mask",
    ):
        assert line in said
    # the same as two commands, and repeated it replaces nothing unasked
    assert main(["predict", str(model), str(out / "prepared"), str(tmp_path / "again"), *SETTINGS]) == 0
    with (tmp_path / "again" / "predictions.csv").open() as file:
        alone = {row["subject"]: row["probability"] for row in csv.DictReader(file)}
    assert alone == {name: row["probability"] for name, row in rows.items() if row["probability"]}
    image = next((out / "prepared" / "sub-S0").rglob("*_T1w.nii.gz"))
    made = image.stat().st_mtime_ns
    assert predict(model, raw, out) == 1
    assert "predictions.csv already exists: --overwrite true replaces it" in capsys.readouterr().err
    assert predict(model, raw, out, "--overwrite", "true") == 0
    assert image.stat().st_mtime_ns == made and rows_of(out / "predictions.csv") == rows


def test_a_decision_on_the_page_counts(model, tmp_path):
    raw, out = write_scans(tmp_path / "raw", {"S0": (500, ""), "S1": (FAIL, "")}), tmp_path / "out"
    assert predict(model, raw, out) == 0
    table = out / "prepared" / "qc.tsv"
    lines = [line.split("\t") for line in table.read_text().splitlines()]
    for row in lines[1:]:
        row[2] = {"sub-S0": "drop", "sub-S1": "keep"}[row[0]]
    table.write_text("\n".join("\t".join(row) for row in lines) + "\n")
    assert predict(model, raw, out, "--overwrite", "true") == 0
    rows = rows_of(out / "predictions.csv")
    assert {name: bool(row["probability"]) for name, row in rows.items()} == {"sub-S0": False, "sub-S1": True}
    assert rows["sub-S0"]["qc_reasons"] == "scans dropped in qc.tsv"


def test_nothing_predicted_is_told_in_the_exit_status(model, tmp_path, capsys):
    raw = write_scans(tmp_path / "raw", {"S0": (FAIL, ""), "S1": (FAIL, "")})
    assert predict(model, raw, tmp_path / "out") == 1
    rows = rows_of(tmp_path / "out" / "predictions.csv")
    assert {row["qc"] for row in rows.values()} == {"fail"} and "probability" not in rows["sub-S0"]
    assert "0 of 2 scans predicted" in capsys.readouterr().out


def test_a_dicom_folder_becomes_a_probability_and_nobody_is_named(model, tmp_path, capsys):
    write_series(tmp_path / "Featherstone" / "t1")
    out = tmp_path / "out"
    assert predict(model, tmp_path / "Featherstone", out) == 0
    said = capsys.readouterr()
    ((name, row),) = rows_of(out / "predictions.csv").items()
    assert 0 <= float(row["probability"]) <= 1 and row["qc"] == "pass" and name.startswith("sub-s")
    for path in out.rglob("*"):
        content = path.read_bytes() if path.is_file() else b""
        assert not any(text.encode() in content or text in path.name for text in SECRETS), path
    assert not any(text in said.out + said.err for text in SECRETS if text != "Featherstone")


def test_a_network_of_another_frame_refuses_or_warns(tmp_path):
    raw, lower = write_scans(tmp_path / "raw", {"S0": (500, "")}), write_model(tmp_path / "lower", up=-7)
    said = mistake(predict, lower, raw, tmp_path / "out")
    assert "lies 7 mm from the training's (limit 5 mm)" in said and "--allow_other_frame true" in said
    assert not (tmp_path / "out" / "predictions.csv").exists()
    assert predict(lower, raw, tmp_path / "out", "--allow-other-frame", "true") == 0
    (row,) = rows_of(tmp_path / "out" / "predictions.csv").values()
    assert "lies 7 mm from the training's (limit 5 mm)" in row["warnings"]


def test_a_network_of_volumes_without_a_place_warns_in_every_row(tmp_path):
    raw = write_scans(tmp_path / "raw", {"S0": (500, "")})
    write_pair(tmp_path / "discs" / "OAS1_0001_MR1.img", np.ones(FRAME_SHAPE))
    oasis = write_model(tmp_path / "oasis", image=tmp_path / "discs" / "OAS1_0001_MR1.hdr")
    assert predict(oasis, raw, tmp_path / "out") == 0
    (row,) = rows_of(tmp_path / "out" / "predictions.csv").values()
    assert row["warnings"] == (
        "the training's volumes record no place, as OASIS-1's processed ones: what is seen may lie up to 5 mm off"
    )


def test_covariates_come_from_the_rows_of_the_sessions(tmp_path):
    scans = {"P1_visit1": (500, "65"), "P1_visit2": (500, "81"), "P2_visit1": (500, ""), "P3_visit1": (500, "75")}
    raw, aware = write_scans(tmp_path / "raw", scans), write_model(tmp_path / "aware", covariates={"age": [75, 8]})
    assert predict(aware, raw, tmp_path / "out", "--covariates", '{"age": [75, 8]}') == 0
    rows = rows_of(tmp_path / "out" / "predictions.csv")
    logits = {name: float(np.log(p / (1 - p))) for name, row in rows.items() if (p := float(row["probability"]))}
    first = logits["sub-P1_ses-visit1"]
    # one image, so what differs is half of the scaled age: (81 - 65) / 8 * 0.5, and 0 for whom it is not known
    assert logits["sub-P1_ses-visit2"] - first == pytest.approx(1, abs=1e-3)
    assert logits["sub-P2_ses-visit1"] - first == pytest.approx((75 - 65) / 8 / 2, abs=1e-3)
    assert logits["sub-P3_ses-visit1"] == pytest.approx(logits["sub-P2_ses-visit1"], abs=1e-3)
    assert rows["sub-P2_ses-visit1"]["warnings"] == "age is not known: taken to be average"
    assert rows["sub-P3_ses-visit1"]["warnings"] == ""


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (("--slice-indx", "3"), "unknown setting --slice_indx: did you mean --slice_index?"),
        (("--slice-index", "7"), "was trained with slice_index 106, not 7"),
        (("--channels", "[4,8]"), "model.pt"),
        (("--threshold", "high"), "threshold must be"),
    ],
)
def test_settings_that_can_t_predict_are_told_before_anything_is_prepared(model, tmp_path, settings, message):
    raw = write_scans(tmp_path / "raw", {"S0": (500, "")})
    assert message in mistake(predict, model, raw, tmp_path / "out", *settings)
    assert not (tmp_path / "out").exists()


def test_options_of_the_preparation_need_it(model, tmp_path, capsys):
    assert main(["predict", str(model), str(tmp_path), str(tmp_path / "out"), "--series", "3"]) == 1
    assert "--series is for raw scans: give --prepare, too, or leave it out" in capsys.readouterr().err
