"""Results are never replaced unasked, and a refused command leaves nothing behind: stages, experiments, predictions."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import killing
import pytest
import torch
from tiny import CONFIGS, TINY, mistake

from monai_cae.experiment.running import run_steps

CHANNELS = [2, 3, 4]
SHORT = {"max_epochs": 1, "channels": CHANNELS}
FOLDS = {"repeats": 2, "split#kind": "kfold", "split#folds": 2}
STAGES = ("pretrain", "train", "evaluate", "baselines")
ASKED = "--overwrite true replaces them, or choose another --output_dir"


def own(stage: str) -> dict[str, object]:
    if stage in ("pretrain", "train"):
        return SHORT
    return {"channels": CHANNELS, **({"only": "majority,dark_pixels"} if stage == "baselines" else {})}


def contents(folder: Path) -> dict[str, bytes]:
    """Of all files but MLflow's and the lock."""
    files = [path for path in folder.rglob("*") if path.is_file() and path.name != ".lock"]
    return {str(path.relative_to(folder)): path.read_bytes() for path in files if "mlruns" not in path.parts}


@pytest.fixture(scope="module")
def finished(run_bundle, discs, tmp_path_factory) -> Path:
    """All four stages in one folder: none of them takes the others' results for its own."""
    output = tmp_path_factory.mktemp("stages") / "out"
    for stage in STAGES:
        run_bundle(f"{stage}.json", discs, output, **own(stage))
    return output


@pytest.fixture
def copy(finished, tmp_path) -> Path:
    return Path(shutil.copytree(finished, tmp_path / "out"))


@pytest.mark.parametrize("stage", STAGES)
def test_a_finished_stage_is_refused_and_untouched(stage, copy, run_bundle, discs):
    before = contents(copy)
    said = mistake(run_bundle, f"{stage}.json", discs, copy, **own(stage))
    assert said.startswith(f"{copy} already has results of {stage} (results_{stage}.json, ") and said.endswith(ASKED)
    assert ("--resume true continues from them, " in said) is (stage in ("pretrain", "train"))
    assert contents(copy) == before


LEFT = {  # each alone says that something was begun or finished here
    "point": ("pretrain", "models/resume_pretrain.pt"),
    "autoencoder": ("pretrain", "models/autoencoder.pt"),
    "results": ("train", "results_train.json"),
    "classifier": ("train", "models/model.pt"),
    "predictions": ("evaluate", "predictions.csv"),
}


@pytest.mark.parametrize("name", LEFT)
def test_whatever_an_ended_stage_has_left_counts(name, finished, run_bundle, discs, tmp_path):
    stage, left = LEFT[name]
    out = tmp_path / "out"
    needed = {"train": ["autoencoder"], "evaluate": ["autoencoder", "model"]}.get(stage, [])
    for path in (f"models/{one}.pt" for one in needed):
        (out / path).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(finished / path, out / path)
    (out / left).parent.mkdir(parents=True, exist_ok=True)
    (out / left).write_text("mine")
    before = contents(out)
    assert f"already has results of {stage} ({left})" in mistake(run_bundle, f"{stage}.json", discs, out, **own(stage))
    assert contents(out) == before


def test_weights_and_predictions_elsewhere_count_too(finished, run_bundle, discs, tmp_path):
    for stage, setting, name in (("pretrain", "checkpoint", "ae.pt"), ("evaluate", "predictions", "mine.csv")):
        (tmp_path / name).write_text("mine")
        models = {"pretrained": "autoencoder.pt", "checkpoint": "model.pt"} if stage == "evaluate" else {}
        models = {key: str(finished / "models" / value) for key, value in models.items()}
        options = {**own(stage), **models, setting: str(tmp_path / name)}
        said = mistake(run_bundle, f"{stage}.json", discs, tmp_path / "out", **options)
        assert f"already has results of {stage} ({tmp_path / name})" in said
        assert (tmp_path / name).read_text() == "mine" and not (tmp_path / "out").exists()


