"""Encoders of which only the largest numbers of the code are kept.

Sources: A. Makhzani and B. Frey, k-sparse autoencoders, arXiv 1312.5663 (2013), for vectors; the same, Winner-take-all
autoencoders, NIPS 2015, for the convolutional form. "-like" here: the layers are those of the given encoder, and the
winners alone make the code in evaluation too, as classifier and decoder have to see what was trained.
"""

from __future__ import annotations

import sys

import torch
from torch import nn

from monai_cae.errors import MonaiCaeError


class SparseEncoder(nn.Module):
    """An encoder's code without its negative numbers, and of the others the `keep` largest.

    In training `start` are kept at first and fewer with every step, so that all units learn before they compete
    (Makhzani and Frey, section 2.3). Evaluation keeps the final number from the beginning; or else the least sparse
    epoch would look best.

    Args:
        network: makes the code; has `out_channels` and `downsampling`, and perhaps `samples`, as `EachSample`.
        keep: numbers that remain, of each place's channels or of each channel's places.
        spatial: false keeps the `keep` largest channels of every place (k-sparse), true the `keep` largest places of
            every channel (with 1, spatial winner-take-all).
        start: numbers that remain in the first training step, or all where there are fewer; None for all.
        steps: training steps until `keep` is reached, in even steps.
        wider: factor on `keep` in evaluation, rounded; the paper's alpha.

    Attributes:
        out_channels, downsampling, samples: the network's.

    Raises:
        MonaiCaeError: a number that is not possible; in `forward`, more than the code's places.
    """

    def __init__(
        self,
        *,
        network: nn.Module,
        keep: int,
        spatial: bool = False,
        start: int | None = None,
        steps: int = 0,
        wider: float = 1.0,
    ) -> None:
        super().__init__()
        if not isinstance(spatial, bool):
            raise MonaiCaeError(f"spatial must be true or false, not {spatial!r}")
        self.samples = int(getattr(network, "samples", 1))
        self.out_channels, self.downsampling = int(network.out_channels), int(network.downsampling)  # type: ignore[arg-type]
        start = sys.maxsize if start is None else start
        for name, value, least in (("keep", keep, 1), ("start", start, 1), ("steps", steps, 0)):
            if type(value) is not int or value < least:
                raise MonaiCaeError(f"{name} must be a whole number from {least}, not {value!r}")
        if isinstance(wider, bool) or not isinstance(wider, (int, float)) or not 1 <= wider < float("inf"):
            raise MonaiCaeError(f"wider must be a factor from 1, not {wider!r}")
        if start < keep:
            raise MonaiCaeError(f"start {start} is below keep {keep}: training begins with more numbers, not fewer")
        self.keep, self.start, self.tested = keep, start if steps else keep, round(wider * keep)
        self.steps = steps
        self.spatial = spatial
        if not self.spatial:
            self._check(self.out_channels // self.samples)
        self.network = network
        self.steps_done: torch.Tensor
        self.register_buffer("steps_done", torch.zeros((), dtype=torch.int64))

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        """
        Args:
            image: as the network takes it.

        Returns:
            The network's code, its numbers 0 but for the winners; none is negative.
        """
        code = torch.relu(self.network(image))
        dim = 2 if self.spatial else 1
        # each sample's channels compete among themselves
        units = code.flatten(2) if self.spatial else code.unflatten(1, [self.samples, -1]).flatten(0, 1)
        if not torch.jit.is_scripting():  # by itself: TorchScript then leaves out what it can't compile
            if self.spatial:
                self._check(units.shape[2])
            if self.training:
                return self._annealed(units, dim).reshape(code.shape)
        winners, where = units.topk(self.tested, dim=dim)
        return torch.zeros_like(units).scatter(dim, where, winners).reshape(code.shape)

    def _annealed(self, units: torch.Tensor, dim: int) -> torch.Tensor:
        most = min(self.start, units.shape[dim])
        winners, where = units.topk(most, dim=dim)  # the largest first
        remain = (torch.arange(most, device=units.device) < self.now(most)).to(winners.dtype)
        winners = winners * (remain if self.spatial else remain.reshape([-1] + [1] * (units.ndim - 2)))
        self.steps_done.add_(1)
        return torch.zeros_like(units).scatter(dim, where, winners)

    def now(self, most: int) -> torch.Tensor:
        """Numbers that remain in the next training step, from `most` to `keep`; a tensor, so that no GPU waits."""
        share = (self.steps_done / max(self.steps, 1)).clamp(max=1)
        return (most + (self.keep - most) * share).round()

    def _check(self, units: int) -> None:
        for name, value in (("keep", self.keep), ("wider times keep", self.tested)):
            if value > units:
                kind = "places" if self.spatial else "channels"
                raise MonaiCaeError(f"{name} is {value}, and the code has {units} {kind}: make it smaller")
