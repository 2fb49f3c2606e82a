"""Runs that other processes write: each process has a small database of its own, which one process takes over.

SQLite on a shared disk takes one writer, and a worker needs no login to a server.
"""

from __future__ import annotations

import shutil
import sqlite3
import uuid
from collections.abc import Collection, Iterable, Iterator
from contextlib import closing, contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import Any

from tqdm import tqdm

from monai_cae.errors import MonaiCaeError
from monai_cae.files import replacing
from monai_cae.tracking import limits
from monai_cae.tracking import run as runs
from monai_cae.tracking.copying import DATABASE, PARENT, SERVER, Copying, all_runs, identity
from monai_cae.tracking.mirror import Mirror
from monai_cae.tracking.run import TrackedRun
from monai_cae.tracking.store import Store, StoreAway, StoreRefuses

_LENT = ".lent"  # in the folder that the other process writes to; in a folder of it are its database and artifacts
_KEPT = ("alembic_version", "workspaces")  # tables with rows that MLflow expects in an empty database


def write_empty(run: TrackedRun, path: Path) -> None:
    """Write an empty database like that of an open run, for other processes to copy: MLflow would take ten seconds to
    make one, as it repeats the history of its tables."""
    made = "SELECT type, name, sql FROM sqlite_master WHERE sql IS NOT NULL AND name NOT LIKE 'sqlite_%'"
    path.unlink(missing_ok=True)
    with closing(sqlite3.connect(str(run.database.database))) as ours, closing(sqlite3.connect(path)) as new:
        for kind, name, sql in sorted(ours.execute(made), key=lambda one: one[0] != "table"):
            new.execute(sql)
            for row in ours.execute(f"SELECT * FROM {name}") if kind == "table" and name in _KEPT else ():
                new.execute(f"INSERT INTO {name} VALUES ({', '.join('?' * len(row))})", row)
        new.commit()


@contextmanager
def writing_to(folder: Path, empty: Path | None = None) -> Iterator[None]:
    """Have every run of this process, while the block runs, go to a database in `folder` and nowhere else.

    Args:
        folder: that this process alone writes to.
        empty: a copy of it is the beginning, where there is no database yet; None to have MLflow make one.
    """
    runs.lent = _store(folder, empty)
    try:
        yield
    finally:
        runs.lent = None


def lend(run: TrackedRun, folder: Path, empty: Path, going_on: Iterable[str]) -> None:
    """Give to a process that is to write to `folder` the runs that it goes on with.

    Args:
        run: the open run that they are nested under.
        folder: of the process.
        empty: see `write_empty`.
        going_on: their IDs.
    """
    for run_id in going_on:
        copying = Copying(run.database, _store(folder, empty))
        for one in copying.ask(all_runs):
            if identity(one) == run_id:
                with suppress(StoreAway, StoreRefuses):  # it goes on in a new one
                    copying.copy(one)


def take_over(run: TrackedRun, folders: Iterable[Path], going_on: Collection[str] = ()) -> None:
    """Copy what other processes have written below some folders into the database of an open run, nested under it, and
    remove their databases.

    What can't be copied now stays where it is, and a line says so. Runs that have not ended are those of processes
    that were killed; they are left out, as they would never be finished.

    Args:
        run: open.
        folders: of the processes, or above these.
        going_on: IDs of runs that have not ended and will go on.
    """
    for path in _lent_in(folders):
        theirs = Store(f"sqlite:///{path}", limits.SYNC_SECONDS)
        try:
            for one in theirs.ask(all_runs):
                is_nested = PARENT in one.data.tags  # the others are copies of parents
                if is_nested and (one.info.status != "RUNNING" or identity(one) in going_on):
                    theirs.ask(partial(_set_tag, run_id=one.info.run_id, key=PARENT, value=run.run_id))
                    _copy(run, Copying(theirs, run.database), one.info.run_id)
        except (StoreAway, StoreRefuses, MonaiCaeError) as error:
            tqdm.write(f"MLflow: can't take over the runs in {path} ({error}): --resume true tries it again")
        else:
            forget([path.parents[2]])


def forget(folders: Iterable[Path]) -> None:
    """Remove what other processes have written below some folders."""
    for path in _lent_in(folders):
        shutil.rmtree(path.parent, ignore_errors=True)
        with suppress(OSError):  # there is another
            path.parents[1].rmdir()


def _lent_in(folders: Iterable[Path]) -> list[Path]:
    return sorted({path.resolve() for folder in folders for path in folder.rglob(f"{_LENT}/*/{DATABASE}")})


def _store(folder: Path, empty: Path | None) -> Store:
    """The database in a folder; a new one has a new name, as MLflow keeps a removed one open."""
    own = folder.resolve() / _LENT
    path = next(own.glob(f"*/{DATABASE}"), own / uuid.uuid4().hex[:8] / DATABASE)
    path.parent.mkdir(parents=True, exist_ok=True)
    if empty and not path.is_file():
        with replacing(path) as temporary:
            shutil.copyfile(empty, temporary)
    return Store(f"sqlite:///{path}")


def _copy(run: TrackedRun, copying: Copying, run_id: str) -> None:
    copying.copy(copying.get(run_id))
    if server := run.server:  # as if it had been written here
        _, here = copying.there[identity(copying.get(run_id))]
        run.database.ask(partial(_set_tag, run_id=here, key=SERVER, value=server.shown))
        Mirror(run.database, server, here).close(alone=False)


def _set_tag(client: Any, run_id: str, key: str, value: str) -> None:
    client.set_tag(run_id, key, value)
