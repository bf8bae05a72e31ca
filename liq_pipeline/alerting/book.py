"""The alert book: the machine's state in the database, and reading it.

Belongs here: the tables alerts, alert_changes and alert_pending. Does not: deciding (alerting/deciding/machine.py),
sending (alerting/sending/delivery.py).

`advance` works inside the tick's transaction: what was decided and what is to be sent commit together or not at all.
"""

from __future__ import annotations

import uuid
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import partial
from itertools import pairwise
from typing import Any, Final

import psycopg
from msgspec.structs import replace
from psycopg.rows import dict_row

from liq_pipeline.alerting.aftermath import own_record, what_happened
from liq_pipeline.alerting.deciding.machine import step
from liq_pipeline.alerting.deciding.policy import LEVEL_NAMES, LEVEL_OF_NAME, AlertPolicy
from liq_pipeline.alerting.deciding.state import Alert, Book, Change, Cooling, CoolingKey, Message, Step
from liq_pipeline.alerting.sending.outbox import (
    SCHEMA_VERSION,
    enqueue_alert,
    enqueue_message,
    held_reason,
    row_id,
    to_jsonb,
)
from liq_pipeline.alerting.telling.messages import Text, chart_of, render
from liq_pipeline.alerting.telling.receipt import Fuel, group_receipt, symbol_receipt
from liq_pipeline.domain.worlds import World
from liq_pipeline.errors import LiqError
from liq_pipeline.scoring.results import PointResult
from liq_pipeline.settings import Settings
from liq_pipeline.store.levels import fuel_known_at

_COLUMNS: Final = (
    "alert_id, page_id, world, rule, subject, side, severity, peak_severity, state, group_id, opened_at, raised_at, "
    "judged_at, last_seen_at, changed_at, calm_since, calm_severity, component_shares, told_severity, told_at, "
    "first_told_at, "
    "resolved_at, resolved_because, score_version"
)
_SHORTEST_PREFIX: Final = 6
MOST_MEMBERS: Final = 8
"""Symbols of a market whose aftermath is read when it ends: what a message has room for."""


@dataclass(frozen=True, slots=True)
class AlertChanges:
    """What `advance` did: the machine's changes and messages, and how many of the messages wait for a reason."""

    changes: tuple[Change, ...]
    messages: tuple[Message, ...]
    held_messages: int

    @property
    def has_work(self) -> bool:
        """Whether anything was queued that a delivery should take up at once."""
        return bool(self.changes) or bool(self.messages)


@dataclass(slots=True)
class _Ended:
    alert: Alert
    at: datetime
    reason: str


def advance(
    conn: psycopg.Connection[Any], world: World, points: Sequence[PointResult], settings: Settings, score_version: str
) -> AlertChanges:
    """Run the machine over the points, oldest first, and write alerts, changes and outbox rows.

    Each point of a world is to be given once. Runs in the caller's transaction; the caller holds the world's tick lock.
    Raises ValueError if the points are not in ascending time.
    """
    for earlier, later in pairwise(points):
        if later.time <= earlier.time:
            raise ValueError(f"points must be in ascending time: {later.time} follows {earlier.time}")
    if not points:
        return AlertChanges((), (), 0)
    policy = AlertPolicy.build(settings, world)
    before = load(conn, world, policy, points[0].time)
    book = before
    changes: list[Change] = []
    messages: list[Message] = []
    seen: dict[uuid.UUID, Alert] = {}
    ended: dict[uuid.UUID, _Ended] = {}
    receipts: dict[uuid.UUID, dict[str, Any]] = {}
    history: list[tuple[Any, ...]] = []
    queue: list[tuple[Callable[[], dict[str, Any]], uuid.UUID, bool]] = []
    for point in points:
        outcome = step(book, point, policy, score_version)
        book = outcome.book
        fuel = _fuel(conn, outcome, point, world)
        for change in outcome.changes:
            receipt = _receipt(change.alert, outcome, point, world, policy, score_version, fuel)
            history.append(_change_row(change, receipt))
            queue.append((partial(_change_record, change, receipt, world), change.alert.alert_id, False))
            seen[change.alert.alert_id] = change.alert
            if change.kind in ("opened", "escalated"):
                receipts[change.alert.alert_id] = receipt
            elif change.kind == "resolved":
                ended[change.alert.alert_id] = _Ended(change.alert, point.time, change.reason)
        for message in outcome.messages:
            receipt = _receipt(message.alert, outcome, point, world, policy, score_version, fuel)
            # Made once this batch is written: the end of a cascade is told from rows that may be of the same batch.
            queue.append((partial(_told, conn, message, receipt, world), message.alert.alert_id, True))
            if message.kind in ("spread", "joined"):
                receipts[message.alert.alert_id] = receipt
        changes += outcome.changes
        messages += outcome.messages

    _write_alerts(conn, world, before, book, ended, receipts)
    _write_pending(conn, world, before, book)
    _write_history(conn, history)
    for make, alert_id, is_message in queue:
        record = make()
        enqueue_alert(conn, world, record, alert_id)
        if is_message:
            enqueue_message(conn, world, record, alert_id, settings)
    is_held = held_reason(world.name, world.is_real, settings) is not None
    return AlertChanges(tuple(changes), tuple(messages), len(messages) if is_held else 0)


