"""Our own webhook over a real socket: signed, told once, patient where it is asked to be, and silent about its key."""

from __future__ import annotations

import hashlib
import hmac
import json
import logging
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest
from psycopg.rows import dict_row
from pydantic import SecretStr

from liq_pipeline.alerting.book import advance, show_alert
from liq_pipeline.alerting.sending.delivery import deliver_due, send_test
from liq_pipeline.settings import Settings
from liq_pipeline.store.connection import connect
from liq_pipeline_tests.alert_receiver import receiver
from liq_pipeline_tests.alert_support import VERSION, Reading, point, running, series, world

KEY = "s3cretKeyOfOurs"


@dataclass
class Hook:
    """What arrived, word for word, and how the next requests are answered: (status, headers)."""

    port: int = 0
    answers: list[tuple[int, dict[str, str]]] = field(default_factory=list)
    bodies: list[bytes] = field(default_factory=list)
    headers: list[dict[str, str]] = field(default_factory=list)

    def url(self, **options: str) -> str:
        more = "".join(f"&{name}={value}" for name, value in options.items())
        return f"liq+http://127.0.0.1:{self.port}/desk?secret={KEY}{more}"


@contextmanager
def hooked(*answers: tuple[int, dict[str, str]]) -> Iterator[Hook]:
    state = Hook(answers=list(answers))

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            state.bodies.append(self.rfile.read(int(self.headers["Content-Length"])))
            state.headers.append(dict(self.headers))
            status, headers = state.answers.pop(0) if state.answers else (200, {})
            self.send_response(status)
            for name, value in headers.items():
                self.send_header(name, value)
            self.end_headers()

        def log_message(self, *_: Any) -> None:
            """Say nothing."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    state.port = server.server_address[1]
    threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()
    try:
        yield state
    finally:
        server.shutdown()
        server.server_close()


def queued(database_url: str, settings: Settings, **reading: Any) -> None:
    given = Reading(60.0, **reading)
    with connect(database_url) as connection:
        advance(connection, world(), [point(0, {"BTC": given})], settings, VERSION)


def channels(*urls: str, **values: Any) -> Settings:
    return Settings(alert_urls=tuple(map(SecretStr, urls)), alert_timeout_seconds=0.5, **values)


def outbox(database_url: str) -> dict[str, Any]:
    with connect(database_url) as connection, connection.cursor(row_factory=dict_row) as cursor:
        [row] = cursor.execute("SELECT * FROM outbox WHERE topic = 'channels'").fetchall()
        return row


def later(seconds: float) -> datetime:
    return datetime.now(UTC) + timedelta(seconds=seconds)


def test_a_message_is_signed_whole_and_named(database_url: str) -> None:
    with hooked() as hook:
        settings = channels(hook.url())
        queued(database_url, settings, under_way=running())
        assert deliver_due(database_url, settings).sent == 1
    [body], [headers] = hook.bodies, hook.headers
    expected = hmac.new(KEY.encode(), headers["X-Liq-Timestamp"].encode() + b"." + body, hashlib.sha256).hexdigest()
    assert headers["X-Liq-Signature"] == f"sha256={expected}"
    record = json.loads(body)
    assert headers["Idempotency-Key"] == record["id"]
    assert (record["rule"], record["subject"], record["side"], record["severity"]) == (
        "under_way", "BTC", "long", "WARNING",
    )  # fmt: skip
    assert [other["rule"] for other in record["also"]] == ["severity"]
    assert record["receipt"]["under_way"]["excursion"] == pytest.approx(-0.042)
    assert record["schema_version"] >= 1
    assert KEY not in body.decode()


def test_it_waits_as_long_as_it_is_asked_to_and_sends_the_same_id(database_url: str) -> None:
    with hooked((429, {"Retry-After": "120"}), (503, {})) as hook:
        settings = channels(hook.url())
        queued(database_url, settings)
        assert deliver_due(database_url, settings).retried == 1
        assert outbox(database_url)["due_at"] > later(110)
        assert deliver_due(database_url, settings, later(60)).sent == 0, "it asked for two minutes"
        assert deliver_due(database_url, settings, later(121)).retried == 1
        assert deliver_due(database_url, settings, later(400)).sent == 1
    assert len({headers["Idempotency-Key"] for headers in hook.headers}) == 1


@pytest.mark.parametrize("status", [401, 403, 404])
def test_a_wrong_key_is_told_once_and_the_other_channels_get_theirs(database_url: str, status: int) -> None:
    with hooked((status, {})) as hook, receiver(status=500) as other:
        settings = channels(hook.url(), other.url)
        queued(database_url, settings)
        report = deliver_due(database_url, settings)
        assert any(f"HTTP {status}" in error for error in report.errors)
        other.status = 200
        assert deliver_due(database_url, settings, later(60)).sent == 1
        assert len(hook.bodies) == 1
        assert len(other.messages) == 1


def test_a_redirect_is_not_followed(database_url: str) -> None:
    with hooked() as stranger, hooked((302, {"Location": f"http://127.0.0.1:{stranger.port}/"})) as hook:
        settings = channels(hook.url())
        queued(database_url, settings)
        assert deliver_due(database_url, settings).failed == 1
    assert stranger.bodies == []


def test_what_a_channel_s_options_withhold_is_on_record(database_url: str) -> None:
    with hooked() as all_of_it, hooked() as loud:
        settings = channels(all_of_it.url(), loud.url(liq_min="critical"))
        queued(database_url, settings)
        assert deliver_due(database_url, settings).sent == 1
        assert (len(all_of_it.bodies), len(loud.bodies)) == (1, 0)
        assert outbox(database_url)["state"] == "done"
        with connect(database_url) as connection:
            [reason] = connection.execute("SELECT withheld FROM alert_deliveries WHERE withheld IS NOT NULL").fetchall()
            assert reason == ("below liq_min",)
            advance(connection, world(), series("BTC", [80.0], pressure=-40.0, start=1), settings, VERSION)
        deliver_due(database_url, settings)
        assert len(loud.bodies) == 1


def test_the_key_is_in_no_row_no_log_and_no_error(database_url: str, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    with hooked((500, {})) as hook:
        settings = channels(hook.url(), "liq+https://127.0.0.1:1/none?secret=" + KEY)
        queued(database_url, settings)
        report = deliver_due(database_url, settings)
        results = send_test(settings)
    assert KEY not in caplog.text
    assert not any(KEY in text for text in [*report.errors, *(str(r.error) for r in results)])
    with connect(database_url) as connection:
        identity = connection.execute("SELECT alert_id FROM alerts LIMIT 1").fetchone()
        assert identity is not None
        assert KEY not in str(show_alert(connection, str(identity[0])))
