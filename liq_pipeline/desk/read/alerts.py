"""The alert book as the desk shows it, newest first, and one alert with its receipt.

Belongs here: reading. Does not: acknowledging (desk/api/acknowledge.py), or what a receipt holds (alerting/telling/).
"""

from __future__ import annotations

import uuid
from datetime import datetime
from typing import Any, Literal

import msgspec

from liq_pipeline.desk.read.database import Connection, fetch, fetch_rows
from liq_pipeline.desk.read.units import Fraction, Open, Side, Time

State = Literal["open", "resolved", "all"]


class Alert(msgspec.Struct, frozen=True, kw_only=True):
    """One alert of the book. outcome is null until it can be judged."""

    alert_id: uuid.UUID
    page_id: uuid.UUID
    """alerts that people were told as one"""
    world: str
    rule: str
    subject: str
    """a symbol, or a group: market, monitor"""
    side: Side | None
    severity: str
    peak_severity: str
    state: Literal["open", "resolved"]
    opened_at: Time
    changed_at: Time
    resolved_at: Time | None
    resolved_because: str | None
    told_at: Time | None
    """when people were last told; null: nobody was"""
    told_severity: str | None
    acknowledged_at: datetime | None
    """wall clock"""
    acknowledged_by: str | None
    group_id: uuid.UUID | None
    """the alert that speaks for this one"""
    outcome: Literal["right", "late", "false", "open"] | None
    lead_minutes: float | None
    largest_move: Fraction | None


class AlertDetail(msgspec.Struct, frozen=True, kw_only=True):
    """One alert with everything that is known of it; the receipt is the stored object of its newest rise."""

    alert: Alert
    receipt: Open
    changes: list[Open]
    members: list[Open]
    deliveries: list[Open]
    messages: list[Open]


_COLUMNS = """
    a.alert_id, a.page_id, a.world, a.rule, a.subject, a.side, a.severity, a.peak_severity, a.state, a.opened_at,
    a.changed_at, a.resolved_at, a.resolved_because, a.told_at, a.told_severity, a.acknowledged_at, a.acknowledged_by,
    a.group_id, o.outcome, o.lead_minutes, o.largest_move
"""
_TABLES = """
    alerts a LEFT JOIN LATERAL (
        SELECT outcome, lead_minutes, largest_move FROM alert_outcomes WHERE alert_id = a.alert_id
        ORDER BY label_version DESC LIMIT 1) o ON true
"""


def book(
    conn: Connection,
    world: str,
    *,
    state: State = "all",
    rule: str | None = None,
    subject: str | None = None,
    first: datetime | None = None,
    before: tuple[datetime, uuid.UUID] | None = None,
    pages_only: bool = False,
    limit: int = 50,
) -> list[Alert]:
    """Alerts, newest first. before: the last one of the page before. pages_only: without those a group speaks for."""
    return fetch(
        conn,
        Alert,
        f"""
        SELECT {_COLUMNS} FROM {_TABLES}
        WHERE a.world = %(world)s AND (%(state)s = 'all' OR a.state = %(state)s)
          AND (%(rule)s::text IS NULL OR a.rule = %(rule)s)
          AND (%(subject)s::text IS NULL OR a.subject = %(subject)s)
          AND (%(first)s::timestamptz IS NULL OR a.opened_at >= %(first)s)
          AND (NOT %(pages_only)s OR a.group_id IS NULL)
          AND (%(before)s::timestamptz IS NULL OR (a.opened_at, a.alert_id) < (%(before)s, %(before_id)s::uuid))
        ORDER BY a.opened_at DESC, a.alert_id DESC LIMIT %(limit)s
        """,  # noqa: S608 - own constants
        {
            "world": world,
            "state": state,
            "rule": rule,
            "subject": subject,
            "first": first,
            "before": before[0] if before else None,
            "before_id": before[1] if before else None,
            "pages_only": pages_only,
            "limit": limit,
        },
    )


def one(conn: Connection, alert_id: uuid.UUID) -> AlertDetail | None:
    """An alert with its receipt, or None if there is none of that id."""
    from liq_pipeline.alerting.book import show_alert

    found = fetch(conn, Alert, f"SELECT {_COLUMNS} FROM {_TABLES} WHERE a.alert_id = %(id)s", {"id": alert_id})  # noqa: S608
    if not found:
        return None
    shown: dict[str, Any] = show_alert(conn, str(alert_id))
    return AlertDetail(
        alert=found[0],
        receipt=shown["receipt"],
        changes=shown["changes"],
        members=shown["members"],
        deliveries=shown["deliveries"],
        messages=shown["messages"],
    )


class Verdicts(msgspec.Struct, frozen=True, kw_only=True):
    """How the alerts of one rule and peak severity came out."""

    rule: str
    peak_severity: str
    right: int
    late: int
    false: int
    open: int
    """not yet to be judged"""


def verdicts(conn: Connection, world: str, first: datetime) -> list[Verdicts]:
    """By rule and peak severity, of the alerts opened from `first` on."""
    rows = fetch_rows(
        conn,
        """
        SELECT a.rule, a.peak_severity, count(*) FILTER (WHERE o.outcome = 'right'),
               count(*) FILTER (WHERE o.outcome = 'late'), count(*) FILTER (WHERE o.outcome = 'false'),
               count(*) FILTER (WHERE o.outcome IS NULL OR o.outcome = 'open')
        FROM alerts a LEFT JOIN LATERAL (SELECT outcome FROM alert_outcomes WHERE alert_id = a.alert_id
             ORDER BY label_version DESC LIMIT 1) o ON true
        WHERE a.world = %(world)s AND a.opened_at >= %(first)s AND a.rule <> 'blind' GROUP BY 1, 2 ORDER BY 1, 2
        """,
        {"world": world, "first": first},
    )
    return [
        Verdicts(rule=rule, peak_severity=peak, right=right, late=late, false=false, open=still)
        for rule, peak, right, late, false, still in rows
    ]