def _told(conn: psycopg.Connection[Any], message: Message, receipt: dict[str, Any], world: World) -> dict[str, Any]:
    """The record of a message; that of a cascade's end with what happened in it."""
    if message.alert.rule == "under_way":
        if message.kind == "resolved":
            receipt = receipt | {"what_happened": _aftermath(conn, world, message.alert, message.time)}
        else:
            receipt = receipt | {"own_record": own_record(conn, world, message.time)}
    return _message_record(message, receipt, render(message, receipt, world), world)


def _aftermath(conn: psycopg.Connection[Any], world: World, alert: Alert, until: datetime) -> dict[str, Any]:
    """What happened: of one symbol, or symbol by symbol of a group."""
    if not alert.is_group:
        return what_happened(conn, world, alert, until)
    rows = conn.execute(
        """
        SELECT DISTINCT ON (subject) alert_id, subject, side, opened_at, first_told_at FROM alerts
        WHERE group_id = %s ORDER BY subject, opened_at LIMIT %s
        """,
        [alert.alert_id, MOST_MEMBERS],
    ).fetchall()
    told = {}
    for identity, subject, side, opened_at, first_told_at in rows:
        member = replace(
            alert, alert_id=identity, subject=subject, side=side, opened_at=opened_at, first_told_at=first_told_at,
            group_id=alert.alert_id,
        )  # fmt: skip
        told[subject] = {**what_happened(conn, world, member, until), "side": side}
    return told


def message_records(
    outcome: Step,
    point: PointResult,
    world: World,
    policy: AlertPolicy,
    score_version: str,
    conn: psycopg.Connection[Any],
) -> list[dict[str, Any]]:
    """What would be sent after a step of the machine, with texts and receipts, as `advance` writes it.

    conn: where the stretch is stored; the end of a cascade is told from there.
    """
    records = []
    fuel = _fuel(conn, outcome, point, world)
    for message in outcome.messages:
        receipt = _receipt(message.alert, outcome, point, world, policy, score_version, fuel)
        records.append(_told(conn, message, receipt, world))
    return records


def load(conn: psycopg.Connection[Any], world: World, policy: AlertPolicy, now: datetime) -> Book:
    """The machine's state of a world: its open alerts (locked), pending conditions, and pages that cool down."""
    groups = {rule.group_subject for rule in policy.rules}
    open_alerts: dict[Any, Alert] = {}
    with conn.cursor(row_factory=dict_row) as cursor:
        cursor.execute(
            f"SELECT {_COLUMNS}, acknowledged_at FROM alerts WHERE world = %s AND state = 'open' FOR UPDATE",  # noqa: S608
            [world.name],
        )
        for row in cursor:
            alert = _alert(row, groups)
            open_alerts[alert.key] = alert
        cursor.execute("SELECT rule, subject, severity, since FROM alert_pending WHERE world = %s", [world.name])
        pending = {(row["rule"], row["subject"], LEVEL_OF_NAME[row["severity"]]): row["since"] for row in cursor}
        longest = max(rule.cooldown for rule in policy.rules)
        cursor.execute(
            """
            SELECT rule, subject, side, resolved_at, peak_severity FROM alerts
            WHERE world = %s AND state = 'resolved' AND told_at IS NOT NULL AND resolved_at > %s
              AND subject <> ALL(%s)
            ORDER BY resolved_at
            """,
            [world.name, now - longest, list(groups)],
        )
        cooling: dict[CoolingKey, Cooling] = {}
        cooldown_of = {rule.rule: rule.cooldown for rule in policy.rules}
        for row in cursor:
            until = row["resolved_at"] + cooldown_of[row["rule"]]
            entry = Cooling(until, LEVEL_OF_NAME[row["peak_severity"]])
            cooling[(row["rule"], row["subject"], row["side"])] = entry
    return Book(open_alerts, pending, cooling)


