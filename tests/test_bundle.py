"""The bundle as its users run it: every config through monai.bundle, on a tiny cohort in OASIS-1's disk format."""

from __future__ import annotations

import csv
import io
import json
import re
import statistics
import threading
from contextlib import nullcontext, redirect_stdout
from pathlib import Path
from types import SimpleNamespace

import killing
import nibabel as nib
import numpy as np
import pytest
import torch
from drawing import drawing
from mlflow import MlflowClient
from monai.bundle import ConfigParser, ConfigWorkflow
from tiny import CONFIGS, TINY, mistake, write_discs

from monai_cae.cli import main
from monai_cae.networks import ConvAutoencoder, ConvDecoder, ConvEncoder, EncoderClassifier, save_weights

EPOCH_METRICS = {
    "pretrain": {"train_loss", "val_mse", "val_psnr", "val_psnr_brain"},
    "train": {"train_loss", "val_loss", "val_accuracy", "val_f1", "val_auc"},
}
TEST_METRICS = {
    f"test_{n}" for n in ("mse", "psnr", "psnr_brain", "accuracy", "f1", "auc", "sensitivity", "specificity")
}


@pytest.fixture(scope="module")
def experiment(run_bundle, discs, tracking_uri, tmp_path_factory):
    """Two repeats of the whole experiment."""
    output = tmp_path_factory.mktemp("experiment")
    name = "two repeats"
    run_bundle("experiment.yaml", discs, output, repeats=2, seed=7, experiment_name=name)
    client = MlflowClient(tracking_uri)
    found = client.search_runs([client.get_experiment_by_name(name).experiment_id])
    parent = next(run for run in found if run.data.tags["stage"] == "experiment")
    children = [run for run in found if run is not parent]
    summary = json.loads((output / "summary.json").read_text())
    return SimpleNamespace(output=output, client=client, parent=parent, children=children, summary=summary)


def predictions(path: Path) -> list[dict[str, str]]:
    with path.open(encoding="utf-8") as file:
        return list(csv.DictReader(file))


def test_every_config_is_run_by_a_test():
    run_here = {
        "pretrain.json",
        "train.json",
        "evaluate.json",
        "baselines.json",  # by tests/training/test_baselines.py
        "inference.json",
        "multi_gpu_train.json",
        "experiment.yaml",
        "external.yaml",  # by tests/test_external.py
        "with_phantom.yaml",
        "with_selection.yaml",  # by tests/experiment/test_protocol.py, as the next three
        "with_paper.yaml",
        "with_baselines.yaml",
        "with_learning_curve.yaml",
        "with_code_sizes.yaml",
        "with_search.yaml",  # by tests/experiment/test_search.py
        "with_networks.yaml",  # by tests/test_networks_overlay.py
        "with_denoising.yaml",  # by tests/test_autoencoder_overlays.py, as the next nine
        "with_joint.yaml",
        "with_inception.yaml",
        "with_pairs.yaml",
        "with_stacked.yaml",
        "with_masked.yaml",
        "with_k_sparse.yaml",
        "with_winner_take_all.yaml",
        "with_z_layer.yaml",
        "with_variational.yaml",
        "with_networks_3d.yaml",  # by tests/test_networks_3d.py
        "with_slab.yaml",  # by tests/test_slabs_and_volumes.py, as the next
        "with_volume.yaml",
        "with_slices.yaml",  # by tests/test_sample_overlays.py, as the next two
        "with_planes.yaml",
        "with_patches.yaml",
        "with_number.yaml",  # by tests/experiment/test_numbers_as_targets.py
        "drift.yaml",  # by tests/test_strangers.py
        "latent.yaml",  # by tests/test_latent.py
        "with_transfer.yaml",  # by tests/test_transfer.py, as the next
        "with_foreign_encoder.yaml",
    }
    made_from = CONFIGS / "src"  # compared in tests/test_configs.py
    found = {p.name for p in CONFIGS.rglob("*") if p.suffix in (".json", ".yaml") and p.parent != made_from}
    assert found == run_here | {"metadata.json"}


def test_autoencoders_of_other_code_sizes_are_beside_the_codecs(run_bundle, discs, tmp_path):
    files = ["experiment.yaml", "with_code_sizes.yaml"]
    settings = {"image_size": 16, "max_epochs": 1, "repeats": 1, "channels": [4, 8, 16]}
    run_bundle(files, dataset_dir=discs, output_dir=tmp_path / "out", **settings)
    rows = predictions(tmp_path / "out" / "reconstruction.csv")
    names = ["autoencoder", *(f"autoencoder, code of {size}" for size in (32, 8, 2)), "mean image"]
    assert [row["reconstruction"] for row in rows[:5]] == names
    assert [float(row["code_size"]) for row in rows[:4]] == [channels * 4 * 4 for channels in (16, 32, 8, 2)]
    smallest = predictions(tmp_path / "out" / "repeat_1" / "variants" / "code_of_2" / "reconstruction.csv")[0]
    assert float(rows[3]["psnr"]) == pytest.approx(float(smallest["psnr"]), rel=1e-4)
    assert "| autoencoder, code of 2 | 32 | 0.125 |" in (tmp_path / "out" / "results.md").read_text()
    assert (tmp_path / "out" / "figures" / "code_sizes.png").is_file()


