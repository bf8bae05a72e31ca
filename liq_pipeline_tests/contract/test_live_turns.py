"""Streams beside lists, through real sockets, Kafka and the table: nothing doubled, nothing of a gap lost.

Gate's list has no ids and its stream none that are the same; HTX compresses and pings in its own words; dYdX lets a
connection follow 32 markets and counts subscriptions.
"""

from __future__ import annotations

import gzip
import json
import threading
import time
from collections.abc import Callable
from contextlib import ExitStack
from datetime import UTC, datetime, timedelta
from typing import Any

import msgspec

from liq_pipeline.collector.buffer import EventBuffer
from liq_pipeline.collector.collect import Collector
from liq_pipeline.collector.coverage import Coverage
from liq_pipeline.collector.streams import SETTLING, StreamReader
from liq_pipeline.domain.records import Liquidation
from liq_pipeline.settings import Settings, SourceSettings
from liq_pipeline.sources.access.raw_log import RawLine
from liq_pipeline.sources.live import dydx, gate, htx
from liq_pipeline.sources.live.instruments import Instrument
from liq_pipeline.sources.recorded.raw_answers import _SourcePlayer
from liq_pipeline_tests.live_support import (
    StreamServer,
    VenueServer,
    frames_of,
    land_everything,
    rows,
    venue_server,
    wait_until,
)

LIST = "/api/v4/futures/usdt/liq_orders"


def listed(moment: datetime, size: int) -> dict[str, Any]:
    """A row of Gate's list: a long of so many contracts."""
    price = {"order_price": "67000", "fill_price": "67100"}
    return {
        "time": int(moment.timestamp()), "contract": "BTC_USDT", "size": size, "order_size": -size, "left": 0, **price
    }  # fmt: skip


