"""MLflow's store: opened and asked with a limit on every wait, and told apart when it is away from when it refuses."""

from __future__ import annotations

import logging
import os
import re
import sqlite3
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from queue import Empty, SimpleQueue
from threading import Thread
from typing import Any, TypeVar
from urllib.parse import urlsplit, urlunsplit

from monai_cae.delivery import limits
from monai_cae.errors import MonaiCaeError

# MLflow's own are 120 s for a request, 7 retries with growing pauses, and as long as a server's Retry-After says.
_SETTINGS = {
    "MLFLOW_HTTP_REQUEST_TIMEOUT": str(limits.REQUEST_SECONDS),
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "0",
    "MLFLOW_HTTP_RESPECT_RETRY_AFTER_HEADER": "false",
    "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",  # with the password, if there is one in it; our summary has it
}
# MLflow would report its own usage to its makers from the machine that holds the patients' images.
os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
_SCHEMES = ("sqlite:///", "http://", "https://", "postgresql", "mysql", "mssql", "databricks")
_SQLITE = "sqlite:///"
_TOO_BUSY = (408, 429)
_paused_until: dict[tuple[str, str], float] = {}  # of the process: the next stage need not find out again
T = TypeVar("T")


class StoreAway(Exception):
    """The store does not answer, or can't do its work now; the same may be asked later."""


class StoreRefuses(Exception):
    """The store answers that it won't: no login, no such run, something it does not allow."""


class Store:
    """One MLflow store, asked for one thing at a time.

    Args:
        tracking_uri: `sqlite:///...` or a server's `http(s)://...`.
        seconds: longest wait for one answer, where it is not a run's `WAIT_SECONDS`.

    Raises:
        MonaiCaeError: a kind of store that MLflow does not have.

    Attributes:
        shown: the address without user name and password.
    """

    def __init__(self, tracking_uri: str, seconds: float | None = None) -> None:
        if not tracking_uri.startswith(_SCHEMES):
            raise MonaiCaeError(
                f"tracking_uri must be sqlite:///FILE or http(s)://SERVER, not {without_credentials(tracking_uri)!r}: "
                "MLflow has no other stores"
            )
        self.uri = tracking_uri
        self.shown = without_credentials(tracking_uri)
        self.seconds = limits.WAIT_SECONDS if seconds is None else seconds
        self._client: Any = None

    def ask(
        self, question: Callable[[Any], T], seconds: float | None = None, raised: tuple[type[Exception], ...] = ()
    ) -> T:
        """What `question` makes of an MlflowClient.

        Args:
            question: called in a thread, which is left behind when it takes too long: name servers, object stores and
                servers that answer byte by byte keep to no limit of MLflow's.
            seconds: longest wait, where it is less than this store's.
            raised: what else the question raises when a store is away.

        Raises:
            StoreAway: with the reason in a few words.
            StoreRefuses: with what MLflow says.
        """
        from mlflow.exceptions import MlflowException
        from sqlalchemy.exc import SQLAlchemyError

        known: tuple[type[Exception], ...] = (MlflowException, SQLAlchemyError, sqlite3.Error, OSError, *raised)
        limit = self.seconds if seconds is None else min(seconds, self.seconds)
        try:
            if self._client is None:
                self._client = self._open(limit)
            return _within(limit, partial(question, self._client))
        except (StoreAway, StoreRefuses, MonaiCaeError):
            raise
        except known as error:
            raise _meaning(error, self) from error

    def pause(self, lane: str) -> None:
        """Remember, for every run of this process, that the store is away."""
        _paused_until[self.uri, lane] = time.monotonic() + limits.PAUSE_SECONDS

    def resume(self, lane: str) -> None:
        """Forget it: the store has answered, or is to be asked once more."""
        _paused_until.pop((self.uri, lane), None)

    def paused(self, lane: str) -> bool:
        """Whether it is too early to ask again."""
        return time.monotonic() < _paused_until.get((self.uri, lane), 0.0)

    def known_away(self, lane: str) -> bool:
        """Whether the store's last answer was none."""
        return (self.uri, lane) in _paused_until

    def _open(self, limit: float) -> Any:
        for name, value in _SETTINGS.items():
            os.environ.setdefault(name, value)
        for chatty in ("alembic", "mlflow.store.db.utils"):  # tell every migration, and every error with its traceback
            logging.getLogger(chatty).setLevel(logging.CRITICAL)
        if self.uri.startswith(_SQLITE):
            _prepare_file(Path(self.uri.removeprefix(_SQLITE)))
        from mlflow import MlflowClient

        if self.uri.startswith(("http://", "https://")):
            return MlflowClient(self.uri)
        again = any(uri == self.uri for uri, _ in _paused_until)
        return _within(limit if again else max(limit, limits.OPEN_SECONDS), partial(MlflowClient, self.uri))


