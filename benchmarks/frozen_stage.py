"""Claim: with a frozen encoder, training on its output computed once is 3 x faster than running it every epoch.

Run: python benchmarks/frozen_stage.py [--quick]        --quick measures 2 epochs of each instead of 7

train.json's first trainer with `encode_once` true and false: 112 random slices of 176 x 176 and 28 to validate on,
batch 32, in the precision that the device is fast in. Epochs of both take turns, medians are compared.
"""

from __future__ import annotations

import argparse
import tempfile

import torch
from report import Row, alternate, finish
from workload import SLICES, Stage, random_items


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
    device = "cuda" if torch.cuda.is_available() else "cpu"
    row = Row(
        f"frozen stage, epoch of {SLICES} slices, {device}", seconds["once"], seconds["every"],
        "encoder every epoch", "s", seconds["every"] / seconds["once"], ">= 3",
    )  # fmt: skip
    finish("frozen_stage", [row])


if __name__ == "__main__":
    main()