def test_overwriting_removes_what_was_made_of_the_old_and_nothing_of_others(copy, run_bundle, discs, monkeypatch):
    mine = {"figures/mine.png", "baselines/notes.csv", "models/mine.pt", "notes.txt"}
    for name in mine:
        (copy / name).write_text("mine")
    run_bundle("train.json", discs, copy, overwrite=True, **SHORT)
    assert (copy / "results_pretrain.json").is_file() and (copy / "baselines" / "majority.csv").is_file()
    assert not (copy / "results_evaluate.json").exists() and not (copy / "predictions.csv").exists()
    run_bundle("pretrain.json", discs, copy, overwrite=True, **SHORT)
    assert contents(copy).keys() == mine | {
        "datalist.json", "audit.json", "audit.html", "config_pretrain.json", "results_pretrain.json",
        "models/autoencoder.pt", "figures/pretrain_reconstructions.png", "figures/pretrain_feature_maps.png",
    }  # fmt: skip
    run_bundle("train.json", discs, copy, **SHORT)


def test_a_run_may_overwrite_the_weights_that_it_starts_from(copy, run_bundle, discs):
    path = copy / "models" / "autoencoder.pt"
    load = {"_target_": "CheckpointLoader", "load_path": str(path), "load_dict": {"model": "@network"}}
    config = json.loads((CONFIGS / "pretrain.json").read_text())
    handlers = [load, *config["train"]["handlers"]]
    before = torch.load(copy / "models" / "autoencoder.pt")
    options = {**SHORT, "learning_rate": 1e-9, "train#handlers": handlers, "overwrite": True}
    run_bundle("pretrain.json", discs, copy, **options)
    after = torch.load(copy / "models" / "autoencoder.pt")
    assert all(torch.allclose(before[name], after[name], atol=1e-6) for name in before if name.endswith(".weight"))


def test_ended_while_overwriting_nothing_looks_like_one_result(copy, run_bundle, discs, monkeypatch):
    def crash(*_: object) -> None:
        raise RuntimeError("the power went")

    monkeypatch.setattr("monai_cae.training.engines.handlers.BestCheckpoint.__call__", crash)
    with pytest.raises(RuntimeError):
        run_bundle("pretrain.json", discs, copy, overwrite=True, **SHORT)
    assert {path.name for path in copy.glob("*.json")} == {"datalist.json", "audit.json"}
    assert [path.name for path in (copy / "models").iterdir()] == ["autoencoder.pt"]  # the old one
    monkeypatch.undo()
    assert ASKED in mistake(run_bundle, "pretrain.json", discs, copy, **SHORT)


@pytest.mark.parametrize("config", ["pretrain.json", "experiment.yaml"])
def test_keeping_and_replacing_are_not_asked_together(config, run_bundle, discs, tmp_path):
    options = {**SHORT, "resume": True, "overwrite": True}
    said = mistake(run_bundle, config, discs, tmp_path / "out", **options)
    assert said.endswith("give one of the two") and not (tmp_path / "out").exists()
    assert "overwrite must be true or false, not 'yes'" in mistake(
        run_bundle, config, discs, tmp_path / "out", **SHORT, overwrite="yes"
    )


def test_inference_replaces_no_predictions_unasked(finished, run_bundle, discs, tmp_path):
    options = {"checkpoint": str(finished / "models" / "model.pt"), "channels": CHANNELS}
    for path in (finished / "predictions.csv", tmp_path / "mine.csv"):  # of evaluate.json, and of whoever
        if not path.exists():
            path.write_text("mine")
        before = path.read_bytes()
        place = {"predictions": str(path)} if path.name == "mine.csv" else {}
        said = mistake(run_bundle, "inference.json", discs, path.parent, **options, **place)
        assert said.startswith(f"{path} already exists: --overwrite true replaces it") and path.read_bytes() == before
    run_bundle("inference.json", discs, tmp_path / "new", **options, predictions=str(path), overwrite=True)
    assert path.read_text().count("\n") == 25


