"""Every symbol at the newest point: what the first page shows and a bot asks first.

Belongs here: signals, risk, price and the day's sparkline side by side. Does not: history (points.py, series.py).
"""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Any, Final

import msgspec

from liq_pipeline.desk.read.database import Connection, fetch, fetch_rows
from liq_pipeline.desk.read.scope import Scope
from liq_pipeline.desk.read.units import (
    Fraction,
    Open,
    Pressure,
    Probability,
    Score,
    Severity,
    Share,
    Side,
    Time,
    Usd,
)

PRICE_MAX_AGE: Final = timedelta(minutes=15)
"""An older price is unknown."""
SPARK_POINTS: Final = 96


class Signal(msgspec.Struct, frozen=True, kw_only=True):
    """One symbol at one point. null is unknown, never zero. Points are those of `side`."""

    symbol: str
    time: Time
    severity: Severity
    severity_possible: Severity
    """the severity if everything unknown is at its worst"""
    risk: Score | None
    score_high: Score | None
    """the risk with the full budget of what is unknown added"""
    side: Side | None
    """whose positions would be closed by force"""
    funding_points: float | None
    open_interest_points: float | None
    long_short_points: float | None
    liquidation_points: float | None
    long_squeeze: Score | None
    short_squeeze: Score | None
    coverage: Share
    pressure: Pressure | None
    flow_side_known: bool
    cascade_probability_1h: Probability | None
    cascade_probability_4h: Probability | None
    cascade_probability_24h: Probability | None
    base_rate_4h: Probability | None
    """how often it happens on average, by the model's training"""
    model_id: str | None
    baseline_volatility_percentile: Share | None
    under_way_probability: Probability | None
    under_way: Open | None
    """the rule that says a cascade has begun: is_open, side, excursion, what decided"""
    liquidation_fuel: Open | None
    """an estimate (docs/levels.md): notional in USD within 1, 3 and 5 % below and above, the nearest clusters, and the
    time of the map they are from; null: there was no map of the quarter of an hour before"""
    note: str
    """what limits this signal, in words"""


class SymbolNow(Signal, frozen=True, kw_only=True):
    """A signal with the market beside it."""

    price_usd: Usd | None
    """median over the venues that told one within 15 min"""
    price_time: Time | None
    price_venues: int
    price_change_24h: Fraction | None
    open_alerts: int
    """of this symbol, those of its group included"""


SIGNAL_COLUMNS: Final = """
    s.symbol, s.time, s.severity, s.severity_possible, s.risk, r.score_high, r.side, r.funding_points,
    r.open_interest_points, r.long_short_points, r.liquidation_points, r.long_squeeze, r.short_squeeze, r.coverage,
    s.pressure, s.flow_side_known, s.cascade_probability_1h, s.cascade_probability_4h, s.cascade_probability_24h,
    (m.facts #>> '{base_rate,4}')::float AS base_rate_4h, s.model_id, s.baseline_volatility_percentile,
    s.under_way_probability, s.under_way, liquidation_fuel(s.world, s.symbol, s.time) AS liquidation_fuel,
    s.note
"""
SIGNAL_TABLES: Final = """
    signals_current s JOIN liquidation_risk_current r USING (world, symbol, time) LEFT JOIN models m USING (model_id)
"""


def signals_now(conn: Connection, of: Scope, symbol: str | None = None) -> list[Signal]:
    """All symbols, or one, at the newest point that has scores, by name. Empty before the first."""
    only = "" if symbol is None else " AND s.symbol = %(symbol)s AND r.symbol = %(symbol)s"
    return fetch(
        conn,
        Signal,
        f"SELECT {SIGNAL_COLUMNS} FROM {SIGNAL_TABLES} WHERE s.world = %(world)s{only} AND s.time ="  # noqa: S608 - own constants
        " (SELECT time FROM signals WHERE world = %(world)s ORDER BY time DESC LIMIT 1) ORDER BY s.symbol",
        {"world": of.world, "symbol": symbol},
    )


