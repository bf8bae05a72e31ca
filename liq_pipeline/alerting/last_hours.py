"""The last hours of one symbol as they were known at a moment: what a message's picture shows.

Belongs here: the queries, bounded in time. Does not: drawing (alerting/telling/chart.py).
"""

from __future__ import annotations

from collections import defaultdict
from datetime import datetime, timedelta
from statistics import median
from typing import Any, Final

import psycopg

from liq_pipeline.alerting.telling.chart import LastHours

SHOWN: Final = timedelta(hours=6)
BAR: Final = timedelta(minutes=5)


def last_hours(
    conn: psycopg.Connection[Any],
    world: str,
    symbol: str,
    until: datetime,
    *,
    started_at: datetime | None = None,
    mark: str = "",
) -> LastHours:
    """What was known at `until` of the 6 h before it. A venue whose open interest is not there all along is left out:
    it would be a step in the sum that the market never made.
    """
    first = until - SHOWN
    given = {"world": world, "symbol": symbol, "first": first, "until": until}
    prices: dict[datetime, list[float]] = defaultdict(list)
    for at, value in conn.execute(
        """
        SELECT date_bin('1 minute', event_time, 'epoch'), percentile_cont(0.5) WITHIN GROUP (ORDER BY price_usd)
        FROM prices
        WHERE world = %(world)s AND symbol = %(symbol)s AND event_time > %(first)s AND event_time <= %(until)s
          AND known_at <= %(until)s
        GROUP BY venue, 1
        """,
        given,
    ):
        prices[at].append(value)
    interest: dict[str, dict[datetime, float]] = defaultdict(dict)
    for venue, at, value in conn.execute(
        """
        SELECT venue, date_bin('5 minutes', event_time, 'epoch'), avg(open_interest_base) FROM open_interest
        WHERE world = %(world)s AND symbol = %(symbol)s AND event_time > %(first)s AND event_time <= %(until)s
          AND known_at <= %(until)s
        GROUP BY 1, 2
        """,
        given,
    ):
        interest[venue][at] = value
    forced: dict[datetime, dict[str, float]] = defaultdict(dict)
    for at, side, value in conn.execute(
        """
        SELECT date_bin('5 minutes', event_time, 'epoch'), liquidated_side, sum(notional_usd) FROM liquidations
        WHERE world = %(world)s AND symbol = %(symbol)s AND event_time > %(first)s AND event_time <= %(until)s
          AND known_at <= %(until)s
        GROUP BY 1, 2
        """,
        given,
    ):
        forced[at][side] = value
    is_read = conn.execute(
        """
        SELECT EXISTS (SELECT 1 FROM heartbeats WHERE world = %(world)s AND topic = 'liquidations'
                       AND event_time > %(until)s - interval '10 minutes' AND event_time <= %(until)s)
        """,
        given,
    ).fetchone()
    bars = [(at, sums.get("long", 0.0), sums.get("short", 0.0)) for at, sums in sorted(forced.items())]
    return LastHours(
        symbol=symbol,
        first=first,
        last=until,
        price=[(at, median(values)) for at, values in sorted(prices.items())],
        open_interest=_summed(interest),
        liquidated=bars if bars or (is_read is not None and is_read[0]) else None,
        started_at=started_at,
        mark=mark,
    )


def _summed(interest: dict[str, dict[datetime, float]]) -> list[tuple[datetime, float]]:
    """Over the venues that were there in nearly every bar; each keeps its last value where one is missing."""
    bars = sorted({at for values in interest.values() for at in values})
    steady = [values for values in interest.values() if bars and len(values) >= 0.9 * len(bars) and bars[0] in values]
    found = []
    last = [values[bars[0]] for values in steady]
    for at in bars:
        last = [values.get(at, before) for values, before in zip(steady, last, strict=True)]
        if last:
            found.append((at, sum(last)))
    return found
