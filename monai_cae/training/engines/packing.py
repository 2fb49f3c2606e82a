"""Images in fewer bytes, from which each comes back bit for bit: whole numbers, divided by how many there are."""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

CACHES = ("exact", "compact")
_NARROW = ((torch.uint8, 255), (torch.int16, 65535))  # and the most steps between 0 and 1 that they hold
_TRIES = 512  # numbers of steps that the same two values could stand for
_HALF = 32768  # int16 holds 0 to 65535 less this: PyTorch computes little in uint16


class Packed(NamedTuple):
    """An image, or several, behind each other, of one type.

    Attributes:
        codes: uint8 or int16 for whole numbers, or the values themselves.
        steps: what whole numbers are divided by, one for each image; a scalar tensor for a single one.
    """

    codes: torch.Tensor
    steps: torch.Tensor


def pack(image: torch.Tensor, cache: str = "exact") -> Packed:
    """The narrowest form of an image that gives it back.

    A scanner gives whole numbers. Scaled to [0, 1] they are n / steps, where steps is their range; averaged over cubes
    of two voxels a side they are multiples of an eighth, with eight times the steps. If there are no more than 65,535,
    n and steps say all, and n fits into one byte or two. float16 would take as many bytes, and from a half to 1 it
    knows no more than 1,024 values, where a scanner of 12 bits has 2,048.

    Args:
        image: of any shape.
        cache: "exact" leaves what is not made of steps as it is; "compact" rounds it to 1/65535, which is no coarser
            than the finest step that the 16 bits of a scanner's file can have.

    Returns:
        With `compact` the values differ by half such a step at most, else not at all.
    """
    plain = image.detach().as_subclass(torch.Tensor).cpu()
    if plain.dtype == torch.float32 and plain.numel():
        values = plain.numpy()
        steps = _steps(values)
        if not steps and cache == "compact" and values.min() >= 0 and values.max() <= 1:
            steps = _NARROW[-1][1]
        for dtype, most in _NARROW if steps else ():
            if steps <= most:
                whole = np.rint(values.astype(np.float64) * steps).astype(np.int32)
                codes = torch.from_numpy(whole - (_HALF if dtype == torch.int16 else 0)).to(dtype)
                return Packed(codes, torch.tensor(float(steps)))
    return Packed(plain, torch.tensor(1.0))


def unpack(packed: Packed) -> torch.Tensor:
    """The images, on the device of their codes; what was never packed is handed on, not copied."""
    codes, steps = packed
    if not is_packed(codes):
        return codes
    values = codes.to(torch.float32)
    if codes.dtype == torch.int16:
        values += _HALF
    # a tensor on the device: CUDA multiplies by the reciprocal of a number, which is not the same
    return values.div_(steps.reshape(steps.shape + (1,) * (codes.ndim - steps.ndim)))


def is_packed(codes: torch.Tensor) -> bool:
    """Whether they are whole numbers of steps."""
    return codes.dtype in (torch.uint8, torch.int16)


def widest(first: torch.dtype, second: torch.dtype) -> torch.dtype:
    """The type that holds both of two images' codes."""
    types = [dtype for dtype, _ in _NARROW]
    places = [types.index(one) if one in types else len(types) for one in (first, second)]
    return (first, second)[places.index(max(places))]


def repacked(packed: Packed, dtype: torch.dtype) -> torch.Tensor:
    """Codes of an image in a wider type, as `widest` gives it."""
    if packed.codes.dtype == dtype:
        return packed.codes
    return packed.codes.to(dtype) - _HALF if dtype == torch.int16 else unpack(packed).to(dtype)


def _steps(values: NDArray[np.float32]) -> int:
    """The number that all values are whole multiples of a part of, from 0 to 1; 0 where there is none.

    Two neighbouring values tell it, but for their rounding, which is the finer the smaller they are.
    """
    if not (values.min() >= 0 and values.max() <= 1):  # as of NaN
        return 0
    known = np.sort(values, axis=None)
    known = known[np.flatnonzero(np.diff(known, prepend=np.float32(-1)))].astype(np.float64)
    if len(known) > _NARROW[-1][1] + 1:
        return 0
    gaps = np.diff(known)
    if not len(gaps):  # one value: it is the whole if it is 1, and nothing if it is 0
        return int(known[0] in (0, 1))
    rounding = 1.2e-7 * known[1:]  # of both neighbours
    smallest = int(np.argmin(gaps + rounding))
    gap, error = gaps[smallest], rounding[smallest]
    least = max(1, math.ceil(1 / (gap + error) - 1e-3))
    most = min(_NARROW[-1][1], math.floor(1 / (gap - error) + 1e-3)) if gap > error else _NARROW[-1][1]
    exact = known.astype(np.float32)
    for steps in range(least, min(most, least + _TRIES) + 1):
        if np.array_equal((np.rint(known * steps)).astype(np.float32) / np.float32(steps), exact):
            return steps
    return 0
