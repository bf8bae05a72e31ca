"""Two hours of outage, then reconnection: every series that REST serves ends with the values of an uninterrupted run.

Two installations read the same market at every venue with a history, one of them with a hole of two hours. After the
healing each series of each venue holds, on the grid of the venue's history, what the other one read live; what no venue
serves stands in the ledger, with the reason. How holes are found, split and scored again: integration/test_gap_healing.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from liq_pipeline.bus.producer import RecordProducer
from liq_pipeline.domain.records import FundingRate, LongShortRatio, OpenInterest, Price, Record
from liq_pipeline.pipeline import healing
from liq_pipeline.pipeline.healing import heal
from liq_pipeline.settings import Settings, SourceSettings
from liq_pipeline.sources.registry import SOURCES, real_world
from liq_pipeline.store import worlds
from liq_pipeline.store.connection import connect
from liq_pipeline_tests import past_support as market
from liq_pipeline_tests.live_support import land_everything, rows, venue_server
from liq_pipeline_tests.past_support import KINDS, SERVES, SETTLES_EVERY, VENUES, HistoryServer

MakeSettings = Callable[..., Settings]
MINUTE = timedelta(minutes=1)
START = datetime(2024, 6, 3, 7, 0, tzinfo=UTC)
DOWN = START + 10 * MINUTE
BACK = DOWN + timedelta(hours=2)
"""The hole holds a settlement of every interval: eight and nine o'clock."""
END = BACK + 15 * MINUTE
NOW = END + 15 * MINUTE
"""When the healing runs: the venues have published everything."""

SERIES = {
    "prices": "SELECT venue, 'prices' AS series, event_time, origin, price_usd AS value FROM prices",
    "open_interest": (
        "SELECT venue, 'open_interest' AS series, event_time, origin, open_interest_base AS value FROM open_interest"
    ),
    "funding_rates": (
        "SELECT venue, kind AS series, event_time, origin, rate_per_8h AS value FROM funding_rates"
        " WHERE kind = 'settled'"
    ),
    "long_short_ratio": "SELECT venue, kind AS series, event_time, origin, long_share AS value FROM long_short_ratio",
}
READ = " UNION ALL ".join(SERIES.values())


def polled(venue: str, moment: datetime) -> Iterator[Record]:
    """What a poll at the moment brings of a venue: ratios every five minutes, the newest settlement every ten."""
    second = moment.timestamp()
    common: dict[str, Any] = {
        "schema_version": 1,
        "event_time": moment,
        "received_at": moment,
        "origin": "live",
        "world": "real",
        "venue": venue,
        "symbol": "BTC",
    }
    coins, hours = market.interest(venue, second), float(SETTLES_EVERY[venue])
    yield Price(**common, price_usd=market.price(venue, second))
    yield OpenInterest(**common, open_interest_base=coins, open_interest_usd=coins * market.price(venue, second))
    yield FundingRate(**common, kind="predicted", rate=market.settled(venue, second), interval_hours=hours)
    if second % 600 == 0:
        settlement = second - second % (hours * 3600)
        of_then = common | {"event_time": datetime.fromtimestamp(settlement, UTC)}
        yield FundingRate(**of_then, kind="settled", rate=market.settled(venue, settlement), interval_hours=hours)
    if second % 300 == 0:
        for kind in set(SERVES[venue]) & set(KINDS):
            share = market.long_share(venue, second, kind)
            shares = {"long_share": share, "short_share": 1 - share, "ratio": share / (1 - share)}
            yield LongShortRatio(**common, kind=kind, period_minutes=5, **shares)