def test_summary_is_mean_and_sd_of_the_repeats(experiment):
    for name in TEST_METRICS:
        values = experiment.summary["values"][name]
        mean_sd = experiment.summary["metrics"].get(name)  # of the autoencoder's; the classifier's have intervals too
        mean_sd = mean_sd or experiment.summary["scores"]["network"][name.removeprefix("test_")]
        assert len(values) == 2
        assert mean_sd["mean"] == pytest.approx(sum(values) / 2)
        assert mean_sd["sd"] == pytest.approx(statistics.stdev(values))
    assert experiment.summary["values"].keys() >= TEST_METRICS
    assert experiment.summary["subjects"] == {"training": 12, "validation": 4, "test": 8}
    assert experiment.summary["synthetic"] is False


def test_repeats_have_their_own_split_and_no_subject_in_two_sets(experiment):
    tests = []
    for repeat in (1, 2):
        sets = json.loads((experiment.output / f"repeat_{repeat}" / "datalist.json").read_text())
        subjects = [{item["subject"] for item in sets[name]} for name in ("training", "validation", "test")]
        assert len(set.union(*subjects)) == sum(map(len, subjects)) == 24
        tests.append(subjects[2])
    assert tests[0] != tests[1]


def test_runs_are_nested_named_once_and_finished(experiment):
    assert (
        sorted(run.data.tags["stage"] for run in experiment.children)
        == ["evaluate"] * 2 + ["pretrain"] * 2 + ["train"] * 2
    )
    everyone = [*experiment.children, experiment.parent]
    assert len({run.info.run_name for run in everyone}) == 7
    assert {run.info.status for run in everyone} == {"FINISHED"}
    assert {run.data.tags["mlflow.parentRunId"] for run in experiment.children} == {experiment.parent.info.run_id}


def test_runs_tell_their_data_and_what_the_networks_take(experiment, discs):
    assert experiment.parent.info.run_name == f"{discs.name} experiment, 2 repeats"
    assert {"accuracy", "auc", "f1", "psnr"} <= experiment.parent.data.metrics.keys()
    used = {
        "pretrain": ["training", "validation"],
        "train": ["training", "validation"],
        "evaluate": ["validation", "test"],
    }
    digests: dict[str, set[str]] = {}
    for run in experiment.children:
        stage, repeat = run.data.tags["stage"], run.data.tags["repeat"]
        assert run.info.run_name == f"{discs.name} repeat_{repeat} network {stage}"
        found = {one.tags[0].value: one.dataset for one in run.inputs.dataset_inputs}
        assert sorted(found) == sorted(used[stage])
        for name, dataset in found.items():
            assert dataset.name == f"{discs.name} {name}" and "OAS1_" not in str(dataset.to_dictionary())
            assert str(discs) not in str(dataset.to_dictionary())
            digests.setdefault(f"{repeat} {name}", set()).add(dataset.digest)
        if stage == "evaluate":
            profile = json.loads(found["test"].profile)
            assert profile == {"scans": 8, "subjects": 8, "AD": 4, "HC": 4, "synthetic": False}
    assert {len(each) for each in digests.values()} == {1}  # all stages of a repeat saw the same sets
    assert digests["1 test"] != digests["2 test"]


@pytest.mark.parametrize(("stage", "pred"), [("pretrain", (-1, 1, 16, 16)), ("train", (-1, 1))])
def test_signature_of_the_trained_network_is_an_artifact(experiment, tracking_uri, tmp_path, stage, pred):
    from mlflow.models import Model

    run = next(run for run in experiment.children if run.data.tags["stage"] == stage)
    path = MlflowClient(tracking_uri).download_artifacts(run.info.run_id, "model", str(tmp_path))
    model = Model.load(path)
    (image,), (output,) = model.signature.inputs.inputs, model.signature.outputs.inputs
    assert (image.name, image.shape, output.name, output.shape) == ("image", (-1, 1, 16, 16), "pred", pred)
    assert sum(file.stat().st_size for file in Path(path).rglob("*")) < 10_000  # no second copy of the weights


def test_metrics_are_logged_once_per_epoch(experiment):
    for run in experiment.children:
        for name in EPOCH_METRICS.get(run.data.tags["stage"], ()):
            history = experiment.client.get_metric_history(run.info.run_id, name)
            # train counts two epochs frozen and two of fine-tuning on
            assert [point.step for point in history] == list(
                range(1, {"pretrain": 3, "train": 5}[run.data.tags["stage"]])
            )
        if run.data.tags["stage"] == "evaluate":
            assert run.data.metrics.keys() >= TEST_METRICS
    assert experiment.parent.data.metrics["test_psnr_mean"] == pytest.approx(
        experiment.summary["metrics"]["test_psnr"]["mean"]
    )
    assert {
        "test_accuracy_mean",
        "test_accuracy_sd",
        "test_f1_mean",
        "test_auc_mean",
    } <= experiment.parent.data.metrics.keys()


def test_runs_hold_what_reproduces_them(experiment):
    run = next(
        run for run in experiment.children if run.data.tags["stage"] == "train" and run.data.params["seed"] == "8"
    )
    assert run.data.params["learning_rate"] == "0.001"
    assert run.data.params["batch_size"] == "4"
    assert run.data.params["cohort.task"] == "paper"
    assert "repeats" not in run.data.params
    assert run.data.tags["data"] == "real"
    assert "real data" in run.data.tags["mlflow.note.content"]
    assert {"python", "torch", "monai", "mlflow", "monai-cae"} <= run.data.params.keys()
    files = {item.path for item in experiment.client.list_artifacts(run.info.run_id)}
    assert {"config.json", "datalist.json", "figures", "audit.json", "audit.html"} <= files
    config = json.loads(Path(experiment.client.download_artifacts(run.info.run_id, "config.json")).read_text())
    assert config["seed"] == 8 and config["image_size"] == 16


