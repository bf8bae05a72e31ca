"""A small market written straight into the tables, for tests of scoring.

Belongs here: rows that look as if landing had brought them, worlds with a clock that tests can set. Does not: Kafka.
Values follow from symbol, venue and time alone, so that any part of the market can be written at any time.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

import psycopg

from liq_pipeline.bus.topics import IN_TOPICS, PARTITIONS
from liq_pipeline.domain.worlds import Expectation, Manifest, World
from liq_pipeline.store import worlds
from liq_pipeline.store.connection import connect

START = datetime(2026, 3, 2, tzinfo=UTC)
MARKET_TOPICS = ("prices", "funding_rates", "open_interest", "long_short_ratio", "liquidations")
CLUSTER_ID = "written-by-the-test"
FIVE_MINUTES = timedelta(minutes=5)

_NOISE = "((hashtext({salt} || s || v || extract(epoch FROM t)::bigint::text) & 65535) / 65536.0::float8)"
_WAVE = "sin(extract(epoch FROM t)::float8 / {period} + ascii(s) + ascii(v))"


BUSINESS = {
    "liquidation_risk": "world, symbol, time, score_version, revision, score, score_high, side, funding_points,"
    " open_interest_points, long_short_points, liquidation_points, long_squeeze, short_squeeze, coverage, inputs",
    "signals": "world, symbol, time, score_version, revision, risk, pressure, severity, severity_possible,"
    " flow_side_known, note, cascade_probability_1h, cascade_probability_4h, cascade_probability_24h, model_id,"
    " baseline_volatility_percentile",
    "stablecoin_pressure": "world, time, score_version, revision, score, inflow_usd, outflow_usd, window_minutes,"
    " coverage, inputs",
    "feature_bars": "world, symbol, venue, bar_end, price_usd, open_interest_base, funding_rate_per_8h, long_share,"
    " long_liquidated_cents, short_liquidated_cents, built_at_time",
    "flow_bars": "world, bar_end, window_minutes, inflow_cents, outflow_cents, built_at_time",
    "feature_references": "world, symbol, venue, feature, day, built_at_time, observations, quantiles",
    "ticks": "world, stream, time",
    "outbox": "outbox_id, world, topic, message_key, payload",
}
"""Everything but serial ids, run ids, cuts and the database's clock."""


def business_hash(
    database_url: str, *, until: datetime | None = None, tables: Iterable[str] = BUSINESS
) -> dict[str, str]:
    """table -> hash over its business columns (of the points up to `until`)."""
    hashes = {}
    with connect(database_url) as conn:
        for table in tables:
            where = "" if until is None else f"WHERE time <= '{until}'"
            found = conn.execute(f"SELECT {BUSINESS[table]} FROM {table} {where}").fetchall()  # type: ignore[arg-type] # noqa: S608
            lines = sorted(map(repr, found))
            hashes[table] = f"{hashlib.sha256(repr(lines).encode()).hexdigest()} {len(lines)} rows"
    return hashes


NO_ROWS = f"{hashlib.sha256(b'[]').hexdigest()} 0 rows"


@dataclass(frozen=True)
class Feed:
    """Which part of the market to write: every series of these topics, one value per step in (first, last]."""

    world: str
    symbols: tuple[str, ...]
    venues: tuple[str, ...]
    first: datetime
    last: datetime
    step: timedelta = FIVE_MINUTES
    topics: tuple[str, ...] = MARKET_TOPICS
    origin: str = "recorded"
    delay: timedelta = timedelta(0)
    """known_at - event_time"""
    offset: int = 0
    """kafka_offset of all rows"""
    scale: float = 1.0
    """Multiplies prices and open interest: another value under another name."""


