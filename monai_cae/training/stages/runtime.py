"""Use the machine well: threads, memory, kernels."""

from __future__ import annotations

import ctypes
import os
import platform

import torch
from monai.utils import set_determinism

from monai_cae.errors import MonaiCaeError
from monai_cae.machine import allowed_cores

_M_TRIM_THRESHOLD, _M_MMAP_MAX, _M_ARENA_MAX = -1, -4, -8  # glibc, malloc.h
_USUAL_THREADS = torch.get_num_threads()


def use_machine(*, seed: int = 0, threads: int = 0, deterministic: bool = False) -> None:
    """Seed the random generators, and set what decides the speed; may be repeated, the last call counts.

    Args:
        seed: of Python's, NumPy's and PyTorch's generators.
        threads: of a CPU operation; 0 for as many as PyTorch takes by itself, but no more than a container may use.
        deterministic: only kernels that give the same numbers every time. CPU runs do so anyway; on CUDA the others
            are faster.

    Raises:
        MonaiCaeError: a number of threads below 0, or `deterministic` that is neither true nor false.
    """
    if isinstance(threads, bool) or not isinstance(threads, int) or threads < 0:
        raise MonaiCaeError(f"threads must be a whole number, 1 or more, or 0 for all cores, not {threads!r}")
    if not isinstance(deterministic, bool):
        raise MonaiCaeError(f"deterministic must be true or false, not {deterministic!r}")
    if deterministic:  # cuBLAS reads it when it is first used
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    set_determinism(seed=seed, use_deterministic_algorithms=deterministic)
    torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]  # a debugging aid, slow
    torch.backends.cudnn.deterministic = deterministic
    torch.backends.cudnn.benchmark = not deterministic
    torch.backends.cudnn.allow_tf32 = False  # float32 is float32; PyTorch rounds convolutions to 10 bits otherwise
    torch.set_num_threads(threads or min(_USUAL_THREADS, allowed_cores()))
    keep_freed_memory()


def keep_freed_memory() -> None:
    """Have the C library keep freed memory for the next tensor instead of giving it back to the system.

    Activations are allocated and freed in every step; fresh pages from the system cost a quarter of a step on a CPU.
    All threads share one heap, or what each keeps would add up. Does nothing where the C library is not glibc.
    """
    if platform.libc_ver()[0] == "glibc":
        library = ctypes.CDLL(None)
        library.mallopt(_M_MMAP_MAX, 0)
        library.mallopt(_M_TRIM_THRESHOLD, -1)
        library.mallopt(_M_ARENA_MAX, 1)
