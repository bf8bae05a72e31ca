"""The size of each part, day by day: storage_samples.

Belongs here: measuring our own database, keeping one figure a day, growth from them. Does not: how much room there is
(operations/growth.py), or measuring Kafka (bus/size.py).
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Final, Literal

import psycopg

Connection = psycopg.Connection[Any]
Part = Literal["postgres", "dagster", "kafka"]

WINDOW: Final = timedelta(days=30)
"""Growth is told over this long: long enough for a quiet weekend, short enough to follow a change."""
MIN_SPAN: Final = timedelta(hours=20)
"""Two sizes that lie closer say more about vacuum and segments than about growth."""


@dataclass(frozen=True)
class Growth:
    """One part: its newest size, and how it grows; None while the samples do not reach far enough."""

    part: str
    size_bytes: int
    sampled_at: datetime
    bytes_per_day: float | None
    since: datetime


def measure_own(conn: Connection) -> int:
    """Bytes of our own database: tables, indexes, and what vacuum has freed but not given back."""
    row = conn.execute("SELECT pg_database_size(current_database())").fetchone()
    return 0 if row is None else int(row[0])


def keep(conn: Connection, sizes: dict[Part, int], now: datetime) -> None:
    """Note the sizes at `now`; the newest of a UTC day stays as that day's. In the caller's transaction."""
    conn.cursor().executemany(
        "INSERT INTO storage_samples (part, day, sampled_at, size_bytes)"
        " VALUES (%(part)s, (%(now)s::timestamptz AT TIME ZONE 'UTC')::date, %(now)s, %(size)s)"
        " ON CONFLICT (part, day) DO UPDATE SET sampled_at = excluded.sampled_at, size_bytes = excluded.size_bytes",
        [{"part": part, "size": size, "now": now} for part, size in sizes.items()],
    )


def growth(conn: Connection, now: datetime) -> list[Growth]:
    """Each part that was ever measured, by name: from its oldest sample within WINDOW to its newest."""
    rows = conn.execute(
        """
        SELECT newest.part, newest.size_bytes, newest.sampled_at, oldest.size_bytes, oldest.sampled_at
        FROM (SELECT DISTINCT ON (part) * FROM storage_samples ORDER BY part, day DESC) AS newest
        CROSS JOIN LATERAL (SELECT * FROM storage_samples AS s WHERE s.part = newest.part AND s.day >= %s
                            ORDER BY s.day LIMIT 1) AS oldest
        ORDER BY newest.part
        """,
        [(now - WINDOW).date()],
    ).fetchall()
    found = []
    for part, size, sampled_at, first_size, first_at in rows:
        span = sampled_at - first_at
        rate = None if span < MIN_SPAN else (size - first_size) / (span / timedelta(days=1))
        found.append(Growth(part, size, sampled_at, rate, first_at))
    return found
