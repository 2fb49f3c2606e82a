"""Pretraining without labels, and `monai-cae evaluate`: a finished model on a cohort that it has not seen."""

from __future__ import annotations

import csv
import io
import json
import re
import shlex
import shutil
import sys
from contextlib import redirect_stdout
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import torch
from drawing import drawing
from mlflow import MlflowClient
from sklearn import metrics
from tiny import CONFIGS, TINY, mistake, volume, write_discs, write_pair

from monai_cae.cli import main
from monai_cae.networks import trained_on
from monai_cae.sharing.settings import evaluation_settings
from monai_cae.training.stages.workflow import find_mistake


@pytest.fixture(scope="module")
def ixi(tmp_path_factory) -> Path:
    root = tmp_path_factory.mktemp("ixi")
    for number in range(12):
        path = root / f"IXI{number + 2:03}-Guys-{number + 800:04}-T1.nii.gz"
        nib.save(nib.Nifti1Image(volume(number + 500, 0), np.eye(4)), path)
    return root


def test_the_rule_of_a_given_datalist_is_the_networks(model, tmp_path):
    shutil.copytree(model, tmp_path / "run")
    path = tmp_path / "run" / "datalist.json"
    content = json.loads(path.read_text())
    recipe = {"task": "paper", "positive": "DX == 'AD'", "negative": "DX == 'CN'", "label_column": None}
    path.write_text(json.dumps({**content, "recipe": {**(content.get("recipe") or {}), **recipe}}))
    found = evaluation_settings(tmp_path / "run")
    assert (found["cohort#positive"], found["cohort#negative"]) == ("DX == 'AD'", "DX == 'CN'")


def test_an_autoencoder_is_pretrained_on_healthy_people_without_labels(run_bundle, ixi, discs, tmp_path):
    said = mistake(run_bundle, "pretrain.json", ixi, tmp_path / "with labels")
    assert "pretrain.json with --target#_target_ monai_cae.targets.Unlabelled trains the autoencoder" in said
    everybody = {"target#_target_": "monai_cae.targets.Unlabelled"}
    run_bundle("pretrain.json", ixi, tmp_path / "out", **everybody)
    sets = json.loads((tmp_path / "out" / "datalist.json").read_text())
    assert [len(sets[name]) for name in ("training", "validation", "test")] == [6, 2, 4]
    weights = tmp_path / "out" / "models" / "autoencoder.pt"
    assert len(trained_on(weights)) == 8
    said = mistake(run_bundle, "train.json", ixi, tmp_path / "out", **everybody)
    assert said == "there is nothing to predict with the target Unlabelled: it is for pretrain.json alone"
    run_bundle("train.json", discs, tmp_path / "trained", pretrained=str(weights), allow_other_frame=True)
    assert (tmp_path / "trained" / "models" / "model.pt").is_file()


# --- evaluate

SETTINGS = {
    **TINY,
    "max_epochs": 1,
    "repeats": 1,
    "cohort#positive": "CDR >= 0.5",
    "stages#evaluate#threshold": "youden",
}


@pytest.fixture(autouse=True)
def own_process(monkeypatch):
    """What a command changes in its process stays in its test."""
    monkeypatch.setattr(sys, "argv", sys.argv)
    monkeypatch.setattr(sys, "excepthook", sys.excepthook)


@pytest.fixture(scope="module")
def model(run_bundle, discs, tmp_path_factory) -> Path:
    """A network trained on 24 subjects, with its own test."""
    output = tmp_path_factory.mktemp("model") / "out"
    run_bundle("experiment.yaml", discs, output, **SETTINGS)
    return output / "repeat_1"


@pytest.fixture(scope="module")
def others(tmp_path_factory) -> Path:
    """22 other subjects, of whom 8 are patients: more controls than the paper's selection takes. Two of each class look
    like the other."""
    made = write_discs(tmp_path_factory.mktemp("made"), subjects=28, first=24)
    root = tmp_path_factory.mktemp("others")
    rows = rows_of(made / "oasis_cross-sectional.csv")
    controls, patients = ([row for row in rows if float(row["CDR"]) == cdr] for cdr in (0, 0.5))
    write_rows(root / "oasis_cross-sectional.csv", [*controls, *patients[:8]])
    for row in (*controls, *patients[:8]):
        (folder,) = made.glob(f"disc*/{row['ID']}")
        shutil.copytree(folder, root / "disc1" / row["ID"])
    for row in (*controls[:2], *patients[:2]):
        (image,) = (root / "disc1" / row["ID"]).rglob("*.img")
        write_pair(image, volume(int(row["Age"]) + 900, int(float(row["CDR"]) == 0)))
    return root


