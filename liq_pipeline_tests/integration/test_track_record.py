"""The track record: outcomes judged from stored alerts are those of the messages that people really had.

Days of escalations, easings, side changes, groups and cascades under way go through the book on a real PostgreSQL; the
messages are heard apart, and judged apart. Alert by alert both must agree: what is stored must not have forgotten when
people first heard of it.
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from datetime import datetime, timedelta
from typing import Any

import numpy as np
import psycopg
import pytest

from liq_pipeline.alerting.book import advance
from liq_pipeline.alerting.deciding.state import Change, Message
from liq_pipeline.evaluation.labels.version_1 import CascadeEvent
from liq_pipeline.evaluation.paging import desk
from liq_pipeline.evaluation.paging.outcomes import judge_alerts, store_outcomes, stored_alerts, under_way_pages
from liq_pipeline.evaluation.paging.under_way import MARKET_SECONDS
from liq_pipeline.evaluation.panels.panel import Panel
from liq_pipeline.scoring.results import PointResult
from liq_pipeline.settings import Settings
from liq_pipeline.store.connection import connect
from liq_pipeline_tests.alert_support import CALM, START, UNSETTLED, VERSION, Reading, point, running, world

SYMBOLS = ("BTC", "ETH", "SOL")
MINUTES = 4 * 24 * 60
STEP = 5
RULES = Settings(alert_policy="severity,under_way", alert_min_severity="WARNING")


@pytest.fixture
def conn(database_url: str) -> Iterator[psycopg.Connection[Any]]:
    with connect(database_url, application_name="test") as connection:
        yield connection


def days(seed: int) -> list[PointResult]:
    """Four days of points every 5 min: risks that climb, ease, change sides, and cascades that start and calm down."""
    chance = random.Random(seed)
    level = dict.fromkeys(SYMBOLS, 20.0)
    side = dict.fromkeys(SYMBOLS, "long")
    runs = dict.fromkeys(SYMBOLS, 0)
    found = []
    for minute in range(0, MINUTES, STEP):
        readings = {}
        for symbol in SYMBOLS:
            if chance.random() < 0.02:
                level[symbol] = chance.choice([10.0, 40.0, 55.0, 65.0, 80.0])
            if chance.random() < 0.005:
                side[symbol] = "short" if side[symbol] == "long" else "long"
            if runs[symbol] == 0 and chance.random() < 0.01:
                runs[symbol] = chance.randrange(6, 30)
            runs[symbol] = max(runs[symbol] - 1, 0)
            under_way = running(side[symbol]) if runs[symbol] > 4 else UNSETTLED if runs[symbol] else CALM
            readings[symbol] = Reading(
                level[symbol], side=side[symbol], other_side=level[symbol] / 2, under_way=under_way
            )
        found.append(point(minute, readings, pressure=chance.choice([-40.0, -40.0, -10.0])))
    return found


def cascades(seed: int) -> list[CascadeEvent]:
    chance = random.Random(seed + 1)
    begin = int(START.timestamp())
    found = []
    for _ in range(14):
        start = begin + chance.randrange(0, MINUTES - 300) * 60 // 300 * 300
        onset = start + chance.randrange(1, 12) * 300
        peak = onset + chance.randrange(1, 20) * 300
        found.append(
            CascadeEvent(chance.choice(SYMBOLS), 4, start, onset, peak, start + 600, -1, -0.06, -0.05, 0.03, False)
        )
    return sorted(found, key=lambda event: event.onset)


def prices() -> Panel:
    time = np.arange(int(START.timestamp()) - 3600, int(START.timestamp()) + (MINUTES + 300) * 60, 300, dtype=np.int64)
    walk = np.random.default_rng(9).normal(0.0, 1e-3, (len(SYMBOLS), time.size)).cumsum(axis=1)
    return Panel(SYMBOLS, time, 300, {"price_usd": 100.0 * np.exp(walk)})


class Heard:
    """What people had, from the messages alone: when each symbol was first spoken of, and when an alert ended."""

    def __init__(self) -> None:
        self.first: dict[Any, dict[str, datetime]] = {}
        self.opened: dict[Any, Change] = {}
        self.ended: dict[Any, datetime] = {}

    def hear(self, changes: Sequence[Change], messages: Sequence[Message]) -> None:
        for change in changes:
            if change.kind == "opened":
                self.opened[change.alert.alert_id] = change
            elif change.kind == "resolved":
                self.ended[change.alert.alert_id] = change.time
        for message in (m for told in messages for m in (told, *told.together)):
            if message.kind == "resolved":
                continue
            for alert in (message.alert, *message.members):
                of = self.first.setdefault(alert.alert_id, {})
                for member in message.members if alert.is_group else (alert,):
                    of.setdefault(member.subject, message.time)


def judged_apart(heard: Heard, events: Sequence[CascadeEvent], known_to: int) -> dict[Any, tuple[str, float | None]]:
    """The definitions of the desk figures, written a second time and from messages only."""
    found = {}
    for identity, change in heard.opened.items():
        alert = change.alert
        if alert.rule == "blind" or identity not in heard.first:
            continue
        told = {s: int(t.timestamp()) + desk.DELIVERY_SECONDS for s, t in heard.first[identity].items()}
        opened = int(alert.opened_at.timestamp())
        of = [event for event in events if event.symbol in told]
        if alert.rule == "under_way":
            near = [e for e in of if e.start - MARKET_SECONDS <= opened <= e.peak + MARKET_SECONDS]
            verdict = "right" if near else "open" if opened + 4 * 3600 > known_to else "false"
            found[identity] = (verdict, (min(told.values()) - near[0].onset) / 60.0 if near else None)
            continue
        ended = heard.ended.get(identity)
        until = (known_to if ended is None else int(ended.timestamp())) + 4 * 3600
        ahead = [event for event in of if told[event.symbol] < event.onset <= until]
        if ahead:
            found[identity] = ("right", (ahead[0].onset - told[ahead[0].symbol]) / 60.0)
        elif until > known_to:
            found[identity] = ("open", None)
        else:
            late = any(event.onset <= told[event.symbol] <= event.peak for event in of)
            found[identity] = ("late" if late else "false", None)
    return found


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_stored_outcomes_equal_those_of_the_messages_people_had(conn: psycopg.Connection[Any], seed: int) -> None:
    here, heard = world(step_seconds=STEP * 60, symbols=SYMBOLS), Heard()
    points = days(seed)
    for first in range(0, len(points), 50):
        done = advance(conn, here, points[first : first + 50], RULES, VERSION)
        heard.hear(done.changes, done.messages)
    events, panel = cascades(seed), prices()
    alerts = stored_alerts(conn, here.name, START, points[-1].time)
    outcomes = judge_alerts(alerts, events, panel)
    apart = judged_apart(heard, events, int(panel.time[-1]))
    told = {o.alert.alert_id: o for o in outcomes if o.alert.is_told}
    assert set(told) == set(apart)
    assert len(told) > 20
    assert {o.alert.rule for o in told.values()} == {"severity", "under_way"}
    assert any(o.alert.subject == "market" for o in told.values())
    for identity, outcome in told.items():
        verdict, minutes = apart[identity]
        assert outcome.verdict == verdict, outcome
        assert (outcome.delay_minutes if outcome.alert.rule == "under_way" else outcome.lead_minutes) == minutes
    assert store_outcomes(conn, outcomes) == len(outcomes)


def test_later_messages_do_not_move_the_first(conn: psycopg.Connection[Any]) -> None:
    """The fault that was: a page told 95 min before a cascade and eased an hour later was read as late."""
    here = world(step_seconds=60, symbols=("BTC",))
    rules = Settings(alert_policy="severity", alert_reminder_minutes=20)
    advance(conn, here, [point(i, {"BTC": 80.0}, -40.0) for i in range(100)], rules, VERSION)
    onset = int((START + timedelta(minutes=95)).timestamp())
    event = CascadeEvent("BTC", 4, onset - 600, onset, onset + 3600, onset, -1, -0.15, -0.1, 0.03, True)
    [alert] = stored_alerts(conn, here.name, START, START + timedelta(days=1))
    [outcome] = judge_alerts([alert], [event], prices())
    told_at = conn.execute("SELECT told_at - first_told_at FROM alerts").fetchone()
    assert told_at == (timedelta(minutes=80),), "reminders moved told_at and nothing else"
    assert (outcome.verdict, outcome.lead_minutes) == ("right", 94.0)


def test_pages_of_a_cascade_are_the_symbols_own(conn: psycopg.Connection[Any]) -> None:
    here = world(step_seconds=60, symbols=SYMBOLS)
    both = [point(i, {s: Reading(0.0, under_way=running("short")) for s in ("BTC", "ETH")}) for i in range(3)]
    advance(conn, here, both, RULES, VERSION)
    alerts = stored_alerts(conn, here.name, START, START + timedelta(days=1))
    pages = under_way_pages(alerts, int(both[-1].time.timestamp()))
    assert [(page.symbol, page.direction) for page in pages] == [("BTC", 1), ("ETH", 1)]
