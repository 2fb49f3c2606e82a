"""The whole volume, for 3D networks."""

from __future__ import annotations

from monai_cae.data import Extraction


class WholeVolume(Extraction):
    spatial_dims = 3
    name = "the whole volume"
