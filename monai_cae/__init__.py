"""A convolutional autoencoder on single brain MRI slices, and an Alzheimer's classifier on its encoder, for MONAI.

The layers are `monai_cae.data`, `monai_cae.networks`, `monai_cae.training` and `monai_cae.evaluation`; the MONAI bundle
names what they export. `monai_cae.sharing` hands the bundle on; `monai_cae.load_encoder` is its encoder for other
tasks. Research software, not a medical device.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from monai_cae.sharing import load_encoder as load_encoder

__version__ = "1.0.0"
DISCLAIMER = "Research software, not a medical device."
_LAYERS = ("data", "networks", "training", "evaluation", "experiment", "sharing")
_SHARED = ("load_encoder",)


def __getattr__(name: str) -> Any:
    """Import a layer when it, or what it gives to the top, is first named: `import monai_cae` alone costs nothing."""
    if name in _LAYERS:
        return importlib.import_module(f"{__name__}.{name}")
    if name in _SHARED:
        return getattr(importlib.import_module(f"{__name__}.sharing"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
