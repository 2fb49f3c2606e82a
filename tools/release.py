"""Build the wheel and the sdist, install them into empty environments, and run the wheel there.

    python tools/release.py [PYTHON ...] [--oldest PYTHON] [--dist FOLDER]

Each PYTHON is a program's name or path, such as python3.12: the wheel is installed with the newest dependencies that
pyproject.toml allows. --oldest takes those of constraints-oldest.txt instead. In each environment, from an empty folder
outside of the checkout, `monai-cae` prints its version, makes a synthetic cohort, trains to the report, predicts and
packages. An environment has several GB with CUDA builds of PyTorch and is deleted before the next. Exit status 1 if
anything fails; the artefacts stay in FOLDER (default: dist).
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
OLDEST = ROOT / "constraints-oldest.txt"
BIN = "Scripts" if os.name == "nt" else "bin"
TINY = ("--image-size", "64", "--channels", "[4,8]", "--max-epochs", "2", "--batch-size", "8")
SMOKE = (  # from the README, tiny
    ("--version",),
    ("phantom", "phantom", "--subjects", "16", "--seed", "0"),
    ("run", "phantom", "output", "--with", "phantom", *TINY),
    ("predict", "output/repeat_1", "phantom", "predicted"),
    ("package", "cae.zip", "--output-dir", "output/repeat_1"),
)
LEAVES = ("output/report.html", "output/results.md", "predicted/predictions.csv", "cae.zip")


class Failed(Exception):
    """Which step has failed, and all that it said: a cause may stand anywhere in it."""


@dataclass(frozen=True)
class Environment:
    """An empty virtual environment.

    Attributes:
        folder: where it lies.
        room: an empty folder, its working directory and home; what is installed is all that Python finds.
    """

    folder: Path
    room: Path

    def run(self, *command: str | Path, what: str) -> str:
        """Run one of its programs and give what it printed.

        Raises:
            Failed: it did not end with status 0.
        """
        program = self.folder / BIN / command[0]
        kept = {name: value for name, value in os.environ.items() if not name.startswith(("PYTHON", "VIRTUAL_ENV"))}
        done = subprocess.run(
            [program, *command[1:]], cwd=self.room, env=kept, capture_output=True, text=True, check=False
        )
        if done.returncode:
            said = (done.stdout + done.stderr).strip().splitlines()
            raise Failed("\n    ".join((f"{what} ended with status {done.returncode}", *said)))
        return done.stdout

    def pip(self, *arguments: str | Path, what: str = "pip install") -> None:
        """Install."""
        self.run("python", "-m", "pip", "--disable-pip-version-check", "--quiet", "install", *arguments, what=what)


@contextmanager
def environment(python: str) -> Iterator[Environment]:
    """An empty environment of a Python, deleted afterwards.

    Raises:
        Failed: there is no such program, or it makes none.
    """
    if shutil.which(python) is None:
        raise Failed(f"{python} is not a program: give its path")
    with tempfile.TemporaryDirectory(prefix="monai-cae-release-") as scratch:
        made = Environment(Path(scratch, "venv"), Path(scratch, "room"))
        made.room.mkdir()
        done = subprocess.run([python, "-m", "venv", made.folder], capture_output=True, text=True, check=False)
        if done.returncode:
            raise Failed(f"{python} -m venv: {(done.stdout + done.stderr).strip()}")
        made.pip("--upgrade", "pip")
        yield made


def build(dist: Path) -> Path:
    """Build sdist and wheel, every warning an error, and have twine check both: the wheel."""
    with environment(sys.executable) as made:
        made.pip("build", "twine")
        for earlier in (*dist.glob("monai_cae-*.whl"), *dist.glob("monai_cae-*.tar.gz")):
            earlier.unlink()
        made.run("python", "-W", "error", "-m", "build", "--outdir", dist, ROOT, what="build")
        artefacts = sorted(dist.glob("monai_cae-*"))
        made.run("twine", "check", "--strict", *artefacts, what="twine check")
    (wheel,) = dist.glob("*.whl")
    for path in artefacts:
        print(f"built      {path.name} ({path.stat().st_size / 1e3:.0f} kB)", flush=True)
    return wheel


def smoke(python: str, wheel: Path, constraints: Path | None = None) -> str:
    """Install the wheel into an empty environment and run it there: what was installed."""
    with environment(python) as made:
        limits = () if constraints is None else ("--constraint", constraints)
        made.pip(*limits, f"{wheel}[phantom]")
        for command in SMOKE:
            made.run("monai-cae", *command, what=f"monai-cae {' '.join(command[:1])}")
        missing = [name for name in LEAVES if not (made.room / name).is_file()]
        if missing:
            raise Failed(f"no {', '.join(missing)} was written")
        frozen = made.run("python", "-m", "pip", "list", "--format", "freeze", what="pip list").split()
        return ", ".join(
            line for line in frozen if line.split("==")[0].lower() in ("torch", "monai", "mlflow", "numpy")
        )


def main(arguments: Sequence[str] | None = None) -> int:
    """Build, and try each environment."""
    parser = argparse.ArgumentParser(description="Build a release and try it in empty environments.")
    parser.add_argument("pythons", nargs="*", metavar="PYTHON", help="with the newest dependencies, e.g. python3.12")
    parser.add_argument("--oldest", metavar="PYTHON", help=f"with those of {OLDEST.name}")
    parser.add_argument("--dist", type=Path, default=ROOT / "dist", help="folder of the artefacts; earlier ones go")
    options = parser.parse_args(arguments)
    tried = [(python, None) for python in options.pythons] + [(options.oldest, OLDEST)] * bool(options.oldest)
    try:
        wheel = build(options.dist.absolute())
    except Failed as error:
        print(f"failed     {error}")
        return 1
    passed = True
    for python, constraints in tried:
        began, name = time.monotonic(), f"{python}, {'oldest' if constraints else 'newest'}"
        try:
            state, said = "ok", smoke(python, wheel, constraints)
        except Failed as error:
            state, said, passed = "failed", str(error), False
        print(f"{state:<10} {name} ({time.monotonic() - began:.0f} s): {said}", flush=True)
    return int(not passed)


if __name__ == "__main__":
    sys.exit(main())