EXPLAINED = {"evaluate_explanations.png", "evaluate_explanations_groups.png", "evaluate_explanations_tests.csv"}
EXPLAINED |= {"evaluate_decoder.png"}


@pytest.mark.parametrize(
    ("stage", "figures"),
    [
        ("pretrain", {"pretrain_reconstructions.png", "pretrain_feature_maps.png", "pretrain_training_curves.png"}),
        ("train", {"train_training_curves.png"}),
        ("evaluate", {"evaluate_roc.png", "evaluate_confusion_matrix.png", *EXPLAINED}),
    ],
)
def test_figures_are_in_mlflow_and_on_disk(experiment, stage, figures):
    run = next(run for run in experiment.children if run.data.tags["stage"] == stage)
    logged = {Path(item.path).name for item in experiment.client.list_artifacts(run.info.run_id, "figures")}
    assert logged == figures
    assert figures <= {path.name for path in (experiment.output / "repeat_1" / "figures").iterdir()}


def test_reported_scores_follow_from_the_predictions(experiment):
    rows = predictions(experiment.output / "repeat_1" / "predictions.csv")
    sets = json.loads((experiment.output / "repeat_1" / "datalist.json").read_text())
    assert {row["subject"]: int(row["label"]) for row in rows} == {
        item["subject"]: item["label"] for item in sets["test"]
    }
    labels = np.array([int(row["label"]) for row in rows])
    probabilities = np.array([float(row["probability"]) for row in rows])
    values = {name: v[0] for name, v in experiment.summary["values"].items()}
    assert values["test_accuracy"] == np.mean((probabilities >= 0.5) == labels)
    pairs = [(p > n) + 0.5 * (p == n) for p in probabilities[labels == 1] for n in probabilities[labels == 0]]
    assert values["test_auc"] == pytest.approx(np.mean(pairs))
    assert [int(row["prediction"]) for row in rows] == [int(p >= 0.5) for p in probabilities]


def by_hand(path: str) -> np.ndarray:
    """The network's input from the file, in NumPy: axial slice 11, centre 16 x 16 of 20 x 24, scaled to [0, 1]."""
    plane = np.asarray(nib.load(path).dataobj)[2:18, 4:20, 10, 0].astype(float)
    return (plane - plane.min()) / (plane.max() - plane.min())


def test_reported_psnr_follows_from_checkpoint_and_files(experiment, discs):
    folder = experiment.output / "repeat_1"
    network = ConvAutoencoder(encoder=ConvEncoder(), decoder=ConvDecoder())
    network.load_state_dict(torch.load(folder / "models" / "autoencoder.pt", weights_only=True))
    items = json.loads((folder / "datalist.json").read_text())["test"]
    images = np.stack([by_hand(str(discs / item["image"])) for item in items])
    with torch.no_grad():
        recon = network.eval()(torch.tensor(images[:, None], dtype=torch.float32)).numpy()[:, 0].astype(float)
    whole = [10 * np.log10(1 / np.mean((a - b) ** 2)) for a, b in zip(images, recon, strict=True)]
    brain = [10 * np.log10(1 / np.mean((a - b)[a > 0.03] ** 2)) for a, b in zip(images, recon, strict=True)]
    assert experiment.summary["values"]["test_psnr"][0] == pytest.approx(np.mean(whole), abs=1e-3)
    assert experiment.summary["values"]["test_psnr_brain"][0] == pytest.approx(np.mean(brain), abs=1e-3)


def test_inference_agrees_with_evaluation_for_folder_file_and_nifti(experiment, discs, run_bundle, tmp_path):
    folder = experiment.output / "repeat_1"
    expected = {row["subject"]: float(row["probability"]) for row in predictions(folder / "predictions.csv")}
    checkpoint = str(folder / "models" / "model.pt")
    run_bundle("inference.json", discs, tmp_path / "all", run_id="run", checkpoint=checkpoint)
    found = {
        Path(row["file"]).name[:9]: float(row["probability"])
        for row in predictions(tmp_path / "all" / "predictions.csv")
    }
    assert len(found) == 24
    assert {subject: found[subject] for subject in expected} == pytest.approx(expected, abs=1e-5)
    image = next(discs.rglob("OAS1_0003*.img"))
    nifti = tmp_path / "one scan.nii.gz"
    nib.save(nib.Nifti1Image(np.asarray(nib.load(image).dataobj)[..., 0], np.eye(4)), nifti)
    for path in (image, nifti):
        run_bundle("inference.json", path, tmp_path / path.suffix, checkpoint=checkpoint)
        (row,) = predictions(tmp_path / path.suffix / "predictions.csv")
        assert float(row["probability"]) == pytest.approx(found["OAS1_0003"], abs=1e-5)


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    """A classifier of random weights, large enough for probabilities from 0.47 to 0.56 on the cohort."""
    path = tmp_path_factory.mktemp("models") / "model.pt"
    torch.manual_seed(5)
    network = EncoderClassifier(encoder=ConvEncoder(), spatial_size=(16, 16))
    for weights in network.parameters():
        if weights.ndim > 1:
            torch.nn.init.kaiming_normal_(weights)
    save_weights(network, path)
    return str(path)


