"""Make a folder for MONAI's model zoo, of a network trained on synthetic data, and run the zoo's checks on it.

    python tools/zoo.py OUT [--subjects N] [--max-epochs N] [--run FOLDER] [--schema FILE]

Brains are drawn by `monai-cae phantom`, and the shipped experiment is run on them, with a smaller dense layer so that
every file stays below the 25 MB that the zoo takes. The run's package is unpacked to OUT; its metadata and README say
that it was trained on synthetic data. OUT's name is the bundle's in the zoo, such as brain_mri_cae_classification. It
takes some minutes on two cores; --run takes a finished run on synthetic data instead. OUT appears only when the checks
have passed. --schema is as in tools/zoo_checks.py.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

import zoo_checks

from monai_cae.cli import main as monai_cae
from monai_cae.errors import MonaiCaeError
from monai_cae.files import new_folder

SMALL = ("--stages#classifier", "{'network_def#hidden': [16, 16]}")  # 16 MB of weights in place of 255
README, METADATA = Path("docs", "README.md"), Path("configs", "metadata.json")
MARK = "SYNTHETIC"


def train(folder: Path, subjects: int, max_epochs: int) -> Path:
    """Train on synthetic brains: the folder of the run.

    Raises:
        MonaiCaeError: a command has failed, and has said why.
    """
    cohort, output = folder / "phantom", folder / "output"
    _run("phantom", str(cohort), "--subjects", str(subjects), "--seed", "0")
    _run("run", str(cohort), str(output), "--with", "phantom", "--max-epochs", str(max_epochs), *SMALL)
    return output / "repeat_1"


def publish(run: Path, out: Path, schema: Path | None = None) -> None:
    """Make the zoo's folder of a finished run.

    Args:
        run: its output_dir.
        out: absent or empty; it appears only when all checks have passed.
        schema: of metadata.json, for MONAI's own check.

    Raises:
        MonaiCaeError: the run is not on synthetic data, can't be packaged, or a check has failed.
    """
    with new_folder(out) as folder, tempfile.TemporaryDirectory() as beside:
        package = Path(beside, "bundle.zip")
        _run("package", str(package), "--output_dir", str(run))
        _run("bundle", str(folder), "--from", str(package))
        said = json.loads((folder / METADATA).read_text(encoding="utf-8"))
        texts = (said["name"], said["description"], (folder / README).read_text(encoding="utf-8"))
        if not all(MARK in text for text in texts):
            raise MonaiCaeError(f"{run} is not marked as trained on synthetic data: this tool publishes no other")
        given = [] if schema is None else ["--schema", str(schema)]
        if zoo_checks.main([str(folder), *given]):
            raise MonaiCaeError("a check has failed, see above: nothing was written")


def _run(*command: str) -> None:
    if monai_cae(list(command)):
        raise MonaiCaeError(f"monai-cae {command[0]} has failed, see above: nothing was written")


def main(arguments: Sequence[str] | None = None) -> int:
    """Train, package and check."""
    parser = argparse.ArgumentParser(description="A folder for MONAI's model zoo, trained on synthetic data.")
    parser.add_argument("out", type=Path, help="new folder; its name is the bundle's")
    parser.add_argument("--subjects", type=int, default=60, help="synthetic brains (default: 60)")
    parser.add_argument("--max-epochs", type=int, default=30, help="of each stage (default: 30)")
    parser.add_argument("--run", type=Path, help="folder of a finished run on synthetic data, in place of a training")
    parser.add_argument("--schema", type=Path, help="the JSON schema of metadata.json, downloaded")
    options = parser.parse_args(arguments)
    try:
        if options.out.exists() and (not options.out.is_dir() or any(options.out.iterdir())):
            raise MonaiCaeError(f"{options.out} exists and is not an empty folder: choose another")
        with tempfile.TemporaryDirectory() as folder:
            run = options.run or train(Path(folder), options.subjects, options.max_epochs)
            publish(run, options.out, options.schema)
    except MonaiCaeError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    print(f"\n{options.out} is ready for the zoo's folder models/, marked as trained on synthetic data")
    return 0


if __name__ == "__main__":
    sys.exit(main())
