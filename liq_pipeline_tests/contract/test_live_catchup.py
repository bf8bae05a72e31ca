"""History by REST: a first start and an outage end with the series as if nothing had happened; the rest is a gap."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from liq_pipeline.settings import Settings, SourceSettings
from liq_pipeline.sources.catchup import NO_HISTORY, catch_up
from liq_pipeline_tests.live_support import Reply, VenueServer, land_everything, rows, venue_server

MakeSettings = Callable[..., Settings]
MakeUrl = Callable[[], str]
STEP_MS = 300_000
NOW = datetime(2024, 6, 1, 12, 2, tzinfo=UTC)


def _value(moment_ms: int) -> int:
    return 60_000 + moment_ms // STEP_MS % 1000


def serve_binance(server: VenueServer, served_from: datetime) -> None:
    """History as Binance serves it: inclusive ends, limited rows, nothing before `served_from`."""
    earliest = int(served_from.timestamp() * 1000)

    def answer(source: str, path: str, query: dict[str, str]) -> Reply | None:
        if source != "binance" or "startTime" not in query:
            return None
        first, last, limit = int(query["startTime"]), int(query["endTime"]), int(query["limit"])
        step = 8 * 3_600_000 if path.endswith("fundingRate") else STEP_MS
        times = [t for t in range(-(-first // step) * step, last + 1, step) if t >= earliest][:limit]
        row: Callable[[int], Any] = {
            "/futures/data/openInterestHist": lambda t: {
                "sumOpenInterest": str(_value(t)),
                "sumOpenInterestValue": str(_value(t) * 50_000),
                "timestamp": t,
            },
            "/fapi/v1/markPriceKlines": lambda t: [t, "1", "1", "1", str(_value(t + STEP_MS)), "0", t + STEP_MS - 1],
            "/fapi/v1/fundingRate": lambda t: {"fundingRate": "0.0001", "fundingTime": t + 3, "markPrice": ""},
            "/futures/data/globalLongShortAccountRatio": lambda t: {
                "longAccount": "0.6",
                "shortAccount": "0.4",
                "timestamp": t,
            },
        }.get(path, lambda t: {"longAccount": "0.5", "shortAccount": "0.5", "timestamp": t})
        return Reply([row(t) for t in times])

    server.fault = answer


@pytest.fixture
def server() -> Iterator[VenueServer]:
    with venue_server("binance", "dydx") as running:
        serve_binance(running, NOW - timedelta(days=20))
        yield running


def _settings(settings: MakeSettings, server: VenueServer, prefix: str, venue: str) -> Settings:
    return settings(
        mode="live",
        symbols=("BTC",),
        venues=(venue,),
        kafka_topic_prefix=prefix,
        sources=SourceSettings(urls=server.urls() | {"coingecko": server.url("nobody")}, request_seconds=5),
    )


SERIES = (
    "SELECT 'oi' AS series, event_time, known_at, open_interest_base AS value FROM open_interest UNION ALL "
    "SELECT 'price', event_time, known_at, price_usd FROM prices UNION ALL "
    "SELECT kind, event_time, known_at, rate FROM funding_rates UNION ALL "
    "SELECT kind, event_time, known_at, long_share FROM long_short_ratio ORDER BY 1, 2"
)


def test_an_outage_ends_with_the_series_of_an_uninterrupted_run(
    server: VenueServer,
    new_database_url: MakeUrl,
    kafka_server: str,
    topic_prefix: str,
    settings: MakeSettings,
) -> None:
    chosen = _settings(settings, server, topic_prefix, "binance")
    window = timedelta(hours=13)  # no multiple of the settlements' eight hours
    interrupted, whole = new_database_url(), new_database_url()
    # Two checks with two hours in between, against one that sees it all at once.
    catch_up(chosen, interrupted, kafka_server, NOW - timedelta(hours=2), look_back=window - timedelta(hours=2))
    land_everything(interrupted, kafka_server, topic_prefix)
    before = len(rows(interrupted, SERIES))
    result = catch_up(chosen, interrupted, kafka_server, NOW, look_back=window)
    land_everything(interrupted, kafka_server, topic_prefix)
    assert result.failures == {}
    # 2 hours of four five-minute series and at most one settlement: only what was missing was loaded again.
    assert 4 * 24 <= len(rows(interrupted, SERIES)) - before <= 4 * 24 + 1
    catch_up(chosen, whole, kafka_server, NOW, look_back=window)
    land_everything(whole, kafka_server, topic_prefix)
    assert rows(interrupted, SERIES) == rows(whole, SERIES)
    found = rows(whole, "SELECT * FROM open_interest ORDER BY event_time DESC LIMIT 1")[0]
    assert (found["event_time"], found["origin"]) == (datetime(2024, 6, 1, 11, 50, tzinfo=UTC), "archive")
    assert found["known_at"] - found["event_time"] == timedelta(minutes=5)
    assert found["open_interest_base"] == _value(int(found["event_time"].timestamp() * 1000))
    price = rows(whole, "SELECT price_usd FROM prices WHERE event_time = %s", found["event_time"])[0]["price_usd"]
    assert price == found["open_interest_base"]  # a candle's close is true at its end
    settled = rows(whole, "SELECT event_time FROM funding_rates ORDER BY 1")
    assert [row["event_time"].hour for row in settled] == [16, 0]  # the newest three come with the live poll
    assert rows(interrupted, "SELECT * FROM row_conflicts") == []
    again = catch_up(chosen, interrupted, kafka_server, NOW, look_back=window)
    assert (again.records, again.gaps) == ({}, 0)


def test_what_a_venue_does_not_serve_is_a_gap_said_once(
    server: VenueServer, database_url: str, kafka_server: str, topic_prefix: str, settings: MakeSettings
) -> None:
    chosen = _settings(settings, server, topic_prefix, "dydx")
    server.fault = lambda source, path, query: (
        Reply({"historicalFunding": []}) if "effectiveBeforeOrAt" in query else None
    )
    first = catch_up(chosen, database_url, kafka_server, NOW, look_back=timedelta(hours=3))
    assert first.failures == {}
    found = rows(
        database_url, "SELECT source, symbol, cause, from_time, to_time, is_permanent FROM ingest_gaps ORDER BY source"
    )
    assert [row["source"] for row in found] == ["dydx funding_rates", "dydx open_interest", "dydx prices"]
    assert {row["cause"] for row in found[1:]} == {NO_HISTORY}
    assert found[1]["to_time"] - found[1]["from_time"] == timedelta(hours=3)
    assert catch_up(chosen, database_url, kafka_server, NOW, look_back=timedelta(hours=3)).gaps == 0


def test_beyond_what_is_served_is_a_gap_and_not_asked_for_again(
    server: VenueServer, database_url: str, kafka_server: str, topic_prefix: str, settings: MakeSettings
) -> None:
    serve_binance(server, NOW - timedelta(hours=4))
    chosen = _settings(settings, server, topic_prefix, "binance")
    catch_up(chosen, database_url, kafka_server, NOW, look_back=timedelta(hours=6))
    land_everything(database_url, kafka_server, topic_prefix)
    gap = rows(database_url, "SELECT * FROM ingest_gaps WHERE source = 'binance open_interest'")
    assert [(row["from_time"], row["to_time"]) for row in gap] == [
        (datetime(2024, 6, 1, 5, 50, tzinfo=UTC), datetime(2024, 6, 1, 8, 0, tzinfo=UTC))
    ]
    server.asked.clear()
    catch_up(chosen, database_url, kafka_server, NOW, look_back=timedelta(hours=6))
    assert [asked.path for asked in server.asked if "openInterestHist" in asked.path] == []