def test_inference_reads_ahead_without_changing_a_prediction(discs, checkpoint, run_bundle, tmp_path, capsys):
    settings = {"in turn": {"num_workers": 0}, "ahead": {"num_workers": 3}, "usual": {}}
    tables = []
    for name, options in settings.items():
        run_bundle("inference.json", discs, tmp_path / name, checkpoint=checkpoint, **options)
        tables.append((tmp_path / name / "predictions.csv").read_text())
    assert tables[0] == tables[1] == tables[2]
    rows = predictions(tmp_path / "usual" / "predictions.csv")
    assert [row["file"] for row in rows] == sorted(str(path) for path in discs.rglob("*.hdr")) and len(rows) == 24
    network = EncoderClassifier(encoder=ConvEncoder(), spatial_size=(16, 16)).eval()
    network.load_state_dict(torch.load(checkpoint, weights_only=True))
    images = torch.tensor(np.stack([by_hand(row["file"]) for row in rows])[:, None], dtype=torch.float32)
    with torch.no_grad():
        expected = torch.sigmoid(network(images))[:, 0].tolist()
    assert [float(row["probability"]) for row in rows] == pytest.approx(expected, abs=1e-5)
    positive = sum(value >= 0.5 for value in expected)
    assert np.std(expected) > 0.02 and 0 < positive < 24
    summary = rf"^24 scans in \d+\.\d s \(\d+\.\d per second\): {positive} predicted as AD"
    assert len(re.findall(summary, capsys.readouterr().out, re.MULTILINE)) == 3


def test_package_of_an_experiments_run_needs_no_trust(experiment, tmp_path, capsys):
    package = tmp_path / "cae.zip"
    assert main(["package", str(package), "--output_dir", str(experiment.output / "repeat_1")]) == 0
    assert "--trust" not in capsys.readouterr().out
    assert main(["package", str(package), "--check"]) == 0


def test_predictions_may_go_elsewhere(discs, checkpoint, run_bundle, tmp_path):
    elsewhere = tmp_path / "mine.csv"
    run_bundle("inference.json", discs, tmp_path / "out", checkpoint=str(checkpoint), predictions=str(elsewhere))
    assert len(predictions(elsewhere)) == 24


def test_inference_in_the_precision_that_is_fast_here(discs, checkpoint, run_bundle, tmp_path):
    found = []
    for precision in ("float32", "auto", "bfloat16"):
        run_bundle("inference.json", discs, tmp_path / precision, checkpoint=checkpoint, precision=precision)
        found.append([float(row["probability"]) for row in predictions(tmp_path / precision / "predictions.csv")])
    assert found[1] == pytest.approx(found[0], abs=0.01) and found[2] == pytest.approx(found[0], abs=0.01)
    assert found[2] != found[0]


@pytest.mark.parametrize("num_workers", [0, 2])
def test_one_broken_scan_of_many_ends_in_the_line_that_names_it(checkpoint, run_bundle, tmp_path, num_workers):
    root = write_discs(tmp_path / "cohort")
    broken = next(root.rglob("OAS1_0015*.img"))
    broken.write_bytes(broken.read_bytes()[:500])
    options = {"checkpoint": checkpoint, "num_workers": num_workers}
    found = mistake(lambda: run_bundle("inference.json", root, tmp_path / "out", **options))
    assert found.startswith("1 of 24 scans can't be used") and f"{broken} is truncated: 500 of" in found
    assert not (tmp_path / "out").exists()
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("reading")]


def test_inference_takes_the_volume_in_memory_when_loadimage_is_stripped(discs):
    """What MONAI Deploy and MONAI Label do."""
    parser = ConfigParser()
    parser.read_config(str(CONFIGS / "inference.json"))
    parser.update({"image_size": 16, "slice_index": 11})
    whole = parser.get_parsed_content("preprocessing")
    path = next(discs.rglob("OAS1_0003*.hdr"))
    in_memory = np.asarray(nib.load(path).dataobj)[..., 0].astype(np.float32)
    item = {"image": torch.tensor(in_memory)[None]}
    for transform in whole.transforms[2:]:
        item = transform(item)
    np.testing.assert_allclose(item["image"][0].numpy(), by_hand(str(path)), atol=1e-6)


@pytest.fixture(scope="module")
def stages(run_bundle, discs, tmp_path_factory):
    """The stages alone, by both names of what a config runs; the second time their figures are drawn."""
    made = []
    for run_id in ("run", "training"):
        output, said = tmp_path_factory.mktemp(run_id) / "out", []
        for stage in ("pretrain", "train", "evaluate"):
            with redirect_stdout(io.StringIO()) as printed, drawing() if made else nullcontext():
                run_bundle(f"{stage}.json", discs, output, run_id=run_id, seed=3)
            said.append(printed.getvalue())
        made.append(SimpleNamespace(output=output, printed=said))
    return made


def test_stages_alone_follow_one_another(stages):
    for made in stages:
        for stage, printed in zip(("pretrain", "train", "evaluate"), made.printed, strict=True):
            assert f"{stage} finished on real data" in printed
            assert "mlflow ui --backend-store-uri sqlite:///" in printed
            assert "not a medical device" in printed
        assert (made.output / "predictions.csv").is_file()
    figures = list((stages[1].output / "figures").glob("*.png"))
    assert len(figures) == 9 and all(path.stat().st_size > 5000 for path in figures)


def test_same_command_twice_gives_the_same_numbers(stages):
    for name in ("autoencoder", "model"):
        one, other = (torch.load(made.output / "models" / f"{name}.pt", weights_only=True) for made in stages)
        assert one.keys() == other.keys() and all(torch.equal(value, other[key]) for key, value in one.items())
    first, second = ((made.output / "predictions.csv").read_text() for made in stages)
    assert first == second


def test_with_phantom_changes_only_settings_that_the_experiment_has(run_bundle, discs, tmp_path):
    run_bundle(["experiment.yaml", "with_phantom.yaml"], discs, tmp_path / "out", **{"stages#train#max_epochs": 1})
    assert json.loads((tmp_path / "out" / "summary.json").read_text())["repeats"] == 1


