"""`liq up --record DIR`: what was answered, played again through the same parsers, gives the same records."""

from __future__ import annotations

import gzip
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec

from liq_pipeline.collector.collect import Collector
from liq_pipeline.domain.records import FundingRate, LongShortRatio, OpenInterest, Price, Record
from liq_pipeline.settings import Settings, SourceSettings
from liq_pipeline.sources.polling.round import poll_due
from liq_pipeline.sources.recorded.formats import open_recording
from liq_pipeline.sources.registry import SOURCES
from liq_pipeline.store.connection import connect
from liq_pipeline_tests.chain_support import FakeChain
from liq_pipeline_tests.live_support import (
    StreamServer,
    frames_of,
    land_everything,
    rows,
    venue_server,
    wait_until,
)
from liq_pipeline_tests.moving_support import MovingVenues

VENUES = ("binance", "bybit", "okx", "gate", "hyperliquid", "deribit", "bitget", "kraken_futures", "dydx")
TABLES: dict[type[Record], str] = {
    Price: "prices",
    OpenInterest: "open_interest",
    FundingRate: "funding_rates",
    LongShortRatio: "long_short_ratio",
}
BY_NATURE = {"schema_version", "world", "origin", "known_at"}
"""Fields in which a live row and a played one differ."""


def key_of(row: dict[str, Any]) -> tuple[Any, ...]:
    """Of any observation."""
    return row["venue"], row["symbol"], row["event_time"], row.get("kind"), row.get("period_minutes")


def offers(venue: str, table: str) -> bool:
    return table in SOURCES[venue].offers


def test_a_recorded_round_and_stream_play_back_as_the_same_records(
    database_url: str,
    kafka_server: str,
    topic_prefix: str,
    settings: Callable[..., Settings],
    tmp_path: Path,
) -> None:
    messages = frames_of("bybit")["stream"]
    stream = StreamServer(messages[:1])
    folder = tmp_path / "a day"
    with venue_server(*VENUES) as server:
        nowhere = {f"{venue}_ws": "ws://127.0.0.1:9" for venue in VENUES}
        urls = server.urls() | nowhere | {"bybit_ws": stream.url, "coingecko": server.url("nobody")}
        chosen = settings(
            mode="live",
            symbols=("BTC", "PEPE"),
            venues=VENUES,
            kafka_topic_prefix=topic_prefix,
            sources=SourceSettings(urls=urls, record_dir=folder, round_seconds=8),
        )
        moving = MovingVenues(server, FakeChain())
        # Open interest comes first, the marks that it is valued with later: each in its own round.
        marks_late = moving.delayed({"/fapi/v1/premiumIndex", "/api/v5/public/mark-price"}, seconds=0.3)
        for number in range(4):
            server.fault = marks_late if number else moving.answer
            poll_due(database_url, kafka_server, chosen)
            with connect(database_url) as conn:
                conn.execute("UPDATE poll_state SET next_due = now() WHERE feed <> 'instruments'")
        server.fault = moving.answer
        collector = Collector(chosen, database_url, kafka_server)
        collector.start()
        try:
            stream.wait_for_subscriber()
            for message in messages[1:]:
                stream.send(message)
            wait_until(lambda: collector.sender.sent >= 3, 20, "the stream was not sent")
            wait_until(lambda: "bybit" in collector.sender.told, 20, "no heartbeat was sent")
        finally:
            collector.stop()
            stream.close()
    land_everything(database_url, kafka_server, topic_prefix)

    played = open_recording(folder, 10)
    assert played.world.name == "recorded/a-day"
    assert played.world.manifest.symbols == ("BTC", "PEPE")
    found = [message for step in played.steps(None) for message in step.messages]
    records: list[Any] = [message for message in found if isinstance(message, Record)]
    assert {record.origin for record in records} == {"recorded"}
    for kind, table in TABLES.items():
        stored = {key_of(row): row for row in rows(database_url, f"SELECT * FROM {table}")}  # noqa: S608 - own names
        assert {key[0] for key in stored} == {venue for venue in VENUES if offers(venue, table)}, table
        again: dict[Any, dict[str, Any]] = {}
        for record in records:
            if isinstance(record, kind):
                fields = msgspec.structs.asdict(record)
                again.setdefault(key_of(fields), fields)  # what comes twice lands once
        assert again.keys() == stored.keys(), table
        for key, row in stored.items():
            compared = row.keys() & again[key].keys() - BY_NATURE
            assert {name: again[key][name] for name in compared} == {name: row[name] for name in compared}, key
    marks = "round((open_interest_usd / open_interest_base)::numeric, 6)"
    query = f"SELECT count(DISTINCT {marks}) AS n FROM open_interest WHERE venue = 'binance' AND symbol = 'BTC'"  # noqa: S608
    assert rows(database_url, query)[0]["n"] >= 3  # each round has its own, which the next one's is not taken for
    events = {(r.venue, r.event_id) for r in records if type(r).__name__ == "Liquidation"}
    assert events == {
        (r["venue"], r["event_id"]) for r in rows(database_url, "SELECT venue, event_id FROM liquidations")
    }
    beats = {message[1].venue for message in found if isinstance(message, tuple)}
    assert "bybit" in beats


def test_a_recording_holds_no_secret(
    database_url: str,
    kafka_server: str,
    topic_prefix: str,
    settings: Callable[..., Settings],
    tmp_path: Path,
) -> None:
    with venue_server("coingecko", "dydx") as server:
        chosen = settings(
            mode="live",
            symbols=("BTC",),
            venues=("dydx",),
            kafka_topic_prefix=topic_prefix,
            sources=SourceSettings(urls=server.urls(), record_dir=tmp_path),
            COINGECKO_API_KEY="very-secret",
        )
        for _ in range(2):
            poll_due(database_url, kafka_server, chosen)
        assert any(asked.query.get("x_cg_demo_api_key") == "very-secret" for asked in server.asked)
    written = b"".join(gzip.decompress(path.read_bytes()) for path in tmp_path.glob("raw-*.gz"))
    assert b"/simple/price" in written
    assert b"very-secret" not in written
