"""Scored points one by one: signals as they were, and scores with the inputs that made them.

Belongs here: rows of signals and liquidation_risk by time, in pages. Does not: charts over months (series.py).
"""

from __future__ import annotations

from datetime import datetime
from typing import LiteralString

import msgspec

from liq_pipeline.desk.read.database import Connection, fetch, fetch_rows
from liq_pipeline.desk.read.market import SIGNAL_COLUMNS, SIGNAL_TABLES, Signal
from liq_pipeline.desk.read.units import Open, Score, Share, Side, Time


class ScoreDetail(msgspec.Struct, frozen=True, kw_only=True):
    """One score taken apart: the points of `side` and, for each component, values, ages and venues in `inputs`."""

    symbol: str
    time: Time
    score: Score | None
    score_high: Score | None
    side: Side | None
    funding_points: float | None
    open_interest_points: float | None
    long_short_points: float | None
    liquidation_points: float | None
    long_squeeze: Score | None
    short_squeeze: Score | None
    coverage: Share
    inputs: Open
    score_version: str
    revision: int


def _begin(
    conn: Connection, table: LiteralString, world: str, symbol: str, first: datetime, last: datetime, limit: int
) -> datetime:
    """The oldest of the newest `limit` points: bounded by it, the current revisions are sought of these points only."""
    rows = fetch_rows(
        conn,
        f"SELECT min(time) FROM (SELECT DISTINCT time FROM {table} WHERE world = %(world)s AND symbol = %(symbol)s"  # noqa: S608
        " AND time BETWEEN %(first)s AND %(last)s ORDER BY time DESC LIMIT %(limit)s) AS newest",
        {"world": world, "symbol": symbol, "first": first, "last": last, "limit": limit},
    )
    return rows[0][0] or last


def signals(conn: Connection, world: str, symbol: str, first: datetime, last: datetime, limit: int) -> list[Signal]:
    """The newest `limit` points of a symbol in [first, last], newest first."""
    return fetch(
        conn,
        Signal,
        f"SELECT {SIGNAL_COLUMNS} FROM {SIGNAL_TABLES} WHERE s.world = %(world)s AND s.symbol = %(symbol)s"  # noqa: S608
        " AND s.time BETWEEN %(first)s AND %(last)s AND r.world = %(world)s AND r.symbol = %(symbol)s"
        " AND r.time BETWEEN %(first)s AND %(last)s ORDER BY s.time DESC LIMIT %(limit)s",
        {
            "world": world,
            "symbol": symbol,
            "first": _begin(conn, "signals", world, symbol, first, last, limit),
            "last": last,
            "limit": limit,
        },
    )


def scores(conn: Connection, world: str, symbol: str, first: datetime, last: datetime, limit: int) -> list[ScoreDetail]:
    """The newest `limit` scores of a symbol in [first, last] with their inputs, newest first."""
    return fetch(
        conn,
        ScoreDetail,
        "SELECT symbol, time, score, score_high, side, funding_points, open_interest_points, long_short_points,"
        " liquidation_points, long_squeeze, short_squeeze, coverage, inputs, score_version, revision"
        " FROM liquidation_risk_current WHERE world = %(world)s AND symbol = %(symbol)s"
        " AND time BETWEEN %(first)s AND %(last)s ORDER BY time DESC LIMIT %(limit)s",
        {
            "world": world,
            "symbol": symbol,
            "first": _begin(conn, "liquidation_risk", world, symbol, first, last, limit),
            "last": last,
            "limit": limit,
        },
    )
