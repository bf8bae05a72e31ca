"""The collector under load and bad luck: nothing that was received is lost, and what was missed is a row."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from liq_pipeline.bus.admin import ensure_topics
from liq_pipeline.collector.buffer import EventBuffer
from liq_pipeline.collector.collect import Collector
from liq_pipeline.collector.coverage import Coverage, Hole
from liq_pipeline.domain.records import Liquidation
from liq_pipeline.runtime.processes import free_port
from liq_pipeline.runtime.servers.kafka import EmbeddedKafka
from liq_pipeline.settings import Settings, SourceSettings
from liq_pipeline_tests.live_support import StreamServer, VenueServer, land_everything, rows, venue_server, wait_until

MakeSettings = Callable[..., Settings]
GREETING = [{"success": True, "op": "subscribe"}]
START_MS = 1_717_228_800_000


def event_message(number: int, count: int = 1) -> dict[str, Any]:
    """A Bybit push of `count` liquidations, each with a time and size of its own."""
    data = [
        {"T": START_MS + number + k, "s": "BTCUSDT", "S": "Buy", "v": f"0.{number + k + 1:06d}", "p": "67000"}
        for k in range(count)
    ]
    return {"topic": "allLiquidation.BTCUSDT", "type": "snapshot", "ts": START_MS, "data": data}


@contextmanager
def bybit_collector(
    stream: StreamServer,
    rest: VenueServer,
    database_url: str,
    kafka: str,
    prefix: str,
    settings: MakeSettings,
    **knobs: Any,
) -> Iterator[Collector]:
    chosen = settings(
        mode="live",
        symbols=("BTC",),
        venues=("bybit",),
        kafka_topic_prefix=prefix,
        sources=SourceSettings(urls=rest.urls() | {"bybit_ws": stream.url}, **knobs),
    )
    collector = Collector(chosen, database_url, kafka, first_backoff_seconds=0.05)
    collector.start()
    try:
        yield collector
    finally:
        collector.stop()


@pytest.fixture
def stream() -> Iterator[StreamServer]:
    server = StreamServer(GREETING)
    yield server
    server.close()


@pytest.fixture
def rest() -> Iterator[VenueServer]:
    with venue_server("bybit") as server:
        yield server


def test_a_steady_thousand_a_second_with_a_burst_of_five_thousand_loses_none(
    stream: StreamServer,
    rest: VenueServer,
    database_url: str,
    kafka_server: str,
    topic_prefix: str,
    settings: MakeSettings,
) -> None:
    """The rate is an aim (a busy machine sends slower); the count is exact."""
    with bybit_collector(stream, rest, database_url, kafka_server, topic_prefix, settings) as collector:
        stream.wait_for_subscriber()
        number, begun = 0, time.monotonic()
        while number < 3000:
            stream.send(event_message(number, 10))
            number += 10
            time.sleep(max(0.0, begun + number / 1000 - time.monotonic()))
        for _ in range(50):
            stream.send(event_message(number, 100))
            number += 100
        wait_until(lambda: collector.sender.sent == number, 60, f"{number} events were not sent")
    land_everything(database_url, kafka_server, topic_prefix)
    found = rows(database_url, "SELECT count(*) AS n, count(DISTINCT event_id) AS d FROM liquidations")
    assert found == [{"n": 8000, "d": 8000}]


def test_a_server_that_drops_the_connection_loses_nothing_sent_after_the_resubscription(
    stream: StreamServer,
    rest: VenueServer,
    database_url: str,
    kafka_server: str,
    topic_prefix: str,
    settings: MakeSettings,
) -> None:
    sent = 0
    with bybit_collector(stream, rest, database_url, kafka_server, topic_prefix, settings) as collector:
        for connection in range(1, 6):
            stream.wait_for_subscriber()
            assert stream.connections == connection
            for _ in range(20):
                stream.send(event_message(sent, 1))
                sent += 1
            stream.drop()  # with frames still on their way
        stream.wait_for_subscriber()
        wait_until(lambda: collector.sender.sent == sent, 20, "not all events were sent")
        read = collector.coverages["bybit"]
        wait_until(lambda: not collector.streams[0].reason and read.read_until is not None, 10, "not up again")
    land_everything(database_url, kafka_server, topic_prefix)
    assert rows(database_url, "SELECT count(*) AS n FROM liquidations") == [{"n": 100}]
    holes = rows(database_url, "SELECT source, cause, is_permanent FROM ingest_gaps")
    assert holes
    assert {(hole["source"], hole["is_permanent"]) for hole in holes} == {("bybit liquidations", True)}
    assert all("the stream was not connected" in hole["cause"] for hole in holes)


def test_kafka_away_loses_none_and_tells_so(
    stream: StreamServer, rest: VenueServer, database_url: str, settings: MakeSettings, new_home: Path
) -> None:
    kafka = EmbeddedKafka(new_home, free_port(), memory_mb=192)
    kafka.start()
    try:
        ensure_topics(kafka.bootstrap_servers, "away.")
        with bybit_collector(stream, rest, database_url, kafka.bootstrap_servers, "away.", settings) as collector:
            stream.wait_for_subscriber()
            stream.send(event_message(0, 100))
            wait_until(lambda: collector.sender.sent == 100, 20, "nothing was sent")
            kafka.stop()
            stream.send(event_message(1000, 1000))
            wait_until(lambda: collector.sender.outage is not None, 60, "the outage was not noticed")
            stream.send(event_message(3000, 1000))
            wait_until(lambda: len(collector.buffer) == 2000, 30, "the events do not wait")
            kafka.start()
            wait_until(lambda: collector.sender.sent == 2100, 90, "the events that waited were not sent")
            wait_until(lambda: collector.sender.outage is None, 5, "the end of the outage was not noticed")
        land_everything(database_url, kafka.bootstrap_servers, "away.")
        assert rows(database_url, "SELECT count(*) AS n FROM liquidations") == [{"n": 2100}]
        assert rows(database_url, "SELECT * FROM ingest_gaps WHERE cause LIKE '%%buffer%%'") == []
    finally:
        kafka.stop()


def test_the_time_a_collector_was_not_running_is_a_gap(
    stream: StreamServer,
    rest: VenueServer,
    database_url: str,
    kafka_server: str,
    topic_prefix: str,
    settings: MakeSettings,
) -> None:
    with bybit_collector(stream, rest, database_url, kafka_server, topic_prefix, settings) as collector:
        wait_until(lambda: "bybit" in collector.sender.told, 20, "no heartbeat was sent")
    land_everything(database_url, kafka_server, topic_prefix)
    told = rows(database_url, "SELECT max(event_time) AS until FROM heartbeats")[0]["until"]
    with bybit_collector(stream, rest, database_url, kafka_server, topic_prefix, settings) as collector:
        read = collector.coverages["bybit"]
        wait_until(lambda: (read.read_until or told) > told, 20, "the stream was not read again")
    (hole,) = rows(database_url, "SELECT from_time, to_time, cause FROM ingest_gaps")
    assert hole["from_time"] == told
    assert hole["to_time"] > told
    assert "the collector was not running" in hole["cause"]
    state = rows(database_url, "SELECT state FROM source_status WHERE source = 'bybit_liquidations'")
    assert state == [{"state": "up"}]


def test_a_killed_collector_leaves_what_kafka_had_and_a_gap_for_the_rest(
    stream: StreamServer, rest: VenueServer, database_url: str, kafka_server: str, topic_prefix: str, new_home: Path
) -> None:
    """The real process, kill -9. bench/collect.py does the same under load."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("LIQ_")} | {
        "LIQ_HOME": str(new_home),
        "LIQ_MODE": "live",
        "LIQ_SYMBOLS": "BTC",
        "LIQ_VENUES": "bybit",
        "LIQ_DATABASE_URL": database_url,
        "LIQ_KAFKA_BOOTSTRAP_SERVERS": kafka_server,
        "LIQ_KAFKA_TOPIC_PREFIX": topic_prefix,
        "LIQ_BYBIT_URL": rest.url("bybit"),
        "LIQ_BYBIT_WS_URL": stream.url,
    }

    def collector() -> subprocess.Popen[bytes]:
        return subprocess.Popen(
            [sys.executable, "-m", "liq_pipeline.cli", "collect"], env=environment, stderr=subprocess.DEVNULL
        )

    def landed(query: str) -> list[dict[str, Any]]:
        land_everything(database_url, kafka_server, topic_prefix)
        return rows(database_url, query)

    process = collector()
    try:
        stream.wait_for_subscriber(60)
        stream.send(event_message(0, 100))
        wait_until(lambda: len(landed("SELECT 1 FROM liquidations")) == 100, 30, "nothing was sent")
        wait_until(lambda: bool(landed("SELECT 1 FROM heartbeats")), 30, "no heartbeat was sent")
        process.kill()
        process.wait(10)
        told = landed("SELECT max(event_time) AS until FROM heartbeats")[0]["until"]
        stream.drop()
        process = collector()
        stream.wait_for_subscriber(60)
        stream.send(event_message(5000, 10))
        wait_until(lambda: len(landed("SELECT 1 FROM liquidations")) == 110, 30, "the new process sends nothing")
        gaps = "SELECT from_time, to_time, cause FROM ingest_gaps WHERE source = 'bybit liquidations'"
        wait_until(lambda: bool(rows(database_url, gaps)), 30, "the time without a collector is no gap")
    finally:
        process.kill()
        process.wait(10)
    (hole,) = rows(database_url, gaps)
    assert hole["from_time"] == told < hole["to_time"]
    assert "the collector was not running" in hole["cause"]


