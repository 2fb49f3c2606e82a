"""Arrows between the layers point one way, and importing the package is cheap."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import monai_cae

PACKAGE = Path(monai_cae.__file__).parent
BASE = {"errors", "files"}
ALLOWED = {
    "errors": set(),
    "files": {"errors"},
    "folders": BASE,
    "data": BASE,
    "networks": BASE,
    "evaluation": BASE,
    "delivery": BASE,
    "training": BASE | {"networks", "evaluation", "delivery"},
    "experiment": BASE | {"training", "evaluation", "data", "delivery"},
    "sharing": BASE | {"folders", "networks", "training", "evaluation", "data"},
    "cli": BASE | {"data", "delivery", "evaluation", "networks", "experiment", "sharing", "folders"},
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


def test_help_and_import_need_no_torch():
    code = "import sys, monai_cae, monai_cae.cli\ntry: monai_cae.cli.main(['--help'])\nexcept SystemExit: pass\n"
    code += "assert not {'torch', 'monai', 'mlflow'} & sys.modules.keys()"
    subprocess.run([sys.executable, "-c", code], check=True, capture_output=True)
