"""A validation metric of all cases of an evaluation together."""

from __future__ import annotations

import torch
from ignite.metrics import EpochMetric
from ignite.metrics.metric import reinit__is_reduced
from monai.utils import evenly_divisible_all_gather


class EpochScore(EpochMetric):
    """Ignite's `EpochMetric` of (outputs, labels), each of shape `(N, 1)` or `(N,)`, without waiting for a GPU."""

    @reinit__is_reduced
    def update(self, output: tuple[torch.Tensor, torch.Tensor]) -> None:
        """Keep the cases of a batch where they are: Ignite would copy them to the CPU, for which a GPU has to wait."""
        outputs, labels = output
        self._predictions.append(outputs.detach().flatten().clone())
        self._targets.append(labels.detach().flatten().clone())

    def compute(self) -> float:
        """The score of the cases of all processes together; their numbers may differ."""
        gathered = [
            evenly_divisible_all_gather(torch.cat(parts), concat=True) for parts in (self._predictions, self._targets)
        ]
        return self.compute_fn(*gathered)
