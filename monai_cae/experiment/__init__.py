"""The repeated experiment: every stage on every split, what is simpler on the same splits, and whether they differ.

`protocol` runs, `record` pools the predictions, `results` computes, `page` tells.
"""

from __future__ import annotations

from monai_cae.experiment.protocol import run_experiment

__all__ = ["run_experiment"]
