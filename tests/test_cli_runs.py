"""`monai-cae run`, `predict` and `settings`: the printed command is what runs, and nothing is guessed or replaced."""

from __future__ import annotations

import csv
import json
import os
import re
import runpy
import shlex
import shutil
import subprocess
import sys

import killing
import pytest
from monai.bundle import ConfigParser
from tiny import CONFIGS, TINY, mistake, write_bundle

from monai_cae.cli import main
from monai_cae.errors import MonaiCaeError
from monai_cae.training.stages.workflow import check_settings

EXPERIMENT = str(CONFIGS / "experiment.yaml")
MONAI_CAE = [sys.executable, "-c", "import sys; from monai_cae.cli import main; sys.exit(main(sys.argv[1:]))"]
SETTINGS = [f"--{name}={value}" for name, value in {**TINY, "max_epochs": 1, "repeats": 1}.items()]


@pytest.fixture(autouse=True)
def own_process(monkeypatch):
    """What a command changes in its process stays in its test."""
    monkeypatch.setattr(sys, "argv", sys.argv)
    monkeypatch.setattr(sys, "excepthook", sys.excepthook)


@pytest.fixture
def started(monkeypatch, capsys):
    """Call `monai-cae` up to the command that it stands for: the arguments that MONAI would get, and were printed."""
    calls: list[list[str]] = []
    monkeypatch.setattr(runpy, "run_module", lambda *_, **__: calls.append(sys.argv[1:]))

    def call(*arguments: object) -> list[str]:
        assert main([str(argument) for argument in arguments]) == 0
        printed = shlex.split(capsys.readouterr().out)
        assert printed[:3] == ["python", "-m", "monai.bundle"] and printed[3:] == calls[-1]
        return calls[-1]

    return call


@pytest.fixture
def refused(capsys):
    """What is said when a command ends with exit status 1, in one line."""

    def call(*arguments: object) -> str:
        assert main([str(argument) for argument in arguments]) == 1
        (line,) = capsys.readouterr().err.splitlines()
        return line.removeprefix("error: ")

    return call


@pytest.fixture(scope="module")
def experiment(discs, tmp_path_factory):
    """A whole run by the command, in a process of its own as a user starts it."""
    output = tmp_path_factory.mktemp("runs") / "it's the output"
    command = [*MONAI_CAE, "run", str(discs), str(output), *SETTINGS]
    ended = subprocess.run(command, capture_output=True, text=True, cwd=output.parent, check=False)
    assert ended.returncode == 0, ended.stderr
    return output


def test_run_is_the_experiment(started):
    assert started("run", "DATA", "OUT") == [
        "run", "training", "--config_file", EXPERIMENT, "--dataset_dir", "./DATA", "--output_dir", "./OUT"
    ]  # fmt: skip


def test_overlays_are_the_bundles_or_files(started, tmp_path):
    mine = tmp_path / "mine.yaml"
    mine.write_text("repeats: 3\n")
    files = [EXPERIMENT, str(CONFIGS / "with_selection.yaml"), str(mine)]
    assert started("run", "DATA", "OUT", "--with", f"selection, {mine}")[3] == str(files)
    assert started("run", "DATA", "OUT", "--repeats", 2, "--with", "selection")[3] == str(files[:2])


@pytest.mark.parametrize(
    ("overlay", "others", "told"),
    [
        (
            "stages: {train: {max_epochs: 3}}",
            "k_sparse",
            'with_k_sparse.yaml sets in stages: leave out one of them, or write "+stages", which',
        ),
        ("stages#pretrain: {max_epochs: 3}", "k_sparse", "with_k_sparse.yaml sets in stages#pretrain: "),
        ("extraction: {_target_: my.Extraction}", "slab", "with_slab.yaml sets in extraction: leave out one of them"),
    ],
)
def test_an_overlay_that_drops_what_another_sets_is_refused(started, refused, tmp_path, overlay, others, told):
    mine = tmp_path / "mine.yaml"
    mine.write_text(overlay)
    assert f"mine.yaml would drop what {told}" in refused("run", "DATA", "OUT", "--with", f"{others},{mine}")
    mine.write_text('"+stages": {train: {max_epochs: 3}}\nrepeats: 3')
    assert started("run", "DATA", "OUT", "--with", f"phantom,{others},{mine}")


@pytest.mark.parametrize(
    ("overlay", "told"),
    [
        ("", "mine.yaml is not a YAML or JSON config: no NAME: VALUE is in it"),
        ("- repeats", "mine.yaml is not a YAML or JSON config: no NAME: VALUE"),
        (
            "stages: {train: {}}\nstages: {pretrain: {}}",
            "mine.yaml is ambiguous: Duplicate key: `stages`; write it once",
        ),
    ],
)
def test_an_overlay_without_settings_or_with_one_twice_is_refused(refused, tmp_path, overlay, told):
    (tmp_path / "mine.yaml").write_text(overlay)
    assert told in refused("run", "DATA", "OUT", "--with", tmp_path / "mine.yaml")


