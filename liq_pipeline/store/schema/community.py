"""What only TimescaleDB's community edition can do: continuous aggregates, compression, policies.

Belongs here: every statement that the Apache edition refuses (SQLSTATE 0A000), and what goes with it. Does not:
hypertables (editions.py), or the roll-ups of the other editions (store/rollups/upkeep.py).

The views keep their names, columns and meaning: stored buckets, then those of the newest rows
(materialized_only = false). Roll-ups of scores stay maintained tables in every edition: they stand on the newest
revision of each point, and a continuous aggregate reads one hypertable only. The policies keep the last weeks up to
date; what lands further back is refreshed by the maintenance job (refresh_late), as the owner.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Final

import psycopg
from psycopg import sql

from liq_pipeline.store.rollups import upkeep
from liq_pipeline.store.rollups.definitions import ROLLUPS, STEPS, RollUp

log = logging.getLogger(__name__)
Connection = psycopg.Connection[Any]

LATE_DATA_WINDOW: Final = timedelta(days=14)
"""Rows come late by hours (healed gaps) to days (daily archives). Chunks older than this are compressed."""
POLICY_WINDOW: Final = timedelta(days=34)
"""How far back the refresh policies look. Less than the shortest retention (35 days): a refresh over dropped rows
would delete their buckets."""


@dataclass(frozen=True)
class Compression:
    """How a table's chunks are compressed: one segment per series, its rows in order of time."""

    table: str
    segment_by: tuple[str, ...]
    order_by: tuple[str, ...]


# Every column of the key is in one or the other: a duplicate is then found without decompressing whole chunks.
COMPRESSIONS: Final = (
    Compression("prices", ("world", "symbol", "venue"), ("event_time",)),
    Compression("funding_rates", ("world", "symbol", "venue", "kind"), ("event_time",)),
    Compression("open_interest", ("world", "symbol", "venue"), ("event_time",)),
    Compression("long_short_ratio", ("world", "symbol", "venue", "kind", "period_minutes"), ("event_time",)),
    Compression("liquidations", ("world", "symbol", "venue"), ("event_time", "event_id")),
    Compression("stablecoin_flows", ("world", "chain", "token"), ("event_time", "tx_hash", "log_index", "block_hash")),
    Compression("heartbeats", ("world", "topic", "venue"), ("event_time",)),
    Compression("feature_bars", ("world", "symbol", "venue"), ("bar_end", "built_at_time")),
    Compression("liquidation_risk", ("world", "symbol"), ("time", "score_version", "revision")),
    Compression("stablecoin_pressure", ("world",), ("time", "score_version", "revision")),
    Compression("signals", ("world", "symbol"), ("time", "score_version", "revision")),
    Compression("ticks", ("world", "stream"), ("time",)),
)

# Archive rows land in bulk: opening a chunk once is cheaper than decompressing per row. As the owner, because the
# writer does not own the chunks; the functions touch nothing else.
OPEN_CHUNKS: Final = """
CREATE OR REPLACE FUNCTION open_chunks(tables text[], first timestamptz, until timestamptz) RETURNS SETOF regclass
LANGUAGE plpgsql SECURITY DEFINER SET search_path = public, pg_temp AS $$
DECLARE
    chunk regclass;
BEGIN
    FOR chunk IN SELECT format('%I.%I', c.chunk_schema, c.chunk_name)::regclass
                 FROM timescaledb_information.chunks AS c
                 WHERE c.hypertable_schema = 'public' AND c.hypertable_name = ANY (tables) AND c.is_compressed
                   AND c.range_start < until AND c.range_end > first LOOP
        PERFORM decompress_chunk(chunk, if_compressed => true);
        RETURN NEXT chunk;
    END LOOP;
END
$$
"""
CLOSE_CHUNKS: Final = """
CREATE OR REPLACE FUNCTION close_chunks(chunks regclass[]) RETURNS void
LANGUAGE plpgsql SECURITY DEFINER SET search_path = public, pg_temp AS $$
DECLARE
    chunk regclass;
BEGIN
    FOREACH chunk IN ARRAY chunks LOOP
        PERFORM compress_chunk(chunk, if_not_compressed => true);
    END LOOP;
END
$$
"""
CHUNKS_ARE_NOT_EVERYBODYS: Final = (
    "REVOKE EXECUTE ON FUNCTION open_chunks(text[], timestamptz, timestamptz), close_chunks(regclass[]) FROM PUBLIC"
)