def symbols_now(conn: Connection, of: Scope, symbol: str | None = None) -> list[SymbolNow]:
    """All symbols, or one, at the newest point, with price and open alerts."""
    signals = signals_now(conn, of, symbol)
    if not signals:
        return []
    prices = _prices(conn, of, signals[0].time, of.symbols if symbol is None else [symbol])
    alerts = dict(
        fetch_rows(
            conn,
            "SELECT subject, count(*) FROM alerts WHERE world = %(world)s AND state = 'open' GROUP BY subject",
            {"world": of.world},
        )
    )
    nothing = (None, None, 0, None)
    found = []
    for signal in signals:
        price, time, venues, change = prices.get(signal.symbol, nothing)
        found.append(
            SymbolNow(
                **{name: getattr(signal, name) for name in Signal.__struct_fields__},
                price_usd=price,
                price_time=time,
                price_venues=venues,
                price_change_24h=change,
                open_alerts=alerts.get(signal.symbol, 0),
            )
        )
    return found


def _prices(
    conn: Connection, of: Scope, time: datetime, symbols: list[str]
) -> dict[str, tuple[float | None, datetime | None, int, float | None]]:
    """symbol -> (median price, its newest time, venues, change over 24 h as the median of the venues' own changes)."""
    rows = fetch_rows(
        conn,
        """
        SELECT s.symbol, percentile_cont(0.5) WITHIN GROUP (ORDER BY n.price_usd), max(n.event_time), count(*),
               percentile_cont(0.5) WITHIN GROUP (ORDER BY n.price_usd / nullif(b.price_usd, 0) - 1)
        FROM unnest(%(symbols)s::text[]) AS s (symbol) CROSS JOIN unnest(%(venues)s::text[]) AS v (venue)
        CROSS JOIN LATERAL (
            SELECT price_usd, event_time FROM prices WHERE world = %(world)s AND symbol = s.symbol AND venue = v.venue
            AND event_time <= %(time)s AND event_time > %(oldest)s ORDER BY event_time DESC LIMIT 1) n
        LEFT JOIN LATERAL (
            SELECT price_usd FROM prices WHERE world = %(world)s AND symbol = s.symbol AND venue = v.venue
            AND event_time <= %(before)s AND event_time > %(oldest_before)s ORDER BY event_time DESC LIMIT 1) b ON true
        GROUP BY s.symbol
        """,
        {
            "world": of.world,
            "symbols": symbols,
            "venues": of.venues,
            "time": time,
            "oldest": time - PRICE_MAX_AGE,
            "before": time - timedelta(hours=24),
            "oldest_before": time - timedelta(hours=24) - PRICE_MAX_AGE,
        },
    )
    return {symbol: (price, newest, venues, change) for symbol, price, newest, venues, change in rows}


class Spark(msgspec.Struct, frozen=True, kw_only=True):
    """The highest risk of each quarter of an hour of the last day, oldest first; null where it was unknown."""

    symbol: str
    risk_max: list[Score | None]


def sparks(conn: Connection, of: Scope) -> dict[str, list[float | None]]:
    """symbol -> the last day's risk in SPARK_POINTS quarters of an hour, from the roll-ups."""
    if of.as_of is None:
        return {}
    last = of.as_of.replace(minute=of.as_of.minute // 15 * 15, second=0, microsecond=0)
    first = last - timedelta(minutes=15 * (SPARK_POINTS - 1))
    rows: list[tuple[Any, ...]] = fetch_rows(
        conn,
        """
        SELECT symbol, extract(epoch FROM date_bin('15 minutes', bucket, %(first)s) - %(first)s)::int / 900,
               max(score_max)
        FROM liquidation_risk_5m WHERE world = %(world)s AND bucket >= %(first)s AND symbol = ANY(%(symbols)s)
        GROUP BY 1, 2
        """,
        {"world": of.world, "first": first, "symbols": of.symbols},
    )
    found: dict[str, list[float | None]] = {}
    for symbol, place, risk in rows:
        if 0 <= place < SPARK_POINTS:
            found.setdefault(symbol, [None] * SPARK_POINTS)[place] = risk
    return found