def test_an_overlay_of_ones_own_makes_monai_say_nothing_of_folders(refused, tmp_path, caplog):
    (tmp_path / "mine.yaml").write_text("repeats: 3\n")
    given = ["--with", tmp_path / "mine.yaml", "--stages#trian#max_epochs", "3"]
    assert "no config has the setting trian" in refused("run", tmp_path, tmp_path / "out", *given)
    assert "config files" not in caplog.text


@pytest.mark.parametrize(
    ("given", "handed_on"),
    [
        (["--max-epochs", "2"], ["--max_epochs", "2"]),
        (["--max_epochs", "2"], ["--max_epochs", "2"]),
        (["--max-epochs=2"], ["--max_epochs=2"]),
        (["--tracking-uri=http://my-host:5000/a-b"], ["--tracking_uri=http://my-host:5000/a-b"]),
        (["--experiment-name", "my-own"], ["--experiment_name", "my-own"]),
        (["--split#test-fraction", "0.4"], ["--split#test_fraction", "0.4"]),
        (["--stages#train#max-epochs", "-1"], ["--stages#train#max_epochs", "-1"]),
        (["--variants#my-net#train#training-share", "0.5"], ["--variants#my-net#train#training_share", "0.5"]),
        (["--select#candidates#my-net#train#learn", "x"], ["--select#candidates#my-net#train#learn", "x"]),
        (["--cohort#positive", "DX == 'AD' and \"A\" != '$B'"], ["--cohort#positive", "DX == 'AD' and \"A\" != '$B'"]),
        (["--overwrite", "--resume", "true"], ["--overwrite", "--resume", "true"]),
    ],
)
def test_settings_in_both_spellings_reach_the_bundle_with_their_values_as_they_are(started, given, handed_on):
    assert started("run", "it's DATA", "OUT", *given)[8:] == handed_on


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (
            ["--with", "bestt"],
            "no overlay bestt: give --with a file or one of the bundle's overlays: baselines, code_sizes,",
        ),
        (["--with", "broken.yaml"], "broken.yaml is not a YAML or JSON config: "),
        (["--with", "text.yaml"], "text.yaml is not a YAML or JSON config: "),
        (["--with", "other.txt"], "other.txt is not a YAML or JSON config: "),
        (["stray"], "'stray' belongs to no setting"),
        (["--repeats", "2", "stray"], "'stray' belongs to no setting"),
        (["--repeats=2", "stray"], "'stray' belongs to no setting"),
        (["--output-dir", "elsewhere"], "output_dir is given without a name, by its position"),
        (["--dataset_dir=elsewhere"], "dataset_dir is given without a name, by its position"),
        (["--config_file", "mine.yaml"], "config_file is given without a name, by its position"),
    ],
)
def test_what_run_can_not_mean_is_refused_in_one_line(refused, tmp_path, arguments, said):
    for name, text in {"broken.yaml": "a: [", "text.yaml": "words alone", "other.txt": "repeats: 2"}.items():
        (tmp_path / name).write_text(text)
    placed = [str(tmp_path / text) if (tmp_path / text).is_file() else text for text in arguments]
    assert said in refused("run", "DATA", "OUT", *placed)


@pytest.mark.parametrize("settings", [["--repeats", "1"], ["--resume", "true"], ["--overwrite"]])
def test_settings_before_the_places_take_none_for_a_value(settings, capsys):
    with pytest.raises(SystemExit) as ended:
        main(["run", *settings, "DATA", "OUT"])
    assert ended.value.code == 2 and "required: data, out" in capsys.readouterr().err


def test_a_setting_below_one_that_is_not_there_is_one_line(refused, tmp_path):
    said = refused("run", tmp_path, tmp_path / "out", "--stages#trian#max_epochs", "3")
    assert said == "no config has the setting trian: see `monai-cae settings`"
    deep = ["--with", "masked", "--stages#pretrain#network-def#patch", "8"]
    told = refused("run", tmp_path, tmp_path / "out", *deep)
    assert told.startswith("no option reaches --stages#pretrain#network_def#patch: write ")
    (tmp_path / "mine.yaml").write_text(told.partition("write ")[2].partition(" into")[0].replace("VALUE", "8"))
    config = ConfigParser()
    config.read_config([CONFIGS / "experiment.yaml", CONFIGS / "with_masked.yaml", tmp_path / "mine.yaml"])
    pretrain = config.get()["stages"]["pretrain"]
    assert pretrain["network_def#patch"] == 8 and pretrain["network_def#hidden"] == 0.5  # the overlay's own stays
    assert not (tmp_path / "out").exists()


