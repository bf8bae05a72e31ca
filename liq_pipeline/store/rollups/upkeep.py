"""Roll-ups: keeping <table>_1m, _5m and _1h up to date on every edition.

Belongs here: finding the hours that changed, building them anew, their retention, and the views that join stored
buckets with those computed from the newest rows. Does not: what a bucket holds (definitions.py), the tables
(sql/0006, sql/0007), continuous aggregates (store/schema/community.py), or when this runs (the maintenance job).

A bucket is never patched: whole hours are deleted and built again from the rows, so late data, corrections, re-orgs
and new revisions need no cases of their own, and running twice changes nothing. The newest hour of a world is never
stored: rollup_frontiers.live_from says from where on the views compute.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import datetime, timedelta
from typing import Any, Final

import psycopg
from psycopg import sql

from liq_pipeline.store.rollups.definitions import ROLLUPS, STEPS, RollUp

Connection = psycopg.Connection[Any]

HOUR: Final = timedelta(hours=1)

LATE_COMMIT_MARGIN: Final = timedelta(minutes=10)
"""A row's stamp is taken before its transaction commits; none of ours takes this long, so none is overlooked."""

MAX_HOURS_AT_ONCE: Final = 24
"""Hours built in one transaction: it stays short even when years are rolled up for the first time."""

FINE_RETENTION: Final = timedelta(days=90)
"""Roll-ups under 1 h are for looking closely at recent weeks; they can be built again from the rows at any time."""


def refresh(conn: Connection, not_before: datetime | None = None) -> dict[str, int]:
    """Bring every stored roll-up up to date; return the hours built anew by table. Commits as it goes.

    not_before: hours before it are left as they are, because their rows were dropped (LIQ_RETENTION_DAYS): building
    them from what is left would erase them. Two at once take turns, table by table. Interrupted, it starts over where
    the last whole table was done. A table whose roll-ups TimescaleDB keeps itself is not touched.
    """
    kept_elsewhere = continuous_tables(conn)
    conn.commit()
    return {
        rollup.table: _refresh(conn, rollup, not_before) for rollup in ROLLUPS if rollup.table not in kept_elsewhere
    }


def prune(conn: Connection, now: datetime) -> dict[str, int]:
    """Delete buckets under 1 h that are older than FINE_RETENTION at `now`; return rows by table. Commits."""
    deleted = {}
    for rollup in ROLLUPS:
        deleted[rollup.table] = conn.execute(
            sql.SQL("DELETE FROM {} WHERE step <> '1h' AND bucket < %s").format(_name(rollup)), [now - FINE_RETENTION]
        ).rowcount
        conn.commit()
    return deleted


def create_views(conn: Connection) -> list[str]:
    """Make the views <table>_1m, _5m, _1h say what this version means by them; return the names of those made anew.

    Needs the owner; `conn` is in autocommit mode. The comment on each view carries a hash of its definition: one that
    is in place is left alone, so readers are never locked out for nothing.
    """
    made = []
    continuous = continuous_tables(conn)
    for rollup in ROLLUPS:
        if rollup.table in continuous:
            continue
        for step in STEPS:
            view = f"{rollup.table}_{step}"
            definition = _view_sql(rollup, step).as_string(conn)
            mark = hashlib.sha256(definition.encode()).hexdigest()[:12]
            comment = (
                f"{rollup.table} in buckets of {step}: stored ones, then those of the newest rows. Definition {mark}"
            )
            row = conn.execute("SELECT obj_description(to_regclass(%s), 'pg_class')", [view]).fetchone()
            if row is not None and row[0] == comment:
                continue
            with conn.transaction():
                conn.execute(sql.SQL("DROP VIEW IF EXISTS {}").format(sql.Identifier(view)))
                conn.execute(sql.SQL("CREATE VIEW {} AS {}").format(sql.Identifier(view), sql.SQL(definition)))
                conn.execute(sql.SQL("COMMENT ON VIEW {} IS {}").format(sql.Identifier(view), sql.Literal(comment)))
            made.append(f"view {view}")
    return made


def continuous_tables(conn: Connection) -> set[str]:
    """The tables whose roll-ups are TimescaleDB's continuous aggregates in this database."""
    row = conn.execute("SELECT to_regclass('timescaledb_information.continuous_aggregates') IS NOT NULL").fetchone()
    if row is None or not row[0]:
        return set()
    found = conn.execute(
        "SELECT hypertable_name FROM timescaledb_information.continuous_aggregates"
        " WHERE view_schema = current_schema() AND view_name = hypertable_name || '_1h'"
    )
    return {name for (name,) in found}


def _refresh(conn: Connection, rollup: RollUp, not_before: datetime | None) -> int:
    with turn(conn, rollup):
        started, changed = changed_since_last(conn, rollup)
        frontiers: dict[str, datetime] = dict(
            conn.execute("SELECT world, live_from FROM rollup_frontiers WHERE source_table = %s", [rollup.table])
        )
        conn.commit()
        hours = _complete_hours(changed, frontiers, not_before)
        for world, first, end in spans(hours):
            _build(conn, rollup, world, first, end)
            _advance(conn, rollup, world, end)
            conn.commit()
        for world, newest in dict(changed).items():
            _advance(conn, rollup, world, newest)
        note_progress(conn, rollup, started)
        conn.commit()
        return len(hours)


@contextmanager
def turn(conn: Connection, rollup: RollUp) -> Iterator[None]:
    """One at a time per table. A session lock: the hours are built in several transactions."""
    conn.execute("SELECT pg_advisory_lock(hashtextextended('liq_pipeline rollup ' || %s, 0))", [rollup.table])
    conn.commit()
    try:
        yield
    finally:
        if not conn.closed:
            conn.rollback()
            conn.execute("SELECT pg_advisory_unlock(hashtextextended('liq_pipeline rollup ' || %s, 0))", [rollup.table])
            conn.commit()


