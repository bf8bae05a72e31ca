"""Loopback `/healthz` and Prometheus `/metrics`, from the same Status that `liq status` prints.

Belongs here: exposing a Status over HTTP. Does not: collecting or judging it (status.py).
"""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import urlsplit

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from liq_pipeline.errors import LiqError
from liq_pipeline.operations.status import Status

LOOK_SECONDS = 5.0
"""A look at the system is kept this long: a scrape must not cost the tick its database."""
CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
HEALTH_NUMBER = {"healthy": 0, "degraded": 1, "down": 2}
OUTBOX_STATES = ("due", "failed", "held")
"""None of them is known to be zero as well, once the database has answered."""
SOURCE_STATES = ("starting", "up", "degraded", "down", "off")


class StatusCollector(Collector):
    """Turns a Status into gauges. Unknown values are left out: a gauge that is absent is not zero."""

    def __init__(self, look: Callable[[], Status]) -> None:
        self._look = look

    def collect(self) -> Iterator[Metric]:
        """All gauges of one look."""
        status = self._look()
        now = datetime.now(UTC)

        def gauge(name: str, text: str, value: float | None, labels: dict[str, str] | None = None) -> Iterator[Metric]:
            if value is None:
                return
            family = GaugeMetricFamily(f"liq_{name}", text, labels=tuple(labels or ()))
            family.add_metric(tuple((labels or {}).values()), float(value))
            yield family

        yield from gauge("health", "0 healthy, 1 degraded, 2 down", HEALTH_NUMBER[status.health])
        world = status.world or "none"
        last = status.ticks.get("last_committed_at")
        yield from gauge(
            "tick_age_seconds",
            "since the newest tick was committed",
            None if last is None else (now - last).total_seconds(),
            {"world": world},
        )
        for name in ("due", "late", "missed"):
            yield from gauge(
                f"ticks_{name}", f"ticks {name} in the last hour", status.ticks.get(name), {"world": world}
            )
        lag = GaugeMetricFamily("liq_lag_messages", "messages in Kafka that have not landed", labels=("topic",))
        for topic, behind in status.lag.items():
            if behind is not None:
                lag.add_metric((topic,), behind)
        yield lag
        for name, text in (
            ("risk", "liquidation risk, 0 to 100"),
            ("score_high", "risk with the full budget of unknown components"),
            ("pressure", "stablecoin pressure, -100 to 100"),
            ("coverage", "share of the budget that is known, 0 to 1"),
            ("cascade_probability_4h", "probability of a cascade within 4 hours"),
        ):
            family = GaugeMetricFamily(f"liq_{name}", text, labels=("world", "symbol"))
            for symbol, row in status.symbols.items():
                if row.get(name) is not None:
                    family.add_metric((world, symbol), row[name])
            yield family
        sources = GaugeMetricFamily("liq_source_state", "1 for the state a source is in", labels=("source", "state"))
        for source in status.sources:
            for state in SOURCE_STATES:
                sources.add_metric((source["name"], state), float(source["state"] == state))
        yield sources
        outbox = GaugeMetricFamily("liq_outbox_messages", "messages by state", labels=("state",))
        if "outbox" in status.alerts:
            for state, count in {**dict.fromkeys(OUTBOX_STATES, 0), **status.alerts["outbox"]}.items():
                outbox.add_metric((state,), count)
        yield outbox
        yield from gauge("alerts_open", "open alerts", status.alerts.get("open"))
        yield from gauge("dead_letters", "messages that did not fit", status.dead_letters.get("total"))
        yield from gauge("ingest_gaps_open", "holes that may still be healed", status.gaps_open)
        for part in status.storage.get("parts", ()):
            labels = {"part": part["part"]}
            yield from gauge("storage_bytes", "newest measured size", part["size_bytes"], labels)
            yield from gauge("storage_growth_bytes_per_day", "growth over up to 30 days", part["bytes_per_day"], labels)
        yield from gauge("disk_free_bytes", "room on the home's disk", status.storage.get("disk_free_bytes"))
        yield from gauge("disk_days_until_full", "at the measured growth", status.storage.get("days_until_full"))
        yield from gauge(
            "supervisor_silence_seconds", "since the supervisor last moved", status.supervisor_silence_seconds
        )


class _Remembered:
    """One look at a time, kept for LOOK_SECONDS."""

    def __init__(self, look: Callable[[], Status]) -> None:
        self._look = look
        self._lock = threading.Lock()
        self._status: Status | None = None
        self._taken = 0.0

    def __call__(self) -> Status:
        with self._lock:
            if self._status is None or time.monotonic() - self._taken > LOOK_SECONDS:
                self._status = self._look()
                self._taken = time.monotonic()
            return self._status


def make_server(port: int, look: Callable[[], Status], *, host: str = "127.0.0.1") -> ThreadingHTTPServer:
    """A server that has not been started. /healthz: 200 healthy or degraded, 503 down or not to be found out.

    LiqError if the port cannot be had.
    """
    remembered = _Remembered(look)
    registry = CollectorRegistry(auto_describe=False)
    registry.register(StatusCollector(remembered))

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            try:
                self._look()
            except (BrokenPipeError, ConnectionResetError):
                pass  # whoever asked has gone
            except Exception as error:  # a page that falls silent would look like a dead machine
                words = f"{type(error).__name__}: {' '.join(str(error).split())}"
                body = json.dumps({"health": "down", "problems": [f"The status cannot be collected: {words}"]}).encode()
                self._answer(503, "application/json", body)

        do_HEAD = do_GET  # noqa: N815 - the name that http.server calls

        def _look(self) -> None:
            path = urlsplit(self.path).path.rstrip("/")
            if path == "/metrics":
                self._answer(200, CONTENT_TYPE, generate_latest(registry))
            elif path == "/healthz":
                status = remembered()
                body = json.dumps({"health": status.health, "problems": status.problems}).encode()
                self._answer(503 if status.health == "down" else 200, "application/json", body)
            else:
                self._answer(404, "text/plain", b"only /healthz and /metrics are here\n")

        def _answer(self, code: int, content_type: str, body: bytes) -> None:
            self.send_response(code)
            self.send_header("Content-Type", content_type)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(body)

        def log_message(self, format: str, *args: object) -> None:
            """A scrape every few seconds is not worth a log line."""

    try:
        return ThreadingHTTPServer((host, port), Handler)
    except OSError as error:
        raise LiqError(
            f"the health page cannot listen on {host}:{port} ({error.strerror}): choose another LIQ_METRICS_PORT"
        ) from error


def serve_metrics(port: int, look: Callable[[], Status], stop: threading.Event, *, host: str = "127.0.0.1") -> None:
    """Serve until `stop` is set."""
    server = make_server(port, look, host=host)
    thread = threading.Thread(target=server.serve_forever, name="metrics", daemon=True)
    thread.start()
    stop.wait()
    server.shutdown()
    thread.join()
    server.server_close()
