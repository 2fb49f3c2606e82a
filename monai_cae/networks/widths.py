"""Check numbers from a setting: channels, neurons, weights of a loss."""

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


def check_weight(name: str, weight: Any, example: float) -> None:
    """Refuse anything but a finite number from 0.

    Args:
        name: of the setting.
        weight: as given.
        example: of what it should be.

    Raises:
        MonaiCaeError: it is something else.
    """
    if isinstance(weight, bool) or not isinstance(weight, (int, float)) or not 0 <= weight < float("inf"):
        raise MonaiCaeError(f"{name} must be a number from 0, such as {example:g}, not {weight!r}")
