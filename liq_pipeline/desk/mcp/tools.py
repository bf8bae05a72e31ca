"""The table of tools: what each is asked, and what it answers.

Belongs here: one entry a tool and the few lines that join parameters to read functions, each answer bounded. Does not:
SQL (desk/read/), the protocol (server.py).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, Final

import msgspec

from liq_pipeline.desk.api.asking import FROM, STEP, TO, WORLD, Asked, AskError, Parameter, limit
from liq_pipeline.desk.mcp.about import MOST_BYTES, Told, tell
from liq_pipeline.desk.read import alerts, health, levels, market, points, quality, scope, series
from liq_pipeline.desk.read.alerts import Alert, Verdicts
from liq_pipeline.desk.read.database import Connection
from liq_pipeline.desk.read.health import DataAge, GapRow
from liq_pipeline.desk.read.levels import LevelMap
from liq_pipeline.desk.read.market import Signal, SymbolNow
from liq_pipeline.desk.read.quality import Evaluation
from liq_pipeline.desk.read.scope import Scope
from liq_pipeline.desk.read.units import Open

MOST_LISTED: Final = 20
"""Rows of a list inside an answer."""
MOST_POINTS: Final = 200
_SYMBOL: Final = Parameter("symbol", "the coin, such as BTC")
_SHARED: Final = (WORLD,)


class _Read(msgspec.Struct, frozen=True):
    """What a tool read: its data, the symbol it is about, and how many rows it left out."""

    data: Any
    symbol: str | None = None
    left_out: int = 0


@dataclass(frozen=True)
class Tool:
    """One tool. answers: the type of `data`; tables: what it reads; required: parameters without a default."""

    name: str
    title: str
    description: str
    answers: Any
    tables: tuple[str, ...]
    read: Callable[[Connection, Asked, Scope, list[Signal]], _Read]
    parameters: tuple[Parameter, ...] = ()
    required: tuple[str, ...] = ()


# -- answers ---------------------------------------------------------------------------------------------------------


class RiskNow(msgspec.Struct, frozen=True, kw_only=True):
    """Symbols now, the most urgent first. inputs: what made the score, where one symbol was asked for."""

    symbols: list[SymbolNow]
    inputs: Open | None
    """by component: values, their ages in seconds, venues"""


class WhyAlert(msgspec.Struct, frozen=True, kw_only=True):
    """One alert with its receipt: the numbers behind it when it last rose, and what became of it."""

    alert: Alert
    receipt: Open
    changes: list[Open]
    """oldest first"""
    members: list[Open]
    """symbols that it speaks for"""
    told: list[Open]
    """what went to people, and whether it arrived"""


class History(msgspec.Struct, frozen=True, kw_only=True):
    """One symbol's history in equal steps, oldest first. An absent bucket: nothing is known of it."""

    symbol: str
    what: str
    step: str
    buckets: list[Open]


class Levels(msgspec.Struct, frozen=True, kw_only=True):
    """The newest liquidation map of one symbol: an estimate, not a fact."""

    symbol: str
    map: LevelMap | None
    """null: there is none yet"""


class HowGood(msgspec.Struct, frozen=True, kw_only=True):
    """What the alarms were worth, misses included. null: not judged yet, which is not good."""

    verdicts: list[Verdicts]
    """how this world's own alerts came out, of the last 90 days"""
    evaluation: Evaluation | None
    """the newest stored report; its world may be another one"""
    is_of_this_world: bool | None
    under_way: Open | None
    """the rule that says a cascade has begun, and the plain rule on the same rows: detected, missed, false per week"""
    ahead: Open | None
    """each rule: share of events paged 30 min before the onset beside chance, false pages a week, lead times"""


class DataHealth(msgspec.Struct, frozen=True, kw_only=True):
    """How old the newest values are, by symbol and venue, and which holes are open."""

    ages: list[DataAge]
    gaps: list[GapRow]


# -- reading ---------------------------------------------------------------------------------------------------------

