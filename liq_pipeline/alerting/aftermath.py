"""What happened while a cascade was under way, and what became of earlier pages: read from what is stored.

Belongs here: the queries behind an "over" message, bounded to the alert's own time, and behind "here so far". Does not:
words (alerting/telling/under_way.py), or what followed an alert by the labels (evaluation/paging/outcomes.py).

Only what was known at the moment counts, whatever has been written since: a replay in other batches, or a what-if years
later, tells the same.
"""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Any, Final

import psycopg
from psycopg.rows import dict_row

from liq_pipeline.alerting.deciding.state import Alert
from liq_pipeline.domain.worlds import World

WARNED_WITHIN: Final = timedelta(hours=24)
"""Warnings of so long before the start are named: what came earlier spoke of something else."""
LONGEST: Final = timedelta(hours=48)
JUDGED_AFTER: Final = timedelta(hours=5)
"""A page's verdict needs the four hours of the label, and what was not judged then is no record at the moment."""


def what_happened(conn: psycopg.Connection[Any], world: World, alert: Alert, until: datetime) -> dict[str, Any]:
    """Depth, duration, open interest flushed, liquidations by side and venue, and what the warnings had said.

    alert: of one symbol and of the rule under_way. What is not known is None; nothing is guessed.
    """
    since = max(alert.opened_at, until - LONGEST)
    with conn.cursor(row_factory=dict_row) as cursor:
        cursor.execute(
            """
            SELECT min((under_way ->> 'started_at')::timestamptz) AS started_at,
                   max(abs((under_way ->> 'excursion')::float)) AS depth,
                   min((under_way ->> 'open_interest_change')::float) AS open_interest_change
            FROM signals
            WHERE world = %s AND symbol = %s AND time BETWEEN %s AND %s AND revision = 0
              AND under_way ->> 'side' = %s
            """,
            [world.name, alert.subject, since, until, alert.side],
        )
        moved = cursor.fetchone() or {}
        started = moved.get("started_at") or alert.opened_at
        cursor.execute(
            """
            SELECT venue, liquidated_side AS side, sum(notional_usd)::float AS usd, bool_or(is_sample) AS is_sample
            FROM liquidations
            WHERE world = %s AND symbol = %s AND event_time > %s AND event_time <= %s AND known_at <= %s
            GROUP BY 1, 2 ORDER BY 3 DESC
            """,
            [world.name, alert.subject, started, until, until],
        )
        liquidated = cursor.fetchall()
        cursor.execute(
            """
            SELECT a.rule, a.subject, a.opened_at,
                   CASE WHEN a.first_told_at <= %(until)s THEN a.first_told_at END AS first_told_at,
                   (SELECT c.severity FROM alert_changes AS c
                    WHERE c.alert_id = a.alert_id AND c.time <= %(until)s AND c.severity <> 'NONE'
                    ORDER BY c.time DESC LIMIT 1) AS severity
            FROM alerts AS a
            WHERE a.world = %(world)s AND a.rule <> 'blind' AND a.subject IN (%(subject)s, 'market')
              AND a.alert_id <> %(alert)s AND a.alert_id IS DISTINCT FROM %(group)s
              AND a.opened_at BETWEEN %(since)s AND %(until)s
            ORDER BY a.opened_at, a.rule, a.subject LIMIT 6
            """,
            {
                "world": world.name,
                "subject": alert.subject,
                "alert": alert.alert_id,
                "group": alert.group_id,
                "since": started - WARNED_WITHIN,
                "until": until,
            },
        )
        warnings = cursor.fetchall()
    return {
        "started_at": started.isoformat(),
        "ended_at": until.isoformat(),
        "opened_at": alert.opened_at.isoformat(),
        "first_told_at": None if alert.first_told_at is None else alert.first_told_at.isoformat(),
        "duration_minutes": round((until - started).total_seconds() / 60.0, 1),
        "depth": moved.get("depth"),
        "open_interest_change": moved.get("open_interest_change"),
        "liquidated_usd": [
            {"venue": row["venue"], "side": row["side"], "usd": row["usd"], "is_sample": row["is_sample"]}
            for row in liquidated
        ],
        "warnings": [
            {
                "rule": row["rule"],
                "severity": row["severity"],
                "subject": row["subject"],
                "opened_at": row["opened_at"].isoformat(),
                "first_told_at": None if row["first_told_at"] is None else row["first_told_at"].isoformat(),
            }
            for row in warnings
        ],
    }


def own_record(conn: psycopg.Connection[Any], world: World, until: datetime) -> dict[str, Any] | None:
    """How many pages of the rule this world has told and judged before `until`, how many were right, and what followed.

    A page counts once: it is right if one of its symbols was, and what followed is that of its symbol that went
    furthest. None: no page is judged.
    """
    with conn.cursor(row_factory=dict_row) as cursor:
        cursor.execute(
            """
            WITH judged AS (
                SELECT a.page_id, bool_or(o.outcome = 'right') AS is_right, max(o.further_move_1h) AS further,
                       (array_agg(o.adverse_move_1h ORDER BY o.further_move_1h DESC NULLS LAST))[1] AS adverse
                FROM alerts AS a CROSS JOIN LATERAL (
                    SELECT outcome, further_move_1h, adverse_move_1h FROM alert_outcomes
                    WHERE alert_id = a.alert_id ORDER BY label_version DESC LIMIT 1
                ) AS o
                WHERE a.world = %s AND a.rule = 'under_way' AND a.first_told_at IS NOT NULL AND a.opened_at <= %s
                  AND o.outcome <> 'open'
                GROUP BY a.page_id
            )
            SELECT count(*)::int AS pages, count(*) FILTER (WHERE is_right)::int AS "right",
                   percentile_cont(0.5) WITHIN GROUP (ORDER BY further) AS further_median,
                   percentile_cont(0.5) WITHIN GROUP (ORDER BY adverse) AS adverse_median
            FROM judged
            """,
            [world.name, until - JUDGED_AFTER],
        )
        record = cursor.fetchone()
    return record if record and record["pages"] else None
