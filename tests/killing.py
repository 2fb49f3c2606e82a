"""Bundle runs in processes of their own that a test may kill; forked from one that has imported everything."""

from __future__ import annotations

import multiprocessing
import os
import signal
from collections.abc import Sequence
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

from drawing import draw_nothing
from tiny import CONFIGS, TINY

SMALL = {**TINY, "channels": [2, 3, 4], "save_every": 0}
_CONTEXT = multiprocessing.get_context("forkserver")
_CONTEXT.set_forkserver_preload(["monai.bundle", "monai_cae.experiment", "monai_cae.training", "mlflow", "skops"])


def start(configs: Sequence[str], log: Path, **settings: Any) -> BaseProcess:
    """Begin `python -m monai.bundle run training` of one config after the other; what it prints goes to the log."""
    process = _CONTEXT.Process(target=_run, args=(configs, str(log), settings), daemon=True)
    process.start()
    return process


def finish(configs: Sequence[str], log: Path, **settings: Any) -> int:
    """The same, waited for; its exit status."""
    process = start(configs, log, **settings)
    process.join(120)
    return process.exitcode


def kill(process: BaseProcess, number: int) -> int:
    """Send a signal to a process that may have ended before; its exit status."""
    if process.is_alive():
        os.kill(process.pid, number)
    process.join(60)
    return process.exitcode


def _run(configs: Sequence[str], log: str, settings: dict[str, Any]) -> None:
    out = os.open(log, os.O_CREAT | os.O_WRONLY | os.O_APPEND)
    os.dup2(out, 1)
    os.dup2(out, 2)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    import monai.bundle

    draw_nothing()
    for config in configs:
        monai.bundle.run(run_id="training", config_file=str(CONFIGS / config), **settings)