def test_what_is_no_model_is_refused_in_one_line(refused, tmp_path):
    (tmp_path / "cae.zip").write_bytes(b"")
    assert refused("predict", tmp_path / "absent", "SCANS", "OUT").startswith(f"no model at {tmp_path / 'absent'}: ")
    assert "cae.zip is a zip: unpack it with monai-cae bundle FOLDER --from " in refused(
        "predict", tmp_path / "cae.zip", "SCANS", "OUT"
    )
    assert "run evaluate.json with --output_dir" in refused("predict", tmp_path, "SCANS", "OUT")
    assert "checkpoint is given without a name, by its position" in refused(
        "predict", tmp_path, "SCANS", "OUT", "--checkpoint", "model.pt"
    )


def test_a_package_predicts_by_its_own_config_and_a_checkpoint_by_the_bundles(started, tmp_path):
    model = write_bundle(tmp_path / "package") / "models" / "model.pt"
    places = ["--dataset_dir", "./SCANS", "--predictions", "./OUT/predictions.csv"]
    ours = str(CONFIGS / "inference.json")
    assert started("predict", model, "SCANS", "OUT", "--image-size", 16) == [
        "run", "--config_file", ours, "--checkpoint", str(model),
        "--pretrained", str(model.with_name("autoencoder.pt")), *places, "--image_size", "16",
    ]  # fmt: skip


def test_a_run_predicts_as_it_was_tested_and_replaces_nothing_unasked(
    experiment, discs, tmp_path, monkeypatch, refused
):
    part = experiment / "repeat_1"
    assert f"give one of its runs, such as {part}" in refused("predict", experiment, discs, tmp_path)
    command = ["predict", str(part), str(discs), str(tmp_path / "out")]
    assert main(command) == 0
    table = tmp_path / "out" / "predictions.csv"
    predicted = {row["subject"]: row["probability"] for row in csv.DictReader(table.read_text().splitlines())}
    tested = list(csv.DictReader((part / "predictions.csv").read_text().splitlines()))
    assert len(tested) == 8 and all(predicted[row["subject"]] == row["probability"] for row in tested)
    table.write_text("mine")
    assert "predictions.csv already exists: --overwrite true replaces it" in mistake(main, command)
    assert table.read_text() == "mine"
    assert main([*command, "--overwrite", "true"]) == 0 and table.read_text() != "mine"


def test_left_out_of_another_is_not_removed(experiment, discs, tmp_path):
    (tmp_path / "left_out.csv").write_text("mine")
    command = ["predict", str(experiment / "repeat_1"), str(discs), str(tmp_path)]
    assert "left_out.csv already exists" in mistake(main, command)
    assert [path.read_text() for path in tmp_path.iterdir()] == ["mine"]


@pytest.mark.parametrize("command", ["latent", "drift"])
def test_what_an_overlay_asks_for_is_not_the_models(started, monkeypatch, tmp_path, command):
    """A model of an earlier version has other items than the configs that are shipped now: they are no settings."""
    model = {"pretrained": "a.pt", "dataset#data": "$@sets.test", "target#_target_": "Old", "image_size": 16}
    monkeypatch.setattr("monai_cae.sharing.settings.autoencoder_settings", lambda *_, **__: model)
    called = started(command, "MODEL", tmp_path, tmp_path / "out")
    assert called[3:8] == ["--pretrained", "a.pt", "--image_size", "16", "--dataset_dir"]


@pytest.mark.parametrize("command", ["run", "predict", "latent", "drift", "pretrain.json", "parquet"])
def test_results_do_not_go_into_the_data(experiment, discs, refused, run_bundle, command):
    """They would be read with it: `several tables in ...`. Below it they do no harm."""
    before, model = sorted(discs.iterdir()), str(experiment / "repeat_1")
    if command == "pretrain.json":
        said = mistake(run_bundle, command, discs, discs / "disc1" / "..")
    elif command == "parquet":
        said = refused("predict", model, discs, discs, "--parquet")
    else:
        said = mistake(
            main, ["run" if command == "run" else command, *([model] * (command != "run")), *[str(discs)] * 2]
        )
    assert "is the folder of the data: choose another folder for the results" in said
    assert sorted(discs.iterdir()) == before


