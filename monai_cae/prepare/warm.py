"""What every scan needs, once for all of them: imported by the process that the scans' processes are forked from."""

from __future__ import annotations

from contextlib import suppress

from monai_cae.errors import MonaiCaeError
from monai_cae.prepare import batch
from monai_cae.prepare.montage import template_edges
from monai_cae.prepare.template import load_template

with suppress(MonaiCaeError):  # each scan says so
    load_template()
    template_edges()

__all__ = ["batch"]
