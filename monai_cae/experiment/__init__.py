"""The repeated experiment: every stage on every split, simpler models on the same splits, and comparisons.

`protocol` runs, `record` pools the predictions, `results` computes, `page` tells; `finished` reads what runs have
predicted, and `comparing` compares them.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from monai_cae.experiment.protocol import run_experiment as run_experiment

__all__ = ["run_experiment"]


def __getattr__(name: str) -> Any:
    """Import `protocol`, and MONAI with it, when it is asked for: comparing finished runs needs neither."""
    if name == "run_experiment":
        from monai_cae.experiment.protocol import run_experiment

        return run_experiment
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
