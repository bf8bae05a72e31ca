"""Finding holes in the series: two neighbouring rows that lie further apart than the venue's own pace allows.

Belongs here: the question to the observation tables. Does not: the ledger (gaps.py), or what is done about a hole.

A hole is asked of the rows and not of a process: who was down could not notice. What lies beyond the newest row is no
hole yet but a silence, which `source_status` and the check venues_speak tell; it becomes one when the venue speaks
again.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Final

import psycopg
from psycopg import sql

LEAST_HOLE: Final = timedelta(seconds=60)
"""A shorter silence is one or two polls that failed; coverage has told it, and no 5-min bar lacks anything."""
PACE_FACTOR: Final = 3
PACE_ROWS: Final = 10
"""From so many neighbours on, a venue's pace is taken from its own rows where it is slower than declared: a budget
shared by 50 coins asks each of them less often."""


@dataclass(frozen=True)
class Series:
    """What is expected of one venue for every symbol: no two live rows further apart than live_limit, no row of the
    venue's history further from its neighbours than archive_limit. kind: of funding rates and ratios, else None.
    """

    venue: str
    topic: str
    kind: str | None
    live_limit: timedelta
    archive_limit: timedelta


@dataclass(frozen=True)
class Hole:
    """Nothing is stored of the series between two rows, at from_time and at to_time."""

    series: Series
    symbol: str
    from_time: datetime
    to_time: datetime


def find_holes(
    conn: psycopg.Connection[Any],
    world: str,
    series: Sequence[Series],
    symbols: Sequence[str],
    since: datetime,
    until: datetime,
) -> list[Hole]:
    """Holes that end in (since, until], by series, symbol and time. What lies before a series' first row is none."""
    found: list[Hole] = []
    for topic in sorted({one.topic for one in series}):
        found += _in_topic(conn, world, [one for one in series if one.topic == topic], symbols, since, until)
    return found


def earliest_late_row(
    conn: psycopg.Connection[Any], world: str, topic: str, before: datetime, landed_from: datetime
) -> datetime | None:
    """The first event_time before `before` among the live rows that landed at or after landed_from, if there is one.

    Rows that waited in Kafka or in the collector's buffer end holes in a time that has been searched without them.
    """
    query = sql.SQL(
        "SELECT min(event_time) FROM {} WHERE landed_at >= %s AND world = %s AND origin = 'live' AND event_time < %s"
    ).format(sql.Identifier(topic))
    row = conn.execute(query, [landed_from, world, before]).fetchone()
    first: datetime | None = None if row is None else row[0]
    return first


def _in_topic(
    conn: psycopg.Connection[Any],
    world: str,
    series: Sequence[Series],
    symbols: Sequence[str],
    since: datetime,
    until: datetime,
) -> list[Hole]:
    topic = series[0].topic
    has_kind = series[0].kind is not None
    # A settled rate comes as often as its own interval says.
    hours = "interval_hours" if topic == "funding_rates" else "0::float8"
    query = sql.SQL(
        """
        WITH wanted AS (
            SELECT number, venue, kind, live, archive, symbol
            FROM unnest(%(venues)s::text[], %(kinds)s::text[], %(live)s::interval[], %(archive)s::interval[])
                 WITH ORDINALITY AS s(venue, kind, live, archive, number), unnest(%(symbols)s::text[]) AS symbol
        ), seen AS (
            SELECT w.number, w.symbol, w.live, w.archive, w.kind, t.event_time, t.is_archive, t.hours
            FROM wanted AS w CROSS JOIN LATERAL (
                SELECT event_time, origin = 'archive' AS is_archive, {hours} AS hours FROM {table} AS r
                WHERE world = %(world)s AND r.symbol = w.symbol AND r.venue = w.venue {kind}
                  AND event_time > %(since)s AND event_time <= %(until)s
                UNION ALL
                (SELECT event_time, origin = 'archive', {hours} FROM {table} AS r
                 WHERE world = %(world)s AND r.symbol = w.symbol AND r.venue = w.venue {kind}
                   AND event_time <= %(since)s
                 ORDER BY event_time DESC LIMIT 1)
            ) AS t
        ), pairs AS (
            SELECT *, lag(event_time) OVER of_series AS before, is_archive OR lag(is_archive) OVER of_series AS archived
            FROM seen WINDOW of_series AS (PARTITION BY number, symbol ORDER BY event_time)
        ), pace AS (
            SELECT number, symbol, percentile_disc(0.5) WITHIN GROUP (ORDER BY event_time - before) AS usual
            FROM pairs WHERE before IS NOT NULL AND NOT archived
            GROUP BY number, symbol HAVING count(*) >= %(pace_rows)s
        )
        SELECT p.number, p.symbol, p.before, p.event_time
        FROM pairs AS p LEFT JOIN pace USING (number, symbol)
        WHERE p.event_time - p.before > greatest(
            CASE WHEN p.kind = 'settled' THEN p.hours * interval '1.5 hours' END,
            p.live,
            CASE WHEN p.archived THEN p.archive END,
            %(pace_factor)s * pace.usual)
        ORDER BY p.number, p.symbol, p.event_time
        """
    ).format(
        hours=sql.SQL(hours),
        table=sql.Identifier(topic),
        kind=sql.SQL("AND r.kind = w.kind") if has_kind else sql.SQL(""),
    )
    rows = conn.execute(
        query,
        {
            "world": world,
            "venues": [one.venue for one in series],
            "kinds": [one.kind for one in series],
            "live": [max(one.live_limit, LEAST_HOLE) for one in series],
            "archive": [one.archive_limit for one in series],
            "symbols": list(symbols),
            "since": since,
            "until": until,
            "pace_rows": PACE_ROWS,
            "pace_factor": PACE_FACTOR,
        },
    ).fetchall()
    return [Hole(series[number - 1], symbol, before, after) for number, symbol, before, after in rows]