def rows_of(path: Path) -> list[dict[str, str]]:
    with path.open(encoding="utf-8-sig") as file:
        return list(csv.DictReader(file))


def summary_of(output: Path) -> dict:
    return json.loads((output / "summary.json").read_text())


def write_rows(path: Path, rows: list[dict[str, str]]) -> None:
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)


@pytest.fixture(scope="module")
def evaluated(model, others, tmp_path_factory):
    """The command, in this process: its folder, and what it said."""
    output, said = tmp_path_factory.mktemp("evaluated") / "out", io.StringIO()
    with redirect_stdout(said), drawing():
        assert main(["evaluate", str(model), str(others), str(output), "--device", "cpu"]) == 0
    return output, said.getvalue()


def test_everybody_of_the_cohort_is_tested_and_scored(evaluated, model):
    output, said = evaluated
    threshold = json.loads((model / "results_evaluate.json").read_text())["threshold"]
    rows = rows_of(output / "predictions.csv")
    assert len(rows) == 22 and len({row["subject"] for row in rows}) == 22
    truth = np.array([int(row["label"]) for row in rows])
    found = np.array([float(row["probability"]) for row in rows])
    assert truth.sum() == 8 and {float(row["threshold"]) for row in rows} == {threshold}
    assert {row["subject"]: row["cdr"] for row in rows}[rows[0]["subject"]] in ("0.0", "0.5")
    decided = found >= threshold
    expected = {
        "accuracy": metrics.accuracy_score(truth, decided),
        "sensitivity": metrics.recall_score(truth, decided),
        "specificity": metrics.recall_score(1 - truth, ~decided),
        "f1": metrics.f1_score(truth, decided),
        "auc": metrics.roc_auc_score(truth, found),
        "average_precision": metrics.average_precision_score(truth, found),
        "brier": metrics.brier_score_loss(truth, found),
    }
    scores = {row["score"]: row for row in rows_of(output / "scores.csv")}
    for name, value in expected.items():
        assert float(scores[name]["mean"]) == pytest.approx(value, abs=1e-4), name
    assert float(scores["auc"]["low"]) < expected["auc"] < float(scores["auc"]["high"]) or expected["auc"] in (0, 1)
    assert scores["ece"]["mean"] and scores["calibration_slope"]["mean"]
    results = json.loads((output / "results_evaluate.json").read_text())
    assert results["test_accuracy"] == pytest.approx(expected["accuracy"]) and results["test_psnr"] > 0
    groups = {(row["by"], row["group"]) for row in rows_of(output / "subgroups.csv")}
    assert {("sex", "F"), ("sex", "M"), ("cdr", "0.5")} <= groups and any(by == "age" for by, _ in groups)
    pictures = {path.stem for path in (output / "figures").iterdir()}
    assert pictures >= {"roc", "calibration", "own_test", "evaluate_roc", "evaluate_confusion_matrix"}
    assert "methods" not in pictures and "page  " in said


