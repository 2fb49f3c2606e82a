"""What CONTRIBUTING.md and the examples' page promise to those who carry on is there."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PAGE = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")


def test_every_target_of_make_is_told_by_make_help_and_by_the_page():
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    targets = set(re.search(r"^\.PHONY: (.+)$", makefile, re.MULTILINE)[1].split())
    assert targets == set(re.findall(r"^([a-z-]+):(?!=)", makefile, re.MULTILINE))
    assert targets == set(re.findall(r"^make ([\w-]+) ", PAGE, re.MULTILINE))
    assert targets - {"help"} == set(re.findall(r'^\t@echo "make ([\w-]+) ', makefile, re.MULTILINE))


@pytest.mark.parametrize("page", ["CONTRIBUTING.md", "examples/README.md"])
def test_what_a_page_names_is_there(page):
    text = (ROOT / page).read_text(encoding="utf-8")
    tests = (ROOT / "tests" / "test_plugins.py").read_text(encoding="utf-8")
    assert [name for name in re.findall(r"`(test_\w+)`", text) if f"def {name}(" not in tests] == []
    files = re.findall(r"\b((?:examples|tests|monai_cae|bundle)/[\w/.]*\w)", text)
    assert files and [name for name in files if not (ROOT / name).exists()] == []


def test_every_example_is_on_its_page():
    page = (ROOT / "examples" / "README.md").read_text(encoding="utf-8")
    files = {path.name for path in (ROOT / "examples").iterdir() if path.suffix in (".py", ".yaml")}
    assert {name for name in files if name not in page} == set()
