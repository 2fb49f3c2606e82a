"""How much memory there is, and what fits into it."""

from __future__ import annotations

import ctypes
import platform

import torch

from monai_cae.errors import MonaiCaeError

_RESIDENT_BYTES = 4 * 2**30
_RESIDENT_SHARE = 8  # of a card; training and validation data, codes and images may all lie there


def resident_limit(device: torch.device, given: int | None = None) -> float:
    """Bytes of one data set that stay on a device; a larger one stays on the host.

    4 GiB are some 34,000 slices of 176 x 176, which leaves the memory to the batch, and an eighth of a smaller card.

    Args:
        device: a CPU has no limit, as it is the host.
        given: instead.

    Raises:
        MonaiCaeError: below 0.
    """
    if given is not None and (isinstance(given, bool) or not isinstance(given, int) or given < 0):
        raise MonaiCaeError(f"resident_bytes must be a whole number, 0 or more, not {given!r}")
    if device.type != "cuda":
        return float("inf")
    if given is not None:
        return given
    return min(_RESIDENT_BYTES, torch.cuda.get_device_properties(device).total_memory // _RESIDENT_SHARE)


def return_freed_memory() -> None:
    """Give the system back what the C library keeps of freed memory. Does nothing where it is not glibc."""
    if platform.libc_ver()[0] == "glibc":
        ctypes.CDLL(None).malloc_trim(0)
