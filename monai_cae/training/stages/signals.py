"""SIGTERM, which clusters send before they kill: end after the running epoch, so that nothing is lost."""

from __future__ import annotations

import os
import signal
import threading
from types import FrameType, TracebackType
from typing import Any


class Ended(SystemExit):
    """The program ends because of SIGTERM, with the status that a shell gives to it."""

    def __init__(self) -> None:
        super().__init__(128 + signal.SIGTERM)


class Ending:
    """While a block runs, SIGTERM ends it by an exception, so that files are whole and runs are closed.

    Args:
        later: the block asks itself, by `requested`, and ends by `end`; a second SIGTERM does not wait for it.

    Attributes:
        requested: SIGTERM has come.
    """

    def __init__(self, later: bool = False) -> None:
        self.later = later
        self.requested = False
        self._previous: Any = None

    def __enter__(self) -> Ending:
        if threading.current_thread() is threading.main_thread():  # no other thread may handle signals
            self._previous = signal.signal(signal.SIGTERM, self._handle)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._previous is not None:
            signal.signal(signal.SIGTERM, self._previous)

    def end(self) -> None:
        """
        Raises:
            Ended: always.
        """
        raise Ended

    def _handle(self, number: int, frame: FrameType | None) -> None:
        if not self.later or self.requested:
            self.end()
        self.requested = True
        os.write(2, b"\nSIGTERM: ending after this epoch; a second one ends at once\n")  # print may be interrupted
