"""One request, one clear outcome: what each answer of a source is taken for, and what its error says."""

from __future__ import annotations

import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime

import pytest

from liq_pipeline.sources.access.http import (
    BadAnswerError,
    HttpClient,
    NoTimeLeftError,
    RefusedError,
    RejectedError,
    Request,
    SourceError,
    ThrottledError,
    TransientError,
    retry_after_seconds,
)
from liq_pipeline_tests.live_support import Reply, VenueServer, venue_server

NOW = datetime(2026, 1, 1, tzinfo=UTC)


@pytest.fixture
def server() -> Iterator[VenueServer]:
    with venue_server() as running:
        yield running


def client(server: VenueServer, **options: float) -> HttpClient:
    return HttpClient(
        "venue", server.url("venue"), request_seconds=options.get("seconds", 2.0), secret_params={"key": "s3cret"}
    )


@pytest.mark.parametrize(
    ("reply", "kind"),
    [
        (Reply({}, status=401), RefusedError),
        (Reply({}, status=403), RefusedError),
        (Reply({}, status=418), RefusedError),
        (Reply({}, status=451), RefusedError),
        (Reply({}, status=400), RejectedError),
        (Reply({}, status=404), RejectedError),
        (Reply(b"", status=302, headers={"Location": "http://elsewhere/"}), RejectedError),
        (Reply({}, status=429), ThrottledError),
        (Reply({}, status=408), TransientError),
        (Reply({}, status=503), TransientError),
        (Reply(b"<html>"), BadAnswerError),
        (Reply(b'{"a": 1'), BadAnswerError),
        (Reply(b"\xff\xfe"), BadAnswerError),
        (Reply(reset=True), TransientError),
        (Reply({"a": "b" * 100}, cut_after=10), TransientError),
    ],
)
def test_every_answer_has_its_kind_and_no_message_shows_the_key(
    reply: Reply, kind: type[SourceError], server: VenueServer
) -> None:
    server.fault = lambda *_: reply
    with pytest.raises(SourceError) as caught:
        client(server).ask(Request("/data"), attempts=1)
    assert type(caught.value) is kind
    assert "s3cret" not in str(caught.value)
    assert str(caught.value).startswith("venue: ")
    assert len(server.asked) == 1


def test_a_passing_failure_is_tried_once_more_and_a_refusal_is_not(server: VenueServer) -> None:
    replies = [Reply(reset=True), Reply({"fine": True})]
    server.fault = lambda *_: replies.pop(0)
    assert client(server).ask(Request("/data")).payload == {"fine": True}
    server.fault = lambda *_: Reply({}, status=451)
    server.asked.clear()
    with pytest.raises(RefusedError):
        client(server).ask(Request("/data"))
    assert len(server.asked) == 1


def test_a_trickling_server_cannot_hold_us(server: VenueServer) -> None:
    server.fault = lambda *_: Reply({"a": "b" * 400}, trickle_seconds=0.05)
    begun = time.monotonic()
    with pytest.raises(TransientError, match="took too long"):
        client(server, seconds=0.5).ask(Request("/data"), attempts=1)
    assert time.monotonic() - begun < 3


def test_a_deadline_that_comes_too_early_says_nothing_about_the_source(server: VenueServer) -> None:
    server.fault = lambda *_: Reply({}, delay_seconds=0.5)
    with pytest.raises(NoTimeLeftError):
        client(server).ask(Request("/data"), deadline=time.monotonic() + 0.2)


def test_a_text_is_read_where_a_text_is_due(server: VenueServer) -> None:
    server.fault = lambda *_: Reply(b"a,b\n1,2\n")
    assert client(server).ask(Request("/file.csv", is_text=True)).payload == "a,b\n1,2\n"


@pytest.mark.parametrize(
    ("header", "seconds"),
    [
        (None, None),
        ("7", 7),
        ("0.5", 0.5),
        ("-3", 0),
        ("999999", 3600),
        (format_datetime(NOW + timedelta(seconds=90), usegmt=True), 90),
        ("soon", None),
        ("nan", None),
    ],
)
def test_retry_after_in_all_its_forms(header: str | None, seconds: float | None) -> None:
    assert retry_after_seconds(header, NOW) == seconds
