"""Charts: one symbol's history in equal steps, from the roll-ups.

Belongs here: buckets of price, risk, open interest, funding, ratios and liquidations. Does not: single points
(points.py), or which step a span deserves for a picture (pages/).

Each bucket is named by its first instant. A bucket without rows is absent: nothing is filled in.
"""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime, timedelta
from typing import Any

import msgspec

from liq_pipeline.desk.read.database import Connection, fetch, fetch_rows
from liq_pipeline.desk.read.units import (
    MOST_BUCKETS,
    STEP_SECONDS,
    Coins,
    Fraction,
    Probability,
    Score,
    Severity,
    Share,
    Step,
    Time,
    Usd,
)

Series = tuple[Connection, str, str, datetime, datetime, Step]


class Candle(msgspec.Struct, frozen=True, kw_only=True):
    """The price in one bucket: each figure is the median over the venues, so that one venue's spike is none."""

    time: Time
    open_usd: Usd
    high_usd: Usd
    low_usd: Usd
    close_usd: Usd
    venues: int


class RiskBucket(msgspec.Struct, frozen=True, kw_only=True):
    """Risk and probability in one bucket; the highest, unless the name says otherwise."""

    time: Time
    risk_max: Score | None
    score_high_max: Score | None
    long_squeeze_max: Score | None
    short_squeeze_max: Score | None
    funding_points_avg: float | None
    open_interest_points_avg: float | None
    long_short_points_avg: float | None
    liquidation_points_avg: float | None
    coverage_min: Share
    cascade_probability_4h_max: Probability | None
    pressure_min: float | None
    severity_max: Severity


class OpenInterestBucket(msgspec.Struct, frozen=True, kw_only=True):
    """Open interest at the end of one bucket. total_base is null unless every venue of the answer told its own."""

    time: Time
    total_base: Coins | None
    by_venue_base: dict[str, Coins]


class FundingBucket(msgspec.Struct, frozen=True, kw_only=True):
    """The predicted funding rate at the end of one bucket, brought to 8 hours."""

    time: Time
    by_venue_per_8h: dict[str, Fraction]


class RatioBucket(msgspec.Struct, frozen=True, kw_only=True):
    """The share of accounts that are long, at the end of one bucket."""

    time: Time
    by_venue_long_share: dict[str, Share]


class LiquidationBucket(msgspec.Struct, frozen=True, kw_only=True):
    """What was closed by force in one bucket, by the side of the positions. No bucket: nothing was told."""

    time: Time
    long_usd: Usd
    short_usd: Usd
    events: int
    is_sample: bool
    """a venue throttles its feed: the sums are lower bounds"""


