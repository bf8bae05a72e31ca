"""Roll-ups: keeping <table>_1m, _5m and _1h up to date on every edition.

Belongs here: what a bucket holds, finding the buckets that changed, building them anew, and their retention.
Does not: the tables and views (sql/0006), or when this runs (the maintenance job).

A bucket is never patched: whole hours are deleted and built again from the rows, so late data, corrections, re-orgs
and new revisions need no cases of their own, and running twice changes nothing.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Final

import psycopg
from psycopg import sql

Connection = psycopg.Connection[Any]

STEPS: Final = {"1m": timedelta(minutes=1), "5m": timedelta(minutes=5), "1h": timedelta(hours=1)}
HOUR: Final = timedelta(hours=1)

LATE_COMMIT_MARGIN: Final = timedelta(minutes=10)
"""A row's stamp is taken before its transaction commits; none of ours takes this long, so none is overlooked."""

MAX_HOURS_AT_ONCE: Final = 24
"""Hours built in one transaction: it stays short even when years are rolled up for the first time."""

FINE_RETENTION: Final = timedelta(days=90)
"""Roll-ups under 1 h are for looking closely at recent weeks; they can be built again from the rows at any time."""


@dataclass(frozen=True)
class RollUp:
    """How the rows of one table become a bucket. keys, values: column of the roll-up -> SQL over the rows."""

    table: str
    time_column: str
    stamp_column: str
    keys: tuple[str, ...]
    values: dict[str, str]
    relation: str | None = None
    """What to read instead of the table itself."""
    condition: str = "true"


def _last(column: str, time_column: str = "event_time") -> str:
    return f"(array_agg({column} ORDER BY {time_column} DESC))[1]"


_SERIES: Final = ("world", "symbol", "venue")

ROLLUPS: Final = (
    RollUp(
        "prices",
        "event_time",
        "landed_at",
        _SERIES,
        {
            "price_usd_first": "(array_agg(price_usd ORDER BY event_time))[1]",
            "price_usd_high": "max(price_usd)",
            "price_usd_low": "min(price_usd)",
            "price_usd_last": _last("price_usd"),
            "samples": "count(*)",
        },
    ),
    RollUp(
        "funding_rates",
        "event_time",
        "landed_at",
        (*_SERIES, "kind"),
        {
            "rate_per_8h_high": "max(rate_per_8h)",
            "rate_per_8h_low": "min(rate_per_8h)",
            "rate_per_8h_last": _last("rate_per_8h"),
            "samples": "count(*)",
        },
    ),
    RollUp(
        "open_interest",
        "event_time",
        "landed_at",
        _SERIES,
        {
            "open_interest_base_high": "max(open_interest_base)",
            "open_interest_base_low": "min(open_interest_base)",
            "open_interest_base_last": _last("open_interest_base"),
            "open_interest_usd_last": _last("open_interest_usd"),
            "samples": "count(*)",
        },
    ),
    RollUp(
        "long_short_ratio",
        "event_time",
        "landed_at",
        (*_SERIES, "kind", "period_minutes"),
        {"long_share_last": _last("long_share"), "ratio_last": _last("ratio"), "samples": "count(*)"},
    ),
    RollUp(
        "liquidations",
        "event_time",
        "landed_at",
        (*_SERIES, "liquidated_side"),
        {
            "notional_usd": "sum(notional_usd)",
            "quantity_base": "sum(quantity_base)",
            "events": "count(*)",
            "is_sample": "bool_or(is_sample)",
        },
    ),
    RollUp(
        "stablecoin_flows",
        "event_time",
        "landed_at",
        ("world", "chain", "token", "direction"),
        {"amount": "sum(amount)", "transfers": "count(*)"},
        condition="is_canonical",
    ),
    RollUp(
        "liquidation_risk",
        "time",
        "created_at",
        ("world", "symbol"),
        {
            "score_max": "max(score)",
            "score_last": _last("score", "time"),
            "score_high_max": "max(score_high)",
            "coverage_min": "min(coverage)",
            "samples": "count(*)",
        },
        relation="liquidation_risk_current",
    ),
    RollUp(
        "stablecoin_pressure",
        "time",
        "created_at",
        ("world",),
        {
            "score_max": "max(score)",
            "score_min": "min(score)",
            "score_last": _last("score", "time"),
            "coverage_min": "min(coverage)",
            "samples": "count(*)",
        },
        relation="stablecoin_pressure_current",
    ),
    RollUp(
        "signals",
        "time",
        "created_at",
        ("world", "symbol"),
        {
            "risk_max": "max(risk)",
            "pressure_min": "min(pressure)",
            "cascade_probability_4h_max": "max(cascade_probability_4h)",
            "critical_points": "count(*) FILTER (WHERE severity = 'CRITICAL')",
            "warning_points": "count(*) FILTER (WHERE severity = 'WARNING')",
            "info_points": "count(*) FILTER (WHERE severity = 'INFO')",
            "unknown_points": "count(*) FILTER (WHERE severity = 'UNKNOWN')",
            "samples": "count(*)",
        },
        relation="signals_current",
    ),
)


