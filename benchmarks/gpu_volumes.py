"""What the CUDA path does for volumes: steps per second of the 3D autoencoder, ours against a bare loop of CUDA graphs.

Run: python benchmarks/gpu_volumes.py [--quick]        --quick: 3 turns of 4 epochs in place of 7 of 10

The network of `monai_cae.networks` with three spatial dimensions, random volumes of 88 x 104 x 88, batch 4, bfloat16:
pretrain.json with its trainer and MLflow, the same with validation and best weights, and a loop of forward, loss,
backward and Adam, in turn. Nothing is claimed.
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Sequence
from functools import partial
from typing import Any

import torch
from bare import BareLoop, machine, require_gpu
from report import Row, alternate, finish
from workload import THREE, UNVALIDATED, Items, Stage

from monai_cae.networks import ConvAutoencoder, ConvDecoder, ConvEncoder

SHAPE, VOLUMES, BATCH = (88, 104, 88), 16, 4


def items(count: int, shape: Sequence[int]) -> Items:
    """Volumes of noise."""
    return [{"image": torch.rand(1, *shape), "label": torch.zeros(1)} for _ in range(count)]


def compare(volumes: Items, batch: int, epochs: int, turns: int, device: str, **options: Any) -> dict[str, float]:
    """Steps per second of both ways; options are settings of ours, such as other channels."""
    channels = options.get("channels", (32, 64, 128))
    encoder = ConvEncoder(spatial_dims=3, channels=channels)
    network = ConvAutoencoder(encoder=encoder, decoder=ConvDecoder(spatial_dims=3, channels=channels))
    bare = BareLoop(network, torch.stack([item["image"] for item in volumes]).to(device), batch)
    steps = -(-len(volumes) // batch) * epochs
    given = {**THREE, "image_size": list(volumes[0]["image"].shape[1:]), "channels": list(channels)}
    given |= {"batch_size": batch, "patience": 10**6, "device": device, **options}
    with (
        tempfile.TemporaryDirectory() as folder,
        Stage("pretrain.json", volumes, folder, **UNVALIDATED, **given) as ours,
        Stage("pretrain.json", volumes, folder, **given) as validated,
    ):
        ways = {"ours": ours, "validated": validated, "bare": bare}
        seconds = alternate({way: partial(loop.epochs, epochs) for way, loop in ways.items()}, turns)
    return {way: steps / value for way, value in seconds.items()}


def main() -> None:
    """Print the table, write results/gpu_volumes.json."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true")
    quick = parser.parse_args().quick
    require_gpu()
    rates = compare(items(VOLUMES, SHAPE), BATCH, 4 if quick else 10, 3 if quick else 7, "cuda")
    size = " x ".join(map(str, SHAPE))
    rows = [
        Row(f"3D CAE, {size}, batch {BATCH}{more}", rates[way], rates["bare"], "bare loop of CUDA graphs", "steps/s",
            rates[way] / rates["bare"])
        for way, more in (("ours", ""), ("validated", ", and validation of as many"))
    ]  # fmt: skip
    finish("gpu_volumes", rows, **machine())


if __name__ == "__main__":
    main()