def buckets(first: datetime, last: datetime, step: Step) -> int:
    """How many buckets a span may have."""
    return int((last - first).total_seconds() // STEP_SECONDS[step]) + 1


def _bounds(world: str, symbol: str, first: datetime, last: datetime, step: Step) -> dict[str, Any]:
    start = datetime.fromtimestamp(first.timestamp() // STEP_SECONDS[step] * STEP_SECONDS[step], first.tzinfo)
    start = max(start, last - timedelta(seconds=STEP_SECONDS[step] * MOST_BUCKETS))
    return {"world": world, "symbol": symbol, "first": start, "last": last}


def candles(conn: Connection, world: str, symbol: str, first: datetime, last: datetime, step: Step) -> list[Candle]:
    """Prices in [first, last]."""
    return fetch(
        conn,
        Candle,
        f"""
        SELECT bucket AS time, percentile_cont(0.5) WITHIN GROUP (ORDER BY price_usd_first) AS open_usd,
               percentile_cont(0.5) WITHIN GROUP (ORDER BY price_usd_high) AS high_usd,
               percentile_cont(0.5) WITHIN GROUP (ORDER BY price_usd_low) AS low_usd,
               percentile_cont(0.5) WITHIN GROUP (ORDER BY price_usd_last) AS close_usd, count(*) AS venues
        FROM prices_{step} WHERE world = %(world)s AND symbol = %(symbol)s AND bucket BETWEEN %(first)s AND %(last)s
        GROUP BY bucket ORDER BY bucket
        """,  # noqa: S608 - the step is one of ours
        _bounds(world, symbol, first, last, step),
    )


def risk(conn: Connection, world: str, symbol: str, first: datetime, last: datetime, step: Step) -> list[RiskBucket]:
    """Risk, its parts and the probability in [first, last]."""
    return fetch(
        conn,
        RiskBucket,
        f"""
        SELECT r.bucket AS time, r.score_max AS risk_max, r.score_high_max, r.long_squeeze_max, r.short_squeeze_max,
               r.funding_points_avg, r.open_interest_points_avg, r.long_short_points_avg, r.liquidation_points_avg,
               r.coverage_min, s.cascade_probability_4h_max, s.pressure_min,
               CASE WHEN s.critical_points > 0 THEN 'CRITICAL' WHEN s.warning_points > 0 THEN 'WARNING'
               WHEN s.info_points > 0 THEN 'INFO' WHEN s.unknown_points < s.samples THEN 'NONE' ELSE 'UNKNOWN' END
               AS severity_max
        FROM (SELECT * FROM liquidation_risk_{step} WHERE world = %(world)s AND symbol = %(symbol)s
              AND bucket BETWEEN %(first)s AND %(last)s) r
        LEFT JOIN (SELECT * FROM signals_{step} WHERE world = %(world)s AND symbol = %(symbol)s
                   AND bucket BETWEEN %(first)s AND %(last)s) s USING (bucket)
        ORDER BY r.bucket
        """,  # noqa: S608 - the step is one of ours
        _bounds(world, symbol, first, last, step),
    )


def open_interest(
    conn: Connection, world: str, symbol: str, first: datetime, last: datetime, step: Step
) -> list[OpenInterestBucket]:
    """Open interest in [first, last]."""
    rows = fetch_rows(
        conn,
        f"SELECT bucket, venue, open_interest_base_last FROM open_interest_{step} WHERE world = %(world)s"  # noqa: S608
        " AND symbol = %(symbol)s AND bucket BETWEEN %(first)s AND %(last)s ORDER BY bucket, venue",
        _bounds(world, symbol, first, last, step),
    )
    everyone = {venue for _, venue, _ in rows}
    return [
        OpenInterestBucket(
            time=time, total_base=sum(told.values()) if len(told) == len(everyone) else None, by_venue_base=told
        )
        for time, told in _by_bucket(rows)
    ]


def funding(
    conn: Connection, world: str, symbol: str, first: datetime, last: datetime, step: Step
) -> list[FundingBucket]:
    """Predicted funding in [first, last]."""
    rows = fetch_rows(
        conn,
        f"SELECT bucket, venue, rate_per_8h_last FROM funding_rates_{step} WHERE world = %(world)s"  # noqa: S608
        " AND symbol = %(symbol)s AND kind = 'predicted' AND bucket BETWEEN %(first)s AND %(last)s"
        " ORDER BY bucket, venue",
        _bounds(world, symbol, first, last, step),
    )
    return [FundingBucket(time=time, by_venue_per_8h=told) for time, told in _by_bucket(rows)]


def long_short(
    conn: Connection, world: str, symbol: str, first: datetime, last: datetime, step: Step
) -> list[RatioBucket]:
    """Long shares of accounts in [first, last]."""
    rows = fetch_rows(
        conn,
        f"SELECT DISTINCT ON (bucket, venue) bucket, venue, long_share_last FROM long_short_ratio_{step}"  # noqa: S608
        " WHERE world = %(world)s AND symbol = %(symbol)s AND kind = 'accounts'"
        " AND bucket BETWEEN %(first)s AND %(last)s ORDER BY bucket, venue, period_minutes",
        _bounds(world, symbol, first, last, step),
    )
    return [RatioBucket(time=time, by_venue_long_share=told) for time, told in _by_bucket(rows)]


def liquidations(
    conn: Connection, world: str, symbol: str, first: datetime, last: datetime, step: Step
) -> list[LiquidationBucket]:
    """Forced closures in [first, last]."""
    return fetch(
        conn,
        LiquidationBucket,
        f"""
        SELECT bucket AS time, coalesce(sum(notional_usd) FILTER (WHERE liquidated_side = 'long'), 0) AS long_usd,
               coalesce(sum(notional_usd) FILTER (WHERE liquidated_side = 'short'), 0) AS short_usd,
               sum(events)::int AS events, bool_or(is_sample) AS is_sample
        FROM liquidations_{step} WHERE world = %(world)s AND symbol = %(symbol)s
        AND bucket BETWEEN %(first)s AND %(last)s GROUP BY bucket ORDER BY bucket
        """,  # noqa: S608 - the step is one of ours
        _bounds(world, symbol, first, last, step),
    )


def _by_bucket(rows: Iterable[tuple[Any, ...]]) -> list[tuple[datetime, dict[str, float]]]:
    """Consecutive rows of one bucket side by side; what a venue does not know is left out."""
    found: list[tuple[datetime, dict[str, float]]] = []
    for time, venue, value in rows:
        if not found or found[-1][0] != time:
            found.append((time, {}))
        if value is not None:
            found[-1][1][venue] = value
    return found
