"""How much memory there is, and what fits into it."""

from __future__ import annotations

import ctypes
import platform
from collections.abc import Callable, Iterator
from typing import Any

import torch
from monai.bundle import ConfigWorkflow
from monai.engines import SupervisedTrainer, Workflow

from monai_cae.errors import MonaiCaeError
from monai_cae.machine import host_memory
from monai_cae.training.engines.counting import count_step
from monai_cae.training.engines.inferers import PrecisionInferer

_RESIDENT_BYTES = 4 * 2**30
_RESIDENT_SHARE = 8  # of a card; training and validation data, codes and images may all lie there
_FULL = ("out of memory", "DefaultCPUAllocator", "not enough memory", "STATUS_ALLOC_FAILED")
_MORE = {"cpu": 1.5, "cuda": 1.1}  # than is counted: what kernels need inside, and gaps that nothing fits into


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


def is_full(error: BaseException) -> bool:
    """Whether an exception says that there is no memory left, on a GPU or on the host."""
    if isinstance(error, (torch.OutOfMemoryError, MemoryError)):
        return True
    return isinstance(error, RuntimeError) and any(words in str(error) for words in _FULL)


def full_memory(error: BaseException, outermost: BaseException) -> MonaiCaeError:
    """One line for an exception that `is_full`: how full, with which settings, and what would fit.

    Args:
        error: the exception.
        outermost: what has come out of it, whose traceback leads to the engine and its config.
    """
    callers = list(_callers(outermost))
    engine = next((one for one in reversed(callers) if isinstance(one, Workflow)), None)
    workflow = next((one for one in reversed(callers) if isinstance(one, ConfigWorkflow)), None)
    image = _image_of(engine)
    config = {} if workflow is None else workflow.parser.get()
    given = {
        "batch_size": config.get("batch_size") if image is None else len(image),
        "image_size": config.get("image_size") if image is None else _image_size(image),
    }
    settings = " and ".join(f"{name} {value}" for name, value in given.items() if isinstance(value, (int, list)))
    cuda = isinstance(error, torch.OutOfMemoryError) or "CU" in str(error)
    device = torch.device("cpu") if not cuda else _gpu_of(engine)
    free, total = _memory(device)
    whose = "the GPU's memory is full" if cuda else "the memory is full"
    used = f" (used {(total - free) / 2**30:.1f} of {total / 2**30:.1f} GiB)" if total else ""
    reserved = torch.cuda.memory_reserved(device) if cuda and torch.cuda.is_available() else 0
    advice = "use a smaller batch_size or image_size; `monai-cae fit` finds what fits"
    if engine is not None and image is not None and total:
        advice = _advice(engine, image, free + reserved, device) or advice
    return MonaiCaeError(f"{whose}{used}{f' with {settings}' if settings else ''}: {advice}")


def _callers(error: BaseException | None) -> Iterator[Any]:
    """The objects whose methods have led to an exception and to those behind it, the outermost first."""
    while error is not None:
        trace = error.__traceback__
        while trace is not None:
            yield trace.tb_frame.f_locals.get("self")
            trace = trace.tb_next
        error = error.__cause__ or error.__context__


def _image_of(engine: Workflow | None) -> torch.Tensor | None:
    batch = None if engine is None else engine.state.batch
    image = batch.get("image") if isinstance(batch, dict) else None
    return image if isinstance(image, torch.Tensor) and image.ndim > 2 else None


def _image_size(image: torch.Tensor) -> int | list[int]:
    """As the setting has it."""
    sizes = list(image.shape[2:])
    return sizes[0] if len({*sizes}) == 1 else sizes


def _gpu_of(engine: Workflow | None) -> torch.device:
    """The one that is full: the engine's, which need not be the first."""
    device = torch.device("cuda" if engine is None or engine.state.device is None else engine.state.device)
    return device if device.type == "cuda" else torch.device("cuda")


def _memory(device: torch.device) -> tuple[int, int]:
    try:
        return torch.cuda.mem_get_info(device) if device.type == "cuda" else host_memory()
    except (RuntimeError, AssertionError):  # no GPU, or one that tells nothing any more
        return 0, 0


def _advice(engine: Any, image: torch.Tensor, limit: int, device: torch.device) -> str:
    """The largest batch of these images that should fit; nothing where the step can't be counted."""
    kind = device.type
    device = device if torch.cuda.is_available() else torch.device("cpu")
    inferer = PrecisionInferer(getattr(engine.inferer, "precision", "float32"))
    loss, accumulate = None, False
    if isinstance(engine, SupervisedTrainer):
        loss, accumulate = engine.loss_function, engine.accumulation_steps > 1

    def need(size: int) -> int:
        def batch() -> tuple[Any, ...]:
            items = {
                key: torch.zeros(size, *value.shape[1:], dtype=value.dtype)
                for key, value in engine.state.batch.items()
                if isinstance(value, torch.Tensor)
            }
            return filled(engine.prepare_batch(items, device, False))

        counted = count_step(engine.network, inferer, batch, loss, device, accumulate)
        return estimated_bytes(counted, kind)

    try:
        most = largest(lambda size: need(size) <= limit, len(image))
    except Exception:  # a network of the user's own, of which nothing can be told without computing it
        return ""
    most = min(most, len(image) - 1)
    if not most:
        return f"not even batch_size 1 would fit; use an image_size below {_image_size(image)}"
    return f"batch_size {most} would fit, about; or a smaller image_size"


def estimated_bytes(counted: int, device: str) -> int:
    """What a step takes of a kind of device's memory, from what `count_step` gives."""
    return int(counted * _MORE[device])


def filled(prepared: tuple[Any, ...]) -> tuple[Any, ...]:
    """What `prepare_batch` gives, with the arguments that it may leave out: image, label, arguments, keywords."""
    return prepared if len(prepared) == 4 else (*prepared, (), {})


def largest(fits: Callable[[int], bool], start: int) -> int:
    """The largest number that fits, to a thirty-second of it; 0 if not even 1 does. What fits makes what is smaller
    fit, too. Doubles or halves from `start`, then bisects."""
    low, high = 0, start
    while fits(high):
        low, high = high, 2 * high
    while not low and high > 1:
        if fits(high // 2):
            low = high // 2
        else:
            high //= 2
    while high - low > max(1, low // 32):
        middle = (low + high) // 2
        low, high = (middle, high) if fits(middle) else (low, middle)
    return low
