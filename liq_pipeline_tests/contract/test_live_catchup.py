"""History by REST: a first start ends with the series as if they had always been read; what is not served is a gap."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from liq_pipeline.settings import Settings, SourceSettings
from liq_pipeline.sources import registry
from liq_pipeline.sources.history.catchup import BEFORE_THE_FIRST, NO_HISTORY, NOT_SERVED, catch_up
from liq_pipeline.store.connection import connect
from liq_pipeline_tests.live_support import Reply, land_everything, rows, venue_server
from liq_pipeline_tests.past_support import SERVES, VENUES, HistoryServer, expected_rows, last_step

MakeSettings = Callable[..., Settings]
MakeUrl = Callable[[], str]
NOW = datetime(2024, 6, 1, 12, 2, tzinfo=UTC)
WINDOW = timedelta(hours=11)  # no multiple of the settlements' eight hours
VALUE = {
    "prices": "SELECT event_time, known_at, origin, price_usd AS value FROM prices WHERE venue = %s",
    "open_interest": (
        "SELECT event_time, known_at, origin, open_interest_base AS value FROM open_interest WHERE venue = %s"
    ),
}
OF_KIND = (
    "SELECT event_time, known_at, origin, long_share AS value FROM long_short_ratio WHERE venue = %s AND kind = %s"
)
SETTLED = "SELECT event_time, known_at, origin, rate AS value FROM funding_rates WHERE venue = %s AND kind = %s"


@pytest.fixture
def venues() -> Iterator[HistoryServer]:
    with venue_server(*VENUES) as running:
        yield HistoryServer(running, NOW)


def chosen(settings: MakeSettings, venues: HistoryServer, prefix: str, *names: str) -> Settings:
    urls = venues.server.urls() | {"coingecko": venues.server.url("nobody")}
    return settings(
        mode="live",
        symbols=("BTC",),
        venues=names or VENUES,
        kafka_topic_prefix=prefix,
        sources=SourceSettings(urls=urls, request_seconds=5),
    )


def series_of(database_url: str, venue: str, series: str) -> list[dict[str, Any]]:
    if series in VALUE:
        return rows(database_url, VALUE[series] + " ORDER BY event_time", venue)
    query = SETTLED if series == "settled" else OF_KIND
    return rows(database_url, query + " ORDER BY event_time", venue, series)


ALL = (
    "SELECT venue, 'oi' AS series, event_time, known_at, origin, open_interest_base AS value FROM open_interest"
    " UNION ALL SELECT venue, 'price', event_time, known_at, origin, price_usd FROM prices"
    " UNION ALL SELECT venue, kind, event_time, known_at, origin, rate FROM funding_rates"
    " UNION ALL SELECT venue, kind, event_time, known_at, origin, long_share FROM long_short_ratio ORDER BY 1, 2, 3"
)


def test_every_venue_that_offers_history_is_served_here() -> None:
    assert {name for name, source in registry.SOURCES.items() if source.histories and source.offers} == set(VENUES)
    for name in VENUES:
        offered = {part for history in registry.SOURCES[name].histories for part in (history.kinds or (history.topic,))}
        assert offered == set(SERVES[name]), name


def test_each_venues_past_is_loaded_by_value(
    venues: HistoryServer, database_url: str, kafka_server: str, topic_prefix: str, settings: MakeSettings
) -> None:
    result = catch_up(chosen(settings, venues, topic_prefix), database_url, kafka_server, NOW, look_back=WINDOW)
    land_everything(database_url, kafka_server, topic_prefix)
    assert result.failures == {}
    for venue in VENUES:
        histories = registry.SOURCES[venue].histories
        for series in SERVES[venue]:
            history = next(h for h in histories if series in (h.kinds or (h.topic,)))
            end = last_step(NOW, history.declared_delay, history.step)
            start = last_step(end - WINDOW, timedelta(0), timedelta(0) + history.step) + history.step
            found = series_of(database_url, venue, series)
            assert [row["event_time"] for row in found] == [t for t, _ in expected_rows(venue, series, start, end)], (
                venue,
                series,
            )
            expected = [value for _, value in expected_rows(venue, series, start, end)]
            assert [row["value"] for row in found] == pytest.approx(expected, rel=1e-9), (venue, series)
            assert {row["origin"] for row in found} <= {"archive"}
            assert {row["known_at"] - row["event_time"] for row in found} <= {history.declared_delay}
    assert rows(database_url, "SELECT * FROM row_conflicts") == []
    assert rows(database_url, "SELECT * FROM dead_letters") == []


def test_a_catch_up_in_two_parts_ends_with_the_rows_of_one(
    venues: HistoryServer, new_database_url: MakeUrl, kafka_server: str, topic_prefix: str, settings: MakeSettings
) -> None:
    options = chosen(settings, venues, topic_prefix)
    parted, whole = new_database_url(), new_database_url()
    earlier = NOW - timedelta(hours=2)
    catch_up(options, parted, kafka_server, earlier, look_back=WINDOW - timedelta(hours=2))
    land_everything(parted, kafka_server, topic_prefix)
    catch_up(options, parted, kafka_server, NOW, look_back=WINDOW)
    land_everything(parted, kafka_server, topic_prefix)
    catch_up(options, whole, kafka_server, NOW, look_back=WINDOW)
    land_everything(whole, kafka_server, topic_prefix)
    assert len(rows(whole, ALL)) > 2_000
    assert rows(parted, ALL) == rows(whole, ALL)
    assert rows(parted, "SELECT * FROM row_conflicts") == []
    again = catch_up(options, parted, kafka_server, NOW, look_back=WINDOW)
    assert (again.records, again.gaps) == ({}, 0)


def test_what_lies_after_the_first_live_row_is_left_to_the_healer(
    venues: HistoryServer, database_url: str, kafka_server: str, topic_prefix: str, settings: MakeSettings
) -> None:
    options = chosen(settings, venues, topic_prefix, "binance")
    catch_up(options, database_url, kafka_server, NOW, look_back=WINDOW)
    land_everything(database_url, kafka_server, topic_prefix)
    first_live = NOW.replace(hour=9, minute=0)
    with connect(database_url) as conn:
        conn.execute("DELETE FROM prices WHERE event_time > %s", [first_live])
        conn.execute("UPDATE prices SET origin = 'live' WHERE event_time = %s", [first_live])
    again = catch_up(options, database_url, kafka_server, NOW, look_back=WINDOW)
    assert (again.records, again.gaps) == ({}, 0)


def test_what_a_venue_does_not_serve_is_a_gap_said_once(
    venues: HistoryServer, database_url: str, kafka_server: str, topic_prefix: str, settings: MakeSettings
) -> None:
    options = chosen(settings, venues, topic_prefix, "dydx")
    venues.server.fault = lambda source, path, query: (
        Reply({"historicalFunding": []}) if "effectiveBeforeOrAt" in query else None
    )
    first = catch_up(options, database_url, kafka_server, NOW, look_back=timedelta(hours=3))
    assert first.failures == {}
    found = rows(database_url, "SELECT * FROM ingest_gaps ORDER BY source")
    assert [(row["source"], row["kind"], row["permanent_reason"]) for row in found] == [
        ("dydx funding_rates", "settled", NOT_SERVED),
        ("dydx open_interest", None, NO_HISTORY),
        ("dydx prices", None, NO_HISTORY),
    ]
    assert {(row["cause"], row["is_permanent"], row["symbol"]) for row in found} == {(BEFORE_THE_FIRST, True, "BTC")}
    assert found[1]["to_time"] - found[1]["from_time"] == timedelta(hours=3)
    assert catch_up(options, database_url, kafka_server, NOW, look_back=timedelta(hours=3)).gaps == 0


def test_beyond_what_is_served_is_a_gap_and_not_asked_for_again(
    venues: HistoryServer, database_url: str, kafka_server: str, topic_prefix: str, settings: MakeSettings
) -> None:
    venues.served_from = NOW - timedelta(hours=4)
    options = chosen(settings, venues, topic_prefix, "binance")
    catch_up(options, database_url, kafka_server, NOW, look_back=timedelta(hours=6))
    land_everything(database_url, kafka_server, topic_prefix)
    gap = rows(database_url, "SELECT * FROM ingest_gaps WHERE source = 'binance open_interest'")
    assert [(row["from_time"], row["to_time"]) for row in gap] == [
        (datetime(2024, 6, 1, 5, 50, tzinfo=UTC), datetime(2024, 6, 1, 8, 0, tzinfo=UTC))
    ]
    venues.asked.clear()
    catch_up(options, database_url, kafka_server, NOW, look_back=timedelta(hours=6))
    assert venues.asked == []
