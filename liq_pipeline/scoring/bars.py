"""From raw rows to values on a grid: what was known of one series at each of many times.

Belongs here: as-of values, exact sums over trailing windows, and the array shapes that scoring stands on.
Does not: reading rows (store/inputs/as_known.py), or anything that compares a value with its own past (features.py).

Times are integers, microseconds since 1970 UTC for rows and points, seconds for the grid. Money is integer cents, so
that a sum is exact and a slice equals a batch bit for bit. Unknown is NaN, and UNKNOWN_CENTS for cents; never zero.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields
from itertools import pairwise
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Integers = NDArray[np.int64]
Booleans = NDArray[np.bool_]

STEP_SECONDS: Final = 300
"""The grid of feature_bars. Panels may have any step that divides an hour."""
MICROSECONDS: Final = 1_000_000
UNKNOWN_CENTS: Final = -1

LEVEL_FIELDS: Final = ("price_usd", "open_interest_base", "funding_rate_per_8h", "long_share")
CENTS_FIELDS: Final = ("long_liquidated_cents", "short_liquidated_cents")


@dataclass(frozen=True)
class BarArrays:
    """A regular grid of what was known at each bar's end.

    Arrays have the shape (symbols, venues, bars); bar i ends at start_seconds + i * step_seconds (since 1970 UTC).
    Liquidated cents are sums over one step. A panel is the same with the single venue `panel`.
    """

    symbols: tuple[str, ...]
    venues: tuple[str, ...]
    start_seconds: int
    step_seconds: int
    price_usd: Floats
    open_interest_base: Floats
    funding_rate_per_8h: Floats
    long_share: Floats
    long_liquidated_cents: Integers
    short_liquidated_cents: Integers

    def __post_init__(self) -> None:
        if self.step_seconds <= 0 or 3600 % self.step_seconds:
            raise ValueError(f"a bar step of {self.step_seconds} s does not divide an hour")
        shape = (len(self.symbols), len(self.venues), self.price_usd.shape[-1])
        for name in LEVEL_FIELDS + CENTS_FIELDS:
            if getattr(self, name).shape != shape:
                raise ValueError(f"bars: {name} has shape {getattr(self, name).shape}, expected {shape}")

    @property
    def count(self) -> int:
        """Bars per series."""
        return int(self.price_usd.shape[-1])

    @property
    def end_seconds(self) -> Integers:
        """Each bar's end, seconds since 1970 UTC."""
        return self.start_seconds + np.arange(self.count, dtype=np.int64) * self.step_seconds

    def index_at(self, time_seconds: Integers) -> Integers:
        """The newest bar that had ended at each time; below 0 or past the last bar where the grid does not reach."""
        return (time_seconds - self.start_seconds) // self.step_seconds

    def rows_of(self, hours: int) -> int:
        """How many bars span that many hours."""
        return hours * 3600 // self.step_seconds


@dataclass(frozen=True)
class NowArrays:
    """Current values at each point, shape (symbols, venues, points); liquidated cents over the hour up to the point."""

    price_usd: Floats
    open_interest_base: Floats
    funding_rate_per_8h: Floats
    long_share: Floats
    long_liquidated_cents_1h: Integers
    short_liquidated_cents_1h: Integers


@dataclass(frozen=True)
class Points:
    """The times to score: bar_index is the newest bar at or before each; now is as of the time itself."""

    time_seconds: Integers
    bar_index: Integers
    now: NowArrays


def empty_bars(
    symbols: tuple[str, ...], venues: tuple[str, ...], start_seconds: int, step_seconds: int, count: int
) -> BarArrays:
    """Bars of which nothing is known; the arrays are the caller's to fill."""
    shape = (len(symbols), len(venues), count)
    arrays: dict[str, Any] = {name: np.full(shape, np.nan) for name in LEVEL_FIELDS}
    arrays.update({name: np.full(shape, UNKNOWN_CENTS, dtype=np.int64) for name in CENTS_FIELDS})
    return BarArrays(symbols, venues, start_seconds, step_seconds, **arrays)


def bars_between(bars: BarArrays, first: int, stop: int) -> BarArrays:
    """The bars [first, stop), as views."""
    cut = {
        f.name: getattr(bars, f.name)[..., first:stop] for f in fields(bars) if f.name in LEVEL_FIELDS + CENTS_FIELDS
    }
    start = bars.start_seconds + first * bars.step_seconds
    return BarArrays(bars.symbols, bars.venues, start, bars.step_seconds, **cut)


