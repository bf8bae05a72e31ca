"""What followed each alert: right, late, false, or still open, by the labels.

Belongs here: alerts of the book held against cascades, rows of alert_outcomes, and the pages people had. Does not:
what a cascade is (evaluation/labels/version_1.py), the figures made of verdicts (desk.py).

An alert is judged like a page (desk.py): it claims, from when it was *first* told (or, if nobody was told, from when it
opened) until the horizon after its end, that a cascade of one of its symbols begins. One of the rule `under_way` claims
that a cascade is running (under_way.py).
"""

from __future__ import annotations

import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Literal

import numpy as np
import psycopg

from liq_pipeline.alerting.deciding.policy import LEVEL_OF_NAME
from liq_pipeline.evaluation.labels.version_1 import LABEL_VERSION, CascadeEvent
from liq_pipeline.evaluation.paging import desk
from liq_pipeline.evaluation.paging.under_way import MARKET_SECONDS, UnderWayPage, after_page
from liq_pipeline.evaluation.panels.panel import Panel

Connection = psycopg.Connection[Any]
Verdict = Literal["right", "late", "false", "open"]


@dataclass(frozen=True)
class StoredAlert:
    """An alert of the book with the symbols it speaks for.

    opened: when its condition was met. since: when people first heard of it, or when it opened if nobody was told;
    since_of: the same of each symbol, which a group hears of one by one. is_told: whether people heard of it.
    """

    alert_id: uuid.UUID
    page_id: uuid.UUID
    rule: str
    subject: str
    severity: str
    side: str | None
    opened: datetime
    since: datetime
    ended: datetime | None
    is_told: bool
    since_of: Mapping[str, datetime]

    @property
    def symbols(self) -> list[str]:
        """In order."""
        return sorted(self.since_of)


@dataclass(frozen=True)
class Outcome:
    """lead_minutes: to the onset that made it right. largest_move: of its symbols while it claimed, a fraction.

    Of a cascade under way: delay_minutes from the onset to the first message (negative: before it), and how far the
    price went in the alert's direction and against it within 1 h of it.
    """

    alert: StoredAlert
    verdict: Verdict
    lead_minutes: float | None
    largest_move: float | None
    event: CascadeEvent | None
    delay_minutes: float | None = None
    further_move_1h: float | None = None
    adverse_move_1h: float | None = None


def stored_alerts(conn: Connection, world: str, first: datetime, last: datetime) -> list[StoredAlert]:
    """Every alert of the rules that claim something (not blindness) opened in [first, last], oldest first."""
    # told_at is when people were told *last*; judged from there, a page told 95 min before a cascade and eased an hour
    # later read "late". It stands in only where the first time was never kept.
    since = "coalesce({0}.first_told_at, {0}.told_at, {0}.opened_at)"
    rows = conn.execute(
        f"""
        SELECT a.alert_id, a.page_id, a.rule, a.subject, a.peak_severity, a.side, a.opened_at, {since.format("a")},
               a.resolved_at, a.told_at IS NOT NULL,
               coalesce((SELECT jsonb_object_agg(m.subject, {since.format("m")}) FROM alerts AS m
                         WHERE m.group_id = a.alert_id), jsonb_build_object(a.subject, {since.format("a")}))
        FROM alerts AS a
        WHERE a.world = %s AND a.rule <> 'blind' AND a.opened_at BETWEEN %s AND %s
        ORDER BY a.opened_at, a.rule, a.subject
        """,  # noqa: S608 - own text
        [world, first, last],
    ).fetchall()
    found = []
    for *fields, since_of in rows:
        heard = {symbol: datetime.fromisoformat(moment) for symbol, moment in since_of.items()}
        found.append(StoredAlert(*[*fields, heard]))
    return found


def judge_alerts(alerts: Sequence[StoredAlert], events: Sequence[CascadeEvent], panel: Panel) -> list[Outcome]:
    """One outcome per alert; `open` while a cascade could still make it right."""
    known_to = int(panel.time[-1])
    return [_judge(alert, events, panel, known_to) for alert in alerts]


def store_outcomes(conn: Connection, outcomes: Sequence[Outcome]) -> int:
    """Write or bring up to date the rows of alert_outcomes, in the caller's transaction; how many."""
    with conn.cursor() as cursor:
        cursor.executemany(
            """
            INSERT INTO alert_outcomes (alert_id, label_version, outcome, lead_minutes, largest_move, delay_minutes,
                further_move_1h, adverse_move_1h)
            VALUES (%s, %s, %s, %s, %s, %s, %s, %s)
            ON CONFLICT (alert_id, label_version) DO UPDATE SET outcome = excluded.outcome,
                lead_minutes = excluded.lead_minutes, largest_move = excluded.largest_move,
                delay_minutes = excluded.delay_minutes, further_move_1h = excluded.further_move_1h,
                adverse_move_1h = excluded.adverse_move_1h, judged_at = clock_timestamp()
            """,
            [_row(outcome) for outcome in outcomes],
        )
    return len(outcomes)