def list_alerts(
    conn: psycopg.Connection[Any], *, include_resolved: bool = False, limit: int = 50, world: str | None = None
) -> list[dict[str, Any]]:
    """The alerts, newest first, without their receipts."""
    with conn.cursor(row_factory=dict_row) as cursor:
        cursor.execute(
            f"""
            SELECT {_COLUMNS}, acknowledged_at, acknowledged_by FROM alerts
            WHERE (%(all)s OR state = 'open') AND (%(world)s::text IS NULL OR world = %(world)s)
            ORDER BY opened_at DESC, rule, subject LIMIT %(limit)s
            """,  # noqa: S608 - own constant
            {"all": include_resolved, "world": world, "limit": limit},
        )
        return cursor.fetchall()


def show_alert(conn: psycopg.Connection[Any], alert_id: str) -> dict[str, Any]:
    """One alert with its receipt, its changes, the symbols it speaks for, and every delivery attempt.

    alert_id: the whole id or its first characters (at least 6). Raises LiqError if there is no such alert, or several.
    """
    identity = _find(conn, alert_id)
    with conn.cursor(row_factory=dict_row) as cursor:
        cursor.execute("SELECT * FROM alerts WHERE alert_id = %s", [identity])
        alert = cursor.fetchone() or {}
        cursor.execute(
            "SELECT time, kind, severity_before, severity, reason, receipt FROM alert_changes WHERE alert_id = %s"
            " ORDER BY time, created_at",
            [identity],
        )
        alert["changes"] = cursor.fetchall()
        cursor.execute(
            "SELECT alert_id, subject, side, severity, state FROM alerts WHERE group_id = %s ORDER BY subject",
            [identity],
        )
        alert["members"] = cursor.fetchall()
        cursor.execute(
            "SELECT channel, attempt, attempted_at, ok, error FROM alert_deliveries WHERE alert_id = %s"
            " ORDER BY delivery_id",
            [identity],
        )
        alert["deliveries"] = cursor.fetchall()
        cursor.execute(
            "SELECT outbox_id, state, held_reason, attempts, due_at, done_at, payload ->> 'title' AS title FROM outbox"
            " WHERE alert_id = %s AND topic = 'channels' ORDER BY created_at",
            [identity],
        )
        alert["messages"] = cursor.fetchall()
    return alert


def ack(conn: psycopg.Connection[Any], alert_id: str, by: str) -> uuid.UUID:
    """Mark an alert, and the symbols it speaks for, as seen by a person; the first one to see it stays named.

    Returns the whole id. Raises LiqError if there is no such alert, or several.
    """
    identity = _find(conn, alert_id)
    conn.execute(
        """
        UPDATE alerts SET acknowledged_at = clock_timestamp(), acknowledged_by = %s
        WHERE (alert_id = %s OR group_id = %s) AND acknowledged_at IS NULL
        """,
        [by, identity, identity],
    )
    return identity


def _find(conn: psycopg.Connection[Any], text: str) -> uuid.UUID:
    prefix = text.strip().lower()
    if len(prefix) < _SHORTEST_PREFIX or not set(prefix) <= set("0123456789abcdef-"):
        raise LiqError(f"{text!r} is not an alert id; `liq alerts list --all` shows them.")
    rows = conn.execute("SELECT alert_id FROM alerts WHERE alert_id::text LIKE %s LIMIT 2", [f"{prefix}%"]).fetchall()
    if not rows:
        raise LiqError(f"There is no alert {text}; `liq alerts list --all --world all` shows them.")
    if len(rows) > 1:
        raise LiqError(f"Several alerts begin with {text}; give more of the id.")
    identity: uuid.UUID = rows[0][0]
    return identity


def _alert(row: dict[str, Any], groups: Iterable[str]) -> Alert:
    return Alert(
        alert_id=row["alert_id"],
        page_id=row["page_id"],
        rule=row["rule"],
        subject=row["subject"],
        side=row["side"],
        level=LEVEL_OF_NAME[row["severity"]],
        peak_level=LEVEL_OF_NAME[row["peak_severity"]],
        opened_at=row["opened_at"],
        judged_at=row["judged_at"],
        last_seen_at=row["last_seen_at"],
        changed_at=row["changed_at"],
        score_version=row["score_version"],
        component_shares=row["component_shares"],
        raised_at=row["raised_at"],
        calm_since=row["calm_since"],
        calm_level=0 if row["calm_severity"] is None else LEVEL_OF_NAME[row["calm_severity"]],
        told_level=None if row["told_severity"] is None else LEVEL_OF_NAME[row["told_severity"]],
        told_at=row["told_at"],
        first_told_at=row["first_told_at"],
        group_id=row["group_id"],
        is_group=row["subject"] in groups,
        is_acknowledged=row["acknowledged_at"] is not None,
    )