def joined(parts: Sequence[BarArrays]) -> BarArrays:
    """Bars that follow each other without a gap, of the same symbols and venues, as one."""
    first = parts[0]
    for one, following in pairwise(parts):
        if following.start_seconds != one.start_seconds + one.count * one.step_seconds:
            raise ValueError("bars that are joined must follow each other")
    arrays = {
        name: np.concatenate([getattr(part, name) for part in parts], axis=-1) for name in LEVEL_FIELDS + CENTS_FIELDS
    }
    return BarArrays(first.symbols, first.venues, first.start_seconds, first.step_seconds, **arrays)


def points_on_bars(bars: BarArrays, index: Integers | None = None) -> Points:
    """Points at the bars' own times (a panel): what is known now is the bar itself.

    index: which bars; None for all.
    """
    chosen = np.arange(bars.count, dtype=np.int64) if index is None else index
    hour = bars.rows_of(1)
    sums = {}
    for name in CENTS_FIELDS:
        cents = getattr(bars, name)
        total = trailing_sum(np.where(cents == UNKNOWN_CENTS, 0, cents), hour)
        # The newest bar tells whether the feed is alive; how much of the hour it saw is judged in features.py.
        sums[f"{name}_1h"] = np.where(cents == UNKNOWN_CENTS, UNKNOWN_CENTS, total)[..., chosen]
    now = NowArrays(**{name: getattr(bars, name)[..., chosen] for name in LEVEL_FIELDS}, **sums)
    return Points(bars.end_seconds[chosen], chosen, now)


def trailing_sum(values: Integers, rows: int) -> Integers:
    """Exact sum of the last `rows` values along the last axis (shorter at the array's start)."""
    running = np.cumsum(values, axis=-1, dtype=np.int64)
    if rows >= values.shape[-1]:
        return running
    total = running.copy()
    total[..., rows:] -= running[..., :-rows]
    return total


def as_of(event_us: Integers, known_us: Integers, times_us: Integers, max_age_us: Integers | int) -> Integers:
    """For each time, the row of the latest event that had happened and was known; -1 if there is none or it is stale.

    event_us, known_us: (rows,), in any order. times_us: (times,), ascending. max_age_us: one, or one per row; a row
    whose age (time - event) exceeds it is stale. Of rows with one event time the one known first counts.
    """
    if event_us.size == 0:
        return np.full(times_us.shape, -1, dtype=np.int64)
    usable_us = np.maximum(event_us, known_us)
    order = np.lexsort((known_us, event_us, usable_us))
    # Walk the rows as they become usable and keep the one with the latest event so far.
    event_sorted = event_us[order]
    is_best = np.empty(order.size, dtype=bool)
    is_best[0] = True
    is_best[1:] = event_sorted[1:] > np.maximum.accumulate(event_sorted)[:-1]
    best = np.maximum.accumulate(np.where(is_best, np.arange(order.size), 0))
    position = np.searchsorted(usable_us[order], times_us, side="right") - 1
    row = np.where(position >= 0, order[best[np.maximum(position, 0)]], -1)
    limit = np.broadcast_to(np.asarray(max_age_us, dtype=np.int64), event_us.shape)
    fresh = (row >= 0) & (times_us - event_us[row] <= limit[row])
    return np.where(fresh, row, -1).astype(np.int64)


def newest_of_series(series: Integers, event_us: Integers, known_us: Integers) -> Integers:
    """The row that as_of would choose of each series at one time, before its age is looked at: (series that have one,).

    series, event_us, known_us: (rows,), of rows that had happened and were known by then. In one go for thousands of
    series of a few rows each, where calling as_of on each takes longer than all else that a tick does with them.
    """
    order = np.lexsort((known_us, -event_us, series))
    sorted_series = series[order]
    is_first = np.ones(order.size, dtype=bool)
    is_first[1:] = sorted_series[1:] != sorted_series[:-1]
    return order[is_first].astype(np.int64)


def window_sums(
    event_us: Integers,
    known_us: Integers,
    amounts: Integers,
    times_us: Integers,
    width_us: int,
    until_us: Integers | None = None,
) -> Integers:
    """For each time T, the exact sum of the amounts with T - width < event <= T, known at T and not yet withdrawn.

    times_us: ascending. until_us: from when a row no longer counts (a re-org that was learnt of); None: never.
    """
    stop_us = event_us + width_us
    if until_us is not None:
        stop_us = np.minimum(stop_us, until_us)
    first = np.searchsorted(times_us, np.maximum(event_us, known_us), side="left")
    stop = np.searchsorted(times_us, stop_us, side="left")
    counts = first < stop
    change = np.zeros(times_us.size + 1, dtype=np.int64)
    np.add.at(change, first[counts], amounts[counts])
    np.add.at(change, stop[counts], -amounts[counts])
    return np.cumsum(change[:-1], dtype=np.int64)
