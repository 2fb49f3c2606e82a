"""MLflow's store, with a limit on every wait; tells a store that is away from one that refuses."""

from __future__ import annotations

import logging
import os
import re
import sqlite3
from collections.abc import Callable
from contextlib import closing
from functools import partial
from pathlib import Path
from queue import Empty, SimpleQueue
from threading import Thread
from typing import Any, TypeVar

from monai_cae.errors import MonaiCaeError
from monai_cae.tracking import limits

# MLflow's own are 120 s for a request, 7 retries with growing pauses, and as long as a server's Retry-After says.
_SETTINGS = {
    "MLFLOW_HTTP_REQUEST_TIMEOUT": str(limits.REQUEST_SECONDS),
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "0",
    "MLFLOW_HTTP_RESPECT_RETRY_AFTER_HEADER": "false",
    "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false",
    "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",  # with the password, if there is one in it; our summary has it
}
# MLflow would report its own usage to its makers from the machine that holds the patients' images.
os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
_SQLITE = "sqlite:///"
_SCHEMES = (_SQLITE, "http://", "https://", "postgresql", "mysql", "mssql", "databricks")
_TOO_BUSY = (408, 429)
# The few words that matter in an error of requests, urllib3 or SQLAlchemy.
_REASON = re.compile(
    r"timed out|Connection aborted|\d+ error responses|error code \d+|(?<=\] )[A-Z][^'\")\]]+|(?<=Error\) )[^\n]+"
)
T = TypeVar("T")


class StoreAway(Exception):
    """The store does not answer or can't work now; a later try may succeed."""


class StoreRefuses(Exception):
    """The store refuses: no login, no such run, a forbidden action."""


class Store:
    """One MLflow store, with one request at a time.

    Args:
        tracking_uri: `sqlite:///...` or a server's `http(s)://...`.
        seconds: longest wait for one answer; 0 for the usual one.

    Raises:
        MonaiCaeError: a kind of store that MLflow does not have.

    Attributes:
        shown: the address without user name and password.
        database: the file of a SQLite database; None for anything else.
    """

    def __init__(self, tracking_uri: str, seconds: float = 0) -> None:
        self.uri, self.shown = tracking_uri, without_credentials(tracking_uri)
        if not tracking_uri.startswith(_SCHEMES):
            raise MonaiCaeError(
                f"tracking_uri must be sqlite:///FILE or http(s)://SERVER, not {self.shown!r}: MLflow has no others"
            )
        self.database = Path(tracking_uri.removeprefix(_SQLITE)) if tracking_uri.startswith(_SQLITE) else None
        self.seconds = seconds or (limits.LOCAL_SECONDS if self.database else limits.WAIT_SECONDS)
        self._client: Any = None

    def ask(self, question: Callable[[Any], T]) -> T:
        """Call `question` with an MlflowClient.

        The call runs in a thread that is abandoned when it takes too long: name servers, object stores and servers that
        answer byte by byte ignore MLflow's timeouts.

        Raises:
            StoreAway: with the reason in a few words.
            StoreRefuses: with what MLflow says.
        """
        try:
            self._client = self._client or self._open()
            return _within(self.seconds, partial(question, self._client))
        except (StoreAway, StoreRefuses, MonaiCaeError):
            raise
        except Exception as error:  # whatever the libraries of databases, servers and object stores raise
            raise self._meaning(error) from error

    def _open(self) -> Any:
        for name, value in _SETTINGS.items():
            os.environ.setdefault(name, value)
        for chatty in ("alembic", "mlflow.store.db.utils"):  # tell every migration, and every error with its traceback
            logging.getLogger(chatty).setLevel(logging.CRITICAL)
        if self.database is not None:
            _check(self.database)
        from mlflow import MlflowClient

        return _within(limits.OPEN_SECONDS if self.database else self.seconds, partial(MlflowClient, self.uri))

    def _meaning(self, error: Exception) -> Exception:
        from mlflow.exceptions import InvalidUrlException, MlflowException

        text = str(error).replace(self.uri, self.shown).strip()
        first = text.partition("\n")[0]
        if isinstance(error, MlflowException):
            status = error.get_http_status_code()
            if isinstance(error, InvalidUrlException) or (status < 500 and status not in _TOO_BUSY):
                return StoreRefuses(first[:300])
        known = _REASON.search(text)
        return StoreAway(known[0] if known else first[:120] or "no reason given")


def without_credentials(tracking_uri: str) -> str:
    """The address without user name, password and query, fit to print and write."""
    scheme, separator, rest = tracking_uri.partition("://")
    if not separator or rest.startswith("/"):  # a file
        return tracking_uri
    return (
        f"{scheme}://{re.split('[?#]', rest.rpartition('@')[2])[0]}"  # a password may have / and ?, against the rules
    )


def _check(database: Path) -> None:
    """Refuse a file that is no database: MLflow would try for minutes."""
    if not database.exists():
        print(f"making the MLflow database {database} (once, about 10 s)", flush=True)
        return
    try:
        with closing(sqlite3.connect(database, timeout=limits.REQUEST_SECONDS)) as connection:
            connection.execute("PRAGMA schema_version")
    except sqlite3.OperationalError:
        raise
    except sqlite3.DatabaseError as error:
        raise MonaiCaeError(
            f"{database} is not an MLflow database ({error}): move it away, or choose another"
        ) from error


def _within(seconds: float, function: Callable[[], T]) -> T:
    outcome: SimpleQueue[tuple[Any, BaseException | None]] = SimpleQueue()

    def work() -> None:
        try:
            outcome.put((function(), None))
        except BaseException as error:
            outcome.put((None, error))

    Thread(target=work, name="mlflow", daemon=True).start()
    try:
        value, error = outcome.get(timeout=seconds)
    except Empty:
        raise StoreAway(f"no answer within {seconds:.0f} s") from None
    if error is not None:
        raise error
    return value
