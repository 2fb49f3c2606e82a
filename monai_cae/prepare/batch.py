"""Many scans: each in a process of its own, so that no scan can stop, slow or swell the others."""

from __future__ import annotations

import ctypes
import multiprocessing
import os
import platform
import signal
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from multiprocessing.connection import Connection, wait
from pathlib import Path
from typing import Any

from filelock import FileLock

from monai_cae.cluster.engine import Engine, Task
from monai_cae.data.texts import one_line
from monai_cae.errors import MonaiCaeError
from monai_cae.prepare.brain import gate
from monai_cae.prepare.conversion import terminable
from monai_cae.prepare.derivative import Place, recipe_of, write_scan
from monai_cae.prepare.masks import read_mask
from monai_cae.prepare.pipeline import Prepared, prepare_scan
from monai_cae.prepare.raw import RawScan
from monai_cae.prepare.settings import PrepareSettings
from monai_cae.prepare.sources import Source

Prepare = Callable[[RawScan, PrepareSettings, RawScan | None], Prepared]
ERROR = "error"
LOCK = ".brain.lock"
_M_MMAP_THRESHOLD, _LARGE_BLOCK = -3, 2**20  # of glibc's mallopt; bytes


@dataclass(frozen=True)
class Outcome:
    """What became of a scan.

    Attributes:
        name: "sub-01_ses-02".
        verdict: "pass", "review" or "fail" by its numbers; "error" where it could not be prepared.
        reasons: of the verdict, a line each.
        qc: the numbers by name.
        notes: what was recognised or guessed, a line each.
        seconds: that it took; 0 where it was finished before.
    """

    name: str
    verdict: str
    reasons: tuple[str, ...] = ()
    qc: dict[str, float] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    seconds: float = 0.0

    @property
    def line(self) -> str:
        """The scan and what became of it, in one line."""
        told = "; ".join((*self.reasons, *self.notes))
        return f"{self.name}: {self.verdict}" + (f" ({told})" if told else "")


def finished_in(out: Path) -> dict[str, Outcome]:
    """All scans that are finished in a derivative, by their names, as their sidecars tell.

    Raises:
        MonaiCaeError: a sidecar can't be read.
    """
    found = {}
    for folder in (*out.glob("sub-*/anat"), *out.glob("sub-*/ses-*/anat")):
        name = "_".join(folder.relative_to(out).parts[:-1])
        if content := Place(out, name).read():
            qc = {key: float("nan") if value is None else value for key, value in content["QC"].items()}
            verdict, notes = content["Verdict"], tuple(content.get("Notes", ()))
            found[name] = Outcome(name, verdict["status"], tuple(verdict["reasons"]), qc, notes)
    return found


def finished(out: Path, scans: Sequence[Source], settings: PrepareSettings, *, overwrite: bool) -> list[Outcome]:
    """The scans that an earlier run has finished with the same settings, version and input.

    Raises:
        MonaiCaeError: others are there, and may not be overwritten; a sidecar or an input can't be read.
    """
    there, kept, others = finished_in(out), list[Outcome](), list[str]()
    for scan in scans:
        if scan.name not in there:
            continue
        content = Place(out, scan.name).read() or {}
        if not scan.error and content.get("Recipe") == recipe_of(scan, settings):
            kept.append(there[scan.name])
        else:
            others.append(scan.name)
    if others and not overwrite:
        raise MonaiCaeError(
            f"{len(others)} scans in {out} were prepared with other settings, by another version or from another "
            f"input, such as {others[0]}: give the same, prepare them again with --overwrite, or choose another folder"
        )
    return kept


def prepare_all(
    out: Path,
    scans: Sequence[Source],
    settings: PrepareSettings,
    *,
    jobs: int = 1,
    prepare: Prepare = prepare_scan,
    engine: Engine | None = None,
) -> Iterator[Outcome]:
    """Prepare scans and write them, so many at a time; a scan that goes wrong is an outcome as any other.

    Args:
        out: the derivative, as `derivative` opened it.
        scans: which.
        settings: for all of them.
        jobs: processes at a time.
        prepare: makes a prepared scan of a raw one; a function that another process can import.
        engine: has its workers do it, each one scan at a time in a process of its own; None to do it here.

    Yields:
        The outcomes, as the scans are done.
    """
    try:
        if engine is None or engine.here:
            # a lock on a file goes with its process, even one that is killed for want of memory; in a temporary folder
            # the file would stay for ever when all are killed
            yield from _in_processes(out, scans, settings, jobs, prepare, out / LOCK)
            return
        for done in engine.run(Task(scan.name, prepare_one, (out, scan, settings, prepare)) for scan in scans):
            yield done.value if done.error is None else Outcome(done.key, ERROR, (one_line(done.error),))
    finally:
        for path in out.glob(f"{LOCK}*"):
            path.unlink(missing_ok=True)


