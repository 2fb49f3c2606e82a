"""Preparation without its time: what stands in for `prepare_scan` in tests of everything around it."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path

import numpy as np
import SimpleITK

from monai_cae.data.template import FRAME_SHAPE, frame_affine
from monai_cae.errors import MonaiCaeError
from monai_cae.prepare import Prepared, PrepareSettings, RawScan, Verdict

# what a scan's brightest voxel asks for
REVIEW, FAIL, REFUSE, CRASH, RAISE, WAIT = 1001, 1002, 1003, 1004, 1005, 1006
QC = {"dice": 0.95, "snr": 20.0, "brain_ml": 1300.0}


def fake(scan: RawScan, settings: PrepareSettings | None = None, mask: RawScan | None = None) -> Prepared:
    """A ball as bright as the scan's mean, with a verdict that its brightest voxel asks for."""
    asked = int(scan.voxels.max())
    if asked == REFUSE:
        raise MonaiCaeError(f"{scan.name} has no brain in it")
    if asked == CRASH:
        os.kill(os.getpid(), signal.SIGKILL)
    if asked == RAISE:
        raise ZeroDivisionError("division by zero")
    if asked == WAIT:
        Path(os.environ["MAY_GO_ON"] + ".pid").write_text(str(os.getpid()))
    while asked == WAIT and not Path(os.environ["MAY_GO_ON"]).exists():
        time.sleep(0.01)
    x, y, z = np.ogrid[[slice(size) for size in FRAME_SHAPE]]
    ball = ((x - 88) / 70) ** 2 + ((y - 104) / 85) ** 2 + ((z - 88) / 65) ** 2 < 1
    brightness = 0.5 if mask is None else 0.75
    status = {REVIEW: "review", FAIL: "fail"}.get(asked, "pass")
    dice = {"review": 0.90, "fail": 0.5}.get(status, 0.95)
    reasons = () if status == "pass" else (f"Dice of the mask with the template's: {dice}",)
    return Prepared(
        image=(ball * brightness).astype(np.float32),
        mask=ball,
        affine=frame_affine(),
        native_mask=scan.voxels > 0,
        transform=SimpleITK.AffineTransform(3),
        qc={**QC, "dice": dice},
        notes=(*scan.notes, "nothing was done"),
        verdict=Verdict(status, reasons),
        seconds={"all": 0.0},
    )
