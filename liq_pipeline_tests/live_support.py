"""Local stand-ins for the outside world: one HTTP server that answers as every venue, from frames or with faults.

Belongs here: what the tests of the live sources share. Does not: assertions.
"""

from __future__ import annotations

import json
import socket
import struct
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl, urlsplit

import psycopg
from psycopg.rows import dict_row
from websockets.exceptions import ConnectionClosed
from websockets.sync.server import ServerConnection, serve

from liq_pipeline.store.landing.lander import Lander

FRAMES = Path(__file__).parent / "frames"


def frames_of(source: str) -> dict[str, Any]:
    """{"routes": {path: answer}, "stream": [message]} of one source."""
    loaded: dict[str, Any] = json.loads((FRAMES / f"{source}.json").read_text())
    return loaded


@dataclass
class Reply:
    """What the server does with one request. body: JSON value, or bytes sent as they are."""

    body: Any = None
    status: int = 200
    headers: Mapping[str, str] = field(default_factory=dict)
    delay_seconds: float = 0.0
    cut_after: int | None = None
    """Promise the whole body and close after so many bytes."""
    reset: bool = False
    """Close the connection hard, without an answer."""
    trickle_seconds: float | None = None
    """Send one byte each so many seconds."""


Fault = Callable[[str, str, dict[str, str]], Reply | None]
"""(source, path, query) -> what to do instead of the frame, or None for the frame."""


@dataclass(frozen=True)
class Asked:
    """A request that the server has seen."""

    source: str
    path: str
    query: dict[str, str]
    at: float


class _HttpServer(ThreadingHTTPServer):
    daemon_threads = True
    # The default of 5 makes the kernel drop connections of a burst, and each comes back a second later.
    request_queue_size = 256


class VenueServer:
    """All sources behind one port, told apart by the first part of the path: http://host:port/<source>/..."""

    def __init__(self) -> None:
        self.routes: dict[str, dict[str, Any]] = {}
        self.fault: Fault | None = None
        self.asked: list[Asked] = []
        self._server = _HttpServer(("127.0.0.1", 0), self._handler())
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True)
        self._thread.start()

    @property
    def port(self) -> int:
        return int(self._server.server_address[1])

    def url(self, source: str) -> str:
        return f"http://127.0.0.1:{self.port}/{source}"

    def urls(self) -> dict[str, str]:
        """LIQ_<SOURCE>_URL of every source that has frames here."""
        return {source: self.url(source) for source in self.routes}

    def serve(self, source: str, routes: Mapping[str, Any] | None = None) -> None:
        """Answer as `source`, from its frames unless other routes are given."""
        self.routes[source] = dict(frames_of(source)["routes"] if routes is None else routes)

    def counts(self) -> Counter[str]:
        """Requests seen, per source."""
        return Counter(asked.source for asked in self.asked)

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()

    def answer(self, source: str, path: str, query: dict[str, str], body_type: str | None) -> Reply:
        """The most particular route that fits: its path, and every parameter it names."""
        name = path if body_type is None else f"{path} {body_type}"
        best: tuple[int, Any] | None = None
        for route, frame in self.routes.get(source, {}).items():
            route_path, _, wanted = route.partition("?")
            parameters = dict(parse_qsl(wanted))
            if route_path != name or any(query.get(key) != value for key, value in parameters.items()):
                continue
            if best is None or len(parameters) > best[0]:
                best = len(parameters), frame
        if best is None:
            return Reply({"error": f"no frame for {source} {name}"}, status=404)
        return best[1] if isinstance(best[1], Reply) else Reply(best[1])

    def _handler(self) -> type[BaseHTTPRequestHandler]:
        outer = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"
            # Headers and body are two writes: Nagle would hold the second 40 ms for the client's delayed ACK.
            disable_nagle_algorithm = True

            def do_GET(self) -> None:
                self._reply(None)

            def do_POST(self) -> None:
                sent = self.rfile.read(int(self.headers.get("Content-Length", 0)))
                self._reply(json.loads(sent))

            def _reply(self, body: Any) -> None:
                parts = urlsplit(self.path)
                _, source, *rest = parts.path.split("/")
                path, query = "/" + "/".join(rest), dict(parse_qsl(parts.query))
                body_type = body.get("type", body.get("method")) if isinstance(body, dict) else None
                if body is not None:
                    query |= {"body": json.dumps(body)}
                outer.asked.append(Asked(source, path, query, time.monotonic()))
                reply = outer.fault(source, path, query) if outer.fault else None
                if reply is None:
                    reply = outer.answer(source, path, query, body_type)
                self._send(reply)

            def _send(self, reply: Reply) -> None:
                time.sleep(reply.delay_seconds)
                if reply.reset:
                    self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                    self.close_connection = True
                    self.connection.close()
                    return
                sent = reply.body if isinstance(reply.body, bytes) else json.dumps(reply.body).encode()
                self.send_response(reply.status)
                for name, value in {"Content-Type": "application/json", **reply.headers}.items():
                    self.send_header(name, value)
                self.send_header("Content-Length", str(len(sent)))
                self.end_headers()
                if reply.cut_after is not None:
                    self.wfile.write(sent[: reply.cut_after])
                    self.close_connection = True
                elif reply.trickle_seconds is not None:
                    for byte in sent:
                        self.wfile.write(bytes([byte]))
                        self.wfile.flush()
                        time.sleep(reply.trickle_seconds)
                else:
                    self.wfile.write(sent)

            def handle(self) -> None:
                try:
                    super().handle()
                except OSError:
                    self.close_connection = True

            def finish(self) -> None:
                try:
                    super().finish()
                except OSError:
                    self.close_connection = True

            def log_message(self, *_: Any) -> None:
                pass

        return Handler