def apply(conn: Connection) -> list[str]:
    """Make what is missing; return its names. As the owner, in autocommit mode, where the licence is `timescale`.

    Idempotent. Run after the hypertables exist.
    """
    done = []
    continuous = _names(
        conn, "SELECT view_name FROM timescaledb_information.continuous_aggregates WHERE view_schema = 'public'"
    )
    for rollup in ROLLUPS:
        if not rollup.can_be_continuous or _reaches_behind_its_rows(conn, rollup):
            continue
        for step in STEPS:
            view = f"{rollup.table}_{step}"
            if view in continuous:
                continue
            with conn.transaction():
                conn.execute(sql.SQL("DROP VIEW IF EXISTS {}").format(sql.Identifier(view)))
                conn.execute(continuous_aggregate(rollup, step))
            conn.execute(refresh_policy(view))
            if step != "1h":
                conn.execute(fine_retention(view))
            done.append(f"continuous aggregate {view}")
    compressed = _names(
        conn,
        "SELECT hypertable_name FROM timescaledb_information.hypertables"
        " WHERE hypertable_schema = 'public' AND compression_enabled",
    )
    for compression in COMPRESSIONS:
        if compression.table not in compressed:
            with conn.transaction():
                conn.execute(compress_by(compression))
                conn.execute(compression_policy(compression))
            done.append(f"compression {compression.table}")
    for statement in (OPEN_CHUNKS, CLOSE_CHUNKS, CHUNKS_ARE_NOT_EVERYBODYS):
        conn.execute(statement.encode())
    conn.execute(no_decompression_limit(conn.info.dbname))
    return done


def continuous_aggregate(rollup: RollUp, step: str) -> sql.Composed:
    """The roll-up as a continuous aggregate: same columns, same order. Empty at first, and computed when read."""
    return sql.SQL(
        "CREATE MATERIALIZED VIEW {view} WITH (timescaledb.continuous, timescaledb.materialized_only = false) AS"
        " SELECT time_bucket({length}, {time}) AS bucket, {keys}, {values} FROM {table} WHERE {condition}"
        " GROUP BY 1, {keys} WITH NO DATA"
    ).format(
        view=sql.Identifier(f"{rollup.table}_{step}"),
        length=sql.Literal(STEPS[step]),
        time=sql.Identifier(rollup.time_column),
        keys=sql.SQL(", ").join(map(sql.Identifier, rollup.keys)),
        values=sql.SQL(", ").join(
            sql.SQL("{} AS {}").format(sql.SQL(as_first_or_last(value)), sql.Identifier(name))
            for name, value in rollup.values.items()
        ),
        table=sql.Identifier(rollup.table),
        condition=sql.SQL(rollup.condition),
    )


def as_first_or_last(value: str) -> str:
    """(array_agg(x ORDER BY t))[1] as TimescaleDB's first(x, t), with DESC as last(x, t): the same value, NULLs too."""
    return re.sub(
        r"\(array_agg\((\w+) ORDER BY (\w+)( DESC)?\)\)\[1\]",
        lambda found: f"{'last' if found[3] else 'first'}({found[1]}, {found[2]})",
        value,
    )


def refresh_policy(view: str) -> sql.Composed:
    """Every hour, up to the hour that is being written."""
    return sql.SQL(
        "SELECT add_continuous_aggregate_policy({view}, start_offset => {window}, end_offset => interval '1 hour',"
        " schedule_interval => interval '1 hour', if_not_exists => true)"
    ).format(view=sql.Literal(view), window=sql.Literal(POLICY_WINDOW))


def fine_retention(view: str) -> sql.Composed:
    """Buckets under 1 h go after the same time as in the other editions."""
    return sql.SQL("SELECT add_retention_policy({}, drop_after => {}, if_not_exists => true)").format(
        sql.Literal(view), sql.Literal(upkeep.FINE_RETENTION)
    )