def test_the_page_tells_of_both_tests(evaluated, model, in_browser):
    output, _ = evaluated
    page, own = (output / "results.md").read_text(), json.loads((model / "results_evaluate.json").read_text())
    assert (
        "22 subjects: 8 AD (CDR >= 0.5), 14 HC (not (CDR >= 0.5)). Prevalence 36.4 %; 50.0 % in the network's own"
        in page
    )
    row = next(line for line in page.splitlines() if line.startswith("| AUC"))
    assert f"{own['test_auc']:.3f}" in row and len(row.split("|")) == 5
    assert f"| {own['test_psnr']:.2f} dB |" in page
    assert "by their names, and with the 16 images of the training by their pixels. audit.html" in page
    told = (output / "report.html").read_text()
    in_browser(output / "report.html")
    scores = json.loads((output / "summary.json").read_text())["scores"]["auc"]
    assert f"AUC {scores['mean']:.3f} [{scores['low']:.3f}, {scores['high']:.3f}]" in told.partition("<main")[0]
    wrong = [row["subject"] for row in rows_of(output / "errors.csv")]
    assert re.findall(r'<li class="person.*?<b>(.*?)</b>', told, re.DOTALL) == wrong
    assert told.count('alt="scan of ') == len(wrong) and "<script" not in told
    assert "patients (8): CDR 0.5 (8)" in page and "mean image" not in page and "| half size |" in page
    audit = json.loads((output / "audit.json").read_text())
    assert {name: one["n"] for name, one in audit["sets"].items()} == {"training": 0, "validation": 0, "test": 22}
    assert next(one for one in audit["checks"] if one["name"] == "Test subject in pretraining")["passed"] is True
    summary = json.loads((output / "summary.json").read_text())
    assert summary["prevalence"] == pytest.approx(8 / 22) and summary["own_test"]["subjects"] == 8


def test_the_printed_command_is_what_runs(evaluated, model, others):
    output, said = evaluated
    command = shlex.split(next(line for line in said.splitlines() if line.startswith("python -m monai.bundle run")))
    assert command[4] == "--config_file" and command[5].endswith("external.yaml']")
    given = dict(zip(command[6::2], command[7::2], strict=True))
    assert given["--checkpoint"] == str(model / "models" / "model.pt") and given["--dataset_dir"] == str(others)
    assert (
        given["--image_size"] == "16" and given["--slice_index"] == "11" and given["--cohort#positive"] == "CDR >= 0.5"
    )
    assert not {"--seed", "--split#kind", "--output", "--tracking_uri"} & given.keys() and given["--output_dir"] == str(
        output
    )


def test_mlflow_has_the_test_and_compare_reads_it(evaluated, capsys, tmp_path):
    output, _ = evaluated
    client = MlflowClient(f"sqlite:///{output}/mlruns.db")
    (run,) = client.search_runs([one.experiment_id for one in client.search_experiments()])
    assert run.data.metrics["test_auc"] >= 0 and run.info.status == "FINISHED"
    files = {file.path for file in client.list_artifacts(run.info.run_id)}
    assert files >= {"results.md", "predictions.csv", "scores.csv", "summary.json"}
    again = tmp_path / "again.csv"
    shutil.copy(output / "predictions.csv", again)
    assert main(["compare", str(output), str(again)]) == 0
    assert "22 subjects" in capsys.readouterr().out


@pytest.fixture
def refused(capsys):
    """What is said when `monai-cae evaluate` ends with exit status 1, in one line."""

    def call(*arguments: object) -> str:
        command = ["evaluate", *map(str, arguments), "--device", "cpu"]
        try:
            status = main(command)
        except RuntimeError as error:  # as MONAI wraps what a config refuses
            return str(find_mistake(error))
        line = capsys.readouterr().err.splitlines()[-1]
        return line.removeprefix("error: ") if status == 1 else ""

    return call


def test_subjects_that_the_network_has_seen_are_refused(refused, model, discs, tmp_path):
    said = refused(model, discs, tmp_path / "out")
    assert said.startswith("16 of 24 subjects were seen by the network in training, by their names, such as OAS1_")
    assert "--allow_leaks true" in said and not (tmp_path / "out" / "results_evaluate.json").exists()
    assert (
        main(["evaluate", str(model), str(discs), str(tmp_path / "out"), "--device", "cpu", "--allow-leaks", "true"])
        == 0
    )
    assert (
        "**LEAKY**: 16 found between the sets, the scores are worthless."
        in (tmp_path / "out" / "results.md").read_text()
    )


def renamed(discs: Path, root: Path, old: str, new: str) -> Path:
    """The same images and rows under other names."""
    rows = rows_of(discs / "oasis_cross-sectional.csv")
    for path in discs.glob("disc*/**/*_gfc.*"):
        copy = root / str(path.relative_to(discs)).replace(old, new)
        copy.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(path, copy)
    write_rows(root / "oasis_cross-sectional.csv", [{**row, "ID": row["ID"].replace(old, new)} for row in rows])
    return root


