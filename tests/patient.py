"""That a machine is busy does not mean that a database can't be written, in this process and in workers."""

from __future__ import annotations

from monai_cae.tracking import limits

limits.LOCAL_SECONDS = 600
