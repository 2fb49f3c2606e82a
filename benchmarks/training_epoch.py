"""Claims: a CAE epoch on a CPU takes at most 0.40 x Keras 3 on TensorFlow; of slices or volumes 1.05 x a bare loop.

Run: python benchmarks/training_epoch.py [--quick] [--keras PYTHON]
     --quick measures 2 epochs of each way instead of 5, too few for claims that 5 % decide; PYTHON is an interpreter
     that has keras and tensorflow-cpu (benchmarks/keras/requirements.txt; `make bench` sets one up), without one that
     row is left out

112 random slices of 176 x 176, batch 32, the network of the paper's Table II. Ours is pretrain.json itself on images
that are in memory, engine, loader, metrics, checkpoint and MLflow included, less its validation, which the others
don't have. All ways take turns; medians are compared. Keras runs as Keras runs it: float32, `model.fit`.

The 3D CAE has 64 volumes of 88 x 104 x 88 (8 with --quick), channels and batches of with_volume.yaml, and the images
in the cache of a training, 16 bits a number. Its processor time has a row too, as others may compute here.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any

import torch
from report import Row, alternate, finish
from workload import (
    BATCH,
    GFLOP_PER_IMAGE,
    SIZE,
    SLICES,
    THREE,
    VOLUME_BATCH,
    VOLUME_CHANNELS,
    Stage,
    matmul_rate,
    random_items,
    volume_cache,
)

from monai_cae.networks import ConvAutoencoder, ConvDecoder, ConvEncoder
from monai_cae.training.engines.inferers import has_fast_bfloat16

VOLUMES = 64


def bare_loop(
    images: torch.Tensor, *, half: bool, channels_last: bool, batch_size: int = BATCH, **network_options: Any
) -> Callable[[], float]:
    """Seconds of an epoch of the loop that anybody would write; every call trains on."""
    last = torch.channels_last if images.ndim == 4 else torch.channels_last_3d
    layout = last if channels_last else torch.contiguous_format
    network: torch.nn.Module = ConvAutoencoder(
        encoder=ConvEncoder(**network_options), decoder=ConvDecoder(**network_options)
    )
    network = network.to(memory_format=layout)  # type: ignore[call-overload]  # torch's stub knows 4D alone
    optimizer = torch.optim.Adam(network.parameters(), lr=1e-4, fused=True)

    def epoch() -> float:
        started = time.perf_counter()
        for indices in torch.randperm(len(images)).split(batch_size):
            batch = images[indices].contiguous(memory_format=layout)
            with torch.autocast("cpu", torch.bfloat16, enabled=half):
                reconstruction = network(batch)
            loss = torch.nn.functional.mse_loss(reconstruction.float(), batch)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        return time.perf_counter() - started

    return epoch


class Keras:
    """keras/epoch.py in a process of its own, one epoch for each line that it is sent."""

    def __init__(self, python: str) -> None:
        worker = Path(__file__).with_name("keras") / "epoch.py"
        self.process = subprocess.Popen(
            [python, str(worker), str(SLICES), str(BATCH), str(SIZE)],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True,
        )  # fmt: skip
        self.version = self._line()

    def _line(self) -> str:
        line = self.process.stdout.readline().strip() if self.process.stdout else ""
        if not line:
            sys.exit("error: Keras did not start: install benchmarks/keras/requirements.txt for the named interpreter")
        return line

    def epoch(self) -> float:
        """Seconds of `model.fit` for one epoch."""
        assert self.process.stdin is not None
        self.process.stdin.write("epoch\n")
        self.process.stdin.flush()
        return float(self._line())


def volumes(count: int, turns: int, half: bool) -> list[Row]:
    """An epoch of the 3D CAE, ours and bare in turn: seconds, and those of the processor."""
    cached = volume_cache(count)
    images = torch.stack([cached[number]["image"] for number in range(count)])
    bare = bare_loop(
        images, half=half, channels_last=True, batch_size=VOLUME_BATCH, spatial_dims=3, channels=VOLUME_CHANNELS
    )
    with tempfile.TemporaryDirectory() as folder, Stage("pretrain.json", cached, folder, device="cpu", **THREE) as ours:
        busy: dict[str, list[float]] = {"ours": [], "bare": []}

        def watched(name: str, epoch: Callable[[], float]) -> float:
            started = time.process_time()
            seconds = epoch()
            busy[name].append(time.process_time() - started)
            return seconds

        ways = {"ours": partial(watched, "ours", ours.training_epoch), "bare": partial(watched, "bare", bare)}
        seconds = alternate(ways, repeats=turns)
    cpu = {name: median(took[1:]) for name, took in busy.items()}
    what, against = f"3D CAE epoch, {count} volumes", "bare loop, same settings"
    target = "<= 1.05" if count == VOLUMES else ""
    return [
        Row(f"{what}{more}", found["ours"], found["bare"], against, "s", found["ours"] / found["bare"], claimed)
        for more, found, claimed in (("", seconds, target), (", processor", cpu, ""))
    ]


def main() -> None:
    """Print the table, write results/training_epoch.json."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--keras", metavar="PYTHON", default="")
    options = parser.parse_args()
    torch.manual_seed(0)
    items = random_items()
    images = torch.stack([item["image"] for item in items])
    half = has_fast_bfloat16(torch.device("cpu"))
    keras = Keras(options.keras) if options.keras else None
    with tempfile.TemporaryDirectory() as folder, Stage("pretrain.json", items, folder, device="cpu") as ours:
        ways = {
            "ours": ours.training_epoch,
            "bare": bare_loop(images, half=half, channels_last=True),
            "plain": bare_loop(images, half=False, channels_last=False),
        }
        if keras:
            ways["keras"] = keras.epoch
        rate = matmul_rate("cpu", half)
        seconds = alternate(ways, repeats=2 if options.quick else 5)
        ours.mlflow = 0.0
        whole = sum(ours.epoch() for _ in range(2))
    print(
        f"one epoch: {SLICES} slices, batch {BATCH}, {'bfloat16' if half else 'float32'} on {torch.get_num_threads()} "
        f"threads; a matrix product reaches {rate:.0f} GFLOP/s"
    )
    epoch = seconds["ours"]
    floor = GFLOP_PER_IMAGE * SLICES / rate
    rows = [
        Row("CAE epoch, engine to MLflow", epoch, seconds["bare"], "bare loop, same settings", "s",
            epoch / seconds["bare"], "" if options.quick else "<= 1.05"),
        Row("CAE epoch", epoch, seconds["plain"], "plain PyTorch float32", "s", epoch / seconds["plain"]),
        Row("CAE epoch, share of the matrix rate", epoch, floor, "at that rate", "s", floor / epoch),
        Row("MLflow in an epoch", ours.mlflow / 2, whole / 2, "whole epoch", "s", ours.mlflow / whole, "<= 0.02"),
    ]  # fmt: skip
    if keras:
        against = f"Keras {keras.version}"
        target = "" if options.quick else "<= 0.40"
        rows.insert(0, Row("CAE epoch", epoch, seconds["keras"], against, "s", epoch / seconds["keras"], target))
        keras.process.terminate()
    rows.extend(volumes(8 if options.quick else VOLUMES, 3 if options.quick else 5, half))
    finish("training_epoch", rows, gflop_per_s=rate, seconds=seconds)


if __name__ == "__main__":
    main()