def make_world(
    conn: psycopg.Connection[Any],
    name: str = "recorded/test",
    *,
    symbols: Sequence[str] = ("BTC", "ETH"),
    venues: Sequence[str] = ("alpha", "beta"),
    topics: Sequence[str] = MARKET_TOPICS,
    flow_venues: Sequence[str] = (),
    cadence_seconds: float = 60.0,
    step_seconds: int = 60,
    first_time: datetime | None = START,
    last_time: datetime | None = None,
    activate: bool = True,
) -> World:
    """Register a world whose every venue is expected to bring every topic, and the log its rows pretend to be from."""
    kind = name.partition("/")[0]
    expected = {topic: Expectation(venues=tuple(venues), cadence_seconds=cadence_seconds) for topic in topics}
    if flow_venues:
        expected["stablecoin_flows"] = Expectation(venues=tuple(flow_venues), cadence_seconds=cadence_seconds)
    world = World(
        name=name,
        kind=kind,  # type: ignore[arg-type]
        market_step_seconds=step_seconds,
        flows_step_seconds=step_seconds,
        manifest=Manifest(symbols=tuple(symbols), expected=expected),
        first_time=first_time,
        last_time=last_time,
    )
    worlds.register(conn, world, activate=activate)
    conn.execute("INSERT INTO kafka_clusters (cluster_id) VALUES (%s) ON CONFLICT DO NOTHING", [CLUSTER_ID])
    set_landed(conn, 1)
    return world


def set_landed(conn: psycopg.Connection[Any], next_offset: int) -> None:
    """Let landing stand at this offset in the log that the test's rows pretend to be from."""
    for topic in IN_TOPICS:
        conn.execute(
            """
            INSERT INTO consumer_offsets (consumer, cluster_id, topic, kafka_partition, topic_id, next_offset)
            VALUES ('landing', %s, %s, 0, 'test', %s)
            ON CONFLICT (consumer, cluster_id, topic, kafka_partition) DO UPDATE SET next_offset = excluded.next_offset
            """,
            [CLUSTER_ID, topic, next_offset],
        )


def set_clock(conn: psycopg.Connection[Any], world: World, time: datetime) -> None:
    """Let every partition of a recorded or simulated world have reached this watermark."""
    with conn.cursor() as cursor:
        cursor.executemany(
            """
            INSERT INTO watermarks (world, topic, kafka_partition, watermark) VALUES (%s, %s, %s, %s)
            ON CONFLICT (world, topic, kafka_partition) DO UPDATE SET watermark = excluded.watermark
            """,
            [(world.name, topic, partition, time) for topic in IN_TOPICS for partition in range(PARTITIONS)],
        )


def write(conn: psycopg.Connection[Any], feed: Feed) -> None:
    """Write the feed's rows; a row that is there stays."""
    for topic in feed.topics:
        _insert(conn, feed, topic, *_VALUES[topic], per_symbol=True)
        if topic == "liquidations":
            write_heartbeats(conn, feed, "liquidations")


def write_heartbeats(conn: psycopg.Connection[Any], feed: Feed, topic: str) -> None:
    """The feed's venues say at every step that the topic was read completely."""
    _insert(conn, feed, "heartbeats", "topic", f"'{topic}'", "g", per_symbol=False)


def write_flow(
    conn: psycopg.Connection[Any],
    world: str,
    time: datetime,
    amount: str,
    direction: str,
    *,
    sender: str = "0x" + "a" * 40,
    receiver: str = "0x" + "b" * 40,
    number: int = 0,
    known_at: datetime | None = None,
    orphaned_known_at: datetime | None = None,
    offset: int = 0,
) -> None:
    """One transfer of a stablecoin."""
    conn.execute(
        """
        INSERT INTO stablecoin_flows (world, chain, token, tx_hash, log_index, block_hash, event_time, block_number,
            is_canonical, orphaned_known_at, from_address, to_address, amount, direction, label_version, venue, origin,
            event_time_source, received_at, known_at, kafka_cluster, kafka_partition, kafka_offset)
        VALUES (%(world)s, 'ethereum', 'USDT', '0x' || lpad(%(number)s::text, 64, '0'), 0, '0x' || repeat('c', 64),
            %(time)s, 1, %(orphaned)s::timestamptz IS NULL, %(orphaned)s, %(sender)s, %(receiver)s, %(amount)s,
            %(direction)s, 'first', 'chain', 'recorded', 'venue', %(known)s, %(known)s,
            (SELECT cluster_no FROM kafka_clusters WHERE cluster_id = %(cluster)s), 0, %(offset)s)
        """,
        {
            "world": world, "number": number, "time": time, "orphaned": orphaned_known_at, "sender": sender,
            "receiver": receiver, "amount": amount, "direction": direction, "known": known_at or time,
            "cluster": CLUSTER_ID, "offset": offset,
        },
    )  # fmt: skip