@pytest.mark.slow
def test_subjects_under_other_names_are_found_by_their_images(run_bundle, refused, model, others, tmp_path):
    """The training's images, while they are where its datalist says; afterwards the page says that nobody can tell."""
    discs = write_discs(tmp_path / "discs")
    run_bundle("experiment.yaml", discs, tmp_path / "run", **SETTINGS)
    trained, root = tmp_path / "run" / "repeat_1", renamed(discs, tmp_path / "renamed", "OAS1_0", "OAS1_7")
    said = refused(trained, root, tmp_path / "out")
    assert said.startswith("the network has seen images of this cohort in training, under other names: subjects OAS1_0")
    assert "in earlier training and in test (and 15 more); leave them out" in said
    assert not (tmp_path / "out").exists()
    evaluate = ["evaluate", str(trained), str(root), "--device", "cpu"]
    assert main([*evaluate[:3], str(tmp_path / "leaky"), *evaluate[3:], "--allow_leaks", "true"]) == 0
    assert "**LEAKY**: 16 found between the sets" in (tmp_path / "leaky" / "results.md").read_text()
    shutil.rmtree(discs / "disc1")  # 12 of 24 subjects
    assert "in earlier training and in test" in refused(trained, root, tmp_path / "out")
    shutil.rmtree(discs / "disc2")
    assert main([*evaluate[:3], str(tmp_path / "out"), *evaluate[3:]]) == 0
    page = (tmp_path / "out" / "results.md").read_text()
    assert "by their names alone: the images that the network was trained on are not at hand. The same person" in page
    assert json.loads((tmp_path / "out" / "audit.json").read_text())["images_of_training"] == {
        "compared": 0,
        "missing": 16,
    }


def test_volumes_that_say_where_they_lie_are_told_from_those_that_do_not(model, others, tmp_path):
    root, table = tmp_path / "nifti", []
    for row in rows_of(others / "oasis_cross-sectional.csv"):
        (image,) = others.glob(f"disc*/{row['ID']}/**/*_gfc.hdr")
        path = root / f"sub-{row['ID'][5:9]}" / "anat" / f"sub-{row['ID'][5:9]}_T1w.nii.gz"
        path.parent.mkdir(parents=True)
        nib.save(nib.Nifti1Image(np.asarray(nib.load(image).dataobj)[..., 0], np.eye(4)), path)
        table.append({"participant_id": f"sub-{row['ID'][5:9]}", "cdr": row["CDR"]})
    write_rows(root / "participants.csv", table)
    assert main(["evaluate", str(model), str(root), str(tmp_path / "out"), "--device", "cpu"]) == 0
    page = (tmp_path / "out" / "results.md").read_text()
    assert "**PLACE UNSURE**: the volumes of the network's training do not record where they lie" in page


def test_subjects_are_found_as_prepare_and_clinica_write_them(refused, model, discs, tmp_path):
    """BIDS labels have no punctuation: OAS1_0001 is sub-OAS10001 after `monai-cae prepare`."""
    for number, prefix in enumerate(("sub-OAS1", "sub-OASIS1")):
        root, table = tmp_path / f"bids{number}", []
        for row in rows_of(discs / "oasis_cross-sectional.csv"):
            label = row["ID"].replace("OAS1_", prefix).removesuffix("_MR1")
            (image,) = discs.glob(f"disc*/{row['ID']}/**/*_gfc.hdr")
            path = root / label / "anat" / f"{label}_T1w.nii.gz"
            path.parent.mkdir(parents=True)
            nib.save(nib.Nifti1Image(nib.load(image).get_fdata()[..., 0] + 1, None), path)  # other pixels
            table.append({"participant_id": label, "cdr": row["CDR"]})
        write_rows(root / "participants.csv", table)
        said = refused(model, root, tmp_path / "out", "--allow-other-frame", "true")
        assert said.startswith("16 of 24 subjects were seen by the network in training, by their names, such as sub-")


