"""Transfer between tasks, with and without, and encoders from elsewhere: on tiny cohorts, through monai.bundle."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch
from monai.networks.nets import resnet18
from runs import rows_of, written
from safetensors.torch import save_file
from tiny import mistake, write_discs

from monai_cae.networks import save_weights, trained_on

SMALL = {"channels": [4, 8], "network_def#hidden": [6, 5], "max_epochs": 1}


def weights_of(run: Path) -> dict[str, torch.Tensor]:
    return torch.load(run / "models" / "model.pt", weights_only=True)


@pytest.fixture(scope="module")
def others(tmp_path_factory) -> Path:
    """24 subjects who are not of `discs`."""
    return write_discs(tmp_path_factory.mktemp("others"), first=24)


@pytest.fixture(scope="module")
def first(run_bundle, discs, tmp_path_factory) -> Path:
    """A classifier of the first task."""
    output = tmp_path_factory.mktemp("first") / "run"
    run_bundle("train.json", discs, output, pretrained="none", **SMALL)
    return output


@pytest.fixture(scope="module")
def second(run_bundle, others, first, tmp_path_factory) -> Path:
    """The last layer alone learns to tell the age."""
    output = tmp_path_factory.mktemp("second") / "run"
    age = {"target": {"_target_": "monai_cae.targets.Number", "column": "Age"}}
    run_bundle("train.json", others, output, transfer=str(first), learn="last_layer", seed=7, **age, **SMALL)
    return output


def test_encoder_and_hidden_layers_come_along_and_stay_and_the_last_is_new(first, second):
    before, after = weights_of(first), weights_of(second)
    last = ("head.6.weight", "head.6.bias")
    assert after.keys() - before.keys() == {"head.zero", "head.unit"}
    assert all(torch.equal(before[name], after[name]) for name in before if name not in last)
    assert not torch.allclose(before[last[0]], after[last[0]], atol=0.05)  # of another seed
    assert "transfer" in written(second, "results_train.json")["weights"]


def test_a_checkpoint_names_the_subjects_of_all_sources(first, second):
    own = {item["subject"] for name in ("training", "validation") for item in written(second, "datalist.json")[name]}
    assert len(trained_on(first / "models" / "model.pt")) == 16
    assert len(own) == 16 and len(trained_on(second / "models" / "model.pt")) == 32


def test_one_task_keeps_the_last_layer_and_an_encoder_alone_can_be_taken(run_bundle, others, first, tmp_path, capsys):
    still = {"learning_rate": 1e-12, "transfer": str(first / "models" / "model.pt"), **SMALL}
    run_bundle("train.json", others, tmp_path / "same", learn="frozen", **still)
    assert "transfer: encoder, hidden layers, last layer of" in capsys.readouterr().out
    assert torch.allclose(weights_of(tmp_path / "same")["head.6.weight"], weights_of(first)["head.6.weight"], atol=1e-6)
    probe = {**still, "network_def#hidden": [], "learn": "linear_probe"}
    run_bundle("train.json", others, tmp_path / "probe", **probe)
    encoder = {name: value for name, value in weights_of(first).items() if name.startswith("encoder.")}
    assert all(torch.equal(value, weights_of(tmp_path / "probe")[name]) for name, value in encoder.items())


def test_subjects_of_any_source_are_not_tested(run_bundle, discs, first, second, tmp_path):
    for number, model in enumerate((first, second)):  # the second has seen them by what it was made from
        said = mistake(run_bundle, "train.json", discs, tmp_path / str(number), transfer=str(model), seed=5, **SMALL)
        assert said.startswith("leak between the sets: test subject OAS1_00") and "seen by the pretrained" in said
    experiment = {"transfer": str(first), "repeats": 1, "seed": 5, "channels": [4, 8]}
    said = mistake(run_bundle, ["experiment.yaml", "with_transfer.yaml"], discs, tmp_path / "experiment", **experiment)
    assert "seen by the pretrained" in said
    assert not any(tmp_path.rglob("*.pt"))


def test_images_of_any_source_are_not_tested_under_other_names(run_bundle, discs, second, tmp_path, capsys):
    renamed = write_discs(tmp_path / "renamed", subjects=12, first=48)
    for ours, theirs in zip(sorted(renamed.rglob("*.img")), sorted(discs.rglob("*.img")), strict=False):
        shutil.copy(theirs, ours)
    given = {"transfer": str(second), "seed": 5, **SMALL}
    said = mistake(run_bundle, "train.json", renamed, tmp_path / "run", **given)
    assert "have the same pixels, in earlier training and in test" in said  # of the first, from which the second came
    run_bundle("train.json", renamed, tmp_path / "run", allow_leaks=True, **given)
    assert "LEAKY" in capsys.readouterr().out


def test_whom_the_first_has_seen_can_be_left_out(run_bundle, discs, first, tmp_path, capsys):
    given = {"transfer": str(first), "seed": 5, "learn": "frozen", "cohort#unseen_by": str(first), **SMALL}
    run_bundle("train.json", discs, tmp_path / "run", **given, **{"split#test_fraction": 0.25})
    made = written(tmp_path / "run", "datalist.json")
    kept = {item["subject"] for name in ("training", "validation", "test") for item in made[name]}
    assert kept == {item["subject"] for item in written(first, "datalist.json")["test"]}
    assert made["recipe"]["left_out"]["trained on by the other network"] == 16
    for path, message in ((tmp_path / "none", "no datalist at"), (discs / "oasis_cross-sectional.csv", "not readable")):
        said = mistake(run_bundle, "train.json", discs, tmp_path / "other", **{**given, "cohort#unseen_by": str(path)})
        assert message in said


def test_trained_again_on_the_same_people_is_no_leak(run_bundle, discs, first, tmp_path):
    run_bundle("train.json", discs, tmp_path, transfer=str(first), learn="frozen", **SMALL)  # the same split
    assert written(tmp_path, "audit.json")["leaks"] == 0


def unrecorded(first: Path, folder: Path) -> str:
    save_weights(dict(weights_of(first)), folder / "unrecorded.pt")
    return str(folder / "unrecorded.pt")


def autoencoder(first: Path, folder: Path) -> str:
    recorded = {"extraction": "SliceExtraction", "image_size": 16}
    save_weights({"encoder.x": torch.ones(1)}, folder / "auto.pt", ["0" * 16], recorded)
    return str(folder / "auto.pt")


def experiment(first: Path, folder: Path) -> str:
    shutil.copytree(first, folder / "results" / "repeat_1" / "fold_2")
    return str(folder / "results")


def zipped(first: Path, folder: Path) -> str:
    (folder / "cae.zip").write_bytes(b"PK")
    return str(folder / "cae.zip")


REFUSED = {
    "another slice": (None, {"slice_index": 10}, "was trained with slice_index 11, not 10: give --slice_index 11"),
    "another size": (None, {"image_size": 20}, "was trained with image_size 16, not 20"),
    "another norm": (
        None,
        {"norm": "instance"},
        "has other layers than this EncoderClassifier (encoder.blocks.0.2.runn",
    ),
    "another width": (
        None,
        {"channels": [4, 4]},
        "encoder.blocks.1.0.weight is (8, 4, 3, 3) in the file, (4, 4, 3, 3)",
    ),
    "other hidden layers": (
        None,
        {"network_def#hidden": [7, 5]},
        "head.1.weight is (6, 512) in the file, (7, 512) here",
    ),
    "no record": (unrecorded, {}, "does not record what it was trained with and on"),
    "an autoencoder": (
        autoencoder,
        {},
        "has no dense layers: --transfer takes a classifier, --pretrained the others",
    ),
    "an experiment": (experiment, {}, "it holds an experiment: give one of its runs, such as"),
    "a zip": (zipped, {}, "has no classifier: give a run's folder, a package (unpacked by"),
    "nothing": (lambda first, folder: str(folder / "nothing"), {}, "has no classifier: give a run's folder"),
    "empty": (lambda first, folder: "", {}, "--transfer '' has no classifier: give a run's folder"),
    "last layer of random ones": (
        lambda first, folder: "none",
        {"learn": "last_layer", "pretrained": "none"},
        "needs hidden layers that have learned: give --transfer MODEL",
    ),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_does_not_fit_is_refused_in_one_line(run_bundle, others, first, tmp_path, name):
    model, changed, message = REFUSED[name]
    given = str(first) if model is None else model(first, tmp_path)
    said = mistake(run_bundle, "train.json", others, tmp_path / "run", transfer=given, **{**SMALL, **changed})
    assert message in said
    assert not any((tmp_path / "run").rglob("*.*"))


def test_learning_curves_with_and_without_transfer(run_bundle, others, tmp_path, first):
    overlays, out = ["experiment.yaml", "with_transfer.yaml"], tmp_path / "out"
    small = {"repeats": 1, "max_epochs": 1, "channels": [4, 8], "stages#classifier": {"network_def#hidden": [6, 5]}}
    run_bundle(overlays, others, out, transfer=str(first), **small)
    (part,) = json.loads((out / "summary.json").read_text())["results"]
    without = {"without_quarter": 0.25, "without_half": 0.5}
    assert part["shares"] == {"network": {"quarter": 0.25, "half": 0.5}, "without_transfer": without}
    assert (out / "figures" / "learning_curve.png").is_file()
    seen = {}
    for name in ("", "quarter", "half", "without_transfer", "without_quarter", "without_half"):
        folder = out / "repeat_1" / "variants" / name if name else out / "repeat_1"
        seen[name] = [row["subject"] for row in rows_of(folder / "predictions.csv")]
        assert ("transfer" in written(folder, "results_train.json")["weights"]) == (not name.startswith("without"))
    assert len({tuple(subjects) for subjects in seen.values()}) == 1 and len(seen[""]) == 8


def test_an_encoder_from_elsewhere_is_probed_on_the_same_splits(run_bundle, discs, tmp_path, capsys):
    torch.manual_seed(3)
    theirs = resnet18(spatial_dims=2, n_input_channels=1, feed_forward=False, shortcut_type="A", bias_downsample=True)
    save_file({f"module.{name}": value for name, value in theirs.state_dict().items()}, tmp_path / "net.safetensors")
    weights = {
        "variants#foreign#classifier#network_def#encoder#network#weights_file": str(tmp_path / "net.safetensors")
    }
    run_bundle(
        ["experiment.yaml", "with_foreign_encoder.yaml"], discs, tmp_path / "out", repeats=1, max_epochs=1, **weights
    )
    assert capsys.readouterr().out.count("net.safetensors: all 102 tensors of ResNet found") == 1
    made = tmp_path / "out" / "repeat_1"
    tested = [row["subject"] for row in rows_of(made / "predictions.csv")]
    for name in ("foreign", "foreign_random"):
        after = weights_of(made / "variants" / name)
        assert after["head.1.weight"].shape == (1, 512)
        came = [torch.equal(after[f"encoder.network.{key}"], value) for key, value in theirs.state_dict().items()
                if key.endswith("conv1.weight")]  # fmt: skip
        assert came and all(came) == (name == "foreign") == any(came)  # frozen
        assert [row["subject"] for row in rows_of(made / "variants" / name / "predictions.csv")] == tested
