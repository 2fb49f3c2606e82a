"""An engine on Dask: its scheduler, its nannies that replace dead workers, its encryption."""

from __future__ import annotations

import logging
import os
import pickle
import time
import traceback
import uuid
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import redirect_stderr, redirect_stdout, suppress
from dataclasses import replace
from functools import cache
from io import TextIOBase
from pathlib import Path
from queue import SimpleQueue
from typing import Any

import monai_cae
from monai_cae.cluster.engine import Done, Engine, Task, WorkerLost, do, not_done
from monai_cae.errors import MonaiCaeError

CONNECT_SECONDS = 10
_COUNTED_EVERY = 1.0  # seconds from one look at the number of workers to the next
_LINES = 20  # of what a task has printed, with its error
_END = object()
Opened = tuple[Any, Any]  # a Client, and the cluster that is ours, or None


class DaskEngine(Engine):
    """Tasks on the workers of a Dask scheduler, one at a time on each thread of a worker.

    A task whose worker has died is done again on another, up to Dask's `allowed-failures` (3) times. What a task needs
    first is waited for here: its result is on the disk then, so that a worker that dies later takes nothing with it.

    Args:
        connect: opens the connection, and the cluster if it is ours; called on entering.
        shown: what the user called it.
        sees: paths that every worker must see, by what they are.
        ahead: tasks per worker that are sent before it is free, so that short ones wait for no message.
    """

    here = False

    def __init__(
        self, connect: Callable[[], Opened], shown: str, sees: Mapping[str, Path] | None = None, ahead: int = 0
    ) -> None:
        self._connect, self.shown, self.ahead = connect, shown, ahead
        self._sees = {what: str(path) for what, path in (sees or {}).items()}
        self._client: Any = None
        self._cluster: Any = None
        self._running: dict[str, Any] = {}
        self._counted_at = -float("inf")

    def __enter__(self) -> DaskEngine:
        import distributed  # noqa: F401  # sets the levels below when it is imported

        for chatty in ("distributed", "distributed.client", "tornado.application", "asyncio"):  # we tell what matters
            logging.getLogger(chatty).setLevel(logging.CRITICAL)
        self._client, self._cluster = self._connect()
        try:
            self._check_workers()
        except BaseException:
            self.close()
            raise
        return self

    @property
    def workers(self) -> int:  # type: ignore[override]  # they come and go
        """How many tasks are done at a time now; at least 1, as workers may still come."""
        if time.monotonic() - self._counted_at > _COUNTED_EVERY:
            self._counted = sum(self._ask(self._client.nthreads).values())
            self._counted_at = time.monotonic()
        return max(1, self._counted)

    def run(self, tasks: Iterable[Task | None]) -> Iterator[Done]:
        """See `Engine.run`.

        Raises:
            MonaiCaeError: the cluster has gone, a worker can't do what is asked for, or none has a resource.
        """
        coming, more = iter(tasks), True
        waiting: dict[str, Task] = {}
        failed: set[str] = set()
        ended: SimpleQueue[tuple[str, Any]] = SimpleQueue()
        self._running = {}
        while True:
            for task in [*waiting.values()]:
                if not failed.isdisjoint(task.after):
                    failed.add(task.key)
                    yield not_done(waiting.pop(task.key), failed)
                elif self._running.keys().isdisjoint(task.after) and waiting.keys().isdisjoint(task.after):
                    self._submit(waiting.pop(task.key), ended)
            unknown = False
            while more and not unknown and len(self._running) < self.workers * (1 + self.ahead):
                given: Any = next(coming, _END)
                if given is _END:
                    more = False
                elif given is None:
                    unknown = True
                elif not failed.isdisjoint(given.after):
                    failed.add(given.key)
                    yield not_done(given, failed)
                elif not {*self._running, *waiting}.isdisjoint(given.after) if given.after else False:
                    waiting[given.key] = given
                else:
                    self._submit(given, ended)
            if not self._running:
                if unknown:
                    raise RuntimeError("what is to be done depends on a task that was never given")
                if not waiting and not more:
                    return
                continue
            for done in self._outcomes([ended.get(), *(ended.get() for _ in range(ended.qsize()))]):
                del self._running[done.key]
                if done.error:
                    failed.add(done.key)
                yield done

    def close(self) -> None:
        """See `Engine.close`; what still runs is ended."""
        client, cluster, self._client, self._cluster = self._client, self._cluster, None, None
        if client is None:
            return
        with suppress(Exception):  # it may have gone
            if self._running and cluster is None:  # a thread of a worker can't be ended, the worker can
                keys = {future.key for future in self._running.values()}
                busy = [worker for worker, theirs in client.processing().items() if keys & {*theirs}]
                client.cancel([*self._running.values()])
                client.restart_workers(busy, timeout=CONNECT_SECONDS, raise_for_error=False)
        self._running = {}
        for one in (client, cluster):
            with suppress(Exception):
                if one is not None:
                    one.close(timeout=CONNECT_SECONDS)

    def _submit(self, task: Task, ended: SimpleQueue[tuple[str, Any]]) -> None:
        self._require(task.needs)
        future = self._client.submit(
            attempt,
            task,
            monai_cae.__version__,
            self._sees,
            os.getcwd(),
            key=f"{task.key}-{uuid.uuid4().hex}",
            resources=dict(task.needs) or None,
            pure=False,
            retries=0,
        )
        self._running[task.key] = future
        future.add_done_callback(lambda one: ended.put((task.key, one)))

    def _outcomes(self, ended: Sequence[tuple[str, Any]]) -> Iterator[Done]:
        """What became of the tasks of these futures, fetched together: each fetching waits for several messages."""
        from distributed.client import FutureCancelledError
        from distributed.scheduler import KilledWorker

        failed = {key: future for key, future in ended if future.status in ("error", "cancelled")}
        fetched = {key: future for key, future in ended if key not in failed}
        try:
            values = self._client.gather([*fetched.values()], errors="skip") if fetched else []
            if len(values) < len(fetched):  # a worker has died with its results: one by one, as they are made again
                values = [future.result() for future in fetched.values()]
            for done in values:
                if isinstance(done, MonaiCaeError):
                    raise done
                yield done
            for key, future in failed.items():
                if future.status == "cancelled":
                    raise self._gone()
                error = future.exception()
                if isinstance(error, KilledWorker):
                    what = f"{error.allowed_failures + 1} workers have died while doing it, perhaps for want of memory"
                    error = WorkerLost(what)
                yield Done(key, error=error)  # of the task, or as the worker could not even read it
        except (FutureCancelledError, OSError) as error:
            raise self._gone() from error

    def _require(self, needs: Mapping[str, float]) -> None:
        """Refuse what no worker has; where there is none yet, it may still come with it."""
        if not needs:
            return
        known = [one["resources"] for one in self._ask(self._client.scheduler_info)["workers"].values()]
        for what, amount in needs.items():
            if known and not any(one.get(what, 0) >= amount for one in known):
                has = "has a GPU" if what == "GPU" else f"has {what} {amount:g}"
                raise MonaiCaeError(f"no worker of {self.shown} {has}, which was asked for: see docs/how-to/cluster.md")

    def _check_workers(self) -> None:
        """Refuse workers that are of another version or do not see what they must; those that come later are looked
        at when they get a task."""
        told = self._ask(lambda: self._client.run(look, monai_cae.__version__, self._sees, on_error="return"))
        for worker, wrong in sorted(told.items()):
            if wrong:
                raise MonaiCaeError(
                    f"the worker {worker} of {self.shown} {wrong if isinstance(wrong, str) else _LACKS}"
                )

    def _ask(self, question: Callable[[], Any]) -> Any:
        try:
            return question()
        except (OSError, TimeoutError, AttributeError) as error:  # Dask's client has no scheduler any more
            raise self._gone() from error

    def _gone(self) -> MonaiCaeError:
        return MonaiCaeError(f"the cluster {self.shown} does not answer any more: what is finished is kept")


