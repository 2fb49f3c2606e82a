"""Try every fault that docs/explanation/reliability.md promises to survive, and write its table: `make faults`.

A test that tries one carries the mark `fault(what, happened)`; its row is written when all tests with it have passed.
"""

from __future__ import annotations

import platform
import sys
import time
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[1]
PAGE = ROOT / "docs" / "explanation" / "reliability.md"
BEGIN, END = "<!-- table of faults: written by make faults -->", "<!-- end of the table -->"


class Faults:
    """pytest plugin: what was tried, and whether it went as promised."""

    def __init__(self) -> None:
        self.tried: dict[tuple[str, str], list[bool]] = {}

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """A setup that fails is a fault that was not survived; one that is skipped was not tried."""
        if report.when != "call" and not report.failed:
            return
        for name, value in report.user_properties:
            if name == "fault":
                self.tried.setdefault(tuple(value), []).append(bool(report.passed))


def table(tried: dict[tuple[str, str], list[bool]], seconds: float) -> str:
    """Markdown, a row per fault.

    Args:
        tried: (what, what happened) -> whether each of its tests passed.
        seconds: that all of it took.
    """
    lines = ["| what was done | what happened | tests |", "|---|---|---|"]
    lines += [f"| {what} | {happened} | {len(passed)} |" for (what, happened), passed in sorted(tried.items())]
    versions = ", ".join(f"{name} {version(package)}" for name, package in _PACKAGES.items())
    where = f"Python {platform.python_version()}, {versions}, {platform.system()}"
    return "\n".join([*lines, "", f"`make faults` on {time.strftime('%Y-%m-%d')}: {seconds:.0f} s, {where}."])


_PACKAGES = {"PyTorch": "torch", "MONAI": "monai", "MLflow": "mlflow"}


def main() -> int:
    """Exit status: pytest's; the page is written only if everything passed."""
    faults, started = Faults(), time.monotonic()
    options: list[Any] = [
        "-m",
        "fault",
        "--rootdir",
        str(ROOT),
        "-c",
        str(ROOT / "pyproject.toml"),
        str(ROOT / "tests"),
    ]
    status = int(pytest.main(options, plugins=[faults]))
    if status:
        return status
    before, _, rest = PAGE.read_text(encoding="utf-8").partition(BEGIN)
    _, _, after = rest.partition(END)
    written = table(faults.tried, time.monotonic() - started)
    PAGE.write_text(f"{before}{BEGIN}\n\n{written}\n\n{END}{after}", encoding="utf-8")
    print(f"\n{len(faults.tried)} kinds of faults tried, all went as promised: {PAGE}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
