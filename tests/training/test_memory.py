"""A full memory is one line with what would fit, and what is counted is what tensors take."""

from __future__ import annotations

import re

import pytest
import torch
from monai.engines import SupervisedTrainer
from tiny import mistake, write_bundle
from torch import nn

from monai_cae.machine import host_memory
from monai_cae.training import PrecisionInferer
from monai_cae.training.engines import memory
from monai_cae.training.engines.counting import count_step
from monai_cae.training.engines.memory import full_memory, largest

GIB = 2**30


@pytest.fixture
def full_gpu(monkeypatch):
    """A GPU of 1 GiB, of which 165 MiB are free, that can't take what is asked of it."""
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda *_: (165 * 2**20, GIB))

    def fail(*_, **__):
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")

    monkeypatch.setattr(PrecisionInferer, "__call__", fail)
    monkeypatch.setattr(memory, "PrecisionInferer", lambda *_: lambda image, network: network(image))


@pytest.mark.usefixtures("full_gpu")
def test_full_gpu_in_training_is_one_line_with_the_batch_that_would_fit(discs, run_bundle, tmp_path):
    settings = {"batch_size": 8, "image_size": 96}
    told = mistake(run_bundle, "pretrain.json", discs, tmp_path / "out", **settings)
    # Numbers that are kept for a pixel: 128, 64 and 32 by the blocks of the encoder, 24 and 12 by pooling, 32, 64 and
    # 128 by those of the decoder, 32 and 64 by up-sampling, and 4 at the end: 584; gradients need up to a tenth more.
    # 165 MiB / 1.1, less four times 723,905 weights, are 3,952 numbers for a pixel.
    assert told == (
        "the GPU's memory is full (used 0.8 of 1.0 GiB) with batch_size 8 and image_size 96: batch_size 6 would fit, "
        "about; or a smaller image_size"
    )
    assert not list(tmp_path.rglob("*.pt"))


@pytest.mark.usefixtures("full_gpu")
def test_full_gpu_while_the_encoder_runs_once_is_one_line(discs, run_bundle, tmp_path):
    told = mistake(run_bundle, "train.json", discs, tmp_path / "out", pretrained="none")
    assert told == (
        "the GPU's memory is full (used 0.8 of 1.0 GiB) with batch_size 4 and image_size 16: use a smaller batch_size "
        "or image_size; `monai-cae fit` finds what fits"
    )


def test_the_gpu_that_is_full_is_the_engine_s(monkeypatch):
    """Not the current one, which is the first."""
    free = {torch.device("cuda:1"): (0, 8 * GIB), torch.device("cuda"): (2 * GIB, 4 * GIB)}
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device=None: free[device])

    def fail(engine, batch):
        raise torch.OutOfMemoryError("CUDA out of memory")

    network = nn.Linear(2, 1)
    engine = SupervisedTrainer(
        device="cpu", max_epochs=1, train_data_loader=[{}], network=network, loss_function=nn.MSELoss(),
        optimizer=torch.optim.Adam(network.parameters()), iteration_update=fail,
    )  # fmt: skip
    engine.logger.disabled = True
    engine.state.device = torch.device("cuda:1")
    with pytest.raises(torch.OutOfMemoryError) as raised:
        engine.run()
    assert str(full_memory(raised.value, raised.value)).startswith(
        "the GPU's memory is full (used 8.0 of 8.0 GiB): use"
    )


@pytest.mark.usefixtures("full_gpu")
def test_full_gpu_in_prediction_is_one_line(discs, run_bundle, tmp_path, monkeypatch):
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda *_: (0, GIB))
    model = write_bundle(tmp_path / "bundle") / "models" / "model.pt"
    settings = {"checkpoint": str(model), "predictions": str(tmp_path / "predictions.csv")}
    told = mistake(run_bundle, "inference.json", discs, tmp_path, run_id="run", **settings)
    assert told == (
        "the GPU's memory is full (used 1.0 of 1.0 GiB) with batch_size 4 and image_size 16: not even batch_size 1 "
        "would fit; use an image_size below 16"
    )
    assert not (tmp_path / "predictions.csv").exists()