@pytest.mark.parametrize(
    ("change", "settings", "message"),
    [
        (lambda root: remove_column(root, "CDR"), [], "the table has no column CDR"),
        (lambda root: remove_column(root, "CDR"), [], "`monai-cae predict` predicts"),
        (lambda root: None, ["--plane", "coronal"], "was trained with plane axial, not coronal"),
        (lambda root: None, ["--slice-index", "9"], "was trained with slice_index 11, not 9"),
        (lambda root: None, ["--cohort#task", "ad"], "no patient (CDR >= 1) among 22 scans"),
        (
            lambda root: None,
            ["--threshold", "youden"],
            "the threshold is the network's own, or a number: no validation",
        ),
        (lambda root: None, ["--output-dir", "elsewhere"], "output_dir is given without a name"),
    ],
)
def test_what_can_not_be_tested_is_refused_in_one_line(refused, model, others, tmp_path, change, settings, message):
    root = tmp_path / "cohort"
    shutil.copytree(others, root)
    change(root)
    assert message in refused(model, root, tmp_path / "out", *settings)
    assert not (tmp_path / "out" / "results_evaluate.json").exists()


def remove_column(root: Path, name: str) -> None:
    table = root / "oasis_cross-sectional.csv"
    write_rows(table, [{key: value for key, value in row.items() if key != name} for row in rows_of(table)])


def test_an_experiment_and_nothing_are_no_model(refused, model, others, tmp_path):
    assert f"{model.parent} holds an experiment: give one of its runs" in refused(
        model.parent, others, tmp_path / "out"
    )
    assert "no model at nowhere: give an unpacked package, a run's folder or a checkpoint" in refused("nowhere", others)


def test_results_go_neither_into_the_model_nor_into_the_cohort(refused, model, others):
    for number, what in enumerate(("model", "cohort")):
        folder = (model, others)[number]
        assert refused(model, others, folder, "--overwrite", "true") == (
            f"{folder} is the folder of the {what}: choose another folder for the results"
        )
    assert (model / "results_evaluate.json").is_file() and not (others / "results.md").exists()


@pytest.mark.slow
def test_a_package_is_tested_like_its_run(model, others, evaluated, tmp_path, capsys):
    assert main(["package", str(tmp_path / "cae.zip"), "--output-dir", str(model)]) == 0
    assert main(["bundle", str(tmp_path / "cae"), "--from", str(tmp_path / "cae.zip")]) == 0
    command = ["evaluate", str(tmp_path / "cae"), str(others), str(tmp_path / "out"), "--device", "cpu"]
    assert main([*command, "--cohort#task", "very-mild"]) == 0
    ours, theirs = (rows_of(folder / "predictions.csv") for folder in (tmp_path / "out", evaluated[0]))
    assert [(row["subject"], row["threshold"]) for row in ours] == [
        (row["subject"], row["threshold"]) for row in theirs
    ]
    probabilities = [[float(row["probability"]) for row in rows] for rows in (ours, theirs)]
    assert probabilities[0] == pytest.approx(probabilities[1], abs=1e-6)
    page = (tmp_path / "out" / "results.md").read_text()
    own = json.loads((model / "results_evaluate.json").read_text())
    assert f"| {own['test_auc']:.3f} |" in page and "the package's, without intervals" in page
    checkpoint = tmp_path / "cae" / "models" / "model.pt"
    tiny = [part for name in ("image_size", "slice_index") for part in (f"--{name}", str(TINY[name]))]
    assert main(["evaluate", str(checkpoint), str(others), str(tmp_path / "alone"), "--device", "cpu", *tiny]) == 0
    alone = rows_of(tmp_path / "alone" / "predictions.csv")
    assert [float(row["probability"]) for row in alone] == pytest.approx(probabilities[0], abs=1e-6)


