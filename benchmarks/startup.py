"""Claim: importing our package, or every layer of it, adds at most 0.2 s to importing MONAI; no help needs torch.

Run: python benchmarks/startup.py [--quick]        --quick measures 3 processes of each instead of 9

Medians of fresh processes. What our import adds is timed inside a process that has just imported MONAI: the difference
of two whole processes, several seconds each, would be their noise. The helps take turns with each other and with an
interpreter that does nothing.
"""

from __future__ import annotations

import argparse
import re
import statistics
import subprocess
import sys
import time
from functools import partial

from report import Row, alternate, finish

LAYERS = "monai_cae.data, monai_cae.networks, monai_cae.training, monai_cae.evaluation, monai_cae.experiment.protocol"
IMPORTS = f"""
import time
marks = [time.perf_counter()]
import monai
marks.append(time.perf_counter())
import monai_cae
marks.append(time.perf_counter())
import {LAYERS}
marks.append(time.perf_counter())
print(*(end - start for start, end in zip(marks, marks[1:])))
"""
COMMAND = "from monai_cae.cli import main; main()"
TELLING = "import atexit, sys; atexit.register(lambda: print('torch' in sys.modules)); " + COMMAND


def output(code: str, *arguments: str) -> str:
    """What code prints in a process of this Python."""
    command = [sys.executable, "-W", "ignore", "-c", code, *arguments]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout


def seconds(code: str, *arguments: str) -> float:
    """Seconds of a process of this Python."""
    started = time.perf_counter()
    output(code, *arguments)
    return time.perf_counter() - started


def main() -> None:
    """Print the table, write results/startup.json."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true")
    repeats = 3 if parser.parse_args().quick else 9
    output(IMPORTS)  # the files are in memory from here on
    imports = [[float(figure) for figure in output(IMPORTS).split()] for _ in range(repeats)]
    monai, package, layers = (statistics.median(column) for column in zip(*imports, strict=True))
    rows = [
        Row("import monai_cae adds", package, monai, "import monai", "s", package, "<= 0.2"),
        Row("import all its layers adds", layers, monai, "import monai", "s", layers, "<= 0.2"),
    ]
    commands = re.findall(r"^    ([a-z][a-z-]+)(?:\s|$)", output(COMMAND, "--help"), re.MULTILINE)
    helps = {f"monai-cae {name}": [name, "--help"] for name in commands} | {"monai-cae": ["--help"]}
    ways = {name: partial(seconds, COMMAND, *arguments) for name, arguments in helps.items()}
    took = alternate({"nothing": partial(seconds, "pass"), **ways}, repeats)
    nothing = took.pop("nothing")
    rows += [Row(f"{name} --help", took[name], nothing, "python -c pass", "s", took[name] / nothing) for name in helps]
    needing = [name for name, arguments in helps.items() if output(TELLING, *arguments).split()[-1] == "True"]
    rows.append(Row(f"of {len(helps)} helps, import torch", len(needing), 0, "", "", len(needing), "<= 0"))
    finish("startup", rows, processes=repeats, helps_that_import_torch=needing)


if __name__ == "__main__":
    main()
