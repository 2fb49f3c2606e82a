"""The check of a cohort before training as one page, the contact sheets inside it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from monai_cae import DISCLAIMER
from monai_cae.evaluation.embedding import drawn_before
from monai_cae.templates import render


def check_page(check: Mapping[str, Any], sheets: Sequence[Path], seen: str, synthetic: bool) -> str:
    """Write the page.

    Args:
        check: what `monai_cae.data.CohortCheck.to_dict` gives.
        sheets: the contact sheets as PNG.
        seen: what of a volume is looked at, such as "axial slice 106".
        synthetic: the scans are a phantom's.
    """
    count, several = len(check["suspicious"]), len(sheets) > 1
    said = f"{count} of {check['scans']} look unusual" if count else "None looks unusual"
    usual = []
    if check["shape"]:
        spacing = " x ".join(f"{size:g}" for size in check["spacing_mm"])
        usual.append(f"Usual volume: {' x '.join(map(str, check['shape']))} voxels of {spacing} mm.")
    pages = [
        drawn_before(path, f"Contact sheet{f' {number} of {len(sheets)}' if several else ''}, those to look at first")
        for number, path in enumerate(sheets, start=1)
    ]
    return render(
        "check.html",
        check=check,
        verdict={"state": "open" if count else "good", "said": said, "further": usual},
        sheets=[page for page in pages if page],
        seen=seen,
        synthetic=synthetic,
        disclaimer=DISCLAIMER,
    )
