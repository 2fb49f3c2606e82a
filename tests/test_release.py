"""What a release says in several places is the same everywhere."""

from __future__ import annotations

import json
import re

import pytest
import yaml
from packaging.requirements import Requirement
from tiny import CONFIGS

from monai_cae import __version__

ROOT = CONFIGS.parents[1]
tomllib = pytest.importorskip("tomllib")


def test_one_version():
    metadata = json.loads((CONFIGS / "metadata.json").read_text(encoding="utf-8"))
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))
    changes = re.findall(r"^## (\S+)", (ROOT / "CHANGELOG.md").read_text(encoding="utf-8"), re.MULTILINE)
    said = (metadata["version"], metadata["required_packages_version"]["monai-cae"], citation["version"], changes[0])
    assert said == (__version__,) * 4


def test_the_oldest_dependencies_that_are_tried_are_the_lower_bounds():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    needed = [Requirement(line) for line in (*project["dependencies"], *project["optional-dependencies"]["phantom"])]
    bounds = {one.name: [bound.version for bound in one.specifier if bound.operator == ">="] for one in needed}
    lines = (ROOT / "constraints-oldest.txt").read_text(encoding="utf-8").splitlines()
    tried = dict(line.split("==") for line in lines if not line.startswith("#"))
    assert tried.keys() == bounds.keys()
    for name, (bound,) in bounds.items():
        assert re.fullmatch(re.escape(bound) + r"(\.0)*", tried[name]), name
