"""A database in which every panel has something to show, and the dashboards' queries run on it as Grafana sends them.

Belongs here: filling and asking. Does not: finding the queries (bench/_grafana.py), what makes a dashboard a good one
(grafana_rules.py), assertions.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime, timedelta
from typing import Any

import psycopg
from psycopg.rows import dict_row
from pydantic import SecretStr

from bench._grafana import Query, expand
from liq_pipeline.alerting.book import advance
from liq_pipeline.alerting.sending.delivery import deliver_due
from liq_pipeline.settings import Settings
from liq_pipeline.store import scores, worlds
from liq_pipeline.store.connection import connect
from liq_pipeline.store.rollups import upkeep
from liq_pipeline_tests.alert_support import START, VERSION, Reading, point, world

END = START + timedelta(minutes=9)
ACTIVE = "simulated/7"
VALUES = {
    "symbol": "'BTC','ETH'",
    "one": "'BTC'",
    "venue": "'binance','bybit'",
    "chain": "'ethereum'",
    "token": "'USDT','USDC'",
    "exchange": "'binance','kraken'",
}
"""What is chosen in each variable, as SQL literals."""

_PROVENANCE = "'simulated', 'venue', %(t)s, %(t)s, 1, 0, 1"
_PROVENANCE_COLUMNS = "origin, event_time_source, received_at, known_at, kafka_cluster, kafka_partition, kafka_offset"


def fill(url: str) -> None:
    """Rows in every table that a dashboard reads, in the active world; a second world without any."""
    with connect(url) as conn:
        _fill(conn)
        _fill_market(conn)
        _fill_flows(conn)
        _fill_under_way(conn)
        _fill_levels(conn)
        _fill_pipeline(conn)
        conn.commit()
        upkeep.refresh(conn)
    deliver_due(url, _channels())


@contextmanager
def as_reader(url: str, role: str = "liq_grafana_test") -> Iterator[psycopg.Connection[Any]]:
    """A connection as a role that can only read, as Grafana has it."""
    with connect(url) as conn:
        conn.execute(f"DROP ROLE IF EXISTS {role}")
        conn.execute(f"CREATE ROLE {role}")
        conn.execute(f"GRANT SELECT ON ALL TABLES IN SCHEMA public TO {role}")
        conn.commit()
        conn.execute(f"SET ROLE {role}")
        conn.execute("SET SESSION CHARACTERISTICS AS TRANSACTION READ ONLY")
        conn.commit()
        try:
            yield conn
        finally:
            conn.rollback()
            conn.execute("RESET ROLE")
            conn.execute("SET SESSION CHARACTERISTICS AS TRANSACTION READ WRITE")
            conn.commit()
            conn.execute(f"DROP OWNED BY {role}")
            conn.execute(f"DROP ROLE {role}")
            conn.commit()


def run(
    conn: psycopg.Connection[Any], query: Query | str, of_world: str = ACTIVE, *, interval: int = 60
) -> list[dict[str, Any]]:
    """The rows of a query over the filled hour, by name of column. interval: seconds, as Grafana would choose it."""
    if isinstance(query, str):
        query = Query("", query)
    # A bucket is shown where it begins: an hour's begins before the first point.
    first = START - timedelta(hours=1) if query.fixed_span is None else END - query.fixed_span
    text = expand(query.text, {"world": f"'{of_world}'", **VALUES}, first, END, max(interval, query.least_interval))
    assert "$" not in text.replace("$$", ""), f"a variable or macro that Grafana's data source does not have: {text}"
    with conn.cursor(row_factory=dict_row) as cursor:
        return cursor.execute(text.encode()).fetchall()


def _channels() -> Settings:
    return Settings(alert_urls=(SecretStr("json://127.0.0.1:1/x"),), alert_unreal=True, alert_timeout_seconds=0.5)


def _fill(conn: psycopg.Connection[Any]) -> None:
    other, active = world("real", symbols=("BTC", "ETH")), world("simulated/7", symbols=("BTC", "ETH"))
    worlds.register(conn, active, activate=True)
    worlds.register(conn, other, activate=False)
    points = [
        point(i, {"BTC": 60.0 if i < 5 else Reading(40.0, silent=("liquidation",)), "ETH": None if i > 6 else 80.0})
        for i in range(10)
    ]
    scores.write_risks_and_signals(conn, active.name, points, VERSION)
    scores.write_pressures(conn, active.name, [p.pressure for p in points if p.pressure is not None], VERSION)
    for stream in ("market", "flows"):
        times = [p.time for p in points if stream == "flows" or p.time != points[4].time]
        scores.write_ticks(
            conn, active.name, stream, times, {}, started_at=START, rows_landed=7, late_rows=1, dagster_run_id=None
        )
    advance(conn, active, points, _channels(), VERSION)
    # Rows of the outbox and of deliveries carry the wall clock; here they belong to the shown hour.
    conn.execute("UPDATE outbox SET created_at = %s", [START])
    at = {"w": active.name, "t": END}
    for table, names, values in (
        ("prices", "price_usd", "60000"),
        ("funding_rates", "kind, rate, interval_hours, rate_per_8h", "'predicted', 0.0001, 8, 0.0001"),
        ("open_interest", "open_interest_base", "1000"),
    ):
        conn.execute(
            f"INSERT INTO {table} (world, symbol, venue, event_time, {names}, {_PROVENANCE_COLUMNS})"  # noqa: S608 - test data
            f" VALUES (%(w)s, 'BTC', 'binance', %(t)s, {values}, {_PROVENANCE})",
            at,
        )
    conn.execute(
        "INSERT INTO heartbeats (world, topic, venue, event_time, origin, received_at, known_at, kafka_cluster,"
        " kafka_partition, kafka_offset) VALUES (%(w)s, 'liquidations', 'binance', %(t)s, 'simulated', %(t)s, %(t)s,"
        " 1, 0, 1)",
        at,
    )
    conn.execute("INSERT INTO watermarks VALUES (%(w)s, 'prices', 0, %(t)s)", at)
    conn.execute("INSERT INTO consumer_offsets VALUES ('landing', 'c', 'prices', 0, 5, 5)")
    conn.execute(
        "INSERT INTO dead_letters (cluster_id, topic, kafka_partition, kafka_offset, reason_code, reason, dead_at)"
        " VALUES ('c', 'prices', 0, 3, 'not_json', 'no JSON', %(t)s)",
        at,
    )
    conn.execute(
        "INSERT INTO ingest_gaps (world, source, symbol, from_time, to_time, cause, found_at)"
        " VALUES (%(w)s, 'binance', 'BTC', %(t)s, %(t)s, 'reconnect', %(t)s)",
        at,
    )
    conn.execute("INSERT INTO source_status (source, state) VALUES ('binance', 'up'), ('okx', 'down')")
    conn.execute("INSERT INTO storage_samples VALUES ('postgres', %(t)s, %(t)s, 1000000)", at)
    conn.execute(
        "INSERT INTO evaluation_runs VALUES (gen_random_uuid(), %(w)s, 1, %(t)s, %(t)s, 'c', 'd', NULL, '{}', %(t)s)",
        at,
    )
    conn.execute(
        "INSERT INTO evaluation_metrics SELECT evaluation_id, 'score', 4, 'roc_auc', 0.7, 0.6, 0.8 FROM evaluation_runs"
    )


def _fill_market(conn: psycopg.Connection[Any]) -> None:
    """BTC on two venues and at CoinGecko, now and a day before; BTC at binance now is there already."""
    day = timedelta(days=1)
    for venue, when, price in (
        ("binance", END - day, 58_000),
        ("bybit", END, 60_060),
        ("bybit", END - day, 58_000),
        ("coingecko", END, 60_000),
    ):
        _insert(conn, "prices", "price_usd", str(price), venue, when)
    for venue, when, coins in (("binance", END - day, 800), ("bybit", END, 500)):
        _insert(conn, "open_interest", "open_interest_base", str(coins), venue, when)
    _insert(conn, "funding_rates", "kind, rate, interval_hours, rate_per_8h", "'settled', 0.0002, 8, 0.0002")
    for kind, share in (("accounts", 0.6), ("taker", 0.4)):
        _insert(
            conn, "long_short_ratio", "kind, period_minutes, long_share, short_share, ratio",
            f"'{kind}', 5, {share}, {1 - share}, {share / (1 - share)}",
        )  # fmt: skip
    for number, side, usd in ((1, "long", 90_000), (2, "long", 30_000), (3, "short", 6_000)):
        _insert(
            conn, "liquidations",
            "event_id, liquidated_side, price_usd, quantity_base, notional_usd, is_sample, source_topic",
            f"'e{number}', '{side}', 60000, {usd / 60_000}, {usd}, {number == 1}, 'liquidations'",
        )  # fmt: skip


def _insert(
    conn: psycopg.Connection[Any], table: str, names: str, values: str, venue: str = "binance", when: datetime = END
) -> None:
    conn.execute(
        f"INSERT INTO {table} (world, symbol, venue, event_time, {names}, {_PROVENANCE_COLUMNS})"  # noqa: S608
        f" VALUES (%(w)s, 'BTC', %(venue)s, %(t)s, {values}, {_PROVENANCE})",
        {"w": ACTIVE, "venue": venue, "t": when},
    )


TRANSFERS = (
    ("inflow", None, "binance", 900.5, "USDT", True),
    ("inflow", None, "kraken", 100.0, "USDC", True),
    ("outflow", "binance", None, 250.25, "USDT", True),
    ("inter_exchange", "binance", "kraken", 40.0, "USDT", True),
    ("inflow", None, "binance", 7_777.0, "USDT", False),
    ("mint", None, None, 1_000_000.0, "USDT", True),
    ("burn", None, None, 400_000.0, "USDC", True),
)
"""(direction, from, to, whole tokens, token, whether its block is canonical)."""


def _fill_flows(conn: psycopg.Connection[Any]) -> None:
    for number, (direction, from_entity, to_entity, amount, token, canonical) in enumerate(TRANSFERS):
        conn.execute(
            "INSERT INTO stablecoin_flows (world, chain, token, tx_hash, log_index, block_hash, event_time,"  # noqa: S608
            " block_number, is_canonical, from_address, to_address, amount, from_entity, to_entity, direction,"
            f" label_version, venue, {_PROVENANCE_COLUMNS})"
            " VALUES (%(w)s, 'ethereum', %(token)s, %(tx)s, 0, 'b', %(t)s, 1, %(canonical)s, 'f', 'o', %(amount)s,"
            f" %(from)s, %(to)s, %(direction)s, 'v1', 'ethereum', {_PROVENANCE})",
            {
                "w": ACTIVE, "token": token, "tx": f"0x{number}", "t": START + timedelta(minutes=number),
                "canonical": canonical, "amount": amount, "from": from_entity, "to": to_entity, "direction": direction,
            },
        )  # fmt: skip


MOVE = {
    "side": "long", "is_open": True, "is_calm": False, "rule": "model", "started_at": START.isoformat(),
    "excursion": -0.045, "threshold": 0.03, "open_interest_change": -0.04, "inputs": {"missing": ["liquidations"]},
}  # fmt: skip


def _fill_under_way(conn: psycopg.Connection[Any]) -> None:
    """BTC: a cascade under way from the fifth point on, no move before. ETH: unknown throughout."""
    calm = MOVE | {"side": None, "is_open": False, "is_calm": True, "excursion": None, "threshold": None}
    for move, probability, since, before in (
        (calm, None, START, START + timedelta(minutes=5)),
        (MOVE, 0.62, START + timedelta(minutes=5), END + timedelta(minutes=1)),
    ):
        conn.execute(
            "UPDATE signals SET under_way = %s, under_way_probability = %s"
            " WHERE world = %s AND symbol = 'BTC' AND time >= %s AND time < %s",
            [json.dumps(move), probability, ACTIVE, since, before],
        )
    conn.execute(
        """
        WITH told AS (INSERT INTO alerts (alert_id, page_id, world, rule, subject, side, severity, peak_severity, state,
            opened_at, judged_at, last_seen_at, changed_at, told_severity, told_at, first_told_at, resolved_at,
            score_version, receipt)
            SELECT id, id, %(w)s, 'under_way', 'SOL', 'long', 'WARNING', 'WARNING', 'resolved', %(t)s, %(t)s, %(t)s,
            %(t)s, 'WARNING', %(t)s, %(t)s, %(t)s, 'v', '{"score": {"value": 60}}'
            FROM (SELECT gen_random_uuid() AS id) AS made RETURNING alert_id)
        INSERT INTO alert_outcomes (alert_id, label_version, outcome, delay_minutes, further_move_1h, adverse_move_1h)
        SELECT alert_id, 1, 'right', 12, 0.006, 0.005 FROM told
        """,
        {"w": ACTIVE, "t": START + timedelta(minutes=2)},
    )


def _fill_levels(conn: psycopg.Connection[Any]) -> None:
    """BTC: two maps, 20 bins of 0.25 % a side; the second knows nothing of what lies above. ETH: none."""
    for minutes, shorts in ((0, [2e6] * 20), (5, None)):
        conn.execute(
            "INSERT INTO liquidation_levels (world, symbol, time, method_version, reference_usd, bin_width,"
            " long_notional_usd, short_notional_usd, long_within_3_usd, short_within_3_usd, coverage, venues,"
            " silent_venues, unheard_venues) VALUES (%s, 'BTC', %s, 'v', 60000, 0.0025, %s, %s, 12e6, %s, 0.9,"
            " '{binance}', '{}', '{}')",
            [ACTIVE, START + timedelta(minutes=minutes), [1e6] * 20, shorts, None if shorts is None else 24e6],
        )


def _fill_pipeline(conn: psycopg.Connection[Any]) -> None:
    budget = {"binance:weight": {"used": 600, "capacity": 1200, "window_seconds": 60}}
    conn.execute(
        "UPDATE source_status SET budget = %s, last_success = now(), last_error = now(), last_error_text = 'refused'"
        " WHERE source = 'binance'",
        [json.dumps(budget)],
    )
    conn.execute(
        "INSERT INTO poll_state (source, feed, symbol, next_due, last_attempt, failures, last_error)"
        " VALUES ('okx', 'prices', 'BTC', now(), now(), 3, 'HTTP 503')"
    )
    conn.execute(
        "INSERT INTO request_budgets (scope, blocked_until, blocked_reason)"
        " VALUES ('binance:weight', now() + interval '1 hour', 'HTTP 418')"
    )
    conn.execute(
        "INSERT INTO ingest_gaps (world, source, symbol, from_time, to_time, cause, found_at, healed_at)"
        " VALUES (%s, 'okx prices', 'BTC', %s, %s, 'outage', %s, now())",
        [ACTIVE, START, END, END],
    )
    conn.execute("INSERT INTO storage_samples VALUES ('kafka', %s, %s, 5), ('kafka', %s, %s, 15)", [
        END - timedelta(days=1), END - timedelta(days=1), END, END,
    ])  # fmt: skip
    conn.execute(
        "INSERT INTO dagster_run_counts VALUES (%(h)s, 'live_tick', 'SUCCESS', 350, now()),"
        " (%(h)s, 'live_tick', 'FAILURE', 7, now())",
        {"h": START},
    )
    conn.execute("INSERT INTO dagster_failures VALUES ('run-1', 'live_tick', %s, 'The tick stopped.')", [START])
