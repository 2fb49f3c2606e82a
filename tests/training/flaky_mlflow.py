"""A real MLflow server in this process, in front of which faults can be put."""

from __future__ import annotations

import threading
from collections.abc import Iterable, Iterator
from typing import Any

from werkzeug.serving import make_server


class FlakyServer:
    """MLflow's own web application on 127.0.0.1, as its `fault` lets it be.

    Attributes:
        fault: "" for none; a status such as "500"; "html", "json", "hang", "drip"; "files" where only artifacts fail.
        asked: how many requests have come in.
        left: how many requests are answered before the fault begins.
    """

    def __init__(self, application: Any) -> None:
        self.application = application
        self.port = 0
        self.fault = ""
        self.asked = 0
        self.left = 0
        self.released = threading.Event()
        self._server: Any = None

    @property
    def uri(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def start(self) -> None:
        """Listen; the second time on the port of the first."""
        self.fault, self.asked, self.left = "", 0, 0
        self.released.clear()
        self._server = make_server("127.0.0.1", self.port, self._answer, threaded=True)
        self._server.daemon_threads = True
        self.port = self._server.server_port
        threading.Thread(target=self._server.serve_forever, args=(0.01,), daemon=True).start()

    def stop(self) -> None:
        """Refuse connections, as a server that has died."""
        self.released.set()
        if self._server is not None:
            self._server.shutdown()
            self._server.server_close()
            self._server = None

    def break_down(self, fault: str, after: int = 0) -> None:
        """Begin with a fault, or die."""
        if fault == "dead":
            self.stop()
        else:
            self.fault, self.left = fault, after

    def mend(self) -> None:
        """Answer again."""
        if self._server is None:
            self.start()
        self.fault = ""
        self.released.set()
        self.released = threading.Event()

    def _answer(self, environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:
        self.asked += 1
        fault = self.fault
        if fault == "files":
            fault = "500" if "/mlflow-artifacts/" in environ["PATH_INFO"] else ""
        elif self.left > 0:
            self.left -= 1
            fault = ""
        if not fault:
            return self.application(environ, start_response)
        if fault in ("html", "json"):  # as proxies and login pages answer
            start_response("200 OK", [("Content-Type", f"text/{fault}")])
            return [b"{}" if fault == "json" else b"<html>log in</html>"]
        if fault in ("hang", "drip"):
            released = self.released
            if fault == "drip":
                start_response("200 OK", [("Content-Type", "application/json"), ("Content-Length", "100000")])
                return self._drip(released)
            released.wait(20)
        start_response(
            f"{fault if fault.isdigit() else '500'} Fault", [("Retry-After", "3600"), ("Content-Type", "text/plain")]
        )
        return [b"out of order"]

    @staticmethod
    def _drip(released: threading.Event) -> Iterator[bytes]:
        while not released.wait(0.05):
            yield b" "
