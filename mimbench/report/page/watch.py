"""`mimbench report --watch`: the page and runs in progress, for browsers on this machine. Nothing is written."""

from __future__ import annotations

import hashlib
import json
import secrets
import sys
import threading
import time
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from mimbench.errors import InputError
from mimbench.report.page.build import ARTIFACTS, read_page_data
from mimbench.report.page.pictures import TYPES, Pictures
from mimbench.report.viewer.render import render_page
from mimbench.store.progress import as_json, list_running
from mimbench.store.reading import failure_files, record_files
from mimbench.text import print_line

HOST = "127.0.0.1"
SECONDS = 2
"""Between two requests of a browser."""
_PAUSE = 10
"""The page is built again after so many times the seconds that building it took, at the earliest."""


class LivePage:
    """The page of a results folder, built again after its records or failures have changed. For several threads."""

    def __init__(self, results: Path) -> None:
        """Raises InputError: no such folder, or a damaged record."""
        self.results = results
        self._turn = threading.Lock()
        self._problem, self._not_before = "", 0.0
        self._build(self._stamp())

    def page(self) -> str:
        """The newest page that could be built."""
        self._refresh()
        return self._page

    def state(self) -> dict[str, Any]:
        """Runs in progress, what keeps the page from being built, and the stamp of the newest page."""
        self._refresh()
        return {"running": as_json(list_running(self.results)), "problem": self._problem, "stamp": self._built}

    def picture(self, name: str) -> Path | None:
        """The file of a picture that the page refers to as artifacts/NAME."""
        return self._pictures.files.get(name)

    def _refresh(self) -> None:
        with self._turn:
            if time.monotonic() < self._not_before:
                return
            try:
                stamp = self._stamp()
                if stamp != self._built:
                    self._build(stamp)
                self._problem = ""
            except InputError as error:
                if str(error) != self._problem:
                    print_line(f"mimbench: {error}", error=True)
                self._problem = str(error)

    def _build(self, stamp: str) -> None:
        began, pictures = time.monotonic(), Pictures()
        try:
            data = read_page_data(self.results, pictures, may_be_empty=True)
            self._page = render_page(data | {"live": {"stamp": stamp, "seconds": SECONDS}})
            self._pictures, self._built = pictures, stamp
        finally:
            ended = time.monotonic()
            self._not_before = ended + _PAUSE * (ended - began)

    def _stamp(self) -> str:
        """Another text after any change of a record or failure."""
        digest = hashlib.sha256()
        for path in (*record_files(self.results), *failure_files(self.results)):
            try:
                status = path.stat()
            except OSError:  # it has just been removed
                continue
            digest.update(f"{path} {status.st_mtime_ns} {status.st_size}\n".encode(errors="surrogateescape"))
        return digest.hexdigest()


class WatchServer(ThreadingHTTPServer):
    """Answers browsers on this machine alone, and only at addresses below a drawn token.

    The token keeps out other users of the machine, who reach the port but do not know the address.
    """

    daemon_threads = True

    def __init__(self, live: LivePage, port: int) -> None:
        """port: 0: any free one. Raises InputError: it cannot be used."""
        self.live, self.token = live, secrets.token_urlsafe(16)
        try:
            super().__init__((HOST, port), _Handler)
        except OSError as error:
            why = (error.strerror or str(error)).lower()
            raise InputError(f"--port {port} cannot be used ({why}); leave it out to get a free one") from error

    @property
    def address(self) -> str:
        return f"http://{HOST}:{self.server_port}/{self.token}/"

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A browser that went away is no error."""
        if not isinstance(sys.exception(), ConnectionError):
            super().handle_error(request, client_address)


class _Handler(BaseHTTPRequestHandler):
    server: WatchServer

    def do_GET(self) -> None:
        # DNS rebinding: a page of another site whose name leads to this machine does not get the results.
        if self.headers.get("Host") not in (
            f"{HOST}:{self.server.server_port}",
            f"localhost:{self.server.server_port}",
        ):
            self.send_error(HTTPStatus.FORBIDDEN)
            return
        live, prefix = self.server.live, f"/{self.server.token}"
        whole = self.path.split("?")[0]
        path = whole[len(prefix) :]
        if not secrets.compare_digest(whole[: len(prefix)].encode(), prefix.encode()):
            self.send_error(HTTPStatus.NOT_FOUND)
        elif path == "/":
            self._send("text/html; charset=utf-8", live.page().encode())
        elif path == "/live.json":
            self._send("application/json", json.dumps(live.state(), allow_nan=False).encode())
        elif (picture := live.picture(path.removeprefix(f"/{ARTIFACTS}/"))) and picture.exists():
            self._send(TYPES[picture.suffix.lower()], picture.read_bytes())
        else:
            self.send_error(HTTPStatus.NOT_FOUND)

    def _send(self, kind: str, content: bytes) -> None:
        self.send_response(HTTPStatus.OK)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(content)))
        self.send_header("Cache-Control", "no-store")
        self.send_header("X-Content-Type-Options", "nosniff")
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, format: str, *args: Any) -> None:
        """Requests are not printed."""


def serve(results: Path, port: int) -> None:
    """Serve the page until Ctrl-C.

    Raises:
        InputError: no such folder, a damaged record, or a port that cannot be used.
    """
    live = LivePage(results)
    try:
        with WatchServer(live, port) as server:
            print_line(f"{server.address} shows {results} and its runs in progress; Ctrl-C ends it")
            sys.stdout.flush()
            server.serve_forever()
    except KeyboardInterrupt:
        print_line("ended")