def test_a_refused_subscription_is_said_in_the_venues_words(
    stream: StreamServer,
    rest: VenueServer,
    database_url: str,
    kafka_server: str,
    topic_prefix: str,
    settings: MakeSettings,
) -> None:
    stream.greeting = [{"success": False, "ret_msg": "error:handler not found", "op": "subscribe"}]
    with bybit_collector(stream, rest, database_url, kafka_server, topic_prefix, settings) as collector:
        (reader,) = collector.streams
        wait_until(lambda: reader.state == "down", 10, "the refusal was not noticed")
        assert reader.reason == "the subscription was refused: error:handler not found"
        assert collector.coverages["bybit"].read_until is None


def test_a_feed_is_read_once_every_subscription_is_confirmed(
    stream: StreamServer, rest: VenueServer, database_url: str, kafka_server: str, topic_prefix: str,
    settings: MakeSettings,
) -> None:  # fmt: skip
    """Bybit takes fifty topics a message: of sixty coins the second message may fail where the first does not."""
    coins = tuple(f"C{number:02d}" for number in range(60))
    lists = rest.routes["bybit"]["/v5/market/instruments-info"]["result"]
    lists["nextPageCursor"] = ""
    lists["list"] = [
        {"symbol": f"{c}USDT", "contractType": "LinearPerpetual", "status": "Trading", "baseCoin": c,
         "quoteCoin": "USDT", "fundingInterval": 480}
        for c in coins
    ]  # fmt: skip
    stream.greeting = []
    chosen = settings(
        mode="live",
        symbols=coins,
        venues=("bybit",),
        kafka_topic_prefix=topic_prefix,
        sources=SourceSettings(urls=rest.urls() | {"bybit_ws": stream.url}),
    )
    collector = Collector(chosen, database_url, kafka_server, first_backoff_seconds=0.05)
    collector.start()
    try:
        stream.wait_for_subscriber()
        wait_until(lambda: len(stream.heard) >= 2, 10, "two messages were expected")
        (reader,) = collector.streams
        stream.send(GREETING[0])
        stream.send({**event_message(0), "topic": "allLiquidation.C00USDT"})
        time.sleep(1.0)  # nothing to wait for: it is about what does not happen
        assert reader.state != "up"
        assert collector.coverages["bybit"].read_until is None
        stream.send(GREETING[0])
        wait_until(lambda: reader.state == "up", 10, "the second confirmation was not taken")
    finally:
        collector.stop()


