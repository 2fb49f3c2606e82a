"""The bundle run on a tiny cohort through MONAI's own entry point.

Heavy packages are imported where they are used: the process that hands out the tests needs none of them.
"""

from __future__ import annotations

import os
import re
import shutil
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import cache, partial
from pathlib import Path
from typing import Any

import pytest
from browser import CHROMIUM, problems

os.environ["MLFLOW_DISABLE_TELEMETRY"] = "true"
SLOW = (  # files of half a minute and more begin first, so that no core waits for the other at the end
    "test_resuming", "test_selection", "test_protocol", "test_autoencoder_overlays", "test_bundle", "test_overwriting",
    "test_tracking_away", "test_multi_gpu", "test_votes", "test_cli", "test_external", "test_cli_runs",
)  # fmt: skip

if (worker := re.fullmatch(r"gw(\d+)", os.environ.get("PYTEST_XDIST_WORKER", ""))) and hasattr(os, "sched_setaffinity"):
    # a core per worker: threads of several that wait for each other on the same cores take ten times as long
    cores = sorted(os.sched_getaffinity(0))
    os.sched_setaffinity(0, {cores[int(worker[1]) % len(cores)]})


def pytest_addoption(parser: pytest.Parser) -> None:
    """Where the tests marked `cuda` run; `--on cpu` tries their logic on a machine without a GPU."""
    parser.addoption("--on", default="cuda", metavar="DEVICE", help="device of the tests marked cuda: cuda or cpu")


def pytest_xdist_auto_num_workers(config: pytest.Config) -> int:
    """One more than cores: some tests wait for other processes most of the time."""
    return len(os.sched_getaffinity(0) if hasattr(os, "sched_getaffinity") else range(os.cpu_count() or 1)) + 1


def pytest_configure(config: pytest.Config) -> None:
    """xdist would hand out files by their number of tests, and not in the order below."""
    config.option.loadscopereorder = False


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """What a fault's mark says goes into the report, from which tools/faults.py makes its table. Tests marked `cuda`
    are skipped where there is no GPU."""
    import torch

    items.sort(key=lambda item: SLOW.index(item.path.stem) if item.path.stem in SLOW else len(SLOW))
    marked = [item for item in items if item.get_closest_marker("cuda")]
    if marked and config.getoption("--on") == "cuda" and not torch.cuda.is_available():
        for item in marked:
            item.add_marker(pytest.mark.skip(reason="no CUDA GPU here: `make gpu` runs it where there is one"))
    for item in items:
        item.user_properties += [("fault", list(mark.args)) for mark in item.iter_markers("fault")]


@pytest.fixture(scope="session", autouse=True)
def quick(tmp_path_factory: pytest.TempPathFactory) -> None:
    """What takes the same time in every run of a bundle takes it once."""
    import patient  # noqa: F401
    from drawing import draw_little
    from filelock import FileLock
    from mlflow import MlflowClient
    from monai.bundle import ComponentLocator

    from monai_cae.data import phantom
    from monai_cae.tracking import store

    draw_little()
    look = cache(ComponentLocator()._find_classes_or_functions)  # through MONAI's hundreds of modules, for each config
    ComponentLocator._find_classes_or_functions = lambda _, names: look(tuple(names))
    whole = cache(partial(phantom._load_anatomy, volumes=True))
    phantom._load_anatomy = lambda volumes=False: whole() if volumes else replace(whole(), medial=None)
    folder = tmp_path_factory.getbasetemp()
    check, empty = store._check, (folder.parent if "PYTEST_XDIST_WORKER" in os.environ else folder) / "empty.db"

    def copied(database: Path) -> None:
        check(database)
        with FileLock(f"{empty}.lock"):
            if not empty.exists():  # MLflow writes all versions of its tables, one after the other
                MlflowClient(f"sqlite:///{empty}")
        if database.parent.is_dir() and not database.exists():
            shutil.copyfile(empty, database)

    store._check = copied


@pytest.fixture
def drawn() -> Iterator[None]:
    """Figures of this test are drawn, and its explanations whole."""
    from drawing import drawing

    with drawing():
        yield


@pytest.fixture(scope="session")
def in_browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[[Path], None]]:
    """Takes the pages of runs that tests have made anyway, and looks at all of them together when the tests are done,
    as Chromium takes seconds to start."""
    pages: dict[str, str] = {}
    yield lambda path: pages.update({f"{path.parent.name}/{path.name}": path.read_text(encoding="utf-8")})
    if CHROMIUM and pages:
        assert problems(pages, tmp_path_factory.mktemp("browser")) == []


@pytest.fixture(scope="session")
def discs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """24 subjects, not to be changed by a test."""
    from tiny import write_discs

    return write_discs(tmp_path_factory.mktemp("oasis discs"))


@pytest.fixture(scope="session")
def tracking_uri(tmp_path_factory: pytest.TempPathFactory) -> str:
    """One database for all tests: making one costs seconds."""
    return f"sqlite:///{tmp_path_factory.mktemp('mlflow')}/mlruns.db"


@pytest.fixture(scope="session")
def run_bundle(tracking_uri: str) -> Callable[..., None]:
    """`python -m monai.bundle run ID --config_file NAME --dataset_dir ... --...`, in this process."""
    import monai.bundle
    from tiny import CONFIGS, TINY, UNTRAINED

    def run(
        config: str | list[str], dataset_dir: Path, output_dir: Path, run_id: str = "training", **options: Any
    ) -> None:
        names = [config] if isinstance(config, str) else config
        files = [str(CONFIGS / name) for name in names]
        tiny = {key: value for key, value in TINY.items() if key != "max_epochs" or names[0] not in UNTRAINED}
        settings = {"dataset_dir": str(dataset_dir), "output_dir": str(output_dir), **tiny, **options}
        if "inference.json" not in names:
            settings.setdefault("tracking_uri", tracking_uri)
        monai.bundle.run(run_id=run_id, config_file=files, **settings)

    return run


@pytest.fixture(autouse=True)
def foreign_folder(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Nothing may depend on the working directory, and nothing may be written there."""
    folder = tmp_path_factory.mktemp("elsewhere")
    monkeypatch.chdir(folder)
    yield
    sys.path[:] = dict.fromkeys(sys.path)  # where MONAI puts the bundle's folder in every run
    assert not any(folder.iterdir())
