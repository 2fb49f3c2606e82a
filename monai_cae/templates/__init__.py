"""Pages and cards as Jinja2 templates: words here, facts from whoever renders them."""

from __future__ import annotations

from functools import cache
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined, select_autoescape

from monai_cae.templates.markdown import in_html


def render(name: str, **facts: Any) -> str:
    """A template of this folder with the facts of a run; what they say is text and never a template.

    Args:
        name: of the file; in .html all facts are escaped, and `|from_markdown` is `in_html`; in Markdown `|cell` keeps
            one within its cell.
        facts: by the names that the template uses.
    """
    return _environment().get_template(name).render(facts)


@cache
def _environment() -> Environment:
    """One, because it keeps the templates that it has compiled."""
    environment = Environment(
        loader=PackageLoader("monai_cae", "templates"),
        autoescape=select_autoescape(["html"]),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.filters["cell"] = lambda value: str(value).replace("|", "/")
    environment.filters["from_markdown"] = in_html
    return environment