@contextmanager
def venue_server(*sources: str) -> Iterator[VenueServer]:
    """A running server that answers as these sources from their frames."""
    server = VenueServer()
    try:
        for source in sources:
            server.serve(source)
        yield server
    finally:
        server.close()


def land_everything(database_url: str, kafka: str, prefix: str) -> int:
    """Drain Kafka into the tables; returns the rows landed."""
    with Lander(database_url, kafka, prefix) as lander:
        return lander.land_to_end(deadline_seconds=30).rows_landed


def rows(database_url: str, query: str, *parameters: Any) -> list[dict[str, Any]]:
    """The rows of a query as dictionaries."""
    with psycopg.connect(database_url, row_factory=dict_row) as conn:
        return conn.execute(query, parameters).fetchall()


class StreamServer:
    """A local websocket venue: confirms subscriptions with `greeting` and sends what it is told to."""

    def __init__(self, greeting: list[Any] | None = None, *, pack: Callable[[bytes], bytes] | None = None) -> None:
        """pack: what the venue does to its frames before it sends them, as binary ones."""
        self.greeting = greeting or []
        self._pack = pack
        self.heard: list[tuple[str, str]] = []
        self.connections = 0
        self._live: set[ServerConnection] = set()
        self._lock = threading.Lock()
        self._server = serve(self._handle, "127.0.0.1", 0, ping_interval=None)
        self._thread = threading.Thread(target=self._server.serve_forever, daemon=True)
        self._thread.start()

    @property
    def url(self) -> str:
        return f"ws://127.0.0.1:{self._server.socket.getsockname()[1]}"

    def send(self, message: Any) -> int:
        """To everyone who has subscribed; returns how many that were."""
        frame = self._frame(message)
        with self._lock:
            for connection in self._live:
                connection.send(frame)
            return len(self._live)

    def _frame(self, message: Any) -> str | bytes:
        text = message if isinstance(message, str) else json.dumps(message)
        return text if self._pack is None else self._pack(text.encode())

    def drop(self) -> None:
        """Close every connection."""
        with self._lock:
            for connection in self._live:
                connection.close()
            self._live.clear()

    def wait_for_subscriber(self, seconds: float = 10.0) -> None:
        wait_until(lambda: bool(self._live), seconds, "nobody subscribed")

    def close(self) -> None:
        self.drop()
        self._server.shutdown()

    def _handle(self, connection: ServerConnection) -> None:
        self.connections += 1
        try:
            for received in connection:
                self.heard.append((connection.request.path if connection.request else "", str(received)))
                if "subscribe" in str(received).lower() or '"op":"sub"' in str(received):
                    for message in self.greeting:
                        connection.send(self._frame(message))
                    with self._lock:
                        self._live.add(connection)
        except ConnectionClosed:
            pass
        finally:
            with self._lock:
                self._live.discard(connection)


def wait_until(condition: Callable[[], bool], seconds: float, otherwise: str) -> None:
    """Return once the condition holds; fail with `otherwise` after so many seconds."""
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            raise AssertionError(f"{otherwise} within {seconds:g} s")
        time.sleep(0.02)
