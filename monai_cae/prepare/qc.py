"""The QC page and its table: every scan with its picture and numbers, the worst first."""

from __future__ import annotations

import math
from base64 import b64encode
from collections.abc import Iterable, Mapping, Sequence
from hashlib import sha256
from pathlib import Path
from typing import Any

from monai_cae import DISCLAIMER
from monai_cae.data.layouts.derivative import QC_TABLE, VERDICTS, read_qc
from monai_cae.files import write_text
from monai_cae.prepare.batch import ERROR, Outcome, finished_in
from monai_cae.prepare.derivative import Place, write_tsv
from monai_cae.prepare.quality import QUALITY, Quality, excess
from monai_cae.templates import render

PAGE = "qc.html"
_ADVICE = "choose another folder"
_LEGEND = "Yellow: the outline of the scan's brain mask. Blue: the template's edges, which the brain's should lie on."


def worst_first(outcomes: Iterable[Outcome], qualities: Sequence[Quality] = QUALITY) -> list[Outcome]:
    """By verdict, then by how far the worst number is beyond its limit or close to it, then by name."""
    return sorted(
        outcomes,
        key=lambda one: (-VERDICTS.index(one.verdict), -_worst(one.qc, qualities), one.name),
    )


def _worst(qc: Mapping[str, float], qualities: Sequence[Quality]) -> float:
    return max((excess(qc[one.name], one) for one in qualities if one.name in qc), default=0.0)


def write_table(
    out: Path, outcomes: Sequence[Outcome], qualities: Sequence[Quality] = QUALITY
) -> list[tuple[Outcome, dict[str, str]]]:
    """Write qc.tsv: all scans that are finished, those that are not, and what an earlier qc.tsv has of others.

    A decision stays as long as the scan's verdict is the same.

    Args:
        out: the derivative.
        outcomes: of this run.
        qualities: the numbers, in the order of the columns.

    Returns:
        Each scan with its row, the worst first.

    Raises:
        MonaiCaeError: an earlier qc.tsv or a sidecar can't be read, or the table can't be written.
    """
    before = read_qc(out / QC_TABLE)
    scans = {name: Outcome(name, one.verdict, (one.reasons,)) for name, one in before.items() if one.verdict == ERROR}
    scans |= {one.name: one for one in outcomes if one.verdict == ERROR} | finished_in(out)
    rows = []
    for one in (ordered := worst_first(scans.values(), qualities)):
        earlier = before.get(one.name)
        decision = earlier.decision if earlier and earlier.verdict == one.verdict else ""
        row = {"scan": one.name, "verdict": one.verdict, "decision": decision, "reasons": "; ".join(one.reasons)}
        numbers = {quality.name: _shown(one.qc.get(quality.name, math.nan)) for quality in qualities}
        rows.append({**row, **numbers})
    write_tsv(out / QC_TABLE, rows)
    return list(zip(ordered, rows, strict=True))


def write_page(out: Path, outcomes: Sequence[Outcome], qualities: Sequence[Quality] = QUALITY) -> Path:
    """Write qc.tsv, see `write_table`, and qc.html, which is returned."""
    judged = write_table(out, outcomes, qualities)
    columns = list(judged[0][1]) if judged else []
    page = render(
        "qc.html",
        cards=[_card(out, one, row, qualities) for one, row in judged],
        counts={verdict: sum(one.verdict == verdict for one, _ in judged) for verdict in reversed(VERDICTS)},
        columns=columns,
        rows=[[row[name] for name in columns] for _, row in judged],
        cohort=sha256(str(out.absolute()).encode()).hexdigest()[:12],
        legend=_LEGEND,
        disclaimer=DISCLAIMER,
    )
    write_text(out / PAGE, page, _ADVICE)
    return out / PAGE


def _shown(value: float) -> str:
    return "n/a" if math.isnan(value) else f"{value:.4g}"


def _card(out: Path, one: Outcome, row: Mapping[str, str], qualities: Sequence[Quality]) -> dict[str, Any]:
    place = Place(out, one.name)
    pictures = {}
    for name, path, kind in (("image", place.montage, "jpeg"), ("lines", place.outlines, "png")):
        pictures[name] = f"data:image/{kind};base64,{b64encode(path.read_bytes()).decode()}" if path.is_file() else ""
    numbers = [
        {
            "name": quality.name,
            "value": row[quality.name],
            "unit": quality.unit,
            "meaning": quality.meaning,
            "state": _state(one.qc[quality.name], quality),
        }
        for quality in qualities
        if quality.name in one.qc
    ]
    # a decision is remembered for this picture, not for another of the same name
    made = sha256((pictures["image"] + one.verdict).encode()).hexdigest()[:12]
    return {"scan": one.name, "verdict": one.verdict, "decision": row["decision"], "reasons": one.reasons,
            "notes": one.notes, "made": made, "numbers": numbers, **pictures}  # fmt: skip


def _state(value: float, quality: Quality) -> str:
    beyond = excess(value, quality)
    return "fail" if beyond > 1 else "review" if beyond > 0 else "pass"
