"""Arrows between the layers point one way, and importing the package is cheap."""

from __future__ import annotations

import ast
import importlib
import re
import subprocess
import sys
from collections.abc import Collection
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

import monai_cae

PACKAGE = Path(monai_cae.__file__).parent
BASE = {"errors", "files", "machine", "privacy", "terminal"}
ALLOWED = {
    "errors": set(),
    "files": {"errors"},
    "machine": set(),
    "privacy": set(),
    "terminal": set(),
    "folders": BASE,
    "data": BASE,
    "networks": BASE,
    "evaluation": BASE | {"templates"},
    "templates": set(),
    "tracking": BASE,
    "cluster": BASE,
    "prepare": BASE | {"data", "templates", "cluster"},
    "targets": BASE | {"data", "evaluation"},
    "explanations": BASE | {"networks", "evaluation"},
    "training": BASE | {"networks", "evaluation", "tracking", "folders", "targets"},
    "prediction": BASE | {"data", "networks", "training", "cluster"},
    "experiment": BASE | {"training", "networks", "targets", "evaluation", "data", "tracking", "templates", "cluster"},
    "sharing": BASE | {"folders", "networks", "training", "evaluation", "data", "templates", "cluster"},
    "self_test": BASE | {"data", "networks", "evaluation", "training"},
    "doctor": BASE | {"folders", "tracking", "training", "self_test"},
    "cli": BASE
    | {
        "data",
        "tracking",
        "evaluation",
        "networks",
        "experiment",
        "sharing",
        "folders",
        "prepare",
        "prediction",
        "training",
        "cluster",
        "doctor",
    },
}


def imported_layers(path: Path) -> set[str]:
    names = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom) and node.module:
            names |= {node.module} | {f"{node.module}.{alias.name}" for alias in node.names}
        elif isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
    return {name.split(".")[1] for name in names if name.startswith("monai_cae.")} & ALLOWED.keys()


@pytest.mark.parametrize("layer", ALLOWED)
def test_a_layer_imports_only_what_lies_below_it(layer):
    files = [PACKAGE / f"{layer}.py"] if (PACKAGE / f"{layer}.py").exists() else list((PACKAGE / layer).rglob("*.py"))
    assert files
    for path in files:
        assert imported_layers(path) <= ALLOWED[layer] | {layer}, path


def test_every_module_belongs_to_a_layer():
    assert {path.stem for path in PACKAGE.iterdir() if path.suffix == ".py" or (path / "__init__.py").exists()} == {
        "__init__",
        *ALLOWED,
    }


def imported_modules(path: Path, known: Collection[str]) -> set[str]:
    """Modules of the package that a module imports when it is imported itself, not when a function of it is called."""
    names = set()
    for node in ast.parse(path.read_text(encoding="utf-8")).body:
        if isinstance(node, ast.ImportFrom) and node.module in known:
            whole = {f"{node.module}.{alias.name}" for alias in node.names}
            names |= {name if name in known else node.module for name in whole}
    return names


def test_no_module_imports_itself_in_a_circle():
    files = {".".join(path.relative_to(PACKAGE.parent).with_suffix("").parts): path for path in PACKAGE.rglob("*.py")}
    modules = {name.removesuffix(".__init__"): path for name, path in files.items()}
    graph = {name: imported_modules(path, modules.keys()) for name, path in modules.items()}
    assert graph["monai_cae.data.layouts"] >= {"monai_cae.data.layouts.base"}
    TopologicalSorter(graph).prepare()  # raises CycleError


def test_a_wheel_has_every_folder():
    project = (PACKAGE.parent / "pyproject.toml").read_text(encoding="utf-8")
    named = set(re.findall(r'"(monai_cae[\w.]*)"', project.partition("packages = [")[2].partition("]")[0]))
    folders = {".".join(path.parent.relative_to(PACKAGE.parent).parts) for path in PACKAGE.rglob("__init__.py")}
    assert {name for name in named if not name.startswith("monai_cae.bundle")} == folders


def test_modules_are_short_enough_to_be_read():
    assert {
        path.name: lines for path in PACKAGE.rglob("*.py") if (lines := len(path.read_text().splitlines())) > 400
    } == {}


def test_the_map_of_the_house_names_every_room():
    page = (PACKAGE.parent / "docs" / "explanation" / "architecture.md").read_text(encoding="utf-8")
    rooms = {path.parent.relative_to(PACKAGE).as_posix() for path in PACKAGE.rglob("*.py")} - {"."}
    named = set(re.findall(r"^\| `([\w/]+)` \|", page, re.MULTILINE))
    assert named - {"bundle/configs"} == {room for room in rooms if room not in ("data", "training")}


def imports_torch(code: str) -> bool:
    """Whether a new Python has imported one of the heavy packages after that."""
    code += "\nimport sys; print(bool({'torch', 'monai', 'mlflow'} & sys.modules.keys()))"
    run = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    return run.stdout.splitlines()[-1] != "False"


def test_help_needs_no_torch():
    assert not imports_torch("import monai_cae.cli\ntry: monai_cae.cli.main(['--help'])\nexcept SystemExit: pass")


def test_the_data_offer_what_type_checkers_see():
    import monai_cae.data

    tree = ast.parse((PACKAGE / "data" / "__init__.py").read_text(encoding="utf-8"))
    (seen,) = (node for node in tree.body if isinstance(node, ast.If))
    names = {alias.name: node.module for node in seen.body if isinstance(node, ast.ImportFrom) for alias in node.names}
    assert names.keys() == set(monai_cae.data.__all__)
    for name, module in names.items():
        assert getattr(monai_cae.data, name) is getattr(importlib.import_module(module), name)
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        monai_cae.data.nothing  # noqa: B018


def test_preparing_scans_needs_no_torch_before_a_brain_is_looked_for():
    assert not imports_torch("import monai_cae.prepare.cohort, monai_cae.prepare.warm")


def test_comparing_finished_runs_needs_no_torch(tmp_path):
    rows = ["subject,label,probability", "a,0,0.3", "b,1,0.6", "c,0,0.4", "d,1,0.2"]
    files = [tmp_path / "ours.csv", tmp_path / "theirs.csv"]
    for path in files:
        path.write_text("\n".join(rows))
    command = ["compare", *map(str, files), "--out", str(tmp_path / "out")]
    assert not imports_torch(f"import monai_cae.cli\nassert monai_cae.cli.main({command!r}) == 0")
    assert (tmp_path / "out" / "comparison.png").is_file()
