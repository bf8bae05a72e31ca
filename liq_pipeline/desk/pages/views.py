"""One function a page: what it reads, as the names that its template uses.

Belongs here: choosing and ordering what is shown. Does not: SQL, markup.
"""

from __future__ import annotations

import json
import uuid
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Any, Final

from jinja2 import Environment, PackageLoader, StrictUndefined

from liq_pipeline.desk.api.asking import AskError, cursor, cursor_of, step_for
from liq_pipeline.desk.api.openapi import document
from liq_pipeline.desk.pages import drawings, words
from liq_pipeline.desk.read import alerts, flows, health, levels, market, points, quality, series
from liq_pipeline.desk.read.database import Connection
from liq_pipeline.desk.read.market import SymbolNow
from liq_pipeline.desk.read.scope import NoWorldError, Scope, scope

RANGES: Final = {
    "6h": timedelta(hours=6),
    "24h": timedelta(hours=24),
    "7d": timedelta(days=7),
    "30d": timedelta(days=30),
    "90d": timedelta(days=90),
}
FLOW_RANGES: Final = {"1h": timedelta(hours=1), "24h": timedelta(hours=24), "7d": timedelta(days=7)}
PAGE_OF_ALERTS: Final = 50
HEAT_COLUMNS: Final = 72
Context = dict[str, Any]