def _fuel(conn: psycopg.Connection[Any], outcome: Step, point: PointResult, world: World) -> Fuel:
    """What the map said, where there is a receipt to write; most points have none."""
    if not outcome.changes and not outcome.messages:
        return {}
    return fuel_known_at(conn, world.name, list(point.signals), point.time)


def _receipt(
    alert: Alert, outcome: Step, point: PointResult, world: World, policy: AlertPolicy, score_version: str, fuel: Fuel
) -> dict[str, Any]:
    if not alert.is_group:
        return symbol_receipt(alert, point, world, policy, score_version, fuel)
    members = [a for a in outcome.book.open.values() if a.group_id == alert.alert_id]
    return group_receipt(alert, sorted(members, key=lambda a: a.subject), point, world, policy, score_version, fuel)


def _head(alert: Alert, world: World, time: datetime) -> dict[str, Any]:
    return {
        "schema_version": SCHEMA_VERSION,
        "world": world.name,
        "is_real": world.is_real,
        "time": time.isoformat(),
        "alert_id": str(alert.alert_id),
        "page_id": str(alert.page_id),
        "rule": alert.rule,
        "subject": alert.subject,
        "side": alert.side,
        "opened_at": alert.opened_at.isoformat(),
        "score_version": alert.score_version,
    }


def _change_record(change: Change, receipt: dict[str, Any], world: World) -> dict[str, Any]:
    return {
        "id": str(row_id("change", change.alert.alert_id, change.time.isoformat(), change.kind)),
        "type": "change",
        "kind": change.kind,
        **_head(change.alert, world, change.time),
        "severity_before": LEVEL_NAMES[change.level_before],
        "severity": LEVEL_NAMES[change.level_after],
        "reason": change.reason,
        "receipt": receipt,
    }


def _message_record(message: Message, receipt: dict[str, Any], text: Text, world: World) -> dict[str, Any]:
    alert = message.alert
    return {
        "id": str(row_id("message", alert.alert_id, message.time.isoformat(), message.kind)),
        "type": "message",
        "kind": message.kind,
        **_head(alert, world, message.time),
        "severity_before": LEVEL_NAMES[message.told_before],
        "severity": "NONE" if message.kind == "resolved" else LEVEL_NAMES[alert.level],
        "symbols": [member.subject for member in message.members] or [alert.subject],
        "reason": message.reason,
        "also": [
            {
                "alert_id": str(other.alert.alert_id),
                "rule": other.alert.rule,
                "severity": LEVEL_NAMES[other.alert.level],
                "side": other.alert.side,
                "reason": other.reason,
            }
            for other in message.together
        ],
        "chart": chart_of(alert, receipt),
        "title": text.title,
        "body": text.body,
        "notify_type": text.notify_type,
        "receipt": receipt,
    }


def _change_row(change: Change, receipt: dict[str, Any]) -> tuple[Any, ...]:
    return (
        change.alert.alert_id,
        change.time,
        change.kind,
        LEVEL_NAMES[change.level_after],
        LEVEL_NAMES[change.level_before],
        change.reason,
        to_jsonb(receipt),
    )


