"""Our own Markdown as HTML, so that words and tables of a page are written once."""

from __future__ import annotations

import html
import re
from itertools import groupby

from markupsafe import Markup

_RULE = re.compile(r"\|(?:-+\|)+")
_NUMBERS = re.compile(r"[-+<]?[\d.,]+(?: ?%| dB)?(?: \[.*\]| to [-+]?[\d.]+)?|-|- to -|undefined")


def in_html(text: str) -> Markup:
    """Headings, tables, bulleted lists and paragraphs of one line each, with bold words and code; all else is text.

    Args:
        text: as the templates in Markdown make it.
    """
    lines = [line for line in text.splitlines() if line.strip() and not _RULE.fullmatch(line.strip())]
    parts = []
    for kind, members in groupby(lines, key=_kind):
        block = list(members)
        if kind == "table":
            parts.append(_table([re.split(r"(?<!\\) ?\|", row.strip().strip("|")) for row in block]))
        elif kind == "list":
            parts.append("<ul>" + "".join(f"<li>{_inline(line[2:])}</li>" for line in block) + "</ul>")
        elif kind == "heading":
            parts += [f"<h3>{_inline(line.lstrip('# '))}</h3>" for line in block]
        else:
            parts += [f"<p>{_inline(line)}</p>" for line in block]
    return Markup("\n".join(parts))


def _kind(line: str) -> str:
    beginnings = {"|": "table", "- ": "list", "#": "heading"}
    return next((kind for start, kind in beginnings.items() if line.startswith(start)), "text")


def _table(rows: list[list[str]]) -> str:
    """The first row is the head; a column of numbers is set to the right."""
    cells = [[cell.strip() for cell in row] for row in rows]
    head, body = cells[0], cells[1:]
    right = [
        bool(body) and column > 0 and all(_NUMBERS.fullmatch(row[column]) for row in body if column < len(row))
        for column in range(len(head))
    ]
    style = [" class=number" if one else "" for one in right]
    made = [
        "<thead><tr>",
        *(f"<th scope=col{look}>{_inline(cell)}</th>" for cell, look in zip(head, style, strict=True)),
    ]
    made.append("</tr></thead><tbody>")
    for first, *others in body:
        looks = zip(others, style[1:], strict=False)
        made += [f"<tr><th scope=row>{_inline(first)}</th>", *(f"<td{look}>{_inline(one)}</td>" for one, look in looks)]
        made.append("</tr>")
    return f"<div class=wide tabindex=0><table>{''.join(made)}</tbody></table></div>"


def _inline(text: str) -> str:
    safe = html.escape(text.strip())
    safe = re.sub(r"\*\*(.+?)\*\*", r"<b>\1</b>", safe)
    return re.sub(r"`([^`]+)`", r"<code>\1</code>", safe)
