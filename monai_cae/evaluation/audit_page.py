"""The leakage audit as one self-contained, printable HTML page for a reviewer."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from monai_cae.errors import MonaiCaeError
from monai_cae.templates import render

SHOWN = 100  # findings, and scans that were left out
CLASS_NAMES = {"0": "HC (label 0)", "1": "AD (label 1)"}


def audit_page(audit: Mapping[str, Any]) -> str:
    """Write the page.

    Args:
        audit: what `monai_cae.data.Audit.to_dict` gives, or the same read from JSON.

    Returns:
        A self-contained HTML document: inline style, no scripts, nothing loaded from elsewhere, all names escaped. It
        shows the first 100 findings, leaks first.

    Raises:
        MonaiCaeError: not an audit.
    """
    missing = [key for key in ("sets", "checks", "findings", "synthetic") if key not in audit]
    if missing:
        raise MonaiCaeError(f"this is not a leakage audit: it has no {', '.join(missing)}; give what `to_dict` wrote")
    findings = sorted(audit["findings"], key=lambda finding: not finding["leak"])
    leaks = sum(bool(finding["leak"]) for finding in findings)
    return render(
        "audit.html",
        audit=audit,
        findings=findings,
        leaks=leaks,
        warnings=len(findings) - leaks,
        not_done=[check for check in audit["checks"] if check["passed"] is None],
        bad_scans=audit.get("bad_scans", []),
        classes={
            label: name
            for label, name in CLASS_NAMES.items()
            if any(label in one["classes"] for one in audit["sets"].values())
        },
        SHOWN=SHOWN,
    )
