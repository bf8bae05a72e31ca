"""A value against its own past: daily quantile references and the percentile of a value within them.

Belongs here: order statistics of a feature over the look-back, and mid-ranks within them. Does not: which features
there are (features.py), or where references are kept (store/inputs/as_known.py).

For the UTC day D the reference of a feature is 257 equally spaced order statistics over its bars in (D - look-back, D].
All scores of that day use it: a fixed window on a fixed grid, so that one live point and a batch over years select the
very same numbers. Nothing is interpolated: each order statistic is a value that was really seen.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

import numpy as np

from liq_pipeline.scoring.bars import BarArrays, Floats, Integers

QUANTILES: Final = 257
DAY_SECONDS: Final = 86_400
KNOWN_SHARE: Final = 0.9
"""Share of the minimum look-back's bars that must be known: venues pause, a few holes do not spoil a percentile."""


@dataclass(frozen=True)
class Reference:
    """One feature. quantiles: (symbols, venues, days, 257), NaN where nothing was seen; observations: (.., days)."""

    quantiles: Floats
    observations: Integers


@dataclass(frozen=True)
class References:
    """days: whole days since 1970 UTC, ascending; features: one Reference each, all on the same days."""

    days: Integers
    features: dict[str, Reference]
    needed: int
    """Observations below which a reference does not count (the component is warming)."""

    def day_index(self, time_seconds: Integers) -> Integers:
        """Position of each time's UTC day in `days`. Raises ValueError for a day that has no references."""
        day = time_seconds // DAY_SECONDS
        index = np.searchsorted(self.days, day)
        if np.any(index >= self.days.size) or np.any(self.days[np.minimum(index, self.days.size - 1)] != day):
            raise ValueError("references are missing for some of the days to score")
        return index.astype(np.int64)


def needed_observations(min_lookback_hours: int, step_seconds: int) -> int:
    """How many known bars make a reference count."""
    return max(1, int(np.ceil(KNOWN_SHARE * min_lookback_hours * 3600 / step_seconds)))


def order_statistics(values: Floats) -> tuple[Floats, int]:
    """257 equally spaced order statistics of the known values, smallest and largest included; and how many are known.

    NaN throughout if none is known.
    """
    return _spaced(np.sort(_known(values)))


def _spaced(ascending: Floats) -> tuple[Floats, int]:
    if ascending.size == 0:
        return np.full(QUANTILES, np.nan), 0
    place = (np.arange(QUANTILES, dtype=np.int64) * (ascending.size - 1) + (QUANTILES - 1) // 2) // (QUANTILES - 1)
    return ascending[place], int(ascending.size)


def build_references(
    bars: BarArrays,
    features: dict[str, Floats],
    days: Integers,
    *,
    lookback_hours: int,
    min_lookback_hours: int,
) -> References:
    """References of every feature (each of shape (symbols, venues, bars)) for the given days.

    Bars outside the arrays count as unknown.
    """
    span = bars.rows_of(lookback_hours)
    built: dict[str, Reference] = {}
    last = bars.index_at(days * DAY_SECONDS)
    for name, values in features.items():
        quantiles = np.full((*values.shape[:2], days.size, QUANTILES), np.nan)
        observations = np.zeros((*values.shape[:2], days.size), dtype=np.int64)
        for symbol in range(values.shape[0]):
            for venue in range(values.shape[1]):
                series = values[symbol, venue]
                if np.isnan(series).all():
                    continue
                for position, ascending in enumerate(_sorted_windows(series, last.tolist(), span)):
                    quantiles[symbol, venue, position], observations[symbol, venue, position] = _spaced(ascending)
        built[name] = Reference(quantiles, observations)
    return References(days, built, needed_observations(min_lookback_hours, bars.step_seconds))


def _sorted_windows(series: Floats, last: list[int], span: int) -> Iterator[Floats]:
    """For each end in `last` (ascending), the known values of the `span` bars up to it, sorted.

    A day's window shares 29 of 30 days with the day before: what left is taken out of the sorted values and what came
    is put in, which is several times faster than sorting anew.
    """
    ascending = np.empty(0)
    start = stop = 0
    for end in last:
        new_start, new_stop = max(0, end + 1 - span), max(0, min(end + 1, series.size))
        leaving = np.sort(_known(series[start : min(new_start, stop)]))
        entering = np.sort(_known(series[max(stop, new_start) : new_stop]))
        # The nth of equal leaving values takes the place of the nth of them in the window.
        nth = np.arange(leaving.size) - np.searchsorted(leaving, leaving, side="left")
        stays = np.ones(ascending.size, dtype=bool)
        stays[np.searchsorted(ascending, leaving, side="left") + nth] = False
        staying = ascending[stays]
        place = np.searchsorted(staying, entering) + np.arange(entering.size)
        is_old = np.ones(staying.size + entering.size, dtype=bool)
        is_old[place] = False
        ascending = np.empty(is_old.size)
        ascending[place] = entering
        ascending[is_old] = staying
        start, stop = new_start, new_stop
        yield ascending


def _known(values: Floats) -> Floats:
    return values[~np.isnan(values)]


def percentile(references: References, feature: str, day_index: Integers, values: Floats) -> Floats:
    """Mid-rank of each value within its day's reference, 0..1; NaN if the value is unknown or the reference warming.

    values: (symbols, venues, points); day_index: (points,). The mid-rank is the mean of the shares of order statistics
    below and at-or-below the value, so a constant series sits at one half.
    """
    reference = references.features[feature]
    result = np.full(values.shape, np.nan)
    first_of_run = np.flatnonzero(np.diff(day_index, prepend=-1))
    runs = list(zip(first_of_run, [*first_of_run[1:], day_index.size], strict=True))
    for symbol in range(values.shape[0]):
        for venue in range(values.shape[1]):
            for first, stop in runs:
                day = day_index[first]
                if reference.observations[symbol, venue, day] < references.needed:
                    continue
                quantiles = reference.quantiles[symbol, venue, day]
                value = values[symbol, venue, first:stop]
                below = np.searchsorted(quantiles, value, side="left")
                at_or_below = below
                if (quantiles[np.minimum(below, QUANTILES - 1)] == value).any():
                    at_or_below = np.searchsorted(quantiles, value, side="right")
                rank = (below + at_or_below) / (2.0 * QUANTILES)
                result[symbol, venue, first:stop] = np.where(np.isnan(value), np.nan, rank)
    return result
