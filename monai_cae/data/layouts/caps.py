"""Clinica CAPS, registered images: subjects/sub-*/ses-*/t1_linear."""

from __future__ import annotations

from pathlib import Path

from monai_cae.data.layouts.base import Asked, Images, WithTable
from monai_cae.data.layouts.bids import session_images

_IMAGE = "*_space-mni152nlin2009csym{crop}_res-1x1x1_t1w.nii*"


class Caps(WithTable):
    """Clinica's t1-linear pipeline; the table lies elsewhere."""

    name = "Clinica CAPS"

    def detect(self, root: Path) -> bool:
        """Whether there are sessions with t1_linear."""
        return (root / "subjects").is_dir() and any((root / "subjects").glob("sub-*/ses-*/t1_linear"))

    def images(self, root: Path, asked: Asked) -> Images:
        """The image of each session."""
        cropped, whole = (
            session_images(root / "subjects", "t1_linear", _IMAGE.format(crop=crop)) for crop in ("_desc-crop", "")
        )
        # Clinica writes both; the cropped ones are its own default for training
        return Images({name: found[0] for name, found in (cropped or whole).items()})
