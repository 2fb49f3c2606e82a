"""`monai-cae doctor`: what it tells, what it finds, and what must never show."""

from __future__ import annotations

import importlib.metadata
import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import monai
import nibabel as nib
import numpy as np
import pytest

import monai_cae
from monai_cae.cli import main
from monai_cae.doctor import EXTRAS
from monai_cae.machine import allowed_cores
from monai_cae.privacy import discreetly
from monai_cae.self_test import run_checks
from monai_cae.tracking import without_credentials

pytestmark = pytest.mark.usefixtures("drawn")
USER, HOST, PASSWORD, TOKEN = "quillfeather", "wardseven", "pa55/w?rd", "t0ken-of-mine"
URI = f"postgresql://{USER}:{PASSWORD}@db.example.org/mlflow?sslpassword={TOKEN}"


@pytest.fixture
def private(monkeypatch, tmp_path) -> Path:
    """A user with a name, a home folder and passwords, on a machine with a name; the folder that they are in."""
    home = tmp_path / "people" / USER
    folder = home / f"{USER}s_cohort"
    folder.mkdir(parents=True)
    monkeypatch.chdir(folder)
    names = {"HOME": str(home), "USER": USER, "LOGNAME": USER, "HOSTNAME": HOST, "MLFLOW_TRACKING_URI": URI}
    secret = {"MLFLOW_TRACKING_PASSWORD": PASSWORD, "MLFLOW_TRACKING_TOKEN": TOKEN, "OMP_NUM_THREADS": "3"}
    for name, value in {**names, **secret}.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr("socket.gethostname", lambda: f"{HOST}.example.org")
    return folder


def assert_private(text: str, folder: Path) -> None:
    assert "db.example.org" in text and "~/USERs_cohort" in text
    for word in (USER, HOST, PASSWORD, "pa55", "w?rd", TOKEN, str(folder.parent)):
        assert word.lower() not in text.lower(), word


def test_it_passes_here_and_tells_nothing_of_its_user(private, capfd):
    assert main(["doctor", "--json"]) == 0
    printed = capfd.readouterr().out
    assert_private(printed, private)
    told = json.loads(printed)
    versions = {package["name"]: package["version"] for package in told["packages"]}
    assert told["passed"] is True and told["monai_cae"] == monai_cae.__version__
    assert (versions["torch"], versions["monai"]) == (importlib.metadata.version("torch"), monai.__version__)
    assert told["python"].startswith(sys.version.split()[0]) and told["cores"]["usable"] == allowed_cores()
    assert told["places"][1]["path"] == "~/USERs_cohort"
    assert told["places"][1]["free"] == pytest.approx(shutil.disk_usage(private).free, rel=0.1)
    assert told["tracking"] == "postgresql://db.example.org/mlflow (MLFLOW_TRACKING_URI)"
    assert (told["environment"]["OMP_NUM_THREADS"], told["environment"]["MLFLOW_TRACKING_TOKEN"]) == ("3", "(set)")
    assert len(told["self_test"]) == 6 and not list(private.iterdir())


def test_a_package_that_is_missing_or_broken_is_named_and_the_rest_goes_on(private, capfd, monkeypatch):
    found = importlib.metadata.version

    def version(name: str) -> str:
        if name == "nilearn":
            raise importlib.metadata.PackageNotFoundError(name)
        return "0.1" if name == "pillow" else found(name)

    def broken(name: str) -> object:
        raise OSError(f"{Path.home()}/lib/libsegy.so of {USER} on {HOST}: {PASSWORD}\nno such symbol")

    monkeypatch.setattr("importlib.metadata.version", version)
    monkeypatch.setitem(sys.modules, "nibabel", None)
    load = importlib.import_module
    monkeypatch.setattr("importlib.import_module", lambda name: broken(name) if name == "optuna" else load(name))
    assert main(["doctor"]) == 1
    text = capfd.readouterr().out
    assert_private(text, private)
    assert max(map(len, text.splitlines())) <= 80
    told = " ".join(text.split())
    assert "nilearn missing" in told and re.search(r"\[phantom\] no .*\[search\] no ", told)
    assert "! optuna: can't be imported: OSError: ~/lib/libsegy.so of USER on HOST: *** no such symbol" in told
    assert "! pillow: has another version than asked: pillow>=10" in told
    assert "! nibabel: can't be imported: ModuleNotFoundError" in told
    assert "FAILED image: ModuleNotFoundError" in told and "what to do: reinstall nibabel" in told
    assert "passed figure" in told
    assert told.endswith("self-test FAILED (image); packages to put right: nibabel, pillow")