def _write_alerts(
    conn: psycopg.Connection[Any],
    world: World,
    before: Book,
    after: Book,
    ended: dict[uuid.UUID, _Ended],
    receipts: dict[uuid.UUID, dict[str, Any]],
) -> None:
    """Ended alerts first: another of the same rule and subject may have opened since, and only one may be open."""
    rows = [_alert_row(e.alert, world, receipts, resolved_at=e.at, resolved_because=e.reason) for e in ended.values()]
    unchanged = {alert.alert_id: alert for alert in before.open.values()}
    rows += [
        _alert_row(alert, world, receipts)
        for alert in after.open.values()
        if unchanged.get(alert.alert_id) != alert or alert.alert_id in receipts
    ]
    if not rows:
        return
    with conn.cursor() as cursor:
        cursor.executemany(
            """
            INSERT INTO alerts (
                alert_id, page_id, world, rule, subject, side, severity, peak_severity, state, group_id, opened_at,
                raised_at, judged_at, last_seen_at, changed_at, calm_since, calm_severity, component_shares,
                told_severity, told_at, first_told_at, resolved_at, resolved_because, score_version, receipt
            ) VALUES (
                %(alert_id)s, %(page_id)s, %(world)s, %(rule)s, %(subject)s, %(side)s, %(severity)s, %(peak)s,
                %(state)s, %(group_id)s, %(opened_at)s, %(raised_at)s, %(judged_at)s, %(last_seen_at)s, %(changed_at)s,
                %(calm_since)s, %(calm_severity)s, %(shares)s, %(told)s, %(told_at)s, %(first_told_at)s,
                %(resolved_at)s, %(because)s, %(score_version)s, coalesce(%(receipt)s::jsonb, '{}')
            )
            ON CONFLICT (alert_id) DO UPDATE SET
                page_id = excluded.page_id, severity = excluded.severity, peak_severity = excluded.peak_severity,
                state = excluded.state, group_id = excluded.group_id, raised_at = excluded.raised_at,
                judged_at = excluded.judged_at, last_seen_at = excluded.last_seen_at,
                changed_at = excluded.changed_at, calm_since = excluded.calm_since,
                calm_severity = excluded.calm_severity, component_shares = excluded.component_shares,
                told_severity = excluded.told_severity, told_at = excluded.told_at,
                first_told_at = coalesce(alerts.first_told_at, excluded.first_told_at),
                resolved_at = excluded.resolved_at, resolved_because = excluded.resolved_because,
                receipt = coalesce(%(receipt)s::jsonb, alerts.receipt)
            """,
            rows,
        )


def _alert_row(
    alert: Alert,
    world: World,
    receipts: dict[uuid.UUID, dict[str, Any]],
    *,
    resolved_at: datetime | None = None,
    resolved_because: str | None = None,
) -> dict[str, Any]:
    receipt = receipts.get(alert.alert_id)
    return {
        "alert_id": alert.alert_id,
        "page_id": alert.page_id,
        "world": world.name,
        "rule": alert.rule,
        "subject": alert.subject,
        "side": alert.side,
        "severity": LEVEL_NAMES[alert.level],
        "peak": LEVEL_NAMES[alert.peak_level],
        "state": "open" if resolved_at is None else "resolved",
        "group_id": alert.group_id,
        "opened_at": alert.opened_at,
        "raised_at": alert.raised_at,
        "judged_at": alert.judged_at,
        "last_seen_at": alert.last_seen_at,
        "changed_at": alert.changed_at,
        "calm_since": alert.calm_since,
        "calm_severity": None if alert.calm_since is None else LEVEL_NAMES[alert.calm_level],
        "shares": to_jsonb(alert.component_shares),
        "told": None if alert.told_level is None else LEVEL_NAMES[alert.told_level],
        "told_at": alert.told_at,
        "first_told_at": alert.first_told_at,
        "resolved_at": resolved_at,
        "because": resolved_because,
        "score_version": alert.score_version,
        "receipt": None if receipt is None else to_jsonb(receipt),
    }


def _write_pending(conn: psycopg.Connection[Any], world: World, before: Book, after: Book) -> None:
    if before.pending == after.pending:
        return
    gone = [key for key in before.pending if after.pending.get(key) != before.pending[key]]
    new = [(key, since) for key, since in after.pending.items() if before.pending.get(key) != since]
    with conn.cursor() as cursor:
        cursor.executemany(
            "DELETE FROM alert_pending WHERE world = %s AND rule = %s AND subject = %s AND severity = %s",
            [(world.name, rule, subject, LEVEL_NAMES[level]) for rule, subject, level in gone],
        )
        cursor.executemany(
            "INSERT INTO alert_pending (world, rule, subject, severity, since) VALUES (%s, %s, %s, %s, %s)",
            [(world.name, rule, subject, LEVEL_NAMES[level], since) for (rule, subject, level), since in new],
        )


def _write_history(conn: psycopg.Connection[Any], history: list[tuple[Any, ...]]) -> None:
    with conn.cursor() as cursor:
        cursor.executemany(
            """
            INSERT INTO alert_changes (alert_id, time, kind, severity, severity_before, reason, receipt)
            VALUES (%s, %s, %s, %s, %s, %s, %s)
            """,
            history,
        )
