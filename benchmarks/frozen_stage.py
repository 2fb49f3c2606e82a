"""Claim: with a frozen encoder, training on its output computed once is 2 x faster than running it in every epoch.

Run: python benchmarks/frozen_stage.py [--quick]        --quick measures 2 epochs of each instead of 7

train.json's first trainer with `encode_once` true and false: 112 random slices of 176 x 176 and 28 to validate on,
batch 32, in the precision that the device is fast in. Epochs of both take turns, medians are compared.

What is left of an epoch is memory: each step reads and writes 63.8 million weights, their gradients and Adam's two
moments, 2.3 GB (`bounds.bytes_moved`). The second row has the share that this reaches of the memory bandwidth, which is
that of a large copy in the same run.
"""

from __future__ import annotations

import argparse
import math
import tempfile

import torch
from bounds import bytes_moved, copy_rate
from report import Row, alternate, finish
from workload import BATCH, SLICES, Stage, random_items


def main() -> None:
    """Print the table, write results/frozen_stage.json."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true")
    repeats = 2 if parser.parse_args().quick else 7
    items = random_items()
    settings = {"trainer": "frozen#trainer", "pretrained": "none", "best#every": 1e9}
    with (
        tempfile.TemporaryDirectory() as one,
        tempfile.TemporaryDirectory() as two,
        Stage("train.json", items, one, encode_once=True, **settings) as once,
        Stage("train.json", items, two, encode_once=False, **settings) as every,
    ):
        seconds = alternate({"once": once.epoch, "every": every.epoch}, repeats)
        training = alternate({"once": once.training_epoch}, repeats, warm_up=0)["once"]
        head = once.get("network").head
    device = "cuda" if torch.cuda.is_available() else "cpu"
    moved = math.ceil(SLICES / BATCH) * bytes_moved(head, (BATCH, head[1].in_features), 2, learning=True)
    rate = copy_rate(device)
    what = f"of {SLICES} slices, {device}"
    rows = [
        Row(f"frozen stage, epoch {what}", seconds["once"], seconds["every"], "encoder every epoch", "s",
            seconds["every"] / seconds["once"], ">= 2"),
        Row(f"its training {what}: share of memory bandwidth", training, moved / rate,
            f"{moved / 1e9:.1f} GB at {rate / 1e9:.0f} GB/s", "s", moved / rate / training),
    ]  # fmt: skip
    finish("frozen_stage", rows, bytes=moved, bytes_per_s=rate)


if __name__ == "__main__":
    main()