_URGENCY: Final = {"CRITICAL": 4, "WARNING": 3, "INFO": 2, "UNKNOWN": 1, "NONE": 0}


def _urgency(row: SymbolNow) -> tuple[bool, int, float]:
    is_open = bool(row.under_way and row.under_way.get("is_open"))
    return is_open, _URGENCY[row.severity], -1.0 if row.risk is None else row.risk


def _risk_now(conn: Connection, asked: Asked, of: Scope, signals: list[Signal]) -> _Read:
    if asked["symbol"] is None:
        rows = market.symbols_now(conn, of)
        rows.sort(key=_urgency, reverse=True)
        most = asked["limit"]
        return _Read(RiskNow(symbols=rows[:most], inputs=None), left_out=max(0, len(rows) - most))
    symbol = asked.known_symbol(of)
    found = market.symbols_now(conn, of, symbol)
    if not found:
        raise AskError(404, "no_score", "this symbol has not been scored yet")
    scored = points.scores(conn, of.world, symbol, found[0].time, found[0].time, 1)
    return _Read(RiskNow(symbols=found, inputs=scored[0].inputs if scored else None), symbol)


def _why_alert(conn: Connection, asked: Asked, of: Scope, signals: list[Signal]) -> _Read:
    identity = asked["alert_id"]
    if identity is None:
        subject = asked["symbol"]
        subject = None if subject is None else subject.upper() if subject.upper() in of.symbols else subject
        for state in ("open", "all"):
            newest = alerts.book(conn, of.world, state=state, subject=subject, limit=1)
            if newest:
                identity = newest[0].alert_id
                break
        else:
            raise AskError(404, "no_alert", "there is no such alert in this world")
    found = alerts.one(conn, identity)
    if found is None:
        raise AskError(404, "unknown_alert", "there is no alert of that id; list_alerts lists them")
    if found.alert.world != of.world:
        raise AskError(404, "other_world", f"that alert is of world {found.alert.world}: ask with that `world`")
    changes = [{name: value for name, value in one.items() if name != "receipt"} for one in found.changes]
    told = [*found.messages, *found.deliveries]
    lists = (changes, found.members, told)
    return _Read(
        WhyAlert(
            alert=found.alert,
            receipt=found.receipt,
            changes=changes[-MOST_LISTED:],
            members=found.members[:MOST_LISTED],
            told=told[:MOST_LISTED],
        ),
        found.alert.subject if found.alert.subject in of.symbols else None,
        sum(max(0, len(one) - MOST_LISTED) for one in lists),
    )


def _list_alerts(conn: Connection, asked: Asked, of: Scope, signals: list[Signal]) -> _Read:
    subject = asked["symbol"]
    most = asked["limit"]
    rows = alerts.book(
        conn,
        of.world,
        state=asked["state"],
        subject=None if subject is None else subject.upper() if subject.upper() in of.symbols else subject,
        first=asked["from"],
        limit=most + 1,
    )
    return _Read(rows[:most], subject if subject in of.symbols else None, max(0, len(rows) - most))


_HISTORIES: Final[dict[str, Callable[..., list[Any]]]] = {
    "risk": series.risk,
    "prices": series.candles,
    "open_interest": series.open_interest,
    "funding": series.funding,
    "long_short": series.long_short,
    "liquidations": series.liquidations,
}


def _history(conn: Connection, asked: Asked, of: Scope, signals: list[Signal]) -> _Read:
    symbol = asked.known_symbol(of)
    first, last = asked.span(of)
    step = asked.step(first, last) if asked["step"] else _coarse(last - first)
    rows = _HISTORIES[asked["what"]](conn, of.world, symbol, first, last, step)
    most = asked["limit"]
    buckets = msgspec.to_builtins(rows[-most:])
    return _Read(
        History(symbol=symbol, what=asked["what"], step=step, buckets=buckets), symbol, max(0, len(rows) - most)
    )


def _coarse(span: timedelta) -> str:
    """The finest step that keeps the span within MOST_POINTS, hours beyond that."""
    return "1m" if span <= timedelta(hours=3) else "5m" if span <= timedelta(hours=16) else "1h"


