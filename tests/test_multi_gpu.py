"""multi_gpu_train.json under torchrun: two processes on CPUs do what one does with batches of the same subjects."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from mlflow import MlflowClient
from monai.data import DistributedSampler
from tiny import CONFIGS, TINY, mistake, write_discs

from monai_cae.errors import MonaiCaeError
from monai_cae.networks import ConvAutoencoder, ConvDecoder, ConvEncoder, save_weights
from monai_cae.training import ParallelInferer, ResidentLoader, join_processes, leave_processes, local_device

OVERLAY = "multi_gpu_train.json"
# 12 subjects train in batches of 4, 2 of each process; 3 validate, which don't divide between two
SEED = 5  # with the rates below it gets some validation subjects wrong and one AUC below 1
# in double precision: of float32's roundings, which are others in two processes, three epochs make differences of 1e-3
DOUBLE = {"train#preprocessing#transforms#5#dtype": "$torch.float64"}
NETWORK = "$monai_cae.training.with_pretrained(@network_def, @autoencoder_def, @pretrained).to(@device).double()"
SETTINGS = {**TINY, **DOUBLE, "threads": 1, "max_epochs": 3, "seed": SEED}
# Adam divides by the gradients' size: it would hide a wrong one
SGD = {"_target_": "torch.optim.SGD", "params": "$@network.parameters()", "lr": "@learning_rate"}
CLASSIFIER = {
    "network_def#dropout": 0.0,
    "learning_rate": 0.001,
    "train#optimizer": SGD,
    "frozen#optimizer": {**SGD, "lr": 0.005},
    "network": NETWORK,
}
STAGES = {
    "pretrain": (
        "pretrain.json",
        {"train#optimizer": SGD, "learning_rate": 0.001, "network": "$@network_def.to(@device).double()"},
    ),
    # 3 batches make two steps; each process computes its blocks twice and counts batches once
    "volumes": (
        "pretrain.json",
        {
            "extraction": {"_target_": "monai_cae.data.VolumeExtraction", "size": "@image_size", "axes": "@axes"},
            "train#optimizer": SGD,
            "learning_rate": 0.01,
            "accumulate": 2,
            "activation_checkpointing": True,
            "channels": [2, 4],
            "image_size": [12, 16, 12],
            "network": "$monai_cae.networks.recomputing(@network_def, @activation_checkpointing).to(@device).double()",
        },
    ),
    "codes": ("train.json", CLASSIFIER),
    "images": ("train.json", {**CLASSIFIER, "encode_once": False}),
}
RESUMED = "volumes"  # also ended after two of its three epochs, and resumed
SEE_THE_WHOLE_BATCH = {"initialize#5#_target_": "plugins.cpu_batch_norm.become_cpu_replica"}
SEVERAL_STAGES = """
import json, signal, sys, torch, monai.bundle
from drawing import draw_little
from monai_cae.training.stages.checkpointing import Resuming
from monai_cae.training.stages.signals import Ended
folder, runs = sys.argv[1], json.loads(sys.argv[2])
draw_little()
after_epoch = Resuming.after_epoch
def terminated(self, name, trainer):
    if trainer.state.epoch == last and not self.resume:
        signal.raise_signal(signal.SIGTERM)
    after_epoch(self, name, trainer)
Resuming.after_epoch = terminated
for files, settings, last in runs:
    try:
        monai.bundle.run(run_id="training", config_file=files, **settings)
        assert not last
    except Ended:
        torch.distributed.barrier()
        monai.bundle.run(run_id="training", config_file=files, resume=True, **settings)
    open(f"{folder}/seed_{torch.initial_seed()}", "w").close()
