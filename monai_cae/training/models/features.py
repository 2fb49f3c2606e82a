"""Features of the baselines: each class takes `n` items of a datalist and gives `(n, features)` numbers.

The images of the items have the shape `(C, H, W[, D])` and values in [0, 1].
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import pandas as pd
import torch
from monai.networks.layers.factories import Pool
from numpy.typing import NDArray
from torch import nn

from monai_cae.errors import MonaiCaeError
from monai_cae.networks import IntensityHistogram, each_sample, load_weights, on_device
from monai_cae.training.engines.inferers import PrecisionInferer

Item: TypeAlias = Mapping[str, Any]
Table: TypeAlias = NDArray[np.float64] | pd.DataFrame
Features: TypeAlias = Callable[[Sequence[Item]], Table]

_SEX = {"F": 0.0, "M": 1.0}


class TableColumns:
    """Columns of the subjects' table as numbers; nan where a subject's value is not given.

    Args:
        columns: names as in the datalist, without regard to case, e.g. "age" (years), "sex" (F 0, M 1), "nWBV"; none
            for a classifier that looks at the labels alone.
    """

    def __init__(self, columns: Sequence[str]) -> None:
        self.columns = list(columns)

    def __call__(self, items: Sequence[Item]) -> pd.DataFrame:
        """Raises: MonaiCaeError: a value that is not a number."""
        rows = [[_table_value(item, column) for column in self.columns] for item in items]
        return pd.DataFrame(rows, columns=self.columns, index=range(len(items)), dtype=np.float64)

    def empty(self, items: Sequence[Item]) -> list[str]:
        """The columns that none of the items has, sorted."""
        found = self(items)
        return sorted(found.columns[found.isna().all()])


class Pixels:
    """The pixels of the image, one feature each.

    Args:
        pool: pixels are averaged in squares or cubes of `pool` a side first; what is left over at the edges is dropped.

    Raises:
        MonaiCaeError: `pool` is not a whole number from 1.
    """

    def __init__(self, pool: int = 1) -> None:
        if isinstance(pool, bool) or not isinstance(pool, int) or pool < 1:
            raise MonaiCaeError(f"pool must be a whole number, 1 or more, not {pool!r}")
        self.pool = pool

    def __call__(self, items: Sequence[Item]) -> NDArray[np.float64]:
        """Raises: MonaiCaeError: images smaller than one square."""
        return torch.cat([self._pooled(_images([item])) for item in items]).numpy()

    def _pooled(self, image: torch.Tensor) -> torch.Tensor:
        size = image.shape[2:]
        if min(size) < self.pool:
            raise MonaiCaeError(f"pool {self.pool} is above the images' size {tuple(size)}: make it smaller")
        return Pool["avg", len(size)](self.pool)(image).flatten(1)


class DarkPixels:
    """The share of dark pixels, background included: what brain shrinkage leaves in a slice scaled to [0, 1].

    Args:
        below: a pixel under this intensity is dark.
    """

    def __init__(self, below: float = 0.3) -> None:
        self.below = below

    def __call__(self, items: Sequence[Item]) -> NDArray[np.float64]:
        """One feature."""
        return np.array([[(np.asarray(item["image"]) < self.below).mean()] for item in items], dtype=np.float64)


class Histograms:
    """The histogram of the brain's intensities, see `monai_cae.networks.IntensityHistogram`.

    Args:
        bins: how many features.
        samples: of an image; each has a histogram of its own.
    """

    def __init__(self, bins: int = 16, samples: int = 1) -> None:
        self.histogram = each_sample(IntensityHistogram(bins), samples)

    def __call__(self, items: Sequence[Item]) -> NDArray[np.float64]:
        """`bins` features of each sample."""
        return torch.cat([self.histogram(_images([item])) for item in items]).double().numpy()


class EncoderCodes:
    """The code of an autoencoder's encoder, which is only evaluated, never trained here.

    Args:
        autoencoder: gets the checkpoint's weights when they are asked for.
        checkpoint: of pretrain.json.
        inferer: calls the encoder.
        device: where it does.
        size: every channel is averaged to `size` places a side (adaptive average pooling).
        batch_size: images per call.
    """

    def __init__(
        self,
        autoencoder: nn.Module,
        checkpoint: str,
        inferer: PrecisionInferer,
        device: str | torch.device = "cpu",
        size: int = 8,
        batch_size: int = 32,
    ) -> None:
        self.autoencoder = autoencoder
        self.checkpoint = Path(checkpoint)
        self.inferer = inferer
        self.device = device
        self.size = size
        self.batch_size = batch_size

    def load(self) -> None:
        """Read the weights.

        Raises:
            MonaiCaeError: no checkpoint, or one of another architecture.
        """
        load_weights(self.autoencoder, self.checkpoint)
        on_device(self.autoencoder, self.device).eval()

    def __call__(self, items: Sequence[Item]) -> NDArray[np.float64]:
        """Channels of the code times `size` to the power of its dimensions."""
        codes = []
        with torch.no_grad():
            for start in range(0, len(items), self.batch_size):
                images = _images(items[start : start + self.batch_size], torch.float32).to(self.device)
                code = self.inferer(images, self.autoencoder.get_submodule("encoder"))
                codes.append(Pool["adaptiveavg", code.ndim - 2](self.size)(code).flatten(1).cpu())
        return torch.cat(codes).double().numpy()


def _images(items: Sequence[Item], dtype: torch.dtype = torch.float64) -> torch.Tensor:
    return torch.stack([torch.as_tensor(item["image"], dtype=dtype) for item in items])


def _table_value(item: Item, column: str) -> float:
    value = {key.lower(): value for key, value in item.items()}.get(column.lower())
    if value in (None, ""):
        return np.nan
    if column.lower() == "sex":
        return _SEX.get(str(value)[:1].upper(), np.nan)
    try:
        return float(value)
    except (TypeError, ValueError) as error:
        raise MonaiCaeError(
            f"{column} of {item['subject']} is {value!r}, not a number: correct the datalist"
        ) from error
