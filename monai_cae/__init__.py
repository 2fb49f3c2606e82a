"""A convolutional autoencoder on single brain MRI slices, and an Alzheimer's classifier on its encoder, for MONAI.

The layers are `monai_cae.data`, `monai_cae.networks`, `monai_cae.training` and `monai_cae.evaluation`; the MONAI bundle
names what they export. Research software, not a medical device.
"""

import importlib
from types import ModuleType

__version__ = "0.1.0"
_LAYERS = ("data", "networks", "training", "evaluation", "experiment")


def __getattr__(name: str) -> ModuleType:
    """Import a layer when it is first named: `import monai_cae` alone costs nothing."""
    if name in _LAYERS:
        return importlib.import_module(f"{__name__}.{name}")
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
