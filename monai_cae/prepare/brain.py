"""The brain in a whole head, by deepbet's network (Fisch et al. 2024, Computers in Biology and Medicine 179:108845).

Only the two weight files of deepbet's wheel are used: the package itself would bring a window toolkit and a folder
`data` on Python's path. They are TorchScript, which is code, so that they are read only if their SHA-256 is known.
"""

from __future__ import annotations

import hashlib
import importlib.util
import os
import sys
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from contextvars import ContextVar
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from monai_cae.errors import MonaiCaeError

VERSION = "1.0.2"
FOLDER = Path(sys.prefix, "share", "monai-cae", "deepbet")  # where `pip --target` unpacks the wheel
VARIABLE = "MONAI_CAE_DEEPBET"
_INSTALL = f"pip install --no-deps --target {FOLDER} deepbet=={VERSION}"
_SHA256 = {
    "bbox_model.pt": "39a7b2b5f799faa1391ea97bfcdc0b9299f20d84f2316a4ff8918dc4685e40aa",
    "model.pt": "de8ee7c69654d0dd3935dc4a5d84571d8ecf4637a6bfc01df399c4c2bc86e0fd",
}
_SMALL, _LARGE = (128, 128, 128), (256, 256, 256)  # voxels that the two networks see
_MARGIN = 0.1  # of the brain's extent, around it
_LEAST_SHARE = 0.02  # of a plane: less is not the brain's extent
_Box = tuple[slice, slice, slice]
# What the network waits for: of several processes one at a time, as it takes most of a scan's memory.
gate: ContextVar[AbstractContextManager[Any]] = ContextVar("gate", default=nullcontext())  # noqa: B039


def find_brain(voxels: NDArray[np.float32], name: str) -> NDArray[np.bool_]:
    """The brain with its ventricles and sulci: one connected part without holes.

    Takes 5 s on one core and 1.2 GB, whatever the size of the volume.

    Args:
        voxels: the head, axes RAS+.
        name: of the scan, for messages.

    Raises:
        MonaiCaeError: deepbet's weights are not on this machine or are not the known ones; no brain in the volume.
    """
    import torch
    from torch.nn.functional import interpolate

    coarse_network, network = _SHA256

    def resized(volume: Any, shape: tuple[int, ...], mode: str) -> Any:
        return interpolate(volume[None, None], shape, mode=mode)[0, 0]

    with gate.get(), one_thread(), torch.inference_mode():
        head = torch.from_numpy(np.ascontiguousarray(voxels))
        small = resized(head, _SMALL, "nearest-exact")
        low, high = float(small.quantile(0.005)), float(small.quantile(0.995))
        if not high > low:
            raise MonaiCaeError(f"{name} has no contrast: it is not a scan of a head")
        coarse = _load(coarse_network)(_normalised(small, low, high)[None, None])[0, 1].numpy() > 0.5
        box = _box_around(largest_part(coarse), voxels.shape)
        if box is None:
            raise MonaiCaeError(f"no brain was found in {name}: give a whole-head T1w scan, or a mask with --mask")
        part = resized(head[box], _LARGE, "nearest-exact")
        inside = _load(network)(_normalised(part, low, high)[None, None])[0, 1]
        inside = resized(inside, tuple(axis.stop - axis.start for axis in box), "trilinear")
    mask = np.zeros(voxels.shape, dtype=bool)
    mask[box] = ndimage.binary_fill_holes(largest_part(inside.numpy() > 0.5))
    if not mask.any():
        raise MonaiCaeError(f"no brain was found in {name}: give a whole-head T1w scan, or a mask with --mask")
    return mask


def largest_part(mask: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """The largest connected part; empty where the mask is."""
    labels, count = ndimage.label(mask)
    if count < 2:
        return mask
    return np.asarray(labels == np.bincount(labels.ravel())[1:].argmax() + 1)


@contextmanager
def one_thread() -> Iterator[None]:
    """Let PyTorch compute in one thread, so that sums have the same order on every machine."""
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def weights_folder() -> Path | None:
    """Where deepbet's two weight files are: $MONAI_CAE_DEEPBET, an installed deepbet, or `FOLDER`; None if nowhere."""
    spec = importlib.util.find_spec("deepbet")
    installed = [Path(spec.origin).parents[1]] if spec and spec.origin else []
    for root in [Path(os.environ[VARIABLE])] if os.environ.get(VARIABLE) else [*installed, FOLDER]:
        folder = root / "data" / "models"
        if all((folder / file).is_file() for file in _SHA256):
            return folder
    return None


def require_weights() -> Path:
    """`weights_folder`, where it is.

    Raises:
        MonaiCaeError: it is nowhere; says how to install the weights.
    """
    folder, named = weights_folder(), os.environ.get(VARIABLE)
    if folder is None:
        missing = f"{VARIABLE} names {named}, where they are not" if named else "they are not installed"
        raise MonaiCaeError(
            f"finding the brain needs the weights of deepbet {VERSION}, but {missing}: {_INSTALL}; or give a --mask"
        )
    return folder


def _load(file: str) -> Any:
    import torch

    path = require_weights() / file
    content = path.read_bytes()
    if hashlib.sha256(content).hexdigest() != _SHA256[file]:
        raise MonaiCaeError(f"{path} is not the file of deepbet {VERSION}: {_INSTALL}")
    return torch.jit.load(BytesIO(content), map_location="cpu").eval()


def _normalised(volume: Any, low: float, high: float) -> Any:
    """As the networks were trained: mean 0.449 and deviation 0.226, those of ImageNet's green."""
    clipped = ((volume - low) / (high - low)).clamp(0, 1)
    return 0.226 * (clipped - clipped.mean()) / clipped.std().clamp(min=1e-6) + 0.449


def _box_around(mask: NDArray[np.bool_], shape: tuple[int, ...]) -> _Box | None:
    """The brain's extent and a margin, on a grid of that shape; None where nothing is large enough."""
    box = []
    for axis, size in enumerate(shape):
        others = tuple(other for other in range(3) if other != axis)
        found = np.flatnonzero(mask.mean(axis=others) > _LEAST_SHARE)
        if not found.size:
            return None
        scale = size / mask.shape[axis]
        middle, extent = scale * (found[0] + found[-1] + 1) / 2, scale * (found[-1] + 1 - found[0]) * (1 + 2 * _MARGIN)
        box.append(slice(max(0, int(middle - extent / 2)), min(size, int(middle + extent / 2) + 1)))
    return box[0], box[1], box[2]
