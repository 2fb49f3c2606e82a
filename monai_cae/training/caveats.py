"""What has to be known of a run before its scores or weights are used; it goes wherever the weights go."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from monai_cae.files import sha256_of

SYNTHETIC = "SYNTHETIC DATA, NOT REAL MRI"


def data_caveats(results: Mapping[str, Any]) -> list[str]:
    """A sentence each for synthetic data and for a leak between the sets.

    Args:
        results: of a stage, as `results_evaluate.json` has them.
    """
    synthetic = [f"{SYNTHETIC}: nothing about people follows from it."] if results["synthetic"] else []
    leaks = results["leaks"]
    return synthetic + ([f"LEAKY: {leaks} found between the sets, the scores are worthless."] if leaks else [])


def checkpoint_caveats(checkpoint: str | Path) -> list[str]:
    """The caveats of weights in a package (`configs/metadata.json`) or in a run's folder (`results_evaluate.json`, if
    it is about these weights); none elsewhere. A file that can't be read is a caveat of its own."""
    path = Path(checkpoint).absolute()
    found: list[str] = []
    for source in (path.parents[1] / "configs" / "metadata.json", path.parents[1] / "results_evaluate.json"):
        try:
            found += _caveats_in(source, path) if source.is_file() else []
        except (OSError, ValueError, TypeError, LookupError, AttributeError):
            found.append(f"{source} can't be read, so what is doubtful about these weights is not known.")
    return found


def _caveats_in(source: Path, checkpoint: Path) -> list[str]:
    content = json.loads(source.read_text(encoding="utf-8"))
    of_data: list[str] = []
    if source.name == "results_evaluate.json":
        if content["weights"].get("checkpoint") != sha256_of(checkpoint):
            return []
        of_data = data_caveats(content)
    caveats = [*of_data, *content.get("caveats", [])]
    return ["".join(c if c.isprintable() else " " for c in caveat) for caveat in caveats]
