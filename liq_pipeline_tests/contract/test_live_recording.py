"""`liq up --record DIR`: what was answered, played again through the same parsers, gives the same records."""

from __future__ import annotations

import gzip
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from liq_pipeline.domain.records import FundingRate, LongShortRatio, OpenInterest, Price, Record
from liq_pipeline.settings import Settings, SourceSettings
from liq_pipeline.sources.collect import Collector
from liq_pipeline.sources.polling import poll_due
from liq_pipeline.sources.recorded.formats import open_recording
from liq_pipeline_tests.live_support import (
    StreamServer,
    frames_of,
    land_everything,
    rows,
    venue_server,
    wait_until,
)

VENUES = ("binance", "bybit", "okx", "gate", "hyperliquid", "deribit", "bitget", "kraken_futures", "dydx")
VALUE: dict[type[Record], tuple[str, str]] = {
    Price: ("prices", "price_usd"),
    OpenInterest: ("open_interest", "open_interest_base"),
    FundingRate: ("funding_rates", "rate"),
    LongShortRatio: ("long_short_ratio", "long_share"),
}


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
        now = datetime.now(UTC)
        for _ in range(2):
            poll_due(database_url, kafka_server, chosen, now)
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
    for kind, (table, column) in VALUE.items():
        query = f"SELECT venue, symbol, event_time, {column} AS value FROM {table}"  # noqa: S608 - own names
        stored = {tuple(row.values()) for row in rows(database_url, query)}
        again = {(r.venue, r.symbol, r.event_time, getattr(r, column)) for r in records if isinstance(r, kind)}
        # Lists of instruments that double as tickers (dYdX, Kraken) say one thing more when played: nothing is lost.
        assert stored, table
        assert stored <= again, table
        assert {row[0] for row in again - stored} <= {"dydx", "kraken_futures"}
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