def compress_by(compression: Compression) -> sql.Composed:
    """The table's compression settings. They compress nothing by themselves."""
    return sql.SQL(
        "ALTER TABLE {} SET (timescaledb.compress, timescaledb.compress_segmentby = {},"
        " timescaledb.compress_orderby = {})"
    ).format(
        sql.Identifier(compression.table),
        sql.Literal(", ".join(compression.segment_by)),
        sql.Literal(", ".join(compression.order_by)),
    )


def compression_policy(compression: Compression) -> sql.Composed:
    """Compress chunks past the late-data window, again where rows came into one later."""
    return sql.SQL("SELECT add_compression_policy({}, compress_after => {}, if_not_exists => true)").format(
        sql.Literal(compression.table), sql.Literal(LATE_DATA_WINDOW)
    )


def no_decompression_limit(database: str) -> sql.Composed:
    """A late batch that meets a compressed chunk lands whole: the default limit of 100,000 rows would refuse it."""
    return sql.SQL("ALTER DATABASE {} SET timescaledb.max_tuples_decompressed_per_dml_transaction = 0").format(
        sql.Identifier(database)
    )


@contextmanager
def opened(conn: Connection, tables: list[str], first: datetime, until: datetime) -> Iterator[list[str]]:
    """The compressed chunks of [first, until) are open inside, for archive rows, and compressed again afterwards.

    Where nothing is compressed (the other editions) it does nothing. Commits. If the process dies inside, the
    compression policy closes what was left open; refresh_late brings the roll-ups of what landed up to date.
    """
    row = conn.execute("SELECT to_regprocedure('open_chunks(text[], timestamptz, timestamptz)') IS NOT NULL").fetchone()
    if row is None or not row[0]:
        conn.commit()
        yield []
        return
    chunks = [
        str(chunk)
        for (chunk,) in conn.execute("SELECT open_chunks(%s, %s, %s)::text", [tables, first, until]).fetchall()
    ]
    conn.commit()
    try:
        yield chunks
    finally:
        if chunks and not conn.closed:
            conn.rollback()
            conn.execute("SELECT close_chunks(%s::text[]::regclass[])", [chunks])
            conn.commit()


def refresh_late(conn: Connection, not_before: datetime | None = None) -> dict[str, int]:
    """Refresh the continuous aggregates over the hours whose rows changed since the last time; hours by table.

    conn: the owner's, in autocommit mode (a refresh commits by itself). not_before: as in rollups.refresh.
    """
    continuous = upkeep.continuous_tables(conn)
    refreshed = {}
    for rollup in ROLLUPS:
        if rollup.table not in continuous:
            continue
        with upkeep.turn(conn, rollup):
            started, hours = upkeep.changed_since_last(conn, rollup)
            hours = [(world, hour) for world, hour in hours if not_before is None or hour >= not_before]
            for _, first, end in upkeep.spans(sorted({("", hour) for _, hour in hours})):
                for step in STEPS:
                    conn.execute(
                        "CALL refresh_continuous_aggregate(%s, %s::timestamptz, %s::timestamptz)",
                        [f"{rollup.table}_{step}", first, end],
                    )
            upkeep.note_progress(conn, rollup, started)
        refreshed[rollup.table] = len(hours)
    return refreshed


def _reaches_behind_its_rows(conn: Connection, rollup: RollUp) -> bool:
    """Whether the stored roll-up has hours whose rows are gone: only it can still tell them, so it stays."""
    row = conn.execute(
        sql.SQL(
            "SELECT (SELECT min(bucket) FROM {stored} WHERE step = '1h')"
            " < (SELECT date_trunc('hour', min({time}), 'UTC') FROM {table})"
        ).format(
            stored=sql.Identifier(f"rollup_{rollup.table}"),
            time=sql.Identifier(rollup.time_column),
            table=sql.Identifier(rollup.table),
        )
    ).fetchone()
    return bool(row and row[0])


def _names(conn: Connection, statement: str) -> set[str]:
    return {name for (name,) in conn.execute(statement.encode())}