_LACKS = "can't import monai-cae as it is here: install the same version there"


@cache
def _looked(version: str, sees: tuple[tuple[str, str], ...]) -> str:
    if version != monai_cae.__version__:
        return f"has monai-cae {monai_cae.__version__}, not {version}: install the same version there"
    for what, path in sees:
        if not Path(path).exists():
            return f"does not see {what} {path}: it must lie where all workers find it by this path"
    return ""


def look(version: str, sees: Mapping[str, str]) -> str:
    """On a worker: what keeps it from working, in a few words; "" if nothing does."""
    return _looked(version, tuple(sees.items()))


def attempt(task: Task, version: str, sees: Mapping[str, str], folder: str) -> Done | MonaiCaeError:
    """On a worker: do a task, in the folder that relative paths are meant from.

    Returns:
        What became of it, with the end of what it printed, after an error also of its warnings and the traceback; or
        why no task can be done on this worker.
    """
    if wrong := look(version, sees):
        from distributed import get_worker

        return MonaiCaeError(f"the worker {get_worker().address} {wrong}")
    with suppress(OSError):  # the task itself may need none
        os.chdir(folder)
    log = _Tail()
    said = _Tail(log)
    with redirect_stdout(said), redirect_stderr(log):
        done = do(task)
        if done.error and not isinstance(done.error, MonaiCaeError):
            log.write("".join(traceback.format_exception(_first(done.error), chain=False)))
    if done.error:
        return Done(task.key, error=_sendable(done.error), log=log.text)
    return replace(done, log=said.text)


def _sendable(error: Exception) -> Exception:
    """What another process can read, and says why: of an error that was raised from others, these would be lost."""
    first = _first(error)
    if isinstance(error, MonaiCaeError) or error is first:
        try:
            pickle.loads(pickle.dumps(error))
            return error
        except Exception:  # whatever its own methods raise
            first = error
    return RuntimeError(f"{type(first).__name__}: {first}")


def _first(error: BaseException) -> BaseException:
    """The one that it was raised from, in the beginning; one can be raised again from what it has led to."""
    seen = {id(error)}
    while (before := error.__cause__ or error.__context__) is not None and id(before) not in seen:
        error = before
        seen.add(id(error))
    return error


class _Tail(TextIOBase):
    """The last lines that were written. Args: other: gets the same."""

    def __init__(self, other: _Tail | None = None) -> None:
        self._other = other
        self._lines: deque[str] = deque(maxlen=_LINES)
        self._begun = ""

    def writable(self) -> bool:
        return True

    def write(self, text: str) -> int:
        if self._other:
            self._other.write(text)
        *whole, self._begun = (self._begun + text).split("\n")
        self._lines.extend(line.rpartition("\r")[2] for line in whole)
        return len(text)

    @property
    def text(self) -> str:
        return "\n".join([*self._lines, *([self._begun] if self._begun else [])])