"""


def torchrun(script: Path, runs: Sequence[object]) -> subprocess.CompletedProcess:
    """One launch for all: what the processes import takes them longer than all stages."""
    script.write_text(SEVERAL_STAGES)
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node=2"]
    command += [str(script), str(script.parent), json.dumps(runs)]
    path = os.pathsep.join([str(Path(__file__).parent), os.environ.get("PYTHONPATH", "")])
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": "", "PYTHONPATH": path}
    return subprocess.run(
        command, env=environment, cwd=script.parent, capture_output=True, text=True, timeout=300, check=False
    )


@pytest.fixture(scope="module")
def cohort(tmp_path_factory):
    return write_discs(tmp_path_factory.mktemp("odd") / "discs", 22)


def with_settled_statistics() -> ConvAutoencoder:
    """Random weights; what batch norm keeps of so few steps would make all subjects look the same in evaluation."""
    torch.manual_seed(0)
    network = ConvAutoencoder(encoder=ConvEncoder(), decoder=ConvDecoder())
    with torch.no_grad():
        for _ in range(50):
            network(torch.rand(4, 1, 16, 16))
    return network


@pytest.fixture(scope="module")
def outcomes(cohort, run_bundle, tracking_uri, tmp_path_factory):
    """Every stage by one process and by two; then one that fails in the second when its optimizer is made, while
    the first waits for it in DistributedDataParallel."""
    folder = tmp_path_factory.mktemp("processes")
    autoencoder = str(folder / "autoencoder.pt")
    save_weights(with_settled_statistics(), autoencoder)
    client = MlflowClient(tracking_uri)
    runs, found = [], {}
    for name, (config, options) in STAGES.items():
        own = {**SETTINGS, **options}
        if config == "train.json":
            own["pretrained"] = autoencoder
        # one process that draws its batches in the order in which two share them out
        order = {"_target_": "DistributedSampler", "dataset": "@train#dataset", "num_replicas": 1, "rank": 0}
        order["seed"] = SEED
        alone = {**own, "experiment_name": f"{name} one", "train#sampler": order}
        run_bundle(config, cohort, folder / f"{name} one", **alone)
        together = {"dataset_dir": str(cohort), "output_dir": str(folder / f"{name} two"), "tracking_uri": tracking_uri}
        together |= {**own, "experiment_name": f"{name} two", **SEE_THE_WHOLE_BATCH}
        files = [str(CONFIGS / config), str(CONFIGS / OVERLAY)]
        runs.append([files, together, 0])
        if name == RESUMED:
            elsewhere = {"output_dir": str(folder / f"{name} resumed"), "experiment_name": f"{name} resumed"}
            runs.append([files, {**together, **elsewhere}, 2])
    settings = {**SETTINGS, "dataset_dir": str(cohort), "output_dir": str(folder / "failed")}
    settings |= {"tracking_uri": tracking_uri, "learning_rate": "$0.001 if monai_cae.training.is_first() else 1 / 0"}
    runs.append([[str(CONFIGS / "pretrain.json"), str(CONFIGS / OVERLAY)], settings, 0])
    done = torchrun(folder / "stages.py", runs)
    assert "ZeroDivisionError" in done.stderr, done.stderr
    for name, (config, _) in STAGES.items():
        found[name] = {}
        for processes in ("one", "two"):
            experiment = client.get_experiment_by_name(f"{name} {processes}")
            (run,) = client.search_runs([experiment.experiment_id])  # one run, whoever tracks
            names = [name for name in run.data.metrics if name.startswith(("val_", "train_"))]
            history = {metric: client.get_metric_history(run.info.run_id, metric) for metric in names}
            found[name][processes] = SimpleNamespace(
                config=config,
                output=folder / f"{name} {processes}",
                status=run.info.status,
                history={metric: [point.value for point in points] for metric, points in history.items()},
            )
    return SimpleNamespace(folder=folder, stages=found, printed=done.stdout, status=done.returncode)


@pytest.mark.parametrize("stage", STAGES)
def test_metrics_of_every_epoch_are_those_of_one_process(outcomes, stage):
    one, two = outcomes.stages[stage]["one"], outcomes.stages[stage]["two"]
    pretraining = one.config == "pretrain.json"
    measured = ("mse", "psnr", "psnr_brain") if pretraining else ("loss", "accuracy", "f1", "auc")
    assert one.history.keys() == two.history.keys() == {"train_loss", *(f"val_{name}" for name in measured)}
    for name, values in one.history.items():
        assert len(values) == (3 if pretraining else 6)
        assert two.history[name] == pytest.approx(values, rel=1e-6), name


@pytest.mark.parametrize("stage", STAGES)
def test_best_weights_are_those_of_one_process_and_load_without_the_overlay(
    outcomes, stage, cohort, run_bundle, tmp_path
):
    one, two = outcomes.stages[stage]["one"], outcomes.stages[stage]["two"]
    (path,) = (one.output / "models").iterdir()
    expected, found = (torch.load(side.output / "models" / path.name, weights_only=True) for side in (one, two))
    assert expected.keys() == found.keys()
    for name, tensor in expected.items():
        torch.testing.assert_close(found[name], tensor, rtol=1e-6, atol=1e-8)
    if stage == "codes":
        options = {"checkpoint": str(two.output / "models" / path.name), "datalist": str(two.output / "datalist.json")}
        options["pretrained"] = str(outcomes.stages["pretrain"]["two"].output / "models" / "autoencoder.pt")
        run_bundle("evaluate.json", cohort, tmp_path, seed=SEED, **options)
        assert (tmp_path / "predictions.csv").is_file()


@pytest.mark.parametrize("stage", STAGES)
def test_one_process_writes_and_prints(outcomes, stage):
    one, two = outcomes.stages[stage]["one"], outcomes.stages[stage]["two"]
    assert two.status == "FINISHED"
    finished = f"\n{two.config.removesuffix('.json')} finished on real data"
    configs = [config for config, _ in STAGES.values()] + [STAGES[RESUMED][0]]
    assert outcomes.printed.count(finished) == configs.count(two.config)
    assert (two.output / "datalist.json").read_bytes() == (one.output / "datalist.json").read_bytes()
    files = [{path.relative_to(side.output) for path in side.output.rglob("*")} for side in (one, two)]
    assert files[0] == files[1]


def test_processes_that_go_on_end_with_the_weights_of_those_that_were_never_ended(outcomes):
    whole, resumed = (
        torch.load(outcomes.folder / f"{RESUMED} {way}" / "models" / "autoencoder.pt", weights_only=True)
        for way in ("two", "resumed")
    )
    assert whole["encoder.blocks.0.0.weight"].shape == (2, 1, 3, 3, 3) and whole.keys() == resumed.keys()
    assert all(torch.equal(tensor, resumed[name]) for name, tensor in whole.items())
    assert outcomes.printed.count("continuing after epoch 2") == 1


def test_processes_draw_their_own_random_numbers(outcomes):
    assert {path.name for path in outcomes.folder.glob("seed_*")} == {f"seed_{SEED}", f"seed_{SEED + 1}"}


def test_a_process_that_fails_ends_the_other(outcomes):
    """Before the 300 s that they have for everything; gloo alone would wait for 30 minutes."""
    assert outcomes.status == 1
    assert not (outcomes.folder / "failed" / "models").exists()


def test_without_torchrun_one_line_says_so(run_bundle, cohort, tmp_path):
    said = mistake(run_bundle, ["train.json", OVERLAY], cohort, tmp_path / "out")
    assert said.startswith("multi_gpu_train.json is for several processes: start it with `torchrun")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("given", "message"),
    [("cuda:0", r"device cuda:0 is not this process's own \(cuda:1\): leave --device out"), ("cuda:1", "has no GPU")],
)
def test_a_process_takes_its_own_gpu(monkeypatch, given, message):
    for name in ("RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT"):
        monkeypatch.setenv(name, "1")
    monkeypatch.setenv("LOCAL_RANK", "1")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2 if given == "cuda:0" else 1)
    with pytest.raises(MonaiCaeError, match=message):
        join_processes(given, minutes=1)


def test_alone_there_is_nothing_to_join_or_to_leave(monkeypatch):
    leave_processes()
    assert local_device() == torch.device("cuda:0" if torch.cuda.is_available() else "cpu")
    network = torch.nn.Linear(2, 1).eval()
    image = torch.ones(3, 2)
    assert torch.equal(ParallelInferer("float32")(image, network), network(image))


def test_loaders_of_all_processes_share_out_the_batch():
    subjects = [{"image": torch.tensor([float(number)])} for number in range(7)]

    def batches(rank: int) -> list[list[float]]:
        sampler = DistributedSampler(subjects, even_divisible=False, num_replicas=3, rank=rank, shuffle=False)
        return [batch["image"].flatten().tolist() for batch in ResidentLoader(subjects, 6, True, sampler=sampler)]

    assert [batches(rank) for rank in range(3)] == [[[0, 3], [6]], [[1, 4]], [[2, 5]]]
    sampler = DistributedSampler(subjects, num_replicas=3, rank=0)
    with pytest.raises(MonaiCaeError, match="batch_size 4 does not divide among 3 processes"):
        ResidentLoader(subjects, 4, sampler=sampler)
