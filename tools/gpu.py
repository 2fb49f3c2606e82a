"""Prove the CUDA path on this machine: every test marked `cuda`, then the GPU benchmarks. `make gpu`, or

    python tools/gpu.py [--quick]        --quick: under six minutes on an H100, fewer repeats

It takes a source tree and what it needs on PYTHONPATH; nothing has to be installed, nothing is downloaded, and nilearn
is not needed. What was measured is printed as one table, goes to benchmarks/results/gpu.json, and comes as a paragraph
for docs/explanation/performance.md. A part that fails does not stop the others; then the status is 1.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

ROOT = Path(__file__).resolve().parents[1]
BENCHMARKS = ROOT / "benchmarks"
sys.path.insert(0, str(BENCHMARKS))
from report import RESULTS, Row, print_table  # noqa: E402  # lies there

MEASURED = ("gpu_repeat", "gpu_volumes", "gpu_streaming")
NEEDED = (
    "torch", "monai", "ignite", "mlflow", "nibabel", "yaml", "fire", "numpy", "scipy", "sklearn", "jinja2",
    "matplotlib", "pandas", "openpyxl", "tqdm", "filelock", "pytest", "xdist",
)  # fmt: skip
# Seconds after which a part is ended. Of --quick, the tests should take 120 (four at a time), the repeats 30 + 20 and
# the loops 30, volumes 40, streaming 50: 290, most of it for starting Python and making MLflow's databases.
LONGEST, LONGEST_QUICK = 1800, 240


@dataclass
class Part:
    """The tests, or one benchmark.

    Args:
        name: of the part.
        command: runs it.
        result: file that it leaves: JUnit's XML of the tests, the JSON of a benchmark.
    """

    name: str
    command: Sequence[str]
    result: Path
    passed: bool = False
    seconds: float = 0.0
    rows: list[Row] = field(default_factory=list)
    tests: dict[str, int] = field(default_factory=dict)

    def run(self, longest: float) -> None:
        """Run it, and read what it leaves; its output goes to ours."""
        print(f"\n{self.name}", flush=True)
        self.result.unlink(missing_ok=True)
        path = os.pathsep.join([str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])])
        environment = {**os.environ, "PYTHONPATH": path, "MLFLOW_DISABLE_TELEMETRY": "true"}
        started = time.monotonic()
        process = subprocess.Popen(self.command, env=environment, cwd=ROOT, start_new_session=True)
        try:
            self.passed = process.wait(longest) == 0
        except subprocess.TimeoutExpired:
            print(f"{self.name} was ended after {longest:.0f} s", flush=True)
        finally:
            if process.poll() is None:  # with what it has started
                os.killpg(process.pid, signal.SIGKILL)
                process.wait()
        self.seconds = time.monotonic() - started
        if self.result.is_file():
            self._read()
        print(f"({self.seconds:.0f} s)", flush=True)

    def _read(self) -> None:
        if self.result.suffix == ".json":
            self.rows = [Row(**row) for row in json.loads(self.result.read_text(encoding="utf-8"))["rows"]]
            return
        (suite,) = ElementTree.parse(self.result).getroot().iter("testsuite")
        count = {name: int(suite.get(name, 0)) for name in ("tests", "failures", "errors", "skipped")}
        failed = count["failures"] + count["errors"]
        self.tests = {"passed": count["tests"] - failed - count["skipped"], "failed": failed}
        self.tests["skipped"] = count["skipped"]
        self.passed = self.passed and self.tests["passed"] > 0


def parts(quick: bool, folder: Path) -> list[Part]:
    """All, in order. Warnings of versions that this project was not tested with are no failures here."""
    found = folder / "tests.xml"
    pytest = [sys.executable, "-m", "pytest", "-m", "cuda", "-rs", "-W", "default", "-p", "no:cacheprovider"]
    pytest += [
        "--rootdir",
        str(ROOT),
        "-c",
        str(ROOT / "pyproject.toml"),
        f"--junitxml={found}",
        str(ROOT / "tests" / "cuda"),
    ]
    options = ["--quick"] if quick else []
    measured = [
        Part(name, [sys.executable, "-W", "ignore", str(BENCHMARKS / f"{name}.py"), *options], RESULTS / f"{name}.json")
        for name in MEASURED
    ]
    return [Part("tests", pytest, found), *measured]


def paragraph(done: Sequence[Part], machine: Mapping[str, Any], command: str, day: str) -> str:
    """Markdown for docs/explanation/performance.md: the machine, the tests, and a row per figure."""
    counts = next((part.tests for part in done if part.tests), {})
    tests = ", ".join(f"{count} {word}" for word, count in counts.items() if count) or "did not run"
    failed = [part.name for part in done if not part.passed]
    lines = [
        f"`{command}` on {day}, on one {machine['card']} ({machine['memory_gib']:.0f} GiB), "
        f"driver {machine['driver']},",
        f"PyTorch {machine['torch']} with CUDA {machine['cuda']} and cuDNN {machine['cudnn']}. "
        f"Tests of the CUDA path: {tests}." + (f" Failed: {', '.join(failed)}." if failed else ""),
    ]
    rows = [row for part in done for row in part.rows]
    if rows:
        lines += ["", "| what | ours | alternative | ratio | target |", "|---|---|---|---|---|"]
    for row in rows:
        other = f"{row.alternative:.3g} {row.unit}, {row.against}" if row.alternative else row.against
        target = row.target + (", not met" if row.met is False else "")
        lines.append(f"| {row.what} | {row.ours:.3g} {row.unit} | {other} | {row.ratio:.3g} | {target} |")
    return "\n".join(lines)


def prove(todo: Sequence[Part], machine: Mapping[str, Any], command: str, longest: float, out: Path) -> int:
    """Run the parts, print table and paragraph, write the file after every part; 1 if one has failed."""
    done: list[Part] = []
    text = ""
    for part in todo:
        part.run(longest)
        done.append(part)
        text = paragraph(done, machine, command, time.strftime("%Y-%m-%d"))
        content = {
            "machine": dict(machine),
            "command": command,
            "parts": [
                {"name": one.name, "passed": one.passed, "seconds": one.seconds, "tests": one.tests} for one in done
            ],
            "rows": [asdict(row) for one in done for row in one.rows],
            "paragraph": text,
        }
        out.parent.mkdir(exist_ok=True)
        out.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
    print()
    for part in done:
        counts = ", ".join(f"{count} {word}" for word, count in part.tests.items())
        print(f"{part.name:<16}{'passed' if part.passed else 'FAILED':<8}{part.seconds:>5.0f} s  {counts}".rstrip())
    print()
    print_table([row for part in done for row in part.rows])
    print(f"\n{out}; for docs/explanation/performance.md:\n\n{text}", flush=True)
    return int(not all(part.passed for part in done))


def main() -> int:
    """Exit status: 0 if every part passed."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="under six minutes on an H100")
    quick = parser.parse_args().quick
    missing = [name for name in NEEDED if importlib.util.find_spec(name) is None]
    if missing:
        sys.exit(f"error: Python finds no {', '.join(missing)}: put the folder that has them on PYTHONPATH")
    import torch

    if not torch.cuda.is_available():
        sys.exit(f"error: PyTorch {torch.__version__} sees no CUDA GPU on this machine: nothing was run or written")
    from bare import machine

    command = "python tools/gpu.py" + " --quick" * quick
    with tempfile.TemporaryDirectory() as folder:
        longest = LONGEST_QUICK if quick else LONGEST
        return prove(parts(quick, Path(folder)), machine(), command, longest, RESULTS / "gpu.json")


if __name__ == "__main__":
    sys.exit(main())
