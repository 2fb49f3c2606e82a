"""The output of a frozen encoder, computed once."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import nn
from torch.utils.data import Dataset

from monai_cae.training.engines.kept_codes import KeptCodes
from monai_cae.training.engines.memory import resident_limit


class EncodedDataset(Dataset):
    """The items of a dataset, their images replaced by an encoder's codes, computed when the first is asked for.

    While the encoder is frozen and nothing random precedes it, its output never changes; training on the codes costs
    what the dense layers cost. A code has 1 MB per 176 x 176 slice in float32. The codes stay on the encoder's device,
    or on the host if they are too many for it, as `ResidentLoader` keeps images.

    Args:
        dataset: items with `image` and whatever else.
        encoder: frozen; evaluated in evaluation mode.
        inferer: calls the encoder, as it calls the network in training.
        batch_size: images per call.
        summarise: makes of codes and their images what is kept; None keeps the codes.
        resident_bytes: the most that stays on a GPU; None for `resident_limit`.
        folder: of files with the codes that were made before, see `KeptCodes`; "" for none.
    """

    def __init__(
        self,
        dataset: Dataset,
        encoder: nn.Module,
        inferer: Callable[[torch.Tensor, nn.Module], torch.Tensor],
        batch_size: int = 32,
        summarise: Callable[[torch.Tensor, torch.Tensor], torch.Tensor] | None = None,
        resident_bytes: int | None = None,
        folder: str = "",
    ) -> None:
        self.dataset = dataset
        self.encoder = encoder
        self.inferer = inferer
        self.batch_size = batch_size
        self.summarise = summarise
        self.resident_bytes = resident_bytes
        self.folder = folder
        self._codes: list[torch.Tensor] = []
        self._rest: list[Mapping[str, Any]] = []

    def __len__(self) -> int:
        return len(self.dataset)  # type: ignore[arg-type]  # map-style datasets have a length

    def __getitem__(self, index: int) -> dict[str, Any]:
        """The item with its code, flattened to one dimension, under `image`."""
        if not self._codes:
            self._encode()
        return {**self._rest[index], "image": self._codes[index]}

    def _encode(self) -> None:
        device = next(self.encoder.parameters()).device
        training, limit = self.encoder.training, resident_limit(device, self.resident_bytes)
        self.encoder.eval()
        kept: KeptCodes | None = None
        with torch.no_grad():
            for start in range(0, len(self), self.batch_size):  # a DataLoader would draw from the global generator
                numbers = range(start, min(start + self.batch_size, len(self)))
                items: list[Mapping[str, Any]] = [self.dataset[number] for number in numbers]
                images = torch.stack([torch.as_tensor(item["image"]) for item in items])
                self._rest += [{key: value for key, value in item.items() if key != "image"} for item in items]
                if self.folder:
                    kept = kept or KeptCodes(self.folder, self.encoder, self._summarised, images.shape[1:])
                code = kept.of(images) if kept else self._summarised(images.to(device))
                self._codes += list(code if code[:1].nbytes * len(self) <= limit else code.cpu())
        if kept:
            kept.write()
        self.encoder.train(training)

    def _summarised(self, images: torch.Tensor) -> torch.Tensor:
        code = self.inferer(images, self.encoder)
        return (self.summarise(code, images) if self.summarise else code).flatten(1)
