"""How bright the brain is, in a few numbers that a linear layer can weigh."""

from __future__ import annotations

import torch
from torch import nn

from monai_cae.errors import MonaiCaeError


class IntensityHistogram(nn.Module):
    """Square roots of a histogram of the brain's intensities, relative to the bright ones of the same slice.

    Grey and white matter differ in brightness; by how much, and how much there is of either, is lost in a mean over the
    slice. Pixels above `background` are the brain's; their 97th percentile (white matter) becomes 1, so that a scan
    that is darker as a whole has the same histogram. Each pixel is shared out between the two nearest of the bins'
    centres, which lie evenly from 0 to 1. Nothing is learnt, and nobody else's scan matters.

    Args:
        bins: how many numbers come out.
        background: pixels up to this intensity are not the brain's.
        bright: share of the brain's pixels that are darker than what becomes 1.

    Raises:
        MonaiCaeError: fewer than 2 bins.
    """

    def __init__(self, bins: int = 16, background: float = 0.02, bright: float = 0.97) -> None:
        super().__init__()
        if isinstance(bins, bool) or not isinstance(bins, int) or bins < 2:
            raise MonaiCaeError(f"histogram must be a whole number of bins from 2, or 0 for none, not {bins!r}")
        self.bins = bins
        self.background = background
        self.bright = bright

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        """
        Args:
            image: shape `(N, C, H, W[, D])`, values in [0, 1]; the first channel counts.

        Returns:
            Shape `(N, bins)`; the squares of a row add up to 1, or to 0 where no pixel is the brain's.
        """
        pixels = image[:, 0].flatten(1).float()
        brain = (pixels > self.background).to(pixels.dtype)
        count = brain.sum(dim=1, keepdim=True).clamp(min=1)
        descending = torch.sort(pixels, dim=1, descending=True)[0]  # the brain's come first
        place = (1 - self.bright) * (count - 1)
        first = place.floor()
        last = torch.minimum(first + 1, count - 1)
        brighter = descending.gather(1, first.long())
        white = brighter + (place - first) * (descending.gather(1, last.long()) - brighter)
        position = (pixels / white.clamp(min=1e-6)).clamp(0, 1) * (self.bins - 1)
        shares = []
        for bin in range(self.bins):
            shares.append(((1 - (position - bin).abs()).clamp(min=0) * brain).sum(dim=1, keepdim=True))
        return (torch.cat(shares, dim=1) / count).sqrt()
