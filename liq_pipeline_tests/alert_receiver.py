"""A local HTTP server that stands for the outside world: webhooks and heartbeat services.

Belongs here: receiving, and failing on demand. Does not: assertions.
"""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any


@dataclass
class Receiver:
    """What arrived, and how the next requests are answered."""

    port: int = 0
    status: int = 200
    stall_seconds: float = 0.0
    paths: list[str] = field(default_factory=list)
    messages: list[dict[str, Any]] = field(default_factory=list)

    @property
    def url(self) -> str:
        """Its address as an Apprise URL whose path stands for a secret."""
        return f"json://127.0.0.1:{self.port}/hook/s3cretT0ken"

    @property
    def http(self) -> str:
        """Its address for plain requests."""
        return f"http://127.0.0.1:{self.port}/ping/s3cretT0ken"


@contextmanager
def receiver(status: int = 200) -> Iterator[Receiver]:
    """A running receiver on a free port."""
    state = Receiver(status=status)

    class Handler(BaseHTTPRequestHandler):
        def _answer(self) -> None:
            length = int(self.headers.get("Content-Length") or 0)
            body = self.rfile.read(length)
            state.paths.append(self.path)
            if state.stall_seconds:
                time.sleep(state.stall_seconds)
            if state.status < 400 and body:
                state.messages.append(json.loads(body))
            self.send_response(state.status)
            self.end_headers()

        do_GET = do_POST = _answer  # noqa: N815 - the names that http.server calls

        def log_message(self, *_: Any) -> None:
            """Say nothing."""

    with serving(Handler) as state.port:
        yield state


@contextmanager
def serving(handler: type[BaseHTTPRequestHandler]) -> Iterator[int]:
    """A running server on a free port of this machine; gives the port."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    try:
        yield server.server_address[1]
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
