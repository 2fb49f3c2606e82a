"""`make gpu` without a GPU: what it says, and what it makes of its parts; the benchmarks' loops and their bounds."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from tiny import CONFIGS

ROOT = CONFIGS.parents[1]
CARD = {"card": "Card 9", "memory_gib": 80.0, "driver": "570.1", "cuda": "12.8", "cudnn": 91002, "torch": "2.11.0"}


@pytest.fixture
def scripts(monkeypatch):
    """tools and benchmarks, which are scripts, on Python's path."""
    for folder in ("tools", "benchmarks"):
        monkeypatch.syspath_prepend(str(ROOT / folder))


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
@pytest.mark.parametrize("script", ["tools/gpu.py", "benchmarks/gpu_volumes.py"])
def test_without_a_gpu_one_line_says_so_and_nothing_is_written(script):
    results = ROOT / "benchmarks" / "results"
    before = {path: path.stat().st_mtime_ns for path in results.glob("*")}
    done = subprocess.run([sys.executable, str(ROOT / script), "--quick"], capture_output=True, text=True, check=False)
    assert done.returncode == 1 and done.stdout == ""
    (line,) = done.stderr.splitlines()
    assert "no CUDA GPU" in line
    assert {path: path.stat().st_mtime_ns for path in results.glob("*")} == before


def writes(path: Path, text: str, status: int = 0) -> list[str]:
    """A part that leaves a file."""
    return [sys.executable, "-c", f"open({str(path)!r}, 'w').write({text!r}); raise SystemExit({status})"]


def test_a_failed_part_does_not_stop_the_others_and_all_is_told(scripts, tmp_path, capfd):
    import gpu
    from report import Row

    xml = '<testsuites><testsuite tests="9" failures="1" errors="1" skipped="2"/></testsuites>'
    long = Row(
        "a claim whose words are so many that they do not fit", 3.0, 2.0, "what is compared with", "s", 1.5, "<= 1.3"
    )
    rows = json.dumps({"rows": [long.__dict__, Row("other", 7.0, 0, "", "steps/s", 7.0).__dict__]})
    todo = [
        gpu.Part("tests", writes(tmp_path / "a.xml", xml, status=1), tmp_path / "a.xml"),
        gpu.Part("slow", [sys.executable, "-c", "import time; time.sleep(60)"], tmp_path / "b.json"),
        gpu.Part("measured", writes(tmp_path / "c.json", rows), tmp_path / "c.json"),
    ]
    (tmp_path / "b.json").write_text(rows)  # of an earlier run
    out = tmp_path / "results" / "gpu.json"
    assert gpu.prove(todo, CARD, "python tools/gpu.py", 5.0, out) == 1
    written = json.loads(out.read_text())
    assert [(part["name"], part["passed"]) for part in written["parts"]] == [
        ("tests", False), ("slow", False), ("measured", True),
    ]  # fmt: skip
    assert written["parts"][0]["tests"] == {"passed": 5, "failed": 2, "skipped": 2}
    assert [row["what"] for row in written["rows"]] == [long.what, "other"]
    text = written["paragraph"]
    for part in ("Card 9 (80 GiB)", "driver 570.1", "PyTorch 2.11.0 with CUDA 12.8", "5 passed, 2 failed, 2 skipped"):
        assert part in text
    assert "Failed: tests, slow." in text and "| 3 s | 2 s, what is compared with | 1.5 | <= 1.3, not met |" in text
    table, _, rest = capfd.readouterr().out.partition("; for docs/explanation/performance.md")
    assert text in rest and "NOT MET" in table and "slow was ended after 5 s" in table
    assert all(len(line) <= 80 for line in table.splitlines() if str(tmp_path) not in line)


def test_all_passed_is_status_0_but_no_tests_is_not(scripts, tmp_path):
    import gpu

    xml = '<testsuites><testsuite tests="{}" failures="0" errors="0" skipped="1"/></testsuites>'
    for tests, status in ((2, 0), (1, 1)):
        part = gpu.Part("tests", writes(tmp_path / "a.xml", xml.format(tests)), tmp_path / "a.xml")
        assert gpu.prove([part], CARD, "make gpu", 60.0, tmp_path / "gpu.json") == status


def test_bytes_that_a_step_moves_are_those_of_the_arithmetic(scripts):
    """A convolution 1 -> 2 of 4 x 4, batch norm, a convolution 2 -> 1, batches of 3, activations of 2 bytes."""
    from bounds import bytes_moved
    from torch import nn

    network = nn.Sequential(nn.Conv2d(1, 2, 3, padding=1), nn.ReLU(), nn.BatchNorm2d(2), nn.Conv2d(2, 1, 3, padding=1))
    image, wide = 3 * 16, 3 * 32
    first = (image + wide) * 2  # forward; the gradient of the weights
    norm = wide * 8
    second = (wide + image) * 3  # and the gradient of the input
    weights = (18 + 2) + (2 + 2) + (18 + 1)
    assert bytes_moved(network, (3, 1, 4, 4), 2, learning=True) == 2 * (first + norm + second) + 36 * weights
    forward = (image + wide) + (wide + image)
    assert bytes_moved(network, (3, 1, 4, 4), 2, learning=False) == 2 * forward + 4 * weights
    assert bytes_moved(nn.Linear(5, 4), (2, 5), 4, learning=True) == 4 * 2 * 2 * (5 + 4) + 36 * 24


@pytest.mark.parametrize(
    ("config", "trainer"),
    [("pretrain.json", "train#trainer"), ("train.json", "frozen#trainer"), ("train.json", "train#trainer")],
)
def test_the_benchmarks_stages_train(scripts, tmp_path, tracking_uri, config, trainer):
    from workload import UNVALIDATED, Stage, random_items

    options = {"device": "cpu", "image_size": 16, "channels": [4, 8], "batch_size": 4, "tracking_uri": tracking_uri}
    options |= {"pretrained": "none"} if config == "train.json" else {}
    for number, more in enumerate(({}, UNVALIDATED)):
        (tmp_path / str(number)).mkdir()
        with Stage(config, random_items(6, 16), str(tmp_path / str(number)), trainer, **options, **more) as stage:
            before = [weight.clone() for weight in stage.trainer.network.parameters()]
            assert stage.epochs(2) > stage.validation >= 0 and (stage.validation > 0) is not bool(more)
            assert stage.trainer.state.epoch == 2 and stage.trainer.state.iteration == 4
            after = list(stage.trainer.network.parameters())
            assert any(not torch.equal(one, other) for one, other in zip(before, after, strict=True))


@pytest.mark.parametrize("dimensions", [2, 3])
def test_the_bare_loop_learns(scripts, dimensions):
    from bare import BareLoop

    from monai_cae.networks import ConvAutoencoder, ConvDecoder, ConvEncoder

    torch.manual_seed(0)
    parts = {"spatial_dims": dimensions, "channels": (4, 8)}
    network = ConvAutoencoder(encoder=ConvEncoder(**parts), decoder=ConvDecoder(**parts))
    images = torch.rand(5, 1, *[8] * dimensions) / 4
    loop = BareLoop(network, images, batch=2)
    loop.optimizer.param_groups[0]["lr"] = 0.01
    before = torch.nn.functional.mse_loss(network.eval()(images), images)
    network.train()
    assert loop.epochs(10) > 0
    assert torch.nn.functional.mse_loss(network(images), images) < before / 2
