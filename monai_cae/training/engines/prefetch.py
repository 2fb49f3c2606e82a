"""Reading scans while the network computes."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import islice
from typing import Any

import torch
from monai.data import DataLoader, Dataset

from monai_cae.errors import MonaiCaeError

_BATCHES_AHEAD = 2


class ReadAheadLoader(DataLoader):
    """MONAI's DataLoader with threads that read the next batches; the same batches in the same order.

    MONAI's ThreadDataLoader ends as if all were read when a scan can't be, and worker processes keep of an error only
    its text. Here it is raised where the batch is asked for. Inflating and reading let other threads run, so a few
    keep up with a network; transforms must not be random, as with CacheDataset's threads.

    Args:
        dataset: map-style.
        num_workers: threads; 0 reads each batch when it is asked for.
        **kwargs: as for `monai.data.DataLoader`, without those of worker processes.

    Raises:
        MonaiCaeError: a number of threads below 0.
    """

    def __init__(self, dataset: Dataset, num_workers: int = 1, **kwargs: Any) -> None:
        if isinstance(num_workers, bool) or not isinstance(num_workers, int) or num_workers < 0:
            raise MonaiCaeError(f"num_workers must be a whole number, 0 or more, not {num_workers!r}")
        super().__init__(dataset, num_workers=0, **kwargs)
        self.threads = num_workers

    def __iter__(self) -> Iterator[Any]:  # type: ignore[override]  # engines only iterate
        if not self.threads:
            yield from super().__iter__()
            return
        # PyTorch's operations on a single slice would otherwise start a team of threads for every reading thread
        pool = ThreadPoolExecutor(self.threads, "reading", initializer=torch.set_num_threads, initargs=(1,))
        try:
            submitted = (pool.map(self.dataset.__getitem__, indices) for indices in self.batch_sampler or ())
            ahead = deque(islice(submitted, _BATCHES_AHEAD))
            while ahead:
                batch = self.collate_fn(list(ahead.popleft()))
                ahead.extend(islice(submitted, 1))
                yield batch
        finally:
            pool.shutdown(cancel_futures=True)
