"""The site of the documentation: `make docs`."""

from __future__ import annotations

import hashlib
import os
import re
import sys
from pathlib import Path

from docutils import nodes
from sphinx.application import Sphinx

DOCS = Path(__file__).resolve().parent
sys.path.insert(0, str(DOCS))
os.environ["PATH"] = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"  # tutorials run `monai-cae`

from generated import commands_page, settings_page  # noqa: E402

from monai_cae import DISCLAIMER, __version__  # noqa: E402

_GENERATED = {"reference/settings": settings_page, "reference/commands": commands_page}
_MARK = "<!-- generated -->"


def _source_hash() -> str:
    """Of the package and its configs, so that a tutorial runs again when they have changed."""
    files = sorted([*DOCS.parent.glob("monai_cae/**/*.py"), *DOCS.parent.glob("bundle/configs/*.*")])
    return hashlib.sha256(b"".join(file.read_bytes() for file in files)).hexdigest()[:16]


def _generate(_: Sphinx, page: str, source: list[str]) -> None:
    if page in _GENERATED:
        source[0] = source[0].replace(_MARK, _GENERATED[page]())


def _mend(_: Sphinx, what: str, name: str, __: object, ___: object, lines: list[str]) -> None:
    """What napoleon takes wrongly: numpy's `bool_`, several names in one line, the colon in a property's text."""
    for place, line in enumerate(lines):
        if line.startswith(":vartype"):
            lines[place] = re.sub(r"\bbool_", r"bool\\_", line)  # not a link
        elif found := re.match(r":(ivar|param) ((?:[\w*\\]+, )+[\w*\\]+):", line):
            lines[place] = line.replace(found[2], found[2].replace(", ", ",\u200b"), 1)  # not a type and a name
    kinds = [line for line in lines if line.startswith(":type: ")]
    if what == "property" and kinds:
        lines.remove(kinds[0])
        lines[0] = f"{kinds[0].removeprefix(':type: ')}: {lines[0]}"


def _skip(_: Sphinx, what: str, name: str, member: object, *__: object) -> bool | None:
    """Fields of named tuples, which their class describes."""
    return True if str(member.__doc__).startswith("Alias for field number") else None


def _dash(_: Sphinx, page: nodes.document) -> None:
    """The dash between a parameter and what it is, which Sphinx leaves to `smartquotes`."""
    for text in [*page.findall(nodes.Text)]:
        if text == " -- ":
            text.parent.replace(text, nodes.Text(" – "))


def setup(app: Sphinx) -> None:
    """Called by Sphinx."""
    app.connect("source-read", _generate)
    app.connect("autodoc-process-docstring", _mend, priority=600)  # after napoleon
    app.connect("autodoc-skip-member", _skip)
    app.connect("doctree-read", _dash)
    app.connect("env-get-outdated", lambda *_: [*_GENERATED])


project = "monai-cae"
author = "the authors of monai-cae"
project_copyright = "the authors of monai-cae, Apache-2.0"
version = release = __version__
extensions = ["myst_nb", "sphinx.ext.autodoc", "sphinx.ext.napoleon"]
exclude_patterns = ["_build"]
suppress_warnings = ["misc.highlighting_failure"]  # a cell with `%%writefile` may hold YAML, whose $ is no Python
smartquotes = False  # what is to be typed stays as it is: "--option" is no dash

myst_enable_extensions = ["deflist", "attrs_block", "colon_fence"]
myst_heading_anchors = 4  # [text](page.md#heading), as GitHub has them

nb_execution_mode = "cache"
nb_execution_cache_path = str(DOCS / "_build" / "tutorials" / _source_hash())
nb_execution_in_temp = True
nb_execution_raise_on_error = True
nb_execution_timeout = 600  # seconds for a cell
nb_merge_streams = True

default_role = "literal"  # docstrings have code in single backticks
toc_object_entries_show_parents = "hide"
autodoc_type_aliases = {"ArrayLike": "numpy.typing.ArrayLike"}
napoleon_use_ivar = True
autodoc_member_order = "bysource"
autodoc_preserve_defaults = True
autodoc_typehints = "description"
autodoc_typehints_description_target = "documented_params"
python_maximum_signature_line_length = 90

html_theme = "furo"
html_title = "monai-cae"
html_static_path = ["_static"]
html_css_files = ["site.css"]
html_copy_source = False
html_show_sourcelink = False
html_theme_options = {
    "announcement": DISCLAIMER,
    "source_directory": "docs/",
}
