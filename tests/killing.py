"""Runs and commands in processes of their own that a test may kill; forked from one that has imported everything, which
takes a new Python ten seconds."""

from __future__ import annotations

import multiprocessing
import os
import runpy
import signal
import sys
import tempfile
import warnings
from collections.abc import Callable, Sequence
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any, NamedTuple

from drawing import draw_little
from tiny import CONFIGS, TINY

SMALL = {**TINY, "channels": [2, 3, 4], "save_every": 0}
LONGEST = 600  # seconds, for a machine that is busy
_CONTEXT = multiprocessing.get_context("forkserver")
# one server for a process: scans are prepared in children of this one too, where it has been started before
_IMPORTED = ["monai.bundle", "monai_cae.experiment", "monai_cae.training", "mlflow", "skops", "monai_cae.prepare.warm"]
_CONTEXT.set_forkserver_preload(_IMPORTED)


def start(configs: Sequence[str], log: Path, **settings: Any) -> BaseProcess:
    """Begin `python -m monai.bundle run training` of one config after the other; what it prints goes to the log."""
    process = _CONTEXT.Process(target=_run, args=(configs, str(log), settings), daemon=True)
    process.start()
    return process


def finish(configs: Sequence[str], log: Path, **settings: Any) -> int:
    """The same, waited for; its exit status."""
    process = start(configs, log, **settings)
    process.join(LONGEST)
    return process.exitcode


class Ended(NamedTuple):
    """How a command ended, and what it said."""

    returncode: int
    stdout: str
    stderr: str


def command(program: str, *arguments: object, cwd: Path) -> Ended:
    """`python -m monai.bundle` or `monai-cae` with these arguments, waited for."""
    with tempfile.TemporaryDirectory() as told:
        said = [Path(told, name) for name in ("stdout", "stderr")]
        given = (program, [str(one) for one in arguments], str(cwd), *map(str, said))
        process = _CONTEXT.Process(target=_command, args=given)
        process.start()
        process.join(LONGEST)
        return Ended(process.exitcode, *(path.read_text() for path in said))


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

    draw_little()
    for config in configs:
        monai.bundle.run(run_id="training", config_file=str(CONFIGS / config), **settings)


def call(function: Callable[..., Any], *args: Any) -> BaseProcess:
    """Begin a call."""
    process = _CONTEXT.Process(target=function, args=args, daemon=True)
    process.start()
    return process


def _command(program: str, arguments: list[str], cwd: str, stdout: str, stderr: str) -> None:
    for number, path in ((1, stdout), (2, stderr)):
        os.dup2(os.open(path, os.O_CREAT | os.O_WRONLY), number)
    os.chdir(cwd)
    sys.argv = [program, *arguments]
    warnings.simplefilter("ignore")
    draw_little()
    try:
        if program == "monai.bundle":
            runpy.run_module(program, run_name="__main__", alter_sys=True)  # by its name our hook knows it
        else:
            from monai_cae.cli import main

            sys.exit(main(arguments))
    except Exception:  # as the interpreter does it; multiprocessing has a way of its own
        sys.excepthook(*sys.exc_info())
        sys.exit(1)
