"""Batches of a data set that stays on the device."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

import torch
from monai.transforms import Compose, RandomizableTrait
from torch.utils.data import DataLoader, Dataset, DistributedSampler, Sampler

from monai_cae.errors import MonaiCaeError

Batch = dict[str, Any]


class ResidentLoader(DataLoader):
    """A DataLoader whose data set is collated once and stays on the device: batch for batch what DataLoader gives.

    One slice per subject is small (124 kB in float32), and a step on a GPU is short: collating and copying every batch
    anew would take longer than the step. The order comes from DataLoader's own samplers, or from the one given.

    Args:
        dataset: items are dictionaries; read once, when the first batch is asked for.
        batch_size: images per batch; the last may be smaller. With a `DistributedSampler` those of all processes
            together, of which each gets an equal share.
        shuffle: draw a new order in every epoch; a sampler that is given decides that itself.
        device: where the tensors lie.
        augmentation: called with every batch, on the device; its result is what the engine sees.
        sampler: as for `torch.utils.data.DataLoader`.
        generator, drop_last: as for `torch.utils.data.DataLoader`.

    Attributes:
        order: of the running epoch, the positions in the data set that each batch is made of.

    Raises:
        MonaiCaeError: the data set's transforms are random; they would be drawn once and then stay. Or a batch that
            does not divide among the processes.
    """

    def __init__(
        self,
        dataset: Dataset,
        batch_size: int = 1,
        shuffle: bool = False,
        device: str | torch.device = "cpu",
        augmentation: Callable[[Batch], Batch] | None = None,
        sampler: Sampler[int] | None = None,
        **kwargs: Any,
    ) -> None:
        if isinstance(sampler, DistributedSampler):
            if batch_size % sampler.num_replicas:
                raise MonaiCaeError(f"batch_size {batch_size} does not divide among {sampler.num_replicas} processes")
            batch_size //= sampler.num_replicas
        super().__init__(dataset, batch_size, shuffle=shuffle and sampler is None, sampler=sampler, **kwargs)
        _refuse_random(getattr(dataset, "transform", None))
        self.device = torch.device(device)
        self.augmentation = augmentation
        self.order: list[list[int]] = []
        self._resident: Batch | None = None

    def __iter__(self) -> Iterator[Batch]:  # type: ignore[override]  # engines only iterate
        if self._resident is None:
            self._resident = self._collate()
        torch.empty((), dtype=torch.int64).random_(generator=self.generator)  # the seed of DataLoader's workers
        self.order = list(self.batch_sampler or ())  # all of it now: what is drawn at its end must not wait
        for indices in self.order:
            where = torch.as_tensor(indices, device=self.device)
            batch = {
                key: value.index_select(0, where) if isinstance(value, torch.Tensor) else [value[i] for i in indices]
                for key, value in self._resident.items()
            }
            yield batch if self.augmentation is None else self.augmentation(batch)

    def _collate(self) -> Batch:
        count = len(self.dataset)  # type: ignore[arg-type]  # map-style datasets have a length
        collated: Mapping[str, Any] = self.collate_fn([self.dataset[index] for index in range(count)])
        return {
            key: value.to(self.device) if isinstance(value, torch.Tensor) else value for key, value in collated.items()
        }


def _refuse_random(transform: Any) -> None:
    steps = transform.flatten().transforms if isinstance(transform, Compose) else (transform,)
    for step in steps:
        if isinstance(step, RandomizableTrait):
            raise MonaiCaeError(
                f"{type(step).__name__} is random, and the transforms before training are computed once: "
                "put it in augmentation, which sees every batch"
            )