def changed_since_last(conn: Connection, rollup: RollUp) -> tuple[datetime, list[tuple[str, datetime]]]:
    """(the time until which this looks, the (world, hour) whose rows changed since the last look, sorted)."""
    started = _value(conn, "SELECT clock_timestamp()", [])
    assert started is not None  # noqa: S101 - a server tells its time
    rolled_to = _value(conn, "SELECT rolled_to FROM rollup_progress WHERE source_table = %s", [rollup.table])
    return started, _changed_hours(conn, rollup, rolled_to)


def note_progress(conn: Connection, rollup: RollUp, rolled_to: datetime) -> None:
    """Rows written before rolled_to are in the roll-ups."""
    conn.execute(
        "INSERT INTO rollup_progress (source_table, rolled_to) VALUES (%s, %s)"
        " ON CONFLICT (source_table) DO UPDATE SET rolled_to = excluded.rolled_to",
        [rollup.table, rolled_to],
    )


def _complete_hours(
    changed: list[tuple[str, datetime]], frontiers: Mapping[str, datetime], not_before: datetime | None
) -> list[tuple[str, datetime]]:
    """The hours to be stored: those that changed and lie before their world's newest, and the former newest.

    changed: sorted (world, hour). frontiers: world -> the hour that was the newest before.
    """
    newest = dict(changed)  # sorted: the last hour of each world wins
    hours = {(world, hour) for world, hour in changed if hour < max(newest[world], frontiers.get(world, hour))}
    hours |= {(world, frontiers[world]) for world in newest if world in frontiers and frontiers[world] < newest[world]}
    return sorted((world, hour) for world, hour in hours if not_before is None or hour >= not_before)


def _advance(conn: Connection, rollup: RollUp, world: str, live_from: datetime) -> None:
    """In the transaction that stored the hours before it: readers never see an hour twice or not at all."""
    conn.execute(
        "INSERT INTO rollup_frontiers AS f (source_table, world, live_from) VALUES (%s, %s, %s)"
        " ON CONFLICT (source_table, world) DO UPDATE SET live_from = greatest(f.live_from, excluded.live_from)",
        [rollup.table, world, live_from],
    )


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
    return sql.SQL(
        "INSERT INTO {target} (step, {columns}) SELECT %(step)s, buckets.* FROM ({buckets}) AS buckets"
    ).format(
        target=_name(rollup),
        columns=_columns(rollup),
        buckets=_buckets_sql(
            rollup,
            length=sql.Placeholder("length"),
            world=sql.Placeholder("world"),
            first=sql.Placeholder("first"),
            end=sql.Placeholder("end"),
        ),
    )


def _view_sql(rollup: RollUp, step: str) -> sql.Composed:
    """The stored buckets, then those from live_from on.

    The upper bound far away makes the planner see a narrow range, which it is, instead of a third of the table.
    """
    live_from = sql.SQL("live.live_from")
    return sql.SQL(
        "SELECT {columns} FROM {stored} WHERE step = {step} UNION ALL SELECT buckets.* FROM"
        " (SELECT w.world, coalesce(f.live_from, {origin}) AS live_from FROM worlds AS w"
        " LEFT JOIN rollup_frontiers AS f ON f.world = w.world AND f.source_table = {table}) AS live"
        " CROSS JOIN LATERAL ({buckets}) AS buckets"
    ).format(
        columns=_columns(rollup),
        stored=_name(rollup),
        step=sql.Literal(step),
        origin=sql.SQL("timestamptz '2000-01-01T00:00:00Z'"),
        table=sql.Literal(rollup.table),
        buckets=_buckets_sql(
            rollup,
            length=sql.Literal(STEPS[step]),
            world=sql.SQL("live.world"),
            first=live_from,
            end=sql.SQL("live.live_from + interval '1000 years'"),
        ),
    )


def _buckets_sql(
    rollup: RollUp,
    *,
    length: sql.Composable,
    world: sql.Composable,
    first: sql.Composable,
    end: sql.Composable,
) -> sql.Composed:
    """The buckets of one world's rows in [first, end), with the columns of the views in their order."""
    return sql.SQL(
        "SELECT date_bin({length}, {time}, timestamptz '2000-01-01T00:00:00Z') AS bucket, {keys}, {values}"
        " FROM {source} WHERE world = {world} AND {time} >= {first} AND {time} < {end} AND {condition}"
        " GROUP BY 1, {keys}"
    ).format(
        length=length,
        time=sql.Identifier(rollup.time_column),
        keys=sql.SQL(", ").join(map(sql.Identifier, rollup.keys)),
        values=sql.SQL(", ").join(
            sql.SQL("{} AS {}").format(sql.SQL(value), sql.Identifier(name)) for name, value in rollup.values.items()
        ),
        source=sql.Identifier(rollup.relation or rollup.table),
        world=world,
        first=first,
        end=end,
        condition=sql.SQL(rollup.condition),
    )


def _columns(rollup: RollUp) -> sql.Composed:
    return sql.SQL(", ").join(map(sql.Identifier, rollup.columns))


def _name(rollup: RollUp) -> sql.Identifier:
    return sql.Identifier(f"rollup_{rollup.table}")


def _value(conn: Connection, statement: str, arguments: list[Any]) -> datetime | None:
    row = conn.execute(statement, arguments).fetchone()
    value: datetime | None = None if row is None else row[0]
    return value