REFUSED = {
    "leak": ({"datalist": "{leaky}"}, "leak between the sets"),
    "checkpoint": ({"pretrained": "{tmp}/none.pt"}, "no pretrained autoencoder at"),
    "network": ({"network_def#hidden": "abc", "pretrained": "none"}, "hidden must be a list of whole numbers"),
    "step": ({"learn": "body", "pretrained": "none"}, "learn must be one of"),
    "save_every": ({"save_every": -1, "pretrained": "none"}, "save_every must be a number of seconds"),
    "split": ({"split#kind": "kfolds"}, "split kind must be one of holdout, kfold, not 'kfolds'"),
}  # fmt: skip


@pytest.mark.parametrize("existing", [False, True], ids=["new folder", "user's folder"])
@pytest.mark.parametrize("name", REFUSED)
def test_a_refused_stage_leaves_nothing(name, existing, finished, run_bundle, discs, tmp_path):
    options, message = REFUSED[name]
    content = json.loads((finished / "datalist.json").read_text())
    content["test"].append({**content["training"][0], "subject": "OAS1_0900"})
    (tmp_path / "leaky.json").write_text(json.dumps(content))
    given = {key: value.format(tmp=tmp_path, leaky=tmp_path / "leaky.json") if isinstance(value, str) else value
             for key, value in options.items()}  # fmt: skip
    out = tmp_path / "not" / "there"
    if existing:
        out.mkdir(parents=True)
        (out / "notes.txt").write_text("mine")
    assert message in mistake(run_bundle, "train.json", discs, out, **SHORT, **given)
    assert [path.name for path in out.iterdir()] == ["notes.txt"] if existing else not out.parent.exists()


@pytest.fixture(scope="module")
def experiment(run_bundle, discs, tmp_path_factory) -> Path:
    """Two repeats of two folds, with a baseline and a variant."""
    output = tmp_path_factory.mktemp("experiment") / "out"
    more = {"baselines": ["majority"], "variants": {"half": {"train": {"training_share": 0.5}}}}
    run_bundle("experiment.yaml", discs, output, **FOLDS, **SHORT, **more)
    return output


def test_an_experiment_is_refused_and_untouched(experiment, run_bundle, discs, tmp_path):
    before = contents(experiment)
    assert "comparisons.csv" in before and "repeat_2/fold_2/variants/half/models/model.pt" in before
    for options in ({}, {"repeats": 1, "seed": 3}):
        said = mistake(run_bundle, "experiment.yaml", discs, experiment, **SHORT, **options)
        assert said.startswith(f"{experiment} already has results of an experiment (") and said.endswith(ASKED)
    assert contents(experiment) == before
    # and one that was ended before its first step was done
    begun = tmp_path / "begun"
    (begun / "repeat_1").mkdir(parents=True)
    (begun / "repeat_1" / "results_pretrain.json").write_text("{}")
    assert ASKED in mistake(run_bundle, "experiment.yaml", discs, begun, **SHORT)