def live(database_url: str, kafka: str, chosen: Settings, *spans: tuple[datetime, datetime]) -> None:
    """Every minute in each [first, last], from every venue, through Kafka into the tables."""
    with connect(database_url) as conn:
        worlds.register(conn, real_world(chosen), activate=True)
    with RecordProducer(kafka, chosen.kafka_topic_prefix) as producer:
        for first, last in spans:
            for number in range((last - first) // MINUTE + 1):
                for venue in VENUES:
                    for record in polled(venue, first + number * MINUTE):
                        producer.send(record)
        producer.flush(timeout_seconds=30)
    land_everything(database_url, kafka, chosen.kafka_topic_prefix)


def begin_where_the_other_ended(database_url: str, other: str) -> None:
    """One log serves both installations: the second reads only what comes after the first one's messages."""
    columns = "consumer, cluster_id, topic, kafka_partition, topic_id, next_offset"
    offsets = rows(other, f"SELECT {columns} FROM consumer_offsets")  # noqa: S608 - own names
    with connect(database_url) as conn, conn.cursor() as cursor:
        cursor.executemany(
            f"INSERT INTO consumer_offsets ({columns}) VALUES ("  # noqa: S608 - own names
            "%(consumer)s, %(cluster_id)s, %(topic)s, %(kafka_partition)s, %(topic_id)s, %(next_offset)s)",
            offsets,
        )


def test_every_series_that_rest_serves_ends_as_if_nothing_had_happened(
    new_database_url: Callable[[], str], kafka_server: str, topic_prefix: str, settings: MakeSettings
) -> None:
    interrupted, whole = new_database_url(), new_database_url()
    with venue_server(*VENUES) as server:
        HistoryServer(server, NOW)
        chosen = settings(
            mode="live",
            symbols=("BTC",),
            venues=VENUES,
            kafka_topic_prefix=topic_prefix,
            sources=SourceSettings(urls=server.urls() | {"coingecko": server.url("nobody")}, request_seconds=5),
        )
        live(whole, kafka_server, chosen, (START, END))
        begin_where_the_other_ended(interrupted, whole)
        live(interrupted, kafka_server, chosen, (START, DOWN), (BACK, END))
        before = len(rows(interrupted, READ))
        result = heal(chosen, interrupted, kafka_server, NOW)

    assert result.failures == {}
    healed, expected = series_of(interrupted), series_of(whole)
    assert set(expected) == {(venue, series) for venue in VENUES for series in SERVES[venue]} | {
        (venue, "open_interest") for venue in VENUES
    } | {(venue, "prices") for venue in VENUES}
    loaded = 0
    for venue in VENUES:
        for history in SOURCES[venue].histories:
            for series in history.kinds or (history.topic,):
                hole = [
                    (moment, pytest.approx(value, rel=1e-9))
                    for moment, value in sorted(expected[venue, series].items())
                    if DOWN < moment < BACK and moment.timestamp() % history.step.total_seconds() == 0
                ]
                found = [(moment, v) for moment, v in sorted(healed[venue, series].items()) if DOWN < moment < BACK]
                assert hole, (venue, series)
                assert found == hole, (venue, series)
                loaded += len(hole)
                # And what was read live on either side of the hole is as it was.
                live_rows = {t: v for t, v in expected[venue, series].items() if not DOWN < t < BACK}
                assert {t: v for t, v in healed[venue, series].items() if not DOWN < t < BACK} == live_rows
    assert loaded > 450
    assert len(rows(interrupted, READ)) > before
    assert rows(interrupted, "SELECT * FROM row_conflicts") == []

    # Nothing is left open, and what nobody serves says so.
    ledger = rows(interrupted, "SELECT * FROM ingest_gaps")
    assert [gap for gap in ledger if gap["healed_at"] is None and not gap["is_permanent"]] == []
    lost = {(gap["venue"], gap["kind"] or gap["source"].split()[1]): gap["permanent_reason"] for gap in ledger
            if gap["is_permanent"]}  # fmt: skip
    unserved = {
        (venue, series)
        for venue in VENUES
        for series in ("prices", "open_interest", "predicted")
        if series not in SERVES[venue]
    }
    assert lost == dict.fromkeys(unserved, healing.NOT_SERVED)


def series_of(database_url: str) -> dict[tuple[str, str], dict[datetime, float]]:
    """(venue, series) -> time -> value."""
    found: dict[tuple[str, str], dict[datetime, float]] = {}
    for row in rows(database_url, READ):
        found.setdefault((row["venue"], row["series"]), {})[row["event_time"]] = row["value"]
    return found