def test_full_memory_of_a_cpu_is_one_line(discs, run_bundle, tmp_path):
    told = mistake(run_bundle, "pretrain.json", discs, tmp_path / "out", image_size=4_000_000)
    assert re.fullmatch(
        r"the memory is full \(used [\d.]+ of [\d.]+ GiB\) with batch_size 4 and image_size 4000000: use a smaller "
        r"batch_size or image_size; `monai-cae fit` finds what fits",
        told,
    )


def test_what_is_counted_is_what_tensors_take():
    """One linear layer, by hand: 3 x 5 weights and 5 biases four times (Adam's moments, the best epoch's), gradients of
    both and of the output, images and labels, the output, and what the loss makes on its way to one number."""
    network = nn.Linear(3, 5)

    def batch():
        return torch.zeros(100, 3), torch.zeros(100, 5), (), {}

    counted = count_step(network, lambda image, call: call(image), batch, lambda out, label: (out - label).sum(), "cpu")
    least = 4 * (4 * 20 + 100 * (3 + 5 + 5 + 5))
    assert least <= counted <= least + 4 * (20 + 100 * 5)
    assert not any(tensor.is_meta for tensor in network.parameters()) and network.weight.grad is None
    predicted = count_step(network, lambda image, call: call(image), batch, None, "cpu")
    assert predicted == 4 * (20 + 100 * (3 + 5 + 5))


def test_gradients_that_are_added_up_stay_while_the_next_batch_is_computed():
    """By hand, for one linear layer: 300 x 500 weights and 500 biases four times; their gradients, twice while the new
    ones are added to the old. Images and outputs are small."""
    network, weights = nn.Linear(300, 500), 300 * 500 + 500

    def batch():
        return torch.zeros(2, 300), torch.zeros(2, 500), (), {}

    def counted(accumulate: bool) -> int:
        loss = nn.MSELoss()
        return count_step(network, lambda image, call: call(image), batch, loss, "cpu", accumulate) // 4

    assert 5 * weights <= counted(False) <= 5 * weights + 10_000
    assert 6 * weights - 1000 <= counted(True) <= 6 * weights + 10_000


@pytest.mark.parametrize("most", [0, 1, 2, 5, 31, 32, 33, 1000])
@pytest.mark.parametrize("start", [1, 7, 32, 4096])
def test_largest_that_fits_is_found_to_a_thirty_second(most, start):
    asked = []
    found = largest(lambda number: asked.append(number) or number <= most, start)
    assert found <= most and most - found <= max(0, most // 32)
    assert len(asked) < 30 and all(number > 0 for number in asked)


@pytest.mark.parametrize(
    ("files", "expected"),
    [
        ({}, (6 * GIB, 8 * GIB)),
        ({"memory.max": "max", "memory.current": "1"}, (6 * GIB, 8 * GIB)),
        ({"memory.max": f"{4 * GIB}", "memory.current": f"{3 * GIB}"}, (GIB, 4 * GIB)),
        (
            {
                "memory/memory.limit_in_bytes": f"{4 * GIB}",
                "memory/memory.usage_in_bytes": f"{3 * GIB}",
                "memory/memory.stat": f"cache 7\ntotal_inactive_file {GIB}\n",
            },
            (2 * GIB, 4 * GIB),
        ),
        ({"memory.max": f"{4 * GIB}", "memory.current": f"{5 * GIB}"}, (0, 4 * GIB)),
    ],
)
def test_memory_that_a_container_may_use(tmp_path, files, expected):
    (tmp_path / "meminfo").write_text(f"MemTotal: {8 * 2**20} kB\nMemFree: 5 kB\nMemAvailable: {6 * 2**20} kB\n")
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text + "\n")
    assert host_memory(tmp_path, tmp_path) == expected
