"""All benchmarks for a CPU, one after the other, and one table of their claims; those for a GPU are `make gpu`'s.

Run: python benchmarks [--quick] [--keras PYTHON]        what `make bench` does, with --quick
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import time
from pathlib import Path

from report import RESULTS, Row, print_table

HERE = Path(__file__).parent
NOT_BENCHMARKS = {
    "__main__.py",
    "bare.py",
    "bounds.py",
    "distortions.py",
    "localisation.py",
    "report.py",
    "workload.py",
}


def main() -> int:
    """Run every script of this folder; 1 when one of them failed."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="each under two minutes")
    parser.add_argument("--keras", metavar="PYTHON", help="interpreter for training_epoch.py to compare with")
    chosen = parser.parse_args()
    options = ["--quick"] if chosen.quick else []
    rows, failed = [], []
    for script in sorted(HERE.glob("*.py")):
        if script.name in NOT_BENCHMARKS or script.name.startswith("gpu_"):
            continue
        print(f"\n{script.stem}", flush=True)
        started = time.perf_counter()
        more = ["--keras", chosen.keras] if chosen.keras and script.stem == "training_epoch" else []
        if subprocess.run([sys.executable, str(script), *options, *more], check=False).returncode:
            failed.append(script.stem)
            continue
        print(f"({time.perf_counter() - started:.0f} s)", flush=True)
        content = json.loads((RESULTS / f"{script.stem}.json").read_text(encoding="utf-8"))
        rows += [Row(**row) for row in content["rows"]]
    print("\nall benchmarks" + (", quick: few repeats, expect noise" if chosen.quick else ""))
    print_table(rows)
    if failed:
        print(f"failed: {', '.join(failed)}")
    return int(bool(failed))


if __name__ == "__main__":
    sys.exit(main())
