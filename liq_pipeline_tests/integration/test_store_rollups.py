"""Roll-ups: what a bucket says, and that it follows the rows whatever happens to them."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from itertools import count
from typing import Any

import psycopg
import pytest

from liq_pipeline.domain.records import Record
from liq_pipeline.domain.worlds import Manifest, World
from liq_pipeline.store import worlds
from liq_pipeline.store.connection import connect
from liq_pipeline.store.landing import write as landing_write
from liq_pipeline.store.landing.tables import TABLES
from liq_pipeline.store.rollups import upkeep
from liq_pipeline.store.schema.migrations import migrate
from liq_pipeline_tests.landing_support import (
    BLOCK,
    OTHER_BLOCK,
    SAMPLES,
    T0,
    funding_rate,
    liquidation,
    long_short_ratio,
    open_interest,
    price,
    stablecoin_flow,
)

MINUTE = timedelta(minutes=1)
_offsets = count()


def know(conn: psycopg.Connection[Any], *names: str) -> None:
    """Register the worlds whose roll-ups are looked at."""
    for name in names:
        world = World(
            name=name,
            kind="real" if name == "real" else "recorded",
            market_step_seconds=10,
            flows_step_seconds=15,
            manifest=Manifest(symbols=(), expected={}),
        )
        worlds.register(conn, world, activate=False)
    conn.commit()


@pytest.fixture
def conn(database_url: str) -> Iterator[psycopg.Connection[Any]]:
    with connect(database_url) as conn:
        know(conn, "real", "recorded/x")
        yield conn


def land(conn: psycopg.Connection[Any], *records: Record) -> None:
    (stamp,) = conn.execute("SELECT clock_timestamp()").fetchone() or (None,)
    for record in records:
        offset = next(_offsets)
        table = TABLES[type(record)]
        row = table.build(record, table.name, 1, 0, offset)
        landing_write.write(
            conn, table, [row], stamp=stamp + timedelta(microseconds=offset), identities={1: "c"}, last_ticks={}
        )
    conn.commit()


def rows(conn: psycopg.Connection[Any], statement: str) -> list[tuple[Any, ...]]:
    found = conn.execute(statement).fetchall()
    conn.commit()
    return found


def test_buckets_say_what_their_rows_say(conn: psycopg.Connection[Any]) -> None:
    land(
        conn,
        *(
            price(seconds, price_usd=value)
            for seconds, value in ((0, 10.0), (59, 8.0), (30, 12.0), (60, 9.0), (3600, 20.0))
        ),
        funding_rate(0, rate=0.0001, interval_hours=8.0),
        funding_rate(10, rate=-0.0002, interval_hours=8.0),
        open_interest(0, open_interest_base=1000.0),
        open_interest(10, open_interest_base=1100.0, open_interest_usd=None),
        long_short_ratio(0),
        liquidation(0, is_sample=False),
        liquidation(10),
        stablecoin_flow(0, amount=Decimal("1.5")),
        stablecoin_flow(10, amount=Decimal("2.25")),
        stablecoin_flow(20, amount=Decimal(100), is_canonical=False),
    )

    upkeep.refresh(conn)

    assert rows(conn, "SELECT * FROM prices_1m ORDER BY bucket") == [
        (T0, "real", "BTC", "coingecko", 10.0, 12.0, 8.0, 8.0, 3),
        (T0 + MINUTE, "real", "BTC", "coingecko", 9.0, 9.0, 9.0, 9.0, 1),
        (T0 + 60 * MINUTE, "real", "BTC", "coingecko", 20.0, 20.0, 20.0, 20.0, 1),
    ]
    assert rows(conn, "SELECT bucket, price_usd_last, samples FROM prices_1h ORDER BY bucket") == [
        (T0, 9.0, 4),
        (T0 + 60 * MINUTE, 20.0, 1),
    ]
    assert rows(conn, "SELECT rate_per_8h_high, rate_per_8h_low, rate_per_8h_last FROM funding_rates_5m") == [
        (0.0001, -0.0002, -0.0002)
    ]
    assert rows(conn, "SELECT open_interest_base_last, open_interest_usd_last, samples FROM open_interest_5m") == [
        (1100.0, None, 2)
    ]
    assert rows(conn, "SELECT kind, period_minutes, ratio_last FROM long_short_ratio_1h") == [("accounts", 5, 1.5)]
    assert rows(conn, "SELECT notional_usd, events, is_sample FROM liquidations_1h") == [(356_000.0, 2, True)]
    assert rows(conn, "SELECT direction, amount, transfers FROM stablecoin_flows_1h") == [
        ("inflow", Decimal("3.75"), 2)
    ]


def test_scores_roll_up_their_current_revision_and_unknown_stays_unknown(conn: psycopg.Connection[Any]) -> None:
    conn.cursor().executemany(
        "INSERT INTO liquidation_risk"
        " (world, symbol, time, score_version, revision, score, score_high, coverage, inputs)"
        " VALUES ('real', %s, %s, 'v', %s, %s, 100, 0.5, '{}')",
        [("BTC", T0, 0, 90), ("BTC", T0, 1, 10), ("BTC", T0 + timedelta(seconds=10), 0, None), ("ETH", T0, 0, None)],
    )
    conn.cursor().executemany(
        "INSERT INTO signals (world, symbol, time, score_version, risk, severity, severity_possible, flow_side_known)"
        " VALUES ('real', 'BTC', %s, 'v', %s, %s, 'CRITICAL', true)",
        [(T0, 80.0, "CRITICAL"), (T0 + timedelta(seconds=10), None, "UNKNOWN")],
    )
    conn.execute(
        "INSERT INTO stablecoin_pressure (world, time, score_version, score, window_minutes, coverage, inputs)"
        " VALUES ('real', %s, 'v', -20, 60, 1, '{}')",
        [T0],
    )
    conn.commit()
    upkeep.refresh(conn)
    assert rows(conn, "SELECT symbol, score_max, score_last, samples FROM liquidation_risk_1m ORDER BY symbol") == [
        ("BTC", 10.0, None, 2),
        ("ETH", None, None, 1),
    ]
    assert rows(conn, "SELECT risk_max, critical_points, unknown_points, samples FROM signals_5m") == [(80.0, 1, 1, 2)]
    assert rows(conn, "SELECT score_min, score_last FROM stablecoin_pressure_1h") == [(-20.0, -20.0)]


def test_buckets_follow_late_rows_corrections_and_reorgs(conn: psycopg.Connection[Any]) -> None:
    land(conn, price(0, price_usd=10.0), price(120, price_usd=11.0, origin="archive"), stablecoin_flow(0))
    upkeep.refresh(conn)
    known = T0 + timedelta(hours=1)
    land(
        conn,
        price(60, price_usd=5.0),
        price(120, price_usd=13.0, origin="archive", known_at=known),
        stablecoin_flow(0, is_canonical=False, received_at=known),
    )
    hour = "SELECT price_usd_low, price_usd_last, samples FROM prices_1h ORDER BY bucket LIMIT 1"
    assert rows(conn, hour) == [(5.0, 13.0, 3)], "the newest hour is computed from the rows"
    land(conn, price(7200, price_usd=20.0))
    assert upkeep.refresh(conn)["prices"] == 1
    land(conn, price(30, price_usd=4.0))
    assert rows(conn, hour) == [(5.0, 13.0, 3)], "a stored hour waits for the next refresh"
    assert upkeep.refresh(conn)["prices"] == 1
    assert rows(conn, hour) == [(4.0, 13.0, 4)]
    assert rows(conn, "SELECT count(*) FROM stablecoin_flows_1h") == [(0,)]


@pytest.mark.parametrize("step", upkeep.STEPS)
def test_stored_buckets_are_those_that_the_view_computes(conn: psycopg.Connection[Any], step: str) -> None:
    land(conn, *(sample(seconds) for sample in SAMPLES.values() for seconds in range(0, 4 * 3600, 700)))
    conn.cursor().executemany(
        "INSERT INTO ticks (world, stream, time, cut, started_at, committed_at, rows_landed)"
        " VALUES ('real', 'market', %s, '{}', now(), %s, 3)",
        [(T0 + n * 20 * MINUTE, T0 + n * 20 * MINUTE + timedelta(seconds=n)) for n in range(12)],
    )
    conn.commit()
    views = [f"{rollup.table}_{step}" for rollup in upkeep.ROLLUPS]
    computed = {view: rows(conn, f"SELECT * FROM {view} ORDER BY {view}") for view in views}  # noqa: S608
    assert sum(map(len, computed.values())) >= 28
    upkeep.refresh(conn)
    assert rows(conn, "SELECT count(*) > 0 FROM rollup_prices") == [(True,)]
    assert {view: rows(conn, f"SELECT * FROM {view} ORDER BY {view}") for view in views} == computed  # noqa: S608


def test_the_hour_that_was_the_newest_is_stored_when_the_next_has_begun(conn: psycopg.Connection[Any]) -> None:
    land(conn, price(0))
    assert upkeep.refresh(conn)["prices"] == 0
    assert rows(conn, "SELECT count(*) FROM rollup_prices") == [(0,)]
    # Long after, so that the first row is no longer among those that changed.
    conn.execute("UPDATE prices SET landed_at = landed_at - interval '1 day'")
    land(conn, price(5 * 3600))
    assert upkeep.refresh(conn)["prices"] == 1
    assert rows(conn, "SELECT step, samples FROM rollup_prices ORDER BY step") == [("1h", 1), ("1m", 1), ("5m", 1)]
    assert rows(conn, "SELECT count(*) FROM prices_1h") == [(2,)]


def test_hours_whose_rows_were_dropped_are_not_built_from_what_is_left(conn: psycopg.Connection[Any]) -> None:
    land(conn, price(0), price(60), price(7200))
    upkeep.refresh(conn)
    conn.execute("DELETE FROM prices WHERE event_time < %s", [T0 + MINUTE])
    land(conn, price(90))
    upkeep.refresh(conn, not_before=T0 + 60 * MINUTE)
    assert rows(conn, "SELECT samples FROM prices_1h ORDER BY bucket") == [(2,), (1,)]


def test_running_twice_changes_nothing_and_worlds_stay_apart(conn: psycopg.Connection[Any]) -> None:
    recorded = {"origin": "recorded", "world": "recorded/x"}
    land(conn, *(sample(0) for sample in SAMPLES.values()), price(0, price_usd=1.0, **recorded))
    upkeep.refresh(conn)
    before = rows(conn, "SELECT * FROM rollup_prices ORDER BY step, world")
    upkeep.refresh(conn)
    assert rows(conn, "SELECT * FROM rollup_prices ORDER BY step, world") == before
    assert rows(conn, "SELECT world, price_usd_last FROM prices_1h ORDER BY world") == [
        ("real", 90_000.5),
        ("recorded/x", 1.0),
    ]


def test_fine_buckets_have_their_time_and_hours_stay(conn: psycopg.Connection[Any]) -> None:
    now = datetime.now(UTC)
    recent = (now - T0 - timedelta(days=1)).total_seconds()
    land(
        conn,
        price(-86_400 * 200),
        price(recent),
        stablecoin_flow(0, block_hash=OTHER_BLOCK),
        stablecoin_flow(1, block_hash=BLOCK),
    )
    upkeep.refresh(conn)
    assert upkeep.prune(conn, now)["prices"] == 2
    assert rows(conn, "SELECT count(*) FROM prices_1h") == [(2,)]
    assert rows(conn, "SELECT count(*) FROM prices_1m") == [(1,)]


def test_long_spans_are_cut_and_gaps_split_them() -> None:
    hours = [("a", T0 + number * upkeep.HOUR) for number in (*range(30), 40)] + [("b", T0)]
    assert upkeep.spans(hours) == [
        ("a", T0, T0 + 24 * upkeep.HOUR),
        ("a", T0 + 24 * upkeep.HOUR, T0 + 30 * upkeep.HOUR),
        ("a", T0 + 40 * upkeep.HOUR, T0 + 41 * upkeep.HOUR),
        ("b", T0, T0 + upkeep.HOUR),
    ]


def test_hypertables_roll_up_the_same(timescale_url: str) -> None:
    migrate(timescale_url)
    with connect(timescale_url) as conn:
        know(conn, "real")
        land(conn, *(price(seconds, price_usd=float(seconds + 1)) for seconds in range(0, 7200, 600)))
        assert upkeep.refresh(conn)["prices"] == 1
        assert rows(conn, "SELECT price_usd_first, price_usd_last, samples FROM prices_1h ORDER BY bucket") == [
            (1.0, 3001.0, 6),
            (3601.0, 6601.0, 6),
        ]