def without_credentials(tracking_uri: str) -> str:
    """The address as it may be printed and written: without user name, password and query."""
    parts = urlsplit(tracking_uri)
    if not parts.netloc:
        return tracking_uri
    return urlunsplit((parts.scheme, parts.netloc.rpartition("@")[2], parts.path, "", ""))


def _prepare_file(database: Path) -> None:
    """Make the folder of a SQLite database, and refuse a file that is none: MLflow would try for minutes."""
    try:
        database.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise MonaiCaeError(f"can't write {database} ({error.strerror}): choose another --output_dir") from error
    if not database.exists():
        print(f"making the MLflow database {database} (once, about 10 s)", flush=True)
        return
    connection = sqlite3.connect(database, timeout=limits.REQUEST_SECONDS)
    try:
        connection.execute("PRAGMA schema_version")
    except sqlite3.OperationalError:
        raise
    except sqlite3.DatabaseError as error:
        raise MonaiCaeError(
            f"{database} is not an MLflow database ({error}): move it away, or choose another --tracking_uri"
        ) from error
    finally:
        connection.close()


def _within(seconds: float, function: Callable[[], T]) -> T:
    outcome: SimpleQueue[tuple[Any, BaseException | None]] = SimpleQueue()

    def work() -> None:
        try:
            outcome.put((function(), None))
        except BaseException as error:
            outcome.put((None, error))

    Thread(target=work, name="mlflow", daemon=True).start()
    try:
        value, error = outcome.get(timeout=max(seconds, 0))
    except Empty:
        raise StoreAway(f"no answer within {seconds:.0f} s") from None
    if error is not None:
        raise error
    return value


def _meaning(error: Exception, store: Store) -> Exception:
    from mlflow.exceptions import InvalidUrlException, MlflowException

    text = str(error).replace(store.uri, store.shown).strip()
    if isinstance(error, MlflowException):
        status = error.get_http_status_code()
        if isinstance(error, InvalidUrlException) or (status < 500 and status not in _TOO_BUSY):
            return StoreRefuses(text.partition("\n")[0][:300])
    return StoreAway(_in_short(text))


def _in_short(text: str) -> str:
    """The few words that matter in an error of requests, urllib3 or SQLAlchemy."""
    if "timed out" in text or "timeout" in text.lower():
        return f"no answer within {limits.REQUEST_SECONDS} s"
    if code := re.search(r"too many (\d+) error responses|error code (\d+)|^(\d{3}) \w+ Error", text):
        return f"it answers with error {code[1] or code[2] or code[3]}"
    if errno := re.search(r"\[Errno -?\d+\] ([^'\")\]]+)", text):
        return errno[1]
    if "RemoteDisconnected" in text or "Connection aborted" in text:
        return "it closed the connection"
    if sql := re.search(r"\(\w+\.\w+Error\) ([^\n]+)", text):
        return sql[1]
    return text.partition("\n")[0][:120] or "no reason given"