def test_several_scans_of_a_subject_are_one_prediction(model, others, tmp_path):
    root = tmp_path / "cohort"
    shutil.copytree(others, root)
    one, other = sorted(root.rglob("*_gfc.img"))[:2]
    shutil.copy(one, other)
    table = root / "oasis_cross-sectional.csv"
    head, first, *rows = table.read_text().splitlines()
    name = first.split(",")[0]
    again = name.replace("MR1", "MR2")
    table.write_text("\n".join([head, first, first.replace(name, again), *rows]) + "\n")
    (folder,) = root.glob(f"disc*/{name}")
    for path in folder.rglob("*.???"):
        copy = root / "disc9" / again / path.name.replace(name, again)
        copy.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(path, copy)
    command = ["evaluate", str(model), str(root), str(tmp_path / "out"), "--device", "cpu"]
    assert main([*command, "--cohort#sessions", "all"]) == 0
    assert len(rows_of(tmp_path / "out" / "predictions_scans.csv")) == 23
    assert len(rows_of(tmp_path / "out" / "predictions.csv")) == 22
    (twice,) = [one for one in summary_of(tmp_path / "out")["caveats"] if one.startswith("COUNTED TWICE: ")]
    assert f"subjects {one.name[:9]} and {other.name[:9]} have the same pixels" in twice


def test_what_is_not_known_of_the_training_is_a_caveat(refused, model, others, tmp_path, monkeypatch):
    """Weights without subjects, another rule than the network has learned, and pseudonyms on the page."""
    monkeypatch.setenv("MONAI_CAE_ID_KEY", "a key of this test alone")
    for name in ("model.pt", "autoencoder.pt"):
        plain = dict(torch.load(model / "models" / name, weights_only=True))
        torch.save(plain, tmp_path / name)
    tiny = [part for name in ("image_size", "slice_index") for part in (f"--{name}", str(TINY[name]))]
    assert (
        main(["evaluate", str(tmp_path / "model.pt"), str(others), str(tmp_path / "out"), "--device", "cpu", *tiny])
        == 0
    )
    page = (tmp_path / "out" / "results.md").read_text()
    assert (
        "**TRAINING UNKNOWN**: whether the network has seen these subjects is not known, as the weights do not" in page
    )
    assert "| AUC |" in page and page.count("| not known |") == 13 and "OTHER LABELS" not in page
    assert "PLACE UNSURE" not in page
    command = ["evaluate", str(model), str(others), str(tmp_path / "hidden"), "--device", "cpu", "--hash-ids", "true"]
    said = refused(*command[1:4], "--hash-ids", "true")
    assert said.startswith("whether the network has seen these subjects can't be told") and "--hash_ids false" in said
    assert main([*command, "--cohort#task", "very-mild", "--allow-leaks", "true"]) == 0
    page = (tmp_path / "hidden" / "results.md").read_text()
    other = "the network learned CDR >= 0.5 against not (CDR >= 0.5), and is tested on CDR == 0.5 against CDR == 0."
    assert other in page and "OAS1" not in page
    assert all(row["subject"].startswith("s") for row in rows_of(tmp_path / "hidden" / "predictions.csv"))


def test_a_target_that_is_a_number_is_tested_too(run_bundle, discs, others, tmp_path):
    overlay = str(CONFIGS.parents[1] / "examples" / "with_brain_volume.yaml")
    run_bundle(["experiment.yaml", overlay], discs, tmp_path / "out", max_epochs=1, repeats=1)
    model, output = tmp_path / "out" / "repeat_1", tmp_path / "tested"
    assert main(["evaluate", str(model), str(others), str(output), "--device", "cpu"]) == 0
    rows = rows_of(output / "predictions.csv")
    error = np.mean([abs(float(row["nwbv"]) - float(row["label"])) for row in rows])
    (row,) = (row for row in rows_of(output / "scores.csv") if row["score"] == "mae")
    assert len(rows) == 22 and float(row["mean"]) == pytest.approx(error, rel=1e-3)
    page, own = (output / "results.md").read_text(), json.loads((model / "results_evaluate.json").read_text())
    assert f"| mean absolute error | {error:.4g} | {own['test_mae']:.4g} |" in page
    assert "22 subjects; 8 in the network's own test set." in page and "AUC" not in page and "Prevalence" not in page


def test_no_setting_is_needed(tmp_path, capsys):
    """All else that is refused comes after the settings were read."""
    assert main(["evaluate", str(tmp_path), str(tmp_path / "cohort"), str(tmp_path)]) == 1
    assert "is the folder of the model" in capsys.readouterr().err
