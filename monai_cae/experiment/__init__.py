"""The repeated experiment: every stage on every split, simpler models on the same splits, and comparisons.

`protocol` runs, `record` pools the predictions, `results` computes, `report` tells; `load_runs` reads what runs have
predicted, and `compare` compares them. `external` tells how a finished network does on another cohort, `latent` what
its code has to do with a cohort's table, `drift` how unlike the training's its scans are.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from monai_cae.experiment.drift import report_drift as report_drift
    from monai_cae.experiment.external import report_external as report_external
    from monai_cae.experiment.latent import items_of as items_of
    from monai_cae.experiment.latent import report_latent as report_latent
    from monai_cae.experiment.protocol import run_experiment as run_experiment

_HOMES = {
    "items_of": "latent",
    "report_drift": "drift",
    "report_external": "external",
    "report_latent": "latent",
    "run_experiment": "protocol",
}
__all__ = ["items_of", "report_drift", "report_external", "report_latent", "run_experiment"]


def __getattr__(name: str) -> Any:
    """Import its module, and MONAI with it, when asked for: comparing finished runs needs neither."""
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