def _row(o: Outcome) -> tuple[Any, ...]:
    return (
        o.alert.alert_id, LABEL_VERSION, o.verdict, o.lead_minutes, o.largest_move, o.delay_minutes,
        o.further_move_1h, o.adverse_move_1h,
    )  # fmt: skip


def pages_as_sent(alerts: Sequence[StoredAlert], rule: str, known_to: int) -> list[desk.Page]:
    """The pages of a rule that people were told, for desk figures."""
    told = [alert for alert in alerts if alert.is_told and alert.rule == rule]
    pages: dict[uuid.UUID, desk.Page] = {}
    for alert in told:
        since = _seconds(alert.since) + desk.DELIVERY_SECONDS
        ended = known_to if alert.ended is None else _seconds(alert.ended) + desk.DELIVERY_SECONDS
        symbols = {symbol: _seconds(moment) + desk.DELIVERY_SECONDS for symbol, moment in alert.since_of.items()}
        before = pages.get(alert.page_id)
        if before is not None:
            since, ended = min(since, before.told), max(ended, before.ended)
            earlier = {s: min(at, symbols.get(s, at)) for s, at in before.symbols.items()}
            symbols = {**symbols, **earlier}
        level = LEVEL_OF_NAME[alert.severity]
        pages[alert.page_id] = desk.Page(str(alert.page_id), since, max(ended, since), symbols, level)
    return sorted(pages.values(), key=lambda page: (page.told, page.page_id))


def under_way_pages(alerts: Sequence[StoredAlert], known_to: int) -> list[UnderWayPage]:
    """The alerts of single symbols that said a cascade is under way and that people were told of."""
    return sorted(
        (
            UnderWayPage(
                alert.subject,
                _seconds(alert.opened),
                known_to if alert.ended is None else _seconds(alert.ended),
                _direction(alert),
            )
            for alert in alerts
            if alert.rule == "under_way" and alert.is_told and alert.side is not None and alert.subject != "market"
        ),
        key=lambda page: (page.opened, page.symbol),
    )


def _judge(alert: StoredAlert, events: Sequence[CascadeEvent], panel: Panel, known_to: int) -> Outcome:
    if alert.rule == "under_way":
        return _judge_under_way(alert, events, panel, known_to)
    wait = desk.DELIVERY_SECONDS if alert.is_told else 0
    since = _seconds(alert.since) + wait
    since_of = {symbol: _seconds(moment) + wait for symbol, moment in alert.since_of.items()}
    reach = desk.DESK_HORIZON_HOURS * 3600
    until = (known_to if alert.ended is None else _seconds(alert.ended)) + reach
    own = sorted((e for e in events if e.symbol in since_of), key=lambda e: e.onset)
    ahead = next((e for e in own if since_of[e.symbol] < e.onset <= until), None)
    running = next((e for e in own if e.onset <= since_of[e.symbol] <= e.peak), None)
    move = _largest_move(alert.symbols, panel, since, min(until, known_to))
    if ahead is not None:
        return Outcome(alert, "right", (ahead.onset - since_of[ahead.symbol]) / 60.0, move, ahead)
    if until > known_to:
        return Outcome(alert, "open", None, move, running)
    return Outcome(alert, "late" if running is not None else "false", None, move, running)


def _judge_under_way(alert: StoredAlert, events: Sequence[CascadeEvent], panel: Panel, known_to: int) -> Outcome:
    """Right if one of its symbols had a cascade from 30 min before its start to 30 min after its peak."""
    opened, since = _seconds(alert.opened), _seconds(alert.since) + (desk.DELIVERY_SECONDS if alert.is_told else 0)
    reach = desk.DESK_HORIZON_HOURS * 3600
    move = _largest_move(alert.symbols, panel, since, min(since + reach, known_to))
    own = sorted((e for e in events if e.symbol in alert.since_of), key=lambda e: e.onset)
    event = next((e for e in own if e.start - MARKET_SECONDS <= opened <= e.peak + MARKET_SECONDS), None)
    further = adverse = None
    if alert.subject in panel.symbols and alert.side is not None:
        price = panel["price_usd"][panel.symbols.index(alert.subject)]
        row = int(np.searchsorted(panel.time, since, side="right")) - 1
        after = after_page(price, row, 3600 // panel.step_seconds, _direction(alert)) if row >= 0 else None
        if after is not None:
            further, adverse = after[0], after[1]
    if event is not None:
        return Outcome(alert, "right", None, move, event, (since - event.onset) / 60.0, further, adverse)
    # The label of a row is known once its four hours are.
    verdict: Verdict = "open" if opened + reach > known_to else "false"
    return Outcome(alert, verdict, None, move, None, None, further, adverse)


def _direction(alert: StoredAlert) -> int:
    return -1 if alert.side == "long" else 1


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