def noise(salt: str) -> str:
    """SQL for a number in [0, 1) that follows from series and time."""
    return _NOISE.format(salt=f"'{salt}'")


def _wave(period: float) -> str:
    return _WAVE.format(period=period)


_PRICE = f"(100 * (1 + 0.03 * {_wave(40000)} + 0.002 * {noise('price')}))"
_LONG = f"(0.5 + 0.2 * {_wave(90000)} + 0.02 * {noise('crowd')})"
_RATE = f"(0.0002 * {_wave(70000)} + 0.00005 * {noise('rate')})"
_INTEREST = f"(1000 * (1 + 0.1 * {_wave(110000)} + 0.01 * {noise('interest')}))"
_SIZE = f"(10 + 90000 * power({noise('size')}, 8))"
_SIDE = f"CASE WHEN {noise('side')} < 0.5 THEN 'long' ELSE 'short' END"
_VALUES = {
    "prices": ("price_usd, event_time_source", f"%(scale)s * {_PRICE}, 'venue'", "g"),
    "funding_rates": (
        "kind, rate, interval_hours, rate_per_8h, event_time_source",
        "'predicted', r, 8, r, 'venue'",
        f"(SELECT *, {_RATE} AS r FROM g) AS g",  # noqa: S608
    ),
    "open_interest": ("open_interest_base, event_time_source", f"%(scale)s * {_INTEREST}, 'venue'", "g"),
    "long_short_ratio": (
        "kind, period_minutes, long_share, short_share, ratio, event_time_source",
        "'accounts', 5, l, 1 - l, l / (1 - l), 'venue'",
        f"(SELECT *, {_LONG} AS l FROM g) AS g",  # noqa: S608
    ),
    "liquidations": (
        "event_id, liquidated_side, price_usd, quantity_base, notional_usd, is_sample, source_topic, event_time_source",
        f"'e', {_SIDE}, q, 1, q, false, 'test', 'venue'",
        f"(SELECT *, {_SIZE} AS q FROM g WHERE {noise('any')} < 0.4) AS g",  # noqa: S608
    ),
}


def _insert(
    conn: psycopg.Connection[Any], feed: Feed, table: str, columns: str, values: str, source: str, *, per_symbol: bool
) -> None:
    series = "unnest(%(symbols)s::text[]) AS s," if per_symbol else "(VALUES ('')) AS one(s),"
    symbol_column, symbol = ("symbol, ", "s, ") if per_symbol else ("", "")
    statement = f"""
        WITH g AS (
            SELECT s, v, t FROM {series} unnest(%(venues)s::text[]) AS v,
                   generate_series(%(first)s::timestamptz + %(step)s, %(last)s::timestamptz, %(step)s) AS t
        )
        INSERT INTO {table} (world, {symbol_column}venue, event_time, origin, received_at, known_at, kafka_cluster,
                             kafka_partition, kafka_offset, {columns})
        SELECT %(world)s, {symbol}v, t, %(origin)s, t + %(delay)s, t + %(delay)s,
               (SELECT cluster_no FROM kafka_clusters WHERE cluster_id = %(cluster)s), 0, %(offset)s,
               {values}
        FROM {source}
        ON CONFLICT DO NOTHING
    """  # noqa: S608 - the test's own constants
    conn.execute(
        statement,  # type: ignore[arg-type]
        {
            "world": feed.world, "symbols": list(feed.symbols), "venues": list(feed.venues), "first": feed.first,
            "last": feed.last, "step": feed.step, "origin": feed.origin, "delay": feed.delay,
            "cluster": CLUSTER_ID, "offset": feed.offset, "scale": feed.scale,
        },
    )  # fmt: skip