def test_a_venue_that_only_the_collector_asks_shows_its_budget(
    database_url: str, kafka_server: str, topic_prefix: str, settings: MakeSettings
) -> None:
    with venue_server("htx") as server:
        chosen = settings(
            mode="live",
            symbols=("BTC",),
            venues=("htx",),
            kafka_topic_prefix=topic_prefix,
            sources=SourceSettings(urls=server.urls(), market_seconds=0.2),
        )
        collector = Collector(chosen, database_url, kafka_server)
        collector.start()
        try:
            status = "SELECT budget FROM source_status WHERE source = 'htx_liquidations'"
            wait_until(lambda: bool(server.counts()), 10, "nothing was asked")
            wait_until(
                lambda: any(row["budget"].get("htx", {}).get("used") for row in rows(database_url, status)),
                20, "the budget is not told",
            )  # fmt: skip
        finally:
            collector.stop()
        (row,) = rows(database_url, status)
    assert row["budget"]["htx"]["capacity"] == 50
    assert row["budget"]["buffered"] == 0


def liquidation(number: int) -> Liquidation:
    moment = datetime(2026, 1, 1, tzinfo=UTC) + timedelta(seconds=number)
    return Liquidation(
        schema_version=1,
        event_time=moment,
        received_at=moment,
        origin="live",
        world="real",
        venue="bybit",
        symbol="BTC",
        event_id=str(number),
        liquidated_side="long",
        price_usd=1.0,
        quantity_base=1.0,
        notional_usd=1.0,
        is_sample=False,
        source_topic="allLiquidation",
    )


def test_past_its_bound_the_buffer_lets_the_oldest_go_and_knows_which() -> None:
    buffer = EventBuffer(capacity=3)
    buffer.put([liquidation(n) for n in range(3)])
    taken = buffer.take(2, 0)
    buffer.put([liquidation(n) for n in range(3, 5)])
    buffer.give_back(taken)
    assert [event.event_id for event in buffer.take(9, 0)] == ["2", "3", "4"]
    (dropped,) = buffer.take_dropped()
    assert (dropped.venue, dropped.count) == ("bybit", 2)
    assert (dropped.first_event_time, dropped.last_event_time) == (liquidation(0).event_time, liquidation(1).event_time)
    assert buffer.take_dropped() == []


def test_a_hole_is_found_once_and_closed_by_what_looks_back() -> None:
    at = [datetime(2026, 1, 1, 0, minute, tzinfo=UTC) for minute in range(10)]
    coverage = Coverage("okx", None)
    coverage.prove(at[0], at[1], cause="first start")
    coverage.prove(at[3], at[4], cause="reconnected", may_jump=False)  # the list will close it
    assert coverage.read_until == at[1]
    coverage.prove(at[0], at[4], cause="list")
    assert coverage.take_holes() == []
    coverage.prove(at[6], at[5], cause="reconnected")  # confirmed just now: its first sign of life lies before
    coverage.prove(at[6], at[7], cause="reconnected")
    assert coverage.take_holes() == [Hole("okx", at[4], at[6], "reconnected")]
    assert coverage.read_until == at[7]
