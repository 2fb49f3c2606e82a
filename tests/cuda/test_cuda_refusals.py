"""What a GPU can't do ends in one line: too large a batch, a card that is not there, two processes on one card."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from cuda_runs import SMALL, weights
from tiny import CONFIGS, TINY, mistake

pytestmark = pytest.mark.cuda
MEMORY = 3 * 2**30


@pytest.fixture
def small_card(gpu, monkeypatch):
    """The card as if it had 3 GiB, so that other tests have the rest."""
    torch.cuda.empty_cache()
    torch.cuda.set_per_process_memory_fraction(MEMORY / torch.cuda.get_device_properties(gpu).total_memory)
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda *_: (MEMORY - torch.cuda.memory_reserved(), MEMORY))
    yield gpu
    torch.cuda.set_per_process_memory_fraction(1.0)


def test_a_batch_that_does_not_fit_is_one_line_with_one_that_does(small_card, run_bundle, discs, tmp_path):
    """A slice of 512 x 512 has some 0.6 GB of activations in float32, so 12 of them do not fit and a few do."""
    options = {**TINY, "max_epochs": 1, "image_size": 512, "device": small_card}
    said = mistake(run_bundle, "pretrain.json", discs, tmp_path / "out", **{**options, "batch_size": 12})
    assert said.startswith("the GPU's memory is full (used ") and "with batch_size 12 and image_size 512" in said
    fits = re.search(r"batch_size (\d+) would fit", said)
    assert fits is not None and 1 <= int(fits[1]) < 12, said
    assert not list((tmp_path / "out").rglob("*.pt"))
    torch.cuda.empty_cache()
    run_bundle("pretrain.json", discs, tmp_path / "fits", **{**options, "batch_size": int(fits[1])})
    assert weights(tmp_path / "fits")


def test_a_card_that_is_not_there_is_one_line(run_bundle, discs, tmp_path):
    seen = torch.cuda.device_count()
    said = mistake(run_bundle, "pretrain.json", discs, tmp_path / "out", device="cuda:7")
    assert said == f"device cuda:7 is not available: this PyTorch sees {seen or 'no'} CUDA GPUs; use --device cpu"
    assert not (tmp_path / "out").exists()


def torchrun(processes: int, device: str, **settings: object) -> subprocess.CompletedProcess[str]:
    """multi_gpu_train.json over pretrain.json, on one card."""
    files = [str(CONFIGS / "pretrain.json"), str(CONFIGS / "multi_gpu_train.json")]
    options = [f"--{name}={value}" for name, value in settings.items()]
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", f"--nproc_per_node={processes}"]
    cards = (
        {} if device == "cpu" else {"CUDA_VISIBLE_DEVICES": os.environ.get("CUDA_VISIBLE_DEVICES", "0").split(",")[0]}
    )
    path = os.pathsep.join([str(Path(__file__).parents[2]), os.environ.get("PYTHONPATH", "")])
    return subprocess.run(
        [*command, "-m", "monai.bundle", "run", "training", "--config_file", str(files), *options],
        env={**os.environ, **cards, "OMP_NUM_THREADS": "1", "PYTHONPATH": path},
        capture_output=True, text=True, timeout=180, check=False,
    )  # fmt: skip


@pytest.fixture
def settings(discs, tracking_uri, tmp_path):
    """Of a stage under torchrun; the device is each process's own."""
    without = {name: value for name, value in TINY.items() if name != "device"}
    given = {**without, **SMALL, "batch_size": 4, "dataset_dir": str(discs), "output_dir": str(tmp_path / "out")}
    return {**given, "tracking_uri": tracking_uri}


def test_two_processes_on_one_card_are_refused(gpu, settings, tmp_path):
    done = torchrun(2, gpu, **settings)
    assert done.returncode != 0
    lines = [line for line in done.stderr.splitlines() if "error: process" in line]
    assert len(lines) == 1, done.stderr
    assert "process 2 of this machine has no GPU of its own, there are 1: use --nproc_per_node=1" in lines[0]
    assert not (tmp_path / "out" / "models").exists()


def test_one_process_under_torchrun_trains(device, settings, tmp_path):
    """Through NCCL, SyncBatchNorm and DistributedDataParallel, though there is nobody to share with."""
    done = torchrun(1, device, **settings)
    assert done.returncode == 0, done.stderr
    assert all(tensor.isfinite().all() for tensor in weights(tmp_path / "out")["autoencoder"].values())
