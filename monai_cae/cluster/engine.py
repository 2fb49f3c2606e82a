"""What is to be done, as tasks, and who does it: an engine. `InProcess` does everything here, in order."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any


@dataclass(frozen=True)
class Task:
    """A call that may happen in another process, or on another machine.

    A task whose worker dies is done again on another, from its beginning: the function must find by itself what an
    earlier attempt has left, and must not mind it.

    Attributes:
        key: its name, of which there is one.
        function: that other processes can import.
        args: what it is called with, which can be pickled, as can what it returns.
        after: keys of the tasks that must have succeeded before.
        needs: resources that the worker must have free, such as {"GPU": 1}; ignored in process.
    """

    key: str
    function: Callable[..., Any]
    args: tuple[Any, ...] = ()
    after: tuple[str, ...] = ()
    needs: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class Done:
    """What became of a task.

    Attributes:
        key: the task's.
        value: what its function has returned.
        error: what it has raised; `NotDone` if it was not tried, `WorkerLost` if its workers died; None of a success.
        log: the last lines that it printed elsewhere, after an error all it knows; "" where they have been seen.
    """

    key: str
    value: Any = None
    error: Exception | None = None
    log: str = ""


class NotDone(Exception):
    """The task was not tried, because one that it needs has failed."""


class WorkerLost(Exception):
    """Every worker that tried the task has died."""


class Engine(ABC):
    """Does tasks. To be used in a `with` block, whose end gives back what the engine has.

    Attributes:
        workers: how many tasks it does at a time.
        here: whether tasks run in this process, print to this terminal and can be interrupted here.
    """

    workers: int = 1
    here: bool = True

    @abstractmethod
    def run(self, tasks: Iterable[Task | None]) -> Iterator[Done]:
        """Do tasks, as many at a time as there are workers.

        Args:
            tasks: taken as workers become free, so a long iterable is never held in memory, and what it gives may
                depend on what is done. Where that is not yet known it gives None, and is asked again when a task has
                ended. The tasks that one comes after are given before it.

        Yields:
            What became of each, as they end.
        """

    def __enter__(self) -> Engine:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:  # noqa: B027 (there need not be anything)
        """Give back what the engine has."""


class InProcess(Engine):
    """One after another, in this thread of this process: without anything to set up."""

    def run(self, tasks: Iterable[Task | None]) -> Iterator[Done]:
        """See `Engine.run`."""
        failed: set[str] = set()
        for task in tasks:
            if task is None:
                raise RuntimeError("what is to be done depends on a task that was never given")
            done = do(task) if failed.isdisjoint(task.after) else not_done(task, failed)
            if done.error:
                failed.add(done.key)
            yield done


def do(task: Task) -> Done:
    """Call a task's function; an error is an outcome."""
    try:
        return Done(task.key, task.function(*task.args))
    except Exception as error:
        return Done(task.key, error=error)


def not_done(task: Task, failed: Iterable[str]) -> Done:
    """What becomes of a task that comes after one that has failed."""
    return Done(task.key, error=NotDone(next(key for key in task.after if key in {*failed})))
