"""Claim: after 40 epochs in bfloat16 the validation PSNR is within 0.1 dB of float32's, from the same start.

Run: python benchmarks/precision.py [--quick]
     --quick: 10 epochs of slices cut to 88 x 88; early epochs jump by more than 0.1 dB, so nothing is claimed of them

The synthetic cohort of 60 subjects through pretrain.json, once with --precision bfloat16 and once with float32, early
stopping off; the means of the last five epochs are compared, as single epochs jump.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from pathlib import Path

from monai.bundle import ConfigWorkflow
from report import Row, finish

import monai_cae
from monai_cae.data import write_phantom

CONFIG = Path(monai_cae.__file__).parents[1] / "bundle" / "configs" / "pretrain.json"


def main() -> None:
    """Print the table, write results/precision.json."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true")
    quick = parser.parse_args().quick
    epochs, extra = (10, {"image_size": 88}) if quick else (40, {})
    psnr, seconds = {}, {}
    with tempfile.TemporaryDirectory() as folder:
        discs = Path(folder, "phantom")
        write_phantom(discs, subjects=60)
        for precision in ("bfloat16", "float32"):
            options = {"dataset_dir": str(discs), "output_dir": f"{folder}/{precision}", "precision": precision}
            workflow = ConfigWorkflow(str(CONFIG), max_epochs=epochs, patience=epochs, batch_size=8, **options, **extra)
            workflow.initialize()
            started = time.perf_counter()
            workflow.run()
            seconds[precision] = time.perf_counter() - started
            history = workflow.parser.get_parsed_content("tracked_run").history["val_psnr"]
            psnr[precision] = statistics.mean(value for _, value in history[-5:])
    difference = abs(psnr["bfloat16"] - psnr["float32"])
    what = f"validation PSNR after {epochs} epochs, difference in dB"
    row = Row(what, psnr["bfloat16"], psnr["float32"], "float32", "dB", difference, "" if quick else "<= 0.1")
    finish("precision", [row], seconds=seconds, data="synthetic")


if __name__ == "__main__":
    main()
