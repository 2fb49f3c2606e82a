"""`monai-cae fit` finds what fits, trains nothing and writes nothing."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest
import torch
from tiny import CONFIGS, mistake

from monai_cae.cli import main
from monai_cae.training import PrecisionInferer
from monai_cae.training.engines import image_cache
from monai_cae.training.stages import fit as fitting

TINY = ["--image_size", "32", "--batch_size", "4", "--precision", "float32", "--device", "cpu"]
WEIGHTS = 723_905 * 4
CELLS = re.compile(r"^(given|largest \w+) +(\d+) +(\d+) +(.+)$", re.MULTILINE)


def fit(capsys, *arguments: str) -> tuple[dict[str, tuple[int, int, str]], list[str]]:
    """The table by its rows, and all lines."""
    assert main(["fit", *arguments]) == 0
    printed = capsys.readouterr().out
    rows = {what: (int(batch), int(size), memory) for what, batch, size, memory in CELLS.findall(printed)}
    return rows, printed.splitlines()


def free(monkeypatch, mib: int) -> None:
    monkeypatch.setattr(fitting, "host_memory", lambda: (mib * 2**20, 2**30))


@pytest.mark.slow
def test_batch_and_image_fill_what_is_free(monkeypatch, capsys, tmp_path):
    monkeypatch.chdir(tmp_path)
    free(monkeypatch, 300)
    rows, lines = fit(capsys, *TINY)
    assert lines[0] == ("pretrain on the CPU: 1.00 GiB of memory, 0.29 GiB free (estimated; nothing is trained)")
    # of 300 MiB / 1.5, less four times the weights, 584 to 640 numbers for a pixel: see test_memory.py
    pixels = (200 * 2**20 - 4 * WEIGHTS) / 4
    batch, size, _ = rows["largest batch_size"]
    assert size == 32 and 0.93 * pixels / 640 <= batch * 32**2 <= pixels / 584
    batch, size, _ = rows["largest image_size"]
    assert batch == 4 and size % 4 == 0 and pixels / 640 <= 4 * (size + 8) ** 2 and 4 * size**2 <= pixels / 584
    assert rows["given"][:2] == (4, 32)
    assert lines[-1].startswith("next: python -m monai.bundle run training --config_file ")
    assert "--batch_size 4 --image_size 32" in lines[-1] or "--image_size 32 --batch_size 4" in lines[-1]
    assert Path(shlex.split(lines[-1])[7]).samefile(CONFIGS / "pretrain.json") and not list(tmp_path.iterdir())


def test_it_tells_how_many_images_stay_in_memory(monkeypatch, capsys):
    monkeypatch.setattr(image_cache, "host_memory", lambda: (300 * 2**20, 2**30))
    _, lines = fit(capsys, *TINY, "--cache_share", "0.25")
    mib = 75 * 2**20  # of images of 32 x 32
    counts = f"{mib // 2048:,} images in 16 bits stay in memory, {mib // 4096:,} in float32"
    assert f"cache: {counts} (0.07 GiB); more are read from disk" in lines


def test_next_command_has_what_fits_where_the_given_does_not(monkeypatch, capsys):
    free(monkeypatch, 100)
    rows, lines = fit(capsys, *TINY, "--batch-size", "400", "--run_name", "a b")
    batch = rows["largest batch_size"][0]
    assert rows["given"] == (400, 32, "does not fit") and 0 < batch < 100
    options = shlex.split(lines[-1])
    assert options[options.index("--batch_size") + 1] == str(batch) and "a b" in options


def test_batch_that_does_not_fit_is_told_in_parts(monkeypatch, capsys):
    free(monkeypatch, 100)
    rows, lines = fit(capsys, *TINY, "--batch-size", "96")
    most = rows["largest batch_size"][0]
    part = max(size for size in range(1, most + 1) if 96 % size == 0)
    told = f"steps of 96 images, in parts: --batch_size {part} --accumulate {96 // part}"
    assert lines[-2] == f"{told}; --activation_checkpointing true takes less memory, too"
    more, _ = fit(capsys, *TINY, "--batch-size", "96", "--activation_checkpointing", "true")
    # of 100 MiB / 1.5, less the weights: 307 instead of 592 numbers for a pixel, see test_recomputation.py
    assert 1.7 < more["largest batch_size"][0] / most < 2.1
    _, lines = fit(capsys, *TINY, "--batch-size", "96", "--accumulate", "2", "--activation_checkpointing", "true")
    found = re.fullmatch(r"steps of 96 images, in parts: --batch_size (\d+) --accumulate (\d+)", lines[-2])
    assert found and int(found[1]) * int(found[2]) == 2 * 96


@pytest.mark.slow
def test_encoders_of_volumes_fit_by_their_own_sizes(monkeypatch, capsys):
    free(monkeypatch, 4000)
    extraction = "{'_target_': 'monai_cae.data.VolumeExtraction', 'size': '@image_size'}"
    encoder = "{'_target_': 'monai_cae.networks.ResNetEncoder', 'spatial_dims': 3, 'depth': 18}"
    given = ["--extraction", extraction, "--network_def#encoder", encoder, "--network_def#hidden", "[]"]
    rows, _ = fit(capsys, "train", *TINY, *given)
    # 33,160,000 parameters by themselves, see test_resnet_and_densenet.py; their gradients, moments, the best epoch's
    assert 1.5 * 5 * 4 * 33_160_000 / 2**30 < float(rows["given"][2].split()[0]) < 1.5 * 6 * 4 * 33_160_000 / 2**30
    assert rows["largest image_size"][1] % 32 == 0


def test_nothing_fits(monkeypatch, capsys):
    free(monkeypatch, 1)
    rows, lines = fit(capsys, *TINY)
    assert list(rows) == ["given"] and lines[-1].startswith("next: the same command with a smaller --image_size")


def test_classifiers_first_dense_layer_grows_with_the_image(monkeypatch, capsys):
    free(monkeypatch, 1500)
    rows, _ = fit(capsys, "train", *TINY)
    edge = rows["largest image_size"][1]
    # four times (weights and bias of 128 x (edge / 4)^2 x 256 numbers) of 4 bytes, and what the slices take
    dense = 4 * 4 * 128 * 256 * (edge / 4) ** 2
    images = 4 * 4 * 400 * edge**2
    assert 0.8 * 1000 * 2**20 <= dense + images <= 1000 * 2**20


@pytest.mark.slow
def test_network_of_a_whole_volume(monkeypatch, capsys):
    free(monkeypatch, 300)
    volume = [
        "--extraction",
        "{'_target_': 'monai_cae.data.VolumeExtraction', 'size': '@image_size'}",
        "--channels",
        "[8,16]",
    ]
    assert fit(capsys, "train", *TINY, "--image_size", "16", *volume)[0]["given"][:2] == (4, 16)
    rows, _ = fit(capsys, *TINY, "--image_size", "16", *volume)
    batch, size, _ = rows["largest batch_size"]
    assert size == 16 and 4 < batch < 1000
    edge = rows["largest image_size"][1]
    assert (edge / 16) ** 3 < 1.05 * batch / 4 < 1.05**2 * ((edge + 2) / 16) ** 3  # it goes with the number of voxels


def test_sizes_of_each_axis_stay_as_given(monkeypatch, capsys):
    free(monkeypatch, 300)
    extraction = "{'_target_': 'monai_cae.data.VolumeExtraction', 'size': '@image_size'}"
    given = ["--extraction", extraction, "--channels", "[8,16]", "--image_size", "[16,24,16]"]
    assert main(["fit", *TINY[2:], *given]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[-3] for line in lines[2:4]] == ["16x24x16"] * 2 and "largest batch_size" in lines[3]
    assert "--image_size '[16, 24, 16]'" in lines[5]


@pytest.mark.slow
def test_on_a_gpu_each_size_is_tried_with_the_configs_own_trainer(monkeypatch, capsys, tmp_path):
    """The GPU is simulated: it can hold 12 slices of 32 x 32, or two of 72 x 72."""
    monkeypatch.chdir(tmp_path)
    seen: list[tuple[int, int]] = []
    forward = PrecisionInferer.__call__

    def limited(self, inputs, network, *args, **kwargs):
        seen.append((len(inputs), inputs.shape[-1]))
        if inputs.numel() > 12 * 32 * 32:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 MiB")
        return forward(self, inputs, network, *args, **kwargs)

    monkeypatch.setattr(PrecisionInferer, "__call__", limited)
    monkeypatch.setattr(fitting, "_is_cuda", lambda _: True)
    stubs = {
        "mem_get_info": lambda _: (2**30, 2**31),
        "get_device_name": lambda _: "Simulated",
        "empty_cache": lambda: None,
        "reset_peak_memory_stats": lambda _: None,
        "max_memory_allocated": lambda _: seen[-1][0] * seen[-1][1] ** 2 * 2**10,
    }
    for name, stub in stubs.items():
        monkeypatch.setattr(torch.cuda, name, stub)
    rows, lines = fit(capsys, "train", *TINY)
    assert lines[0].endswith("(Simulated): 2.00 GiB of memory, 1.00 GiB free (measured; nothing is trained)")
    assert rows["given"] == (4, 32, "0.00 GiB")
    assert rows["largest batch_size"] == (12, 32, "0.01 GiB") and rows["largest image_size"][:2] == (4, 52)
    assert seen.count((4, 32)) > 4  # a step is recorded as a CUDA graph after three
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["evaluate"], "fit takes pretrain or train, not 'evaluate'"),
        (["--device", "cuda:1"], "device cuda:1 is not available: this PyTorch sees .* CUDA GPUs"),
        (["train", "--batch_sizes", "3"], "unknown setting --batch_sizes: did you mean --batch_size?"),
        (["--batch_size", "0"], "batch_size must be a whole number above 0, not 0"),
        (["--image_size", "30"], r"image_size must be divisible by 4 \(the encoder's pooling\), not 30"),
        (["train", "--image_size", "33"], "spatial_size must be divisible by 4"),
        (["--network_def", "{'_target_': 'nowhere.Network'}"], "Python finds no nowhere.Network"),
    ],
)
def test_mistakes_are_one_line(monkeypatch, capsys, arguments, message):
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 0)
    assert main(["fit", *arguments]) == 1
    printed = capsys.readouterr()
    assert re.match(f"error: {message}".replace("?", r"\?"), printed.err) and printed.err.count("\n") == 1
    assert not printed.out


@pytest.mark.parametrize(
    "config",
    ["pretrain.json", "train.json", "evaluate.json", "baselines.json", "inference.json", "experiment.yaml"],
)
@pytest.mark.parametrize("device", ["cuda:1", "$torch.device('cuda:1')"])
def test_gpu_that_is_not_there_is_one_line_in_every_config(discs, run_bundle, tmp_path, monkeypatch, config, device):
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 0)
    run_id = {"run_id": "run"} if config in ("evaluate.json", "inference.json") else {}
    told = mistake(run_bundle, config, discs, tmp_path / "out", device=device, **run_id)
    assert "device cuda:1 is not available: this PyTorch sees no CUDA GPUs; use --device cpu" in told
    assert not (tmp_path / "out").exists()