def test_it_starts_where_nothing_else_does():
    names = ("torch", "monai", "mlflow", "yaml", "tqdm", "filelock", "numpy")
    block = f"import sys; sys.modules.update(dict.fromkeys({names!r}))"
    code = f"{block}\nfrom monai_cae.doctor import main; sys.exit(main([]))"
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    told = " ".join(ended.stdout.split())
    assert ended.returncode == 1 and ended.stderr == ""
    assert "! torch: can't be imported" in told and "! yaml" not in told and "! pyyaml: can't be imported" in told
    assert (
        "passed database" in told and "self-test FAILED (known values, network, network, auto, image, figure)" in told
    )


def no_step(self: object) -> None:
    """Of an optimizer that does nothing."""


SAVE = nib.save


def save_turned(image: nib.Nifti1Image, path: Path) -> None:
    SAVE(nib.Nifti1Image(image.dataobj[::-1], image.affine), path)


@pytest.mark.parametrize(
    ("what", "instead", "failed", "problem"),
    [
        ("monai_cae.evaluation.psnr", lambda *images: np.array([20.1]), "known values", "errors of 0.1 is 20.1"),
        ("torch.optim.Adam.step", no_step, "network", "in 30 steps; it should have fallen"),
        ("torch.Tensor.isfinite", lambda tensor: tensor != tensor, "network", "a gradient is not finite"),
        ("nibabel.save", save_turned, "image", "slice 5 of a volume is not what was written"),
        ("matplotlib.figure.Figure.savefig", lambda figure, path: path.touch(), "figure", "not a PNG file"),
    ],
)  # fmt: skip
def test_what_computes_wrongly_is_found(monkeypatch, what, instead, failed, problem):
    monkeypatch.setattr(what, instead)
    checks = {check.name: check for check in run_checks("cpu", "float32")}
    assert problem in checks[failed].problem and checks[failed].advice and not checks[failed].passed
    assert all(check.passed for name, check in checks.items() if not name.startswith(failed))


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (f"/scratch/{USER.upper()}/x", "/scratch/USER/x"),
        ("/home/someone_else/x and C:\\Users\\Other\\x", "/home/USER/x and C:\\Users\\USER\\x"),
        (f"{HOST}:8786", "HOST:8786"),
        ("http:/me:p@host/x", "http:/host/x"),
        ("get https://a:b@c.org/d?key=e 'ftp://u:v@w' now", "get https://c.org/d 'ftp://w' now"),
        ("sqlite:////data/mlruns.db", "sqlite:////data/mlruns.db"),
        ("GPU-1f2e3d4c-0000-1111-2222-333344445555", "GPU-..."),
        ("0,1", "0,1"),
    ],
)
def test_what_is_cut_out_of_a_text(private, text, expected):
    assert discreetly()(text) == expected


def test_a_short_name_is_looked_for_as_a_word(monkeypatch, private):
    monkeypatch.setenv("USER", "al")
    assert discreetly()("/data/al/external") == "/data/USER/external"


@pytest.mark.parametrize(
    ("address", "shown"),
    [
        (URI, "postgresql://db.example.org/mlflow"),
        ("https://me:pw@host:5000/path?token=1#2", "https://host:5000/path"),
        ("sqlite:////data/me@work/mlruns.db", "sqlite:////data/me@work/mlruns.db"),
        ("databricks", "databricks"),
    ],
)
def test_a_password_against_the_rules_of_addresses_is_cut_too(address, shown):
    assert without_credentials(address) == shown


def test_every_extra_is_told():
    project = (Path(monai_cae.__file__).parents[1] / "pyproject.toml").read_text()
    extras = project.partition("[project.optional-dependencies]")[2].partition("[project.scripts]")[0]
    assert set(EXTRAS) == set(re.findall(r"^(\w+) = \[", extras, re.MULTILINE)) - {"dev", "docs"}
