"""What goes wrong once in a training, wherever it runs."""

from __future__ import annotations

import os
import signal
from pathlib import Path
from typing import Any

from monai_cae.training import PrecisionInferer


class Once(PrecisionInferer):
    """The first process that gets to the n-th batch of a training, validations included, is killed or fails; a file
    says that it has happened."""

    def __init__(self, marker: str, how: str, batch: int, **options: Any) -> None:
        super().__init__(**options)
        self.marker, self.how, self.left = Path(marker), how, batch

    def __call__(self, *args: Any, **options: Any) -> Any:
        self.left -= 1
        if self.left == 0 and not self.marker.exists():
            self.marker.touch()
            if self.how == "kill":
                os.kill(os.getpid(), signal.SIGKILL)
            raise OSError("the disk of this node is full")
        return super().__call__(*args, **options)
