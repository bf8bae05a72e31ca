"""The liquidation map as it was stored: an estimate of what would be closed by force, and where.

Belongs here: rows of liquidation_levels. Does not: the estimate (scoring/levels/), pictures (desk/pages/drawings.py).
"""

from __future__ import annotations

from datetime import datetime
from typing import Final

import msgspec

from liq_pipeline.desk.read.database import Connection, fetch
from liq_pipeline.desk.read.units import Fraction, Share, Time, Usd


class LevelMap(msgspec.Struct, frozen=True, kw_only=True):
    """An estimate, not a fact. Bin k of a side holds what lies k to k + 1 bin widths from the reference price, longs
    below it, shorts above it. null is unknown, never zero."""

    time: Time
    method_version: str
    """every assumption under one name"""
    reference_usd: Usd | None
    bin_width: Fraction
    long_notional_usd: list[float] | None
    short_notional_usd: list[float] | None
    long_within_1_usd: Usd | None
    long_within_3_usd: Usd | None
    long_within_5_usd: Usd | None
    short_within_1_usd: Usd | None
    short_within_3_usd: Usd | None
    short_within_5_usd: Usd | None
    long_cluster_usd: Usd | None
    """in the nearest cluster; null also where there is none within 10 %"""
    long_cluster_price_usd: Usd | None
    long_cluster_distance: Fraction | None
    short_cluster_usd: Usd | None
    short_cluster_price_usd: Usd | None
    short_cluster_distance: Fraction | None
    high_factor: float | None
    """every amount may be so many times larger for silent venues and older positions; null: nobody knows"""
    coverage: Share
    venues: list[str]
    silent_venues: list[str]
    """known earlier in the window: they add nothing and widen the range"""
    unheard_venues: list[str]


_COLUMNS: Final = ", ".join(LevelMap.__struct_fields__)


def maps(conn: Connection, world: str, symbol: str, first: datetime, last: datetime, limit: int) -> list[LevelMap]:
    """The newest `limit` maps of a symbol in [first, last], newest first; of two methods the one written last."""
    return fetch(
        conn,
        LevelMap,
        f"SELECT {_COLUMNS} FROM (SELECT DISTINCT ON (time) * FROM liquidation_levels WHERE world = %(world)s"  # noqa: S608
        " AND symbol = %(symbol)s AND time BETWEEN %(first)s AND %(last)s ORDER BY time DESC, created_at DESC"
        " LIMIT %(limit)s) AS newest ORDER BY time DESC",
        {"world": world, "symbol": symbol, "first": first, "last": last, "limit": limit},
    )


def spread(conn: Connection, world: str, symbol: str, first: datetime, last: datetime, most: int) -> list[LevelMap]:
    """At most `most` maps of [first, last], evenly spread, oldest first, the newest among them: for a picture."""
    return fetch(
        conn,
        LevelMap,
        f"""
        SELECT {_COLUMNS} FROM liquidation_levels WHERE world = %(world)s AND symbol = %(symbol)s AND (time, created_at)
        IN (SELECT DISTINCT ON (part) time, created_at FROM (
            SELECT time, created_at, floor(extract(epoch FROM %(last)s::timestamptz - time) / %(seconds)s) AS part
            FROM liquidation_levels WHERE world = %(world)s AND symbol = %(symbol)s
            AND time BETWEEN %(first)s AND %(last)s) AS placed ORDER BY part, time DESC, created_at DESC)
        ORDER BY time
        """,  # noqa: S608 - own columns
        {
            "world": world,
            "symbol": symbol,
            "first": first,
            "last": last,
            "seconds": max((last - first).total_seconds() / max(most - 1, 1), 1.0),
        },
    )