def pushed(moment: datetime, *sizes: int) -> dict[str, Any]:
    """A message of Gate's stream: sell orders that closed longs."""
    stamp = round(moment.timestamp() * 1000)
    result = [{"price": "67000", "size": -size, "time": stamp, "contract": "BTC_USDT"} for size in sizes]
    return {"channel": "futures.public_liquidates", "event": "update", "time": stamp // 1000, "result": result}


def test_the_list_fills_what_the_stream_left_out_and_repeats_nothing(
    database_url: str, kafka_server: str, topic_prefix: str, settings: Callable[..., Settings]
) -> None:
    with ExitStack() as stack:
        rest = stack.enter_context(venue_server("gate"))
        stream = StreamServer(frames_of("gate")["stream"][:1])
        stack.callback(stream.close)
        before = datetime.now(UTC) - timedelta(seconds=30)
        told = [listed(before, 100)]

        def serve() -> None:
            rest.routes["gate"][f"{LIST}?contract=BTC_USDT"] = list(told)

        serve()
        collector = _gate(rest, stream, database_url, kafka_server, topic_prefix, settings)
        collector.start()
        try:
            (reader,) = collector.streams
            wait_until(lambda: reader.state == "up" and collector.sender.sent == 1, 60, "the list was not read")
            streamed = datetime.now(UTC)
            stream.send(pushed(streamed, 200, 300))
            wait_until(lambda: collector.sender.sent == 3, 30, "the stream was not read")
            told += [listed(streamed, 200), listed(streamed, 300)]
            serve()
            _listed_again(rest)
            # An outage: the next one is told by the list alone.
            stream.greeting = []
            stream.drop()
            wait_until(lambda: reader.connections > 1, 30, "nobody came back")
            missed = datetime.now(UTC)
            told.append(listed(missed, 400))
            serve()
            wait_until(lambda: collector.sender.sent == 4, 60, "the gap was not filled from the list")
            # And back: what the list then says of the stream's time is the stream's.
            stream.greeting = frames_of("gate")["stream"][:1]
            stream.drop()
            wait_until(lambda: reader.state == "up", 30, "the stream did not come back")
            wait_until(lambda: bool(stream.send(pushed(datetime.now(UTC), 500))), 30, "nobody subscribed again")
            wait_until(lambda: collector.sender.sent == 5, 30, "the stream was not read again")
            told.append(listed(datetime.now(UTC), 500))
            serve()
            _listed_again(rest)
            coverage = collector.coverages["gate"]
            until = datetime.now(UTC) - SETTLING
            wait_until(lambda: (coverage.read_until or before) >= until, 60, "the feed was not proved")
            assert coverage.take_holes() == []
        finally:
            collector.stop()
    land_everything(database_url, kafka_server, topic_prefix)
    found = rows(database_url, "SELECT quantity_base, source_topic FROM liquidations ORDER BY quantity_base")
    assert [(round(row["quantity_base"] * 10_000), row["source_topic"]) for row in found] == [
        (100, "liq_orders"),
        (200, "public_liquidates"),
        (300, "public_liquidates"),
        (400, "liq_orders"),
        (500, "public_liquidates"),
    ]


def _gate(
    rest: VenueServer,
    stream: StreamServer,
    database_url: str,
    kafka: str,
    prefix: str,
    settings: Callable[..., Settings],
) -> Collector:
    chosen = settings(
        mode="live",
        symbols=("BTC",),
        venues=("gate",),
        kafka_topic_prefix=prefix,
        sources=SourceSettings(urls=rest.urls() | {"gate_ws": stream.url}, market_seconds=0.2),
    )
    return Collector(chosen, database_url, kafka, first_backoff_seconds=0.1)


def _listed_again(rest: VenueServer) -> None:
    """Wait for two more readings of the list: the second begins after the first has been worked through."""

    def readings() -> int:
        return sum(asked.path == LIST for asked in list(rest.asked))

    seen = readings()
    wait_until(lambda: readings() >= seen + 2, 60, "the list is not read")


def _reader(source: Any, stream: StreamServer, *instruments: Instrument) -> tuple[StreamReader, Coverage, EventBuffer]:
    buffer, coverage = EventBuffer(1_000), Coverage(source.name, None)
    reader = StreamReader(
        source, source.stream, stream.url, lambda: instruments, buffer, coverage, threading.Event(),
        slow_probe_seconds=1.0, first_backoff_seconds=0.1,
    )  # fmt: skip
    return reader, coverage, buffer


def _end(reader: StreamReader) -> None:
    reader._halt.set()
    reader.join(5)


def test_htx_is_answered_in_its_own_words_and_a_broken_frame_costs_no_other() -> None:
    greeting, message = frames_of("htx")["stream"]
    stream = StreamServer([greeting], pack=gzip.compress)
    reader, _, buffer = _reader(htx.SOURCE, stream, Instrument("BTC", "BTC-USDT", 1, 0.001))
    reader.start()
    try:
        stream.wait_for_subscriber()
        stream.send({"op": "ping", "ts": "1717228815000"})
        pong = {"op": "pong", "ts": "1717228815000"}
        wait_until(lambda: pong in [json.loads(heard) for _, heard in list(stream.heard)], 5, "no pong came")
        bomb = gzip.compress(bytes(htx.MAX_UNPACKED_BYTES + 1))
        for broken in (b"\x1f\x8b broken", gzip.compress(b"{}" * 99)[:-9], gzip.compress(b"{}") + b"more", bomb):
            stream._pack = lambda _, broken=broken: broken
            stream.send("x")
        stream._pack = gzip.compress
        stream.send(message)
        wait_until(lambda: len(buffer) == 2, 5, "the frame after the broken ones was not read")
        assert (reader.problems, reader.connections) == (4, 1)
        assert reader.reason == "a frame cannot be unpacked (it holds more than 16 MiB)"
        path, subscription = stream.heard[0]
        assert path == "/linear-swap-notification"
        assert json.loads(subscription)["topic"] == "public.*.liquidation_orders"
    finally:
        _end(reader)
        stream.close()


def test_dydx_follows_32_markets_two_a_second_and_proves_only_what_it_follows() -> None:
    instruments = [Instrument(f"C{number}", f"C{number}-USD") for number in range(33)]
    stream = StreamServer([{"type": "subscribed", "channel": "v4_trades", "id": "C0-USD", "contents": {"trades": []}}])
    reader, coverage, _ = _reader(dydx.SOURCE, stream, *instruments)
    begun = time.monotonic()
    reader.start()
    try:
        wait_until(lambda: reader.state == "up", 30, "the subscription never stood")
        assert time.monotonic() - begun >= 31 * 0.5
        assert [json.loads(heard)["id"] for _, heard in stream.heard] == [f"C{number}-USD" for number in range(32)]
        assert coverage.read_until is None
    finally:
        _end(reader)
        stream.close()


def test_a_recording_takes_the_same_turns() -> None:
    """What the collector wrote down plays to the same rows: it says when the stream stood and when it was lost."""
    player = _SourcePlayer(gate.SOURCE, "recorded/turns", ("BTC",))
    noon = datetime(2026, 1, 2, 12, tzinfo=UTC)
    told: dict[str, str] = {}

    def play(seconds: float, kind: Any, **fields: Any) -> None:
        messages, problems = player.take(
            RawLine(source="gate", kind=kind, received_at=noon + timedelta(seconds=seconds), **fields)
        )
        assert problems == []
        told.update({record.event_id: record.source_topic for record in messages if isinstance(record, Liquidation)})

    def list_of(seconds: float, *rows: dict[str, Any]) -> None:
        params: dict[str, str | int] = {"contract": "BTC_USDT", "limit": 100}
        play(seconds, "answer", path=LIST, params=params, payload=msgspec.Raw(msgspec.json.encode(list(rows))))

    before, streamed, missed = (noon + timedelta(seconds=at) for at in (-20, 5, 25))
    play(-10, "instruments", instruments=(Instrument("BTC", "BTC_USDT", 1, 0.0001),))
    list_of(-5, listed(before, 100))
    play(0, "turn", event_time=noon, text="stands")
    play(6, "frame", text=json.dumps(pushed(streamed, 200)))
    list_of(10, listed(before, 100), listed(streamed, 200))
    play(22, "turn", event_time=noon + timedelta(seconds=18), text="lost")
    list_of(30, listed(before, 100), listed(streamed, 200), listed(missed, 400))
    assert sorted(told.values()) == ["liq_orders", "liq_orders", "public_liquidates"]
