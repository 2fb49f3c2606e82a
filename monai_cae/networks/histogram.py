"""The brain's intensities as a few numbers for a linear layer."""

from __future__ import annotations

import torch
from torch import nn

from monai_cae.errors import MonaiCaeError


class IntensityHistogram(nn.Module):
    """Square roots of a histogram of the brain's intensities, relative to the bright pixels of the same image.

    Grey and white matter differ in brightness. A mean over the slice loses how much they differ and how much there is
    of each. Pixels above `background` belong to the brain; their 97th percentile (white matter) becomes 1, so a darker
    scan has the same histogram. Each pixel is divided between the two nearest bin centres, evenly spaced from 0 to 1.
    Nothing is learned, and no other scan matters.

    Args:
        bins: numbers in the output.
        background: pixels up to this intensity are not brain.
        bright: share of the brain's pixels that are darker than the one scaled to 1.

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
            Shape `(N, bins)`; the squares of a row add up to 1, or to 0 if no pixel is brain.
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
