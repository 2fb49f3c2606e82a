"""Claims: a repeat of 400 CAE + 400 frozen + 400 fine-tuning epochs takes at most 20 s on an H100, in a fresh process
30 s, five 100 s; at most 1.5 x what its bytes take; its CAE epochs at most 1.3 x a bare loop of CUDA graphs.

Run: python benchmarks/gpu_repeat.py [--quick]        --quick: two repeats in place of five, of which nothing is claimed
     together, and 40 epochs in place of 100 against the bare loop

A repeat is pretrain.json and train.json as they are, early stopping off: 112 subjects to train on, 28 to validate on in
every epoch, batch 32, MLflow, checkpoints, audit, figures. Its cohort are 200 slices of noise in OASIS-1's format: what
they show makes no difference to the time. The repeats run in a process of their own, whose start is that of the first;
of the others the median counts. The bytes are those of `bounds.bytes_moved`, at the speed of a large copy, measured in
the same run. Against the bare loop, 112 random slices train in turn with it; ours alone has validation, MLflow and best
weights.
"""

from __future__ import annotations

import argparse
import csv
import json
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import nibabel as nib
import numpy as np
import torch
from bare import BareLoop, machine, require_gpu
from bounds import bytes_moved, copy_rate
from report import Row, alternate, finish
from workload import BATCH, SIZE, SLICES, VALIDATION, Stage, random_items

import monai_cae
from monai_cae.networks import ConvAutoencoder, ConvDecoder, ConvEncoder, EncoderClassifier

EPOCHS, REPEATS = 400, 5
SUBJECTS = 200
CONFIGS = Path(monai_cae.__file__).parents[1] / "bundle" / "configs"
STAGES = ("pretrain", "train")
HALF = 2  # bytes of an activation in bfloat16


