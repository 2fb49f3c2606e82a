"""The repeated experiment: every stage on every split, simpler models on the same splits, and comparisons.

`protocol` runs, `record` pools the predictions, `results` computes, `report` tells; `load_runs` reads what runs have
predicted, and `compare` compares them. `external` tells how a finished network does on another cohort.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from monai_cae.experiment.external import report_external as report_external
    from monai_cae.experiment.protocol import run_experiment as run_experiment

__all__ = ["report_external", "run_experiment"]


def __getattr__(name: str) -> Any:
    """Import `protocol` or `external`, and MONAI with it, when asked for: comparing finished runs needs neither."""
    if name == "report_external":
        from monai_cae.experiment.external import report_external

        return report_external
    if name == "run_experiment":
        from monai_cae.experiment.protocol import run_experiment

        return run_experiment
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
