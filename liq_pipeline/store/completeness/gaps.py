"""The gap ledger: what is known to be missing, and what became of it.

Belongs here: the table `ingest_gaps`. Does not: finding holes in the series (gap_search.py) or healing them
(pipeline/healing.py).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final, LiteralString

import psycopg
from psycopg import sql
from psycopg.rows import class_row

from liq_pipeline.domain.worlds import REAL

Connection = psycopg.Connection[Any]

_COLUMNS: Final[LiteralString] = (
    "gap_id, world, source, venue, topic, kind, symbol, from_time, to_time, from_offset, to_offset, cause,"
    " is_permanent, permanent_reason, found_at, healed_at, rescored_at"
)


@dataclass(frozen=True, kw_only=True)
class Gap:
    """A hole: of `source` (a venue's series, or `kafka:<topic>[<partition>]`), in time, in Kafka offsets, or both.

    venue, topic, kind: the series, where it is one; kind: of funding rates and ratios.
    from_time is the last moment of which something is known, to_time the first one of which something is again;
    from_offset is the first missing offset, to_offset the first one that is there again.
    """

    world: str
    source: str
    cause: str
    venue: str | None = None
    topic: str | None = None
    kind: str | None = None
    symbol: str | None = None
    from_time: datetime | None = None
    to_time: datetime | None = None
    from_offset: int | None = None
    to_offset: int | None = None
    is_permanent: bool = False
    permanent_reason: str | None = None


@dataclass(frozen=True, kw_only=True)
class StoredGap(Gap):
    """A gap with its number and its history."""

    gap_id: int
    found_at: datetime
    healed_at: datetime | None
    rescored_at: datetime | None

    @property
    def state(self) -> str:
        """open, healed or permanent."""
        if self.healed_at is not None:
            return "healed"
        return "permanent" if self.is_permanent else "open"


def series_gap(
    world: str,
    venue: str,
    topic: str,
    symbol: str | None,
    from_time: datetime,
    to_time: datetime,
    cause: str,
    *,
    kind: str | None = None,
    permanent_reason: str | None = None,
) -> Gap:
    """A hole in a venue's series, named as the ledger names them. permanent_reason: why it cannot be healed."""
    return Gap(
        world=world,
        source=f"{venue} {topic}",
        cause=cause,
        venue=venue,
        topic=topic,
        kind=kind,
        symbol=symbol,
        from_time=from_time,
        to_time=to_time,
        is_permanent=permanent_reason is not None,
        permanent_reason=permanent_reason,
    )


def record(conn: Connection, gap: Gap) -> int:
    """Write the gap in the caller's transaction and return its number."""
    row = conn.execute(
        """
        INSERT INTO ingest_gaps (world, source, venue, topic, kind, symbol, from_time, to_time, from_offset, to_offset,
                                 cause, is_permanent, permanent_reason)
        VALUES (%(world)s, %(source)s, %(venue)s, %(topic)s, %(kind)s, %(symbol)s, %(from_time)s, %(to_time)s,
                %(from_offset)s, %(to_offset)s, %(cause)s, %(is_permanent)s, %(permanent_reason)s)
        RETURNING gap_id
        """,
        vars(gap),
    ).fetchone()
    if row is None:
        raise RuntimeError("INSERT ... RETURNING gave no row")
    number: int = row[0]
    return number


def record_new(conn: Connection, found: Sequence[Gap]) -> int:
    """Write those of `found` that no gap of the same series holds already; how many."""
    fresh = 0
    for gap in found:
        known = conn.execute(
            """
            SELECT FROM ingest_gaps WHERE world = %(world)s AND source = %(source)s AND symbol = %(symbol)s
              AND (kind IS NOT DISTINCT FROM %(kind)s OR kind IS NULL)
              AND from_time <= %(from_time)s AND to_time >= %(to_time)s LIMIT 1
            """,
            vars(gap),
        ).fetchone()
        if known is None:
            record(conn, gap)
            fresh += 1
    return fresh


def unhealed(conn: Connection, world: str | None = None) -> list[StoredGap]:
    """Gaps neither healed nor marked permanent, oldest first; of one world if given."""
    return _select(
        conn,
        "healed_at IS NULL AND NOT is_permanent AND (%(world)s::text IS NULL OR world = %(world)s) ORDER BY gap_id",
        {"world": world},
    )


def healed_but_not_rescored(conn: Connection, world: str) -> list[StoredGap]:
    """Holes whose rows have landed while the scores still show them, oldest first."""
    return _select(
        conn,
        "world = %(world)s AND healed_at IS NOT NULL AND rescored_at IS NULL AND topic IS NOT NULL ORDER BY from_time",
        {"world": world},
    )


def listed(conn: Connection, world: str, *, everything: bool, limit: int) -> list[StoredGap]:
    """The newest `limit` gaps of a world, newest first; only the open ones unless everything is asked for."""
    return _select(
        conn,
        "world = %(world)s AND (%(all)s OR (healed_at IS NULL AND NOT is_permanent))"
        " ORDER BY gap_id DESC LIMIT %(limit)s",
        {"world": world, "all": everything, "limit": limit},
    )


def mark_healed(conn: Connection, gap_id: int) -> None:
    """The data is there now."""
    conn.execute("UPDATE ingest_gaps SET healed_at = clock_timestamp() WHERE gap_id = %s", [gap_id])


def mark_permanent(conn: Connection, gap_id: int, reason: str) -> None:
    """The data cannot be had any more."""
    conn.execute(
        "UPDATE ingest_gaps SET is_permanent = true, permanent_reason = %s WHERE gap_id = %s", [reason, gap_id]
    )


def mark_rescored(conn: Connection, gap_ids: Sequence[int]) -> None:
    """The scores that these holes had touched have their new revision."""
    conn.execute("UPDATE ingest_gaps SET rescored_at = clock_timestamp() WHERE gap_id = ANY(%s)", [list(gap_ids)])


def narrow(conn: Connection, gap_id: int, from_time: datetime, to_time: datetime) -> None:
    """Let the gap be a part of what it was; the other parts are recorded beside it."""
    conn.execute("UPDATE ingest_gaps SET from_time = %s, to_time = %s WHERE gap_id = %s", [from_time, to_time, gap_id])


def checked_until(conn: Connection, world: str) -> datetime | None:
    """Up to when the world's series have been searched for holes; None: never."""
    row = conn.execute("SELECT checked_until FROM gap_checks WHERE world = %s", [world]).fetchone()
    until: datetime | None = row[0] if row else None
    return until


def set_checked_until(conn: Connection, world: str, until: datetime) -> None:
    """Remember how far the search has come, in the transaction that records what it found."""
    conn.execute(
        "INSERT INTO gap_checks (world, checked_until) VALUES (%s, %s)"
        " ON CONFLICT (world) DO UPDATE SET checked_until = excluded.checked_until",
        [world, until],
    )


def world_in_force(conn: Connection) -> str:
    """The world a gap of the bus belongs to: the active one, the real one before any is active."""
    row = conn.execute("SELECT world FROM worlds WHERE is_active").fetchone()
    return REAL if row is None else str(row[0])


def _select(conn: Connection, where: LiteralString, parameters: dict[str, Any]) -> list[StoredGap]:
    with conn.cursor(row_factory=class_row(StoredGap)) as cursor:
        query = sql.SQL("SELECT {} FROM ingest_gaps WHERE {}").format(sql.SQL(_COLUMNS), sql.SQL(where))
        return cursor.execute(query, parameters).fetchall()
