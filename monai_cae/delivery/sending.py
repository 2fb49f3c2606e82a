"""Sending what was kept: by the run itself, by a later one in the same folder, or by `monai-cae sync`."""

from __future__ import annotations

import math
import shlex
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from monai_cae.delivery import limits
from monai_cae.delivery.kept import OFFLINE, UNSENT, Journal, Kept, kept_below
from monai_cae.delivery.operations import (
    FILES,
    MOST_METRICS,
    RECORDS,
    Operation,
    create_run,
    experiment_id,
    find_local,
    lane,
    perform,
)
from monai_cae.delivery.store import Store, StoreAway, StoreRefuses
from monai_cae.errors import MonaiCaeError

_LEAST = 0.1  # of the wait; with less left, nothing is begun


class _Busy(StoreAway):
    """Another process is sending the same."""


@dataclass
class Sent:
    """What came of sending one run's folder.

    Attributes:
        run_id, experiment_id: as MLflow knows them; "" where it does not yet.
        metrics, files, others: how many have arrived now.
        behind: lanes in which something is left because the store is away or time ran out.
        away: why the store did not take all, "" where it did.
        refused: what it won't take, and says so; "" for nothing.
        ended: whether the run had ended.
        busy: whether another process was sending the same.
        cut: whether the journal broke off in its last line.
    """

    run_id: str = ""
    experiment_id: str = ""
    metrics: int = 0
    files: int = 0
    others: int = 0
    behind: frozenset[str] = frozenset()
    away: str = ""
    refused: str = ""
    ended: bool = False
    busy: bool = False
    cut: bool = False

    @property
    def content(self) -> str:
        """In words."""
        counted = {"metric": self.metrics, "file": self.files, "other record": self.others}
        return ", ".join(f"{number} {what}{'s' * (number > 1)}" for what, number in counted.items() if number) or "-"


def make_run(client: Any, store: Store, operation: Operation, near: Path) -> tuple[str, str]:
    """Create a run under the right parent, which is created first if MLflow does not know it yet.

    Args:
        client: MLflow's.
        store: whose client it is.
        operation: the creation.
        near: a folder below the one that the parent is kept in.

    Returns:
        Run and experiment, as MLflow calls them.
    """
    experiment = experiment_id(client, operation["experiment"], store.uri)
    parent = operation["parent"]
    if parent.startswith(OFFLINE):
        parent = find_local(client, experiment, parent) or _make_parent(client, store, parent, near)
    return create_run(client, operation, experiment, parent), experiment


def _make_parent(client: Any, store: Store, parent: str, near: Path) -> str:
    near = near.resolve()
    for folder in (near, *near.parents):
        kept = Kept(folder / UNSENT / parent)
        if kept.path.is_file():
            with _alone(kept, limits.REQUEST_SECONDS):
                return _settle(client, store, kept, kept.read())[0]
    print(f"note: {parent}, which a run is nested under, is not kept near {near}: the run gets no parent", flush=True)
    return ""


def _settle(client: Any, store: Store, kept: Kept, journal: Journal) -> tuple[str, str]:
    """The run's own name in MLflow: found by the local one, or made now; and the experiment's."""
    if journal.run_id:
        return journal.run_id, journal.experiment_id
    line, create = next(((n, o) for n, o in journal.pending.items() if o["do"] == "create"), (0, None))
    experiment = experiment_id(client, journal.experiment, store.uri)
    run = find_local(client, experiment, kept.run_id)
    if not run:
        if create is None:
            raise StoreRefuses(f"it no longer has the run {kept.run_id}")
        run, experiment = make_run(client, store, create, kept.folder)
    kept.mark_sent([line] if create else [], run, experiment)
    return run, experiment