def refresh(conn: Connection) -> dict[str, int]:
    """Bring every roll-up up to date; return the hours built anew by table. Commits as it goes.

    Two at once take turns, table by table. Interrupted, it starts over where the last whole table was done.
    """
    return {rollup.table: _refresh(conn, rollup) for rollup in ROLLUPS}


def prune(conn: Connection, now: datetime) -> dict[str, int]:
    """Delete buckets under 1 h that are older than FINE_RETENTION at `now`; return rows by table. Commits."""
    deleted = {}
    for rollup in ROLLUPS:
        deleted[rollup.table] = conn.execute(
            sql.SQL("DELETE FROM {} WHERE step <> '1h' AND bucket < %s").format(_name(rollup)), [now - FINE_RETENTION]
        ).rowcount
        conn.commit()
    return deleted


def _refresh(conn: Connection, rollup: RollUp) -> int:
    # A session lock: the hours are built in several transactions.
    conn.execute("SELECT pg_advisory_lock(hashtextextended('liq_pipeline rollup ' || %s, 0))", [rollup.table])
    conn.commit()
    try:
        started = _value(conn, "SELECT clock_timestamp()", [])
        rolled_to = _value(conn, "SELECT rolled_to FROM rollup_progress WHERE source_table = %s", [rollup.table])
        hours = _changed_hours(conn, rollup, rolled_to)
        conn.commit()
        for world, first, end in spans(hours):
            _build(conn, rollup, world, first, end)
            conn.commit()
        conn.execute(
            "INSERT INTO rollup_progress (source_table, rolled_to) VALUES (%s, %s)"
            " ON CONFLICT (source_table) DO UPDATE SET rolled_to = excluded.rolled_to",
            [rollup.table, started],
        )
        conn.commit()
        return len(hours)
    finally:
        if not conn.closed:
            conn.rollback()
            conn.execute("SELECT pg_advisory_unlock(hashtextextended('liq_pipeline rollup ' || %s, 0))", [rollup.table])
            conn.commit()


def spans(hours: list[tuple[str, datetime]]) -> list[tuple[str, datetime, datetime]]:
    """(world, first instant, end) of runs of consecutive hours, none longer than MAX_HOURS_AT_ONCE.

    hours: sorted (world, hour).
    """
    found: list[tuple[str, datetime, datetime]] = []
    for world, hour in hours:
        if found:
            last_world, first, end = found[-1]
            if last_world == world and end == hour and hour - first < MAX_HOURS_AT_ONCE * HOUR:
                found[-1] = (world, first, hour + HOUR)
                continue
        found.append((world, hour, hour + HOUR))
    return found


def _changed_hours(conn: Connection, rollup: RollUp, rolled_to: datetime | None) -> list[tuple[str, datetime]]:
    statement = sql.SQL(
        "SELECT DISTINCT world, date_trunc('hour', {time}, 'UTC') FROM {table}"
        " WHERE {stamp} >= coalesce(%s, '-infinity'::timestamptz) ORDER BY 1, 2"
    ).format(
        time=sql.Identifier(rollup.time_column),
        table=sql.Identifier(rollup.table),
        stamp=sql.Identifier(rollup.stamp_column),
    )
    since = None if rolled_to is None else rolled_to - LATE_COMMIT_MARGIN
    return conn.execute(statement, [since]).fetchall()


def _build(conn: Connection, rollup: RollUp, world: str, first: datetime, end: datetime) -> None:
    bounds = {"world": world, "first": first, "end": end}
    conn.execute(
        sql.SQL("DELETE FROM {} WHERE world = %(world)s AND bucket >= %(first)s AND bucket < %(end)s").format(
            _name(rollup)
        ),
        bounds,
    )
    for step, length in STEPS.items():
        conn.execute(_build_sql(rollup), {**bounds, "step": step, "length": length})


def _build_sql(rollup: RollUp) -> sql.Composed:
    keys = sql.SQL(", ").join(map(sql.Identifier, rollup.keys))
    return sql.SQL(
        "INSERT INTO {target} (step, bucket, {keys}, {names})"
        " SELECT %(step)s, date_bin(%(length)s, {time}, '2000-01-01T00:00:00Z'), {keys}, {values} FROM {source}"
        " WHERE world = %(world)s AND {time} >= %(first)s AND {time} < %(end)s AND {condition}"
        " GROUP BY 2, {keys}"
    ).format(
        target=_name(rollup),
        keys=keys,
        names=sql.SQL(", ").join(map(sql.Identifier, rollup.values)),
        values=sql.SQL(", ").join(sql.SQL(value) for value in rollup.values.values()),
        source=sql.Identifier(rollup.relation or rollup.table),
        time=sql.Identifier(rollup.time_column),
        condition=sql.SQL(rollup.condition),
    )


def _name(rollup: RollUp) -> sql.Identifier:
    return sql.Identifier(f"rollup_{rollup.table}")


def _value(conn: Connection, statement: str, arguments: list[Any]) -> datetime | None:
    row = conn.execute(statement, arguments).fetchone()
    value: datetime | None = None if row is None else row[0]
    return value