def leaky_datalist(discs: Path, run_bundle, tmp_path: Path) -> Path:
    """A datalist in which the first training subject is in the test set under another name, as a copied file."""
    run_bundle("pretrain.json", discs, tmp_path / "clean", max_epochs=1)
    datalist = json.loads((tmp_path / "clean" / "datalist.json").read_text())
    datalist["test"].append({**datalist["training"][0], "subject": "OAS1_0900"})
    path = tmp_path / "leaky.json"
    path.write_text(json.dumps(datalist))
    return path


def test_leak_is_refused_unless_allowed_and_then_every_result_says_so(
    run_bundle, discs, tracking_uri, tmp_path, capsys
):
    path = str(leaky_datalist(discs, run_bundle, tmp_path))
    found = mistake(lambda: run_bundle("pretrain.json", discs, tmp_path / "out", datalist=path))
    assert found.startswith("leak between the sets: ") and "--allow_leaks true" in found
    assert not (tmp_path / "out").exists()
    options = {"datalist": path, "allow_leaks": True, "max_epochs": 1, "experiment_name": "leaky"}
    run_bundle("pretrain.json", discs, tmp_path / "out", **options)
    assert "LEAKY" in capsys.readouterr().out
    assert json.loads((tmp_path / "out" / "results_pretrain.json").read_text())["leaks"] > 0
    client = MlflowClient(tracking_uri)
    (run,) = client.search_runs([client.get_experiment_by_name("leaky").experiment_id])
    assert run.data.tags["leaks"] != "0" and "LEAKY" in run.data.tags["mlflow.note.content"]
    assert {"audit.json", "audit.html"} <= {item.path for item in client.list_artifacts(run.info.run_id)}


def test_autoencoder_that_has_seen_test_subjects_is_refused(run_bundle, discs, tmp_path):
    run_bundle("pretrain.json", discs, tmp_path / "one", max_epochs=1, seed=1)
    seen = str(tmp_path / "one" / "models" / "autoencoder.pt")
    found = mistake(lambda: run_bundle("train.json", discs, tmp_path / "two", seed=2, pretrained=seen))
    assert found.startswith("leak between the sets: ")


def test_random_weights_on_request(run_bundle, discs, tmp_path):
    run_bundle("train.json", discs, tmp_path / "out", pretrained="none")
    network = EncoderClassifier(encoder=ConvEncoder(), spatial_size=(16, 16))
    network.load_state_dict(torch.load(tmp_path / "out" / "models" / "model.pt", weights_only=True))


def test_classifier_starts_from_the_autoencoders_encoder(stages, discs, tmp_path):
    path = stages[0].output / "models" / "autoencoder.pt"
    weights = torch.load(path, weights_only=True)
    settings = {"dataset_dir": str(discs), "output_dir": str(tmp_path), **TINY, "pretrained": str(path), "seed": 3}
    workflow = ConfigWorkflow(str(CONFIGS / "train.json"), **settings)
    workflow.initialize()
    encoder = workflow.parser.get_parsed_content("network").encoder.state_dict()
    assert all(torch.equal(value, weights[f"encoder.{name}"]) for name, value in encoder.items())


def test_frozen_stage_leaves_the_encoder_alone(stages, discs, tmp_path):
    path = stages[0].output / "models" / "autoencoder.pt"
    before = torch.load(path, weights_only=True)
    options = {"dataset_dir": str(discs), "output_dir": str(tmp_path), **TINY, "pretrained": str(path), "seed": 3}
    workflow = ConfigWorkflow(str(CONFIGS / "train.json"), **options)
    workflow.initialize()
    network = workflow.parser.get_parsed_content("network")
    head = {name: value.clone() for name, value in network.head.state_dict().items()}
    workflow.parser.get_parsed_content("frozen#trainer").run()
    assert all(torch.equal(value, before[f"encoder.{name}"]) for name, value in network.encoder.state_dict().items())
    assert not torch.equal(head["1.weight"], network.head.state_dict()["1.weight"])
    workflow.parser.get_parsed_content("train#trainer").run()
    statistics_name = "blocks.0.2.running_mean"
    assert not torch.equal(network.encoder.state_dict()[statistics_name], before[f"encoder.{statistics_name}"])


def test_encoding_once_trains_the_same_dense_layers(stages, discs, tmp_path):
    path, heads = stages[0].output / "models" / "autoencoder.pt", []
    given = {"dataset_dir": str(discs), "output_dir": str(tmp_path), **TINY, "pretrained": str(path), "seed": 3}
    for encode_once in (True, False):
        options = {**given, "encode_once": encode_once}
        workflow = ConfigWorkflow(str(CONFIGS / "train.json"), **options)
        workflow.initialize()
        workflow.parser.get_parsed_content("frozen#trainer").run()
        network = workflow.parser.get_parsed_content("network")
        heads.append(network.state_dict())
        assert workflow.parser.get_parsed_content("best").best["val_loss"] > 0
    for name, value in heads[0].items():
        torch.testing.assert_close(value, heads[1][name], rtol=1e-4, atol=1e-5)


def test_augmentation_changes_what_is_trained_on_and_nothing_else(discs, tmp_path):
    batches = {}
    for augment in (False, True):
        options = {"dataset_dir": str(discs), "output_dir": str(tmp_path / "out"), **TINY, "augment": augment}
        workflow = ConfigWorkflow(str(CONFIGS / "train.json"), pretrained="none", **options)
        workflow.initialize()
        assert workflow.parser.get_parsed_content("encode_once") is not augment
        names = ("train#dataloader", "frozen#dataloader", "validate#dataloader", "frozen#validation_dataloader")
        batches[augment] = [next(iter(workflow.parser.get_parsed_content(name)))["image"] for name in names]
    plain, changed = batches[False], batches[True]
    assert not torch.equal(plain[0], changed[0]) and plain[0].shape == changed[0].shape == changed[1].shape
    assert torch.equal(plain[2], changed[2]) and torch.equal(changed[2], changed[3])