def send_kept(store: Store, kept: Kept, seconds: float = math.inf, *, own: bool = False, wait: float = 0) -> Sent:
    """Send a run's operations in order, and delete its folder when nothing is left and the run has ended.

    Args:
        store: where to.
        kept: the folder.
        seconds: how long at most.
        own: sent by the run itself, which may go on: the folder is deleted all the same.
        wait: seconds for another process that is sending the same.

    Raises:
        MonaiCaeError: the journal is damaged.
    """
    deadline = time.monotonic() + seconds
    sent = Sent()
    try:
        with _alone(kept, wait):
            journal = kept.read()
            sent.cut = journal.cut and kept.mend()
            _send_all(store, kept, journal, sent, deadline)
            after = kept.read()  # another process may have added something meanwhile
            sent.behind = sent.behind | {lane(operation) for line, operation in after.pending.items()
                                         if line not in journal.pending}  # fmt: skip
            sent.ended = after.ended
            if not after.pending and (own or after.ended):
                kept.remove()
    except (StoreAway, StoreRefuses) as error:  # before anything was sent
        sent.behind, sent.busy = frozenset((RECORDS, FILES)), isinstance(error, _Busy)
        sent.away, sent.refused = ("", str(error)) if isinstance(error, StoreRefuses) else (str(error), "")
    except FileNotFoundError:  # another process has sent all of it
        sent.ended = True
    return sent


def _send_all(store: Store, kept: Kept, journal: Journal, sent: Sent, deadline: float) -> None:
    if not journal.run_id and journal.pending:
        settled = partial(_settle, store=store, kept=kept, journal=journal)
        journal.run_id, journal.experiment_id = store.ask(settled, deadline - time.monotonic())
        sent.others += 1
    sent.run_id, sent.experiment_id = journal.run_id, journal.experiment_id
    for which in (RECORDS, FILES):
        pending = {n: o for n, o in journal.pending.items() if lane(o) == which and o["do"] != "create"}
        for lines, operation in _merged(pending):
            left = deadline - time.monotonic()
            try:
                if left < _LEAST * limits.WAIT_SECONDS:
                    sent.behind = sent.behind | {which}
                    break
                ask_for(store, operation, journal.run_id, _source(kept, operation), left)
            except StoreAway as away:
                sent.away = str(away)
                sent.behind = sent.behind | {which}
                break
            except StoreRefuses as refused:
                sent.refused = str(refused)
                continue
            kept.mark_sent(lines, journal.run_id, journal.experiment_id)
            _count(sent, operation)
            if which == FILES:
                kept.drop_file(operation)
        if sent.behind:
            later = {lane(operation) for operation in journal.pending.values()}
            sent.behind = sent.behind | (later & {FILES})
            return


def ask_for(store: Store, operation: Operation, run_id: str, source: Path | None, seconds: float | None = None) -> None:
    """Have the store do one operation, within the seconds given or its own."""
    raised = (Exception,) if lane(operation) == FILES else ()  # the libraries of object stores raise what they like
    store.ask(partial(perform, operation=operation, run_id=run_id, source=source), seconds, raised)


def _source(kept: Kept, operation: Operation) -> Path | None:
    if lane(operation) != FILES:
        return None
    source = kept.file_of(operation)
    if not source.is_file():
        raise StoreRefuses(f"{source} is missing")
    return source


def _merged(pending: Mapping[int, Operation]) -> Iterator[tuple[list[int], Operation]]:
    """Operations with their lines; metrics that follow each other as one, as many as MLflow takes."""
    lines: list[int] = []
    metrics: list[Any] = []
    for line, operation in pending.items():
        plain = operation["do"] == "batch" and not operation["params"] and not operation["tags"]
        if metrics and (not plain or len(metrics) + len(operation["metrics"]) > MOST_METRICS):
            yield lines, batch(metrics=metrics)
            lines, metrics = [], []
        if plain:
            lines, metrics = [*lines, line], [*metrics, *operation["metrics"]]
        else:
            yield [line], operation
    if lines:
        yield lines, batch(metrics=metrics)


def batch(
    *, params: Mapping[str, str] | None = None, tags: Mapping[str, str] | None = None, metrics: Iterable[Any] = ()
) -> Operation:
    """The operation that logs parameters, tags, and metrics as [name, value, milliseconds, step]."""
    return {"do": "batch", "params": dict(params or {}), "tags": dict(tags or {}), "metrics": list(metrics)}


def _count(sent: Sent, operation: Operation) -> None:
    if operation["do"] == "file":
        sent.files += 1
    elif operation["do"] == "batch" and operation["metrics"]:
        sent.metrics += len(operation["metrics"])
    else:
        sent.others += 1


@contextmanager
def _alone(kept: Kept, wait: float) -> Iterator[None]:
    """Keep other processes from sending the same; a lock ends with its process."""
    if not kept.path.is_file():
        raise FileNotFoundError(kept.path)
    lock = FileLock(kept.folder / "lock", timeout=wait)
    try:
        lock.acquire()
    except Timeout:
        raise _Busy("another process is sending it") from None
    try:
        yield
    finally:
        lock.release()


