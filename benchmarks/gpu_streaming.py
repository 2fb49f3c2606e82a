"""Claim: of the time that slices take from the host's memory to the GPU, at least nine tenths are hidden by training.

Run: python benchmarks/gpu_streaming.py [--quick]        --quick: 10,000 slices in place of 50,000

The same CAE epochs of random slices of 176 x 176, batch 32, without validation: once the slices stay on the device,
once they are gathered and copied from the host (`ResidentLoader` with `resident_bytes` 0), in turn. What is to be
hidden is the time that the streaming loader takes alone, when nobody computes.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from typing import Any

import torch
from bare import machine, require_gpu
from bounds import wait
from report import Row, alternate, finish
from workload import BATCH, SIZE, UNVALIDATED, Items, Stage

SLICES, QUICK, DISTINCT = 50_000, 10_000, 1_000
LIMIT = "train#dataloader#resident_bytes"


def items(count: int, size: int) -> Items:
    """Slices of noise, of which a thousand differ: loaders copy them all."""
    images = torch.rand(min(count, DISTINCT), 1, size, size)
    return [{"image": images[number % len(images)], "label": torch.zeros(1)} for number in range(count)]


def compare(slices: Items, turns: int, device: str, **options: Any) -> dict[str, float]:
    """Seconds of an epoch: resident, streamed, and of the streaming loader alone; options are settings."""
    given = {"patience": 10**6, "device": device, **UNVALIDATED, **options}
    with (
        tempfile.TemporaryDirectory() as folder,
        Stage("pretrain.json", slices, folder, **{LIMIT: 2**62}, **given) as resident,
        Stage("pretrain.json", slices, folder, **{LIMIT: 0}, **given) as streamed,
    ):
        loader = streamed.get("train#dataloader")

        def alone() -> float:
            wait(device)
            started = time.perf_counter()
            for _ in loader:
                pass
            wait(device)
            return time.perf_counter() - started

        ways = {"resident": resident.epoch, "streamed": streamed.epoch, "alone": alone}
        return alternate(ways, turns)


def main() -> None:
    """Print the table, write results/gpu_streaming.json."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true")
    quick = parser.parse_args().quick
    require_gpu()
    count = QUICK if quick else SLICES
    seconds = compare(items(count, SIZE), 3, "cuda")
    hidden = 1 - (seconds["streamed"] - seconds["resident"]) / seconds["alone"]
    rate = count * SIZE**2 * 4 / seconds["alone"]
    what = f"CAE epoch of {count:,} streamed slices"
    rows = [
        Row(what, seconds["streamed"], seconds["resident"], "resident", "s", seconds["streamed"] / seconds["resident"]),
        Row("share of the copying that is hidden", seconds["streamed"] - seconds["resident"], seconds["alone"],
            f"alone, {rate / 1e9:.0f} GB/s", "s", hidden, ">= 0.9"),
    ]  # fmt: skip
    finish("gpu_streaming", rows, **machine(), seconds=seconds, batch=BATCH)


if __name__ == "__main__":
    main()
