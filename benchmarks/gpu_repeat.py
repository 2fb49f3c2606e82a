"""Claim: on one H200 a whole repeat (400 CAE + 400 frozen + 400 fine-tuning epochs) takes at most 20 s, five at
most 90.

Run: python benchmarks/gpu_repeat.py [--quick]        --quick: 40 epochs of each stage, then scaled to 400

112 random slices of 176 x 176 to train on, 28 to validate on, batch 32, early stopping off, MLflow on; the first
epochs, in which everything is compiled, are not counted and shown apart. The alternative is a bare compiled loop
without validation, checkpoints or logging. Without a CUDA GPU nothing is measured, and the table says so.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Callable

import torch
from report import Row, finish
from workload import BATCH, GFLOP_PER_IMAGE, SLICES, Stage, matmul_rate, random_items

from monai_cae.networks import ConvAutoencoder, ConvDecoder, ConvEncoder

EPOCHS = 400
STAGES = (
    ("CAE", "pretrain.json", "train#trainer"),
    ("frozen", "train.json", "frozen#trainer"),
    ("fine-tuning", "train.json", "train#trainer"),
)
ACTIVATIONS_TB = 9.0  # what 400 CAE epochs move at least, in bfloat16
MEMORY_TB_PER_S = 4.8  # of an H200


def bare_loop() -> Callable[[int], float]:
    """Seconds of some epochs of a compiled loop on a resident tensor."""
    network = ConvAutoencoder(encoder=ConvEncoder(), decoder=ConvDecoder()).to(
        "cuda", memory_format=torch.channels_last
    )
    optimizer = torch.optim.Adam(network.parameters(), lr=1e-4, fused=True)
    compiled = torch.compile(network, mode="reduce-overhead", dynamic=False)
    images = torch.rand(SLICES, 1, 176, 176, device="cuda")

    def epochs(count: int) -> float:
        torch.cuda.synchronize()
        started = time.perf_counter()
        for _ in range(count):
            for indices in torch.randperm(SLICES, device="cuda").split(BATCH):
                batch = images[indices].contiguous(memory_format=torch.channels_last)
                torch.compiler.cudagraph_mark_step_begin()
                with torch.autocast("cuda", torch.bfloat16):
                    reconstruction = compiled(batch)
                optimizer.zero_grad()
                torch.nn.functional.mse_loss(reconstruction.float(), batch).backward()
                optimizer.step()
        torch.cuda.synchronize()
        return time.perf_counter() - started

    return epochs


def main() -> None:
    """Print the table, write results/gpu_repeat.json."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true")
    epochs = 40 if parser.parse_args().quick else EPOCHS
    if not torch.cuda.is_available():
        print("no CUDA GPU here: nothing measured")
        finish("gpu_repeat", [])
        return
    items = random_items()
    seconds, compiling = {}, {}
    for name, config, trainer in STAGES:
        settings = {"trainer": trainer, "pretrained": "none"} if config == "train.json" else {"trainer": trainer}
        with (
            tempfile.TemporaryDirectory() as folder,
            Stage(config, items, folder, patience=EPOCHS, **settings) as stage,
        ):
            compiling[name] = sum(stage.epoch() for _ in range(3))
            stage.get("best").best.clear()
            started = time.perf_counter()
            stage.epochs(epochs)
            seconds[name] = (time.perf_counter() - started) * EPOCHS / epochs
    bare = bare_loop()
    bare(3)
    alternative = bare(epochs) * EPOCHS / epochs
    rate = matmul_rate("cuda", True)
    floor = max(GFLOP_PER_IMAGE * SLICES * EPOCHS / rate, ACTIVATIONS_TB / MEMORY_TB_PER_S)
    total = sum(seconds.values())
    name = torch.cuda.get_device_name()
    rows = [
        Row(f"one repeat of {EPOCHS} epochs a stage on {name}", total, 0, "", "s", total, "<= 20"),
        Row("400 CAE epochs, engine to MLflow", seconds["CAE"], alternative, "bare compiled loop", "s",
            seconds["CAE"] / alternative, "<= 1.3"),
        Row("400 CAE epochs, share of the floor", seconds["CAE"], floor, "arithmetic or memory", "s",
            floor / seconds["CAE"]),
        *(Row(f"400 epochs, {name}", figure, 0, "", "s", figure) for name, figure in seconds.items()),
    ]  # fmt: skip
    finish("gpu_repeat", rows, compiling=compiling, gflop_per_s=rate, torch=torch.__version__)


if __name__ == "__main__":
    main()
