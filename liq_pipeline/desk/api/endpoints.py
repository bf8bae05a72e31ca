"""The table of the API: each address, what it takes, what it answers.

Belongs here: one entry an address and the few lines that join parameters to read functions. Does not: SQL, HTTP.
"""

from __future__ import annotations

import uuid
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, Final

from liq_pipeline.desk.api.answering import Answer, envelope
from liq_pipeline.desk.api.asking import (
    ALERT,
    CURSOR,
    FROM,
    STEP,
    SYMBOL,
    TO,
    WORLD,
    Asked,
    AskError,
    Parameter,
    cursor,
    cursor_of,
    limit,
)
from liq_pipeline.desk.read import alerts, flows, health, levels, market, points, quality, scope, series
from liq_pipeline.desk.read.database import Connection
from liq_pipeline.desk.read.scope import Scope

Reading = Callable[[Connection, Asked, Scope], Answer[Any]]
HOUR: Final = timedelta(hours=1)


@dataclass(frozen=True)
class Endpoint:
    """One address. answers: the type of `data`; needs_world: whether there is an answer before any world is active."""

    path: str
    name: str
    summary: str
    answers: Any
    read: Reading
    parameters: tuple[Parameter, ...] = ()
    group: str = "market"

    @property
    def url(self) -> str:
        """From the root."""
        return "/api/v1" + self.path


def _series(name: str, path: str, summary: str, row: Any, read: Callable[..., list[Any]]) -> Endpoint:
    def answer(conn: Connection, asked: Asked, of: Scope) -> Answer[Any]:
        symbol = asked.known_symbol(of)
        first, last = asked.span(of)
        return envelope(of, read(conn, of.world, symbol, first, last, asked.step(first, last)))

    return Endpoint(
        f"/symbols/{{symbol}}/{path}",
        name,
        summary,
        list[row],
        answer,
        (SYMBOL, FROM, TO, STEP, WORLD),
        "history",
    )


def _worlds(conn: Connection, asked: Asked, of: Scope) -> Answer[Any]:
    return envelope(of, scope.worlds(conn))


def _world(conn: Connection, asked: Asked, of: Scope) -> Answer[Any]:
    return envelope(of, of)


def _symbols(conn: Connection, asked: Asked, of: Scope) -> Answer[Any]:
    return envelope(of, market.symbols_now(conn, of))


def _symbol(conn: Connection, asked: Asked, of: Scope) -> Answer[Any]:
    found = market.symbols_now(conn, of, asked.known_symbol(of))
    if found:
        return envelope(of, found[0])
    raise AskError(404, "no_score", "this symbol has not been scored yet")


def _signals(conn: Connection, asked: Asked, of: Scope) -> Answer[Any]:
    return envelope(of, market.signals_now(conn, of))


def _paged_points(read: Callable[..., list[Any]]) -> Reading:
    def answer(conn: Connection, asked: Asked, of: Scope) -> Answer[Any]:
        symbol = asked.known_symbol(of)
        first, last = asked.span(of)
        after = cursor_of(asked["cursor"], datetime)
        if after is not None:
            last = min(last, after[0] - timedelta(microseconds=1))
        rows = read(conn, of.world, symbol, first, last, asked["limit"] + 1) if first <= last else []
        more = len(rows) > asked["limit"]
        rows = rows[: asked["limit"]]
        return envelope(of, rows, cursor(rows[-1].time) if more else None)

    return answer


def _flow_span(asked: Asked, of: Scope) -> tuple[datetime, datetime]:
    first, last = asked.span(of, HOUR)
    if last - first > timedelta(days=7):
        raise AskError(400, "bad_parameter", "flows are summed over at most 7 days")
    return first, last


def _flows(conn: Connection, asked: Asked, of: Scope) -> Answer[Any]:
    return envelope(of, flows.sums(conn, of.world, *_flow_span(asked, of)))


def _transfers(conn: Connection, asked: Asked, of: Scope) -> Answer[Any]:
    return envelope(of, flows.largest(conn, of.world, *_flow_span(asked, of), asked["limit"]))


def _pressure(conn: Connection, asked: Asked, of: Scope) -> Answer[Any]:
    first, last = asked.span(of)
    return envelope(of, flows.pressure(conn, of.world, first, last, asked.step(first, last)))


