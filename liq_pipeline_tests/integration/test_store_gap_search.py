"""Finding holes: by the venue's own pace, across the edge of the search, and never where a series only begins."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any

import psycopg
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from liq_pipeline.pipeline import healing
from liq_pipeline.settings import Settings
from liq_pipeline.store.completeness.gap_search import Series, find_holes
from liq_pipeline.store.connection import connect
from liq_pipeline_tests.scoring_support import START, Feed, make_world, write

TEN_SECONDS = timedelta(seconds=10)
MINUTE = timedelta(minutes=1)
HOUR = timedelta(hours=1)
PRICES = Series("alpha", "prices", None, timedelta(seconds=30), timedelta(minutes=7))
RATIOS = Series("alpha", "long_short_ratio", "accounts", timedelta(minutes=15), timedelta(minutes=15))
SETTLED = Series("alpha", "funding_rates", "settled", timedelta(seconds=30), timedelta(0))


@pytest.fixture
def conn(database_url: str) -> Iterator[psycopg.Connection[Any]]:
    with connect(database_url) as connection:
        make_world(connection, "real", first_time=None, cadence_seconds=10.0, step_seconds=10)
        yield connection


def live(first: datetime, last: datetime, **changes: Any) -> Feed:
    feed = Feed("real", ("BTC",), ("alpha",), first, last, TEN_SECONDS, topics=("prices",), origin="live")
    return replace(feed, **changes)


def holes(
    conn: psycopg.Connection[Any], *series: Series, since: datetime = START - HOUR
) -> list[tuple[str, str, datetime, datetime]]:
    found = find_holes(conn, "real", series or (PRICES,), ("BTC", "ETH"), since, START + timedelta(days=3))
    return [(hole.series.topic, hole.symbol, hole.from_time, hole.to_time) for hole in found]


def test_a_series_without_a_break_has_no_hole_and_a_series_without_rows_neither(conn: psycopg.Connection[Any]) -> None:
    write(conn, live(START, START + HOUR))
    assert holes(conn) == []


def test_a_break_longer_than_the_pace_allows_is_a_hole_between_two_rows(conn: psycopg.Connection[Any]) -> None:
    write(conn, live(START, START + 10 * MINUTE))
    write(conn, live(START + 10 * MINUTE + timedelta(seconds=50), START + 20 * MINUTE))  # one poll short of a hole
    write(conn, live(START + 22 * MINUTE, START + HOUR))
    assert holes(conn) == [("prices", "BTC", START + 20 * MINUTE, START + 22 * MINUTE + TEN_SECONDS)]


def test_a_hole_that_began_before_the_search_is_found_whole(conn: psycopg.Connection[Any]) -> None:
    write(conn, live(START, START + 10 * MINUTE))
    write(conn, live(START + 3 * HOUR, START + 4 * HOUR))
    expected = [("prices", "BTC", START + 10 * MINUTE, START + 3 * HOUR + TEN_SECONDS)]
    assert holes(conn, since=START + 2 * HOUR) == expected
    assert holes(conn, since=START + 3 * HOUR + MINUTE) == []  # it ended before


def test_rows_that_land_after_their_time_was_searched_end_a_hole_all_the_same(
    conn: psycopg.Connection[Any], settings: Callable[..., Settings]
) -> None:
    """Landing stood still: what Kafka kept meanwhile lies before the place where the next search goes on."""
    write(conn, live(START, START + 10 * MINUTE))
    conn.execute("UPDATE worlds SET is_active = true")
    assert healing.search(settings(), conn, START + 30 * MINUTE) == 0
    write(conn, live(START + 20 * MINUTE, START + 28 * MINUTE))
    assert healing.search(settings(), conn, START + 40 * MINUTE) == 1
    assert healing.search(settings(), conn, START + 50 * MINUTE) == 0
    ((first, last),) = conn.execute("SELECT from_time, to_time FROM ingest_gaps").fetchall()
    assert (first, last) == (START + 10 * MINUTE, START + 20 * MINUTE + TEN_SECONDS)


def test_the_silence_after_the_newest_row_is_no_hole_yet(conn: psycopg.Connection[Any]) -> None:
    write(conn, live(START, START + 10 * MINUTE))
    assert holes(conn) == []


def test_rows_of_the_venues_history_close_a_hole_at_their_own_step(conn: psycopg.Connection[Any]) -> None:
    write(conn, live(START, START + 10 * MINUTE))
    write(conn, live(START + 70 * MINUTE, START + 80 * MINUTE))
    archive = live(START + 10 * MINUTE, START + 40 * MINUTE, step=5 * MINUTE, origin="archive")
    write(conn, archive)
    left = ("prices", "BTC", START + 40 * MINUTE, START + 70 * MINUTE + TEN_SECONDS)
    assert holes(conn) == [left]
    write(conn, replace(archive, first=START + 40 * MINUTE, last=START + 70 * MINUTE))
    assert holes(conn) == []


def test_a_venue_that_is_asked_less_often_sets_its_own_pace(conn: psycopg.Connection[Any]) -> None:
    write(conn, live(START, START + 2 * HOUR, step=2 * MINUTE))
    write(conn, live(START + 3 * HOUR, START + 4 * HOUR, step=2 * MINUTE))
    assert holes(conn) == [("prices", "BTC", START + 2 * HOUR, START + 3 * HOUR + 2 * MINUTE)]


def test_each_symbol_and_kind_is_a_series_of_its_own(conn: psycopg.Connection[Any]) -> None:
    write(conn, live(START, START + HOUR, symbols=("BTC", "ETH"), topics=("prices", "long_short_ratio")))
    write(conn, live(START + 2 * HOUR, START + 3 * HOUR, symbols=("BTC",), topics=("prices",)))
    conn.execute("UPDATE long_short_ratio SET kind = 'taker' WHERE event_time > %s", [START + HOUR / 2])
    write(conn, live(START + HOUR, START + 2 * HOUR, topics=("long_short_ratio",)))
    assert holes(conn, PRICES, RATIOS) == [
        ("long_short_ratio", "BTC", START + HOUR / 2, START + HOUR + TEN_SECONDS),
        ("prices", "BTC", START + HOUR, START + 2 * HOUR + TEN_SECONDS),
    ]


def test_a_settled_rate_is_missed_after_one_and_a_half_of_its_intervals(conn: psycopg.Connection[Any]) -> None:
    for hours in (0, 8, 16, 32, 40):
        write(conn, live(START + hours * HOUR - TEN_SECONDS, START + hours * HOUR, topics=("funding_rates",)))
    conn.execute("UPDATE funding_rates SET kind = 'settled', interval_hours = 8")
    assert holes(conn, SETTLED) == [("funding_rates", "BTC", START + 16 * HOUR, START + 32 * HOUR)]


@settings(
    max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow]
)
@given(st.sets(st.integers(0, 719), min_size=1), st.integers(0, 719))
def test_holes_are_exactly_the_breaks_of_more_than_a_minute(
    conn: psycopg.Connection[Any], present: set[int], since: int
) -> None:
    """Whatever is missing of two hours, against the plain definition."""
    times = sorted(START + second * TEN_SECONDS for second in present)
    conn.execute("DELETE FROM prices")
    for time in times:
        write(conn, live(time - TEN_SECONDS, time))
    from_time = START + since * TEN_SECONDS
    gaps = [later - earlier for earlier, later in itertools.pairwise(times)]
    window = [later - earlier for earlier, later in itertools.pairwise(times) if later > from_time]
    usual = sorted(window)[(len(window) - 1) // 2] if len(window) >= 10 else timedelta(0)
    limit = max(MINUTE, 3 * usual)
    expected = [
        ("prices", "BTC", earlier, earlier + gap)
        for earlier, gap in zip(times, gaps, strict=False)
        if gap > limit and earlier + gap > from_time
    ]
    assert holes(conn, since=from_time) == expected
