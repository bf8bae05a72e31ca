"""What followed each alert: right, late, false, or still open, by the labels.

Belongs here: alerts of the book held against cascades, rows of alert_outcomes, and the pages people had. Does not:
what a cascade is (evaluation/labels/version_1.py), the figures made of verdicts (desk.py).

An alert is judged like a page (desk.py): it claims, from when it was told (or, if nobody was told, from when it opened)
until the horizon after its end, that a cascade of one of its symbols begins.
"""

from __future__ import annotations

import uuid
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Literal

import numpy as np
import psycopg

from liq_pipeline.alerting.deciding.policy import LEVEL_OF_NAME
from liq_pipeline.evaluation.labels.version_1 import LABEL_VERSION, CascadeEvent
from liq_pipeline.evaluation.paging import desk
from liq_pipeline.evaluation.panels.panel import Panel

Connection = psycopg.Connection[Any]
Verdict = Literal["right", "late", "false", "open"]


@dataclass(frozen=True)
class StoredAlert:
    """An alert of the book with the symbols it speaks for. is_told: whether people heard of it."""

    alert_id: uuid.UUID
    page_id: uuid.UUID
    rule: str
    subject: str
    severity: str
    since: datetime
    ended: datetime | None
    is_told: bool
    symbols: Sequence[str]


@dataclass(frozen=True)
class Outcome:
    """lead_minutes: to the onset that made it right. largest_move: of its symbols while it claimed, a fraction."""

    alert: StoredAlert
    verdict: Verdict
    lead_minutes: float | None
    largest_move: float | None
    event: CascadeEvent | None


def stored_alerts(conn: Connection, world: str, first: datetime, last: datetime) -> list[StoredAlert]:
    """Every alert of the rules that claim something (not blindness) opened in [first, last], oldest first."""
    rows = conn.execute(
        """
        SELECT a.alert_id, a.page_id, a.rule, a.subject, a.peak_severity, coalesce(a.told_at, a.opened_at),
               a.resolved_at, a.told_at IS NOT NULL,
               coalesce((SELECT array_agg(m.subject ORDER BY m.subject) FROM alerts AS m WHERE m.group_id = a.alert_id),
                        ARRAY[a.subject])
        FROM alerts AS a
        WHERE a.world = %s AND a.rule <> 'blind' AND a.opened_at BETWEEN %s AND %s
        ORDER BY a.opened_at, a.rule, a.subject
        """,
        [world, first, last],
    ).fetchall()
    return [StoredAlert(*row) for row in rows]


def judge_alerts(alerts: Sequence[StoredAlert], events: Sequence[CascadeEvent], panel: Panel) -> list[Outcome]:
    """One outcome per alert; `open` while a cascade could still make it right."""
    known_to = int(panel.time[-1])
    return [_judge(alert, events, panel, known_to) for alert in alerts]


def store_outcomes(conn: Connection, outcomes: Sequence[Outcome]) -> int:
    """Write or bring up to date the rows of alert_outcomes, in the caller's transaction; how many."""
    with conn.cursor() as cursor:
        cursor.executemany(
            """
            INSERT INTO alert_outcomes (alert_id, label_version, outcome, lead_minutes, largest_move)
            VALUES (%s, %s, %s, %s, %s)
            ON CONFLICT (alert_id, label_version) DO UPDATE SET outcome = excluded.outcome,
                lead_minutes = excluded.lead_minutes, largest_move = excluded.largest_move,
                judged_at = clock_timestamp()
            """,
            [(o.alert.alert_id, LABEL_VERSION, o.verdict, o.lead_minutes, o.largest_move) for o in outcomes],
        )
    return len(outcomes)


def pages_as_sent(alerts: Sequence[StoredAlert], rule: str, known_to: int) -> list[desk.Page]:
    """The pages of a rule that people were told, for desk figures."""
    told = [alert for alert in alerts if alert.is_told and alert.rule == rule]
    pages: dict[uuid.UUID, desk.Page] = {}
    for alert in told:
        since = _seconds(alert.since) + desk.DELIVERY_SECONDS
        ended = known_to if alert.ended is None else _seconds(alert.ended) + desk.DELIVERY_SECONDS
        symbols = dict.fromkeys(alert.symbols, since)
        before = pages.get(alert.page_id)
        if before is not None:
            since, ended = min(since, before.told), max(ended, before.ended)
            symbols = {**symbols, **before.symbols}
        level = LEVEL_OF_NAME[alert.severity]
        pages[alert.page_id] = desk.Page(str(alert.page_id), since, max(ended, since), symbols, level)
    return sorted(pages.values(), key=lambda page: (page.told, page.page_id))


def _judge(alert: StoredAlert, events: Sequence[CascadeEvent], panel: Panel, known_to: int) -> Outcome:
    since = _seconds(alert.since) + (desk.DELIVERY_SECONDS if alert.is_told else 0)
    reach = desk.DESK_HORIZON_HOURS * 3600
    until = (known_to if alert.ended is None else _seconds(alert.ended)) + reach
    own = sorted((e for e in events if e.symbol in alert.symbols), key=lambda e: e.onset)
    ahead = next((e for e in own if since < e.onset <= until), None)
    running = next((e for e in own if e.onset <= since <= e.peak), None)
    move = _largest_move(alert.symbols, panel, since, min(until, known_to))
    if ahead is not None:
        return Outcome(alert, "right", (ahead.onset - since) / 60.0, move, ahead)
    if until > known_to:
        return Outcome(alert, "open", None, move, running)
    return Outcome(alert, "late" if running is not None else "false", None, move, running)


def _largest_move(symbols: Sequence[str], panel: Panel, since: int, until: int) -> float | None:
    """The largest change of a price of the symbols from `since` to any time up to `until`, with its sign."""
    found: dict[str, float] = {}
    first = int(np.searchsorted(panel.time, since, side="right")) - 1
    stop = int(np.searchsorted(panel.time, until, side="right"))
    for symbol in symbols:
        if symbol not in panel.symbols or first < 0 or stop <= first + 1:
            continue
        price = panel["price_usd"][panel.symbols.index(symbol), first:stop]
        if not np.isfinite(price[0]) or not np.isfinite(price[1:]).any():
            continue
        change = price[1:] / price[0] - 1.0
        found[symbol] = float(change[np.nanargmax(np.abs(change))])
    return max(found.values(), key=abs, default=None)


def _seconds(time: datetime) -> int:
    return int(time.astimezone(UTC).timestamp())
