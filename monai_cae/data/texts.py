"""Names and cells of tables and datalists: fit for a path, one line on screen and a UTF-8 file."""

from __future__ import annotations

import unicodedata
from collections.abc import Sequence
from typing import Any

from monai_cae.errors import MonaiCaeError

MAX_NAME = 4096  # characters; of an ID, a column or an image's path, and that is what Linux allows
_UNFIT = ("Cc", "Cs", "Zl", "Zp")  # control characters, halves of a pair, ends of lines and paragraphs


def require_plain(text: str, what: str) -> None:
    """MonaiCaeError where it has line breaks or other control characters, is no valid Unicode, or is too long."""
    if len(text) > MAX_NAME:
        raise MonaiCaeError(f"{what} has {len(text)} characters, the limit is {MAX_NAME}: shorten it")
    if any(unicodedata.category(character) in _UNFIT for character in text):
        raise MonaiCaeError(f"{what} is {shown(text)}, with control characters in it: correct it")


def shown(value: Any, most: int = 60) -> str:
    """A value as an error quotes it: on one line, cut after so many characters."""
    text = ascii(value) if isinstance(value, str) else repr(value)
    return text if len(text) <= most else f"{text[:most]}..."


def listed(names: Sequence[str], most: int) -> str:
    """The first names, and how many more there are."""
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(names[:most]) + more


def one_line(error: BaseException) -> str:
    """The first line of what a library says, no longer than a line is."""
    return (str(error).splitlines() or [type(error).__name__])[0][:300]
