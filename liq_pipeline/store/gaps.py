"""The gap ledger: what is known to be missing.

Belongs here: the table `ingest_gaps`. Does not: finding gaps in the data, or healing them.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Any

import psycopg
from psycopg.rows import class_row

from liq_pipeline.domain.worlds import REAL


@dataclass(frozen=True, kw_only=True)
class Gap:
    """A hole: of `source` (a venue's feed, or `kafka:<topic>[<partition>]`), in time, in Kafka offsets, or both.

    from_offset is the first missing offset, to_offset the first one that is there again.
    """

    world: str
    source: str
    cause: str
    symbol: str | None = None
    from_time: datetime | None = None
    to_time: datetime | None = None
    from_offset: int | None = None
    to_offset: int | None = None
    is_permanent: bool = False


@dataclass(frozen=True, kw_only=True)
class StoredGap(Gap):
    """A gap with its number and its history."""

    gap_id: int
    found_at: datetime
    healed_at: datetime | None


def record(conn: psycopg.Connection[Any], gap: Gap) -> int:
    """Write the gap in the caller's transaction and return its number."""
    row = conn.execute(
        """
        INSERT INTO ingest_gaps (world, source, symbol, from_time, to_time, from_offset, to_offset, cause, is_permanent)
        VALUES (%(world)s, %(source)s, %(symbol)s, %(from_time)s, %(to_time)s, %(from_offset)s, %(to_offset)s,
                %(cause)s, %(is_permanent)s)
        RETURNING gap_id
        """,
        vars(gap),
    ).fetchone()
    if row is None:
        raise RuntimeError("INSERT ... RETURNING gave no row")
    number: int = row[0]
    return number


def unhealed(conn: psycopg.Connection[Any], world: str | None = None) -> list[StoredGap]:
    """Gaps neither healed nor marked permanent, oldest first; of one world if given."""
    with conn.cursor(row_factory=class_row(StoredGap)) as cursor:
        return cursor.execute(
            """
            SELECT gap_id, world, source, symbol, from_time, to_time, from_offset, to_offset, cause, is_permanent,
                   found_at, healed_at
            FROM ingest_gaps
            WHERE healed_at IS NULL AND NOT is_permanent AND (%(world)s::text IS NULL OR world = %(world)s)
            ORDER BY gap_id
            """,
            {"world": world},
        ).fetchall()


def mark_healed(conn: psycopg.Connection[Any], gap_id: int) -> None:
    """The data is there now."""
    conn.execute("UPDATE ingest_gaps SET healed_at = clock_timestamp() WHERE gap_id = %s", [gap_id])


def mark_permanent(conn: psycopg.Connection[Any], gap_id: int) -> None:
    """The data cannot be had any more."""
    conn.execute("UPDATE ingest_gaps SET is_permanent = true WHERE gap_id = %s", [gap_id])


def world_in_force(conn: psycopg.Connection[Any]) -> str:
    """The world a gap of the bus belongs to: the active one, the real one before any is active."""
    row = conn.execute("SELECT world FROM worlds WHERE is_active").fetchone()
    return REAL if row is None else str(row[0])