@pytest.mark.parametrize(
    ("options", "shape"),
    [({"plane": "coronal", "slice_index": 12}, (20, 20)), ({"plane": "sagittal", "slice_index": 10}, (24, 20))],
    ids=["coronal", "sagittal"],
)
def test_plane_and_slice_index_do_what_they_say(discs, tmp_path, options, shape):
    settings = {**TINY, "dataset_dir": str(discs), "output_dir": str(tmp_path / "out"), **options}
    workflow = ConfigWorkflow(str(CONFIGS / "pretrain.json"), **settings)
    workflow.initialize()
    item = workflow.train_dataset[0]
    path = workflow.parser.get_parsed_content("sets").training[0]["image"]
    volume = np.asarray(nib.load(path).dataobj)[..., 0].astype(float)
    plane = volume[:, 11] if options["plane"] == "coronal" else volume[9]
    (low_x, low_y) = ((size - 16) // 2 for size in shape)
    plane = plane[low_x : low_x + 16, low_y : low_y + 16]
    np.testing.assert_allclose(item["image"][0], (plane - plane.min()) / (plane.max() - plane.min()), atol=1e-6)


def test_preprocessing_and_networks_are_the_same_in_every_config():
    configs = {
        name: json.loads((CONFIGS / f"{name}.json").read_text())
        for name in ("pretrain", "train", "evaluate", "baselines", "inference")
    }
    steps = {name: (c.get("train") or c)["preprocessing"]["transforms"] for name, c in configs.items()}
    assert (
        steps["inference"][2].pop("single_slice") == "@single_slice" and configs["inference"]["single_slice"] is False
    )
    assert all(steps[name][:5] == steps["pretrain"][:5] for name in steps)
    assert all(c["reader"] == configs["pretrain"]["reader"] for c in configs.values())
    assert configs["train"]["network_def"] == configs["evaluate"]["network_def"] == configs["inference"]["network_def"]
    assert configs["train"]["network_def"]["encoder"] == configs["pretrain"]["network_def"]["encoder"]
    for config in configs.values():
        config.get("sets", {}).pop("training", None)  # of the checkpoints in use, which differ
    for item in ("autoencoder_def", "sets", "cohort", "split"):
        assert configs["baselines"][item] == configs["evaluate"][item]
    assert configs["train"]["autoencoder_def"]["decoder"] == configs["pretrain"]["network_def"]["decoder"]


def test_shared_settings_have_the_same_default_everywhere():
    experiment = ConfigParser.load_config_file(str(CONFIGS / "experiment.yaml"))
    for name in ("pretrain", "train", "evaluate", "baselines"):
        stage = json.loads((CONFIGS / f"{name}.json").read_text())
        for key in experiment["run"][0]["shared"]:
            if key in stage and key not in ("device", "precision"):
                shipped = stage[key]
                if isinstance(shipped, dict) and "_target_" in shipped:
                    shipped = {part: value for part, value in shipped.items() if part != "_desc_"}
                assert shipped == experiment[key], (name, key)


@pytest.mark.parametrize(
    ("config", "options", "message"),
    [
        ("pretrain.json", {"max_epoch": 5}, "unknown setting --max_epoch: did you mean --max_epochs?"),
        ("train.json", {"bach_size": 5}, "did you mean --batch_size?"),
        ("evaluate.json", {"max_epochs": 5}, "nothing here reads --max_epochs: it is a setting of .*train.json"),
        ("pretrain.json", {"repeats": 5}, "nothing here reads --repeats: it is a setting of experiment.yaml"),
        ("pretrain.json", {"table": "x.csv"}, "unknown setting --table: did you mean --cohort#table?"),
        ("pretrain.json", {"cohort#table": "x.csv"}, "no table at x.csv: check --cohort#table"),
        ("inference.json", {"chekpoint": "x"}, "did you mean --checkpoint?"),
        ("experiment.yaml", {"repeat": 2}, "did you mean --repeats?"),
        ("pretrain.json", {"batch_size": 0}, "batch_size must be a whole number above 0, not 0"),
        ("pretrain.json", {"max_epochs": [1]}, "max_epochs must be a single value, not [1]"),
        ("pretrain.json", {"augment": {"a": True}}, "augment must be a single value, not {'a': True}"),
        ("pretrain.json", {"max_epochs": "many"}, "max_epochs must be a whole number above 0, not 'many'"),
        ("pretrain.json", {"learning_rate": -1.0}, "learning_rate must be a number above 0, not -1.0"),
        ("pretrain.json", {"seed": "abc"}, "seed must be a whole number, 0 or more, not 'abc'"),
        ("train.json", {"pretrained": "/data/#1"}, "pretrained has a # in it (/data/#1)"),
        ("train.json", {"output_dir": "/data/50%"}, "output_dir has a % in it (/data/50%)"),
        ("pretrain.json", {"device": "gpu7"}, "device must be cpu, cuda or cuda:N, not 'gpu7'"),
        ("pretrain.json", {"device": "privateuseone"}, "device must be cpu, cuda or cuda:N, not 'privateuseone'"),
        ("pretrain.json", {"device": "$torch.device('cuda:99')"}, "device cuda:99 is not available: this PyTorch sees"),
        ("inference.json", {"device": "$'cuda:99'"}, "device cuda:99 is not available: this PyTorch sees"),
        ("train.json", {"device": "$'cuda:' + 1"}, "device must be cpu, cuda or cuda:N, not $'cuda:' + 1, which fails"),
        ("pretrain.json", {"precision": "half"}, "precision must be one of auto, bfloat16, float32, not 'half'"),
        ("experiment.yaml", {"schedule": "linear"}, "schedule must be one of constant, one_cycle, cosine, not"),
        ("experiment.yaml", {"image_size": 8}, "evaluate: image_size must be 11 or more"),
        ("pretrain.json", {"plane": "axail"}, "plane must be axial, coronal or sagittal, not 'axail'"),
        ("pretrain.json", {"slice_index": 300}, "slice_index 300 is outside"),
        ("pretrain.json", {"cohort#controls": "young"}, "controls must be one of oldest, matched, all, not 'young'"),
        ("pretrain.json", {"split#test_fraction": 1.5}, "test_fraction must be between 0 and 1, not 1.5"),
        ("pretrain.json", {"cohort#tsak": "ad"}, "unknown setting --cohort#tsak: did you mean --cohort#task?"),
        ("pretrain.json", {"controls": "all"}, "unknown setting --controls: did you mean --cohort#controls?"),
        ("pretrain.json", {"cohort#positive": "CDRR > 0"}, "the table has no column CDRR"),
        ("pretrain.json", {"split#kind": "loo"}, "split kind must be one of holdout, kfold, not 'loo'"),
        ("pretrain.json", {"tracking_uri": "./mlruns"}, "tracking_uri must be sqlite:///FILE"),
        ("pretrain.json", {"channels": "abc"}, "channels must be a list of whole numbers above 0, such as"),
        ("train.json", {"network_def#hidden": "abc"}, "hidden must be a list of whole numbers above 0, such as"),
        ("pretrain.json", {"image_size": 18}, "image_size must be divisible by 4 (the encoder's pooling), not 18"),
        ("train.json", {"image_size": 18}, "spatial_size must be divisible by 4"),
        ("train.json", {}, "no pretrained autoencoder at .*pretrain.json.*--pretrained none"),
        ("evaluate.json", {}, r"no checkpoint at .*/models/model\.pt: run train\.json .* name one with --checkpoint"),
        ("inference.json", {"checkpoint": "/nowhere.pt"}, "no checkpoint at /nowhere.pt"),
        ("inference.json", {"num_workers": -1}, "num_workers must be a whole number, 0 or more, not -1"),
        ("inference.json", {"threads": -1}, "threads must be a whole number, "),
    ],
)  # fmt: skip
def test_wrong_settings_end_in_one_line(run_bundle, discs, tmp_path, config, options, message):
    found = mistake(lambda: run_bundle(config, discs, **{"output_dir": tmp_path / "out", **options}))
    assert re.search(message, found) or message in found, found
    assert not (tmp_path / "out" / "models").exists()


def first_image(root: Path, suffix: str) -> Path:
    return next(root.rglob(f"OAS1_0001*{suffix}"))


def rewrite(root: Path, change) -> None:
    path = first_image(root, ".img")
    image = nib.load(path)
    data = np.asarray(image.dataobj).astype(np.float32)
    header = nib.AnalyzeHeader(endianness=">")
    header.set_data_dtype(np.float32)
    nib.save(nib.AnalyzeImage(change(data).astype(np.float32), None, header), path)


def set_nan(data: np.ndarray) -> np.ndarray:
    data[5, 5, 10] = np.nan
    return data


def replace_table(root: Path, text: str) -> None:
    (root / "oasis_cross-sectional.csv").write_text(text)


BAD_COHORTS = {
    "no table": (lambda r: (r / "oasis_cross-sectional.csv").unlink(), "no table in"),
    "no CDR": (lambda r: replace_table(r, "ID,Age\nOAS1_0001_MR1,70\n"), "has no column CDR"),
    "no ID": (lambda r: replace_table(r, "Age,CDR\n70,0\n"), "has no column ID"),
    "OASIS-2": (lambda r: replace_table(r, "Subject ID,MRI ID,Group,CDR\nOAS2_1,OAS2_1_MR1,Demented,1\n"), "OASIS-2"),
    "one class": (lambda r: replace_table(r, "ID,Age,CDR\nOAS1_0001_MR1,70,0\nOAS1_0002_MR1,71,0\n"), "no patient"),
    "too few": (lambda r: replace_table(r, "ID,Age,CDR\nOAS1_0001_MR1,70,0\nOAS1_0002_MR1,71,1\n"), "too few subjects"),
    "two matches": (
        lambda r: [first_image(r, s).with_name(f"OAS1_0001_MR1_mpr_n6_anon_111_t88_masked_gfc{s}").write_bytes(b"x")
                   for s in (".hdr", ".img")], "two images for OAS1_0001_MR1"),
    "missing img": (lambda r: first_image(r, ".img").unlink(), ".img is missing next to its .hdr"),
    "truncated img": (lambda r: first_image(r, ".img").write_bytes(b"\0" * 100), "is truncated"),
    "other shape": (lambda r: rewrite(r, lambda d: d[:-1]), "has the shape"),
    "zero slice": (lambda r: rewrite(r, lambda d: d * 0), "zero everywhere"),
    "NaN": (lambda r: rewrite(r, set_nan), "not finite"),
}  # fmt: skip


@pytest.mark.parametrize("name", BAD_COHORTS)
def test_bad_cohorts_end_in_one_line_and_leave_nothing(run_bundle, tmp_path, name):
    spoil, message = BAD_COHORTS[name]
    root = write_discs(tmp_path / "cohort")
    spoil(root)
    given = {"cohort#allow_unmatched": True}
    assert message in mistake(lambda: run_bundle("pretrain.json", root, tmp_path / "out", **given))
    assert not (tmp_path / "out").exists()


def test_missing_dataset_dir(run_bundle, tmp_path):
    assert "is not a folder" in mistake(lambda: run_bundle("experiment.yaml", tmp_path / "nothing", tmp_path / "out"))
    assert not (tmp_path / "out").exists()


def test_truncated_nifti(run_bundle, discs, tmp_path):
    path = tmp_path / "scan.nii.gz"
    noise = np.random.default_rng(0).integers(0, 30000, (20, 24, 20)).astype(np.int16)
    nib.save(nib.Nifti1Image(noise, np.eye(4)), path)
    path.write_bytes(path.read_bytes()[:4000])
    network = EncoderClassifier(encoder=ConvEncoder(), spatial_size=(16, 16))
    torch.save(network.state_dict(), tmp_path / "model.pt")
    found = mistake(lambda: run_bundle("inference.json", path, tmp_path / "out", checkpoint=str(tmp_path / "model.pt")))
    assert "truncated or broken" in found
    assert not (tmp_path / "out").exists()


def test_subject_in_two_sets_of_a_given_datalist(run_bundle, discs, tmp_path):
    run_bundle("pretrain.json", discs, tmp_path / "out", max_epochs=1)
    datalist = json.loads((tmp_path / "out" / "datalist.json").read_text())
    datalist["test"].append(datalist["training"][0])
    given = tmp_path / "mine.json"
    given.write_text(json.dumps(datalist))
    found = mistake(lambda: run_bundle("pretrain.json", discs, tmp_path / "other", datalist=str(given)))
    assert f"subject {datalist['training'][0]['subject']} is in training and in test" in found
    assert not (tmp_path / "other").exists()


def test_datalist_of_another_seed_is_not_reused(run_bundle, discs, tmp_path):
    run_bundle("pretrain.json", discs, tmp_path / "out", max_epochs=1, seed=1)
    assert "was made with seed 1, not 2" in mistake(lambda: run_bundle("train.json", discs, tmp_path / "out", seed=2))


@pytest.mark.parametrize("config", ["pretrain.json", "inference.json"])
def test_output_dir_that_can_not_be_written(run_bundle, discs, checkpoint, tmp_path, config):
    (tmp_path / "file").write_text("")
    options = {"checkpoint": checkpoint} if config == "inference.json" else {}
    found = mistake(lambda: run_bundle(config, discs, tmp_path / "file" / "out", **options))
    assert found.startswith("can't write ") and found.endswith("choose another --output_dir")


def test_checkpoint_of_another_architecture(run_bundle, discs, tmp_path):
    torch.save(ConvEncoder(channels=(8, 8, 8)).state_dict(), tmp_path / "other.pt")
    found = mistake(lambda: run_bundle("train.json", discs, tmp_path / "out", pretrained=str(tmp_path / "other.pt")))
    assert "a different architecture than ConvAutoencoder" in found


def test_crashed_stage_ends_as_failed(run_bundle, discs, tracking_uri, tmp_path, monkeypatch):
    def crash(*_: object) -> None:
        raise RuntimeError("the power went")

    monkeypatch.setattr("monai_cae.training.engines.handlers.BestCheckpoint.__call__", crash)
    with pytest.raises(RuntimeError):
        run_bundle("pretrain.json", discs, tmp_path / "out", experiment_name="crash")
    client = MlflowClient(tracking_uri)
    (run,) = client.search_runs([client.get_experiment_by_name("crash").experiment_id])
    assert run.info.status == "FAILED"
    assert not (tmp_path / "out" / "results_pretrain.json").exists()


def test_command_line_tells_a_mistake_in_one_line(discs, tmp_path):
    places = ["--config_file", CONFIGS / "pretrain.json", "--dataset_dir", discs]
    done = killing.command("monai.bundle", "run", "training", *places, "--max_epoch", 5, cwd=tmp_path)
    assert done.returncode == 1
    assert done.stderr.strip().splitlines()[-1] == "error: unknown setting --max_epoch: did you mean --max_epochs?"
    assert "Traceback" not in done.stderr


def test_booleans_of_the_command_line_are_no_texts(discs, tmp_path):
    given = {"allow_leaks": "false", "augment": "true", "deterministic": "true", "train#optimizer#amsgrad": "false"}
    options = {"dataset_dir": str(discs), "output_dir": str(tmp_path / "out"), **TINY, **given}
    workflow = ConfigWorkflow(str(CONFIGS / "train.json"), pretrained="none", **options)
    workflow.initialize()
    assert torch.are_deterministic_algorithms_enabled()
    torch.use_deterministic_algorithms(False)
    get = workflow.parser.get_parsed_content
    assert get("allow_leaks") is False and get("encode_once") is False and get("augment") is True
    assert get("train#augmentation") is not None
    assert get("train#optimizer").defaults["amsgrad"] is False


def test_null_of_the_command_line_is_no_text(discs, tmp_path):
    """As `monai-cae settings` and the remarks write it."""
    given = {"figures#explanations": "null", "figures#decoder#scans": "null", "layout": "null"}
    options = {"dataset_dir": str(discs), "output_dir": str(tmp_path / "out"), "device": "cpu", **given}
    workflow = ConfigWorkflow(str(CONFIGS / "evaluate.json"), **options)
    workflow.initialize()
    get = workflow.parser.get_parsed_content
    assert get("figures#explanations") is None and get("layout") is None
    assert workflow.parser["figures#decoder#scans"] is None
