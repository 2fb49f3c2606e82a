"""Installed from its wheel, away from any checkout, the package has its bundle and runs it."""

from __future__ import annotations

import csv
import os
import re
import shutil
import subprocess
import sys
import sysconfig
import tarfile
import zipfile
from pathlib import Path
from types import SimpleNamespace

import pytest
from tiny import CONFIGS, TINY, random_network

from monai_cae.folders import bundle_files, bundle_folder
from monai_cae.networks import save_weights

ROOT = CONFIGS.parents[1]
# what PYTHONPATH or an editable install would add is what this test must not see
CLEAN = {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}


def call(*command: object, **options: object) -> str:
    done = subprocess.run(
        [str(part) for part in command], env=CLEAN, capture_output=True, text=True, check=False, **options
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def build(kind: str, source: Path, out: Path) -> Path:
    """What `pip install` and `python -m build` do, without downloading setuptools."""
    code = f"import setuptools.build_meta as backend; print('built', backend.build_{kind}({str(out)!r}))"
    return out / re.search(r"^built (.+)$", call(sys.executable, "-c", code, cwd=source), re.MULTILINE)[1]


@pytest.fixture(scope="module")
def wheel(tmp_path_factory) -> Path:
    """Built from the source distribution, which so has all that is needed; weights in the checkout stay there."""
    folder = tmp_path_factory.mktemp("build")
    source = folder / "checkout"
    for name, ignored in (("monai_cae", ["__pycache__"]), ("bundle", ["models", "output"])):
        shutil.copytree(ROOT / name, source / name, ignore=shutil.ignore_patterns(*ignored))
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copyfile(ROOT / name, source / name)
    (source / "bundle" / "models").mkdir()
    (source / "bundle" / "models" / "model.pt").touch()
    with tarfile.open(build("sdist", source, folder)) as archive:
        archive.extractall(folder / "sdist", filter="data")
    return build("wheel", next((folder / "sdist").iterdir()), folder)


@pytest.fixture(scope="module")
def installed(wheel, tmp_path_factory) -> SimpleNamespace:
    """An environment with nothing but the wheel, and the packages that it depends on from this one."""
    folder = tmp_path_factory.mktemp("environment") / "venv"
    call(sys.executable, "-m", "venv", "--without-pip", folder)
    programs = folder / ("Scripts" if os.name == "nt" else "bin")
    python = programs / "python"
    call(sys.executable, "-m", "pip", "--python", python, "install", "--quiet", "--no-index", "--no-deps", wheel)
    site = Path(call(python, "-c", "import sysconfig; print(sysconfig.get_path('purelib'))").strip())
    (site / "dependencies.pth").write_text(sysconfig.get_path("purelib") + "\n")
    return SimpleNamespace(python=python, program=programs / "monai-cae", site=site)


def test_wheel_has_the_bundle_and_nothing_that_was_trained(wheel):
    with zipfile.ZipFile(wheel) as archive:
        names = [name.removeprefix("monai_cae/bundle/") for name in archive.namelist() if "monai_cae/bundle/" in name]
    assert sorted(names) == [path.as_posix() for path in bundle_files()]


def test_a_checkout_uses_the_bundle_beside_the_package():
    assert bundle_folder() == CONFIGS.parent


def test_inference_from_an_installed_package(installed, discs, tmp_path):
    imported = call(installed.python, "-c", "import monai_cae; print(monai_cae.__file__)", cwd=tmp_path)
    assert Path(imported.strip()) == installed.site / "monai_cae" / "__init__.py"
    folder, scan = tmp_path / "bundle", next(discs.rglob("*.hdr"))
    assert f"--config_file {folder}/configs/experiment.yaml" in call(installed.program, "bundle", folder, cwd=tmp_path)
    save_weights(random_network("classifier"), folder / "models" / "model.pt")
    settings = {**TINY, "dataset_dir": scan}
    del settings["max_epochs"]
    options = [text for name, value in settings.items() for text in (f"--{name}", value)]
    config = folder / "configs" / "inference.json"
    call(installed.python, "-W", "ignore", "-m", "monai.bundle", "run", "--config_file", config, *options, cwd=tmp_path)
    with (folder / "output" / "predictions.csv").open() as file:
        (row,) = csv.DictReader(file)
    assert row["file"] == str(scan) and 0 < float(row["probability"]) < 1
