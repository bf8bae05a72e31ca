"""Deleting what has had its time.

Belongs here: which time series may go, and when. Does not: the outbox (alerting/sending/outbox.py) or Dagster's runs
and events (defs/upkeep/pruning.py). Raw data, scores, signals and alerts are kept for ever unless LIQ_RETENTION_DAYS is
set; alerts and their deliveries are kept even then, because they are what somebody was told.
"""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Any, Final

import psycopg
from psycopg import sql

from liq_pipeline.store.schema import editions

BATCH_ROWS: Final = 50_000
"""Short transactions: nothing that lands or scores waits for a large DELETE."""


def prune_history(conn: psycopg.Connection[Any], now: datetime, retention_days: int | None) -> dict[str, int]:
    """Delete time-series rows older than retention_days, by table; nothing if it is None. Commits as it goes.

    now: the wall clock. Rows of every world are judged by it, so a recorded day from long ago is not kept for ever.
    """
    if retention_days is None:
        return {}
    before = now - timedelta(days=retention_days)
    deleted = {}
    for table in editions.HYPERTABLES:
        statement = sql.SQL(
            # A ctid names a row within one chunk of a hypertable only: alone it would delete others' rows.
            "DELETE FROM {table} WHERE {time} < %(before)s AND (tableoid, ctid) IN"
            " (SELECT tableoid, ctid FROM {table} WHERE {time} < %(before)s LIMIT %(batch)s)"
        ).format(table=sql.Identifier(table.table), time=sql.Identifier(table.time_column))
        deleted[table.table] = _drop_whole_chunks(conn, table, before)
        while True:
            count = conn.execute(statement, {"before": before, "batch": BATCH_ROWS}).rowcount
            conn.commit()
            deleted[table.table] += count
            if count < BATCH_ROWS:
                break
    # A file whose rows are gone must not count as loaded.
    deleted["archive_files"] = conn.execute("DELETE FROM archive_files WHERE to_time <= %s", [before]).rowcount
    conn.commit()
    return deleted


def _drop_whole_chunks(conn: psycopg.Connection[Any], table: editions.Hypertable, before: datetime) -> int:
    """Where the table is a hypertable: chunks that end before go at once, compressed or not. Rows that went."""
    row = conn.execute("SELECT to_regprocedure('drop_old_chunks(regclass, timestamptz)') IS NOT NULL").fetchone()
    rows = 0
    if row is not None and row[0]:
        count = sql.SQL("SELECT count(*) FROM {} WHERE {} < %s").format(
            sql.Identifier(table.table), sql.Identifier(table.time_column)
        )
        first = conn.execute(count, [before]).fetchone()
        conn.execute("SELECT drop_old_chunks(%s::regclass, %s)", [table.table, before])
        left = conn.execute(count, [before]).fetchone()
        rows = 0 if first is None or left is None else first[0] - left[0]
    conn.commit()
    return rows