@pytest.mark.parametrize("finished", [True, False])
def test_an_experiment_is_not_resumed_with_another_label(experiment, discs, finished):
    table, summary = discs / "oasis_cross-sectional.csv", experiment / "summary.json"
    text, told = table.read_bytes(), summary.read_bytes()
    row = next(line for line in text.splitlines() if line.startswith(b"OAS1_0003_MR1"))
    try:
        table.write_bytes(text.replace(row, row.replace(b",0,N/A", b",0.5,N/A")))
        if not finished:
            summary.unlink()
        said = mistake(main, ["run", str(discs), str(experiment), *SETTINGS, "--resume", "true"])
    finally:
        table.write_bytes(text)
        summary.write_bytes(told)
    assert "OAS1_0003 had label 0 then and has label 1 now: restore the table" in said


def test_weights_without_a_test_beside_them_are_doubted(experiment, discs, tmp_path, capsys):
    shutil.copy(experiment / "repeat_1" / "models" / "model.pt", tmp_path / "copied.pt")
    settings = ["--image-size", "16", "--slice-index", "11", "--device", "cpu"]
    for model, doubted in ((tmp_path / "copied.pt", True), (experiment / "repeat_1" / "models" / "model.pt", False)):
        assert main(["predict", str(model), str(discs), str(tmp_path / model.stem), *settings]) == 0
        assert ("! UNTESTED: " in capsys.readouterr().out) == doubted


def test_a_refused_run_says_so_in_its_exit_status(experiment, discs, tmp_path):
    before = {path: path.stat().st_mtime_ns for path in experiment.rglob("*") if path.name != ".lock"}
    for output, further, said in (
        (experiment, [], "already has results of an experiment"),
        (tmp_path / "new", ["--save-every", "-5"], "save_every must be a number of seconds from 0, not -5"),
    ):
        ended = killing.command("monai-cae", "run", discs, output, *SETTINGS, *further, cwd=tmp_path)
        assert ended.returncode == 1 and said in ended.stderr and "Traceback" not in ended.stderr
    assert not any(tmp_path.iterdir())
    assert before == {path: path.stat().st_mtime_ns for path in experiment.rglob("*") if path.name != ".lock"}


def test_another_rule_is_named_by_its_setting_alone(experiment, discs):
    command = ["run", str(discs), str(experiment), *SETTINGS, "--resume", "true", "--cohort#task", "very-mild"]
    assert "has pretrain finished with cohort#task 'paper', not 'very-mild': choose" in mistake(main, command)


@pytest.mark.parametrize(
    ("name", "told"),
    [
        ("max-epochs", "max_epochs\n  default: 400\n"),
        ("max_epochs", "max_epochs\n  default: 400\n"),
        ("repeats", "repeats\n  default: 5\n  the paper's number; read by experiment.yaml\n"),
        ("task", "cohort#task\n  default: paper\n"),
        ("variants", "variants\n  default: {}\n"),
        ("cohort#table", "cohort#table\n  default:\n"),
    ],
)
def test_settings_are_explained(name, told, capsys):
    assert main(["settings", name]) == 0
    assert capsys.readouterr().out.startswith(told)


def test_every_setting_of_every_config_is_explained(capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    assert main(["settings"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert max(map(len, lines)) <= 80
    told = {line for line in lines if not line.startswith(" ")}
    for config in ("pretrain", "train", "evaluate", "baselines", "inference"):
        content = json.loads((CONFIGS / f"{config}.json").read_text())
        assert {name for name in content if f"_{name}_" in content and name not in ("cohort", "split", "run")} <= told
    assert {"repeats", "variants", "baselines", "stages", "cohort#task", "split#kind"} <= told


def test_an_unknown_setting_has_its_neighbour_named(refused):
    assert refused("settings", "max-epoch") == "no setting max_epoch: did you mean max_epochs?"


def test_a_reader_that_has_enough_ends_the_list_quietly():
    reading, writing = os.pipe()
    os.close(reading)
    ended = subprocess.run([*MONAI_CAE, "settings"], stdout=writing, stderr=subprocess.PIPE, text=True, check=False)
    os.close(writing)
    assert (ended.returncode, ended.stderr) == (141, "")


def test_paths_with_odd_letters_stay_what_they_are(started):
    for odd in (
        "a b",
        "ümläut",
        "quo'te",
        'dou"ble',
        "dol$HOME",
        "`tick`",
        "back\\slash",
        "it's $5",
        "a,b",
        "12",
        "@at",
    ):
        assert started("run", odd, odd)[5::2] == [f"./{odd}", f"./{odd}"]
    assert started("run", "--", "-dash", "true")[5::2] == ["./-dash", "./true"]
    assert started("run", "/a,b", "/c d")[5::2] == ["/a,b", "/c d"]


@pytest.mark.parametrize("read", [("a", "b"), 12, True, None])
def test_a_path_that_is_read_as_something_else_is_told(read):
    with pytest.raises(MonaiCaeError, match=f"output_dir must be a path, not {re.escape(repr(read))}: put ./ in front"):
        check_settings({"output_dir": read, "run": "$print(@output_dir)"})
