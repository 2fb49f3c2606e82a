"""Seam "extraction": what of a volume the network sees. Here two slices as the channels of one image."""

from __future__ import annotations

from dataclasses import dataclass

from monai_cae.data import Extraction


@dataclass(frozen=True)
class TwoSlices(Extraction):
    plane: str = "axial"
    slice_index: int = 106
    apart: int = 4
    axes: str = "anatomical"
    channels = 2

    @property
    def name(self) -> str:
        return f"{self.plane} slices {self.slice_index - self.apart} and {self.slice_index}"

    def indices(self, count: int) -> list[int]:
        return [self.slice_index - self.apart, self.slice_index]
