"""Batches of a data set that is in memory: on the device, or on the host if it is large."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from typing import Any

import torch
from monai.data import CacheDataset
from torch.utils.data import DataLoader, Dataset, DistributedSampler, Sampler

from monai_cae.errors import MonaiCaeError
from monai_cae.training.engines.disk_rows import DiskRows, read_ahead, take
from monai_cae.training.engines.feature_cache import EncodedDataset
from monai_cae.training.engines.image_cache import ImageCache, refuse_random
from monai_cae.training.engines.memory import resident_limit, return_freed_memory
from monai_cae.training.engines.packing import Packed, unpack
from monai_cae.training.engines.streaming import Cuda, stream_batches

Batch = dict[str, Any]
_STEPS = "steps of image"  # no item's key: what `unpack` takes beside the image


class ResidentLoader(DataLoader):
    """A DataLoader whose data set is collated once and stays in memory: batch for batch what DataLoader gives.

    One slice per subject is small (124 kB in float32), and a step on a GPU is short: collating and copying every batch
    anew would take longer than the step. So the data stay on the device, an epoch's order is sent there once, and no
    batch waits for anything. What is too large for that stays on the host, and is copied while the device computes.
    Images of an `ImageCache` stay as they are packed, and those on its disk are read while the device computes.
    The order comes from DataLoader's own samplers, or from the one given.

    Args:
        dataset: items are dictionaries; read once, when the first batch is asked for.
        batch_size: images per batch; the last may be smaller. With a `DistributedSampler` those of all processes
            together, of which each gets an equal share.
        shuffle: draw a new order in every epoch; a sampler that is given decides that itself.
        device: where the batches lie.
        augmentation: called with every batch, on the device; its result is what the engine sees.
        sampler: as for `torch.utils.data.DataLoader`.
        resident_bytes: the most that stays on a GPU; None for `resident_limit`.
        generator, drop_last: as for `torch.utils.data.DataLoader`.

    Attributes:
        order: of the running epoch, the positions in the data set that each batch is made of.

    Raises:
        MonaiCaeError: the data set's transforms are random; they would be drawn once and then stay. Or a batch that
            does not divide among the processes, or a size below 0.
    """

    def __init__(
        self,
        dataset: Dataset,
        batch_size: int = 1,
        shuffle: bool = False,
        device: str | torch.device = "cpu",
        augmentation: Callable[[Batch], Batch] | None = None,
        sampler: Sampler[int] | None = None,
        resident_bytes: int | None = None,
        **kwargs: Any,
    ) -> None:
        if isinstance(sampler, DistributedSampler):
            if batch_size % sampler.num_replicas:
                raise MonaiCaeError(f"batch_size {batch_size} does not divide among {sampler.num_replicas} processes")
            batch_size //= sampler.num_replicas
        super().__init__(dataset, batch_size, shuffle=shuffle and sampler is None, sampler=sampler, **kwargs)
        refuse_random(getattr(dataset, "transform", None))
        self.device = torch.device(device)
        self.augmentation = augmentation
        self.order: list[list[int]] = []
        self.limit = resident_limit(self.device, resident_bytes)
        self._tensors: dict[str, torch.Tensor | DiskRows] = {}
        self._lists: dict[str, list[Any]] = {}

    def __iter__(self) -> Iterator[Batch]:  # type: ignore[override]  # engines only iterate
        if not self._tensors and not self._lists:
            self._collate()
        torch.empty((), dtype=torch.int64).random_(generator=self.generator)  # the seed of DataLoader's workers
        self.order = list(self.batch_sampler or ())  # all of it now: what is drawn at its end must not wait
        with contextlib.closing(self._batches()) as batches:
            for indices, tensors in zip(self.order, batches, strict=True):
                batch = tensors | {key: [values[i] for i in indices] for key, values in self._lists.items()}
                yield batch if self.augmentation is None else self.augmentation(batch)

    def _batches(self) -> Generator[dict[str, torch.Tensor], None, None]:
        if self.device.type == "cuda" and any(value.device.type == "cpu" for value in self._tensors.values()):
            yield from map(_unpacked, stream_batches(self._tensors, self.order, Cuda(self.device)))
            return
        where = torch.tensor([index for indices in self.order for index in indices], dtype=torch.int64)
        if self.device.type == "cuda":
            where = where.pin_memory().to(self.device, non_blocking=True)
        parts = where.split([len(indices) for indices in self.order])
        if any(isinstance(value, DiskRows) for value in self._tensors.values()):
            yield from read_ahead(self._batch, parts)
        else:
            yield from map(self._batch, parts)

    def _batch(self, where: torch.Tensor) -> dict[str, torch.Tensor]:
        return _unpacked({key: take(value, where) for key, value in self._tensors.items()})

    def _collate(self) -> None:
        """A batch at a time into tensors that are made for all; items that the data set keeps become parts of these.
        So the data are in memory once."""
        if isinstance(self.dataset, ImageCache):
            self._adopt(self.dataset)
            return
        count, device = len(self.dataset), self.device  # type: ignore[arg-type]  # map-style datasets have a length
        keeps = isinstance(self.dataset, (CacheDataset, EncodedDataset))
        for start in range(0, count, self.batch_size or 1):
            items = [self.dataset[number] for number in range(start, min(start + (self.batch_size or 1), count))]
            tensors, lists = self._collated(items)
            if not start:
                size = sum(value[:1].nbytes for value in tensors.values()) * count
                device = torch.device("cpu") if size > self.limit else device
                kept = {
                    key: torch.empty((count, *value.shape[1:]), dtype=value.dtype, device=device)
                    for key, value in tensors.items()
                }
                self._tensors, self._lists = {**kept}, {key: [] for key in lists}
            for key, value in tensors.items():
                kept[key][start : start + len(items)].copy_(value)
                if keeps:
                    _share(kept[key][start:], [item[key] for item in items])
            for key, values in self._lists.items():
                values.extend(lists[key])
            if keeps:
                return_freed_memory()

    def _adopt(self, images: ImageCache) -> None:
        """The images where they are, or on the device, if they fit there."""
        rows = images.rows
        others, lists = self._collated(images.rest)
        resident = rows.nbytes + sum(value.nbytes for value in others.values()) <= self.limit
        device = self.device if resident else torch.device("cpu")
        if device.type != "cpu":
            moved = torch.empty(rows.shape, dtype=rows.dtype, device=device)
            for part in torch.arange(len(rows)).split(self.batch_size or 1):
                moved[part[0] : part[-1] + 1].copy_(take(rows, part))
            rows = moved
        tensors = {key: value.to(device) for key, value in {_STEPS: images.steps, **others}.items()}
        self._tensors, self._lists = {"image": rows, **tensors}, lists

    def _collated(self, items: Sequence[Any]) -> tuple[dict[str, torch.Tensor], dict[str, list[Any]]]:
        """What of items becomes tensors, and what lists."""
        part: Mapping[str, Any] = self.collate_fn(list(items)) if len(items) and items[0] else {}
        # plain ones: copying a batch of MONAI's MetaTensors would take every item's metadata apart
        tensors = {
            key: value.as_subclass(torch.Tensor) for key, value in part.items() if isinstance(value, torch.Tensor)
        }
        return tensors, {key: list(values) for key, values in part.items() if key not in tensors}


def _unpacked(batch: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    steps = batch.pop(_STEPS, None)
    return batch if steps is None else {**batch, "image": unpack(Packed(batch["image"], steps))}


def _share(rows: torch.Tensor, values: Sequence[Any]) -> None:
    """Have tensors lie where their copies lie."""
    for row, value in zip(rows, values, strict=False):
        if type(value) is torch.Tensor and (value.shape, value.dtype, value.device) == (
            row.shape,
            row.dtype,
            row.device,
        ):
            value.set_(row)  # type: ignore[call-overload]  # its stub knows no tensor