def _alerts(conn: Connection, asked: Asked, of: Scope) -> Answer[Any]:
    before = cursor_of(asked["cursor"], datetime, uuid.UUID)
    rows = alerts.book(
        conn,
        of.world,
        state=asked["state"],
        rule=asked["rule"],
        subject=asked["subject"],
        first=asked["from"],
        before=(before[0], before[1]) if before else None,
        limit=asked["limit"] + 1,
    )
    more = len(rows) > asked["limit"]
    rows = rows[: asked["limit"]]
    return envelope(of, rows, cursor(rows[-1].opened_at, rows[-1].alert_id) if more else None)


def _alert(conn: Connection, asked: Asked, of: Scope) -> Answer[Any]:
    found = alerts.one(conn, asked["alert_id"])
    if found is None:
        raise AskError(404, "unknown_alert", "there is no alert of that id; /api/v1/alerts lists them")
    # An alert may be of a world that is not shown any more: the envelope speaks of its own.
    return envelope(of if of.world == found.alert.world else scope.scope(conn, found.alert.world), found)


def _verdicts(conn: Connection, asked: Asked, of: Scope) -> Answer[Any]:
    first = asked["from"] or (of.as_of or datetime.now(UTC)) - timedelta(days=90)
    return envelope(of, alerts.verdicts(conn, of.world, first))


def _evaluations(conn: Connection, asked: Asked, of: Scope) -> Answer[Any]:
    before = cursor_of(asked["cursor"], datetime, uuid.UUID)
    rows = quality.evaluations(conn, asked["world"], (before[0], before[1]) if before else None, asked["limit"] + 1)
    more = len(rows) > asked["limit"]
    rows = rows[: asked["limit"]]
    return envelope(of, rows, cursor(rows[-1].created_at, rows[-1].evaluation_id) if more else None)


def _evaluation(conn: Connection, asked: Asked, of: Scope) -> Answer[Any]:
    found = quality.one(conn, asked["evaluation_id"])
    if found is None:
        raise AskError(404, "unknown_evaluation", "there is no report of that id; /api/v1/evaluations lists them")
    return envelope(of, found)


def _figures(conn: Connection, asked: Asked, of: Scope) -> Answer[Any]:
    after = cursor_of(asked["cursor"], str, int, str)
    rows = quality.figures(
        conn, asked["evaluation_id"], (after[0], after[1], after[2]) if after else None, asked["limit"] + 1
    )
    more = len(rows) > asked["limit"]
    rows = rows[: asked["limit"]]
    return envelope(of, rows, cursor(rows[-1].subject, rows[-1].horizon_hours, rows[-1].metric) if more else None)


def _gaps(conn: Connection, asked: Asked, of: Scope) -> Answer[Any]:
    return envelope(of, health.gaps(conn, of.world, asked["limit"]))


def _ages(conn: Connection, asked: Asked, of: Scope) -> Answer[Any]:
    return envelope(of, health.ages(conn, of.world, of.clock or datetime.now(UTC)))


_EVALUATION: Final = Parameter("evaluation_id", "the report's id", "uuid", "path")

