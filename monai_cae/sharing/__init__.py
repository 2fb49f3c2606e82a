"""Sharing the bundle: exported networks that agree with PyTorch, packages of runs, the encoder for other tasks."""

from monai_cae.sharing.encoders import load_encoder
from monai_cae.sharing.export import export_network
from monai_cae.sharing.package import Package, package_run
from monai_cae.sharing.parity import Parity
from monai_cae.sharing.unpack import check_package, unpack

__all__ = [
    "Package",
    "Parity",
    "check_package",
    "export_network",
    "load_encoder",
    "package_run",
    "unpack",
]
