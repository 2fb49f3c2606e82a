"""Caveats of a run: what a reader must know before using its scores or weights; they travel with the weights."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from monai_cae.files import sha256_of

SYNTHETIC = "SYNTHETIC DATA, NOT REAL MRI"
UNTESTED = "UNTESTED: no test results are stored with these weights, so how far to trust them is not known."


def data_caveats(results: Mapping[str, Any]) -> list[str]:
    """A sentence each for synthetic data and for a leak between the sets.

    Args:
        results: of a stage, as `results_evaluate.json` has them.
    """
    synthetic = [f"{SYNTHETIC}: the results say nothing about patients."] if results["synthetic"] else []
    leaks = results["leaks"]
    return synthetic + ([f"LEAKY: {leaks} found between the sets, the scores are worthless."] if leaks else [])


def checkpoint_caveats(checkpoint: str | Path) -> list[str]:
    """The caveats of weights in a package (`configs/metadata.json`) or in a run's folder (`results_evaluate.json`, if
    it is about these weights). That there is neither is a caveat of its own, and so is a file that can't be read."""
    path = Path(checkpoint).absolute()
    found: list[str] = []
    known = False
    for source in (path.parents[1] / "configs" / "metadata.json", path.parents[1] / "results_evaluate.json"):
        try:
            told = _caveats_in(source, path) if source.is_file() else None
        except (OSError, ValueError, TypeError, LookupError, AttributeError):
            told = [f"{source} can't be read, so the caveats of these weights are not known."]
        known, found = known or told is not None, [*found, *(told or [])]
    return found if known else [UNTESTED]


def _caveats_in(source: Path, checkpoint: Path) -> list[str] | None:
    content = json.loads(source.read_text(encoding="utf-8"))
    of_data: list[str] = []
    if source.name == "results_evaluate.json":
        if content["weights"].get("checkpoint") != sha256_of(checkpoint):
            return None
        of_data = data_caveats(content)
    elif "caveats" not in content:  # the bundle as it is shipped
        return None
    caveats = [*of_data, *content.get("caveats", [])]
    return ["".join(c if c.isprintable() else " " for c in caveat) for caveat in caveats]