def environment() -> Environment:
    """The templates, with every number's words; a name that a page does not have is an error."""
    made = Environment(
        loader=PackageLoader("liq_pipeline.desk.pages", "templates"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        auto_reload=False,
    )
    made.filters.update(words.FILTERS)
    made.globals.update(
        spark=drawings.spark,
        meter=drawings.meter,
        bar=drawings.bar,
        heat=drawings.heat,
        waterfall=drawings.waterfall,
        state_of=words.state_of,
        components=words.COMPONENTS,
        rule_words=words.RULE_WORDS,
        unknown=words.UNKNOWN,
        seconds_between=words.seconds_between,
        now=words.now,
        ranges=RANGES,
        flow_ranges=FLOW_RANGES,
    )
    return made


def scope_or_none(conn: Connection) -> Scope | None:
    """The active world, None before there is one."""
    try:
        return scope(conn)
    except NoWorldError:
        return None


def _choice(query: Mapping[str, str], name: str, choices: Mapping[str, Any], default: str) -> str:
    value = query.get(name, default)
    if value not in choices:
        raise AskError(400, "bad_parameter", f"{name} must be one of {', '.join(choices)}")
    return value


def market_page(conn: Connection, of: Scope | None, query: Mapping[str, str]) -> Context:
    """Every symbol, the most urgent first, under the open alerts."""
    rows = [] if of is None else market.symbols_now(conn, of)
    open_alerts = [] if of is None else alerts.book(conn, of.world, state="open", pages_only=True, limit=20)
    storm = {alert.subject for alert in open_alerts if alert.rule == "early_warning"}
    states = {row.symbol: words.state_of(row, row.symbol in storm or "market" in storm) for row in rows}

    def urgency(row: SymbolNow) -> tuple[int, float, str]:
        risk = row.risk if row.risk is not None else row.score_high or 0.0
        return words.URGENCY.index(states[row.symbol][0]), -risk, row.symbol

    rows.sort(key=urgency)
    rank = {"under_way": 0, "severity": 1, "blind": 2, "early_warning": 3}
    level = {"CRITICAL": 0, "WARNING": 1}
    open_alerts.sort(
        key=lambda a: (a.rule != "under_way", level.get(a.severity, 2), rank.get(a.rule, 9), -a.opened_at.timestamp())
    )
    notes: dict[str, list[str]] = {}
    for row in rows:
        if row.note:
            notes.setdefault(row.note, []).append(row.symbol)
    return {
        "title": "Market",
        "rows": rows,
        "states": states,
        "open_alerts": open_alerts,
        "alike": _alike(open_alerts),
        "sparks": {} if of is None else market.sparks(conn, of),
        "notes": notes,
        "pressure": None if of is None else flows.pressure_now(conn, of.world),
        "bases": sorted({(row.model_id, row.base_rate_4h) for row in rows if row.base_rate_4h is not None}),
    }


def _alike(open_alerts: list[alerts.Alert]) -> list[list[alerts.Alert]]:
    """Alerts of one rule, level and side side by side: a storm watch on every symbol is one line."""
    found: dict[tuple[Any, ...], list[alerts.Alert]] = {}
    for alert in open_alerts:
        found.setdefault((alert.rule, alert.severity, alert.side), []).append(alert)
    return list(found.values())


def symbol_page(conn: Connection, of: Scope | None, query: Mapping[str, str], symbol: str) -> Context:
    """One symbol: now, its charts' span, its alerts, and the tables that stand for the charts."""
    chosen = _choice(query, "range", RANGES, "24h")
    if of is None or symbol not in of.symbols:
        raise AskError(404, "unknown_symbol", "this world does not watch that symbol")
    row = next(iter(market.symbols_now(conn, of, symbol)), None)
    last = of.as_of or datetime.now(UTC)
    first = last - RANGES[chosen]
    step = step_for(first, last)
    found = alerts.book(conn, of.world, subject=symbol, first=first, limit=100)
    storm = any(
        alert.rule == "early_warning"
        for alert in alerts.book(conn, of.world, state="open", limit=50)
        if alert.subject in (symbol, "market")
    )
    table_first = max(first, last - timedelta(hours=24))
    hours = {bucket.time: bucket for bucket in series.risk(conn, of.world, symbol, table_first, last, "1h")}
    closes = {candle.time: candle for candle in series.candles(conn, of.world, symbol, table_first, last, "1h")}
    closed = {one.time: one for one in series.liquidations(conn, of.world, symbol, table_first, last, "1h")}
    interest = {one.time: one for one in series.open_interest(conn, of.world, symbol, table_first, last, "1h")}
    ages = [one for one in health.ages(conn, of.world, of.clock or datetime.now(UTC)) if one.symbol == symbol]
    scored = points.scores(conn, of.world, symbol, last - timedelta(days=1), last, 1)
    funding = series.funding(conn, of.world, symbol, last - timedelta(hours=2), last, "5m")
    ratios = series.long_short(conn, of.world, symbol, last - timedelta(hours=2), last, "5m")
    maps = levels.spread(conn, of.world, symbol, first, last, HEAT_COLUMNS)
    chart = {
        "symbol": symbol,
        "from": first.isoformat(),
        "to": last.isoformat(),
        "step": step,
        "alerts": [
            {
                "id": str(alert.alert_id),
                "time": alert.opened_at.timestamp(),
                "rule": words.rule(alert.rule),
                "severity": alert.peak_severity,
                "side": alert.side,
            }
            for alert in reversed(found)
        ],
    }
    return {
        "title": symbol,
        "symbol": symbol,
        "row": row,
        "state": ("unknown", "Not scored yet") if row is None else words.state_of(row, storm),
        "range": chosen,
        "step": step,
        "alerts": found,
        "hours": [
            (time, hours.get(time), closes.get(time), interest.get(time), closed.get(time))
            for time in sorted({*hours, *closes}, reverse=True)
        ],
        "ages": ages,
        "maps": maps,
        "inputs": scored[0].inputs if scored else {},
        "newest_funding": _newest(bucket.by_venue_per_8h for bucket in funding),
        "newest_ratio": _newest(bucket.by_venue_long_share for bucket in ratios),
        "newest_interest": _newest(bucket.by_venue_base for bucket in interest.values()),
        "chart": json.dumps(chart),
    }


def _newest(told: Any) -> dict[str, float]:
    """The last value that each venue told."""
    newest: dict[str, float] = {}
    for by_venue in told:
        newest.update(by_venue)
    return newest


def flows_page(conn: Connection, of: Scope | None, query: Mapping[str, str]) -> Context:
    """Stablecoins in and out."""
    chosen = _choice(query, "range", FLOW_RANGES, "1h")
    last = (of.as_of if of else None) or datetime.now(UTC)
    first = last - FLOW_RANGES[chosen]
    sums = [] if of is None else flows.sums(conn, of.world, first, last)
    back = max(FLOW_RANGES[chosen], timedelta(hours=24))
    chart = {"from": (last - back).isoformat(), "to": last.isoformat(), "step": step_for(last - back, last)}
    return {
        "title": "Flows",
        "range": chosen,
        "first": first,
        "last": last,
        "sums": sums,
        "totals": {
            "in": sum(one.inflow_usd for one in sums),
            "out": sum(one.outflow_usd for one in sums),
        },
        "pressure": None if of is None else flows.pressure_now(conn, of.world),
        "transfers": [] if of is None else flows.largest(conn, of.world, first, last, 25),
        "chart": json.dumps(chart),
    }


def alerts_page(conn: Connection, of: Scope | None, query: Mapping[str, str]) -> Context:
    """The book: what is open, then history page by page."""
    text = query.get("cursor", "")
    before = None
    if text:
        from liq_pipeline.desk.api.asking import CURSOR

        before = cursor_of(CURSOR.read(text), datetime, uuid.UUID)
    rule = query.get("rule") or None
    if rule is not None and rule not in words.RULES:
        raise AskError(400, "bad_parameter", f"rule must be one of {', '.join(words.RULES)}")
    still_open: list[alerts.Alert] = []
    history: list[alerts.Alert] = []
    if of is not None:
        if before is None:
            still_open = alerts.book(conn, of.world, state="open", rule=rule, pages_only=True, limit=100)
        history = alerts.book(
            conn,
            of.world,
            state="resolved",
            rule=rule,
            before=(before[0], before[1]) if before else None,
            pages_only=True,
            limit=PAGE_OF_ALERTS + 1,
        )
    more = len(history) > PAGE_OF_ALERTS
    history = history[:PAGE_OF_ALERTS]
    return {
        "title": "Alerts",
        "open_alerts": still_open,
        "history": history,
        "rule": rule,
        "rules": words.RULES,
        "first_page": before is None,
        "next_cursor": cursor(history[-1].opened_at, history[-1].alert_id) if more else None,
    }


def alert_page(conn: Connection, of: Scope | None, query: Mapping[str, str], alert_id: uuid.UUID) -> Context:
    """One alert taken apart."""
    found = alerts.one(conn, alert_id)
    if found is None:
        raise AskError(404, "unknown_alert", "there is no alert of that id")
    receipt = found.receipt
    parts = receipt.get("members") or {found.alert.subject: receipt}
    return {
        "title": f"{words.rule(found.alert.rule)}: {found.alert.subject}",
        "alert": found.alert,
        "detail": found,
        "parts": parts,
        "receipt": receipt,
        "acknowledged": query.get("acknowledged") == "1",
    }


def quality_page(conn: Connection, of: Scope | None, query: Mapping[str, str]) -> Context:
    """How good the alarms are: of this world if it was judged, else of the newest report there is."""
    own = [] if of is None else quality.evaluations(conn, of.world, None, 1)
    newest = own or quality.evaluations(conn, None, None, 1)
    detail = quality.one(conn, newest[0].evaluation_id) if newest else None
    desk = (detail.desk if detail else None) or {}
    rules = {
        name: value
        for name, value in desk.items()
        if isinstance(value, dict) and "market_pages" in value and name != "at_the_budget_in_hindsight"
    }
    under_way = desk.get("under_way") or {}
    since = ((of.as_of if of else None) or datetime.now(UTC)) - timedelta(days=90)
    scores: dict[str, dict[str, Any]] = {}
    if detail is not None:
        figures = quality.figures(conn, detail.evaluation.evaluation_id, None, 5000)
        for one in figures:
            if one.horizon_hours == 4 and not one.subject.startswith(("rule: ", "severity: ")):
                scores.setdefault(one.subject, {})[one.metric] = one
    return {
        "title": "How good",
        "evaluation": detail.evaluation if detail else None,
        "is_own": bool(own),
        "desk": desk,
        "rules": rules,
        "under_way": under_way,
        "verdicts": [] if of is None else alerts.verdicts(conn, of.world, since),
        "since": since,
        "scores": dict(sorted(scores.items(), key=lambda item: -_value(item[1].get("roc_auc_within")))),
    }


def _value(figure: quality.Figure | None) -> float:
    return -1.0 if figure is None or figure.value is None else figure.value


def health_page(conn: Connection, of: Scope | None, query: Mapping[str, str], looked: health.Health) -> Context:
    """The parts and what they bring."""
    ages = [] if of is None else health.ages(conn, of.world, of.clock or datetime.now(UTC))
    return {
        "title": "Health",
        "looked": looked,
        "ages": ages,
        "gaps": [] if of is None else health.gaps(conn, of.world, 20),
    }


def api_page(conn: Connection, of: Scope | None, query: Mapping[str, str]) -> Context:
    """The API's description as a page."""
    described = document()
    groups: dict[str, list[tuple[str, str, dict[str, Any]]]] = {}
    for path, methods in described["paths"].items():
        for method, operation in methods.items():
            groups.setdefault(operation["tags"][0], []).append((method.upper(), path, operation))
    return {"title": "API", "groups": groups, "described": described, "schemas": described["components"]["schemas"]}