def _levels(conn: Connection, asked: Asked, of: Scope, signals: list[Signal]) -> _Read:
    symbol = asked.known_symbol(of)
    last = asked["to"] or of.as_of or datetime.now(UTC)
    found = levels.maps(conn, of.world, symbol, last - timedelta(days=1), last, 1)
    return _Read(Levels(symbol=symbol, map=found[0] if found else None), symbol)


def _how_good(conn: Connection, asked: Asked, of: Scope, signals: list[Signal]) -> _Read:
    since = (of.as_of or datetime.now(UTC)) - timedelta(days=90)
    own = quality.evaluations(conn, of.world, None, 1)
    newest = own or quality.evaluations(conn, None, None, 1)
    detail = quality.one(conn, newest[0].evaluation_id) if newest else None
    desk = (detail.desk if detail else None) or {}
    ahead = {
        name: value
        for name, value in desk.items()
        if isinstance(value, dict) and "market_pages" in value and name != "at_the_budget_in_hindsight"
    }
    return _Read(
        HowGood(
            verdicts=alerts.verdicts(conn, of.world, since),
            evaluation=detail.evaluation if detail else None,
            is_of_this_world=bool(own) if detail else None,
            under_way=desk.get("under_way"),
            ahead=ahead or None,
        )
    )


def _data_health(conn: Connection, asked: Asked, of: Scope, signals: list[Signal]) -> _Read:
    symbol = asked.known_symbol(of) if asked["symbol"] is not None else None
    rows = health.ages(conn, of.world, of.clock or datetime.now(UTC), symbol=symbol)
    most = asked["limit"]
    gaps = health.gaps(conn, of.world, MOST_LISTED)
    return _Read(DataHealth(ages=rows[:most], gaps=gaps), symbol, max(0, len(rows) - most))


_SCORES: Final = ("signals_current", "liquidation_risk_current", "prices", "alerts")
TOOLS: Final = (
    Tool(
        "risk_now",
        "Liquidation risk now",
        "The liquidation risk (0 to 100) of every watched coin, the most urgent first, or of one coin with the inputs"
        " that made it: four parts with their points, range up to score_high where something is unknown, side at risk,"
        " severity, chance of a cascade beside its base rate, whether one is under way, price and open alerts.",
        RiskNow,
        _SCORES,
        _risk_now,
        (_SYMBOL, limit(10, 25), *_SHARED),
    ),
    Tool(
        "why_alert",
        "Why an alert was raised",
        "One alert taken apart: its receipt (points, values, ages and venues behind it), its changes, the symbols it"
        " speaks for, who was told, and how it came out. Without alert_id: the newest open alert, else the newest one,"
        " of the symbol if one is given.",
        WhyAlert,
        ("alerts", "alert_changes", "alert_outcomes", "alert_deliveries", "outbox"),
        _why_alert,
        (
            Parameter("alert_id", "the alert's id, as list_alerts gives it", "uuid"),
            Parameter("symbol", "a coin, or a group such as market"),
            *_SHARED,
        ),
    ),
    Tool(
        "list_alerts",
        "The alert book",
        "Alerts, newest first, each with its verdict where it can be judged: right, late or false.",
        list[Alert],
        ("alerts", "alert_outcomes"),
        _list_alerts,
        (
            Parameter("state", "which", "choice", choices=("open", "resolved", "all"), default="all"),
            Parameter("symbol", "only of this coin or group"),
            Parameter("from", "only those opened from then on", "time"),
            limit(10, 50),
            *_SHARED,
        ),
    ),
    Tool(
        "history",
        "History of one coin",
        "One coin's risk, prices, open interest (coins), funding (per 8 h), long share or liquidations (by the side"
        " that was closed) in buckets of 1m, 5m or 1h; the newest ones if there are more than the limit.",
        History,
        ("liquidation_risk_*", "signals_*", "prices_*", "open_interest_*", "funding_rates_*", "liquidations_*"),
        _history,
        (
            _SYMBOL,
            Parameter("what", "which series", "choice", choices=tuple(_HISTORIES), default="risk"),
            FROM,
            TO,
            STEP,
            limit(60, MOST_POINTS),
            *_SHARED,
        ),
        ("symbol",),
    ),
    Tool(
        "levels",
        "Liquidation map of one coin, estimated",
        "An estimate, not a fact, of what would be closed by force around the price of one coin: notional by price bin,"
        " longs below and shorts above, sums within 1, 3 and 5 %, the nearest clusters, how many times larger it may"
        " be for silent venues. The newest map of the day before `to`.",
        Levels,
        ("liquidation_levels",),
        _levels,
        (_SYMBOL, TO, *_SHARED),
        ("symbol",),
    ),
    Tool(
        "how_good",
        "How good the alarms are",
        "What the alarms were worth as they were delivered, misses included: this installation's own verdicts and the"
        " newest stored evaluation beside plain rules and chance. Ask it before trusting an alarm.",
        HowGood,
        ("alert_outcomes", "evaluation_runs"),
        _how_good,
        _SHARED,
    ),
    Tool(
        "data_health",
        "How fresh and complete the data are",
        "How old the newest price, funding and open interest of each coin and venue are, and the holes in the data.",
        DataHealth,
        ("prices", "funding_rates", "open_interest", "ingest_gaps"),
        _data_health,
        (_SYMBOL, limit(40, 200), *_SHARED),
    ),
)


