"""Killed, ended, out of disk, twice at once: nothing is lost, and what is resumed ends as if nothing had happened."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import time
from pathlib import Path

import killing
import pandas as pd
import pytest
import torch
from mlflow import MlflowClient
from tiny import mistake, random_network

from monai_cae.cli import main
from monai_cae.networks import save_weights
from monai_cae.training.stages.checkpointing import Resuming
from monai_cae.training.stages.signals import Ended

STAGES = ("pretrain.json", "train.json")
EPOCHS = {"max_epochs": 5, "patience": 2, "augment": True, "learning_rate": 0.02}
KILLS = 20


def weights(output: Path) -> dict[str, dict[str, torch.Tensor]]:
    return {name: torch.load(output / "models" / f"{name}.pt") for name in ("autoencoder", "model")}


def assert_same_weights(one: Path, other: Path) -> None:
    for name, state in weights(one).items():
        theirs = weights(other)[name]
        assert state.keys() == theirs.keys()
        assert all(torch.equal(tensor, theirs[key]) for key, tensor in state.items()), name


def results(output: Path, stage: str) -> dict[str, float]:
    found = json.loads((output / f"results_{stage}.json").read_text())
    return {name: value for name, value in found.items() if name not in ("seconds", "run_id")}


@pytest.fixture(scope="module")
def settings(discs, tracking_uri):
    return {**killing.SMALL, **EPOCHS, "dataset_dir": str(discs), "tracking_uri": tracking_uri}


@pytest.fixture(scope="module")
def whole(settings, tmp_path_factory):
    """Both stages, never ended."""
    folder = tmp_path_factory.mktemp("whole")
    assert killing.finish(STAGES, folder / "log", output_dir=str(folder / "out"), **settings) == 0
    return folder / "out"


@pytest.fixture
def train_here(settings, tmp_path):
    """A stage in this process."""
    import monai.bundle

    def train(config: str, **options) -> None:
        given = {**settings, "output_dir": str(tmp_path / "out"), **options}
        monai.bundle.run(run_id="training", config_file=str(killing.CONFIGS / config), **given)

    return train


@pytest.fixture
def ended_after(monkeypatch):
    """Have SIGTERM come while the n-th epoch of a process, validation included, is running."""

    def end(epoch: int) -> None:
        after_epoch = Resuming.after_epoch
        seen = []

        def terminated(self, name, trainer):
            seen.append(name)
            if len(seen) == epoch:
                signal.raise_signal(signal.SIGTERM)
            after_epoch(self, name, trainer)

        monkeypatch.setattr(Resuming, "after_epoch", terminated)

    yield end
    monkeypatch.undo()


@pytest.mark.fault(
    "SIGKILL and SIGTERM in turn, twenty times at random moments of pretraining, the frozen stage and fine-tuning",
    "the same command with --resume true ends with the weights of an uninterrupted run, bit for bit",
)
@pytest.mark.slow
def test_twenty_kills_at_random_moments_change_nothing(whole, settings, tmp_path, tracking_uri):
    chance = random.Random(2026)
    statuses, finished = [], 0
    while len(statuses) < KILLS:
        output = tmp_path / f"out {finished}"
        process = killing.start(STAGES, tmp_path / "log", output_dir=str(output), resume=True, **settings)
        process.join(chance.uniform(0.3, 2))
        if process.is_alive():
            statuses.append(killing.kill(process, (signal.SIGKILL, signal.SIGTERM)[len(statuses) % 2]))
        ended = (-signal.SIGKILL, 128 + signal.SIGTERM, -signal.SIGTERM)  # the last before the stage has begun
        assert process.exitcode in (0, *ended), (tmp_path / "log").read_text()
        finished += (output / "results_train.json").is_file()
    assert -signal.SIGKILL in statuses
    for number in range(finished + 1):
        output = tmp_path / f"out {number}"
        assert killing.finish(STAGES, tmp_path / "log", output_dir=str(output), resume=True, **settings) == 0
        assert_same_weights(output, whole)
        assert results(output, "train") == results(whole, "train")
        for stage in ("pretrain", "train"):
            found = json.loads((output / f"results_{stage}.json").read_text())
            curve = MlflowClient(tracking_uri).get_metric_history(found["run_id"], "train_loss")
            assert len({point.step for point in curve}) == max(point.step for point in curve) >= found["epochs"]
        assert not [path for path in output.rglob("*") if "unfinished" in path.name or "resume_" in path.name]


@pytest.mark.slow
@pytest.mark.fault(
    "SIGTERM in a training whose learning rate follows a schedule",
    "the rates go on where they were; the end is the same, bit for bit",
)
def test_a_schedule_goes_on_where_it_was(train_here, ended_after, tmp_path):
    told = {"schedule": "one_cycle", "output_dir": str(tmp_path / "ended")}
    train_here("pretrain.json", **{**told, "output_dir": str(tmp_path / "whole")})
    for _ in range(2):
        ended_after(2)
        with pytest.raises(Ended):
            train_here("pretrain.json", resume=True, **told)
    train_here("pretrain.json", resume=True, **told)
    one, other = (torch.load(tmp_path / name / "models" / "autoencoder.pt") for name in ("ended", "whole"))
    assert all(torch.equal(tensor, other[key]) for key, tensor in one.items())


@pytest.mark.fault(
    "SIGTERM in every second epoch of both stages, on slabs and on volumes",
    "the end is the same as without, bit for bit",
)
@pytest.mark.parametrize(
    ("overlay", "given"),
    [
        pytest.param("with_slab.yaml", {"extraction#slices": 3}, marks=pytest.mark.slow),
        ("with_volume.yaml", {"image_size": [12, 16, 12], "augment": False, "batch_size": 4}),
    ],
)
def test_slabs_and_volumes_are_resumed(settings, ended_after, tmp_path, overlay, given):
    import monai.bundle

    def run(name: str, **more) -> None:
        for config in STAGES:
            files = [str(killing.CONFIGS / one) for one in (config, overlay)]
            told = {**settings, "channels": [2, 3], **given, "max_epochs": 3, "output_dir": str(tmp_path / name)}
            monai.bundle.run(run_id="training", config_file=files, **told, **more)

    run("whole")
    for _ in range(2):
        ended_after(2)
        with pytest.raises(Ended):
            run("ended", resume=True)
    run("ended", resume=True)
    assert_same_weights(tmp_path / "ended", tmp_path / "whole")
    assert results(tmp_path / "ended", "train") == results(tmp_path / "whole", "train")


@pytest.mark.fault(
    "SIGTERM in every single epoch of both stages, with augmentation and early stopping",
    "each time the epoch is finished and saved, the status is 143; the end is the same, bit for bit",
)
@pytest.mark.parametrize("config", STAGES)
def test_ended_in_every_epoch(whole, train_here, ended_after, tmp_path, config, tracking_uri, capfd):
    name = f"ended {config}"
    if config == "train.json":
        (tmp_path / "out" / "models").mkdir(parents=True)
        (tmp_path / "out" / "models" / "autoencoder.pt").write_bytes((whole / "models" / "autoencoder.pt").read_bytes())
        (tmp_path / "out" / "datalist.json").write_bytes((whole / "datalist.json").read_bytes())
    stage = config.removesuffix(".json")
    epochs = results(whole, stage)["epochs"]
    client = MlflowClient(tracking_uri)
    for _ in range(epochs):
        ended_after(1)
        with pytest.raises(Ended) as end:
            train_here(config, resume=True, experiment_name=name)
        assert end.value.code == 143
        (run,) = client.search_runs([client.get_experiment_by_name(name).experiment_id])
        assert run.info.status == "KILLED"
    train_here(config, resume=True, experiment_name=name)
    assert results(tmp_path / "out", stage) == results(whole, stage)
    (run,) = client.search_runs([client.get_experiment_by_name(name).experiment_id])
    assert run.info.status == "FINISHED"
    history = client.get_metric_history(run.info.run_id, "train_loss")
    assert [point.step for point in history] == list(range(1, epochs + 1))
    printed = capfd.readouterr()
    assert f"continuing after epoch {epochs - 1}" in printed.out
    assert "ending after this epoch" in printed.err and "--resume true continues it" in printed.err


def test_images_on_disk_change_nothing_and_a_resumed_run_uses_them(whole, train_here, ended_after, tmp_path, capfd):
    node = tmp_path / "node"
    ended_after(2)
    with pytest.raises(Ended):
        train_here("pretrain.json", cache_share=0, cache_dir=str(node))
    (cache,) = node.iterdir()
    written = {path: path.stat().st_mtime_ns for path in cache.iterdir()}
    assert len([path for path in written if path.suffix == ".rows"]) == 2  # training and validation
    assert f"read from {cache} batch by batch" in capfd.readouterr().out
    train_here("pretrain.json", cache_share=0, cache_dir=str(node), resume=True)
    assert "as before" in capfd.readouterr().out
    assert results(tmp_path / "out", "pretrain") == results(whole, "pretrain")
    assert not cache.exists() and not (tmp_path / "out" / "cache").exists()


@pytest.mark.slow
@pytest.mark.fault(
    "SIGKILL between two repeats of an experiment",
    "the finished repeat is kept, the other trained; same predictions as without it",
)
def test_killed_between_repeats(settings, tmp_path):
    channels = {"channels": [2, 3, 4]}
    own = {key: value for key, value in settings.items() if key not in ("channels", "augment", "learning_rate")}
    own |= {"repeats": 2, "seed": 5, "max_epochs": 2, "stages": {"pretrain": channels, "classifier": channels}}
    first, second = tmp_path / "first", tmp_path / "second"
    process = killing.start(["experiment.yaml"], tmp_path / "log", output_dir=str(first), **own)
    steps = first / "repeat_1" / "steps.json"
    deadline = time.monotonic() + killing.LONGEST
    while process.is_alive() and not (steps.is_file() and "network" in json.loads(steps.read_text())):
        assert time.monotonic() < deadline
        time.sleep(0.02)
    assert killing.kill(process, signal.SIGKILL) == -signal.SIGKILL
    kept = (first / "repeat_1" / "models" / "model.pt").stat().st_mtime_ns
    assert killing.finish(["experiment.yaml"], tmp_path / "log", output_dir=str(first), resume=True, **own) == 0
    assert (first / "repeat_1" / "models" / "model.pt").stat().st_mtime_ns == kept
    assert killing.finish(["experiment.yaml"], tmp_path / "log", output_dir=str(second), **own) == 0
    assert (first / "predictions.csv").read_bytes() == (second / "predictions.csv").read_bytes()
    # and what a repeat comes to does not depend on what ran before it
    alone = {"seed": 6, "output_dir": str(tmp_path / "alone"), **channels}
    stage = {key: value for key, value in own.items() if key not in ("repeats", "stages", "seed")}
    assert killing.finish(["pretrain.json"], tmp_path / "log", **stage, **alone) == 0
    ours, theirs = (
        torch.load(path / "models" / "autoencoder.pt") for path in (tmp_path / "alone", second / "repeat_2")
    )
    assert all(torch.equal(tensor, theirs[name]) for name, tensor in ours.items())


@pytest.mark.fault("a finished stage is resumed", "it says so and does nothing")
def test_finished_stage_resumed_does_nothing(whole, train_here, capsys):
    before = {path: path.stat().st_mtime_ns for path in whole.rglob("*") if path.is_file() and path.name != ".lock"}
    capsys.readouterr()
    for config in STAGES:
        train_here(config, output_dir=str(whole), resume=True)
    printed = capsys.readouterr().out
    assert f"pretrain is finished in {whole}: nothing is left to do" in printed
    assert f"train is finished in {whole}: nothing is left to do" in printed
    assert {path: path.stat().st_mtime_ns for path in before} == before


def test_point_of_other_settings_is_refused_and_kept(train_here, ended_after, tmp_path):
    ended_after(2)
    with pytest.raises(Ended):
        train_here("pretrain.json")
    said = mistake(train_here, "pretrain.json", resume=True, learning_rate=0.5)
    assert "learning_rate 0.02, not 0.5" in said
    assert torch.load(tmp_path / "out" / "models" / "resume_pretrain.pt")["monai_cae_format"] == 1
    train_here("pretrain.json", resume=True, device="cpu", threads=1)  # the machine may be another


def test_weights_that_are_not_the_finished_ones_are_told(whole, train_here, tmp_path):
    copied = tmp_path / "out"
    subprocess.run(["cp", "-r", str(whole), str(copied)], check=True)
    model = copied / "models" / "model.pt"
    torch.save({name: tensor + 1 for name, tensor in torch.load(model).items()}, model)
    settings = json.loads((copied / "config_train.json").read_text())
    for name in ("output_dir", "datalist"):  # as a folder that was copied
        settings[name] = settings[name].replace(str(whole), str(copied))
    (copied / "config_train.json").write_text(json.dumps(settings))
    said = mistake(train_here, "train.json", resume=True)
    assert "are not those that" in said
    results_file = copied / "results_train.json"
    results_file.write_text(json.dumps(json.loads(results_file.read_text()) | {"monai_cae_format": 2}))
    assert f"{results_file} has monai_cae_format 2" in mistake(train_here, "train.json", resume=True)


def test_broken_point_ends_in_one_line(train_here, tmp_path):
    point = tmp_path / "out" / "models" / "resume_pretrain.pt"
    point.parent.mkdir(parents=True)
    for content in (b"", b"PK\x03\x04 cut", b"\x80\x04N."):
        point.write_bytes(content)
        said = mistake(train_here, "pretrain.json", resume=True)
        assert str(point) in said and "--overwrite true in place of --resume true starts again" in said
        assert point.read_bytes() == content


def test_unfinished_run_is_kept_until_its_end_is_asked_for(train_here, ended_after, tmp_path, capsys):
    ended_after(1)
    with pytest.raises(Ended):
        train_here("pretrain.json", max_epochs=1, patience=1)
    point = tmp_path / "out" / "models" / "resume_pretrain.pt"
    before = point.read_bytes()
    said = mistake(train_here, "pretrain.json", max_epochs=1, patience=1)
    assert "--resume true continues from them, --overwrite true replaces them" in said and point.read_bytes() == before
    train_here("pretrain.json", max_epochs=1, patience=1, overwrite=True)
    assert not point.exists() and "continuing after" not in capsys.readouterr().out


@pytest.mark.fault("two processes with one output_dir", "the second is refused in one line, the first continues")
def test_second_process_is_refused(settings, tmp_path):
    output = tmp_path / "out"
    long = {**settings, "max_epochs": 5000, "patience": 5000}
    first = killing.start(["pretrain.json"], tmp_path / "first.log", output_dir=str(output), **long)
    try:
        deadline = time.monotonic() + killing.LONGEST
        while not list(output.glob("models/*.pt")):
            assert first.is_alive() and time.monotonic() < deadline, (tmp_path / "first.log").read_text()
            time.sleep(0.05)
        assert killing.finish(["pretrain.json"], tmp_path / "second.log", output_dir=str(output), **long) == 1
        assert f"another process is writing to {output}" in (tmp_path / "second.log").read_text()
        assert first.is_alive()
    finally:
        killing.kill(first, signal.SIGKILL)


@pytest.fixture
def small_disk(tmp_path):
    """A file system of 2 MB."""
    folder = tmp_path / "disk"
    folder.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=2m", "tmpfs", str(folder)]
    if subprocess.run(command, capture_output=True, check=False).returncode:
        pytest.skip("mounting a file system takes root")
    yield folder
    subprocess.run(["umount", str(folder)], check=True)


def fill(folder: Path) -> None:
    with (folder / "filling").open("wb", buffering=0) as file:
        try:
            while file.write(bytes(4096)):
                pass
        except OSError:
            os.fsync(file.fileno())


@pytest.mark.fault(
    "the disk is full when a point, a checkpoint, a datalist or a table is to be written",
    "one line says so; the last good file is intact, and the run continues from it once there is space",
)
def test_full_disk_leaves_the_last_good_files(whole, train_here, small_disk, monkeypatch):
    output = small_disk / "out"
    after_epoch = Resuming.after_epoch

    def filled(self, name, trainer):
        if trainer.state.epoch == 3:
            fill(small_disk)
        after_epoch(self, name, trainer)

    monkeypatch.setattr(Resuming, "after_epoch", filled)
    said = mistake(train_here, "pretrain.json", output_dir=str(output))
    assert "No space left on device" in said and "free some space" in said
    assert sorted(path.name for path in (output / "models").iterdir()) == ["autoencoder.pt", "resume_pretrain.pt"]
    monkeypatch.undo()
    (small_disk / "filling").unlink()
    train_here("pretrain.json", output_dir=str(output), resume=True)
    ours, theirs = (torch.load(path / "models" / "autoencoder.pt") for path in (output, whole))
    assert all(torch.equal(tensor, theirs[name]) for name, tensor in ours.items())


@pytest.mark.fault(
    "the loss explodes or is not a number", "epoch, batch, its subjects and the last good checkpoint named"
)
def test_loss_that_explodes_stops_the_stage(whole, train_here, tmp_path):
    (tmp_path / "out" / "models").mkdir(parents=True)
    for name in ("models/autoencoder.pt", "datalist.json"):
        (tmp_path / "out" / name).write_bytes((whole / name).read_bytes())
    said = mistake(train_here, "train.json", learn="frozen", learning_rate=1e30)
    assert "exploded to" in said or "became" in said
    assert "in epoch 1, batch" in said and "OAS1_" in said and "there is no good checkpoint yet" in said


@pytest.mark.fault(
    "the weights explode in an epoch's last step, so that only its validation is not a number",
    "the epoch, the metric and the last good checkpoint named, in one line",
)
@pytest.mark.parametrize(("config", "metric"), [("pretrain.json", "val_mse"), ("train.json", "val_loss")])
def test_validation_that_becomes_nan_stops_the_stage(whole, train_here, tmp_path, monkeypatch, config, metric):
    (tmp_path / "out" / "models").mkdir(parents=True)
    for name in ("models/autoencoder.pt", "datalist.json"):
        (tmp_path / "out" / name).write_bytes((whole / name).read_bytes())
    step, taken = torch.optim.Adam.step, []

    def spoil_last(self, closure=None):
        loss = step(self, closure)
        taken.append(1)
        if len(taken) == 2:
            torch.nn.init.constant_(self.param_groups[0]["params"][-1].data, float("nan"))
        return loss

    monkeypatch.setattr(torch.optim.Adam, "step", spoil_last)
    said = mistake(train_here, config, batch_size=64, learning_rate=1e-3, overwrite=True)
    assert f"{metric} became nan in the validation of epoch 2: " in said and "has the best weights before it" in said
    name = "autoencoder.pt" if config == "pretrain.json" else "model.pt"
    kept = torch.load(tmp_path / "out" / "models" / name)
    assert all(tensor.isfinite().all() for tensor in kept.values())


@pytest.mark.fault(
    "SIGKILL of a prediction in chunks, and --resume true",
    "no scan is lost and none is there twice; what was done is kept",
)
def test_a_killed_prediction_in_chunks_loses_nothing_that_is_done(discs, tmp_path):
    save_weights(random_network("classifier"), tmp_path / "model.pt")
    settings = ["--parquet", "--chunk", "1", "--image-size", "16", "--slice-index", "11", "--device", "cpu"]
    out = tmp_path / "out"
    command = ["predict", str(tmp_path / "model.pt"), str(discs), str(out), *settings]
    process = killing.call(main, command)
    while process.is_alive() and len(list(out.rglob("part-*"))) < 3:
        time.sleep(0.01)
    assert killing.kill(process, signal.SIGKILL) == -signal.SIGKILL
    done = {path: path.stat().st_mtime_ns for path in out.rglob("part-*")}
    assert main([*command, "--resume", "true"]) == 0
    assert 3 <= len(done) <= 24 and all(path.stat().st_mtime_ns == time for path, time in done.items())
    found = pd.read_parquet(out / "predictions")
    assert sorted(found["file"]) == sorted(map(str, discs.rglob("*.hdr"))) and found["probability"].notna().all()