def write_cohort(root: Path) -> Path:
    """200 subjects whose volumes are one slice of 176 x 208 noise, half of them patients."""
    header = nib.AnalyzeHeader(endianness=">")
    header.set_data_dtype(np.int16)
    generator = np.random.default_rng(0)
    rows = []
    for number in range(1, SUBJECTS + 1):
        name = f"OAS1_{number:04d}_MR1"
        folder = root / "disc1" / name / "PROCESSED" / "MPRAGE" / "T88_111"
        folder.mkdir(parents=True)
        noise = generator.integers(0, 3000, (176, 208, 1, 1)).astype(np.int16)
        nib.save(nib.AnalyzeImage(noise, None, header), folder / f"{name}_mpr_n4_anon_111_t88_masked_gfc.img")
        age, cdr = 60 + number % 35, (0, 0.5)[number % 2]
        rows.append({"ID": name, "M/F": "FM"[number // 2 % 2], "Age": age, "Educ": 3, "CDR": cdr, "nWBV": 0.75})
    with (root / "oasis_cross-sectional.csv").open("w", encoding="utf-8", newline="") as file:
        table = csv.DictWriter(file, list(rows[0]))
        table.writeheader()
        table.writerows(rows)
    return root


def train(cohort: str, output: str, repeats: int, epochs: int, device: str) -> None:
    """What the process of the repeats does: a line of JSON on each, with the time of day when each stage ended."""
    import monai.bundle

    for repeat in range(1, repeats + 1):
        ended = {}
        for stage in STAGES:
            settings = {"dataset_dir": cohort, "output_dir": f"{output}/repeat_{repeat}", "seed": repeat}
            settings |= {"tracking_uri": f"sqlite:///{output}/mlruns.db", "device": device, "slice_index": 1}
            monai.bundle.run(
                run_id="training", config_file=str(CONFIGS / f"{stage}.json"), max_epochs=epochs, patience=epochs,
                **settings,
            )  # fmt: skip
            ended[stage] = time.time()
        with Path(output, "ended.jsonl").open("a", encoding="utf-8") as file:
            file.write(json.dumps(ended) + "\n")


def time_repeats(folder: Path, repeats: int, epochs: int = EPOCHS, device: str = "cuda") -> list[dict[str, float]]:
    """Seconds of the stages of each repeat; the first begins where its process does."""
    cohort, output = write_cohort(folder / "cohort"), folder / "output"
    output.mkdir()
    before = time.time()
    command = [sys.executable, "-W", "ignore", __file__, "--train", str(cohort), str(output), str(repeats)]
    done = subprocess.run([*command, str(epochs), device], capture_output=True, text=True, check=False)
    if done.returncode:
        sys.exit(f"{done.stdout[-2000:]}\n{done.stderr[-4000:]}\nerror: the repeats failed")
    seconds = []
    for line in (output / "ended.jsonl").read_text(encoding="utf-8").splitlines():
        ended = json.loads(line)
        seconds.append({"CAE": ended["pretrain"] - before, "classifier": ended["train"] - ended["pretrain"]})
        before = ended["train"]
    return seconds


def bytes_of_a_repeat() -> dict[str, float]:
    """What the epochs of each stage move at least, validation included."""
    autoencoder = ConvAutoencoder(encoder=ConvEncoder(), decoder=ConvDecoder())
    classifier = EncoderClassifier(encoder=ConvEncoder(), spatial_size=(SIZE, SIZE))
    image, code = (1, SIZE, SIZE), (classifier.head[1].in_features,)
    moved = {}
    for name, network, shape in (
        ("CAE", autoencoder, image), ("frozen", classifier.head, code), ("fine-tuning", classifier, image),
    ):  # fmt: skip
        batches = [min(BATCH, SLICES - start) for start in range(0, SLICES, BATCH)]
        epoch = sum(bytes_moved(network, (count, *shape), HALF, learning=True) for count in batches)
        moved[name] = EPOCHS * (epoch + bytes_moved(network, (VALIDATION, *shape), HALF, learning=False))
    return moved


def against_bare_loop(epochs: int, turns: int) -> dict[str, float]:
    """Seconds of so many CAE epochs, ours and bare."""
    images = torch.rand(SLICES, 1, SIZE, SIZE, device="cuda")
    bare = BareLoop(ConvAutoencoder(encoder=ConvEncoder(), decoder=ConvDecoder()), images, BATCH)
    with (
        tempfile.TemporaryDirectory() as folder,
        Stage("pretrain.json", random_items(), folder, patience=10**6) as ours,
    ):
        return alternate({"ours": lambda: ours.epochs(epochs), "bare": lambda: bare.epochs(epochs)}, turns)


def main() -> None:
    """Print the table, write results/gpu_repeat.json."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--train", nargs=5, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.train:
        cohort, output, repeats, epochs, device = options.train
        train(cohort, output, int(repeats), int(epochs), device)
        return
    card = require_gpu()
    with tempfile.TemporaryDirectory() as folder:
        repeats = time_repeats(Path(folder), 2 if options.quick else REPEATS)
    cold, *others = (sum(repeat.values()) for repeat in repeats)
    warm = statistics.median(others)
    moved, rate = bytes_of_a_repeat(), copy_rate("cuda")
    floor = sum(moved.values()) / rate
    epochs = 40 if options.quick else 100
    loops = against_bare_loop(epochs, 3 if options.quick else 5)
    ratio = loops["ours"] / loops["bare"]
    bytes_text = f"{sum(moved.values()) / 1e12:.1f} TB at {rate / 1e12:.2f} TB/s, a large copy"
    rows = [
        Row(f"repeat of {EPOCHS} epochs a stage, {card}", warm, 0, "", "s", warm, "<= 20"),
        Row("the first, from the start of its process", cold, 0, "", "s", cold, "<= 30"),
        Row("repeat, against its bytes", warm, floor, bytes_text, "s", warm / floor, "<= 1.5"),
        Row(f"{epochs} CAE epochs, validation to MLflow", loops["ours"], loops["bare"], "bare loop of CUDA graphs", "s",
            ratio, "<= 1.3"),
    ]  # fmt: skip
    if not options.quick:
        rows.insert(2, Row(f"{REPEATS} repeats", cold + sum(others), 0, "", "s", cold + sum(others), "<= 100"))
    finish("gpu_repeat", rows, **machine(), repeats=repeats, bytes=moved, bytes_per_s=rate)


if __name__ == "__main__":
    main()
