"""Copies a run from its database to a server, in a thread that does not delay training."""

from __future__ import annotations

import shlex
import time
from contextlib import suppress
from pathlib import Path
from threading import Event, Thread
from typing import Any

from tqdm import tqdm

from monai_cae.errors import MonaiCaeError
from monai_cae.tracking import limits
from monai_cae.tracking.copying import Copying, FilesAway
from monai_cae.tracking.store import Store, StoreAway, StoreRefuses

AWAY, NO_FILES = "does not answer", "does not take files"
_SLOWEST = 5  # times as long as copying took passes before the next: it reads all metrics of the run
_told: dict[tuple[str, str], str] = {}  # server, what it does not do -> why; of the process: the next run knows


def ask(server: Store, database: Path, question: Any) -> Any:
    """A server's answer that training waits for; None if it does not answer, or did not the last time.

    Raises:
        StoreRefuses: it won't.
    """
    if (server.uri, AWAY) not in _told:
        try:
            return server.ask(question)
        except StoreAway as away:
            tell(server, database, AWAY, str(away))
    return None


def tell(server: Store, database: Path, what: str, reason: str) -> None:
    """Print what a server does not do, unless it was printed before."""
    if (server.uri, what) not in _told:
        tqdm.write(
            f"MLflow at {server.shown} {what} ({reason}): training continues; what it lacks is kept in {database} and "
            f"sent when it is back, or by: monai-cae sync {shlex.quote(str(database.parent))}"
        )
    _told[server.uri, what] = reason


class Mirror:
    """Copies what is new in an open run to a server, and the rest at the end.

    Args:
        local: the database that has the run.
        server: where to.
        run_id: in the database; "" to send only what other runs have left there.
    """

    def __init__(self, local: Store, server: Store, run_id: str = "") -> None:
        self.server = server
        self.copying = Copying(local, server)
        self.news = Event()
        self._run_id = run_id
        self._ended = Event()
        self._alone = False
        self._thread = Thread(target=self._work, name="mirror", daemon=True)
        self._thread.start()

    def close(self, alone: bool = True) -> None:
        """Wait for the rest to be copied; slow copies continue as long as the program runs.

        Args:
            alone: not nested in another run: the last chance, also for what earlier runs have left.
        """
        known = any((self.server.uri, what) in _told for what in (AWAY, NO_FILES))
        self._alone = alone
        self._ended.set()
        if alone or not known:
            seconds = limits.WAIT_SECONDS / (2 if known else 1)
            self._thread.join(seconds)
            if self._thread.is_alive():
                tell(self.server, self.copying.database, AWAY, f"it did not get everything within {seconds:.0f} s")

    def stop(self) -> None:
        """Stop copying."""
        self._run_id = ""
        self._ended.set()

    def _work(self) -> None:
        wait = limits.MIRROR_SECONDS
        while not self._ended.wait(limits.PAUSE_SECONDS if (self.server.uri, AWAY) in _told else wait):
            if self.news.is_set():
                self.news.clear()
                started = time.monotonic()
                if not self._copy(self._run_id, files=False):
                    self.news.set()
                wait = max(limits.MIRROR_SECONDS, _SLOWEST * (time.monotonic() - started))
        if self._alone or (self.server.uri, AWAY) not in _told:
            answers = not self._run_id or self._copy(self._run_id)
            with suppress(MonaiCaeError):
                if answers and self._alone:
                    all(self._copy(run.info.run_id) for run in self.copying.unsent())

    def _copy(self, run_id: str, files: bool = True) -> bool:
        """Whether the server answered, and the database too."""
        server, database = self.server, self.copying.database
        problem, reason = "", ""
        try:
            self.copying.copy(self.copying.get(run_id), files=files)
        except FilesAway as away:
            problem, reason = NO_FILES, str(away)
        except StoreRefuses as refused:
            problem, reason = f"refuses some of run {run_id}", str(refused)
        except StoreAway as away:
            tell(server, database, AWAY, str(away))
            return False
        except MonaiCaeError:  # the run itself, or `monai-cae sync`, tells
            return False
        if _told.pop((server.uri, AWAY), ""):
            tqdm.write(f"MLflow at {server.shown} answers again")
        if problem:
            tell(server, database, problem, reason)
        elif files:
            _told.pop((server.uri, NO_FILES), None)
        return True
