"""From the scanner to the template: raw T1w scans become the paper's kind of image."""

from monai_cae.prepare.pipeline import Prepared, prepare_scan, write_transform
from monai_cae.prepare.quality import QUALITY, Quality, Verdict
from monai_cae.prepare.raw import RawScan, oriented_affine, read_raw
from monai_cae.prepare.settings import PrepareSettings

__all__ = [
    "QUALITY",
    "PrepareSettings",
    "Prepared",
    "Quality",
    "RawScan",
    "Verdict",
    "oriented_affine",
    "prepare_scan",
    "read_raw",
    "write_transform",
]