def prepare_one(out: Path, scan: Source, settings: PrepareSettings, prepare: Prepare) -> Outcome:
    """On a worker: prepare a scan, in a process of its own; the workers of a machine look for brains one by one."""
    (outcome,) = _in_processes(out, [scan], settings, 1, prepare, out / f"{LOCK}-{platform.node()}")
    return outcome


def _in_processes(
    out: Path, scans: Sequence[Source], settings: PrepareSettings, jobs: int, prepare: Prepare, lock: Path
) -> Iterator[Outcome]:
    context: Any = multiprocessing.get_context("forkserver" if sys.platform == "linux" else "spawn")
    if sys.platform == "linux":
        context.set_forkserver_preload(["monai_cae.prepare.warm"])
    left, running = list(scans)[::-1], dict[Connection, tuple[Any, Source]]()
    with terminable():
        try:
            while left or running:
                while left and len(running) < jobs:
                    scan = left.pop()
                    ours, theirs = context.Pipe(duplex=False)
                    process = context.Process(
                        target=_work, args=(theirs, lock, out, scan, settings, prepare), daemon=True
                    )
                    _start(process)
                    theirs.close()
                    running[ours] = (process, scan)
                for connection in wait(list(running)):
                    assert isinstance(connection, Connection)
                    process, scan = running.pop(connection)
                    yield _outcome(connection, process, scan)
        finally:
            for process, _ in running.values():
                process.terminate()
            for process, _ in running.values():
                process.join(2)
                process.kill()


def _start(process: Any) -> None:
    try:
        process.start()
    except OSError as error:  # the server's socket is in the temporary folder, and its path has 107 letters at most
        raise MonaiCaeError(
            f"can't start a process ({error.strerror or error}): set TMPDIR to another folder, with a shorter path "
            f"than {tempfile.gettempdir()}"
        ) from error


def _outcome(connection: Connection, process: Any, scan: Source) -> Outcome:
    try:
        outcome = connection.recv()
        assert isinstance(outcome, Outcome)
    except EOFError:
        process.join()
        why = f"its process ended with {process.exitcode}"
        why += ", probably for want of memory: use fewer --jobs" if process.exitcode == -signal.SIGKILL else ""
        outcome = Outcome(scan.name, ERROR, (why,))
    connection.close()
    process.join()
    return outcome


def _work(
    connection: Connection, lock: Path, out: Path, scan: Source, settings: PrepareSettings, prepare: Prepare
) -> None:
    """One scan in its own process, which ends with its parent, however that ends."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent gets Ctrl-C too, and decides
    threading.Thread(target=_end_with_parent, daemon=True).start()
    gate.set(FileLock(lock))
    if platform.libc_ver()[0] == "glibc":  # or it would keep the memory of the network, while others wait for theirs
        ctypes.CDLL(None).mallopt(_M_MMAP_THRESHOLD, _LARGE_BLOCK)
    started = time.monotonic()
    try:
        recipe = recipe_of(scan, settings)
        raw = scan.read()
        mask = read_mask(scan.mask, scan.name, scan.path, scan.orientation) if scan.mask else None
        prepared = prepare(raw, settings, mask)
        write_scan(out, scan, raw, prepared, recipe)
        seconds = time.monotonic() - started
        verdict = prepared.verdict
        outcome = Outcome(scan.name, verdict.status, tuple(verdict.reasons), dict(prepared.qc), prepared.notes, seconds)
    except Exception as error:  # whatever it is, the other scans go on
        reason = one_line(error)
        if not isinstance(error, MonaiCaeError):  # the text of an OSError names the file
            what = error.strerror if isinstance(error, OSError) else reason
            reason = f"{type(error).__name__}: {what}"
        outcome = Outcome(scan.name, ERROR, (_without_path(reason, scan),), seconds=time.monotonic() - started)
    connection.send(outcome)


def _without_path(reason: str, scan: Source) -> str:
    """A reason without the place of the scan, which may name somebody."""
    for path in (scan.path, scan.mask):
        if path:
            reason = reason.replace(str(path), "the mask" if path is scan.mask else "the image")
    return reason


def _end_with_parent() -> None:
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os.kill(os.getpid(), signal.SIGTERM)  # by which a temporary folder is still removed
