"""What is new since an event id, found in the rows alone, so that any process can go on where another ended.

Belongs here: ids, and the queries for what came after one. Does not: who listens (hub.py).

An id names how far both kinds of rows were told: the newest point's time, and the creation of the newest alert change,
each in microseconds. Signals are a state: whoever comes back gets the newest point. Alert changes are events: whoever
comes back gets every one. Rows are stamped before they are committed, so one may become visible after a younger one:
each look reaches back by OVERLAP, and an alert change may therefore come twice; its `change_id` tells.
"""

from __future__ import annotations

import uuid
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Final

import msgspec

from liq_pipeline.desk.read.database import Connection, fetch
from liq_pipeline.desk.read.scope import Mode
from liq_pipeline.desk.read.units import Time

OVERLAP: Final = timedelta(seconds=90)
"""No transaction that writes an alert lasts longer."""
REACH: Final = timedelta(hours=1)
"""By the world's clock: a late point may resolve an alert a little in the past."""
MOST_CHANGES: Final = 20_000
"""More than any market can bring within OVERLAP."""
LONGEST_ABSENCE: Final = timedelta(days=7)
"""Whoever was away for longer reads the book."""
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND: Final = timedelta(microseconds=1)


class AlertChange(msgspec.Struct, frozen=True, kw_only=True):
    """One change of one alert."""

    change_id: str
    """the same change has the same id, whenever it is told"""
    alert_id: uuid.UUID
    world: str
    mode: Mode
    is_real: bool
    time: Time
    kind: str
    """opened, escalated, eased or resolved"""
    rule: str
    subject: str
    side: str | None
    severity: str
    severity_before: str
    state: str
    reason: str
    group_id: uuid.UUID | None
    created_at: datetime
    """when the row was written, wall clock"""


@dataclass(frozen=True)
class EventId:
    """How far a listener is."""

    point: datetime
    change: datetime

    def __str__(self) -> str:
        return f"{(self.point - _EPOCH) // _MICROSECOND}-{(self.change - _EPOCH) // _MICROSECOND}"

    @classmethod
    def parse(cls, text: str) -> EventId | None:
        """The id, or None if it is none of ours."""
        first, _, second = text.partition("-")
        if len(text) > 40 or not all(part.isascii() and part.isdecimal() for part in (first, second)):
            return None
        try:
            return cls(_EPOCH + int(first) * _MICROSECOND, _EPOCH + int(second) * _MICROSECOND)
        except OverflowError:
            return None


def changes_since(conn: Connection, world: str, since: EventId, *, limit: int = MOST_CHANGES) -> list[AlertChange]:
    """The alert changes of a world that were written after `since`, less OVERLAP, oldest first.

    Only alerts that are open, or ended since then by the world's clock, can have changed since then.
    """
    return fetch(
        conn,
        AlertChange,
        """
        WITH touched AS MATERIALIZED (
            SELECT alert_id FROM alerts WHERE world = %(world)s AND state = 'open'
            UNION ALL
            SELECT alert_id FROM alerts WHERE world = %(world)s AND state = 'resolved' AND resolved_at > %(point)s)
        SELECT c.alert_id::text || '/' || to_char(c.time AT TIME ZONE 'UTC', 'YYYYMMDD"T"HH24MISS.US') || '/' || c.kind
               AS change_id, c.alert_id, a.world,
               CASE w.kind WHEN 'real' THEN 'live' ELSE w.kind END AS mode, w.kind = 'real' AS is_real, c.time, c.kind,
               a.rule, a.subject, a.side, c.severity, c.severity_before, a.state, c.reason, a.group_id, c.created_at
        FROM touched JOIN alerts a USING (alert_id) JOIN alert_changes c USING (alert_id) JOIN worlds w USING (world)
        WHERE c.created_at > %(change)s ORDER BY c.created_at, c.alert_id, c.time, c.kind LIMIT %(limit)s
        """,
        {"world": world, "point": since.point - REACH, "change": since.change - OVERLAP, "limit": limit},
    )


def start(conn: Connection, world: str) -> datetime:
    """The creation of the newest change of an alert of the world; the epoch if there is none."""
    row = conn.execute(
        """
        SELECT max(c.created_at) FROM alert_changes c WHERE c.alert_id IN (
            (SELECT alert_id FROM alerts WHERE world = %(world)s AND state = 'open')
            UNION ALL
            (SELECT alert_id FROM alerts WHERE world = %(world)s AND state = 'resolved'
             ORDER BY resolved_at DESC LIMIT 50))
        """,
        {"world": world},
    ).fetchone()
    found: datetime | None = row[0] if row else None
    return found or _EPOCH