def test_an_overwritten_experiment_leaves_nothing_stale_and_nothing_of_others_is_lost(
    experiment, run_bundle, discs, tmp_path, monkeypatch
):
    out = Path(shutil.copytree(experiment, tmp_path / "out"))
    mine = {
        "notes.txt",
        "figures/mine.png",
        "repeat_2/notes.txt",
        "repeat_1/fold_2/figures/mine.png",
        "repeat_x/mine.csv",
    }
    for name in mine:
        (out / name).parent.mkdir(exist_ok=True)
        (out / name).write_text("mine")
    before = contents(out)
    options = {"repeats": 1, "seed": 5, **SHORT, "overwrite": True}
    said = mistake(run_bundle, "experiment.yaml", discs, out, **options, stages={"train": {"learning_rat": 1}})
    assert said.startswith("train: unknown setting --stages#train#learning_rat: did you mean --stages#train#learning_r")
    assert contents(out) == before

    def ended(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("monai_cae.experiment.protocol.run_steps", ended)
    with pytest.raises(KeyboardInterrupt):
        run_bundle("experiment.yaml", discs, out, **options)
    assert contents(out).keys() == mine | {"experiment.json", "repeat_1/datalist.json"}
    monkeypatch.setattr("monai_cae.experiment.protocol.run_steps", run_steps)
    run_bundle("experiment.yaml", discs, out, **{**options, "overwrite": False, "resume": True})
    run_bundle("experiment.yaml", discs, tmp_path / "fresh", **{**options, "overwrite": False})
    assert contents(out).keys() == mine | contents(tmp_path / "fresh").keys()
    assert (out / "predictions.csv").read_bytes() == (tmp_path / "fresh" / "predictions.csv").read_bytes()


def test_resuming_with_fewer_methods_leaves_no_old_comparison(experiment, run_bundle, discs, tmp_path):
    out = Path(shutil.copytree(experiment, tmp_path / "out"))
    assert (out / "comparisons.csv").is_file()
    run_bundle("experiment.yaml", discs, out, **FOLDS, **SHORT, resume=True)
    assert not (out / "comparisons.csv").exists() and "majority" not in (out / "predictions.csv").read_text()


def test_an_experiment_does_not_mix_with_stages_run_alone(copy, run_bundle, discs):
    before = contents(copy)
    for option in ({}, {"overwrite": True}, {"resume": True}):
        said = mistake(run_bundle, "experiment.yaml", discs, copy, **SHORT, **option)
        assert "has results of stages that were run alone (results_pretrain.json, " in said
    assert contents(copy) == before


def test_a_stage_does_not_mix_with_an_experiment(experiment, run_bundle, discs):
    before = contents(experiment)
    for option in ({}, {"overwrite": True}, {"resume": True}):
        said = mistake(run_bundle, "pretrain.json", discs, experiment, **option)
        assert said == f"{experiment} has results of an experiment: choose another --output_dir"
    assert contents(experiment) == before


WRONG = {
    "stage's setting": ({"stages#train#learning_rat": 0.1}, "--stages#train#learning_rate?"),
    "classifier's": ({"stages#classifier#coviariates": {}}, "--stages#train#coviariates"),
    "kind": ({"split#kind": "kfolds"}, "split kind must be one of holdout, kfold, not 'kfolds'"),
    "evaluate's": ({"stages": {"evaluate": {"threshold": 3}}}, "evaluate: threshold must be from 0 to 1"),
    "late variant": ({"variants": {"a": {}, "b": {"evaluate": {"treshold": 1}}}}, "--variants#b#evaluate#threshold?"),
    "no checkpoint": ({"stages#train#pretrained": "/no.pt"}, "weights with --stages#train#pretrained none"),
    "baseline": ({"baselines": ["magic"]}, "baselines: --baselines names the unknown model magic"),
    "one stage's": ({"learning_rate": 0.1}, "give --stages#pretrain#learning_rate or --stages#train#learning_rate"),
    "one stage alone's": ({"keep": "last"}, "--keep is a setting of single stages: give --stages#train#keep"),
    "penalty": ({"calibrate": True}, "give --stages#train#calibrate"),
    "datalist": ({"datalist": "/nowhere"}, "no datalist at /nowhere: check --datalist"),
    "MLflow": ({"tracking_uri": "./mlruns"}, "tracking_uri must be sqlite:///FILE"),
    "leak": ({"datalist": "{leaky}"}, "leak between the sets"),
}  # fmt: skip


@pytest.mark.parametrize("name", WRONG)
def test_a_refused_experiment_leaves_nothing(name, finished, run_bundle, discs, tmp_path):
    options, message = WRONG[name]
    content = json.loads((finished / "datalist.json").read_text())
    content["test"].append({**content["training"][0], "subject": "OAS1_0900"})
    (tmp_path / "leaky.json").write_text(json.dumps(content))
    given = {key: str(tmp_path / "leaky.json") if value == "{leaky}" else value for key, value in options.items()}
    said = mistake(run_bundle, "experiment.yaml", discs, tmp_path / "new" / "out", **SHORT, repeats=2, **given)
    assert message in said
    assert not (tmp_path / "new").exists()
    (tmp_path / "mine").mkdir()
    mistake(run_bundle, "experiment.yaml", discs, tmp_path / "mine", **SHORT, repeats=2, **given)
    assert not list((tmp_path / "mine").iterdir())


@pytest.mark.parametrize(
    ("overlay", "told"),
    [
        ("patience:", "patience has no value: give one, or leave it out"),
        ("repeats: null", "repeats has no value"),
        ("stages#pretrain: {batch_size: }", "batch_size has no value"),
        ("cohort#controls:", "cohort#controls has no value"),
        ("cohort#allow_unmatched: 'no'", "cohort#allow_unmatched must be true or false, not 'no'"),
        ("cohort#days: abc", "cohort#days must be a whole number, not 'abc'"),
        ("cohort#columns: RID", "cohort#columns must be a group such as {subject: RID}, not 'RID'"),
        ("cohort#positive: 5", "cohort#positive must be a rule on columns, such as \"DX == 'AD'\", not 5"),
    ],
)
def test_a_setting_without_a_value_or_of_another_kind_is_refused(run_bundle, discs, tmp_path, overlay, told):
    (tmp_path / "mine.yaml").write_text(overlay)
    files = ["experiment.yaml", str(tmp_path / "mine.yaml")]
    assert told in mistake(run_bundle, files, discs, tmp_path / "out", image_size=16, slice_index=11, device="cpu")
    assert not (tmp_path / "out").exists()


def test_settings_of_all_stages_reach_every_stage_that_has_them(experiment):
    for stage in STAGES:
        config = json.loads((experiment / "repeat_1" / "fold_1" / f"config_{stage}.json").read_text())
        assert config["channels"] == CHANNELS
        assert ("compile" in config) is (stage in ("pretrain", "train"))


def test_merged_configs_run(copy, run_bundle, discs):
    """As MonaiAlgo and NVFlare merge them."""
    for first in ("pretrain.json", "train.json"):
        run_bundle([first, "evaluate.json"], discs, copy, run_id="run", **SHORT, threads=1, overwrite=True)
        assert json.loads((copy / "results_evaluate.json").read_text())["stage"] == "evaluate"
    said = mistake(run_bundle, ["train.json", "evaluate.json"], discs, copy, **SHORT, thread=1)
    assert said == "unknown setting --thread: did you mean --threads?"
    replaced = {"train#inferer": {"_target_": "monai_cae.training.PrecisionInferer", "precision": "float32"}}
    run_bundle("train.json", discs, copy, **SHORT, **replaced, overwrite=True)


def test_next_command_has_the_widths_too(finished, run_bundle, discs, tmp_path, capsys):
    run_bundle("pretrain.json", discs, tmp_path / "out", **SHORT)
    assert "--channels '[2, 3, 4]'" in capsys.readouterr().out


def test_next_command_names_the_parts_of_an_object_that_were_changed(copy, run_bundle, discs, capsys):
    changed = {"network_def#hidden": [3], "network_def#pooling": 1}
    run_bundle("train.json", discs, copy, **SHORT | changed, overwrite=True)
    (line,) = [line for line in capsys.readouterr().out.splitlines() if line.startswith("  next")]
    assert "evaluate.json" in line and "--network_def#hidden '[3]' --network_def#pooling 1" in line
    assert "_target_" not in line and line.count("--network_def") == 2


def test_what_is_refused_without_a_trace_ends_in_one_line(discs, tmp_path):
    places = ["--config_file", CONFIGS / "experiment.yaml", "--dataset_dir", discs, "--output_dir", tmp_path / "out"]
    done = killing.command("monai.bundle", "run", "training", *places, "--learning_rate", 0.1, *slices(), cwd=tmp_path)
    assert done.returncode == 1 and "Traceback" not in done.stderr
    assert done.stderr.strip().splitlines()[-1].startswith("error: --learning_rate is a setting of single stages: give")
    assert not list(tmp_path.iterdir())


def slices() -> list[str]:
    return [part for name in ("image_size", "slice_index") for part in (f"--{name}", str(TINY[name]))]