def send_below(folder: Path, tracking_uri: str) -> None:
    """Send what earlier runs have kept for this store, at any depth below a folder, as far as the usual wait allows."""
    store = Store(tracking_uri)
    if not store.paused(RECORDS):
        send_all(kept_below(folder), store)


def send_all(folders: Iterable[Kept], store: Store) -> None:
    """Send what is kept for this store, as far as the usual wait allows.

    A damaged journal is left for `monai-cae sync` to tell.
    """
    deadline = time.monotonic() + limits.WAIT_SECONDS
    for kept in folders:
        left = deadline - time.monotonic()
        try:
            if left < _LEAST * limits.WAIT_SECONDS or kept.read().tracking_uri != store.shown:
                continue
            sent = send_kept(store, kept, left)
        except (MonaiCaeError, FileNotFoundError):
            continue
        if sent.away:
            return


def sync_hint(folder: Path, command: str = "monai-cae") -> str:
    """The command that sends what is kept below a folder; "" where nothing is."""
    return (
        f"{command} sync {shlex.quote(str(folder))}" if any(_has_pending(kept) for kept in kept_below(folder)) else ""
    )


def _has_pending(kept: Kept) -> bool:
    try:
        return bool(kept.read().pending)
    except MonaiCaeError:
        return True
    except FileNotFoundError:
        return False


def sync(folder: Path, tracking_uri: str = "") -> Iterator[str]:
    """Send what is kept at any depth below a folder, run by run.

    Args:
        folder: a run's `output_dir`, or one around several.
        tracking_uri: MLflow's store; "" for the one that each run was meant for.

    Yields:
        A line per run, and one at the end.

    Raises:
        MonaiCaeError: something is left: in one line how much, and why.
    """
    if not folder.is_dir():
        raise MonaiCaeError(f"no folder {folder}: give the --output_dir of a training")
    stores: dict[str, Store] = {}
    down: dict[str, str] = {}
    reasons: list[str] = []
    runs = 0
    for kept in kept_below(folder):
        try:
            journal = kept.read()
            if not journal.pending:
                continue
            runs += 1
            uri = tracking_uri or journal.tracking_uri
            store = stores.setdefault(uri, Store(uri, limits.SYNC_SECONDS))
            if uri not in down:
                sent = send_kept(store, kept, wait=2 * limits.WAIT_SECONDS)
                yield from _told(kept, journal, sent)
                reason = _reason(kept, store, sent)
                if RECORDS in sent.behind and not (sent.refused or sent.busy):
                    down[uri] = reason
            reasons += [down.get(uri) or reason]
        except FileNotFoundError:  # the run itself has sent it meanwhile
            continue
        except MonaiCaeError as error:
            reasons.append(str(error))
    left = [reason for reason in reasons if reason]
    if left:
        what = f"{len(left)} run{'s' * (len(left) > 1)} kept below {folder}"
        raise MonaiCaeError(f"not all sent of {what}: {'; '.join(dict.fromkeys(left))}")
    yield f"nothing is left to send below {folder}" if runs else f"there is nothing to send below {folder}"


def broken_off(kept: Kept) -> str:
    """What is said of a journal whose last line is not whole."""
    return f"{kept.path} broke off in its last line, its process was killed while writing: that one record is lost"


def _told(kept: Kept, journal: Journal, sent: Sent) -> Iterator[str]:
    if sent.cut:
        yield broken_off(kept)
    if sent.run_id:
        now = f" (run {sent.run_id})" if sent.run_id != kept.run_id else ""
        yield f"{journal.name}{now}: {sent.content} sent" + ("" if sent.ended else "; it has not ended")


def _reason(kept: Kept, store: Store, sent: Sent) -> str:
    if sent.busy:
        return f"{kept.folder} is being sent by another process"
    if sent.refused:
        return f"MLflow at {store.shown} refuses some of {kept.folder} ({sent.refused}): delete it to give that up"
    if sent.away:
        what = "does not answer" if RECORDS in sent.behind else "takes no files"
        return f"MLflow at {store.shown} {what} ({sent.away}): try again later"
    return ""