ENDPOINTS: Final = (
    Endpoint(
        "/world", "world", "The world in force: mode, clock, newest point, symbols, venues", Scope, _world, (WORLD,)
    ),
    Endpoint("/worlds", "worlds", "Every world in the store", list[scope.WorldEntry], _worlds),
    Endpoint(
        "/symbols",
        "symbols",
        "Every symbol now: risk, probability, price, open alerts",
        list[market.SymbolNow],
        _symbols,
        (WORLD,),
    ),
    Endpoint("/symbols/{symbol}", "symbol", "One symbol now", market.SymbolNow, _symbol, (SYMBOL, WORLD)),
    Endpoint("/signals", "signals", "Every symbol's newest signal", list[market.Signal], _signals, (WORLD,)),
    Endpoint(
        "/symbols/{symbol}/signals",
        "signal_history",
        "Signals of one symbol point by point, newest first",
        list[market.Signal],
        _paged_points(points.signals),
        (SYMBOL, FROM, TO, limit(100, 1000), CURSOR, WORLD),
        "history",
    ),
    Endpoint(
        "/symbols/{symbol}/scores",
        "scores",
        "Scores of one symbol with the inputs that made them, newest first",
        list[points.ScoreDetail],
        _paged_points(points.scores),
        (SYMBOL, FROM, TO, limit(20, 200), CURSOR, WORLD),
        "history",
    ),
    _series("risk", "risk", "Risk and probability in buckets", series.RiskBucket, series.risk),
    _series("prices", "prices", "Prices in buckets (candles)", series.Candle, series.candles),
    _series(
        "open_interest",
        "open-interest",
        "Open interest in coins in buckets, by venue",
        series.OpenInterestBucket,
        series.open_interest,
    ),
    _series(
        "funding", "funding", "Predicted funding per 8 h in buckets, by venue", series.FundingBucket, series.funding
    ),
    _series(
        "long_short", "long-short", "Long share of accounts in buckets, by venue", series.RatioBucket, series.long_short
    ),
    _series(
        "liquidations",
        "liquidations",
        "Forced closures in buckets, by side",
        series.LiquidationBucket,
        series.liquidations,
    ),
    Endpoint(
        "/symbols/{symbol}/levels",
        "levels",
        "The liquidation map, an estimate: notional by price around one symbol, newest first",
        list[levels.LevelMap],
        _paged_points(levels.maps),
        (SYMBOL, FROM, TO, limit(1, 200), CURSOR, WORLD),
        "history",
    ),
    Endpoint(
        "/flows",
        "flows",
        "Stablecoins in and out of exchanges, by exchange, chain and token; the last hour by default",
        list[flows.FlowSum],
        _flows,
        (FROM, TO, WORLD),
        "flows",
    ),
    Endpoint(
        "/flows/transfers",
        "transfers",
        "The largest transfers; of the last hour by default",
        list[flows.Transfer],
        _transfers,
        (FROM, TO, limit(50, 500), WORLD),
        "flows",
    ),
    Endpoint(
        "/flows/pressure",
        "pressure",
        "Stablecoin pressure in buckets",
        list[flows.PressureBucket],
        _pressure,
        (FROM, TO, STEP, WORLD),
        "flows",
    ),
    Endpoint(
        "/alerts",
        "alerts",
        "The alert book, newest first",
        list[alerts.Alert],
        _alerts,
        (
            Parameter("state", "which", "choice", choices=("open", "resolved", "all"), default="all"),
            Parameter("rule", "only of this rule, such as severity"),
            Parameter("subject", "only of this symbol or group"),
            Parameter("from", "only those opened from then on", "time"),
            limit(50, 500),
            CURSOR,
            WORLD,
        ),
        "alerts",
    ),
    Endpoint(
        "/alerts/{alert_id}", "alert", "One alert with its receipt", alerts.AlertDetail, _alert, (ALERT,), "alerts"
    ),
    Endpoint(
        "/verdicts",
        "verdicts",
        "How the alerts came out, by rule; of 90 days by default",
        list[alerts.Verdicts],
        _verdicts,
        (FROM, WORLD),
        "quality",
    ),
    Endpoint(
        "/evaluations",
        "evaluations",
        "Reports of how good scores and alarms were, newest first; of every world unless one is named",
        list[quality.Evaluation],
        _evaluations,
        (limit(20, 200), CURSOR, WORLD),
        "quality",
    ),
    Endpoint(
        "/evaluations/{evaluation_id}",
        "evaluation",
        "One report with its desk figures",
        quality.EvaluationDetail,
        _evaluation,
        (_EVALUATION,),
        "quality",
    ),
    Endpoint(
        "/evaluations/{evaluation_id}/figures",
        "figures",
        "Every figure of one report",
        list[quality.Figure],
        _figures,
        (_EVALUATION, limit(200, 1000), CURSOR),
        "quality",
    ),
    Endpoint(
        "/health/ages",
        "ages",
        "How old the newest values of each symbol and venue are",
        list[health.DataAge],
        _ages,
        (WORLD,),
        "health",
    ),
    Endpoint(
        "/health/gaps",
        "gaps",
        "Holes in the data, open ones first",
        list[health.GapRow],
        _gaps,
        (limit(50, 500), WORLD),
        "health",
    ),
)
"""Every address that is answered from the database alone. /health, /stream and the acknowledgement stand in app.py."""


def answer(endpoint: Endpoint, conn: Connection, asked: Asked) -> Answer[Any]:
    """The answer to one question: the world first, then what is asked of it."""
    values = asked["world"] if any(p is WORLD for p in endpoint.parameters) else None
    # A report is listed for the worlds it is of, which need not be in the store any more.
    of = scope.scope(conn, None if endpoint.name == "evaluations" else values)
    return endpoint.read(conn, asked, of)