def find(name: str) -> Tool | None:
    """The tool of that name."""
    return next((tool for tool in TOOLS if tool.name == name), None)


def input_schema(tool: Tool) -> dict[str, Any]:
    """JSON Schema of its arguments."""
    from liq_pipeline.desk.api.openapi import schema_of

    properties = {one.name: {**schema_of(one), "description": one.means} for one in tool.parameters}
    return {
        "type": "object",
        "properties": properties,
        "required": list(tool.required),
        "additionalProperties": False,
    }


def output_schema(tool: Tool) -> dict[str, Any]:
    """JSON Schema of its answer."""
    told: Any = Told
    found = msgspec.json.schema(told[tool.answers], ref_template="#/$defs/{name}")
    definitions = found["$defs"]
    root = definitions.pop(found["$ref"].rpartition("/")[2])
    return {**root, "$defs": definitions}


def read_arguments(tool: Tool, given: Mapping[str, Any]) -> Asked:
    """The arguments, parsed. AskError for one that is wrong, missing or unknown."""
    known = {one.name: one for one in tool.parameters}
    values: dict[str, Any] = {one.name: one.default for one in tool.parameters}
    for name, value in given.items():
        if name not in known:
            allowed = ", ".join(known) or "none"
            raise AskError(
                400, "unknown_parameter", f"there is an argument that {tool.name} does not know; it knows {allowed}"
            )
        if value is None or value == "":
            continue
        is_whole = isinstance(value, int) and not isinstance(value, bool)
        if not isinstance(value, str) and not (is_whole and known[name].kind == "integer"):
            raise AskError(400, "bad_parameter", f"{name} is of the wrong type")
        values[name] = known[name].read(str(value))
    for name in tool.required:
        if values[name] is None:
            raise AskError(400, "missing_parameter", f"{tool.name} needs {name}")
    return Asked(values)


def answer(tool: Tool, conn: Connection, asked: Asked) -> bytes:
    """The answer as JSON, at most MOST_BYTES of it. AskError where it cannot be given."""
    of = scope.scope(conn, asked["world"])
    signals = market.signals_now(conn, of)
    found = tool.read(conn, asked, of, signals)
    told = tell(conn, of, found.data, signals=signals, symbol=found.symbol, tables=tool.tables, left_out=found.left_out)
    encoded = msgspec.json.encode(told, enc_hook=str)
    if len(encoded) > MOST_BYTES:
        raise AskError(400, "too_large", "the answer would be too large: ask for fewer rows or a shorter span")
    return encoded
