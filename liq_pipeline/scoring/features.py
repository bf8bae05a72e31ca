"""Features: what of the bars and current values is compared with its own past.

Belongs here: one formula per feature, for points and for bars alike. Does not: percentiles (references.py), points
(risk.py).

Each feature uses only values inside its window, by exact operations (differences, quotients, square roots, integer
sums), so the same point gives the same bits whatever slice of history surrounds it. Changes are simple relative ones
(now / then - 1): a logarithm differs in its last bit between processors.
"""

from __future__ import annotations

from typing import Final

import numpy as np

from liq_pipeline.scoring.bars import (
    UNKNOWN_CENTS,
    BarArrays,
    Floats,
    Integers,
    Points,
    bars_between,
    points_on_bars,
    trailing_sum,
)
from liq_pipeline.scoring.windows import rolling_count

FUNDING: Final = "funding_rate_per_8h"
OPEN_INTEREST: Final = "open_interest_base"
OPEN_INTEREST_CHANGE: Final = {4: "open_interest_change_4h", 24: "open_interest_change_24h"}
PRICE_CHANGE: Final = "price_change_24h"
LONG_SHARE: Final = "long_share"
LONG_LIQUIDATED: Final = "long_liquidated_cents_1h"
SHORT_LIQUIDATED: Final = "short_liquidated_cents_1h"
VOLATILITY: Final = "realised_volatility_24h"

FEATURES: Final = (
    FUNDING,
    OPEN_INTEREST,
    *OPEN_INTEREST_CHANGE.values(),
    PRICE_CHANGE,
    LONG_SHARE,
    LONG_LIQUIDATED,
    SHORT_LIQUIDATED,
    VOLATILITY,
)

LOOKBACK_HOURS: Final = 25
"""Bars before a point that its features reach back to: 24 h of lags and one hour of slack for the grid."""
KNOWN_SHARE: Final = 0.9
SQUARE_UNIT: Final = 1e-12
"""Squared returns are summed as integers of this size; a return of one part in a million is one unit."""
LARGEST_RETURN: Final = 10.0
"""A step's return is held to this: 24 h of such squares still fit an int64, and a wrong price cannot overflow it."""


def at_points(bars: BarArrays, points: Points) -> dict[str, Floats]:
    """Every feature at every point: name -> (symbols, venues, points), NaN where unknown."""
    now = points.now
    values: dict[str, Floats] = {
        FUNDING: now.funding_rate_per_8h,
        OPEN_INTEREST: now.open_interest_base,
        LONG_SHARE: now.long_share,
    }
    for hours, name in OPEN_INTEREST_CHANGE.items():
        values[name] = _change(now.open_interest_base, bars.open_interest_base, bars, points, hours)
    values[PRICE_CHANGE] = _change(now.price_usd, bars.price_usd, bars, points, 24)
    near, index = _reaching(bars, points.bar_index, LOOKBACK_HOURS)
    values[LONG_LIQUIDATED] = _liquidated(now.long_liquidated_cents_1h, near.long_liquidated_cents, near, index)
    values[SHORT_LIQUIDATED] = _liquidated(now.short_liquidated_cents_1h, near.short_liquidated_cents, near, index)
    values[VOLATILITY] = take(_realised_volatility(near), index)
    return values


def _reaching(bars: BarArrays, index: Integers, hours: int) -> tuple[BarArrays, Integers]:
    """The bars from `hours` before the first index on, and the indices in them: a tick has one point, and a week."""
    first = max(0, int(index.min(initial=bars.count)) - bars.rows_of(hours))
    return bars_between(bars, first, bars.count), index - first


def on_bars(bars: BarArrays) -> dict[str, Floats]:
    """Every feature at every bar: the history that references are built from."""
    return at_points(bars, points_on_bars(bars))


def take(values: Floats, index: Integers) -> Floats:
    """values[..., index], NaN where the index lies outside the array."""
    inside = (index >= 0) & (index < values.shape[-1])
    if inside.all():
        return values[..., index]
    picked = values[..., np.where(inside, index, 0)] if values.shape[-1] else np.empty((*values.shape[:-1], index.size))
    return np.where(inside, picked, np.nan)


def _change(now: Floats, history: Floats, bars: BarArrays, points: Points, hours: int) -> Floats:
    """Relative change since the bar `hours` before the point's newest bar."""
    then = take(history, points.bar_index - bars.rows_of(hours))
    with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
        change = now / then - 1.0
    return np.where(np.isfinite(change), change, np.nan)


def _liquidated(now_cents: Integers, history: Integers, bars: BarArrays, index: Integers) -> Floats:
    """Cents of the last hour; unknown unless the feed is alive now and was for nine tenths of the hour's bars.

    A feed that has just come back has seen part of the hour only: its sum would understate without saying so.
    """
    hour = bars.rows_of(1)
    alive = rolling_count(history != UNKNOWN_CENTS, hour).astype(np.float64)
    seen = take(alive, index)
    with np.errstate(invalid="ignore"):
        known = (now_cents != UNKNOWN_CENTS) & (seen >= np.ceil(KNOWN_SHARE * hour))
    # Cents stay below 2^53 (90 trillion USD), so the float is exact.
    return np.where(known, now_cents.astype(np.float64), np.nan)


def _realised_volatility(bars: BarArrays) -> Floats:
    """Root mean square of the bars' returns over the 24 h up to each bar: the baseline any score has to beat."""
    day = bars.rows_of(24)
    returns = np.full(bars.price_usd.shape, np.nan)
    with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
        returns[..., 1:] = bars.price_usd[..., 1:] / bars.price_usd[..., :-1] - 1.0
    known = np.isfinite(returns)
    squares = np.square(np.clip(np.where(known, returns, 0.0), -LARGEST_RETURN, LARGEST_RETURN))
    units = np.rint(squares / SQUARE_UNIT).astype(np.int64)
    count = rolling_count(known, day)
    enough = count >= np.ceil(KNOWN_SHARE * day)
    mean = trailing_sum(units, day) / np.maximum(count, 1) * SQUARE_UNIT
    return np.where(enough, np.sqrt(mean), np.nan)
