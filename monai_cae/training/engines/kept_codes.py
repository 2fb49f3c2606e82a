"""What frozen encoders have made of images, in files: other trainings on the same encoder need not compute it again."""

from __future__ import annotations

import zipfile
from collections.abc import Callable
from hashlib import blake2b
from pathlib import Path

import numpy as np
import torch
from filelock import FileLock
from torch import nn

from monai_cae.files import replacing
from monai_cae.training.engines.image_cache import writable

MOST_NUMBERS = 2**16  # of a code that is kept: 256 KB an image, where a whole code has 1 MB a slice
_BYTES = 16  # of a name


class KeptCodes:
    """The codes of images, from a file or from the encoder.

    An image is known by its pixels. The file is named after the encoder's weights and what it makes of a random image
    in the precision at hand, so that a code never comes from another encoder, pooling, histogram or precision. Several
    processes may write: whoever is last adds what is new to what the others have found. A broken file is made anew.

    Args:
        folder: where the file goes.
        encoder: in evaluation mode.
        encode: makes codes of images on the encoder's device, shape `(N, features)`; called without gradients.
        shape: of an image.
    """

    def __init__(
        self,
        folder: str | Path,
        encoder: nn.Module,
        encode: Callable[[torch.Tensor], torch.Tensor],
        shape: torch.Size,
    ) -> None:
        self.encode = encode
        self.device = next(encoder.parameters()).device
        probe = torch.rand((1, *shape), generator=torch.Generator().manual_seed(0))
        made = encode(probe.to(self.device)).cpu()
        name = blake2b(_bytes(made), digest_size=_BYTES)
        for key, weight in encoder.state_dict().items():
            name.update(key.encode() + _bytes(weight))
        self.path = Path(folder, f"{name.hexdigest()}.npz")
        self.kept = made.numel() <= MOST_NUMBERS
        self._codes = self._read() if self.kept else {}
        self._new = False

    def of(self, images: torch.Tensor) -> torch.Tensor:
        """The codes of images.

        Args:
            images: on the host, shape `(N, C, H, W[, D])`.
        """
        if not self.kept:
            return self.encode(images.to(self.device))
        names = [blake2b(_bytes(image), digest_size=_BYTES).digest() for image in images]
        unknown = [number for number, name in enumerate(names) if name not in self._codes]
        if unknown:
            found = self.encode(images[unknown].to(self.device)).cpu()
            self._codes |= {names[number]: code for number, code in zip(unknown, found, strict=True)}
            self._new = True
        return torch.stack([self._codes[name] for name in names]).to(self.device)

    def write(self) -> None:
        """Add what is new to the file.

        Raises:
            MonaiCaeError: it can't be written.
        """
        if not self._new:
            return
        with writable(self.path.parent):
            self.path.parent.mkdir(parents=True, exist_ok=True)
            with FileLock(self.path.with_suffix(".lock")), replacing(self.path) as temporary:
                every = {**self._read(), **self._codes}
                names = np.frombuffer(b"".join(every), dtype=np.uint8).reshape(-1, _BYTES)
                with temporary.open("wb") as file:
                    np.savez(file, names=names, codes=torch.stack([*every.values()]).numpy())
        self._new = False

    def _read(self) -> dict[bytes, torch.Tensor]:
        try:
            with np.load(self.path, allow_pickle=False) as found:  # a zip, which has checksums
                names, codes = found["names"], torch.from_numpy(found["codes"])
            return {name.tobytes(): code for name, code in zip(names, codes, strict=True)}
        except (OSError, ValueError, LookupError, TypeError, EOFError, zipfile.BadZipFile):
            return {}


def _bytes(tensor: torch.Tensor) -> bytes:
    return tensor.detach().cpu().contiguous().numpy().tobytes()
