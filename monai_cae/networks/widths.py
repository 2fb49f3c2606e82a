"""Check numbers of channels and neurons from a setting."""

from __future__ import annotations

from typing import Any

from monai_cae.errors import MonaiCaeError


def check_widths(name: str, widths: Any, example: str, fewest: int = 1) -> None:
    """Refuse anything but a list of layer widths.

    Args:
        name: of the setting.
        widths: as given.
        example: of what it should be.
        fewest: layers.

    Raises:
        MonaiCaeError: not a list or tuple, too short, or not of whole numbers above 0.
    """
    whole = isinstance(widths, (list, tuple)) and all(type(width) is int and width > 0 for width in widths)
    if not whole or len(widths) < fewest:
        raise MonaiCaeError(f"{name} must be a list of whole numbers above 0, such as {example}, not {widths!r}")
